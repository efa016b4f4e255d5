//! The program of a plan: found once, opened once, hashed, and run by that very descriptor.
//!
//! It owns the walk from argv\[0\] to an open file. It must not run anything. What is hashed is
//! what runs, unless someone who may write the file changes it in place in between.

use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::run::Outcome;
use super::sealed::sealed;

/// Largest program that is hashed: far above any real one, and a bound on the time before a start.
const MAX_PROGRAM_BYTES: u64 = 2 << 30;

/// Read size while hashing: large enough that system calls do not count.
const READ_BYTES: usize = 128 << 10;

/// Any of the three execute bits.
const ANY_EXECUTE: u32 = 0o111;

/// An executable file, open, with its digest.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    sha256: [u8; 32],
    script: bool,
    file: OwnedFd,
    text: Option<Text>,
}

/// What a shell is to read.
#[derive(Debug)]
struct Text {
    file: OwnedFd,
    sha256: [u8; 32],
}

/// The shell of [`Program::script`], where every Linux has one.
const SHELL: &str = "/bin/sh";

/// Why argv\[0\] names nothing that can be run.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No such file, or none of that name in the configured directories.
    #[error("{name:?} was not found; name an installed program or give its absolute path")]
    NotFound {
        /// argv\[0\] as it was asked for.
        name: PathBuf,
    },
    /// A file of that name exists, but it is a directory, not a regular file, or not executable.
    #[error("{path:?} is not an executable file; check its type and its x permission")]
    NotExecutable {
        /// The file that was found.
        path: PathBuf,
    },
    /// argv\[0\] contains a slash but is not absolute, so it would depend on the directory.
    #[error("{name:?} is a relative path; give a bare name or an absolute path")]
    Relative {
        /// argv\[0\] as it was asked for.
        name: PathBuf,
    },
    /// The file is executable, but it cannot be read and so cannot be hashed.
    #[error("{path:?} cannot be read, so what would run cannot be recorded; make it readable")]
    Unreadable {
        /// The file that was found.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The bytes of a script could not be kept in a sealed file in memory.
    #[error("the script could not be sealed in memory ({0}); see the agent's memory limits")]
    Unsealed(#[source] std::io::Error),
    /// The file is larger than what is hashed before a start.
    #[error("{path:?} is larger than {MAX_PROGRAM_BYTES} bytes, so it is not run")]
    TooLarge {
        /// The file that was found.
        path: PathBuf,
    },
}

impl ResolveError {
    /// The outcome of a run that ended here.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotFound { .. } => Outcome::NotFound,
            Self::NotExecutable { .. } => Outcome::NotExecutable,
            Self::Relative { .. }
            | Self::Unreadable { .. }
            | Self::Unsealed(_)
            | Self::TooLarge { .. } => Outcome::FailedToStart(self.to_string()),
        }
    }
}

