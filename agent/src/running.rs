//! The story of one granted command: used, started, receipt, run, output, end.
//!
//! The order is what makes it run at most once: the journal has the used grant and the signed
//! start before anything is sent, and the receipt is held before anything is forked. It owns
//! turning the executor's messages into signed statements. It must not decide whether to run.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::api::Submission;
use countersign_protocol::blob::{Blob, BlobRef, MAX_BLOB_BYTES};
use countersign_protocol::canonical;
use countersign_protocol::event::{
    ExecutionCompleted, ExecutionLost, ExecutionOutput, ExecutionRefused, ExecutionStarted,
    InForce, LossForm, ProgramFacts, RefusalReason, Stream, StreamTotals,
};
use countersign_protocol::hash::{CommandId, Digest, StatementId};
use countersign_protocol::name::Time;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::admission::Permit;
use crate::config::Config;
use crate::execution::{self, Finished, Plan, RunEvent, Secrets};
use crate::facts::{action_step, facts, in_force};
use crate::rules::{LocalRefusal, SECRETS};
use crate::spool::{About, EndFacts, Record, Totals};
use crate::station::{AgentError, Said, Station, agent_event};

/// Messages of one run that wait to be written down: one append takes them all.
const MAX_TAKEN: usize = 16;

/// How often a command that waits in its write looks whether the journal has room again.
const ROOM_LOOK: Duration = Duration::from_millis(100);

/// How often a start is said that comes too early by the ledger's clock, which may be behind.
const START_TRIES: u32 = 12;

/// The pause between these tries; together they bridge the skew that the ledger itself tolerates.
const START_PAUSE: Duration = Duration::from_secs(1);

/// What `execution.started` says.
struct Start {
    command: CommandId,
    in_force: Option<InForce>,
    program: ProgramFacts,
    steps: Option<BlobRef>,
    blobs: Vec<Blob>,
}

/// What cannot be written down is not run.
fn too_long() -> LocalRefusal {
    LocalRefusal::new(
        RefusalReason::Unusable,
        "action",
        "the steps of this action with these arguments are more than the ledger takes as one text; \
         ask with shorter arguments",
    )
}

impl Station {
    /// Uses the permit: says `execution.started`, and with the receipt in hand runs it to the end.
    /// `grace` is the time from TERM to KILL.
    pub(crate) async fn run_command(
        &self,
        permit: Permit,
        grace: Duration,
        judged_by: watch::Receiver<Arc<Config>>,
        cancel: CancellationToken,
    ) -> Result<(), AgentError> {
        let (command, until) = (permit.command(), permit.remember_until());
        // Before anything is used up: what does not open is refused, and can be asked for again.
        let secrets = match self.open_secrets(&permit) {
            Ok(secrets) => secrets,
            Err(refusal) => return self.refuse(command, until, refusal).await,
        };
        let (path, sha256) = permit.program();
        let path = self.blob(path)?;
        let program = ProgramFacts {
            path: path.reference(),
            sha256: Digest::new(sha256),
        };
        let steps = match permit.action_steps() {
            Some(steps) => {
                match canonical::to_vec(&steps.iter().map(action_step).collect::<Vec<_>>()) {
                    Ok(document) if document.len() <= MAX_BLOB_BYTES => Some(self.blob(document)?),
                    // Said before anything is used up, so that a restart does not meet it again.
                    Ok(_) | Err(_) => return self.refuse(command, until, too_long()).await,
                }
            }
            None => None,
        };
        let in_force = permit.held().map(|(runner, held)| in_force(runner, held));
        let start = Start {
            command,
            in_force,
            program,
            steps: steps.as_ref().map(Blob::reference),
            blobs: std::iter::once(path).chain(steps).collect(),
        };
        let used = vec![Record::Used { command, until }];
        let mut said = self.say_started(&start, used).await?;
        for _ in 1..START_TRIES {
            // The ledger's clock is a little behind this host's: nothing runs until both agree.
            let early = matches!(&said, Said::Refused(problem) if problem.code == "not_yet");
            if !early || cancel.is_cancelled() || !permit.is_valid_at(self.clock.now()) {
                break;
            }
            tokio::time::sleep(START_PAUSE).await;
            said = self.say_started(&start, vec![]).await?;
        }
        let started = match said {
            Said::Accepted(started) => started,
            Said::Refused(problem) => {
                tracing::info!(%command, code = problem.code, "the ledger refused the start; nothing runs");
                return Ok(());
            }
            Said::Unanswered => return Ok(()),
        };
        // The receipt may have come late: then nothing runs, and the ledger learns that.
        if !permit.is_valid_at(self.clock.now()) {
            tracing::warn!(%command, "the receipt came after the command's time; nothing runs");
        } else if judged_by.has_changed().unwrap_or(true) {
            // What is live now may forbid it, and whoever held the receipt back must not gain by it.
            tracing::warn!(%command, "the configuration is another one than it was judged by; nothing runs");
        } else {
            tracing::info!(%command, "running");
            let permit = (permit, secrets, grace);
            Box::pin(self.execute(started, permit, cancel)).await?;
        }
        self.finish(started).await
    }

