//! Work that was put aside until its time: of each command once, and within bounds.
//!
//! It goes by what the work says it is about, and must not look at whether that is true.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use countersign_protocol::api::{StreamBody, Work};
use countersign_protocol::entry::Entry;
use countersign_protocol::hash::CommandId;
use tokio::time::Instant;

/// Pieces of work at once. Of more, those whose time comes last are dropped, and asked for again when
/// there is room.
const MAX_ASIDE: usize = 64;

/// What they have together, as they came: two of the largest grants and room for many others.
const MAX_BYTES: usize = 64 << 20;

/// The longest before a piece is looked at again: clocks may be set.
const LONGEST: Duration = Duration::from_secs(60);

/// No order is kept among what is to wait longer than any command may.
const FAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// What a piece of work is about, as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum About {
    Grant(CommandId),
    Cancel(CommandId),
}

impl About {
    /// Nothing for what could not be believed either.
    fn of(work: &Work) -> Option<Self> {
        let of = |stream: &StreamBody| {
            let entry = Entry::decode(&stream.entries.first()?.entry.0).ok()?;
            Some(entry.statement.id())
        };
        match work {
            Work::Grant(grant) => of(&grant.stream).map(Self::Grant),
            Work::Cancel(stream) => of(stream).map(Self::Cancel),
        }
    }
}

struct Piece {
    work: Work,
    bytes: usize,
    /// When it is looked at again.
    look: Instant,
    /// When its time comes.
    until: Instant,
    /// It stops something that runs, so it is never dropped.
    stops: bool,
}

/// What waits.
pub(crate) struct Aside {
    pieces: HashMap<About, Piece>,
    /// Bytes that may wait together.
    most_bytes: usize,
    /// The size of the smallest piece that was dropped and not asked for since.
    dropped: Option<usize>,
}

impl Default for Aside {
    fn default() -> Self {
        Self::with_bytes(MAX_BYTES)
    }
}

impl Aside {
    fn with_bytes(most_bytes: usize) -> Self {
        Self {
            pieces: HashMap::new(),
            most_bytes,
            dropped: None,
        }
    }

    /// Puts work aside for so long; what waits of the same is older, and makes way. `runs` says whether a
    /// command runs: there are not many, so what would stop one needs no other bound.
    pub(crate) fn put(&mut self, work: Work, wait: Duration, runs: impl Fn(&CommandId) -> bool) {
        let Some(about) = About::of(&work) else {
            tracing::warn!("work that names no command does not wait; it is dropped");
            return;
        };
        let now = Instant::now();
        let piece = Piece {
            bytes: bytes(&work),
            work,
            look: now + wait.min(LONGEST),
            until: now + wait.min(FAR),
            stops: matches!(about, About::Cancel(command) if runs(&command)),
        };
        self.pieces.insert(about, piece);
        while let Some(last) = self.last().filter(|_| !self.fits()) {
            let dropped = self.pieces.remove(&last).map_or(0, |piece| piece.bytes);
            self.dropped = Some(self.dropped.map_or(dropped, |other| other.min(dropped)));
            tracing::warn!("too much work waits; a piece is dropped and asked for again later");
        }
    }

    /// When the next piece is to be looked at.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.pieces.values().map(|piece| piece.look).min()
    }

    /// The piece whose look is due first.
    pub(crate) fn take(&mut self) -> Option<Work> {
        let due = self.pieces.iter().min_by_key(|(_, piece)| piece.look);
        let about = due.map(|(about, _)| *about)?;
        self.pieces.remove(&about).map(|piece| piece.work)
    }

    /// Whether what was dropped is to be asked for now, as there is room; said once.
    pub(crate) fn wants_again(&mut self) -> bool {
        let (pieces, bytes) = self.held();
        let most = self.most_bytes;
        let room = |dropped| pieces < MAX_ASIDE && bytes.saturating_add(dropped) <= most;
        self.dropped.take_if(|dropped| room(*dropped)).is_some()
    }

    /// Lets go of all of it.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
    }

    /// How many pieces there are that may be dropped, and how large they are together.
    fn held(&self) -> (usize, usize) {
        let mut held = (0_usize, 0_usize);
        for piece in self.pieces.values().filter(|piece| !piece.stops) {
            held.0 = held.0.saturating_add(1);
            held.1 = held.1.saturating_add(piece.bytes);
        }
        held
    }

    fn fits(&self) -> bool {
        let (pieces, bytes) = self.held();
        pieces <= MAX_ASIDE && bytes <= self.most_bytes
    }

    /// Of what may be dropped, the piece whose time comes last.
    fn last(&self) -> Option<About> {
        let pieces = self.pieces.iter().filter(|(_, piece)| !piece.stops);
        let last = pieces.max_by_key(|(_, piece)| piece.until);
        last.map(|(about, _)| *about)
    }
}

