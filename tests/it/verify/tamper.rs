//! ATTACKS 4 and 20: a superuser changes the log, its checkpoints or its blobs, with the guards off.

use super::story::{Story, bad};
use countersign_cli::verify::VerifyError;

#[tokio::test]
async fn one_flipped_byte_of_an_entry_is_named() {
    let story = Story::new().await;
    let flip = "UPDATE entries SET entry = set_byte(entry, 200, get_byte(entry, 200) # 1)
                WHERE seq = 6";
    assert_eq!(story.found(&[flip]).await.0, 6);
}

#[tokio::test]
async fn a_deleted_entry_is_named() {
    let story = Story::new().await;
    let (seq, reason) = story.found(&["DELETE FROM entries WHERE seq = 7"]).await;
    assert_eq!(seq, 7);
    assert!(reason.contains("missing"), "{reason}");
}

#[tokio::test]
async fn two_swapped_entries_are_named() {
    let story = Story::new().await;
    let swap = "UPDATE entries SET entry = other.entry FROM entries AS other
                WHERE (entries.seq, other.seq) IN ((5, 8), (8, 5))";
    assert_eq!(story.found(&[swap]).await.0, 5);
}

#[tokio::test]
async fn an_entry_that_was_put_behind_the_end_is_named() {
    let story = Story::new().await;
    let size = story.size;
    let copy =
        format!("INSERT INTO entries (seq, entry) SELECT {size}, entry FROM entries WHERE seq = 3");
    assert_eq!(story.found(&[&copy]).await.0, size);
}

#[tokio::test]
async fn a_row_that_its_index_hides_is_found() {
    let story = Story::new().await;
    let ready = |ready: bool| {
        format!(
            "UPDATE pg_index SET indisready = {ready} WHERE indexrelid = 'entries_pkey'::regclass"
        )
    };
    // While the index is not ready, it is not kept up: what is inserted is in the table alone.
    let hidden = "INSERT INTO entries (seq, entry) SELECT 4, entry FROM entries WHERE seq = 5";
    let (seq, reason) = story.found(&[&ready(false), hidden, &ready(true)]).await;
    assert_eq!(seq, 4);
    assert!(reason.contains("index"), "{reason}");
}

#[tokio::test]
async fn rows_that_are_hidden_from_the_role_are_an_error_and_no_verdict() {
    let story = Story::new().await;
    story
        .tamper(&[
            "ALTER TABLE checkpoints ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY part ON checkpoints TO countersign_app USING (size < 5)",
        ])
        .await;
    let refused = story.try_verify().await.unwrap_err();
    assert!(matches!(refused, VerifyError::Database(_)), "{refused}");
}

#[tokio::test]
async fn a_changed_note_is_named_by_the_last_entry_it_covers() {
    let story = Story::new().await;
    // Another root under the old signature.
    let change = "UPDATE checkpoints SET note = overlay(note PLACING 'AAAA' FROM position(E'\\n8\\n' IN note) + 3)
                  WHERE size = 8";
    let (seq, reason) = story.found(&[change]).await;
    assert_eq!(seq, 7);
    assert!(reason.contains("signature"), "{reason}");
}

#[tokio::test]
async fn a_note_under_another_size_is_named() {
    let story = Story::new().await;
    let change = "UPDATE checkpoints SET note = (SELECT note FROM checkpoints WHERE size = 8)
                  WHERE size = 9";
    assert_eq!(story.found(&[change]).await.0, 7);
}

#[tokio::test]
async fn a_removed_newest_checkpoint_is_named() {
    let story = Story::new().await;
    let before = story
        .number("SELECT size FROM checkpoints ORDER BY size DESC OFFSET 1 LIMIT 1")
        .await;
    let remove = "DELETE FROM checkpoints WHERE size = (SELECT max(size) FROM checkpoints)";
    assert_eq!(story.found(&[remove]).await.0, before);
}

#[tokio::test]
async fn a_removed_older_checkpoint_is_named_by_who_saw_it() {
    let story = Story::new().await;
    // Each statement was signed after the checkpoint before it.
    let (seq, reason) = story
        .found(&["DELETE FROM checkpoints WHERE size = 8"])
        .await;
    assert_eq!(seq, 8);
    assert!(reason.contains("no longer stored"), "{reason}");
}

