//! Attacks on the protocol itself: forged and borrowed signatures, keys in a second role, rewritten
//! histories, and bytes made to be expensive. `docs/THREAT_MODEL.md` names the test of each row.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_protocol::audit::Reason;
use countersign_protocol::canonical::{self, CanonicalError};
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody, CheckpointError, VerifierKey};
use countersign_protocol::command::Targets;
use countersign_protocol::entry::{self, Entry, EntryError};
use countersign_protocol::event::*;
use countersign_protocol::fold::{Effect, Refusal};
use countersign_protocol::hash::{Hash, StatementId};
use countersign_protocol::key::{KeyError, PublicKey};
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::permission::Permission;
use countersign_protocol::quorum::{BreakGlass, Membership, Requirement};
use countersign_protocol::rights::{ChangeBody, MAX_WAITING_ENROLMENTS};
use countersign_protocol::sshsig::{self, SshSig, SshSigError};
use countersign_protocol::statement::{Statement, StatementError};
use countersign_protocol::target::{MAX_TARGETS, TargetError, TargetLine, TargetList};
use support::{Book, key, public};

/// Every encoding of a point of small order, and two of them with a sign that zero does not have.
const SMALL_ORDER: [&str; 10] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

fn point(text: &str) -> [u8; 32] {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
}

fn key_blob(point: &[u8; 32]) -> Vec<u8> {
    let mut blob = Vec::new();
    string(&mut blob, b"ssh-ed25519");
    string(&mut blob, point);
    blob
}

/// An SSHSIG blob of any parts.
fn blob_of(key: &[u8], namespace: &str, signature: &[u8; 64]) -> Vec<u8> {
    let mut inner = Vec::new();
    string(&mut inner, b"ssh-ed25519");
    string(&mut inner, signature);
    let mut blob = b"SSHSIG\0\0\0\x01".to_vec();
    for field in [key, namespace.as_bytes(), b"", b"sha512", &inner] {
        string(&mut blob, field);
    }
    blob
}

fn verify(blob: &[u8], namespace: &str, payload: &[u8]) -> Result<(), SshSigError> {
    SshSig::from_blob(blob)?
        .verify(namespace, payload)
        .map(drop)
}

// 9: signatures that prove nothing

