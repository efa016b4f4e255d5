//! One simulated host: it listens for work, judges each grant as an agent does, and says on its chain
//! that it has started and ended.
//!
//! It owns the chain, the memory of one history and of what was used, in place of the journal. It must
//! not decide by itself what may run: that is [`Host::admit`].

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use countersign_agent::admission::{Host, Permit, Pins, Verdict};
use countersign_agent::client::{Backoff, Client, ClientError, SignIn};
use countersign_agent::clock::Clock;
use countersign_agent::{key as agent_key, trust};
use countersign_protocol::api::{Grant, Receipt, StreamBody, Submission, Work};
use countersign_protocol::blob::Blob;
use countersign_protocol::checkpoint::{Checkpoint, VerifierKey};
use countersign_protocol::event::{
    AgentEnrolled, Event, ExecutionCompleted, ExecutionRefused, ExecutionStarted, Outcome,
    ProgramFacts, RefusalReason, Seen, StreamTotals,
};
use countersign_protocol::hash::{CommandId, Digest, KeyId, LedgerId, StatementId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::{AgentName, Nonce, Time};
use countersign_protocol::proof;
use countersign_protocol::statement::Statement;
use ed25519_dalek::SigningKey;
use reqwest::Url;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::SimulationError;
use crate::fleet::Tally;

/// SHA-256 of nothing, which is what `true` writes.
const NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// What all agents of a fleet have in common.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) server: Url,
    pub(crate) ledger: LedgerId,
    pub(crate) vkey: VerifierKey,
    pub(crate) clock: Clock,
    /// The rules and people of each; the pins are each one's own.
    pub(crate) host: Arc<Host>,
    pub(crate) tally: Arc<Tally>,
    /// How many do something at a time.
    pub(crate) speaking: Arc<Semaphore>,
}

/// What one host keeps on its disk.
struct Memory {
    seen: Checkpoint,
    next: u64,
    prev: StatementId,
    used: HashSet<CommandId>,
}

/// One host.
pub(crate) struct Agent {
    pub(crate) name: AgentName,
    key: SigningKey,
    common: Common,
    client: Client,
    memory: Mutex<Memory>,
}

/// The fields that every statement of an agent carries.
struct Header {
    signer: KeyId,
    agent: AgentName,
    nonce: Nonce,
    made_at: Time,
    ledger: LedgerId,
    seen: Seen,
}

/// Builds an agent's payload from the header and its own fields.
macro_rules! event {
    ($header:expr, $name:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let Header { signer, agent, nonce, made_at, ledger, seen } = $header;
        Event::from($name { signer, agent, nonce, made_at, ledger, seen, $($field: $value),* })
    }};
}

impl Agent {
    /// A host with a new key that begins with a checkpoint which was checked against the pins.
    pub(crate) fn new(
        name: AgentName,
        address: Option<IpAddr>,
        common: &Common,
        seen: Checkpoint,
    ) -> Result<Self, SimulationError> {
        let seed = agent_key::random::<32>();
        let seed = seed.map_err(|error| SimulationError::shape("randomness")(&error))?;
        let key = SigningKey::from_bytes(&seed);
        let who = SignIn {
            agent: name.clone(),
            ledger: common.ledger,
            key: key.clone(),
        };
        let from = (common.clock.clone(), address);
        let client = Client::from_address(&common.server, None, who, from)?;
        let memory = Mutex::new(Memory {
            seen,
            next: 0,
            prev: StatementId::ZERO,
            used: HashSet::new(),
        });
        Ok(Self {
            name,
            key,
            common: common.clone(),
            client,
            memory,
        })
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey::of(&self.key)
    }

    fn header(&self, seen: &Checkpoint) -> Result<Header, SimulationError> {
        let nonce = agent_key::nonce();
        Ok(Header {
            signer: self.public().key_id(),
            agent: self.name.clone(),
            nonce: nonce.map_err(|error| SimulationError::shape("randomness")(&error))?,
            made_at: self.common.clock.now(),
            ledger: self.common.ledger,
            seen: Seen {
                size: seen.size(),
                root: seen.root(),
            },
        })
    }

    fn sign(&self, event: &Event) -> Result<Statement, SimulationError> {
        let signed = Statement::sign(event, &self.key);
        signed.map_err(|error| SimulationError::shape("a statement")(&error))
    }

