//! The journal: whatever a disk gives back, no whole frame before the damage is lost, nothing that
//! was not whole counts, and what is written anew says the same.

use std::cell::LazyCell;
use std::fs;
use std::path::{Path, PathBuf};

use countersign_agent::spool::{FILE, Run, Spool, SpoolError};
use countersign_protocol::api::Submission;
use countersign_protocol::name::Time;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tempfile::TempDir;

/// Bytes of a frame before its body.
const HEAD: usize = 12;

/// And behind it.
const TAIL: usize = 8;

/// A whole file.
pub fn journal(data: &[u8]) {
    with_file(data, |folder| {
        let path = folder.join(FILE);
        let (whole, frames) = whole_frames(data);
        match Spool::open(folder) {
            Ok(spool) => {
                assert!(frames > 0, "nothing whole is no journal");
                assert_eq!(spool.bytes(), whole as u64);
                assert_eq!(fs::read(&path).unwrap(), &data[..whole]);
                let torn = &data[whole..];
                let hidden = (0..torn.len()).any(|at| frame(&torn[at..], whole + at).is_some());
                assert!(!hidden, "a whole frame was taken for a torn end");
                goes_on(folder, spool);
            }
            Err(SpoolError::Damaged { at, .. }) => {
                assert_eq!(at, whole as u64, "damage is where the whole frames end");
                assert_eq!(fs::read(&path).unwrap(), data, "nothing is cut off");
            }
            Err(SpoolError::Illegal { .. }) => {
                assert_eq!(fs::read(&path).unwrap(), data, "nothing is cut off");
            }
            Err(other) => panic!("{other}"),
        }
    });
}

/// Bodies of frames, one a line; the frames around them are whole.
pub fn records(data: &[u8]) {
    let mut file = Vec::new();
    for body in data.split(|byte| *byte == b'\n') {
        wrap(&mut file, body);
    }
    journal(&file);
}

/// Opened again and written anew, it is the same journal.
fn goes_on(folder: &Path, spool: Spool) {
    let before = told(&spool);
    drop(spool);
    let spool = Spool::open_bounded(folder, u64::MAX, 0).unwrap();
    assert_eq!(told(&spool), before);
    match spool.compact(Time::from_micros(0).unwrap()) {
        Ok(_anew) => {
            assert_eq!(told(&spool), before);
            drop(spool);
            assert_eq!(told(&Spool::open(folder).unwrap()), before);
        }
        Err(error) => panic!("it was opened and cannot be written anew: {error}"),
    }
}

/// What of a run waits to be delivered.
type Pending = Vec<Arc<Submission>>;

/// All that a journal says.
fn told(spool: &Spool) -> (String, Vec<(Option<Run>, Pending)>) {
    let runs = spool.open_runs().into_iter().map(|started| {
        let pending = spool.pending(&started, usize::MAX, usize::MAX).unwrap();
        assert_eq!(pending.len(), spool.pending_count(&started));
        (spool.run(&started), pending)
    });
    let runs = runs.collect();
    let rest = (
        spool.birth(),
        spool.enrolment(),
        spool.is_accepted(),
        spool.chain(),
        spool.word(),
        spool.open_runs(),
    );
    (format!("{rest:?}"), runs)
}

/// Where the whole frames from the start on end, and how many there are: the format once more,
/// written from its description.
fn whole_frames(data: &[u8]) -> (usize, usize) {
    let (mut end, mut count) = (0, 0);
    while let Some(length) = frame(&data[end..], end) {
        end += length;
        count += 1;
    }
    (end, count)
}

/// The length of the whole frame that `data`, which stands at `at`, begins with.
fn frame(data: &[u8], at: usize) -> Option<usize> {
    // Most places are none: the dear part is only for those that look like one.
    let rest = data.strip_prefix(b"CSJ1")?;
    let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
    let body = data.get(HEAD..HEAD.checked_add(length)?)?;
    let mut whole = Vec::new();
    wrap_at(&mut whole, at, body);
    data.starts_with(&whole).then_some(whole.len())
}

fn wrap(file: &mut Vec<u8>, body: &[u8]) {
    wrap_at(file, file.len(), body);
}

fn wrap_at(file: &mut Vec<u8>, at: usize, body: &[u8]) {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let head = [&b"CSJ1"[..], &length].concat();
    file.extend_from_slice(&head);
    file.extend_from_slice(&Sha256::digest(&head)[..HEAD - 8]);
    file.extend_from_slice(body);
    let place = (at as u64).to_be_bytes();
    file.extend_from_slice(&Sha256::digest([&place[..], body].concat())[..TAIL]);
}

/// A folder in memory where there is one: a fuzzer need not wait for a disk.
fn with_file(data: &[u8], test: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDER: LazyCell<TempDir> = LazyCell::new(|| {
            let memory = PathBuf::from("/dev/shm");
            TempDir::new_in(&memory).or_else(|_| TempDir::new()).unwrap()
        });
    }
    FOLDER.with(|folder| {
        fs::write(folder.path().join(FILE), data).unwrap();
        test(folder.path());
    });
}