/// R is the identity and S = k·a: whoever holds the key can make it, it satisfies the plain equation,
/// and it is one of many signatures with the same R. The numbers were computed apart, in Python.
#[test]
fn a_signature_with_an_r_of_small_order_is_refused_under_a_good_key() {
    let (namespace, payload) = ("command.approved.v1@countersign", br#"{"a":1}"#);
    let signer = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
    let mut signature = [0; 64];
    signature[0] = 1;
    signature[32..].copy_from_slice(&point(
        "6fbca5cfe4e41f7871efd8c069335b8bc0f266dcb9b37b8dc4556c522da4190f",
    ));
    // It is the forgery that it claims to be: a lax verifier takes it.
    let lax = ed25519_dalek::Verifier::verify(
        &signer.verifying_key(),
        &sshsig::signed_data(namespace, payload),
        &ed25519_dalek::Signature::from_bytes(&signature),
    );
    assert!(lax.is_ok());
    let blob = blob_of(&PublicKey::of(&signer).to_blob(), namespace, &signature);
    assert_eq!(verify(&blob, namespace, payload), Err(SshSigError::Invalid));
}

/// S + L satisfies the same equation: a second signature that nobody made.
#[test]
fn a_signature_whose_s_is_not_reduced_is_refused() {
    const L: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    let signer = key("alice");
    let (namespace, payload) = ("command.approved.v1@countersign", br#"{"a":1}"#);
    let honest = sshsig::sign(&signer, namespace, payload).to_blob();
    verify(&honest, namespace, payload).unwrap();
    let mut signature: [u8; 64] = honest[honest.len() - 64..].try_into().unwrap();
    let mut carry = 0;
    for (byte, add) in signature[32..].iter_mut().zip(point(L)) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    let blob = blob_of(&PublicKey::of(&signer).to_blob(), namespace, &signature);
    assert_eq!(verify(&blob, namespace, payload), Err(SshSigError::Invalid));
}

/// y and y + p are one point: a second spelling would be a second key id of the same key.
#[test]
fn a_key_in_a_second_spelling_is_refused() {
    let mut tried = 0;
    for y in 2..19_u8 {
        let mut canonical = [0; 32];
        canonical[0] = y;
        if PublicKey::from_blob(&key_blob(&canonical)).is_err() {
            continue; // Not on the curve.
        }
        let mut second = [0xff; 32];
        second[0] = 0xed + y;
        second[31] = 0x7f;
        assert_eq!(
            PublicKey::from_blob(&key_blob(&second)),
            Err(KeyError::NotCanonical),
            "y = {y}"
        );
        tried += 1;
    }
    assert!(tried > 3, "only {tried} points were there");
}

#[test]
fn no_payload_and_no_change_names_a_weak_key() {
    let mut book = Book::genesis();
    let body = book.key_of("dave", "dave");
    let change = book.ask_change("alice", body.clone()).unwrap();
    let accepted = ChangeBody::AgentAccepted {
        agent: "dave".parse().unwrap(),
        key: public("dave"),
        replaces: None,
        labels: Vec::new(),
    };
    let rests_on = vec![1, 2];
    let effect = |book: &mut Book, body| {
        let rests_on = rests_on.clone();
        let effect = Effect::Change {
            change,
            body,
            rests_on,
        };
        book.ledger_header().effect(effect)
    };
    let documents = [body.to_document().unwrap(), accepted.to_document().unwrap()];
    let enrolled =
        say!(agent book, "dave", AgentEnrolled { key: public("dave"), sealing_key: None });
    let genesis = Event::from(LedgerGenesis {
        recovery_key: Some(public("dave")),
        ..book.state.rights().genesis().unwrap().clone()
    });
    let added = effect(&mut book, body);
    let accepted = effect(&mut book, accepted);
    let in_genesis = ["ledger", "checkpoint", "alice", "dave"];
    let fields = [(&enrolled, "dave"), (&added, "dave"), (&accepted, "dave")]
        .into_iter()
        .chain(in_genesis.map(|name| (&genesis, name)));
    let mut tried = 0;
    for (event, whose) in fields {
        let payload = String::from_utf8(event.to_payload().unwrap()).unwrap();
        let good = STANDARD.encode(public(whose).to_blob());
        assert!(payload.contains(&good), "{whose}: {payload}");
        for weak in SMALL_ORDER {
            let weak = STANDARD.encode(key_blob(&point(weak)));
            let error = Event::parse(event.kind(), payload.replace(&good, &weak).as_bytes());
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains("weak") || error.contains("not a canonical"),
                "{error}"
            );
            tried += 1;
        }
    }
    let good = STANDARD.encode(public("dave").to_blob());
    for document in documents {
        let text = String::from_utf8(document).unwrap();
        assert!(ChangeBody::parse(text.as_bytes()).is_ok());
        for weak in SMALL_ORDER {
            let weak = STANDARD.encode(key_blob(&point(weak)));
            assert!(ChangeBody::parse(text.replace(&good, &weak).as_bytes()).is_err());
            tried += 1;
        }
    }
    assert_eq!(tried, 90);
}

// 11: words of one kind presented as another, keys in a second role

/// Withdrawing, rejecting and cancelling have one shape: only the namespace keeps them apart.
#[test]
fn a_signature_for_one_kind_is_none_for_another_of_the_same_shape() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    let word = say!(person book, "alice", CommandWithdrawn { command: command, token: None, reason: None });
    let honest = Statement::sign(&word, &key("alice")).unwrap();
    for kind in [Kind::CommandRejected, Kind::CommandCancelRequested] {
        assert!(
            Event::parse(kind, &honest.payload).is_ok(),
            "the payload alone would do"
        );
        let moved = Statement {
            kind,
            ..honest.clone()
        };
        assert_eq!(
            moved.clone().verify().unwrap_err(),
            StatementError::Signature(SshSigError::Namespace)
        );
        assert_ne!(moved.id(), honest.id());
        // The namespace inside the blob changed too: then the signature is of other bytes.
        let signature: [u8; 64] = honest.signature[honest.signature.len() - 64..]
            .try_into()
            .unwrap();
        let relabelled = Statement {
            signature: blob_of(&public("alice").to_blob(), kind.namespace(), &signature),
            ..moved
        };
        assert_eq!(
            relabelled.verify().unwrap_err(),
            StatementError::Signature(SshSigError::Invalid)
        );
    }
}

