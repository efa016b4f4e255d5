//! `docs/verify-by-hand.md` is run as it stands there, on bundles that a real ledger exported: it
//! holds for honest ones, and fails where the page says for changed ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::folder::Folder;
use crate::left_out::left_out;
use crate::rights;
use crate::support::{Dev, text};

const PAGE: &str = include_str!("../../docs/verify-by-hand.md");

/// What the page asks of its reader.
const TOOLS: &[&str] = &["tar", "ssh-keygen", "openssl", "sha256sum", "python3"];

/// Everything that stands in the page's blocks of a language, one block after the other.
fn blocks(language: &str) -> Vec<&'static str> {
    let opened = PAGE.split("\n```").skip(1).step_by(2);
    let named = opened.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    named.collect()
}

/// False, and said aloud, where the page cannot be followed.
fn have_tools() -> bool {
    let missing = |tool: &&&str| {
        let found = Command::new("sh")
            .args(["-c", "command -v \"$0\"", tool])
            .output();
        !found.is_ok_and(|found| found.status.success())
    };
    let missing: Vec<_> = TOOLS.iter().filter(missing).copied().collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        left_out(&format!(
            "there is no {missing} here: a bundle that is checked by hand"
        ));
    }
    missing.is_empty()
}

/// A reader's folder, in which the page is followed.
struct Desk {
    folder: Folder,
    ledger: String,
}

impl Desk {
    fn new(dev: &Dev) -> Self {
        let folder = Folder::new("by-hand");
        let script = blocks("python").concat() + "\n";
        fs::write(folder.path().join("by-hand.py"), script).unwrap();
        Self {
            folder,
            ledger: dev.env("COUNTERSIGN_LEDGER").to_owned(),
        }
    }

    fn sh(&self, folder: &Path, script: &str, bundle: &Path) -> Output {
        Command::new("sh")
            .args(["-eu", "-c", script])
            .current_dir(folder)
            .env("BUNDLE", bundle)
            .env("LEDGER", &self.ledger)
            .output()
            .unwrap()
    }

    /// The whole page, from an empty folder on.
    fn follow(&self, bundle: &[u8]) -> Output {
        let file = self.folder.path().join("evidence.tar");
        fs::write(&file, bundle).unwrap();
        let unpacked = self.folder.path().join("unpacked");
        if unpacked.exists() {
            fs::remove_dir_all(unpacked).unwrap();
        }
        self.sh(self.folder.path(), &blocks("sh").join("\n"), &file)
    }

    fn inside(&self) -> PathBuf {
        self.folder.path().join("unpacked/countersign-bundle")
    }

    /// What the page says of an honest bundle.
    fn holds(&self, bundle: &[u8]) {
        let output = self.follow(bundle);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{out}\n{err}");
        for word in [
            "chain, tree, keys and texts fit together",
            "signatures hold",
            "the checkpoint is signed",
            "every text is what was signed",
            "person:bob command.approved.v1@countersign",
            "nightly backup",
        ] {
            assert!(out.contains(word), "{word}: {out}");
        }
        assert!(!out.contains("NOT OK"), "{out}");
    }

    /// What it says of another.
    fn fails(&self, bundle: &[u8], place: &str) {
        said(&self.follow(bundle), place);
    }

    /// One step again, after something in the unpacked folder was changed.
    fn step_fails(&self, title: &str, file: &str, change: impl Fn(&mut Vec<u8>), place: &str) {
        let section = PAGE.split("\n## ").find(|part| part.starts_with(title));
        let section = section.unwrap_or_else(|| unreachable!("the page has no {title}"));
        let (_, block) = section.split_once("\n```sh\n").unwrap();
        let (block, _) = block.split_once("\n```").unwrap();
        let path = self.inside().join(file);
        let before = fs::read(&path).unwrap();
        let honest = self.sh(&self.inside(), block, &path);
        assert!(honest.status.success(), "{}", text(&honest.stdout));
        let mut changed = before.clone();
        change(&mut changed);
        fs::write(&path, changed).unwrap();
        said(&self.sh(&self.inside(), block, &path), place);
        fs::write(&path, before).unwrap();
    }
}

