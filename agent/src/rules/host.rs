//! All local rules in their order: from a verified command to the right to run it here.
//!
//! It owns the order and the refusal. It finds and hashes the program that would run, so that rules
//! speak of that very file; it must not run it.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use countersign_protocol::command::{CommandSpec, Environment, Mode};
use countersign_protocol::event::RefusalReason;
use countersign_protocol::name::{Principal, RuleName, ServiceName};

use super::account::{Account, Runner};
use super::actions::{Action, MAX_FILLED_BYTES};
use super::commands::{Asked, Commands, NOT_LISTED, Whom};
use super::confine::{self, Confine, Held};
use super::services::{Inside, Service};
use super::sudo;
use super::variables::NamePattern;
use crate::execution::{Confinement, InForce, Program, ResolveError, Step};

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
    /// Whether runs may be handed sealed secrets.
    pub secrets: bool,
    /// Whose own signature is enough where a rule of the ledger's policy lets them break the glass.
    pub break_glass: Vec<Principal>,
    /// Whether the holder of an API token can stop what runs here.
    pub gateway_may_cancel: bool,
    /// Modes that may run.
    pub modes: Vec<Mode>,
    /// Which programs may run with which arguments.
    pub commands: Commands,
    /// What may run by name.
    pub actions: Vec<Action>,
    /// Places inside this host.
    pub services: Vec<Service>,
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
    /// What runs in turn, each program open: one step, or those of an action. A program that is not
    /// there is an outcome of the run, as a shell has it.
    pub steps: Result<Vec<Step>, ResolveError>,
    /// What allowed it: the name of an `[[allow]]` rule or of an action, `allow_all`, or `shell`.
    pub rule: RuleName,
    /// Least distinct pinned people, the host's own number included.
    pub min_approvals: u32,
    /// Whom it runs as; of a service, who enters it.
    pub runner: Runner,
    /// The `sudo` that makes it so, where the agent does not do that itself.
    pub sudo: Option<Program>,
    /// What is asked of the executor to hold it.
    pub confinement: Confinement,
    /// What of that will be in force on this host.
    pub in_force: InForce,
    /// Where its processes are.
    pub inside: Inside,
    /// Whether it may be given standard input.
    pub stdin: bool,
    /// Whether it may be handed files in the host's memory; or why not.
    pub files: Result<(), &'static str>,
    /// Its variables.
    pub env: Vec<(OsString, OsString)>,
    /// Its directory on the host.
    pub cwd: PathBuf,
}

impl Allowed {
    /// Whether what is in force on this host is in force for the command too.
    #[must_use]
    pub const fn is_held_here(&self) -> bool {
        match self.inside {
            Inside::Host => true,
            Inside::Service { descends, .. } => descends,
        }
    }
}

/// What a command is allowed by, and what that demands.
pub(super) struct Grounds<'a> {
    pub(super) rule: RuleName,
    pub(super) min_approvals: u32,
    pub(super) confine: &'a Confine,
}

/// A command to be judged, and whom it would run as.
#[derive(Clone, Copy)]
struct Case<'a> {
    mode: Mode,
    argv: &'a [String],
    timeout_ms: u64,
    runner: &'a Runner,
    sudo: bool,
}

/// Who runs a command of this host, and by what.
struct By {
    runner: Runner,
    sudo: Option<Program>,
}

impl Rules {
    /// The least number of people for a mode, whatever the command.
    #[must_use]
    pub const fn approvals_for(&self, mode: Mode) -> u32 {
        match mode {
            Mode::Exec | Mode::Action => self.min_approvals,
            Mode::Shell => self.shell_min_approvals,
        }
    }

    /// Judges a verified command, for the host itself or one of its services. Reads the program's
    /// file. Whether the people suffice is not asked here: [`Allowed::min_approvals`] says how many
    /// are needed.
    ///
    /// # Errors
    /// The first setting or rule that forbids it.
    pub fn judge(
        &self,
        service: Option<&ServiceName>,
        spec: &CommandSpec,
        environment: Option<&Environment>,
    ) -> Result<Allowed, LocalRefusal> {
        self.check_switches(service, spec.mode)?;
        if let Some(service) = service {
            return self.judge_inside(service, spec, environment);
        }
        let runner = self.account.runner(spec.user.as_ref())?;
        let action = match spec.mode {
            Mode::Action => Some(self.find_action(spec, environment)?),
            Mode::Exec | Mode::Shell => None,
        };
        // What an action does depends on where it does it, so its host says that too.
        let cwd = action.map_or(spec.cwd.as_deref(), |action| action.cwd.as_deref());
        let cwd = cwd.unwrap_or("/");
        self.check_surroundings(environment, cwd)?;
        let sudo = sudo::find(&self.account, &runner, spec, environment)?;
        let by = By { runner, sudo };
        let (grounds, steps) = match action {
            None => self.judge_command(spec, &by)?,
            Some(action) => self.judge_action(action, spec, &by)?,
        };
        let confinement = grounds.confine.over(&self.confine).confinement(&Held {
            runner: &by.runner,
            own_files: &self.own_files,
            cwd,
            sudo: by.sudo.is_some(),
        });
        let in_force = confine::foresee(&confinement, &grounds.rule)?;
        let files = if by.sudo.is_some() {
            Err("the command runs through sudo, and the agent cannot give another user a file")
        } else if action.is_some_and(|action| !action.env) {
            Err("the action takes no variables, and one says where the files are")
        } else {
            Ok(())
        };
        Ok(Allowed {
            steps,
            rule: grounds.rule,
            min_approvals: self.approvals_for(spec.mode).max(grounds.min_approvals),
            runner: by.runner,
            sudo: by.sudo,
            confinement,
            in_force,
            inside: Inside::Host,
            stdin: action.is_none_or(|action| action.stdin),
            files,
            env: variables(environment),
            cwd: cwd.into(),
        })
    }

