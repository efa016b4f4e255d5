//! Servers: a real set-up by hand, two of them on one database, and a database that goes away.

use std::fs;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::cedar;
use crate::folder::Folder;
use crate::support::{Dev, PROGRAM, free_port, signal, text, until};

/// A `countersign serve`, killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) url: String,
    pub(crate) log: std::path::PathBuf,
}

impl Server {
    pub(crate) fn start(
        dev: &Dev,
        database: &str,
        keys: &std::path::Path,
        checkpoint: &std::path::Path,
        first: bool,
    ) -> Self {
        let server = Self::spawn(dev, database, keys, checkpoint, first);
        until("the server is ready", || server.is_ready());
        server
    }

    pub(crate) fn is_ready(&self) -> bool {
        http(&self.url, "/readyz").contains("200 OK")
    }

    /// One that may never become ready; what it says goes to `log`.
    pub(crate) fn spawn(
        dev: &Dev,
        database: &str,
        keys: &std::path::Path,
        checkpoint: &std::path::Path,
        first: bool,
    ) -> Self {
        Self::spawn_with(dev, database, keys, checkpoint, first, &[])
    }

    /// The same, with more options.
    pub(crate) fn spawn_with(
        dev: &Dev,
        database: &str,
        keys: &std::path::Path,
        checkpoint: &std::path::Path,
        first: bool,
        more: &[&str],
    ) -> Self {
        let port = free_port();
        let log = dev.folder().path().join(format!("serve-{port}"));
        let mut command = Command::new(PROGRAM);
        command
            .args(["serve", "--listen", &format!("127.0.0.1:{port}")])
            .env("DATABASE_URL", database)
            .arg("--keys")
            .arg(keys)
            .arg("--checkpoint")
            .arg(checkpoint)
            .args(dev.public.iter().flat_map(|url| ["--public-url", url]))
            .args(more)
            .stderr(fs::File::create(&log).unwrap());
        if first {
            command.arg("--first-start");
        }
        Self {
            child: command.spawn().unwrap(),
            url: format!("http://127.0.0.1:{port}"),
            log,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A GET by hand.
pub(crate) fn http(base: &str, path: &str) -> String {
    call(base, path, &[], None)
}

/// A GET, or a POST of some JSON, with header lines of the caller's own.
pub(crate) fn call(base: &str, path: &str, headers: &[&str], json: Option<String>) -> String {
    use std::io::{Read as _, Write as _};
    let address = base.strip_prefix("http://").unwrap();
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return String::new();
    };
    let method = if json.is_some() { "POST" } else { "GET" };
    let mut lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let body = json.unwrap_or_default();
    if method == "POST" {
        lines += &format!(
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
    }
    let _sent = write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n{body}"
    );
    let mut answer = String::new();
    let _read = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn health_is_one_word() {
    let dev = Dev::shared();
    let answer = http(dev.env("COUNTERSIGN_SERVER"), "/health");
    assert!(answer.ends_with("{\"status\":\"ok\"}"), "{answer}");
    assert!(http(dev.env("COUNTERSIGN_SERVER"), "/metrics").contains("countersign_log_entries"));
    assert!(http(dev.env("COUNTERSIGN_SERVER"), "/openapi.json").contains("\"openapi\":\"3.1"));
}

#[test]
fn two_servers_on_one_database_lose_and_double_nothing_under_kills() {
    let dev = Arc::new(Dev::start());
    let keys = dev.data().join("ledger");
    let checkpoint = dev.folder().path().join("second-checkpoint");
    let database = dev.env("DATABASE_URL").to_owned();
    let first = dev.env("COUNTERSIGN_SERVER").to_owned();
    let load = |server: String, count: usize, dev: Arc<Dev>| {
        thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for _each in 0..count {
                let output = dev.verb(
                    "alice",
                    &[
                        "--json", "--server", &server, "request", "--on", "local", "--reason",
                        "load", "--", "true",
                    ],
                );
                if output.status.success() {
                    let asked: Value = serde_json::from_slice(&output.stdout).unwrap();
                    acknowledged.push(asked["id"].as_str().unwrap().to_owned());
                } else {
                    // Its server was killed.
                    break;
                }
            }
            acknowledged
        })
    };
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let second = Server::start(&dev, &database, &keys, &checkpoint, round == 0);
        let loads = [
            load(first.clone(), 8, Arc::clone(&dev)),
            load(second.url.clone(), 8, Arc::clone(&dev)),
            load(second.url.clone(), 8, Arc::clone(&dev)),
        ];
        thread::sleep(Duration::from_millis(400));
        // kill -9 in the middle of its work.
        drop(second);
        for load in loads {
            acknowledged.extend(load.join().unwrap());
        }
    }
    assert!(
        acknowledged.len() >= 24,
        "{} were acknowledged",
        acknowledged.len()
    );
    dev.holds_each_once(&acknowledged);
    assert!(dev.is_sound());
}

