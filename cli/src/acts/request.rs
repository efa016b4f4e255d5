//! Asking for a command: everything that would run, frozen here from the caller's own arguments.

use std::time::Duration;

use countersign_protocol::blob::{Blob, BlobError};
use countersign_protocol::command::{
    Act, AtOutputLimit, CommandError, CommandSpec, DEFAULT_OUTPUT_LIMIT, DEFAULT_TIMEOUT_MS,
    Environment, MAX_LIFETIME_US, Mode,
};
use countersign_protocol::facts::{self, Run, UseError};
use countersign_protocol::hash::CommandId;
use countersign_protocol::judgement::Question;
use countersign_protocol::name::{AgentName, OsUser, Principal, SECOND_US, Time};
use countersign_protocol::rights::Rights;
use countersign_protocol::rollout::Rollout;
use countersign_protocol::secret::{Delivery, SecretError, SecretName};
use countersign_protocol::target::{Place, TargetError, TargetLine, TargetList};
use countersign_sealing::SealError;

use super::connect::Client;
use super::secrets::{Carrier, SecretSpec, seal};
use super::submit::{Accepted, person_event};
use super::turns::{Order, take_turns};
use crate::failure::Failure;
use crate::{clock, entropy};

/// A request begins to be valid this much before now, for hosts whose clock is behind ours; as far
/// as the ledger itself lets clocks differ.
const CLOCK_ALLOWANCE_US: u64 = 120 * SECOND_US;

/// What to ask for.
#[derive(Debug, Clone)]
pub struct RequestSpec {
    /// The hosts or their services, at least one.
    pub targets: Vec<Place>,
    /// Program, shell or action.
    pub mode: Mode,
    /// The words; one for a shell; for an action its name first.
    pub argv: Vec<String>,
    /// Absolute directory.
    pub cwd: Option<String>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// The account.
    pub user: Option<OsUser>,
    /// Milliseconds.
    pub timeout_ms: u64,
    /// Bytes of output kept on each host.
    pub output_limit: u64,
    /// What happens there; None: the run goes on.
    pub at_output_limit: Option<AtOutputLimit>,
    /// Asked for without approvals, by a rule for that; somebody else reviews it afterwards.
    pub break_glass: bool,
    /// Standard input.
    pub stdin: Option<Vec<u8>>,
    /// What only the hosts may read.
    pub secrets: Vec<SecretSpec>,
    /// How it goes over its hosts; None: all start at once, unless the policy says otherwise.
    pub rollout: Option<Rollout>,
    /// In which order, where it goes in turns.
    pub order: Order,
    /// Why.
    pub reason: String,
    /// How long approvals count and runs may start.
    pub expires_in: Duration,
}

impl RequestSpec {
    /// A program with its arguments on some hosts, all else as it is by default; open for an hour.
    #[must_use]
    pub fn new(targets: Vec<Place>, argv: Vec<String>, reason: &str) -> Self {
        Self {
            targets,
            mode: Mode::Exec,
            argv,
            cwd: None,
            env: Vec::new(),
            user: None,
            timeout_ms: DEFAULT_TIMEOUT_MS,
            output_limit: DEFAULT_OUTPUT_LIMIT,
            at_output_limit: None,
            break_glass: false,
            stdin: None,
            secrets: Vec::new(),
            rollout: None,
            order: Order::Name,
            reason: reason.to_owned(),
            expires_in: Duration::from_secs(3600),
        }
    }
}

/// A request that is provably in the log.
#[derive(Debug, Clone)]
pub struct Requested {
    /// The command's id.
    pub id: CommandId,
    /// Where it stands, with its receipt.
    pub accepted: Accepted,
}

