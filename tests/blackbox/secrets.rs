//! Secrets after deploy: a value reaches a service that waits for it, and stands in clear nowhere that
//! lasts: not in the database, not in the agent's state, not in a log, not in a list of processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cedar;
use crate::rules::configure;
use crate::servers;
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
        while [ ! -e {folder}/ready ]; do sleep 0.1; done; cat {folder}/ready
        while [ ! -e {folder}/seen ]; do sleep 0.1; done"
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
    fs::write(service.folder.join("seen"), "").unwrap();
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
    let options = ["--shell", "--timeout", "10", "--secret", &secret];
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

/// For whom the token asks.
const CI: &str = "ci@example.com";

/// A token for `principal`, whom the policy lets ask: its secret.
fn token(dev: &Dev, name: &str, principal: &str) -> String {
    let arguments = [
        "token",
        "issue",
        "-p",
        "command:execute",
        "-p",
        "agent:read",
        "--for",
        principal,
        "--ttl",
        "1h",
        "--name",
        name,
    ];
    let issued = dev.json("alice", 0, &arguments);
    agree(dev, &issued);
    issued["secret"].as_str().unwrap().to_owned()
}

fn agree(dev: &Dev, asked: &Value) {
    dev.json(
        "carol",
        0,
        &["approve", asked["id"].as_str().unwrap(), "--yes"],
    );
}