#[test]
fn a_request_presented_as_an_approval_is_refused() {
    let mut book = Book::ready();
    let request = book.request_event("alice", &["web-1"]);
    let honest = Statement::sign(&request, &key("alice")).unwrap();
    let moved = Statement {
        kind: Kind::CommandApproved,
        ..honest.clone()
    };
    assert_eq!(
        moved.verify().unwrap_err(),
        StatementError::Signature(SshSigError::Namespace)
    );
    // Signed for what `ssh-keygen` signs files with, or without any signature: nothing either.
    let file = sshsig::sign(&key("alice"), "file", &honest.payload).to_blob();
    for signature in [file, Vec::new()] {
        let statement = Statement {
            signature,
            ..honest.clone()
        };
        assert!(statement.verify().is_err());
    }
}

#[test]
fn neither_key_of_the_ledger_does_the_others_work() {
    let mut book = Book::ready();
    let (signer, nonce, made_at, ledger, seen) = book.header("checkpoint");
    let beat = Event::from(LedgerHeartbeat {
        signer,
        nonce,
        made_at,
        ledger,
        seen,
    });
    assert_eq!(
        book.sign_and_append("checkpoint", &beat),
        Err(Refusal::KeyRole)
    );
    // A person's, and an agent's, do not speak for the ledger.
    for who in ["alice", "web-1"] {
        let (signer, ..) = book.header(who);
        let Event::LedgerHeartbeat(beat) = beat.clone() else {
            unreachable!("a heartbeat")
        };
        let beat = Event::from(LedgerHeartbeat { signer, ..beat });
        assert_eq!(book.sign_and_append(who, &beat), Err(Refusal::KeyRole));
    }
    let verifier = VerifierKey::of(
        &"ledger.example.com".parse().unwrap(),
        &public("checkpoint"),
    )
    .unwrap();
    let size = book.tree.size();
    let body = CheckpointBody {
        origin: verifier.origin().clone(),
        size,
        root: book.tree.root_at(size).unwrap(),
    };
    let honest = Checkpoint::sign(body.clone(), &key("checkpoint"));
    assert!(Checkpoint::open(honest.note(), &verifier).is_ok());
    let crossed = Checkpoint::sign(body, &key("ledger"));
    assert_eq!(
        Checkpoint::open(crossed.note(), &verifier),
        Err(CheckpointError::Unsigned)
    );
}

#[test]
fn a_key_gets_no_second_holder() {
    let mut book = Book::ready();
    for taken in ["checkpoint", "ledger", "gateway", "web-1", "bob"] {
        let body = book.key_of("dave", taken);
        assert_eq!(
            book.ask_change("alice", body),
            Err(Refusal::KeyTaken),
            "{taken}"
        );
    }
    let enrol = say!(agent book, "bob", AgentEnrolled { key: public("bob"), sealing_key: None });
    assert_eq!(book.sign_and_append("bob", &enrol), Err(Refusal::KeyTaken));
    // Two changes that wait at once cannot give one key to two people.
    let [first, second] = ["dave", "erin"].map(|name| {
        let body = book.key_of(name, "new");
        book.ask_change("alice", body).unwrap()
    });
    book.consent("bob", first).unwrap();
    let before = book.entries.len();
    book.consent("bob", second).unwrap();
    assert_eq!(book.entries.len(), before + 1, "a consent, and no effect");
    let record = book.state.rights().key(&public("new").key_id()).unwrap();
    assert_eq!(
        record.holder,
        countersign_protocol::rights::Holder::Person("dave".parse().unwrap())
    );
    book.audit().unwrap();
}

// 5, 6: a history that is written anew

/// Numbers and links the entries anew, as somebody with the database would.
fn relink(entries: Vec<Entry>) -> Vec<Vec<u8>> {
    let mut prev = Hash::ZERO;
    let mut seq = 0;
    let link = |entry: Entry| {
        let bytes = Entry { seq, prev, ..entry }.encode().unwrap();
        prev = entry::leaf(&bytes);
        seq += 1;
        bytes
    };
    entries.into_iter().map(link).collect()
}

fn decoded(book: &Book) -> Vec<Entry> {
    let decode = |bytes: &Vec<u8>| Entry::decode(bytes).unwrap();
    book.entries.iter().map(decode).collect()
}

