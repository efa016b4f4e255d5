//! What the executor adds to fork and exec: a supervisor, pipes, confinement, proof of the end.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use countersign_agent::execution::{
    Account, CgroupLimits, Confinement, Limits, Outcome, Plan, Profile, Program, Reach, RunEvent,
    Secrets, Step, run,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::measure::{at, ms, setting, timed};

/// The aim for the median of what is added.
const AIM: Duration = Duration::from_millis(3);

/// Rounds that do not count: files and pages are then in memory.
const WARM_UP: usize = 20;

/// Starts whose processor time is counted together, since the kernel counts in hundredths.
const COUNTED: u32 = 200;

/// Where an agent's own files are: what lies beside it, in `/` and `/etc`, is granted one by one.
const PROTECTED: &str = "/etc/countersign";

/// Held by nobody on any machine.
const STRANGER: u32 = 54_321;

/// Prints the part.
pub(crate) fn print() {
    let rounds = setting("COUNTERSIGN_BENCH_ROUNDS", 500);
    let runtime = Runtime::new().unwrap();
    let mut bare = Vec::new();
    let mut piped = Vec::new();
    let mut found = Vec::new();
    let mut held = cases().map(|(name, confinement)| (name, confinement, Vec::new()));
    // One of each in turn, so that all of them see the same machine.
    for round in 0..WARM_UP + rounds {
        let note = |times: &mut Vec<Duration>, time| {
            if round >= WARM_UP {
                times.push(time);
            }
        };
        note(
            &mut bare,
            timed(|| assert!(command().status().unwrap().success())).0,
        );
        note(
            &mut piped,
            timed(|| assert!(command().output().unwrap().status.success())).0,
        );
        note(&mut found, timed(program).0);
        for (_, confinement, times) in &mut held {
            let plan = plan(confinement.clone());
            note(times, timed(|| runtime.block_on(run_to_end(plan))).0);
        }
    }
    println!(
        "\n(f) `true`, from its start to the proof that nothing of it is left; {rounds} rounds; ms"
    );
    println!(
        "{:<46} {:>8} {:>8} {:>10} {:>8}",
        "", "p50", "p99", "added p50", "CPU"
    );
    let line = |name: &str, times: &[Duration], cpu: Option<Duration>| {
        let (p50, p99) = (at(times, 0.5), at(times, 0.99));
        let added = ms(p50) - ms(at(&bare, 0.5));
        let cpu = cpu.map_or_else(String::new, |cpu| format!("{:.2}", ms(cpu)));
        println!(
            "{name:<46} {:>8.2} {:>8.2} {added:>10.2} {cpu:>8}",
            ms(p50),
            ms(p99)
        );
    };
    let bare_cpu = cpu_of_each(&mut || assert!(command().status().unwrap().success()));
    line("bare: std::process::Command, status", &bare, Some(bare_cpu));
    line("bare: the same with both outputs read", &piped, None);
    for (name, confinement, times) in &held {
        let cpu = cpu_of_each(&mut || runtime.block_on(run_to_end(plan(confinement.clone()))));
        line(name, times, Some(cpu));
        let in_force = confinement.foresee().unwrap();
        if confinement.cgroup.is_some() && in_force.cgroup.is_none() {
            println!("    without the cgroup, which this machine does not give");
        }
    }
    line("beside it: find, open and hash the program", &found, None);
    println!("CPU: processor time of the agent and all its children, finding the program included");
    println!("aim: {:.1} ms added at the median", ms(AIM));
}

/// Processor time of one start, own and children's, which a busy machine does not stretch as much.
fn cpu_of_each(start: &mut dyn FnMut()) -> Duration {
    let before = ticks();
    (0..COUNTED).for_each(|_| start());
    // Supervisors are reaped a little later than they end.
    std::thread::sleep(Duration::from_millis(100));
    (ticks() - before) / COUNTED
}

/// Processor time so far; the kernel counts in hundredths of a second.
fn ticks() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = text.rsplit_once(')').unwrap().1.split_whitespace();
    // utime, stime, and both of the children that were waited for.
    let ticks: u64 = fields
        .skip(11)
        .take(4)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn command() -> Command {
    let mut command = Command::new("/usr/bin/true");
    command.env_clear().stdin(Stdio::null()).current_dir("/");
    command
}

fn program() -> Program {
    Program::resolve("true".as_ref(), &["/usr/bin".into(), "/bin".into()]).unwrap()
}

/// Each mechanism by itself, then all of them.
fn cases() -> [(&'static str, Confinement); 7] {
    let none = || Confinement {
        filter_calls: false,
        ..Confinement::default()
    };
    let root = rustix::process::geteuid().is_root();
    let account = root.then(|| Account {
        uid: STRANGER,
        gid: STRANGER,
        groups: vec![],
    });
    let limits = Limits {
        cpu_s: Some(60),
        memory_bytes: Some(1 << 30),
        processes: Some(512),
        file_size_bytes: Some(1 << 30),
        open_files: Some(256),
    };
    let protected = vec![PathBuf::from(PROTECTED)];
    let cgroup = Some(CgroupLimits::default());
    let other = Confinement {
        account: account.clone(),
        limits,
        ..none()
    };
    let read_only = Confinement {
        profile: Profile::ReadOnly,
        ..none()
    };
    let fence = Confinement {
        protected: protected.clone(),
        ..none()
    };
    let own = Confinement { cgroup, ..none() };
    let all = Confinement {
        account,
        limits,
        protected,
        profile: Profile::ReadOnly,
        cgroup,
        ..Confinement::default()
    };
    [
        ("the executor, no new privileges", none()),
        ("  with seccomp: as it comes", Confinement::default()),
        ("  with another account (as root) and limits", other),
        ("  with profile read-only (Landlock)", read_only),
        ("  with a protected path (Landlock)", fence),
        ("  with a cgroup of its own", own),
        ("  with all of it", all),
    ]
}

fn plan(confinement: Confinement) -> Plan {
    Plan {
        first: Step {
            program: program(),
            argv: vec![OsString::from("true")],
        },
        then: vec![],
        cwd: "/".into(),
        env: vec![],
        stdin: vec![],
        timeout: Duration::from_secs(30),
        grace: Duration::from_secs(1),
        output_limit: 1 << 20,
        stop_at_limit: false,
        secrets: Secrets::default(),
        secrets_place: None,
        reach: Reach::Tree,
        announced: Some(confinement.foresee().unwrap()),
        confinement,
    }
}

/// As the agent runs it: the events are taken while it runs.
async fn run_to_end(plan: Plan) {
    let (sender, mut events) = mpsc::channel(16);
    let run = tokio::spawn(run(plan, CancellationToken::new(), sender));
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = Some(event);
    }
    run.await.unwrap().unwrap();
    let Some(RunEvent::Finished(finished)) = last else {
        unreachable!("a run has a last word");
    };
    assert!(
        finished.tree_gone && finished.outcome == Outcome::Exited(0),
        "{finished:?}"
    );
}
