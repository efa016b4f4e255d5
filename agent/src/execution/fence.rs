//! Landlock rules for one run: which paths it may reach, and what it may change.
//!
//! It owns the translation of protected paths and a profile into a ruleset, before the fork; the
//! leader only enters it. Landlock grants and never denies, and a grant covers all below a path.
//! So a protected path is left out: on the way from `/` down to it every *sibling* is granted, and
//! the directories on that way are not. What follows from that:
//!
//! * the content of a protected path cannot be read, changed, renamed, linked, created or run;
//! * in a directory that leads to it (`/`, `/etc` for `/etc/countersign`) nothing can be created,
//!   removed or renamed directly, and what others create there later is out of reach as well: the
//!   limits fail closed. Protect paths that lie in a directory of their own;
//! * names stay visible: listing directories is not restricted, or `ls /` would fail;
//! * a protected path that is not there yet cannot be created;
//! * the path is what is protected: a hard link or bind mount of it elsewhere, made before the
//!   run, leads past the fence;
//! * `stat`, `chmod`, `chown`, time stamps and extended attributes are not Landlock's business.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError,
};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::confinement::Profile;
use super::syscalls;

/// The rights are those of this version on every kernel: the first that also stops truncation.
const PINNED: ABI = ABI::V3;

/// Most paths granted for one run: directories that lead to a protected path may be large, but the
/// time before a start stays below some tenths of a second.
const MAX_GRANTS: usize = 1 << 14;

/// Devices that programs write to without changing anything.
const HARMLESS_DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];

