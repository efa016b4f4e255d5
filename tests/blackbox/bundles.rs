//! Evidence that leaves the ledger: `export`, and the two programs that check it without a server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{Dev, PROGRAM, text};

/// The small program, which is built beside ours.
fn small(arguments: &[&str]) -> Output {
    let program = Path::new(PROGRAM).with_file_name("countersign-verify");
    assert!(
        program.exists(),
        "{} is not there: cargo build -p countersign-verifier",
        program.display()
    );
    Command::new(program)
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

fn path(dev: &Dev, name: &str) -> PathBuf {
    dev.folder().path().join(name)
}

pub(crate) fn export(dev: &Dev, who: &str, name: &str, what: &[&str]) -> (PathBuf, Value) {
    let file = path(dev, name);
    let arguments = [&["export"], what, &["-o", file.to_str().unwrap()]].concat();
    let made = dev.json(who, 0, &arguments);
    (file, made)
}

/// The verdict of both programs, which must be the same.
pub(crate) fn verdict(dev: &Dev, code: i32, file: &Path) -> Value {
    let (file, ledger) = (file.to_str().unwrap(), dev.env("COUNTERSIGN_LEDGER"));
    let output = small(&["--json", "--ledger", ledger, file]);
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stdout));
    let small: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut ours = dev.json("nobody", code, &["verify", file]);
    ours.as_object_mut().unwrap().remove("lists");
    assert_eq!(ours, small);
    small
}

#[test]
fn a_command_leaves_as_a_bundle_that_two_programs_check_without_the_server() {
    let mut dev = Dev::start();
    let id = dev.through(&[], &["echo", "hello"])["id"]
        .as_str()
        .unwrap()
        .to_owned();
    dev.through(&[], &["false"]);
    let (file, made) = export(&dev, "alice", "one.tar", &[&id]);
    assert_eq!(
        (&made["ok"], &made["scope"]),
        (&true.into(), &"excerpt".into())
    );
    let (whole, made) = export(&dev, "alice", "all.tar", &[]);
    assert_eq!(
        (&made["ok"], &made["scope"]),
        (&true.into(), &"whole".into())
    );
    assert_eq!(made["outputs"]["partial"], 0);

    // Nothing of the ledger is there any more.
    crate::support::signal(dev.pid(), "KILL");
    dev.wait();
    let verdict_one = verdict(&dev, 0, &file);
    assert_eq!(
        (&verdict_one["ok"], &verdict_one["pinned"]),
        (&true.into(), &true.into())
    );
    assert!(verdict_one["entries"].as_u64() < verdict_one["size"].as_u64());
    let verdict_all = verdict(&dev, 0, &whole);
    assert_eq!(verdict_all["entries"], verdict_all["size"]);

    // One byte of the output, and one of a page that people read.
    let bytes = fs::read(&file).unwrap();
    for (from, to, name) in [
        ("hello\n", "hallo\n", "other_content"),
        ("person:bob", "person:bub", "changed_index"),
    ] {
        let changed = path(&dev, "changed.tar");
        let at = last(&bytes, from.as_bytes());
        let mut copy = bytes.clone();
        copy[at..at + to.len()].copy_from_slice(to.as_bytes());
        fs::write(&changed, copy).unwrap();
        let found = verdict(&dev, 3, &changed);
        let name_found = found["first_bad"]["name"].as_str().unwrap();
        assert!(
            [name, "bad_layout", "changed_index"].contains(&name_found),
            "{found}"
        );
        assert_eq!(found["ok"], false);
    }
    let missing = small(&["nothing.tar"]);
    assert_eq!(missing.status.code(), Some(5));
    assert_eq!(small(&["--nonsense"]).status.code(), Some(2));
}

/// Where some bytes stand last.
fn last(bytes: &[u8], part: &[u8]) -> usize {
    bytes
        .windows(part.len())
        .rposition(|found| found == part)
        .unwrap()
}

#[test]
fn an_export_stands_in_the_log_and_never_writes_over_a_file() {
    let dev = Dev::shared();
    let id = dev.through(&[], &["true"])["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (file, _) = export(&dev, "alice", "said.tar", &[&id]);
    let log = text(&dev.verb("alice", &["--json", "log"]).stdout);
    let said =
        |line: &str| line.contains("audit.read") && line.contains("export") && line.contains(&id);
    assert!(log.lines().any(said), "{log}");
    let again = dev.verb("alice", &["export", &id, "-o", file.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("is there already"));
}

#[test]
fn a_bundle_is_found_by_host_and_time_and_withholds_output_when_asked() {
    let dev = Dev::shared();
    dev.through(&[], &["echo", "a secret of the host"]);
    let (file, made) = export(
        &dev,
        "alice",
        "found.tar",
        &["--host", "local", "--from", "1h", "--no-output"],
    );
    assert_eq!(
        (&made["ok"], &made["scope"]),
        (&true.into(), &"excerpt".into())
    );
    assert!(made["blobs"]["withheld"].as_u64() > Some(0));
    let bytes = fs::read(file).unwrap();
    assert!(!text(&bytes).contains("a secret of the host\n"));
    let nothing = path(&dev, "nothing.tar");
    let none = dev.verb(
        "alice",
        &[
            "export",
            "--host",
            "nowhere",
            "-o",
            nothing.to_str().unwrap(),
        ],
    );
    assert_eq!(none.status.code(), Some(1), "{}", text(&none.stderr));
    assert!(!nothing.exists());
}

/// What is in the file needs no program of ours to be read.
#[test]
fn tar_unpacks_a_bundle_and_ssh_keygen_checks_a_signature_of_it() {
    let dev = Dev::shared();
    let id = dev.through(&[], &["true"])["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (file, _) = export(&dev, "alice", "public.tar", &[&id]);
    let folder = path(&dev, "unpacked");
    fs::create_dir(&folder).unwrap();
    let unpacked = Command::new("tar")
        .args(["xf", file.to_str().unwrap(), "-C", folder.to_str().unwrap()])
        .status()
        .unwrap();
    assert!(unpacked.success());
    let inside = folder.join("countersign-bundle");
    let index: Value =
        serde_json::from_slice(&fs::read(inside.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["commands"][0]["id"], id.as_str());
    assert_eq!(index["commands"][0]["hosts"][0]["exit_code"], 0);
    let html = fs::read_to_string(inside.join("index.html")).unwrap();
    assert!(html.contains("approved") && html.contains("person:bob"));
    assert!(!html.contains("<script"));
}