    /// One program, or one script.
    fn judge_command(
        &self,
        spec: &CommandSpec,
        by: &By,
    ) -> Result<(Grounds<'_>, Result<Vec<Step>, ResolveError>), LocalRefusal> {
        let case = Case {
            mode: spec.mode,
            argv: &spec.argv,
            timeout_ms: spec.timeout_ms,
            runner: &by.runner,
            sudo: by.sudo.is_some(),
        };
        let program = find_program(case, &self.path)?;
        let grounds = self.check_command(case, &program)?;
        let argv = match spec.mode {
            Mode::Exec | Mode::Action => spec.argv.iter().map(OsString::from).collect(),
            // The text of a script is no word: the program holds it.
            Mode::Shell => vec![OsString::from(SHELL)],
        };
        Ok((grounds, program.map(|program| vec![Step { program, argv }])))
    }

    /// The action that is asked for, with arguments and surroundings that are its own.
    fn find_action(
        &self,
        spec: &CommandSpec,
        environment: Option<&Environment>,
    ) -> Result<&Action, LocalRefusal> {
        let not_allowed =
            |rule: &str, detail: &str| LocalRefusal::new(RefusalReason::NotAllowed, rule, detail);
        let name = spec.argv.first().map_or("", String::as_str);
        let action = self
            .actions
            .iter()
            .find(|action| action.name.as_str() == name);
        let action = action.ok_or_else(|| not_allowed("action", NOT_LISTED))?;
        let refuse = |detail: &str| Err(not_allowed(action.name.as_str(), detail));
        let arguments = spec.argv.get(1..).unwrap_or_default();
        if let Some(mistake) = action.mistake(arguments) {
            return refuse(&mistake);
        }
        if spec.cwd.is_some() && spec.cwd != action.cwd {
            return refuse("the action runs in a directory of its own; ask without one");
        }
        let has_variables = environment.is_some_and(|env| !env.variables().is_empty());
        if has_variables && !action.env {
            return refuse("the action takes no variables: it does not say env = true");
        }
        match action.timeout_s {
            Some(most) if spec.timeout_ms > most.saturating_mul(1000) => refuse(&format!(
                "the request asks for {} ms and this action has {most} s at most",
                spec.timeout_ms
            )),
            Some(_) | None => Ok(action),
        }
    }

