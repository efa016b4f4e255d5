//! What the protocol's tests do with their ledger in memory: a whole life of a command, rotations,
//! an audit.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::Arc;

use countersign_protocol::audit::{self, Auditor, Finding};
use countersign_protocol::blob::BlobRef;
use countersign_protocol::command::{Act, CommandSpec, Mode, Targets};
use countersign_protocol::event::*;
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::{Digest, StatementId};
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::target::{TargetLine, TargetList};

#[macro_use]
mod memory;

pub(crate) use memory::*;

/// What holds every run of the book.
const IN_FORCE: InForce = InForce {
    cgroup: Some(CgroupInForce {
        cpu: false,
        memory: true,
        pids: true,
    }),
    gid: 1000,
    landlock: Some(6),
    limits: LimitsInForce {
        cpu_s: Some(60),
        file_size_bytes: None,
        memory_bytes: Some(1 << 30),
        open_files: Some(1024),
        processes: None,
    },
    no_new_privs: true,
    seccomp: true,
    uid: 1000,
};

impl Book {
    /// With a policy of two approvals and one accepted agent, `web-1`.
    pub(crate) fn ready() -> Self {
        let mut book = Self::genesis();
        book.publish(2, &["alice", "bob", "carol"], &["alice", "bob", "carol"]);
        book.enrol("web-1");
        book
    }

    /// An agent enrols under its name with the key called `anew`, which replaces its current one.
    pub(crate) fn rotate(&mut self, name: &str, anew: &str) {
        self.enrol_with(name, anew).unwrap();
        let agent = name.parse().unwrap();
        let replaces = self.state.rights().agent(&agent);
        assert!(replaces.is_some());
        self.change(ChangeBody::AgentAccepted {
            agent,
            key: public(anew),
            replaces,
            labels: Vec::new(),
        });
    }

    /// An agent enrols under its name with the key called `anew`.
    pub(crate) fn enrol_with(&mut self, name: &str, anew: &str) -> Result<StatementId, Refusal> {
        let key = public(anew);
        let (_, nonce, made_at, ledger, seen) = self.header(anew);
        let event = Event::from(AgentEnrolled {
            signer: key.key_id(),
            agent: name.parse().unwrap(),
            nonce,
            made_at,
            ledger,
            seen,
            key,
            sealing_key: None,
        });
        self.sign_and_append(anew, &event)
    }

    /// The act of running `true` on `hosts`.
    pub(crate) fn act(&mut self, hosts: &[&str]) -> Act {
        let spec = CommandSpec {
            mode: Mode::Exec,
            argv: vec!["true".into()],
            cwd: None,
            user: None,
            timeout_ms: 30_000,
            output_limit: 1 << 20,
            at_output_limit: None,
        };
        let spec = self.blob(&spec.to_document().unwrap());
        let lines = hosts.iter().map(|host| {
            let agent = host.parse().unwrap();
            let known = self.state.rights().agent(&agent);
            TargetLine {
                key_id: known.unwrap_or_else(|| public(host).key_id()),
                agent,
                service: None,
                spec: spec.digest,
                turn: None,
                facts: None,
            }
        });
        let list = TargetList::new(lines.collect()).unwrap();
        let document = self.blob(&list.to_document().unwrap());
        Act {
            mode: Mode::Exec,
            spec,
            env: None,
            stdin: None,
            secrets: None,
            targets: list.describe(document).unwrap(),
            user: None,
            timeout_ms: 30_000,
            output_limit: 1 << 20,
            at_output_limit: None,
            not_before: Time::from_micros(self.now).unwrap(),
            expires_at: Time::from_micros(self.now + 3600 * SECOND_US).unwrap(),
            max_runs: 1,
            break_glass: false,
            rollout: None,
        }
    }

    /// A list of hosts with turns, as a payload says it.
    pub(crate) fn with_turns(
        &mut self,
        hosts: &[&str],
        spec: Digest,
        turn: impl Fn(&str) -> u64,
    ) -> Targets {
        let line = |host: &&str| {
            let agent = host.parse().unwrap();
            TargetLine {
                key_id: self.state.rights().agent(&agent).unwrap(),
                agent,
                service: None,
                spec,
                turn: Some(turn(host)),
                facts: None,
            }
        };
        let list = TargetList::new(hosts.iter().map(line).collect()).unwrap();
        let document = self.blob(&list.to_document().unwrap());
        list.describe(document).unwrap()
    }

