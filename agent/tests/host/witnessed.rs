//! A host that pins witnesses runs nothing that they have not lately signed.

use std::fs;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_agent::Config;
use countersign_agent::orders::Orders;
use countersign_protocol::checkpoint::{Checkpoint, Origin};
use countersign_protocol::cosignature::{Cosignature, WitnessKey};
use countersign_protocol::event::RefusalReason;
use countersign_protocol::hash::StatementId;
use countersign_protocol::lifecycle::ExecutionStatus;
use countersign_protocol::name::SECOND_US;

use crate::small_disk::SmallDisk;
use crate::support::{Tell, at, key};
use crate::whole::{Rig, approved};

fn witness() -> (Origin, WitnessKey) {
    let name: Origin = "witness.example.com/w1".parse().unwrap();
    let known = WitnessKey::of(&name, &key("witness"));
    (name, known)
}

/// A rig whose host asks for one witness.
async fn rig() -> Rig {
    rig_with(|_| {}).await
}

/// The same, with changes of its configuration.
async fn rig_with(change: impl FnOnce(&mut Config)) -> Rig {
    let policy = format!("witness w {}\nquorum w\n", witness().1);
    let rig = Rig::new_with(|config| {
        config.witnesses = Some(policy.parse().unwrap());
        change(config);
        Orders::default()
    })
    .await;
    rig.accept().await;
    rig.listening(1).await;
    rig
}

impl Rig {
    /// It has looked again, and what touches `ran` has neither run nor ended.
    async fn still_waits(&self, id: StatementId) {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!self.execution(id).status.is_final() && !self.file("ran").exists());
    }

    /// The newest checkpoint, signed by the witness so many seconds ago.
    fn cosign(&self, ago: u64) -> Checkpoint {
        self.cosign_at(|now| now - ago * SECOND_US)
    }

    /// The same at a time that follows from the host's.
    fn cosign_at(&self, of: impl Fn(u64) -> u64) -> Checkpoint {
        let newest = self.fake.book().checkpoint();
        let time = at(of(self.clock.now().as_micros()));
        let line = Cosignature::sign(newest.body(), &witness().0, &key("witness"), time);
        let note = newest.with_lines([line.line()]).unwrap();
        *self.fake.wire.cosigned.lock().unwrap() = Some(note.note().to_owned());
        note
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_runs_when_the_witnesses_have_lately_signed() {
    let mut rig = rig().await;
    for ago in [0, 590] {
        rig.cosign(ago);
        let id = rig.granted(&format!("echo once >> {}", rig.file("ran").display()));
        assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    }
    assert_eq!(fs::read_to_string(rig.file("ran")).unwrap(), "once\nonce\n");
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_of_young_cosignatures_nothing_runs() {
    let mut rig = rig().await;
    let touch = format!("touch {}", rig.file("ran").display());
    let newest = rig.fake.book().checkpoint().note().to_owned();
    let ahead = rig.cosign_at(|now| now + 130 * SECOND_US).note().to_owned();
    for shown in [newest, ahead] {
        *rig.fake.wire.cosigned.lock().unwrap() = Some(shown);
        let id = rig.granted(&touch);
        let ended = rig.ended(id).await;
        assert_eq!(ended.status, ExecutionStatus::Refused);
        assert_eq!(
            ended.refused.map(|refused| refused.why),
            Some(RefusalReason::Grant)
        );
    }
    assert!(!rig.file("ran").exists());
    rig.stop().await.unwrap();
}

/// A server that was down shows the note that it kept, until its witnesses have signed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_waits_for_a_while_where_only_age_is_wrong_with_what_is_shown() {
    let mut rig = rig().await;
    rig.cosign(610);
    let id = rig.granted(&format!("touch {}", rig.file("ran").display()));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    rig.clock.advance(25 * SECOND_US);
    rig.still_waits(id).await;
    rig.cosign(0);
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    assert_eq!(rig.fake.wire.streams.load(Ordering::SeqCst), 1);
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_refused_when_what_is_shown_stays_too_old_or_its_time_ends_before() {
    let mut rig = rig().await;
    rig.cosign(610);
    let touch = format!("touch {}", rig.file("ran").display());
    for (passes, why) in [(31, RefusalReason::Grant), (2 * 3600, RefusalReason::Time)] {
        let id = rig.granted(&touch);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!rig.execution(id).status.is_final());
        rig.clock.advance(passes * SECOND_US);
        let ended = rig.ended(id).await;
        assert_eq!(ended.status, ExecutionStatus::Refused);
        assert_eq!(ended.refused.map(|refused| refused.why), Some(why));
    }
    assert!(!rig.file("ran").exists());
    rig.stop().await.unwrap();
}

/// A server that was away again had no time to ask its witnesses.
#[tokio::test(flavor = "multi_thread")]
async fn the_wait_for_a_younger_word_begins_anew_once_the_server_was_away() {
    let mut rig = rig().await;
    rig.cosign(610);
    let id = rig.granted(&format!("touch {}", rig.file("ran").display()));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    *rig.fake.wire.cosigned.lock().unwrap() = None;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    rig.clock.advance(31 * SECOND_US);
    rig.cosign(610);
    rig.still_waits(id).await;
    rig.cosign(0);
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    rig.stop().await.unwrap();
}

/// Ten grants that wait take longer to look at than the pause between two looks.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_does_not_stand_behind_grants_that_wait_for_the_witnesses() {
    let mut rig = rig().await;
    rig.cosign(0);
    let id = rig.granted("echo on; sleep 60");
    rig.writing(id).await;
    rig.cosign(610);
    rig.fake.wire.slow.store(150, Ordering::SeqCst);
    for _grant in 0..10 {
        rig.granted("true");
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    rig.cancels("bob", id);
    rig.fake.tell(Tell::Cancel(id));
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Cancelled);
    rig.fake.wire.slow.store(0, Ordering::SeqCst);
    rig.stop().await.unwrap();
}