    /// The steps of a named action. All programs are opened before the first one runs, and a deny
    /// rule wins over an action as it does over everything.
    fn judge_action<'a>(
        &'a self,
        action: &'a Action,
        spec: &CommandSpec,
        by: &By,
    ) -> Result<(Grounds<'a>, Result<Vec<Step>, ResolveError>), LocalRefusal> {
        let refuse = |detail: String| {
            let (why, rule) = (RefusalReason::NotAllowed, action.name.as_str());
            Err(LocalRefusal::new(why, rule, detail))
        };
        let whom = Whom::Account {
            runner: &by.runner,
            sudo: by.sudo.is_some(),
            account: &self.account,
        };
        if !whom.is_allowed(action.users.as_deref()) {
            return refuse(format!("the action does not run as {}", by.runner));
        }
        let arguments = spec.argv.get(1..).unwrap_or_default();
        let filled = action.steps.iter().map(|step| step.fill(arguments));
        let Some(filled) = filled.collect::<Option<Vec<_>>>() else {
            return refuse(
                "the arguments make of a word an option or a way up (..), which its template is not"
                    .to_owned(),
            );
        };
        let bytes: usize = filled.iter().flatten().map(String::len).sum();
        if bytes > MAX_FILLED_BYTES {
            return refuse(format!(
                "with these arguments the steps have {bytes} bytes of words, more than {MAX_FILLED_BYTES}"
            ));
        }
        let mut steps = Vec::with_capacity(action.steps.len());
        let mut missing = None;
        for argv in filled {
            let case = Case {
                mode: Mode::Action,
                argv: &argv,
                timeout_ms: spec.timeout_ms,
                runner: &by.runner,
                sudo: by.sudo.is_some(),
            };
            match find_program(case, &self.path)? {
                Ok(program) => {
                    let real = real_path(&program)?;
                    let found = Some((real.as_path(), program.sha256()));
                    self.commands
                        .check_denied(&self.asked(case, program.path(), found, &argv))?;
                    let argv = argv.iter().map(OsString::from).collect();
                    steps.push(Step { program, argv });
                }
                Err(error) => missing = missing.or(Some(error)),
            }
        }
        let grounds = Grounds {
            rule: action.name.clone(),
            min_approvals: action.min_approvals.unwrap_or(0),
            confine: &action.confine,
        };
        Ok((grounds, missing.map_or(Ok(steps), Err)))
    }

    fn check_switches(
        &self,
        service: Option<&ServiceName>,
        mode: Mode,
    ) -> Result<(), LocalRefusal> {
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
            // A service says for itself whether it runs scripts.
            Mode::Shell if !self.shell && service.is_none() => refuse(
                "shell",
                "this host runs no scripts: its rule for the shell does not say allow = true",
            ),
            Mode::Shell | Mode::Exec | Mode::Action => Ok(()),
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
        let real = real_path(program)?;
        self.ask(case, program.path(), Some((&real, program.sha256())))
    }

    /// Nothing would run. Whether the name is allowed is still said, so that "not found" is told
    /// only to those who might run it.
    fn check_absent(&self, case: Case<'_>) -> Result<Grounds<'_>, LocalRefusal> {
        let name = Path::new(program_name(case));
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
        let words = words(case.mode, case.argv);
        let asked = self.asked(case, file, found, &words);
        self.grounds(case.mode, &asked, self.commands.allow_all)
    }

    /// What allows a command, on the host or in a service that says for itself whether what no rule
    /// speaks of may run. Deny wins.
    pub(super) fn grounds(
        &self,
        mode: Mode,
        asked: &Asked<'_>,
        allow_all: bool,
    ) -> Result<Grounds<'_>, LocalRefusal> {
        self.commands.check_denied(asked)?;
        let (rule, least, confine) = match mode {
            // Argument rules do not bind a shell: it has a rule of its own.
            Mode::Shell => ("shell", None, &self.shell_confine),
            Mode::Exec | Mode::Action => match self.commands.find_allowed(asked, allow_all)? {
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

    /// `words` begin with the program's name, which is no argument.
    fn asked<'a>(
        &'a self,
        case: Case<'a>,
        file: &'a Path,
        found: Option<(&'a Path, &'a [u8; 32])>,
        words: &'a [String],
    ) -> Asked<'a> {
        Asked {
            file,
            real: found.map(|(real, _)| real),
            sha256: found.map(|(_, sha256)| sha256),
            args: words.get(1..).unwrap_or_default(),
            whom: Whom::Account {
                runner: case.runner,
                sudo: case.sudo,
                account: &self.account,
            },
            folders: &self.path,
            timeout_ms: case.timeout_ms,
        }
    }
}

/// All words of a command, its program first: of a script those that hand it to the shell.
pub(super) fn words(mode: Mode, argv: &[String]) -> Cow<'_, [String]> {
    match mode {
        Mode::Exec | Mode::Action => Cow::Borrowed(argv),
        Mode::Shell => Cow::Owned([&[SHELL.to_owned(), "-c".to_owned()], argv].concat()),
    }
}

fn real_path(program: &Program) -> Result<PathBuf, LocalRefusal> {
    let path = program.path();
    path.canonicalize()
        .map_err(|error| unusable_path(format!("{} is gone: {error}", path.display())))
}

/// A program that is not there is an outcome of the run, as a shell has it (127, 126). A script is
/// what a shell reads from a file of its own.
fn find_program(
    case: Case<'_>,
    path: &[PathBuf],
) -> Result<Result<Program, ResolveError>, LocalRefusal> {
    let found = match case.mode {
        Mode::Exec | Mode::Action => Program::resolve(OsStr::new(program_name(case)), path),
        Mode::Shell => Program::script(case.argv.first().map_or(&[], |text| text.as_bytes())),
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

fn program_name(case: Case<'_>) -> &str {
    match case.mode {
        Mode::Exec | Mode::Action => case.argv.first().map_or("", String::as_str),
        Mode::Shell => SHELL,
    }
}

fn unusable_path(detail: String) -> LocalRefusal {
    LocalRefusal::new(RefusalReason::Unusable, "path", detail)
}

/// The variables in the form that the executor takes.
pub(super) fn variables(environment: Option<&Environment>) -> Vec<(OsString, OsString)> {
    let variables = environment.into_iter().flat_map(Environment::variables);
    variables
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect()
}

/// What runs a shell command.
pub const SHELL: &str = "/bin/sh";
