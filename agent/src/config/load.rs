//! From the path of `agent.toml` to a checked [`Config`].
//!
//! It owns what each setting means, its default and its bounds. It must not open a socket.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_protocol::checkpoint::{Origin, VerifierKey};
use countersign_protocol::command::Mode;
use countersign_protocol::facts::{Facts, FactsError};
use countersign_protocol::hash::LedgerId;
use countersign_protocol::name::{AgentName, OsUser, Principal, SECOND_US};
use countersign_protocol::witness_policy::WitnessPolicy;
use reqwest::Url;
use toml::Spanned;

use super::confine::{WrittenConfine, bytes, confine};
use super::source::{ConfigError, Source};
use super::written::{Variables, Written};
use super::{actions, services, snapshot, tables};
use crate::client::{Ca, is_this_machine};
use crate::own::OwnFacts;
use crate::rules::{Account, NamePattern, Rules, RunAs};
use crate::signers::AllowedSigners;
use crate::snapshot::SnapshotRule;
use crate::spool;

/// Largest configuration file; a real one has two screens.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Most commands at once: each may hold a few MiB of output that waits to be delivered.
const MAX_RUNS: usize = 256;

/// The longest grace between TERM and KILL, so that a cancel takes effect within the minute.
const MAX_GRACE_S: u64 = 60;

/// The longest that an agent which is told to stop lets commands go on: service managers and people
/// wait for it.
const MAX_DRAIN_S: u64 = 300;

/// The pause between two idle statements when the host does not say: they are kept for ever, and of the
/// time since the last one nothing is proved yet.
const DEFAULT_IDLE_S: u64 = 3600;

/// The longest: with less than one a day there is little to prove.
const MAX_IDLE_S: u64 = 24 * 3600;

/// Above this an agent's journal would be the reason for a full disk.
const MAX_SPOOL: u64 = 1 << 40;

/// The oldest approval that any host takes: as long as a request can stay open.
pub(super) const MAX_AGE_S: u64 = 7 * 24 * 3600;

/// The oldest approval that a host takes when it does not say.
const DEFAULT_AGE_S: u64 = 3600;

/// Where every distribution has it.
const SUDO: &str = "/usr/bin/sudo";

/// Everything the agent was told by its host.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the server listens; `http` or `https`.
    pub server: Url,
    /// The only CA that counts there, if one is pinned.
    pub ca: Option<Ca>,
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
    /// Whose policy snapshot it takes, if it asks for one.
    pub snapshot: Option<SnapshotRule>,
    /// How old the ledger's newest entry may be that a grant shows, in microseconds, if it asks.
    pub max_checkpoint_age_us: Option<u64>,
    /// The witnesses that must have signed what a grant stands in, if it asks for them.
    pub witnesses: Option<WitnessPolicy>,
    /// What may run here.
    pub rules: Rules,
    /// Most commands at once.
    pub max_runs: usize,
    /// From TERM to KILL.
    pub grace: Duration,
    /// How long a key that was replaced still runs what names it.
    pub rotation_grace: Duration,
    /// How long commands may go on when the agent is told to stop.
    pub drain: Duration,
    /// The pause between two statements that nothing was started; without one only when it is asked.
    pub idle_every: Option<Duration>,
    /// What the host says of itself.
    pub facts: OwnFacts,
    /// Bytes of the journal from which on no command starts and output waits in its command.
    pub spool_max: u64,
}

/// What a running agent is and which ledger it speaks to: no reload changes it.
#[derive(Debug, Clone)]
pub(crate) struct Fixed {
    server: Url,
    ca: Option<Ca>,
    name: AgentName,
    state: PathBuf,
    ledger: LedgerId,
    vkey: VerifierKey,
}

impl Fixed {
    /// Settings that have another value in `config`.
    pub(crate) fn differing(&self, config: &Config) -> Vec<&'static str> {
        let same_key = self.vkey == config.vkey;
        let same_origin = self.vkey.origin() == config.vkey.origin();
        let same = [
            ("server", self.server == config.server),
            ("ca", self.ca == config.ca),
            ("name", self.name == config.name),
            ("state", self.state == config.state),
            ("ledger", self.ledger == config.ledger),
            ("origin", same_origin),
            ("vkey", same_key),
        ];
        let differing = same.into_iter().filter(|(_, same)| !same);
        differing.map(|(setting, _)| setting).collect()
    }
}

