//! `agent.toml`: the pins and rules that the host keeps out of everybody else's reach.
//!
//! Read once, at the start. Every mistake is told with its line; an unknown setting is a mistake.
//! A pin that is missing is never filled in from the server. It must not open a socket.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_protocol::checkpoint::{Origin, VerifierKey};
use countersign_protocol::command::Mode;
use countersign_protocol::hash::LedgerId;
use countersign_protocol::name::{AgentName, OsUser, SECOND_US};
use reqwest::Url;
use serde::Deserialize;
use toml::Spanned;

use crate::rules::{Account, NamePattern, Rules};
use crate::signers::{AllowedSigners, SignersError};

/// Largest configuration file; a real one has two screens.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Most commands at once: each may hold a few MiB of output that waits to be delivered.
const MAX_RUNS: usize = 256;

/// The longest grace between TERM and KILL, so that a cancel takes effect within the minute.
const MAX_GRACE_S: u64 = 60;

/// The oldest approval that any host takes: as long as a request can stay open.
const MAX_AGE_S: u64 = 7 * 24 * 3600;

/// Everything the agent was told by its host.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the server listens; `http` or `https`.
    pub server: Url,
    /// The agent's name in the ledger.
    pub name: AgentName,
    /// Folder of key, journal and remembered checkpoint.
    pub state: PathBuf,
    /// The pinned ledger.
    pub ledger: LedgerId,
    /// The pinned key of its checkpoints; names the pinned origin too.
    pub vkey: VerifierKey,
    /// Who counts here.
    pub signers: AllowedSigners,
    /// What may run here.
    pub rules: Rules,
    /// Most commands at once.
    pub max_runs: usize,
    /// From TERM to KILL.
    pub grace: Duration,
}

/// Why the agent does not start with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Someone else could change it.
    #[error("{file} can be changed by others, and with it what runs here; run: chmod go-w {file}", file = .0.display())]
    Writable(PathBuf),
    /// Someone else owns it.
    #[error("{file} belongs to another user, who could change what runs here; run: chown root {file}", file = .0.display())]
    Owner(PathBuf),
    /// A mistake in the file.
    #[error("{path}, line {line}: {problem}", path = path.display())]
    Mistake {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A mistake in `allowed_signers`.
    #[error("{path}, {source}", path = path.display())]
    Signers {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        source: SignersError,
    },
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    server: Spanned<String>,
    name: AgentName,
    state: PathBuf,
    ledger: LedgerId,
    origin: Spanned<Origin>,
    vkey: Spanned<String>,
    allowed_signers: PathBuf,
    #[serde(default)]
    execution: bool,
    min_approvals: Option<Spanned<u32>>,
    #[serde(default)]
    unattended: bool,
    shell_min_approvals: Option<Spanned<u32>>,
    max_approval_age_s: Option<Spanned<u64>>,
    modes: Option<Vec<Mode>>,
    path: Option<Vec<Spanned<PathBuf>>>,
    environment: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    environment_dangerous: Vec<Spanned<String>>,
    default_user: Option<OsUser>,
    max_runs: Option<Spanned<usize>>,
    grace_s: Option<Spanned<u64>>,
}

/// A file's text, so that a mistake can be told with its line.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn mistake(&self, span: Option<Range<usize>>, problem: impl Into<String>) -> ConfigError {
        let start = span.map_or(0, |span| span.start).min(self.text.len());
        let before = self.text.as_bytes().get(..start).unwrap_or_default();
        ConfigError::Mistake {
            path: self.path.to_owned(),
            line: before
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                .saturating_add(1),
            problem: problem.into(),
        }
    }

    /// A number within bounds, or the default when it is left out.
    fn number<T: Copy + PartialOrd + std::fmt::Display>(
        &self,
        written: Option<Spanned<T>>,
        default: T,
        (least, most): (T, T),
    ) -> Result<T, ConfigError> {
        let Some(written) = written else {
            return Ok(default);
        };
        let value = *written.get_ref();
        if value < least || value > most {
            let problem = format!("the number must be between {least} and {most}");
            return Err(self.mistake(Some(written.span()), problem));
        }
        Ok(value)
    }

    fn names(&self, written: Vec<Spanned<String>>) -> Result<Vec<NamePattern>, ConfigError> {
        let parse = |name: Spanned<String>| {
            NamePattern::parse(name.get_ref()).ok_or_else(|| {
                let problem = "a variable is NAME, or NAME* for all that begin so";
                self.mistake(Some(name.span()), problem)
            })
        };
        written.into_iter().map(parse).collect()
    }
}

