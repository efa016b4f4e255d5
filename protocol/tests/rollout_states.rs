//! All states of small rollouts, reached by every order of what hosts, people, time and the ledger
//! can do: never more in flight than allowed, never two within the gap, nothing after an error too
//! many, before a person's word or in a pause; and from every state it comes to an end by itself.
//!
//! The machine is the real one, [`Command::next`]; what it must keep is said here from the prose of
//! docs/PROTOCOL.md, over a history that the machine knows nothing of. Time goes in steps of a minute.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeMap, HashSet, VecDeque};

use countersign_protocol::effect::LedgerHeader;
use countersign_protocol::event::*;
use countersign_protocol::hash::{Hash, KeyId, StatementId};
use countersign_protocol::lifecycle::{Command, Due, Execution, ExecutionStatus, Position, Stage};
use countersign_protocol::name::{AgentName, Nonce, SECOND_US, Time};
use countersign_protocol::quorum::{Requirement, Verdict};
use countersign_protocol::rollout::{Gap, Plan, Rollout};
use countersign_protocol::target::TargetList;
use support::Book;

const HOSTS: [&str; 3] = ["web-1", "web-2", "web-3"];
const STEP_US: u64 = 60 * SECOND_US;

/// Steps until the command's own time is over.
const OPEN: u64 = 3;

/// Steps until a run is presumed lost: 30 s and a minute of grace.
const LOST: u64 = 2;

/// What can happen.
#[derive(Debug, Clone, Copy)]
enum Act {
    Start(usize),
    End(usize, u8),
    Refuse(usize),
    Pause,
    Resume,
    Continue,
    Cancel,
    Wait,
}

fn acts() -> Vec<Act> {
    let mut all = vec![
        Act::Pause,
        Act::Resume,
        Act::Continue,
        Act::Cancel,
        Act::Wait,
    ];
    for host in 0..HOSTS.len() {
        all.extend([
            Act::Start(host),
            Act::End(host, 0),
            Act::End(host, 1),
            Act::Refuse(host),
        ]);
    }
    all
}

/// What happened to a host, as somebody beside the machine wrote it down: steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Noted {
    released: Option<u64>,
    over: Option<u64>,
    bad: bool,
}

/// What a person says of the command.
macro_rules! word {
    ($world:expr, $kind:ident { $($field:ident: $value:expr)? }) => {{
        let LedgerHeader { signer, nonce, made_at, ledger, seen } = $world.header();
        Event::from($kind {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            principal: "bob".parse().unwrap(),
            command: StatementId::ZERO,
            reason: None,
            $($field: $value,)?
        })
    }};
}

/// A rollout somewhere on its way.
#[derive(Debug, Clone)]
struct World {
    command: Command,
    step: u64,
    seq: u64,
    seen: [Noted; HOSTS.len()],
    continued: bool,
    paused: bool,
}

/// What tells two states apart: everything but ids and places.
type Key = (u64, bool, bool, bool, Vec<(u8, Noted, Option<u64>)>);

impl World {
    fn now(&self) -> Time {
        self.command.requested.time.plus_micros(self.step * STEP_US)
    }

    fn key(&self) -> Key {
        let of = |(host, part): (usize, &Execution)| {
            let started = part.started.as_ref();
            let started = started.map(|(_, at)| at.time.micros_since(self.command.requested.time));
            (part.status as u8, self.seen[host], started)
        };
        let parts = self
            .command
            .executions
            .values()
            .enumerate()
            .map(of)
            .collect();
        let cancelled = self.command.cancel.is_some();
        (self.step, cancelled, self.continued, self.paused, parts)
    }

