//! What the process says about itself: logs for people or for machines, on stderr.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// What is logged unless `COUNTERSIGN_LOG` says otherwise; the database driver repeats its notices at
/// every start.
const QUIET: &str = "sqlx=warn";

/// Starts logging, by the filter of `COUNTERSIGN_LOG` or `default`. The first call counts.
pub fn start(format: Format, default: &str) {
    let filter = EnvFilter::try_from_env("COUNTERSIGN_LOG")
        .or_else(|_| EnvFilter::try_new(format!("{default},{QUIET}")))
        .unwrap_or_default();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let started = match format {
        Format::Human => builder.with_target(false).try_init(),
        Format::Json => builder.json().try_init(),
    };
    // A second call, as in tests, keeps what the first set.
    drop(started);
}
