//! A whole agent through outages and power cuts: nothing twice, nothing lost that was kept.

use std::fs;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use countersign_agent::enroll::{End, Enroll, enroll};
use countersign_agent::orders::Orders;
use countersign_agent::spool::FILE;
use countersign_protocol::event::{LossForm, Stream};
use countersign_protocol::lifecycle::ExecutionStatus;

use crate::small_disk::SmallDisk;
use crate::support::Tell;
use crate::whole::{Rig, execution};

#[tokio::test(flavor = "multi_thread")]
async fn a_long_outage_does_not_hold_a_command_up() {
    let mut rig = Rig::ready().await;
    let (go, done) = (rig.file("go"), rig.file("done"));
    // More than any queue in memory would take, less than the output limit.
    let id = rig.granted(&format!(
        "echo begin; while [ ! -e {} ]; do sleep 0.05; done; \
         for n in 1 2 3 4 5 6 7 8; do head -c 120000 /dev/zero | tr '\\0' $n; done; touch {}",
        go.display(),
        done.display()
    ));
    rig.until("output", |book| execution(book, id).chunks == 1)
        .await;
    rig.fake.wire.away.store(true, Ordering::SeqCst);
    fs::write(go, "").unwrap();
    rig.until("the command has ended without the server", |_| {
        done.exists()
    })
    .await;
    rig.fake.wire.away.store(false, Ordering::SeqCst);
    let completed = rig.ended(id).await.completed.unwrap();
    let text: String = ('1'..='8').map(|n| n.to_string().repeat(120_000)).collect();
    assert!(rig.output(id, Stream::Stdout) == format!("begin\n{text}"));
    assert_eq!(completed.stdout.total, 8 * 120_000 + 6);
    rig.stop().await.unwrap();
}

/// Ways in which a power cut leaves the last append.
#[derive(Debug, Clone, Copy)]
enum Tear {
    Cut,
    Zeros,
    Garbage,
}

