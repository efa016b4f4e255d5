//! What a server finds in its indexes, and the streams of it: each proved, and all judged by one fold.
//!
//! That an entry is what was signed, that it stands where it stands and that it may stand there needs
//! nobody's word. That nothing else would fit, or that a stream has no further entry, is the server's:
//! whoever doubts it reads the whole log (`walk.rs`).

use std::collections::BTreeSet;

use countersign_protocol::api::{EntryItem, Page};
use countersign_protocol::audit;
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::CommandId;
use countersign_protocol::name::Time;
use countersign_protocol::search::{MAX_HITS, SearchFor, SearchHit, SearchRequest};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::connect::Client;
use super::log::check_length;
use super::walk::{self, AT_ONCE, Past};
use super::what_if::Since;
use crate::audit::{Chronicle, Keep};
use crate::failure::Failure;
use crate::streams::{Link, ProvenStream, StreamError};

/// A point of the log, proved: so many entries, and the time of the newest of them.
#[derive(Debug, Clone)]
pub struct Point {
    /// How many entries the log had.
    pub size: u64,
    /// The time of the newest of them.
    pub last: Time,
    /// A believed checkpoint that covers them all.
    pub checkpoint: Checkpoint,
}

/// Pages of what a server finds.
#[derive(Debug)]
pub struct Hits<'a> {
    client: &'a Client,
    search: SearchFor,
    /// As of when.
    pub point: Point,
    cursor: Option<String>,
    /// How many more are wanted.
    left: u64,
    is_over: bool,
    /// What was named so far: an index names each once.
    seen: BTreeSet<(CommandId, Option<String>)>,
}

impl Hits<'_> {
    /// The next of them with all that they rest on, judged; nothing when there are no more, or as many
    /// as were wanted.
    ///
    /// # Errors
    /// Unreachable, not allowed, or evidence of tampering.
    pub async fn next(&mut self, keep: Keep) -> Result<Option<(Past, Vec<SearchHit>)>, Failure> {
        let Some(found) = self.said().await? else {
            return Ok(None);
        };
        let ids = ids(&found)?;
        let past = self.client.gathered(&self.point, keep, &ids).await?;
        for id in &ids {
            if past.chronicle.state().command(id).is_none() {
                return Err(lied(id, "it had not been asked for then"));
            }
        }
        Ok(Some((past, found)))
    }

    /// The next page as the server says it: nothing of it is proved.
    ///
    /// # Errors
    /// Unreachable, or not allowed.
    pub async fn said(&mut self) -> Result<Option<Vec<SearchHit>>, Failure> {
        if self.is_over || self.left == 0 {
            return Ok(None);
        }
        let limit = self.left.min(MAX_HITS);
        let request = SearchRequest {
            search: self.search.clone(),
            size: self.point.size,
            cursor: self.cursor.take(),
            limit: Some(limit),
        };
        let page: Page<SearchHit> = self.client.ask("/v1/audit/search", &request).await?;
        self.take(&page.items, limit)?;
        self.left = self.left.saturating_sub(page.items.len() as u64);
        // A server that gives nothing and promises more would be asked for ever.
        self.is_over = page.next.is_none() || page.items.is_empty();
        self.cursor = page.next;
        Ok(Some(page.items))
    }

    /// Takes what a page names. Said again, a hit would be counted twice, and pages would have no end.
    fn take(&mut self, items: &[SearchHit], limit: u64) -> Result<(), Failure> {
        check_length(items, limit)?;
        for hit in items {
            let id = id(hit)?;
            if !self.seen.insert((id, hit.host.clone())) {
                return Err(lied(&id, "it was named before, and stands there once"));
            }
        }
        Ok(())
    }

    /// Wants so many more than were named.
    pub const fn want(&mut self, more: u64) {
        self.left = more;
    }

    /// Where the server would go on.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref().filter(|_| !self.is_over)
    }
}

/// The server named something as found that does not fit.
#[must_use]
pub fn lied(id: &CommandId, why: &str) -> Failure {
    Failure::tampering(
        "wrong_hit",
        format!("the server said that command {id} fits, and its own signed entries say otherwise: {why}"),
    )
    .hint("do not trust what this server finds; ask again with --whole, and audit the ledger (verify)")
}

fn ids(hits: &[SearchHit]) -> Result<Vec<CommandId>, Failure> {
    let ids: BTreeSet<CommandId> = hits.iter().map(id).collect::<Result<_, _>>()?;
    Ok(ids.into_iter().collect())
}

fn id(hit: &SearchHit) -> Result<CommandId, Failure> {
    let id = hit.command.parse();
    id.map_err(|_| {
        Failure::unreachable("malformed", "the server named something that is no command")
    })
}

