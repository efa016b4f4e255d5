//! The frozen targets of a command: one line a host, a Merkle tree over the lines. PROTOCOL 6.
//!
//! An approver's client checks all lines; a host gets its own line and an inclusion proof.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::blob::{BlobRef, MAX_BLOB_BYTES};
use crate::canonical::{self, CanonicalError};
use crate::command::Targets;
use crate::facts::Facts;
use crate::hash::{Digest, Hash, KeyId};
use crate::merkle::{self, Tree};
use crate::name::{AgentName, NotAName, ServiceName};
use crate::proof;

/// Most lines of one command.
pub const MAX_TARGETS: u64 = 100_000;

/// One host of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetLine {
    /// The host's agent.
    pub agent: AgentName,
    /// The key that agent had when the targets were resolved.
    pub key_id: KeyId,
    /// The service of that host to run it in; on the host itself when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The act's spec: what this host runs, once its facts are put in.
    pub spec: Digest,
    /// Its turn in a rollout, from 0. All lines have one, or none has: then they go by their names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<u64>,
    /// What this host's own facts are that the command's arguments use, exactly those. All lines have
    /// some, or none has: then every word of the command means itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
}

impl TargetLine {
    /// Its turn, when it stands at `index` of the list.
    #[must_use]
    pub fn turn_at(&self, index: u64) -> u64 {
        self.turn.unwrap_or(index)
    }
}

impl fmt::Display for TargetLine {
    /// `HOST` or `HOST/SERVICE`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{}/{service}", self.agent),
            None => write!(f, "{}", self.agent),
        }
    }
}

/// Where a command shall run, as people write it: `HOST`, or `HOST/SERVICE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host's agent.
    pub agent: AgentName,
    /// One of its services; none is the host itself.
    pub service: Option<ServiceName>,
}

impl FromStr for Place {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let (agent, service) = match text.split_once('/') {
            Some((agent, service)) => (agent, Some(service.parse()?)),
            None => (text, None),
        };
        let agent = agent.parse()?;
        Ok(Self { agent, service })
    }
}

impl From<&TargetLine> for Place {
    fn from(line: &TargetLine) -> Self {
        Self {
            agent: line.agent.clone(),
            service: line.service.clone(),
        }
    }
}

impl From<AgentName> for Place {
    fn from(agent: AgentName) -> Self {
        let service = None;
        Self { agent, service }
    }
}

/// Why a list of targets is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The document is not canonical or not of this shape.
    #[error(transparent)]
    Document(#[from] CanonicalError),
    /// Empty, too long, unsorted or with an agent twice.
    #[error("targets must be 1 to 100,000 lines, sorted by agent, each agent once")]
    Order,
    /// Some lines have turns and others none, or two have the same.
    #[error("the turns of the targets are not 0, 1, 2 and so on, each once")]
    Turns,
    /// Some lines have facts and others none, or one has no fact in them.
    #[error("all targets have facts of their hosts, or none has")]
    Facts,
    /// Count or root differ from what was signed.
    #[error("the list of targets is not the one that was signed")]
    Mismatch,
}

/// All lines, sorted by agent, each agent once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetList {
    lines: Vec<TargetLine>,
    /// Of each turn the line, where turns are not by name.
    order: Option<Vec<usize>>,
}

impl TargetList {
    /// Sorts the lines.
    ///
    /// # Errors
    /// [`TargetError::Order`] when there is none, too many, or an agent stands twice.
    pub fn new(mut lines: Vec<TargetLine>) -> Result<Self, TargetError> {
        lines.sort_by(|a, b| a.agent.cmp(&b.agent));
        Self::check(lines)
    }

    fn check(lines: Vec<TargetLine>) -> Result<Self, TargetError> {
        let sorted = lines
            .iter()
            .zip(lines.iter().skip(1))
            .all(|(a, b)| a.agent < b.agent);
        if lines.is_empty() || lines.len() as u64 > MAX_TARGETS || !sorted {
            return Err(TargetError::Order);
        }
        let with_facts = lines.iter().filter(|line| line.facts.is_some()).count();
        let empty = |line: &TargetLine| line.facts.as_ref().is_some_and(Facts::is_empty);
        if (with_facts > 0 && with_facts < lines.len()) || lines.iter().any(empty) {
            return Err(TargetError::Facts);
        }
        let order = order(&lines)?;
        Ok(Self { lines, order })
    }

    /// Parses the document and checks it against the signed count and root.
    ///
    /// # Errors
    /// Not canonical, out of order, or not the list that was signed.
    pub fn parse(document: &[u8], signed: &Targets) -> Result<Self, TargetError> {
        let list = Self::check(canonical::from_document(document, MAX_BLOB_BYTES)?)?;
        let same = list.lines.len() as u64 == signed.count && list.root()? == signed.root;
        if same {
            Ok(list)
        } else {
            Err(TargetError::Mismatch)
        }
    }

