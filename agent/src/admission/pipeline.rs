//! The order of the checks is the security argument, so it stands here on one screen.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::api::{Grant, SnapshotBody, StreamBody};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::command::{Act, AtOutputLimit, CommandSpec, Mode};
use countersign_protocol::event::RefusalReason;
use countersign_protocol::hash::{CommandId, KeyId, LedgerId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::{AgentName, Time};
use countersign_protocol::secret::{Binding, SealedSecrets};
use countersign_sealing::SealingSecret;

use super::consent::{self, MAX_AHEAD_US};
use super::evidence::{self, Documents, ProvenStream, Unproven};
use super::turn;
use crate::execution::{InForce, Mark, Outcome, Plan, Program, Reach, Secret, Secrets, Step};
use crate::own::OwnFacts;
use crate::rules::{self, Allowed, Inside, LocalRefusal, Rules, Runner, SECRETS, SHELL};
use crate::signers::AllowedSigners;
use crate::snapshot::{People, SnapshotRule, Snapshots, Standing};

/// What this host knows for certain, from its own configuration and key.
#[derive(Debug, Clone)]
pub struct Pins {
    /// The pinned ledger.
    pub ledger: LedgerId,
    /// The key of the ledger's statements, named by the genesis whose leaf is `ledger`.
    pub statement_key: PublicKey,
    /// The key that signs for API tokens, named by the same genesis; a ledger may have none.
    pub gateway_key: Option<PublicKey>,
    /// This agent.
    pub agent: AgentName,
    /// This agent's key.
    pub key_id: KeyId,
}

/// Everything that the host's decision rests on, but the grant, the time and the journal.
#[derive(Debug, Clone)]
pub struct Host {
    /// Certainties.
    pub pins: Pins,
    /// Who counts.
    pub signers: AllowedSigners,
    /// What may run.
    pub rules: Rules,
    /// When the journal of used grants begins.
    pub journal_since: Time,
    /// Whose snapshot it takes, if it asks for one.
    pub snapshot: Option<SnapshotRule>,
    /// What it remembers of snapshots.
    pub snapshots: Arc<Snapshots>,
    /// How old the ledger's newest entry may be that a grant shows, in microseconds, if it asks.
    pub max_checkpoint_age_us: Option<u64>,
    /// What it says of itself.
    pub facts: OwnFacts,
}

/// The host's answer to a grant that is true.
#[must_use]
#[derive(Debug)]
pub enum Verdict {
    /// Run it, once.
    Run(Box<Permit>),
    /// Its time has not come; ask again at that time.
    Wait {
        /// The command.
        command: CommandId,
        /// When, by the host's own clock.
        until: Time,
    },
    /// This host will not; the ledger shall know why.
    Refuse {
        /// The command.
        command: CommandId,
        /// For how long the refusal must be remembered.
        remember_until: Time,
        /// Why.
        refusal: LocalRefusal,
    },
    /// It was used before; nothing is to be done.
    Used(CommandId),
}

/// The right to run one command once. Made only by [`Host::admit`]; carries its limits.
#[must_use]
pub struct Permit {
    command: CommandId,
    act: Act,
    remember_until: Time,
    /// From then on it may not start: the act's expiry, or an approval's age.
    valid_until: Time,
    allowed: Allowed,
    /// The name of the program that was asked for.
    asked: String,
    stdin: Vec<u8>,
    /// What it is to be handed, closed, and to what that is bound.
    sealed: Option<(SealedSecrets, Binding)>,
}

impl Host {
    /// Decides on a grant. `checkpoint` is its stream's, already proved consistent with the one
    /// that this host remembers; `is_used` asks the journal. Reads the program's file.
    ///
    /// # Errors
    /// The grant is not true; nothing is done and nothing is said to the ledger.
    pub fn admit(
        &self,
        grant: &Grant,
        checkpoint: &Checkpoint,
        now: Time,
        is_used: impl Fn(&CommandId) -> bool,
    ) -> Result<Verdict, Unproven> {
        // Is it true? Bytes, signatures and places; the life of the command; this host; the text.
        let stream = ProvenStream::prove(&grant.stream, checkpoint, &self.pins.ledger)?;
        // The snapshot stands by its own signatures, and says who is known here besides.
        let offered = grant.snapshot.as_ref();
        let standing = self.standing(offered, now);
        let people = People::new(&self.signers, &standing);
        let proven = evidence::fold(&stream, &self.pins, &people)?;
        let shown_at = evidence::shown_at(grant, &stream, checkpoint, &self.pins.ledger)?;
        let line = evidence::own_line(grant, &proven.command, &self.pins)?;
        let shown = turn::Shown {
            grant,
            stream: &stream,
            proven: &proven,
            line: &line,
            checkpoint,
            pins: &self.pins,
        };
        let turn = turn::prove(&shown)?;
        let documents = Documents::read(&stream, &proven.command)?;
        // From here on only what this host runs counts: the words with its own facts in them.
        let spec = documents.spec.for_host(&line).map_err(Unproven::Facts)?;

        // Was it done? Before anything else is said about it, so that a repeat stays silent.
        let (id, act) = (proven.command.id, proven.command.act().clone());
        if is_used(&id) {
            return Ok(Verdict::Used(id));
        }

        // Is it time? By this host's own clock, whatever the ledger's says.
        let until = turn.map_or(act.not_before, |turn| turn.from.max(act.not_before));
        if now < until {
            return Ok(Verdict::Wait { command: id, until });
        }
        let own = (self.rules.approvals_for(act.mode), "min_approvals");
        let least = standing.least(own);
        let held_until = standing.snapshot.as_ref().map(|(_, until)| *until);
        let remember_until = act.expires_at.plus_micros(self.rules.max_approval_age_us);
        let judged = self
            .check_time(&act, now)
            .and_then(|()| turn::check_time(turn, now))
            // Is it today's log, and today's list of people?
            .and_then(|()| self.check_shown(shown_at, now))
            .and_then(|()| standing.check())
            .and_then(|()| consent::check_keys(&stream, &proven, &people))
            .and_then(|()| turn::check_canary(&shown, &people, now))
            // Is it enough? Distinct people whom this host pins, or its administrators list.
            .and_then(|()| consent::check((self, &people), &stream, &proven, now, least))
            .map(|until| held_until.map_or(until, |held| until.min(held)))
            .map(|until| turn.map_or(until, |turn| until.min(turn.until)))
            // Is it still made for this host?
            .and_then(|until| self.facts.check(&line).map(|()| until))
            // Is it allowed here? Local rules win over any signature.
            .and_then(|until| {
                let secrets = documents.secrets.as_ref();
                let environment = rules::with_secrets(documents.environment.as_ref(), secrets)?;
                let (service, environment) = (line.service.as_ref(), environment.as_ref());
                let mut allowed = self.rules.judge(service, &spec, environment)?;
                self.rules
                    .check_secrets(&mut allowed, secrets, &self.pins.key_id)?;
                let has_stdin = act.stdin.is_some() || rules::on_stdin(secrets);
                if has_stdin && !allowed.stdin {
                    let (why, rule) = (RefusalReason::NotAllowed, allowed.rule.as_str());
                    let detail = "the action takes no standard input: it does not say stdin = true";
                    return Err(LocalRefusal::new(why, rule, detail));
                }
                // A rule may ask for more people than the host does for everything.
                if allowed.min_approvals > least.0 {
                    let demanded = (allowed.min_approvals, allowed.rule.as_str());
                    consent::check((self, &people), &stream, &proven, now, demanded)?;
                }
                Ok((until, allowed))
            });
        let binding = Binding {
            ledger: self.pins.ledger,
            agent: self.pins.key_id,
            requester: proven.command.request.signer,
            nonce: proven.command.request.nonce,
        };
        Ok(match judged {
            Ok((valid_until, allowed)) => Verdict::Run(Box::new(Permit {
                command: id,
                act,
                remember_until,
                valid_until,
                allowed,
                asked: asked_program(&spec),
                stdin: documents.stdin,
                sealed: documents.secrets.map(|secrets| (secrets, binding)),
            })),
            Err(refusal) => Verdict::Refuse {
                command: id,
                remember_until,
                refusal,
            },
        })
    }

    /// The command that this stream cancels, if it is true and a person asked for it whom this host pins or
    /// its snapshot lists, even one whose time is over; or the gateway where this host says that it may.
    ///
    /// # Errors
    /// The stream is not true.
    pub fn cancelled(
        &self,
        stream: &StreamBody,
        checkpoint: &Checkpoint,
        now: Time,
    ) -> Result<Option<CommandId>, Unproven> {
        let stream = ProvenStream::prove(stream, checkpoint, &self.pins.ledger)?;
        let gateway = (&self.pins, self.rules.gateway_may_cancel);
        let (rule, ledger) = (self.snapshot.as_ref(), &self.pins.ledger);
        let standing = self.snapshots.weigh_to_stop(rule, ledger, now);
        let people = People::new(&self.signers, &standing);
        Ok(evidence::cancelled_by_known(&stream, gateway, &people, now))
    }

    fn standing(&self, offered: Option<&SnapshotBody>, now: Time) -> Standing {
        let rule = self.snapshot.as_ref();
        self.snapshots.weigh(offered, rule, &self.pins.ledger, now)
    }

    /// An old checkpoint hides what was said since: a cancel, a revoked key.
    fn check_shown(&self, shown_at: Option<Time>, now: Time) -> Result<(), LocalRefusal> {
        let Some(max_age_us) = self.max_checkpoint_age_us else {
            return Ok(());
        };
        let refused = |detail: &str| {
            Err(LocalRefusal::new(
                RefusalReason::Time,
                MAX_CHECKPOINT_AGE,
                detail,
            ))
        };
        match shown_at {
            Some(time) if time.micros_since(now) > MAX_AHEAD_US => refused(
                "the newest entry that the server shows is from the future of this host's clock; \
                 check the clocks of both",
            ),
            Some(time) if now.micros_since(time) <= max_age_us => Ok(()),
            Some(_) | None => refused(
                "the newest entry that the server shows is older than this host takes; check that \
                 the ledger writes (an idle one makes an entry a minute) and ask again",
            ),
        }
    }

    fn check_time(&self, act: &Act, now: Time) -> Result<(), LocalRefusal> {
        if now < act.expires_at {
            return Ok(());
        }
        Err(LocalRefusal::new(
            RefusalReason::Time,
            "expires_at",
            "the command's time is over by this host's clock",
        ))
    }
}

/// The setting that refusals name.
pub(crate) const MAX_CHECKPOINT_AGE: &str = "max_checkpoint_age_s";

impl Permit {
    /// The command.
    #[must_use]
    pub const fn command(&self) -> CommandId {
        self.command
    }

    /// For how long the journal must remember that it was used.
    #[must_use]
    pub const fn remember_until(&self) -> Time {
        self.remember_until
    }

    /// Whether it may still start at this time; asked again just before it does.
    #[must_use]
    pub fn is_valid_at(&self, now: Time) -> bool {
        self.act.not_before <= now && now < self.valid_until
    }

    /// What will run: the opened file's path and SHA-256, also where `sudo` will open it again; of an
    /// action its first step, of a service what enters it. Where there is no program, the name that
    /// was asked for and zeros.
    #[must_use]
    pub fn program(&self) -> (Vec<u8>, [u8; 32]) {
        let steps = self.allowed.steps.as_deref().unwrap_or_default();
        match steps.first() {
            Some(Step { program, .. }) => (
                program.path().as_os_str().as_bytes().to_vec(),
                *program.sha256(),
            ),
            None => (self.asked.clone().into_bytes(), [0; 32]),
        }
    }

    /// Of an action whose programs are all there: its steps, as they will run.
    #[must_use]
    pub fn action_steps(&self) -> Option<&[Step]> {
        let steps = self.allowed.steps.as_deref().ok()?;
        (self.act.mode == Mode::Action).then_some(steps)
    }

    /// Whom it will run as, and what will hold it; none where there is no program to be held, or
    /// where nothing of this host holds it.
    #[must_use]
    pub fn held(&self) -> Option<(&Runner, &InForce)> {
        let allowed = &self.allowed;
        let is_held = allowed.steps.is_ok() && allowed.is_held_here();
        is_held.then_some((&allowed.runner, &allowed.in_force))
    }

    /// Opens what it is to be handed, with this host's own key. Nobody opens anything earlier than
    /// this: a permit is there only where everything else has said yes.
    ///
    /// # Errors
    /// A box that is not for this host, this ledger, this requester or this request; a value that
    /// nobody signed for, or that cannot be handed over.
    pub fn open_secrets(&self, key: Option<&SealingSecret>) -> Result<Secrets, LocalRefusal> {
        let Some((sealed, binding)) = &self.sealed else {
            return Ok(Secrets::default());
        };
        let refused = |detail: String| LocalRefusal::new(RefusalReason::Unusable, SECRETS, detail);
        let key = key.ok_or_else(|| {
            refused("this host's key is of before sealed secrets; rotate its key".to_owned())
        })?;
        let mut opened = Vec::with_capacity(sealed.secrets().len());
        for secret in sealed.secrets() {
            let own = secret.for_key(&binding.agent).ok_or_else(|| {
                refused(format!(
                    "the secret {} is not sealed to this host",
                    secret.name
                ))
            })?;
            let value = key.open(own, (binding, &secret.name), &secret.digest);
            let value = value.map_err(|error| {
                refused(format!("the secret {} does not open: {error}", secret.name))
            })?;
            opened.push(Secret {
                name: secret.name.clone(),
                delivery: secret.delivery,
                value,
            });
        }
        Secrets::new(opened).map_err(|error| refused(error.to_string()))
    }

    /// Gives the permit up for a plan without its secrets, or for the outcome of a run that has no program.
    ///
    /// # Errors
    /// There is no such program, or none that can be executed.
    pub fn into_plan(self, grace: Duration) -> Result<Plan, Outcome> {
        let (allowed, act) = (self.allowed, self.act);
        let found = allowed.steps.map_err(|error| error.outcome())?;
        let mut steps = found.into_iter().map(|step| match &allowed.sudo {
            Some(sudo) => by_sudo(sudo, &allowed.runner, &step),
            None => Ok(step),
        });
        let nothing = || Err(Outcome::FailedToStart("there is no step to run".to_owned()));
        let first = steps.next().unwrap_or_else(nothing)?;
        let then = steps.collect::<Result<_, _>>()?;
        let mut env = allowed.env;
        let reach = match allowed.inside {
            Inside::Host => Reach::Tree,
            Inside::Service { marked: false, .. } => Reach::Beyond,
            Inside::Service { descends, .. } => {
                let mark = Mark::new(self.command.to_string(), descends);
                env.push(mark.variable());
                Reach::Marked(mark)
            }
        };
        Ok(Plan {
            first,
            then,
            cwd: allowed.cwd,
            env,
            stdin: self.stdin,
            timeout: Duration::from_millis(act.timeout_ms),
            grace,
            output_limit: act.output_limit,
            stop_at_limit: act.at_output_limit == Some(AtOutputLimit::Stop),
            // Whoever holds the opened ones adds them.
            secrets: Secrets::default(),
            secrets_place: None,
            reach,
            confinement: allowed.confinement,
            announced: Some(allowed.in_force),
        })
    }
}

/// The step by way of `sudo`, which is opened once for each.
fn by_sudo(sudo: &Program, runner: &Runner, step: &Step) -> Result<Step, Outcome> {
    let args = step.argv.get(1..).unwrap_or_default();
    let argv = rules::through_sudo(runner, step.program.path(), args);
    let program = sudo
        .try_clone()
        .map_err(|error| Outcome::FailedToStart(format!("sudo cannot be opened: {error}")))?;
    Ok(Step { program, argv })
}

/// The program by the name that was asked for: the shell of a script, the name of an action.
fn asked_program(spec: &CommandSpec) -> String {
    match spec.mode {
        Mode::Exec | Mode::Action => spec.argv.first().cloned().unwrap_or_default(),
        Mode::Shell => SHELL.to_owned(),
    }
}

/// Arguments, environment and stdin may hold secrets, so they never reach a log this way.
impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}
