//! Ways to stop the ledger, to fork it, or to have it disagree with its own audit.

use std::time::Duration;

use countersign::ledger::{AppendError, Ledger, StartRule};
use countersign_protocol::blob::Blob;
use countersign_protocol::event::{ChangeRequested, CommandRequested, Event};
use countersign_protocol::fold::Refusal;
use countersign_protocol::lifecycle::CommandStatus;
use countersign_protocol::rights::ChangeBody;
use futures_util::StreamExt as _;
use sqlx::AssertSqlSafe;

use crate::ledger::append::audit_database;
use crate::ledger::fairness::spool;
use crate::ledger::rollback::{back_up, restore};
use crate::statements::signed;
use crate::support::TestLedger;

async fn sql(book: &TestLedger, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&book.database.owner)
        .await
        .unwrap();
}

/// The second server follows entries of an agent that it has not met before.
#[tokio::test]
async fn a_server_follows_the_agents_of_another_server() {
    let book = TestLedger::ready().await;
    let other = book.another_server().await;
    let (command, act) = book.authorized().await;
    book.run(command).await;
    let refused = other
        .append(book.approval("bob", command, &act))
        .await
        .unwrap_err();
    let over = Refusal::Over(CommandStatus::Completed);
    assert!(
        matches!(&refused, AppendError::Refused(refusal) if *refusal == over),
        "{refused}"
    );
}

/// A failover that loses entries ends connections too, in the middle of a batch: then the state is
/// read back, and what is read back is an older log.
#[tokio::test]
async fn a_server_that_reads_its_state_back_does_not_fork_a_log_that_went_back() {
    let book = TestLedger::ready().await;
    let size = back_up(&book).await;
    let (request, _) = book.request();
    book.send(request).await.unwrap();
    // A batch that fails half way.
    sql(&book, "REVOKE SELECT ON statements FROM countersign_app").await;
    let (request, _) = book.request();
    let failed = book.send(request).await.unwrap_err();
    assert!(matches!(failed, AppendError::Unavailable), "{failed}");
    sql(&book, "GRANT SELECT ON statements TO countersign_app").await;
    restore(&book, size).await;
    sql(&book, "DELETE FROM open_streams").await;
    let (mut request, _) = book.request();
    let Event::CommandRequested(event) =
        request.statement.clone().verify().unwrap().event().clone()
    else {
        unreachable!()
    };
    // An honest client that has not seen the newest checkpoint.
    let genesis = sqlx::query_scalar::<_, String>("SELECT note FROM checkpoints WHERE size = 1")
        .fetch_one(&book.database.app)
        .await
        .unwrap();
    let seen = countersign_protocol::checkpoint::Checkpoint::open(&genesis, book.ledger.verifier())
        .unwrap();
    let event = CommandRequested {
        seen: countersign_protocol::event::Seen {
            size: seen.size(),
            root: seen.root(),
        },
        ..event
    };
    request = signed("alice", &event.into(), request.blobs);
    let stopped = book.send(request).await;
    assert!(
        matches!(stopped, Err(AppendError::Stopped(_))),
        "a second history was signed: {stopped:?}"
    );
}

/// One digest, two lengths: the blob comes for the one, the other is believed.
#[tokio::test]
async fn a_request_cannot_name_its_targets_with_a_length_that_is_not_theirs() {
    let book = TestLedger::ready().await;
    let (request, _) = book.request();
    let Event::CommandRequested(mut event) =
        request.statement.clone().verify().unwrap().event().clone()
    else {
        unreachable!()
    };
    event.reason = event.act.targets.list;
    event.act.targets.list.len += 1;
    let blobs = request
        .blobs
        .into_iter()
        .filter(|blob| blob.reference() == event.reason || blob.reference() == event.act.spec)
        .collect();
    let refused = book.send(signed("alice", &event.into(), blobs)).await;
    // Whoever folds the log again must come to the same end.
    book.reopen().await.unwrap();
    assert!(matches!(
        refused,
        Err(AppendError::BlobMissing | AppendError::Blob(_))
    ));
}

#[tokio::test]
async fn a_change_cannot_name_its_body_with_a_length_that_is_not_its() {
    let book = TestLedger::ready().await;
    let change = ChangeBody::RoleGranted {
        role: "auditor".parse().unwrap(),
        to: "user:bob".parse().unwrap(),
    };
    let document = change.to_document().unwrap();
    let body = Blob::new([3; 32], document).unwrap();
    let (signer, nonce, made_at, ledger, seen) = book.header("alice");
    let mut wrong = body.reference();
    wrong.len += 1;
    let request = ChangeRequested {
        signer,
        nonce,
        made_at,
        ledger,
        seen,
        principal: "alice".parse().unwrap(),
        body: wrong,
        document: None,
        reason: Some(body.reference()),
    };
    let refused = book
        .send(signed("alice", &request.into(), vec![body]))
        .await;
    book.reopen().await.unwrap();
    assert!(matches!(
        refused,
        Err(AppendError::BlobMissing | AppendError::Blob(_))
    ));
}