fn said(output: &Output, place: &str) {
    let all = text(&output.stdout) + &text(&output.stderr);
    assert!(!output.status.success(), "it should fail at {place}: {all}");
    assert!(
        all.contains(&format!("NOT OK: {place}: ")),
        "{place}: {all}"
    );
}

/// Where a member's content stands in a tar, by its name or the beginning of it; the last of them.
fn member(tar: &[u8], name: &str) -> (String, std::ops::Range<usize>) {
    let mut at = 0;
    let mut found = None;
    while tar[at] != 0 {
        let header = text(&tar[at..at + 512]);
        let full = header.split('\0').next().unwrap();
        let size = usize::from_str_radix(&header[124..135], 8).unwrap();
        let short = full.strip_prefix("countersign-bundle/").unwrap();
        if short.starts_with(name) {
            found = Some((short.to_owned(), at + 512..at + 512 + size));
        }
        at += 512 + size.next_multiple_of(512);
    }
    found.unwrap_or_else(|| unreachable!("no {name} in the bundle"))
}

/// A copy with one byte changed: the `nth` from where some bytes stand last in a member.
fn changed(tar: &[u8], name: &str, part: &str, nth: usize) -> Vec<u8> {
    let (_, range) = member(tar, name);
    let content = &tar[range.start..range.end];
    let at = content
        .windows(part.len())
        .rposition(|bytes| bytes == part.as_bytes())
        .map(|at| range.start + at + nth);
    let mut copy = tar.to_vec();
    // Another letter or digit of base64 and of hex: the form stays whole.
    let byte = &mut copy[at.unwrap()];
    *byte = if *byte == b'0' { b'1' } else { b'0' };
    copy
}

