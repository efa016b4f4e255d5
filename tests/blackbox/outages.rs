//! What an agent keeps while its server, its database, its disk or it itself is gone: all output
//! once and in order, each command at most once, and no claim that is not kept.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agents::agent_of;
use crate::folder::Folder;
use crate::proxy::Proxy;
use crate::servers::Server;
use crate::small_disk::SmallDisk;
use crate::support::{Dev, signal, text, until};

/// A dev whose agent reaches the server through a proxy.
pub(crate) fn behind_a_proxy() -> (Dev, Proxy) {
    let proxy = Proxy::start("http://127.0.0.1:1");
    let dev = Dev::start_met_at(Arc::new(Folder::new("dev")), &[&proxy.url]);
    proxy.to(dev.env("COUNTERSIGN_SERVER"));
    let config = dev.data().join("agent/agent.toml");
    let direct = fs::read_to_string(&config).unwrap();
    let server = dev.env("COUNTERSIGN_SERVER");
    assert!(direct.contains(server));
    fs::write(&config, direct.replace(server, &proxy.url)).unwrap();
    signal(agent_of(&dev), "KILL");
    until("the agent listens through the proxy", || {
        proxy.wire.streams.load(Ordering::SeqCst) > 0
    });
    (dev, proxy)
}

/// Standard output and standard error of a command, byte for byte as the ledger has them.
fn output(dev: &Dev, id: &str) -> (Vec<u8>, Vec<u8>) {
    let output = dev.verb("alice", &["logs", id]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    (output.stdout, output.stderr)
}

/// Lines of eight digits and an end, as `seq -f %08.0f` writes them.
fn numbers(count: u32) -> Vec<u8> {
    (1..=count)
        .flat_map(|number| format!("{number:08}\n").into_bytes())
        .collect()
}

/// Asked for, approved, and seen to run.
fn begun(dev: &Dev, options: &[&str], script: &str) -> String {
    let id = dev.request(options, &["sh", "-c", script]);
    dev.approve(&id);
    until("it runs", || dev.show(&id)["status"] == "running");
    id
}

fn execution(shown: &Value) -> &Value {
    &shown["executions"][0]
}

/// Waits for the end without reading the output each time, as showing the command would.
fn status_at_the_end(dev: &Dev, id: &str) -> String {
    let mut status = String::new();
    until("the command has ended", || {
        let list = dev.json("alice", 0, &["list"]);
        let items = list["items"].as_array().unwrap();
        let item = items.iter().find(|item| item["id"] == id).unwrap();
        item["status"].as_str().unwrap().clone_into(&mut status);
        status != "running"
    });
    status
}

const LARGE: [&str; 4] = ["--output-limit", "30000000", "--timeout", "120"];

#[test]
fn a_server_that_is_killed_holds_no_command_up_and_has_all_output_later() {
    let (dev, proxy) = behind_a_proxy();
    let keys = dev.data().join("ledger");
    let checkpoint = dev.folder().path().join("second-checkpoint");
    let database = dev.env("DATABASE_URL");
    let server = Server::start(&dev, database, &keys, &checkpoint, true);
    proxy.to(&server.url);
    let (go, done) = (
        dev.folder().path().join("go"),
        dev.folder().path().join("done"),
    );
    let script = format!(
        "seq -f %08.0f 1 1000; while [ ! -e {} ]; do sleep 0.02; done; \
         seq -f %08.0f 1001 2300000; touch {}",
        go.display(),
        done.display()
    );
    let id = begun(&dev, &LARGE, &script);
    fs::write(&go, "").unwrap();
    let sent = proxy.wire.statements.load(Ordering::SeqCst);
    until("output is on its way", || {
        proxy.wire.statements.load(Ordering::SeqCst) > sent
    });
    // kill -9, in the middle of the output.
    drop(server);
    until("the command has ended without a server", || done.exists());
    let server = Server::start(&dev, database, &keys, &checkpoint, false);
    proxy.to(&server.url);
    assert_eq!(status_at_the_end(&dev, &id), "completed");
    assert!(output(&dev, &id).0 == numbers(2_300_000));
    assert!(dev.is_sound());
}

#[test]
fn a_postgres_that_crashes_and_stays_away_loses_and_doubles_nothing() {
    let dev = Dev::start();
    let done = dev.folder().path().join("done");
    let script = format!(
        "for n in 0 1 2 3 4 5 6 7 8 9; do seq -f %08.0f $((n*20000+1)) $((n*20000+20000)); \
         sleep 0.1; done; touch {}",
        done.display()
    );
    let id = begun(&dev, &LARGE, &script);
    dev.sql("ALTER ROLE countersign_app NOLOGIN");
    let pid = dev.sql("SELECT min(pid) FROM pg_stat_activity WHERE usename = 'countersign_app'");
    // Postgres takes this for a crash: all its connections end, and it recovers.
    signal(pid.parse().unwrap(), "KILL");
    until("the command has ended without a database", || done.exists());
    let url = dev.env("COUNTERSIGN_OWNER_DATABASE_URL").to_owned();
    until("the database is back", || {
        Command::new("psql")
            .args([&url, "-XAtqc", "ALTER ROLE countersign_app LOGIN"])
            .output()
            .is_ok_and(|output| output.status.success())
    });
    until("it serves again", || {
        dev.verb("alice", &["show", &id]).status.success()
    });
    let shown = dev.ended(&id);
    assert_eq!(shown["status"], "completed", "{shown}");
    assert!(output(&dev, &id).0 == numbers(200_000));
    assert!(dev.is_sound());
}

#[test]
fn lost_and_doubled_answers_lose_and_double_nothing() {
    let (dev, proxy) = behind_a_proxy();
    proxy.wire.lose_every.store(3, Ordering::SeqCst);
    proxy.wire.double_every.store(2, Ordering::SeqCst);
    let mark = dev.folder().path().join("ran");
    let script = format!(
        "echo ran >> {}; for n in 1 2 3 4 5 6 7 8; do echo $n; echo err $n >&2; sleep 0.15; done",
        mark.display()
    );
    let before = proxy.wire.statements.load(Ordering::SeqCst);
    let shown = dev.through(&[], &["sh", "-c", &script]);
    assert_eq!(shown["status"], "completed", "{shown}");
    let id = shown["id"].as_str().unwrap();
    let (out, err) = output(&dev, id);
    assert_eq!(text(&out), "1\n2\n3\n4\n5\n6\n7\n8\n");
    assert_eq!(text(&err).lines().count(), 8);
    assert_eq!(fs::read_to_string(&mark).unwrap(), "ran\n");
    let sent = proxy.wire.statements.load(Ordering::SeqCst) - before;
    assert!(sent > 3, "only {sent} requests went through the proxy");
    assert!(dev.is_sound());
}

#[test]
fn killed_at_many_moments_of_a_run_it_says_completed_once_or_lost_with_what_there_was() {
    let dev = Dev::start();
    let mark = dev.folder().path().join("ran");
    let mut ids = Vec::new();
    for round in 0..7_u64 {
        let script = format!(
            "echo {round} >> {}; for n in 1 2 3 4; do echo $n; sleep 0.08; done",
            mark.display()
        );
        let id = dev.request(&[], &["sh", "-c", &script]);
        dev.approve(&id);
        thread::sleep(Duration::from_millis(round * 70));
        signal(agent_of(&dev), "KILL");
        ids.push(id);
    }
    // However slowly the approvals above came back, this one is hit.
    let script = format!("echo 7 >> {}; echo 1; sleep 60", mark.display());
    ids.push(begun(&dev, &["--timeout", "120"], &script));
    signal(agent_of(&dev), "KILL");
    let mut lost = 0;
    for id in &ids {
        let shown = dev.ended(id);
        let (out, _) = output(&dev, id);
        if shown["status"] == "completed" {
            assert_eq!(text(&out), "1\n2\n3\n4\n");
        } else {
            assert_eq!(
                (&shown["status"], &execution(&shown)["status"]),
                (&json!("lost"), &json!("lost"))
            );
            assert!(b"1\n2\n3\n4\n".starts_with(&out), "{}", text(&out));
            lost += 1;
        }
    }
    assert!(lost > 0, "no kill hit a run");
    let ran = fs::read_to_string(&mark).unwrap_or_default();
    for round in 0..8 {
        let times = ran
            .lines()
            .filter(|line| *line == round.to_string())
            .count();
        assert!(times <= 1, "round {round} ran {times} times");
    }
    assert!(dev.is_sound());
}

#[test]
fn output_is_kept_byte_for_byte_whatever_it_is() {
    let dev = Dev::shared();
    let all: String = (0..=255).map(|byte| format!("\\{byte:03o}")).collect();
    let script = format!("printf '{all}'; printf '\\303\\050\\377 no end' >&2");
    let shown = dev.through(&[], &["sh", "-c", &script]);
    assert_eq!(shown["status"], "completed");
    let (out, err) = output(&dev, shown["id"].as_str().unwrap());
    assert_eq!(out, (0..=255).collect::<Vec<u8>>());
    assert_eq!(err, b"\xc3\x28\xff no end");
}

#[test]
fn a_burst_beyond_the_limit_is_marked_counted_and_digested_in_full() {
    let dev = Dev::shared();
    let script = "yes 0123456 | head -c 100000000";
    let shown = dev.through(&[], &["sh", "-c", script]);
    assert_eq!(shown["status"], "completed");
    assert_eq!(execution(&shown)["truncated"], true);
    let (out, _) = output(&dev, shown["id"].as_str().unwrap());
    assert!(out == b"0123456\n".repeat(1 << 17));
    let digest = Command::new("sh")
        .args(["-c", &format!("{script} | sha256sum")])
        .output()
        .unwrap();
    let digest = text(&digest.stdout)[..64].to_owned();
    let named = dev.sql(&format!(
        "SELECT count(*) FROM entries WHERE position('\"total\":100000000'::bytea in entry) > 0 \
         AND position('{digest}'::bytea in entry) > 0"
    ));
    assert_eq!(named, "1");
}

#[test]
fn a_slow_writers_bytes_are_seen_while_it_runs() {
    let dev = Dev::shared();
    let script = "for n in 1 2 3 4; do printf $n; sleep 3; done";
    let id = begun(&dev, &[], script);
    let mut seen = Vec::new();
    until("it ends", || {
        let shown = dev.show(&id);
        let out = execution(&shown)["stdout"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if shown["status"] == "running" && seen.last() != Some(&out) {
            seen.push(out);
        }
        shown["status"] == "completed"
    });
    assert!(seen.len() >= 3, "{seen:?}");
    assert!(seen.iter().all(|out| "1234".starts_with(out.as_str())));
    assert_eq!(output(&dev, &id).0, b"1234");
}

#[test]
fn on_a_full_disk_commands_wait_and_nothing_is_claimed_that_is_not_kept() {
    let mut dev = Dev::start();
    signal(dev.pid(), "TERM");
    dev.wait();
    let folder = dev.folder();
    let state = dev.data().join("agent/state");
    drop(dev);
    let aside = folder.path().join("aside");
    let copy = |from: &Path, to: &Path| {
        let copied = Command::new("cp")
            .arg("-a")
            .arg(from.join("."))
            .arg(to)
            .status();
        assert!(copied.unwrap().success());
    };
    fs::create_dir(&aside).unwrap();
    copy(&state, &aside);
    let Some(_disk) = SmallDisk::over(&state, 3 << 10) else {
        return;
    };
    copy(&aside, &state);
    let dev = Dev::start_in(folder);
    // More than the disk holds: what is delivered makes room for the rest.
    let id = dev.request(&LARGE, &["seq", "-f", "%08.0f", "1", "400000"]);
    dev.approve(&id);
    until("it runs", || dev.show(&id)["status"] != "authorized");
    assert_eq!(status_at_the_end(&dev, &id), "completed");
    assert!(output(&dev, &id).0 == numbers(400_000));
    // Now somebody else fills it, in the middle of a run.
    let (go, done) = (dev.data().join("go"), dev.data().join("done"));
    let script = format!(
        "echo begin; while [ ! -e {} ]; do sleep 0.02; done; seq -f %08.0f 1 400000; touch {}",
        go.display(),
        done.display()
    );
    let id = begun(&dev, &LARGE, &script);
    until("it has begun", || {
        execution(&dev.show(&id))["stdout"] == "begin\n"
    });
    let filler = state.join("filler");
    let _full = fs::write(&filler, vec![0; 4 << 20]);
    fs::write(&go, "").unwrap();
    // Nothing new starts, and is not even refused before that can be written down.
    let mark = dev.data().join("mark");
    let other = dev.request(&[], &["touch", mark.to_str().unwrap()]);
    dev.approve(&other);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(dev.show(&id)["status"], "running");
    assert_eq!(dev.show(&other)["status"], "authorized");
    assert!(!mark.exists());
    assert!(!done.exists(), "its output does not fit anywhere");
    fs::remove_file(&filler).unwrap();
    assert_eq!(status_at_the_end(&dev, &id), "completed");
    let shown = dev.ended(&other);
    let status = shown["status"].as_str().unwrap();
    assert_eq!(mark.exists(), status == "completed", "{status}");
    assert!(["completed", "refused"].contains(&status), "{status}");
    assert!(output(&dev, &id).0 == [b"begin\n".to_vec(), numbers(400_000)].concat());
    assert!(dev.is_sound());
}
