//! Output with its timing: `replay`, and casts for players that are not ours.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::left_out::left_out;
use crate::support::{Dev, text, until};

/// Both streams, a colour, and bytes that are no text, with gaps between.
const SCRIPT: &str = "printf 'one\\n\\033[31mtwo'; sleep 0.3; echo three >&2; sleep 0.3; \
                      printf '\\377caf\\303\\251\\n'";

/// What it writes to its standard output.
const STDOUT: &[u8] = b"one\n\x1b[31mtwo\xffcaf\xc3\xa9\n";

/// A command with a gap that no test wants to sit through.
const LONG: &str = "echo first; sleep 15; echo last";

/// Shorter than that gap, and far longer than a replay without it takes.
const SOON: Duration = Duration::from_secs(13);

fn ran(dev: &Dev, script: &str) -> String {
    let shown = dev.through(&[], &["sh", "-c", script]);
    assert_eq!(shown["status"], "completed", "{shown}");
    shown["id"].as_str().unwrap().to_owned()
}

fn replay(dev: &Dev, id: &str, options: &[&str]) -> (Output, Duration) {
    let begun = Instant::now();
    let output = dev.verb("bob", &[&["replay", id], options].concat());
    let took = begun.elapsed();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    (output, took)
}

/// Reads of a command that stand in the log.
fn reads(dev: &Dev, id: &str) -> Vec<(String, String)> {
    let output = dev.verb("alice", &["log", "--json"]);
    let entries = text(&output.stdout);
    let entries = entries
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries
        .filter(|entry| entry["namespace"] == "audit.read.v1@countersign")
        .map(|entry| entry["payload"].clone())
        .filter(|read| read["command"] == id)
        .map(|read| (word(&read["reader"]), word(&read["what"])))
        .collect()
}

