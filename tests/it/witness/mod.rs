//! A witness: what it signs, what it refuses, and what it remembers when it is killed.

mod adding;
mod killed;
pub(crate) mod logs;
mod memory;
