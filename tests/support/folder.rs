//! A folder of a test or bench that starts Postgres. Every suite that does takes this file in.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What the names of this suite's folders begin with; the process that made them follows.
pub(crate) const PREFIX: &str = concat!("countersign-test-", env!("CARGO_CRATE_NAME"), "-");

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Set to keep the folders of a test that fails: logs and databases tell what happened.
const KEEP: &str = "COUNTERSIGN_KEEP_FAILED";

/// A folder that the account which runs Postgres can enter; removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// One whose name says what it is for.
    pub(crate) fn new(name: &str) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{PREFIX}{}-{count}-{name}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        std::fs::DirBuilder::new()
            .mode(0o711)
            .create(&path)
            .unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os(KEEP).is_some() {
            let kept = format!("kept: {}\n", self.0.display());
            let _told = std::io::stderr().write_all(kept.as_bytes());
            return;
        }
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}
