//! Bundles, made and verified: what is in one proves itself, and no bit of it can change unseen.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[macro_use]
#[path = "../../protocol/tests/support/mod.rs"]
mod support;
#[path = "bundles/claims.rs"]
mod claims;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, DefaultHasher, Hash as _, Hasher as _, RandomState};
use std::sync::Arc;

use countersign_policy::CedarJudge;
use countersign_protocol::audit::check_entry;
use countersign_protocol::blob::Blob;
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody};
use countersign_protocol::cosignature::{Cosignature, WitnessKey};
use countersign_protocol::event::{
    Event, ExecutionCompleted, Outcome, Stream as OutputStream, StreamTotals,
};
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::{CommandId, Digest, LedgerId, StatementId};
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::proof;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::tlog_proof::TlogProof;
use countersign_verifier::bundle::{Absence, Manifest, Page, Selection, Writer};
use countersign_verifier::{Expectations, OtherOutput, Report, Scope, verify};
use sha2::{Digest as _, Sha256};
use support::{Book, key};

/// Genesis alone, judged as everywhere else.
fn book() -> Book {
    Book::judged_by(Arc::new(CedarJudge::new()), |_| {})
}

/// Two commands of alice on web-1, the first of them run to its end.
fn story() -> (Book, CommandId, CommandId) {
    let mut book = book();
    book.enrol("web-1");
    let first = book.request("alice", &["web-1"]).unwrap();
    let other = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", first).unwrap();
    book.approve("carol", first).unwrap();
    book.start("web-1", first).unwrap();
    book.output("web-1", first, b"hello\n").unwrap();
    complete(&mut book, first, b"hello\n");
    (book, first, other)
}

fn totals(bytes: &[u8]) -> StreamTotals {
    StreamTotals {
        total: bytes.len() as u64,
        kept: bytes.len() as u64,
        sha256: Digest::new(Sha256::digest(bytes).into()),
    }
}

fn complete(book: &mut Book, command: CommandId, stdout: &[u8]) {
    let mut event = book.complete_event("web-1", command, 0);
    if let Event::ExecutionCompleted(done) = &mut event {
        let ExecutionCompleted {
            outcome: Outcome::Exited,
            ..
        } = done
        else {
            panic!("the book's runs exit")
        };
        done.stdout = totals(stdout);
        done.stderr = totals(b"");
    }
    book.sign_and_append("web-1", &event).unwrap();
}

fn ledger(book: &Book) -> LedgerId {
    book.state.rights().ledger().unwrap()
}

fn note(book: &Book) -> String {
    let size = book.tree.size();
    let body = CheckpointBody {
        origin: "ledger.example.com".parse().unwrap(),
        size,
        root: book.tree.root_at(size).unwrap(),
    };
    Checkpoint::sign(body, &key("checkpoint")).note().to_owned()
}

fn manifest(book: &Book, selection: Selection) -> Manifest {
    Manifest {
        ledger: ledger(book),
        origin: "ledger.example.com".parse().unwrap(),
        selection,
    }
}

/// The page of these entries, with all that they name; what the book has not is said to be erased.
fn page(book: &Book, seqs: &[u64]) -> Page {
    let entries: Vec<Vec<u8>> = seqs
        .iter()
        .map(|seq| book.entries[usize::try_from(*seq).unwrap()].clone())
        .collect();
    let named = entries.iter().flat_map(|bytes| {
        let entry = check_entry(bytes).unwrap();
        entry.verified.event().blobs()
    });
    let (mut blobs, mut absent) = (BTreeMap::new(), BTreeMap::new());
    for named in named {
        match book.blobs.get(&named.digest) {
            Some(blob) => drop(blobs.insert(named.digest, blob.clone())),
            None => drop(absent.insert(named.digest, Absence::Erased)),
        }
    }
    Page {
        first: seqs[0],
        entries,
        proofs: Vec::new(),
        absent,
        blobs,
    }
}