    /// What the permit's run is to be handed.
    fn open_secrets(&self, permit: &Permit) -> Result<Secrets, LocalRefusal> {
        let secrets = permit.open_secrets(self.identity.sealing())?;
        if secrets.has_files() && self.secrets_place.is_none() {
            let detail = "this host has no folder in memory to deliver a file in: /run and /dev/shm \
                 are no tmpfs, or not writable for the agent; ask for env or stdin";
            return Err(LocalRefusal::new(RefusalReason::Unusable, SECRETS, detail));
        }
        Ok(secrets)
    }

    async fn say_started(&self, start: &Start, before: Vec<Record>) -> Result<Said, AgentError> {
        let Start {
            command,
            in_force,
            program,
            steps,
            ref blobs,
        } = *start;
        self.say(
            About::Started(command),
            blobs.clone(),
            before,
            |header, chain| {
                let (agent_seq, agent_prev) = (chain.next, chain.prev);
                agent_event!(
                    header,
                    ExecutionStarted {
                        command,
                        agent_seq,
                        agent_prev,
                        in_force,
                        program,
                        steps
                    }
                )
            },
        )
        .await
    }

    /// Tells the ledger why this host will not run a command, once.
    pub(crate) async fn refuse(
        &self,
        command: CommandId,
        until: Time,
        refusal: LocalRefusal,
    ) -> Result<(), AgentError> {
        let LocalRefusal { why, rule, detail } = refusal;
        tracing::info!(%command, ?why, detail, "refused by this host");
        let detail = self.blob(detail.into_bytes())?;
        let named = Some(detail.reference());
        let used = vec![Record::Used { command, until }];
        let said = self
            .say(
                About::Refused(command),
                vec![detail],
                used,
                |header, chain| {
                    let (agent_seq, agent_prev) = (chain.next, chain.prev);
                    let detail = named;
                    agent_event!(
                        header,
                        ExecutionRefused {
                            command,
                            agent_seq,
                            agent_prev,
                            why,
                            rule,
                            detail
                        }
                    )
                },
            )
            .await?;
        if let Said::Refused(problem) = said {
            tracing::info!(%command, code = problem.code, "the refusal came too late to matter");
        }
        Ok(())
    }

    /// Says what is left to say of a run: its output in order, then how it ended. A run whose end
    /// the journal does not know is lost; it is never run again.
    pub(crate) async fn finish(&self, started: StatementId) -> Result<(), AgentError> {
        if !self.deliver_pending(started).await? {
            return Ok(());
        }
        let Some(run) = self.spool.run(&started) else {
            return Ok(());
        };
        if let Some(facts) = run.ended.filter(|_| !run.broken) {
            match self.say_completed(started, run.command, facts).await? {
                Said::Accepted(_) | Said::Unanswered => return Ok(()),
                Said::Refused(problem) => {
                    tracing::error!(command = %run.command, code = problem.code,
                        "the ledger refused the end of a run; it is said to be lost");
                }
            }
        }
        if let Said::Refused(problem) = self.say_lost(started, run.command).await? {
            tracing::error!(command = %run.command, code = problem.code,
                "the ledger refused to hear that a run is lost; nothing more is said of it");
            self.write_down(vec![Record::Closed { started }]).await?;
        }
        Ok(())
    }

    async fn say_completed(
        &self,
        started: StatementId,
        command: CommandId,
        facts: EndFacts,
    ) -> Result<Said, AgentError> {
        let run = self.spool.run(&started);
        let detail = match facts.detail {
            Some(why) => Some(self.blob(why.into_bytes())?),
            None => None,
        };
        let named = detail.as_ref().map(Blob::reference);
        let (chunks, last_chunk) = run.map_or((0, started), |run| (run.chunks, run.last_chunk));
        let totals = |totals: Totals| StreamTotals {
            total: totals.total,
            kept: totals.kept,
            sha256: totals.sha256,
        };
        self.say(
            About::Completed(started),
            detail.into_iter().collect(),
            vec![],
            |header, chain| {
                agent_event!(
                    header,
                    ExecutionCompleted {
                        command,
                        agent_seq: chain.next,
                        agent_prev: chain.prev,
                        started,
                        outcome: facts.outcome,
                        detail: named,
                        exit_code: facts.exit_code,
                        signal: facts.signal,
                        duration_us: facts.duration_us,
                        cpu_us: facts.cpu_us,
                        max_rss: facts.max_rss,
                        stdout: totals(facts.stdout),
                        stderr: totals(facts.stderr),
                        chunks,
                        last_chunk,
                        tree_gone: facts.tree_gone,
                        masked: facts.masked,
                    }
                )
            },
        )
        .await
    }

