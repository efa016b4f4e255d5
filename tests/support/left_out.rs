//! How a test says that it, or a part of it, cannot be tried here. Every suite takes this file in.

use std::io::Write as _;

/// Says what this machine or this user cannot show, and why: the reason, a colon, what is not tried.
pub(crate) fn left_out(why_and_what: &str) {
    // Past the harness, which keeps for itself what a passing test prints.
    let _told = writeln!(std::io::stderr(), "LEFT OUT, as {why_and_what}");
}
