//! What `countersign dev` and `demo` stand on: a private Postgres and people to try things with.
//!
//! | file | owns |
//! |---|---|
//! | `postgres.rs` | a private cluster: found, initialised, started, stopped, recovered |
//! | `binaries.rs` | where Postgres is installed, and how to install it |
//! | `spawn.rs` | starting a process that ends when we do |

mod binaries;
mod postgres;
mod spawn;

pub use binaries::{Binaries, install_command};
pub use postgres::{Cluster, Durability, Options, PostgresError, Role};