fn write(manifest: Manifest, note: String, pages: Vec<Page>) -> (Vec<u8>, Report) {
    let mut writer = Writer::new(Vec::new(), manifest, note).unwrap();
    for page in pages {
        writer.page(page).unwrap();
    }
    writer.finish().unwrap()
}

fn whole_pages(book: &Book) -> Vec<Page> {
    let all: Vec<u64> = (0..book.tree.size()).collect();
    all.chunks(5).map(|seqs| page(book, seqs)).collect()
}

fn whole(book: &Book) -> Vec<u8> {
    let (bytes, report) = write(
        manifest(book, Selection::Whole),
        note(book),
        whole_pages(book),
    );
    assert_eq!(report.first_bad, None);
    bytes
}

/// Places of everything on rights and of one command.
fn places(book: &Book, command: CommandId) -> Vec<u64> {
    let belongs = |bytes: &Vec<u8>| {
        let entry = check_entry(bytes).unwrap();
        let stream = Stream::of(entry.verified.event(), entry.verified.id());
        matches!(stream, Some(Stream::Rights)) || stream == Some(Stream::Command(command))
    };
    let entries = (0..).zip(&book.entries);
    let chosen = entries.filter(|(_, bytes)| belongs(bytes));
    chosen.map(|(seq, _)| seq).collect()
}

fn proof_of(book: &Book, seq: u64) -> TlogProof {
    TlogProof {
        index: seq,
        hashes: proof::inclusion_proof(&book.tree, seq, book.tree.size()).unwrap(),
        note: note(book),
    }
}

fn excerpt_page(book: &Book, command: CommandId) -> Page {
    let seqs = places(book, command);
    let mut page = page(book, &seqs);
    page.proofs = seqs.iter().map(|seq| proof_of(book, *seq)).collect();
    page
}

fn excerpt(book: &Book, command: CommandId) -> (Vec<u8>, Report) {
    let selection = Selection::Commands(vec![command]);
    let pages = vec![excerpt_page(book, command)];
    write(manifest(book, selection), note(book), pages)
}

fn check(bytes: &[u8]) -> Report {
    verify(bytes, &Expectations::default(), &mut |_| {}).unwrap()
}

fn check_pinned(bytes: &[u8], ledger: LedgerId) -> Report {
    let expectations = Expectations {
        ledger: Some(ledger),
        ..Expectations::default()
    };
    verify(bytes, &expectations, &mut |_| {}).unwrap()
}

/// The name of what is wrong, and where.
fn found(report: &Report) -> (&'static str, u64) {
    let bad = report.first_bad.as_ref().unwrap();
    (bad.name, bad.seq)
}

#[test]
fn a_whole_ledger_proves_itself() {
    let (book, _, _) = story();
    let report = check_pinned(&whole(&book), ledger(&book));
    assert_eq!(report.first_bad, None);
    assert!(report.ok && report.pinned);
    assert_eq!(report.scope, Scope::Whole);
    assert_eq!(
        (report.size, report.entries),
        (book.tree.size(), book.tree.size())
    );
    assert_eq!(report.checkpoints, 1);
    assert_eq!((report.outputs.ok, report.outputs.partial), (2, 0));
    assert_eq!(report.not_rejudged, 0);
}

#[test]
fn an_excerpt_proves_itself_and_says_that_it_is_one() {
    let (book, command, _) = story();
    let (bytes, written) = excerpt(&book, command);
    let report = check_pinned(&bytes, ledger(&book));
    assert_eq!(report.first_bad, None);
    assert!(report.ok && report.pinned);
    assert_eq!(report.scope, Scope::Excerpt);
    assert_eq!(report.size, book.tree.size());
    assert!(report.entries < report.size);
    assert!(report.to_string().contains("an excerpt"));
    assert_eq!(written.entries, report.entries);
}

#[test]
fn the_same_evidence_is_the_same_file() {
    let (book, command, _) = story();
    assert_eq!(whole(&book), whole(&book));
    assert_eq!(excerpt(&book, command).0, excerpt(&book, command).0);
}

