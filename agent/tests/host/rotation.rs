//! A host gets a second key while its agent runs: both are served, the old one's runs end, its last
//! word is said, and its private part is gone. Killed at any moment, nothing runs twice.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_agent::AgentError;
use countersign_agent::key::{Identity, IdentityError};
use countersign_agent::succession;
use countersign_protocol::event::RefusalReason;
use countersign_protocol::hash::{KeyId, StatementId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::lifecycle::ExecutionStatus;
use countersign_protocol::name::SECOND_US;
use countersign_protocol::rights::ChangeBody;

use crate::support::{Book, Tell, at};
use crate::whole::{Rig, execution};

const HOUR_US: u64 = 3600 * SECOND_US;

/// The two keys of a host.
struct Keys {
    old: KeyId,
    new: KeyId,
}

/// Asks for a new key beside the agent that runs.
fn prepare(rig: &Rig) -> Keys {
    let next = succession::prepare(&rig.config.state, at(rig.fake.book().now)).unwrap();
    Keys {
        old: next.replaces.key_id(),
        new: PublicKey::of(&next.key).key_id(),
    }
}

fn retired(book: &Book, key: KeyId) -> bool {
    book.state.rights().key(&key).is_some_and(|key| key.retired)
}

fn signer(book: &Book, command: StatementId) -> KeyId {
    let run = execution(book, command);
    run.started.unwrap().0.signer
}

fn folders(state: &Path) -> Vec<String> {
    let names = fs::read_dir(state).unwrap().flatten();
    let mut names: Vec<String> = names
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.starts_with("identity"))
        .collect();
    names.sort();
    names
}

/// Where an old key is kept that was refused and never retired.
fn refused(state: &Path, key: KeyId) -> PathBuf {
    let id: String = key.to_string().chars().take(16).collect();
    state.join(format!("identity.refused-{id}"))
}

/// None while the folders change their names.
fn key_in(state: &Path) -> Option<KeyId> {
    countersign_agent::key::public_key(state).map(|key| key.key_id())
}

