//! A file that is there whole or not at all, and never in the place of another's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::entropy;
use crate::failure::Failure;

/// A file under way, beside its target under a name that nobody else has; removed unless it is kept.
#[derive(Debug)]
pub(super) struct NewFile<'a> {
    target: &'a Path,
    partial: PathBuf,
    is_kept: bool,
}

impl<'a> NewFile<'a> {
    /// Begins it.
    ///
    /// # Errors
    /// The target is there already, or its folder takes no file.
    pub(super) fn create(target: &'a Path) -> Result<(Self, File), Failure> {
        may_write(target)?;
        // Of this one export: another to the same target, and whatever lies there, has another name.
        let suffix = hex::encode(entropy::random::<8>());
        let partial = target.with_file_name(format!("countersign-{suffix}.partial"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&partial)
            .map_err(|error| unwritable(&partial, &error))?;
        let new = Self {
            target,
            partial,
            is_kept: false,
        };
        Ok((new, file))
    }

    /// Where it lies until it is kept.
    pub(super) fn path(&self) -> &Path {
        &self.partial
    }

    /// Gives it its name, unless something has that by now.
    ///
    /// # Errors
    /// The target was made meanwhile, or the folder does not take the name.
    pub(super) fn keep(mut self) -> Result<(), Failure> {
        match name(&self.partial, self.target) {
            Ok(()) => {
                self.is_kept = true;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(taken(self.target)),
            Err(error) => Err(unwritable(self.target, &error)),
        }
    }
}

impl Drop for NewFile<'_> {
    /// What is not whole is no evidence. That it cannot be removed is not the first problem.
    fn drop(&mut self) {
        if !self.is_kept {
            let _removed = fs::remove_file(&self.partial);
        }
    }
}

/// Nothing that is there is written over.
///
/// # Errors
/// Something is.
pub(super) fn may_write(target: &Path) -> Result<(), Failure> {
    match target.symlink_metadata() {
        Ok(_) => Err(taken(target)),
        // What is wrong with the folder is said when the file is made.
        Err(_) => Ok(()),
    }
}

fn taken(target: &Path) -> Failure {
    let text = format!("{} is there already; nothing was written", target.display());
    Failure::usage(text).hint("give another name, or move the file away")
}

/// Why a file cannot be written.
pub(super) fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    Failure::failed("unwritable", format!("cannot write {path}: {error}"))
        .hint("nothing was made; look at the folder and the disk")
}

/// Renames in one step that replaces nothing.
fn name(partial: &Path, target: &Path) -> io::Result<()> {
    match renameat_with(CWD, partial, CWD, target, RenameFlags::NOREPLACE) {
        // Some file systems have no such renaming.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link(partial, target),
        named => Ok(named?),
    }
}

/// The same by a second name, which takes the place of none either.
fn link(partial: &Path, target: &Path) -> io::Result<()> {
    fs::hard_link(partial, target)?;
    // It has its name; that it has another as well is no reason to say that nothing was made.
    let _removed = fs::remove_file(partial);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::exit_code;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_of_somebody_called_partial_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (target, theirs) = (folder.path().join("x"), folder.path().join("x.partial"));
        fs::write(&theirs, "theirs").unwrap();
        let (new, mut file) = NewFile::create(&target).unwrap();
        file.write_all(b"ours").unwrap();
        new.keep().unwrap();
        assert_eq!(fs::read(&theirs).unwrap(), b"theirs");
        assert_eq!(fs::read(&target).unwrap(), b"ours");
        assert_eq!(names(folder.path()), ["x", "x.partial"]);
    }

    #[test]
    fn a_target_that_appears_meanwhile_is_not_written_over_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let (new, mut file) = NewFile::create(&target).unwrap();
        file.write_all(b"ours").unwrap();
        fs::write(&target, "theirs").unwrap();
        let failure = new.keep().unwrap_err();
        assert_eq!(failure.exit, exit_code::USAGE, "{failure}");
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        assert_eq!(names(folder.path()), ["x"]);
        assert_eq!(NewFile::create(&target).unwrap_err().exit, exit_code::USAGE);
    }

    #[test]
    fn two_under_way_to_one_target_are_two_files_and_the_first_stays_as_it_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let (first, mut one) = NewFile::create(&target).unwrap();
        let (second, mut other) = NewFile::create(&target).unwrap();
        one.write_all(b"first").unwrap();
        first.keep().unwrap();
        other.write_all(b"second, longer").unwrap();
        assert!(second.keep().is_err());
        assert_eq!(fs::read(&target).unwrap(), b"first");
        assert_eq!(names(folder.path()), ["x"]);
    }

    #[test]
    fn where_a_file_system_cannot_rename_so_a_link_replaces_nothing_either() {
        let folder = tempfile::tempdir().unwrap();
        let (partial, target) = (folder.path().join("p"), folder.path().join("x"));
        fs::write(&partial, "ours").unwrap();
        fs::write(&target, "theirs").unwrap();
        let taken = link(&partial, &target).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        fs::remove_file(&target).unwrap();
        link(&partial, &target).unwrap();
        assert_eq!(names(folder.path()), ["x"]);
    }
}
