//! `countersign dev`: what demo does, staying up.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use countersign_cli::render;
use countersign_protocol::origin::ServerOrigin;
use countersign_protocol::policy::Policy;
use tokio_util::sync::CancellationToken;

use super::home::{self, Home};
use super::station::{DevError, Station, Wanted};

/// The origin line of dev's checkpoints.
const ORIGIN: &str = "countersign.local/dev";

/// It ended as it was asked to.
const DONE: u8 = 0;

/// It did not come up.
const FAILED: u8 = 1;

/// The database contradicts what was committed.
const TAMPERING: u8 = 3;

/// Where to stay up.
#[derive(Debug, Clone)]
pub struct Develop {
    /// The folder; the same one each time when left out.
    pub data: Option<PathBuf>,
    /// Where the server listens: on loopback.
    pub listen: SocketAddr,
    /// Other addresses at which clients meet it.
    pub public_urls: Vec<ServerOrigin>,
    /// Published instead of dev's own policy.
    pub policy: Option<Policy>,
}

/// Stays up until it is told to stop; prints `ready` on stdout once all of it works.
pub async fn develop(options: Develop, shutdown: CancellationToken) -> u8 {
    match stay(options, &shutdown).await {
        Ok(()) | Err(DevError::Stopped) => DONE,
        Err(error) => {
            let _gone = writeln!(io::stderr(), "error: {}", render::line(&error.to_string()));
            if error.is_evidence() {
                TAMPERING
            } else {
                FAILED
            }
        }
    }
}

async fn stay(options: Develop, shutdown: &CancellationToken) -> Result<(), DevError> {
    let folder = options
        .data
        .unwrap_or_else(|| home::data_home().join("dev"));
    let home = Home::open(&folder)?;
    // Of a run before; whoever waits for the file must not read that one.
    match std::fs::remove_file(home.env()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let origin = ORIGIN.parse().map_err(|_| DevError::Name)?;
    let wanted = Wanted {
        listen: options.listen,
        public_urls: options.public_urls,
        origin,
        policy: options.policy,
    };
    let starting = Station::start(home, wanted, shutdown.clone());
    let station = tokio::select! {
        started = starting => started?,
        () = shutdown.cancelled() => return Err(DevError::Stopped),
    };
    let told = station.write_environment().and_then(|()| welcome(&station));
    if told.is_ok() {
        shutdown.cancelled().await;
    }
    station.stop().await;
    told
}

fn welcome(station: &Station) -> Result<(), DevError> {
    let (env, keys) = (station.home.env(), station.home.keys());
    let program = std::env::current_exe()?;
    writeln!(
        io::stderr(),
        "countersign dev at {server}, ledger {ledger}\n\n\
         In another terminal:\n    . {env}\n    \
         COUNTERSIGN_KEY={keys}/alice {program} selfcheck\n    \
         COUNTERSIGN_KEY={keys}/alice {program} request --on local --reason 'a first try' -- uname -a\n    \
         COUNTERSIGN_KEY={keys}/bob   {program} approve ID\n    \
         COUNTERSIGN_KEY={keys}/carol {program} approve ID\n    \
         COUNTERSIGN_KEY={keys}/alice {program} show ID\n\nINT (^C) stops everything; the data stays.\n",
        program = program.display(),
        server = station.server(),
        ledger = station.ledger(),
        env = env.display(),
        keys = keys.display(),
    )?;
    let mut out = io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()?;
    Ok(())
}
