//! Bundles and the proofs in them: whatever somebody makes of an honest bundle, what is believed of
//! it is the honest one's.
//!
//! `bundle.tar` is a whole ledger with one command, written by `tests/bundle.rs`.

use std::sync::OnceLock;

use countersign_protocol::entry;
use countersign_protocol::hash::{CommandId, LedgerId};
use countersign_protocol::merkle::Tree;
use countersign_protocol::proof;
use countersign_protocol::tlog_proof::TlogProof;
use countersign_verifier::bundle::{Absence, Manifest, Page, Reader, Selection, Tail, Writer};
use countersign_verifier::{Expectations, Report, verify};

use crate::bytes::Bytes;

const WHOLE: &[u8] = include_bytes!("bundle.tar");

const FOLDER: &str = "countersign-bundle/";

/// Longest name in a header, its folder left out.
const MAX_NAME: usize = 100 - FOLDER.len();

/// A file in a tar.
type Member = (String, Vec<u8>);

/// A bundle that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    manifest: Manifest,
    note: String,
    pages: Vec<Page>,
    tail: Tail,
}

/// What a bundle holds; nothing when it is none.
fn read(bytes: &[u8]) -> Option<Read> {
    let mut reader = Reader::open(bytes).ok()?;
    let (manifest, note) = (reader.manifest().clone(), reader.note().to_owned());
    let mut pages = Vec::new();
    while let Some(page) = reader.page().ok()? {
        pages.push(page);
    }
    let tail = reader.finish().ok()?;
    Some(Read {
        manifest,
        note,
        pages,
        tail,
    })
}

/// The two honest ones: all of a ledger, and its one command with proofs.
fn honest() -> &'static [(Vec<u8>, Read); 2] {
    static HONEST: OnceLock<[(Vec<u8>, Read); 2]> = OnceLock::new();
    HONEST.get_or_init(|| {
        let whole = read(WHOLE).unwrap();
        let excerpt = excerpt(&whole);
        let read_excerpt = read(&excerpt).unwrap();
        let both = [(WHOLE.to_vec(), whole), (excerpt, read_excerpt)];
        for (bytes, read) in &both {
            let report = checked(bytes, Some(read.manifest.ledger));
            assert!(report.ok && report.pinned, "{report}");
        }
        both
    })
}

/// The same entries, each with a proof: all of them are on rights or on the one command.
fn excerpt(whole: &Read) -> Vec<u8> {
    let entries = whole.pages.iter().flat_map(|page| page.entries.clone());
    let entries: Vec<Vec<u8>> = entries.collect();
    let mut tree = Tree::default();
    entries
        .iter()
        .for_each(|bytes| tree.push(entry::leaf(bytes)));
    let is_request = |bytes: &&Vec<u8>| {
        let entry = entry::Entry::decode(bytes).unwrap();
        entry.statement.kind.as_str() == "command.requested"
    };
    let id = |bytes: &Vec<u8>| entry::Entry::decode(bytes).unwrap().statement.id();
    let commands: Vec<CommandId> = entries.iter().filter(is_request).map(id).collect();
    let proofs = (0..tree.size()).map(|index| TlogProof {
        index,
        hashes: proof::inclusion_proof(&tree, index, tree.size()).unwrap(),
        note: whole.note.clone(),
    });
    let blobs = whole.pages.iter().flat_map(|page| page.blobs.clone());
    let page = Page {
        first: 0,
        entries,
        proofs: proofs.collect(),
        absent: whole.pages[0].absent.clone(),
        blobs: blobs.collect(),
    };
    let manifest = Manifest {
        selection: Selection::Commands(commands),
        ..whole.manifest.clone()
    };
    let mut writer = Writer::new(Vec::new(), manifest, whole.note.clone()).unwrap();
    writer.page(page).unwrap();
    writer.finish().unwrap().0
}

/// A verdict, which is the same each time and says what it rests on.
fn checked(bytes: &[u8], ledger: Option<LedgerId>) -> Report {
    let expectations = Expectations {
        ledger,
        ..Expectations::default()
    };
    let report = verify(bytes, &expectations, &mut |_| {}).unwrap();
    assert_eq!(report.ok, report.first_bad.is_none());
    if let Some(bad) = &report.first_bad {
        assert!(!bad.name.is_empty() && !bad.reason.is_empty());
    } else {
        assert!(report.entries > 0 && report.checkpoints == 1);
        assert_eq!(report.pinned, ledger.is_some());
    }
    report
}

/// Any bytes, and an honest bundle after edits of its files. Of the ledger that a reader pins only
/// what it wrote is ever believed.
pub fn bundle(data: &[u8]) {
    assert_eq!(checked(data, None), checked(data, None), "a second verdict");
    promise(data);
    promise(&edited(data));
}

fn promise(bytes: &[u8]) {
    let ledger = honest()[0].1.manifest.ledger;
    if !checked(bytes, Some(ledger)).ok {
        return;
    }
    let said = read(bytes).unwrap();
    let (_, honest) = honest()
        .iter()
        .find(|(_, honest)| honest.manifest == said.manifest)
        .unwrap();
    assert!(said.tail == honest.tail, "other pages for people");
    // Lines of others' signatures are for those who know their keys.
    let body = |note: &str| note.split("\n\n").next().map(str::to_owned);
    assert_eq!(body(&said.note), body(&honest.note));
    let entries = |read: &Read| -> Vec<Vec<u8>> {
        read.pages
            .iter()
            .flat_map(|page| page.entries.clone())
            .collect()
    };
    assert!(entries(&said) == entries(honest), "other entries");
    let proofs = |read: &Read| -> Vec<_> {
        let all = read.pages.iter().flat_map(|page| page.proofs.clone());
        all.map(|proof| (proof.index, proof.hashes)).collect()
    };
    assert!(proofs(&said) == proofs(honest), "other proofs");
    let known = honest.pages.iter().flat_map(|page| &page.blobs);
    let known: Vec<_> = known.collect();
    for page in &said.pages {
        assert!(page.blobs.iter().all(|blob| known.contains(&blob)));
        assert!(page.absent.values().all(|why| *why == Absence::Withheld));
    }
    for (digest, _) in known {
        let mut pages = said.pages.iter();
        assert!(
            pages.any(|page| {
                page.blobs.contains_key(digest) || page.absent.contains_key(digest)
            })
        );
    }
}

