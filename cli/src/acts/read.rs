//! Reading: rights, commands, blobs and entries, each verified from bytes before it is handed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::api::{
    AgentItem, AgentPresence, BlobBody, CommandItem, Inbox, Page, StreamBody, TokenItem,
};
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::event::Event;
use countersign_protocol::fold::{State, Stream};
use countersign_protocol::hash::{CommandId, Digest, StatementId};
use countersign_protocol::key;
use countersign_protocol::name::Principal;
use countersign_protocol::rights::Holder;
use countersign_protocol::short;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::connect::Client;
use super::erase;
use super::walk::AT_ONCE;
use crate::clock;
use crate::failure::Failure;
use crate::replay::{self, Replay};
use crate::streams::{Blobs, Held, Link, ProvenStream, StreamError};
use crate::view::CommandView;

/// How often a read is repeated for a server that has not caught up with what it answered before.
const CATCH_UP_TRIES: usize = 20;

/// The wait before each: together some four seconds, longer than any healthy projection lags.
const CATCH_UP_WAIT: Duration = Duration::from_millis(200);

/// Where the rights are read.
const RIGHTS: &str = "/v1/streams/rights";

/// Fewest hex digits that name something.
const MIN_PREFIX: usize = 8;

/// Keys, people, agents, policy and changes, folded from proven entries.
#[derive(Debug, Clone)]
pub struct RightsView {
    /// The entries.
    pub stream: Arc<ProvenStream>,
    /// What they amount to.
    pub state: State,
}

/// What a name on the command line stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A command.
    Command(CommandId),
    /// A change of rights.
    Change(StatementId),
}

/// What a command is read for, when it is not just looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To show its output with its timing.
    Replay,
    /// To take it away in a file.
    Export,
}

impl Purpose {
    pub(super) fn query(self) -> (&'static str, String) {
        let word = match self {
            Self::Replay => "replay",
            Self::Export => "export",
        };
        ("purpose", word.to_owned())
    }
}

/// An entry of the log that links to a believed checkpoint.
pub type LoggedEntry = Link;

impl RightsView {
    fn fold(stream: Arc<ProvenStream>) -> Result<Self, Failure> {
        let state = replay::rights(&stream)?;
        Ok(Self { stream, state })
    }

    /// Whose key this is, when it holds.
    ///
    /// # Errors
    /// The ledger does not know it as a person's, or it was revoked.
    pub fn person(&self, key_id: &countersign_protocol::hash::KeyId) -> Result<Principal, Failure> {
        let fingerprint = key::fingerprint(key_id);
        let Some(record) = self.state.rights().key(key_id) else {
            return Err(Failure::refused(
                "unknown_key",
                format!("the ledger does not know this key ({fingerprint})"),
            )
            .hint("an administrator adds it with: countersign key add NAME KEY.pub"));
        };
        if record.revoked.is_some() {
            return Err(Failure::refused(
                "revoked_key",
                format!("this key was revoked ({fingerprint})"),
            )
            .hint("use another key, or ask an administrator for a new one"));
        }
        if !record.is_in_force(clock::now()) {
            return Err(Failure::refused(
                "expired_key",
                format!("this key's time is over ({fingerprint})"),
            )
            .hint("use another key, or ask an administrator for a new one"));
        }
        match &record.holder {
            Holder::Person(principal) => Ok(principal.clone()),
            Holder::Ledger | Holder::Gateway | Holder::Reserved | Holder::Agent(_) => {
                Err(Failure::refused(
                    "key_role",
                    format!("this key is not a person's ({fingerprint})"),
                ))
            }
        }
    }
}

impl Client {
    /// The rights, proven and folded.
    ///
    /// # Errors
    /// Unreachable, not signed in, or evidence of tampering.
    pub async fn rights(&self) -> Result<RightsView, Failure> {
        RightsView::fold(Arc::new(self.rights_stream().await?))
    }

    /// The rights, proven.
    pub(super) async fn rights_stream(&self) -> Result<ProvenStream, Failure> {
        self.stream(RIGHTS, None, Stream::Rights).await
    }

