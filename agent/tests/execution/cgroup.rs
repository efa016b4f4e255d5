//! A run's own cgroup, where the host gives the agent a tree.

use std::fs;
use std::path::Path;
use std::time::Duration;

use countersign_agent::execution::{CgroupLimits, Outcome, Plan};

use crate::fixture::{refusal, run_to_end, shell, stranger, text, wait_until};
use crate::left_out::left_out;

fn grouped(script: &str, limits: CgroupLimits) -> Option<Plan> {
    let mut plan = shell(script);
    plan.confinement.cgroup = Some(limits);
    let there = plan.confinement.foresee().unwrap().cgroup.is_some();
    if !there {
        left_out("no writable cgroup v2 tree is given to it: a run's own cgroup");
    }
    there.then_some(plan)
}

/// Where the run says it was, under any mount of version 2.
fn place(stdout: &[u8]) -> String {
    let lines = text(stdout);
    lines
        .lines()
        .find_map(|l| l.strip_prefix("0::"))
        .unwrap()
        .to_owned()
}

fn exists(place: &str) -> bool {
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let mut found = mounts
        .iter()
        .map(|mount| Path::new(mount).join(&place[1..]));
    found.any(|path| path.exists())
}

#[tokio::test]
async fn a_run_lives_in_its_own_cgroup_and_leaves_none_behind() {
    let script = "grep 0:: /proc/self/cgroup";
    let Some(mut plan) = grouped(script, CgroupLimits::default()) else {
        return;
    };
    plan.confinement.demand.cgroup = true;
    if rustix::process::geteuid().is_root() {
        plan.confinement.account = stranger();
    }
    let heard = run_to_end(plan).await;
    assert!(heard.finished.in_force.cgroup.is_some());
    let place = place(&heard.stdout);
    let name = format!("countersign-run-{}-", std::process::id());
    assert!(place.contains(&name), "{place}");
    wait_until("the cgroup is removed", || !exists(&place)).await;
}

#[tokio::test]
async fn a_killed_run_leaves_no_cgroup_behind() {
    // One below its own as well, where it may make one.
    let script = "grep 0:: /proc/self/cgroup; \
                  mkdir /sys/fs/cgroup/unified$(grep 0:: /proc/self/cgroup | cut -c4-)/sub; trap '' TERM; (setsid sleep 1000 &) ; sleep 1000";
    let Some(mut plan) = grouped(script, CgroupLimits::default()) else {
        return;
    };
    plan.timeout = Duration::from_millis(700);
    plan.grace = Duration::from_millis(100);
    let heard = run_to_end(plan).await;
    assert_eq!(heard.finished.outcome, Outcome::TimedOut);
    assert!(heard.finished.tree_gone);
    let place = place(&heard.stdout);
    wait_until("the cgroup is removed", || !exists(&place)).await;
}

#[tokio::test]
async fn a_limit_without_its_controller_is_not_said_to_be_in_force() {
    let limits = CgroupLimits {
        memory_bytes: Some(64 << 20),
        cpu_percent: Some(50),
        processes: Some(10),
    };
    let Some(plan) = grouped("grep 0:: /proc/self/cgroup", limits) else {
        return;
    };
    let got = plan.confinement.foresee().unwrap().cgroup.unwrap();
    let mut demanding = grouped("echo ran", limits).unwrap();
    demanding.confinement.demand.cgroup = true;
    if got.memory && got.cpu && got.pids {
        assert_eq!(run_to_end(demanding).await.stdout, b"ran\n");
    } else {
        left_out(&format!("the tree lacks their controllers: {got:?}"));
        assert!(refusal(&run_to_end(demanding).await).contains("lacks the controller"));
    }
    let heard = run_to_end(plan).await;
    assert_eq!(heard.finished.in_force.cgroup, Some(got));
}

#[tokio::test]
async fn what_a_dead_agent_left_is_swept() {
    let Some(plan) = grouped("grep 0:: /proc/self/cgroup", CgroupLimits::default()) else {
        return;
    };
    let base = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let Some(base) = base.into_iter().find(|b| b.join("cgroup.procs").exists()) else {
        return;
    };
    // No process has this number: it is above the kernel's largest.
    let left = base.join("countersign-run-99999999-0");
    if fs::create_dir(&left).is_err()
        || !place(&run_to_end(plan).await.stdout)[1..].starts_with("countersign")
    {
        left_out("the agent's cgroup is not the root: the sweep");
        let _ = fs::remove_dir(&left);
        return;
    }
    assert!(!left.exists());
}
