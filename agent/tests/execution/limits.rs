//! Going over each limit, and what inherits the agent's.

use std::fs;

use countersign_agent::execution::{CgroupInForce, InForce, Limits, Outcome};
use rustix::process::{Resource, getrlimit};

use crate::fixture::{refusal, root_or_left_out, run_to_end, shell, stranger, text};

const XCPU: i32 = 24;
const XFSZ: i32 = 25;

#[tokio::test]
async fn a_busy_process_is_ended_at_its_cpu_limit() {
    let mut plan = shell("while :; do :; done");
    plan.confinement.limits.cpu_s = Some(1);
    let finished = run_to_end(plan).await.finished;
    assert_eq!(finished.outcome, Outcome::Signalled(XCPU));
    assert_eq!(finished.in_force.rlimits.cpu_s, Some(1));
}

#[tokio::test]
async fn a_process_that_ignores_the_cpu_limit_is_killed() {
    let mut plan = shell("trap '' XCPU; while :; do :; done");
    plan.confinement.limits.cpu_s = Some(1);
    let finished = run_to_end(plan).await.finished;
    assert_eq!(finished.outcome, Outcome::Signalled(9));
}

#[tokio::test]
async fn memory_beyond_the_limit_is_not_given() {
    let script = "perl -e 'my $s = \"x\" x 300_000_000; print length $s'";
    assert_eq!(text(&run_to_end(shell(script)).await.stdout), "300000000");
    let mut plan = shell(script);
    plan.confinement.limits.memory_bytes = Some(200_000_000);
    let heard = run_to_end(plan).await;
    assert_ne!(heard.finished.outcome, Outcome::Exited(0));
    assert_eq!(heard.stdout, b"");
}

#[tokio::test]
async fn a_user_cannot_have_more_processes_than_its_limit() {
    if !root_or_left_out("the limit on processes, which does not bind root") {
        return;
    }
    let script = "i=0; while [ $i -lt 20 ]; do sleep 30 & i=$((i+1)); echo $i; done; kill %1";
    let mut plan = shell(script);
    plan.confinement.account = stranger();
    plan.confinement.limits.processes = Some(8);
    let heard = run_to_end(plan).await;
    assert!(
        text(&heard.stderr).contains("fork"),
        "{}",
        text(&heard.stderr)
    );
    assert!(
        text(&heard.stdout).lines().count() < 8,
        "{}",
        text(&heard.stdout)
    );
    assert!(heard.finished.tree_gone);
}

#[tokio::test]
async fn a_file_does_not_grow_beyond_the_limit() {
    let room = tempfile::tempdir().unwrap();
    let mut plan = shell("exec head -c 5000 /dev/zero >file");
    plan.cwd = room.path().canonicalize().unwrap();
    plan.confinement.limits.file_size_bytes = Some(1000);
    let finished = run_to_end(plan).await.finished;
    assert_eq!(finished.outcome, Outcome::Signalled(XFSZ));
    assert!(fs::metadata(room.path().join("file")).unwrap().len() <= 1000);
}

#[tokio::test]
async fn files_beyond_the_limit_cannot_be_opened() {
    let script = "perl -e 'while (open my $f, \"<\", \"/dev/null\") { push @f, $f } print scalar @f, \" $!\"'";
    let mut plan = shell(script);
    plan.confinement.limits.open_files = Some(16);
    let heard = run_to_end(plan).await;
    assert_eq!(text(&heard.stdout), "13 Too many open files");
}

#[tokio::test]
async fn what_was_announced_is_set_or_nothing_runs() {
    let mut plan = shell("ulimit -t");
    plan.confinement.limits.cpu_s = Some(7);
    let honest = plan.confinement.foresee().unwrap();
    plan.announced = Some(honest);
    let heard = run_to_end(plan).await;
    assert_eq!(text(&heard.stdout), "7\n");
    assert_eq!(*heard.finished.in_force, honest);

    let mut plan = shell("echo ran");
    plan.announced = Some(InForce {
        cgroup: Some(CgroupInForce::default()),
        ..honest
    });
    let heard = run_to_end(plan).await;
    assert!(refusal(&heard).contains("announced"), "{heard:?}");
    assert_eq!(heard.stdout, b"");

    // A limit that only root may set, and that the rest of this process must not keep.
    if !rustix::process::geteuid().is_root() {
        let mut plan = shell("echo ran");
        let mut above = honest;
        above.rlimits.open_files = Some(u64::MAX - 1);
        plan.announced = Some(above);
        assert!(refusal(&run_to_end(plan).await).contains("resource limits"));
    }
}

#[tokio::test]
async fn without_a_limit_the_agents_holds_and_core_dumps_are_off() {
    let mut plan = shell("grep -E '^Max (open files|core file size|cpu time)' /proc/self/limits");
    plan.confinement.limits.open_files = Some(0);
    let heard = run_to_end(plan).await;
    let lines = text(&heard.stdout);
    let words = |name: &str| -> Vec<String> {
        let line = lines.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect()
    };
    let own = getrlimit(Resource::Nofile);
    let shown = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |l| l.to_string());
    assert_eq!(
        words("Max open files"),
        [shown(own.current), shown(own.maximum)]
    );
    assert_eq!(words("Max core file size"), ["0", "0"]);
    assert_eq!(heard.finished.in_force.rlimits, Limits::default());
}

#[tokio::test]
async fn a_limit_above_the_agents_own_becomes_the_agents_own() {
    let mut plan = shell("ulimit -Hn");
    plan.confinement.limits.open_files = Some(u64::MAX - 1);
    let own = getrlimit(Resource::Nofile).maximum.unwrap();
    let heard = run_to_end(plan).await;
    assert_eq!(text(&heard.stdout), format!("{own}\n"));
    assert_eq!(heard.finished.in_force.rlimits.open_files, Some(own));
}