#[test]
fn a_database_that_goes_away_loses_nothing_and_doubles_nothing() {
    let dev = Arc::new(Dev::start());
    let cutter = {
        let dev = Arc::clone(&dev);
        thread::spawn(move || {
            for _each in 0..12 {
                dev.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'countersign_app'");
                thread::sleep(Duration::from_millis(150));
            }
        })
    };
    let mut ids = Vec::new();
    while !cutter.is_finished() {
        let output = dev.verb(
            "alice",
            &[
                "--json", "request", "--on", "local", "--reason", "storm", "--", "true",
            ],
        );
        if output.status.success() {
            let asked: Value = serde_json::from_slice(&output.stdout).unwrap();
            ids.push(asked["id"].as_str().unwrap().to_owned());
        } else {
            // Told as unreachable, never as anything else.
            assert_eq!(output.status.code(), Some(5), "{}", text(&output.stdout));
        }
    }
    cutter.join().unwrap();
    assert!(!ids.is_empty());
    dev.holds_each_once(&ids);
    until("it serves again", || {
        dev.verb("alice", &["list"]).status.success()
    });
    assert!(dev.is_sound());
}

/// Makes a pair of keys, the public one beside the private one.
fn generate(path: &std::path::Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
}

/// The first entry is signed where there is no database, and its id is the ledger's ever after.
#[test]
fn a_ledger_is_founded_offline_and_entered_later() {
    let dev = Dev::start();
    let folder = Folder::new("offline");
    dev.sql("CREATE DATABASE offline");
    let at = |url: &str| dev.env(url).replace("/countersign?", "/offline?");
    let (owner, app) = (at("COUNTERSIGN_OWNER_DATABASE_URL"), at("DATABASE_URL"));
    let run = |arguments: &[&str], database: bool| {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .env_clear()
            .env("COUNTERSIGN_KEYS", folder.path().join("keys"));
        if database {
            command
                .env("DATABASE_URL", &app)
                .env("COUNTERSIGN_OWNER_DATABASE_URL", &owner);
        }
        let output = command.output().unwrap();
        let code = output.status.code();
        (code, text(&output.stdout), text(&output.stderr))
    };
    let key = |name: &str| {
        let file = dev.data().join(format!("keys/{name}.pub"));
        format!("{name}={}", file.display())
    };
    let (alice, bob, carol) = (key("alice"), key("bob"), key("carol"));
    let genesis = folder.path().join("genesis.json").display().to_string();
    let offline = [
        "init",
        "--offline",
        &genesis,
        "--origin",
        "ledger.example.com/cold",
        "--admin",
        &alice,
        "--admin",
        &bob,
        "--admin",
        &carol,
    ];
    let signed = run(&offline, false);
    assert_eq!(signed.0, Some(0), "{}", signed.2);
    let again = run(&offline, false);
    assert_eq!(again.0, Some(1), "another one is not written over it");
    let enter = ["init", "--genesis", &genesis];
    assert_eq!(run(&enter, false).0, Some(2), "there is no database");
    assert_eq!(run(&["migrate"], true).0, Some(0));
    let entered = run(&enter, true);
    assert_eq!(entered.0, Some(0), "{}", entered.2);
    assert_eq!(entered.1, signed.1, "the id was known before");
    assert_eq!(run(&enter, true).0, Some(1), "there is a ledger");
    let keys = folder.path().join("keys");
    let server = Server::start(&dev, &app, &keys, &keys.join("checkpoint"), false);
    let arguments = [
        "--server",
        &server.url,
        "--ledger",
        signed.1.trim(),
        "whoami",
    ];
    let mut whoami = dev.command("alice", &arguments);
    whoami.env_remove("COUNTERSIGN_VKEY");
    whoami.env_remove("COUNTERSIGN_ORIGIN");
    whoami.env("COUNTERSIGN_HOME", folder.path().join("home"));
    let whoami = whoami.output().unwrap();
    assert!(whoami.status.success(), "{}", text(&whoami.stderr));
    assert!(text(&whoami.stdout).contains("admin"));
}