#[test]
fn another_ledger_than_the_pinned_one_is_refused() {
    let (book, command, _) = story();
    let other = LedgerId::new([7; 32]);
    for bytes in [whole(&book), excerpt(&book, command).0] {
        assert_eq!(found(&check_pinned(&bytes, other)), ("other_ledger", 0));
    }
}

#[test]
fn withheld_content_is_counted_and_content_that_is_just_gone_is_a_failure() {
    let (book, _, _) = story();
    let withheld = |absence: Option<Absence>| {
        let mut pages = whole_pages(&book);
        let output = pages.iter_mut().rev().find_map(|page| {
            let hello = page
                .blobs
                .iter()
                .find(|(_, blob)| blob.content() == b"hello\n");
            let digest = *hello?.0;
            page.blobs.remove(&digest);
            Some((page, digest))
        });
        let (page, digest) = output.unwrap();
        page.absent.extend(absence.map(|absence| (digest, absence)));
        write(manifest(&book, Selection::Whole), note(&book), pages)
    };
    let (bytes, report) = withheld(Some(Absence::Withheld));
    assert_eq!(report, check_pinned(&bytes, ledger(&book)));
    assert!(report.ok);
    assert_eq!(report.blobs.withheld, 1);
    assert_eq!((report.outputs.ok, report.outputs.partial), (1, 1));
    let (bytes, _) = withheld(Some(Absence::Erased));
    assert_eq!(found(&check(&bytes)).0, "erased_unsaid");
    let (bytes, _) = withheld(None);
    assert_eq!(found(&check(&bytes)).0, "missing_content");
}

fn redaction(command: CommandId, digest: Digest) -> ChangeBody {
    ChangeBody::BlobRedacted {
        command,
        digests: vec![digest],
        legal_basis: "gdpr-17".parse().unwrap(),
    }
}

fn digest_of(book: &Book, content: &[u8]) -> Digest {
    let mut blobs = book.blobs.iter();
    *blobs.find(|(_, blob)| blob.content() == content).unwrap().0
}

#[test]
fn erased_content_is_counted_where_an_entry_says_so_and_an_excerpt_has_that_entry() {
    let (mut book, command, other) = story();
    let output = digest_of(&book, b"hello\n");
    book.change(redaction(command, output));
    book.blobs.remove(&output);
    let seq = book.tree.size() - 1;
    for bytes in [whole(&book), excerpt(&book, command).0] {
        let report = check_pinned(&bytes, ledger(&book));
        assert_eq!(report.first_bad, None);
        assert_eq!((report.blobs.redacted, report.blobs.erased), (1, 0));
        assert_eq!(
            (report.redacted_by[0].seq, report.redacted_by[0].texts),
            (seq, 1)
        );
        assert!(
            report
                .to_string()
                .contains(&format!("redacted at entry {seq}"))
        );
    }
    // Of another command nothing is missing; that something was erased is told all the same.
    let report = check(&excerpt(&book, other).0);
    assert_eq!((report.first_bad, report.blobs.redacted), (None, 0));
    assert_eq!(report.redacted_by[0].texts, 0);
    // Left out of the excerpt, the entry excuses nothing.
    let mut page = excerpt_page(&book, command);
    page.entries.pop();
    page.proofs.pop();
    let manifest = manifest(&book, Selection::Commands(vec![command]));
    let (_, report) = write(manifest, note(&book), vec![page]);
    assert_eq!(found(&report).0, "erased_unsaid");
}

#[test]
fn a_redaction_excuses_no_other_text() {
    let (mut book, command, _) = story();
    book.change(redaction(command, digest_of(&book, b"hello\n")));
    let reason = digest_of(&book, b"because");
    book.blobs.remove(&reason);
    let pages = whole_pages(&book);
    let (bytes, _) = write(manifest(&book, Selection::Whole), note(&book), pages);
    assert_eq!(found(&check(&bytes)).0, "erased_unsaid");
}

