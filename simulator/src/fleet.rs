//! Many agents: made, enrolled, connected, counted.
//!
//! It owns how many things are under way at once. It must not know what a server is made of.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign_agent::admission::{Host, Pins};
use countersign_agent::client::{Client, SignIn};
use countersign_agent::clock::Clock;
use countersign_agent::config::{Config, Variables};
use countersign_agent::signers::AllowedSigners;
use countersign_agent::{key as agent_key, trust};
use countersign_protocol::api::Problem;
use countersign_protocol::checkpoint::{Checkpoint, VerifierKey};
use countersign_protocol::hash::LedgerId;
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::{AgentName, Time};
use ed25519_dalek::SigningKey;
use futures_util::StreamExt as _;
use reqwest::Url;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::SimulationError;
use crate::agent::{Agent, Common};
use crate::office::Office;

/// Agents that enrol and are accepted in one go: a ledger lets 1,024 wait.
const WAVE: usize = 512;

/// Sign-ins under way at a time while a fleet connects: hosts come over some seconds, and do not wait
/// for each other; this only bounds what this one process has open at once.
const CONNECTING: usize = 128;

/// Hosts that judge and answer a grant at a time: each opens a connection and a program, and beside ten
/// thousand streams one process has few files left. Some hundred are enough to keep a server busy.
const SPEAKING: usize = 1024;

/// Hosts behind one address of the loopback network, below the server's limit for one address.
const HOSTS_OF_AN_ADDRESS: usize = 200;

/// What a fleet is.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the server is.
    pub server: Url,
    /// Its ledger, pinned.
    pub ledger: LedgerId,
    /// The key of its checkpoints, pinned.
    pub vkey: VerifierKey,
    /// People who count on each host: lines of `allowed_signers`.
    pub signers: String,
    /// How many hosts.
    pub hosts: usize,
    /// What their names begin with; a number follows.
    pub prefix: String,
    /// Each from an address of its own among 127.1.0.0/16, as hosts have; else all from the one that
    /// the system takes.
    pub own_addresses: bool,
}

/// How far a fleet is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Agents with an open stream of work.
    pub listening: usize,
    /// Grants that came, repeated ones as well.
    pub granted: u64,
    /// Starts with a receipt.
    pub started: u64,
    /// Ends with a receipt.
    pub completed: u64,
    /// Refusals with a receipt.
    pub refused: u64,
    /// Statements that the ledger would not take.
    pub told_no: u64,
    /// Statements that were sent once more, because the server was busy or away.
    pub again: u64,
    /// Streams that ended with an error.
    pub trouble: u64,
}

/// Counts, and tells whoever waits for them.
#[derive(Debug)]
pub(crate) struct Tally(watch::Sender<Counts>);

/// An open stream of work, until it is dropped.
pub(crate) struct Listening<'a>(&'a Tally);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0
            .0
            .send_modify(|counts| counts.listening = counts.listening.saturating_sub(1));
    }
}

impl Tally {
    fn new() -> Self {
        Self(watch::Sender::new(Counts::default()))
    }

    pub(crate) fn listening(&self) -> Listening<'_> {
        self.0
            .send_modify(|counts| counts.listening = counts.listening.saturating_add(1));
        Listening(self)
    }

    pub(crate) fn granted(&self) {
        self.0
            .send_modify(|counts| counts.granted = counts.granted.saturating_add(1));
    }

    pub(crate) fn started(&self) {
        self.0
            .send_modify(|counts| counts.started = counts.started.saturating_add(1));
    }

    pub(crate) fn completed(&self) {
        self.0
            .send_modify(|counts| counts.completed = counts.completed.saturating_add(1));
    }

    pub(crate) fn refused(&self) {
        self.0
            .send_modify(|counts| counts.refused = counts.refused.saturating_add(1));
    }

    pub(crate) fn told_no(&self, agent: &AgentName, problem: &Problem) {
        tracing::warn!(%agent, code = problem.code, detail = problem.detail, "told no");
        self.0
            .send_modify(|counts| counts.told_no = counts.told_no.saturating_add(1));
    }

    pub(crate) fn again(&self, agent: &AgentName, error: &dyn std::fmt::Display) {
        tracing::debug!(%agent, %error, "not delivered yet");
        self.0
            .send_modify(|counts| counts.again = counts.again.saturating_add(1));
    }

    pub(crate) fn trouble(&self, agent: &AgentName, error: &dyn std::fmt::Display) {
        tracing::warn!(%agent, %error, "no stream of work");
        self.0
            .send_modify(|counts| counts.trouble = counts.trouble.saturating_add(1));
    }
}