async fn first_of(story: &Story, condition: &str) -> u64 {
    let sql =
        format!("SELECT min(seq) FROM blob_references JOIN blobs USING (digest) WHERE {condition}");
    story.number(&sql).await
}

#[tokio::test]
async fn a_swapped_blob_is_named() {
    let story = Story::new().await;
    let seq = first_of(&story, "content = 'hello\n'::bytea").await;
    let change = "UPDATE blobs SET content = 'hallo\n' WHERE content = 'hello\n'::bytea";
    let (found, reason) = story.found(&[change]).await;
    assert_eq!(found, seq);
    assert!(reason.contains("other bytes"), "{reason}");
    assert_eq!(story.verify().await.blobs.mismatch, 1);
}

#[tokio::test]
async fn an_erased_blob_without_its_event_is_named() {
    let story = Story::new().await;
    let seq = first_of(&story, "content = 'because'::bytea").await;
    let erase = "UPDATE blobs SET salt = NULL, content = NULL WHERE content = 'because'::bytea";
    let (found, reason) = story.found(&[erase]).await;
    assert_eq!(found, seq);
    assert!(reason.contains("without an event"), "{reason}");
    let blobs = story.verify().await.blobs;
    assert_eq!((blobs.erased, blobs.redacted), (3, 0));
}

#[tokio::test]
async fn a_missing_blob_is_not_passed_off_as_redacted() {
    let story = Story::new().await;
    let seq = first_of(&story, "content = 'hello\n'::bytea").await;
    let (found, reason) = story
        .found(&["DELETE FROM blobs WHERE content = 'hello\n'::bytea"])
        .await;
    assert_eq!(found, seq);
    assert!(reason.contains("missing"), "{reason}");
}

#[tokio::test]
async fn a_blob_that_nothing_names_yet_is_only_counted() {
    let story = Story::new().await;
    let young = "INSERT INTO blobs (digest, salt, content)
                 VALUES (sha256('a'), sha256('b'), 'young')";
    story.tamper(&[young]).await;
    let report = story.verify().await;
    assert!(report.ok, "{report:?}");
    assert_eq!(report.blobs.unreferenced, 1);
}

#[tokio::test]
async fn each_part_of_the_head_is_compared() {
    let story = Story::new().await;
    let last = story.size - 1;
    story
        .tamper(&["CREATE TABLE backup AS SELECT * FROM head"])
        .await;
    let restore = "UPDATE head SET (size, last_leaf, last_time_us, right_edge, note) =
                   (SELECT size, last_leaf, last_time_us, right_edge, note FROM backup)";
    for (change, seq, word) in [
        ("last_time_us = last_time_us + 1", last, "time"),
        ("last_leaf = sha256('x')", last, "leaf"),
        ("right_edge[1] = sha256('x')", last, "edge"),
        ("right_edge = right_edge || sha256('x')", last, "edge"),
        (
            "note = (SELECT note FROM checkpoints WHERE size = 8)",
            last,
            "note",
        ),
        ("size = size - 1", last, "entries"),
        ("size = size + 1", last + 1, "entries"),
    ] {
        let change = format!("UPDATE head SET {change}");
        let (found, reason) = story.found(&[&change]).await;
        assert_eq!(found, seq, "{change}: {reason}");
        assert!(
            reason.contains("head") && reason.contains(word),
            "{change}: {reason}"
        );
        story.tamper(&[restore]).await;
        assert!(story.verify().await.ok);
    }
    let (seq, _) = story.found(&["DELETE FROM head"]).await;
    assert_eq!(seq, story.size);
}

#[tokio::test]
async fn of_several_faults_the_lowest_is_named() {
    let story = Story::new().await;
    story
        .tamper(&[
            "UPDATE entries SET entry = set_byte(entry, 200, get_byte(entry, 200) # 1) WHERE seq = 9",
            "UPDATE checkpoints SET note = 'x' WHERE size = 6",
            "DELETE FROM statements WHERE seq = 8",
        ])
        .await;
    let report = story.verify().await;
    assert_eq!(bad(&report).0, 5);
    assert_eq!(report.findings.len(), 1, "{report:?}");
}
