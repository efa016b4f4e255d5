//! Every dependency may be used: its licence is on the list.

use std::process::Command;

use serde_json::Value;

/// Licences that we take.
const TAKEN: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "MPL-2.0",
];

/// Says whether an SPDX expression leaves us a licence that we take: one of `A OR B`, all of
/// `A AND B`.
fn is_taken(expression: &str) -> bool {
    let expression = expression.replace(['(', ')'], "").replace('/', " OR ");
    expression.split(" AND ").all(|part| {
        part.split(" OR ")
            .any(|licence| TAKEN.contains(&licence.trim()))
    })
}

#[test]
#[expect(clippy::disallowed_methods, reason = "cargo knows what we depend on")]
fn every_dependency_has_a_licence_that_we_take() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        // What is built here; other systems' crates are listed in the lock file only.
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success());
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100);
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(is_taken(licence), "{}: {licence:?}", package["name"]);
    }
}

#[test]
fn a_licence_that_is_not_on_the_list_is_seen() {
    assert!(is_taken("MIT OR GPL-3.0"));
    assert!(!is_taken("GPL-3.0"));
    assert!(!is_taken("MIT AND GPL-3.0"));
    assert!(!is_taken(""));
}