    pub(crate) fn request_event(&mut self, who: &str, hosts: &[&str]) -> Event {
        let act = self.act(hosts);
        let reason = self.blob(b"because");
        say!(person self, who, CommandRequested { client_ref: None, token: None, retry: None, act: act, reason: reason })
    }

    pub(crate) fn request(&mut self, who: &str, hosts: &[&str]) -> Result<StatementId, Refusal> {
        let event = self.request_event(who, hosts);
        self.sign_and_append(who, &event)
    }

    pub(crate) fn start_event(&mut self, host: &str, command: StatementId) -> Event {
        let path = self.blob(b"/usr/bin/true");
        let (agent_seq, agent_prev) = self.chain(host);
        let program = ProgramFacts {
            path,
            sha256: Digest::new([1; 32]),
        };
        say!(agent self, host, ExecutionStarted {
            command: command, agent_seq: agent_seq, agent_prev: agent_prev, in_force: Some(IN_FORCE), program: program, steps: None,
        })
    }

    pub(crate) fn start(
        &mut self,
        host: &str,
        command: StatementId,
    ) -> Result<StatementId, Refusal> {
        let event = self.start_event(host, command);
        self.sign_and_append(host, &event)
    }

    pub(crate) fn output(
        &mut self,
        host: &str,
        command: StatementId,
        bytes: &[u8],
    ) -> Result<StatementId, Refusal> {
        let (started, chunk_no, chunk_prev) = self.run(host, command);
        let data = self.blob(bytes);
        let event = say!(agent self, host, ExecutionOutput {
            command: command, started: started, chunk_no: chunk_no, chunk_prev: chunk_prev,
            stream: Stream::Stdout, offset_us: 10, data: data,
        });
        self.sign_and_append(host, &event)
    }

    pub(crate) fn complete(
        &mut self,
        host: &str,
        command: StatementId,
        code: u8,
    ) -> Result<StatementId, Refusal> {
        let event = self.complete_event(host, command, code);
        self.sign_and_append(host, &event)
    }

    pub(crate) fn complete_event(&mut self, host: &str, command: StatementId, code: u8) -> Event {
        let (started, chunks, last_chunk) = self.run(host, command);
        let (agent_seq, agent_prev) = self.chain(host);
        let kept = self.command(command).executions[&host.parse().unwrap()].kept;
        let totals = |kept| StreamTotals {
            total: kept,
            kept,
            sha256: Digest::new([2; 32]),
        };
        say!(agent self, host, ExecutionCompleted {
            command: command, agent_seq: agent_seq, agent_prev: agent_prev, started: started,
            detail: None, outcome: Outcome::Exited, exit_code: Some(code), signal: None,
            duration_us: 1000, cpu_us: 500, max_rss: 4096,
            stdout: totals(kept.stdout), stderr: totals(kept.stderr), chunks: chunks, last_chunk: last_chunk, tree_gone: true, masked: None,
        })
    }

    pub(crate) fn chain(&self, host: &str) -> (u64, StatementId) {
        let chain = self.state.chain(&public(host).key_id());
        chain.map_or((0, StatementId::ZERO), |chain| (chain.next, chain.prev))
    }

    fn run(&self, host: &str, command: StatementId) -> (StatementId, u64, StatementId) {
        let run = &self.command(command).executions[&host.parse().unwrap()];
        let started = run
            .started
            .as_ref()
            .map_or(StatementId::ZERO, |(_, at)| at.id);
        (started, run.chunks, run.last_chunk)
    }

