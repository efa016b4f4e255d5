//! The fold of keys and rights over positions, not over clocks. PROTOCOL 5.
//!
//! | file | holds |
//! |---|---|
//! | `state.rs` | [`Rights`]: everything after some entries, and how an entry changes it |
//! | `change.rs` | what may change now, and whose consent it takes |
//! | `people.rs` | roles, groups and permissions: who may do what |
//! | `snapshots.rs` | what administrators have signed for the hosts |
//! | `erasure.rs` | legal holds, and what was redacted |
//! | `records.rs` | keys, hosts, tokens, open changes and reviews as they are held |

mod change;
mod erasure;
mod people;
mod records;
mod snapshots;
mod state;

pub use crate::event::ChangeBody;
pub use records::{
    AgentRecord, CHANGE_EXPIRES_US, Consent, Enrolment, FACTS_PAUSE_US, HoldRecord, Holder,
    HostFacts, KeyRecord, MAX_OPEN_CHANGES, MAX_OPEN_OF_ONE, MAX_OPEN_REVIEWS,
    MAX_WAITING_ENROLMENTS, OpenChange, OpenReview, PolicyInForce, SnapshotRecord, TokenRecord,
};
pub(crate) use state::{Document, Proposal};
pub use state::{Rights, token_of};
