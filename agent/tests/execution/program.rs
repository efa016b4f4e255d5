//! What is run, with which arguments, and how its end is told.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use countersign_agent::execution::{Outcome, Program, ResolveError};

use crate::fixture::{
    digest, executable, path_dirs, plan, root_or_left_out, run_to_end, shell, stranger,
};

#[tokio::test]
async fn the_exit_code_is_the_commands() {
    for code in [0, 1, 42, 255] {
        let heard = run_to_end(shell(&format!("exit {code}"))).await;
        assert_eq!(heard.finished.outcome, Outcome::Exited(code));
        assert!(heard.finished.tree_gone);
    }
}

#[tokio::test]
async fn a_signal_is_told_apart_from_a_code() {
    let heard = run_to_end(shell("kill -SEGV $$")).await;
    assert_eq!(heard.finished.outcome, Outcome::Signalled(11));
}

#[test]
fn a_missing_program_is_not_found() {
    for name in [
        "no-such-program-here",
        "/usr/bin/no-such-program-here",
        "",
        "/etc/passwd/x",
    ] {
        let error = Program::resolve(OsStr::new(name), &path_dirs()).unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotFound, "{name}");
    }
}

#[test]
fn a_directory_and_a_plain_file_are_not_executable() {
    let room = tempfile::tempdir().unwrap();
    let plain = room.path().join("plain");
    fs::write(&plain, "#!/bin/sh\n").unwrap();
    for path in [room.path(), &plain, Path::new("/dev/null")] {
        let error = Program::resolve(path.as_os_str(), &[]).unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotExecutable, "{path:?}");
    }
}

#[test]
fn a_relative_path_is_no_program() {
    let error = Program::resolve(OsStr::new("bin/sh"), &["/".into()]).unwrap_err();
    assert!(matches!(error, ResolveError::Relative { .. }));
    let error = Program::resolve(OsStr::new("sh"), &["bin".into(), "".into()]).unwrap_err();
    assert!(matches!(error, ResolveError::NotFound { .. }));
}

#[test]
fn a_program_is_named_by_its_path_and_digest() {
    let room = tempfile::tempdir().unwrap();
    let (first, second) = (room.path().join("a"), room.path().join("b"));
    fs::create_dir(&first).unwrap();
    fs::create_dir(&second).unwrap();
    fs::write(first.join("tool"), "not executable, so passed over").unwrap();
    executable(&second.join("tool"), b"#!/bin/sh\nexit 3\n");
    let program = Program::resolve(OsStr::new("tool"), &[first, second.clone()]).unwrap();
    assert_eq!(program.path(), second.join("tool"));
    assert_eq!(*program.sha256(), digest(b"#!/bin/sh\nexit 3\n"));
    assert!(program.is_script());
}

#[tokio::test]
async fn what_was_hashed_is_what_runs() {
    let room = tempfile::tempdir().unwrap();
    let tool = room.path().join("tool");
    executable(&tool, b"#!/bin/sh\necho hashed \"$1\"\n");
    let plan = plan(&[tool.as_os_str(), OsStr::new("one")]);
    let evil = room.path().join("evil");
    executable(&evil, b"#!/bin/sh\necho swapped\n");
    fs::rename(evil, &tool).unwrap();
    assert_eq!(run_to_end(plan).await.stdout, b"hashed one\n");
}

#[tokio::test]
async fn a_missing_interpreter_is_not_executable() {
    let room = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("script", "#!/no/such/interpreter\n"),
        ("text", "just text\n"),
    ] {
        let path = room.path().join(name);
        executable(&path, content.as_bytes());
        let heard = run_to_end(plan(&[path])).await;
        assert_eq!(heard.finished.outcome, Outcome::NotExecutable, "{name}");
        assert!(heard.finished.tree_gone);
    }
}

