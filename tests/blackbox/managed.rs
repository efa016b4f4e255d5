//! The agent as a service: enrolled, started, reloaded and stopped as a service manager and the
//! administrator of a host do it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agents::agent_of;
use crate::left_out::left_out;
use crate::support::{Dev, PATIENCE, PROGRAM, signal, text, until};

/// Another host of a dev's ledger, in a folder of its own.
struct Host<'a> {
    dev: &'a Dev,
    name: &'static str,
    folder: PathBuf,
}

impl<'a> Host<'a> {
    fn new(dev: &'a Dev, name: &'static str, change: impl FnOnce(&str) -> String) -> Self {
        let folder = dev.folder().path().join(name);
        fs::create_dir(&folder).unwrap();
        let own = fs::read_to_string(dev.data().join("agent/agent.toml")).unwrap();
        assert!(own.contains("drain_s = 0\n"), "dev stops at once");
        let own = own.replace("name = \"local\"", &format!("name = {name:?}"));
        fs::write(folder.join("agent.toml"), change(&own)).unwrap();
        let signers = dev.data().join("agent/allowed_signers");
        fs::copy(signers, folder.join("allowed_signers")).unwrap();
        Self { dev, name, folder }
    }

    fn agent(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(["agent", "--config"])
            .arg(self.folder.join("agent.toml"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// The objects that `enroll --json` prints, its code, and its words.
    fn enroll(&self, arguments: &[&str]) -> (Vec<Value>, Option<i32>, String) {
        let arguments = [&["enroll", "--json"], arguments].concat();
        let output = self.agent(&arguments).output().unwrap();
        let lines = text(&output.stdout);
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        (lines.collect(), output.status.code(), text(&output.stderr))
    }

    fn accept(&self, fingerprint: &str) {
        let words = ["agents", "accept", self.name, "--fingerprint", fingerprint];
        let asked = self.dev.json("alice", 0, &words);
        let id = asked["id"].as_str().unwrap();
        self.dev.json("carol", 0, &["approve", id, "--yes"]);
    }

    /// An accepted host with its agent, which a service manager started.
    fn serve(&self) -> Service {
        let (cards, code, said) = self.enroll(&["--no-wait"]);
        assert_eq!(code, Some(0), "{said}");
        self.accept(cards[0]["fingerprint"].as_str().unwrap());
        let service = self.start();
        service.hears("READY=1");
        service
    }

    fn start(&self) -> Service {
        let path = self.folder.join("notify");
        let _old = fs::remove_file(&path);
        let ear = UnixDatagram::bind(&path).unwrap();
        ear.set_read_timeout(Some(PATIENCE)).unwrap();
        // Read at once, as a manager does: the kernel keeps ten datagrams, and the agent waits for nobody.
        let (words, said) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok(length) = ear.recv(&mut bytes)
                && words.send(text(&bytes[..length])).is_ok()
            {}
        });
        let log = self.folder.join("log");
        let child = self
            .agent(&[])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "1000000")
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Service { child, said, log }
    }

    /// alice asks this host, bob and carol approve.
    fn granted(&self, words: &[&str]) -> String {
        let head = ["request", "--on", self.name, "--reason", "a test", "--"];
        let asked = self.dev.json("alice", 0, &[&head, words].concat());
        let id = asked["id"].as_str().unwrap().to_owned();
        self.dev.approve(&id);
        id
    }

    fn runs(&self, id: &str) {
        until("it runs", || {
            self.dev.show(id)["executions"][0]["stdout"] == "begun\n"
        });
    }
}

/// An agent, and what it says to the service manager.
struct Service {
    child: Child,
    said: mpsc::Receiver<String>,
    log: PathBuf,
}

impl Service {
    /// Waits for a word, and gives all that was said up to it.
    fn hears(&self, word: &str) -> Vec<String> {
        let mut heard = Vec::new();
        let begun = Instant::now();
        loop {
            let said = self.said.recv_timeout(PATIENCE).unwrap();
            let found = said.lines().any(|line| line == word);
            heard.push(said);
            if found {
                return heard;
            }
            // Signs of life come for ever.
            assert!(
                begun.elapsed() < PATIENCE,
                "{word} was never said: {heard:?}"
            );
        }
    }

