//! What this server has seen of agents: who listens for work here, since when, and when each last made
//! a signed-in request.
//!
//! It is in memory, of this server alone and of the time since it started. It must not guess: that an
//! agent does not listen here says nothing about where it is.

use std::collections::BTreeMap;

use countersign_protocol::hash::KeyId;
use countersign_protocol::name::{AgentName, Time};
use tokio::sync::watch;

/// Keys that are remembered, some 10 MiB: with more, those that do not listen are forgotten.
const REMEMBERED: usize = 64 * 1024;

/// Most of what an agent says of its version that is kept.
const MAX_VERSION_BYTES: usize = 64;

/// What was seen of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Streams of work that are open.
    pub streams: usize,
    /// Since when there was always one.
    pub since: Option<Time>,
    /// Its last signed-in request, or the end of its last stream.
    pub last: Option<Time>,
    /// What it says to be, as its `User-Agent` has it.
    pub version: Option<String>,
    /// The size of the newest checkpoint that it is thought to have seen: a proof from there may spare it
    /// a question, and it checks that.
    pub size: Option<u64>,
}

type Agents = BTreeMap<(AgentName, KeyId), Seen>;

/// Which agents this server has seen. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Presence(watch::Sender<Agents>);

/// An agent that listens, until it is dropped.
#[derive(Debug)]
pub(super) struct Present {
    presence: Presence,
    who: (AgentName, KeyId),
    clock: crate::clock::Clock,
}

impl Presence {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Agents::new()))
    }

    /// Waits until an agent listens.
    pub async fn wait_for(&self, agent: &AgentName) {
        // The sender is held here, so the channel cannot close.
        let mut present = self.0.subscribe();
        let listens =
            |((name, _), seen): (&(AgentName, KeyId), &Seen)| name == agent && seen.streams > 0;
        let _open = present
            .wait_for(|present| present.iter().any(listens))
            .await;
    }

    /// What was seen of a key of an agent.
    #[must_use]
    pub fn of(&self, agent: &AgentName, key: &KeyId) -> Option<Seen> {
        self.0.borrow().get(&(agent.clone(), *key)).cloned()
    }

    /// A signed-in request. `version` is what the caller says to be.
    pub(super) fn saw(&self, agent: &AgentName, key: KeyId, now: Time, version: Option<&str>) {
        let version = version.filter(|text| is_plain(text));
        self.0.send_if_modified(|agents| {
            make_room(agents);
            let seen = agents.entry((agent.clone(), key)).or_default();
            seen.last = Some(now);
            if seen.version.as_deref() != version {
                seen.version = version.map(str::to_owned);
            }
            // Nobody waits for that.
            false
        });
    }

    /// An agent has been shown a checkpoint of that size, or says so.
    pub(super) fn has_seen(&self, who: (AgentName, KeyId), size: u64) {
        self.0.send_if_modified(|agents| {
            // Only of one that signed in: others have no grants, and take no room.
            if let Some(seen) = agents.get_mut(&who) {
                seen.size = seen.size.max(Some(size));
            }
            false
        });
    }

    /// Counts an agent's stream until what is returned is dropped.
    pub(super) fn enter(&self, who: (AgentName, KeyId), clock: &crate::clock::Clock) -> Present {
        let now = clock.now();
        self.0.send_modify(|agents| {
            make_room(agents);
            let seen = agents.entry(who.clone()).or_default();
            seen.streams = seen.streams.saturating_add(1);
            seen.since.get_or_insert(now);
            seen.last = Some(now);
        });
        Present {
            presence: self.clone(),
            who,
            clock: clock.clone(),
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let now = self.clock.now();
        self.presence.0.send_if_modified(|agents| {
            if let Some(seen) = agents.get_mut(&self.who) {
                seen.streams = seen.streams.saturating_sub(1);
                seen.last = Some(now);
                if seen.streams == 0 {
                    seen.since = None;
                }
            }
            false
        });
    }
}

fn make_room(agents: &mut Agents) {
    if agents.len() >= REMEMBERED {
        agents.retain(|_, seen| seen.streams > 0);
    }
}

/// Only what a version is written with is kept: it is a stranger's text that people will read.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_' | '/');
    !text.is_empty() && text.len() <= MAX_VERSION_BYTES && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn who(name: &str) -> (AgentName, KeyId) {
        (name.parse().unwrap(), KeyId::new([1; 32]))
    }

    fn seen(presence: &Presence, name: &str) -> Option<Seen> {
        let (agent, key) = who(name);
        presence.of(&agent, &key)
    }

    #[test]
    fn a_stream_counts_until_its_end_and_that_is_remembered() {
        let (presence, clock) = (Presence::new(), Clock::system());
        assert_eq!(seen(&presence, "web-1"), None);
        let first = presence.enter(who("web-1"), &clock);
        let since = seen(&presence, "web-1").unwrap().since;
        let second = presence.enter(who("web-1"), &clock);
        drop(first);
        let still = seen(&presence, "web-1").unwrap();
        assert_eq!((still.streams, still.since), (1, since), "one goes on");
        drop(second);
        let gone = seen(&presence, "web-1").unwrap();
        assert_eq!((gone.streams, gone.since), (0, None));
        assert!(gone.last >= since);
        assert_eq!(seen(&presence, "web-2"), None);
    }

    #[test]
    fn a_version_that_is_no_version_is_not_kept() {
        let presence = Presence::new();
        let (agent, key) = who("web-1");
        let now = Clock::system().now();
        let told = |text: Option<&str>| {
            presence.saw(&agent, key, now, text);
            presence.of(&agent, &key).unwrap().version
        };
        let ours = "countersign-agent/0.1.0";
        assert_eq!(told(Some(ours)).as_deref(), Some(ours));
        assert_eq!(told(Some("\u{1b}[2Jroot")), None);
        assert_eq!(told(Some(&"9".repeat(65))), None);
        assert_eq!(told(None), None);
    }

    #[test]
    fn there_is_room_for_those_who_listen() {
        let (presence, clock) = (Presence::new(), Clock::system());
        let here = presence.enter(who("here"), &clock);
        for n in 0..REMEMBERED {
            let agent = format!("h-{n}").parse().unwrap();
            presence.saw(&agent, KeyId::new([2; 32]), clock.now(), None);
        }
        assert!(presence.0.borrow().len() <= REMEMBERED);
        assert_eq!(seen(&presence, "here").unwrap().streams, 1);
        drop(here);
    }
}
