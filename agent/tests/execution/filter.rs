//! The system call filter, no_new_privs, and what a rule may demand of both.

use std::path::Path;

use countersign_agent::execution::{ConfineError, Mechanism, Outcome};

use crate::fixture::{plan, refusal, root_or_left_out, run_to_end, shell, text};
use crate::left_out::left_out;

/// Asks the kernel to unload a module that is not there: ENOENT (2) for root, EPERM (1) if denied.
#[cfg(target_arch = "x86_64")]
const UNLOAD: &str = "perl -e 'my $n = \"no_such_module\"; syscall(176, $n, 2048); print $!+0'";
#[cfg(target_arch = "aarch64")]
const UNLOAD: &str = "perl -e 'my $n = \"no_such_module\"; syscall(106, $n, 2048); print $!+0'";

#[tokio::test]
async fn a_denied_call_fails_with_eperm_even_for_root() {
    if !root_or_left_out("what root may not do under the filter") {
        return;
    }
    let heard = run_to_end(shell(UNLOAD)).await;
    assert_eq!(text(&heard.stdout), "1");
    assert!(heard.finished.in_force.seccomp);
    let mut open = shell(UNLOAD);
    open.confinement.filter_calls = false;
    let heard = run_to_end(open).await;
    assert_ne!(
        text(&heard.stdout),
        "1",
        "the filter, and nothing else, denies it"
    );
    assert!(!heard.finished.in_force.seccomp);
}

#[tokio::test]
async fn root_cannot_mount_under_the_filter() {
    if !root_or_left_out("what root may not do under the filter") {
        return;
    }
    let room = tempfile::tempdir().unwrap();
    let mut plan = shell("mount -t tmpfs none . ; grep -c \" $PWD \" /proc/self/mountinfo");
    plan.cwd = room.path().canonicalize().unwrap();
    assert_eq!(text(&run_to_end(plan).await.stdout), "0\n");
}

#[tokio::test]
async fn no_other_process_can_be_traced_but_a_child_may_ask_for_it() {
    #[cfg(target_arch = "x86_64")]
    const PTRACE: u32 = 101;
    #[cfg(target_arch = "aarch64")]
    const PTRACE: u32 = 117;
    let script = format!(
        "sleep 60 & perl -e '$r = syscall({PTRACE}, 16, '$!', 0, 0); print $r, $!+0, \" \"; \
         $r = syscall({PTRACE}, 0, 0, 0, 0); print $r'; kill %1"
    );
    assert_eq!(text(&run_to_end(shell(&script)).await.stdout), "-11 0");
}

#[tokio::test]
async fn ordinary_programs_do_not_notice() {
    let room = tempfile::tempdir().unwrap();
    let compile = "printf 'int main(void){return 7;}' >a.c && gcc a.c -o a && ./a; [ $? = 7 ]";
    for (program, script) in [
        ("/bin/sh", "echo a | grep -q a && (true & wait)"),
        (
            "/usr/bin/perl",
            "perl -MPOSIX -e 'exit(fork ? (wait, 0)[1] : 0)'",
        ),
        (
            "/usr/bin/python3",
            "/usr/bin/python3 -c 'import subprocess, threading, socket; subprocess.run([\"true\"], check=True)'",
        ),
        ("/usr/bin/psql", "psql --version"),
        ("/usr/bin/gcc", compile),
        ("/usr/bin/git", "git --version"),
    ] {
        if !Path::new(program).exists() {
            left_out(&format!("it is not installed: {program}"));
            continue;
        }
        let mut plan = shell(script);
        plan.cwd = room.path().canonicalize().unwrap();
        let heard = run_to_end(plan).await;
        assert_eq!(
            heard.finished.outcome,
            Outcome::Exited(0),
            "{program}: {}",
            text(&heard.stderr)
        );
    }
}

#[tokio::test]
async fn sudo_keeps_the_way_to_privileges() {
    let mut sudo = plan(&["grep", "-E", "^(NoNewPrivs|Seccomp):", "/proc/self/status"]);
    sudo.confinement.unheld = true;
    let heard = run_to_end(sudo).await;
    assert_eq!(text(&heard.stdout), "NoNewPrivs:\t0\nSeccomp:\t0\n");
    assert!(!heard.finished.in_force.no_new_privs && !heard.finished.in_force.seccomp);
}

#[tokio::test]
async fn what_holds_is_foreseen() {
    let plan = plan(&["grep", "-E", "^(NoNewPrivs|Seccomp):", "/proc/self/status"]);
    let foreseen = plan.confinement.foresee().unwrap();
    let heard = run_to_end(plan).await;
    assert_eq!(*heard.finished.in_force, foreseen);
    assert_eq!(text(&heard.stdout), "NoNewPrivs:\t1\nSeccomp:\t2\n");
    assert!(foreseen.no_new_privs && foreseen.seccomp);
}

#[tokio::test]
async fn a_demand_that_cannot_be_met_refuses_the_run() {
    let base = || shell("echo ran");
    let mut privileges = base();
    privileges.confinement.unheld = true;
    privileges.confinement.demand.no_new_privs = true;
    let mut sudo = base();
    sudo.confinement.unheld = true;
    sudo.confinement.demand.seccomp = true;
    let mut off = base();
    off.confinement.filter_calls = false;
    off.confinement.demand.seccomp = true;
    let mut nothing = base();
    nothing.confinement.demand.landlock = true;
    let mut no_group = base();
    no_group.confinement.demand.cgroup = true;
    for (plan, wanted) in [
        (privileges, Mechanism::NoNewPrivileges),
        (sudo, Mechanism::Seccomp),
        (off, Mechanism::Seccomp),
        (nothing, Mechanism::Landlock),
        (no_group, Mechanism::Cgroup),
    ] {
        let foreseen = plan.confinement.foresee();
        assert!(
            matches!(&foreseen, Err(ConfineError::Unmet { mechanism, .. }) if *mechanism == wanted),
            "{foreseen:?}"
        );
        let heard = run_to_end(plan).await;
        assert!(refusal(&heard).contains(&wanted.to_string()), "{heard:?}");
        assert_eq!(heard.stdout, b"");
    }
}