    fn logs(&self, words: &str) {
        until(words, || {
            fs::read_to_string(&self.log).unwrap().contains(words)
        });
    }

    fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn enroll_makes_a_key_prints_it_waits_and_is_accepted() {
    let dev = Dev::shared();
    let host = Host::new(&dev, "enrolling", str::to_owned);
    // Nobody accepts: the wait is over, and the answer says where things stand.
    let (cards, code, said) = host.enroll(&["--timeout", "8"]);
    assert_eq!((code, cards.len()), (Some(1), 1), "{said}");
    assert!(said.contains("nobody has accepted this host yet"), "{said}");
    let card = cards[0].clone();
    let fingerprint = card["fingerprint"].as_str().unwrap();
    assert!(fingerprint.starts_with("SHA256:"));
    assert_eq!(card["agent"], "enrolling");
    assert_eq!(card["key_id"].as_str().unwrap().len(), 64);
    assert_eq!(card["accepted"], false);
    let mode = |path: &str| {
        let metadata = fs::metadata(host.folder.join(path)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!(mode("state/identity/key"), 0o600);
    assert_eq!((mode("state"), mode("state/identity")), (0o700, 0o700));
    // Again: the same key, and its enrolment is in the ledger when it ends.
    let (cards, code, said) = host.enroll(&["--no-wait"]);
    assert_eq!((code, &cards), (Some(0), &vec![card.clone()]), "{said}");
    let agents = dev.json("alice", 0, &["agents"]);
    let items = agents["items"].as_array().unwrap();
    assert!(items.iter().any(|item| item["agent"] == "enrolling"));
    // One waits; beside it there is no second.
    let mut waiting = host
        .agent(&["enroll"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(waiting.stdout.take().unwrap()).lines();
    let words = lines.by_ref().take(3).map(Result::unwrap);
    let words = words.collect::<Vec<_>>().join("\n");
    let command = format!("countersign agents accept enrolling --fingerprint {fingerprint}");
    assert!(words.contains(&command), "{words}");
    let (cards, code, said) = host.enroll(&[]);
    assert_eq!((code, cards.len()), (Some(1), 0), "{said}");
    assert!(said.contains("another agent uses"), "{said}");
    host.accept(fingerprint);
    let last = lines.next().unwrap().unwrap();
    assert!(last.starts_with("Accepted: "), "{last}");
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
    // It runs nothing: what is granted by now waits for an agent, also while it enrols again.
    let mark = host.folder.join("ran");
    let id = host.granted(&["touch", mark.to_str().unwrap()]);
    let (cards, code, said) = host.enroll(&[]);
    let mut accepted = card;
    accepted["accepted"] = json!(true);
    assert_eq!((code, cards), (Some(0), vec![accepted]), "{said}");
    assert!(!mark.exists());
    assert_eq!(dev.show(&id)["executions"][0]["exit_code"], json!(null));
    let mut service = host.start();
    assert_eq!(dev.ended(&id)["status"], "completed");
    assert!(mark.exists());
    signal(service.child.id(), "TERM");
    assert_eq!(service.ended(), Some(0));
}

#[test]
fn enroll_with_a_key_that_the_ledger_knows_by_another_name_is_refused() {
    let dev = Dev::shared();
    let host = Host::new(&dev, "copied", str::to_owned);
    let copied = Command::new("cp")
        .arg("-rp")
        .arg(dev.data().join("agent/state"))
        .arg(host.folder.join("state"))
        .status();
    assert!(copied.unwrap().success());
    let (cards, code, said) = host.enroll(&["--timeout", "30"]);
    assert_eq!((code, cards.len()), (Some(4), 0), "{said}");
    assert!(said.contains("does not take this agent's key"), "{said}");
}

#[test]
fn a_service_manager_is_told_the_story_and_commands_do_not_hear_of_it() {
    let dev = Dev::shared();
    let host = Host::new(&dev, "managed", str::to_owned);
    let (cards, _, _) = host.enroll(&["--no-wait"]);
    let mut service = host.start();
    let before = service.hears("STATUS=waiting to be accepted");
    assert!(before.iter().all(|said| !said.contains("READY")));
    host.accept(cards[0]["fingerprint"].as_str().unwrap());
    let before = service.hears("READY=1");
    assert!(before.contains(&"STATUS=listening for work".to_owned()));
    // By the dispatcher's loop, and again and again.
    service.hears("WATCHDOG=1");
    service.hears("WATCHDOG=1");
    let environment = host.granted(&["env"]);
    let shown = dev.ended(&environment);
    assert_eq!(shown["status"], "completed");
    assert_eq!(shown["executions"][0]["stdout"], "");
    signal(service.child.id(), "HUP");
    let told = service.hears("READY=1");
    let told = told.iter().find(|said| said.starts_with("RELOADING=1\n"));
    assert!(told.unwrap().contains("MONOTONIC_USEC="));
    signal(service.child.id(), "TERM");
    service.hears("STOPPING=1");
    assert_eq!(service.ended(), Some(0));
}

#[test]
fn a_stopping_service_lets_a_command_end_delivers_it_and_takes_no_other() {
    let dev = Dev::shared();
    let host = Host::new(&dev, "draining", |own| {
        own.replace("drain_s = 0\n", "drain_s = 60\n")
    });
    let mut service = host.serve();
    let (go, mark) = (host.folder.join("go"), host.folder.join("ran"));
    let script = format!(
        "echo begun; while [ ! -e {} ]; do sleep 0.05; done; echo done",
        go.display()
    );
    let id = host.granted(&["sh", "-c", &script]);
    host.runs(&id);
    signal(service.child.id(), "TERM");
    service.hears("STATUS=stopping: 1 commands end");
    service.logs("no new work is taken");
    let late = host.granted(&["touch", mark.to_str().unwrap()]);
    thread::sleep(Duration::from_millis(500));
    fs::write(&go, "").unwrap();
    assert_eq!(service.ended(), Some(0));
    let shown = dev.show(&id);
    assert_eq!(
        (&shown["status"], &shown["executions"][0]["stdout"]),
        (&json!("completed"), &json!("begun\ndone\n"))
    );
    assert!(!mark.exists());
    // It is for the next start.
    let _service = host.start();
    assert_eq!(dev.ended(&late)["status"], "completed");
}

#[test]
fn a_second_term_ends_what_runs_at_once() {
    let dev = Dev::shared();
    let host = Host::new(&dev, "hurried", |own| {
        own.replace("drain_s = 0\n", "drain_s = 300\n")
    });
    let mut service = host.serve();
    let id = host.granted(&["sh", "-c", "echo begun; sleep 50"]);
    host.runs(&id);
    signal(service.child.id(), "TERM");
    service.logs("no new work is taken");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(dev.show(&id)["status"], "running");
    let begun = Instant::now();
    signal(service.child.id(), "INT");
    assert_eq!(service.ended(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(dev.show(&id)["executions"][0]["outcome"], "cancelled");
}

#[test]
fn a_reload_takes_a_rule_away_and_a_bad_file_keeps_the_old_ones() {
    let dev = Dev::start();
    let config = dev.data().join("agent/agent.toml");
    let log = dev.data().join("agent.log");
    let agent = agent_of(&dev);
    let own = fs::read_to_string(&config).unwrap();
    let reload = |file: &str, words: &str| {
        let before = fs::read_to_string(&log).unwrap().len();
        fs::write(&config, file).unwrap();
        signal(agent, "HUP");
        until(words, || {
            fs::read_to_string(&log).unwrap()[before..].contains(words)
        });
    };
    let good = "the configuration was read again";
    let outcome = |words: &[&str]| dev.through(&[], words)["status"].clone();
    // A command of a rule that is taken away goes on; the next one is refused.
    let go = dev.folder().path().join("go");
    let script = format!(
        "echo begun; while [ ! -e {} ]; do sleep 0.05; done",
        go.display()
    );
    let running = dev.request(&["--timeout", "120"], &["sh", "-c", &script]);
    dev.approve(&running);
    until("it runs", || {
        dev.show(&running)["executions"][0]["stdout"] == "begun\n"
    });
    let rule = "\n[[allow]]\nname = \"greet\"\nprogram = \"echo\"\nargs = [\"**\"]\n";
    let careful = own.replace("allow_all = true\n", "");
    reload(&format!("{careful}{rule}"), good);
    assert_eq!(outcome(&["true"]), "refused");
    assert_eq!(outcome(&["echo", "hi"]), "completed");
    // Half a file, and another name: both are said, and change nothing.
    let line = own.lines().count() + 2;
    reload(&format!("{own}\n[[allow]\n"), &format!("line {line}: "));
    assert_eq!(outcome(&["true"]), "refused");
    let renamed = own.replace("name = \"local\"", "name = \"other\"");
    reload(&renamed, "name cannot change while the agent runs");
    assert_eq!(outcome(&["true"]), "refused");
    assert_eq!(outcome(&["echo", "hi"]), "completed");
    reload(&careful, good);
    assert_eq!(outcome(&["echo", "hi"]), "refused");
    fs::write(go, "").unwrap();
    assert_eq!(dev.ended(&running)["status"], "completed");
    assert_eq!(agent_of(&dev), agent, "all of it by one process");
}

/// The agent's unit, its comments left out.
fn unit() -> Vec<(String, String)> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/docs/examples/systemd/countersign-agent.service"
    );
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn of_unit(key: &str) -> String {
    let unit = unit();
    let found = unit.iter().find(|(known, _)| known == key);
    let found = found.unwrap_or_else(|| unreachable!("the unit has no {key}"));
    found.1.clone()
}

#[test]
fn the_unit_starts_what_there_is_and_stays_down_by_codes_that_there_are() {
    let start = of_unit("ExecStart");
    let (program, arguments) = start.split_once(' ').unwrap();
    assert!(program.ends_with("/countersign-agent"));
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let output = Command::new(PROGRAM)
        .arg("agent")
        .args(&arguments)
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(of_unit("RestartPreventExitStatus"), "2 3 4");
    let dev = Dev::shared();
    // 4 is in the tests of enroll.
    let mistaken = Host::new(&dev, "mistaken", |own| format!("{own}max_runs = 0\n"));
    let code = |host: &Host<'_>| host.agent(&arguments).output().unwrap().status.code();
    assert_eq!(code(&mistaken), Some(2));
    let misled = Host::new(&dev, "misled", |own| {
        own.replace(dev.env("COUNTERSIGN_LEDGER"), &"ab".repeat(32))
    });
    assert_eq!(code(&misled), Some(3));
    // The time to stop covers what the agent takes by its defaults.
    let seconds: u64 = of_unit("TimeoutStopSec").parse().unwrap();
    assert!(seconds > 10 + 5 + 1, "drain_s, grace_s, the last delivery");
    assert_eq!(of_unit("StateDirectoryMode"), "0700");
    // An example that says another state folder than the unit makes would not start.
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/agent.toml");
    let example = fs::read_to_string(example).unwrap();
    let state = format!("state = \"/var/lib/{}\"", of_unit("StateDirectory"));
    assert!(example.contains(&state));
}

#[test]
fn systemd_itself_finds_nothing_wrong_with_the_unit() {
    let folder = crate::folder::Folder::new("unit");
    let path = folder.path().join("countersign-agent.service");
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/docs/examples/systemd/countersign-agent.service"
    );
    let unit = fs::read_to_string(unit).unwrap();
    fs::write(
        &path,
        unit.replace("/usr/local/bin/countersign-agent", "/bin/true"),
    )
    .unwrap();
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .output();
    let Ok(output) = verify else {
        return left_out("systemd-analyze is not here: what systemd says of the unit");
    };
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Two lines that older ones do not know are passed over by them, as the unit says.
    let new = |line: &&str| line.contains("notify-reload") || line.contains("DelegateSubgroup");
    let about_us = said
        .lines()
        .filter(|line| line.contains("countersign-agent.service"));
    let rest: Vec<&str> = about_us.filter(|line| !new(line)).collect();
    assert!(rest.is_empty(), "{rest:?}");
}
