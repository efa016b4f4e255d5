//! The arrows between rooms hold: a room imports only what it may touch.
//!
//! Reads the sources as text, so an import against an arrow fails here before it grows roots.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn sources(room: &Path) -> Vec<PathBuf> {
    if room.is_file() {
        return vec![room.to_path_buf()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(room).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Lines of code (no comments) in `room` that name one of `forbidden`.
fn breaches(room: &str, forbidden: &[&str]) -> Vec<String> {
    let place = root().join(room);
    if !place.exists() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for path in sources(&place) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            if code.starts_with("//") {
                continue;
            }
            for name in forbidden {
                if code.contains(name) {
                    found.push(format!("{}:{}: {code}", path.display(), number + 1));
                }
            }
        }
    }
    found
}

fn holds(room: &str, forbidden: &[&str]) {
    let found = breaches(room, forbidden);
    assert!(
        found.is_empty(),
        "{room} must not reach {forbidden:?}:\n{}",
        found.join("\n")
    );
}

/// Packages and what each is built with, as cargo resolves them for this system.
#[expect(clippy::disallowed_methods, reason = "cargo knows what we depend on")]
fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The packages of this workspace that `package` is built with, in its own manifest.
fn ours(package: &str) -> Vec<String> {
    let metadata = metadata();
    let mut packages = metadata["packages"].as_array().unwrap().iter();
    let found = packages.find(|found| found["name"] == package).unwrap();
    let all = found["dependencies"].as_array().unwrap().iter();
    // What tests of a room reach is their own affair.
    let built = all.filter(|one| one["kind"] != "dev");
    let names = built.map(|one| one["name"].as_str().unwrap().to_owned());
    names
        .filter(|name| name.starts_with("countersign"))
        .collect()
}

/// Names of everything that ends up in `package`, by whichever way.
fn all_that_is_built_into(package: &str) -> BTreeSet<String> {
    let metadata = metadata();
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| {
            (
                found["id"].as_str().unwrap(),
                found["name"].as_str().unwrap(),
            )
        })
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let is_it = |id: &&str| names[*id] == package;
    let mut left: Vec<&str> = names.keys().copied().filter(is_it).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = left.pop() {
        if !seen.insert(id) {
            continue;
        }
        let uses = nodes[id]["deps"].as_array().unwrap().iter();
        let built = uses.filter(|one| {
            let mut kinds = one["dep_kinds"].as_array().unwrap().iter();
            kinds.any(|kind| kind["kind"] != "dev")
        });
        left.extend(built.map(|one| one["pkg"].as_str().unwrap()));
    }
    seen.into_iter().map(|id| names[id].to_owned()).collect()
}

#[test]
fn protocol_imports_nothing_of_ours_and_names_no_world() {
    holds(
        "protocol/src",
        &[
            "std::",
            "countersign_",
            "tokio",
            "SystemTime",
            "Instant::now",
            "getrandom",
        ],
    );
}

/// What a policy is judged by follows from the log alone: the same answer everywhere and for ever.
#[test]
fn policy_reaches_only_the_protocol_and_names_no_world() {
    holds(
        "policy/src",
        &[
            "countersign_agent",
            "countersign_cli",
            "use countersign::",
            "std::fs",
            "std::env",
            "std::net",
            "std::process",
            "SystemTime",
            "Instant::now",
            "getrandom",
            "tokio",
            "sqlx",
        ],
    );
    assert_eq!(ours("countersign-policy"), ["countersign-protocol"]);
}

#[test]
fn agent_and_cli_reach_only_what_judges_without_a_server() {
    holds(
        "agent/src",
        &[
            "countersign_cli",
            "countersign_policy",
            "cedar",
            "use countersign::",
            "sqlx",
        ],
    );
    holds("cli/src", &["countersign_agent", "use countersign::"]);
    assert_eq!(
        ours("countersign-agent"),
        ["countersign-protocol", "countersign-sealing"]
    );
    let of_cli = ours("countersign-cli");
    assert_eq!(
        of_cli,
        [
            "countersign-policy",
            "countersign-protocol",
            "countersign-sealing",
            "countersign-verifier"
        ]
    );
}

/// Simulated agents are for benches and tests: they are hosts to the server, and nothing that is shipped
/// has them.
#[test]
fn nothing_that_is_shipped_reaches_the_simulator() {
    holds(
        "simulator/src",
        &["use countersign::", "countersign_cli", "sqlx"],
    );
    assert_eq!(
        ours("countersign-simulator"),
        ["countersign-agent", "countersign-protocol"]
    );
    for shipped in [
        "countersign",
        "countersign-agent",
        "countersign-cli",
        "countersign-verifier",
    ] {
        assert!(
            !ours(shipped).contains(&"countersign-simulator".to_owned()),
            "{shipped}"
        );
    }
}

