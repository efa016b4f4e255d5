//! Every fuzz target over its committed seeds and over a bounded number of mutations of them, the
//! same ones every time. On stable, as a part of `cargo test --workspace`.
//!
//! `write_the_seeds` makes the seeds from a ledger in memory and the golden vectors.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report"
)]

use std::any::Any;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use countersign_fuzz_bodies::{TARGETS, Target};

#[macro_use]
#[expect(dead_code, reason = "the agent's tests use the rest of it")]
mod support;

mod mutate;
mod write;

/// Mutations of all seeds of one target together: some seconds for all targets.
const MUTATIONS: u64 = 600;

/// What the repository holds of seeds: files, and bytes of all of them.
const MOST_SEEDS: (usize, u64) = (220, 300 << 10);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds")
}

/// Name and content of a target's seeds, sorted.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder().join(target)).unwrap();
    let mut seeds: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    seeds.sort();
    seeds
}

/// Runs one input; the panic's words when a promise is broken.
fn broken((_, target): Target, input: &[u8]) -> Option<String> {
    let told = |panic: Box<dyn Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic
            .downcast_ref::<&str>()
            .map_or("?", |text| text)
            .to_owned(),
    };
    panic::catch_unwind(AssertUnwindSafe(|| target(input)))
        .err()
        .map(told)
}

fn run(target: Target) {
    let (name, _) = target;
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no seed");
    for (file, seed) in &seeds {
        if let Some(why) = broken(target, seed) {
            panic!("{name}: the seed {file}: {why}");
        }
    }
    for number in 0..MUTATIONS {
        let input = mutate::mutation(name, number, &seeds);
        if let Some(why) = broken(target, &input) {
            let path = std::env::temp_dir().join(format!("countersign-fuzz-{name}-{number}"));
            fs::write(&path, input).unwrap();
            panic!(
                "{name}: mutation {number}, kept as {}: {why}",
                path.display()
            );
        }
    }
}

macro_rules! holds {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let wanted = stringify!($name).strip_suffix("_holds").unwrap();
                let found = TARGETS.iter().find(|(name, _)| *name == wanted);
                run(*found.unwrap());
            }
        )*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

holds! {
    add_checkpoint_holds answers_holds bundle_holds change_holds config_holds cosigned_note_holds
    documents_holds entry_holds events_holds grant_holds journal_holds key_file_holds keys_holds
    note_holds patterns_holds payload_holds proofs_holds records_holds requirement_holds rules_holds
    secrets_holds signers_holds sshsig_holds thief_holds tile_place_holds tlog_proof_holds witness_policy_holds
}

#[test]
fn every_target_has_a_test_a_file_for_the_fuzzer_and_a_line_in_its_manifest() {
    let names: Vec<_> = TARGETS
        .iter()
        .map(|(name, _)| format!("{name}_holds"))
        .collect();
    assert_eq!(names, TESTED);
    let manifest = fs::read_to_string(folder().join("../Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        let path = folder().join(format!("../fuzz_targets/{name}.rs"));
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(&format!("countersign_fuzz_bodies::{name}(data)")));
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
    }
}

#[test]
fn the_seeds_are_few_and_small() {
    let (mut files, mut bytes) = (0, 0);
    for (name, _) in TARGETS {
        for (_, seed) in seeds(name) {
            files += 1;
            bytes += u64::try_from(seed.len()).unwrap();
        }
    }
    assert!(
        files <= MOST_SEEDS.0 && bytes <= MOST_SEEDS.1,
        "{files} files, {bytes} bytes"
    );
}
