//! A server that was away goes on behind what the other one wrote, agents' words included.

use countersign_protocol::lifecycle::CommandStatus;

use crate::ledger::append::audit_database;
use crate::support::TestLedger;

/// The other server has not heard of the agent before, and several of its words come at once.
#[tokio::test]
async fn what_an_agent_said_to_one_server_is_followed_by_the_other() {
    let book = TestLedger::ready().await;
    let other = book.another_server().await;
    let (waiting, act) = book.request();
    let waiting = other.append(waiting).await.unwrap().id;
    for _run in 0..2 {
        let (command, _) = book.authorized().await;
        book.run(command).await;
    }
    // It folds both runs, then decides on its own command and on the agent's next word.
    for who in ["bob", "carol"] {
        other
            .append(book.approval(who, waiting, &act))
            .await
            .unwrap();
    }
    let started = other.append(book.start(waiting)).await.unwrap();
    assert_eq!(started.status, Some(CommandStatus::Running));
    // And back: the first one follows what the other wrote.
    let (request, _) = book.request();
    assert_eq!(book.send(request).await.unwrap().seq, started.seq + 1);
    audit_database(&book.database.app).await;
}

/// A start that an agent has used before is no start at the other server either.
#[tokio::test]
async fn a_number_of_an_agents_chain_is_used_once_over_all_servers() {
    let book = TestLedger::ready().await;
    let other = book.another_server().await;
    let (first, _) = book.authorized().await;
    let (second, _) = book.authorized().await;
    let stale = book.start(second);
    book.run(first).await;
    assert!(other.append(stale).await.is_err());
    assert!(other.append(book.start(second)).await.is_ok());
    audit_database(&book.database.app).await;
}
