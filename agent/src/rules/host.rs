//! All local rules in their order: from a verified command to the right to run it here.
//!
//! It owns the order and the refusal. It finds and hashes the program that would run, so that rules
//! speak of that very file; it must not run it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use countersign_protocol::command::{CommandSpec, Environment, Mode};
use countersign_protocol::event::RefusalReason;
use countersign_protocol::name::RuleName;

use super::commands::{Asked, Commands, NOT_LISTED};
use super::surroundings::Account;
use super::variables::NamePattern;
use crate::execution::{Program, ResolveError};

/// What may run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The master switch.
    pub execution: bool,
    /// Least distinct pinned people for `exec`.
    pub min_approvals: u32,
    /// Least distinct pinned people for `shell`.
    pub shell_min_approvals: u32,
    /// How old an approval may be, in microseconds.
    pub max_approval_age_us: u64,
    /// Modes that may run.
    pub modes: Vec<Mode>,
    /// Which programs may run with which arguments.
    pub commands: Commands,
    /// Whether scripts may run where `modes` has `shell`.
    pub shell: bool,
    /// Where bare program names are looked for.
    pub path: Vec<PathBuf>,
    /// Variables that may be set.
    pub environment: Vec<NamePattern>,
    /// Variables that may be set although they change which code runs.
    pub environment_dangerous: Vec<NamePattern>,
    /// Whose user.
    pub account: Account,
}

/// A refusal by the host itself: recorded in the ledger as `execution.refused`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRefusal {
    /// The class.
    pub why: RefusalReason,
    /// The setting, or the name of the rule, that said so.
    pub rule: Option<RuleName>,
    /// A sentence for people.
    pub detail: String,
}

impl LocalRefusal {
    /// A refusal by the setting or rule `rule`.
    pub(crate) fn new(why: RefusalReason, rule: &str, detail: impl Into<String>) -> Self {
        Self {
            why,
            rule: rule.parse().ok(),
            detail: detail.into(),
        }
    }
}

/// What the rules let run, and under which conditions.
#[must_use]
#[derive(Debug)]
pub struct Allowed {
    /// The program, open. One that is not there is an outcome of the run, as a shell has it.
    pub program: Result<Program, ResolveError>,
    /// What allowed it: an `[[allow]]` rule's name, `allow_all`, or `shell`.
    pub rule: RuleName,
    /// Least distinct pinned people, the host's own number included.
    pub min_approvals: u32,
}

impl Rules {
    /// The least number of people for a mode, whatever the command.
    #[must_use]
    pub const fn approvals_for(&self, mode: Mode) -> u32 {
        match mode {
            Mode::Exec => self.min_approvals,
            Mode::Shell => self.shell_min_approvals,
        }
    }

    /// Judges a verified command. Reads the program's file. Whether the people suffice is not asked
    /// here: [`Allowed::min_approvals`] says how many are needed.
    ///
    /// # Errors
    /// The first setting or rule that forbids it.
    pub fn judge(
        &self,
        spec: &CommandSpec,
        environment: Option<&Environment>,
    ) -> Result<Allowed, LocalRefusal> {
        self.check_switches(spec.mode)?;
        self.check_surroundings(spec.user.as_ref(), environment, spec.cwd.as_deref())?;
        let program = self.find_program(spec)?;
        let (rule, least) = self.check_command(spec, &program)?;
        Ok(Allowed {
            program,
            rule,
            min_approvals: self.approvals_for(spec.mode).max(least.unwrap_or(0)),
        })
    }

    fn check_switches(&self, mode: Mode) -> Result<(), LocalRefusal> {
        if !self.execution {
            return Err(LocalRefusal::new(
                RefusalReason::Disabled,
                "execution",
                "execution is switched off on this host",
            ));
        }
        let refuse = |rule, detail: &str| {
            let why = RefusalReason::NotAllowed;
            Err(LocalRefusal::new(why, rule, detail))
        };
        match mode {
            _unlisted if !self.modes.contains(&mode) => refuse(
                "modes",
                &format!("this host does not run commands of mode {mode:?}"),
            ),
            Mode::Shell if !self.shell => refuse(
                "shell",
                "this host runs no scripts: its rule for the shell does not say allow = true",
            ),
            Mode::Shell | Mode::Exec => Ok(()),
        }
    }

