//! Which ledger a bundle is of, and how much of it. Nothing here is believed: all of it is compared
//! with what the entries and the checkpoint say.

use countersign_protocol::canonical::{self, CanonicalError};
use countersign_protocol::checkpoint::Origin;
use countersign_protocol::hash::{CommandId, LedgerId};
use serde::{Deserialize, Serialize};

/// What every manifest says it is.
const FORMAT: &str = "countersign-bundle";

/// The only version there is.
const VERSION: u64 = 1;

/// Most commands that an excerpt is about.
const MAX_COMMANDS: usize = 10_000;

/// Longest manifest in bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// How much of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Selection {
    /// All entries, from the first to the checkpoint.
    Whole,
    /// Everything on rights, and these commands; sorted, each once.
    Commands(Vec<CommandId>),
}

/// The first thing to be read in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The ledger's id.
    pub ledger: LedgerId,
    /// The origin of its checkpoints.
    pub origin: Origin,
    /// How much of it.
    pub selection: Selection,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    ledger: LedgerId,
    origin: Origin,
    selection: Selection,
    version: u64,
}

/// Its beginning, whatever the rest may be in another version.
#[derive(Deserialize)]
struct Preface {
    format: String,
    version: u64,
}

/// Why a manifest is none.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Something else.
    #[error("the manifest is none of a countersign bundle")]
    Foreign,
    /// Of another version.
    #[error(
        "the bundle is of version {0}, and this program knows version {VERSION} only: use a newer one"
    )]
    Version(u64),
    /// Not in its one legal form.
    #[error("the manifest is not in its one legal form: {0}")]
    Form(#[from] CanonicalError),
    /// Commands are not sorted, or too many.
    #[error("the manifest's commands are not sorted, or none, or over {MAX_COMMANDS}")]
    Commands,
}

impl Manifest {
    /// Reads one.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let preface: Preface = serde_json::from_slice(bytes).map_err(|_| ManifestError::Foreign)?;
        if preface.format != FORMAT {
            return Err(ManifestError::Foreign);
        }
        if preface.version != VERSION {
            return Err(ManifestError::Version(preface.version));
        }
        let document: Document = canonical::from_document(bytes, MAX_BYTES)?;
        if let Selection::Commands(commands) = &document.selection {
            let sorted = commands.is_sorted_by(|a, b| a < b);
            if !sorted || !(1..=MAX_COMMANDS).contains(&commands.len()) {
                return Err(ManifestError::Commands);
            }
        }
        Ok(Self {
            ledger: document.ledger,
            origin: document.origin,
            selection: document.selection,
        })
    }

    /// Its one legal form.
    ///
    /// # Errors
    /// Too many commands for any manifest.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        let bytes = canonical::to_vec(&Document {
            format: FORMAT.to_owned(),
            ledger: self.ledger,
            origin: self.origin.clone(),
            selection: self.selection.clone(),
            version: VERSION,
        })?;
        Self::parse(&bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_a_manifest_are_some_sorted_and_each_once() {
        let with = |bytes: &[u8]| {
            let commands = bytes.iter().map(|byte| CommandId::new([*byte; 32]));
            let manifest = Manifest {
                ledger: LedgerId::new([0; 32]),
                origin: "ledger.example.com".parse().unwrap(),
                selection: Selection::Commands(commands.collect()),
            };
            manifest.to_bytes()
        };
        assert!(with(&[1, 2]).is_ok());
        for wrong in [&[2, 1][..], &[1, 1], &[]] {
            assert!(matches!(with(wrong), Err(ManifestError::Commands)));
        }
        assert_eq!(MAX_BYTES, 4_194_304);
    }
}