    /// The rights and who this client is in them.
    pub(super) async fn rights_and_me(&self) -> Result<(RightsView, Principal), Failure> {
        let rights = self.rights().await?;
        let me = rights.person(&self.key_id)?;
        Ok((rights, me))
    }

    /// The rights, proven, no older than a checkpoint of this size.
    pub(super) async fn rights_stream_as_of(&self, size: u64) -> Result<ProvenStream, Failure> {
        for _try in 0..CATCH_UP_TRIES {
            let rights = self.rights_stream().await?;
            if rights.checkpoint.size() >= size {
                return Ok(rights);
            }
            tokio::time::sleep(CATCH_UP_WAIT).await;
        }
        Err(stale())
    }

    /// Rights that are no older than a checkpoint of this size.
    pub(super) async fn rights_as_of(&self, size: u64) -> Result<RightsView, Failure> {
        RightsView::fold(Arc::new(self.rights_stream_as_of(size).await?))
    }

    pub(super) async fn stream(
        &self,
        path: &str,
        purpose: Option<Purpose>,
        asked: Stream,
    ) -> Result<ProvenStream, Failure> {
        let query = purpose.map(Purpose::query);
        let body: StreamBody = self.get(path, query.as_slice()).await?;
        self.prove_stream(body, asked).await
    }

    async fn prove_stream(&self, body: StreamBody, asked: Stream) -> Result<ProvenStream, Failure> {
        let (note, part) = body.into_parts();
        let (checkpoint, _standing) = self.believe(&note).await?;
        Ok(ProvenStream::verify(
            part,
            checkpoint,
            asked,
            self.ledger(),
        )?)
    }

    /// A command, verified from its bytes.
    ///
    /// # Errors
    /// There is none of that id, or evidence of tampering.
    pub async fn fetch_command(&self, id: &CommandId) -> Result<CommandView, Failure> {
        Ok(self.fetch_command_and_rights(id).await?.0)
    }

    /// [`Client::fetch_command`], with the word for what it is read for: the server has it in the
    /// log before it answers.
    ///
    /// # Errors
    /// As [`Client::fetch_command`].
    pub async fn fetch_command_for(
        &self,
        id: &CommandId,
        purpose: Purpose,
    ) -> Result<CommandView, Failure> {
        Ok(self.fetch(id, Some(purpose)).await?.0)
    }

    /// A command, with the rights of the same moment or later.
    pub(super) async fn fetch_command_and_rights(
        &self,
        id: &CommandId,
    ) -> Result<(CommandView, RightsView), Failure> {
        self.fetch(id, None).await
    }

    async fn fetch(
        &self,
        id: &CommandId,
        purpose: Option<Purpose>,
    ) -> Result<(CommandView, RightsView), Failure> {
        let path = format!("/v1/commands/{id}/entries");
        let query = purpose.map(Purpose::query);
        // Both at once; each is believed by itself, the rights only when they are no older.
        let (body, rights) = tokio::try_join!(
            self.get::<StreamBody>(&path, query.as_slice()),
            self.get::<StreamBody>(RIGHTS, &[]),
        )?;
        let mut stream = self.prove_stream(body, Stream::Command(*id)).await?;
        let rights = Arc::new(self.prove_stream(rights, Stream::Rights).await?);
        let rights = if rights.checkpoint.size() >= stream.checkpoint.size() {
            RightsView::fold(rights)?
        } else {
            self.rights_as_of(stream.checkpoint.size()).await?
        };
        self.fetch_missing(&stream.entries, &mut stream.blobs)
            .await?;
        let rights = self.require_said(rights, &stream.blobs).await?;
        let redactions = erase::redactions(&rights, &stream.entries)?;
        let mut replay = Replay::new(Arc::clone(&rights.stream));
        for link in &stream.entries {
            replay.take(link, &stream.blobs)?;
        }
        let state = replay.finish()?;
        let size = stream.checkpoint.size();
        let mut view = CommandView::new(*id, &state, stream.entries, &stream.blobs, size)?;
        view.redactions = redactions;
        view.retried = self.retried(&view, &rights).await?;
        Ok((view, rights))
    }

