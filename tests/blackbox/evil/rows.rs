//! Rows 4 and 20: rows and texts changed where they lie, with the guards off. A verifier makes each
//! of them again from the entries, and names the first that is not as it was.

use countersign_protocol::event::{BlobRedacted, Event};
use countersign_protocol::name::Nonce;
use countersign_protocol::statement::Statement;

use super::{TAMPERING, copy, forge, named, newcomer, place};
use crate::servers::Server;
use crate::support::{Dev, psql, text};

/// Does something to a copy of the database as its superuser, and says what is named.
fn found(dev: &Dev, name: &str, steps: &[&str]) -> (u64, String) {
    let database = copy(dev, name);
    let off = "SET session_replication_role = replica";
    let script = [&[off], steps].concat().join("; ");
    psql(&database.owner, &script);
    named(dev, &database)
}

#[test]
fn whatever_a_superuser_does_to_the_rows_is_named_by_its_entry() {
    let dev = Dev::start();
    dev.through(&[], &["echo", "hello"]);
    let untouched = copy(&dev, "untouched");
    let (_, report) = super::stranger(&dev, &untouched);
    assert_eq!(report["ok"], true, "{report}");
    let size = report["size"].as_u64().unwrap();
    let noted = psql(
        &untouched.owner,
        "SELECT size FROM checkpoints ORDER BY size DESC OFFSET 2 LIMIT 1",
    );
    let noted: u64 = noted.parse().unwrap();
    let behind =
        format!("INSERT INTO entries (seq, entry) SELECT {size}, entry FROM entries WHERE seq = 3");
    let cut_note = format!(
        "UPDATE checkpoints SET note = replace(note, E'\\n\\n', E'\\n') WHERE size = {noted}"
    );
    let ready = |ready: &str| {
        format!(
            "UPDATE pg_index SET indisready = {ready} WHERE indexrelid = 'entries_pkey'::regclass"
        )
    };
    let (not_ready, ready) = (ready("false"), ready("true"));
    for (name, steps, seq, word) in [
        (
            "deleted",
            &["DELETE FROM entries WHERE seq = 7"][..],
            7,
            "missing",
        ),
        (
            "swapped",
            &[
                "UPDATE entries SET entry = other.entry FROM entries AS other
               WHERE (entries.seq, other.seq) IN ((5, 8), (8, 5))",
            ],
            5,
            "",
        ),
        ("behind", &[&behind], size, ""),
        // By the triggers' own switch, where `session_replication_role` is watched.
        (
            "switched",
            &[
                "SET session_replication_role = origin",
                "ALTER TABLE entries DISABLE TRIGGER ALL",
                "UPDATE entries SET entry = set_byte(entry, 200, get_byte(entry, 200) # 1) WHERE seq = 6",
                "ALTER TABLE entries ENABLE TRIGGER ALL",
            ],
            6,
            "",
        ),
        // A row that lies in the table and not in its index: who asks by number is not shown it.
        (
            "hidden",
            &[
                &not_ready,
                "INSERT INTO entries (seq, entry) SELECT 4, entry FROM entries WHERE seq = 5",
                &ready,
            ],
            4,
            "index",
        ),
        ("note", &[&cut_note], noted - 1, ""),
        (
            "lookup",
            &["DELETE FROM statements WHERE seq = 8"],
            8,
            "statements",
        ),
    ] {
        let (at, reason) = found(&dev, name, steps);
        assert_eq!(at, seq, "{name}: {reason}");
        assert!(reason.contains(word), "{name}: {reason}");
    }
}

const HELLO: &str = "content = E'hello\\n'::bytea";

#[test]
fn a_text_that_was_swapped_erased_or_lost_is_told_apart() {
    let dev = Dev::start();
    let ran = dev.through(&[], &["printf", "hello\\n"]);
    let ran = ran["id"].as_str().unwrap();
    let untouched = copy(&dev, "untouched");
    let output = place(&dev, &untouched, |event| {
        matches!(event, Event::ExecutionOutput(_))
    });
    let (keys, folder) = (dev.data().join("ledger"), dev.folder());
    for (name, change, word) in [
        (
            "swapped",
            "UPDATE blobs SET content = E'hallo\\n' WHERE",
            "other bytes",
        ),
        (
            "erased",
            "UPDATE blobs SET salt = NULL, content = NULL WHERE",
            "without an event",
        ),
        ("lost", "DELETE FROM blobs WHERE", "missing"),
    ] {
        let (seq, reason) = found(&dev, name, &[&format!("{change} {HELLO}")]);
        assert_eq!(seq, output, "{name}: {reason}");
        assert!(reason.contains(word), "{name}: {reason}");
        // A reader is not shown it either.
        let url = dev
            .env("DATABASE_URL")
            .replace("/countersign?", &format!("/{name}?"));
        let server = Server::start(&dev, &url, &keys, &folder.path().join(name), true);
        let shown = newcomer(&dev, "alice", &["--server", &server.url, "logs", ran]);
        assert_eq!(
            shown.status.code(),
            Some(TAMPERING),
            "{name}: {}",
            text(&shown.stdout)
        );
    }
}

#[test]
fn a_redaction_that_the_ledger_signs_alone_does_not_stand() {
    let dev = Dev::start();
    let ran = dev.through(&[], &["printf", "hello\\n"]);
    let ran = ran["id"].as_str().unwrap();
    let redact = [
        "redact",
        ran,
        "--only",
        "output",
        "--reason",
        "r",
        "--legal-basis",
        "gdpr-17",
        "--yes",
    ];
    // One administrator wants it; it takes two.
    let asked = dev.json("alice", 0, &redact);
    assert_eq!(asked["changes"][0]["status"], "requested", "{asked}");
    let evil = copy(&dev, "evil");
    let place = forge(&dev, &evil, async |forger, owner| {
        let output = forger.find(|event| matches!(event, Event::ExecutionOutput(_)));
        // The newest change that anybody wants is hers.
        let mut wanted = forger.entries.iter().rev();
        let wanted = wanted
            .find(|entry| matches!(crate::forger::event(entry), Event::ChangeRequested(_)))
            .map(|entry| (entry.seq, entry.statement.id()))
            .unwrap();
        let digests = crate::forger::event(forger.entry(output)).blobs();
        let word = forger.find(|event| matches!(event, Event::CommandAuthorized(_)));
        let Event::CommandAuthorized(word) = crate::forger::event(forger.entry(word)) else {
            unreachable!("it was looked for");
        };
        let forged = BlobRedacted {
            signer: word.signer,
            nonce: Nonce::new([7; 16]),
            made_at: forger.entries.last().unwrap().time,
            ledger: word.ledger,
            seen: word.seen,
            change: wanted.1,
            rests_on: vec![wanted.0],
            command: word.command,
            digests: digests.iter().map(|blob| blob.digest).collect(),
            legal_basis: "gdpr-17".parse().unwrap(),
        };
        let mut entry = forger.entries.last().unwrap().clone();
        entry.key_id = word.signer;
        entry.statement = Statement::sign(&forged.into(), forger.keys.statement()).unwrap();
        forger.entries.push(entry);
        let place = forger.entries.len() as u64 - 1;
        forger.seal_from(place);
        forger.put().await;
        let erase = format!(
            "SET session_replication_role = replica; UPDATE blobs SET salt = NULL, content = NULL WHERE {HELLO}"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(erase))
            .execute(owner)
            .await
            .unwrap();
        place
    });
    let (seq, reason) = named(&dev, &evil);
    assert_eq!(seq, place, "{reason}");
    assert!(reason.contains("do not suffice"), "{reason}");
}
