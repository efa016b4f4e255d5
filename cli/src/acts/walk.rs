//! The log from its first entry on, audited up to a point of the past. Every page links to a believed
//! checkpoint, every entry is judged where it stands, and every document is what was signed.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_protocol::blob::BlobRef;
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::event::Event;
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::CommandId;
use countersign_protocol::name::Time;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::connect::Client;
use super::export::Progress;
use super::read::{LoggedEntry, RightsView};
use super::what_if::Since;
use crate::audit::{Chronicle, Keep};
use crate::exit_code;
use crate::failure::Failure;
use crate::streams::{Blobs, ProvenStream};
use crate::view::CommandView;

/// Blobs that are on their way at once: a server answers each from an index.
pub(super) const AT_ONCE: usize = 8;

/// How far to read, and what to keep.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// `Entry(n)`: the first `n` entries. `Time(t)`: all that are not younger. None: all.
    pub until: Option<Since>,
    /// What is kept of the entries, beside what they amount to.
    pub keep: Keep,
}

/// The log as it was.
#[derive(Debug)]
pub struct Past {
    /// What its entries amount to.
    pub chronicle: Chronicle,
    /// A believed checkpoint that covers them all.
    pub checkpoint: Checkpoint,
    /// Commands that went on after that point, where entries were chosen.
    pub moved: BTreeSet<CommandId>,
}

impl Past {
    /// The rights as they were then.
    #[must_use]
    pub fn rights(&self) -> RightsView {
        RightsView {
            stream: Arc::new(ProvenStream {
                checkpoint: self.checkpoint.clone(),
                entries: self.chronicle.rights().to_vec(),
                blobs: self.chronicle.blobs().clone(),
            }),
            state: self.chronicle.state().clone(),
        }
    }

    /// A command as it was then, if its entries were kept.
    ///
    /// # Errors
    /// There was none of that id, or evidence of tampering.
    pub fn command(&self, id: &CommandId) -> Result<CommandView, Failure> {
        let chronicle = &self.chronicle;
        if chronicle.state().command(id).is_none() {
            return Err(Failure::failed(
                "unknown_command",
                "there was no such command then: it was asked for later",
            )
            .hint("countersign at TIME list"));
        }
        Ok(CommandView::new(
            *id,
            chronicle.state(),
            chronicle.kept().to_vec(),
            chronicle.blobs(),
            chronicle.size(),
        )?)
    }
}

impl Client {
    /// Reads the log from its first entry on and audits all of it, up to a point.
    ///
    /// # Errors
    /// The log may not be read, the point is not in it, or evidence of tampering.
    pub async fn past(&self, reach: &Reach, progress: Progress<'_>) -> Result<Past, Failure> {
        let checkpoint = self.newest().await?;
        let (end, youngest) = bounds(reach.until, checkpoint.size())?;
        let mut chronicle = Chronicle::new(reach.keep);
        let mut log = self.stretch(None, 0, end);
        while let Some(mut links) = log.page().await? {
            let read = links.len();
            // Times ascend with places: the audit sees to it.
            links.retain(|link| youngest.is_none_or(|youngest| link.entry.time <= youngest));
            let is_end = links.len() < read;
            let known = self.documents_of(&links).await?;
            let mut ready = stream::iter(links)
                .map(|link| self.with_documents(link, reach.keep, &known))
                .buffered(AT_ONCE);
            while let Some((link, blobs)) = ready.try_next().await? {
                chronicle.take(link, blobs)?;
            }
            progress(chronicle.size(), end);
            if is_end {
                break;
            }
        }
        if chronicle.size() == 0 {
            return Err(empty());
        }
        Ok(Past {
            chronicle,
            checkpoint,
            moved: BTreeSet::new(),
        })
    }

    /// What the requests among these entries name, by a few calls for all of them. A caller who may not
    /// see one of the commands, or for whom it is too much for an answer, asks for the rest one by one.
    async fn documents_of(&self, links: &[LoggedEntry]) -> Result<Blobs, Failure> {
        let requested = links.iter().filter_map(|link| {
            let verified = &link.entry.verified;
            let is_request = matches!(verified.event(), Event::CommandRequested(_));
            is_request.then(|| verified.id())
        });
        let ids: Vec<CommandId> = requested.collect();
        let mut blobs = Blobs::default();
        match self.bare_commands(&ids).await {
            Ok(streams) => {
                for found in streams {
                    blobs.extend(found.blobs);
                }
            }
            Err(refused) if refused.exit == exit_code::REFUSED => {}
            Err(failure) => return Err(failure),
        }
        Ok(blobs)
    }

    async fn with_documents(
        &self,
        link: LoggedEntry,
        keep: Keep,
        known: &Blobs,
    ) -> Result<(LoggedEntry, Blobs), Failure> {
        let event = link.entry.verified.event();
        let named = documents(event, Stream::of(event, link.entry.verified.id()), keep);
        let mut blobs = known.only(&named);
        for named in named {
            if blobs.lacks(&named) {
                self.fetch_blob(link.entry.seq, &named, &mut blobs).await?;
            }
        }
        Ok((link, blobs))
    }

    /// Fetches blobs that are not at hand yet: texts and output that rows name.
    ///
    /// # Errors
    /// Unreachable, or evidence of tampering. What may not be read or was erased is no error.
    pub async fn fetch_blobs(&self, seq: u64, named: &[BlobRef]) -> Result<Blobs, Failure> {
        let mut blobs = Blobs::default();
        for named in named {
            if blobs.lacks(named) {
                self.fetch_blob(seq, named, &mut blobs).await?;
            }
        }
        Ok(blobs)
    }
}

/// There was no entry at that point.
pub(super) fn empty() -> Failure {
    Failure::usage("the ledger had no entries then")
        .hint("give a later time; `countersign log` shows that of each entry")
}

/// The documents that an entry is judged by, all that rights name, and all of the command that is kept.
pub(super) fn documents(event: &Event, stream: Option<Stream>, keep: Keep) -> Vec<BlobRef> {
    let of_kept = keep.command.map(Stream::Command);
    if stream == Some(Stream::Rights) || (stream.is_some() && stream == of_kept) {
        return event.blobs();
    }
    if let Event::CommandRequested(request) = event {
        return vec![request.act.targets.list, request.act.spec];
    }
    Vec::new()
}

/// How many entries at most, and until when.
pub(super) fn bounds(until: Option<Since>, size: u64) -> Result<(u64, Option<Time>), Failure> {
    match until {
        None => Ok((size, None)),
        Some(Since::Time(time)) => Ok((size, Some(time))),
        Some(Since::Entry(wanted)) if wanted <= size => Ok((wanted, None)),
        Some(Since::Entry(wanted)) => Err(Failure::usage(format!(
            "the log has {size} entries and never had {wanted}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_the_log_never_had_is_refused() {
        assert_eq!(bounds(Some(Since::Entry(3)), 3).unwrap(), (3, None));
        assert!(bounds(Some(Since::Entry(4)), 3).is_err());
        let time = Time::from_micros(7);
        assert_eq!(bounds(time.map(Since::Time), 3).unwrap(), (3, time));
    }
}
