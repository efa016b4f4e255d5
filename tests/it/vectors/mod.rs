//! The golden vectors beside tools that are not ours, as real processes and a real Postgres.
//!
//! | file | asks |
//! |---|---|
//! | `golden.rs` | nothing: it reads the files of `tests/vectors/` for the suites |
//! | `python.rs` | Python, `ssh-keygen` and OpenSSL, through `tests/vectors/check.py` |
//! | `sql.rs` | Postgres, through `tests/vectors/audit.sql` |
//!
//! What the vectors hold and that they are still what the code makes is checked in
//! `protocol/tests/vectors.rs`.

pub(crate) mod golden;
mod python;
mod sql;