/// A call as a script makes it: status and body.
fn call(dev: &Dev, token: &str, body: Option<&Value>, path: &str) -> (u16, Value) {
    let base = dev.env("COUNTERSIGN_SERVER");
    let authorization = format!("authorization: Bearer {token}");
    let said = servers::call(base, path, &[&authorization], body.map(Value::to_string));
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

/// `secret seal`, as the holder of a token runs it: with two files and no key.
fn sealed(dev: &Dev, principal: &str, id: &str, from: &str) -> Value {
    let files = ["agents.json", "ledger.json"].map(|name| dev.folder().path().join(name));
    let [agents, ledger] = files.each_ref().map(|path| path.to_str().unwrap());
    let secret = format!("db.password=@{from}");
    let arguments = [
        "secret",
        "seal",
        "--on",
        "local",
        "--for",
        principal,
        "--execution-id",
        id,
        "--agents",
        agents,
        "--ledger-info",
        ledger,
        "--secret",
        &secret,
    ];
    let output = dev
        .command("nobody", &arguments)
        .env("COUNTERSIGN_SERVER", "")
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_holder_of_a_token_seals_for_one_call_and_no_other() {
    let dev = Dev::start();
    let rules = cedar::names(2, &["alice", CI, "mallory"], &["alice", "bob", "carol"]);
    let path = file_with(&dev, "rules.cedar", rules.text());
    agree(&dev, &dev.json("alice", 0, &["policy", "set", &path]));
    let ci = token(&dev, "ci", CI);
    let agents = dev.json("bob", 0, &["agents"]);
    file_with(&dev, "agents.json", &agents.to_string());
    let (_, info) = call(&dev, &ci, None, "/v1/ledger");
    file_with(&dev, "ledger.json", &info.to_string());
    // A script that has only the token gets the same key, as the server's word.
    let (status, listed) = call(&dev, &ci, None, "/v1/agents");
    assert_eq!(status, 200, "{listed}");
    assert!(agents["items"][0]["sealing_key"].is_string());
    assert_eq!(
        listed["items"][0]["sealing_key"],
        agents["items"][0]["sealing_key"]
    );

    let password = value("password");
    let from = file_with(&dev, "password", &password);
    let mut body = sealed(&dev, CI, "deploy-1", &from);
    assert!(!body.to_string().contains(&password));
    let script = "cat $COUNTERSIGN_SECRETS/db.password | sha256sum | cut -c1-64; cat $COUNTERSIGN_SECRETS/db.password";
    body["command"] = json!(script);
    body["on"] = json!(["local"]);
    let shell = "/v1/commands/shell";
    let (status, asked) = call(&dev, &ci, Some(&body), shell);
    assert_eq!(status, 202, "{asked}");
    let id = asked["command"].as_str().unwrap();
    // The very same again is the same command.
    let (status, again) = call(&dev, &ci, Some(&body), shell);
    assert_eq!((status, &again["command"]), (202, &asked["command"]));
    let read = text(&dev.verb("bob", &["show", id]).stdout);
    assert!(
        read.contains("db.password as a file, sealed to 1"),
        "{read}"
    );
    dev.approve(id);
    let shown = dev.ended(id);
    let digest = hex::encode(Sha256::digest(&password));
    assert_eq!(out(&shown), format!("{digest}\n***"), "{shown}");
    assert_eq!(shown["executions"][0]["masked"], 1);

    // The same id stands for that command; its boxes in another one do not open, whoever moves them.
    let mut other = body.clone();
    other["command"] = json!("cat $COUNTERSIGN_SECRETS/db.password | base64");
    let (status, refused) = call(&dev, &ci, Some(&other), shell);
    assert_eq!((status, &refused["code"]), (409, &json!("client_ref")));
    let mallorys = token(&dev, "mallory", "mallory");
    for (who, id) in [(&ci, "deploy-2"), (&mallorys, "deploy-1")] {
        other["execution_id"] = json!(id);
        let (status, asked) = call(&dev, who, Some(&other), shell);
        assert_eq!(status, 202, "{asked}");
        let id = asked["command"].as_str().unwrap();
        dev.approve(id);
        let shown = dev.ended(id);
        let refused = &shown["executions"][0]["refused"];
        assert_eq!(refused["rule"], "secrets", "{shown}");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("db.password does not open"), "{detail}");
    }
    // Without an id there is nothing that they could be sealed to; in clear they do not come.
    other.as_object_mut().unwrap().remove("execution_id");
    let (status, refused) = call(&dev, &ci, Some(&other), shell);
    assert_eq!((status, &refused["code"]), (422, &json!("secrets")));
    other["secrets"] = json!([{ "name": "db.password", "value": password }]);
    assert_eq!(call(&dev, &ci, Some(&other), shell).0, 400);
    // Another ledger's first entry is none of this one's: nothing is sealed to its gateway.
    let mut foreign = info;
    let genesis = foreign["genesis"].as_str().unwrap().to_owned();
    foreign["genesis"] = json!(format!("AAAA{}", &genesis[4..]));
    let foreign = file_with(&dev, "foreign.json", &foreign.to_string());
    let secret = format!("db.password=@{from}");
    let agents = dev.folder().path().join("agents.json");
    let arguments = [
        "secret",
        "seal",
        "--on",
        "local",
        "--for",
        CI,
        "--execution-id",
        "x",
        "--agents",
        agents.to_str().unwrap(),
        "--ledger-info",
        &foreign,
        "--secret",
        &secret,
    ];
    assert_eq!(
        dev.json("nobody", 3, &arguments)["error"]["code"],
        "other_ledger"
    );
    assert!(dev.is_sound());
}

#[test]
fn a_service_takes_a_variable_and_standard_input_and_no_file() {
    let dev = Dev::start();
    // What it is entered by changes nothing, so that this runs without root and without namespaces.
    let tables = "\n[[service]]\nname = \"inner\"\nenter = [\"env\"]\ndescends = true\nallow_all = true\nshell = true\n";
    configure(&dev, |own| format!("{own}{tables}"));
    let token = value("token");
    let from = file_with(&dev, "token", &token);
    let inside = |secrets: &[&str], script: &str| {
        let mut arguments = vec![
            "request",
            "--on",
            "local/inner",
            "--reason",
            "a test",
            "--shell",
        ];
        for secret in secrets {
            arguments.extend(["--secret", secret]);
        }
        arguments.extend(["--", script]);
        let asked = dev.json("alice", 0, &arguments);
        let id = asked["id"].as_str().unwrap();
        dev.approve(id);
        dev.ended(id)
    };
    let (env, stdin) = (format!("TOKEN:env=@{from}"), format!("word:stdin=@{from}"));
    let script =
        "printf %s \"$TOKEN\" | sha256sum | cut -c1-64; sha256sum | cut -c1-64; echo $TOKEN";
    let shown = inside(&[&env, &stdin], script);
    let digest = hex::encode(Sha256::digest(&token));
    assert_eq!(out(&shown), format!("{digest}\n{digest}\n***\n"), "{shown}");
    assert_eq!(shown["executions"][0]["service"], "inner");
    let shown = inside(&[&format!("db.password=@{from}")], "true");
    let refused = &shown["executions"][0]["refused"];
    assert_eq!(refused["rule"], "secrets", "{shown}");
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("db.password cannot be a file"), "{detail}");
}
