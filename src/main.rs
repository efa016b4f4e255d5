//! The `countersign` binary: subcommands to rooms, nothing else.

mod arguments;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    ExitCode::from(match arguments::Arguments::try_parse() {
        Ok(arguments) => verbs::run(arguments),
        Err(error) => countersign_cli::report_usage(std::env::args_os(), &error),
    })
}
