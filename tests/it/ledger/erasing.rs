//! Erasing: what two administrators want gone is gone with the entry that says so, and nothing else
//! is; the log still verifies, and a server starts again.

use countersign::ledger::{AppendError, Receipt};
use countersign::projections;
use countersign_cli::verify::{self, Options, Report, Source};
use countersign_protocol::blob::Blob;
use countersign_protocol::event::{CommandRequested, Event};
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::{Digest, StatementId};
use countersign_protocol::rights::ChangeBody;
use sqlx::{AssertSqlSafe, ConnectOptions as _};

use crate::statements::{blob, signed};
use crate::support::{TestLedger, TestServer};

/// What a run prints in these tests.
const OUTPUT: &[u8] = b"hello\n";

fn redaction(command: StatementId, digests: &[Digest]) -> ChangeBody {
    let mut digests = digests.to_vec();
    digests.sort_unstable();
    ChangeBody::BlobRedacted {
        command,
        digests,
        legal_basis: "gdpr-17".parse().unwrap(),
    }
}

fn hold(commands: &[StatementId]) -> ChangeBody {
    ChangeBody::HoldPlaced {
        hold: "case-1".parse().unwrap(),
        commands: commands.to_vec(),
        agent: None,
        requester: None,
    }
}

fn lifted() -> ChangeBody {
    ChangeBody::HoldLifted {
        hold: "case-1".parse().unwrap(),
    }
}

/// The refusal of a statement; a receipt fails the test.
pub(super) fn refused(answer: Result<Receipt, AppendError>) -> Refusal {
    let error = answer.unwrap_err();
    let AppendError::Refused(refusal) = error else {
        unreachable!("{error}");
    };
    refusal
}

async fn ask(book: &TestLedger, body: &ChangeBody) -> Result<Receipt, AppendError> {
    let (request, _) = book.view().change(body, None);
    book.send(request).await
}

/// The digests of blobs with this content, whatever their salts.
async fn digests(book: &TestLedger, content: &[u8]) -> Vec<Digest> {
    let found: Vec<Vec<u8>> = sqlx::query_scalar("SELECT digest FROM blobs WHERE content = $1")
        .bind(content)
        .fetch_all(&book.database.app)
        .await
        .unwrap();
    let digest = |bytes: &Vec<u8>| Digest::from_slice(bytes).unwrap();
    found.iter().map(digest).collect()
}

pub(super) async fn verified(book: &TestLedger) -> Report {
    let url = book.database.app.connect_options().to_url_lossy();
    let options = Options {
        ledger: Some(book.ledger.id()),
        ..Options::new(Source::Database(url.to_string()))
    };
    verify::verify(options).await.unwrap()
}

