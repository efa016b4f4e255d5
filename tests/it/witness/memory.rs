//! What a witness remembers: sizes that never go back, and evidence of forks.

use std::fs;
use std::path::{Path, PathBuf};

use countersign::clock::Clock;
use countersign::witness::{Answer, StartError, Watch};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::hash::Hash;
use ed25519_dalek::SigningKey;

use super::logs::{Log, WITNESS, answer, start, write_key};
use crate::folder::Folder;
use crate::support::logged::Logged;

/// The one folder of a log in a state folder.
fn of_log(folder: &Path) -> PathBuf {
    let all = fs::read_dir(folder.join("state")).unwrap().flatten();
    let mut folders = all.map(|one| one.path()).filter(|path| path.is_dir());
    folders.next().unwrap()
}

fn evidence(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(of_log(folder).join("evidence"));
    let mut all: Vec<_> = all
        .into_iter()
        .flatten()
        .flatten()
        .map(|one| one.path())
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn what_was_signed_is_known_after_a_restart() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let log = Log::honest(40);
    let witness = start(folder.path(), &[&log]).await.unwrap();
    assert_eq!(answer(&witness.url, &log.request(0, 20)).await.0, 200);
    let second = start(folder.path(), &[&log]).await;
    assert!(
        matches!(second, Err(StartError::Memory(_))),
        "two on one folder"
    );
    drop(witness);
    let witness = loop {
        match start(folder.path(), &[&log]).await {
            Ok(witness) => break witness,
            Err(_still_there) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(
        answer(&witness.url, &log.request(0, 10)).await,
        (409, "20\n".into())
    );
    assert_eq!(answer(&witness.url, &log.request(20, 30)).await.0, 200);
}

#[tokio::test]
async fn a_state_folder_is_one_witnesss_and_must_be_whole() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let log = Log::honest(40);
    let witness = start(folder.path(), &[&log]).await.unwrap();
    assert_eq!(answer(&witness.url, &log.request(0, 20)).await.0, 200);
    drop(witness);
    let until_free = async || loop {
        match start(folder.path(), &[&log]).await {
            Err(StartError::Memory(error)) if error.to_string().contains("in use") => {
                tokio::task::yield_now().await;
            }
            other => break other.map(drop),
        }
    };
    until_free().await.unwrap();
    let note = of_log(folder.path()).join("checkpoint");
    let good = fs::read_to_string(&note).unwrap();
    for bad in [
        String::new(),
        good.replacen("\n20\n", "\n10\n", 1),
        good[..40].to_owned(),
    ] {
        fs::write(&note, bad).unwrap();
        let refused = until_free().await.unwrap_err().to_string();
        assert!(refused.contains("is no checkpoint"), "{refused}");
    }
    fs::write(&note, good).unwrap();
    fs::remove_file(folder.path().join("witness.key")).unwrap();
    write_key(folder.path(), 6);
    let refused = until_free().await.unwrap_err().to_string();
    assert!(refused.contains("belongs to the witness"), "{refused}");
}

/// A server that shows one history to its clients and another to somebody else can have only one of
/// them signed; the other, if it is ever shown here, is kept beside the first.
#[tokio::test]
async fn two_histories_of_one_log_are_found_and_kept() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let (honest, forked) = (Log::honest(40), Log::new("log.example.com", 1, 12, 40));
    let witness = start(folder.path(), &[&honest]).await.unwrap();
    assert_eq!(answer(&witness.url, &honest.request(0, 20)).await.0, 200);
    assert!(evidence(folder.path()).is_empty());

    // The same size, another root: proof by itself, whatever size it is said to come from.
    for (old, _times) in [(20, 1), (20, 2), (12, 3), (0, 4)] {
        let answered = answer(&witness.url, &forked.request(old, 20)).await;
        assert_eq!(answered, (409, "20\n".into()));
    }
    // A larger one that does not continue what was signed.
    assert_eq!(answer(&witness.url, &forked.request(20, 33)).await.0, 422);
    let kept = evidence(folder.path());
    let names: Vec<_> = kept
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert!(
        names.len() == 2
            && names[0].starts_with("fork-20-")
            && names[1].starts_with("unproved-33-"),
        "{names:?}"
    );
    for (place, size) in kept.iter().zip([20, 33]) {
        let note = |name: &str| fs::read_to_string(place.join(name)).unwrap();
        let known = Checkpoint::open(&note("known.note"), &honest.verifier).unwrap();
        let shown = Checkpoint::open(&note("shown.note"), &honest.verifier).unwrap();
        assert_eq!((known.size(), shown.size()), (20, size));
        assert_ne!(known.root(), shown.root());
    }
    // The first history goes on.
    assert_eq!(answer(&witness.url, &honest.request(20, 40)).await.0, 200);
}