/// Why there is no fence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FenceError {
    /// A path that does not name one place.
    #[error(
        "{path:?} cannot be fenced: it is not absolute, or contains '..'. Give its plain absolute \
         path"
    )]
    NotPlain {
        /// The path.
        path: PathBuf,
    },
    /// Everything would be out of reach.
    #[error("protecting '/' leaves nothing to run. Name what is to be protected")]
    Everything,
    /// The one writable directory is, or lies in, a protected path.
    #[error(
        "{path:?} is to be writable, but it is protected. Choose a directory outside of the \
         protected paths"
    )]
    Contradiction {
        /// The directory.
        path: PathBuf,
    },
    /// Too much lies beside the protected paths.
    #[error(
        "more than {MAX_GRANTS} entries lie beside the protected paths, so they are not fenced. \
         Move what is protected into a directory of its own"
    )]
    TooManyEntries,
    /// A path could not be looked at.
    #[error("{path:?} could not be looked at to fence the run ({source})")]
    Look {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The kernel did not take the rules.
    #[error("the kernel did not take the Landlock rules ({0})")]
    Rules(#[from] RulesetError),
}

/// The kernel's Landlock version, when it is new enough.
pub(super) fn abi() -> Option<u32> {
    syscalls::landlock_version().filter(|version| *version >= PINNED as u32)
}

/// Whether these paths make sense together; what lies beside them is not looked at yet.
pub(super) fn check(protected: &[PathBuf], profile: &Profile) -> Result<(), FenceError> {
    places(protected, profile).map(drop)
}

/// The protected paths and the writable directory, without links.
fn places(
    protected: &[PathBuf],
    profile: &Profile,
) -> Result<(Vec<PathBuf>, Option<PathBuf>), FenceError> {
    let protected = protected
        .iter()
        .map(|path| real(path))
        .collect::<Result<Vec<_>, _>>()?;
    if protected.iter().any(|path| path == Path::new("/")) {
        return Err(FenceError::Everything);
    }
    let here = match profile {
        Profile::None | Profile::ReadOnly => None,
        Profile::WriteOnlyHere(here) => Some(real(here)?),
    };
    let inside = |path: &&PathBuf| protected.iter().any(|kept| path.starts_with(kept));
    match here.as_ref().filter(inside) {
        Some(path) => Err(FenceError::Contradiction { path: path.clone() }),
        None => Ok((protected, here)),
    }
}

/// The rules, ready to be entered.
pub(super) fn ruleset(protected: &[PathBuf], profile: &Profile) -> Result<OwnedFd, FenceError> {
    let (protected, here) = places(protected, profile)?;
    // Names stay visible, so listing is not handled at all.
    let everything = AccessFs::from_all(PINNED) & !AccessFs::ReadDir;
    let reading = AccessFs::ReadFile | AccessFs::Execute;
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(everything)?
        .create()?;
    let mut fence = Fence {
        protected,
        rules: Some(rules),
        grants: 0,
    };
    let root = Path::new("/");
    match profile {
        Profile::None => fence.grant(root, everything)?,
        Profile::ReadOnly | Profile::WriteOnlyHere(_) => fence.read_only(reading)?,
    }
    if let Some(here) = here {
        fs::read_dir(&here).map_err(look(&here))?;
        fence.grant(&here, everything)?;
    }
    let made: Option<OwnedFd> = fence.rules.and_then(Into::into);
    made.ok_or_else(|| look(root)(ErrorKind::Unsupported.into()))
}

struct Fence {
    protected: Vec<PathBuf>,
    /// Always there between two calls; adding a rule takes it by value.
    rules: Option<RulesetCreated>,
    grants: usize,
}

impl Fence {
    fn read_only(&mut self, reading: BitFlags<AccessFs>) -> Result<(), FenceError> {
        self.grant(Path::new("/"), reading)?;
        for device in HARMLESS_DEVICES {
            self.grant(Path::new(device), reading | AccessFs::WriteFile)?;
        }
        Ok(())
    }

    /// Grants `access` to `path` and all below it but the protected.
    fn grant(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), FenceError> {
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            if self.protected.iter().any(|kept| path.starts_with(kept)) {
                continue;
            }
            if self.protected.iter().any(|kept| kept.starts_with(&path)) {
                // A link is no place of its own; where it leads is granted or not by its real path.
                for entry in fs::read_dir(&path).map_err(look(&path))? {
                    let entry = entry.map_err(look(&path))?;
                    open.push(entry.path());
                    if open.len() > MAX_GRANTS {
                        return Err(FenceError::TooManyEntries);
                    }
                }
                continue;
            }
            self.grant_whole(&path, access)?;
        }
        Ok(())
    }

    fn grant_whole(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), FenceError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(place) => place,
            // Gone since it was listed, or nothing this agent may reach: no grant is the safe side.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::ACCESS) => return Ok(()),
            Err(error) => return Err(look(path)(error.into())),
        };
        let stat = rustix::fs::fstat(&place).map_err(|error| look(path)(error.into()))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Symlink {
            return Ok(());
        }
        let access = if kind == FileType::Directory {
            access
        } else {
            access & AccessFs::from_file(PINNED)
        };
        self.grants = self.grants.saturating_add(1);
        if self.grants > MAX_GRANTS {
            return Err(FenceError::TooManyEntries);
        }
        if let Some(rules) = self.rules.take() {
            self.rules = Some(rules.add_rule(PathBeneath::new(place, access))?);
        }
        Ok(())
    }
}

/// The path without links, as far as it exists; what does not exist yet follows as it is written.
fn real(path: &Path) -> Result<PathBuf, FenceError> {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) {
        return Err(FenceError::NotPlain {
            path: path.to_owned(),
        });
    }
    let mut missing: Vec<&OsStr> = Vec::new();
    for known in path.ancestors() {
        match fs::canonicalize(known) {
            Ok(mut found) => {
                found.extend(missing.iter().rev());
                return Ok(found);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                missing.extend(known.file_name());
            }
            Err(error) => return Err(look(path)(error)),
        }
    }
    Err(look(path)(ErrorKind::NotFound.into()))
}

fn look(path: &Path) -> impl Fn(std::io::Error) -> FenceError {
    move |source| FenceError::Look {
        path: path.to_owned(),
        source,
    }
}
