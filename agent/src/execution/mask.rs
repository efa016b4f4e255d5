//! Secret values that a run was handed, taken out of what it writes.
//!
//! It owns the search for them, across reads too. A value is found as its exact bytes; a command
//! that prints it in another form (encoded, reversed, a byte at a time on two streams) is not
//! caught. How a value reaches a run is not decided here.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// What stands in the place of a secret value.
pub const MASKED: &[u8] = b"***";

/// The shortest value that is masked: shorter ones stand in ordinary output by chance, and masking
/// them would tell more than it hides.
pub const MIN_SECRET_BYTES: usize = 8;

/// The longest value: what may be held back at the end of a read.
pub const MAX_SECRET_BYTES: usize = 8 << 10;

/// Most values of one run: each is looked for at every byte.
pub const MAX_SECRETS: usize = 16;

/// Why values cannot be masked, and so must not be handed to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// Too short or too long.
    #[error(
        "a secret value has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, or it cannot be masked"
    )]
    Length,
    /// More than [`MAX_SECRETS`].
    #[error("a run is handed at most {MAX_SECRETS} secret values")]
    Number,
}

/// The values. They are wiped from memory with the run.
#[derive(Clone, Default)]
pub struct Secrets(Arc<[Zeroizing<Vec<u8>>]>);

impl Secrets {
    /// Takes the values over.
    ///
    /// # Errors
    /// A value that cannot be masked, or too many.
    pub fn new(values: Vec<Zeroizing<Vec<u8>>>) -> Result<Self, SecretsError> {
        if values.len() > MAX_SECRETS {
            return Err(SecretsError::Number);
        }
        let lengths = MIN_SECRET_BYTES..=MAX_SECRET_BYTES;
        if !values.iter().all(|value| lengths.contains(&value.len())) {
            return Err(SecretsError::Length);
        }
        Ok(Self(values.into()))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// One stream's search.
pub(super) struct Mask {
    secrets: Secrets,
    /// The end of what was read that may be the beginning of a secret.
    held: Zeroizing<Vec<u8>>,
}

impl Mask {
    pub(super) fn new(secrets: &Secrets) -> Self {
        Self {
            secrets: secrets.clone(),
            held: Zeroizing::default(),
        }
    }

    /// The next bytes without secrets; none where there is nothing to look for, and the bytes are
    /// what they are. What may be the beginning of a secret is held back.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.secrets.0.is_empty() {
            return None;
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(bytes);
        let (out, rest) = self.search(&text, true);
        self.held = Zeroizing::new(rest.to_vec());
        Some(out)
    }

    /// What was held back at the end of the stream, where nothing follows that could complete it.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let text = std::mem::take(&mut self.held);
        self.search(&text, false).0
    }

    /// The text without secrets, and its end where a secret may begin that `goes_on`.
    fn search<'a>(&self, text: &'a [u8], goes_on: bool) -> (Vec<u8>, &'a [u8]) {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((first, after)) = rest.split_first() {
            let secrets = self.secrets.0.iter();
            let begins = |secret: &&Zeroizing<Vec<u8>>| {
                secret.len() > rest.len() && secret.starts_with(rest)
            };
            if goes_on && secrets.clone().any(|secret| begins(&secret)) {
                break;
            }
            // The longest wins, so that no end of it is left standing.
            let found = secrets.filter(|secret| rest.starts_with(secret));
            if let Some(secret) = found.max_by_key(|secret| secret.len()) {
                out.extend_from_slice(MASKED);
                rest = rest.get(secret.len()..).unwrap_or_default();
            } else {
                out.push(*first);
                rest = after;
            }
        }
        (out, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"correct horse";
    const LONGER: &[u8] = b"correct horse battery";

    fn secrets(values: &[&[u8]]) -> Secrets {
        let values = values.iter().map(|value| Zeroizing::new(value.to_vec()));
        Secrets::new(values.collect()).unwrap()
    }

    /// The text read in pieces of each size.
    fn masked(values: &[&[u8]], text: &[u8]) -> Vec<u8> {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for size in 1..=text.len().max(1) {
            let mut mask = Mask::new(&secrets(values));
            let mut out = Vec::new();
            for piece in text.chunks(size) {
                out.extend(mask.push(piece).unwrap());
            }
            out.extend(mask.finish());
            all.push(out);
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
        all.pop().unwrap()
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
    }

    #[test]
    fn what_cannot_be_masked_is_no_secret() {
        let value = |length| vec![Zeroizing::new(vec![b'x'; length])];
        for length in [0, MIN_SECRET_BYTES - 1, MAX_SECRET_BYTES + 1] {
            assert_eq!(
                Secrets::new(value(length)).unwrap_err(),
                SecretsError::Length
            );
        }
        let many = vec![Zeroizing::new(vec![b'x'; 8]); MAX_SECRETS + 1];
        assert_eq!(Secrets::new(many).unwrap_err(), SecretsError::Number);
        assert_eq!(format!("{:?}", secrets(&[ONE])), "1 secrets");
    }
}
