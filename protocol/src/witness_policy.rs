//! Whose cosignatures make a checkpoint believed: C2SP tlog-policy. PROTOCOL 4.
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> <k|any|all> <member> …
//! quorum <name|none>
//! ```
//!
//! It owns the text form and the counting. It must not fetch anything, nor read a clock.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::str::FromStr;

use crate::checkpoint::{Checkpoint, CheckpointError, VerifierKey};
use crate::cosignature::{Cosignature, WitnessKey};
use crate::name::{MAX_NAME_BYTES, SECOND_US, Time};
use crate::witness::parse_size;

/// Largest policy in bytes: 96 lines of the longest names and addresses are fewer.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;

/// Most logs, as many as the format asks a reader to take.
pub const MAX_LOGS: usize = 32;

/// Most witnesses, as many as the format asks a reader to take; all their lines fit into a note.
pub const MAX_WITNESSES: usize = 32;

/// Most groups, as many as the format asks a reader to take, and so the deepest nesting.
pub const MAX_GROUPS: usize = 32;

/// Longest address in bytes, as servers and clients commonly take.
const MAX_URL_BYTES: usize = 2048;

/// How old a cosignature may be that clients and hosts rely on, in seconds: an idle ledger has a new
/// checkpoint each minute, and witnesses may be away for some of them.
pub const YOUNG_S: u64 = 10 * 60;

/// How far a witness's clock may be ahead of whoever relies on it, in seconds.
const AHEAD_S: u64 = 2 * 60;

/// The quorum that asks for nobody; no name of a witness or group.
const NONE: &str = "none";

/// A log whose checkpoints the policy is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyLog {
    /// Its key, under its origin.
    pub key: VerifierKey,
    /// Where it is met, if the policy says so.
    pub url: Option<String>,
}

/// A witness whose word may count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// What the policy calls it; nothing outside of it.
    pub name: String,
    /// Its key, under the name in its signature lines.
    pub key: WitnessKey,
    /// Before which `/add-checkpoint` is, if the policy says so.
    pub url: Option<String>,
}

/// Which witnesses there are, and which of them are enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessPolicy {
    logs: Vec<PolicyLog>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    /// None for a policy that asks for nobody.
    quorum: Option<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    threshold: usize,
    /// Each is a witness, or a group that stands before this one.
    members: Vec<Member>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Witness(usize),
    Group(usize),
}

/// Why text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Larger than any.
    #[error("the witness policy is larger than any")]
    TooLarge,
    /// A line does not stand.
    #[error("line {line} of the witness policy: {reason}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// The last line has no end: the file may have been cut.
    #[error("the last line of the witness policy has no end")]
    Unfinished,
    /// No quorum.
    #[error("the witness policy has no quorum line; `quorum none` asks for nobody")]
    NoQuorum,
}

/// Why a checkpoint is not believed under a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// A known witness's line fails.
    #[error("a cosignature by a witness of the policy does not hold: {0}")]
    Note(#[from] CheckpointError),
    /// Too few.
    #[error("the checkpoint of {size} entries has no quorum of witnesses: {} of {of} have signed it in time", .signed.len())]
    NotMet {
        /// Its size.
        size: u64,
        /// Names of those that have, in the time that counts.
        signed: Vec<String>,
        /// How many there are.
        of: usize,
    },
}

impl WitnessPolicy {
    /// The logs it is about; none when that is known from elsewhere.
    #[must_use]
    pub fn logs(&self) -> &[PolicyLog] {
        &self.logs
    }

    /// Its witnesses, in the order of their lines. Sets of them hold places in this list.
    #[must_use]
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// Says whether it is about this log: it is named, or no log is.
    #[must_use]
    pub fn is_about(&self, log: &VerifierKey) -> bool {
        self.logs.is_empty() || self.logs.iter().any(|known| known.key == *log)
    }

