//! The shape of `agent.toml`, and the variables of the environment that win over it.
//!
//! It must not judge values beyond their type; `load` does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use countersign_protocol::checkpoint::Origin;
use countersign_protocol::command::Mode;
use countersign_protocol::hash::LedgerId;
use countersign_protocol::name::{AgentName, OsUser, Principal, RuleName, ServiceName};
use serde::Deserialize;
use toml::Spanned;

use super::confine::{Amount, WrittenConfine};
use super::snapshot::WrittenSnapshot;
use super::source::{ConfigError, Source};

/// Every setting but the rules can be given as this and its name in capitals.
pub const PREFIX: &str = "COUNTERSIGN_AGENT_";

/// Where the file is: read by the command line, not here.
const PATH_OF_FILE: &str = "CONFIG";

/// `COUNTERSIGN_AGENT_*`: they win over the file, which only its owner and the service can set.
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<String, OsString>);

impl Variables {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }
}

impl FromIterator<(OsString, OsString)> for Variables {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(pairs: I) -> Self {
        let ours = |(name, value): (OsString, OsString)| {
            let setting = name.to_str()?.strip_prefix(PREFIX)?.to_owned();
            (setting != PATH_OF_FILE).then_some((setting, value))
        };
        Self(pairs.into_iter().filter_map(ours).collect())
    }
}

/// A value that may be left out, with its place.
pub(super) type Setting<T> = Option<Spanned<T>>;

/// The file as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    pub(super) server: Setting<String>,
    pub(super) ca: Setting<PathBuf>,
    pub(super) insecure_http: Setting<bool>,
    pub(super) name: Setting<AgentName>,
    pub(super) state: Setting<PathBuf>,
    pub(super) ledger: Setting<LedgerId>,
    pub(super) origin: Setting<Origin>,
    pub(super) vkey: Setting<String>,
    pub(super) allowed_signers: Setting<PathBuf>,
    pub(super) execution: Setting<bool>,
    pub(super) min_approvals: Setting<u32>,
    pub(super) unattended: Setting<bool>,
    pub(super) shell_min_approvals: Setting<u32>,
    pub(super) max_approval_age_s: Setting<u64>,
    pub(super) max_checkpoint_age_s: Setting<u64>,
    pub(super) witness_policy: Setting<PathBuf>,
    pub(super) snapshot: Option<WrittenSnapshot>,
    pub(super) break_glass: Option<Vec<Spanned<Principal>>>,
    pub(super) gateway_may_cancel: Setting<bool>,
    pub(super) secrets: Setting<bool>,
    pub(super) modes: Option<Vec<Mode>>,
    pub(super) allow_all: Setting<bool>,
    pub(super) path: Option<Vec<Spanned<PathBuf>>>,
    pub(super) environment: Option<Vec<Spanned<String>>>,
    pub(super) environment_dangerous: Option<Vec<Spanned<String>>>,
    pub(super) default_user: Setting<OsUser>,
    pub(super) users: Option<Vec<Spanned<OsUser>>>,
    pub(super) run_as: Setting<String>,
    pub(super) sudo: Setting<PathBuf>,
    pub(super) max_runs: Setting<usize>,
    pub(super) grace_s: Setting<u64>,
    pub(super) drain_s: Setting<u64>,
    pub(super) idle_every_s: Setting<u64>,
    pub(super) spool_max: Setting<Amount>,
    pub(super) rotation_grace_s: Setting<u64>,
    pub(super) say_facts: Setting<bool>,
    #[serde(default)]
    pub(super) facts: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub(super) confine: WrittenConfine,
    #[serde(default)]
    pub(super) shell: WrittenShell,
    #[serde(default)]
    pub(super) allow: Vec<Spanned<WrittenAllow>>,
    #[serde(default)]
    pub(super) deny: Vec<Spanned<WrittenDeny>>,
    #[serde(default)]
    pub(super) action: Vec<WrittenAction>,
    #[serde(default)]
    pub(super) service: Vec<WrittenService>,
}

/// `[shell]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenShell {
    pub(super) allow: Setting<bool>,
    pub(super) min_approvals: Setting<u32>,
    #[serde(default)]
    pub(super) confine: WrittenConfine,
}

