//! The host's own rules: what may run here whatever anybody signs.
//!
//! | file | question |
//! |---|---|
//! | `host` | all of it in order: [`Rules::judge`], the answer and the refusal |
//! | `commands` | does an `[[allow]]` or `[[deny]]` rule speak of this program and these arguments? |
//! | `patterns` | does this text match? anchored by construction |
//! | `surroundings` | may it have this user, these variables, this directory? |
//! | `variables` | names of variables, and those that change which code runs |
//!
//! Questions about a verified command; each answer that is no names the setting or rule that said
//! so. Nothing here looks at signatures, and nothing here runs anything. Absence never means yes.

mod commands;
mod host;
mod patterns;
mod surroundings;
mod variables;

pub use commands::{AllowRule, Arguments, Commands, DenyRule, NOT_LISTED, ProgramPattern};
pub use host::{Allowed, LocalRefusal, Rules, SHELL, words};
pub use patterns::{MAX_ALTERNATIVES, MAX_PATTERN_CHARS, Pattern, PatternError};
pub use surroundings::Account;
pub use variables::{NamePattern, is_dangerous};