/// How large it was on the way, whatever parts it has.
fn bytes(work: &Work) -> usize {
    struct Counted(usize);
    impl Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counted = Counted(0);
    // What cannot be written cannot have come.
    match serde_json::to_writer(&mut counted, work) {
        Ok(()) => counted.0,
        Err(_) => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use countersign_protocol::api::{Base64, BlobBody, ProvenEntry};
    use countersign_protocol::event::Kind;
    use countersign_protocol::hash::{Hash, KeyId};
    use countersign_protocol::name::Time;
    use countersign_protocol::statement::Statement;

    use super::*;

    const NOTHING: fn(&CommandId) -> bool = |_| false;

    /// Of the command with this number, with so much content.
    fn cancel(number: u8, content: usize) -> Work {
        let statement = Statement {
            kind: Kind::CommandRequested,
            payload: vec![number],
            signature: vec![],
        };
        let entry = Entry {
            seq: 1,
            time: Time::from_micros(1).unwrap(),
            prev: Hash::ZERO,
            key_id: KeyId::new([1; 32]),
            statement,
        };
        Work::Cancel(StreamBody {
            checkpoint: String::new(),
            entries: vec![ProvenEntry {
                seq: 1,
                entry: Base64(entry.encode().unwrap()),
                inclusion: vec![],
            }],
            blobs: vec![BlobBody {
                salt: Base64(vec![]),
                content: Base64(vec![0; content]),
            }],
            redacted: vec![],
        })
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn taken(aside: &mut Aside) -> Vec<Work> {
        std::iter::from_fn(|| aside.take()).collect()
    }

    #[test]
    fn the_same_waits_once_and_the_newest_counts() {
        let mut aside = Aside::default();
        for size in 1..100 {
            aside.put(cancel(7, size), seconds(5), NOTHING);
        }
        aside.put(cancel(8, 1), seconds(3), NOTHING);
        assert_eq!(taken(&mut aside), [cancel(8, 1), cancel(7, 99)]);
        assert!(!aside.wants_again());
    }

    #[test]
    fn of_too_many_the_last_to_come_is_dropped_and_asked_for_when_there_is_room() {
        let mut aside = Aside::default();
        aside.put(cancel(200, 1), seconds(3600), NOTHING);
        for number in 0..64 {
            aside.put(cancel(number, 1), seconds(u64::from(number)), NOTHING);
        }
        assert!(!aside.wants_again(), "there is no room");
        assert_eq!(aside.take(), Some(cancel(0, 1)));
        assert!(aside.wants_again());
        assert!(!aside.wants_again(), "once");
        assert!(!taken(&mut aside).contains(&cancel(200, 1)));
    }

    #[test]
    fn what_is_large_waits_in_small_numbers() {
        let mut aside = Aside::with_bytes(64 << 10);
        for number in 0..10 {
            aside.put(cancel(number, 10 << 10), seconds(1), NOTHING);
        }
        aside.put(cancel(11, 10), seconds(1), NOTHING);
        let (pieces, bytes) = aside.held();
        assert!(bytes <= 64 << 10 && (4..7).contains(&pieces), "{pieces}");
        let mut room = false;
        while !room {
            assert!(aside.take().is_some());
            room = aside.wants_again();
        }
        assert!(aside.held().1 <= 54 << 10);
    }

    #[test]
    fn what_stops_a_run_is_never_dropped() {
        let mut aside = Aside::default();
        for number in 0..100 {
            aside.put(cancel(number, 10), seconds(1), |_| true);
        }
        for number in 100..200 {
            aside.put(cancel(number, 10), seconds(0), NOTHING);
        }
        assert_eq!(taken(&mut aside).len(), 100 + MAX_ASIDE);
    }
}
