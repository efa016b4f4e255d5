//! A ledger in memory, a host that pins three of its people, grants of both, and a server.

#[macro_use]
mod book;
mod grants;
mod server;

pub(crate) use book::{Book, key, public};
pub(crate) use grants::{World, grant, newest, people, sign, signers, stream};
pub(crate) use server::{Fake, Tell, at};