/// Whether any table of the log or of the projections has these bytes in it.
async fn is_stored(book: &TestLedger, text: &[u8]) -> bool {
    let tables: Vec<(String, String)> = sqlx::query_as(
        "SELECT schemaname::text, tablename::text FROM pg_tables
         WHERE schemaname IN ('public', 'projections')",
    )
    .fetch_all(&book.database.owner)
    .await
    .unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    for (schema, table) in tables {
        // As text a bytea is hex, and a text is itself.
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {schema}.{table} AS whole
             WHERE position($1 IN whole::text) > 0 OR position($2 IN whole::text) > 0)"
        );
        let found: bool = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(hex::encode(text))
            .bind(String::from_utf8_lossy(text).into_owned())
            .fetch_one(&book.database.owner)
            .await
            .unwrap();
        if found {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn what_two_administrators_erase_is_gone_and_the_log_still_verifies() {
    let server = TestServer::start().await;
    let book = &server.book;
    let (command, _) = book.authorized().await;
    book.run(command).await;
    let output = digests(book, OUTPUT).await;
    assert!(is_stored(book, OUTPUT).await);
    let body = redaction(command, &output);
    let first = ask(book, &body).await.unwrap();
    assert!(is_stored(book, OUTPUT).await, "one alone erases nothing");
    let (_, rest) = (first, &body);
    book.change(hold(&[command])).await;
    assert_eq!(
        refused(ask(book, rest).await),
        Refusal::Held("case-1".parse().unwrap())
    );
    book.change(lifted()).await;
    book.change(body).await;
    assert!(!is_stored(book, OUTPUT).await);
    let report = verified(book).await;
    assert!(report.ok, "{report}");
    assert_eq!((report.blobs.redacted, report.blobs.erased), (1, 0));
    assert_eq!(report.redacted_by.len(), 1);
    assert_eq!(report.redacted_by[0].texts, 1);
    assert_eq!(report.outputs.partial, 1);
    assert!(
        report.to_string().contains("legal basis gdpr-17"),
        "{report}"
    );
    // A server that starts reads it all again, and so does whoever rebuilds the rows.
    book.reopen().await.unwrap();
    server.reader.caught_up().await.unwrap();
    let mut connection = book.database.app.acquire().await.unwrap();
    let judge = book.ledger.judge();
    let differences = projections::compare(&mut connection, &judge).await.unwrap();
    assert_eq!(differences, Vec::new());
}

#[tokio::test]
async fn the_words_of_a_command_may_go_and_nobody_judges_it_again() {
    let server = TestServer::start().await;
    let book = &server.book;
    let (command, act) = book.authorized().await;
    book.run(command).await;
    book.change(redaction(command, &[act.spec.digest])).await;
    let report = verified(book).await;
    assert!(report.ok, "{report}");
    assert_eq!((report.blobs.redacted, report.not_rejudged), (1, 1));
    // It is settled and out of memory: what touches it reads it back.
    let other = book.reopen().await.unwrap();
    let late = other.append(book.approval("bob", command, &act)).await;
    assert!(matches!(refused(late), Refusal::Over(_)));
    server.reader.caught_up().await.unwrap();
    let mut connection = book.database.app.acquire().await.unwrap();
    let judge = book.ledger.judge();
    let differences = projections::compare(&mut connection, &judge).await.unwrap();
    assert_eq!(differences, Vec::new());
}

#[tokio::test]
async fn the_list_of_targets_and_what_rights_name_stay() {
    let book = TestLedger::ready().await;
    let (command, act) = book.authorized().await;
    book.run(command).await;
    let policy = digests(&book, crate::statements::policy().text().as_bytes()).await;
    assert_eq!(policy.len(), 1);
    let nobody = Digest::new([9; 32]);
    for digest in [act.targets.list.digest, policy[0], nobody] {
        let refusal = refused(ask(&book, &redaction(command, &[digest])).await);
        assert!(matches!(refusal, Refusal::NotErasable(_)), "{refusal}");
    }
    let unknown = redaction(StatementId::new([8; 32]), &[act.spec.digest]);
    let refusal = refused(ask(&book, &unknown).await);
    assert_eq!(refusal, Refusal::UnknownCommand);
}

/// Bob's command with the reason that alice's has, which he holds.
async fn shares_the_reason(book: &TestLedger, reason: &Blob) -> StatementId {
    let (request, _) = book.request();
    let mut blobs = request.blobs;
    let Event::CommandRequested(event) = request.statement.verify().unwrap().event().clone() else {
        unreachable!()
    };
    blobs.retain(|blob| blob.reference() != event.reason);
    blobs.push(reason.clone());
    let event = CommandRequested {
        reason: reason.reference(),
        ..event
    };
    book.send(signed("alice", &event.into(), blobs))
        .await
        .unwrap()
        .id
}

#[tokio::test]
async fn what_an_open_or_a_held_command_names_too_stays() {
    let book = TestLedger::ready().await;
    let reason = blob(b"the same words");
    let first = shares_the_reason(&book, &reason).await;
    book.send(book.cancel("alice", first)).await.unwrap();
    let second = shares_the_reason(&book, &reason).await;
    let body = redaction(first, &[reason.reference().digest]);
    assert_eq!(refused(ask(&book, &body).await), Refusal::NotSettled);
    book.send(book.cancel("alice", second)).await.unwrap();
    let asked = {
        let (request, digest) = book.view().change(&body, None);
        (book.send(request).await.unwrap().id, digest)
    };
    // Placed between the asking and the consent.
    book.change(hold(&[second])).await;
    let consent = book.view().consent(asked.0, asked.1);
    let held = Refusal::Held("case-1".parse().unwrap());
    assert_eq!(refused(book.send(consent).await), held);
    book.reopen().await.unwrap();
    book.change(lifted()).await;
    let consent = book.view().consent(asked.0, asked.1);
    book.send(consent).await.unwrap();
    assert_eq!(digests(&book, b"the same words").await, []);
    let report = verified(&book).await;
    assert!(report.ok, "{report}");
    assert_eq!(report.blobs.redacted, 2);
}

#[tokio::test]
async fn what_was_erased_does_not_come_back() {
    let book = TestLedger::ready().await;
    let reason = blob(b"words that go");
    let command = shares_the_reason(&book, &reason).await;
    book.send(book.cancel("alice", command)).await.unwrap();
    book.change(redaction(command, &[reason.reference().digest]))
        .await;
    // In a new statement, and by whoever sends the old one again.
    let (request, _) = book.request();
    let Event::CommandRequested(event) = request.statement.verify().unwrap().event().clone() else {
        unreachable!()
    };
    let mut blobs = request.blobs;
    blobs.retain(|blob| blob.reference() != event.reason);
    blobs.push(reason.clone());
    let event = CommandRequested {
        reason: reason.reference(),
        ..event
    };
    let again = book.send(signed("alice", &event.into(), blobs)).await;
    assert_eq!(refused(again), Refusal::Redacted);
    assert!(!is_stored(&book, b"words that go").await);
    book.reopen().await.unwrap();
    assert!(verified(&book).await.ok);
}

#[tokio::test]
async fn a_text_that_is_stored_again_is_found() {
    let book = TestLedger::ready().await;
    let (command, _) = book.authorized().await;
    book.run(command).await;
    let output = digests(&book, OUTPUT).await;
    let salt: Vec<u8> = sqlx::query_scalar("SELECT salt FROM blobs WHERE content = $1")
        .bind(OUTPUT)
        .fetch_one(&book.database.app)
        .await
        .unwrap();
    let consent = book.change(redaction(command, &output)).await;
    let mut owner = book.database.owner.acquire().await.unwrap();
    sqlx::raw_sql("SET session_replication_role = replica")
        .execute(&mut *owner)
        .await
        .unwrap();
    sqlx::query("UPDATE blobs SET salt = $1, content = $2 WHERE digest = $3")
        .bind(salt)
        .bind(OUTPUT)
        .bind(output[0].as_bytes().as_slice())
        .execute(&mut *owner)
        .await
        .unwrap();
    sqlx::raw_sql("RESET session_replication_role")
        .execute(&mut *owner)
        .await
        .unwrap();
    let bad = verified(&book).await.first_bad.unwrap();
    assert_eq!((bad.name, bad.seq), ("not_erased", consent.seq + 1));
    // As the sentence says.
    let erased: i64 = sqlx::query_scalar("SELECT erase_blobs($1)")
        .bind(i64::try_from(bad.seq).unwrap())
        .fetch_one(&book.database.app)
        .await
        .unwrap();
    assert_eq!(erased, 1);
    assert!(verified(&book).await.ok);
}

#[tokio::test]
async fn a_second_server_follows_a_redaction() {
    let book = TestLedger::ready().await;
    let other = book.another_server().await;
    let (command, _) = book.authorized().await;
    book.run(command).await;
    let output = digests(&book, OUTPUT).await;
    book.change(redaction(command, &output)).await;
    let (request, _) = book.request();
    other.append(request).await.unwrap();
    let again = other
        .append(book.view().change(&redaction(command, &output), None).0)
        .await;
    assert_eq!(refused(again), Refusal::Redacted);
}