/// Agents in this process. They listen from [`Fleet::connect`] on, until it is stopped.
pub struct Fleet {
    agents: Vec<Arc<Agent>>,
    tally: Arc<Tally>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Fleet {
    /// Makes the hosts and their keys. `folder` is where their configuration is said to lie; nothing is
    /// written there.
    ///
    /// # Errors
    /// The server is away, or its ledger is not the pinned one.
    pub async fn new(plan: &Plan, folder: &Path) -> Result<Self, SimulationError> {
        let tally = Arc::new(Tally::new());
        let (common, seen) = common(plan, folder, Arc::clone(&tally)).await?;
        let mut agents = Vec::with_capacity(plan.hosts);
        for number in 0..plan.hosts {
            let name = format!("{}{number:05}", plan.prefix);
            let name: Result<AgentName, _> = name.parse();
            let name = name.map_err(|error| SimulationError::shape("a host's name")(&error))?;
            let address = plan.own_addresses.then(|| address(number));
            agents.push(Arc::new(Agent::new(name, address, &common, seen.clone())?));
        }
        Ok(Self {
            agents,
            tally,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// The hosts' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &AgentName> {
        self.agents.iter().map(|agent| &agent.name)
    }

    /// Every host introduces itself, and the administrators accept its key.
    ///
    /// # Errors
    /// The server, or a refusal.
    pub async fn enrol(&self, office: &Office) -> Result<(), SimulationError> {
        for wave in self.agents.chunks(WAVE) {
            let introduced = futures_util::stream::iter(wave)
                .map(|agent| agent.introduce())
                .buffer_unordered(CONNECTING);
            let introduced: Vec<Result<(), SimulationError>> = introduced.collect().await;
            introduced.into_iter().collect::<Result<(), _>>()?;
            let keys = wave
                .iter()
                .map(|agent| (agent.name.clone(), agent.public()));
            office.accept(keys.collect()).await?;
        }
        Ok(())
    }

    /// Every host opens its stream of work; returns when all of them have.
    pub async fn connect(&self) {
        let mut counts = self.tally.0.subscribe();
        for (number, agent) in (1_usize..).zip(&self.agents) {
            let (agent, stop) = (Arc::clone(agent), self.stop.clone());
            self.tasks.spawn(async move { agent.listen(&stop).await });
            let before = number.saturating_sub(CONNECTING);
            let _some = counts.wait_for(|counts| counts.listening >= before).await;
        }
        let all = self.agents.len();
        let _all = counts.wait_for(|counts| counts.listening >= all).await;
    }

    /// How far it is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.tally.0.borrow()
    }

    /// Waits until something is so of the counts; false when it is not in this time.
    pub async fn until(&self, within: Duration, mut holds: impl FnMut(&Counts) -> bool) -> bool {
        let mut counts = self.tally.0.subscribe();
        let held = counts.wait_for(|counts| holds(counts));
        tokio::time::timeout(within, held).await.is_ok()
    }

    /// Ends all streams.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// An address of the loopback network for a host.
fn address(number: usize) -> IpAddr {
    let place = u16::try_from(number / HOSTS_OF_AN_ADDRESS).unwrap_or(u16::MAX);
    let [high, low] = place.saturating_add(1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 1, high, low))
}

/// What all have in common, with a checkpoint to begin with, checked against the pins.
async fn common(
    plan: &Plan,
    folder: &Path,
    tally: Arc<Tally>,
) -> Result<(Common, Checkpoint), SimulationError> {
    let clock = Clock::system();
    let seed = agent_key::random::<32>();
    let seed = seed.map_err(|error| SimulationError::shape("randomness")(&error))?;
    let stranger: Result<AgentName, _> = "simulator".parse();
    let stranger = stranger.map_err(|error| SimulationError::shape("a name")(&error))?;
    let who = SignIn {
        agent: stranger.clone(),
        ledger: plan.ledger,
        key: SigningKey::from_bytes(&seed),
    };
    let info = Client::new(&plan.server, None, who, clock.clone())?
        .ledger()
        .await?;
    let keys = trust::ledger_keys(&info, &plan.ledger, &plan.vkey);
    let keys = keys.map_err(|error| SimulationError::shape("the ledger")(&error))?;
    let seen = Checkpoint::open(&info.checkpoint, &plan.vkey);
    let seen = seen.map_err(|error| SimulationError::shape("the checkpoint")(&error))?;
    let config = config(plan, folder)?;
    let host = Host {
        pins: Pins {
            ledger: plan.ledger,
            statement_key: keys.statement,
            gateway_key: keys.gateway,
            agent: stranger,
            key_id: PublicKey::of(&SigningKey::from_bytes(&seed)).key_id(),
        },
        signers: config.signers,
        rules: config.rules,
        journal_since: Time::from_micros(0).unwrap_or_else(|| clock.now()),
        snapshot: None,
        snapshots: Arc::default(),
        max_checkpoint_age_us: None,
        facts: countersign_agent::own::OwnFacts::Silent,
    };
    let common = Common {
        server: plan.server.clone(),
        ledger: plan.ledger,
        vkey: plan.vkey.clone(),
        clock,
        host: Arc::new(host),
        tally,
        speaking: Arc::new(Semaphore::new(SPEAKING)),
    };
    Ok((common, seen))
}

/// A host's configuration as a person would write it, read as an agent reads it.
fn config(plan: &Plan, folder: &Path) -> Result<Config, SimulationError> {
    let text = format!(
        "server = {:?}\nname = \"simulated\"\nstate = \"state\"\nledger = \"{}\"\norigin = {:?}\n\
         vkey = {:?}\nallowed_signers = \"allowed_signers\"\nmin_approvals = 2\nexecution = true\n\
         allow_all = true\nconfine.protect_own = false\ndefault_user = \"root\"\n",
        plan.server.as_str(),
        plan.ledger,
        plan.vkey.origin().as_str(),
        plan.vkey.to_string(),
    );
    let path = folder.join("agent.toml");
    let signers = |_path| {
        let parsed = AllowedSigners::parse(&plan.signers);
        parsed.map_err(|source| countersign_agent::ConfigError::Signers {
            path: folder.join("allowed_signers"),
            source,
        })
    };
    Config::of_text(&path, &text, Variables::default(), signers)
        .map_err(|error| SimulationError::shape("the hosts' configuration")(&error))
}

/// A name and its key, as administrators accept them.
pub(crate) type Newcomer = (AgentName, PublicKey);