/// Why nothing can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Something is outside its limits.
    #[error("{0}")]
    Command(#[from] CommandError),
    /// Something is too large.
    #[error("{what}: {error}")]
    Blob {
        /// What.
        what: &'static str,
        /// Why.
        error: BlobError,
    },
    /// The list of hosts.
    #[error("the list of hosts is not usable: {0}")]
    Targets(#[from] TargetError),
    /// No such host.
    #[error("there is no accepted agent {0}")]
    UnknownTarget(AgentName),
    /// Facts of hosts.
    #[error("{0}")]
    Facts(#[from] UseError),
    /// Secrets that cannot go together.
    #[error("the secrets cannot be sealed: {0}")]
    Secrets(#[from] SecretError),
    /// A value that cannot be sealed.
    #[error("the secret {0} cannot be sealed: {1}")]
    Seal(SecretName, SealError),
    /// A host without a key to seal to.
    #[error(
        "the agent {0} takes no secrets: the key that administrators accepted names no sealing key"
    )]
    NoSealingKey(AgentName),
    /// No reason was given.
    #[error("a request needs a reason")]
    NoReason,
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let message = error.to_string();
        match error {
            RequestError::UnknownTarget(_) => {
                Self::failed("unknown_agent", message).hint("countersign agents lists them")
            }
            RequestError::NoSealingKey(_) => Self::failed("no_sealing_key", message)
                .hint("its key is of before sealed secrets; rotate it there: countersign-agent rotate-key"),
            RequestError::Facts(UseError::Missing { .. } | UseError::Unsigned(_)) => {
                Self::failed("unknown_fact", message)
                    .hint("countersign agents --facts lists what hosts have signed; nothing was signed")
            }
            RequestError::Command(_)
            | RequestError::Facts(_)
            | RequestError::Blob { .. }
            | RequestError::Targets(_)
            | RequestError::Secrets(_)
            | RequestError::Seal(..)
            | RequestError::NoReason => Self::usage(message),
        }
    }
}

/// What is signed and sent along.
pub(super) struct Frozen {
    pub(super) act: Act,
    pub(super) spec: CommandSpec,
    pub(super) targets: TargetList,
    reason: Blob,
    others: Vec<Blob>,
}

impl Frozen {
    /// What a policy is asked of it.
    pub(super) const fn question<'a>(
        &'a self,
        rights: &'a Rights,
        requester: &'a Principal,
        now: Time,
    ) -> Question<'a> {
        Question {
            rights,
            requester,
            token: None,
            act: &self.act,
            spec: &self.spec,
            targets: &self.targets,
            now,
        }
    }
}

pub(super) fn blob(what: &'static str, content: Vec<u8>) -> Result<Blob, RequestError> {
    entropy::blob(content).map_err(|error| RequestError::Blob { what, error })
}

/// Freezes a request at a time, against proven rights. The server resolves nothing that is signed.
/// Without a `carrier` it is only to be judged, and its secrets are not sealed to anybody.
pub(super) fn freeze(
    spec: &RequestSpec,
    rights: &Rights,
    carrier: Option<Carrier>,
    now: Time,
) -> Result<Frozen, RequestError> {
    if spec.reason.trim().is_empty() {
        return Err(RequestError::NoReason);
    }
    let document = CommandSpec {
        mode: spec.mode,
        argv: spec.argv.clone(),
        cwd: spec.cwd.clone(),
        user: spec.user.clone(),
        timeout_ms: spec.timeout_ms,
        output_limit: spec.output_limit,
        at_output_limit: spec.at_output_limit,
    };
    document.check()?;
    let (document, used) = document.recorded()?;
    let bytes = document.to_document().map_err(CommandError::from)?;
    let command = blob("the command is too large", bytes)?;
    let env = if spec.env.is_empty() {
        None
    } else {
        let plain = |(name, value): &(String, String)| {
            let value = facts::literal(value, "a variable")?;
            Ok((name.clone(), value.into_owned()))
        };
        let variables = spec.env.iter().map(plain).collect::<Result<_, UseError>>();
        let document = Environment::new(variables?)?.to_document();
        let document = document.map_err(CommandError::from)?;
        Some(blob("the environment is too large", document)?)
    };
    let stdin = spec.stdin.clone();
    let stdin = stdin.map(|bytes| blob("standard input is too large", bytes));
    let stdin = stdin.transpose()?;
    let lines = spec.targets.iter().map(|place| {
        let Place { agent, service } = place.clone();
        let key_id = rights.agent(&agent);
        let key_id = key_id.ok_or_else(|| RequestError::UnknownTarget(agent.clone()))?;
        let facts = facts::of_host(&used, &agent, rights)?;
        Ok(TargetLine {
            agent,
            key_id,
            service,
            spec: command.reference().digest,
            turn: None,
            facts,
        })
    });
    let mut lines = lines.collect::<Result<Vec<_>, RequestError>>()?;
    take_turns(&mut lines, spec.order);
    let list = TargetList::new(lines)?;
    let bytes = list.to_document().map_err(TargetError::from)?;
    let targets = blob("the list of hosts is too large", bytes)?;
    let secrets = secrets(spec, &list, rights, carrier)?;
    let expires_us = u64::try_from(spec.expires_in.as_micros()).unwrap_or(u64::MAX);
    let expires_at = now.plus_micros(expires_us);
    let act = Act {
        mode: spec.mode,
        spec: command.reference(),
        env: env.as_ref().map(Blob::reference),
        stdin: stdin.as_ref().map(Blob::reference),
        secrets: secrets.as_ref().map(Blob::reference),
        targets: list.describe(targets.reference())?,
        user: spec.user.clone(),
        timeout_ms: spec.timeout_ms,
        output_limit: spec.output_limit,
        at_output_limit: spec.at_output_limit,
        not_before: not_before(now, expires_us),
        expires_at,
        max_runs: 1,
        break_glass: spec.break_glass,
        rollout: spec.rollout.clone(),
    };
    act.check()?;
    let mut others = vec![command, targets];
    others.extend(env);
    others.extend(stdin);
    others.extend(secrets);
    Ok(Frozen {
        act,
        spec: document,
        targets: list,
        reason: blob("the reason is too long", spec.reason.clone().into_bytes())?,
        others,
    })
}