/// A verb on a terminal, which `script` makes of its own; what is typed comes from its input.
fn on_terminal(dev: &Dev, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let inner = dev.command("bob", arguments);
    let words = [inner.get_program()].into_iter().chain(inner.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    let mut command = Command::new("script");
    command
        .args(["-qec", &words.join(" "), "/dev/null"])
        .env_clear()
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm")
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn a_replay_gives_the_exact_bytes_in_their_time_and_stands_in_the_log() {
    let dev = Dev::shared();
    let id = ran(&dev, SCRIPT);
    let replayed = ("bob".to_owned(), "replay".to_owned());
    assert!(!reads(&dev, &id).contains(&replayed));
    let (output, took) = replay(&dev, &id, &[]);
    assert_eq!(
        (output.stdout, output.stderr),
        (STDOUT.to_vec(), b"three\n".to_vec())
    );
    assert!(took >= Duration::from_millis(600), "{took:?}");
    assert!(reads(&dev, &id).contains(&replayed));
    // The log tells replays from looks.
    dev.verb("carol", &["logs", &id]);
    assert!(!reads(&dev, &id).contains(&("carol".to_owned(), "replay".to_owned())));

    // Slower; and a piece at a time, not all at the end.
    let (_, took) = replay(&dev, &id, &["--speed", "0.5"]);
    assert!(took >= Duration::from_millis(1_200), "{took:?}");
    let mut child = dev
        .command("bob", &["replay", &id, "--speed", "0.1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begin = [0; 4];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"one\n");
    assert!(child.try_wait().unwrap().is_none(), "it waits for the rest");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn speed_longest_wait_and_offset_shorten_a_replay_and_lose_nothing() {
    let dev = Dev::shared();
    let id = ran(&dev, LONG);
    for (options, least) in [
        (vec!["--speed", "20"], 300),
        (vec!["--max-wait", "200ms"], 200),
        (vec!["--from", "14700ms"], 300),
        (vec!["--from", "1h"], 0),
        (vec!["--no-wait"], 0),
        (vec!["--no-wait", "--follow"], 0),
    ] {
        let (output, took) = replay(&dev, &id, &options);
        assert_eq!(text(&output.stdout), "first\nlast\n", "{options:?}");
        let bounds = Duration::from_millis(least)..SOON;
        assert!(bounds.contains(&took), "{options:?} took {took:?}");
    }
}

#[test]
fn json_holds_every_piece_with_its_host_stream_offset_and_bytes() {
    let dev = Dev::shared();
    let id = ran(&dev, SCRIPT);
    let begun = Instant::now();
    let replay = dev.json("bob", 0, &["replay", &id, "--speed", "0.01"]);
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "it does not wait"
    );
    assert_eq!(
        (&replay["id"], &replay["status"]),
        (&json!(id), &json!("completed"))
    );
    assert_eq!(replay["runs"][0]["agent"], "local");
    assert!(replay["runs"][0]["started_us"].as_u64().unwrap() > 0);
    let pieces = replay["pieces"].as_array().unwrap();
    let mut keys: Vec<&String> = pieces[0].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["agent", "data", "len", "offset_us", "stream"]);
    let streams: Vec<&str> = pieces
        .iter()
        .map(|piece| piece["stream"].as_str().unwrap())
        .collect();
    assert_eq!(streams, ["stdout", "stderr", "stdout"], "{replay}");
    let offsets: Vec<u64> = pieces
        .iter()
        .map(|piece| piece["offset_us"].as_u64().unwrap())
        .collect();
    assert!(offsets[1] >= offsets[0] + 200_000, "{offsets:?}");
    assert!(offsets[2] >= offsets[1] + 200_000, "{offsets:?}");
    assert_eq!(pieces[1]["data"], "dGhyZWUK");
    assert_eq!(pieces[1]["len"], 6);
    dev.json("bob", 2, &["replay", &id, "--agent", "nowhere"]);
    dev.json("bob", 2, &["replay", &id, "--speed", "0"]);
}

#[test]
fn a_replay_that_follows_goes_on_live_and_shows_each_byte_once() {
    let dev = Dev::shared();
    let gate = dev.folder().path().join("replay-gate");
    let script = format!(
        "echo one; echo err >&2; while [ ! -e {} ]; do sleep 0.05; done; echo two",
        gate.display()
    );
    let id = dev.request(&["--timeout", "120"], &["sh", "-c", &script]);
    dev.approve(&id);
    until("it has begun to write", || {
        let execution = &dev.show(&id)["executions"][0];
        execution["stdout"] == "one\n" && execution["stderr"] == "err\n"
    });
    let mut child = dev
        .command("bob", &["replay", &id, "-f"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begin = [0; 4];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"one\n");
    std::fs::write(&gate, "").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        (rest.as_str(), text(&output.stderr).as_str()),
        ("two\n", "err\n")
    );
}

#[test]
fn a_terminal_gets_escaped_output_with_standard_error_in_a_colour_of_its_own() {
    let dev = Dev::shared();
    let id = ran(&dev, SCRIPT);
    let shown = |options: &[&str], settings: &[(&str, &str)]| {
        let arguments = [&["replay", &id, "--no-wait"], options].concat();
        let output = on_terminal(&dev, &arguments, settings).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        output.stdout
    };
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|found| found == part);
    let coloured = shown(&[], &[]);
    assert!(
        has(&coloured, b"one\r\n\\x1b[31mtwo"),
        "{}",
        text(&coloured)
    );
    assert!(
        has(&coloured, b"\x1b[31mthree\r\n\x1b[0m"),
        "{}",
        text(&coloured)
    );
    let plain = shown(&[], &[("NO_COLOR", "1")]);
    assert!(
        has(&plain, b"three\r\n") && !plain.contains(&0x1b),
        "{}",
        text(&plain)
    );
    let raw = shown(&["--raw"], &[]);
    assert!(has(&raw, b"one\r\n\x1b[31mtwo"), "{}", text(&raw));
    assert!(!has(&raw, b"\x1b[31mthree"), "{}", text(&raw));
}

#[test]
fn an_interrupted_replay_says_so_by_its_code_and_leaves_a_sane_terminal() {
    let dev = Dev::shared();
    let id = ran(&dev, "printf '\\033[35mfirst'; sleep 15; echo last");
    for (options, end) in [(&["--raw"][..], "\x1b[!p\x1b[0m\x1b[?25h"), (&[], "first")] {
        let begun = Instant::now();
        let arguments = [&["replay", &id], options].concat();
        let mut child = on_terminal(&dev, &arguments, &[])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut shown = Vec::new();
        while !text(&shown).contains("first") {
            let mut byte = [0];
            stdout.read_exact(&mut byte).unwrap();
            shown.push(byte[0]);
        }
        let mut typed = child.stdin.take().unwrap();
        typed.write_all(b"\x03").unwrap();
        stdout.read_to_end(&mut shown).unwrap();
        drop(typed);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{}", text(&shown));
        assert!(begun.elapsed() < SOON);
        let shown = text(&shown).replace("^C", "");
        assert!(shown.ends_with(end) && !shown.contains("last"), "{shown:?}");
    }
}

/// What Python, which is not ours, makes of a cast: its header, and its events' codes and text.
fn read_by_python(file: &Path) -> Value {
    let program = "
import json, sys
lines = open(sys.argv[1], encoding='ascii', newline='\\n').read().split('\\n')
assert lines.pop() == ''
header, *events = [json.loads(line) for line in lines]
times = [time for time, code, data in events]
assert all(isinstance(time, float) and time >= 0 for time in times), times
assert times == sorted(times), times
print(json.dumps([header, [[code, data] for _, code, data in events], times]))
";
    let output = Command::new("python3")
        .args(["-c", program])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_cast_is_read_by_programs_that_are_not_ours() {
    let dev = Dev::shared();
    let id = ran(&dev, SCRIPT);
    let file = dev.folder().path().join("replayed.cast");
    let name = file.to_str().unwrap();
    let made = dev.json(
        "bob",
        0,
        &["replay", &id, "--cast", name, "--max-wait", "2s"],
    );
    assert_eq!(
        made,
        json!({"file": name, "agent": "local", "events": 3, "whole": true})
    );
    let read = read_by_python(&file);
    let header = &read[0];
    let started = dev.json("bob", 0, &["replay", &id])["runs"][0]["started_us"].clone();
    assert_eq!(header["timestamp"], started.as_u64().unwrap() / 1_000_000);
    assert_eq!(
        (&header["version"], &header["width"], &header["height"]),
        (&json!(2), &json!(80), &json!(24))
    );
    assert_eq!(header["idle_time_limit"], 2.0);
    let title = header["title"].as_str().unwrap();
    assert!(title.contains(" on local: sh -c "), "{title}");
    assert_eq!(
        read[1],
        json!([
            ["o", "one\r\n\u{1b}[31mtwo"],
            ["o", "three\r\n"],
            ["o", "\u{fffd}caf\u{e9}\r\n"]
        ])
    );
    let times: Vec<f64> = read[2]
        .as_array()
        .unwrap()
        .iter()
        .map(|time| time.as_f64().unwrap())
        .collect();
    assert!(times[1] >= 0.2 && times[2] >= times[1] + 0.2, "{times:?}");
    match Command::new("asciinema").args(["cat", name]).output() {
        Ok(output) => assert_eq!(
            text(&output.stdout),
            "one\r\n\u{1b}[31mtwothree\r\n\u{fffd}caf\u{e9}\r\n"
        ),
        Err(_) => left_out("it needs asciinema: a cast played by it"),
    }

    // The same to standard output, and as an export; the log tells the one from the other.
    let (output, _) = replay(&dev, &id, &["--cast", "-", "--max-wait", "2s"]);
    assert_eq!(output.stdout, std::fs::read(&file).unwrap());
    assert!(!reads(&dev, &id).contains(&("bob".to_owned(), "export".to_owned())));
    let exported = dev.folder().path().join("exported.cast");
    let exported_name = exported.to_str().unwrap();
    dev.json("bob", 0, &["export", &id, "--cast", "-o", exported_name]);
    assert!(reads(&dev, &id).contains(&("bob".to_owned(), "export".to_owned())));
    assert_eq!(read_by_python(&exported)[1], read[1]);

    // Nothing is written over, and nothing is left of what did not come to be.
    dev.json("bob", 2, &["replay", &id, "--cast", name]);
    dev.json("bob", 2, &["export", &id, &id, "--cast", "-o", "two.cast"]);
    let waiting = dev.request(&[], &["true"]);
    let none = dev.folder().path().join("none.cast");
    dev.json(
        "bob",
        1,
        &["replay", &waiting, "--cast", none.to_str().unwrap()],
    );
    assert!(!none.exists());
}

/// Of a command that wrote `here` on the hosts local and second.
pub(crate) fn of_two_hosts(dev: &Dev, id: &str) {
    let (output, _) = replay(dev, id, &["--speed", "10"]);
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["[local] here", "[second] here"]);
    let (output, _) = replay(dev, id, &["--agent", "second"]);
    assert_eq!(text(&output.stdout), "here\n");
    let both = dev.json("bob", 0, &["replay", id]);
    assert_eq!(both["pieces"].as_array().unwrap().len(), 2);
    let one = dev.json("bob", 0, &["replay", id, "--agent", "local"]);
    assert_eq!(one["pieces"].as_array().unwrap().len(), 1);
    assert_eq!(one["runs"].as_array().unwrap().len(), 1);
    let whose = dev.verb("bob", &["replay", id, "--cast", "-"]);
    assert_eq!(whose.status.code(), Some(2));
    assert!(
        text(&whose.stderr).contains("--agent local, second"),
        "{}",
        text(&whose.stderr)
    );
    let (output, _) = replay(dev, id, &["--cast", "-", "--agent", "second"]);
    assert!(text(&output.stdout).contains(r#""o", "here\r\n"]"#));
}