    fn next(&mut self, event: &Event) -> bool {
        self.seq += 1;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.seq.to_be_bytes());
        let at = Position {
            seq: self.seq,
            time: self.now(),
            id: StatementId::new(id),
        };
        self.command.next(event, at).is_ok()
    }

    fn header(&self) -> LedgerHeader {
        LedgerHeader {
            signer: KeyId::new([0; 32]),
            nonce: Nonce::new([0; 16]),
            made_at: self.now(),
            ledger: self.command.request.ledger,
            seen: Seen {
                size: 1,
                root: Hash::ZERO,
            },
        }
    }

    /// The ledger says all that is due, and what is due then.
    fn ledger(&mut self, plan: &Plan) {
        loop {
            let mut due = self.command.due(self.now());
            if due.is_empty() {
                let turns = self.command.turns(self.now());
                due = turns.map(Due::Release).collect();
            }
            if due.is_empty() {
                return;
            }
            for due in due {
                if let Due::Release(turn) = &due {
                    self.check_turn(plan, usize::try_from(turn.number).unwrap());
                    self.seen[usize::try_from(turn.number).unwrap()].released = Some(self.step);
                }
                let event = self.header().due(self.command.id, due.clone());
                assert!(
                    self.next(&event),
                    "the ledger's own word may stand: {due:?} in {self:?}"
                );
                self.look();
            }
        }
    }

    /// Writes down whose part is over.
    fn look(&mut self) {
        for (host, part) in self.command.executions.values().enumerate() {
            let seen = &mut self.seen[host];
            if part.status.is_final() && seen.over.is_none() {
                seen.over = Some(self.step);
                let cancelled = part.status == ExecutionStatus::Cancelled;
                let waited = part.status == ExecutionStatus::Skipped
                    && part.skipped != Some(SkipReason::TurnMissed);
                seen.bad = !part.succeeded() && !cancelled && !waited;
            }
        }
    }

    /// What must hold whenever a turn begins.
    fn check_turn(&self, plan: &Plan, turn: usize) {
        let others = || {
            self.seen
                .iter()
                .enumerate()
                .filter(|(host, _)| *host != turn)
        };
        let in_flight = others().filter(|(_, seen)| seen.released.is_some() && seen.over.is_none());
        let in_flight = in_flight.count() as u64;
        assert!(in_flight < plan.in_flight, "too many in flight: {self:?}");
        for gap in &plan.gaps {
            let apart = gap.ms * 1000 / STEP_US;
            for (_, seen) in others() {
                let near = seen.released.is_some()
                    && seen.over.is_none_or(|over| self.step < over + apart);
                assert!(!near, "two hosts within the gap: {self:?}");
            }
        }
        let bad = self.seen.iter().filter(|seen| seen.bad).count() as u64;
        assert!(
            self.command.max_errors().is_none_or(|most| bad <= most),
            "after too many errors: {self:?}"
        );
        let after = plan.canary.is_some_and(|canary| turn as u64 >= canary);
        assert!(!after || self.continued, "before a person's word: {self:?}");
        assert!(!self.paused, "in a pause: {self:?}");
        assert!(self.command.cancel.is_none(), "after a cancel: {self:?}");
    }

    /// What must hold in every state.
    fn check(&self, plan: &Plan) {
        for (host, part) in self.command.executions.values().enumerate() {
            if part.started.is_some() {
                assert!(
                    self.seen[host].released.is_some(),
                    "started without a turn: {self:?}"
                );
            }
        }
        let running = |part: &&Execution| part.status == ExecutionStatus::Running;
        let running = self.command.executions.values().filter(running).count() as u64;
        assert!(running <= plan.in_flight, "too many run: {self:?}");
        if self.command.status().is_final() {
            assert!(
                self.command.turns(self.now()).next().is_none(),
                "a turn after the end: {self:?}"
            );
        }
    }

    /// Tries something; the world afterwards, if it may happen.
    fn after(&self, plan: &Plan, act: Act) -> Option<Self> {
        let mut next = self.clone();
        let event = match act {
            Act::Wait => None,
            Act::Pause => Some(word!(next, RolloutPaused {})),
            Act::Resume => Some(word!(next, RolloutResumed {})),
            Act::Continue => Some(word!(next, RolloutContinued {})),
            Act::Cancel => Some(word!(next, CommandCancelRequested { token: None })),
            Act::Start(host) => Some(next.host(host, Said::Start)),
            Act::End(host, code) => Some(next.host(host, Said::End(code))),
            Act::Refuse(host) => Some(next.host(host, Said::Refuse)),
        };
        let came_late = matches!(act, Act::Refuse(host) if next.seen[host].over.is_some());
        let ended = event.is_none() && next.step > OPEN;
        // A host refuses once; what comes late changes nothing.
        if came_late || ended || event.is_some_and(|event| !next.next(&event)) {
            return None;
        }
        match act {
            Act::Wait => next.step += 1,
            Act::Pause => next.paused = true,
            Act::Resume => next.paused = false,
            Act::Continue => {
                let canary = usize::try_from(plan.canary.unwrap()).unwrap();
                let over = next.seen[..canary].iter().all(|seen| seen.over.is_some());
                assert!(over, "unseen: {next:?}");
                next.continued = true;
            }
            Act::Cancel | Act::Start(_) | Act::End(..) | Act::Refuse(_) => {}
        }
        next.look();
        next.ledger(plan);
        next.check(plan);
        Some(next)
    }

    fn host(&self, host: usize, said: Said) -> Event {
        let LedgerHeader {
            nonce,
            made_at,
            ledger,
            seen,
            ..
        } = self.header();
        let agent: AgentName = HOSTS[host].parse().unwrap();
        let line = self
            .command
            .targets
            .as_ref()
            .unwrap()
            .line_of(&agent)
            .unwrap()
            .1;
        let (signer, command) = (line.key_id, self.command.id);
        let part = &self.command.executions[&agent];
        let started = part
            .started
            .as_ref()
            .map_or(StatementId::ZERO, |(_, at)| at.id);
        let (agent_seq, agent_prev) = (0, StatementId::ZERO);
        let zeros = countersign_protocol::hash::Digest::new([0; 32]);
        match said {
            Said::Start => {
                let path = self.command.act().spec;
                let program = ProgramFacts {
                    path,
                    sha256: zeros,
                };
                ExecutionStarted {
                    signer,
                    agent,
                    nonce,
                    made_at,
                    ledger,
                    seen,
                    command,
                    agent_seq,
                    agent_prev,
                    in_force: None,
                    program,
                    steps: None,
                }
                .into()
            }
            Said::End(code) => {
                let totals = StreamTotals {
                    total: 0,
                    kept: 0,
                    sha256: zeros,
                };
                ExecutionCompleted {
                    signer,
                    agent,
                    nonce,
                    made_at,
                    ledger,
                    seen,
                    command,
                    agent_seq,
                    agent_prev,
                    started,
                    outcome: Outcome::Exited,
                    detail: None,
                    exit_code: Some(code),
                    signal: None,
                    duration_us: 0,
                    cpu_us: 0,
                    max_rss: 0,
                    stdout: totals,
                    stderr: totals,
                    chunks: part.chunks,
                    last_chunk: part.last_chunk,
                    tree_gone: true,
                    masked: None,
                }
                .into()
            }
            Said::Refuse => ExecutionRefused {
                signer,
                agent,
                nonce,
                made_at,
                ledger,
                seen,
                command,
                agent_seq,
                agent_prev,
                why: RefusalReason::Busy,
                rule: None,
                detail: None,
            }
            .into(),
        }
    }

    /// Nobody says anything any more; only time goes on and the ledger speaks.
    fn ends_by_itself(&self, plan: &Plan) {
        let mut alone = self.clone();
        for _step in 0..=OPEN + LOST + 1 {
            if alone.command.status().is_final() {
                return;
            }
            alone.step += 1;
            alone.ledger(plan);
        }
        panic!("it does not end: {alone:?}");
    }
}

