//! A command runs as the account it was given, wholly and for good.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use countersign_agent::execution::{Account, ConfineError, Outcome, RunError, RunEvent, run};
use rustix::process::{Pid, Signal};
use rustix::thread::CapabilitiesSecureBits;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fixture::{
    LONG, STRANGER, plan, refusal, root_or_left_out, run_to_end, shell, stranger, text, wait_until,
};
use crate::left_out::left_out;

#[tokio::test]
async fn user_groups_and_capabilities_are_the_accounts() {
    if !root_or_left_out("the change of user") {
        return;
    }
    let mut plan = shell("grep -E '^(Uid|Gid|Groups|CapPrm|CapEff|CapAmb)' /proc/self/status");
    plan.confinement.account = Some(Account {
        uid: 54_321,
        gid: 54_322,
        groups: vec![54_399, 54_324, 54_324],
    });
    let four = |id: u32| {
        [
            id.to_string(),
            id.to_string(),
            id.to_string(),
            id.to_string(),
        ]
        .join("\t")
    };
    let none = "0000000000000000";
    let expected = format!(
        "Uid:\t{}\nGid:\t{}\nGroups:\t54324 54399 \nCapPrm:\t{none}\nCapEff:\t{none}\nCapAmb:\t{none}\n",
        four(54_321),
        four(54_322)
    );
    assert_eq!(text(&run_to_end(plan).await.stdout), expected);
}

#[tokio::test]
async fn an_account_without_groups_has_none() {
    if !root_or_left_out("the change of user") {
        return;
    }
    let mut plan = shell("id -G");
    plan.confinement.account = stranger();
    assert_eq!(
        text(&run_to_end(plan).await.stdout),
        format!("{STRANGER}\n")
    );
}

#[tokio::test]
async fn the_account_adds_nothing_to_the_environment() {
    if !root_or_left_out("the change of user") {
        return;
    }
    let mut plan = plan(&["/usr/bin/env"]);
    plan.env = vec![("ONLY".into(), "this".into())];
    plan.confinement.account = stranger();
    assert_eq!(run_to_end(plan).await.stdout, b"ONLY=this\n");
}

#[tokio::test]
async fn an_account_can_open_its_own_streams() {
    if !root_or_left_out("the change of user") {
        return;
    }
    let mut plan = shell("echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin");
    plan.stdin = b"in\n".to_vec();
    plan.confinement.account = stranger();
    let heard = run_to_end(plan).await;
    assert_eq!(text(&heard.stdout), "out\nin\n");
    assert_eq!(text(&heard.stderr), "err\n");
}

#[tokio::test]
async fn a_change_of_user_that_could_be_undone_is_refused() {
    if !root_or_left_out("the change of user") {
        return;
    }
    // Of this thread only: its capabilities now survive a change of user.
    let bits = CapabilitiesSecureBits::NO_SETUID_FIXUP;
    rustix::thread::set_capabilities_secure_bits(bits).unwrap();
    let mut plan = shell("echo ran");
    plan.confinement.account = stranger();
    let heard = run_to_end(plan).await;
    assert!(refusal(&heard).contains("cannot go back"), "{heard:?}");
    assert_eq!(heard.stdout, b"");
}

#[tokio::test]
async fn the_directory_is_entered_with_the_accounts_rights() {
    if !root_or_left_out("the change of user") {
        return;
    }
    let room = tempfile::tempdir().unwrap();
    fs::set_permissions(room.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut plan = shell("pwd");
    plan.cwd = room.path().canonicalize().unwrap();
    plan.confinement.account = stranger();
    let heard = run_to_end(plan).await;
    assert!(refusal(&heard).contains("enter the working directory"));
}

#[tokio::test]
async fn an_account_cannot_kill_its_supervisor_and_the_supervisor_kills_it() {
    if !root_or_left_out("the change of user") {
        return;
    }
    let mut plan = shell("kill -9 $PPID; trap '' TERM; while :; do sleep 0.1; done");
    plan.confinement.account = stranger();
    plan.timeout = Duration::from_millis(700);
    plan.grace = Duration::from_millis(200);
    let heard = run_to_end(plan).await;
    assert_eq!(heard.finished.outcome, Outcome::TimedOut);
    assert!(heard.finished.tree_gone);
}

#[tokio::test]
async fn an_account_dies_with_its_supervisor() {
    if !root_or_left_out("the change of user") {
        return;
    }
    let mut plan = shell("echo $PPID $$; while :; do sleep 0.1; done");
    plan.confinement.account = stranger();
    let (sender, mut events) = mpsc::channel(4);
    let running = tokio::spawn(run(plan, CancellationToken::new(), sender));
    let first = tokio::time::timeout(LONG / 2, events.recv()).await.unwrap();
    let Some(RunEvent::Chunk { bytes, .. }) = first else {
        panic!("{first:?}")
    };
    let line = text(&bytes);
    let (supervisor, leader) = line.trim().split_once(' ').unwrap();
    let supervisor = Pid::from_raw(supervisor.parse().unwrap()).unwrap();
    rustix::process::kill_process(supervisor, Signal::KILL).unwrap();
    let stat = Path::new("/proc").join(leader).join("cmdline");
    // A zombie that its new parent has not reaped has an empty command line.
    wait_until("the leader is dead", || {
        fs::read(&stat).unwrap_or_default().is_empty()
    })
    .await;
    assert_eq!(running.await.unwrap(), Err(RunError::SupervisorLost));
}

#[tokio::test]
async fn the_agents_own_account_needs_no_change() {
    let own = |list: &str| -> Vec<u32> {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(list)).unwrap();
        line.split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect()
    };
    let mut plan = shell("id -u");
    let uid = own("Uid:")[0];
    plan.confinement.account = Some(Account {
        uid,
        gid: own("Gid:")[0],
        groups: own("Groups:"),
    });
    assert_eq!(text(&run_to_end(plan).await.stdout), format!("{uid}\n"));
}

#[tokio::test]
async fn an_ordinary_user_cannot_become_another() {
    if rustix::process::geteuid().is_root() {
        left_out("it needs an ordinary user: the refusal to become another");
        return;
    }
    let mut plan = shell("echo ran");
    plan.confinement.account = stranger();
    let heard = run_to_end(plan).await;
    assert!(matches!(heard.finished.outcome, Outcome::FailedToStart(_)));
    assert_eq!(heard.stdout, b"");
}

#[tokio::test]
async fn numbers_that_name_nobody_are_refused() {
    for (uid, gid, groups) in [
        (u32::MAX, 1, vec![]),
        (1, u32::MAX, vec![]),
        (1, 1, vec![u32::MAX]),
    ] {
        let mut plan = shell("echo ran");
        plan.confinement.account = Some(Account { uid, gid, groups });
        let foreseen = plan.confinement.foresee();
        assert!(
            matches!(foreseen, Err(ConfineError::NoAccount(_))),
            "{foreseen:?}"
        );
        assert!(refusal(&run_to_end(plan).await).contains("is no account"));
    }
    let mut plan = shell("echo ran");
    let groups = (1..1000).collect();
    plan.confinement.account = Some(Account {
        uid: 1,
        gid: 1,
        groups,
    });
    assert!(refusal(&run_to_end(plan).await).contains("999 groups"));
}
