//! Where dev and demo keep their things, and which file is what.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use countersign_protocol::name::Time;

/// Names another place for all data of dev and demo.
const HOME_VARIABLE: &str = "COUNTERSIGN_HOME";

/// The files of one dev or demo.
#[derive(Debug, Clone)]
pub(super) struct Home(PathBuf);

impl Home {
    /// Makes the folder, or takes one that is there. Others may pass through it, as the account
    /// that runs Postgres must, but not look into it; what is secret has modes of its own.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let folder = std::path::absolute(folder)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&folder)?;
        let found = fs::metadata(&folder)?;
        let ours = found.uid() == rustix::process::geteuid().as_raw();
        if ours && found.mode() & 0o001 == 0 {
            let mode = found.permissions().mode() | 0o011;
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode))?;
        }
        let home = Self(folder);
        for private in [home.keys(), home.ledger_keys(), home.agent(), home.client()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(private)?;
        }
        Ok(home)
    }

    /// The folder itself.
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The private Postgres.
    #[must_use]
    pub(super) fn postgres(&self) -> PathBuf {
        self.0.join("postgres")
    }

    /// The people's SSH keys.
    #[must_use]
    pub(super) fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// The ledger's own keys.
    #[must_use]
    pub(super) fn ledger_keys(&self) -> PathBuf {
        self.0.join("ledger")
    }

    /// The newest committed checkpoint, outside the database.
    #[must_use]
    pub(super) fn checkpoint(&self) -> PathBuf {
        self.ledger_keys().join("checkpoint")
    }

    /// The agent's configuration and state.
    #[must_use]
    pub(super) fn agent(&self) -> PathBuf {
        self.0.join("agent")
    }

    /// What the people's clients remember.
    #[must_use]
    pub(super) fn client(&self) -> PathBuf {
        self.0.join("client")
    }

    /// Environment for whoever wants to use it from a shell.
    #[must_use]
    pub(super) fn env(&self) -> PathBuf {
        self.0.join("dev.env")
    }
}

/// The folder under which dev and demo keep their folders.
#[must_use]
pub(super) fn data_home() -> PathBuf {
    if let Some(home) = std::env::var_os(HOME_VARIABLE) {
        return home.into();
    }
    if rustix::process::geteuid().is_root() {
        return "/var/lib/countersign".into();
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state")));
    state.unwrap_or_else(std::env::temp_dir).join("countersign")
}

/// A new folder's name for a demo: its time in seconds, and microseconds to keep two apart.
#[must_use]
pub(super) fn demo_folder(now: Time) -> PathBuf {
    data_home().join(format!("demo-{}", now.as_micros()))
}
