//! A bundle written: pages in, the same checks as a verifier's on the way, readable pages at the end.
//!
//! What is written was verified first: a bundle that would not verify is not made.

use std::collections::BTreeMap;
use std::io::{self, Write};

use countersign_protocol::blob::Blob;
use countersign_protocol::hash::Digest;

use super::container::Packer;
use super::layout::{self, Absence};
use super::manifest::{Manifest, ManifestError};
use super::reader::Page;
use super::texts::README;
use crate::report::Report;
use crate::verify::{Examination, Expectations};

/// Why no bundle came out.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file cannot be written.
    #[error("the bundle cannot be written: {0}")]
    Io(#[from] io::Error),
    /// The manifest would not be one.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An entry or a page that fits into no bundle.
    #[error("the ledger has an entry that fits into no bundle")]
    Entry,
    /// A member that no reader would take.
    #[error(
        "the bundle's member {name} would have {bytes} bytes, and no reader takes more than {limit}"
    )]
    TooLarge {
        /// Which.
        name: String,
        /// Its size.
        bytes: usize,
        /// What a reader takes.
        limit: usize,
    },
}

/// Writes a bundle.
pub struct Writer<W> {
    packer: Packer<W>,
    examination: Examination,
}

impl<W: Write> Writer<W> {
    /// Writes the beginning. `note` is the checkpoint that everything is proved against.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn new(sink: W, manifest: Manifest, note: String) -> Result<Self, WriteError> {
        let mut packer = Packer::new(sink);
        put(&mut packer, layout::README, README.as_bytes())?;
        put(&mut packer, layout::MANIFEST, &manifest.to_bytes()?)?;
        put(&mut packer, layout::CHECKPOINT, note.as_bytes())?;
        // Whoever writes it knows which ledger it is of.
        let expectations = Expectations {
            ledger: Some(manifest.ledger),
            ..Expectations::default()
        };
        Ok(Self {
            packer,
            examination: Examination::new(manifest, note, &expectations),
        })
    }

    /// Writes a page, and checks it on the way.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn page(&mut self, page: Page) -> Result<(), WriteError> {
        let entries = layout::join(&page.entries).ok_or(WriteError::Entry)?;
        self.put(&layout::entries(page.first), &entries)?;
        for proof in &page.proofs {
            let name = layout::proof(proof.index);
            self.put(&name, proof.to_string().as_bytes())?;
        }
        if !page.absent.is_empty() {
            let text = absent_lines(&page.absent);
            self.put(&layout::absent(page.first), text.as_bytes())?;
        }
        self.blobs(&page.blobs)?;
        self.examination.page(page);
        Ok(())
    }

    fn put(&mut self, name: &str, content: &[u8]) -> Result<(), WriteError> {
        put(&mut self.packer, name, content)
    }

    fn blobs(&mut self, blobs: &BTreeMap<Digest, Blob>) -> Result<(), WriteError> {
        for (digest, blob) in blobs {
            let content = [blob.salt().as_slice(), blob.content()].concat();
            self.put(&layout::blob(digest), &content)?;
        }
        Ok(())
    }

    /// Writes what follows from the pages, and says what a verifier will say.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn finish(mut self) -> Result<(W, Report), WriteError> {
        let tail = self.examination.tail();
        self.put(layout::ALLOWED_SIGNERS, tail.allowed_signers.as_bytes())?;
        self.put(layout::INDEX_JSON, tail.index_json.as_bytes())?;
        self.put(layout::INDEX_HTML, tail.index_html.as_bytes())?;
        let sink = self.packer.finish()?;
        Ok((sink, self.examination.close()))
    }
}

/// Writes a member, unless readers would refuse the bundle for it.
fn put<W: Write>(packer: &mut Packer<W>, name: &str, content: &[u8]) -> Result<(), WriteError> {
    let limit = layout::limit(name);
    if content.len() > limit {
        return Err(WriteError::TooLarge {
            name: name.to_owned(),
            bytes: content.len(),
            limit,
        });
    }
    Ok(packer.put(name, content)?)
}

fn absent_lines(absent: &BTreeMap<Digest, Absence>) -> String {
    let mut text = String::new();
    for (digest, why) in absent {
        text.push_str(&format!("{digest} {why}\n"));
    }
    text
}
