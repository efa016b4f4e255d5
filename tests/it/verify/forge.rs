//! ATTACKS 5 and 6: a thief of the ledger's keys rewrites the database, everything derived included.

use countersign_protocol::entry::Entry;
use countersign_protocol::event::{Author, Event};

use super::story::{Story, bad};
use crate::forger::event;

#[tokio::test]
async fn what_is_put_back_as_it_was_verifies() {
    let story = Story::new().await;
    let mut forger = story.forger().await;
    forger.seal_from(story.size);
    forger.put().await;
    super::story::assert_holds(&story.verify().await);
}

#[tokio::test]
async fn a_persons_word_cannot_be_changed_with_the_ledgers_keys() {
    let story = Story::new().await;
    let mut forger = story.forger().await;
    let seq = forger.name_another();
    forger.put().await;
    let (found, reason) = bad(&story.verify_as_stranger().await);
    assert_eq!(found, seq);
    assert!(reason.contains("signature"), "{reason}");
}

#[tokio::test]
async fn a_removed_word_is_found_by_the_next_signer_who_saw_it() {
    let story = Story::new().await;
    let mut forger = story.forger().await;
    let done = story.seq_of(story.done).await;
    forger.entries.remove(usize::try_from(done).unwrap());
    forger.seal_from(done);
    forger.put().await;
    let saw = |entry: &&Entry| {
        let event = event(entry);
        !matches!(event.header().author, Author::Ledger)
            && event.header().seen.is_some_and(|seen| seen.size > done)
    };
    let witness = forger.entries.iter().find(saw).unwrap().seq;
    let (found, reason) = bad(&story.verify_as_stranger().await);
    assert!(found <= witness, "{found} {witness} {reason}");
    assert!(found >= done, "{found} {done} {reason}");
}

#[tokio::test]
async fn a_backdated_entry_is_named_even_when_all_after_it_is_signed_anew() {
    let story = Story::new().await;
    let mut forger = story.forger().await;
    let seq = forger.date_back();
    forger.put().await;
    let (found, reason) = bad(&story.verify_as_stranger().await);
    assert_eq!(found, seq);
    assert!(reason.contains("time is before"), "{reason}");
}

#[tokio::test]
async fn an_entry_dated_later_is_found_by_the_next_signer() {
    let story = Story::new().await;
    let mut forger = story.forger().await;
    // Its own time does not decrease, so only the roots that others saw speak.
    let seq = forger.find(|event| matches!(event, Event::CommandAuthorized(_)));
    let next = forger.entry(seq + 1).time;
    forger.entry(seq).time = next;
    forger.seal_from(seq);
    forger.put().await;
    let (found, reason) = bad(&story.verify_as_stranger().await);
    assert_eq!(found, seq + 1);
    assert!(
        reason.contains("fork") || reason.contains("history"),
        "{reason}"
    );
}

#[tokio::test]
async fn the_ledgers_last_word_signed_anew_is_found_by_what_is_remembered() {
    let story = Story::new().await;
    let (_, _) = story.book.authorized().await;
    let newest = story.book.ledger.newest();
    let mut forger = story.forger().await;
    let last = newest.size() - 1;
    forger.say_anew(last);
    forger.put().await;
    // Nobody has seen it yet but who remembers its checkpoint.
    super::story::assert_holds(&story.verify_as_stranger().await);
    let options = countersign_cli::verify::Options {
        remembered: Some((newest.size(), newest.root())),
        ..story.options()
    };
    let (found, reason) = bad(&countersign_cli::verify::verify(options).await.unwrap());
    assert_eq!(found, last);
    assert!(reason.contains("another root"), "{reason}");
}
