//! What a running agent is told from outside: stop, stop at once, read the configuration again.
//!
//! It owns which signal says which. It must not carry any of it out.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::manager::Manager;

/// The orders of one agent. Clones hear the same ones.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    /// Take no new work, let what runs go on for the time of `drain_s`, then end it.
    pub stop: CancellationToken,
    /// End what runs now.
    pub at_once: CancellationToken,
    /// Read the configuration again.
    pub reload: Arc<Notify>,
    /// Say now what is said of idle time once in a while: a number that goes up each time.
    pub idle: Arc<watch::Sender<u64>>,
    /// The file to read then; without one a reload does nothing.
    pub file: Option<PathBuf>,
    /// Who is told about it.
    pub manager: Arc<Manager>,
}

impl Orders {
    /// Those that this process gets as signals: TERM and INT stop, a second of them at once; HUP
    /// reads `file` again; USR1 asks for an idle statement.
    ///
    /// # Errors
    /// A signal cannot be listened for.
    pub fn by_signals(file: PathBuf) -> io::Result<Self> {
        let orders = Self {
            file: Some(file),
            manager: Arc::new(Manager::of_process()),
            ..Self::default()
        };
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hup = signal(SignalKind::hangup())?;
        let mut usr1 = signal(SignalKind::user_defined1())?;
        let told = orders.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => told.told_to_stop(),
                    _ = int.recv() => told.told_to_stop(),
                    _ = hup.recv() => told.reload.notify_one(),
                    _ = usr1.recv() => told.ask_for_idle(),
                }
            }
        });
        Ok(orders)
    }

    /// Each key that is served says for how long it has started nothing more.
    pub fn ask_for_idle(&self) {
        self.idle
            .send_modify(|asked| *asked = asked.wrapping_add(1));
    }

    fn told_to_stop(&self) {
        if self.stop.is_cancelled() {
            tracing::info!("told a second time to stop");
            self.at_once.cancel();
        } else {
            tracing::info!("stopping");
            self.stop.cancel();
        }
    }
}

impl From<CancellationToken> for Orders {
    /// Only to stop.
    fn from(stop: CancellationToken) -> Self {
        Self {
            stop,
            ..Self::default()
        }
    }
}
