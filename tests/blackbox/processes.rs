//! dev as a process: it stops, it dies, it comes back with everything.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Dev, PROGRAM, processes_with, signal, text, until};

#[test]
fn what_was_acknowledged_is_there_after_kill_and_restart() {
    let mut dev = Dev::start();
    let folder = dev.folder();
    let here = folder.path().to_str().unwrap().to_owned();
    let ledger = dev.env("COUNTERSIGN_LEDGER").to_owned();
    let id = dev.request(&[], &["echo", "kept"]);
    dev.approve(&id);
    dev.ended(&id);
    let waiting = dev.request(&[], &["echo", "waits"]);
    let begun = Instant::now();
    signal(dev.pid(), "KILL");
    dev.wait();
    until("nothing is left running", || {
        processes_with(&here).is_empty()
    });
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    drop(dev);
    let dev = Dev::start_in(Arc::clone(&folder));
    assert_eq!(dev.env("COUNTERSIGN_LEDGER"), ledger);
    assert_eq!(dev.show(&id)["executions"][0]["stdout"], "kept\n");
    dev.approve(&waiting);
    assert_eq!(dev.ended(&waiting)["status"], "completed");
    assert!(dev.is_sound());
}

#[test]
fn term_stops_everything_within_ten_seconds() {
    let mut dev = Dev::start();
    let here = dev.folder().path().to_str().unwrap().to_owned();
    let id = dev.request(&["--timeout", "100"], &["sleep", "99"]);
    dev.approve(&id);
    until("it runs", || dev.show(&id)["status"] == "running");
    let begun = Instant::now();
    signal(dev.pid(), "TERM");
    assert_eq!(dev.wait(), Some(0));
    until("nothing is left running", || {
        processes_with(&here).is_empty()
    });
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    // The agent had the time to say how its command ended.
    let dev = Dev::start_in(dev.folder());
    assert_eq!(dev.ended(&id)["executions"][0]["outcome"], "cancelled");
}

#[test]
fn a_second_start_on_the_same_data_is_told_so() {
    let dev = Dev::start();
    let output = Command::new(PROGRAM)
        .args(["dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(dev.data())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("another countersign uses"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(dev.through(&[], &["true"])["status"], "completed");
}

#[test]
fn two_devs_run_beside_each_other() {
    let (one, two) = (Dev::start(), Dev::start());
    assert_ne!(one.env("COUNTERSIGN_LEDGER"), two.env("COUNTERSIGN_LEDGER"));
    assert_eq!(one.through(&[], &["true"])["status"], "completed");
    assert_eq!(two.through(&[], &["true"])["status"], "completed");
}

#[test]
fn a_missing_postgres_is_told_with_the_line_that_installs_it() {
    let output = Command::new(PROGRAM)
        .args(["demo"])
        .env("COUNTERSIGN_PG_BINDIR", "/nowhere")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("/nowhere"),
        "{}",
        text(&output.stderr)
    );
}