    /// A command as it is once the entry at `seq` is among its own: what one just wrote, one reads.
    ///
    /// # Errors
    /// As [`Client::fetch_command`], and when the server stays behind.
    pub async fn fetch_command_with(
        &self,
        id: &CommandId,
        seq: u64,
    ) -> Result<CommandView, Failure> {
        for _try in 0..CATCH_UP_TRIES {
            let view = self.fetch_command(id).await?;
            if view.entries.iter().any(|link| link.entry.seq == seq) {
                return Ok(view);
            }
            tokio::time::sleep(CATCH_UP_WAIT).await;
        }
        Err(stale())
    }

    /// Fetches the blobs that a stream left out, some at a time.
    async fn fetch_missing(&self, entries: &[Link], blobs: &mut Blobs) -> Result<(), Failure> {
        let mut missing: BTreeMap<Digest, (u64, BlobRef)> = BTreeMap::new();
        for link in entries {
            let named = link.entry.verified.event().blobs().into_iter();
            let lacking = named.filter(|named| blobs.lacks(named));
            missing.extend(lacking.map(|named| (named.digest, (link.entry.seq, named))));
        }
        let missing: Vec<(u64, BlobRef)> = missing.into_values().collect();
        let mut fetched = stream::iter(missing)
            .map(async |(seq, named)| Ok::<_, Failure>((named, self.blob(seq, &named).await?)))
            .buffer_unordered(AT_ONCE);
        while let Some((named, held)) = fetched.try_next().await? {
            blobs.settle(named.digest, held);
        }
        Ok(())
    }

    /// A blob that the entry at `seq` names: what was signed, or why it is not to be had.
    pub(super) async fn blob(&self, seq: u64, named: &BlobRef) -> Result<Held<Blob>, Failure> {
        let path = format!("/v1/blobs/{}", named.digest);
        match self.get::<BlobBody>(&path, &[]).await {
            Ok(body) => {
                let blob = body.into_blob().filter(|blob| blob.verify(named).is_ok());
                Ok(Held::Here(blob.ok_or(StreamError::StrayBlob)?))
            }
            Err(error) => match error.status() {
                Some(403) => Ok(Held::Withheld),
                Some(404) => Err(StreamError::MissingBlob { seq }.into()),
                Some(410) => Ok(Held::Redacted),
                _other => Err(error.into()),
            },
        }
    }

    /// Fetches one blob that the entry at `seq` names.
    pub(super) async fn fetch_blob(
        &self,
        seq: u64,
        named: &BlobRef,
        blobs: &mut Blobs,
    ) -> Result<(), Failure> {
        blobs.settle(named.digest, self.blob(seq, named).await?);
        Ok(())
    }

    /// What an id, a short form or the first digits of an id stand for.
    ///
    /// # Errors
    /// It is none of these, nothing bears it, or two things do.
    pub async fn find(&self, text: &str) -> Result<Found, Failure> {
        let wanted = Wanted::parse(text)?;
        let rights = self.rights().await?;
        let requested = rights.stream.entries.iter().filter_map(|link| {
            let verified = &link.entry.verified;
            let is_change = matches!(verified.event(), Event::ChangeRequested(_));
            is_change.then(|| verified.id())
        });
        let changes: Vec<StatementId> = requested.filter(|id| wanted.fits(id)).collect();
        let command = match (wanted.whole, changes.as_slice()) {
            (Some(_), [_one]) => None,
            (Some(id), _) => Some(id),
            (None, _) => self.find_command(text, &wanted).await?,
        };
        match (changes.as_slice(), command) {
            ([], Some(id)) => Ok(Found::Command(id)),
            ([id], None) => Ok(Found::Change(*id)),
            ([], None) => Err(Failure::failed(
                "unknown_command",
                format!("there is no command or change {text}"),
            )
            .hint("countersign list, countersign changes")),
            _several => Err(
                Failure::usage(format!("{text} stands for more than one thing"))
                    .hint("give the whole id"),
            ),
        }
    }

