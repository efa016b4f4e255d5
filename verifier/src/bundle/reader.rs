//! A bundle read page by page, in its one legal order and in bounded memory. What it says is not
//! checked here, only that it is said in the right place.

use std::collections::BTreeMap;
use std::io::Read;

use countersign_protocol::blob::Blob;
use countersign_protocol::hash::Digest;
use countersign_protocol::tlog_proof::TlogProof;

use super::container::{ContainerError, Member, Unpacker};
use super::layout::{self, Absence, MAX_PAGE_BLOB_BYTES};
use super::manifest::{Manifest, ManifestError, Selection};
use super::texts::README;

/// Why bytes are no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The words that come along are others.
    #[error("the bundle's README is not the one that countersign writes")]
    Readme,
    /// No text.
    #[error("{0} is no text")]
    NotText(String),
    /// A member is missing, or stands at the wrong place.
    #[error("the bundle should go on with {expected}, and there is {found}")]
    Order {
        /// What should be there.
        expected: String,
        /// What is.
        found: String,
    },
    /// A page whose lengths and bytes do not agree.
    #[error("{0} is no page of entries")]
    Page(String),
    /// A proof in another than its one legal form.
    #[error("{0} is no proof as C2SP tlog-proof has it")]
    Proof(String),
    /// A list of absent content that is not sorted lines.
    #[error("{0} is no list of what is absent")]
    Absent(String),
    /// Bytes that can be no blob.
    #[error("{0} holds no salt and content")]
    Blob(String),
    /// More content than a page may hold.
    #[error("a page's content is larger than any can be")]
    PageTooLarge,
}

impl BundleError {
    /// A stable word for programs; nothing when only reading failed, so that there is no verdict.
    #[must_use]
    pub const fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Container(ContainerError::Io(_)) => return None,
            Self::Container(ContainerError::CutOff) => "cut_off",
            Self::Container(_) => "bad_container",
            Self::Manifest(ManifestError::Version(_)) => "unknown_version",
            Self::Manifest(ManifestError::Foreign) => "not_a_bundle",
            Self::Manifest(_) => "bad_manifest",
            Self::Readme => "changed_readme",
            Self::NotText(_) | Self::Order { .. } => "bad_layout",
            Self::Page(_) | Self::PageTooLarge => "bad_page",
            Self::Proof(_) => "bad_proof",
            Self::Absent(_) => "bad_absent",
            Self::Blob(_) => "bad_blob",
        })
    }
}

/// Some entries in order, and what belongs to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The place of its first entry, as its name says.
    pub first: u64,
    /// The entries' bytes.
    pub entries: Vec<Vec<u8>>,
    /// One for each entry, in an excerpt; none in a whole log.
    pub proofs: Vec<TlogProof>,
    /// Content that is not here.
    pub absent: BTreeMap<Digest, Absence>,
    /// Content under the digest that its name says.
    pub blobs: BTreeMap<Digest, Blob>,
}

/// What stands behind the last page. All of it follows from the pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Everybody's keys as `ssh-keygen` reads them.
    pub allowed_signers: String,
    /// The index for programs.
    pub index_json: String,
    /// The index for people.
    pub index_html: String,
}

/// Reads a bundle.
#[derive(Debug)]
pub struct Reader<R> {
    members: Unpacker<R>,
    ahead: Option<Member>,
    manifest: Manifest,
    note: String,
}

fn text(member: Member) -> Result<String, BundleError> {
    String::from_utf8(member.content).map_err(|_| BundleError::NotText(member.name))
}

