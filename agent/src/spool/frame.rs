//! Frames: how records lie on disk, and how a torn end is told from damage.
//!
//! ```text
//! "CSJ1" ‖ len u32 ‖ first 4 bytes of SHA-256(magic ‖ len) ‖ body[len] ‖ first 8 bytes of SHA-256(offset u64 ‖ body)
//! ```
//!
//! One append is one frame. Only the last frame can be torn, and a torn frame is one that the end
//! of the file cuts short, or in which sectors never written read as zeros or as what lay there
//! before: bodies are printable ASCII. Everything else that does not check is damage, and an error.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use sha2::{Digest as _, Sha256};

/// What every frame begins with.
const MAGIC: &[u8; 4] = b"CSJ1";

/// Bytes before the body.
const HEAD_BYTES: usize = 12;

/// Bytes after the body.
const TAIL_BYTES: usize = 8;

/// Largest body: an append holds a few output chunks at most.
pub(super) const MAX_BODY_BYTES: usize = 64 << 20;

/// So many bytes that no body holds are a sector that was not ours; fewer are damage. Of a sector
/// of arbitrary bytes about three in five are such, so sixteen bytes of one already show it.
const FOREIGN_BYTES: usize = 8;

/// Why frames cannot be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The disk.
    Io(io::Error),
    /// What begins at this offset neither holds nor is a torn end.
    Damaged(u64),
}

/// Reads the frames of a file one after another, so that only one is in memory.
#[derive(Debug)]
pub(super) struct Frames<R> {
    file: R,
    end: u64,
}

impl<R: Read> Frames<R> {
    /// The frames of a file that is read from its beginning.
    pub(super) const fn new(file: R) -> Self {
        Self { file, end: 0 }
    }

    /// Where the last whole frame ended. What follows at the end of the file was torn, and never
    /// counted.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// The next body and the offset of its frame; none at the end, torn or not.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, ReadError> {
        let mut bytes = Vec::new();
        self.read(HEAD_BYTES as u64, &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let at = self.end;
        if let Some(len) = body_len(&bytes) {
            self.read((len + TAIL_BYTES) as u64, &mut bytes)?;
            if let Some(body) = read_one(&bytes, at) {
                let body = body.to_vec();
                self.end = at.saturating_add(bytes.len() as u64);
                return Ok(Some((at, body)));
            }
        }
        self.read(u64::MAX, &mut bytes)?;
        if is_torn_end(&bytes, at) {
            Ok(None)
        } else {
            Err(ReadError::Damaged(at))
        }
    }

    fn read(&mut self, most: u64, into: &mut Vec<u8>) -> Result<(), ReadError> {
        let mut part = self.file.by_ref().take(most);
        part.read_to_end(into).map(drop).map_err(ReadError::Io)
    }
}

/// Reads the frame at `offset` once more; it was whole before.
pub(super) fn read_again(file: &File, offset: u64, body_len: u32) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; HEAD_BYTES + body_len as usize + TAIL_BYTES];
    file.read_exact_at(&mut bytes, offset)
        .map_err(ReadError::Io)?;
    let body = read_one(&bytes, offset).ok_or(ReadError::Damaged(offset))?;
    Ok(body.to_vec())
}

/// Wraps a body for the offset at which it will stand; none when it is too large.
pub(super) fn wrap(offset: u64, body: &[u8]) -> Option<Vec<u8>> {
    if body.len() > MAX_BODY_BYTES {
        return None;
    }
    let len = u32::try_from(body.len()).ok()?;
    let mut frame = Vec::with_capacity(HEAD_BYTES + body.len() + TAIL_BYTES);
    frame.extend_from_slice(MAGIC);
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&head_check(len));
    frame.extend_from_slice(body);
    frame.extend_from_slice(&body_check(offset, body));
    Some(frame)
}

/// What a body takes up with its frame.
pub(super) const fn size(body: &[u8]) -> u64 {
    (HEAD_BYTES + body.len() + TAIL_BYTES) as u64
}

/// The body of the frame that `bytes` begin with, if the whole frame is there and checks at `at`.
fn read_one(bytes: &[u8], at: u64) -> Option<&[u8]> {
    let len = body_len(bytes)?;
    let rest = bytes.get(HEAD_BYTES..)?;
    let (body, rest) = rest.split_at_checked(len)?;
    let check = rest.get(..TAIL_BYTES)?;
    (check == body_check(at, body)).then_some(body)
}

/// The length that a head gives, if the head checks.
fn body_len(frame: &[u8]) -> Option<usize> {
    let rest = frame.strip_prefix(MAGIC)?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let len = u32::from_be_bytes(*len);
    let check = rest.get(..4)?;
    let sane = len as usize <= MAX_BODY_BYTES;
    (sane && check == head_check(len)).then_some(len as usize)
}