/// A story in which a second passes between any two statements of people.
fn slow_story() -> Book {
    let mut book = Book::ready();
    book.now += SECOND_US;
    let command = book.request("alice", &["web-1"]).unwrap();
    book.now += SECOND_US;
    book.approve("bob", command).unwrap();
    book.now += SECOND_US;
    book.approve("carol", command).unwrap();
    book.now += SECOND_US;
    book.start("web-1", command).unwrap();
    book.audit().unwrap();
    book
}

#[test]
fn an_entry_dated_before_the_one_before_it_is_found_when_all_links_are_made_anew() {
    let book = slow_story();
    let mut entries = decoded(&book);
    let last = entries.len() - 1;
    assert_eq!(
        book.audit_of(&relink(entries.clone())).unwrap().size(),
        last as u64 + 1
    );
    let before = entries[last - 1].time.as_micros();
    entries[last].time = Time::from_micros(before - 1).unwrap();
    let found = book.audit_of(&relink(entries)).unwrap_err();
    assert_eq!((found.seq, found.reason), (last as u64, Reason::Time));
}

/// Within its neighbours' times an entry can be moved; whoever signed after it had seen it.
#[test]
fn an_entry_dated_anew_or_moved_is_found_by_the_next_signer_who_saw_it() {
    let book = slow_story();
    let honest = decoded(&book);
    let request = honest
        .iter()
        .position(|entry| entry.statement.kind == Kind::CommandRequested)
        .unwrap();
    let mut dated = honest.clone();
    dated[request].time = Time::from_micros(honest[request].time.as_micros() + 5).unwrap();
    let mut swapped = honest.clone();
    swapped.swap(1, 2);
    let mut removed = honest.clone();
    removed.remove(request - 1);
    for (forged, at_most) in [(dated, request + 1), (swapped, 2), (removed, request)] {
        let found = book.audit_of(&relink(forged)).unwrap_err();
        assert!(found.seq <= at_most as u64, "{found}");
    }
    let mut dated = honest.clone();
    dated[request].time = Time::from_micros(honest[request].time.as_micros() + 5).unwrap();
    let found = book.audit_of(&relink(dated)).unwrap_err();
    assert_eq!(found.reason, Reason::Refused(Refusal::SeenFork));
}

/// Nobody has signed after the last entry, so nobody's `seen` could show it: the link alone does.
#[test]
fn a_last_entry_that_links_elsewhere_is_found() {
    let book = slow_story();
    let mut entries = book.entries.clone();
    let mut last = Entry::decode(&entries.pop().unwrap()).unwrap();
    last.prev = entry::leaf(&entries[entries.len() - 2]);
    entries.push(last.encode().unwrap());
    let found = book.audit_of(&entries).unwrap_err();
    assert_eq!(
        (found.seq, found.reason),
        (entries.len() as u64 - 1, Reason::Link)
    );
}

/// A request entered twice would be a second command with one id.
#[test]
fn a_statement_entered_twice_is_found() {
    let book = slow_story();
    let mut entries = decoded(&book);
    let is_request = |entry: &&Entry| entry.statement.kind == Kind::CommandRequested;
    let mut again = entries.iter().find(is_request).unwrap().clone();
    again.time = entries.last().unwrap().time;
    entries.push(again);
    let found = book.audit_of(&relink(entries.clone())).unwrap_err();
    assert_eq!(
        (found.seq, found.reason),
        (entries.len() as u64 - 1, Reason::Duplicate)
    );
}

// 17: what a run says about itself

#[test]
fn a_completion_names_the_end_of_its_output_or_is_refused() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    let started = book.start("web-1", command).unwrap();
    let first = book.output("web-1", command, b"one").unwrap();
    let last = book.output("web-1", command, b"two").unwrap();
    let (agent_seq, agent_prev) = book.chain("web-1");
    let mut end = |(chunks, last_chunk): (u64, StatementId), kept: [u64; 2]| {
        let [stdout, stderr] = kept.map(|kept| StreamTotals {
            total: 7,
            kept,
            sha256: countersign_protocol::hash::Digest::new([2; 32]),
        });
        let event = say!(agent book, "web-1", ExecutionCompleted {
            command: command, agent_seq: agent_seq, agent_prev: agent_prev, started: started,
            detail: None, outcome: Outcome::Exited, exit_code: Some(0), signal: None,
            duration_us: 1, cpu_us: 1, max_rss: 1,
            stdout: stdout, stderr: stderr, chunks: chunks, last_chunk: last_chunk, tree_gone: true, masked: None,
        });
        book.sign_and_append("web-1", &event)
    };
    let broken = Err(Refusal::Chain { expected: 2 });
    let all = [6, 0];
    assert_eq!(end((1, first), all), broken, "the last chunk dropped");
    assert_eq!(end((2, first), all), broken, "another chunk in its place");
    assert_eq!(end((3, last), all), broken, "one that never came");
    assert_eq!(end((0, started), all), broken, "none at all");
    // A completion that the chunks contradict would fail every audit from here on.
    for (kept, field) in [
        ([7, 0], "stdout.kept"),
        ([5, 0], "stdout.kept"),
        ([6, 1], "stderr.kept"),
        ([0, 6], "stdout.kept"),
    ] {
        let refused = Err(Refusal::Binding(field));
        assert_eq!(end((2, last), kept), refused, "{kept:?}");
    }
    end((2, last), all).unwrap();
}

