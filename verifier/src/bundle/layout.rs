//! What lies where in a bundle, in which order, and how large it may be.
//!
//! ```text
//! README.txt  manifest.json  checkpoint
//! for each page of entries:
//!   entries/<first seq>          entries, each after its length (u16); as in C2SP tlog-tiles
//!   proofs/<seq>.tlog-proof      one for each entry of an excerpt; C2SP tlog-proof
//!   absent/<first seq>           content that the page's entries name and that is not here
//!   blobs/<digest>               salt (32 bytes) and content
//! allowed_signers  index.json  index.html
//! ```

use std::fmt;

use countersign_protocol::blob::MAX_BLOB_BYTES;
use countersign_protocol::checkpoint::MAX_NOTE_BYTES;
use countersign_protocol::hash::Digest;
use countersign_protocol::proof::MAX_PROOF_HASHES;

/// Most entries of a page; that of a full C2SP tile.
pub const PAGE_ENTRIES: usize = 256;

/// A page ends before the entry whose content would make it larger: bounds the memory of a reader.
pub const PAGE_BLOB_BYTES: usize = 16 * 1024 * 1024;

/// Content of one page at most: an entry names a few blobs, and the last may pass the bound.
pub(super) const MAX_PAGE_BLOB_BYTES: usize = PAGE_BLOB_BYTES + 8 * MAX_BLOB_BYTES;

/// A page of the longest entries, with their lengths.
const MAX_PAGE_BYTES: usize = PAGE_ENTRIES * (32 * 1024 + 2);

/// What people read, and lists: a few thousand commands. The index leaves out the oldest where they
/// would pass it.
pub(crate) const MAX_TEXT_BYTES: usize = 64 * 1024 * 1024;

/// A proof: its note, and a line for each hash. All of a page are held at once.
const MAX_PROOF_BYTES: usize = MAX_NOTE_BYTES + MAX_PROOF_HASHES * 48;

/// The checkpoint, lists of what is absent and the manifest are short.
const MAX_SMALL_BYTES: usize = 4 * 1024 * 1024;

pub(super) const README: &str = "README.txt";
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const ALLOWED_SIGNERS: &str = "allowed_signers";
pub(super) const INDEX_JSON: &str = "index.json";
pub(super) const INDEX_HTML: &str = "index.html";

/// Names sort as their entries do.
pub(super) fn entries(first: u64) -> String {
    format!("entries/{first:016}")
}

pub(super) fn proof(seq: u64) -> String {
    format!("proofs/{seq:016}.tlog-proof")
}

pub(super) fn absent(first: u64) -> String {
    format!("absent/{first:016}")
}

pub(super) fn blob(digest: &Digest) -> String {
    format!("blobs/{digest}")
}

/// How large a member of this name may be.
pub(super) fn limit(name: &str) -> usize {
    match name.split_once('/') {
        Some(("entries", _)) => MAX_PAGE_BYTES,
        Some(("blobs", _)) => MAX_BLOB_BYTES + 32,
        Some(("proofs", _)) => MAX_PROOF_BYTES,
        Some(_) => MAX_SMALL_BYTES,
        None if matches!(name, MANIFEST | CHECKPOINT) => MAX_SMALL_BYTES,
        None => MAX_TEXT_BYTES,
    }
}

/// Why content that an entry names is not in the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Left out by whoever made the bundle, or never shown to them.
    Withheld,
    /// Erased from the ledger.
    Erased,
}

impl Absence {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Withheld => "withheld",
            Self::Erased => "erased",
        }
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Lines of `absent/`: digest and word, sorted, each once. Nothing when they are not that.
pub(super) fn parse_absent(text: &[u8]) -> Option<Vec<(Digest, Absence)>> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let line = |line: &str| {
        let (digest, word) = line.split_once(' ')?;
        let words = [Absence::Withheld, Absence::Erased];
        let why = words.into_iter().find(|why| why.as_str() == word)?;
        Some((digest.parse::<Digest>().ok()?, why))
    };
    let lines: Option<Vec<(Digest, Absence)>> = text.split('\n').map(line).collect();
    lines.filter(|lines| lines.is_sorted_by(|a, b| a.0 < b.0))
}

/// The page's entries, each after its length; nothing when no reader would take the page.
pub(super) fn join(entries: &[Vec<u8>]) -> Option<Vec<u8>> {
    if !(1..=PAGE_ENTRIES).contains(&entries.len()) {
        return None;
    }
    let mut page = Vec::new();
    for entry in entries {
        page.extend(u16::try_from(entry.len()).ok()?.to_be_bytes());
        page.extend_from_slice(entry);
    }
    Some(page)
}

/// The reverse of [`join`]; nothing when lengths and bytes do not agree, or a page is empty.
pub(super) fn split(page: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = page;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (len, behind) = rest.split_first_chunk::<2>()?;
        let (entry, behind) = behind.split_at_checked(u16::from_be_bytes(*len).into())?;
        entries.push(entry.to_vec());
        rest = behind;
    }
    (1..=PAGE_ENTRIES)
        .contains(&entries.len())
        .then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_has_its_bound() {
        assert_eq!(limit(&entries(0)), 8_389_120);
        assert_eq!(limit(&blob(&Digest::new([1; 32]))), 4_194_336);
        assert_eq!(limit(&proof(0)), 19_456);
        for small in [&absent(0), MANIFEST, CHECKPOINT] {
            assert_eq!(limit(small), 4_194_304, "{small}");
        }
        for text in [README, ALLOWED_SIGNERS, INDEX_JSON, INDEX_HTML] {
            assert_eq!(limit(text), 67_108_864, "{text}");
        }
        assert_eq!(PAGE_BLOB_BYTES, 16_777_216);
        assert_eq!(MAX_PAGE_BLOB_BYTES, 50_331_648);
    }

    #[test]
    fn what_is_absent_is_listed_in_order_and_once() {
        assert_eq!(absent(7), "absent/0000000000000007");
        let lines = |bytes: &[u8]| {
            let lines = bytes.iter().map(|byte| Digest::new([*byte; 32]));
            let text: String = lines.map(|digest| format!("{digest} erased\n")).collect();
            parse_absent(text.as_bytes())
        };
        assert_eq!(lines(&[1, 2]).unwrap().len(), 2);
        assert_eq!(lines(&[2, 1]), None);
        assert_eq!(lines(&[1, 1]), None);
        assert_eq!(lines(&[]), None);
    }
}
