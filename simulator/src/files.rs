//! How many connections this process may open. It must not judge whether that is enough.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of open files to what the machine allows, and above that where this process is
/// allowed to (root). Gives how many it is; children inherit it.
pub fn open_many_files(wanted: u64) -> u64 {
    let known = getrlimit(Resource::Nofile);
    let most = known.maximum.unwrap_or(u64::MAX);
    // Above the hard limit first, then up to it: the second always works.
    for goal in [wanted.max(most), most] {
        let both = Rlimit {
            current: Some(goal),
            maximum: Some(goal),
        };
        if setrlimit(Resource::Nofile, both).is_ok() {
            return goal;
        }
    }
    known.current.unwrap_or(u64::MAX)
}
