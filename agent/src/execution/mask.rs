//! Secret values taken out of what a run writes.
//!
//! It owns the search for them, across reads too. A value is found as its exact bytes, without the
//! line ends behind it; a command that prints it in another form (encoded, reversed, line by line, a
//! byte at a time on two streams) is not caught. How a value reaches a run is not decided here.

use std::collections::VecDeque;

use zeroize::{Zeroize as _, Zeroizing};

use super::secrets::Secrets;

/// What stands in the place of secret values.
pub const MASKED: &[u8] = b"***";

/// One value and how far the text before the next byte could be its beginning (Knuth, Morris and
/// Pratt): one look at a byte is enough, whatever the value and the output are.
struct Pattern {
    value: Zeroizing<Vec<u8>>,
    /// For each length of a beginning: the longest shorter beginning that it ends with.
    back: Zeroizing<Vec<usize>>,
    matched: usize,
}

impl Pattern {
    fn new(value: &[u8]) -> Self {
        let mut back = Zeroizing::new(vec![0; value.len().saturating_add(1)]);
        let mut matched = 0;
        for (at, byte) in value.iter().enumerate().skip(1) {
            while matched > 0 && value.get(matched) != Some(byte) {
                matched = back.get(matched).copied().unwrap_or(0);
            }
            if value.get(matched) == Some(byte) {
                matched = matched.saturating_add(1);
            }
            if let Some(place) = back.get_mut(at.saturating_add(1)) {
                *place = matched;
            }
        }
        Self {
            value: Zeroizing::new(value.to_vec()),
            back,
            matched: 0,
        }
    }

    fn shorter(&self) -> usize {
        self.back.get(self.matched).copied().unwrap_or(0)
    }

    /// Takes one byte; true where it completes the value.
    fn push(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.value.get(self.matched) != Some(&byte) {
            self.matched = self.shorter();
        }
        if self.value.get(self.matched) == Some(&byte) {
            self.matched = self.matched.saturating_add(1);
        }
        let complete = self.matched == self.value.len();
        if complete {
            self.matched = self.shorter();
        }
        complete
    }
}

/// One stream's search.
pub(super) struct Mask {
    patterns: Vec<Pattern>,
    /// What was read and not given out: the end of it may be the beginning of a secret.
    held: Zeroizing<Vec<u8>>,
    /// Where `held` begins in the stream.
    base: u64,
    /// What is known to be secret from `base` on: apart from each other, in order.
    found: VecDeque<(u64, u64)>,
    /// Up to here the stream is masked already.
    masked_until: u64,
    count: u64,
}

impl Mask {
    pub(super) fn new(secrets: &Secrets) -> Self {
        Self {
            patterns: secrets
                .values()
                .map(|value| Pattern::new(bare(value)))
                .collect(),
            held: Zeroizing::default(),
            base: 0,
            found: VecDeque::new(),
            masked_until: 0,
            count: 0,
        }
    }

    /// How often something was masked.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// The next bytes without secrets; none where there is nothing to look for, and the bytes are
    /// what they are. What may be the beginning of a secret is held back.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.patterns.is_empty() {
            return None;
        }
        let mut at = self.end();
        self.held.reserve(bytes.len());
        for byte in bytes {
            self.held.push(*byte);
            at = at.saturating_add(1);
            let mut begins = at;
            for pattern in &mut self.patterns {
                if pattern.push(*byte) {
                    begins = begins.min(at.saturating_sub(wide(pattern.value.len())));
                }
            }
            if begins < at {
                self.find(begins, at);
            }
        }
        let waits = self.patterns.iter().map(|pattern| pattern.matched).max();
        Some(self.give(at.saturating_sub(wide(waits.unwrap_or(0)))))
    }

    /// What was held back at the end of the stream, where nothing follows that could complete it.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        for pattern in &mut self.patterns {
            pattern.matched = 0;
        }
        self.give(self.end())
    }

    fn end(&self) -> u64 {
        self.base.saturating_add(wide(self.held.len()))
    }

    /// Secrets that overlap are masked as one, so that no end of either is left standing.
    fn find(&mut self, mut begins: u64, ends: u64) {
        while let Some((first, _)) = self.found.pop_back_if(|(_, last)| *last > begins) {
            begins = begins.min(first);
        }
        if begins < self.masked_until && self.found.is_empty() {
            self.masked_until = ends;
        } else {
            self.found.push_back((begins, ends));
        }
    }

    /// Everything up to `until`, masked.
    fn give(&mut self, until: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len());
        let mut at = self.base;
        while at < until {
            let next = self.found.front().copied();
            let stop = if at < self.masked_until {
                self.masked_until.min(until)
            } else if let Some((_, ends)) = next.filter(|(begins, _)| *begins <= at) {
                self.found.pop_front();
                out.extend_from_slice(MASKED);
                self.count = self.count.saturating_add(1);
                self.masked_until = ends;
                continue;
            } else {
                let stop = next.map_or(until, |(begins, _)| begins.min(until));
                let (from, to) = (self.narrow(at), self.narrow(stop));
                out.extend_from_slice(self.held.get(from..to).unwrap_or_default());
                stop
            };
            at = stop;
        }
        let given = self.narrow(at);
        let rest = Zeroizing::new(self.held.get(given..).unwrap_or_default().to_vec());
        self.held.zeroize();
        self.held = rest;
        self.base = at;
        out
    }

    /// A place in the stream as one in `held`.
    fn narrow(&self, at: u64) -> usize {
        usize::try_from(at.saturating_sub(self.base)).unwrap_or(usize::MAX)
    }
}

