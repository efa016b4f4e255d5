//! Reading the log back into the protocol's fold. Reads only; whoever decides does so elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_protocol::audit::{self, CheckedEntry};
use countersign_protocol::blob::BlobRef;
use countersign_protocol::event::Event;
use countersign_protocol::fold::{self, AgentChain, Attachment, Refusal, State, Stream};
use countersign_protocol::hash::{CommandId, KeyId, StatementId};
use countersign_protocol::judgement::Judge;
use countersign_protocol::lifecycle::{Command, Position};
use sqlx::PgConnection;

use super::error::OpenError;
use super::store::{self, EntryRow};

/// Entries that are checked between two questions to the database. Checking thousands in one go would leave the
/// session idle in its transaction for longer than Postgres lets it be, and the head may be locked.
const PAGE: u64 = 128;

/// An entry of the database that does not stand.
#[must_use]
pub fn bad(seq: u64, reason: impl std::fmt::Display) -> OpenError {
    OpenError::Entry {
        seq,
        reason: reason.to_string(),
    }
}

/// Checks a stored entry's bytes, signature and number.
///
/// # Errors
/// [`OpenError::Entry`].
pub fn check(row: &EntryRow) -> Result<CheckedEntry, OpenError> {
    let entry = audit::check_entry(&row.entry).map_err(|reason| bad(row.seq, reason))?;
    if entry.seq == row.seq {
        Ok(entry)
    } else {
        Err(bad(row.seq, "its bytes say another number"))
    }
}

/// The entries of a stream before `to`, in order, read by pages.
struct Entries {
    stream: StatementId,
    next: u64,
    to: u64,
    page: std::vec::IntoIter<EntryRow>,
    /// The page was not full: nothing is behind it, and nothing more is asked.
    is_last: bool,
}

impl Entries {
    fn of(stream: StatementId, to: u64) -> Self {
        Self {
            stream,
            next: 0,
            to,
            page: Vec::new().into_iter(),
            is_last: false,
        }
    }

    async fn next(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<Option<EntryRow>, sqlx::Error> {
        if self.page.as_slice().is_empty() && !self.is_last {
            let page = store::stream_page(connection, &self.stream, self.next, self.to, PAGE);
            let page = page.await?;
            self.is_last = (page.len() as u64) < PAGE;
            self.page = page.into_iter();
        }
        let row = self.page.next();
        if let Some(row) = &row {
            self.next = row.seq + 1;
        }
        Ok(row)
    }
}

/// Where an entry stands.
#[must_use]
pub fn position(entry: &CheckedEntry) -> Position {
    Position {
        seq: entry.seq,
        time: entry.time,
        id: entry.verified.id(),
    }
}

/// Reads the document that an event needs to be judged.
///
/// # Errors
/// The database's, or [`OpenError::Entry`] when the document is not what was signed.
pub async fn attachment(
    connection: &mut PgConnection,
    event: &Event,
    seq: u64,
) -> Result<Attachment, OpenError> {
    let wanted: Vec<BlobRef> = if let Event::ChangeRequested(request) = event {
        [request.body].into_iter().chain(request.document).collect()
    } else if let Event::CommandRequested(request) = event {
        vec![request.act.targets.list, request.act.spec]
    } else if let Event::AgentFacts(said) = event {
        vec![said.facts]
    } else {
        return Ok(Attachment::None);
    };
    let mut blobs = BTreeMap::new();
    for named in wanted {
        if let Some(blob) = store::blob(connection, &named.digest).await?.flatten() {
            blobs.insert(named.digest, blob);
        }
    }
    let found: Result<Attachment, Refusal> =
        audit::attachment(event, |named| blobs.get(&named.digest).cloned());
    found.map_err(|refusal| bad(seq, refusal))
}

/// Folds the stream of rights before `to`; commands are left out.
///
/// # Errors
/// As [`attachment`].
pub async fn rights(
    connection: &mut PgConnection,
    to: u64,
    judge: &Arc<dyn Judge>,
) -> Result<State, OpenError> {
    let mut state = State::new(Arc::clone(judge));
    let mut rows = Entries::of(Stream::Rights.id(), to);
    while let Some(row) = rows.next(connection).await? {
        let entry = check(&row)?;
        if let Some((key, number, _)) = fold::agent_link(entry.verified.event()) {
            // A host's words about itself stand on its chain, whose other statements are not in this stream.
            let chain = chain_before(connection, &key, number).await?;
            state.restore_chain(key, chain);
        }
        let attachment = attachment(connection, entry.verified.event(), row.seq).await?;
        state
            .admit(&entry.verified, position(&entry), entry.leaf, attachment)
            .map_err(|refusal| bad(row.seq, refusal))?;
    }
    // They end where this stream last spoke of them; whoever goes on with one reads its true end.
    state.forget_chains();
    Ok(state)
}

/// Folds a command's own entries before `to`; rights were judged when each was appended.
/// Nothing when there is no such command.
///
/// # Errors
/// As [`attachment`].
pub async fn command(
    connection: &mut PgConnection,
    id: CommandId,
    to: u64,
) -> Result<Option<Command>, OpenError> {
    if id == Stream::Rights.id() {
        // No statement hashes to zeros; whoever names them must not be given the stream of rights.
        return Ok(None);
    }
    let mut command: Option<Command> = None;
    let mut rows = Entries::of(id, to);
    while let Some(row) = rows.next(connection).await? {
        let entry = check(&row)?;
        let at = position(&entry);
        let event = entry.verified.event();
        match (&mut command, event) {
            (None, Event::CommandRequested(request)) => {
                let attachment = attachment(connection, event, row.seq).await?;
                let Attachment::Request(Some(targets), spec) = attachment else {
                    return Err(bad(row.seq, "its list of targets is gone"));
                };
                command = Some(Command::open(request.clone(), Some(targets), spec, at));
            }
            (Some(command), event) => {
                command
                    .next(event, at)
                    .map_err(|refusal| bad(row.seq, refusal))?;
            }
            (None, _) => return Err(bad(row.seq, "its command has no request")),
        }
    }
    Ok(command)
}

/// The end of an agent's chain before its statement number `before`; its newest when that is none.
///
/// # Errors
/// The database's.
pub async fn chain_before(
    connection: &mut PgConnection,
    agent: &KeyId,
    before: u64,
) -> Result<AgentChain, OpenError> {
    let last = store::agent_chain(connection, agent, before).await?;
    Ok(last.map_or(AgentChain::EMPTY, |(seq, prev)| AgentChain {
        next: seq + 1,
        prev,
    }))
}
