//! A command is held as its host says: by its account, its limits and what is out of its reach, and
//! the ledger keeps what of that was in force.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::left_out::left_out;
use crate::rules::{check, configure};
use crate::support::{Dev, PROGRAM, text};

/// Whether the tests are root, as a host's agent mostly is.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A dev whose agent has these settings before its own, and these tables after them.
fn dev_with(settings: &str, tables: &str) -> Dev {
    let dev = Dev::start();
    configure(&dev, |own| format!("{settings}{own}{tables}"));
    dev
}

/// What a command has written, and how it ended.
fn ran(shown: &Value) -> (&str, &Value) {
    let execution = &shown["executions"][0];
    (execution["stdout"].as_str().unwrap_or(""), &shown["status"])
}

/// The payload of the newest entry of a kind.
fn newest(dev: &Dev, kind: &str) -> Value {
    let namespace = format!("{kind}.v1@countersign");
    let output = dev.verb("alice", &["log", "--json"]);
    let entries = text(&output.stdout);
    let entries = entries
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let mut entries = entries.filter(|entry: &Value| entry["namespace"] == namespace);
    entries.next_back().unwrap()["payload"].clone()
}

/// The rule of the newest refusal, which the command that is shown must have ended in.
fn refused(dev: &Dev, shown: &Value) -> String {
    assert_eq!(shown["status"], "refused", "{shown}");
    let rule = &newest(dev, "execution.refused")["rule"];
    rule.as_str().unwrap().to_owned()
}

fn id(arguments: &[&str]) -> String {
    let output = Command::new("id").args(arguments).output().unwrap();
    text(&output.stdout).trim().to_owned()
}

/// Numbers in their order, whatever the order they came in.
fn numbers(list: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = list
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// An account with more groups than its own, if this machine has one; else one with one.
fn somebody() -> String {
    let groups = fs::read_to_string("/etc/group").unwrap();
    let members = groups.lines().filter_map(|line| line.rsplit(':').next());
    let mut members = members.flat_map(|members| members.split(','));
    let member = members.find(|name| !name.is_empty() && *name != "root");
    member.unwrap_or("nobody").to_owned()
}

#[test]
fn a_command_runs_as_the_account_that_was_approved() {
    if !is_root() {
        left_out("it needs root: running as another account");
        return;
    }
    let who = somebody();
    let users = format!("users = [\"root\", {who:?}, \"daemon\", \"no-such-account\"]\n");
    let dev = dev_with(&users, "");
    let as_user = |user: &str, words: &[&str]| dev.through(&["--user", user], words);
    let (uid, gid) = (id(&["-u", &who]), id(&["-g", &who]));
    for asked in [&who, &uid] {
        let shown = as_user(asked, &["id", "-u"]);
        assert_eq!(ran(&shown).0, format!("{uid}\n"));
        let held = newest(&dev, "execution.started")["in_force"].clone();
        assert_eq!(
            (held["uid"].to_string(), held["gid"].to_string()),
            (uid.clone(), gid.clone())
        );
    }
    let shown = as_user(&who, &["id", "-G"]);
    assert_eq!(numbers(ran(&shown).0), numbers(&id(&["-G", &who])));
    // It gains nothing on the way: no variable, and no way back.
    assert_eq!(ran(&as_user(&who, &["env"])).0, "");
    let shown = as_user(&who, &["cat", "/etc/shadow"]);
    assert_eq!(ran(&shown), ("", &json!("failed")));
    let shown = dev.through(&["--user", &who, "--shell"], &["id -u; echo \"$0\""]);
    assert_eq!(ran(&shown).0, format!("{uid}\n/proc/self/fd/7\n"));
    // Who names nobody gets the default, and it is the agent's own.
    assert_eq!(ran(&dev.through(&[], &["id", "-u"])).0, "0\n");

    let (code, said) = check(&dev, &["--user", &who], &["id", "-u"]);
    assert_eq!(code, 0, "{said}");
    let user = format!("user: {who} (uid {uid}, gid {gid}, groups ");
    assert!(said.contains(&user), "{said}");
    for (user, rule) in [
        ("no-such-account", "run_as"),
        ("mail", "users"),
        ("8", "users"),
    ] {
        let (code, said) = check(&dev, &["--user", user], &["id"]);
        assert_eq!(
            (code, said.starts_with(&format!("refused by {rule}: "))),
            (4, true),
            "{said}"
        );
        assert_eq!(refused(&dev, &as_user(user, &["id"])), rule);
    }
}

#[test]
fn a_program_that_the_account_may_not_execute_is_not_executed() {
    if !is_root() {
        left_out("it needs root: a program of another account");
        return;
    }
    let dev = dev_with("users = [\"root\", \"nobody\"]\n", "");
    let tool = dev.folder().path().join("tool");
    fs::copy("/bin/true", &tool).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o700)).unwrap();
    let tool = tool.to_str().unwrap();
    assert_eq!(dev.through(&[], &[tool])["status"], "completed");
    let shown = dev.through(&["--user", "nobody"], &[tool]);
    assert_eq!(
        shown["executions"][0]["outcome"], "not_executable",
        "{shown}"
    );
}