/// `[[allow]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAllow {
    pub(super) name: Spanned<RuleName>,
    pub(super) program: Spanned<String>,
    #[serde(default)]
    pub(super) args: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) args_not: Vec<Spanned<String>>,
    pub(super) services: Option<Vec<Spanned<ServiceName>>>,
    pub(super) users: Option<Vec<OsUser>>,
    pub(super) sha256: Option<Vec<Spanned<String>>>,
    pub(super) min_approvals: Setting<u32>,
    pub(super) timeout_s: Setting<u64>,
    #[serde(default)]
    pub(super) confine: WrittenConfine,
    pub(super) reason: Option<String>,
}

/// `[[deny]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenDeny {
    pub(super) name: Spanned<RuleName>,
    pub(super) program: Setting<String>,
    pub(super) args: Option<Vec<Spanned<String>>>,
    pub(super) any_arg: Option<Vec<Spanned<String>>>,
    pub(super) users: Option<Vec<OsUser>>,
    pub(super) sha256: Option<Vec<Spanned<String>>>,
    pub(super) reason: Option<String>,
}

/// `[[action]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAction {
    pub(super) name: Spanned<RuleName>,
    #[serde(default)]
    pub(super) args: Vec<Spanned<String>>,
    pub(super) steps: Spanned<Vec<Spanned<Vec<Spanned<String>>>>>,
    pub(super) cwd: Setting<String>,
    pub(super) env: Setting<bool>,
    pub(super) stdin: Setting<bool>,
    pub(super) users: Option<Vec<OsUser>>,
    pub(super) min_approvals: Setting<u32>,
    pub(super) timeout_s: Setting<u64>,
    #[serde(default)]
    pub(super) confine: WrittenConfine,
    pub(super) reason: Option<String>,
}

/// `[[service]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenService {
    pub(super) name: Spanned<ServiceName>,
    pub(super) docker: Setting<String>,
    pub(super) podman: Setting<String>,
    pub(super) enter: Setting<Vec<Spanned<String>>>,
    pub(super) into: Setting<Vec<Spanned<String>>>,
    pub(super) env: Setting<Vec<Spanned<String>>>,
    pub(super) cwd: Setting<Vec<Spanned<String>>>,
    pub(super) user: Setting<Vec<Spanned<String>>>,
    pub(super) descends: Setting<bool>,
    pub(super) allow_all: Setting<bool>,
    pub(super) shell: Setting<bool>,
}

/// Takes each named variable over what the file says.
macro_rules! take_over {
    ($variables:ident, $source:ident, $read:ident; $($name:literal => $place:expr),* $(,)?) => {
        $(if let Some(value) = $variables.$read($source, $name)? { $place = Some(value); })*
    };
}

impl Written {
    /// Lets the environment win.
    pub(super) fn take_over(
        &mut self,
        mut variables: Variables,
        source: &mut Source<'_>,
    ) -> Result<(), ConfigError> {
        take_over!(variables, source, scalar;
            "server" => self.server,
            "ca" => self.ca,
            "insecure_http" => self.insecure_http,
            "name" => self.name,
            "state" => self.state,
            "ledger" => self.ledger,
            "origin" => self.origin,
            "vkey" => self.vkey,
            "allowed_signers" => self.allowed_signers,
            "execution" => self.execution,
            "min_approvals" => self.min_approvals,
            "unattended" => self.unattended,
            "max_approval_age_s" => self.max_approval_age_s,
            "max_checkpoint_age_s" => self.max_checkpoint_age_s,
            "witness_policy" => self.witness_policy,
            "snapshot_administrators" => self.snapshot.get_or_insert_default().administrators,
            "snapshot_threshold" => self.snapshot.get_or_insert_default().threshold,
            "snapshot_max_age_s" => self.snapshot.get_or_insert_default().max_age_s,
            "gateway_may_cancel" => self.gateway_may_cancel,
            "secrets" => self.secrets,
            "allow_all" => self.allow_all,
            "default_user" => self.default_user,
            "run_as" => self.run_as,
            "sudo" => self.sudo,
            "max_runs" => self.max_runs,
            "grace_s" => self.grace_s,
            "drain_s" => self.drain_s,
            "idle_every_s" => self.idle_every_s,
            "say_facts" => self.say_facts,
            "spool_max" => self.spool_max,
            "rotation_grace_s" => self.rotation_grace_s,
            "shell_allow" => self.shell.allow,
        );
        // Two spellings of one number: the variable stands for both.
        if let Some(value) = variables.scalar(source, "shell_min_approvals")? {
            self.shell.min_approvals = None;
            self.shell_min_approvals = Some(value);
        }
        take_over!(variables, source, list;
            "break_glass" => self.break_glass,
            "path" => self.path,
            "environment" => self.environment,
            "environment_dangerous" => self.environment_dangerous,
            "users" => self.users,
        );
        if let Some(modes) = variables.list::<KnownMode>(source, "modes")? {
            let modes = modes.into_iter().map(|mode| mode.into_inner().0);
            self.modes = Some(modes.collect());
        }
        self.confine.take_over(&mut variables, source)?;
        match variables.0.into_keys().next() {
            Some(unknown) => Err(ConfigError::Variable {
                name: format!("{PREFIX}{unknown}"),
                problem: "no setting has this name, so it would do nothing; unset it".to_owned(),
            }),
            None => Ok(()),
        }
    }
}