    /// The command that the server means by a prefix: believed only if its id begins like that;
    /// its content is verified when it is fetched.
    async fn find_command(
        &self,
        text: &str,
        wanted: &Wanted,
    ) -> Result<Option<CommandId>, Failure> {
        let path = format!("/v1/commands/{text}");
        let item = match self.get::<CommandItem>(&path, &[]).await {
            Err(error) if error.status() == Some(404) => return Ok(None),
            settled => settled?,
        };
        let id: Option<CommandId> = item.id.parse().ok();
        match id.filter(|id| wanted.fits(id)) {
            Some(id) => Ok(Some(id)),
            None => Err(Failure::tampering(
                "other_command",
                format!("asked for command {text}, the server named another one"),
            )
            .hint("nothing was signed; do not trust this server")),
        }
    }

    /// A page of the server's list of commands. These are the server's words, for finding one's
    /// way; `show` verifies.
    ///
    /// # Errors
    /// Unreachable, or not allowed.
    pub async fn list(&self, query: &[(&str, String)]) -> Result<Page<CommandItem>, Failure> {
        Ok(self.get("/v1/commands", query).await?)
    }

    /// What waits for the caller's judgement, in the server's words.
    ///
    /// # Errors
    /// Unreachable, or not allowed.
    pub async fn inbox(&self) -> Result<Inbox, Failure> {
        Ok(self.get("/v1/inbox", &[]).await?)
    }

    /// Where each agent's key was seen, by key id: the server's own word.
    ///
    /// # Errors
    /// Unreachable, or not allowed.
    pub async fn presences(&self) -> Result<BTreeMap<String, AgentPresence>, Failure> {
        let page: Page<AgentItem> = self.get("/v1/agents", &[]).await?;
        let known = page.items.into_iter();
        Ok(known
            .filter_map(|item| Some((item.key_id, item.presence?)))
            .collect())
    }

    /// When each API token was last used, in microseconds: the server's own word.
    ///
    /// # Errors
    /// Unreachable, or not allowed.
    pub async fn token_uses(&self) -> Result<BTreeMap<String, u64>, Failure> {
        let page: Page<TokenItem> = self.get("/v1/tokens", &[]).await?;
        let used = page.items.into_iter();
        Ok(used
            .filter_map(|item| Some((item.token, item.last_used_us?)))
            .collect())
    }
}

fn stale() -> Failure {
    Failure::unreachable(
        "stale",
        "the server is behind what it has answered before and does not catch up",
    )
    .hint("try again; if it stays so, look at the server's health (/readyz)")
}

/// What an id on the command line may stand for.
pub(crate) struct Wanted {
    whole: Option<StatementId>,
    short: Option<[u8; short::SHORT_BYTES]>,
    prefix: Option<String>,
}

impl Wanted {
    /// Reads an id, a short form or the first digits of an id.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        let is_prefix = (MIN_PREFIX..=64).contains(&text.len()) && text.chars().all(hex);
        let wanted = Self {
            whole: text.parse().ok(),
            short: short::parse(text),
            prefix: is_prefix.then(|| text.to_owned()),
        };
        if wanted.short.is_none() && wanted.prefix.is_none() {
            return Err(Failure::usage(format!("{text:?} is not an id"))
                .hint("an id is 64 hex digits, at least the first 8 of them, or XXXX-XXXX"));
        }
        Ok(wanted)
    }

    /// Whether this id is meant.
    pub(crate) fn fits(&self, id: &StatementId) -> bool {
        let by_short = self
            .short
            .is_some_and(|short| id.as_bytes().starts_with(&short));
        let by_prefix = self.prefix.as_ref();
        by_short || by_prefix.is_some_and(|prefix| id.to_string().starts_with(prefix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_fits_its_short_form_and_its_first_digits_and_no_other() {
        let id = StatementId::new([0xab; 32]);
        let other = StatementId::new([0xac; 32]);
        let whole = id.to_string();
        for text in [short::short(&id), whole.clone(), whole[..8].to_owned()] {
            let wanted = Wanted::parse(&text).unwrap();
            assert!(wanted.fits(&id), "{text}");
            assert!(!wanted.fits(&other), "{text}");
        }
    }

    #[test]
    fn what_is_no_id_is_a_usage_error() {
        for text in ["", "abc", "../../x", "ABCDEF0", "12345678/x"] {
            let failure = Wanted::parse(text).err().unwrap();
            assert_eq!(failure.exit, crate::exit_code::USAGE, "{text:?}");
        }
    }
}
