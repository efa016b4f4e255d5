//! The state home: what this client remembers between calls, a folder for each ledger.
//!
//! Files are 0600 and replaced whole: a crash leaves the old one or the new one. What stands in
//! them is the callers' business.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use countersign_protocol::hash::LedgerId;

use crate::entropy;
use crate::failure::Failure;

/// The variable that names the state home itself.
pub const STATE_HOME_VARIABLE: &str = "COUNTERSIGN_STATE_HOME";

/// The state home, or a place in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Neither variable nor home directory.
    #[error("there is no place to remember checkpoints: HOME is not set")]
    Nowhere,
    /// Reading or writing failed.
    #[error("cannot use {path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        Self::failed("state_home", error.to_string()).hint(format!(
            "set {STATE_HOME_VARIABLE} to a folder that only you can write to"
        ))
    }
}

/// A folder that holds what is remembered of one ledger.
#[derive(Debug, Clone)]
pub struct LedgerHome(PathBuf);

/// Finds the state home: its own variable, the XDG one, else `~/.local/state/countersign`.
///
/// # Errors
/// [`HomeError::Nowhere`] when the environment names no place.
pub fn find() -> Result<PathBuf, HomeError> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable(STATE_HOME_VARIABLE)
        .or_else(|| Some(variable("XDG_STATE_HOME")?.join("countersign")))
        .or_else(|| Some(variable("HOME")?.join(".local/state/countersign")))
        .ok_or(HomeError::Nowhere)
}

impl LedgerHome {
    /// The folder of a ledger, made 0700 when it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(state_home: &Path, ledger: &LedgerId) -> Result<Self, HomeError> {
        let folder = state_home.join("ledgers").join(ledger.to_string());
        make_folder(&folder)?;
        Ok(Self(folder))
    }

    /// Where a file of this name stands.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Reads a file; none when there is none.
    ///
    /// # Errors
    /// It is there and cannot be read, or is no text.
    pub fn read(&self, name: &str) -> Result<Option<String>, HomeError> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError::Io { path, source }),
        }
    }

    /// Replaces a file whole and durably: temporary file, fsync, rename, fsync of the folder.
    ///
    /// # Errors
    /// It cannot be written; the old one is still there then.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, HomeError> {
        let path = self.path(name);
        let suffix = hex::encode(entropy::random::<8>());
        let temporary = path.with_file_name(format!(".{suffix}.new"));
        let replace = || {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(path.parent().unwrap_or(&self.0))?.sync_all()
        };
        replace().map_err(|source| {
            // What is left of a failed attempt holds nothing of value; the error stays the first.
            drop(fs::remove_file(&temporary));
            let path = path.clone();
            HomeError::Io { path, source }
        })?;
        Ok(path)
    }

    /// Keeps evidence under `evidence/`, never over anything that is there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_evidence(&self, name: &str, text: &str) -> Result<PathBuf, HomeError> {
        make_folder(&self.path("evidence"))?;
        let suffix = hex::encode(entropy::random::<4>());
        self.write(&format!("evidence/{name}-{suffix}.note"), text)
    }

    /// Waits for the folder's lock, which is held until the file is dropped.
    ///
    /// # Errors
    /// The lock file cannot be had.
    pub fn lock(&self) -> Result<File, HomeError> {
        let path = self.path("lock");
        let take = || {
            let mut options = OpenOptions::new();
            let file = options
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        take().map_err(|source| HomeError::Io {
            path: path.clone(),
            source,
        })
    }
}

fn make_folder(folder: &Path) -> Result<(), HomeError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(folder).map_err(|source| HomeError::Io {
        path: folder.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn files_are_private_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let home = LedgerHome::open(folder.path(), &LedgerId::new([7; 32])).unwrap();
        assert_eq!(home.read("note").unwrap(), None);
        home.write("note", "one").unwrap();
        let path = home.write("note", "two").unwrap();
        assert_eq!(home.read("note").unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let folder = path.parent().unwrap();
        assert_eq!(fs::metadata(folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
    }

    #[test]
    fn evidence_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let home = LedgerHome::open(folder.path(), &LedgerId::new([7; 32])).unwrap();
        let first = home.keep_evidence("received", "a").unwrap();
        let second = home.keep_evidence("received", "b").unwrap();
        assert_ne!(first, second);
        assert_eq!(fs::read_to_string(first).unwrap(), "a");
    }
}
