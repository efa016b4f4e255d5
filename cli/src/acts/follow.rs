//! A command as it happens: each entry verified as it comes, its output handed out at once, and at
//! the end the whole story fetched again with its proofs and compared byte for byte.

use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::api::{LiveEntry, Notice};
use countersign_protocol::event::{Event, Stream as OutputStream};
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::CommandId;
use countersign_protocol::lifecycle::Command;
use countersign_protocol::name::AgentName;
use tokio::time::Instant;

use super::connect::Client;
use super::read::RightsView;
use crate::client::{self, ClientError, EventStream};
use crate::failure::Failure;
use crate::replay::Replay;
use crate::streams::{self, Blobs, Link, StreamError};
use crate::view::CommandView;

/// Most tries to get a broken stream back before the server counts as gone.
const RECONNECTS: u32 = 12;

/// The first wait before a try; each next one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait: all tries together bridge about half a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What happens while one follows a command.
#[derive(Debug)]
pub enum Step<'a> {
    /// An entry, and what the command is with it.
    Entry {
        /// The entry.
        link: &'a Link,
        /// The command, folded so far.
        command: &'a Command,
    },
    /// Bytes that a host's run wrote; their digest is the one that the host signed.
    Output {
        /// The host.
        agent: &'a AgentName,
        /// Which stream.
        stream: OutputStream,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Bytes that the caller may not read, or that were erased.
    Hidden {
        /// The host.
        agent: &'a AgentName,
        /// How many.
        len: u64,
    },
}

/// What is known while following.
struct Live {
    id: CommandId,
    rights: RightsView,
    replay: Replay,
    links: Vec<Link>,
    /// What decisions need; output is handed out and not kept.
    blobs: Blobs,
}

impl Live {
    fn new(id: CommandId, rights: RightsView) -> Self {
        Self {
            id,
            replay: Replay::new(Arc::clone(&rights.stream)),
            rights,
            links: Vec::new(),
            blobs: Blobs::default(),
        }
    }

    fn last_seq(&self) -> Option<u64> {
        self.links.last().map(|link| link.entry.seq)
    }

    fn command(&self) -> Option<&Command> {
        self.replay.state().command(&self.id)
    }

    fn is_over(&self) -> bool {
        self.command()
            .is_some_and(|command| command.status().is_final())
    }

    /// Says whether an entry is new; one that came before must be the very same.
    fn is_new(&self, link: &Link) -> Result<bool, StreamError> {
        let seq = link.entry.seq;
        if self.last_seq().is_none_or(|last| seq > last) {
            return Ok(true);
        }
        let mut known = self.links.iter();
        if known.any(|known| known.bytes == link.bytes) {
            Ok(false)
        } else {
            Err(StreamError::Order(seq))
        }
    }

    /// Judges everything so far by newer rights.
    fn replay_with(&mut self, rights: RightsView, link: &Link) -> Result<(), Failure> {
        let mut replay = Replay::new(Arc::clone(&rights.stream));
        for known in self.links.iter().chain([link]) {
            replay.take(known, &self.blobs)?;
        }
        self.rights = rights;
        self.replay = replay;
        Ok(())
    }
}

