//! Retries at the writer: the earlier command is read back whichever server has it in memory, and
//! what is no retry of it is refused.

use countersign::ledger::Submission;
use countersign_protocol::event::{CommandRequested, Event};
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::StatementId;
use countersign_protocol::retry::Retry;

use super::erasing::{refused, verified};
use crate::statements::signed;
use crate::support::TestLedger;

/// A request of alice's that calls itself a retry.
fn retry(book: &TestLedger, request: Submission, of: StatementId) -> Submission {
    let Event::CommandRequested(event) = request.statement.verify().unwrap().event().clone() else {
        unreachable!("it is a request")
    };
    let (signer, nonce, made_at, ledger, seen) = book.header("alice");
    let event = CommandRequested {
        signer,
        nonce,
        made_at,
        ledger,
        seen,
        retry: Some(Retry { of, lost: false }),
        ..event
    };
    signed("alice", &event.into(), request.blobs)
}

#[tokio::test]
async fn a_retry_of_what_no_server_remembers_is_judged_by_what_the_log_says() {
    let book = TestLedger::ready().await;
    let (request, act) = book.request();
    let failed = book.send(request.clone()).await.unwrap().id;
    for who in ["bob", "carol"] {
        book.send(book.approval(who, failed, &act)).await.unwrap();
    }
    let early = retry(&book, request.clone(), failed);
    assert_eq!(refused(book.send(early).await), Refusal::RetryTooEarly);
    book.run_out_of_time(failed).await;

    // A server that starts holds nothing of what is over.
    let fresh = book.another_server().await;
    let (other, _) = book.request_running(&["another"], b"because");
    let other = fresh.append(retry(&book, other, failed)).await;
    assert_eq!(refused(other), Refusal::RetryDiffers("spec"));
    let unknown = retry(&book, request.clone(), StatementId::new([8; 32]));
    assert_eq!(
        refused(fresh.append(unknown).await),
        Refusal::UnknownCommand
    );
    let again = fresh.append(retry(&book, request.clone(), failed)).await;
    let again = again.unwrap().id;

    // It waits for people, and once it went well there is nothing to run again.
    for who in ["bob", "carol"] {
        book.send(book.approval(who, again, &act)).await.unwrap();
    }
    book.run(again).await;
    let third = fresh.append(retry(&book, request, again)).await;
    let well = Refusal::RetrySucceeded("web-1".parse().unwrap());
    assert_eq!(refused(third), well);
    assert!(verified(&book).await.ok);
    book.reopen().await.unwrap();
}
