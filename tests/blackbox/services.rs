//! Services: a command runs inside the place that its host declares, with its input and limits, and
//! what is killed is killed inside.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::confined::is_root;
use crate::folder::Folder;
use crate::left_out::left_out;
use crate::rules::{check, configure};
use crate::support::{Dev, processes_running, processes_with, signal, text, until};

/// A process that holds namespaces of its own: processes, mounts, host name.
struct Namespace {
    unshare: Child,
    inside: u32,
}

impl Namespace {
    /// Needs root. Its host name is the mark by which a test sees where it is.
    fn new(name: &str) -> Self {
        let script = format!("hostname {name}; mount -t tmpfs none /mnt; echo up; exec sleep 9999");
        let mut unshare = Command::new("unshare")
            .args([
                "--pid",
                "--fork",
                "--kill-child",
                "--mount",
                "--mount-proc",
                "--uts",
            ])
            .args(["sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 3];
        let mut said = unshare.stdout.take().unwrap();
        std::io::Read::read_exact(&mut said, &mut first).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let inside = fs::read_to_string(children).unwrap();
        let inside = inside.trim().parse().unwrap();
        Self { unshare, inside }
    }

    /// The words that enter it.
    fn enter(&self) -> String {
        format!(
            r#"enter = ["nsenter", "--target", "{}", "--pid", "--mount", "--uts"]"#,
            self.inside
        )
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        signal(self.inside, "KILL");
        let _ = self.unshare.wait();
    }
}

/// Asks for a command in a service of dev's host, approves it and waits.
fn inside(dev: &Dev, service: &str, options: &[&str], words: &[&str]) -> Value {
    let id = ask(dev, service, options, words);
    dev.approve(&id);
    dev.ended(&id)
}

fn ask(dev: &Dev, service: &str, options: &[&str], words: &[&str]) -> String {
    let place = format!("local/{service}");
    let head = ["request", "--on", &place, "--reason", "a test"];
    let asked = dev.json("alice", 0, &[&head, options, &["--"], words].concat());
    asked["id"].as_str().unwrap().to_owned()
}

fn dev_with(tables: &str) -> Dev {
    let dev = Dev::start();
    configure(&dev, |own| {
        format!("{own}confine.open_files = 99\n{tables}")
    });
    dev
}

fn execution(shown: &Value) -> &Value {
    &shown["executions"][0]
}

fn refused_by(shown: &Value) -> &str {
    execution(shown)["refused"]["rule"].as_str().unwrap()
}

#[test]
fn a_command_runs_inside_the_service_that_was_approved() {
    if !is_root() {
        return left_out("it needs root: entering a namespace");
    }
    let namespace = Namespace::new("cs-inside");
    let dev = dev_with(&format!(
        r#"
[[service]]
name = "ns"
{}
user = ["--setuid", "{{1}}", "--setgid", "{{1}}"]
descends = true
allow_all = true
shell = true

[[service]]
name = "strict"
{}
descends = true

[[allow]]
name = "only_uname"
program = "uname"
args = ["-n"]
services = ["strict"]
"#,
        namespace.enter(),
        namespace.enter()
    ));
    // Where it is: another host name, another tree of processes. What it has: input, variables and
    // limits of the request and the host.
    let input = dev.folder().path().join("input");
    fs::write(&input, "through stdin\n").unwrap();
    let options = [
        "--shell",
        "--stdin",
        input.to_str().unwrap(),
        "--env",
        "LANG=xx",
    ];
    let script = "uname -n; cat; echo $LANG; ulimit -n; echo $$ | wc -c; exit 3";
    let shown = inside(&dev, "ns", &options, &[script]);
    let part = execution(&shown);
    assert_eq!(part["service"], "ns", "{shown}");
    assert_eq!(shown["request"]["targets"], json!(["local/ns"]));
    assert_eq!(part["code"], 3, "{shown}");
    let out = part["stdout"].as_str().unwrap();
    assert!(
        out.starts_with("cs-inside\nthrough stdin\nxx\n99\n"),
        "{out}"
    );
    // Rules for the host do not reach into a service, and those of one service into no other.
    let shown = inside(&dev, "strict", &[], &["uname", "-n"]);
    assert_eq!(execution(&shown)["stdout"], "cs-inside\n", "{shown}");
    for (service, words, rule) in [
        ("strict", &["uname", "-a"][..], "allow"),
        ("strict", &["/usr/bin/uname", "-n"][..], "allow"),
        ("missing", &["uname", "-n"][..], "service"),
    ] {
        let shown = inside(&dev, service, &[], words);
        assert_eq!(refused_by(&shown), rule, "{shown}");
    }
    let shown = inside(&dev, "strict", &["--shell"], &["uname -n"]);
    assert_eq!(refused_by(&shown), "service", "{shown}");
    // What cannot be handed over is refused and never left out.
    for options in [&["--cwd", "/tmp"][..], &["--env", "DOCKER_HOST=x"][..]] {
        let shown = inside(&dev, "ns", options, &["true"]);
        assert_eq!(execution(&shown)["status"], "refused", "{shown}");
    }
    let (code, said) = check(&dev, &["--service", "ns"], &["id"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("who enters the service"), "{said}");
    let audit = dev.verb("alice", &["verify"]);
    assert!(audit.status.success(), "{}", text(&audit.stderr));
}

/// Starts in a service what outlives its parent there, cancels it, and looks for what is left.
fn killed_inside(dev: &Dev, service: &str, number: u32) {
    let nap = format!("sleep {number}");
    let script = format!("trap '' TERM; setsid {nap} & ( {nap} & ) ; echo up; {nap}; {nap}");
    let id = ask(dev, service, &["--shell", "--timeout", "120"], &[&script]);
    dev.approve(&id);
    until("it runs inside, three times", || {
        processes_running(&nap).len() >= 3
    });
    dev.json("bob", 0, &["cancel", &id]);
    let shown = dev.ended(&id);
    assert_eq!(execution(&shown)["outcome"], "cancelled", "{shown}");
    assert_eq!(execution(&shown)["stdout"], "up\n");
    assert_eq!(processes_running(&nap), [] as [u32; 0]);
    let shown = text(&dev.verb("alice", &["show", &id]).stdout);
    assert!(!shown.contains("MAY STILL RUN"), "{shown}");
}

#[test]
fn what_is_killed_is_killed_inside_also_where_orphans_fall_to_another_init() {
    if !is_root() {
        return left_out("it needs root: entering a namespace");
    }
    let namespace = Namespace::new("cs-kill");
    let dev = dev_with(&format!(
        "\n[[service]]\nname = \"ns\"\n{}\ndescends = true\nshell = true\n",
        namespace.enter()
    ));
    killed_inside(&dev, "ns", 98_761);
}

/// A container that the test made, and its engine's own folders.
struct Container {
    options: Vec<String>,
    name: String,
    folder: Folder,
    /// podman takes no path of more than 50 characters for what runs.
    short: PathBuf,
}

impl Container {
    /// None, said aloud, where there is no podman that can run one.
    fn new() -> Option<Self> {
        const WHAT: &str = "a command in a container of a real engine";
        if !is_root() {
            left_out(&format!("it needs root: {WHAT}"));
            return None;
        }
        if !PathBuf::from("/usr/bin/podman").exists() || !PathBuf::from("/bin/busybox").exists() {
            left_out(&format!(
                "there is no podman or no static busybox here: {WHAT}"
            ));
            return None;
        }
        let folder = Folder::new("container");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let short = std::env::temp_dir().join(format!("cs-{}", std::process::id()));
        let mut options = vec![
            "--root".to_owned(),
            at("root"),
            "--runroot".to_owned(),
            short.display().to_string(),
        ];
        options.extend(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"].map(str::to_owned));
        if PathBuf::from("/usr/sbin/runc").exists() || PathBuf::from("/usr/bin/runc").exists() {
            options.extend(["--runtime", "runc"].map(str::to_owned));
        }
        let container = Self {
            options,
            name: format!("countersign-{}", std::process::id()),
            folder,
            short,
        };
        match container.begin() {
            Ok(()) => Some(container),
            Err(why) => {
                left_out(&format!("podman runs no container here ({why}): {WHAT}"));
                None
            }
        }
    }

    fn podman(&self, words: &[&str]) -> Result<(), String> {
        let output = Command::new("podman")
            .args(&self.options)
            .args(words)
            .output();
        let output = output.map_err(|error| error.to_string())?;
        let said = text(&output.stderr);
        output
            .status
            .success()
            .then_some(())
            .ok_or_else(|| said.trim().to_owned())
    }

    fn begin(&self) -> Result<(), String> {
        let image = self.folder.path().join("image");
        fs::create_dir_all(image.join("bin")).unwrap();
        fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
        for name in [
            "sh", "sleep", "cat", "echo", "hostname", "id", "pwd", "setsid", "true",
        ] {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(name)).unwrap();
        }
        let tar = image.with_extension("tar");
        let packed = Command::new("tar")
            .arg("-C")
            .arg(&image)
            .arg("-cf")
            .arg(&tar)
            .arg(".")
            .status();
        assert!(packed.unwrap().success());
        self.podman(&["import", tar.to_str().unwrap(), "countersign-test:latest"])?;
        let run = [
            "run",
            "-d",
            "--name",
            &self.name,
            "--hostname",
            "cs-box",
            "--network=none",
        ];
        let small = ["--ulimit", "nofile=512:512", "--ulimit", "nproc=512:512"];
        let what = ["countersign-test:latest", "/bin/sleep", "9999"];
        self.podman(&[&run[..], &small, &what].concat())
    }

    fn service(&self) -> String {
        let words = |words: &[String]| {
            let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
            words.join(", ")
        };
        format!(
            "\n[[service]]\nname = \"box\"\nenter = [\"podman\", {}, \"exec\", \"-i\"]\ninto = [{:?}]\n\
             env = [\"--env\", \"{{1}}\"]\ncwd = [\"--workdir\", \"{{1}}\"]\nuser = [\"--user\", \"{{1}}\"]\n\
             allow_all = true\nshell = true\n",
            words(&self.options),
            self.name
        )
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.podman(&["rm", "-f", "-t", "0", &self.name]);
        let _ = fs::remove_dir_all(&self.short);
        // What could not be asked to go.
        for pid in processes_with(&self.name) {
            signal(pid, "KILL");
        }
    }
}

#[test]
fn a_command_runs_in_a_container_and_dies_there() {
    let Some(container) = Container::new() else {
        return;
    };
    let dev = dev_with(&container.service());
    let input = dev.folder().path().join("input");
    fs::write(&input, "through stdin\n").unwrap();
    let input = input.to_str().unwrap();
    let options = [
        "--stdin", input, "--env", "LANG=a b", "--cwd", "/proc", "--user", "1234",
    ];
    let script = "hostname; cat; echo \"$LANG\"; pwd; id -u";
    let shown = inside(
        &dev,
        "box",
        &[&options[..], &["--shell"]].concat(),
        &[script],
    );
    let part = execution(&shown);
    assert_eq!(part["code"], 0, "{shown}");
    assert_eq!(part["stdout"], "cs-box\nthrough stdin\na b\n/proc\n1234\n");
    // Whatever a word has, it stays one word on its way.
    let shown = inside(&dev, "box", &[], &["echo", "a  b", "$HOME;*", "--env"]);
    assert_eq!(
        execution(&shown)["stdout"],
        "a  b $HOME;* --env\n",
        "{shown}"
    );
    killed_inside(&dev, "box", 98_762);
}
