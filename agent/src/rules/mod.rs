//! The host's own rules: what may run here whatever anybody signs.
//!
//! | file | question |
//! |---|---|
//! | `host` | all of it in order: [`Rules::judge`], the answer and the refusal |
//! | `commands` | does an `[[allow]]` or `[[deny]]` rule speak of this program and these arguments? |
//! | `actions` | what does a named action run with these arguments? |
//! | `services` | how is a service of the host entered, and what can be handed into it? |
//! | `patterns` | does this text match? anchored by construction |
//! | `account` | whom does it run as, and may it? |
//! | `sudo` | how does `sudo` take it there? |
//! | `surroundings` | may it have these variables, this directory? |
//! | `secrets` | may it be handed sealed secrets, in these ways? |
//! | `variables` | names of variables, and those that change which code runs |
//! | `confine` | what holds it, and can this host hold it so? |
//!
//! Questions about a verified command; each answer that is no names the setting or rule that said
//! so. Nothing here looks at signatures, and nothing here runs anything. Absence never means yes.

mod account;
mod actions;
mod commands;
mod confine;
mod host;
mod patterns;
mod secrets;
mod services;
mod sudo;
mod surroundings;
mod variables;

pub use account::{Account, Directory, Listed, RunAs, Runner};
pub use actions::{Action, MAX_ARGUMENTS, MAX_STEPS, StepTemplate, Word, WordError};
pub use commands::{AllowRule, Arguments, Commands, DenyRule, NOT_LISTED, ProgramPattern};
pub use confine::{Cap, CgroupCaps, Confine, Writes};
pub use host::{Allowed, LocalRefusal, Rules, SHELL};
pub use patterns::{MAX_ALTERNATIVES, MAX_PATTERN_CHARS, Pattern, PatternError};
pub(crate) use secrets::{SECRETS, on_stdin, with_secrets};
pub use services::{Carried, Inside, Service, Way};
pub use sudo::through_sudo;
pub use variables::{NamePattern, is_dangerous};
