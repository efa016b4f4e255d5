//! What does the agent cost its host: on disk, at rest, at each start of a command, for each byte?
//!
//! Real things, each beside what it cannot beat, measured in the same run. `cargo bench -p
//! countersign-agent -- NAME` takes one part: `size`, `idle`, `start` or `output`. `idle` needs the
//! server's binary beside the agent's (`cargo build --release`) and Postgres, as `countersign dev` does.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, prints, and starts what it measures"
)]

mod idle;
mod measure;
mod output;
mod size;
mod start;

/// The binary that is shipped.
const AGENT: &str = env!("CARGO_BIN_EXE_countersign-agent");

/// A part's name and what measures and prints it.
type Part = (&'static str, fn());

const PARTS: [Part; 4] = [
    ("size", size::print),
    ("idle", idle::print),
    ("start", start::print),
    ("output", output::print),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` starts this, too, and does not want to wait.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let wanted: Vec<_> = arguments
        .iter()
        .filter(|name| !name.starts_with('-'))
        .collect();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{cores} cores, load before: {}",
        load.split(' ').next().unwrap_or_default()
    );
    for (name, print) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| *wanted == name) {
            print();
        }
    }
}