/// The book asks nobody who names a text: a ledger that lets too much pass.
#[test]
fn a_redaction_of_what_a_held_an_open_or_no_such_command_names_is_found() {
    let (mut book, command, other) = story();
    let Event::CommandRequested(mut event) = book.request_event("alice", &["web-1"]) else {
        unreachable!("a request");
    };
    event.reason = book.command(command).request.reason;
    let reason = event.reason.digest;
    let shares = book.sign_and_append("alice", &event.into()).unwrap();
    let erase = |book: &mut Book, command| {
        book.change(redaction(command, reason));
        book.blobs.remove(&reason);
        let pages = whole_pages(book);
        let (bytes, _) = write(manifest(book, Selection::Whole), note(book), pages);
        let report = check(&bytes);
        assert_eq!(found(&report).1, book.tree.size() - 1);
        found(&report).0
    };
    let (mut open, _, _) = (book, command, other);
    open.say_no("bob", other, false).unwrap();
    assert_eq!(erase(&mut open, command), "not_settled");
    for (held, name) in [(true, "held"), (false, "not_erasable")] {
        let (mut book, command, other) = story();
        let Event::CommandRequested(mut event) = book.request_event("alice", &["web-1"]) else {
            unreachable!("a request");
        };
        event.reason = book.command(command).request.reason;
        assert_eq!(event.reason.digest, reason);
        let second = book.sign_and_append("alice", &event.into()).unwrap();
        assert_eq!(second, shares);
        book.say_no("bob", second, false).unwrap();
        book.say_no("bob", other, false).unwrap();
        let mut of = other;
        if held {
            book.change(ChangeBody::HoldPlaced {
                hold: "case-1".parse().unwrap(),
                commands: vec![second],
                agent: None,
                requester: None,
            });
            of = command;
        }
        assert_eq!(erase(&mut book, of), name);
    }
}

/// A run whose host says at its end that it wrote something else than its chunks hold; what is said of it.
fn contradicted() -> (Book, CommandId, OtherOutput) {
    let mut book = book();
    book.enrol("web-1");
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    book.start("web-1", command).unwrap();
    book.output("web-1", command, b"hello\n").unwrap();
    complete(&mut book, command, b"HELLO\n");
    let told = OtherOutput {
        seq: book.tree.size() - 1,
        command,
        agent: "web-1".parse().unwrap(),
        stream: OutputStream::Stdout,
    };
    (book, command, told)
}

#[test]
fn output_that_differs_from_what_the_host_said_at_the_end_is_told_and_the_rest_is_verified() {
    let (mut book, command, told) = contradicted();
    book.request("alice", &["web-1"]).unwrap();
    for bytes in [whole(&book), excerpt(&book, command).0] {
        let report = check(&bytes);
        assert!(report.ok && report.is_suspect());
        assert_eq!(report.other_outputs, std::slice::from_ref(&told));
        assert_eq!(report.outputs.ok, 1, "standard error holds");
        let said = format!(
            "SUSPECT: other_output at entry {}: standard output",
            told.seq
        );
        assert!(report.to_string().contains(&said), "{report}");
    }
    assert_eq!(check(&whole(&book)).size, book.tree.size());
}

/// Whoever stole one host's key would otherwise hide whatever stands behind.
#[test]
fn behind_output_that_differs_a_changed_entry_is_found_all_the_same() {
    let (mut book, _, told) = contradicted();
    book.request("alice", &["web-1"]).unwrap();
    let mut pages = whole_pages(&book);
    let last = pages.last_mut().unwrap().entries.last_mut().unwrap();
    *last.last_mut().unwrap() ^= 1;
    let (bytes, _) = write(manifest(&book, Selection::Whole), note(&book), pages);
    let report = check(&bytes);
    assert_eq!(found(&report), ("bad_statement", book.tree.size() - 1));
    assert_eq!(report.other_outputs, [told]);
}

