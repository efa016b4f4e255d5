//! What a command finds around it: stdin, environment, directory, descriptors, signals.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::time::Duration;

use countersign_agent::execution::Outcome;

use crate::fixture::{plan, root_or_left_out, run_to_end, shell};

#[tokio::test]
async fn stdin_is_delivered_whole() {
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut plan = plan(&["cat"]);
    plan.stdin = bytes.clone();
    assert!(run_to_end(plan).await.stdout == bytes);
}

#[tokio::test]
async fn stdin_cannot_be_changed_under_the_command() {
    let mut plan = shell("(echo changed >/proc/self/fd/0) 2>/dev/null; cat");
    plan.stdin = b"given\n".to_vec();
    assert_eq!(run_to_end(plan).await.stdout, b"given\n");
}

#[tokio::test]
async fn an_empty_stdin_is_at_its_end() {
    let heard = run_to_end(shell("readlink /proc/self/fd/0; cat")).await;
    assert_eq!(heard.stdout, b"/dev/null\n");
}

#[tokio::test]
async fn the_environment_is_exactly_what_was_given() {
    let mut bare = plan(&["/usr/bin/env"]);
    bare.env = vec![];
    assert_eq!(run_to_end(bare).await.stdout, b"");
    let mut given = plan(&["/usr/bin/env"]);
    let value = OsString::from_vec(b"x=y \xff\nz".to_vec());
    given.env = vec![("B".into(), value), ("A".into(), "".into())];
    assert_eq!(run_to_end(given).await.stdout, b"B=x=y \xff\nz\nA=\n");
}

#[tokio::test]
async fn the_working_directory_is_the_one_asked_for() {
    let room = tempfile::tempdir().unwrap();
    let room = room.path().canonicalize().unwrap();
    let mut plan = plan(&["/bin/pwd", "-P"]);
    plan.cwd = room.clone();
    assert_eq!(
        run_to_end(plan).await.stdout,
        [room.as_os_str().as_bytes(), b"\n"].concat()
    );
}

#[tokio::test]
async fn a_working_directory_through_a_symlink_is_refused() {
    let room = tempfile::tempdir().unwrap();
    let room = room.path().canonicalize().unwrap();
    fs::create_dir_all(room.join("real/below")).unwrap();
    symlink(room.join("real"), room.join("link")).unwrap();
    let cases = [
        (room.join("link"), "symbolic link"),
        (room.join("link/below"), "symbolic link"),
        (room.join("gone"), "could not be opened"),
        ("real".into(), "not absolute"),
    ];
    for (cwd, reason) in cases {
        let mut plan = plan(&["true"]);
        plan.cwd = cwd.clone();
        let outcome = run_to_end(plan).await.finished.outcome;
        let Outcome::FailedToStart(text) = outcome else {
            panic!("{cwd:?}: {outcome:?}")
        };
        assert!(
            text.contains(reason) && text.contains(cwd.to_str().unwrap()),
            "{text}"
        );
    }
}

#[tokio::test]
async fn no_descriptor_of_the_agent_is_inherited() {
    let file = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let heard = run_to_end(plan(&["ls", "/proc/self/fd"])).await;
    assert_eq!(
        heard.stdout, b"0\n1\n2\n3\n",
        "3 is ls's own view of the directory"
    );
}

#[tokio::test]
async fn session_umask_privileges_and_signals_are_set() {
    let script = "umask; read -r _ _ _ _ pgrp sid _ </proc/$$/stat; \
                  [ $$ = $pgrp ] && [ $$ = $sid ] && echo own-session; \
                  exec grep -E '^(SigBlk|SigIgn|NoNewPrivs)' /proc/self/status";
    let heard = run_to_end(shell(script)).await;
    let mut lines: Vec<&str> = std::str::from_utf8(&heard.stdout)
        .unwrap()
        .lines()
        .collect();
    lines[2..].sort_unstable();
    // This test binary ignores SIGPIPE, as Rust programs do; the command must not.
    let nothing = "0000000000000000";
    let (blocked, ignored) = (format!("SigBlk:\t{nothing}"), format!("SigIgn:\t{nothing}"));
    assert_eq!(
        lines,
        ["0022", "own-session", "NoNewPrivs:\t1", &blocked, &ignored]
    );
}

#[tokio::test]
async fn files_are_made_without_the_bits_of_the_umask() {
    let room = tempfile::tempdir().unwrap();
    let mut plan = shell("umask; : >made; stat -c %a made");
    plan.cwd = room.path().canonicalize().unwrap();
    plan.confinement.umask = 0o027;
    assert_eq!(run_to_end(plan).await.stdout, b"0027\n640\n");
}

#[tokio::test]
async fn cpu_time_and_memory_count_the_whole_tree() {
    let script = "(perl -e 'my $s = \"x\" x 60_000_000; my $i = 0; $i++ while times < 0.3') & wait";
    let finished = run_to_end(shell(script)).await.finished;
    assert_eq!(finished.outcome, Outcome::Exited(0));
    assert!(
        finished.cpu >= Duration::from_millis(290),
        "{:?}",
        finished.cpu
    );
    assert!(
        finished.max_rss_bytes >= 60_000_000,
        "{}",
        finished.max_rss_bytes
    );
}

#[test]
fn a_plan_shows_no_secret_in_its_debug_form() {
    let mut plan = shell("argument-secret");
    plan.env = vec![("NAME".into(), "env-secret".into())];
    plan.stdin = b"s".to_vec();
    let shown = format!("{plan:?}");
    assert!(shown.contains("/bin/sh") && !shown.contains("secret") && !shown.contains("stdin"));
}

#[tokio::test]
async fn the_supervisor_keeps_nothing_open_but_its_own() {
    if !root_or_left_out("the look into a supervisor") {
        return;
    }
    // The socket to the agent, the list of children, the news of their end; no slot that this run
    // leaves empty shows what the agent has under that number.
    let heard = run_to_end(shell("sleep 0.3; ls /proc/$PPID/fd | wc -l")).await;
    assert_eq!(heard.stdout, b"3\n");
}