#[test]
fn a_set_up_by_hand_works_as_dev_does() {
    let dev = Dev::start();
    let folder = Folder::new("by-hand");
    dev.sql("CREATE DATABASE byhand");
    let owner = dev
        .env("COUNTERSIGN_OWNER_DATABASE_URL")
        .replace("/countersign?", "/byhand?");
    let app = dev.env("DATABASE_URL").replace("/countersign?", "/byhand?");
    let run = |arguments: &[&str]| {
        let output = Command::new(PROGRAM)
            .args(arguments)
            .env_clear()
            .env("DATABASE_URL", &app)
            .env("COUNTERSIGN_OWNER_DATABASE_URL", &owner)
            .env("COUNTERSIGN_KEYS", folder.path().join("keys"))
            .output()
            .unwrap();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let key = |name: &str| {
        format!(
            "{name}={}",
            dev.data().join(format!("keys/{name}.pub")).display()
        )
    };
    let (alice, bob, carol) = (key("alice"), key("bob"), key("carol"));
    assert_eq!(run(&["migrate"]).0, Some(0));
    let init = [
        "init",
        "--origin",
        "ledger.example.com/hand",
        "--admin",
        &alice,
        "--admin",
        &bob,
        "--admin",
        &carol,
        "--threshold",
        "2",
    ];
    let made = run(&init);
    assert_eq!(made.0, Some(0), "{}", made.2);
    let ledger = made.1.trim().to_owned();
    assert_eq!(ledger.len(), 64);
    let again = run(&init);
    assert_eq!(again.0, Some(1), "a second init is refused");
    let keys = folder.path().join("keys");
    let server = Server::start(&dev, &app, &keys, &keys.join("checkpoint"), false);
    let client = |who: &str, arguments: &[&str], code: i32| -> Value {
        let mut command = dev.command(
            who,
            &[
                &["--json", "--server", &server.url, "--ledger", &ledger],
                arguments,
            ]
            .concat(),
        );
        command
            .env_remove("COUNTERSIGN_VKEY")
            .env_remove("COUNTERSIGN_ORIGIN");
        let output = command.output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // Until there is another policy, the built-in one holds.
    let policy = folder.path().join("rules.cedar");
    let rules = cedar::names(1, &["alice"], &["bob", "carol"]);
    fs::write(&policy, rules.text()).unwrap();
    let asked = client("alice", &["policy", "set", policy.to_str().unwrap()], 0);
    client(
        "bob",
        &["approve", asked["id"].as_str().unwrap(), "--yes"],
        0,
    );
    // A fourth person.
    let dave = folder.path().join("dave");
    generate(&dave);
    let added = client(
        "bob",
        &[
            "key",
            "add",
            "dave",
            dave.with_extension("pub").to_str().unwrap(),
        ],
        0,
    );
    client(
        "carol",
        &["approve", added["id"].as_str().unwrap(), "--yes"],
        0,
    );
    // A fifth one, whose private half is not here: nobody proves that the key is theirs.
    let erin = folder.path().join("erin");
    generate(&erin);
    fs::remove_file(&erin).unwrap();
    let unproved = client(
        "bob",
        &[
            "key",
            "add",
            "erin",
            erin.with_extension("pub").to_str().unwrap(),
        ],
        1,
    );
    assert_eq!(unproved["error"]["code"], "not_signed");
    let log = |key: &std::path::Path| {
        let verb = [
            "--server",
            &server.url,
            "--ledger",
            &ledger,
            "--json",
            "log",
        ];
        let output = dev
            .command("alice", &verb)
            .env("COUNTERSIGN_KEY", key)
            .env_remove("COUNTERSIGN_VKEY")
            .env_remove("COUNTERSIGN_ORIGIN")
            .output()
            .unwrap();
        (output.status.code(), text(&output.stdout))
    };
    let (code, all) = log(&dev.data().join("keys/alice"));
    assert_eq!(code, Some(0), "{all}");
    assert!(all.contains("key.added") && !all.contains("erin"), "{all}");
    assert!(all.contains("policy.published"), "{all}");
    // The key signs in, and without a role its holder reads nothing of what others said.
    let (code, refused) = log(&dave);
    assert_eq!(code, Some(4), "{refused}");
    assert!(refused.contains("audit:read"), "{refused}");
    signal(server.child.id(), "TERM");
}
