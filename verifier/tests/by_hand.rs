//! `docs/verify-by-hand.md` against a hostile operator, who has the ledger's keys and signs a checkpoint
//! over whatever was written. `tests/blackbox/by_hand.rs` runs it on exported bundles.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and this one runs what the page names"
)]

#[macro_use]
#[path = "../../protocol/tests/support/mod.rs"]
mod support;
#[path = "../../tests/support/left_out.rs"]
mod left_out;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use countersign_policy::CedarJudge;
use countersign_protocol::audit::check_entry;
use countersign_protocol::blob::Blob;
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody};
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::{CommandWithdrawn, Event};
use countersign_protocol::hash::{Digest, KeyId, LedgerId};
use countersign_protocol::name::Time;
use countersign_protocol::statement::Statement;
use countersign_verifier::bundle::{Manifest, Page, Selection, Writer};
use support::{Book, key, public};

const PAGE: &str = include_str!("../../docs/verify-by-hand.md");

/// What the page asks of its reader.
const TOOLS: &str =
    "for tool in tar ssh-keygen openssl sha256sum python3; do command -v $tool || exit 1; done";

fn blocks(language: &str) -> String {
    let opened = PAGE.split("\n```").skip(1).step_by(2);
    let named = opened.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    named.collect::<Vec<_>>().join("\n") + "\n"
}

/// What the page says of a bundle: whether it holds, and all its words.
fn follow(bundle: &[u8], ledger: LedgerId) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evidence.tar");
    fs::write(&file, bundle).unwrap();
    fs::write(folder.path().join("by-hand.py"), blocks("python")).unwrap();
    let output = Command::new("sh")
        .args(["-eu", "-c", &blocks("sh")])
        .current_dir(folder.path())
        .env("BUNDLE", &file)
        .env("LEDGER", ledger.to_string())
        .output()
        .unwrap();
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words).into_owned();
    (output.status.success(), words)
}

/// alice has asked.
fn asked() -> Book {
    let mut book = Book::judged_by(Arc::new(CedarJudge::new()), |_| {});
    book.enrol("web-1");
    book.request("alice", &["web-1"]).unwrap();
    book
}

/// One more entry, which nobody has judged.
fn append(book: &mut Book, key_id: KeyId, statement: Statement) {
    let entry = Entry {
        seq: book.tree.size(),
        time: Time::from_micros(book.now).unwrap(),
        prev: book.last,
        key_id,
        statement,
    };
    let bytes = entry.encode().unwrap();
    book.tree.push(entry::leaf(&bytes));
    book.entries.push(bytes);
}

/// bob withdraws what alice asked for; for the page, which judges no rights, as good as any.
fn word(book: &mut Book, who: &str) -> CommandWithdrawn {
    let command = Entry::decode(book.entries.last().unwrap()).unwrap();
    let command = command.statement.id();
    let event =
        say!(person book, who, CommandWithdrawn { command: command, token: None, reason: None });
    let Event::CommandWithdrawn(said) = event else {
        panic!("{event:?}");
    };
    said
}

fn sign(said: CommandWithdrawn, who: &str) -> Statement {
    Statement::sign(&Event::CommandWithdrawn(said), &key(who)).unwrap()
}

fn bundle(book: &Book, origin: &str, signer: &str) -> Vec<u8> {
    let size = book.tree.size();
    let body = CheckpointBody {
        origin: origin.parse().unwrap(),
        size,
        root: book.tree.root_at(size).unwrap(),
    };
    let manifest = Manifest {
        ledger: book.state.rights().ledger().unwrap(),
        origin: "ledger.example.com".parse().unwrap(),
        selection: Selection::Whole,
    };
    let note = Checkpoint::sign(body, &key(signer)).note().to_owned();
    let sound = book
        .entries
        .iter()
        .filter_map(|bytes| check_entry(bytes).ok());
    let named = sound.flat_map(|entry| entry.verified.event().blobs());
    let blobs: BTreeMap<Digest, Blob> = named
        .map(|named| (named.digest, book.blobs[&named.digest].clone()))
        .collect();
    let mut writer = Writer::new(Vec::new(), manifest, note).unwrap();
    let page = Page {
        first: 0,
        entries: book.entries.clone(),
        proofs: Vec::new(),
        absent: BTreeMap::new(),
        blobs,
    };
    writer.page(page).unwrap();
    writer.finish().unwrap().0
}

fn fails(bundle: &[u8], book: &Book, place: &str, why: &str) {
    let ledger = book.state.rights().ledger().unwrap();
    let (holds, words) = follow(bundle, ledger);
    assert!(!holds, "{why}: {words}");
    let expected = format!("NOT OK: {place}: {why}");
    assert!(words.contains(&expected), "{expected}: {words}");
}

#[test]
fn what_a_hostile_operator_signs_into_the_log_is_found_by_hand() {
    let tools = Command::new("sh").args(["-c", TOOLS]).output();
    if !tools.is_ok_and(|found| found.status.success()) {
        return left_out::left_out("the page's tools are not here: a hostile ledger, by hand");
    }
    let mallory = |book: &mut Book| {
        let said = word(book, "mallory");
        (public("mallory").key_id(), sign(said, "mallory"))
    };
    let anothers_name = |book: &mut Book| {
        let mut said = word(book, "bob");
        said.principal = "carol".parse().unwrap();
        (public("bob").key_id(), sign(said, "bob"))
    };
    let another_ledger = |book: &mut Book| {
        let mut said = word(book, "bob");
        said.ledger = LedgerId::new([7; 32]);
        (public("bob").key_id(), sign(said, "bob"))
    };
    let anothers_key = |book: &mut Book| {
        let mut said = word(book, "bob");
        said.principal = "carol".parse().unwrap();
        (public("carol").key_id(), sign(said, "bob"))
    };
    let other_words = |book: &mut Book| {
        let mut statement = sign(word(book, "bob"), "bob");
        statement.signature = sign(word(book, "bob"), "bob").signature;
        (public("bob").key_id(), statement)
    };
    type Forgery<'a> = &'a dyn Fn(&mut Book) -> (KeyId, Statement);
    let forgeries: [(Forgery<'_>, &str); 5] = [
        (&mallory, "it is signed by nobody"),
        (&anothers_name, "it is signed by person:bob, for another"),
        (&another_ledger, "it was said to another ledger"),
        (&anothers_key, "another key signed it than it names"),
        (&other_words, "this is not what person:bob signed"),
    ];
    for (forge, why) in forgeries {
        let mut book = asked();
        let place = format!("entry {}", book.tree.size());
        let (key_id, statement) = forge(&mut book);
        append(&mut book, key_id, statement);
        let bundle = bundle(&book, "ledger.example.com", "checkpoint");
        fails(&bundle, &book, &place, why);
    }
    let mut book = asked();
    let said = word(&mut book, "bob");
    append(&mut book, public("bob").key_id(), sign(said, "bob"));
    let honest = bundle(&book, "ledger.example.com", "checkpoint");
    let (holds, words) = follow(&honest, book.state.rights().ledger().unwrap());
    assert!(holds, "{words}");
    let other = bundle(&book, "other.example.com", "checkpoint");
    fails(&other, &book, "checkpoint", "it is of another origin");
    let other = bundle(&book, "ledger.example.com", "mallory");
    fails(
        &other,
        &book,
        "checkpoint",
        "entry 0's checkpoint_key did not",
    );
}