#[derive(Clone, Copy)]
enum Said {
    Start,
    End(u8),
    Refuse,
}

/// An authorized command with this rollout.
fn world(rollout: Rollout) -> Option<(World, Plan)> {
    let mut book = Book::ready();
    book.enrol("web-2");
    book.enrol("web-3");
    let mut act = book.act(&HOSTS);
    act.rollout = Some(rollout);
    act.expires_at = act.not_before.plus_micros(OPEN * STEP_US);
    let list = book.blobs[&act.targets.list.digest].content().to_vec();
    let targets = TargetList::parse(&list, &act.targets).unwrap();
    let request = book.request_event("alice", &HOSTS);
    let Event::CommandRequested(mut request) = request else {
        panic!("it is a request")
    };
    request.act = act;
    let at = Position {
        seq: 0,
        time: request.act.not_before,
        id: StatementId::ZERO,
    };
    let requirement = Requirement::of(1, Vec::new());
    let plan = Plan::of(&request.act, &requirement)?;
    let mut command = Command::open(request, Some(targets), None, at);
    command.stage = Stage::Authorized {
        at,
        verdict: Verdict { have: 1, need: 1 },
    };
    command.plan = Some(plan.clone());
    command.requirement = Some(Box::new(requirement));
    let mut world = World {
        command,
        step: 0,
        seq: 0,
        seen: [Noted::default(); HOSTS.len()],
        continued: false,
        paused: false,
    };
    world.ledger(&plan);
    Some((world, plan))
}

/// Visits every state; how many there are.
fn visit(rollout: Rollout) -> usize {
    let Some((first, plan)) = world(rollout) else {
        return 0;
    };
    let mut known = HashSet::from([first.key()]);
    let mut open = VecDeque::from([first]);
    let acts = acts();
    while let Some(world) = open.pop_front() {
        world.ends_by_itself(&plan);
        for act in &acts {
            if let Some(next) = world.after(&plan, *act)
                && known.insert(next.key())
            {
                open.push_back(next);
            }
        }
    }
    known.len()
}

#[test]
fn in_every_state_of_every_small_rollout_the_rules_hold_and_it_ends() {
    let mut states = BTreeMap::new();
    let gap = Gap {
        label: None,
        ms: STEP_US / 1000,
    };
    for max_in_flight in [Some(1), Some(2)] {
        for gap in [None, Some(gap.clone())] {
            for canary in [None, Some(1)] {
                for max_errors in [None, Some(0)] {
                    {
                        let start_within_ms = Some(STEP_US / 1000);
                        let rollout = Rollout {
                            canary,
                            gap: gap.clone(),
                            max_errors,
                            max_in_flight,
                            start_within_ms,
                        };
                        let name = format!("{rollout:?}");
                        let count = visit(rollout);
                        println!("{count} {name}");
                        states.insert(name, count);
                    }
                }
            }
        }
    }
    let total: usize = states.values().sum();
    println!("{total} states of {} rollouts", states.len());
    assert!(
        states.values().all(|count| *count > 100 || *count == 0),
        "{states:?}"
    );
}
