//! Secret values that a run is handed: held, delivered, and taken away again.
//!
//! It owns the folder in memory in which a run finds those that come as files. The folder is on
//! tmpfs and nowhere else: what is written there reaches no disk but by swapping. It is gone before
//! the end of its run is told, and what a crash left there is gone before anything runs again. Where
//! values come from, and whether a run may have them, is not decided here.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_protocol::secret::{
    Delivery, MAX_SECRET_BYTES, MAX_SECRETS, MIN_SECRET_BYTES, SecretName,
};
use rustix::fs::{Gid, Uid};
use rustix::mount::{MountFlags, UnmountFlags};
use zeroize::Zeroizing;

/// The variable that says in which folder the files are.
pub const SECRETS_VARIABLE: &str = "COUNTERSIGN_SECRETS";

/// Where a folder in memory is looked for: what a system keeps there is gone at its next start.
const MEMORY_FOLDERS: &[&str] = &["/run", "/dev/shm"];

/// What `statfs` calls a file system that is memory only.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Room of one run's own file system: 16 files of 64 KiB, twice, so that a run cannot fill the
/// host's memory by way of it.
const MOUNT_SIZE: &str = "size=2m,nr_inodes=64,mode=0700";

/// Wiping writes this much at a time.
const WIPE_BYTES: usize = 4096;

/// And this much of one file: no value is longer. What its run wrote behind it, or a length without
/// content (`truncate -s 8E`), would have the agent fill the host's memory, outside of the run's limits.
const WIPE_MOST: u64 = MAX_SECRET_BYTES as u64;

/// Tells the folders of one agent's runs apart.
static NEXT_FOLDER: AtomicU64 = AtomicU64::new(0);

/// Why values cannot be handed to a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// Too short or too long.
    #[error(
        "a secret value has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, or it cannot be masked"
    )]
    Length,
    /// More than [`MAX_SECRETS`].
    #[error("a run is handed at most {MAX_SECRETS} secret values")]
    Number,
    /// No variable can have it.
    #[error("the secret {0} is to be a variable and has a NUL byte")]
    Nul(SecretName),
}

/// One value. It is wiped from memory with the last who holds it.
pub struct Secret {
    /// What it is called: the name of its file or variable.
    pub name: SecretName,
    /// How the run gets it.
    pub delivery: Delivery,
    /// The bytes.
    pub value: Zeroizing<Vec<u8>>,
}

/// The values of one run.
#[derive(Clone, Default)]
pub struct Secrets(Arc<[Secret]>);

impl Secrets {
    /// Takes the values over.
    ///
    /// # Errors
    /// One that cannot be masked or delivered, or too many.
    pub fn new(values: Vec<Secret>) -> Result<Self, SecretsError> {
        if values.len() > MAX_SECRETS {
            return Err(SecretsError::Number);
        }
        let lengths = MIN_SECRET_BYTES..=MAX_SECRET_BYTES;
        for secret in &values {
            if !lengths.contains(&secret.value.len()) {
                return Err(SecretsError::Length);
            }
            if secret.delivery == Delivery::Env && secret.value.contains(&0) {
                return Err(SecretsError::Nul(secret.name.clone()));
            }
        }
        Ok(Self(values.into()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them is to be a file.
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.by(Delivery::File).next().is_some()
    }

    /// Those that are to become variables.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&OsStr, &[u8])> {
        let variables = self.by(Delivery::Env);
        variables.map(|secret| (OsStr::new(secret.name.as_str()), secret.value.as_slice()))
    }

    /// The one that stands on standard input.
    pub(super) fn stdin(&self) -> Option<&[u8]> {
        let mut given = self.by(Delivery::Stdin);
        given.next().map(|secret| secret.value.as_slice())
    }

    /// The values themselves.
    pub(super) fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|secret| secret.value.as_slice())
    }

    fn by(&self, delivery: Delivery) -> impl Iterator<Item = &Secret> {
        let is_so = move |secret: &&Secret| secret.delivery == delivery;
        self.0.iter().filter(is_so)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// Why files of secrets cannot be delivered on this host.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// No folder in memory.
    #[error(
        "this host has no folder in memory that the agent can use: /run and /dev/shm are no tmpfs, or not writable for it"
    )]
    NoMemory,
    /// Somebody else was there first.
    #[error("{path} belongs to another user; remove it, and start the agent again", path = .0.display())]
    Squatted(PathBuf),
    /// A file or folder.
    #[error("{path} cannot be used: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The agent's folder in memory, in which each run that is handed files gets one of its own.
#[derive(Debug)]
pub struct SecretsPlace {
    folder: PathBuf,
}

impl SecretsPlace {
    /// Makes the folder `name` in memory, and wipes what an earlier process left in it.
    ///
    /// # Errors
    /// See [`PlaceError`]; nothing can be delivered as a file then.
    pub fn prepare(name: &str) -> Result<Self, PlaceError> {
        for base in MEMORY_FOLDERS {
            let base = Path::new(base);
            if !is_in_memory(base) {
                continue;
            }
            let folder = base.join(name);
            // Everybody may pass through, to the one folder that is theirs; nobody may look.
            match DirBuilder::new().mode(0o711).create(&folder) {
                Ok(()) => return Ok(Self { folder }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let place = Self::taken_over(folder)?;
                    place.sweep()?;
                    return Ok(place);
                }
                // Another one may be ours to write in.
                Err(_) => {}
            }
        }
        Err(PlaceError::NoMemory)
    }

