//! The order of the checks is the security argument, so it stands here on one screen.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use countersign_protocol::api::{Grant, StreamBody};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::command::Act;
use countersign_protocol::event::RefusalReason;
use countersign_protocol::hash::{CommandId, KeyId, LedgerId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::{AgentName, Time};

use super::consent;
use super::evidence::{self, Documents, ProvenStream, Unproven};
use crate::execution::{self, InForce, Plan};
use crate::rules::{self, Allowed, LocalRefusal, Rules, Runner};
use crate::signers::AllowedSigners;

/// What this host knows for certain, from its own configuration and key.
#[derive(Debug, Clone)]
pub struct Pins {
    /// The pinned ledger.
    pub ledger: LedgerId,
    /// The key of the ledger's statements, named by the genesis whose leaf is `ledger`.
    pub statement_key: PublicKey,
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
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: PathBuf,
    stdin: Vec<u8>,
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
        let proven = evidence::fold(&stream, &self.pins, &self.signers)?;
        evidence::check_line(grant, &proven.command, &self.pins)?;
        let documents = Documents::read(&stream, &proven.command)?;

        // Was it done? Before anything else is said about it, so that a repeat stays silent.
        let (id, act) = (proven.command.id, proven.command.act().clone());
        if is_used(&id) {
            return Ok(Verdict::Used(id));
        }

        // Is it time? By this host's own clock, whatever the ledger's says.
        if now < act.not_before {
            let until = act.not_before;
            return Ok(Verdict::Wait { command: id, until });
        }
        let least = (self.rules.approvals_for(act.mode), "min_approvals");
        let remember_until = act.expires_at.plus_micros(self.rules.max_approval_age_us);
        let judged = self
            .check_time(&act, now)
            // Is it enough? Distinct people whom this host pins.
            .and_then(|()| consent::check(self, &stream, &proven, now, least))
            // Is it allowed here? Local rules win over any signature.
            .and_then(|until| {
                let environment = documents.environment.as_ref();
                let allowed = self.rules.judge(&documents.spec, environment)?;
                // A rule may ask for more people than the host does for everything.
                if allowed.min_approvals > least.0 {
                    let demanded = (allowed.min_approvals, allowed.rule.as_str());
                    consent::check(self, &stream, &proven, now, demanded)?;
                }
                Ok((until, allowed))
            });
        Ok(match judged {
            Ok((valid_until, allowed)) => {
                let (argv, env) = rules::words(&documents.spec, documents.environment.as_ref());
                Verdict::Run(Box::new(Permit {
                    command: id,
                    act,
                    remember_until,
                    valid_until,
                    allowed,
                    argv,
                    env,
                    cwd: documents.spec.cwd.unwrap_or_else(|| "/".to_owned()).into(),
                    stdin: documents.stdin,
                }))
            }
            Err(refusal) => Verdict::Refuse {
                command: id,
                remember_until,
                refusal,
            },
        })
    }

    /// The command that this stream cancels, if it is true and a pinned person asked for it.
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
        Ok(evidence::cancelled_by_known(&stream, &self.signers, now))
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

    /// What will run: the opened file's path and SHA-256, also where `sudo` will open it again.
    /// Where there is no program, the name that was asked for and zeros.
    #[must_use]
    pub fn program(&self) -> (Vec<u8>, [u8; 32]) {
        match &self.allowed.program {
            Ok(program) => (
                program.path().as_os_str().as_bytes().to_vec(),
                *program.sha256(),
            ),
            Err(_) => {
                let asked = self.argv.first().map(|name| name.as_bytes().to_vec());
                (asked.unwrap_or_default(), [0; 32])
            }
        }
    }

    /// Whom it will run as, and what will hold it; none where there is no program to be held.
    #[must_use]
    pub fn held(&self) -> Option<(&Runner, &InForce)> {
        let Allowed {
            program,
            runner,
            in_force,
            ..
        } = &self.allowed;
        program.is_ok().then_some((runner, in_force))
    }

    /// Gives the permit up for a plan, or for the outcome of a run that has no program.
    ///
    /// # Errors
    /// There is no such program, or none that can be executed.
    pub fn into_plan(self, grace: Duration) -> Result<Plan, execution::Outcome> {
        let allowed = self.allowed;
        let found = allowed.program.map_err(|error| error.outcome())?;
        let (program, argv) = match allowed.sudo {
            Some(sudo) => {
                let args = self.argv.get(1..).unwrap_or_default();
                let argv = rules::through_sudo(&allowed.runner, found.path(), args);
                (sudo, argv)
            }
            None => (found, self.argv),
        };
        Ok(Plan {
            confinement: allowed.confinement,
            announced: Some(allowed.in_force),
            program,
            argv,
            cwd: self.cwd,
            env: self.env,
            stdin: self.stdin,
            timeout: Duration::from_millis(self.act.timeout_ms),
            grace,
            output_limit: self.act.output_limit,
        })
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