impl WrittenConfine {
    /// Only the host's own table: a rule's is a rule.
    fn take_over(
        &mut self,
        variables: &mut Variables,
        source: &mut Source<'_>,
    ) -> Result<(), ConfigError> {
        take_over!(variables, source, scalar;
            "confine_protect_own" => self.protect_own,
            "confine_profile" => self.profile,
            "confine_cpu_s" => self.cpu_s,
            "confine_memory" => self.memory,
            "confine_processes" => self.processes,
            "confine_file_size" => self.file_size,
            "confine_open_files" => self.open_files,
            "confine_cgroup_memory" => self.cgroup.get_or_insert_default().memory,
            "confine_cgroup_cpu_percent" => self.cgroup.get_or_insert_default().cpu_percent,
            "confine_cgroup_processes" => self.cgroup.get_or_insert_default().processes,
            "confine_seccomp" => self.seccomp,
            "confine_umask" => self.umask,
        );
        take_over!(variables, source, list;
            "confine_protected" => self.protected,
            "confine_demand" => self.demand,
        );
        Ok(())
    }
}

impl Variables {
    /// A number, a word, or true or false.
    fn scalar<T: FromStr>(
        &mut self,
        source: &mut Source<'_>,
        setting: &'static str,
    ) -> Result<Setting<T>, ConfigError>
    where
        T::Err: std::fmt::Display,
    {
        let Some(value) = self.0.remove(&setting.to_ascii_uppercase()) else {
            return Ok(None);
        };
        let place = source.place_of_variable(setting);
        match value.to_str() {
            Some("") | None => {
                let problem = "it is empty or not UTF-8; give it a value or unset it";
                Err(source.mistake(Some(place), problem))
            }
            Some(text) => text
                .parse()
                .map(|value| Some(Spanned::new(place.clone(), value)))
                .map_err(|error: T::Err| source.mistake(Some(place), error.to_string())),
        }
    }

    /// Values with commas between them; an empty text is an empty list.
    fn list<T: FromStr>(
        &mut self,
        source: &mut Source<'_>,
        setting: &'static str,
    ) -> Result<Option<Vec<Spanned<T>>>, ConfigError>
    where
        T::Err: std::fmt::Display,
    {
        let Some(value) = self.0.remove(&setting.to_ascii_uppercase()) else {
            return Ok(None);
        };
        let place = source.place_of_variable(setting);
        let Some(text) = value.to_str() else {
            return Err(source.mistake(Some(place), "it is not UTF-8; give it another value"));
        };
        let words = text.split(',').filter(|_| !text.is_empty());
        let parse = |word: &str| match word.trim().parse() {
            Ok(value) => Ok(Spanned::new(place.clone(), value)),
            Err(error) => {
                let error: T::Err = error;
                Err(source.mistake(Some(place.clone()), error.to_string()))
            }
        };
        words.map(parse).collect::<Result<_, _>>().map(Some)
    }
}

/// A mode by its name in the file.
struct KnownMode(Mode);

impl FromStr for KnownMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "exec" => Ok(Self(Mode::Exec)),
            "shell" => Ok(Self(Mode::Shell)),
            "action" => Ok(Self(Mode::Action)),
            _unknown => Err("a mode is exec, shell or action"),
        }
    }
}