    /// The lines.
    #[must_use]
    pub fn lines(&self) -> &[TargetLine] {
        &self.lines
    }

    /// The line of one agent, with its index.
    #[must_use]
    pub fn line_of(&self, agent: &AgentName) -> Option<(u64, &TargetLine)> {
        let index = self
            .lines
            .binary_search_by(|line| line.agent.cmp(agent))
            .ok()?;
        Some((index as u64, self.lines.get(index)?))
    }

    /// The line whose turn this is.
    #[must_use]
    pub fn at_turn(&self, turn: u64) -> Option<&TargetLine> {
        let index = usize::try_from(turn).ok()?;
        match &self.order {
            Some(order) => self.lines.get(*order.get(index)?),
            None => self.lines.get(index),
        }
    }

    /// The lines in the order of their turns.
    pub fn by_turn(&self) -> impl Iterator<Item = (u64, &TargetLine)> {
        (0..self.lines.len() as u64).filter_map(|turn| Some((turn, self.at_turn(turn)?)))
    }

    /// The document's bytes.
    ///
    /// # Errors
    /// A value that canonical JSON has no form for.
    pub fn to_document(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::to_vec(&self.lines)
    }

    fn tree(&self) -> Result<Tree, TargetError> {
        let mut tree = Tree::default();
        for line in &self.lines {
            tree.push(leaf(line)?);
        }
        Ok(tree)
    }

    /// The root over all lines.
    ///
    /// # Errors
    /// A line that canonical JSON has no form for.
    pub fn root(&self) -> Result<Hash, TargetError> {
        self.tree()?
            .root_at(self.lines.len() as u64)
            .ok_or(TargetError::Order)
    }

    /// What a payload says of this list, stored as the blob `list`.
    ///
    /// # Errors
    /// As [`TargetList::root`].
    pub fn describe(&self, list: BlobRef) -> Result<Targets, TargetError> {
        Ok(Targets {
            count: self.lines.len() as u64,
            root: self.root()?,
            list,
        })
    }

    /// Proof that line `index` is in the tree.
    ///
    /// # Errors
    /// [`TargetError::Mismatch`] when there is no such line.
    pub fn prove(&self, index: u64) -> Result<Vec<Hash>, TargetError> {
        let size = self.lines.len() as u64;
        proof::inclusion_proof(&self.tree()?, index, size).ok_or(TargetError::Mismatch)
    }
}

/// Of each turn the line, if the lines have turns.
fn order(lines: &[TargetLine]) -> Result<Option<Vec<usize>>, TargetError> {
    if lines.iter().all(|line| line.turn.is_none()) {
        return Ok(None);
    }
    let mut order: Vec<Option<usize>> = alloc::vec![None; lines.len()];
    for (index, line) in lines.iter().enumerate() {
        let turn = line.turn.and_then(|turn| usize::try_from(turn).ok());
        let place = turn.and_then(|turn| order.get_mut(turn));
        let place = place.ok_or(TargetError::Turns)?;
        if place.replace(index).is_some() {
            return Err(TargetError::Turns);
        }
    }
    // As many places as lines, and each taken once: none is left.
    Ok(Some(order.into_iter().flatten().collect()))
}

/// A list whose lines are proved one after the other, from one tree.
#[derive(Debug, Clone)]
pub struct ProvableTargets {
    list: TargetList,
    tree: Tree,
}

impl ProvableTargets {
    /// Hashes all lines once.
    ///
    /// # Errors
    /// As [`TargetList::root`].
    pub fn new(list: TargetList) -> Result<Self, TargetError> {
        let tree = list.tree()?;
        Ok(Self { list, tree })
    }

    /// The list.
    #[must_use]
    pub const fn list(&self) -> &TargetList {
        &self.list
    }

    /// As [`TargetList::prove`].
    ///
    /// # Errors
    /// As there.
    pub fn prove(&self, index: u64) -> Result<Vec<Hash>, TargetError> {
        let size = self.list.lines.len() as u64;
        proof::inclusion_proof(&self.tree, index, size).ok_or(TargetError::Mismatch)
    }
}

fn leaf(line: &TargetLine) -> Result<Hash, CanonicalError> {
    Ok(merkle::leaf_hash(&canonical::to_vec(line)?))
}

/// Says whether `line` stands at `index` of the tree that was signed.
///
/// # Errors
/// [`TargetError::Mismatch`] when it does not.
pub fn verify_line(
    line: &TargetLine,
    index: u64,
    proof: &[Hash],
    signed: &Targets,
) -> Result<(), TargetError> {
    proof::verify_inclusion(&leaf(line)?, index, signed.count, proof, &signed.root)
        .map_err(|_| TargetError::Mismatch)
}
