//! What nobody touched verifies: for either role, at any size, while others write.

use countersign_cli::verify::{self, Options, Source};
use countersign_protocol::hash::LedgerId;
use sqlx::ConnectOptions as _;
use std::sync::{Arc, Mutex};

use super::story::{Story, assert_holds, bad, url};
use crate::support::{TestLedger, database};

#[tokio::test]
async fn an_untouched_database_verifies_for_both_roles() {
    let story = Story::new().await;
    for pool in [&story.book.database.app, story.owner()] {
        let options = Options {
            source: Source::Database(url(pool)),
            ..story.options()
        };
        let report = verify::verify(options).await.unwrap();
        assert_holds(&report);
        assert!(report.pinned);
        assert_eq!((report.size, report.root), (story.size, story.root));
        let stored = story.number("SELECT count(*) FROM checkpoints").await;
        let named = story.number("SELECT count(*) FROM blob_references").await;
        assert_eq!(report.checkpoints, stored);
        assert_eq!((report.blobs.ok, report.not_rejudged), (named, 0));
    }
}

#[tokio::test]
async fn without_a_pin_it_says_so() {
    let story = Story::new().await;
    let report = story.verify_as_stranger().await;
    assert_holds(&report);
    assert!(!report.pinned);
}

#[tokio::test]
async fn another_ledger_than_the_pinned_one_is_named() {
    let story = Story::new().await;
    let options = Options {
        ledger: Some(LedgerId::new([9; 32])),
        ..story.options()
    };
    let report = verify::verify(options).await.unwrap();
    let (seq, reason) = bad(&report);
    assert_eq!(seq, 0);
    assert!(reason.contains("another ledger"), "{reason}");
    assert!(!report.pinned);
}

#[tokio::test]
async fn an_older_checkpoint_that_one_holds_is_continued() {
    let story = Story::new().await;
    let note = std::fs::read_to_string(story.book.checkpoint_file()).unwrap();
    let (request, _) = story.book.request();
    story.book.send(request).await.unwrap();
    let options = || Options {
        checkpoint: Some(note.clone()),
        ..story.options()
    };
    assert_holds(&verify::verify(options()).await.unwrap());
    let damaged = Options {
        checkpoint: Some(note.replace("test.example.com\n", "test.example.com\n0")),
        ..story.options()
    };
    let refused = verify::verify(damaged).await.unwrap_err();
    assert!(matches!(refused, verify::VerifyError::Note(_)), "{refused}");
}

#[tokio::test]
async fn a_checkpoint_of_somebody_else_is_named() {
    let (story, other) = (Story::new().await, TestLedger::ready().await);
    let options = Options {
        checkpoint: Some(other.ledger.newest().note().to_owned()),
        ..story.options()
    };
    // Same origin, another key: the ledger that was noted then is not the one that is here.
    assert_eq!(bad(&verify::verify(options).await.unwrap()).0, 0);
}

#[tokio::test]
async fn three_hundred_entries_with_their_subtree_verify() {
    let book = TestLedger::ready().await;
    let sends = (0..300).map(|_| book.send(book.request().0));
    for sent in futures_util::future::join_all(sends).await {
        sent.unwrap();
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&told);
    let options = Options {
        progress: Some(Box::new(move |done, total| {
            hear.lock().unwrap().push((done, total));
        })),
        ..Options::new(Source::Database(url(&book.database.app)))
    };
    let report = verify::verify(options).await.unwrap();
    assert_holds(&report);
    let size = book.ledger.newest().size();
    assert_eq!(report.size, size);
    assert_eq!(told.lock().unwrap().last(), Some(&(size, size)));
}

#[tokio::test]
async fn a_ledger_that_grows_meanwhile_verifies_as_of_one_moment() {
    let book = TestLedger::ready().await;
    let writes = async {
        for _ in 0..30 {
            book.send(book.request().0).await.unwrap();
        }
    };
    let reads = async {
        for _ in 0..8 {
            let source = Source::Database(url(&book.database.app));
            assert_holds(&verify::verify(Options::new(source)).await.unwrap());
        }
    };
    tokio::join!(writes, reads);
}

#[tokio::test]
async fn a_database_without_a_ledger_is_said_to_be_one() {
    let empty = database().await;
    let source = Source::Database(url(&empty.app));
    let report = verify::verify(Options::new(source)).await.unwrap();
    let (seq, reason) = bad(&report);
    assert_eq!(seq, 0);
    assert!(reason.contains("no ledger"), "{reason}");
    let bare = empty.owner.connect_options();
    let bare = (*bare).clone().database("postgres");
    let source = Source::Database(bare.to_url_lossy().to_string());
    let refused = verify::verify(Options::new(source)).await.unwrap_err();
    assert!(
        matches!(refused, verify::VerifyError::NotALedger(_)),
        "{refused}"
    );
}
