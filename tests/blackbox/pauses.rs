//! Servers that are stopped for a while and go on: a laptop's lid, a frozen machine, a debugger.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::servers::Server;
use crate::support::{Dev, signal};

fn second_server(dev: &Dev) -> Server {
    let keys = dev.data().join("ledger");
    let checkpoint = dev.folder().path().join("second-checkpoint");
    Server::start(dev, dev.env("DATABASE_URL"), &keys, &checkpoint, true)
}

/// A verb at one of the servers, that must succeed.
fn at(dev: &Dev, server: &str, who: &str, arguments: &[&str]) -> Value {
    dev.json(who, 0, &[&["--server", server], arguments].concat())
}

fn ask(dev: &Dev, server: &str) -> String {
    let request = [
        "request", "--on", "local", "--reason", "a test", "--", "true",
    ];
    let asked = at(dev, server, "alice", &request);
    asked["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_server_that_was_paused_goes_on_behind_what_the_other_wrote() {
    let dev = Dev::start();
    let first = dev.env("COUNTERSIGN_SERVER").to_owned();
    let second = second_server(&dev);
    let before = ask(&dev, &second.url);
    signal(second.child.id(), "STOP");
    // Meanwhile one approval of an old command, and a new command with one approval.
    at(&dev, &first, "bob", &["approve", &before, "--yes"]);
    let meanwhile = ask(&dev, &first);
    at(&dev, &first, "bob", &["approve", &meanwhile, "--yes"]);
    signal(second.child.id(), "CONT");
    // What it decides now rests on what it missed.
    for id in [&before, &meanwhile] {
        let shown = at(&dev, &second.url, "carol", &["approve", id, "--yes"]);
        assert_eq!(shown["status"], "authorized");
    }
    ask(&dev, &second.url);
    assert!(dev.is_sound());
}

#[test]
fn a_server_paused_in_the_middle_of_its_work_loses_and_doubles_nothing() {
    let dev = Arc::new(Dev::start());
    let second = second_server(&dev);
    let loads = [
        dev.env("COUNTERSIGN_SERVER").to_owned(),
        second.url.clone(),
        second.url.clone(),
    ]
    .map(|server| {
        let dev = Arc::clone(&dev);
        thread::spawn(move || (0..6).map(|_| ask(&dev, &server)).collect::<Vec<_>>())
    });
    let mut pauses = 0;
    while !loads.iter().all(thread::JoinHandle::is_finished) {
        signal(second.child.id(), "STOP");
        thread::sleep(Duration::from_millis(150));
        signal(second.child.id(), "CONT");
        thread::sleep(Duration::from_millis(40));
        pauses += 1;
    }
    assert!(pauses > 2, "only {pauses} pauses");
    let mut acknowledged: Vec<String> = loads
        .into_iter()
        .flat_map(|load| load.join().unwrap())
        .collect();
    dev.holds_each_once(&acknowledged);
    acknowledged.sort();
    acknowledged.dedup();
    assert_eq!(acknowledged.len(), 18);
    assert!(dev.is_sound());
}