impl Client {
    /// A point of the log, by its own entries: that of a time is between the last entry that is not
    /// younger and the first that is.
    ///
    /// # Errors
    /// The log may not be read, the point is not in it, or evidence of tampering.
    pub async fn point(&self, until: Option<Since>) -> Result<Point, Failure> {
        let checkpoint = self.newest().await?;
        let (end, youngest) = walk::bounds(until, checkpoint.size())?;
        let size = match youngest {
            None => end,
            Some(youngest) => self.size_at(youngest, end).await?,
        };
        let Some(last) = size.checked_sub(1) else {
            return Err(walk::empty());
        };
        let beyond = u64::from(size < end);
        let links = self.entries(last, 1 + beyond, None).await?;
        let time = |seq: u64| {
            let mut here = links.iter().filter(|link| link.entry.seq == seq);
            here.next().map(|link| link.entry.time)
        };
        let is_after = |next: Time| youngest.is_some_and(|youngest| next > youngest);
        match (time(last), youngest) {
            (Some(time), Some(youngest)) if time > youngest => Err(StreamError::Order(last).into()),
            (Some(_), Some(_)) if beyond == 1 && !time(size).is_some_and(is_after) => {
                Err(StreamError::Order(size).into())
            }
            (Some(last), _) => Ok(Point {
                size,
                last,
                checkpoint,
            }),
            (None, _) => Err(Failure::tampering(
                "cut_off",
                format!("the checkpoint covers entry {last}, and the server does not show it"),
            )
            .hint("audit the ledger (countersign verify)")),
        }
    }

    /// How many entries are not younger than a time, among the first `end`: guessed by halves. The
    /// caller proves the place.
    async fn size_at(&self, youngest: Time, end: u64) -> Result<u64, Failure> {
        let (mut low, mut high) = (0, end);
        while low < high {
            let middle = low + (high - low) / 2;
            let query = [("from", middle.to_string()), ("limit", "1".to_owned())];
            let page: Page<EntryItem> = self.get("/v1/entries", &query).await?;
            let item = page.items.into_iter().next();
            let item = item.ok_or(StreamError::Order(middle))?;
            let entry = audit::check_entry(&item.entry.0).map_err(|reason| StreamError::Entry {
                seq: middle,
                reason,
            })?;
            if entry.time <= youngest {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// What a server finds, in pages, as of a point; `wanted` at most, after `cursor`.
    #[must_use]
    pub fn hits(
        &self,
        point: Point,
        search: SearchFor,
        cursor: Option<String>,
        wanted: u64,
    ) -> Hits<'_> {
        Hits {
            client: self,
            search,
            point,
            cursor,
            left: wanted,
            is_over: false,
            seen: BTreeSet::new(),
        }
    }

    /// The rights and some commands as they were at a point, each entry proved and judged. Commands that
    /// had not been asked for then are not among them.
    ///
    /// # Errors
    /// Unreachable, not allowed, or evidence of tampering.
    pub async fn gathered(
        &self,
        point: &Point,
        keep: Keep,
        ids: &[CommandId],
    ) -> Result<Past, Failure> {
        let rights = async {
            let rights = self.rights_stream_as_of(point.size).await?;
            self.with_documents_before(rights, point.size, keep).await
        };
        let is_kept = |id: &&CommandId| keep.command == Some(**id);
        let (kept, bare): (BTreeSet<CommandId>, BTreeSet<CommandId>) =
            ids.iter().partition(is_kept);
        let ids: Vec<CommandId> = bare.iter().chain(&kept).copied().collect();
        let commands = async {
            let bare: Vec<CommandId> = bare.into_iter().collect();
            let mut streams = self.bare_commands(&bare).await?;
            for id in kept {
                let path = format!("/v1/commands/{id}/entries");
                streams.push(self.stream(&path, None, Stream::Command(id)).await?);
            }
            stream::iter(streams)
                .map(|found| self.with_documents_before(found, point.size, keep))
                .buffered(AT_ONCE)
                .try_collect::<Vec<ProvenStream>>()
                .await
        };
        let (rights, mut streams) = tokio::try_join!(rights, commands)?;
        let mut moved = BTreeSet::new();
        for (id, found) in ids.iter().zip(&streams) {
            let last = found.entries.last();
            if last.is_some_and(|last| last.entry.seq >= point.size) {
                moved.insert(*id);
            }
        }
        streams.push(rights);
        let mut all: Vec<(Link, usize)> = Vec::new();
        for (at, found) in streams.iter_mut().enumerate() {
            let before = |link: &Link| link.entry.seq < point.size;
            all.extend(
                found
                    .entries
                    .drain(..)
                    .filter(before)
                    .map(|link| (link, at)),
            );
        }
        all.sort_by_key(|(link, _)| link.entry.seq);
        let mut chronicle = Chronicle::chosen(keep, point.size, point.last);
        for (link, at) in all {
            let named = link.entry.verified.event().blobs();
            let blobs = streams.get(at).map(|found| found.blobs.only(&named));
            chronicle.take(link, blobs.unwrap_or_default())?;
        }
        Ok(Past {
            chronicle,
            checkpoint: point.checkpoint.clone(),
            moved,
        })
    }

    /// Fetches the documents that entries before a place are judged by and did not come along.
    async fn with_documents_before(
        &self,
        mut found: ProvenStream,
        size: u64,
        keep: Keep,
    ) -> Result<ProvenStream, Failure> {
        for link in &found.entries {
            let entry = &link.entry;
            if entry.seq >= size {
                break;
            }
            let event = entry.verified.event();
            let stream = Stream::of(event, entry.verified.id());
            for named in walk::documents(event, stream, keep) {
                if found.blobs.lacks(&named) {
                    self.fetch_blob(entry.seq, &named, &mut found.blobs).await?;
                }
            }
        }
        Ok(found)
    }
}
