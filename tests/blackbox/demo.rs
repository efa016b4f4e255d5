//! `countersign demo`, the first thing that anybody sees.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::folder::Folder;
use crate::support::{PROGRAM, processes_running, processes_with, signal, text, until};

fn demo(folder: &Folder, words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["demo", "--data"])
        .arg(folder.path().join("demo"));
    if !words.is_empty() {
        command.arg("--").args(words);
    }
    command.stdin(Stdio::null());
    command
}

#[test]
fn the_commands_output_and_code_are_demos_own() {
    let folder = Folder::new("demo");
    let output = demo(&folder, &["sh", "-c", "echo hello; echo oops >&2; exit 9"])
        .output()
        .unwrap();
    let story = text(&output.stderr);
    assert_eq!(output.status.code(), Some(9), "{story}");
    assert_eq!(text(&output.stdout), "hello\n");
    for part in [
        "oops",
        "alice",
        "bob",
        "carol",
        "audit",
        "countersign.local/demo",
    ] {
        assert!(story.contains(part), "{part} is not in the story:\n{story}");
    }
    assert_eq!(
        processes_with(folder.path().to_str().unwrap()),
        Vec::<u32>::new()
    );
}

#[test]
fn without_a_command_it_runs_a_real_one() {
    let folder = Folder::new("demo");
    let output = demo(&folder, &[]).output().unwrap();
    let uname = Command::new("uname").arg("-a").output().unwrap();
    assert_eq!(
        (output.status.code(), output.stdout),
        (Some(0), uname.stdout)
    );
}

#[test]
fn what_cannot_run_has_the_codes_of_shells() {
    let folder = Folder::new("demo");
    assert_eq!(
        demo(&folder, &["no-such-program"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(127)
    );
}

#[test]
fn int_and_term_stop_everything_and_kill_too() {
    for (name, limit) in [("INT", 30), ("TERM", 30), ("KILL", 15)] {
        let folder = Folder::new("demo");
        let here = folder.path().to_str().unwrap().to_owned();
        let mark = format!("271828{}", std::process::id());
        let mut child = demo(
            &folder,
            &["sh", "-c", &format!("sleep {mark}{name}x & sleep {mark}")],
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
        // Both sleeps, their shell, and demo's own words.
        until("the command runs", || {
            !processes_running(&format!("sleep {mark}")).is_empty()
        });
        let begun = Instant::now();
        signal(child.id(), name);
        let status = child.wait().unwrap();
        until("nothing is left running", || {
            processes_with(&here).is_empty() && processes_with(&format!("sleep {mark}")).is_empty()
        });
        assert!(
            begun.elapsed() < Duration::from_secs(limit),
            "{name} took {:?}",
            begun.elapsed()
        );
        if name != "KILL" {
            assert_eq!(status.code(), Some(125));
        }
    }
}
