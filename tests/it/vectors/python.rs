//! `check.py` over the vectors: Python's json and hashlib, `ssh-keygen -Y verify`, OpenSSL.
//!
//! All three are installed by CI; without one of them these tests fail.
#![expect(clippy::disallowed_methods, reason = "the tests start python3")]

use std::path::Path;
use std::process::Command;

use crate::folder::Folder;
use crate::vectors::golden;

/// Runs one section over a folder of vectors: its line on success, its complaint otherwise.
fn check(vectors: &Path, section: &str) -> Result<String, String> {
    let done = Command::new("python3")
        .arg(golden::folder().join("check.py"))
        .arg("--vectors")
        .arg(vectors)
        .arg(section)
        .output()
        .unwrap();
    if done.status.success() {
        Ok(String::from_utf8(done.stdout).unwrap())
    } else {
        Err(String::from_utf8(done.stderr).unwrap())
    }
}

fn holds(section: &str, count: usize) {
    let said = check(&golden::folder(), section);
    assert_eq!(said, Ok(format!("{section}: {count} ok\n")));
}

fn kinds() -> usize {
    countersign_protocol::event::Kind::ALL.len()
}

#[test]
fn python_comes_to_the_same_key_and_statement_ids_for_every_kind() {
    holds("statements", kinds());
}

#[test]
fn ssh_keygen_and_openssl_verify_every_statement() {
    holds("signatures", kinds() + golden::entries().len());
}

#[test]
fn python_comes_to_the_same_leaves_links_and_roots() {
    holds("log", golden::entries().len());
}

#[test]
fn python_comes_to_the_same_proofs_and_openssl_verifies_the_checkpoints() {
    holds("proofs", 2 * golden::entries().len());
    holds("checkpoints", 2);
}

#[test]
fn python_comes_to_the_same_blob_digests_and_target_roots() {
    holds("blobs", golden::blobs().len());
    holds("targets", 3);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Changes the one character that follows the first `needle` of a file.
fn change(file: &Path, needle: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    let at = text.find(needle).unwrap() + needle.len();
    let (before, after) = text.split_at(at);
    let mut rest = after.chars();
    let other = match rest.next().unwrap() {
        '0' => '1',
        'A' => 'B',
        _other => '0',
    };
    std::fs::write(file, format!("{before}{other}{}", rest.as_str())).unwrap();
}

#[test]
fn the_checker_finds_a_changed_character_in_every_file() {
    let kept = Folder::new("vectors");
    for (section, file, needle) in [
        ("canonical", "canonical.json", r#""text": "{"#),
        (
            "statements",
            "statements/command.approved.json",
            r#""key_id": ""#,
        ),
        (
            "statements",
            "statements/command.approved.json",
            r#""statement_id": ""#,
        ),
        (
            "statements",
            "statements/command.approved.json",
            r#"\"max_runs\":"#,
        ),
        (
            "signatures",
            "statements/command.approved.json",
            r#"\"max_runs\":"#,
        ),
        (
            "signatures",
            "statements/ledger.genesis.json",
            r#"\"threshold\":"#,
        ),
        (
            "signatures",
            "statements/session.challenge.json",
            r#"BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAg"#,
        ),
        ("log", "log/entries.jsonl", r#""leaf":""#),
        ("log", "log/entries.jsonl", r#""prev":""#),
        ("log", "log/ledger.json", r#""ledger_id": ""#),
        ("log", "log/ledger.json", "\"roots\": [\n    \""),
        ("proofs", "log/proofs.json", "\"proof\": [\n        \""),
        ("checkpoints", "log/checkpoint-66.txt", "66\n"),
        (
            "checkpoints",
            "log/ledger.json",
            r#""verifier_key": "ledger.example.com+"#,
        ),
        ("blobs", "log/blobs.jsonl", r#""salt":""#),
        ("blobs", "log/blobs.jsonl", r#""content":""#),
        ("targets", "log/targets.json", r#""agent": "web-"#),
        ("targets", "log/targets.json", r#""root": ""#),
    ] {
        let vectors = kept.path().join("copy");
        copy(&golden::folder(), &vectors);
        change(&vectors.join(file), needle);
        let said = check(&vectors, section);
        assert!(said.is_err(), "{section} passes a changed {file}");
        std::fs::remove_dir_all(&vectors).unwrap();
    }
}