#[test]
fn a_bundle_says_by_name_what_is_wrong_with_it() {
    let (book, command, other) = story();
    let whole_of = |pages| write(manifest(&book, Selection::Whole), note(&book), pages).0;
    let excerpt_of = |ids: Vec<CommandId>, note: String, page: Page| {
        write(manifest(&book, Selection::Commands(ids)), note, vec![page]).0
    };
    let name = |bytes: &[u8]| found(&check(bytes)).0;

    // Nothing in it.
    assert_eq!(name(&[]), "cut_off");
    assert_eq!(name(&whole_of(Vec::new())), "empty");
    // The end was cut off.
    let mut pages = whole_pages(&book);
    pages.pop();
    assert_eq!(name(&whole_of(pages)), "cut_off");
    // A page is missing in the middle.
    let mut pages = whole_pages(&book);
    pages.remove(1);
    assert_eq!(name(&whole_of(pages)), "missing_entry");
    // Another entry's proof.
    let mut page = excerpt_page(&book, command);
    page.proofs.swap(1, 2);
    assert_eq!(
        name(&excerpt_of(vec![command], note(&book), page)),
        "other_proof"
    );
    // A proof that is not one.
    let mut page = excerpt_page(&book, command);
    page.proofs[1].hashes[0] = countersign_protocol::hash::Hash::new([1; 32]);
    assert_eq!(
        name(&excerpt_of(vec![command], note(&book), page)),
        "not_included"
    );
    // A proof for another checkpoint.
    let mut page = excerpt_page(&book, command);
    page.proofs[1].note = "other.example.com\n1\nAAAA\n\n\u{2014} x AAAAAAAA\n".to_owned();
    assert_eq!(
        name(&excerpt_of(vec![command], note(&book), page)),
        "other_checkpoint"
    );
    // Nobody signed the checkpoint, somebody else did, or it is another log's.
    for (origin, signer, expected) in [
        ("ledger.example.com", "mallory", "unsigned_checkpoint"),
        ("other.example.com", "checkpoint", "foreign_origin"),
    ] {
        let body = CheckpointBody {
            origin: origin.parse().unwrap(),
            size: book.tree.size(),
            root: book.tree.root_at(book.tree.size()).unwrap(),
        };
        let forged = Checkpoint::sign(body, &key(signer)).note().to_owned();
        let bytes = write(
            manifest(&book, Selection::Whole),
            forged.clone(),
            whole_pages(&book),
        );
        assert_eq!(name(&bytes.0), expected);
        let mut page = excerpt_page(&book, command);
        for proof in &mut page.proofs {
            proof.note.clone_from(&forged);
        }
        assert_eq!(name(&excerpt_of(vec![command], forged, page)), expected);
    }
    // A command that the manifest names and the bundle lacks; one that it does not name.
    let page = excerpt_page(&book, command);
    let mut ids = vec![command, other];
    ids.sort_unstable();
    assert_eq!(
        name(&excerpt_of(ids, note(&book), page.clone())),
        "missing_command"
    );
    assert_eq!(
        name(&excerpt_of(vec![other], note(&book), page)),
        "stray_entry"
    );
    // A blob that nothing names.
    let mut pages = whole_pages(&book);
    let stray = Blob::new([1; 32], b"read me".to_vec()).unwrap();
    pages[1].blobs.insert(stray.reference().digest, stray);
    assert_eq!(name(&whole_of(pages)), "stray_blob");
    // Another version.
    let bytes = whole(&book);
    let newer = replace(&bytes, b"\"version\":1}", b"\"version\":2}");
    assert_eq!(name(&newer), "unknown_version");
    // Words for people that say something else.
    let readme = replace(&bytes, b"You need not trust", b"You must now trust");
    assert_eq!(name(&readme), "changed_readme");
    let index = replace(&bytes, b"person:alice</td>", b"person:mally</td>");
    assert_eq!(name(&index), "changed_index");
    // No bundle at all.
    assert_eq!(name(&[b'x'; 2048]), "bad_container");
}