// 26: absence never means yes

#[test]
fn no_rule_asks_for_no_approval() {
    let mut book = Book::ready();
    for text in ["0 alice alice,bob", "1 alice -", "1 alice bob rejections=0"] {
        let asked = book.ask_policy("alice", text);
        assert!(
            matches!(asked, Err(Refusal::Policy(_))),
            "{text}: {asked:?}"
        );
    }
    let genesis = book.state.rights().genesis().unwrap().clone();
    for threshold in [0, 3] {
        let genesis = LedgerGenesis {
            threshold,
            ..genesis.clone()
        };
        assert!(Event::from(genesis).to_payload().is_err());
    }
}

#[test]
fn without_a_published_policy_administrators_ask_and_two_others_approve() {
    let mut book = Book::genesis();
    book.enrol("web-1");
    book.change(book.key_of("dave", "dave"));
    assert_eq!(book.request("dave", &["web-1"]), Err(Refusal::NoRule));
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    assert_eq!(book.status(command), "requested");
    let approved = book.approve("dave", command);
    assert_eq!(
        approved,
        Err(Refusal::NotPermitted(Permission::CommandApprove))
    );
    book.approve("carol", command).unwrap();
    assert_eq!(book.status(command), "authorized");
    book.audit().unwrap();
}

/// The holder of the ledger's key writes a requirement of its own into the authorization.
#[test]
fn an_authorization_cannot_lower_what_the_policy_asks() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    let policy = book.state.rights().policy().unwrap().reference;
    let honest = book.state.requirement(book.command(command)).unwrap();
    let bob = vec!["user:bob".parse().unwrap()];
    let lowered = Requirement {
        rules: honest.rules.clone(),
        ..Requirement::of(1, bob.clone())
    };
    let broken = Requirement {
        demands: Vec::new(),
        break_glass: Some(BreakGlass { review_ms: 1 }),
        ..honest.clone()
    };
    for requirement in [honest, lowered, broken] {
        let members = vec![Membership {
            of: bob[0].clone(),
            people: vec!["bob".parse().unwrap()],
        }];
        let lowered = Effect::Authorize {
            command,
            request_seq: book.command(command).requested.seq,
            approvals: vec![book.command(command).approvals[0].seq],
            policy,
            requirement,
            members,
        };
        let event = book.ledger_header().effect(lowered);
        assert_eq!(book.sign_and_append("ledger", &event), Err(Refusal::Quorum));
    }
    book.approve("carol", command).unwrap();
    assert_eq!(book.status(command), "authorized");
}

// 22: bytes made to be expensive

#[test]
fn a_list_of_targets_past_its_limits_is_refused() {
    let key_id = public("web-1").key_id();
    let line = |n: u64| TargetLine {
        agent: format!("h{n}").parse().unwrap(),
        key_id,
        service: None,
        spec: countersign_protocol::hash::Digest::new([1; 32]),
        turn: None,
        facts: None,
    };
    let many: Vec<TargetLine> = (0..=MAX_TARGETS).map(line).collect();
    assert_eq!(TargetList::new(many), Err(TargetError::Order));
    assert_eq!(TargetList::new(Vec::new()), Err(TargetError::Order));
    assert_eq!(
        TargetList::new(vec![line(1), line(1)]),
        Err(TargetError::Order)
    );
    // A document over its size is refused before it is parsed, whatever was signed.
    let mut book = Book::ready();
    let signed: Targets = book.act(&["web-1"]).targets;
    let huge = vec![b'['; 4 * 1024 * 1024 + 1];
    assert!(matches!(
        TargetList::parse(&huge, &signed),
        Err(TargetError::Document(CanonicalError::TooLarge { .. }))
    ));
    // The signed count and root bind: a list of another length is not the one that was signed.
    let honest = TargetList::new(vec![line(1)]).unwrap();
    let document = honest.to_document().unwrap();
    let described = honest.describe(signed.list).unwrap();
    assert!(TargetList::parse(&document, &described).is_ok());
    let lied = Targets {
        count: u64::MAX,
        ..described
    };
    assert_eq!(
        TargetList::parse(&document, &lied),
        Err(TargetError::Mismatch)
    );
}

