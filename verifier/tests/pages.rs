//! How entries are cut into pages is the writer's business: the verdict is the same, and the log may
//! be longer than any page.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[macro_use]
#[path = "../../protocol/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use countersign_policy::CedarJudge;
use countersign_protocol::audit::check_entry;
use countersign_protocol::blob::Blob;
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody};
use countersign_protocol::event::{Event, StreamTotals};
use countersign_protocol::hash::{CommandId, Digest};
use countersign_protocol::proof;
use countersign_protocol::tlog_proof::TlogProof;
use countersign_verifier::bundle::{
    Manifest, PAGE_ENTRIES, Page, Reader, Selection, WriteError, Writer,
};
use countersign_verifier::{Expectations, Report, verify};
use sha2::{Digest as _, Sha256};
use support::{Book, key};

/// So many chunks of output that one command passes a page.
const CHUNKS: usize = PAGE_ENTRIES + 20;

/// A ledger with one command that says a lot.
fn long() -> &'static (Book, CommandId) {
    static LONG: LazyLock<(Book, CommandId)> = LazyLock::new(|| {
        let mut book = Book::judged_by(Arc::new(CedarJudge::new()), |_| {});
        book.enrol("web-1");
        let command = book.request("alice", &["web-1"]).unwrap();
        book.approve("bob", command).unwrap();
        book.approve("carol", command).unwrap();
        book.start("web-1", command).unwrap();
        let mut all = Vec::new();
        for number in 0..CHUNKS {
            let line = format!("line {number}\n");
            book.output("web-1", command, line.as_bytes()).unwrap();
            all.extend(line.into_bytes());
        }
        let mut event = book.complete_event("web-1", command, 0);
        if let Event::ExecutionCompleted(done) = &mut event {
            (done.stdout, done.stderr) = (totals(&all), totals(b""));
        }
        book.sign_and_append("web-1", &event).unwrap();
        (book, command)
    });
    &LONG
}

fn totals(bytes: &[u8]) -> StreamTotals {
    StreamTotals {
        total: bytes.len() as u64,
        kept: bytes.len() as u64,
        sha256: Digest::new(Sha256::digest(bytes).into()),
    }
}

fn manifest(selection: Selection) -> Manifest {
    Manifest {
        ledger: long().0.state.rights().ledger().unwrap(),
        origin: "ledger.example.com".parse().unwrap(),
        selection,
    }
}

fn note() -> String {
    let tree = &long().0.tree;
    let body = CheckpointBody {
        origin: "ledger.example.com".parse().unwrap(),
        size: tree.size(),
        root: tree.root_at(tree.size()).unwrap(),
    };
    Checkpoint::sign(body, &key("checkpoint")).note().to_owned()
}

/// The page of these entries; of an excerpt with proofs.
fn page(range: std::ops::Range<usize>, selection: &Selection) -> Page {
    let book = &long().0;
    let entries = book.entries[range.clone()].to_vec();
    let named = entries.iter().flat_map(|bytes| {
        let entry = check_entry(bytes).unwrap();
        entry.verified.event().blobs()
    });
    let blobs: BTreeMap<Digest, Blob> = named
        .map(|named| (named.digest, book.blobs[&named.digest].clone()))
        .collect();
    let first = range.start as u64;
    let seqs = range.map(|seq| seq as u64);
    let proofs = seqs.map(|index| TlogProof {
        index,
        hashes: proof::inclusion_proof(&book.tree, index, book.tree.size()).unwrap(),
        note: note(),
    });
    let is_whole = *selection == Selection::Whole;
    Page {
        first,
        proofs: if is_whole {
            Vec::new()
        } else {
            proofs.collect()
        },
        entries,
        absent: BTreeMap::new(),
        blobs,
    }
}