/// Rules that each hold one program in another way.
const HELD: &str = r#"
[confine]
umask = "077"
open_files = 64
protected = ["FOLDER/secret"]

[[allow]]
name = "small_files"
program = "dd"
args = ["**"]
confine = { file_size = "1M" }

[[allow]]
name = "little_memory"
program = "perl"
args = ["**"]
[allow.confine]
memory = "100M"
open_files = "none"

[[allow]]
name = "little_time"
program = "sh"
args = ["-c", "while :; do :; done"]
confine = { cpu_s = 1 }

[[allow]]
name = "quiet_look"
program = "cat"
args = ["**"]
confine = { protect_own = true }

[[allow]]
name = "writes_here"
program = "touch"
args = ["**"]
confine = { profile = "write-only-here", protected = [] }

[[allow]]
name = "demands_a_cgroup"
program = "true"
confine = { cgroup = { memory = "64M", processes = 10 }, demand = ["cgroup"] }
"#;

/// A dev with these rules. Its confinement has a table of its own, so the short form goes.
fn held() -> Dev {
    let dev = Dev::start();
    let folder = dev.folder().path().to_str().unwrap().to_owned();
    let secret = Path::new(&folder).join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("file"), "secret").unwrap();
    configure(&dev, |own| {
        let own = own.replace("confine.protect_own = false\n", "");
        let held = HELD.replace("FOLDER", &folder);
        format!(
            "{own}{}",
            held.replace("[confine]\n", "[confine]\nprotect_own = false\n")
        )
    });
    dev
}

/// Whether `check` says that Landlock would hold this; if not, it is said what is left out.
fn has_landlock(dev: &Dev, what: &str) -> bool {
    let (code, said) = check(dev, &[], &["id"]);
    assert_eq!(code, 0, "{said}");
    let has = said.contains("landlock ");
    if !has {
        assert!(said.contains("not in force: the protected paths"), "{said}");
        left_out(&format!("this kernel has no Landlock: {what}"));
    }
    has
}

#[test]
fn limits_hold_and_started_says_which() {
    let dev = held();
    let folder = dev.folder().path().to_str().unwrap().to_owned();
    let shown = dev.through(
        &["--cwd", &folder],
        &["dd", "if=/dev/zero", "of=dev/big", "bs=1M", "count=3"],
    );
    assert_eq!(shown["executions"][0]["signal"], 25, "XFSZ: {shown}");
    let big = fs::metadata(dev.data().join("big")).unwrap();
    assert_eq!((big.len(), big.mode() & 0o777), (1 << 20, 0o600));
    let started = newest(&dev, "execution.started");
    let limits = &started["in_force"]["limits"];
    assert_eq!(
        limits,
        &json!({"file_size_bytes": 1 << 20, "open_files": 64})
    );
    assert_eq!(started["in_force"]["no_new_privs"], true);
    let own = [id(&["-u"]), id(&["-g"])];
    let said = ["uid", "gid"].map(|name| started["in_force"][name].to_string());
    assert_eq!(said, own);

    let script = "print length('x' x 300_000_000)";
    assert_eq!(
        ran(&dev.through(&[], &["perl", "-e", script])),
        ("", &json!("failed"))
    );
    let limits = newest(&dev, "execution.started")["in_force"]["limits"].clone();
    assert_eq!(limits, json!({"memory_bytes": 100 << 20}));

    let shown = dev.through(&[], &["sh", "-c", "while :; do :; done"]);
    assert_eq!(shown["executions"][0]["signal"], 24, "XCPU: {shown}");
    let limits = newest(&dev, "execution.started")["in_force"]["limits"].clone();
    assert_eq!(limits, json!({"cpu_s": 1, "open_files": 64}));

    // Nothing is said to hold what is not there.
    let shown = dev.through(&[], &["no-such-program"]);
    assert_eq!(shown["executions"][0]["outcome"], "not_found");
    assert_eq!(newest(&dev, "execution.started").get("in_force"), None);
}

