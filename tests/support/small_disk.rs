//! A disk that is soon full. A suite that takes this file in has `left_out` too.
#![expect(clippy::disallowed_methods, reason = "it mounts and unmounts")]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::left_out::left_out;

/// A small disk of a test's own, which is gone with the test.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Over a folder, of this many KiB; none, said aloud, when this account may not mount one.
    pub(crate) fn over(folder: &Path, kib: u32) -> Option<Self> {
        let options = format!("size={kib}k,mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(folder)
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            left_out("this account may not mount a small disk: a full one");
            return None;
        }
        Some(Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