#[test]
fn a_million_brackets_cost_one_look_and_no_stack() {
    let deep = vec![b'['; 1_000_000];
    assert_eq!(
        canonical::check_document(&deep, usize::MAX),
        Err(CanonicalError::TooDeep { at: 8 })
    );
    let nested = br#"{"a":"#.repeat(2000);
    assert_eq!(
        canonical::check_payload(&nested),
        Err(CanonicalError::TooDeep { at: 40 })
    );
    let long = vec![b'{'; canonical::MAX_PAYLOAD_BYTES + 1];
    assert!(matches!(
        canonical::check_payload(&long),
        Err(CanonicalError::TooLarge { .. })
    ));
}

#[test]
fn a_note_of_one_long_line_is_refused() {
    let verifier = VerifierKey::of(
        &"ledger.example.com".parse().unwrap(),
        &public("checkpoint"),
    )
    .unwrap();
    let body = CheckpointBody {
        origin: verifier.origin().clone(),
        size: 7,
        root: Hash::ZERO,
    };
    let honest = Checkpoint::sign(body, &key("checkpoint"));
    for (len, refused) in [(12 * 1024, false), (20 * 1024, true)] {
        let line = format!("\u{2014} witness.example {}\n", "AAAA".repeat(len / 4));
        let opened = Checkpoint::open(&format!("{}{line}", honest.note()), &verifier);
        assert_eq!(opened == Err(CheckpointError::TooLarge), refused, "{len}");
    }
}

/// A length field says 4 GiB and a few bytes follow: nothing is allocated for it, nothing is read.
#[test]
fn lengths_that_lie_are_refused() {
    let (book, _) = Book::story();
    let entry = &book.entries[0];
    let statement = Entry::decode(entry).unwrap().statement;
    // The payload's length stands before the payload.
    let at = entry::PREFIX.len() + 8 + 8 + 32 + 32 + 2 + statement.kind.namespace().len();
    for lie in [u32::MAX, 1 << 31, 32 * 1024] {
        let mut bytes = entry.clone();
        bytes[at..at + 4].copy_from_slice(&lie.to_be_bytes());
        assert_eq!(Entry::decode(&bytes), Err(EntryError::Short));
    }
    let huge = vec![0; entry::MAX_ENTRY_BYTES + 1];
    assert_eq!(
        Entry::decode(&huge),
        Err(EntryError::TooLarge(entry::MAX_ENTRY_BYTES + 1))
    );
    let blob = &statement.signature;
    for at in 10..blob.len() - 4 {
        let mut bytes = blob.clone();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        let refused = verify(&bytes, statement.kind.namespace(), &statement.payload);
        assert!(refused.is_err(), "at {at}");
    }
    assert_eq!(
        SshSig::from_armour(&format!(
            "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
            "A".repeat(1 << 20)
        )),
        Err(SshSigError::Malformed)
    );
    assert_eq!(
        PublicKey::from_blob(&vec![0; 4097]),
        Err(KeyError::Malformed)
    );
}

/// Enrolling is open to strangers, so what waits is bounded.
#[test]
fn strangers_fill_a_bounded_list_of_enrolments_and_no_more() {
    let mut book = Book::genesis();
    let mut enrol = |n: usize| {
        let who = format!("stranger-{n}");
        let event = say!(agent book, &who, AgentEnrolled { key: public(&who), sealing_key: None });
        book.sign_and_append(&who, &event)
    };
    for n in 0..MAX_WAITING_ENROLMENTS {
        enrol(n).unwrap();
    }
    assert_eq!(enrol(MAX_WAITING_ENROLMENTS), Err(Refusal::TooManyOpen));
    assert_eq!(enrol(0), Err(Refusal::KeyTaken));
}
