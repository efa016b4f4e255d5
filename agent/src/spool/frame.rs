//! Frames: how records lie on disk, and how a torn end is told from damage.
//!
//! ```text
//! "CSJ1" ‖ len u32 ‖ first 4 bytes of SHA-256(magic ‖ len) ‖ body[len] ‖ first 8 bytes of SHA-256(offset u64 ‖ body)
//! ```
//!
//! One append is one frame. Only the last frame can be torn, and a torn frame is one that the end
//! of the file cuts short, or in which sectors never written read as zeros: bodies are JSON, which
//! has no zero byte. Everything else that does not check is damage, and an error.

use sha2::{Digest as _, Sha256};

/// What every frame begins with.
const MAGIC: &[u8; 4] = b"CSJ1";

/// Bytes before the body.
const HEAD_BYTES: usize = 12;

/// Bytes after the body.
const TAIL_BYTES: usize = 8;

/// Largest body: an append holds a few output chunks at most.
pub(super) const MAX_BODY_BYTES: usize = 64 << 20;

/// A frame that neither holds nor is a torn end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged {
    /// Offset of the frame.
    pub(super) at: usize,
}

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frames<'a> {
    /// The bodies, in order.
    pub(super) bodies: Vec<&'a [u8]>,
    /// Where the last whole frame ends; what follows was torn and never counted.
    pub(super) end: usize,
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

/// Reads all frames of a file.
pub(super) fn read(file: &[u8]) -> Result<Frames<'_>, Damaged> {
    let mut bodies = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let Some(body) = read_one(file, at) else {
            return if is_torn_end(file, at) {
                Ok(Frames { bodies, end: at })
            } else {
                Err(Damaged { at })
            };
        };
        bodies.push(body);
        at += HEAD_BYTES + body.len() + TAIL_BYTES;
    }
    Ok(Frames { bodies, end: at })
}

/// The body of the frame at `at`, if the whole frame is there and checks.
fn read_one(file: &[u8], at: usize) -> Option<&[u8]> {
    let len = body_len(file.get(at..)?)?;
    let rest = file.get(at + HEAD_BYTES..)?;
    let (body, rest) = rest.split_at_checked(len)?;
    let check = rest.get(..TAIL_BYTES)?;
    (check == body_check(at as u64, body)).then_some(body)
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

/// Whether what begins at `at` can be the remains of an append that was never acknowledged.
///
/// Sectors that were never written read as zeros from a sector's begin to a sector's end. Magic
/// and body have no zero byte, so a hole shows in them or at an edge of the checks beside them.
fn is_torn_end(file: &[u8], at: usize) -> bool {
    let rest = file.get(at..).unwrap_or_default();
    if holds_later_frame(file, at) {
        return false;
    }
    let is_zero = |at: usize| rest.get(at) == Some(&0);
    let Some(head) = rest.get(..HEAD_BYTES) else {
        let magic = rest.get(..MAGIC.len().min(rest.len())).unwrap_or_default();
        return MAGIC.starts_with(magic) || magic.contains(&0);
    };
    let Some(len) = body_len(head) else {
        return is_zero(0) || is_zero(HEAD_BYTES - 1) || is_zero(HEAD_BYTES);
    };
    let tail = HEAD_BYTES + len;
    let whole = tail + TAIL_BYTES;
    let body = rest.get(HEAD_BYTES..tail.min(rest.len()));
    rest.len() < whole
        || body.unwrap_or_default().contains(&0)
        || is_zero(tail)
        || is_zero(whole - 1)
}

/// A whole frame after a broken one shows that the broken one is no end.
fn holds_later_frame(file: &[u8], at: usize) -> bool {
    let later = at.saturating_add(1);
    let Some(rest) = file.get(later..) else {
        return false;
    };
    rest.windows(MAGIC.len())
        .enumerate()
        .filter(|(_, window)| window == MAGIC)
        .any(|(index, _)| read_one(file, later.saturating_add(index)).is_some())
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
            let frames = read(&whole[..cut]).unwrap();
            let kept = ends.iter().filter(|end| **end > 0 && **end <= cut).count();
            assert_eq!(frames.bodies, &BODIES[..kept], "cut at {cut}");
            assert_eq!(frames.end, ends[kept]);
        }
    }

    #[test]
    fn a_changed_byte_is_damage_wherever_it_is() {
        let (whole, ends) = file(&BODIES);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x20;
            let frame = ends.iter().rposition(|end| *end <= at).unwrap();
            assert_eq!(read(&changed), Err(Damaged { at: ends[frame] }), "{at}");
        }
    }

    #[test]
    fn sectors_that_were_never_written_are_a_torn_end() {
        let (mut whole, ends) = file(&BODIES);
        for from in ends[2]..whole.len() {
            let mut holed = whole.clone();
            holed[from..].fill(0);
            assert_eq!(read(&holed).unwrap().end, ends[2], "zeros from {from}");
        }
        whole[ends[1]..ends[2]].fill(0);
        assert_eq!(
            read(&whole),
            Err(Damaged { at: ends[1] }),
            "a whole frame follows, so this is no end"
        );
    }

    #[test]
    fn a_frame_in_another_place_does_not_check() {
        let (whole, ends) = file(&BODIES);
        let doubled = [&whole[..], &whole[ends[2]..]].concat();
        assert_eq!(read(&doubled), Err(Damaged { at: whole.len() }));
    }
}