#[test]
fn a_protected_path_is_out_of_reach_also_for_root() {
    let dev = held();
    if !has_landlock(&dev, "protected paths and profiles") {
        return;
    }
    let folder = dev.folder().path().to_str().unwrap().to_owned();
    let secret = format!("{folder}/secret/file");
    // Any program, by the default, and another by a rule over it.
    for words in [
        ["head", "-c9", secret.as_str()].as_slice(),
        &["cat", &secret],
    ] {
        assert_eq!(
            ran(&dev.through(&[], words)),
            ("", &json!("failed")),
            "{words:?}"
        );
        let held = &newest(&dev, "execution.started")["in_force"];
        assert!(held["landlock"].as_u64().unwrap() >= 3, "{held}");
    }
    // The agent's own files, where the rule has them protected, and nothing besides.
    let state = dev.data().join("agent/state");
    let key = fs::read_dir(&state).unwrap().flatten();
    let key = key
        .map(|entry| entry.path())
        .find(|path| path.is_file())
        .unwrap();
    for own in [key, dev.data().join("agent/agent.toml")] {
        let own = own.to_str().unwrap();
        assert_eq!(
            ran(&dev.through(&[], &["cat", own])),
            ("", &json!("failed")),
            "{own}"
        );
        assert_eq!(
            dev.through(&[], &["head", "-c1", own])["status"],
            "completed",
            "{own}"
        );
    }
    let passwd = dev.through(&[], &["cat", "/etc/passwd"]);
    assert_eq!(passwd["status"], "completed");
    // What may be written is the directory of the request.
    let (here, there) = (dev.data().join("here"), dev.data().join("there"));
    for place in [&here, &there] {
        fs::create_dir(place).unwrap();
    }
    let touch = |path: &Path| {
        let options = ["--cwd", here.to_str().unwrap()];
        dev.through(&options, &["touch", path.to_str().unwrap()])["status"].clone()
    };
    assert_eq!(touch(&here.join("a")), "completed");
    assert_eq!(touch(&there.join("a")), "failed");
    assert!(here.join("a").exists() && !there.join("a").exists());
}

#[test]
fn a_demand_that_the_host_cannot_meet_is_a_refusal_in_the_ledger() {
    let dev = held();
    let (code, said) = check(&dev, &[], &["true"]);
    if code == 0 {
        assert!(said.contains("cgroup memory processes"), "{said}");
        left_out("this machine gives the agent a whole cgroup: a demand that is not met");
        assert_eq!(dev.through(&[], &["true"])["status"], "completed");
        let held = &newest(&dev, "execution.started")["in_force"]["cgroup"];
        assert_eq!(held, &json!({"cpu": false, "memory": true, "pids": true}));
        return;
    }
    assert!(
        said.starts_with("refused by demand: cgroup v2 is demanded"),
        "{said}"
    );
    let shown = dev.through(&[], &["true"]);
    assert_eq!(refused(&dev, &shown), "demand");
    assert_eq!(newest(&dev, "execution.refused")["why"], "unusable");
}