    /// Says whether these witnesses are enough.
    #[must_use]
    pub fn is_met(&self, signed: &BTreeSet<usize>) -> bool {
        // Members stand before their group, so one pass is enough and nothing nests on the stack.
        let mut met: Vec<bool> = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let members = group.members.iter();
            let count = members.filter(|one| has(**one, signed, &met)).count();
            met.push(count >= group.threshold);
        }
        self.quorum.is_none_or(|one| has(one, signed, &met))
    }

    /// Each witness's newest cosignature on a checkpoint, in the order of [`Self::witnesses`].
    ///
    /// # Errors
    /// A line by one of them that fails.
    pub fn cosignatures(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<Vec<Option<Cosignature>>, CheckpointError> {
        let find = |witness: &Witness| {
            witness
                .key
                .find(checkpoint.body(), checkpoint.signature_lines())
        };
        self.witnesses.iter().map(find).collect()
    }

    /// Checks that enough witnesses have signed a checkpoint at a time that counts, in seconds
    /// since the Unix epoch. Whether the log is the right one was checked when it was opened.
    ///
    /// # Errors
    /// See [`QuorumError`].
    pub fn check(
        &self,
        checkpoint: &Checkpoint,
        counts: impl Fn(u64) -> bool,
    ) -> Result<(), QuorumError> {
        let found = self.cosignatures(checkpoint)?;
        let signed: BTreeSet<usize> = found
            .iter()
            .enumerate()
            .filter(|(_, one)| one.as_ref().is_some_and(|one| counts(one.seconds())))
            .map(|(place, _)| place)
            .collect();
        if self.is_met(&signed) {
            return Ok(());
        }
        let names = self.witnesses.iter().enumerate();
        let names = names.filter(|(place, _)| signed.contains(place));
        Err(QuorumError::NotMet {
            size: checkpoint.size(),
            signed: names.map(|(_, witness)| witness.name.clone()).collect(),
            of: self.witnesses.len(),
        })
    }
}

/// Says whether a cosignature of that second counts at this time.
#[must_use]
pub const fn is_young(seconds: u64, now: Time) -> bool {
    let now = now.as_micros() / SECOND_US;
    seconds <= now + AHEAD_S && seconds.saturating_add(YOUNG_S) >= now
}

fn has(member: Member, signed: &BTreeSet<usize>, groups: &[bool]) -> bool {
    match member {
        Member::Witness(place) => signed.contains(&place),
        Member::Group(place) => groups.get(place).copied().unwrap_or(false),
    }
}

impl FromStr for WitnessPolicy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLarge);
        }
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(PolicyError::Unfinished);
        }
        let mut reader = Reader::default();
        for (line, text) in (1..).zip(text.split_terminator('\n')) {
            let read = reader.line(text);
            read.map_err(|reason| PolicyError::Line { line, reason })?;
        }
        Ok(Self {
            logs: reader.logs,
            witnesses: reader.witnesses,
            groups: reader.groups,
            quorum: reader.quorum.ok_or(PolicyError::NoQuorum)?,
        })
    }
}

/// What the lines so far have said.
#[derive(Default)]
struct Reader {
    logs: Vec<PolicyLog>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    /// Witnesses and groups share one space of names.
    names: BTreeMap<String, Member>,
    /// Those that are of a group already: each counts in one way only.
    placed: BTreeSet<String>,
    quorum: Option<Option<Member>>,
}

