//! Texts that their source says are erased, until an entry of the log says so too.
//!
//! An entry that erases stands behind those that name the text, so nothing is judged before the end.

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::erasure::Naming;
use countersign_protocol::event::{BlobRedacted, Erased};
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::Digest;

use crate::blobs::Named;
use crate::report::{BlobCounts, Findings, RedactedBy};

#[derive(Debug)]
struct Gone {
    /// The first entry that names it.
    first: u64,
    /// How many do.
    names: u64,
    streams: BTreeSet<Option<Stream>>,
    said: bool,
}

/// What is erased where it was looked for.
#[derive(Debug, Default)]
pub struct Erasures {
    gone: BTreeMap<Digest, Gone>,
    by: Vec<RedactedBy>,
}

impl Erasures {
    /// Takes a text that is not there any more.
    pub(crate) fn note(&mut self, named: &Named) {
        let gone = self.gone.entry(named.blob.digest).or_insert(Gone {
            first: named.seq,
            names: 0,
            streams: BTreeSet::new(),
            said: false,
        });
        gone.first = gone.first.min(named.seq);
        gone.names += 1;
        gone.streams.insert(named.stream);
    }

    /// Who names the texts that an entry erases, as far as they are erased here.
    pub(crate) fn naming(&self, erased: Erased<'_>) -> Naming {
        let line = |digest: &Digest| Some((*digest, self.gone.get(digest)?.streams.clone()));
        erased.digests.iter().filter_map(line).collect()
    }

    /// An entry says that these are erased.
    pub(crate) fn say(&mut self, seq: u64, said: &BlobRedacted) {
        let mut texts = 0;
        for digest in &said.digests {
            if let Some(gone) = self.gone.get_mut(digest) {
                gone.said = true;
                texts += 1;
            }
        }
        self.by.push(RedactedBy {
            seq,
            change: said.change,
            command: said.command,
            rests_on: said.rests_on.clone(),
            legal_basis: said.legal_basis.clone(),
            named: said.digests.len() as u64,
            texts,
        });
    }

    /// Whether something is erased of which no entry has said so, so far.
    #[must_use]
    pub fn are_unsaid(&self) -> bool {
        self.gone.values().any(|gone| !gone.said)
    }

    /// Behind the last entry: what no entry has said is a failure. Where reading stopped before the end
    /// it is only counted, for the entry that says so may stand behind.
    pub(crate) fn settle(
        self,
        is_whole: bool,
        counts: &mut BlobCounts,
        findings: &mut Findings,
    ) -> Vec<RedactedBy> {
        for (digest, gone) in self.gone {
            if gone.said {
                counts.redacted += gone.names;
                continue;
            }
            counts.erased += gone.names;
            if !is_whole {
                continue;
            }
            let reason = format!(
                "the blob {digest} that the entry names was redacted without an event that says so"
            );
            findings.bad("erased_unsaid", gone.first, reason);
        }
        self.by
    }
}
