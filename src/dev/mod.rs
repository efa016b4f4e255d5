//! `countersign dev` and `demo`: a whole countersign on one machine, to try and to test.
//!
//! | file | owns |
//! |---|---|
//! | `demo.rs` | one command's life, told as a story |
//! | `develop.rs` | the same parts, staying up |
//! | `station.rs` | all parts started in order, and stopped |
//! | `people.rs` | alice, bob and carol |
//! | `agent.rs` | the agent's process and its configuration |
//! | `home.rs` | which file lies where |
//! | `postgres.rs` | a private cluster: found, initialised, started, stopped, recovered |
//! | `binaries.rs` | where Postgres is installed, and how to install it |
//! | `spawn.rs` | starting a process that ends when we do |

mod agent;
mod binaries;
mod demo;
mod develop;
mod home;
mod people;
mod postgres;
mod spawn;
mod station;

pub use binaries::{Binaries, install, install_command};
pub use demo::{Demo, demo};
pub use develop::{Develop, develop};
pub use postgres::{Cluster, Durability, Options, PostgresError, Role};
