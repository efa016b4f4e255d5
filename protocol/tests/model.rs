//! A model beside the state machine: the same random events go through both, and they must agree
//! on what may follow and on the status word. The model knows no bytes, keys or proofs; it is a
//! small table written from the prose of docs/PROTOCOL.md, not from the code.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::event::*;
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::StatementId;
use countersign_protocol::name::SECOND_US;
use countersign_protocol::statement::Statement;
use proptest::prelude::*;
use support::{Book, key};

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];
const HOSTS: [&str; 2] = ["web-1", "web-2"];

/// The request stays open this long, as `Book::act` says; runs may take 30 s, and are presumed lost
/// a minute later.
const OPEN_S: u64 = 3600;
const LOST_S: u64 = 30 + 60;

#[derive(Debug, Clone, Copy)]
enum Op {
    Approve(usize),
    Reject(usize),
    Withdraw(usize),
    Cancel(usize),
    Start(usize),
    Output(usize),
    Complete(usize, u8),
    RefuseRun(usize),
    SayLost(usize),
    /// Time passes, and the ledger says what is due.
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..3_usize;
    let host = 0..HOSTS.len();
    prop_oneof![
        6 => who.clone().prop_map(Op::Approve),
        1 => who.clone().prop_map(Op::Reject),
        1 => who.clone().prop_map(Op::Withdraw),
        1 => who.prop_map(Op::Cancel),
        6 => host.clone().prop_map(Op::Start),
        3 => host.clone().prop_map(Op::Output),
        4 => (host.clone(), prop_oneof![Just(0_u8), Just(1)]).prop_map(|(h, c)| Op::Complete(h, c)),
        1 => host.clone().prop_map(Op::RefuseRun),
        1 => host.prop_map(Op::SayLost),
        2 => prop_oneof![Just(1_u64), Just(LOST_S), Just(OPEN_S)].prop_map(Op::Wait),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Ended(&'static str),
    Allowed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Host {
    status: &'static str,
    started_s: Option<u64>,
    /// How it ended.
    said_how: bool,
    /// That it cannot say.
    said_lost: bool,
    said_no: bool,
    good: bool,
}

impl Host {
    /// It has begun, and its agent has said neither how it ended nor that it cannot say.
    fn is_untold(&self) -> bool {
        self.started_s.is_some() && !self.said_how && !self.said_lost
    }
}

/// What should be so.
#[derive(Debug)]
struct Model {
    now_s: u64,
    stage: Stage,
    approved: BTreeSet<usize>,
    cancelled: bool,
    hosts: BTreeMap<usize, Host>,
}

impl Model {
    fn new() -> Self {
        let waiting = Host {
            status: "waiting",
            started_s: None,
            said_how: false,
            said_lost: false,
            said_no: false,
            good: false,
        };
        Self {
            now_s: 0,
            stage: Stage::Open,
            approved: BTreeSet::new(),
            cancelled: false,
            hosts: (0..HOSTS.len()).map(|host| (host, waiting)).collect(),
        }
    }

    fn status(&self) -> &'static str {
        match self.stage {
            Stage::Open => return "requested",
            Stage::Ended(word) => return word,
            Stage::Allowed => {}
        }
        let words: Vec<&str> = self.hosts.values().map(|host| host.status).collect();
        let good = self.hosts.values().filter(|host| host.good).count();
        let all = |word| words.iter().all(|found| *found == word);
        if all("waiting") {
            "authorized"
        } else if words
            .iter()
            .any(|word| ["waiting", "running"].contains(word))
        {
            "running"
        } else if good == words.len() {
            "completed"
        } else if good > 0 {
            "partial"
        } else if all("refused") {
            "refused"
        } else if all("skipped") {
            "expired"
        } else if all("cancelled") {
            "cancelled"
        } else if all("lost") {
            "lost"
        } else {
            "failed"
        }
    }

    fn is_over(&self) -> bool {
        !["requested", "authorized", "running"].contains(&self.status())
    }

    /// Says whether the event may follow, and if so takes it.
    fn take(&mut self, op: Op) -> bool {
        let expired = self.now_s >= OPEN_S;
        match op {
            Op::Approve(who) => {
                // alice asked, and does not judge her own request.
                let may = self.stage == Stage::Open
                    && !expired
                    && (who == 1 || who == 2)
                    && !self.approved.contains(&who);
                if may {
                    self.approved.insert(who);
                    if self.approved.len() == 2 {
                        self.stage = Stage::Allowed;
                    }
                }
                may
            }
            Op::Reject(who) => self.end(
                (who == 1 || who == 2) && self.stage == Stage::Open,
                "rejected",
            ),
            Op::Withdraw(who) => self.end(who == 0 && self.stage == Stage::Open, "withdrawn"),
            Op::Cancel(_) => self.cancel(),
            Op::Start(host) => {
                let may = self.stage == Stage::Allowed
                    && !expired
                    && !self.cancelled
                    && self.hosts[&host].status == "waiting";
                if may {
                    let now = self.now_s;
                    let host = self.hosts.get_mut(&host).unwrap();
                    host.status = "running";
                    host.started_s = Some(now);
                }
                may
            }
            // However late by the ledger's clock, but not behind its own end.
            Op::Output(host) => self.hosts[&host].is_untold(),
            Op::Complete(host, code) => {
                let host = self.hosts.get_mut(&host).unwrap();
                let may = host.started_s.is_some() && !host.said_how;
                if may {
                    host.said_how = true;
                    if host.status == "running" {
                        host.status = "completed";
                        host.good = code == 0;
                    }
                }
                may
            }
            Op::RefuseRun(host) => {
                let host = self.hosts.get_mut(&host).unwrap();
                let may = self.stage == Stage::Allowed && !host.said_no;
                host.said_no |= may;
                if may && host.status == "waiting" {
                    host.status = "refused";
                }
                may
            }
            Op::SayLost(host) => {
                let host = self.hosts.get_mut(&host).unwrap();
                let may = host.is_untold();
                if may {
                    host.said_lost = true;
                    host.status = "lost";
                }
                may
            }
            Op::Wait(seconds) => {
                self.now_s += seconds;
                self.due();
                true
            }
        }
    }

    fn end(&mut self, may: bool, word: &'static str) -> bool {
        if may {
            self.stage = Stage::Ended(word);
        }
        may
    }

    /// Everybody here may: alice asked, bob and carol approve.
    fn cancel(&mut self) -> bool {
        let may = !self.is_over() && !self.cancelled;
        if may {
            self.cancelled = true;
            if self.stage == Stage::Open {
                self.stage = Stage::Ended("cancelled");
            }
            for host in self.hosts.values_mut() {
                if host.status == "waiting" {
                    host.status = "cancelled";
                }
            }
        }
        may
    }

    fn due(&mut self) {
        let now = self.now_s;
        let expired = now >= OPEN_S;
        if expired && self.stage == Stage::Open {
            self.stage = Stage::Ended("expired");
        }
        if self.stage == Stage::Allowed {
            for host in self.hosts.values_mut() {
                if host.status == "waiting" && expired {
                    host.status = "skipped";
                }
                if host.status == "running" && host.started_s.is_some_and(|at| now >= at + LOST_S) {
                    host.status = "lost";
                }
            }
        }
    }
}

macro_rules! word {
    ($book:ident, $who:expr, $kind:ident, $command:expr, $($more:ident: $value:expr)?) => {{
        let (signer, nonce, made_at, ledger, seen) = $book.header($who);
        let event = $kind {
            signer,
            principal: $who.parse().unwrap(),
            nonce,
            made_at,
            ledger,
            seen,
            command: $command,
            reason: None,
            $($more: $value,)?
        };
        $book.sign_and_append($who, &event.into()).map(drop)
    }};
}

/// The same through the real thing.
fn real(book: &mut Book, command: StatementId, op: Op) -> Result<(), Refusal> {
    match op {
        Op::Approve(who) => book.approve(PEOPLE[who], command).map(drop),
        Op::Reject(who) => word!(book, PEOPLE[who], CommandRejected, command, vote: false),
        Op::Withdraw(who) => word!(book, PEOPLE[who], CommandWithdrawn, command, token: None),
        Op::Cancel(who) => word!(book, PEOPLE[who], CommandCancelRequested, command, token: None),
        Op::Start(host) => book.start(HOSTS[host], command).map(drop),
        Op::Output(host) => book.output(HOSTS[host], command, b"x").map(drop),
        Op::Complete(host, code) => book.complete(HOSTS[host], command, code).map(drop),
        Op::RefuseRun(host) => {
            let (signer, nonce, made_at, ledger, seen) = book.header(HOSTS[host]);
            let (agent_seq, agent_prev) = book.chain(HOSTS[host]);
            let event = ExecutionRefused {
                signer,
                agent: HOSTS[host].parse().unwrap(),
                nonce,
                made_at,
                ledger,
                seen,
                command,
                agent_seq,
                agent_prev,
                why: RefusalReason::Disabled,
                rule: None,
                detail: None,
            };
            book.sign_and_append(HOSTS[host], &event.into()).map(drop)
        }
        Op::SayLost(host) => {
            let (signer, nonce, made_at, ledger, seen) = book.header(HOSTS[host]);
            let (agent_seq, agent_prev) = book.chain(HOSTS[host]);
            let run = &book.command(command).executions[&HOSTS[host].parse().unwrap()];
            let started = run
                .started
                .as_ref()
                .map_or(StatementId::ZERO, |(_, at)| at.id);
            let event = ExecutionLost {
                signer,
                agent: HOSTS[host].parse().unwrap(),
                nonce,
                made_at,
                ledger,
                seen,
                command,
                started,
                form: LossForm::Confirmed,
                agent_seq: Some(agent_seq),
                agent_prev: Some(agent_prev),
            };
            book.sign_and_append(HOSTS[host], &event.into()).map(drop)
        }
        Op::Wait(seconds) => {
            book.now += seconds * SECOND_US;
            let now = countersign_protocol::name::Time::from_micros(book.now).unwrap();
            for due in book.command(command).due(now) {
                let event = book.ledger_header().due(command, due);
                book.append(Statement::sign(&event, &key("ledger")).unwrap())?;
            }
            Ok(())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_state_machine_agrees_with_the_model(ops in prop::collection::vec(op(), 1..40)) {
        let mut book = Book::ready();
        book.enrol("web-2");
        let mut model = Model::new();
        let command = book.request("alice", &HOSTS).unwrap();
        for (step, op) in ops.iter().enumerate() {
            let before = book.entries.len();
            let (expected, found) = (model.take(*op), real(&mut book, command, *op));
            prop_assert_eq!(found.is_ok(), expected, "step {} {:?}: {:?}, the model {:?}", step, op, found, model);
            if found.is_err() {
                prop_assert_eq!(book.entries.len(), before, "a refusal left an entry");
            }
            prop_assert_eq!(book.status(command), model.status(), "step {} {:?}", step, op);
        }
        // And an auditor who reads the bytes comes to the same.
        let audited = book.audit().unwrap();
        prop_assert_eq!(audited.state().command(&command).unwrap().status().as_str(), model.status());
    }
}
