//! The journal as a queue: bounded, written anew while commands run, kept through power cuts and
//! full disks. What waits is on disk only.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_agent::spool::{About, Birth, EndFacts, FILE, Record, Spool, SpoolError, Totals};
use countersign_protocol::api::{Base64, BlobBody, Submission};
use countersign_protocol::event::Outcome;
use countersign_protocol::hash::{Digest, KeyId, StatementId};

use crate::small_disk::SmallDisk;
use crate::support::at;

const COMMAND: StatementId = StatementId::new([1; 32]);
const STARTED: StatementId = StatementId::new([2; 32]);

fn submission(output: &[u8]) -> Submission {
    Submission {
        namespace: "test".into(),
        payload: Base64(vec![7; 300]),
        signature: Base64(vec![1; 100]),
        blobs: vec![BlobBody {
            salt: Base64(vec![3; 32]),
            content: Base64(output.to_vec()),
        }],
    }
}

fn chunk(number: u16, output: &[u8]) -> Record {
    let mut id = [9; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    Record::Chunk {
        started: STARTED,
        id: StatementId::new(id),
        submission: submission(output),
    }
}

fn word(about: About, id: StatementId) -> Record {
    Record::Word {
        about,
        id,
        submission: submission(b"word"),
    }
}

fn answered(id: StatementId) -> Record {
    Record::Answered { id, accepted: true }
}

fn delivered(chunks: u64) -> Record {
    Record::Delivered {
        started: STARTED,
        chunks,
    }
}

fn ended() -> Record {
    let totals = Totals {
        total: 3,
        kept: 3,
        sha256: Digest::new([5; 32]),
    };
    let facts = EndFacts {
        outcome: Outcome::Exited,
        detail: None,
        exit_code: Some(0),
        signal: None,
        duration_us: 1,
        cpu_us: 1,
        max_rss: 1,
        stdout: totals,
        stderr: totals,
        tree_gone: true,
        masked: None,
    };
    Record::Ended {
        started: STARTED,
        facts,
    }
}

fn create(folder: &Path) {
    let birth = Birth {
        key_id: KeyId::new([1; 32]),
        journal_id: "00".into(),
        created: at(1),
    };
    Spool::create(folder, &birth).unwrap();
}

/// A journal with one run under way.
fn running(folder: &Path, full: u64) -> Spool {
    create(folder);
    let spool = Spool::open_bounded(folder, full, 4096).unwrap();
    let used = Record::Used {
        command: COMMAND,
        until: at(90),
    };
    spool
        .append(vec![used, word(About::Started(COMMAND), STARTED)])
        .unwrap();
    spool.append(vec![answered(STARTED)]).unwrap();
    spool
}

/// The output that waits, chunk by chunk.
fn waiting(spool: &Spool) -> Vec<Vec<u8>> {
    let pending = spool.pending(&STARTED, usize::MAX, usize::MAX).unwrap();
    pending
        .iter()
        .map(|submission| submission.blobs[0].content.0.clone())
        .collect()
}

fn size(folder: &Path) -> u64 {
    fs::metadata(folder.join(FILE)).unwrap().len()
}

#[test]
fn written_anew_in_the_middle_of_a_run_it_keeps_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let spool = running(folder.path(), u64::MAX);
    for number in 0..8_u8 {
        let output = vec![number; 3000];
        let more = vec![number; 5];
        let records = vec![
            chunk(u16::from(number) * 2, &output),
            chunk(u16::from(number) * 2 + 1, &more),
        ];
        spool.append(records).unwrap();
    }
    spool.append(vec![delivered(13)]).unwrap();
    let other = StatementId::new([8; 32]);
    spool
        .append(vec![ended(), word(About::Refused(other), other)])
        .unwrap();
    let before = (
        waiting(&spool),
        spool.run(&STARTED),
        spool.word(),
        spool.chain(),
    );
    assert_eq!(before.0, [vec![6; 5], vec![7; 3000], vec![7; 5]]);
    let large = size(folder.path());
    assert!(spool.compact(at(50)).unwrap());
    assert!(size(folder.path()) < large / 3);
    assert!(!spool.compact(at(50)).unwrap(), "once is enough");
    let now = |spool: &Spool| {
        (
            waiting(spool),
            spool.run(&STARTED),
            spool.word(),
            spool.chain(),
        )
    };
    assert_eq!(now(&spool), before);
    drop(spool);
    let spool = Spool::open(folder.path()).unwrap();
    assert_eq!(now(&spool), before);
    assert!(spool.is_used(&COMMAND));
    // And it goes on from there.
    spool.append(vec![answered(other), delivered(3)]).unwrap();
    assert_eq!(spool.pending_count(&STARTED), 0);
    assert_eq!(spool.run(&STARTED).unwrap().chunks, 16);
}