async fn is_lost_after(tear: Tear) {
    let mut rig = Rig::ready().await;
    let (go, ran) = (rig.file("go"), rig.file("ran"));
    let id = rig.granted(&format!(
        "echo x >> {}; echo 1; while [ ! -e {} ]; do sleep 0.05; done; \
         echo 2; sleep 0.4; head -c 3000 /dev/zero | tr '\\0' 3; sleep 60",
        ran.display(),
        go.display()
    ));
    rig.until("output", |book| execution(book, id).chunks == 1)
        .await;
    // Until it is written down that the first chunk is delivered.
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.fake.wire.away.store(true, Ordering::SeqCst);
    let journal = rig.config.state.join("identity").join(FILE);
    let size = || fs::metadata(&journal).unwrap().len();
    let before = size();
    fs::write(go, "").unwrap();
    rig.until("the second chunk", |_| size() > before).await;
    let whole = usize::try_from(size()).unwrap();
    rig.until("the third chunk", |_| size() > whole as u64)
        .await;
    rig.kill().await;
    let mut bytes = fs::read(&journal).unwrap();
    let from = whole + 1000;
    match tear {
        Tear::Cut => bytes.truncate(from),
        Tear::Zeros => bytes[from..].fill(0),
        Tear::Garbage => bytes[from..].fill(0xA7),
    }
    fs::write(&journal, bytes).unwrap();
    rig.fake.wire.away.store(false, Ordering::SeqCst);
    rig.start();
    let lost = rig.ended(id).await;
    assert_eq!(lost.status, ExecutionStatus::Lost, "{tear:?}");
    assert_eq!(lost.lost, Some(LossForm::Confirmed));
    assert_eq!(rig.output(id, Stream::Stdout), "1\n2\n", "{tear:?}");
    let after = rig.granted("true");
    assert_eq!(rig.ended(after).await.status, ExecutionStatus::Completed);
    assert_eq!(fs::read_to_string(ran).unwrap(), "x\n");
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_lost_with_its_partial_output_however_the_power_cut_tore_the_journal() {
    tokio::join!(
        is_lost_after(Tear::Cut),
        is_lost_after(Tear::Zeros),
        is_lost_after(Tear::Garbage)
    );
}

/// The ledger takes not a byte more than the request keeps, so an agent must not have one more to say.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_past_the_limit_fills_it_to_the_byte_and_the_run_ends_well() {
    let mut rig = Rig::ready().await;
    let id = rig.granted(
        "head -c 900000 /dev/zero & head -c 900000 /dev/zero >&2; wait; echo more; echo more >&2",
    );
    let part = rig.ended(id).await;
    let limit = rig.fake.book().command(id).act().output_limit;
    assert_eq!(part.kept.stdout + part.kept.stderr, limit);
    let done = part.completed.unwrap();
    assert!(done.succeeded() && done.is_truncated());
    assert_eq!(done.stdout.total + done.stderr.total, 2 * 900_000 + 10);
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_output_is_refused_calls_the_run_lost_and_goes_on() {
    let mut rig = Rig::ready().await;
    let go = rig.file("go");
    let id = rig.granted(&format!(
        "echo one; while [ ! -e {} ]; do sleep 0.05; done; echo two; sleep 0.3; echo three",
        go.display()
    ));
    rig.until("output", |book| execution(book, id).chunks == 1)
        .await;
    {
        // As if somebody with its key had used up the room.
        let mut book = rig.fake.book();
        let mut command = book.state.close(&id).unwrap();
        let limit = command.act().output_limit;
        for part in command.executions.values_mut() {
            part.kept.stdout = limit;
        }
        book.state.restore(command);
    }
    fs::write(go, "").unwrap();
    let lost = rig.ended(id).await;
    assert_eq!(lost.lost, Some(LossForm::Confirmed));
    assert_eq!(rig.output(id, Stream::Stdout), "one\n");
    let after = rig.granted("true");
    assert_eq!(rig.ended(after).await.status, ExecutionStatus::Completed);
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_every_answer_is_lost_it_still_says_each_thing_once() {
    let mut rig = Rig::ready().await;
    let ran = rig.file("ran");
    for round in 0..6_u64 {
        rig.fake.wire.lose.store(3, Ordering::SeqCst);
        let id = rig.granted(&format!("echo {round} >> {}; echo out", ran.display()));
        tokio::time::sleep(Duration::from_millis(70 * round)).await;
        rig.kill().await;
        rig.start();
        let streams = rig.fake.wire.streams.load(Ordering::SeqCst);
        rig.listening(streams + 1).await;
        rig.fake.tell(Tell::Grant(id));
        let end = rig.ended(id).await;
        assert!(
            matches!(
                end.status,
                ExecutionStatus::Completed | ExecutionStatus::Lost
            ),
            "{end:?}"
        );
        if end.status == ExecutionStatus::Completed {
            assert_eq!(rig.output(id, Stream::Stdout), "out\n");
        }
    }
    let ran = fs::read_to_string(ran).unwrap_or_default();
    let mut rounds: Vec<&str> = ran.lines().collect();
    let all = rounds.len();
    rounds.dedup();
    assert_eq!(rounds.len(), all, "something ran twice: {ran}");
    rig.stop().await.unwrap();
}

/// The answer was lost and sent again, or another server took it whose clock is behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_that_was_spent_in_vain_is_no_word_about_the_agent() {
    let mut rig = Rig::ready().await;
    rig.stop().await.unwrap();
    let options = Enroll {
        no_wait: false,
        timeout: Some(20),
        json: false,
    };
    let spent = &rig.fake.wire.spent;
    for answers in [2, 5] {
        spent.store(answers, Ordering::SeqCst);
        let orders = Orders::default();
        let end = Box::pin(enroll(&rig.config, &options, &orders, |_| {})).await;
        assert_eq!(end.unwrap(), End::Accepted);
        assert_eq!(spent.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_agent_has_no_room_on_its_disk_is_cancelled_all_the_same() {
    let mut disk = None;
    let mut rig = Rig::new_with(|config| {
        fs::create_dir(&config.state).unwrap();
        disk = SmallDisk::over(&config.state, 1024);
        Orders::default()
    })
    .await;
    if disk.is_none() {
        rig.stop().await.unwrap();
        return;
    }
    rig.accept().await;
    rig.listening(1).await;
    let alive = rig.file("alive");
    let id = rig.granted(&format!(
        "echo on; while sleep 0.05; do touch {}; done",
        alive.display()
    ));
    rig.writing(id).await;
    // Until it is written down that this was delivered.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let filler = rig.config.state.join("filler");
    let filled = fs::write(&filler, vec![0; 2 << 20]).unwrap_err();
    assert_eq!(filled.kind(), ErrorKind::StorageFull);
    rig.cancels("bob", id);
    rig.fake.tell(Tell::Cancel(id));
    let begun = Instant::now();
    while alive.exists() {
        // Its timeout would stop it in half a minute.
        assert!(begun.elapsed() < Duration::from_secs(15), "it goes on");
        fs::remove_file(&alive).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // How it ended may wait for room.
    fs::remove_file(filler).unwrap();
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Cancelled);
    rig.stop().await.unwrap();
}
