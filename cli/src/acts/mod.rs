//! What a person can do, as calls: for the verbs of the command line, and for whoever embeds them.
//!
//! | file | owns |
//! |---|---|
//! | `connect.rs` | [`Client`]: the pinned ledger, sign-in, which checkpoints are believed |
//! | `session.rs` | the cached bearer token of a signed challenge |
//! | `read.rs` | rights, commands, blobs and entries, each verified from bytes; finding by short form |
//! | `submit.rs` | a statement made, signed, sent, and its receipt verified |
//! | `request.rs` | asking for a command |
//! | `judge.rs` | approve, reject, withdraw, cancel |
//! | `change.rs` | changes of rights |
//! | `pages.rs` | the whole ledger, for `verify` |
//! | `follow.rs` | a command as it happens, proved again at its end |
//!
//! Every call verifies before it signs: what is signed is built here, from verified bytes.

mod change;
mod connect;
mod follow;
mod judge;
mod pages;
mod read;
mod request;
mod session;
mod submit;

pub use change::{ChangeStage, ChangeView, Replaced};
pub use connect::{Client, Connection};
pub use follow::Step;
pub use pages::Served;
pub use read::{Found, LoggedEntry, RightsView};
pub use request::{RequestSpec, Requested};
pub use session::SessionError;
pub use submit::{Accepted, ReceiptError};