/// The old key's folder is put away without its private part, and the new one has the name.
async fn put_away(rig: &Rig, keys: &Keys) {
    let state = &rig.config.state;
    let old: String = keys.old.to_string().chars().take(16).collect();
    let old = format!("identity.retired-{old}");
    let expected = vec!["identity".to_owned(), old.clone()];
    let kept = state.join(&old).join("journal");
    let gone = state.join(&old).join("key");
    rig.until("the old key is put away", |book| {
        retired(book, keys.old) && folders(state) == expected && !gone.exists()
    })
    .await;
    assert!(kept.exists());
    assert_eq!(key_in(state), Some(keys.new));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_key_ends_with_its_run_and_the_new_one_takes_what_comes() {
    let mut rig = Rig::ready().await;
    let (go, ran) = (rig.file("go"), rig.file("ran"));
    let waits = |word: &str| {
        let (go, ran) = (go.display(), ran.display());
        format!("echo {word}; until test -e {go}; do sleep 0.02; done; echo {word} >> {ran}")
    };
    let first = rig.granted(&waits("first"));
    rig.running(first).await;
    let keys = prepare(&rig);
    rig.accept().await;
    let streams = &rig.fake.wire.streams;
    rig.until("the new key listens", |_| {
        streams.load(Ordering::SeqCst) >= 2
    })
    .await;
    // Its grace is over at once here, and still its run goes on.
    let second = rig.granted(&waits("second"));
    rig.running(second).await;
    assert_eq!(signer(&rig.fake.book(), first), keys.old);
    assert_eq!(signer(&rig.fake.book(), second), keys.new);
    assert!(!retired(&rig.fake.book(), keys.old));
    fs::write(&go, "").unwrap();
    for id in [first, second] {
        assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    }
    put_away(&rig, &keys).await;
    // The journal goes on under its new name, also when the agent starts anew.
    let third = rig.granted("true");
    assert_eq!(rig.ended(third).await.status, ExecutionStatus::Completed);
    rig.stop().await.unwrap();
    rig.start();
    let fourth = rig.granted("true");
    assert_eq!(rig.ended(fourth).await.status, ExecutionStatus::Completed);
    assert_eq!(signer(&rig.fake.book(), fourth), keys.new);
    rig.stop().await.unwrap();
    assert_eq!(fs::read_to_string(ran).unwrap().lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_the_old_key_runs_through_its_grace_and_no_restart_prolongs_it() {
    let mut rig = Rig::ready().await;
    rig.restart_with(|config| config.rotation_grace = Duration::from_secs(3600))
        .await;
    // Asked for before, approved after.
    let asked = {
        let mut book = rig.fake.book();
        let act = book.act(&["web-1"], &Book::spec(&["true"]));
        book.request("alice", act)
    };
    let keys = prepare(&rig);
    rig.accept().await;
    {
        let mut book = rig.fake.book();
        book.approve("bob", asked).unwrap();
        book.approve("carol", asked).unwrap();
    }
    rig.fake.tell(Tell::Grant(asked));
    assert_eq!(rig.ended(asked).await.status, ExecutionStatus::Completed);
    assert_eq!(signer(&rig.fake.book(), asked), keys.old);
    let new = rig.granted("true");
    rig.ended(new).await;
    assert_eq!(signer(&rig.fake.book(), new), keys.new);

    // Half of it passes, then a restart, then the other half.
    for _half in 0..2 {
        assert!(!retired(&rig.fake.book(), keys.old));
        rig.stop().await.unwrap();
        rig.clock.advance(HOUR_US / 2);
        rig.fake.book().now += HOUR_US / 2;
        rig.start();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    put_away(&rig, &keys).await;
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_of_a_rotation_it_loses_nothing_and_runs_nothing_twice() {
    // Around the moments that matter: the new key is met, both are served, the last word.
    for delay in [0, 150, 1900, 2050, 2150, 2300, 2600] {
        let mut rig = Rig::ready().await;
        let ran = rig.file("ran");
        let keys = prepare(&rig);
        let accept = async {
            rig.accept().await;
            let script = format!("echo once >> {}", ran.display());
            rig.granted(&script)
        };
        let deadline = Duration::from_millis(delay);
        let id = tokio::time::timeout(deadline, accept).await.ok();
        if id.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else {
            tokio::time::sleep(Duration::from_millis(delay % 97)).await;
        }
        rig.kill().await;
        rig.start();
        if id.is_none() {
            rig.accept().await;
        }
        put_away(&rig, &keys).await;
        if let Some(id) = id {
            let ended = rig.ended(id).await.status;
            let may = [ExecutionStatus::Completed, ExecutionStatus::Lost];
            assert!(may.contains(&ended), "{delay}: {ended:?}");
        }
        let last = rig.granted("true");
        assert_eq!(rig.ended(last).await.status, ExecutionStatus::Completed);
        assert_eq!(signer(&rig.fake.book(), last), keys.new);
        let ran = fs::read_to_string(&ran).unwrap_or_default();
        assert!(ran.lines().count() <= 1, "{delay}: {ran}");
        rig.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_word_whose_answer_was_lost_is_said_again() {
    let mut rig = Rig::ready().await;
    let keys = prepare(&rig);
    rig.until("it enrols", |book| {
        book.state.rights().enrolments().next().is_some()
    })
    .await;
    rig.fake.wire.lose.store(2, Ordering::SeqCst);
    rig.accept().await;
    rig.until("the word is in the log", |book| retired(book, keys.old))
        .await;
    rig.kill().await;
    rig.start();
    put_away(&rig, &keys).await;
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_keys_share_the_places_for_runs() {
    let mut rig = Rig::ready().await;
    rig.restart_with(|config| config.max_runs = 1).await;
    let first = rig.granted("sleep 60");
    rig.running(first).await;
    let streams = rig.fake.wire.streams.load(Ordering::SeqCst);
    prepare(&rig);
    rig.accept().await;
    rig.listening(streams + 1).await;
    let second = rig.granted("true");
    let refused = rig.ended(second).await.refused.map(|refused| refused.why);
    assert_eq!(refused, Some(RefusalReason::Busy));
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_key_that_administrators_revoke_takes_nothing_with_it() {
    let mut rig = Rig::ready().await;
    rig.restart_with(|config| config.rotation_grace = Duration::from_secs(3600))
        .await;
    let keys = prepare(&rig);
    rig.accept().await;
    rig.fake.book().change(ChangeBody::KeyRevoked {
        key_id: keys.old,
        suspect_from: None,
    });
    let id = rig.granted("true");
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    rig.stop().await.unwrap();
    rig.clock.advance(HOUR_US);
    rig.fake.book().now += HOUR_US;
    rig.start();
    let state = rig.config.state.clone();
    rig.until("the old key is put away", |_| {
        folders(&state).len() == 2 && key_in(&state) == Some(keys.new)
    })
    .await;
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_without_proof_that_the_old_key_was_revoked_loses_the_host_nothing() {
    let mut rig = Rig::ready().await;
    let keys = prepare(&rig);
    let refuse = &rig.fake.wire.refuse;
    refuse.lock().unwrap().insert(keys.old, "revoked_key");
    rig.accept().await;
    let (state, kept) = (
        rig.config.state.clone(),
        refused(&rig.config.state, keys.old),
    );
    rig.until("the new key has the name", |_| {
        !state.join("identity.next").exists() && key_in(&state) == Some(keys.new)
    })
    .await;
    let check = |rig: &Rig| {
        let name = kept.file_name().unwrap().to_str().unwrap();
        assert_eq!(folders(&state), ["identity", name]);
        let key = fs::read_to_string(kept.join("key")).unwrap();
        assert!(key.contains("PRIVATE KEY") && kept.join("journal").exists());
        assert!(!retired(&rig.fake.book(), keys.old));
    };
    check(&rig);
    let id = rig.granted("true");
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    assert_eq!(signer(&rig.fake.book(), id), keys.new);
    rig.stop().await.unwrap();
    // A start removes what has retired, and this has not.
    rig.start();
    let id = rig.granted("true");
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    check(&rig);
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_key_is_revoked_before_the_next_one_is_accepted_waits_for_that() {
    let mut rig = Rig::ready().await;
    let go = rig.file("go");
    let id = rig.granted(&format!(
        "until test -e {}; do sleep 0.02; done",
        go.display()
    ));
    rig.running(id).await;
    let keys = prepare(&rig);
    rig.until("it enrols", |book| {
        book.state.rights().enrolments().next().is_some()
    })
    .await;
    rig.fake.book().change(ChangeBody::KeyRevoked {
        key_id: keys.old,
        suspect_from: None,
    });
    fs::write(&go, "").unwrap();
    // It hears of it when it tells of the end, and again after a restart.
    for _time in 0..2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!rig.agent.as_ref().unwrap().is_finished());
        rig.stop().await.unwrap();
        rig.start();
    }
    rig.accept().await;
    let state = rig.config.state.clone();
    rig.until("the new key has the name", |_| {
        !state.join("identity.next").exists() && key_in(&state) == Some(keys.new)
    })
    .await;
    assert!(refused(&state, keys.old).join("key").exists());
    let id = rig.granted("true");
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_key_begins_nothing_while_nobody_can_tell_whether_its_grace_is_over() {
    let mut rig = Rig::ready().await;
    rig.stop().await.unwrap();
    rig.config.rotation_grace = Duration::from_secs(3600);
    rig.start();
    let streams = || rig.fake.wire.streams.load(Ordering::SeqCst);
    let asked = {
        let mut book = rig.fake.book();
        let act = book.act(&["web-1"], &Book::spec(&["true"]));
        book.request("alice", act)
    };
    let (before, keys) = (streams(), prepare(&rig));
    rig.accept().await;
    rig.listening(before + 1).await;
    rig.stop().await.unwrap();
    {
        let mut book = rig.fake.book();
        book.approve("bob", asked).unwrap();
        book.approve("carol", asked).unwrap();
    }
    rig.fake.tell(Tell::Grant(asked));
    let next = rig.config.state.join("identity.next");
    let mode = |mode| fs::set_permissions(&next, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    rig.start();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(execution(&rig.fake.book(), asked).started.is_none());
    assert!(!rig.agent.as_ref().unwrap().is_finished());
    rig.stop().await.unwrap();
    // It was in its grace all the while.
    mode(0o700);
    rig.start();
    assert_eq!(rig.ended(asked).await.status, ExecutionStatus::Completed);
    assert_eq!(signer(&rig.fake.book(), asked), keys.old);
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_that_ends_while_the_old_one_waits_to_say_its_last_word_ends_the_agent() {
    let mut rig = Rig::ready().await;
    let keys = prepare(&rig);
    let refuse = |key, code| rig.fake.wire.refuse.lock().unwrap().insert(key, code);
    refuse(keys.old, "runs_open");
    let before = rig.fake.wire.streams.load(Ordering::SeqCst);
    rig.accept().await;
    rig.listening(before + 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    refuse(keys.new, "revoked_key");
    rig.granted("true");
    let ended = rig.result().await.unwrap_err();
    assert!(matches!(ended, AgentError::KeyRefused(_)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_rotates_twice_without_a_restart() {
    let mut rig = Rig::ready().await;
    for _time in 0..2 {
        let keys = prepare(&rig);
        rig.accept().await;
        rig.until("the old key has retired", |book| retired(book, keys.old))
            .await;
        let state = rig.config.state.clone();
        rig.until("it is put away", |_| {
            !state.join("identity.next").exists() && key_in(&state) == Some(keys.new)
        })
        .await;
    }
    let id = rig.granted("true");
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    rig.stop().await.unwrap();
}

/// A state folder with a current identity and one that waits; and both keys.
fn two(folder: &Path) -> (PathBuf, KeyId, KeyId) {
    let state = folder.join("state");
    let (identity, _) = Identity::open_or_create(&state, at(7)).unwrap();
    let next = succession::prepare(&state, at(8)).unwrap();
    let new = PublicKey::of(&next.key).key_id();
    assert!(next.is_new);
    (state, identity.key_id(), new)
}

#[test]
fn a_key_that_waits_is_found_again_and_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let (state, old, new) = two(folder.path());
    let again = succession::prepare(&state, at(9)).unwrap();
    assert!(!again.is_new);
    assert_eq!(PublicKey::of(&again.key).key_id(), new);
    assert_eq!(again.replaces.key_id(), old);
    // What waits changes nothing for the current one.
    let (identity, _) = Identity::open_or_create(&state, at(9)).unwrap();
    assert_eq!(identity.key_id(), old);
    let (next, _) = identity.open_next(&state).unwrap().unwrap();
    assert_eq!(next.key_id(), new);
}

#[test]
fn without_a_key_there_is_none_to_replace() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let refused = succession::prepare(&state, at(7)).unwrap_err();
    assert!(matches!(refused, IdentityError::NoIdentity(_)));
    assert!(!state.exists());
}

#[test]
fn a_start_goes_on_where_a_crash_left_the_folders() {
    // After the first rename, with the private key and without.
    for has_key in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (state, _, new) = two(folder.path());
        let away = state.join("identity.retired-0123456789abcdef");
        fs::rename(state.join("identity"), &away).unwrap();
        if !has_key {
            fs::remove_file(away.join("key")).unwrap();
        }
        let (identity, _) = Identity::open_or_create(&state, at(9)).unwrap();
        assert_eq!(identity.key_id(), new);
        assert!(!away.join("key").exists() && away.join("journal").exists());
        assert_eq!(folders(&state).len(), 2);
    }
}

#[test]
fn a_start_puts_a_key_away_that_had_said_its_last_word() {
    use countersign_agent::spool::Record;

    let folder = tempfile::tempdir().unwrap();
    let (state, old, new) = two(folder.path());
    {
        let (_identity, spool) = Identity::open_or_create(&state, at(9)).unwrap();
        spool.append(vec![Record::Retired]).unwrap();
        fs::write(state.join("identity/checkpoint"), "the newest").unwrap();
    }
    let (identity, _) = Identity::open_or_create(&state, at(9)).unwrap();
    assert_eq!(identity.key_id(), new);
    assert!(old != new && folders(&state).len() == 2);
    // What was seen of the ledger is not forgotten.
    let kept = fs::read_to_string(state.join("identity/checkpoint")).unwrap();
    assert_eq!(kept, "the newest");
}
