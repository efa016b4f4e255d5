//! Files that a power cut finds whole: the old one or the new one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Write beside, fsync, rename, fsync the folder. When this returns, the new one stays.
///
/// # Errors
/// Not writable. Which of the two stands then, the file itself says.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = beside(path);
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_folder(path)
}

/// Of a file: its new name lasts only from here on; until then a power cut may bring the old one back.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::at_the_folder()?;
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Of the whole name: `newest.note` and `newest.other` lie in one folder, and each has its own.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    PathBuf::from(name)
}

/// A disk that fails when the new name is there and its folder is not written yet.
#[cfg(test)]
pub(crate) mod faults {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static FOLDERS_FAIL: Cell<bool> = const { Cell::new(false) };
    }

    /// For what this thread writes, from now on.
    pub(crate) fn let_folders_fail(fail: bool) {
        FOLDERS_FAIL.set(fail);
    }

    pub(super) fn at_the_folder() -> io::Result<()> {
        if FOLDERS_FAIL.get() {
            return Err(io::Error::other("the folder cannot be written"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_after_the_last_dot_are_replaced_at_the_same_time() {
        let folder = std::env::temp_dir().join(format!("durable-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, byte: u8| {
            let path = folder.join(name);
            let bytes = vec![byte; 4096];
            for _each in 0..200 {
                replace(&path, &bytes).unwrap();
                assert_eq!(fs::read(&path).unwrap(), bytes, "{name}");
            }
        };
        std::thread::scope(|scope| {
            let names = [
                "ledger.a",
                "ledger.b",
                "newest.note",
                "newest.note-cosigned",
            ];
            for (name, byte) in names.into_iter().zip(0..) {
                scope.spawn(move || write(name, byte));
            }
        });
        fs::remove_dir_all(&folder).unwrap();
    }
}