impl Config {
    /// Reads and checks the file at `path` and the `allowed_signers` it names. Relative paths in
    /// it start at its own folder.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_trusted(path)?;
        let source = Source { path, text: &text };
        let written: Written = toml::from_str(&text)
            .map_err(|error| source.mistake(error.span(), error.message().trim_end()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let signers_path = folder.join(&written.allowed_signers);
        let signers = AllowedSigners::parse(&read_trusted(&signers_path)?).map_err(|source| {
            ConfigError::Signers {
                path: signers_path,
                source,
            }
        })?;
        Ok(Self {
            server: server(&source, &written.server)?,
            name: written.name.clone(),
            state: folder.join(&written.state),
            ledger: written.ledger,
            vkey: vkey(&source, &written.vkey, &written.origin)?,
            signers,
            max_runs: source.number(written.max_runs.clone(), 10, (1, MAX_RUNS))?,
            grace: Duration::from_secs(source.number(
                written.grace_s.clone(),
                5,
                (0, MAX_GRACE_S),
            )?),
            rules: rules(&source, written)?,
        })
    }
}

fn server(source: &Source<'_>, written: &Spanned<String>) -> Result<Url, ConfigError> {
    let mistake = || {
        let problem = "the server is an address like https://ledger.example.com:8443";
        source.mistake(Some(written.span()), problem)
    };
    let url: Url = written.get_ref().parse().map_err(|_| mistake())?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && plain {
        Ok(url)
    } else {
        Err(mistake())
    }
}

fn vkey(
    source: &Source<'_>,
    written: &Spanned<String>,
    origin: &Spanned<Origin>,
) -> Result<VerifierKey, ConfigError> {
    let key: VerifierKey = written
        .get_ref()
        .parse()
        .map_err(|error| source.mistake(Some(written.span()), format!("{error}")))?;
    if key.origin() == origin.get_ref() {
        return Ok(key);
    }
    let problem = format!("the origin differs from the one in vkey, {}", key.origin());
    Err(source.mistake(Some(origin.span()), problem))
}

fn rules(source: &Source<'_>, written: Written) -> Result<Rules, ConfigError> {
    // A host that nobody watches may leave the number to the policy of its ledger; it must say so.
    let least = u32::from(!written.unattended);
    let zero = |value: &Option<Spanned<u32>>| value.as_ref().is_some_and(|v| *v.get_ref() < least);
    if let Some(value) = [&written.min_approvals, &written.shell_min_approvals]
        .into_iter()
        .find(|value| zero(value))
    {
        let problem = "no approval at all would be needed; if that is meant, set unattended = true";
        return Err(source.mistake(value.as_ref().map(Spanned::span), problem));
    }
    let min_approvals = source.number(written.min_approvals, 2, (0, u32::MAX))?;
    let age_s = source.number(written.max_approval_age_s, 3600, (1, MAX_AGE_S))?;
    let environment = match written.environment {
        Some(names) => source.names(names)?,
        None => ["LANG", "LC_*", "TZ", "TERM"]
            .into_iter()
            .filter_map(NamePattern::parse)
            .collect(),
    };
    Ok(Rules {
        execution: written.execution,
        min_approvals,
        shell_min_approvals: source.number(
            written.shell_min_approvals,
            min_approvals,
            (0, u32::MAX),
        )?,
        max_approval_age_us: age_s.saturating_mul(SECOND_US),
        modes: written.modes.unwrap_or_else(|| vec![Mode::Exec]),
        path: directories(source, written.path)?,
        environment,
        environment_dangerous: source.names(written.environment_dangerous)?,
        account: account(written.default_user),
    })
}

fn directories(
    source: &Source<'_>,
    written: Option<Vec<Spanned<PathBuf>>>,
) -> Result<Vec<PathBuf>, ConfigError> {
    let Some(written) = written else {
        let system = [
            "/usr/local/sbin",
            "/usr/local/bin",
            "/usr/sbin",
            "/usr/bin",
            "/sbin",
            "/bin",
        ];
        return Ok(system.map(PathBuf::from).to_vec());
    };
    if let Some(relative) = written.iter().find(|path| !path.get_ref().is_absolute()) {
        let problem = "programs are looked for in absolute directories only";
        return Err(source.mistake(Some(relative.span()), problem));
    }
    Ok(written.into_iter().map(Spanned::into_inner).collect())
}

/// The agent's own account. A name that `/etc/passwd` does not know is matched by its number only.
fn account(default_user: Option<OsUser>) -> Account {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    Account {
        uid,
        name,
        default_user,
    }
}

/// Reads a file that only root or the agent's own user can change.
fn read_trusted(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(ConfigError::Writable(path.to_owned()));
    }
    if ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
        return Err(ConfigError::Owner(path.to_owned()));
    }
    let mut text = String::new();
    file.take(MAX_CONFIG_BYTES)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}