/// Whoever holds the ledger's other key can append, and cannot sign the checkpoint.
#[test]
fn entries_behind_the_checkpoint_are_found() {
    let (book, _, _) = story();
    let covered = book.tree.size() - 1;
    let body = CheckpointBody {
        origin: "ledger.example.com".parse().unwrap(),
        size: covered,
        root: book.tree.root_at(covered).unwrap(),
    };
    let older = Checkpoint::sign(body, &key("checkpoint")).note().to_owned();
    let (bytes, _) = write(manifest(&book, Selection::Whole), older, whole_pages(&book));
    assert_eq!(found(&check(&bytes)), ("uncovered", covered));
}

/// The first occurrence of some bytes, replaced by as many others.
fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|part| part == from);
    let at = at.unwrap();
    let mut changed = bytes.to_vec();
    changed[at..at + to.len()].copy_from_slice(to);
    changed
}

/// What a stolen ledger key can write in the name of a rule is judged again, from the bundle alone.
#[test]
fn a_forged_authorization_is_found_in_a_bundle() {
    let mut book = book();
    book.enrol("web-1");
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    let honest = whole(&book);
    assert!(check(&honest).ok);
    // Without carol's approval the authorization that follows rests on one of two.
    let seqs: Vec<u64> = (0..book.tree.size()).collect();
    let without: BTreeSet<StatementId> = seqs
        .iter()
        .filter_map(|seq| {
            let bytes = &book.entries[usize::try_from(*seq).unwrap()];
            let entry = check_entry(bytes).unwrap();
            let is_hers = entry.verified.event().kind().as_str() == "command.approved"
                && *seq + 2 == book.tree.size();
            is_hers.then(|| entry.verified.id())
        })
        .collect();
    assert_eq!(without.len(), 1);
    let places: Vec<u64> = places(&book, command)
        .into_iter()
        .filter(|seq| seq + 2 != book.tree.size())
        .collect();
    let mut page = page(&book, &places);
    page.proofs = places.iter().map(|seq| proof_of(&book, *seq)).collect();
    let selection = Selection::Commands(vec![command]);
    let (bytes, _) = write(manifest(&book, selection), note(&book), vec![page]);
    let report = check(&bytes);
    assert_eq!(found(&report).1, book.tree.size() - 1, "{report}");
}

/// The bundle's checkpoint with the words of these witnesses at these seconds.
fn cosigned(book: &Book, words: &[(&str, u64)]) -> String {
    let size = book.tree.size();
    let body = CheckpointBody {
        origin: "ledger.example.com".parse().unwrap(),
        size,
        root: book.tree.root_at(size).unwrap(),
    };
    let checkpoint = Checkpoint::sign(body, &key("checkpoint"));
    let lines: Vec<String> = words
        .iter()
        .map(|(name, seconds)| {
            let at = Time::from_micros(seconds * SECOND_US).unwrap();
            let name_of = name.parse().unwrap();
            let word = Cosignature::sign(checkpoint.body(), &name_of, &key(name), at);
            word.line().to_owned()
        })
        .collect();
    let lines = lines.iter().map(String::as_str);
    checkpoint.with_lines(lines).unwrap().note().to_owned()
}

