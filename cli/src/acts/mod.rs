//! What a person can do, as calls: for the verbs of the command line, and for whoever embeds them.
//!
//! | file | owns |
//! |---|---|
//! | `connect.rs` | [`Client`]: the pinned ledger, sign-in, which checkpoints are believed |
//! | `session.rs` | the cached bearer token of a signed challenge |
//! | `read.rs` | rights, commands and blobs, each verified from bytes; finding by short form |
//! | `submit.rs` | a statement made, signed, sent, and its receipt verified |
//! | `request.rs` | asking for a command |
//! | `turns.rs` | the order of a rollout; pause, resume, continue |
//! | `retry.rs` | running again what was recorded, where it did not go well |
//! | `judge.rs` | approve, reject, withdraw, cancel |
//! | `change.rs` | changes of rights |
//! | `erase.rs` | what the texts of a command are, and which were erased by whom |
//! | `claim.rs` | a key's own word whose it is, and the file in which it travels |
//! | `people.rs` | whose keys hold, and what goes when somebody leaves |
//! | `token.rs` | the secret of an API token |
//! | `review.rs` | reviews of runs without approvals |
//! | `snapshot.rs` | the policy snapshot for the hosts |
//! | `explain.rs` | what a policy would say of a request |
//! | `what_if.rs` | past requests judged again by another policy |
//! | `nothing_ran.rs` | whether nothing ran on a host from one time to another |
//! | `export.rs` | a bundle of evidence: chosen commands or the whole log, written so that it proves itself |
//! | `secrets.rs` | sealing what a request hands over |
//! | `log.rs` | the log page by page, each linked to a believed checkpoint |
//! | `find.rs` | what a server finds in its indexes, each stream of it proved and judged |
//! | `probe.rs` | what a ledger must refuse, sent on purpose |
//! | `many.rs` | the streams of many commands by a few calls |
//! | `walk.rs` | the log from its first entry on, audited up to a point of the past |
//! | `pages.rs` | the whole ledger, for `verify` |
//! | `follow.rs` | a command as it happens, proved again at its end |
//!
//! Every call verifies before it signs: what is signed is built here, from verified bytes.

mod change;
mod claim;
mod connect;
mod erase;
mod explain;
mod export;
mod find;
mod follow;
mod judge;
mod judged;
mod log;
mod many;
mod nothing_ran;
mod pages;
mod people;
mod probe;
mod read;
mod request;
mod retry;
mod review;
mod secrets;
mod select;
mod session;
mod snapshot;
mod submit;
mod turns;
mod walk;
mod what_if;
mod witnessed;

pub use change::{ChangeStage, ChangeView, Replaced};
pub use claim::{ClaimError, ClaimFile};
pub use connect::{Client, Connection};
pub use erase::{Redaction, Text, TextKind, counted, texts};
pub use explain::{Explained, Price, SeatsView, explain, price};
pub use export::{Progress as ExportProgress, Search, Wish};
pub use find::{Hits, Point, lied};
pub use follow::Step;
pub use judged::Judged;
pub use pages::Served;
pub use people::{keys_of, leaving};
pub use probe::{Answer, Flip};
pub(crate) use read::Wanted;
pub use read::{Found, LoggedEntry, Purpose, RightsView};
pub use request::{RequestSpec, Requested};
pub use retry::{Retried, RetryPlan};
pub use review::{OpenReviews, open_review};
pub use secrets::{Recipient, SecretSpec, seal_for_token};
pub use select::{Hosts, Selected, any_one};
pub use session::SessionError;
pub use snapshot::{SnapshotDraft, SnapshotStep, SnapshotWish, snapshot_differences};
pub use submit::{Accepted, ReceiptError};
pub use turns::{Order, Steer};
pub use walk::{Past, Reach};
pub use what_if::{Otherwise, Ruling, Since, WhatIf};
pub use witnessed::{witness_policy, witness_policy_file};
