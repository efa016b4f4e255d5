//! The agent: runs on a host what its people have signed.
//!
//! [`execution`] is the executor room: a verified plan in, what happened out.

pub mod execution;
