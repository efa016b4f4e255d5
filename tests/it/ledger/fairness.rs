//! One who submits much does not keep the others waiting.

use countersign::keys::LedgerKeys;
use countersign::ledger::{AppendError, Submission};
use countersign_protocol::event::{CommandCancelRequested, Event, ExecutionOutput, Stream};
use countersign_protocol::hash::StatementId;
use sqlx::{Acquire as _, PgConnection};

use crate::statements::{Ask, blob, signed};
use crate::support::TestLedger;

/// While it is held, the writer holds one batch and everything else waits in the queue.
pub(crate) async fn hold_the_head(
    connection: &mut PgConnection,
) -> sqlx::Transaction<'_, sqlx::Postgres> {
    let mut held = connection.begin().await.unwrap();
    sqlx::query("SELECT FROM head FOR UPDATE")
        .execute(&mut *held)
        .await
        .unwrap();
    held
}

#[tokio::test]
async fn who_comes_last_has_a_turn_before_the_flood_is_over() {
    let book = TestLedger::ready().await;
    let (request, act) = book.request();
    let command = book.send(request).await.unwrap().id;
    let mut flood = Vec::new();
    for _each in 0..20 {
        flood.push(book.ledger.admit(book.request().0).await.unwrap());
    }
    let approval = book.approval("bob", command, &act);
    let approval = book.ledger.admit(approval).await.unwrap();
    let mut connection = book.database.owner.acquire().await.unwrap();
    let held = hold_the_head(&mut connection).await;
    let enter = |admitted| {
        let ledger = book.ledger.clone();
        tokio::spawn(async move { ledger.enter(admitted).await })
    };
    let a_while = || tokio::time::sleep(std::time::Duration::from_millis(200));
    // The writer takes the first and waits for the head; the others stay in the queue.
    let mut entering = vec![enter(flood.remove(0))];
    book.database.until_a_lock_is_awaited().await;
    entering.extend(flood.into_iter().map(enter));
    a_while().await;
    let late = enter(approval);
    a_while().await;
    held.rollback().await.unwrap();
    let late = late.await.unwrap().unwrap().seq;
    let mut before = 0;
    for entered in entering {
        before += usize::from(entered.await.unwrap().unwrap().seq < late);
    }
    // The one that the writer had taken, and one turn.
    assert!(before <= 2, "{before} of the flood came first");
}