/// The number of the last statement of a kind, as the page wrote it down.
fn seq_of(desk: &Desk, kind: &str) -> u64 {
    let list = fs::read_to_string(desk.inside().join("hand/statements")).unwrap();
    let line = list.lines().rfind(|line| line.contains(kind)).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

fn exported(dev: &Dev, name: &str, what: &[&str]) -> Vec<u8> {
    let file = dev.folder().path().join(name);
    let arguments = [&["export"], what, &["-o", file.to_str().unwrap()]].concat();
    dev.json("alice", 0, &arguments);
    fs::read(file).unwrap()
}

fn asked(dev: &Dev) -> String {
    let head = ["request", "--on", "local", "--reason", "nightly backup"];
    let asked = dev.json("alice", 0, &[&head[..], &["--", "echo", "hello"]].concat());
    let id = asked["id"].as_str().unwrap().to_owned();
    dev.approve(&id);
    assert_eq!(dev.ended(&id)["status"], "completed");
    id
}

#[test]
fn the_page_checks_a_whole_ledger_and_finds_a_changed_byte() {
    if !have_tools() {
        return;
    }
    let dev = Dev::start();
    // A person whom genesis does not name, and a host that nobody ever accepted.
    rights::change(&dev, &["key", "add", "dave", &rights::claim(&dev)]);
    rights::enrol(&dev, "web-9");
    asked(&dev);
    let whole = exported(&dev, "whole.tar", &[]);
    let mut desk = Desk::new(&dev);
    desk.holds(&whole);
    let statements = fs::read_to_string(desk.inside().join("hand/statements")).unwrap();
    assert!(statements.contains("agent:web-9 agent.enrolled.v1@countersign"));
    let signers = fs::read_to_string(desk.inside().join("allowed_signers")).unwrap();
    assert!(!signers.contains("agent:web-9 ") && signers.contains("person:dave "));

    // An entry does not link to one that was changed, and nothing stands behind the last.
    let approval = seq_of(&desk, "command.approved");
    let authorized = seq_of(&desk, "command.authorized");
    assert_eq!(authorized, approval + 1);
    desk.fails(
        &changed(&whole, "entries/", "\"requester\":\"alice\"", 13),
        &format!("entry {authorized}"),
    );
    desk.fails(
        &changed(&whole, "entries/", "\"signer\":\"", 10),
        "checkpoint",
    );
    desk.holds(&whole);

    // Each tool finds its part by itself as well.
    desk.step_fails(
        "3. Who said it",
        &format!("hand/{approval}.payload"),
        |payload| payload[30] ^= 1,
        &format!("entry {approval}"),
    );
    let flip_last = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    desk.step_fails(
        "4. The ledger",
        "hand/checkpoint.der",
        flip_last,
        "checkpoint",
    );
    let (blob, _) = member(&whole, "blobs/");
    desk.step_fails("5. Texts", &blob, flip_last, &blob);

    let (blob, _) = member(&whole, "blobs/");
    let mut other = whole.clone();
    let (_, content) = member(&whole, &blob);
    other[content.end - 1] ^= 1;
    desk.fails(&other, &blob);

    // The checkpoint's size and root are compared, its signature is verified.
    let size = fs::read_to_string(desk.inside().join("checkpoint")).unwrap();
    let size = size.lines().nth(1).unwrap().to_owned();
    desk.fails(
        &changed(&whole, "checkpoint", &format!("\n{size}\n"), 1),
        "checkpoint",
    );
    desk.fails(&changed(&whole, "checkpoint", "\n\n", 60), "checkpoint");
    desk.fails(
        &changed(&whole, "allowed_signers", " AAAA", 40),
        "allowed_signers",
    );
    desk.ledger = desk.ledger.replace(|digit: char| digit != '0', "0");
    desk.fails(&whole, "entry 0");
}

#[test]
fn the_page_checks_an_excerpt_and_finds_a_changed_byte() {
    if !have_tools() {
        return;
    }
    let dev = Dev::shared();
    let id = asked(&dev);
    let desk = Desk::new(&dev);
    let quiet = exported(&dev, "quiet.tar", &[&id, "--no-output"]);
    desk.holds(&quiet);
    let bytes = exported(&dev, "part.tar", &[&id]);
    desk.holds(&bytes);

    let last = seq_of(&desk, "execution.completed");
    let at_last = format!("proof of entry {last}");
    desk.fails(&changed(&bytes, "entries/", "\"started\":\"", 12), &at_last);
    let (proof, _) = member(&bytes, "proofs/");
    desk.fails(
        &changed(&bytes, &proof, &format!("index {last}\n"), 16 + 8),
        &at_last,
    );
    desk.fails(
        &changed(&bytes, &proof, &format!("index {last}"), 6),
        &at_last,
    );
    desk.fails(
        &changed(&bytes, "checkpoint", "\n\n", 60),
        "proof of entry 0",
    );
    let (blob, content) = member(&bytes, "blobs/");
    let mut other = bytes.clone();
    other[content.start] ^= 1;
    desk.fails(&other, &blob);
    // What `absent` does not list may not be missing.
    let mut renamed = bytes;
    let at = content.start - 512 + "countersign-bundle/blobs/".len();
    renamed[at] = if renamed[at] == b'0' { b'1' } else { b'0' };
    let header = at - "countersign-bundle/blobs/".len();
    renamed[header + 148..header + 156].fill(b' ');
    let sum: u32 = renamed[header..header + 512]
        .iter()
        .map(|byte| u32::from(*byte))
        .sum();
    renamed[header + 148..header + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let output = desk.follow(&renamed);
    assert!(!output.status.success(), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("NOT OK: blobs/"));
}

#[test]
fn the_script_is_short_enough_to_be_read() {
    let script = blocks("python").concat();
    let lines = script.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert!((60..=82).contains(&lines.count()));
    assert!(script.lines().all(|line| line.len() <= 120));
    let imports: Vec<_> = script
        .lines()
        .filter(|line| line.starts_with("import"))
        .collect();
    assert_eq!(imports, ["import base64, glob, hashlib, json, os, re, sys"]);
}
