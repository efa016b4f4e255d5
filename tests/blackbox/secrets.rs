//! Secrets after deploy: a value reaches a service that waits for it, and stands in clear nowhere that
//! lasts: not in the database, not in the agent's state, not in a log, not in a list of processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::rules::configure;
use crate::support::{Dev, signal, text, until};

/// What the service is given to wait for its secret.
const SERVICE_LIMIT_S: u32 = 120;

/// A value that stands nowhere by chance.
fn value(what: &str) -> String {
    let own = format!("{what} {} {:?}", std::process::id(), Instant::now());
    format!("cs-{what}-{}", hex::encode(Sha256::digest(own)))
}

/// A service that was deployed without its secret: it waits for the file, is ready with what it found
/// there, and reads it again when it is told to.
struct Service {
    process: Child,
    folder: PathBuf,
}

impl Service {
    fn start(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        let script = format!(
            "cd {}; tries=0
            read_it() {{ cat secret tls.key 2>/dev/null | sha256sum | cut -c1-64 > new; mv new $1; }}
            while [ ! -s secret ]; do
                tries=$((tries+1)); [ $tries -gt {}0 ] && exit 9; sleep 0.1
            done
            trap 'read_it reloaded' HUP
            read_it ready
            while :; do sleep 0.1; done",
            folder.display(),
            SERVICE_LIMIT_S
        );
        let process = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        fs::write(folder.join("pid"), process.id().to_string()).unwrap();
        Self { process, folder }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        signal(self.process.id(), "KILL");
        let _ = self.process.wait();
    }
}

fn file_with(dev: &Dev, name: &str, content: &str) -> String {
    let path = dev.folder().path().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Below `folder`, which files hold `needle`.
fn files_with(folder: &Path, needle: &[u8], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            files_with(&path, needle, found);
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes.windows(needle.len()).any(|piece| piece == needle) {
                found.push(path);
            }
        }
    }
}

