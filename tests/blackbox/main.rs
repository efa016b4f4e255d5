//! Black-box tests: the real binaries, a real Postgres, real `ssh-keygen`, as a script would use them.
//!
//! The names and shapes that scripts rely on are promised here. A change that breaks one of these
//! breaks somebody's script.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and these start the programs that they test"
)]

#[path = "../support/cedar.rs"]
mod cedar;
#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/folder.rs"]
mod folder;
#[path = "../support/forger.rs"]
mod forger;
#[path = "../support/left_out.rs"]
mod left_out;
#[path = "../support/small_disk.rs"]
mod small_disk;

mod actions;
mod agents;
mod answers;
mod audits;
mod bundles;
mod by_hand;
mod choosing;
mod clusters;
mod confined;
mod contract;
mod demo;
mod erasing;
mod evil;
mod facts;
mod feeds;
mod fleet;
mod idle;
mod life;
mod managed;
mod outages;
mod pauses;
mod policies;
mod processes;
mod proxy;
mod replays;
mod retries;
mod rights;
mod rollouts;
mod rotation;
mod rules;
mod secrets;
mod selfchecks;
mod servers;
mod services;
mod snapshots;
mod standby;
mod support;
mod tampering;
mod tls;