/// The server is not there yet with a quorum: that may pass, and approvals have their own end.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_waits_while_no_cosigned_checkpoint_is_shown() {
    let mut rig = rig().await;
    let id = rig.granted(&format!("touch {}", rig.file("ran").display()));
    rig.still_waits(id).await;
    rig.cosign(0);
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    rig.stop().await.unwrap();
}

/// What is shown next time may be signed: the grant is not sent again on this connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_waits_while_the_note_that_is_shown_is_not_believed() {
    let mut rig = rig().await;
    *rig.fake.wire.cosigned.lock().unwrap() = Some("no checkpoint\n".to_owned());
    let id = rig.granted(&format!("touch {}", rig.file("ran").display()));
    rig.still_waits(id).await;
    rig.cosign(0);
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    assert_eq!(rig.fake.wire.streams.load(Ordering::SeqCst), 1);
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_waits_while_there_is_no_room_to_remember_what_the_witnesses_signed() {
    let mut disk = None;
    let mut rig = rig_with(|config| {
        fs::create_dir(&config.state).unwrap();
        disk = SmallDisk::over(&config.state, 1024);
    })
    .await;
    if disk.is_none() {
        rig.stop().await.unwrap();
        return;
    }
    // The grant's own checkpoint is remembered before the disk is full.
    let id = rig.granted(&format!("touch {}", rig.file("ran").display()));
    let remembered = rig.config.state.join("identity").join("checkpoint");
    rig.until("it has seen the grant", |book| {
        let note = fs::read_to_string(&remembered).unwrap_or_default();
        note.lines().nth(1) == Some(book.entries.len().to_string().as_str())
    })
    .await;
    let filler = rig.config.state.join("filler");
    let filled = fs::write(&filler, vec![0; 2 << 20]).unwrap_err();
    assert_eq!(filled.kind(), ErrorKind::StorageFull);
    {
        let mut book = rig.fake.book();
        let heartbeat = book.ledger_header().heartbeat();
        book.sign_and_append("ledger", &heartbeat).unwrap();
    }
    rig.cosign(0);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!rig.execution(id).status.is_final() && !rig.file("ran").exists());
    fs::remove_file(filler).unwrap();
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    assert_eq!(rig.fake.wire.streams.load(Ordering::SeqCst), 1);
    rig.stop().await.unwrap();
}

/// A history that the witness signed is not the one of the grant: the agent stops, and keeps both.
#[tokio::test(flavor = "multi_thread")]
async fn a_cosigned_second_history_stops_the_agent() {
    let mut rig = rig().await;
    let newest = rig.fake.book().checkpoint();
    let mut body = newest.body().clone();
    body.root = countersign_protocol::hash::Hash::new([9; 32]);
    let second = Checkpoint::sign(body, &key("checkpoint"));
    let now = rig.clock.now();
    let line = Cosignature::sign(second.body(), &witness().0, &key("witness"), now);
    let note = second.with_lines([line.line()]).unwrap();
    *rig.fake.wire.cosigned.lock().unwrap() = Some(note.note().to_owned());
    let id = approved(&mut rig.fake.book(), &["true"]);
    rig.fake.tell(Tell::Grant(id));
    assert!(rig.result().await.is_err());
}