impl Config {
    /// Reads and checks the file at `path` and the `allowed_signers` it names, with the variables
    /// of this process over it. Relative paths start at the file's own folder.
    ///
    /// # Errors
    /// The first mistake, with its line or its variable.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, Variables::of_process())
    }

    /// [`Config::load`] with variables of the caller's.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(path: &Path, variables: Variables) -> Result<Self, ConfigError> {
        let mut config = Self::of_text(path, &read_trusted(path)?, variables, signers_of)?;
        if let Some(ca) = &mut config.ca {
            ca.pem = read_trusted(&ca.path)?;
            if ca.certificates().is_empty() {
                return Err(ConfigError::Ca(ca.path.clone()));
            }
        }
        Ok(config)
    }

    /// What stays until the next start.
    pub(crate) fn fixed(&self) -> Fixed {
        Fixed {
            server: self.server.clone(),
            ca: self.ca.clone(),
            name: self.name.clone(),
            state: self.state.clone(),
            ledger: self.ledger,
            vkey: self.vkey.clone(),
        }
    }

    /// [`Config::load_with`] of a text that was read already, as if it stood at `path`; `signers`
    /// reads the `allowed_signers` that it names. A CA file is not read: it trusts nobody yet.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn of_text(
        path: &Path,
        text: &str,
        variables: Variables,
        signers: impl FnMut(PathBuf) -> Result<AllowedSigners, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let mut source = Source {
            path,
            text,
            variables: Vec::new(),
        };
        let mut written: Written = toml::from_str(text)
            .map_err(|error| source.mistake(error.span(), error.message().trim_end()))?;
        written.take_over(variables, &mut source)?;
        Self::check(&source, written, signers)
    }

    fn check(
        source: &Source<'_>,
        mut written: Written,
        mut read_signers: impl FnMut(PathBuf) -> Result<AllowedSigners, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let folder = source.path.parent().unwrap_or(Path::new("."));
        let server_at = source.required(written.server.take(), "server")?;
        let name = source.required(written.name.take(), "name")?;
        let state = source.required(written.state.take(), "state")?;
        let ledger = source.required(written.ledger.take(), "ledger")?;
        let origin = source.required(written.origin.take(), "origin")?;
        let key = source.required(written.vkey.take(), "vkey")?;
        let signers = source.required(written.allowed_signers.take(), "allowed_signers")?;
        let max_runs = source.number(written.max_runs.take(), 10, (1, MAX_RUNS))?;
        let grace_s = source.number(written.grace_s.take(), 5, (0, MAX_GRACE_S))?;
        let drain_s = source.number(written.drain_s.take(), 10, (0, MAX_DRAIN_S))?;
        let idle = written.idle_every_s.take();
        let idle_every_s = source.number(idle, DEFAULT_IDLE_S, (0, MAX_IDLE_S))?;
        let bounds = (spool::LEAST_BYTES, MAX_SPOOL);
        let spool_max = bytes(source, written.spool_max.take(), spool::FULL_BYTES, bounds)?;
        // No approval that was given before the new key counts on this host any longer than that.
        let age_s = written.max_approval_age_s.as_ref();
        let age_s = age_s.map_or(DEFAULT_AGE_S, |age_s| *age_s.get_ref());
        let rotation = written.rotation_grace_s.take();
        let rotation_s = source.number(rotation, age_s.min(MAX_AGE_S), (0, MAX_AGE_S))?;
        let state = folder.join(state.into_inner());
        let signers = folder.join(signers.into_inner());
        let mut own_files = [&state, source.path, &signers].map(plain).to_vec();
        let ca = written.ca.take().map(|ca| Ca {
            path: folder.join(ca.into_inner()),
            pem: String::new(),
        });
        own_files.extend(ca.as_ref().map(|ca| plain(&ca.path)));
        let witnesses = written.witness_policy.take();
        let witnesses = witnesses.map(|path| folder.join(path.into_inner()));
        own_files.extend(witnesses.as_deref().map(plain));
        let in_clear = is_on(written.insecure_http.take());
        let signers = read_signers(signers)?;
        let asked = snapshot::asked(source, folder, &mut written, &mut read_signers)?;
        own_files.extend(asked.file.as_deref().map(plain));
        let break_glass = glass_breakers(source, written.break_glass.take(), &signers)?;
        let vkey = vkey(source, &key, &origin)?;
        let witnesses = witnesses
            .map(|path| witnesses_of(path, &vkey))
            .transpose()?;
        Ok(Self {
            server: server(source, &server_at, in_clear)?,
            ca,
            name: name.into_inner(),
            state,
            ledger: ledger.into_inner(),
            vkey,
            witnesses,
            signers,
            snapshot: asked.rule,
            max_checkpoint_age_us: asked.max_checkpoint_age_us,
            max_runs,
            grace: Duration::from_secs(grace_s),
            drain: Duration::from_secs(drain_s),
            idle_every: (idle_every_s > 0).then(|| Duration::from_secs(idle_every_s)),
            spool_max,
            facts: own_facts(
                source,
                written.say_facts.take(),
                std::mem::take(&mut written.facts),
            )?,
            rotation_grace: Duration::from_secs(rotation_s),
            rules: Rules {
                break_glass,
                ..rules(source, written, own_files)?
            },
        })
    }
}

