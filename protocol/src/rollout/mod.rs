//! How a command goes over its hosts: in turns, so many at once, so far apart, until so many fail.
//!
//! A [`Rollout`] is what people sign; a [`Requirement`](crate::quorum::Requirement) is what the
//! policy asks besides. The [`Plan`] is the stricter of both, in every part: ledger, host and
//! auditor make it from the same two documents. What follows from one command's events is
//! [`crate::lifecycle`]'s; the gaps between commands are here.
//!
//! **Turns.** Each host has one, from 0. Host `t` waits for the end of host `t - in_flight`: a single
//! statement, which a host can check by itself, and by induction there are never more in flight
//! than that, whatever the ledger says.
//!
//! | file | holds |
//! |---|---|
//! | `plan.rs` | the plan of one command; turns and times |
//! | `gaps.rs` | the last turn under each label's gap, over all commands |

mod gaps;
mod plan;

pub(crate) use gaps::Gaps;
pub use plan::{Gap, MAX_AHEAD_US, MAX_GAPS, MAX_SPAN_MS, Plan, Rollout, over_at};
pub(crate) use plan::{are_gaps, max_errors};