/// A blob that is here already, named with another length: `verify` would find a mismatch for ever.
#[tokio::test]
async fn a_stored_blob_cannot_be_named_with_another_length() {
    let book = TestLedger::ready().await;
    let (first, _) = book.request();
    let Event::CommandRequested(before) = first.statement.clone().verify().unwrap().event().clone()
    else {
        unreachable!()
    };
    let reasons: Vec<Blob> = first
        .blobs
        .iter()
        .filter(|blob| blob.reference() == before.reason)
        .cloned()
        .collect();
    book.send(first).await.unwrap();
    let (second, _) = book.request();
    let Event::CommandRequested(mut event) =
        second.statement.clone().verify().unwrap().event().clone()
    else {
        unreachable!()
    };
    let own = event.reason;
    event.reason = before.reason;
    event.reason.len += 1;
    let blobs: Vec<Blob> = second
        .blobs
        .into_iter()
        .filter(|blob| blob.reference() != own)
        .collect();
    let refused = book
        .send(signed("alice", &event.clone().into(), blobs.clone()))
        .await;
    assert!(
        matches!(refused, Err(AppendError::BlobMissing)),
        "{refused:?}"
    );
    // Named as it is, it comes again all the same: who only knows the digest of a text does not get at
    // it by naming it as their own.
    event.reason.len -= 1;
    let event = Event::from(event);
    let without = book.send(signed("alice", &event, blobs.clone())).await;
    assert!(
        matches!(without, Err(AppendError::BlobMissing)),
        "{without:?}"
    );
    let again = reasons.into_iter().chain(blobs).collect();
    book.send(signed("alice", &event, again)).await.unwrap();
    audit_database(&book.database.app).await;
}

/// Who may not speak at all costs the writer no reading, and nothing is held for them.
#[tokio::test]
async fn a_stranger_does_not_make_the_writer_read() {
    let book = TestLedger::ready().await;
    let mut lock = book.database.owner.begin().await.unwrap();
    sqlx::query("LOCK TABLE agent_statements IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let (signer, nonce, made_at, ledger, seen) = book.header("mallory");
    let path = Blob::new([4; 32], b"/bin/true".to_vec()).unwrap();
    let started = countersign_protocol::event::ExecutionStarted {
        signer,
        nonce,
        made_at,
        ledger,
        seen,
        agent: "ghost".parse().unwrap(),
        command: countersign_protocol::hash::StatementId::new([9; 32]),
        agent_seq: 0,
        agent_prev: countersign_protocol::hash::StatementId::ZERO,
        steps: None,
        in_force: None,
        program: countersign_protocol::event::ProgramFacts {
            path: path.reference(),
            sha256: countersign_protocol::hash::Digest::new([1; 32]),
        },
    };
    let sent = book.send(signed("mallory", &started.into(), vec![path]));
    let refused = tokio::time::timeout(Duration::from_secs(3), sent)
        .await
        .unwrap_or(Err(AppendError::Busy))
        .unwrap_err();
    assert!(
        matches!(refused, AppendError::Refused(Refusal::UnknownKey)),
        "{refused}"
    );
}

/// A settled command is not read back, under the head lock, for everybody who goes on about it.
/// Postgres ends a session that does nothing in a transaction for longer than it may: checking all entries of such a
/// command takes longer.
#[tokio::test]
async fn a_command_with_much_output_is_read_back_by_pages() {
    let book = TestLedger::ready().await;
    let (command, _) = book.authorized().await;
    let started = book.send(book.start(command)).await.unwrap().id;
    let chunks = spool(&book, (command, started), 8000).into_iter();
    let sent = futures_util::stream::iter(chunks.map(|chunk| book.send(chunk))).buffered(64);
    assert!(
        sent.all(|receipt| std::future::ready(receipt.is_ok()))
            .await
    );
    let pool = book.database.hasty_app(Duration::from_millis(400)).await;
    let again = Ledger::open(book.settings(pool, StartRule::FileRequired)).await;
    again.unwrap();
}

/// What it said again is answered from its entry alone.
#[tokio::test]
async fn an_old_word_said_again_reads_no_command_back() {
    let book = TestLedger::ready().await;
    let (command, _) = book.authorized().await;
    let start = book.start(command);
    book.send(start.clone()).await.unwrap();
    book.finish(command, start.statement.id()).await;
    let again = book.reopen().await.unwrap();
    let first = again.append(start.clone()).await.unwrap();
    assert_eq!((first.repeated, first.status), (true, None));
    // Where the command is held, its status is told.
    let told = book.send(start).await.unwrap();
    assert_eq!(
        (told.repeated, told.status),
        (true, Some(CommandStatus::Completed))
    );
}

#[tokio::test]
async fn a_settled_command_is_not_read_again_each_time() {
    let book = TestLedger::ready().await;
    let (command, act) = book.authorized().await;
    book.run(command).await;
    let mut lock = book.database.owner.begin().await.unwrap();
    sqlx::query("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let sent = book.send(book.approval("bob", command, &act));
    let refused = tokio::time::timeout(Duration::from_secs(3), sent)
        .await
        .unwrap_or(Err(AppendError::Busy))
        .unwrap_err();
    let over = Refusal::Over(CommandStatus::Completed);
    assert!(
        matches!(&refused, AppendError::Refused(refusal) if *refusal == over),
        "{refused}"
    );
}