/// Whether the file holds these bytes, as a submission has them: in base64.
fn holds(folder: &Path, text: &[u8]) -> bool {
    let coded = STANDARD.encode(text);
    let file = fs::read(folder.join(FILE)).unwrap();
    file.windows(coded.len())
        .any(|some| some == coded.as_bytes())
}

#[test]
fn what_was_delivered_does_not_stay_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let spool = running(folder.path(), u64::MAX);
    let [secret, waits] = [b"the password is hunter2".as_slice(), b"still to be told"];
    spool
        .append(vec![chunk(0, secret), chunk(1, waits)])
        .unwrap();
    // How the run began was said already, and goes.
    assert!(spool.forget(at(50)).unwrap());
    assert!(holds(folder.path(), secret), "it waits");
    spool.append(vec![delivered(1)]).unwrap();
    assert!(holds(folder.path(), secret), "delivered, and in the file");
    assert!(spool.forget(at(50)).unwrap());
    assert!(!holds(folder.path(), secret));
    assert!(holds(folder.path(), waits));
    assert!(!spool.forget(at(50)).unwrap(), "once is enough");
    spool.append(vec![delivered(1), ended()]).unwrap();
    drop(spool);
    // After a restart too, and never the grants that were used.
    let spool = Spool::open(folder.path()).unwrap();
    assert!(spool.forget(at(50)).unwrap());
    assert!(!holds(folder.path(), waits));
    assert!(spool.is_used(&COMMAND));
    assert_eq!(spool.run(&STARTED).unwrap().chunks, 2);
}

#[test]
fn a_full_journal_says_so_and_shrinks_again_after_delivery() {
    let folder = tempfile::tempdir().unwrap();
    let spool = running(folder.path(), 256 << 10);
    let mut number = 0;
    while !spool.is_full() {
        assert!(spool.has_room());
        spool.append(vec![chunk(number, &[b'x'; 8 << 10])]).unwrap();
        number += 1;
    }
    assert!(!spool.has_room() && size(folder.path()) < 300 << 10);
    assert!(!spool.compact(at(50)).unwrap(), "all of it still counts");
    // What is said of the run still fits, however full it is.
    spool.append(vec![delivered(4)]).unwrap();
    assert!(spool.is_full());
    spool
        .append(vec![delivered(u64::from(number) / 2)])
        .unwrap();
    assert!(spool.compact(at(50)).unwrap());
    assert!(spool.has_room() && !spool.is_full());
    let left = u64::from(number) - 4 - u64::from(number) / 2;
    assert_eq!(waiting(&spool).len() as u64, left);
    spool.append(vec![delivered(left), ended()]).unwrap();
    assert!(spool.compact(at(50)).unwrap());
    assert!(size(folder.path()) < 4096);
}

#[test]
fn what_was_changed_behind_its_back_is_not_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let spool = running(folder.path(), u64::MAX);
    let before = usize::try_from(size(folder.path())).unwrap();
    spool.append(vec![chunk(1, b"output")]).unwrap();
    let path = folder.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[before + 40] ^= 1;
    fs::write(&path, bytes).unwrap();
    let read = spool.pending(&STARTED, 1, 1);
    assert!(matches!(read, Err(SpoolError::Damaged { .. })));
}