#[tokio::test]
async fn arguments_reach_the_program_as_they_are() {
    let odd = OsStr::from_bytes(b"\xff\xfe");
    let arguments = ["%s\\0", "a|b; $(id) `id`", "*", "line\nbreak", "", "'\""].map(OsStr::new);
    let argv: Vec<&OsStr> = [OsStr::new("/usr/bin/printf")]
        .into_iter()
        .chain(arguments)
        .chain([odd])
        .collect();
    let expected: Vec<u8> = argv[2..]
        .iter()
        .flat_map(|a| a.as_bytes().iter().copied().chain([0]))
        .collect();
    assert_eq!(run_to_end(plan(&argv)).await.stdout, expected);
}

#[tokio::test]
async fn argv0_is_given_apart_from_the_program() {
    let mut plan = shell("");
    plan.first.argv = ["given-name", "-c", "tr '\\0' ' ' </proc/$$/cmdline"]
        .map(OsString::from)
        .to_vec();
    assert!(run_to_end(plan).await.stdout.starts_with(b"given-name -c "));
}

#[tokio::test]
async fn what_exec_cannot_carry_is_refused_with_a_reason() {
    let mut nul = plan(&["true"]);
    nul.first.argv.push(OsString::from_vec(b"a\0b".to_vec()));
    let mut name = plan(&["true"]);
    name.env = vec![("A=B".into(), "c".into())];
    let mut none = plan(&["true"]);
    none.first.argv.clear();
    let mut long = plan(&["true"]);
    long.first.argv.push(OsString::from("x".repeat(3 << 20)));
    for (plan, reason) in [
        (nul, "NUL"),
        (name, "\"A=B\""),
        (none, "argv[0]"),
        (long, "execute the program"),
    ] {
        let finished = run_to_end(plan).await.finished;
        let Outcome::FailedToStart(text) = finished.outcome else {
            panic!("{finished:?}")
        };
        assert!(text.contains(reason), "{text}");
    }
}

#[tokio::test]
async fn a_script_inherits_only_itself() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("script");
    executable(
        &path,
        b"#!/bin/sh\nls /proc/self/fd; readlink /proc/self/fd/4\n",
    );
    let file = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let heard = run_to_end(plan(std::slice::from_ref(&path))).await;
    let script = path.canonicalize().unwrap();
    let expected = format!("0\n1\n2\n3\n4\n{}\n", script.display());
    assert_eq!(String::from_utf8(heard.stdout).unwrap(), expected);
}

#[tokio::test]
async fn an_interpreter_may_read_the_script_from_the_descriptor_itself() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("script");
    executable(&path, b"#!/usr/bin/perl\nprint 'read from its start';");
    assert_eq!(
        run_to_end(plan(&[path])).await.stdout,
        b"read from its start"
    );
}

#[tokio::test]
async fn a_shell_reads_a_text_of_any_length_with_its_arguments() {
    // Longer than any one argument may be.
    let long = format!("# {}\necho \"$0|$1|$2|$#\"\n", "x".repeat(300_000));
    let program = Program::script(long.as_bytes()).unwrap();
    assert_eq!(program.path(), Path::new("/bin/sh"));
    assert_eq!(program.script_sha256(), Some(&digest(long.as_bytes())));
    let mut plan = plan(&["sh", "a b", "*"]);
    plan.first.program = program;
    assert_eq!(run_to_end(plan).await.stdout, b"/proc/self/fd/7|a b|*|2\n");
}

#[tokio::test]
async fn a_text_cannot_be_changed_and_comes_alone() {
    let text = b"(echo changed >>/proc/self/fd/7) 2>/dev/null; (: >/proc/self/fd/7) 2>/dev/null\n\
                 ls /proc/self/fd | tr '\\n' ' '; cat /proc/self/fd/7 | wc -l\n";
    let mut plan = plan(&["sh"]);
    plan.first.program = Program::script(text).unwrap();
    if root_or_left_out("a text read by another user") {
        plan.confinement.account = stranger();
    }
    let heard = run_to_end(plan).await;
    let said = String::from_utf8(heard.stdout).unwrap();
    // 10 is the shell's own second view of its text.
    assert!(
        said.starts_with("0 1 2 3 7 ") && said.ends_with("2\n"),
        "{said}"
    );
}
