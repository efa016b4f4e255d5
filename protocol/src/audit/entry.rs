//! One entry alone: bytes, hashes, signature, shape; and the document that its event is judged by.
//! What entries are to each other is not checked here.

use alloc::vec::Vec;

use crate::blob::{Blob, BlobRef};
use crate::command::CommandSpec;
use crate::entry::{self, Entry, EntryError};
use crate::event::Event;
use crate::facts::Facts;
use crate::fold::{Attachment, Refusal};
use crate::hash::{Hash, KeyId};
use crate::key::KeysRead;
use crate::name::Time;
use crate::policy::Policy;
use crate::rights::ChangeBody;
use crate::statement::{Statement, StatementError, Verified};
use crate::target::TargetList;

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The bytes are no entry.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Signature, payload or shape.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// Another number than its place.
    #[error("the entry says it is number {0}")]
    Seq(u64),
    /// Its link is not the leaf before it.
    #[error("the entry does not link to the one before it")]
    Link,
    /// Earlier than the one before it.
    #[error("the entry's time is before that of the entry before it")]
    Time,
    /// The entry names another key than its statement.
    #[error("the entry names another key than its signature")]
    KeyId,
    /// Said before.
    #[error("the same statement stands in the log before")]
    Duplicate,
    /// A run without approvals is followed by its review at once, and by nothing else; and nothing
    /// else is.
    #[error("a run without approvals and the opening of its review do not stand together")]
    Review,
    /// The parts of a redaction stand one behind the other.
    #[error("a redaction of many texts is cut: its next part does not stand behind the one before")]
    Redaction,
    /// It may not stand here.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

impl Reason {
    /// A stable word for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Entry(_) => "not_an_entry",
            Self::Statement(_) => "bad_statement",
            Self::Seq(_) => "wrong_place",
            Self::Link => "broken_link",
            Self::Time => "time_goes_back",
            Self::KeyId => "other_key",
            Self::Duplicate => "said_twice",
            Self::Review => "review_owed",
            Self::Redaction => "redaction_owed",
            Self::Refused(refusal) => refusal.code(),
        }
    }
}

/// The first bad entry, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq}: {reason}")]
pub struct Finding {
    /// Where.
    pub seq: u64,
    /// What.
    pub reason: Reason,
}

/// An entry that holds by itself.
#[derive(Debug, Clone)]
pub struct CheckedEntry {
    /// Its number, as it says.
    pub seq: u64,
    /// Its time.
    pub time: Time,
    /// Its link.
    pub prev: Hash,
    /// Its own hash.
    pub leaf: Hash,
    /// Its statement.
    pub verified: Verified,
}

/// Checks all of one entry that needs no other: bytes, hash, signature, shape.
///
/// # Errors
/// What is wrong with it.
pub fn check_entry(bytes: &[u8]) -> Result<CheckedEntry, Reason> {
    check(bytes, Statement::verify)
}

/// [`check_entry`] for many: a key that signed several of them is read once.
///
/// # Errors
/// What is wrong with each.
pub fn check_entries<'a>(
    entries: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<Result<CheckedEntry, Reason>> {
    let mut keys = KeysRead::default();
    let mut verify = |statement: Statement| statement.verify_among(&mut keys);
    let entries = entries.into_iter();
    entries.map(|bytes| check(bytes, &mut verify)).collect()
}

fn check(
    bytes: &[u8],
    verify: impl FnOnce(Statement) -> Result<Verified, StatementError>,
) -> Result<CheckedEntry, Reason> {
    let Entry {
        seq,
        time,
        prev,
        key_id,
        statement,
    } = Entry::decode(bytes)?;
    let verified = verify(statement)?;
    let signer: KeyId = verified.facts().key_id;
    if signer != key_id {
        return Err(Reason::KeyId);
    }
    Ok(CheckedEntry {
        seq,
        time,
        prev,
        leaf: entry::leaf(bytes),
        verified,
    })
}

/// Finds the document that an event needs to be judged, among the blobs that are at hand.
///
/// # Errors
/// The document is there and is not what was signed.
pub fn attachment(
    event: &Event,
    mut blob: impl FnMut(&BlobRef) -> Option<Blob>,
) -> Result<Attachment, Refusal> {
    if let Event::ChangeRequested(request) = event {
        let Some(body) = blob(&request.body) else {
            return Ok(Attachment::Withheld);
        };
        body.verify(&request.body)
            .map_err(|_| Refusal::BodyMissing)?;
        let body = ChangeBody::parse(body.content()).map_err(|_| Refusal::BodyMissing)?;
        let Some(named) = &request.document else {
            return Ok(Attachment::Change(body, None));
        };
        let Some(document) = blob(named) else {
            return Ok(Attachment::Withheld);
        };
        document.verify(named).map_err(|_| Refusal::BodyMissing)?;
        let policy = policy(document.content()).ok_or(Refusal::BodyMissing)?;
        return Ok(Attachment::Change(body, Some(policy)));
    }
    if let Event::CommandRequested(request) = event {
        let act = &request.act;
        let targets = match blob(&act.targets.list) {
            Some(found) => {
                found
                    .verify(&act.targets.list)
                    .map_err(|_| Refusal::Targets)?;
                let list = TargetList::parse(found.content(), &act.targets);
                Some(list.map_err(|_| Refusal::Targets)?)
            }
            None => None,
        };
        let spec = match blob(&act.spec) {
            Some(found) => {
                found.verify(&act.spec).map_err(|_| Refusal::Spec)?;
                let spec = CommandSpec::parse(found.content(), act);
                Some(spec.map_err(|_| Refusal::Spec)?)
            }
            None => None,
        };
        return Ok(Attachment::Request(targets, spec));
    }
    if let Event::AgentFacts(said) = event {
        let Some(found) = blob(&said.facts) else {
            return Ok(Attachment::Withheld);
        };
        found
            .verify(&said.facts)
            .map_err(|_| Refusal::BodyMissing)?;
        let facts = Facts::parse(found.content()).map_err(|_| Refusal::BodyMissing)?;
        return Ok(Attachment::Facts(facts));
    }
    Ok(Attachment::None)
}

fn policy(document: &[u8]) -> Option<Policy> {
    let text = core::str::from_utf8(document).ok()?;
    Policy::new(text.into()).ok()
}