/// One of the honest bundles after edits that leave every header whole.
fn edited(data: &[u8]) -> Vec<u8> {
    let mut bytes = Bytes(data);
    let mut members = unpacked(&honest()[bytes.below(2)].0);
    for _edit in 0..8 {
        if bytes.is_empty() || members.is_empty() {
            break;
        }
        edit(&mut members, &mut bytes);
    }
    packed(&members)
}

fn edit(members: &mut Vec<Member>, bytes: &mut Bytes<'_>) {
    let at = bytes.below(members.len());
    let (what, other) = (bytes.byte() % 10, bytes.below(members.len()));
    let (name, content) = members[at].clone();
    let place = bytes.pair() % (content.len() + 1);
    let end = (place + bytes.below(64)).min(content.len());
    match what {
        0 if place < content.len() => members[at].1[place] ^= bytes.byte(),
        1 => drop(members[at].1.drain(place..end)),
        2 => drop(
            members[at]
                .1
                .splice(place..place, [bytes.byte(), bytes.byte()]),
        ),
        3 => members[at].1.truncate(place),
        4 => drop(members.remove(at)),
        5 => members.insert(other, (name, content)),
        6 => members.swap(at, other),
        7 => members[at].1 = members[other].1.clone(),
        8 => members[at].0 = members[other].0.clone(),
        // A text that is said to be absent: withheld is no failure, erased is one.
        _absent => {
            let Some(digest) = name.strip_prefix("blobs/") else {
                return;
            };
            let why = ["withheld", "erased"][bytes.below(2)];
            let first = members
                .iter()
                .position(|(name, _)| name.starts_with("blobs/"));
            let list = (
                "absent/0000000000000000".to_owned(),
                format!("{digest} {why}\n"),
            );
            members.remove(at);
            members.insert(first.unwrap(), (list.0, list.1.into_bytes()));
        }
    }
}

fn unpacked(tar: &[u8]) -> Vec<Member> {
    let mut rest = tar;
    let mut members = Vec::new();
    while rest[0] != 0 {
        let text = |from: usize, len: usize| {
            let field = &rest[from..from + len];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(len);
            str::from_utf8(&field[..end]).unwrap().to_owned()
        };
        let size = usize::from_str_radix(&text(124, 12), 8).unwrap();
        let name = text(0, 100)[FOLDER.len()..].to_owned();
        members.push((name, rest[512..512 + size].to_vec()));
        rest = &rest[512 + size.next_multiple_of(512)..];
    }
    members
}

fn packed(members: &[Member]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in members {
        assert!(name.len() <= MAX_NAME);
        let mut block = [0; 512];
        let mut put = |at: usize, field: &str| {
            block[at..at + field.len()].copy_from_slice(field.as_bytes());
        };
        put(0, FOLDER);
        put(FOLDER.len(), name);
        put(100, "0000644\x000000000\x000000000\0");
        put(
            124,
            &format!("{:011o}\x0000000000000\0        0", content.len()),
        );
        put(257, "ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend(block);
        tar.extend(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// A proof as a text: what is read has one spelling, and proves nothing but its entry's place.
pub fn tlog_proof(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let Ok(read) = text.parse::<TlogProof>() else {
        return;
    };
    assert_eq!(read.to_string(), text);
    assert_eq!(read.to_string().parse(), Ok(read.clone()));
    let (_, excerpt) = &honest()[1];
    let page = &excerpt.pages[0];
    let size = u64::try_from(page.entries.len()).unwrap();
    let mut tree = Tree::default();
    let leaves = page.entries.iter().map(|bytes| entry::leaf(bytes));
    leaves.for_each(|leaf| tree.push(leaf));
    let root = tree.root_at(size).unwrap();
    for (bytes, own) in page.entries.iter().zip(&page.proofs) {
        let leaf = entry::leaf(bytes);
        let proves = proof::verify_inclusion(&leaf, read.index, size, &read.hashes, &root).is_ok();
        let same = read.index == own.index && read.hashes == own.hashes;
        assert_eq!(proves, same, "entry {}", own.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_honest_bundle_is_packed_again_as_it_was_and_believed() {
        for (bytes, _) in honest() {
            assert_eq!(packed(&unpacked(bytes)), *bytes);
            promise(bytes);
        }
    }

    #[test]
    fn some_edits_are_believed_and_most_are_not() {
        let believed = |data: &[u8]| {
            let ledger = honest()[0].1.manifest.ledger;
            checked(&edited(data), Some(ledger)).ok
        };
        assert!(believed(&[0]) && believed(&[1]));
        let blob = |which: usize| {
            let members = unpacked(&honest()[which].0);
            members
                .iter()
                .position(|(name, _)| name.starts_with("blobs/"))
        };
        let blob = u8::try_from(blob(0).unwrap()).unwrap();
        assert!(!believed(&[0, blob, 9, 0, 0, 0, 0, 1]));
        assert!(!believed(&[0, blob, 0, 0, 0, 40, 0, 1]));
        assert!(!believed(&[1, blob, 4]));
    }
}