#[test]
fn witnesses_say_by_when_it_was_there_and_too_few_or_forged_ones_are_refused() {
    let (book, command, _) = story();
    let vkey = |name: &str| WitnessKey::of(&name.parse().unwrap(), &key(name)).to_string();
    let names = ["one.example.com", "two.example.com", "three.example.com"];
    let mut policy = String::new();
    for (place, name) in names.iter().enumerate() {
        policy.push_str(&format!("witness w{place} {}\n", vkey(name)));
    }
    policy.push_str("group two 2 w0 w1 w2\nquorum two\n");
    let expectations = Expectations {
        ledger: Some(ledger(&book)),
        witnesses: Some(policy.parse().unwrap()),
        ..Expectations::default()
    };
    let bundles = |note: &str| {
        let whole = write(
            manifest(&book, Selection::Whole),
            note.to_owned(),
            whole_pages(&book),
        );
        let mut page = excerpt_page(&book, command);
        for proof in &mut page.proofs {
            note.clone_into(&mut proof.note);
        }
        let selection = Selection::Commands(vec![command]);
        let excerpt = write(manifest(&book, selection), note.to_owned(), vec![page]);
        [whole.0, excerpt.0]
    };
    let judge = |bytes: &[u8]| verify(bytes, &expectations, &mut |_| {}).unwrap();
    for bytes in bundles(&cosigned(&book, &[(names[2], 900), (names[0], 500)])) {
        let witnessed = judge(&bytes).witnessed.unwrap();
        assert_eq!(witnessed.witnesses, 2);
        assert_eq!(witnessed.by_us.as_micros(), 900 * SECOND_US);
    }
    for bytes in bundles(&cosigned(&book, &[(names[1], 500), (names[1], 900)])) {
        assert_eq!(found(&judge(&bytes)).0, "unwitnessed");
    }
    let forged = cosigned(&book, &[(names[0], 500), (names[1], 500)]);
    let at = forged
        .rfind("= ")
        .or_else(|| forged.trim_end().rfind(' '))
        .unwrap()
        + 20;
    let other = if forged.as_bytes()[at] == b'A' {
        "B"
    } else {
        "A"
    };
    let forged = [&forged[..at], other, &forged[at + 1..]].concat();
    for bytes in bundles(&forged) {
        assert!(["forged_checkpoint", "unwitnessed"].contains(&found(&judge(&bytes)).0));
    }
}

/// Of so many bytes one is changed by one bit: all of them take minutes without optimization.
const SWEPT: usize = 13;

/// Says which bytes are changed by which bits where the run before is to be repeated.
const SEED: &str = "COUNTERSIGN_SWEEP_SEED";

/// One bit in each of many bytes, over all of two bundles; others each time.
#[test]
fn no_byte_of_a_bundle_can_change_unseen() {
    let (whole, excerpt) = to_be_swept();
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| RandomState::new().hash_one(SEED));
    println!("{SEED}={seed} changes the same bits again");
    let some = |at: usize| {
        let mut hasher = DefaultHasher::new();
        (seed, at / SWEPT).hash(&mut hasher);
        let [low, high, ..] = hasher.finish().to_le_bytes();
        let chosen = usize::from(u16::from_le_bytes([low, high]));
        (at % SWEPT == chosen % SWEPT).then_some(chosen / SWEPT % 8)
    };
    sweep(&whole, some);
    sweep(&excerpt, some);
}

/// The same with every bit of every byte, as `.ci/run` does it:
/// `cargo test --release -p countersign-verifier --test bundles -- --ignored`.
#[test]
#[ignore = "five minutes of one core in release, half an hour without; .ci/run has it"]
fn no_bit_of_a_bundle_can_change_unseen() {
    let (whole, excerpt) = to_be_swept();
    sweep(&whole, |_| 0..8);
    sweep(&excerpt, |_| 0..8);
}

/// A small ledger, and a command of it.
fn to_be_swept() -> (Vec<u8>, Vec<u8>) {
    let mut book = book();
    book.enrol("web-1");
    let command = book.request("alice", &["web-1"]).unwrap();
    (whole(&book), excerpt(&book, command).0)
}

fn sweep<B: IntoIterator<Item = usize>>(bytes: &[u8], bits: impl Fn(usize) -> B + Sync) {
    assert!(check(bytes).ok);
    let half = bytes.len() / 2;
    let part = |range: std::ops::Range<usize>| {
        let mut changed = bytes.to_vec();
        for at in range {
            for bit in bits(at) {
                changed[at] ^= 1 << bit;
                let report = check(&changed);
                assert!(!report.ok, "bit {bit} of byte {at} changed unseen");
                changed[at] ^= 1 << bit;
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| part(0..half));
        scope.spawn(|| part(half..bytes.len()));
    });
}
