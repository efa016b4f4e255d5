//! JSON lines in a file: appended, and delivered once they are on the disk.
//!
//! A line that a crash tore stays, ends, and is not JSON; its message follows whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::message::Message;
use super::outlet::Trouble;

/// A file of lines.
#[derive(Debug)]
pub(super) struct FileOutlet {
    path: PathBuf,
    open: Option<File>,
}

impl FileOutlet {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    pub(super) async fn write(&mut self, messages: &[Message]) -> Result<(), Trouble> {
        let mut lines = Vec::new();
        for message in messages {
            lines.extend(message.body.to_string().into_bytes());
            lines.push(b'\n');
        }
        let (path, open) = (self.path.clone(), self.open.take());
        let written = tokio::task::spawn_blocking(move || append(&path, open, &lines));
        let file = written.await.map_err(io::Error::other)??;
        self.open = Some(file);
        Ok(())
    }
}

/// Appends and syncs; gives the file back for the next time.
fn append(path: &Path, open: Option<File>, lines: &[u8]) -> io::Result<File> {
    let mut file = match open {
        // Whoever rotates logs moves the file away: then a new one begins.
        Some(file) if is_still(path, &file) => file,
        Some(_) | None => begin(path)?,
    };
    file.write_all(lines)?;
    file.sync_data()?;
    Ok(file)
}

fn is_still(path: &Path, file: &File) -> bool {
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(named), Ok(open)) => named.ino() == open.ino() && named.dev() == open.dev(),
        (Ok(_) | Err(_), _) => false,
    }
}

/// Opens the file, or makes it for its owner alone, and ends a line that was torn.
fn begin(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    // A file that was just made is found after a power cut only if its folder was synced.
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
    Ok(file)
}
