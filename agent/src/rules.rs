//! The host's own rules: what may run here whatever anybody signs.
//!
//! Pure questions about a verified command; each answer that is no names the setting that said so.
//! It must not look at signatures, and it must not run anything.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use countersign_protocol::command::{CommandSpec, Environment, Mode};
use countersign_protocol::event::RefusalReason;
use countersign_protocol::name::{OsUser, RuleName};
use rustix::fs::{CWD, OFlags, ResolveFlags};

/// Names that change what a loader, shell or interpreter runs. They need a list of their own:
/// whoever allows `*` in `environment` has not thought of these.
const DANGEROUS: &[&str] = &[
    "LD_*",
    "DYLD_*",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "MALLOC_*",
    "NLSPATH",
    "LOCPATH",
    "HOSTALIASES",
    "RES_OPTIONS",
    "RESOLV_*",
    "LOCALDOMAIN",
    "PATH",
    "HOME",
    "SHELL",
    "IFS",
    "CDPATH",
    "ENV",
    "BASH*",
    "SHELLOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "ZDOTDIR",
    "FPATH",
    "PYTHON*",
    "PERL*",
    "RUBY*",
    "GEM_*",
    "BUNDLE_*",
    "NODE_*",
    "NPM_*",
    "LUA_*",
    "PHP*",
    "JAVA_*",
    "JDK_*",
    "_JAVA_OPTIONS",
    "CLASSPATH",
    "GIT_*",
    "SSH_*",
    "SUDO_*",
    "OPENSSL_*",
    "SSL*",
    "CURL_*",
    "KRB5*",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LESS*",
    "TERMINFO*",
    "TERMCAP",
    "TMPDIR",
    "GCC_*",
    "MAKEFLAGS",
    "RUSTC*",
    "CARGO_*",
];

/// An exact name, or all names with a beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    text: String,
    prefix: bool,
}

impl NamePattern {
    /// `NAME`, or `NAME*` for every name that begins so. A star alone or elsewhere is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, prefix) = text
            .strip_suffix('*')
            .map_or((text, false), |name| (name, true));
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        (!name.is_empty() && name.bytes().all(legal)).then(|| Self {
            text: name.to_owned(),
            prefix,
        })
    }

    fn matches(&self, name: &str) -> bool {
        if self.prefix {
            name.starts_with(&self.text)
        } else {
            name == self.text
        }
    }
}

/// Whether a variable can change which code runs.
#[must_use]
pub fn is_dangerous(name: &str) -> bool {
    // Case does not matter to some interpreters on some systems; being strict costs nothing.
    let name = name.to_ascii_uppercase();
    DANGEROUS
        .iter()
        .filter_map(|pattern| NamePattern::parse(pattern))
        .any(|pattern| pattern.matches(&name))
}

/// The accounts that matter here: the agent's own, and the one used when a request names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user id the agent runs with.
    pub uid: u32,
    /// Its name, if the system's list of users has one.
    pub name: Option<String>,
    /// `default_user` of the configuration.
    pub default_user: Option<OsUser>,
}

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
    /// The setting that said so.
    pub rule: Option<RuleName>,
    /// A sentence for people.
    pub detail: String,
}

impl LocalRefusal {
    /// A refusal by the setting `rule`.
    pub(crate) fn new(why: RefusalReason, rule: &str, detail: impl Into<String>) -> Self {
        Self {
            why,
            rule: rule.parse().ok(),
            detail: detail.into(),
        }
    }
}

impl Rules {
    /// The least number of people for a mode.
    #[must_use]
    pub const fn approvals_for(&self, mode: Mode) -> u32 {
        match mode {
            Mode::Exec => self.min_approvals,
            Mode::Shell => self.shell_min_approvals,
        }
    }

    /// Judges a verified command. What passes may be looked for and run.
    ///
    /// # Errors
    /// The first setting that forbids it.
    pub fn check(
        &self,
        spec: &CommandSpec,
        environment: Option<&Environment>,
    ) -> Result<(), LocalRefusal> {
        self.check_switches(spec)?;
        self.check_user(spec.user.as_ref())?;
        for (name, value) in environment.into_iter().flat_map(Environment::variables) {
            self.check_variable(name, value)?;
        }
        check_directory(spec.cwd.as_deref().unwrap_or("/"))
    }

    fn check_switches(&self, spec: &CommandSpec) -> Result<(), LocalRefusal> {
        if !self.execution {
            return Err(LocalRefusal::new(
                RefusalReason::Disabled,
                "execution",
                "execution is switched off on this host",
            ));
        }
        if !self.modes.contains(&spec.mode) {
            return Err(LocalRefusal::new(
                RefusalReason::NotAllowed,
                "modes",
                format!("this host does not run commands of mode {:?}", spec.mode),
            ));
        }
        Ok(())
    }

    /// Until the agent can become another user, the user must be its own; root is never implied.
    fn check_user(&self, asked: Option<&OsUser>) -> Result<(), LocalRefusal> {
        let account = &self.account;
        let Some(user) = asked.or(account.default_user.as_ref()) else {
            if account.uid == 0 {
                return Err(LocalRefusal::new(
                    RefusalReason::NotAllowed,
                    "default_user",
                    "the agent runs as root and neither the request nor default_user says root",
                ));
            }
            return Ok(());
        };
        let own = account.name.as_deref() == Some(user.as_str())
            || account.uid.to_string() == user.as_str();
        if own {
            return Ok(());
        }
        Err(LocalRefusal::new(
            RefusalReason::Unusable,
            "run_as",
            format!("this agent cannot become {user}; it runs commands as its own user only"),
        ))
    }

    fn check_variable(&self, name: &str, value: &str) -> Result<(), LocalRefusal> {
        let (list, rule) = if is_dangerous(name) {
            (&self.environment_dangerous, "environment_dangerous")
        } else {
            (&self.environment, "environment")
        };
        let allowed = list.iter().any(|pattern| pattern.matches(name));
        if !allowed {
            return Err(LocalRefusal::new(
                RefusalReason::NotAllowed,
                rule,
                format!("the variable {name:?} is not allowed on this host"),
            ));
        }
        if !is_safe_value(name, value) {
            return Err(LocalRefusal::new(
                RefusalReason::NotAllowed,
                rule,
                format!("the value of {name:?} could name a file to load"),
            ));
        }
        Ok(())
    }
}

/// Locale, zone and terminal names are also paths to the C library. sudo has the same rule.
fn is_safe_value(name: &str, value: &str) -> bool {
    match name {
        "TZ" => {
            let zone = value.strip_prefix(':').unwrap_or(value);
            !zone.starts_with('/') && !zone.split('/').any(|part| part == "..")
        }
        "LANG" | "LANGUAGE" | "TERM" => !value.contains(['/', '%']),
        _locale if name.starts_with("LC_") => !value.contains(['/', '%']),
        _other => true,
    }
}

/// The directory exists, and no component of its path is a symlink. Looked at again at the start.
fn check_directory(path: &str) -> Result<(), LocalRefusal> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(
        CWD,
        Path::new(path),
        flags,
        rustix::fs::Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )
    .map(drop)
    .map_err(|error| {
        LocalRefusal::new(
            RefusalReason::Unusable,
            "cwd",
            format!("the directory {path:?} cannot be used (symlinks are not followed): {error}"),
        )
    })
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