impl<R: Read> Reader<R> {
    /// Reads the beginning: what it is, of which ledger, at which size.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn open(source: R) -> Result<Self, BundleError> {
        let mut members = Unpacker::new(source);
        let mut next = |name: &str| expect(members.next(layout::limit)?, name);
        let readme = next(layout::README)?;
        let manifest = Manifest::parse(&next(layout::MANIFEST)?.content)?;
        if readme.content != README.as_bytes() {
            return Err(BundleError::Readme);
        }
        let note = text(next(layout::CHECKPOINT)?)?;
        let ahead = members.next(layout::limit)?;
        Ok(Self {
            members,
            ahead,
            manifest,
            note,
        })
    }

    /// What it says it is.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The checkpoint's note.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The next page; nothing behind the last.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn page(&mut self) -> Result<Option<Page>, BundleError> {
        let Some(member) = self.take_if(|name| name.starts_with("entries/"))? else {
            return Ok(None);
        };
        let not_a_page = || BundleError::Page(member.name.clone());
        let number = member.name.split_once('/').map(|(_, number)| number);
        let first: Option<u64> = number.and_then(|number| number.parse().ok());
        let first = first.filter(|first| layout::entries(*first) == member.name);
        let mut page = Page {
            first: first.ok_or_else(not_a_page)?,
            entries: layout::split(&member.content).ok_or_else(not_a_page)?,
            proofs: Vec::new(),
            absent: BTreeMap::new(),
            blobs: BTreeMap::new(),
        };
        if self.manifest.selection != Selection::Whole {
            self.proofs(&mut page)?;
        }
        let absent = layout::absent(page.first);
        if let Some(member) = self.take_if(|name| name == absent)? {
            let lines = layout::parse_absent(&member.content);
            page.absent = lines
                .ok_or(BundleError::Absent(absent))?
                .into_iter()
                .collect();
        }
        self.blobs(&mut page)?;
        Ok(Some(page))
    }

    fn proofs(&mut self, page: &mut Page) -> Result<(), BundleError> {
        for _entry in &page.entries {
            let Some(member) = self.take_if(|name| name.starts_with("proofs/"))? else {
                return Err(self.out_of_order("a proof for each entry"));
            };
            let name = member.name.clone();
            let proof: TlogProof = text(member)?
                .parse()
                .map_err(|_| BundleError::Proof(name.clone()))?;
            if layout::proof(proof.index) != name {
                return Err(BundleError::Proof(name));
            }
            page.proofs.push(proof);
        }
        Ok(())
    }

    fn blobs(&mut self, page: &mut Page) -> Result<(), BundleError> {
        let mut bytes = 0;
        while let Some(member) = self.take_if(|name| name.starts_with("blobs/"))? {
            let not_a_blob = || BundleError::Blob(member.name.clone());
            bytes += member.content.len();
            if bytes > MAX_PAGE_BLOB_BYTES {
                return Err(BundleError::PageTooLarge);
            }
            let (_, digest) = member.name.split_once('/').ok_or_else(not_a_blob)?;
            let digest: Digest = digest.parse().map_err(|_| not_a_blob())?;
            let parts = member.content.split_first_chunk::<32>();
            let (salt, content) = parts.ok_or_else(not_a_blob)?;
            let blob = Blob::new(*salt, content.to_vec()).map_err(|_| not_a_blob())?;
            let last = page.blobs.last_key_value().map(|(last, _)| *last);
            if last.is_some_and(|last| last >= digest) {
                return Err(not_a_blob());
            }
            page.blobs.insert(digest, blob);
        }
        Ok(())
    }

    /// What stands behind the pages, to the very end of the file.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn finish(mut self) -> Result<Tail, BundleError> {
        let mut next = |name: &str| {
            let member = self.ahead.take();
            self.ahead = self.members.next(layout::limit)?;
            text(expect(member, name)?)
        };
        let tail = Tail {
            allowed_signers: next(layout::ALLOWED_SIGNERS)?,
            index_json: next(layout::INDEX_JSON)?,
            index_html: next(layout::INDEX_HTML)?,
        };
        match self.ahead {
            None => Ok(tail),
            Some(_) => Err(self.out_of_order("nothing more")),
        }
    }

    fn take_if(&mut self, wanted: impl Fn(&str) -> bool) -> Result<Option<Member>, BundleError> {
        if !self.ahead.as_ref().is_some_and(|next| wanted(&next.name)) {
            return Ok(None);
        }
        let member = self.ahead.take();
        self.ahead = self.members.next(layout::limit)?;
        Ok(member)
    }

    fn out_of_order(&self, expected: &str) -> BundleError {
        out_of_order(self.ahead.as_ref(), expected)
    }
}

fn out_of_order(found: Option<&Member>, expected: &str) -> BundleError {
    let found = found.map_or("the end", |member| member.name.as_str());
    BundleError::Order {
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

fn expect(member: Option<Member>, name: &str) -> Result<Member, BundleError> {
    match member {
        Some(member) if member.name == name => Ok(member),
        other => Err(out_of_order(other.as_ref(), name)),
    }
}
