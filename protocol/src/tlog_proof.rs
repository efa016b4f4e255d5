//! An inclusion proof as a text of its own: C2SP tlog-proof v1, without extra data.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::hash::Hash;
use crate::proof::MAX_PROOF_HASHES;

/// The first line.
const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// That an entry stands in a checkpoint's log. Nothing of it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// The entry's place.
    pub index: u64,
    /// The inclusion proof, nearest the leaf first.
    pub hashes: Vec<Hash>,
    /// The checkpoint's note.
    pub note: String,
}

/// Not a proof in its one legal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a proof as C2SP tlog-proof v1 has it, without extra data")]
pub struct NotATlogProof;

impl core::fmt::Display for TlogProof {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        writeln!(f, "{HEADER}")?;
        writeln!(f, "index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", STANDARD.encode(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.note)
    }
}

impl core::str::FromStr for TlogProof {
    type Err = NotATlogProof;

    fn from_str(text: &str) -> Result<Self, NotATlogProof> {
        let start = format!("{HEADER}\nindex ");
        let rest = text.strip_prefix(start.as_str()).ok_or(NotATlogProof)?;
        let (head, note) = rest.split_once("\n\n").ok_or(NotATlogProof)?;
        let mut lines = head.split('\n');
        let index = lines.next().and_then(|line| line.parse().ok());
        let hashes: Option<Vec<Hash>> = lines
            .take(MAX_PROOF_HASHES + 1)
            .map(|line| Hash::from_slice(&STANDARD.decode(line).ok()?))
            .collect();
        let proof = Self {
            index: index.ok_or(NotATlogProof)?,
            hashes: hashes.ok_or(NotATlogProof)?,
            note: note.to_string(),
        };
        // No sign, no leading zero, not too many hashes: one legal spelling.
        if proof.hashes.len() <= MAX_PROOF_HASHES && proof.to_string() == text {
            Ok(proof)
        } else {
            Err(NotATlogProof)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_has_one_spelling() {
        let proof = TlogProof {
            index: 5,
            hashes: alloc::vec![Hash::new([1; 32]), Hash::new([2; 32])],
            note: "example.com/log\n7\nAAAA\n\n\u{2014} example.com/log AAAA\n".into(),
        };
        let text = proof.to_string();
        assert_eq!(text.parse(), Ok(proof));
        for wrong in [
            text.replace("index 5", "index 05"),
            text.replace("index 5", "index +5"),
            text.replace("@v1", "@v2"),
            text.replace("index", "extra AAAA\nindex"),
            text.replacen("=\n", "\n", 1),
        ] {
            assert_eq!(wrong.parse::<TlogProof>(), Err(NotATlogProof), "{wrong}");
        }
    }

    #[test]
    fn a_tree_of_one_entry_needs_no_hash() {
        let text = "c2sp.org/tlog-proof@v1\nindex 0\n\nnote\n";
        let proof: TlogProof = text.parse().unwrap();
        assert_eq!((proof.index, proof.hashes.len()), (0, 0));
        assert_eq!(proof.to_string(), text);
    }
}