/// Whether `rest`, all that the file holds from `at` on, can be the remains of an append that was
/// never acknowledged.
///
/// Sectors that were never written read as zeros, or as what lay there before, from a sector's
/// begin to a sector's end. Magic and body have no zero byte, so a hole shows in them or at an edge
/// of the checks beside them; what lay there before shows in the body.
fn is_torn_end(rest: &[u8], at: u64) -> bool {
    if holds_later_frame(rest, at) {
        return false;
    }
    let is_zero = |at: usize| rest.get(at) == Some(&0);
    let Some(head) = rest.get(..HEAD_BYTES) else {
        let magic = rest.get(..MAGIC.len().min(rest.len())).unwrap_or_default();
        return MAGIC.starts_with(magic) || magic.contains(&0);
    };
    let Some(len) = body_len(head) else {
        let body = rest.get(HEAD_BYTES..rest.len().saturating_sub(TAIL_BYTES));
        return is_zero(0)
            || is_zero(HEAD_BYTES - 1)
            || is_zero(HEAD_BYTES)
            || is_foreign(body.unwrap_or_default());
    };
    let tail = HEAD_BYTES + len;
    let whole = tail + TAIL_BYTES;
    let body = rest
        .get(HEAD_BYTES..tail.min(rest.len()))
        .unwrap_or_default();
    rest.len() < whole
        || body.contains(&0)
        || is_zero(tail)
        || is_zero(whole - 1)
        || is_foreign(body)
}

/// Bodies are JSON of hex, base64 and plain words: printable ASCII throughout.
fn is_foreign(body: &[u8]) -> bool {
    let foreign = |byte: &&u8| !(b' '..=b'~').contains(*byte);
    body.iter().filter(foreign).take(FOREIGN_BYTES).count() == FOREIGN_BYTES
}

/// A whole frame after a broken one shows that the broken one is no end.
fn holds_later_frame(rest: &[u8], at: u64) -> bool {
    rest.windows(MAGIC.len())
        .enumerate()
        .skip(1)
        .filter(|(_, window)| window == MAGIC)
        .any(|(index, _)| {
            let later = rest.get(index..).unwrap_or_default();
            read_one(later, at.saturating_add(index as u64)).is_some()
        })
}

fn head_check(len: u32) -> [u8; 4] {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(MAGIC)
        .chain_update(len.to_be_bytes())
        .finalize()
        .into();
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

/// Binds the body to its place, so that a frame copied elsewhere does not check.
fn body_check(offset: u64, body: &[u8]) -> [u8; TAIL_BYTES] {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(offset.to_be_bytes())
        .chain_update(body)
        .finalize()
        .into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All bodies and where they end, or where the damage is.
    fn read(mut file: &[u8]) -> Result<(Vec<Vec<u8>>, usize), u64> {
        let mut frames = Frames::new(&mut file);
        let mut bodies = Vec::new();
        loop {
            match frames.next() {
                Ok(Some((_, body))) => bodies.push(body),
                Ok(None) => return Ok((bodies, usize::try_from(frames.end()).unwrap())),
                Err(ReadError::Damaged(at)) => return Err(at),
                Err(ReadError::Io(error)) => panic!("{error}"),
            }
        }
    }

    fn file(bodies: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let mut file = Vec::new();
        let mut ends = vec![0];
        for body in bodies {
            let frame = wrap(file.len() as u64, body).unwrap();
            file.extend(frame);
            ends.push(file.len());
        }
        (file, ends)
    }

    const BODIES: [&[u8]; 3] = [b"[1]", b"[\"two\",2]", b"[{\"three\":3}]"];

    #[test]
    fn cut_at_any_byte_leaves_exactly_the_whole_frames() {
        let (whole, ends) = file(&BODIES);
        for cut in 0..=whole.len() {
            let (bodies, end) = read(&whole[..cut]).unwrap();
            let kept = ends.iter().filter(|end| **end > 0 && **end <= cut).count();
            assert_eq!(bodies, &BODIES[..kept], "cut at {cut}");
            assert_eq!(end, ends[kept]);
        }
    }

    #[test]
    fn a_changed_byte_is_damage_wherever_it_is() {
        let (whole, ends) = file(&BODIES);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x20;
            let frame = ends.iter().rposition(|end| *end <= at).unwrap();
            assert_eq!(read(&changed), Err(ends[frame] as u64), "{at}");
        }
    }

    #[test]
    fn sectors_that_were_never_written_are_a_torn_end() {
        let (mut whole, ends) = file(&BODIES);
        for from in ends[2]..whole.len() {
            let mut holed = whole.clone();
            holed[from..].fill(0);
            assert_eq!(read(&holed).unwrap().1, ends[2], "zeros from {from}");
        }
        whole[ends[1]..ends[2]].fill(0);
        assert_eq!(
            read(&whole),
            Err(ends[1] as u64),
            "a whole frame follows, so this is no end"
        );
    }

    #[test]
    fn a_frame_in_another_place_does_not_check() {
        let (whole, ends) = file(&BODIES);
        let doubled = [&whole[..], &whole[ends[2]..]].concat();
        assert_eq!(read(&doubled), Err(whole.len() as u64));
    }

    #[test]
    fn sectors_that_hold_what_lay_there_before_are_a_torn_end() {
        let long = vec![b'x'; 4000];
        let (whole, ends) = file(&[BODIES[0], &long]);
        let foreign = |at: usize| Sha256::digest(at.to_be_bytes())[0];
        // From any byte of the last frame's body on, as long as enough of it is foreign.
        for from in (ends[1]..whole.len() - 64).step_by(97) {
            for to in [whole.len(), (from + 512).min(whole.len())] {
                let mut torn = whole.clone();
                for (at, byte) in torn.iter_mut().enumerate().take(to).skip(from) {
                    *byte = foreign(at);
                }
                assert_eq!(read(&torn).unwrap().1, ends[1], "{from} to {to}");
            }
        }
        let mut torn = whole;
        torn[3..20].fill(0xff);
        assert_eq!(read(&torn), Err(0), "a whole frame follows");
    }
}
