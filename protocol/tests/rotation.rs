//! A new key for an agent: while the old one is in force each does its own work, and after its last
//! word the old one does none.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::event::*;
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::{KeyId, StatementId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::lifecycle::Due;
use countersign_protocol::name::{AgentName, SECOND_US};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::view;
use proptest::prelude::*;
use support::{Book, public};

const HOST: &str = "web-1";

/// The first key has the host's name, the others these.
const KEYS: [&str; 4] = [HOST, "web-1 b", "web-1 c", "web-1 d"];

fn host() -> AgentName {
    HOST.parse().unwrap()
}

fn id(key: &str) -> KeyId {
    public(key).key_id()
}

fn accepted(key: &str, replaces: Option<&str>) -> ChangeBody {
    ChangeBody::AgentAccepted {
        agent: host(),
        key: public(key),
        replaces: replaces.map(id),
        labels: Vec::new(),
    }
}

/// What one of the host's keys says, in words of its own.
fn say_as(book: &mut Book, key: &str, mut event: Event) -> Result<StatementId, Refusal> {
    let (seq, prev) = book.chain(key);
    let signer = id(key);
    match &mut event {
        Event::ExecutionStarted(e) => (e.signer, e.agent_seq, e.agent_prev) = (signer, seq, prev),
        Event::ExecutionRefused(e) => (e.signer, e.agent_seq, e.agent_prev) = (signer, seq, prev),
        Event::ExecutionCompleted(e) => (e.signer, e.agent_seq, e.agent_prev) = (signer, seq, prev),
        Event::AgentKeyRetired(e) => (e.signer, e.agent_seq, e.agent_prev) = (signer, seq, prev),
        Event::ExecutionOutput(e) => e.signer = signer,
        other => panic!("no host says {:?}", other.kind()),
    }
    book.sign_and_append(key, &event)
}

fn start(book: &mut Book, key: &str, command: StatementId) -> Result<StatementId, Refusal> {
    let event = book.start_event(HOST, command);
    say_as(book, key, event)
}

fn retire(book: &mut Book, key: &str) -> Result<StatementId, Refusal> {
    let event = say!(agent book, HOST, AgentKeyRetired {
        agent_seq: 0, agent_prev: StatementId::ZERO,
    });
    say_as(book, key, event)
}

fn complete(book: &mut Book, key: &str, command: StatementId) -> Result<StatementId, Refusal> {
    let event = book.complete_event(HOST, command, 0);
    say_as(book, key, event)
}

/// A command that names the host's current key, authorized.
fn command(book: &mut Book) -> StatementId {
    let command = book.request("alice", &[HOST]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    command
}

#[test]
fn an_acceptance_names_the_key_that_it_replaces_or_is_refused() {
    let mut book = Book::ready();
    book.enrol_with(HOST, KEYS[1]).unwrap();
    // Nobody replaces a host's key by mistake, nor another key than the one that was shown.
    for wrong in [None, Some("bob"), Some(KEYS[1])] {
        let asked = book.ask_change("alice", accepted(KEYS[1], wrong));
        assert_eq!(asked, Err(Refusal::AgentTaken), "{wrong:?}");
    }
    book.change(accepted(KEYS[1], Some(HOST)));
    assert_eq!(book.state.rights().agent(&host()), Some(id(KEYS[1])));
    book.audit().unwrap();
}

#[test]
fn a_consent_does_not_replace_a_key_that_came_meanwhile() {
    let mut book = Book::ready();
    for key in [KEYS[1], KEYS[2]] {
        book.enrol_with(HOST, key).unwrap();
    }
    let first = book
        .ask_change("alice", accepted(KEYS[1], Some(HOST)))
        .unwrap();
    let second = book
        .ask_change("alice", accepted(KEYS[2], Some(HOST)))
        .unwrap();
    book.consent("bob", first).unwrap();
    book.consent("bob", second).unwrap();
    assert_eq!(book.state.rights().agent(&host()), Some(id(KEYS[1])));
    assert!(book.state.rights().change(&second).is_some());
    book.audit().unwrap();
}

#[test]
fn while_both_keys_are_in_force_each_runs_what_names_it_on_a_chain_of_its_own() {
    let mut book = Book::ready();
    let (running, waiting) = (command(&mut book), command(&mut book));
    start(&mut book, HOST, running).unwrap();
    book.rotate(HOST, KEYS[1]);
    let anew = command(&mut book);
    let line = |book: &Book, id| book.command(id).targets.as_ref().unwrap().lines()[0].key_id;
    assert_eq!(line(&book, waiting), id(HOST));
    assert_eq!(line(&book, anew), id(KEYS[1]));

    // Neither does the other's work.
    assert_eq!(start(&mut book, KEYS[1], waiting), Err(Refusal::NotATarget));
    assert_eq!(start(&mut book, HOST, anew), Err(Refusal::NotATarget));
    assert_eq!(
        complete(&mut book, KEYS[1], running),
        Err(Refusal::NeverStarted)
    );
    let path = say!(agent book, HOST, ExecutionRefused {
        command: anew, agent_seq: 0, agent_prev: StatementId::ZERO,
        why: RefusalReason::Busy, rule: None, detail: None,
    });
    assert_eq!(say_as(&mut book, HOST, path), Err(Refusal::NotATarget));

    start(&mut book, KEYS[1], anew).unwrap();
    start(&mut book, HOST, waiting).unwrap();
    for (key, command) in [(HOST, running), (KEYS[1], anew), (HOST, waiting)] {
        complete(&mut book, key, command).unwrap();
        assert_eq!(book.status(command), "completed");
    }
    assert_eq!((book.chain(HOST).0, book.chain(KEYS[1]).0), (4, 2));
    book.audit().unwrap();
}

#[test]
fn a_key_retires_itself_once_it_is_replaced_and_its_runs_are_over() {
    let mut book = Book::ready();
    let running = command(&mut book);
    start(&mut book, HOST, running).unwrap();
    assert_eq!(retire(&mut book, HOST), Err(Refusal::RunsOpen));
    complete(&mut book, HOST, running).unwrap();
    // A host does not cut itself off.
    assert_eq!(retire(&mut book, HOST), Err(Refusal::CurrentKey));
    book.rotate(HOST, KEYS[1]);
    let waiting = command(&mut book);
    start(&mut book, KEYS[1], waiting).unwrap();
    // The other key's run is none of its business.
    retire(&mut book, HOST).unwrap();

    let record = book.state.rights().key(&id(HOST)).unwrap();
    assert_eq!(record.revoked, Some(book.entries.len() as u64 - 1));
    assert!(record.retired && record.suspect_from.is_none());
    assert_eq!(retire(&mut book, HOST), Err(Refusal::RevokedKey));
    assert_eq!(retire(&mut book, KEYS[1]), Err(Refusal::RunsOpen));
    complete(&mut book, KEYS[1], waiting).unwrap();
    book.audit().unwrap();
}

#[test]
fn a_retirement_is_the_next_word_on_its_chain() {
    let (mut book, _) = Book::story();
    book.rotate(HOST, KEYS[1]);
    let (_, prev) = book.chain(HOST);
    for (agent_seq, agent_prev) in [(0, StatementId::ZERO), (1, prev), (2, StatementId::ZERO)] {
        let word = say!(agent book, HOST, AgentKeyRetired {
            agent_seq: agent_seq, agent_prev: agent_prev,
        });
        let said = book.sign_and_append(HOST, &word);
        assert_eq!(said, Err(Refusal::AgentChain { expected: 2 }));
    }
    // Nobody says it for another: not a second key of the host, and not a person.
    let word = say!(agent book, HOST, AgentKeyRetired { agent_seq: 2, agent_prev: prev });
    let forged = countersign_protocol::statement::Statement::sign(&word, &support::key(KEYS[1]));
    assert!(forged.and_then(|signed| signed.verify()).is_err());
    retire(&mut book, HOST).unwrap();
    assert_eq!(book.chain(HOST).0, 3);
    book.audit().unwrap();
}

#[test]
fn a_run_that_is_presumed_lost_does_not_hold_its_key_for_ever() {
    let mut book = Book::ready();
    let lost = command(&mut book);
    let run = start(&mut book, HOST, lost).unwrap();
    book.rotate(HOST, KEYS[1]);
    assert_eq!(retire(&mut book, HOST), Err(Refusal::RunsOpen));
    book.now += 100 * SECOND_US;
    let due = book
        .ledger_header()
        .due(lost, Due::PresumeLost(host(), run));
    book.sign_and_append("ledger", &due).unwrap();
    retire(&mut book, HOST).unwrap();
    assert_eq!(complete(&mut book, HOST, lost), Err(Refusal::RevokedKey));
    book.audit().unwrap();
}

#[test]
fn a_run_counts_again_when_its_command_is_read_back() {
    let mut book = Book::ready();
    let running = command(&mut book);
    start(&mut book, HOST, running).unwrap();
    book.rotate(HOST, KEYS[1]);
    let command = book.state.close(&running).unwrap();
    book.state.restore(command);
    assert_eq!(retire(&mut book, HOST), Err(Refusal::RunsOpen));
}

#[test]
fn revoking_the_old_key_leaves_the_name_and_revoking_the_current_one_frees_it() {
    let mut book = Book::ready();
    book.rotate(HOST, KEYS[1]);
    let revoke = |book: &mut Book, key| {
        book.change(ChangeBody::KeyRevoked {
            key_id: id(key),
            suspect_from: None,
        });
    };
    revoke(&mut book, HOST);
    assert_eq!(book.state.rights().agent(&host()), Some(id(KEYS[1])));
    book.rotate(HOST, KEYS[2]);
    revoke(&mut book, KEYS[2]);
    // The key before it does not come back: people would have to accept that.
    assert_eq!(book.state.rights().agent(&host()), None);
    assert_eq!(book.state.rights().key(&id(KEYS[1])).unwrap().revoked, None);
    let items = view::agent_items(book.state.rights());
    let words: Vec<_> = items.iter().map(|item| item.status.as_str()).collect();
    assert_eq!(words, ["replaced"]);
    book.audit().unwrap();
}

#[test]
fn what_a_retired_key_signed_can_still_be_called_suspect() {
    let mut book = Book::ready();
    book.rotate(HOST, KEYS[1]);
    let ended = book.entries.len() as u64;
    retire(&mut book, HOST).unwrap();
    let suspect = ChangeBody::KeyRevoked {
        key_id: id(HOST),
        suspect_from: Some(3),
    };
    book.change(suspect.clone());
    let record = book.state.rights().key(&id(HOST)).unwrap();
    assert_eq!(
        (record.revoked, record.suspect_from),
        (Some(ended), Some(3))
    );
    assert!(!record.retired);
    assert_eq!(book.ask_change("alice", suspect), Err(Refusal::RevokedKey));
    book.audit().unwrap();
}

#[test]
fn the_list_shows_both_keys_while_both_are_in_force() {
    let mut book = Book::ready();
    book.enrol_with(HOST, KEYS[1]).unwrap();
    let words = |book: &Book| {
        let items = view::agent_items(book.state.rights());
        let mut words: Vec<_> = items
            .into_iter()
            .map(|item| (item.key_id == id(KEYS[1]).to_string(), item.status))
            .collect();
        words.sort();
        words
    };
    let word = |is_new, word: &str| (is_new, word.to_owned());
    assert_eq!(
        words(&book),
        [word(false, "accepted"), word(true, "enrolled")]
    );
    book.change(accepted(KEYS[1], Some(HOST)));
    assert_eq!(
        words(&book),
        [word(false, "replaced"), word(true, "accepted")]
    );
    retire(&mut book, HOST).unwrap();
    assert_eq!(words(&book), [word(true, "accepted")]);
}

/// One thing that happens to the host's keys.
#[derive(Debug, Clone)]
enum Op {
    Enrol(usize),
    Accept(usize, bool),
    Retire(usize),
    Revoke(usize),
    Request,
    Start(usize, usize),
    Complete(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..KEYS.len();
    prop_oneof![
        key.clone().prop_map(Op::Enrol),
        (key.clone(), any::<bool>()).prop_map(|(key, right)| Op::Accept(key, right)),
        key.clone().prop_map(Op::Retire),
        key.clone().prop_map(Op::Revoke),
        Just(Op::Request),
        (key.clone(), 0..6_usize).prop_map(|(key, which)| Op::Start(key, which)),
        (key, 0..6_usize).prop_map(|(key, which)| Op::Complete(key, which)),
    ]
}

/// The rules in the fewest words: which keys there are, and whose each command is.
#[derive(Debug, Default)]
struct Model {
    enrolled: BTreeSet<usize>,
    known: BTreeSet<usize>,
    in_force: BTreeSet<usize>,
    retired: BTreeSet<usize>,
    current: Option<usize>,
    /// Each command: the key it names, and whether it waits, runs or is over.
    commands: Vec<(usize, u8)>,
}

impl Model {
    /// Whether the ledger should take it; what follows is then applied.
    fn takes(&mut self, op: &Op) -> bool {
        match *op {
            Op::Enrol(key) => !self.known.contains(&key) && self.enrolled.insert(key),
            Op::Accept(key, right) => {
                let takes = right && self.enrolled.contains(&key) && self.known.insert(key);
                if takes {
                    self.enrolled.clear();
                    self.in_force.insert(key);
                    self.current = Some(key);
                }
                takes
            }
            Op::Retire(key) => {
                let busy = self.commands.contains(&(key, 1));
                let takes = self.in_force.contains(&key) && self.current != Some(key) && !busy;
                if takes {
                    self.in_force.remove(&key);
                    self.retired.insert(key);
                }
                takes
            }
            Op::Revoke(key) => {
                let in_force = self.in_force.remove(&key);
                self.current = self.current.filter(|current| *current != key);
                self.retired.remove(&key) || in_force
            }
            Op::Request => {
                self.commands.extend(self.current.map(|key| (key, 0)));
                self.current.is_some()
            }
            Op::Start(key, which) => self.turn(key, which, 0),
            Op::Complete(key, which) => self.turn(key, which, 1),
        }
    }

    fn turn(&mut self, key: usize, which: usize, from: u8) -> bool {
        let alive = self.in_force.contains(&key);
        match self.commands.get_mut(which) {
            Some(command) if alive && *command == (key, from) => {
                command.1 += 1;
                true
            }
            Some(_) | None => false,
        }
    }
}

fn really(book: &mut Book, commands: &mut Vec<StatementId>, op: &Op) -> bool {
    match *op {
        Op::Enrol(key) => book.enrol_with(HOST, KEYS[key]).is_ok(),
        Op::Accept(key, right) => {
            let current = book.state.rights().agent(&host());
            let wrong = id("bob");
            let replaces = if right { current } else { Some(wrong) };
            let body = ChangeBody::AgentAccepted {
                agent: host(),
                key: public(KEYS[key]),
                replaces,
                labels: Vec::new(),
            };
            let asked = book.ask_change("alice", body);
            asked.is_ok_and(|change| book.consent("bob", change).is_ok())
        }
        Op::Retire(key) => retire(book, KEYS[key]).is_ok(),
        Op::Revoke(key) => {
            let body = ChangeBody::KeyRevoked {
                key_id: id(KEYS[key]),
                suspect_from: None,
            };
            let asked = book.ask_change("alice", body);
            asked.is_ok_and(|change| book.consent("bob", change).is_ok())
        }
        Op::Request => {
            if book.state.rights().agent(&host()).is_none() {
                return book.request("alice", &[HOST]).is_ok();
            }
            commands.push(command(book));
            true
        }
        Op::Start(key, which) => commands
            .get(which)
            .is_some_and(|id| start(book, KEYS[key], *id).is_ok()),
        Op::Complete(key, which) => commands
            .get(which)
            .is_some_and(|id| complete(book, KEYS[key], *id).is_ok()),
    }
}

/// Whose keys the fold holds to be what.
fn standing(book: &Book) -> BTreeMap<&'static str, (bool, bool)> {
    let rights = book.state.rights();
    let known = KEYS.into_iter().filter_map(|name| {
        let record = rights.key(&id(name))?;
        let current = rights.agent(&host()) == Some(id(name));
        Some((name, (record.revoked.is_none(), current)))
    });
    known.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_happens_to_its_keys_a_host_speaks_with_those_in_force_alone(
        ops in proptest::collection::vec(op(), 1..60)
    ) {
        let mut book = Book::ready();
        let mut commands = Vec::new();
        let mut model = Model {
            known: [0].into(),
            in_force: [0].into(),
            current: Some(0),
            ..Model::default()
        };
        for op in &ops {
            let expected = model.takes(op);
            prop_assert_eq!(really(&mut book, &mut commands, op), expected, "{:?}", op);
        }
        let expected: BTreeMap<_, _> = model.known.iter()
            .map(|key| (KEYS[*key], (model.in_force.contains(key), model.current == Some(*key))))
            .collect();
        prop_assert_eq!(standing(&book), expected);
        // From the bytes alone the same comes out.
        let auditor = book.audit().unwrap();
        let keys: Vec<(&KeyId, &PublicKey)> = auditor.state().rights().keys()
            .map(|(id, record)| (id, &record.key)).collect();
        let held: Vec<(&KeyId, &PublicKey)> = book.state.rights().keys()
            .map(|(id, record)| (id, &record.key)).collect();
        prop_assert_eq!(keys, held);
    }
}

#[test]
fn since_when_a_revoked_key_is_suspect_can_be_said_later_and_once() {
    let mut book = Book::ready();
    let revoked = |suspect_from| ChangeBody::KeyRevoked {
        key_id: id(HOST),
        suspect_from,
    };
    book.change(ChangeBody::AgentRetired { agent: host() });
    let ended = book.state.rights().key(&id(HOST)).unwrap().revoked;
    assert!(ended.is_some());
    let again = book.ask_change("alice", revoked(None));
    assert_eq!(again, Err(Refusal::RevokedKey));
    book.change(revoked(Some(3)));
    let record = book.state.rights().key(&id(HOST)).unwrap();
    assert_eq!((record.revoked, record.suspect_from), (ended, Some(3)));
    let again = book.ask_change("alice", revoked(Some(4)));
    assert_eq!(again, Err(Refusal::RevokedKey));
    book.audit().unwrap();
}
