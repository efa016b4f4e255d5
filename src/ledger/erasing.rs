//! What a decision about erasing needs of the database: who names the texts, and those commands.
//!
//! It decides nothing: the fold does, from what is laid before it here.

use countersign_protocol::erasure::Naming;
use countersign_protocol::event::{Erased, Event};
use countersign_protocol::fold::{Attachment, Refusal, Stream};
use countersign_protocol::hash::{CommandId, Digest};
use sqlx::PgConnection;

use super::store;
use super::writer::{Decided, Failure};

/// Most commands that are read back for one decision, under the head lock: the one that is erased,
/// and its retries, which name the same texts.
const MAX_NAMING: usize = 64;

const TOO_MANY: Refusal = Refusal::NotErasable(
    "too many commands name these texts for one change; name fewer texts at once",
);

/// Lays before the fold who names the texts that an event may lead to be erased, and holds their
/// commands. Nothing of it for any other event.
pub(super) async fn look_around(
    connection: &mut PgConnection,
    decided: &mut Decided,
    event: &Event,
    attachment: &Attachment,
) -> Result<Option<Refusal>, Failure> {
    let rights = decided.state.fold.rights();
    let body = if let Event::ChangeRequested(request) = event
        && let Attachment::Change(body, _) = attachment
    {
        let may_ask = rights.may_ask(&request.principal, body).is_ok();
        may_ask.then_some(body)
    } else if let Event::ChangeApproved(approval) = event {
        rights.change(&approval.change).map(|change| &change.body)
    } else {
        None
    };
    let Some(Erased { command, digests }) = body.and_then(|body| body.erased()) else {
        decided.state.fold.name_texts(Naming::new());
        return Ok(None);
    };
    let digests = digests.to_vec();
    let Some(naming) = naming(connection, decided, &digests).await? else {
        return Ok(Some(TOO_MANY));
    };
    let streams = naming.values().flatten().flatten();
    let mut commands: Vec<CommandId> = streams
        .filter_map(|stream| match stream {
            Stream::Command(id) => Some(*id),
            Stream::Rights => None,
        })
        .chain([command])
        .collect();
    commands.sort_unstable();
    commands.dedup();
    if commands.len() > MAX_NAMING {
        return Ok(Some(TOO_MANY));
    }
    let size = decided.head.size;
    for id in commands {
        decided.state.hold(connection, id, size).await?;
        decided.touched.insert(id);
    }
    if decided.state.fold.command(&command).is_none() {
        return Ok(Some(Refusal::UnknownCommand));
    }
    decided.state.fold.name_texts(naming);
    Ok(None)
}

/// Who names these texts: in the log, and in the batch that is not in it yet. Nothing when so many do
/// that not all of them were read.
async fn naming(
    connection: &mut PgConnection,
    decided: &Decided,
    digests: &[Digest],
) -> Result<Option<Naming>, Failure> {
    // A line for each, so that of a text that nobody names it is known that nobody does.
    let mut naming: Naming = digests
        .iter()
        .map(|digest| (*digest, Default::default()))
        .collect();
    // One line more than can be good: a text of this command, and each of the others.
    let limit = digests.len().saturating_mul(MAX_NAMING).saturating_add(1);
    let known = store::naming_streams(connection, digests, limit as u64).await?;
    if known.len() >= limit {
        return Ok(None);
    }
    let rows = &decided.batch.rows;
    let (named, places) = &rows.references;
    let fresh = named.iter().zip(places).filter_map(|(digest, place)| {
        let digest = Digest::new(digest.as_slice().try_into().ok()?);
        let at = rows.seqs.iter().position(|seq| seq == place)?;
        let stream = rows.streams.get(at)?.as_deref();
        let stream = stream.and_then(|bytes| Some(CommandId::new(bytes.try_into().ok()?)));
        Some((digest, stream))
    });
    for (digest, stream) in known.into_iter().chain(fresh) {
        let stream = stream.map(|id| {
            if id == Stream::Rights.id() {
                Stream::Rights
            } else {
                Stream::Command(id)
            }
        });
        if let Some(streams) = naming.get_mut(&digest) {
            streams.insert(stream);
        }
    }
    Ok(Some(naming))
}
