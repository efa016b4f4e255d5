//! The arrows between rooms hold: a room imports only what it may touch.
//!
//! Reads the sources as text, so an import against an arrow fails here before it grows roots.

use std::fs;
use std::path::{Path, PathBuf};

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

#[test]
fn agent_and_cli_reach_only_the_protocol() {
    holds(
        "agent/src",
        &["countersign_cli", "use countersign::", "sqlx"],
    );
    holds("cli/src", &["countersign_agent", "use countersign::"]);
}

#[test]
fn only_main_and_dev_reach_agent_and_cli() {
    for room in [
        "src/ledger",
        "src/projections",
        "src/http",
        "src/deadlines.rs",
        "src/keys.rs",
        "src/server.rs",
        "src/setup.rs",
        "src/telemetry.rs",
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
            "crate::dev",
            "axum",
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
