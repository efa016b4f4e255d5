//! The HTTP interface: who may call what, what the door answers, what the windows show.

mod authorization;
mod connections;
mod door;
mod limits;
mod logs;
mod openapi;
mod reading;
mod rights;
mod sessions;
pub(crate) mod streams;
mod tiles;
mod tls;
mod tokens;
mod turns;
mod two_servers;
mod unkept;
