//! Plans that work, and one listener that collects what a run says.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use countersign_agent::execution::{
    Account, Confinement, Finished, Outcome, Plan, Program, Reach, RunEvent, Secret, Secrets, Step,
    Stream, run,
};
use countersign_protocol::secret::Delivery;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::left_out::left_out;

/// Longer than any test should take, short enough to fail within a build.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn path_dirs() -> Vec<PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/bin"]
        .map(PathBuf::from)
        .to_vec()
}

pub(crate) fn step<S: AsRef<OsStr>>(argv: &[S]) -> Step {
    let argv: Vec<OsString> = argv.iter().map(|a| a.as_ref().to_owned()).collect();
    Step {
        program: Program::resolve(&argv[0], &path_dirs()).unwrap(),
        argv,
    }
}

pub(crate) fn plan<S: AsRef<OsStr>>(argv: &[S]) -> Plan {
    Plan {
        first: step(argv),
        then: Vec::new(),
        cwd: "/".into(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        stdin: Vec::new(),
        timeout: LONG,
        grace: Duration::from_secs(5),
        output_limit: u64::MAX,
        stop_at_limit: false,
        secrets: Secrets::default(),
        secrets_place: None,
        reach: Reach::Tree,
        confinement: Confinement::default(),
        announced: None,
    }
}

pub(crate) fn shell(script: &str) -> Plan {
    plan(&["/bin/sh", "-c", script])
}

/// A value to be handed over.
pub(crate) fn secret(name: &str, delivery: Delivery, value: &str) -> Secret {
    Secret {
        name: name.parse().unwrap(),
        delivery,
        value: Zeroizing::new(value.as_bytes().to_vec()),
    }
}

/// All that a run said.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) chunks: Vec<(Stream, u64, usize)>,
    pub(crate) finished: Finished,
}

pub(crate) async fn hear(mut events: mpsc::Receiver<RunEvent>) -> Heard {
    let (mut stdout, mut stderr, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
    let mut finished = None;
    while let Some(event) = events.recv().await {
        assert!(finished.is_none(), "nothing follows the last word");
        match event {
            RunEvent::Chunk {
                stream,
                offset_us,
                bytes,
            } => {
                chunks.push((stream, offset_us, bytes.len()));
                match stream {
                    Stream::Stdout => stdout.extend(bytes),
                    Stream::Stderr => stderr.extend(bytes),
                }
            }
            RunEvent::Finished(last) => finished = Some(last),
        }
    }
    Heard {
        stdout,
        stderr,
        chunks,
        finished: finished.unwrap(),
    }
}

pub(crate) async fn run_with(plan: Plan, cancel: CancellationToken) -> Heard {
    let (sender, receiver) = mpsc::channel(4);
    let (ran, heard) = tokio::join!(run(plan, cancel, sender), hear(receiver));
    ran.unwrap();
    heard
}

pub(crate) async fn run_to_end(plan: Plan) -> Heard {
    run_with(plan, CancellationToken::new()).await
}

pub(crate) async fn wait_until(what: &str, fact: impl Fn() -> bool) {
    let begun = Instant::now();
    while !fact() {
        assert!(begun.elapsed() < LONG / 2, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(crate) fn executable(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A user and group that no machine gives to anyone, so nothing else counts against its limits.
pub(crate) const STRANGER: u32 = 54_321;

pub(crate) fn stranger() -> Option<Account> {
    Some(Account {
        uid: STRANGER,
        gid: STRANGER,
        groups: vec![],
    })
}

/// Whether this test may go on as root; if not, it says what it leaves out.
pub(crate) fn root_or_left_out(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        left_out(&format!("it needs root: {what}"));
    }
    root
}

/// The sentence of a run that did not start.
pub(crate) fn refusal(heard: &Heard) -> &str {
    let Outcome::FailedToStart(text) = &heard.finished.outcome else {
        panic!("it started: {:?}", heard.finished)
    };
    text
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