/// What the host says of itself: what the system says, and what its file says beside that or instead.
fn own_facts(
    source: &Source<'_>,
    says: Option<Spanned<bool>>,
    written: BTreeMap<String, Spanned<String>>,
) -> Result<OwnFacts, ConfigError> {
    let mut facts = Facts::default();
    let silent = says.is_some_and(|says| !says.into_inner());
    for (name, value) in written {
        let mistake = |problem: String| source.mistake(Some(value.span()), problem);
        if silent {
            let problem = "say_facts = false: this host says none; take one of the two out";
            return Err(mistake(problem.to_owned()));
        }
        let named = name
            .parse()
            .map_err(|error: FactsError| mistake(error.to_string()))?;
        let text = value.get_ref().parse();
        let text = text.map_err(|error: FactsError| mistake(error.to_string()))?;
        if !facts.insert(named, text) {
            return Err(mistake(FactsError::Limit.to_string()));
        }
    }
    Ok(if silent {
        OwnFacts::Silent
    } else {
        OwnFacts::System(facts)
    })
}

fn witnesses_of(path: PathBuf, log: &VerifierKey) -> Result<WitnessPolicy, ConfigError> {
    let text = read_trusted(&path)?;
    let policy = text.parse::<WitnessPolicy>();
    let reason = match policy {
        Ok(policy) if policy.is_about(log) => return Ok(policy),
        Ok(_other) => format!("it names other logs than the pinned ledger; add `log {log}`"),
        Err(error) => error.to_string(),
    };
    Err(ConfigError::Witnesses { path, reason })
}

fn signers_of(path: PathBuf) -> Result<AllowedSigners, ConfigError> {
    let text = read_trusted(&path)?;
    AllowedSigners::parse(&text).map_err(|source| ConfigError::Signers { path, source })
}

/// Who may run without approvals. Whom this host does not know could never be believed either.
fn glass_breakers(
    source: &Source<'_>,
    written: Option<Vec<Spanned<Principal>>>,
    signers: &AllowedSigners,
) -> Result<Vec<Principal>, ConfigError> {
    let mut people = Vec::new();
    for named in written.unwrap_or_default() {
        if !signers.knows(named.get_ref()) {
            let problem = format!(
                "{} is not in allowed_signers, so their signature counts for nothing here; add their \
                 key there, or take them out of break_glass",
                named.get_ref()
            );
            return Err(source.mistake(Some(named.span()), problem));
        }
        people.push(named.into_inner());
    }
    Ok(people)
}