#[test]
fn check_config_says_what_holds_what() {
    let dev = held();
    let output = Command::new(PROGRAM)
        .args(["agent", "--config"])
        .arg(dev.data().join("agent/agent.toml"))
        .arg("check-config")
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for line in [
        "confine holds: protected [",
        "secret], protect_own false, open_files 64, umask 077\n",
        "confine little_memory: memory 104857600, open_files none\n",
        "confine demands_a_cgroup: cgroup memory 67108864 processes 10, demands cgroup",
        "users are: ",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn a_script_is_read_from_a_file_that_nobody_can_change() {
    let dev = Dev::shared();
    let script = "echo \"$0 $#\"; (: >\"$0\") 2>/dev/null || echo sealed; tail -c 4 \"$0\" # end";
    let shown = dev.through(&["--shell"], &[script]);
    assert_eq!(
        ran(&shown),
        ("/proc/self/fd/7 0\nsealed\n end", &json!("completed"))
    );
    // Its input is its own.
    let path = dev.folder().path().join("input-of-a-script");
    fs::write(&path, "given\n").unwrap();
    let shown = dev.through(
        &["--shell", "--stdin", path.to_str().unwrap()],
        &["cat; exit 3"],
    );
    assert_eq!(ran(&shown).0, "given\n");
    assert_eq!(shown["executions"][0]["exit_code"], 3);
}

/// An account that is not the tests' own.
fn another() -> &'static str {
    match id(&["-un"]).as_str() {
        "nobody" => "daemon",
        _other => "nobody",
    }
}

#[test]
fn sudo_is_told_each_word_apart() {
    let dev = Dev::start();
    let stand_in = dev.folder().path().join("sudo");
    fs::write(&stand_in, "#!/bin/sh\nprintf '[%s]' \"$@\"\n").unwrap();
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
    configure(&dev, |own| {
        let own_name = id(&["-un"]);
        let users = format!("users = [{own_name:?}, {:?}]\n", another());
        let action = format!(
            "\n[[action]]\nname = \"both\"\nargs = [\"*\"]\nusers = [{:?}]\n\
             steps = [[\"echo\", \"{{1}}\"], [\"true\", \"&& {{1}}\"]]\n",
            another()
        );
        format!("run_as = \"sudo\"\nsudo = {stand_in:?}\n{users}{own}{action}")
    });
    let shown = dev.through(
        &["--user", another()],
        &["echo", "a b", ";id", "-u", "root"],
    );
    let which = |name: &str| {
        let path = Command::new("which").arg(name).output().unwrap();
        text(&path.stdout).trim().to_owned()
    };
    let expected = format!(
        "[-n][-u][{}][--][{}][a b][;id][-u][root]",
        another(),
        which("echo")
    );
    assert_eq!(ran(&shown).0, expected);
    // Of an action each step goes through sudo, not the first alone.
    let head = [
        "request",
        "--on",
        "local",
        "--reason",
        "a test",
        "--user",
        another(),
    ];
    let asked = dev.json(
        "alice",
        0,
        &[&head[..], &["--action", "both", "a b"]].concat(),
    );
    let id_of = asked["id"].as_str().unwrap();
    dev.approve(id_of);
    let sudo = format!("[-n][-u][{}][--]", another());
    let expected = format!(
        "{sudo}[{}][a b]{sudo}[{}][&& a b]",
        which("echo"),
        which("true")
    );
    assert_eq!(ran(&dev.ended(id_of)).0, expected);
    let started = newest(&dev, "execution.started");
    assert_eq!(
        started["in_force"]["uid"].to_string(),
        id(&["-u", another()])
    );
    assert_eq!(started["in_force"]["no_new_privs"], false);
    // Without another user there is no sudo.
    assert_eq!(ran(&dev.through(&[], &["echo", "-n", "own"])).0, "own");
    let (code, said) = check(&dev, &["--user", another(), "--shell"], &["id"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.starts_with("refused by run_as: a script"), "{said}");
}

#[test]
fn sudo_itself_takes_the_command_to_its_user() {
    let sudo = Path::new("/usr/bin/sudo");
    let may = |sudo: &Path| {
        let asked = Command::new(sudo)
            .args(["-n", "-u", another(), "--", "/bin/true"])
            .status();
        asked.is_ok_and(|status| status.success())
    };
    if !sudo.exists() || !may(sudo) {
        left_out("this machine has no sudo, or it asks this user for a password: the real sudo");
        return;
    }
    let own_name = id(&["-un"]);
    let settings = format!(
        "run_as = \"sudo\"\nusers = [{own_name:?}, {:?}]\n",
        another()
    );
    let dev = dev_with(&settings, "");
    let as_another = |words: &[&str]| dev.through(&["--user", another()], words);
    assert_eq!(
        ran(&as_another(&["id", "-u"])).0,
        format!("{}\n", id(&["-u", another()]))
    );
    assert_eq!(
        ran(&as_another(&["printf", "[%s]", "a b", "$HOME", ";"])).0,
        "[a b][$HOME][;]"
    );
    let shown = as_another(&["sh", "-c", "echo err >&2; exit 7"]);
    assert_eq!(shown["executions"][0]["exit_code"], 7);
    let shown = dev.through(&["--user", another(), "--timeout", "1"], &["sleep", "60"]);
    assert_eq!(shown["executions"][0]["outcome"], "timed_out");
}
