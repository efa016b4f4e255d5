//! The `countersign-agent` binary: arguments to [`countersign_agent::args::main`], nothing else.

use std::process::ExitCode;

use clap::Parser;
use countersign_agent::args::{self, Args};

/// Runs on this host what its people have signed, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "countersign-agent", version)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    let args = Cli::parse().args;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => ExitCode::from(runtime.block_on(args::main(args))),
        Err(_) => ExitCode::FAILURE,
    }
}
