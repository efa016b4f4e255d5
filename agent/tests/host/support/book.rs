//! The ledger in memory of the protocol's tests, with dave and any command. Beside the honest way in
//! there is one for a thief of the ledger's keys, who may append what he likes.

use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody};
use countersign_protocol::command::{Act, CommandSpec, Mode};
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::Event;
use countersign_protocol::hash::StatementId;
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::statement::Statement;
use countersign_protocol::target::{TargetLine, TargetList};

#[macro_use]
#[path = "../../../../protocol/tests/support/memory.rs"]
mod memory;

pub(crate) use memory::{Book, START, key, public};

impl Book {
    /// With dave, and a policy of two approvals.
    pub(crate) fn ready() -> Self {
        let mut book = Self::genesis();
        book.change(book.key_of("dave", "dave"));
        let everybody = ["alice", "bob", "carol", "dave"];
        book.publish(2, &everybody, &everybody);
        book
    }

    /// The entries of another ledger by this kind, entered here anew.
    pub(crate) fn copy_enrolments(&mut self, from: &Self) {
        for bytes in &from.entries {
            let statement = Entry::decode(bytes).unwrap().statement;
            let Event::AgentEnrolled(enrolled) =
                Event::parse(statement.kind, &statement.payload).unwrap()
            else {
                continue;
            };
            self.append(statement).unwrap();
            self.change(ChangeBody::AgentAccepted {
                agent: enrolled.agent,
                key: enrolled.key,
                replaces: None,
                labels: Vec::new(),
            });
        }
    }

    /// What running `argv` is, before it has an act.
    pub(crate) fn spec(argv: &[&str]) -> CommandSpec {
        CommandSpec {
            mode: Mode::Exec,
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            cwd: None,
            user: None,
            timeout_ms: 30_000,
            output_limit: 1 << 20,
            at_output_limit: None,
        }
    }

    /// The act of running `spec` on `hosts`, whose keys the ledger knows.
    pub(crate) fn act(&mut self, hosts: &[&str], spec: &CommandSpec) -> Act {
        let written = spec;
        let spec = self.blob(&spec.to_document().unwrap());
        let lines = hosts.iter().map(|host| TargetLine {
            agent: host.parse().unwrap(),
            key_id: self.state.rights().agent(&host.parse().unwrap()).unwrap(),
            service: None,
            spec: spec.digest,
            turn: None,
            facts: None,
        });
        let list = TargetList::new(lines.collect()).unwrap();
        let document = self.blob(&list.to_document().unwrap());
        Act {
            mode: written.mode,
            spec,
            env: None,
            stdin: None,
            secrets: None,
            targets: list.describe(document).unwrap(),
            user: written.user.clone(),
            timeout_ms: written.timeout_ms,
            output_limit: written.output_limit,
            at_output_limit: None,
            not_before: Time::from_micros(self.now).unwrap(),
            expires_at: Time::from_micros(self.now + 2 * 3600 * SECOND_US).unwrap(),
            max_runs: 1,
            break_glass: false,
            rollout: None,
        }
    }

    pub(crate) fn request_event(&mut self, who: &str, act: Act) -> Event {
        let reason = self.blob(b"because");
        say!(person self, who, CommandRequested {
            client_ref: None, token: None, retry: None, act: act, reason: reason,
        })
    }

    pub(crate) fn request(&mut self, who: &str, act: Act) -> StatementId {
        let event = self.request_event(who, act);
        self.sign_and_append(who, &event).unwrap()
    }

    /// What a thief of the ledger's keys can do: an entry that no rule has judged.
    pub(crate) fn force(&mut self, statement: Statement) -> u64 {
        let (seq, time) = (
            self.entries.len() as u64,
            Time::from_micros(self.now).unwrap(),
        );
        let key_id = countersign_protocol::sshsig::SshSig::from_blob(&statement.signature)
            .unwrap()
            .key()
            .key_id();
        let (prev, entry) = (self.last, |prev| Entry {
            seq,
            time,
            prev,
            key_id,
            statement,
        });
        let bytes = entry(prev).encode().unwrap();
        self.last = entry::leaf(&bytes);
        self.tree.push(self.last);
        self.entries.push(bytes);
        seq
    }

    pub(crate) fn force_event(&mut self, who: &str, event: &Event) -> u64 {
        self.force(Statement::sign(event, &key(who)).unwrap())
    }

    /// Where the statement with this id stands.
    pub(crate) fn seq_of(&self, id: StatementId) -> Option<u64> {
        let found = self
            .entries
            .iter()
            .position(|bytes| Entry::decode(bytes).unwrap().statement.id() == id);
        found.map(|seq| seq as u64)
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let size = self.tree.size();
        let root = self.tree.root_at(size).unwrap();
        let origin = "ledger.example.com".parse().unwrap();
        Checkpoint::sign(CheckpointBody { origin, size, root }, &key("checkpoint"))
    }
}
