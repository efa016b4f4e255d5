//! What the service manager is told: `sd_notify`, in the protocol that systemd documents.
//!
//! It owns the socket's address and the words. It must not decide anything, and it never waits: a
//! manager that does not read keeps the agent from nothing. Without `NOTIFY_SOCKET` it is silent.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior};

use crate::clock;

/// How often a word is said to a manager that is busy, with a pause between: some milliseconds in
/// all, since what it is told is worth less than what the agent does.
const TRIES: u32 = 5;

/// That pause.
const PAUSE: Duration = Duration::from_millis(2);

/// The longest that one step of the loop is waited for with signs of life: more than a server takes
/// that answers each question for a proof only at its last moment, or a slow disk to write a full
/// journal anew.
const LONGEST: Duration = Duration::from_secs(300);

/// The manager of this process, or nobody.
#[derive(Debug, Default)]
pub struct Manager {
    address: Option<SocketAddr>,
    watchdog: Option<Duration>,
    /// It was told once that the agent works.
    ready: AtomicBool,
    /// It was told that the agent stops; from then on nothing else is its state.
    stopping: AtomicBool,
    /// What the agent does, as it was told last.
    status: Mutex<String>,
}

impl Manager {
    /// The one that started this process, by `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    ///
    /// The variables stay in this process's environment; commands are given one of their own.
    #[must_use]
    pub fn of_process() -> Self {
        let variable = |name: &str| std::env::var_os(name);
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0);
        match variable("NOTIFY_SOCKET") {
            Some(socket) => Self::at(&socket, watchdog.map(Duration::from_micros)),
            None => Self::default(),
        }
    }

    /// The one that reads from a socket: an absolute path, or `@NAME` for one of the abstract
    /// namespace. `watchdog` is the time within which it wants a sign of life.
    #[must_use]
    pub fn at(socket: &OsStr, watchdog: Option<Duration>) -> Self {
        match address(socket) {
            Ok(address) => Self {
                address: Some(address),
                watchdog,
                ..Self::default()
            },
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET is no socket's address; the service manager is told nothing");
                Self::default()
            }
        }
    }

    /// What the agent is doing, for `systemctl status`. Silent once it stops.
    pub(crate) fn status(&self, status: &str) {
        if !self.stopping.load(Ordering::Relaxed) {
            status.clone_into(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
            self.say(&format!("STATUS={status}"));
        }
    }

    /// It listens for work; the first time, it is ready by that.
    pub(crate) fn listening(&self) {
        self.status("listening for work");
        if !self.stopping.load(Ordering::Relaxed) && !self.ready.swap(true, Ordering::Relaxed) {
            self.say("READY=1");
        }
    }

    /// It reads its configuration again; that it is ready again is said when this is dropped.
    pub(crate) fn reloading(&self) -> Option<Reloading<'_>> {
        // Before it ever was ready, "ready again" would be too early.
        if !self.ready.load(Ordering::Relaxed) || self.stopping.load(Ordering::Relaxed) {
            return None;
        }
        self.say(&format!(
            "RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reading the configuration again",
            clock::monotonic_micros()
        ));
        Some(Reloading(self))
    }

    /// It stops, and this many commands still have to end.
    pub(crate) fn stopping(&self, commands: impl Display) {
        self.stopping.store(true, Ordering::Relaxed);
        self.say(&format!(
            "STOPPING=1\nSTATUS=stopping: {commands} commands end"
        ));
    }

    fn say(&self, words: &str) {
        let Some(address) = &self.address else {
            return;
        };
        if let Err(error) = send(address, words.as_bytes()) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

/// A reload under way; its end is told whatever it came to.
#[must_use]
pub(crate) struct Reloading<'a>(&'a Manager);

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        let status = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.say(&format!("READY=1\nSTATUS={status}"));
    }
}

/// Signs of life. Held by the loop that must not hang, and given by nothing else.
pub(crate) struct Pulse {
    manager: Arc<Manager>,
    interval: Option<Interval>,
}

impl Pulse {
    /// Twice in the time that the manager allows; needs a runtime.
    ///
    /// Each loop has its own, and the manager cannot tell them apart: while a host serves two keys, a
    /// hang of one loop is hidden by the other's signs of life.
    pub(crate) fn new(manager: Arc<Manager>) -> Self {
        let period = manager.watchdog.filter(|_| manager.address.is_some());
        let interval = period.map(|period| {
            let mut interval = tokio::time::interval((period / 2).max(PAUSE));
            interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
            interval
        });
        Self { manager, interval }
    }