/// Processes whose arguments or variables hold `needle`.
fn processes_that_show(needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        for what in ["cmdline", "environ"] {
            let path = entry.path().join(what);
            let bytes = fs::read(&path).unwrap_or_default();
            if text(&bytes).contains(needle) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// The folders in memory of this dev's agent in which runs have secrets now.
fn folders_in_memory(dev: &Dev) -> Vec<PathBuf> {
    let state = dev.data().join("agent/state").canonicalize().unwrap();
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    let name = format!("countersign-{}", hex::encode(&digest[..8]));
    let bases = ["/run", "/dev/shm"].map(|base| Path::new(base).join(&name));
    let runs = bases
        .iter()
        .flat_map(|base| fs::read_dir(base).into_iter().flatten());
    runs.flatten().map(|run| run.path()).collect()
}

fn out(shown: &Value) -> &str {
    shown["executions"][0]["stdout"].as_str().unwrap_or("")
}

fn dump(dev: &Dev) -> Vec<u8> {
    let url = dev.env("COUNTERSIGN_OWNER_DATABASE_URL");
    let output = Command::new("pg_dump").arg(url).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    output.stdout
}

#[test]
fn a_waiting_service_gets_its_secret_and_no_trace_of_it_stays() {
    let dev = Dev::start();
    let service = Service::start(dev.folder().path().join("service"));
    let folder = service.folder.display().to_string();
    let password = value("password");
    let from = file_with(&dev, "password", &password);

    // Delivered to a service that runs and waits; the run ends when it is ready.
    let script = format!(
        "cat $COUNTERSIGN_SECRETS/db.password; echo; umask 077
        cp $COUNTERSIGN_SECRETS/db.password {folder}/new-secret && mv {folder}/new-secret {folder}/secret
        while [ ! -e {folder}/ready ]; do sleep 0.1; done; cat {folder}/ready; sleep 2"
    );
    let secret = format!("db.password=@{from}");
    let options = ["--shell", "--timeout", "120", "--secret", &secret];
    let id = dev.request(&options, &[&script]);
    let read = text(&dev.verb("bob", &["show", &id]).stdout);
    assert!(
        read.contains("db.password as a file, sealed to 1"),
        "{read}"
    );
    assert!(!read.contains(&password), "{read}");
    dev.approve(&id);
    until("the service has its secret", || {
        service.folder.join("ready").exists()
    });
    assert_eq!(processes_that_show(&password), [] as [String; 0]);
    assert_eq!(folders_in_memory(&dev).len(), 1);
    let shown = dev.ended(&id);
    let digest = hex::encode(Sha256::digest(&password));
    assert_eq!(out(&shown), format!("***\n{digest}\n"), "{shown}");
    assert_eq!(shown["executions"][0]["masked"], 1);
    assert_eq!(folders_in_memory(&dev), [] as [PathBuf; 0]);
    let said = text(&dev.verb("alice", &["show", &id]).stdout);
    assert!(said.contains("secrets masked in its output: 1"), "{said}");

    // A certificate's key is put in place of another, and the service told to read it.
    let tls_key = value("tls");
    let from = file_with(&dev, "key", &format!("{tls_key}\n"));
    let script = format!(
        "cp $COUNTERSIGN_SECRETS/tls.key {folder}/tls.key && kill -HUP $(cat {folder}/pid)
        while [ ! -e {folder}/reloaded ]; do sleep 0.1; done; cat {folder}/reloaded"
    );
    let secret = format!("tls.key=@{from}");
    let shown = dev.through(&["--shell", "--secret", &secret], &[&script]);
    let both = format!("{password}{tls_key}\n");
    let digest = hex::encode(Sha256::digest(both));
    assert_eq!(out(&shown), format!("{digest}\n"), "{shown}");

    // In a variable and on standard input; what is printed is masked, also without its line end.
    let token = value("token");
    let from = file_with(&dev, "token", &format!("{token}\n"));
    let secrets = [format!("TOKEN:env=@{from}"), format!("word:stdin=@{from}")];
    let options = ["--secret", &secrets[0], "--secret", &secrets[1], "--shell"];
    let script = "printf '<%s>' \"$TOKEN\" | tr -d '\\n'; cat; env | grep -c COUNTERSIGN";
    let shown = dev.through(&options, &[script]);
    assert_eq!(out(&shown), "<***>***\n0\n", "{shown}");

    for secret in [&password, &tls_key, &token] {
        let dumped = dump(&dev);
        assert!(!text(&dumped).contains(secret.as_str()));
        // pg_dump writes bytes in hex.
        assert!(!text(&dumped).contains(&hex::encode(secret)));
        let mut found = Vec::new();
        // Postgres' own files, the agent's state, the clients' memory; and what was logged.
        files_with(&dev.data(), secret.as_bytes(), &mut found);
        files_with(
            &dev.folder().path().join("state"),
            secret.as_bytes(),
            &mut found,
        );
        assert_eq!(found, [] as [PathBuf; 0]);
        let log = fs::read_to_string(dev.folder().path().join("stderr")).unwrap();
        assert!(!log.contains(secret.as_str()));
    }
    // The search does find what is there: the script is in the database, in clear.
    let mut found = Vec::new();
    let needle = b"while [ ! -e ";
    dev.sql("CHECKPOINT");
    files_with(&dev.data(), needle, &mut found);
    assert!(!found.is_empty());
    assert!(dev.is_sound());
}

#[test]
fn a_run_with_a_secret_ends_at_its_limit_and_so_does_the_file() {
    let dev = Dev::start();
    let from = file_with(&dev, "password", &value("password"));
    let secret = format!("db.password=@{from}");
    let options = ["--shell", "--timeout", "2", "--secret", &secret];
    let script = "trap '' TERM; echo up; while [ ! -e /nonexistent/ready ]; do sleep 0.1; done";
    let id = dev.request(&options, &[script]);
    dev.approve(&id);
    until("its file is there", || folders_in_memory(&dev).len() == 1);
    let begun = Instant::now();
    let shown = dev.ended(&id);
    assert_eq!(shown["executions"][0]["outcome"], "timed_out", "{shown}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(folders_in_memory(&dev), [] as [PathBuf; 0]);
}

#[test]
fn the_host_decides_whether_it_takes_a_secret() {
    let dev = Dev::start();
    let from = file_with(&dev, "password", &value("password"));
    configure(&dev, |own| format!("secrets = false\n{own}"));
    let secret = format!("db.password=@{from}");
    let shown = dev.through(&["--secret", &secret], &["true"]);
    assert_eq!(
        shown["executions"][0]["refused"]["rule"], "secrets",
        "{shown}"
    );
    // A value is never an argument, and a wrong one is not repeated.
    let arguments = [
        "request",
        "--on",
        "local",
        "--reason",
        "x",
        "--secret",
        "PW=hunter2hunter2",
    ];
    let refused = dev.verb("alice", &[&arguments[..], &["--", "true"]].concat());
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(said.contains("a value is never an argument"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