    /// Introduces itself; the same statement until the server has it.
    pub(crate) async fn introduce(&self) -> Result<(), SimulationError> {
        let seen = self.memory.lock().await.seen.clone();
        let key = self.public();
        let header = self.header(&seen)?;
        let enrolled = event!(
            header,
            AgentEnrolled {
                key: key,
                sealing_key: None
            }
        );
        let submission = Submission::new(&self.sign(&enrolled)?, []);
        let mut backoff = Backoff::for_server();
        loop {
            match self.client.submit(&submission).await {
                Ok(_) => return Ok(()),
                Err(ClientError::Refused(problem)) => {
                    return Err(SimulationError::Refused {
                        what: "an enrolment",
                        code: problem.code,
                        detail: problem.detail,
                    });
                }
                Err(error) => tracing::debug!(%error, "not enrolled yet"),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Keeps a stream of work open and does what it brings, until it is stopped.
    pub(crate) async fn listen(&self, stop: &CancellationToken) {
        let mut backoff = Backoff::for_server();
        loop {
            let heard = tokio::select! {
                () = stop.cancelled() => return,
                heard = self.hear(&mut backoff) => heard,
            };
            if let Err(error) = heard {
                self.common.tally.trouble(&self.name, &error);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }

    async fn hear(&self, backoff: &mut Backoff) -> Result<(), SimulationError> {
        let mut stream = {
            let seen = self.memory.lock().await.seen.size();
            self.client.work(Some(seen)).await?
        };
        let _listening = self.common.tally.listening();
        backoff.reset();
        while let Some(work) = stream.next().await? {
            match work {
                Work::Grant(grant) => self.take(*grant).await?,
                Work::Cancel(stream) => self.cancel(&stream).await?,
            }
        }
        Ok(())
    }

    async fn take(&self, grant: Grant) -> Result<(), SimulationError> {
        self.common.tally.granted();
        // Hosts have files of their own; these share one process's.
        let speaking = self.common.speaking.acquire().await;
        let _speaking = speaking.map_err(|error| SimulationError::shape("a turn")(&error))?;
        let mut memory = self.memory.lock().await;
        let since = grant.since.as_ref();
        let since = since.filter(|since| since.size == memory.seen.size());
        let since = since.map(|since| since.proof.as_slice());
        let checkpoint = self
            .confirm(&mut memory, &grant.stream.checkpoint, since)
            .await?;
        let host = Host {
            pins: Pins {
                agent: self.name.clone(),
                key_id: self.public().key_id(),
                ..self.common.host.pins.clone()
            },
            ..Host::clone(&self.common.host)
        };
        let now = self.common.clock.now();
        let verdict = host.admit(&grant, &checkpoint, now, |id| memory.used.contains(id));
        match verdict.map_err(|error| SimulationError::shape("a grant")(&error))? {
            Verdict::Run(permit) => self.run(&mut memory, *permit).await,
            Verdict::Refuse { command, .. } => self.refuse(&mut memory, command).await,
            Verdict::Used(_) | Verdict::Wait { .. } => Ok(()),
        }
    }

    async fn cancel(&self, stream: &StreamBody) -> Result<(), SimulationError> {
        let mut memory = self.memory.lock().await;
        let checkpoint = self.confirm(&mut memory, &stream.checkpoint, None).await?;
        let now = self.common.clock.now();
        let cancelled = self.common.host.cancelled(stream, &checkpoint, now);
        let cancelled = cancelled.map_err(|error| SimulationError::shape("a cancel")(&error))?;
        // What was not started is not started any more; nothing here runs for long.
        memory.used.extend(cancelled);
        Ok(())
    }

    /// Started, confirmed, over at once with exit code 0, confirmed.
    async fn run(&self, memory: &mut Memory, permit: Permit) -> Result<(), SimulationError> {
        let command = permit.command();
        memory.used.insert(command);
        let (path, sha256) = permit.program();
        let salt = agent_key::random();
        let salt = salt.map_err(|error| SimulationError::shape("randomness")(&error))?;
        let path = Blob::new(salt, path);
        let path = path.map_err(|error| SimulationError::shape("a path")(&error))?;
        let program = ProgramFacts {
            path: path.reference(),
            sha256: Digest::new(sha256),
        };
        let started = event!(
            self.header(&memory.seen)?,
            ExecutionStarted {
                command: command,
                agent_seq: memory.next,
                agent_prev: memory.prev,
                in_force: None,
                program: program,
                steps: None,
            }
        );
        let Some(started) = self.say(memory, &started, &[path]).await? else {
            return Ok(());
        };
        self.common.tally.started();
        let nothing = || StreamTotals {
            total: 0,
            kept: 0,
            sha256: Digest::new(NOTHING),
        };
        let completed = event!(
            self.header(&memory.seen)?,
            ExecutionCompleted {
                command: command,
                agent_seq: memory.next,
                agent_prev: memory.prev,
                started: started,
                outcome: Outcome::Exited,
                detail: None,
                exit_code: Some(0),
                signal: None,
                duration_us: 1000,
                cpu_us: 500,
                max_rss: 1 << 20,
                stdout: nothing(),
                stderr: nothing(),
                chunks: 0,
                last_chunk: started,
                tree_gone: true,
                masked: None,
            }
        );
        if self.say(memory, &completed, &[]).await?.is_some() {
            self.common.tally.completed();
        }
        Ok(())
    }

    async fn refuse(&self, memory: &mut Memory, command: CommandId) -> Result<(), SimulationError> {
        memory.used.insert(command);
        let refused = event!(
            self.header(&memory.seen)?,
            ExecutionRefused {
                command: command,
                agent_seq: memory.next,
                agent_prev: memory.prev,
                why: RefusalReason::NotAllowed,
                rule: None,
                detail: None,
            }
        );
        if self.say(memory, &refused, &[]).await?.is_some() {
            self.common.tally.refused();
        }
        Ok(())
    }

    /// Says one thing on the chain: the same statement until it is answered. Nothing when the ledger
    /// said no, which frees its number.
    async fn say(
        &self,
        memory: &mut Memory,
        event: &Event,
        blobs: &[Blob],
    ) -> Result<Option<StatementId>, SimulationError> {
        let statement = self.sign(event)?;
        let id = statement.id();
        let submission = Submission::new(&statement, blobs);
        let mut backoff = Backoff::for_server();
        loop {
            match self.client.submit(&submission).await {
                Ok(receipt) => match self.believe(memory, &receipt, id).await {
                    Ok(()) => {
                        memory.next = memory.next.saturating_add(1);
                        memory.prev = id;
                        return Ok(Some(id));
                    }
                    // The proof was not to be had; the same statement gets the same receipt.
                    Err(error @ SimulationError::Client(_)) => {
                        self.common.tally.again(&self.name, &error);
                    }
                    Err(error) => return Err(error),
                },
                Err(ClientError::Refused(problem)) => {
                    self.common.tally.told_no(&self.name, &problem);
                    return Ok(None);
                }
                Err(error) => self.common.tally.again(&self.name, &error),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// The receipt is for this statement, in a log that continues the one seen before.
    async fn believe(
        &self,
        memory: &mut Memory,
        receipt: &Receipt,
        id: StatementId,
    ) -> Result<(), SimulationError> {
        let seen = trust::check_receipt(&self.common.vkey, receipt, id);
        seen.map_err(|error| SimulationError::shape("a receipt")(&error))?;
        let since = receipt.since_seen.as_deref();
        let confirmed = self.confirm(memory, &receipt.checkpoint, since).await;
        confirmed.map(drop)
    }

    /// A checkpoint that the pinned key signed and that continues what was seen, or is continued by it.
    async fn confirm(
        &self,
        memory: &mut Memory,
        note: &str,
        since: Option<&[countersign_protocol::hash::Hash]>,
    ) -> Result<Checkpoint, SimulationError> {
        let offered = Checkpoint::open(note, &self.common.vkey);
        let offered = offered.map_err(|error| SimulationError::shape("a checkpoint")(&error))?;
        let known = &memory.seen;
        if known.body() == offered.body() {
            return Ok(offered);
        }
        let (old, new) = if known.size() < offered.size() {
            (known, &offered)
        } else {
            (&offered, known)
        };
        let proof = match since.filter(|_| known.size() < offered.size()) {
            Some(proof) => proof.to_vec(),
            None if old.size() == new.size() => Vec::new(),
            None => self.client.consistency(old.size(), new.size()).await?,
        };
        proof::verify_consistency(old.size(), new.size(), &old.root(), &new.root(), &proof)
            .map_err(|error| SimulationError::shape("a second history")(&error))?;
        if offered.size() > known.size() {
            memory.seen = offered.clone();
        }
        Ok(offered)
    }
}