#[tokio::test]
async fn who_floods_the_queue_is_busy_and_nobody_else() {
    let book = TestLedger::ready().await;
    let (request, act) = book.request();
    let command = book.send(request.clone()).await.unwrap().id;
    let again = book.ledger.admit(request).await.unwrap();
    let approval = book.approval("bob", command, &act);
    let approval = book.ledger.admit(approval).await.unwrap();
    let mut connection = book.database.owner.acquire().await.unwrap();
    let held = hold_the_head(&mut connection).await;
    let mut flood = tokio::task::JoinSet::new();
    for _each in 0..1100 {
        let (ledger, again) = (book.ledger.clone(), again.clone());
        flood.spawn(async move { ledger.enter(again).await });
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let ledger = book.ledger.clone();
    let late = tokio::spawn(async move { ledger.enter(approval).await });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    held.rollback().await.unwrap();
    late.await.unwrap().unwrap();
    let answers = flood.join_all().await;
    let busy = answers
        .iter()
        .filter(|answer| matches!(answer, Err(AppendError::Busy)))
        .count();
    let repeated = answers.iter().flatten().filter(|it| it.repeated).count();
    assert!(busy > 50, "{busy} of 1100 were told to come again");
    assert_eq!(busy + repeated, 1100);
}

/// Chunks that a host was left with when it was cut off.
const SPOOL: u64 = 400;

/// So many chunks of output of a run of web-1, each on the one before it.
pub(crate) fn spool(
    book: &TestLedger,
    (command, started): (StatementId, StatementId),
    chunks: u64,
) -> Vec<Submission> {
    let mut last = started;
    let chunk = |chunk_no: u64| {
        let data = blob(b"hello\n");
        let (signer, nonce, made_at, ledger, seen) = book.header("web-1");
        let chunk = ExecutionOutput {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            agent: "web-1".parse().unwrap(),
            command,
            started,
            chunk_no,
            chunk_prev: last,
            stream: Stream::Stdout,
            offset_us: chunk_no,
            data: data.reference(),
        };
        let submission = signed("web-1", &chunk.into(), vec![data]);
        last = submission.statement.id();
        submission
    };
    (0..chunks).map(chunk).collect()
}

#[tokio::test]
async fn a_host_that_comes_back_with_a_long_spool_does_not_hold_up_anothers_start() {
    let book = TestLedger::ready().await;
    let (command, _) = book.authorized().await;
    let started = book.send(book.start(command)).await.unwrap().id;
    book.enrol("web-2").await;
    let (request, act) = book.view().request(&Ask::of("web-2"));
    let other = book.send(request).await.unwrap().id;
    for who in ["bob", "carol"] {
        book.send(book.approval(who, other, &act)).await.unwrap();
    }
    let start = book.view().start("web-2", other, (0, StatementId::ZERO));
    let start = book.ledger.admit(start).await.unwrap();
    let mut chunks = Vec::new();
    for chunk in spool(&book, (command, started), SPOOL) {
        chunks.push(book.ledger.admit(chunk).await.unwrap());
    }
    let mut connection = book.database.owner.acquire().await.unwrap();
    let held = hold_the_head(&mut connection).await;
    let before = book.ledger.newest().size();
    let enter = |admitted| {
        let ledger = book.ledger.clone();
        tokio::spawn(async move { ledger.enter(admitted).await })
    };
    let a_while = || tokio::time::sleep(std::time::Duration::from_millis(200));
    let mut entering = vec![enter(chunks.remove(0))];
    book.database.until_a_lock_is_awaited().await;
    entering.extend(chunks.into_iter().map(enter));
    a_while().await;
    let late = enter(start);
    a_while().await;
    held.rollback().await.unwrap();
    let late = late.await.unwrap().unwrap().seq;
    // The chunk that the writer had taken, and one turn; not the four hundred that came first.
    assert!(late - before <= 2, "{} entries came first", late - before);
    for entered in entering {
        entered.await.unwrap().unwrap();
    }
}

/// A cancel in the name of an API token, as `who` would sign it.
fn cancel_with(book: &TestLedger, who: &str, token: &str) -> CommandCancelRequested {
    let (signer, nonce, made_at, ledger, seen) = book.header(who);
    CommandCancelRequested {
        signer,
        nonce,
        made_at,
        ledger,
        seen,
        principal: who.parse().unwrap(),
        command: StatementId::ZERO,
        token: Some(token.parse().unwrap()),
        reason: None,
    }
}

/// More of them than one who submits has places.
const FLOOD: usize = 1100;

/// What becomes of a flood, while the head is held, and of the one that comes behind it.
async fn flooded(
    book: &TestLedger,
    flood: Vec<Submission>,
    late: Submission,
) -> (usize, Result<u64, AppendError>) {
    let mut admitted = Vec::new();
    for one in flood {
        admitted.push(book.ledger.admit(one).await.unwrap());
    }
    let late = book.ledger.admit(late).await.unwrap();
    let mut connection = book.database.owner.acquire().await.unwrap();
    let held = hold_the_head(&mut connection).await;
    let mut entering = tokio::task::JoinSet::new();
    // The writer takes the first and waits for the head; the others stay in the queue.
    for (n, one) in admitted.into_iter().enumerate() {
        let ledger = book.ledger.clone();
        entering.spawn(async move { ledger.enter(one).await });
        if n == 0 {
            book.database.until_a_lock_is_awaited().await;
        }
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let ledger = book.ledger.clone();
    let late = tokio::spawn(async move { ledger.enter(late).await });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    held.rollback().await.unwrap();
    let late = late.await.unwrap().map(|receipt| receipt.seq);
    let is_busy = |answer: &Result<_, _>| matches!(answer, Err(AppendError::Busy));
    let answers = entering.join_all().await;
    let busy = answers.iter().filter(|it| is_busy(it));
    (busy.count(), late)
}

#[tokio::test]
async fn one_api_token_does_not_take_the_places_of_another() {
    let book = TestLedger::ready().await;
    let gateway = LedgerKeys::read(book.folder.path()).unwrap().gateway();
    let gateway = gateway.unwrap();
    let by = |token: &str| {
        let mut cancel = cancel_with(&book, "alice", token);
        cancel.signer = gateway.key_id();
        Submission {
            statement: gateway.sign(&Event::from(cancel)).unwrap(),
            blobs: Vec::new(),
        }
    };
    let flood = (0..FLOOD).map(|_each| by("nightly")).collect();
    let (busy, late) = flooded(&book, flood, by("deploy")).await;
    assert!(busy > 50, "{busy} of {FLOOD} were told to come again");
    // Nobody issued it; what matters here is that it was looked at.
    assert!(matches!(late, Err(AppendError::Refused(_))), "{late:?}");
}

/// Names of tokens are anybody's to write; only the gateway's are looked at.
#[tokio::test]
async fn a_key_that_names_many_tokens_has_the_places_of_one() {
    let book = TestLedger::ready().await;
    let by = |token: &str| {
        let cancel = cancel_with(&book, "alice", token);
        signed("alice", &cancel.into(), Vec::new())
    };
    let flood = (0..FLOOD).map(|n| by(&format!("token-{n}"))).collect();
    let (busy, late) = flooded(&book, flood, by("one-more")).await;
    assert!(busy > 50, "{busy} of {FLOOD} were told to come again");
    assert!(matches!(late, Err(AppendError::Busy)), "{late:?}");
}