/// The document of what the request hands over, if it hands over something.
fn secrets(
    spec: &RequestSpec,
    list: &TargetList,
    rights: &Rights,
    carrier: Option<Carrier>,
) -> Result<Option<Blob>, RequestError> {
    if spec.secrets.is_empty() {
        return Ok(None);
    }
    let on_stdin = |secret: &SecretSpec| secret.delivery == Delivery::Stdin;
    if spec.stdin.is_some() && spec.secrets.iter().any(on_stdin) {
        return Err(SecretError::Stdin.into());
    }
    let sealed = carrier.map(|carrier| seal(&spec.secrets, list.lines(), rights, carrier));
    let document = sealed.transpose()?.map(|sealed| sealed.to_document());
    let document = document.transpose().map_err(SecretError::from)?;
    let what = "the secrets are too large for so many hosts";
    blob(what, document.unwrap_or_default()).map(Some)
}

/// The allowance before now, less where the longest lifetime leaves no room for it.
pub(super) fn not_before(now: Time, expires_us: u64) -> Time {
    let room = MAX_LIFETIME_US.saturating_sub(expires_us);
    let allowance = CLOCK_ALLOWANCE_US.min(room);
    Time::from_micros(now.as_micros().saturating_sub(allowance)).unwrap_or(now)
}

impl Client {
    /// Asks for a command. Nothing runs before enough people have approved it.
    ///
    /// # Errors
    /// Outside a limit (nothing was signed), an unknown host, refused, or no valid receipt.
    pub async fn request(&self, spec: &RequestSpec) -> Result<Requested, Failure> {
        self.request_telling(spec, |_runs| ()).await
    }

    /// [`Client::request`], telling what hosts will run with their own facts in it, before anything is
    /// signed.
    ///
    /// # Errors
    /// As there.
    pub async fn request_telling(
        &self,
        spec: &RequestSpec,
        tell: impl FnOnce(&[Run<'_>]),
    ) -> Result<Requested, Failure> {
        let (rights, me) = self.rights_and_me().await?;
        let head = self.head(&me)?;
        let carrier = Carrier {
            ledger: head.ledger,
            signer: head.signer,
            nonce: head.nonce,
        };
        let frozen = freeze(spec, rights.state.rights(), Some(carrier), clock::now())?;
        tell(&facts::runs(&frozen.spec, &frozen.targets).map_err(RequestError::from)?);
        let (act, reason) = (frozen.act, frozen.reason.reference());
        let event = person_event!(
            head,
            CommandRequested {
                client_ref: None,
                token: None,
                retry: None,
                act,
                reason
            }
        );
        let mut blobs = frozen.others;
        blobs.push(frozen.reason);
        let accepted = self.submit(&event, &blobs).await?;
        let id = accepted.id;
        Ok(Requested { id, accepted })
    }
}
