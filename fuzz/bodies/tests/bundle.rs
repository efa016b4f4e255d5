//! Makes `src/bundle.tar`, a whole ledger with one command, from the protocol's ledger in memory.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use countersign_policy::CedarJudge;
use countersign_protocol::audit::check_entry;
use countersign_protocol::blob::Blob;
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody};
use countersign_protocol::event::{Event, StreamTotals};
use countersign_protocol::hash::Digest;
use countersign_verifier::bundle::{Manifest, Page, Selection, Writer};
use sha2::{Digest as _, Sha256};

#[macro_use]
#[path = "../../../protocol/tests/support/mod.rs"]
mod support;

use support::{Book, key};

/// alice asks web-1, bob and carol approve, it runs and says hello.
fn told() -> Book {
    let mut book = Book::judged_by(Arc::new(CedarJudge::new()), |_| {});
    book.enrol("web-1");
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    book.start("web-1", command).unwrap();
    book.output("web-1", command, b"hello\n").unwrap();
    let mut event = book.complete_event("web-1", command, 0);
    if let Event::ExecutionCompleted(done) = &mut event {
        done.stdout = totals(b"hello\n");
        done.stderr = totals(b"");
    }
    book.sign_and_append("web-1", &event).unwrap();
    book
}

fn totals(bytes: &[u8]) -> StreamTotals {
    let len = u64::try_from(bytes.len()).unwrap();
    StreamTotals {
        total: len,
        kept: len,
        sha256: Digest::new(Sha256::digest(bytes).into()),
    }
}

/// In pages of eight entries, so that there are two.
fn bundle(book: &Book) -> Vec<u8> {
    let size = book.tree.size();
    let body = CheckpointBody {
        origin: "ledger.example.com".parse().unwrap(),
        size,
        root: book.tree.root_at(size).unwrap(),
    };
    let manifest = Manifest {
        ledger: book.state.rights().ledger().unwrap(),
        origin: body.origin.clone(),
        selection: Selection::Whole,
    };
    let note = Checkpoint::sign(body, &key("checkpoint")).note().to_owned();
    let mut writer = Writer::new(Vec::new(), manifest, note).unwrap();
    for (first, entries) in (0..).step_by(8).zip(book.entries.chunks(8)) {
        let named = entries.iter().flat_map(|bytes| {
            let entry = check_entry(bytes).unwrap();
            entry.verified.event().blobs()
        });
        let blob = |digest: Digest| (digest, book.blobs[&digest].clone());
        let blobs: BTreeMap<Digest, Blob> = named.map(|named| blob(named.digest)).collect();
        let page = Page {
            first,
            entries: entries.to_vec(),
            proofs: Vec::new(),
            absent: BTreeMap::new(),
            blobs,
        };
        writer.page(page).unwrap();
    }
    let (bytes, report) = writer.finish().unwrap();
    assert!(report.ok, "{report}");
    bytes
}

#[test]
fn the_bundle_is_the_one_that_the_ledger_in_memory_tells() {
    assert!(
        bundle(&told()) == include_bytes!("../src/bundle.tar"),
        "run: cargo test -p countersign-fuzz-bodies --test bundle -- --ignored write"
    );
}

#[test]
#[ignore = "writes the bundle anew after a decided change of the format"]
fn write_the_bundle() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle.tar");
    fs::write(path, bundle(&told())).unwrap();
}
