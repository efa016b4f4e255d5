//! Wakes the agents that listen at this server when there is something for them, and nobody else: a
//! step of the rows that concerns one host must not make ten thousand others ask the database.
//!
//! It owns who listens and which commands each was called for. It must not know what is told of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_protocol::hash::{CommandId, KeyId};
use countersign_protocol::name::AgentName;
use countersign_protocol::rights::Rights;
use tokio::sync::Notify;

/// Commands that one listener was called for and has not looked at: with more it looks at all that is
/// open, as one that has just come does.
const MOST_CALLS: usize = 64;

/// What a listener was called for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Calls {
    /// These commands may be others in a log of at least so many entries.
    Commands(BTreeMap<CommandId, u64>),
    /// Anything may.
    All,
}

#[derive(Debug, Default)]
struct Called {
    commands: BTreeMap<CommandId, u64>,
    all: bool,
}

#[derive(Debug)]
struct Line {
    key: KeyId,
    called: Mutex<Called>,
    wake: Notify,
}

type Lines = HashMap<AgentName, Vec<Arc<Line>>>;

/// The listeners of a server. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Mutex<Lines>>);

/// One listener, until it is dropped.
#[derive(Debug)]
pub struct Ear {
    agent: AgentName,
    line: Arc<Line>,
    bell: Bell,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn call(&self, command: Option<(CommandId, u64)>) {
        let mut called = held(&self.called);
        match command {
            Some((command, size)) if called.commands.len() < MOST_CALLS => {
                called.commands.insert(command, size);
            }
            Some(_) | None => called.all = true,
        }
        drop(called);
        self.wake.notify_one();
    }
}

impl Bell {
    /// Listens as an agent with one of its keys. What happens from now on is heard.
    #[must_use]
    pub fn listen(&self, agent: AgentName, key: KeyId) -> Ear {
        let line = Arc::new(Line {
            key,
            called: Mutex::default(),
            wake: Notify::new(),
        });
        let mut lines = held(&self.0);
        lines
            .entry(agent.clone())
            .or_default()
            .push(Arc::clone(&line));
        drop(lines);
        Ear {
            agent,
            line,
            bell: self.clone(),
        }
    }

    /// A command may be another for these hosts in a log of that size.
    pub(super) fn ring<'a>(
        &self,
        command: (CommandId, u64),
        hosts: impl IntoIterator<Item = &'a AgentName>,
    ) {
        let lines = held(&self.0);
        for host in hosts {
            for line in lines.get(host).into_iter().flatten() {
                line.call(Some(command));
            }
        }
    }

    /// Whose key is in force no more hears of it.
    pub(super) fn ring_the_revoked(&self, rights: &Rights) {
        let lines = held(&self.0);
        for line in lines.values().flatten() {
            let record = rights.key(&line.key);
            if record.is_none_or(|record| record.revoked.is_some()) {
                line.call(None);
            }
        }
    }

    /// Nobody knows what has changed.
    pub(super) fn ring_all(&self) {
        for line in held(&self.0).values().flatten() {
            line.call(None);
        }
    }
}

impl Ear {
    /// Waits until it is called, and gives for what. May be dropped and called again without losing
    /// anything.
    pub async fn heard(&self) -> Calls {
        loop {
            self.line.wake.notified().await;
            let called = std::mem::take(&mut *held(&self.line.called));
            if called.all {
                return Calls::All;
            }
            if !called.commands.is_empty() {
                return Calls::Commands(called.commands);
            }
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut lines = held(&self.bell.0);
        if let Some(of_agent) = lines.get_mut(&self.agent) {
            of_agent.retain(|line| !Arc::ptr_eq(line, &self.line));
            if of_agent.is_empty() {
                lines.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ear(bell: &Bell, name: &str, key: u8) -> Ear {
        bell.listen(name.parse().unwrap(), KeyId::new([key; 32]))
    }

    async fn is_silent(ear: &Ear) -> bool {
        let heard = tokio::time::timeout(Duration::from_millis(5), ear.heard());
        heard.await.is_err()
    }

    #[tokio::test]
    async fn only_whom_it_concerns_is_woken_with_each_of_its_keys() {
        let bell = Bell::default();
        let (one, other) = (ear(&bell, "web-1", 1), ear(&bell, "web-2", 2));
        let next_key = ear(&bell, "web-1", 3);
        let command = CommandId::new([9; 32]);
        bell.ring((command, 7), [&"web-1".parse().unwrap()]);
        let calls = Calls::Commands([(command, 7)].into());
        assert_eq!(one.heard().await, calls);
        assert_eq!(next_key.heard().await, calls);
        assert!(is_silent(&other).await);
        assert!(is_silent(&one).await, "it is told once");
    }

    #[tokio::test]
    async fn a_call_before_the_wait_is_not_lost_and_many_become_all() {
        let bell = Bell::default();
        let one = ear(&bell, "web-1", 1);
        for n in 0..100 {
            bell.ring((CommandId::new([n; 32]), 7), [&"web-1".parse().unwrap()]);
        }
        assert_eq!(one.heard().await, Calls::All);
        assert!(is_silent(&one).await);
    }

    #[tokio::test]
    async fn who_left_takes_no_room() {
        let bell = Bell::default();
        drop(ear(&bell, "web-1", 1));
        assert!(held(&bell.0).is_empty());
        let still = ear(&bell, "web-1", 1);
        bell.ring_all();
        assert_eq!(still.heard().await, Calls::All);
        bell.ring_the_revoked(&Rights::default());
        assert_eq!(still.heard().await, Calls::All, "a key that nobody knows");
    }
}