    /// Waits for the next sign of life and gives it; for ever when nobody asks for any. May be
    /// dropped at any point.
    pub(crate) async fn beat(&mut self) {
        match &mut self.interval {
            Some(interval) => {
                interval.tick().await;
                self.manager.say("WATCHDOG=1");
            }
            None => std::future::pending().await,
        }
    }
}

impl Pulse {
    /// Waits for something of the loop's own, with signs of life for as long as it may reasonably
    /// take: after that it is a hang, for the manager to see.
    pub(crate) async fn during<T>(&mut self, something: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let mut something = pin!(something);
        loop {
            tokio::select! {
                biased;
                done = &mut something => return done,
                () = self.beat(), if begun.elapsed() < LONGEST => {}
            }
        }
    }
}

fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(OsString::from(socket)),
        _other => Err(io::Error::other(
            "it begins neither with / nor with @, and no other kind is spoken here",
        )),
    }
}

/// A socket for each word: the manager may have been started anew between two.
fn send(address: &SocketAddr, words: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    for _ in 1..TRIES {
        match socket.send_to_addr(words, address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            sent => return sent.map(drop),
        }
    }
    socket.send_to_addr(words, address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager's end: its socket, and what it heard so far.
    struct Ear(UnixDatagram);

    impl Ear {
        fn heard(&self) -> Option<String> {
            let mut bytes = [0; 512];
            let length = self.0.recv(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
        }
    }

    fn listening(socket: &OsStr, watchdog: Option<Duration>) -> (Ear, Manager) {
        let ear = UnixDatagram::bind_addr(&address(socket).unwrap()).unwrap();
        ear.set_nonblocking(true).unwrap();
        (Ear(ear), Manager::at(socket, watchdog))
    }

    #[test]
    fn a_manager_hears_the_story_on_a_socket_with_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let (ear, manager) = listening(folder.path().join("notify").as_os_str(), None);
        manager.status("waiting to be accepted");
        assert!(manager.reloading().is_none());
        manager.listening();
        manager.listening();
        drop(manager.reloading());
        manager.stopping(2);
        manager.listening();
        let said: Vec<String> = std::iter::from_fn(|| ear.heard()).collect();
        assert_eq!(said[0], "STATUS=waiting to be accepted");
        assert_eq!(said[1], "STATUS=listening for work");
        // Ready once, and not again by a second connection.
        assert_eq!(said[2..4], ["READY=1", "STATUS=listening for work"]);
        let time = said[4]
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .and_then(|rest| rest.split('\n').next());
        assert!(time.unwrap().parse::<u64>().unwrap() > 0, "{}", said[4]);
        assert_eq!(said[5], "READY=1\nSTATUS=listening for work");
        assert_eq!(said[6], "STOPPING=1\nSTATUS=stopping: 2 commands end");
        assert_eq!(said.len(), 7);
    }

    #[test]
    fn a_manager_hears_on_an_abstract_socket() {
        let name = format!("@countersign-notify-{}", std::process::id());
        let (ear, manager) = listening(OsStr::new(&name), None);
        manager.listening();
        assert_eq!(ear.heard().as_deref(), Some("STATUS=listening for work"));
    }

    #[test]
    fn a_manager_that_never_reads_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let (_deaf, manager) = listening(folder.path().join("notify").as_os_str(), None);
        let begun = Instant::now();
        for _ in 0..100 {
            manager.status("on and on");
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_manager_that_is_gone_or_none_is_passed_over() {
        Manager::default().listening();
        Manager::at(OsStr::new("/nowhere/notify"), None).listening();
        assert!(Manager::at(OsStr::new("vsock:2:1"), None).address.is_none());
    }

    #[tokio::test]
    async fn signs_of_life_come_twice_in_the_time_allowed_and_only_when_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let (ear, manager) = listening(path.as_os_str(), Some(Duration::from_millis(200)));
        let mut pulse = Pulse::new(Arc::new(manager));
        let begun = Instant::now();
        for _ in 0..3 {
            pulse.beat().await;
            assert_eq!(ear.heard().as_deref(), Some("WATCHDOG=1"));
        }
        // The first comes at once.
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(190), "{took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        let mut silent = Pulse::new(Arc::new(Manager::at(path.as_os_str(), None)));
        let waited = tokio::time::timeout(Duration::from_millis(50), silent.beat()).await;
        assert!(waited.is_err());
        // While the loop waits for something of its own, too.
        while ear.heard().is_some() {}
        let slow = tokio::time::sleep(Duration::from_millis(350));
        pulse.during(slow).await;
        let said: Vec<String> = std::iter::from_fn(|| ear.heard()).collect();
        assert!(said.len() >= 3, "{said:?}");
    }
}