/// A bundle of all entries in pages of these sizes, again and again.
fn bundle(selection: &Selection, sizes: &[usize]) -> (Vec<u8>, Report) {
    let mut writer = Writer::new(Vec::new(), manifest(selection.clone()), note()).unwrap();
    let (mut first, mut sizes) = (0, sizes.iter().cycle());
    let len = long().0.entries.len();
    while first < len {
        let end = (first + sizes.next().unwrap()).min(len);
        writer.page(page(first..end, selection)).unwrap();
        first = end;
    }
    writer.finish().unwrap()
}

fn check(bytes: &[u8]) -> Report {
    let expectations = Expectations {
        ledger: long().0.state.rights().ledger(),
        ..Expectations::default()
    };
    verify(bytes, &expectations, &mut |_| {}).unwrap()
}

fn pages(bytes: &[u8]) -> usize {
    let mut reader = Reader::open(bytes).unwrap();
    let mut pages = 0;
    while reader.page().unwrap().is_some() {
        pages += 1;
    }
    pages
}

fn both() -> [Selection; 2] {
    [Selection::Whole, Selection::Commands(vec![long().1])]
}

#[test]
fn a_log_longer_than_a_page_spans_pages_and_verifies() {
    for selection in both() {
        let (bytes, _) = bundle(&selection, &[PAGE_ENTRIES]);
        assert_eq!(pages(&bytes), 2);
        let report = check(&bytes);
        assert_eq!(report.first_bad, None);
        assert!(report.pinned && report.entries > PAGE_ENTRIES as u64);
        assert_eq!((report.outputs.ok, report.outputs.partial), (2, 0));
    }
}

#[test]
fn how_entries_are_cut_into_pages_does_not_change_the_verdict() {
    for selection in both() {
        let (bytes, _) = bundle(&selection, &[PAGE_ENTRIES]);
        let verdict = check(&bytes);
        assert!(verdict.ok);
        for sizes in [&[1][..], &[2, 3, 5, 7, 11, 13], &[100], &[255, 1]] {
            let (cut, written) = bundle(&selection, sizes);
            assert_ne!(cut, bytes);
            assert_eq!(check(&cut), verdict, "{sizes:?}");
            assert_eq!(written.first_bad, None);
        }
    }
}

/// Nor the place that is named when something is wrong.
#[test]
fn a_changed_byte_is_found_at_the_same_entry_however_pages_are_cut() {
    let part = b"line 200\n";
    for selection in both() {
        let found = [&[PAGE_ENTRIES][..], &[3], &[50, 1]].map(|sizes| {
            let (mut bytes, _) = bundle(&selection, sizes);
            let at = bytes.windows(part.len()).position(|found| found == part);
            bytes[at.unwrap()] ^= 1;
            let bad = check(&bytes).first_bad.unwrap();
            (bad.name, bad.seq)
        });
        let seq = found[0].1;
        assert_eq!(found, [("other_content", seq); 3]);
        let entry = check_entry(&long().0.entries[usize::try_from(seq).unwrap()]).unwrap();
        assert_eq!(entry.verified.event().kind().as_str(), "execution.output");
    }
}

#[test]
fn a_page_that_no_reader_would_take_is_not_written() {
    let mut writer = Writer::new(Vec::new(), manifest(Selection::Whole), note()).unwrap();
    for range in [0..PAGE_ENTRIES + 1, 0..0] {
        let refused = writer.page(page(range, &Selection::Whole));
        assert!(matches!(refused, Err(WriteError::Entry)));
    }
}

#[test]
fn a_member_that_no_reader_would_take_is_not_written() {
    const LIMIT: usize = 4 * 1024 * 1024;
    let write = |bytes: usize| {
        let note = "x".repeat(bytes);
        Writer::new(Vec::new(), manifest(Selection::Whole), note).map(drop)
    };
    assert!(write(LIMIT).is_ok());
    let refused = write(LIMIT + 1).unwrap_err();
    assert!(
        matches!(&refused, WriteError::TooLarge { name, bytes, limit: LIMIT } if name == "checkpoint" && *bytes == LIMIT + 1),
        "{refused}"
    );
}
