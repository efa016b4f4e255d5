//! All local rules in their order: from a verified command to the right to run it here.
//!
//! It owns the order and the refusal. It finds and hashes the program that would run, so that rules
//! speak of that very file; it must not run it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use countersign_protocol::command::{CommandSpec, Environment, Mode};
use countersign_protocol::event::RefusalReason;
use countersign_protocol::name::RuleName;

use super::account::{Account, Runner};
use super::commands::{Asked, Commands, NOT_LISTED};
use super::confine::{self, Confine, Held};
use super::sudo;
use super::variables::NamePattern;
use crate::execution::{Confinement, InForce, Program, ResolveError};

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
    /// What holds a command unless a rule says otherwise.
    pub confine: Confine,
    /// The same for scripts.
    pub shell_confine: Confine,
    /// What the agent itself lives by: its state, its configuration and whom it believes.
    pub own_files: Vec<PathBuf>,
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
    /// Whom it runs as.
    pub runner: Runner,
    /// The `sudo` that makes it so, where the agent does not do that itself.
    pub sudo: Option<Program>,
    /// What is asked of the executor to hold it.
    pub confinement: Confinement,
    /// What of that will be in force on this host.
    pub in_force: InForce,
}

/// What a command is allowed by, and what that demands.
struct Grounds<'a> {
    rule: RuleName,
    min_approvals: u32,
    confine: &'a Confine,
}

/// A command to be judged, and whom it would run as.
#[derive(Clone, Copy)]
struct Case<'a> {
    spec: &'a CommandSpec,
    runner: &'a Runner,
    sudo: bool,
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
        let runner = self.account.runner(spec.user.as_ref())?;
        let cwd = spec.cwd.as_deref().unwrap_or("/");
        self.check_surroundings(environment, cwd)?;
        let sudo = sudo::find(&self.account, &runner, spec, environment)?;
        let case = Case {
            spec,
            runner: &runner,
            sudo: sudo.is_some(),
        };
        let program = find_program(spec, &self.path)?;
        let grounds = self.check_command(case, &program)?;
        let confinement = grounds.confine.over(&self.confine).confinement(&Held {
            runner: &runner,
            own_files: &self.own_files,
            cwd,
            sudo: sudo.is_some(),
        });
        let in_force = confine::foresee(&confinement, &grounds.rule)?;
        Ok(Allowed {
            program,
            rule: grounds.rule,
            min_approvals: self.approvals_for(spec.mode).max(grounds.min_approvals),
            runner,
            sudo,
            confinement,
            in_force,
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

    /// What allows it.
    fn check_command(
        &self,
        case: Case<'_>,
        program: &Result<Program, ResolveError>,
    ) -> Result<Grounds<'_>, LocalRefusal> {
        let Ok(program) = program else {
            return self.check_absent(case);
        };
        // A deny rule is not evaded by a link beside the program that it names.
        let real = program.path().canonicalize().map_err(|error| {
            unusable_path(format!("{} is gone: {error}", program.path().display()))
        })?;
        self.ask(case, program.path(), Some((&real, program.sha256())))
    }

    /// Nothing would run. Whether the name is allowed is still said, so that "not found" is told
    /// only to those who might run it.
    fn check_absent(&self, case: Case<'_>) -> Result<Grounds<'_>, LocalRefusal> {
        let name = Path::new(program_name(case.spec));
        if name.is_absolute() {
            return self.ask(case, name, None);
        }
        // It could have been in any of the folders; a rule that speaks of one of them is the answer.
        let mut last = self.ask(case, name, None);
        for folder in &self.path {
            last = self.ask(case, &folder.join(name), None);
            let is_by_rule = match &last {
                Ok(grounds) => grounds.rule.as_str() != "allow_all",
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
        case: Case<'_>,
        file: &Path,
        found: Option<(&Path, &[u8; 32])>,
    ) -> Result<Grounds<'_>, LocalRefusal> {
        let spec = case.spec;
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
            runner: case.runner,
            sudo: case.sudo,
            account: &self.account,
            folders: &self.path,
            timeout_ms: spec.timeout_ms,
        };
        self.commands.check_denied(&asked)?;
        let (rule, least, confine) = match spec.mode {
            // Argument rules do not bind a shell: it has a rule of its own.
            Mode::Shell => ("shell", None, &self.shell_confine),
            Mode::Exec => match self.commands.find_allowed(&asked)? {
                Some(rule) => (rule.name.as_str(), rule.min_approvals, &rule.confine),
                None => ("allow_all", None, &self.confine),
            },
        };
        let rule = rule.parse().map_err(|_| {
            LocalRefusal::new(RefusalReason::NotAllowed, "allow", "the rule has no name")
        })?;
        Ok(Grounds {
            rule,
            min_approvals: least.unwrap_or(0),
            confine,
        })
    }
}

/// A program that is not there is an outcome of the run, as a shell has it (127, 126). A script is
/// what a shell reads from a file of its own.
fn find_program(
    spec: &CommandSpec,
    path: &[PathBuf],
) -> Result<Result<Program, ResolveError>, LocalRefusal> {
    let found = match spec.mode {
        Mode::Exec => Program::resolve(OsStr::new(program_name(spec)), path),
        Mode::Shell => Program::script(spec.argv.first().map_or(&[], |text| text.as_bytes())),
    };
    match found {
        Err(
            error @ (ResolveError::Relative { .. }
            | ResolveError::Unreadable { .. }
            | ResolveError::Unsealed(_)
            | ResolveError::TooLarge { .. }),
        ) => Err(unusable_path(error.to_string())),
        found => Ok(found),
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

/// The words and variables in the form that the executor takes. The text of a script is no word:
/// the program holds it.
#[must_use]
pub fn words(
    spec: &CommandSpec,
    environment: Option<&Environment>,
) -> (Vec<OsString>, Vec<(OsString, OsString)>) {
    let argv = match spec.mode {
        Mode::Exec => spec.argv.iter().map(OsString::from).collect(),
        Mode::Shell => vec![OsString::from(SHELL)],
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