    /// A program that is not there is an outcome of the run, as a shell has it (127, 126).
    fn find_program(
        &self,
        spec: &CommandSpec,
    ) -> Result<Result<Program, ResolveError>, LocalRefusal> {
        match Program::resolve(OsStr::new(program_name(spec)), &self.path) {
            Err(
                error @ (ResolveError::Relative { .. }
                | ResolveError::Unreadable { .. }
                | ResolveError::TooLarge { .. }),
            ) => Err(unusable_path(error.to_string())),
            found => Ok(found),
        }
    }

    /// The name of what allows it, and the people that this rule demands.
    fn check_command(
        &self,
        spec: &CommandSpec,
        program: &Result<Program, ResolveError>,
    ) -> Result<(RuleName, Option<u32>), LocalRefusal> {
        let Ok(program) = program else {
            return self.check_absent(spec);
        };
        // A deny rule is not evaded by a link beside the program that it names.
        let real = program.path().canonicalize().map_err(|error| {
            unusable_path(format!("{} is gone: {error}", program.path().display()))
        })?;
        self.ask(spec, program.path(), Some((&real, program.sha256())))
    }

    /// Nothing would run. Whether the name is allowed is still said, so that "not found" is told
    /// only to those who might run it.
    fn check_absent(&self, spec: &CommandSpec) -> Result<(RuleName, Option<u32>), LocalRefusal> {
        let name = Path::new(program_name(spec));
        if name.is_absolute() {
            return self.ask(spec, name, None);
        }
        // It could have been in any of the folders; a rule that speaks of one of them is the answer.
        let mut last = self.ask(spec, name, None);
        for folder in &self.path {
            last = self.ask(spec, &folder.join(name), None);
            let is_by_rule = match &last {
                Ok((rule, _)) => rule.as_str() != "allow_all",
                Err(refusal) => refusal.detail != NOT_LISTED,
            };
            if is_by_rule {
                break;
            }
        }
        last
    }

    fn ask(
        &self,
        spec: &CommandSpec,
        file: &Path,
        found: Option<(&Path, &[u8; 32])>,
    ) -> Result<(RuleName, Option<u32>), LocalRefusal> {
        let script;
        let args = match spec.mode {
            Mode::Exec => spec.argv.get(1..).unwrap_or_default(),
            Mode::Shell => {
                script = [&["-c".to_owned()], spec.argv.as_slice()].concat();
                &script
            }
        };
        let asked = Asked {
            file,
            real: found.map(|(real, _)| real),
            sha256: found.map(|(_, sha256)| sha256),
            args,
            user: &self.account.user_for(spec.user.as_ref()),
            account: &self.account,
            folders: &self.path,
            timeout_ms: spec.timeout_ms,
        };
        self.commands.check_denied(&asked)?;
        let (rule, least) = match spec.mode {
            // Argument rules do not bind a shell: it has a rule of its own.
            Mode::Shell => ("shell", None),
            Mode::Exec => match self.commands.find_allowed(&asked)? {
                Some(rule) => (rule.name.as_str(), rule.min_approvals),
                None => ("allow_all", None),
            },
        };
        let name = rule.parse().map_err(|_| {
            LocalRefusal::new(RefusalReason::NotAllowed, "allow", "the rule has no name")
        })?;
        Ok((name, least))
    }
}

fn program_name(spec: &CommandSpec) -> &str {
    match spec.mode {
        Mode::Exec => spec.argv.first().map_or("", String::as_str),
        Mode::Shell => SHELL,
    }
}

fn unusable_path(detail: String) -> LocalRefusal {
    LocalRefusal::new(RefusalReason::Unusable, "path", detail)
}

/// The words and variables in the form that the executor takes.
#[must_use]
pub fn words(
    spec: &CommandSpec,
    environment: Option<&Environment>,
) -> (Vec<OsString>, Vec<(OsString, OsString)>) {
    let argv = match spec.mode {
        Mode::Exec => spec.argv.iter().map(OsString::from).collect(),
        Mode::Shell => [SHELL, "-c"]
            .into_iter()
            .chain(spec.argv.first().map(String::as_str))
            .map(OsString::from)
            .collect(),
    };
    let env = environment
        .into_iter()
        .flat_map(Environment::variables)
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect();
    (argv, env)
}

/// What runs a shell command.
pub const SHELL: &str = "/bin/sh";