impl Client {
    /// Follows a command from its request to its end, and gives what the proven log says then.
    ///
    /// `sink` hears each step once, in order; its failure ends the following.
    ///
    /// # Errors
    /// Unreachable for half a minute, or evidence of tampering.
    pub async fn follow(
        &self,
        id: &CommandId,
        sink: &mut (dyn FnMut(Step<'_>) -> Result<(), Failure> + Send),
    ) -> Result<CommandView, Failure> {
        let mut live = Live::new(*id, self.rights().await?);
        let path = format!("/v1/commands/{id}/events");
        let mut patience = Patience::default();
        while !live.is_over() {
            let mut stream = match self.events(&path, live.last_seq()).await {
                Ok(stream) => stream,
                Err(error) => {
                    patience.after(error.into()).await?;
                    continue;
                }
            };
            let (before, opened) = (live.links.len(), Instant::now());
            let broken = self.drain(&path, &mut stream, &mut live, sink).await?;
            patience.had(live.links.len() > before, opened.elapsed());
            if !live.is_over() {
                patience
                    .after(broken.map_or_else(ended_early, Failure::from))
                    .await?;
            }
        }
        self.prove(&live).await
    }

    /// Takes entries until the command is over or the stream breaks; gives what broke it.
    async fn drain(
        &self,
        path: &str,
        stream: &mut EventStream,
        live: &mut Live,
        sink: &mut (dyn FnMut(Step<'_>) -> Result<(), Failure> + Send),
    ) -> Result<Option<ClientError>, Failure> {
        while !live.is_over() {
            let event = match stream.next().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(None),
                Err(error) if error.is_transient() => return Ok(Some(error)),
                Err(error) => return Err(error.into()),
            };
            if event.event == "entry" {
                let item: LiveEntry = client::parse(path, event.data.as_bytes())?;
                self.take(item, live, sink).await?;
            }
        }
        Ok(None)
    }

    async fn take(
        &self,
        item: LiveEntry,
        live: &mut Live,
        sink: &mut (dyn FnMut(Step<'_>) -> Result<(), Failure> + Send),
    ) -> Result<(), Failure> {
        let (link, mut blobs) = streams::check_live(item, Stream::Command(live.id))?;
        if !live.is_new(&link)? {
            return Ok(());
        }
        for named in link.entry.verified.event().blobs() {
            if blobs.lacks(&named) {
                self.fetch_blob(link.entry.seq, &named, &mut blobs).await?;
            }
        }
        let output = if let Event::ExecutionOutput(chunk) = link.entry.verified.event() {
            Some((chunk.clone(), blobs.shared(&chunk.data)))
        } else {
            live.blobs.extend(blobs);
            None
        };
        if let Err(error) = live.replay.take(&link, &live.blobs) {
            // Perhaps rights changed since they were read: judge all of it again, by newer ones.
            let newer = self.rights().await?;
            if newer.stream.entries.len() == live.rights.stream.entries.len() {
                return Err(error.into());
            }
            live.replay_with(newer, &link)?;
        }
        if let Some((chunk, content)) = &output {
            let agent = &chunk.agent;
            match content.here() {
                Some(bytes) => sink(Step::Output {
                    agent,
                    stream: chunk.stream,
                    bytes,
                })?,
                None => sink(Step::Hidden {
                    agent,
                    len: chunk.data.len,
                })?,
            }
        }
        if let Some(command) = live.command() {
            let link = &link;
            sink(Step::Entry { link, command })?;
        }
        live.links.push(link);
        Ok(())
    }

    /// Fetches the story with its proofs: it must hold every entry that was shown.
    async fn prove(&self, live: &Live) -> Result<CommandView, Failure> {
        let last = live.last_seq().unwrap_or_default();
        let view = self.fetch_command_with(&live.id, last).await?;
        for shown in &live.links {
            let seq = shown.entry.seq;
            // Both ascend: a run of a day has a million entries.
            let place = view
                .entries
                .binary_search_by_key(&seq, |link| link.entry.seq);
            let proven = place.ok().and_then(|place| view.entries.get(place));
            if proven.is_none_or(|link| link.bytes != shown.bytes) {
                return Err(Failure::tampering(
                    "shown_and_gone",
                    format!("entry {seq} was shown live and is not in the proven log"),
                )
                .hint("what was printed cannot be relied on; audit the ledger (verify)"));
            }
        }
        Ok(view)
    }

    /// Waits until the server says that something happened after `last`.
    ///
    /// # Errors
    /// Unreachable for half a minute.
    pub async fn wait_for_news(&self, last: u64) -> Result<(), Failure> {
        let mut patience = Patience::default();
        loop {
            let error: Failure = match self.events("/v1/events", Some(last)).await {
                Ok(mut stream) => {
                    let opened = Instant::now();
                    let next = next_notice(&mut stream).await;
                    patience.had(false, opened.elapsed());
                    match next {
                        Ok(Some(notice)) if notice.seq > last => return Ok(()),
                        Ok(_ended) => ended_early(),
                        Err(error) => error,
                    }
                }
                Err(error) => error.into(),
            };
            patience.after(error).await?;
        }
    }
}

async fn next_notice(stream: &mut EventStream) -> Result<Option<Notice>, Failure> {
    while let Some(event) = stream.next().await? {
        if event.event == "entry" {
            return Ok(Some(client::parse("/v1/events", event.data.as_bytes())?));
        }
    }
    Ok(None)
}

fn ended_early() -> Failure {
    Failure::unreachable(
        "stream_ended",
        "the server ended the stream before the command ended",
    )
    .hint("`countersign show ID` says how it stands")
}

/// How long a broken stream is put up with.
struct Patience {
    tries: u32,
    wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 0,
            wait: FIRST_WAIT,
        }
    }
}

impl Patience {
    /// A stream ended that brought something, or lived longer than any wait: the server was there, as behind
    /// a balancer that ends each connection after an hour. All tries are there again.
    fn had(&mut self, brought: bool, lived: Duration) {
        if brought || lived > LONGEST_WAIT {
            *self = Self::default();
        }
    }

    /// Waits before the next try; gives the failure back when it is no use.
    async fn after(&mut self, failure: Failure) -> Result<(), Failure> {
        tokio::time::sleep(self.next(failure)?).await;
        Ok(())
    }

    /// How long to wait before the next try.
    fn next(&mut self, failure: Failure) -> Result<Duration, Failure> {
        self.tries += 1;
        if failure.exit != crate::exit_code::UNREACHABLE || self.tries > RECONNECTS {
            return Err(failure);
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many streams in a row that lived so long each.
    fn bears(streams: u32, brought: bool, lived: Duration) -> bool {
        let mut patience = Patience::default();
        (0..streams).all(|_| {
            patience.had(brought, lived);
            patience.next(ended_early()).is_ok()
        })
    }

    #[test]
    fn streams_that_lived_for_a_while_are_followed_by_others_for_ever() {
        let hour = Duration::from_secs(3600);
        assert!(bears(1000, false, hour));
        assert!(bears(1000, true, Duration::ZERO));
    }

    #[test]
    fn a_server_whose_streams_end_at_once_counts_as_gone() {
        for lived in [Duration::ZERO, LONGEST_WAIT] {
            assert!(bears(RECONNECTS, false, lived));
            assert!(!bears(RECONNECTS + 1, false, lived));
        }
    }

    #[test]
    fn a_refusal_is_not_waited_out() {
        let refused = Failure::refused("not_permitted", "no");
        assert!(Patience::default().next(refused).is_err());
    }
}