    pub(crate) fn status(&self, id: StatementId) -> &'static str {
        self.command(id).status().as_str()
    }

    /// Audits what stands here, from the bytes alone.
    pub(crate) fn audit(&self) -> Result<Auditor, Finding> {
        self.audit_of(&self.entries)
    }

    pub(crate) fn audit_of(&self, entries: &[Vec<u8>]) -> Result<Auditor, Finding> {
        let blob = |named: &BlobRef| self.blobs.get(&named.digest).cloned();
        audit::audit(Arc::new(Named), entries.iter().map(Vec::as_slice), blob)
    }

    /// Somebody new with a key of the same name.
    pub(crate) fn welcome(&mut self, name: &str) {
        self.change(self.key_of(name, name));
    }

    /// A change of who is in a group.
    pub(crate) fn group(name: &str, add: &[&str], remove: &[&str]) -> ChangeBody {
        let people = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        ChangeBody::GroupChanged {
            group: name.parse().unwrap(),
            add: people(add),
            remove: people(remove),
        }
    }

    /// The change that gives a role.
    pub(crate) fn granted(role: &str, to: &str) -> ChangeBody {
        ChangeBody::RoleGranted {
            role: role.parse().unwrap(),
            to: to.parse().unwrap(),
        }
    }

    /// The change that takes a role away.
    pub(crate) fn revoked(role: &str, from: &str) -> ChangeBody {
        ChangeBody::RoleRevoked {
            role: role.parse().unwrap(),
            from: from.parse().unwrap(),
        }
    }

    /// The change that ends a key.
    pub(crate) fn ended(key: &str) -> ChangeBody {
        ChangeBody::KeyRevoked {
            key_id: public(key).key_id(),
            suspect_from: None,
        }
    }

    /// Whether the ledger let a change of these two people take effect.
    pub(crate) fn changes(
        &mut self,
        (asks, consents): (&str, &str),
        body: ChangeBody,
    ) -> Result<bool, Refusal> {
        let change = self.ask_change(asks, body)?;
        if self.state.rights().change(&change).is_some() {
            self.consent(consents, change)?;
        }
        Ok(self.state.rights().change(&change).is_none())
    }

    /// A no: one that ends the request, or a vote.
    pub(crate) fn say_no(
        &mut self,
        who: &str,
        command: StatementId,
        vote: bool,
    ) -> Result<StatementId, Refusal> {
        let event = say!(person self, who, CommandRejected {
            command: command, vote: vote, reason: None,
        });
        self.sign_and_append(who, &event)
    }

    /// A request without approvals.
    pub(crate) fn break_glass(&mut self, who: &str, host: &str) -> Result<StatementId, Refusal> {
        let mut act = self.act(&[host]);
        act.break_glass = true;
        let reason = self.blob(b"everything is down");
        let event = say!(person self, who, CommandRequested {
            client_ref: None, token: None, retry: None, act: act, reason: reason,
        });
        self.sign_and_append(who, &event)
    }

    pub(crate) fn close_review(
        &mut self,
        who: &str,
        command: StatementId,
    ) -> Result<StatementId, Refusal> {
        let reason = self.blob(b"it was needed");
        let event = say!(person self, who, ReviewClosed { command: command, reason: reason });
        self.sign_and_append(who, &event)
    }

    /// The same words with another key, which signs them.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "people say nothing else, and a test of another word fails by panicking"
    )]
    pub(crate) fn with_key(
        &mut self,
        name: &str,
        mut event: Event,
    ) -> Result<StatementId, Refusal> {
        let signer = public(name).key_id();
        match &mut event {
            Event::ChangeRequested(e) => e.signer = signer,
            Event::ChangeApproved(e) => e.signer = signer,
            Event::ChangeRejected(e) => e.signer = signer,
            Event::CommandRequested(e) => e.signer = signer,
            Event::CommandApproved(e) => e.signer = signer,
            Event::CommandRejected(e) => e.signer = signer,
            Event::CommandWithdrawn(e) => e.signer = signer,
            Event::CommandCancelRequested(e) => e.signer = signer,
            Event::ReviewClosed(e) => e.signer = signer,
            _other => unreachable!("people say nothing else"),
        }
        self.sign_and_append(name, &event)
    }

    /// A command that went all the way.
    pub(crate) fn story() -> (Self, StatementId) {
        let mut book = Self::ready();
        let command = book.request("alice", &["web-1"]).unwrap();
        book.approve("bob", command).unwrap();
        book.approve("carol", command).unwrap();
        book.start("web-1", command).unwrap();
        book.output("web-1", command, b"hello\n").unwrap();
        book.complete("web-1", command, 0).unwrap();
        (book, command)
    }
}