impl Program {
    /// The same open file once more, for another step.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        let text = self.text.as_ref().map(|text| {
            let (file, sha256) = (text.file.try_clone()?, text.sha256);
            Ok::<_, std::io::Error>(Text { file, sha256 })
        });
        Ok(Self {
            path: self.path.clone(),
            sha256: self.sha256,
            script: self.script,
            file: self.file.try_clone()?,
            text: text.transpose()?,
        })
    }

    /// Finds, opens and hashes the program that `argv0` names: an absolute path as it is, a bare
    /// name in the absolute ones of `path_dirs`, in their order. Reads the whole file, so call it
    /// where blocking is allowed.
    ///
    /// # Errors
    /// [`ResolveError`], whose [`ResolveError::outcome`] is the run's outcome.
    pub fn resolve(argv0: &OsStr, path_dirs: &[PathBuf]) -> Result<Self, ResolveError> {
        let name = Path::new(argv0);
        if name.is_absolute() {
            return Self::open(name);
        }
        if argv0.is_empty() {
            return Err(ResolveError::NotFound {
                name: name.to_owned(),
            });
        }
        if argv0.as_bytes().contains(&b'/') {
            return Err(ResolveError::Relative {
                name: name.to_owned(),
            });
        }
        let mut refusal = ResolveError::NotFound {
            name: name.to_owned(),
        };
        for directory in path_dirs.iter().filter(|directory| directory.is_absolute()) {
            match Self::open(&directory.join(name)) {
                Err(ResolveError::NotFound { .. }) => {}
                // As a shell does: a later directory may hold one that can be run.
                Err(error @ ResolveError::NotExecutable { .. }) => refusal = error,
                found => return found,
            }
        }
        Err(refusal)
    }

    /// `/bin/sh` reading `text` from a sealed file in memory: of any length, in no argument list,
    /// and nobody can change it. The plan's argv follows the text's path, so argv\[1\] is `$1`.
    ///
    /// Unlike under `sh -c`, `$0` is `/proc/self/fd/7`, and the shell and what it starts find that
    /// one descriptor open besides the standard three.
    ///
    /// # Errors
    /// There is no shell that can be run, or no memory for the text.
    pub fn script(text: &[u8]) -> Result<Self, ResolveError> {
        let shell = Self::open(Path::new(SHELL))?;
        Ok(Self {
            text: Some(Text {
                file: sealed("script", text).map_err(ResolveError::Unsealed)?,
                sha256: Sha256::digest(text).into(),
            }),
            ..shell
        })
    }

    /// SHA-256 of the text that the shell reads; none when this is no [`Program::script`].
    #[must_use]
    pub fn script_sha256(&self) -> Option<&[u8; 32]> {
        self.text.as_ref().map(|text| &text.sha256)
    }

    /// The path under which the file was opened; symlinks in it were followed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the file's content when it was opened.
    #[must_use]
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Whether it begins with `#!`. The interpreter of a script is found by the kernel, opens the
    /// script as `/dev/fd/4` (its `$0`), and inherits that one descriptor.
    #[must_use]
    pub const fn is_script(&self) -> bool {
        self.script
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(super) fn text(&self) -> Option<BorrowedFd<'_>> {
        self.text.as_ref().map(|text| text.file.as_fd())
    }

    fn open(path: &Path) -> Result<Self, ResolveError> {
        let not_executable = || ResolveError::NotExecutable {
            path: path.to_owned(),
        };
        let unreadable = |source| ResolveError::Unreadable {
            path: path.to_owned(),
            source,
        };
        // Looked at before it is opened for reading, as opening a device or a pipe may act.
        let look = OFlags::PATH | OFlags::CLOEXEC;
        let file = open_file(path, look).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => ResolveError::NotFound {
                name: path.to_owned(),
            },
            _ => not_executable(),
        })?;
        let metadata = file.metadata().map_err(|_| not_executable())?;
        let itself = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let allowed = rustix::fs::accessat(CWD, &itself, Access::EXEC_OK, AtFlags::EACCESS);
        if !metadata.is_file() || metadata.mode() & ANY_EXECUTE == 0 || allowed.is_err() {
            return Err(not_executable());
        }
        if metadata.len() > MAX_PROGRAM_BYTES {
            return Err(ResolveError::TooLarge {
                path: path.to_owned(),
            });
        }
        let file = open_file(&itself, OFlags::RDONLY | OFlags::CLOEXEC)
            .map_err(|error| unreadable(error.into()))?;
        let (sha256, script) = hash(&file).map_err(unreadable)?;
        Ok(Self {
            path: path.to_owned(),
            sha256,
            script,
            file: file.into(),
            text: None,
        })
    }
}

fn open_file(path: &Path, flags: OFlags) -> Result<File, Errno> {
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// The digest of the whole file, and whether it begins as a script. The file's offset stays at the
/// start, as some interpreters (perl) read a script from the descriptor they inherit.
fn hash(file: &File) -> std::io::Result<([u8; 32], bool)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut script = None;
    let mut offset = 0_u64;
    loop {
        let length = match file.read_at(&mut buffer, offset) {
            Ok(0) => return Ok((hasher.finalize().into(), script.unwrap_or(false))),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = buffer.get(..length).unwrap_or_default();
        script.get_or_insert_with(|| read.starts_with(b"#!"));
        hasher.update(read);
        offset = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
}