    async fn say_lost(&self, started: StatementId, command: CommandId) -> Result<Said, AgentError> {
        tracing::warn!(%command, "how this run ended is not known; it is said to be lost");
        self.say(About::Lost(started), vec![], vec![], |header, chain| {
            agent_event!(
                header,
                ExecutionLost {
                    command,
                    started,
                    form: LossForm::Confirmed,
                    agent_seq: Some(chain.next),
                    agent_prev: Some(chain.prev),
                }
            )
        })
        .await
    }

    /// Runs the plan; its output is written down, signed and delivered while it runs.
    async fn execute(
        &self,
        started: StatementId,
        permit: (Permit, Secrets, Duration),
        cancel: CancellationToken,
    ) -> Result<(), AgentError> {
        let (written, over) = (Notify::new(), CancellationToken::new());
        let recording = async {
            let recorded = self.record(started, permit, cancel, &written).await;
            over.cancel();
            recorded
        };
        let delivering = self.deliver_while(started, &written, &over);
        let (recorded, delivering) = tokio::join!(recording, delivering);
        recorded.and(delivering)
    }

    /// Takes the executor's messages and writes them down as signed statements.
    async fn record(
        &self,
        started: StatementId,
        (permit, secrets, grace): (Permit, Secrets, Duration),
        cancel: CancellationToken,
        written: &Notify,
    ) -> Result<(), AgentError> {
        let plan = match permit.into_plan(grace) {
            Ok(plan) => Plan {
                secrets,
                secrets_place: self.secrets_place.clone(),
                ..plan
            },
            Err(outcome) => {
                let facts = facts(&Finished::not_started(outcome));
                return self
                    .write_down(vec![Record::Ended { started, facts }])
                    .await;
            }
        };
        // Output is held back by a full journal only as long as the command may run.
        let mut patience = pin!(tokio::time::sleep(plan.timeout));
        let (sender, mut events) = mpsc::channel(MAX_TAKEN);
        let mut run = pin!(execution::run(plan, cancel.clone(), sender));
        let mut taken = Vec::with_capacity(MAX_TAKEN);
        let mut running = true;
        loop {
            let count = tokio::select! {
                ended = &mut run, if running => {
                    running = false;
                    if let Err(error) = ended {
                        tracing::error!(%error, "a run has no result");
                    }
                    continue;
                }
                count = events.recv_many(&mut taken, MAX_TAKEN) => count,
            };
            if count == 0 {
                return Ok(());
            }
            let records = self.sign_events(started, taken.drain(..))?;
            let writing = self.write_down(records);
            self.beside(&mut run, &mut running, writing).await?;
            written.notify_one();
            while self.spool.is_full() {
                let room = async {
                    tokio::select! {
                        () = tokio::time::sleep(ROOM_LOOK) => Ok(true),
                        () = cancel.cancelled() => Ok(false),
                        () = &mut patience => Ok(false),
                    }
                };
                if !self.beside(&mut run, &mut running, room).await? {
                    break;
                }
            }
        }
    }

    /// Waits for `other` while the run goes on.
    async fn beside<T>(
        &self,
        run: &mut (impl Future<Output = Result<(), execution::RunError>> + Unpin),
        running: &mut bool,
        other: impl Future<Output = Result<T, AgentError>>,
    ) -> Result<T, AgentError> {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return done,
                ended = &mut *run, if *running => {
                    *running = false;
                    if let Err(error) = ended {
                        tracing::error!(%error, "a run has no result");
                    }
                }
            }
        }
    }

    fn sign_events(
        &self,
        started: StatementId,
        events: impl Iterator<Item = RunEvent>,
    ) -> Result<Vec<Record>, AgentError> {
        let missing = || AgentError::Task("a run is not in the journal".into());
        let run = self.spool.run(&started).ok_or_else(missing)?;
        let (command, mut chunk_no, mut chunk_prev) = (run.command, run.chunks, run.last_chunk);
        let mut records = Vec::new();
        for event in events {
            let (stream, offset_us, bytes) = match event {
                RunEvent::Chunk {
                    stream: execution::Stream::Stdout,
                    offset_us,
                    bytes,
                } => (Stream::Stdout, offset_us, bytes),
                RunEvent::Chunk {
                    stream: execution::Stream::Stderr,
                    offset_us,
                    bytes,
                } => (Stream::Stderr, offset_us, bytes),
                RunEvent::Finished(finished) => {
                    let facts = facts(&finished);
                    records.push(Record::Ended { started, facts });
                    continue;
                }
            };
            let blob = self.blob(bytes)?;
            let data = blob.reference();
            let header = self.header()?;
            let event = agent_event!(
                header,
                ExecutionOutput {
                    command,
                    started,
                    chunk_no,
                    chunk_prev,
                    stream,
                    offset_us,
                    data
                }
            );
            let statement = self.sign(&event)?;
            chunk_prev = statement.id();
            chunk_no = chunk_no.saturating_add(1);
            records.push(Record::Chunk {
                started,
                id: chunk_prev,
                submission: Submission::new(&statement, [&blob]),
            });
        }
        Ok(records)
    }
}
