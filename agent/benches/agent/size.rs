//! The binary: its size, and what it asks of a machine.

use std::fs;
use std::process::Command;

use crate::AGENT;

/// Prints the part.
pub(crate) fn print() {
    println!("\n(d) the binary countersign-agent, as `cargo build --release` leaves it");
    let mib = |path: &std::path::Path| {
        let bytes = u32::try_from(fs::metadata(path).unwrap().len()).unwrap();
        f64::from(bytes) / 1_048_576.0
    };
    println!("{:<46} {:>8.2} MiB", "as built", mib(AGENT.as_ref()));
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("stripped");
    fs::copy(AGENT, &copy).unwrap();
    match Command::new("strip").arg(&copy).status() {
        Ok(status) if status.success() => println!("{:<46} {:>8.2} MiB", "stripped", mib(&copy)),
        _other => println!("no `strip` on this machine"),
    }
    let listed = Command::new("ldd").arg(AGENT).output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_else(|error| format!("ldd: {error}"));
    let names = text
        .lines()
        .map(|line| line.split_whitespace().next().unwrap_or_default());
    println!("needs: {}", names.collect::<Vec<_>>().join(", "));
}
