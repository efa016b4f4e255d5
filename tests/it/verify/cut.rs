//! ATTACKS 1: the end of the log is cut off together with its checkpoints and the head put back.

use countersign_cli::verify;

use super::story::{Story, bad};

#[tokio::test]
async fn cutting_the_last_rows_is_found_by_what_is_remembered_however_many() {
    let story = Story::new().await;
    let mut forger = story.forger().await;
    let ends = forger.sizes();
    for size in (1..story.size).rev() {
        forger.cut(size);
        forger.put().await;
        let (seq, reason) = bad(&story.verify().await);
        // A cut inside a batch also leaves entries that no checkpoint covers.
        let covered = ends.iter().copied().filter(|end| *end <= size).max();
        assert_eq!(Some(seq), covered, "{size}: {reason}");
        assert!(seq < size || reason.contains("cut off"), "{reason}");
    }
}

#[tokio::test]
async fn cutting_is_found_by_a_checkpoint_that_was_kept() {
    let story = Story::new().await;
    let note = story.book.ledger.newest().note().to_owned();
    let mut forger = story.forger().await;
    forger.cut(story.size - 1);
    forger.put().await;
    let options = || verify::Options {
        checkpoint: Some(note.clone()),
        ..story.stranger()
    };
    assert_eq!(
        bad(&verify::verify(options()).await.unwrap()).0,
        story.size - 1
    );
}

/// Says exactly what a stranger cannot see: a cut at the end of a batch leaves a log that is whole.
/// Receipts, agents' `seen` and a heartbeat's absence speak then; a cut inside a batch always shows.
#[tokio::test]
async fn a_stranger_sees_a_cut_only_inside_a_batch() {
    let story = Story::new().await;
    let mut forger = story.forger().await;
    let ends = forger.sizes();
    let mut inside = 0;
    for size in (1..story.size).rev() {
        forger.cut(size);
        forger.put().await;
        let report = story.verify_as_stranger().await;
        let whole = ends.contains(&size);
        inside += u32::from(!whole);
        assert_eq!(report.ok, whole, "{size}: {report:?}");
        if !whole {
            let covered = ends.iter().copied().filter(|end| *end < size).max();
            assert_eq!(Some(bad(&report).0), covered);
        }
    }
    assert!(inside > 0);
}

#[tokio::test]
async fn a_cut_that_leaves_a_checkpoint_behind_is_found_by_it() {
    let story = Story::new().await;
    let mut forger = story.forger().await;
    forger.cut(10);
    let note = story.book.ledger.newest().note().to_owned();
    forger.notes.insert(story.size, note);
    forger.put().await;
    let (seq, reason) = bad(&story.verify_as_stranger().await);
    assert_eq!(seq, 10);
    assert!(reason.contains("cut off"), "{reason}");
}
