//! Who may: reads the published policy, which is Cedar, and judges requests with it.
//!
//! Pure: no clock, no files, no network; the same arguments give the same answer, so that an auditor
//! who judges again comes to the ledger's own judgement. `docs/POLICY.md` is the rule writer's side.
//!
//! | file | holds |
//! |---|---|
//! | `judge.rs` | [`CedarJudge`]: the door, with its cache of compiled policies |
//! | `compile.rs` | a text becomes rules that were checked and are found quickly |
//! | `source.rs` | a text becomes single rules with their names and places |
//! | `vocabulary.rs` | the schema, and the names that Cedar knows things by |
//! | `scope.rs` | for whom a rule speaks, and the index by that |
//! | `price.rs` | what a permit costs: its annotations, and the strictest of several |
//! | `facts.rs`, `words.rs`, `moment.rs` | what a rule may look at |
//! | `review.rs` | what a person should know before they publish; what differs between two policies |
//! | `lists/` | an operator's short files, which become Cedar |
#![forbid(unsafe_code)]

mod compile;
mod facts;
mod judge;
pub mod lists;
mod moment;
mod price;
mod problem;
mod review;
mod scope;
mod source;
mod vocabulary;
mod words;

pub use judge::{CedarJudge, Explanation, MAX_LOOKS};
pub use problem::Problem;
pub use review::{Review, RuleChange, diff, electors, review};
pub use source::{Effect, RuleSummary};

/// The schema that rules are checked against, in Cedar's own language.
pub const SCHEMA: &str = include_str!("schema.cedarschema");