/// A folder in memory where there is one: these tests open thousands of journals.
fn quick_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// A life append by append: what the file holds after each, and what the journal then says.
fn life(folder: &Path) -> Vec<(Vec<u8>, Facts)> {
    let spool = running(folder, u64::MAX);
    let done = StatementId::new([4; 32]);
    let appends = [
        vec![chunk(1, &[b'a'; 900]), chunk(2, b"b")],
        vec![delivered(1)],
        vec![chunk(3, &[0; 700])],
        vec![chunk(4, b"last"), ended()],
        vec![delivered(3)],
        vec![word(About::Completed(STARTED), done)],
        vec![answered(done)],
    ];
    let mut story = Vec::new();
    let mut now = || story.push((fs::read(folder.join(FILE)).unwrap(), facts(&spool)));
    now();
    for records in appends {
        spool.append(records).unwrap();
        now();
    }
    story
}

/// What must not be lost.
type Facts = (bool, Vec<Vec<u8>>, Option<bool>, Option<StatementId>, u64);

fn facts(spool: &Spool) -> Facts {
    let ended = spool.run(&STARTED).map(|run| run.ended.is_some());
    let word = spool.word().map(|word| word.id);
    let used = spool.is_used(&COMMAND);
    (used, waiting(spool), ended, word, spool.chain().next)
}

#[test]
fn cut_at_every_byte_of_a_life_it_says_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let story = life(folder.path());
    let other = quick_folder();
    let path = other.path().join(FILE);
    for pair in story.windows(2) {
        let [(before, known), (after, _)] = pair else {
            unreachable!()
        };
        for cut in before.len()..after.len() {
            fs::write(&path, &after[..cut]).unwrap();
            let spool = Spool::open(other.path()).unwrap();
            assert_eq!(facts(&spool), *known, "cut at {cut}");
            assert_eq!(size(other.path()), before.len() as u64, "cut at {cut}");
        }
    }
}

#[test]
fn blocks_of_the_last_append_that_were_never_written_cost_nothing_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let story = life(folder.path());
    let other = quick_folder();
    let path = other.path().join(FILE);
    let mut tried = 0;
    for pair in story.windows(2) {
        let [(before, known), (after, _)] = pair else {
            unreachable!()
        };
        for (block, garbage) in [(512, false), (512, true), (4096, false), (4096, true)] {
            // From each block's begin on, as far as this append wrote to it.
            let last = after.len() / block * block;
            let from = last.max(before.len());
            // Too little of a sector to be told from a changed byte: refused, see the ADR.
            if garbage && after.len() - from < 40 {
                continue;
            }
            let mut torn = after.clone();
            let noise = |at: usize| {
                (at as u64)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .to_be_bytes()[2]
            };
            for (at, byte) in torn.iter_mut().enumerate().skip(from) {
                *byte = if garbage { noise(at) } else { 0 };
            }
            fs::write(&path, &torn).unwrap();
            let spool = Spool::open(other.path()).unwrap();
            assert_eq!(facts(&spool), *known, "{block} {garbage} from {from}");
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn without_room_on_the_disk_nothing_is_written_by_half_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::over(folder.path(), 520) else {
        return;
    };
    let spool = running(folder.path(), u64::MAX);
    let mut number = 0_u16;
    let refused = loop {
        match spool.append(vec![chunk(number, &[b'x'; 20 << 10])]) {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SpoolError::NoRoom { .. }), "{refused}");
    assert!(number > 10 && !spool.has_room());
    assert_eq!(waiting(&spool).len(), usize::from(number));
    // Small words still fit. What was delivered makes room by itself, once its copy has room.
    let more = |number| spool.append(vec![chunk(number, &[b'y'; 20 << 10])]);
    let most = u64::from(number) - 2;
    spool.append(vec![delivered(most)]).unwrap();
    assert!(matches!(more(number), Err(SpoolError::NoRoom { .. })));
    assert_eq!(waiting(&spool), vec![vec![b'x'; 20 << 10]; 2]);
    spool.append(vec![delivered(2)]).unwrap();
    for next in 0..8 {
        // A child that another test forks holds the old file, and its room, until it executes.
        let begun = Instant::now();
        while let Err(error) = more(number + next) {
            assert!(begun.elapsed() < Duration::from_secs(2), "{error}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert!(spool.has_room());
    let expected = vec![vec![b'y'; 20 << 10]; 8];
    assert_eq!(waiting(&spool), expected);
    drop(spool);
    assert_eq!(waiting(&Spool::open(folder.path()).unwrap()), expected);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