/// What seals and opens gets keys and randomness from its caller, and only client and agent are one.
#[test]
fn sealing_reaches_the_protocol_and_names_no_world() {
    holds(
        "sealing/src",
        &[
            "countersign_cli",
            "countersign_agent",
            "use countersign::",
            "SystemTime",
            "Instant::now",
            "std::fs",
            "std::net",
            "tokio",
            "getrandom",
            "tracing",
        ],
    );
    for room in ["src", "verifier/src", "policy/src", "protocol/src"] {
        holds(room, &["countersign_sealing", "hpke"]);
    }
    assert_eq!(ours("countersign-sealing"), ["countersign-protocol"]);
}

/// Whoever checks a bundle needs no network, no database and no clock, and can read all of it.
#[test]
fn the_verifier_reaches_the_protocol_and_the_policy_and_nobody_else() {
    holds(
        "verifier/src",
        &[
            "countersign_cli",
            "countersign_agent",
            "use countersign::",
            "SystemTime",
            "Instant::now",
            "std::net",
        ],
    );
    let of_verifier = ours("countersign-verifier");
    assert_eq!(of_verifier, ["countersign-policy", "countersign-protocol"]);
    let built = all_that_is_built_into("countersign-verifier");
    for name in ["tokio", "reqwest", "hyper", "rustls", "sqlx", "getrandom"] {
        assert!(!built.contains(name), "{name} is in the verifier");
    }
}

/// A host checks the requirement that the ledger compiled, and reads no policy: neither its binary
/// nor the protocol has a policy language in it, by whichever way.
#[test]
fn no_policy_language_is_in_the_agent() {
    for room in ["countersign-agent", "countersign-protocol"] {
        let built = all_that_is_built_into(room);
        assert!(built.contains("ed25519-dalek"), "{built:?}");
        let language = |name: &&String| name.contains("cedar") || *name == "countersign-policy";
        let found: Vec<_> = built.iter().filter(language).collect();
        assert!(found.is_empty(), "{room}: {found:?}");
    }
    let served = all_that_is_built_into("countersign");
    assert!(served.contains("countersign-policy"));
}

/// The policy language stays in its room: all others know only the judge.
#[test]
fn only_the_policy_room_knows_cedar() {
    for room in ["src", "cli/src", "protocol/src"] {
        holds(room, &["cedar_policy"]);
    }
    for room in ["src/ledger", "src/projections"] {
        holds(room, &["countersign_policy"]);
    }
}

#[test]
fn only_main_and_dev_reach_agent_and_cli() {
    for room in [
        "src/ledger",
        "src/projections",
        "src/http",
        "src/deadlines.rs",
        "src/keys.rs",
        "src/primary.rs",
        "src/server.rs",
        "src/setup.rs",
        "src/telemetry.rs",
        "src/witness",
        "src/cosigned",
        "src/feed",
    ] {
        holds(room, &["countersign_agent", "countersign_cli"]);
    }
}

#[test]
fn the_ledger_knows_no_room_above_it() {
    holds(
        "src/ledger",
        &[
            "crate::http",
            "crate::projections",
            "crate::deadlines",
            "crate::cosigned",
            "crate::feed",
            "crate::dev",
            "axum",
            "reqwest",
        ],
    );
}

/// Who vouches for a ledger does not depend on it: a witness needs no database and no ledger.
#[test]
fn a_witness_knows_no_ledger() {
    holds(
        "src/witness",
        &[
            "crate::ledger",
            "crate::projections",
            "crate::server",
            "crate::cosigned",
            "crate::dev",
            "sqlx",
        ],
    );
}

/// Witnesses are asked beside the ledger: nothing there appends, so nothing there can be waited for.
#[test]
fn what_asks_witnesses_reads_the_ledger_and_nothing_else() {
    holds(
        "src/cosigned",
        &[
            "crate::http",
            "crate::projections",
            "crate::keys",
            "crate::dev",
            ".append(",
            ".enter(",
            "INSERT",
            "UPDATE",
        ],
    );
}

/// Receivers are told beside the ledger: nothing there appends, so nothing there can be waited for.
#[test]
fn what_feeds_the_world_reads_the_store_and_cannot_append() {
    holds(
        "src/feed",
        &[
            "crate::http",
            "crate::projections",
            "crate::server",
            "crate::dev",
            "ledger::Ledger",
            "Ledger,",
            "Submission",
            ".enter(",
            "INSERT INTO entries",
            "INSERT INTO statements",
            "UPDATE head",
        ],
    );
}

#[test]
fn projections_read_the_store_and_nothing_else_of_the_ledger() {
    holds(
        "src/projections",
        &[
            "crate::http",
            "crate::dev",
            "crate::deadlines",
            "ledger::writer",
            "ledger::admission",
            ".append(",
        ],
    );
}

#[test]
fn only_the_ledger_inserts_into_the_log() {
    for room in [
        "src/http",
        "src/projections",
        "src/deadlines.rs",
        "cli/src",
        "agent/src",
    ] {
        holds(
            room,
            &[
                "INSERT INTO entries",
                "INSERT INTO checkpoints",
                "INSERT INTO statements",
                "UPDATE head",
            ],
        );
    }
}

#[test]
fn a_breach_is_seen() {
    let found = breaches("tests/it/architecture.rs", &["fn a_breach_is_seen"]);
    assert!(!found.is_empty());
}
