//! The private Postgres in every situation that it must survive, as whoever runs the tests and,
//! where that is root, as an ordinary user too.
//!
//! | file | asks |
//! |---|---|
//! | `parent.rs` | nothing: a process that starts a cluster, for others to kill |
//! | `deaths.rs` | what is left after each way to die, and that the next start works |
//! | `refusals.rs` | that each refusal says what to do |
//! | `places.rs` | where sockets lie, and whose |
//!
//! What cannot be tried on a machine is left out aloud.

mod deaths;
mod parent;
mod places;
mod refusals;