    /// The folder that an earlier process of this agent made; nobody else's.
    fn taken_over(folder: PathBuf) -> Result<Self, PlaceError> {
        let found = fs::symlink_metadata(&folder).map_err(|source| PlaceError::File {
            path: folder.clone(),
            source,
        })?;
        let own = found.uid() == rustix::process::geteuid().as_raw();
        if found.is_dir() && own && found.permissions().mode() & 0o022 == 0 {
            Ok(Self { folder })
        } else {
            Err(PlaceError::Squatted(folder))
        }
    }

    /// Wipes and removes what lies in the folder: whoever ran as this agent's user, or as root, may have
    /// left anything there. One thing that does not go keeps no other from being wiped.
    fn sweep(&self) -> Result<(), PlaceError> {
        let failed = |source| PlaceError::File {
            path: self.folder.clone(),
            source,
        };
        let mut swept = Ok(());
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let removed = entry.and_then(|entry| {
                let path = entry.path();
                tracing::warn!(path = %path.display(), "secrets of a run that an earlier agent did not end are wiped");
                // A link to a folder is none: what it leads to is somebody else's.
                if !entry.file_type()?.is_dir() {
                    return take_away(&path);
                }
                for file in fs::read_dir(&path).into_iter().flatten().flatten() {
                    // One by one, so that wiped files never lie there all at once.
                    let _ = take_away(&file.path());
                }
                remove(&path)
            });
            swept = swept.and(removed.map_err(failed));
        }
        swept
    }

    /// The folder itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the files of `secrets` into a folder that only `owner` can enter; the agent's own
    /// user where there is no other.
    pub(super) fn deliver(
        &self,
        secrets: &Secrets,
        owner: Option<(u32, u32)>,
    ) -> io::Result<Delivered> {
        let number = NEXT_FOLDER.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(number.to_string());
        DirBuilder::new().mode(0o700).create(&path)?;
        // From here on it is removed, however this goes on.
        let mut delivered = Delivered {
            path,
            files: Vec::new(),
        };
        // Only root may; without it the folder that it would lie over is as good, but for its room.
        mount(&delivered.path);
        for secret in secrets.by(Delivery::File) {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(NOT_THROUGH_LINKS)
                .open(delivered.path.join(secret.name.as_str()))?;
            file.write_all(&secret.value)?;
            if let Some((uid, gid)) = owner {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                rustix::fs::fchown(&file, Some(uid), Some(gid))?;
            }
            delivered.files.push(file);
        }
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(&delivered.path, Some(uid), Some(gid))?;
        }
        Ok(delivered)
    }
}

/// An agent that ends leaves nothing behind; a folder in which a run is left stays.
impl Drop for SecretsPlace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// `O_NOFOLLOW`.
const NOT_THROUGH_LINKS: i32 = libc::O_NOFOLLOW;

/// The files of one run. Dropping it wipes and removes them.
pub(super) struct Delivered {
    path: PathBuf,
    /// Held open, so that what is wiped is what was written and nothing that took its place.
    files: Vec<File>,
}

impl Delivered {
    pub(super) fn folder(&self) -> &Path {
        &self.path
    }
}

impl Drop for Delivered {
    fn drop(&mut self) {
        self.files.iter().for_each(wipe);
        if let Err(error) = remove(&self.path) {
            let path = self.path.display();
            tracing::error!(%path, %error, "wiped secrets cannot be removed; the next start tries again");
        }
    }
}

fn is_in_memory(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
}

/// Lays a file system of its own over the folder, which is not swapped where the kernel can that.
fn mount(folder: &Path) {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = [format!("{MOUNT_SIZE},noswap"), MOUNT_SIZE.to_owned()];
    let _ = options.into_iter().any(|options| {
        let options = std::ffi::CString::new(options).unwrap_or_default();
        rustix::mount::mount(c"tmpfs", folder, c"tmpfs", flags, Some(options.as_c_str())).is_ok()
    });
}

/// Wipes what lies there, if it is a file, and removes its name.
fn take_away(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // A FIFO without a reader would hold the agent's start up for ever.
    let flags = NOT_THROUGH_LINKS | libc::O_NONBLOCK;
    if let Ok(file) = options.write(true).custom_flags(flags).open(path) {
        wipe(&file);
    }
    fs::remove_file(path)
}

/// Zeros over what the file holds, as far as a value can go.
fn wipe(file: &File) {
    let Ok(found) = file.metadata() else {
        return;
    };
    if !found.is_file() {
        return;
    }
    let (mut file, zeros) = (file, [0; WIPE_BYTES]);
    let mut left = found.len().min(WIPE_MOST);
    // A file of no more room is wiped as far as that goes, and removed next.
    if file.rewind().is_err() {
        return;
    }
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(WIPE_BYTES).min(WIPE_BYTES);
        if file
            .write_all(zeros.get(..piece).unwrap_or_default())
            .is_err()
        {
            return;
        }
        left = left.saturating_sub(u64::try_from(piece).unwrap_or(u64::MAX));
    }
}

/// Takes away the file system of a run's folder, if it has one, and the folder.
fn remove(folder: &Path) -> io::Result<()> {
    // What lies in a file system of its own is gone with it; else there is nothing to take away.
    let _ = rustix::mount::unmount(folder, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    fs::remove_dir_all(folder)
}
