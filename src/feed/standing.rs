//! What operators see of the feed: for each sink what it does, how far it is and what went wrong.
//!
//! It holds words and numbers, never addresses or what receivers say.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::config::SinkName;

/// What a sink does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has not begun.
    Starting,
    /// Another server feeds it.
    Standby,
    /// Messages go out.
    Feeding,
    /// Something is wrong, and it tries again.
    Retrying,
    /// Its receiver wants no more, until a server is started anew.
    Disabled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Standby,
        Self::Feeding,
        Self::Retrying,
        Self::Disabled,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Feeding => "feeding",
            Self::Retrying => "retrying",
            Self::Disabled => "disabled",
        }
    }
}

/// One sink, as it is.
#[derive(Debug, Clone)]
pub struct SinkReport {
    /// Its name.
    pub name: SinkName,
    /// What it does.
    pub state: State,
    /// The first entry that was not delivered; none where this server does not feed it.
    pub next: Option<u64>,
    /// Messages that this server delivered.
    pub delivered: u64,
    /// What went wrong, and how often.
    pub failures: BTreeMap<&'static str, u64>,
    /// What is wrong now.
    pub error: Option<&'static str>,
}

/// All sinks of a server.
#[derive(Debug)]
pub struct Standing(Mutex<Vec<SinkReport>>);

impl Standing {
    pub(super) fn new(names: impl Iterator<Item = SinkName>) -> Self {
        let reports = names.map(|name| SinkReport {
            name,
            state: State::Starting,
            next: None,
            delivered: 0,
            failures: BTreeMap::new(),
            error: None,
        });
        Self(Mutex::new(reports.collect()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SinkReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All sinks, in the order of the file.
    #[must_use]
    pub fn reports(&self) -> Vec<SinkReport> {
        self.lock().clone()
    }

    fn with(&self, name: &SinkName, change: impl FnOnce(&mut SinkReport)) {
        if let Some(report) = self.lock().iter_mut().find(|report| report.name == *name) {
            change(report);
        }
    }

    pub(super) fn standby(&self, name: &SinkName) {
        self.with(name, |report| {
            (report.state, report.next, report.error) = (State::Standby, None, None);
        });
    }

    /// It is fed here, up to `next`, after so many more deliveries.
    pub(super) fn feeding(&self, name: &SinkName, next: u64, delivered: u64) {
        self.with(name, |report| {
            (report.state, report.next, report.error) = (State::Feeding, Some(next), None);
            report.delivered += delivered;
        });
    }

    pub(super) fn trouble(&self, name: &SinkName, kind: &'static str, is_over: bool) {
        self.with(name, |report| {
            report.state = if is_over {
                State::Disabled
            } else {
                State::Retrying
            };
            report.error = Some(kind);
            *report.failures.entry(kind).or_default() += 1;
        });
    }
}