/// A value without the line ends behind it, which a command mostly prints it without; the value as it
/// is where so little would be left that it could stand anywhere.
fn bare(value: &[u8]) -> &[u8] {
    let ends = value
        .iter()
        .rev()
        .take_while(|byte| matches!(byte, b'\n' | b'\r'));
    let bare = value
        .get(..value.len().saturating_sub(ends.count()))
        .unwrap_or(value);
    if bare.len() < countersign_protocol::secret::MIN_SECRET_BYTES {
        value
    } else {
        bare
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use countersign_protocol::secret::Delivery;
    use proptest::prelude::{any, prop};
    use proptest::{prop_assert_eq, proptest};

    use super::super::secrets::Secret;
    use super::*;

    const ONE: &[u8] = b"correct horse";
    const LONGER: &[u8] = b"correct horse battery";

    fn secrets(values: &[&[u8]]) -> Secrets {
        let secret = |(at, value): (usize, &&[u8])| Secret {
            name: format!("s{at}").parse().unwrap(),
            delivery: Delivery::File,
            value: Zeroizing::new(value.to_vec()),
        };
        Secrets::new(values.iter().enumerate().map(secret).collect()).unwrap()
    }

    /// The text read in pieces of each size.
    fn masked(values: &[&[u8]], text: &[u8]) -> Vec<u8> {
        let mut all: Vec<(Vec<u8>, u64)> = Vec::new();
        for size in 1..=text.len().max(1) {
            let mut mask = Mask::new(&secrets(values));
            let mut out = Vec::new();
            for piece in text.chunks(size) {
                out.extend(mask.push(piece).unwrap());
            }
            out.extend(mask.finish());
            all.push((out, mask.count()));
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
        all.pop().unwrap().0
    }

    #[test]
    fn a_secret_is_masked_wherever_the_reads_cut_it() {
        let text = [b"<", ONE, b"> and ", ONE, ONE, b"!"].concat();
        assert_eq!(masked(&[ONE], &text), b"<***> and ******!");
        assert_eq!(
            masked(&[ONE], b"correct hors, correct"),
            b"correct hors, correct"
        );
    }

    #[test]
    fn of_two_secrets_with_one_beginning_the_longer_is_masked_whole() {
        let text = [b"a ", LONGER, b" b ", ONE, b" c"].concat();
        assert_eq!(masked(&[ONE, LONGER], &text), b"a *** b *** c");
    }

    #[test]
    fn a_secret_that_overlaps_its_own_beginning_is_found() {
        assert_eq!(masked(&[b"aaaaaaab"], b"aaaaaaaaab"), b"aa***");
        assert_eq!(masked(&[b"aaaaaaaa"], b"aaaaaaaaaaab"), b"***b");
    }

    #[test]
    fn no_end_of_two_secrets_that_overlap_is_left_standing() {
        let values: [&[u8]; 2] = [b"abcdefgh", b"efghijkl"];
        assert_eq!(masked(&values, b"<abcdefghijkl>"), b"<***>");
        // One inside the other, which ends first.
        let values: [&[u8]; 2] = [b"12345678", b"x12345678x"];
        assert_eq!(masked(&values, b"<x12345678x>"), b"<***>");
        assert_eq!(masked(&values, b"<x12345678>"), b"<x***>");
    }

    #[test]
    fn a_value_is_found_without_the_line_end_of_its_file() {
        assert_eq!(masked(&[b"password1\n"], b"'password1'\n"), b"'***'\n");
        assert_eq!(
            masked(&[b"1234567\r\n"], b"1234567, 1234567\r\n"),
            b"1234567, ***"
        );
    }

    #[test]
    fn what_was_masked_is_counted() {
        let mut mask = Mask::new(&secrets(&[ONE]));
        mask.push(&[ONE, b" and ", ONE].concat()).unwrap();
        mask.push(ONE).unwrap();
        mask.finish();
        assert_eq!(mask.count(), 3);
    }

    proptest! {
        /// Beside a search that looks at all of the text at once.
        #[test]
        fn every_byte_of_every_occurrence_is_masked(
            text in prop::collection::vec(b'a'..=b'c', 0..200),
            one in prop::collection::vec(b'a'..=b'b', 8..12),
            two in prop::collection::vec(any::<bool>(), 8..10),
            size in 1_usize..50,
        ) {
            let two: Vec<u8> = two.into_iter().map(|b| if b { b'a' } else { b'b' }).collect();
            let mut hidden = vec![None; text.len()];
            for value in [&one, &two] {
                for (at, seen) in text.windows(value.len()).enumerate() {
                    if seen == value.as_slice() {
                        hidden[at..at + value.len()].fill(Some(()));
                    }
                }
            }
            // What touches without overlapping is two; here only what is left counts.
            let left: Vec<u8> = text.iter().zip(&hidden).filter(|(_, h)| h.is_none()).map(|(b, _)| *b).collect();
            let mut mask = Mask::new(&secrets(&[&one, &two]));
            let mut out = Vec::new();
            for piece in text.chunks(size) {
                out.extend(mask.push(piece).unwrap());
            }
            out.extend(mask.finish());
            out.retain(|byte| *byte != b'*');
            prop_assert_eq!(out, left);
        }
    }
}
