//! One who submits much does not keep the others waiting.

use countersign::ledger::AppendError;
use sqlx::{Acquire as _, PgConnection};

use crate::support::TestLedger;

/// While it is held, the writer holds one batch and everything else waits in the queue.
async fn hold_the_head(connection: &mut PgConnection) -> sqlx::Transaction<'_, sqlx::Postgres> {
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
