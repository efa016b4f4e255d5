//! `[[service]]`: a place inside this host, and the words that lead into it.
//!
//! It owns how a command, its directory, user and variables are handed to what enters the service.
//! What cannot be handed over is refused and never left out. Which commands may run there is
//! `commands`', and what becomes of the processes is the executor's.

use std::ffi::OsString;
use std::path::Path;

use countersign_protocol::command::{CommandSpec, Environment, Mode};
use countersign_protocol::event::RefusalReason;
use countersign_protocol::name::{OsUser, RuleName, ServiceName};

use super::actions::Word;
use super::commands::{Asked, Whom};
use super::confine::{self, Held};
use super::host::{Allowed, Grounds, LocalRefusal, Rules, variables, words};
use super::variables::{is_dangerous, steers_entering};
use crate::execution::{Confinement, Demand, InForce, MARK, Profile, Program, Step};

/// The words that carry one thing into a service, with `{1}` for it; none: it cannot be carried.
pub type Carried = Option<Vec<Word>>;

/// How a service is entered: `enter`, then what carries variables, directory and user, then `into`,
/// then the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The program that enters, and its first words.
    pub enter: Vec<String>,
    /// The last words before the command, such as a container's name.
    pub into: Vec<String>,
    /// Words for each variable; `{1}` is its name, and its value is in the environment of what
    /// enters.
    pub env: Carried,
    /// Words for the directory.
    pub cwd: Carried,
    /// Words for the user.
    pub user: Carried,
    /// The command is a descendant of what enters: its environment, limits and system call filter
    /// are the command's too.
    pub descends: bool,
}

/// One `[[service]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What requests call it.
    pub name: ServiceName,
    /// How it is entered.
    pub way: Way,
    /// What no rule speaks of may run there too.
    pub allow_all: bool,
    /// Whether scripts may run there, by its own `/bin/sh`.
    pub shell: bool,
}

/// Where the processes of an allowed command are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// On the host, below the executor.
    Host,
    /// In a service.
    Service {
        /// They carry the run's mark.
        marked: bool,
        /// They began below the executor.
        descends: bool,
    },
}

impl Way {
    /// Whether the command's processes carry the run's mark.
    const fn is_marked(&self) -> bool {
        self.descends || self.env.is_some()
    }

    /// All words of what enters, the command's own last.
    fn words(&self, spec: &CommandSpec, environment: Option<&Environment>) -> Option<Vec<String>> {
        let mut words = self.enter.clone();
        let mut carry = |carried: &Carried, text: &str| {
            let parts = carried
                .as_ref()?
                .iter()
                .map(|word| word.fill(&[text.to_owned()]));
            words.extend(parts);
            Some(())
        };
        if !self.descends {
            for (name, _) in environment.into_iter().flat_map(Environment::variables) {
                carry(&self.env, name)?;
            }
            if self.env.is_some() {
                carry(&self.env, MARK)?;
            }
        }
        if let Some(cwd) = &spec.cwd {
            carry(&self.cwd, cwd)?;
        }
        if let Some(user) = &spec.user {
            carry(&self.user, user.as_str())?;
        }
        words.extend_from_slice(&self.into);
        // The sealed file of a script is in the memory of the host, which a service cannot open.
        words.extend_from_slice(&self::words(spec.mode, &spec.argv));
        Some(words)
    }

    /// The first thing that the request brings and that cannot be carried.
    fn missing(
        &self,
        spec: &CommandSpec,
        environment: Option<&Environment>,
    ) -> Option<&'static str> {
        let has_variables = environment.is_some_and(|env| !env.variables().is_empty());
        let missing = [
            (has_variables && !self.is_marked(), "variables"),
            (spec.cwd.is_some() && self.cwd.is_none(), "a directory"),
            (spec.user.is_some() && self.user.is_none(), "a user"),
        ];
        missing
            .into_iter()
            .find_map(|(is, what)| is.then_some(what))
    }
}