fn server(
    source: &Source<'_>,
    written: &Spanned<String>,
    in_clear: bool,
) -> Result<Url, ConfigError> {
    let mistake = || {
        let problem = "the server is an address like https://ledger.example.com:8443";
        source.mistake(Some(written.span()), problem)
    };
    let url: Url = written.get_ref().parse().map_err(|_| mistake())?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if !(matches!(url.scheme(), "http" | "https") && url.has_host() && plain) {
        return Err(mistake());
    }
    if url.scheme() == "http" && !in_clear && !is_this_machine(&url) {
        let problem = "http sends this agent's sessions and all output to another machine in \
                       clear, where whoever is on the way can read them; use https, or set \
                       insecure_http = true if the network between is trusted";
        return Err(source.mistake(Some(written.span()), problem));
    }
    Ok(url)
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

/// A switch that is off unless it is on.
pub(super) fn is_on(written: Option<Spanned<bool>>) -> bool {
    written.is_some_and(Spanned::into_inner)
}

fn rules(
    source: &Source<'_>,
    mut written: Written,
    own_files: Vec<PathBuf>,
) -> Result<Rules, ConfigError> {
    // A host that nobody watches may leave the number to the policy of its ledger; it must say so.
    let least = u32::from(!is_on(written.unattended.take()));
    let (min_approvals, shell_min_approvals) = approvals(source, least, &mut written)?;
    let account = account(source, &mut written)?;
    let age_s = source.number(written.max_approval_age_s, DEFAULT_AGE_S, (1, MAX_AGE_S))?;
    let environment = match written.environment {
        Some(names) => source.names(names)?,
        None => ["LANG", "LC_*", "TZ", "TERM"]
            .into_iter()
            .filter_map(NamePattern::parse)
            .collect(),
    };
    let environment_dangerous = written.environment_dangerous.unwrap_or_default();
    let base = &written.confine;
    let mut names = tables::Names::default();
    let services = services::services(source, written.service)?;
    let tables = (written.allow, written.deny);
    let commands = tables::commands(
        source,
        is_on(written.allow_all),
        (least, base),
        tables,
        (&mut names, &services),
    )?;
    Ok(Rules {
        execution: is_on(written.execution),
        min_approvals,
        shell_min_approvals,
        max_approval_age_us: age_s.saturating_mul(SECOND_US),
        break_glass: Vec::new(),
        gateway_may_cancel: is_on(written.gateway_may_cancel),
        secrets: written.secrets.is_none_or(|setting| *setting.get_ref()),
        modes: written
            .modes
            .unwrap_or_else(|| vec![Mode::Exec, Mode::Action]),
        commands,
        actions: actions::actions(source, (least, base), &mut names, written.action)?,
        services,
        shell: is_on(written.shell.allow),
        path: directories(source, written.path)?,
        environment,
        environment_dangerous: source.names(environment_dangerous)?,
        account,
        confine: confine(source, base, &WrittenConfine::default())?,
        shell_confine: confine(source, &written.shell.confine, base)?,
        own_files,
    })
}

/// The least numbers of people for `exec` and for `shell`.
fn approvals(
    source: &Source<'_>,
    least: u32,
    written: &mut Written,
) -> Result<(u32, u32), ConfigError> {
    let (exec, old, shell) = (
        written.min_approvals.take(),
        written.shell_min_approvals.take(),
        written.shell.min_approvals.take(),
    );
    for value in [&exec, &old, &shell].into_iter().flatten() {
        if *value.get_ref() < least {
            let problem =
                "no approval at all would be needed; if that is meant, set unattended = true";
            return Err(source.mistake(Some(value.span()), problem));
        }
    }
    if let (Some(old), Some(_)) = (&old, &shell) {
        let problem = "min_approvals of [shell] says the same; keep one of them";
        return Err(source.mistake(Some(old.span()), problem));
    }
    let exec = source.number(exec, 2, (0, u32::MAX))?;
    let shell = source.number(shell.or(old), exec, (0, u32::MAX))?;
    Ok((exec, shell))
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

/// The agent's own account, and whom it may become.
fn account(source: &Source<'_>, written: &mut Written) -> Result<Account, ConfigError> {
    let (default_user, users) = (written.default_user.take(), written.users.take());
    let users: Option<Vec<OsUser>> =
        users.map(|users| users.into_iter().map(Spanned::into_inner).collect());
    if let (Some(default), Some(users)) = (&default_user, &users)
        && !users.contains(default.get_ref())
    {
        let problem = "users does not have this one, so nothing that names no user could run";
        return Err(source.mistake(Some(default.span()), problem));
    }
    let run_as = run_as(source, written.run_as.take(), written.sudo.take())?;
    let default_user = default_user.map(Spanned::into_inner);
    Ok(Account::of_process(default_user, users, run_as))
}

fn run_as(
    source: &Source<'_>,
    how: Option<Spanned<String>>,
    sudo: Option<Spanned<PathBuf>>,
) -> Result<RunAs, ConfigError> {
    if let Some(relative) = sudo.as_ref().filter(|path| !path.get_ref().is_absolute()) {
        let problem = "sudo is the absolute path of the program";
        return Err(source.mistake(Some(relative.span()), problem));
    }
    match how.as_ref().map(|how| how.get_ref().as_str()) {
        None | Some("setuid") => Ok(RunAs::Setuid),
        Some("sudo") => Ok(RunAs::Sudo(
            sudo.map_or_else(|| SUDO.into(), Spanned::into_inner),
        )),
        Some(_unknown) => {
            let problem = "run_as is \"setuid\", by the agent itself, or \"sudo\"";
            Err(source.mistake(how.map(|how| how.span()), problem))
        }
    }
}

/// The path without links as far as it is there: what fences are made of.
fn plain(path: &Path) -> PathBuf {
    path.canonicalize()
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
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