impl Reader {
    fn line(&mut self, text: &str) -> Result<(), String> {
        let is_control = |c: char| c.is_ascii_control() && c != '\t';
        if text.chars().any(is_control) {
            return Err("a control character".to_owned());
        }
        let words: Vec<&str> = text
            .split([' ', '\t'])
            .filter(|word| !word.is_empty())
            .collect();
        match words.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            ["log", key] => self.log(key, None),
            ["log", key, url] => self.log(key, Some(url)),
            ["witness", name, key] => self.witness(name, key, None),
            ["witness", name, key, url] => self.witness(name, key, Some(url)),
            ["group", name, threshold, members @ ..] => self.group(name, threshold, members),
            ["quorum", name] => self.set_quorum(name),
            _other => Err(
                "expected `log VKEY [URL]`, `witness NAME VKEY [URL]`, `group NAME K|any|all MEMBER…` or `quorum NAME|none`"
                    .to_owned(),
            ),
        }
    }

    fn log(&mut self, key: &str, url: Option<&str>) -> Result<(), String> {
        let key: VerifierKey = key.parse().map_err(|error| format!("{error}"))?;
        if self.logs.len() >= MAX_LOGS {
            return Err(format!("more than {MAX_LOGS} logs"));
        }
        if self.logs.iter().any(|known| known.key.key() == key.key()) {
            return Err("this log's key stands on an earlier line".to_owned());
        }
        let url = url.map(checked_url).transpose()?;
        self.logs.push(PolicyLog { key, url });
        Ok(())
    }

    fn witness(&mut self, name: &str, key: &str, url: Option<&str>) -> Result<(), String> {
        let key: WitnessKey = key.parse().map_err(|_| {
            "not a witness's key: expected NAME+HASH+KEY of an Ed25519 cosigner (type 4)".to_owned()
        })?;
        if self.witnesses.len() >= MAX_WITNESSES {
            return Err(format!("more than {MAX_WITNESSES} witnesses"));
        }
        let mut known = self.witnesses.iter();
        if known.any(|known| known.key.key() == key.key()) {
            return Err("this witness's key stands on an earlier line".to_owned());
        }
        let url = url.map(checked_url).transpose()?;
        self.define(name, Member::Witness(self.witnesses.len()))?;
        let name = name.to_owned();
        self.witnesses.push(Witness { name, key, url });
        Ok(())
    }

    fn group(&mut self, name: &str, threshold: &str, members: &[&str]) -> Result<(), String> {
        if self.groups.len() >= MAX_GROUPS {
            return Err(format!("more than {MAX_GROUPS} groups"));
        }
        let mut found = Vec::new();
        for member in members {
            found.push(self.find(member)?);
            if !self.placed.insert((*member).to_owned()) {
                return Err(format!("{member:?} is listed in a group already"));
            }
        }
        let threshold = match threshold {
            "all" => members.len(),
            "any" => 1,
            number => parse_size(number)
                .and_then(|number| usize::try_from(number).ok())
                .ok_or_else(|| format!("{number:?} is neither a number nor `any` or `all`"))?,
        };
        if threshold == 0 || threshold > members.len() {
            return Err(format!(
                "a group of {} cannot need {threshold} of them",
                members.len()
            ));
        }
        self.define(name, Member::Group(self.groups.len()))?;
        self.groups.push(Group {
            threshold,
            members: found,
        });
        Ok(())
    }

    fn set_quorum(&mut self, name: &str) -> Result<(), String> {
        if self.quorum.is_some() {
            return Err("a second quorum".to_owned());
        }
        let member = if name == NONE {
            None
        } else {
            Some(self.find(name)?)
        };
        self.quorum = Some(member);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Member, String> {
        let found = self.names.get(name).copied();
        found.ok_or_else(|| format!("no line before this one defines {name:?}"))
    }

    fn define(&mut self, name: &str, member: Member) -> Result<(), String> {
        if name == NONE || name.len() > MAX_NAME_BYTES {
            return Err(format!("{:?} is no name", name.to_string()));
        }
        if self.names.insert(name.to_owned(), member).is_some() {
            return Err(format!("{name:?} is defined twice"));
        }
        Ok(())
    }
}

/// An address before which paths are put: `http` or `https`, without a slash at its end.
fn checked_url(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let is_address = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#']));
    if is_address && text.len() <= MAX_URL_BYTES {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(format!("{text:?} is no http or https address"))
    }
}