impl Rules {
    /// Judges a command that is to run in a service.
    pub(super) fn judge_inside(
        &self,
        name: &ServiceName,
        spec: &CommandSpec,
        environment: Option<&Environment>,
    ) -> Result<Allowed, LocalRefusal> {
        let refuse = |why, detail: String| Err(LocalRefusal::new(why, "service", detail));
        let Some(service) = self.services.iter().find(|service| service.name == *name) else {
            let detail = format!("this host declares no service {name}");
            return refuse(RefusalReason::NotAllowed, detail);
        };
        match spec.mode {
            Mode::Action => {
                let detail = "a named action runs on the host itself, not in a service".to_owned();
                return refuse(RefusalReason::NotAllowed, detail);
            }
            Mode::Shell if !service.shell => {
                let detail =
                    format!("the service {name} runs no scripts: it does not say shell = true");
                return refuse(RefusalReason::NotAllowed, detail);
            }
            Mode::Shell | Mode::Exec => {}
        }
        // The program that enters would take it for an option of its own.
        if spec.mode == Mode::Exec && spec.argv.first().is_some_and(|word| word.starts_with('-')) {
            let detail =
                "the program's name begins with -, which what enters would read as its own";
            return refuse(RefusalReason::NotAllowed, detail.to_owned());
        }
        self.check_variables(environment)?;
        if let Some(what) = service.way.missing(spec, environment) {
            let detail = format!("{what} cannot be handed into the service {name}; ask without");
            return refuse(RefusalReason::Unusable, detail);
        }
        for (variable, _) in environment.into_iter().flat_map(Environment::variables) {
            // It would steer the program that enters, which is the host's.
            if is_dangerous(variable) || steers_entering(variable) {
                let detail =
                    format!("the variable {variable:?} would act on what enters the service");
                return refuse(RefusalReason::NotAllowed, detail);
            }
        }
        let grounds = self.grounds_inside(service, spec)?;
        let runner = self.account.entering();
        let table = grounds.confine.over(&self.confine);
        let mut confinement = table.confinement(&Held {
            runner: &runner,
            own_files: &[],
            cwd: "/",
            sudo: false,
        });
        // A fence is made of the host's own folders, and the service has others.
        confinement.protected.clear();
        let in_force = hold_inside(service, &mut confinement, &grounds.rule)?;
        let words = service.way.words(spec, environment).unwrap_or_default();
        let entering = words.first().map_or("", String::as_str);
        let program = Program::resolve(entering.as_ref(), &self.path).map_err(|error| {
            let detail = format!("the service {name} cannot be entered: {error}");
            LocalRefusal::new(RefusalReason::Unusable, "service", detail)
        })?;
        let argv: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        Ok(Allowed {
            steps: Ok(vec![Step { program, argv }]),
            rule: grounds.rule,
            min_approvals: self.approvals_for(spec.mode).max(grounds.min_approvals),
            runner,
            sudo: None,
            confinement,
            in_force,
            inside: Inside::Service {
                marked: service.way.is_marked(),
                descends: service.way.descends,
            },
            stdin: true,
            files: Err("a service does not see the host's memory; ask for env or stdin"),
            env: variables(environment),
            cwd: "/".into(),
        })
    }

    fn grounds_inside(
        &self,
        service: &Service,
        spec: &CommandSpec,
    ) -> Result<Grounds<'_>, LocalRefusal> {
        let words = words(spec.mode, &spec.argv);
        let asked = Asked {
            file: Path::new(words.first().map_or("", String::as_str)),
            real: None,
            sha256: None,
            args: words.get(1..).unwrap_or_default(),
            whom: Whom::Inside {
                service: &service.name,
                user: spec.user.as_ref(),
            },
            folders: &self.path,
            timeout_ms: spec.timeout_ms,
        };
        self.grounds(spec.mode, &asked, service.allow_all)
    }
}

/// What holds a command there. An engine's daemon starts it anew, so nothing of ours does.
fn hold_inside(
    service: &Service,
    confinement: &mut Confinement,
    rule: &RuleName,
) -> Result<InForce, LocalRefusal> {
    let refuse = |rule, detail: &str| Err(LocalRefusal::new(RefusalReason::Unusable, rule, detail));
    if confinement.profile != Profile::None {
        return refuse(
            "profile",
            "a profile guards the host's own folders and does not hold in a service",
        );
    }
    if !service.way.descends && confinement.demand != Demand::default() {
        return refuse(
            "demand",
            "what enters this service does not hand on what holds a command, so the demand cannot be met",
        );
    }
    if !service.way.descends {
        *confinement = Confinement {
            unheld: true,
            ..Confinement::default()
        };
    }
    confine::foresee(confinement, rule)
}

/// Whether a list that forbids could mean the user that a request names for a service. Nobody here
/// knows its accounts: who is not named could be anybody, and a number could be any name's.
pub(super) fn is_forbidden_user(users: &[OsUser], asked: Option<&OsUser>) -> bool {
    let Some(asked) = asked else { return true };
    // Engines take USER:GROUP.
    let asked = asked.as_str().split(':').next().unwrap_or_default();
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    users
        .iter()
        .any(|user| user.as_str() == asked || is_number(user.as_str()) != is_number(asked))
}

/// Whether a list has the user that a request names for a service.
pub(super) fn is_user(users: Option<&[OsUser]>, asked: Option<&OsUser>) -> bool {
    match (users, asked) {
        (Some(users), Some(asked)) => users.contains(asked),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}