/// Nobody needs a key to send a signed checkpoint with a useless proof.
#[tokio::test]
async fn evidence_does_not_fill_the_disk_and_leaves_room_for_forks() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let log = Log::honest(120);
    let witness = start(folder.path(), &[&log]).await.unwrap();
    assert_eq!(answer(&witness.url, &log.request(0, 10)).await.0, 200);
    for size in 11..110 {
        let mut useless = log.request(10, size);
        useless.proof.clear();
        assert_eq!(answer(&witness.url, &useless).await.0, 422);
    }
    assert_eq!(evidence(folder.path()).len(), 64);
    let forked = Log::new("log.example.com", 1, 0, 40);
    assert_eq!(answer(&witness.url, &forked.request(10, 10)).await.0, 409);
    assert_eq!(evidence(folder.path()).len(), 65);
}

/// Anybody can fill the folder with honest checkpoints, so what comes after them is in the log.
#[test]
fn evidence_that_has_no_room_is_logged_with_both_notes_and_not_by_each_request() {
    let folder = Folder::new("witness");
    let (log, forked) = (Log::honest(120), Log::new("log.example.com", 1, 0, 120));
    let (state, key) = (
        folder.path().join("state"),
        SigningKey::from_bytes(&[5; 32]),
    );
    let (name, keys) = (WITNESS.parse().unwrap(), [log.verifier.clone()]);
    let watch = Watch::open(&state, name, key, &keys, Clock::system()).unwrap();
    assert!(matches!(watch.add(&log.request(0, 10)), Answer::Signed(_)));
    for size in 11..75 {
        let mut useless = log.request(10, size);
        useless.proof.clear();
        assert!(matches!(watch.add(&useless), Answer::BadProof(_)));
    }
    assert_eq!(evidence(folder.path()).len(), 64);
    let (logged, _guard) = Logged::by_this_thread();
    let mut kept_already = log.request(10, 11);
    kept_already.proof.clear();
    assert!(matches!(watch.add(&kept_already), Answer::BadProof(_)));
    assert_eq!(logged.text(), "");
    for _again in 0..3 {
        assert!(matches!(
            watch.add(&forked.request(10, 33)),
            Answer::BadProof(_)
        ));
    }
    let told = logged.text();
    assert_eq!(told.matches("this one is not").count(), 1, "{told}");
    for (of, size) in [(&log, 10), (&forked, 33)] {
        let note = of.checkpoint(size).note().replace('\n', "\\n");
        assert!(told.contains(&note), "{told}\n{note}");
    }
}

#[tokio::test]
async fn what_a_proof_leads_to_later_is_no_evidence_any_more() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let (log, forked) = (Log::honest(40), Log::new("log.example.com", 1, 12, 40));
    let witness = start(folder.path(), &[&log]).await.unwrap();
    assert_eq!(answer(&witness.url, &log.request(0, 20)).await.0, 200);
    let mut needless = log.request(20, 20);
    needless.proof.push(Hash::ZERO);
    assert_eq!(answer(&witness.url, &needless).await.0, 422);
    assert!(evidence(folder.path()).is_empty(), "the known one itself");
    let mut useless = log.request(20, 30);
    useless.proof.clear();
    assert_eq!(answer(&witness.url, &useless).await.0, 422);
    assert_eq!(answer(&witness.url, &forked.request(20, 30)).await.0, 422);
    let before = evidence(folder.path());
    assert_eq!(before.len(), 2);
    assert_eq!(answer(&witness.url, &log.request(20, 30)).await.0, 200);
    let after = evidence(folder.path());
    assert_eq!(after.len(), 1);
    let shown = fs::read_to_string(after[0].join("shown.note")).unwrap();
    assert_eq!(shown, forked.checkpoint(30).note());
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_signed() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let log = Log::honest(40);
    let witness = start(folder.path(), &[&log]).await.unwrap();
    assert_eq!(answer(&witness.url, &log.request(0, 20)).await.0, 200);
    // Where the new note would be written first, there is a folder.
    let beside = of_log(folder.path()).join("checkpoint.new");
    fs::create_dir(&beside).unwrap();
    let (status, text) = answer(&witness.url, &log.request(20, 30)).await;
    assert_eq!(status, 503);
    assert!(!text.contains('\u{2014}'), "{text}");
    // What the disk holds may be signed again; it goes on when there is room.
    assert_eq!(answer(&witness.url, &log.request(20, 20)).await.0, 200);
    fs::remove_dir(&beside).unwrap();
    assert_eq!(answer(&witness.url, &log.request(20, 30)).await.0, 200);
}

/// The new note got its name, and then the machine failed: it may be what a restart finds.
#[tokio::test]
async fn a_size_that_reached_the_disk_unsigned_is_not_gone_back_from() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let log = Log::honest(40);
    let witness = start(folder.path(), &[&log]).await.unwrap();
    assert_eq!(answer(&witness.url, &log.request(0, 20)).await.0, 200);
    fs::create_dir(of_log(folder.path()).join("checkpoint.new")).unwrap();
    let note = of_log(folder.path()).join("checkpoint");
    fs::write(&note, log.checkpoint(35).note()).unwrap();
    assert_eq!(answer(&witness.url, &log.request(20, 30)).await.0, 503);
    assert_eq!(
        answer(&witness.url, &log.request(20, 30)).await,
        (409, "35\n".into())
    );
}
