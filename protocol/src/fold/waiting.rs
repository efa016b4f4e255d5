//! What each person has waiting for others: bounded, because whoever writes the log or follows it holds
//! all of it in memory, and reads it back at each start.
//!
//! Counted from what was signed, so it is the same whether the documents are at hand or not. Whoever
//! holds fewer commands counts fewer; what the ledger let pass, everybody does.

use alloc::collections::BTreeMap;

use crate::hash::CommandId;
use crate::lifecycle::Command;
use crate::name::Principal;
use crate::refusal::{Refusal, require};

/// Most requests of one person, and of the API tokens in their name, that wait at once. Nobody looks at
/// more.
pub(super) const MAX_REQUESTS: usize = 1000;

/// Most hosts of all of them together. Each takes about a KiB in memory.
pub(super) const MAX_HOSTS: u64 = 200_000;

/// Most bytes of the documents that say what they would run.
pub(super) const MAX_SPEC_BYTES: u64 = 64 * 1024 * 1024;

/// What one request adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weight {
    hosts: u64,
    spec_bytes: u64,
}

impl Weight {
    const fn of(command: &Command) -> Self {
        Self {
            hosts: command.act().targets.count,
            spec_bytes: command.act().spec.len,
        }
    }
}

/// The requests that wait, by who asked for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting(BTreeMap<Principal, BTreeMap<CommandId, Weight>>);

impl Waiting {
    /// Whether one more may wait.
    pub(super) fn has_room_for(&self, command: &Command) -> Result<(), Refusal> {
        let is_room = self.has_room(command.requester(), Weight::of(command));
        require(is_room, Refusal::TooManyWaiting)
    }

    fn has_room(&self, who: &Principal, more: Weight) -> bool {
        let own = self.0.get(who);
        let own = || own.into_iter().flat_map(BTreeMap::values);
        let hosts = own().map(|weight| weight.hosts).sum::<u64>();
        let spec_bytes = own().map(|weight| weight.spec_bytes).sum::<u64>();
        own().count() < MAX_REQUESTS
            && hosts.saturating_add(more.hosts) <= MAX_HOSTS
            && spec_bytes.saturating_add(more.spec_bytes) <= MAX_SPEC_BYTES
    }

    pub(super) fn insert(&mut self, command: &Command) {
        let own = self.0.entry(command.requester().clone()).or_default();
        own.insert(command.id, Weight::of(command));
    }

    pub(super) fn remove(&mut self, command: &Command) {
        let Some(own) = self.0.get_mut(command.requester()) else {
            return;
        };
        own.remove(&command.id);
        if own.is_empty() {
            self.0.remove(command.requester());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_words_that_wait_have_a_bound_for_each_person() {
        assert_eq!((MAX_HOSTS, MAX_SPEC_BYTES), (200_000, 67_108_864));
        let (alice, bob): (Principal, Principal) =
            ("alice".parse().unwrap(), "bob".parse().unwrap());
        let weight = |hosts, spec_bytes| Weight { hosts, spec_bytes };
        let mut waiting = Waiting::default();
        let first = [(CommandId::new([1; 32]), weight(150_000, 60 << 20))];
        waiting.0.insert(alice.clone(), first.into());
        assert!(waiting.has_room(&alice, weight(50_000, 4 << 20)));
        assert!(!waiting.has_room(&alice, weight(50_001, 0)));
        assert!(!waiting.has_room(&alice, weight(1, (4 << 20) + 1)));
        assert!(!waiting.has_room(&alice, weight(u64::MAX, 0)));
        assert!(waiting.has_room(&bob, weight(200_000, 64 << 20)));
    }
}
