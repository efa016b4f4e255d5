//! Protected paths stay out of reach, and a profile bounds what is written.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use countersign_agent::execution::{Confinement, Outcome, Plan, Profile};
use tempfile::TempDir;

use crate::fixture::{refusal, run_to_end, shell, text};
use crate::left_out::left_out;

/// A room with `secret/key`, and beside it `open/file` and a link into the secret.
fn room() -> (TempDir, PathBuf) {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().canonicalize().unwrap();
    for (folder, file) in [("secret", "key"), ("open", "file")] {
        fs::create_dir(path.join(folder)).unwrap();
        fs::write(path.join(folder).join(file), format!("{file}\n")).unwrap();
    }
    symlink("../secret/key", path.join("open/link")).unwrap();
    (room, path)
}

fn landlock_or_left_out() -> bool {
    let probe = Confinement {
        profile: Profile::ReadOnly,
        ..Confinement::default()
    };
    let there = probe.foresee().is_ok();
    if !there {
        left_out("this kernel has no Landlock: all that it fences");
    }
    there
}

fn fenced(path: &PathBuf, script: &str) -> Plan {
    let mut plan = shell(script);
    plan.cwd.clone_from(path);
    plan.confinement.protected = vec![path.join("secret")];
    plan.confinement.demand.landlock = true;
    plan
}

#[tokio::test]
async fn a_protected_path_can_neither_be_read_nor_changed() {
    if !landlock_or_left_out() {
        return;
    }
    let (_room, path) = room();
    for attempt in [
        "cat secret/key",
        "cat open/link",
        "cat /proc/self/cwd/secret/key",
        "cat /proc/$$/root$PWD/secret/key",
        "echo x >secret/new",
        "echo x >>secret/key",
        "truncate -s 0 secret/key",
        "rm -f secret/key",
        "mkdir secret/folder",
        "mv secret/key open/",
        "mv secret open/",
        "ln secret/key open/hard",
        "mv secret other",
        "rm -rf secret",
        "mv open/file secret/",
    ] {
        let heard = run_to_end(fenced(&path, attempt)).await;
        assert_ne!(heard.finished.outcome, Outcome::Exited(0), "{attempt}");
        assert_eq!(text(&heard.stdout), "", "{attempt}");
        let kept = fs::read_to_string(path.join("secret/key")).unwrap();
        assert_eq!(kept, "key\n", "{attempt}");
        assert_eq!(fs::read_dir(path.join("secret")).unwrap().count(), 1);
    }
    let unfenced = shell("cat secret/key");
    let unfenced = Plan {
        cwd: path,
        ..unfenced
    };
    assert_eq!(run_to_end(unfenced).await.stdout, b"key\n");
}

#[tokio::test]
async fn what_lies_beside_a_protected_path_is_as_before() {
    if !landlock_or_left_out() {
        return;
    }
    let (_room, path) = room();
    let script = "cat open/file; echo new >open/new; mv open/new open/file; cat open/file; \
                  mkdir open/a open/b; echo x >open/a/f; mv open/a/f open/b/; rm -r open/a; \
                  cat /etc/hostname >/dev/null && ls / >/dev/null && ls secret";
    let heard = run_to_end(fenced(&path, script)).await;
    assert_eq!(text(&heard.stderr), "");
    assert_eq!(
        text(&heard.stdout),
        "file\nnew\nkey\n",
        "names stay visible"
    );
    assert!(heard.finished.in_force.landlock_abi.unwrap() >= 3);
}

#[tokio::test]
async fn a_directory_that_leads_to_a_protected_path_gets_nothing_new() {
    if !landlock_or_left_out() {
        return;
    }
    let (_room, path) = room();
    let heard = run_to_end(fenced(&path, "echo x >beside")).await;
    assert_ne!(heard.finished.outcome, Outcome::Exited(0));
}

#[tokio::test]
async fn a_protected_path_that_is_not_there_cannot_be_made() {
    if !landlock_or_left_out() {
        return;
    }
    let (_room, path) = room();
    let mut plan = fenced(&path, "mkdir later || mkdir -p later/below");
    plan.confinement.protected = vec![path.join("later/below")];
    let heard = run_to_end(plan).await;
    assert_ne!(heard.finished.outcome, Outcome::Exited(0));
    assert!(!path.join("later").exists());
}

#[tokio::test]
async fn a_protected_link_protects_where_it_leads() {
    if !landlock_or_left_out() {
        return;
    }
    let (_room, path) = room();
    let mut plan = fenced(&path, "cat secret/key");
    plan.confinement.protected = vec![path.join("open/link")];
    assert_ne!(run_to_end(plan).await.finished.outcome, Outcome::Exited(0));
}

#[tokio::test]
async fn a_read_only_run_reads_and_changes_nothing() {
    if !landlock_or_left_out() {
        return;
    }
    let (_room, path) = room();
    let script = "cat open/file; echo x >/dev/null && echo devices; \
                  echo x >open/file || echo kept; : >open/new || mkdir open/new || rm open/file";
    let mut plan = shell(script);
    plan.cwd.clone_from(&path);
    plan.confinement.profile = Profile::ReadOnly;
    let heard = run_to_end(plan).await;
    assert_eq!(
        text(&heard.stdout),
        "file\ndevices\nkept\n",
        "{}",
        text(&heard.stderr)
    );
    assert_ne!(heard.finished.outcome, Outcome::Exited(0));
    assert_eq!(fs::read_dir(path.join("open")).unwrap().count(), 2);
}

#[tokio::test]
async fn a_run_may_be_left_one_directory_to_write() {
    if !landlock_or_left_out() {
        return;
    }
    let (_room, path) = room();
    let script = "echo x >open/new && cat open/new secret/key; echo x >secret/new";
    let mut plan = shell(script);
    plan.cwd.clone_from(&path);
    plan.confinement.profile = Profile::WriteOnlyHere(path.join("open"));
    let heard = run_to_end(plan).await;
    assert_eq!(text(&heard.stdout), "x\nkey\n");
    assert!(!path.join("secret/new").exists());
    // A profile and a protected path together.
    let mut both = fenced(&path, "echo x >open/more && cat open/more; cat secret/key");
    both.confinement.profile = Profile::WriteOnlyHere(path.join("open"));
    assert_eq!(text(&run_to_end(both).await.stdout), "x\n");
}

#[tokio::test]
async fn a_fence_that_makes_no_sense_is_refused() {
    if !landlock_or_left_out() {
        return;
    }
    let (_room, path) = room();
    let inside = Profile::WriteOnlyHere(path.join("secret"));
    let missing = Profile::WriteOnlyHere(path.join("no-such"));
    for (protected, profile, reason) in [
        (PathBuf::from("/"), Profile::None, "leaves nothing"),
        ("relative".into(), Profile::None, "not absolute"),
        (path.join("open/../secret"), Profile::None, "'..'"),
        (path.join("secret"), inside, "is protected"),
        (path.join("secret"), missing, "no-such"),
    ] {
        let mut plan = shell("echo ran");
        plan.confinement.protected = vec![protected];
        plan.confinement.profile = profile;
        let heard = run_to_end(plan).await;
        assert!(
            refusal(&heard).contains(reason),
            "{reason}: {}",
            refusal(&heard)
        );
    }
}
