//! No sequence of statements authorizes a command without its quorum: random statements go into a
//! ledger, and a model that knows no code of it reads the entries and counts by the prose.
//!
//! The model holds plain names in plain sets and tries every way to sit. It takes a statement from
//! the log as said, and asks of each word of the ledger's whether it had to say that, and of each
//! person's word whether the ledger now had to say something.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::entry::Entry;
use countersign_protocol::event::*;
use countersign_protocol::fold::{Effect, Refusal};
use countersign_protocol::hash::{KeyId, StatementId};
use countersign_protocol::name::SECOND_US;
use countersign_protocol::permission::Permission;
use countersign_protocol::policy::Policy;
use countersign_protocol::quorum::{BreakGlass, Membership, Requirement};
use countersign_protocol::rights::ChangeBody;
use proptest::prelude::*;
use support::Book;

const PEOPLE: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// Each may have these keys; the first from the beginning.
const KEYS: [&str; 2] = ["", " b"];

const GROUPS: [&str; 2] = ["sre", "security"];

/// A role of the ledger's own, with `command:approve`; and two built-in ones.
const ROLES: [&str; 3] = ["admin", "approver", "write"];

/// Who is meant: `u` a person, `g` a group, `r` a role, `p` whoever may `command:approve`.
type Who = (char, &'static str);

/// A rule as the model knows it.
struct Rule {
    may: &'static [Who],
    seats: &'static [(u32, &'static [Who])],
    reason: bool,
    age_s: Option<u64>,
    rejections: Option<u32>,
    glass: bool,
}

const PLAIN: Rule = Rule {
    may: &[],
    seats: &[],
    reason: false,
    age_s: None,
    rejections: None,
    glass: false,
};

const ANYBODY: &[Who] = &[
    ('u', "alice"),
    ('u', "bob"),
    ('u', "carol"),
    ('u', "dave"),
    ('u', "erin"),
];

const POLICIES: &[&[Rule]] = &[
    &[
        Rule {
            may: &[('r', "admin")],
            seats: &[(2, &[('p', "")])],
            ..PLAIN
        },
        Rule {
            may: &[('g', "sre"), ('g', "security")],
            glass: true,
            ..PLAIN
        },
    ],
    &[Rule {
        may: ANYBODY,
        seats: &[
            (1, &[('g', "sre")]),
            (1, &[('g', "security"), ('u', "erin")]),
        ],
        ..PLAIN
    }],
    &[
        Rule {
            may: &[('u', "alice"), ('g', "sre")],
            seats: &[(1, &[('g', "sre"), ('r', "write")])],
            ..PLAIN
        },
        Rule {
            may: &[('u', "alice"), ('u', "bob")],
            seats: &[(2, ANYBODY)],
            age_s: Some(60),
            ..PLAIN
        },
    ],
    &[
        Rule {
            may: ANYBODY,
            seats: &[(2, ANYBODY)],
            rejections: Some(2),
            reason: true,
            ..PLAIN
        },
        Rule {
            may: &[('u', "alice"), ('u', "dave"), ('g', "sre")],
            glass: true,
            ..PLAIN
        },
    ],
    &[Rule {
        may: ANYBODY,
        seats: &[(2, &[('r', "approver"), ('r', "admin")]), (1, ANYBODY)],
        rejections: Some(2),
        ..PLAIN
    }],
];

fn text(rules: &[Rule]) -> String {
    let names = |all: &[Who]| {
        let one = |(sort, name): &Who| match sort {
            'u' => format!("user:{name}"),
            'g' => format!("group:{name}"),
            'r' => format!("role:{name}"),
            _right => "permission:command:approve".to_owned(),
        };
        all.iter().map(one).collect::<Vec<_>>().join(",")
    };
    let line = |rule: &Rule| {
        let mut words = match rule.seats.split_first() {
            None => format!("1 {} - break-glass=3600", names(rule.may)),
            Some(((approvals, from), rest)) => {
                let mut words = format!("{approvals} {} {}", names(rule.may), names(from));
                for (approvals, from) in rest {
                    words += &format!(" also={approvals}:{}", names(from));
                }
                words
            }
        };
        if rule.reason {
            words += " reason";
        }
        if let Some(seconds) = rule.age_s {
            words += &format!(" age={seconds}");
        }
        if let Some(noes) = rule.rejections {
            words += &format!(" rejections={noes}");
        }
        words
    };
    rules.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[derive(Debug, Clone)]
enum Op {
    Ask {
        who: usize,
        key: usize,
        glass: bool,
    },
    Approve {
        who: usize,
        key: usize,
        command: usize,
        reason: bool,
    },
    No {
        who: usize,
        key: usize,
        command: usize,
        vote: bool,
        reason: bool,
    },
    Withdraw {
        who: usize,
        command: usize,
    },
    /// Somebody asks for a change, and others consent, whoever they are.
    Change {
        asks: usize,
        consents: Vec<(usize, usize)>,
        what: What,
    },
    Review {
        who: usize,
        command: usize,
    },
    Wait(u64),
    /// The holder of the ledger's key says that it suffices.
    Forge {
        command: usize,
        lie: u8,
    },
}

#[derive(Debug, Clone)]
enum What {
    Publish(usize),
    Join(usize, usize),
    Leave(usize, usize),
    Grant(usize, usize),
    Revoke(usize, usize),
    AddKey(usize),
    EndKey(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let who = || 0..PEOPLE.len();
    let key = || prop_oneof![4 => Just(0_usize), 1 => Just(1)];
    let command = || 0..3_usize;
    let group = || 0..GROUPS.len();
    let what = prop_oneof![
        2 => (0..POLICIES.len()).prop_map(What::Publish),
        2 => (group(), who()).prop_map(|(group, who)| What::Join(group, who)),
        1 => (group(), who()).prop_map(|(group, who)| What::Leave(group, who)),
        2 => (0..ROLES.len(), who()).prop_map(|(role, who)| What::Grant(role, who)),
        1 => (0..ROLES.len(), who()).prop_map(|(role, who)| What::Revoke(role, who)),
        1 => who().prop_map(What::AddKey),
        1 => (who(), 0..KEYS.len()).prop_map(|(who, key)| What::EndKey(who, key)),
    ];
    prop_oneof![
        2 => (who(), key(), prop::bool::weighted(0.3)).prop_map(|(who, key, glass)| Op::Ask { who, key, glass }),
        8 => (who(), key(), command(), prop::bool::weighted(0.7))
            .prop_map(|(who, key, command, reason)| Op::Approve { who, key, command, reason }),
        4 => (who(), key(), 0..2_usize, prop::bool::weighted(0.9), prop::bool::weighted(0.8))
            .prop_map(|(who, key, command, vote, reason)| Op::No { who, key, command, vote, reason }),
        1 => (who(), command()).prop_map(|(who, command)| Op::Withdraw { who, command }),
        5 => (who(), prop::collection::vec((who(), key()), 1..5), what)
            .prop_map(|(asks, consents, what)| Op::Change { asks, consents, what }),
        3 => (who(), 0..2_usize).prop_map(|(who, command)| Op::Review { who, command }),
        1 => prop_oneof![Just(1_u64), Just(59), Just(60)].prop_map(Op::Wait),
        2 => (command(), 0..6_u8).prop_map(|(command, lie)| Op::Forge { command, lie }),
    ]
}

/// What a person said of a command.
struct Word {
    who: String,
    key: KeyId,
    policy: u64,
    reason: bool,
    time_us: u64,
    seq: u64,
}

struct Asked {
    who: String,
    key: KeyId,
    glass: bool,
    yes: Vec<Word>,
    no: Vec<Word>,
    status: &'static str,
}

/// An open change, and who consented with which key.
struct Open {
    consents: Vec<(String, KeyId, u64)>,
}

/// What the entries mean, read one after the other.
#[derive(Default)]
struct Model {
    read: usize,
    keys: BTreeMap<KeyId, String>,
    members: BTreeSet<(String, String)>,
    roles: BTreeSet<(String, String)>,
    /// Which of [`POLICIES`], and where it was published.
    policy: (usize, u64),
    commands: BTreeMap<StatementId, Asked>,
    changes: BTreeMap<StatementId, Open>,
    reviews: BTreeMap<StatementId, String>,
    /// What the ledger owes as its next word.
    owed: Option<(&'static str, StatementId)>,
}

impl Model {
    fn is_one(&self, who: &str, (sort, name): &Who) -> bool {
        let role = |role: &str| self.roles.contains(&(who.to_owned(), role.to_owned()));
        match sort {
            'u' => who == *name,
            'g' => self.members.contains(&(who.to_owned(), (*name).to_owned())),
            'r' => role(name),
            _right => role("admin") || role("approver"),
        }
    }

    /// None for whoever's key ended since they asked.
    fn rules(&self, asked: &Asked) -> Vec<&'static Rule> {
        if !self.keys.contains_key(&asked.key) {
            return vec![];
        }
        let rules = POLICIES[self.policy.0].iter();
        rules
            .filter(|rule| rule.glass == asked.glass)
            .filter(|rule| rule.may.iter().any(|may| self.is_one(&asked.who, may)))
            .collect()
    }

    /// Whether these people fill all seats of a rule: every way is tried.
    fn seated(&self, seats: &[&[Who]], people: &BTreeSet<&str>) -> bool {
        let Some((seat, rest)) = seats.split_first() else {
            return true;
        };
        people.iter().any(|who| {
            let mut others = people.clone();
            others.remove(who);
            seat.iter().any(|one| self.is_one(who, one)) && self.seated(rest, &others)
        })
    }

    fn is_enough(&self, asked: &Asked, now_us: u64) -> bool {
        let rules = self.rules(asked);
        if asked.glass {
            return !rules.is_empty();
        }
        let ages = rules.iter().filter_map(|rule| rule.age_s);
        let age_us = ages.min().map_or(u64::MAX, |s| s * SECOND_US);
        let reason = rules.iter().any(|rule| rule.reason);
        let counting = asked.yes.iter().filter(|word| {
            word.who != asked.who
                && word.policy == self.policy.1
                && self.keys.contains_key(&word.key)
                && (word.reason || !reason)
                && now_us - word.time_us < age_us
        });
        let people: BTreeSet<&str> = counting.map(|word| word.who.as_str()).collect();
        let each = |rule: &Rule| {
            let seats = rule.seats.iter();
            let seats = seats.flat_map(|(n, from)| (0..*n).map(move |_| *from));
            self.seated(&seats.collect::<Vec<_>>(), &people)
        };
        !self.is_voted_down(asked) && !rules.is_empty() && rules.iter().all(|rule| each(rule))
    }

    fn is_voted_down(&self, asked: &Asked) -> bool {
        let rules = self.rules(asked);
        let needed = rules
            .iter()
            .filter_map(|rule| rule.rejections)
            .max()
            .unwrap_or(1);
        let named = |who: &str| {
            let seats = rules.iter().flat_map(|rule| rule.seats);
            seats
                .flat_map(|(_, from)| *from)
                .any(|one| self.is_one(who, one))
        };
        let against = asked
            .no
            .iter()
            .filter(|no| self.keys.contains_key(&no.key) && named(&no.who));
        let people: BTreeSet<&str> = against.map(|no| no.who.as_str()).collect();
        !rules.is_empty() && people.len() >= needed as usize
    }

    fn two_administrators(&self, open: &Open) -> bool {
        let counts = |(who, key, _): &&(String, KeyId, u64)| {
            self.is_one(who, &('r', "admin")) && self.keys.contains_key(key)
        };
        let people: BTreeSet<&str> = open
            .consents
            .iter()
            .filter(counts)
            .map(|(who, ..)| who.as_str())
            .collect();
        people.len() >= 2
    }

    /// Reads what was entered since, and holds each word against the prose.
    fn follow(&mut self, book: &Book) {
        for bytes in &book.entries[self.read..] {
            let entry = Entry::decode(bytes).unwrap();
            let event = Event::parse(entry.statement.kind, &entry.statement.payload).unwrap();
            let (id, seq) = (entry.statement.id(), entry.seq);
            if let Some((owed, of)) = self.owed.take() {
                assert_eq!((event.kind().as_str(), about(&event)), (owed, Some(of)));
            }
            self.take(&event, (id, seq, entry.time.as_micros()));
        }
        self.read = book.entries.len();
        assert!(self.owed.is_none(), "the ledger owes {:?}", self.owed);
    }

    fn take(&mut self, event: &Event, (id, seq, time_us): (StatementId, u64, u64)) {
        match event {
            Event::LedgerGenesis(genesis) => {
                for one in &genesis.administrators {
                    let who = one.principal.to_string();
                    self.keys.insert(one.key.key_id(), who.clone());
                    self.roles.insert((who, "admin".into()));
                }
            }
            Event::ChangeRequested(said) => {
                let consents = vec![(said.principal.to_string(), said.signer, seq)];
                self.changes.insert(id, Open { consents });
            }
            Event::ChangeApproved(said) => {
                let open = self.changes.get_mut(&said.change).unwrap();
                open.consents
                    .push((said.principal.to_string(), said.signer, seq));
            }
            Event::CommandRequested(said) => {
                let asked = Asked {
                    who: said.principal.to_string(),
                    key: said.signer,
                    glass: said.act.break_glass,
                    yes: vec![],
                    no: vec![],
                    status: "requested",
                };
                assert!(
                    !self.rules(&asked).is_empty(),
                    "no rule lets {} ask",
                    asked.who
                );
                if asked.glass {
                    self.owed = Some(("command.authorized", id));
                }
                self.commands.insert(id, asked);
            }
            Event::CommandApproved(said) => {
                let word = Word {
                    who: said.principal.to_string(),
                    key: said.signer,
                    policy: said.policy.seq,
                    reason: said.reason.is_some(),
                    time_us,
                    seq,
                };
                assert_eq!(word.policy, self.policy.1, "of another policy");
                self.commands.get_mut(&said.command).unwrap().yes.push(word);
                if self.is_voted_down(&self.commands[&said.command]) {
                    self.owed = Some(("command.voted_down", said.command));
                } else if self.is_enough(&self.commands[&said.command], time_us) {
                    self.owed = Some(("command.authorized", said.command));
                }
            }
            Event::CommandRejected(said) if said.vote => {
                let word = Word {
                    who: said.principal.to_string(),
                    key: said.signer,
                    policy: 0,
                    reason: said.reason.is_some(),
                    time_us,
                    seq,
                };
                self.commands.get_mut(&said.command).unwrap().no.push(word);
                if self.is_voted_down(&self.commands[&said.command]) {
                    self.owed = Some(("command.voted_down", said.command));
                }
            }
            Event::CommandRejected(said) => self.ends(said.command, "rejected"),
            Event::CommandVotedDown(said) => {
                assert!(
                    self.is_voted_down(&self.commands[&said.command]),
                    "too few noes"
                );
                self.ends(said.command, "rejected");
            }
            Event::CommandWithdrawn(said) => self.ends(said.command, "withdrawn"),
            Event::CommandAuthorized(said) => {
                let asked = &self.commands[&said.command];
                assert!(
                    self.is_enough(asked, time_us),
                    "authorized without its quorum"
                );
                let named = |seq: &u64| asked.yes.iter().any(|word| word.seq == *seq);
                assert!(said.approvals.iter().all(named), "approvals of nobody");
                if asked.glass {
                    self.owed = Some(("review.opened", said.command));
                    assert!(said.approvals.is_empty());
                }
                self.ends(said.command, "authorized");
            }
            Event::ReviewOpened(said) => {
                self.reviews
                    .insert(said.command, said.requester.to_string());
            }
            Event::ReviewClosed(said) => {
                let broke = self.reviews.remove(&said.command).unwrap();
                assert_ne!(broke, said.principal.to_string(), "reviewed by oneself");
            }
            other => {
                let Some(effected) = ChangeBody::effected(other) else {
                    return;
                };
                let open = self.changes.remove(&effected.change).unwrap();
                assert!(
                    self.two_administrators(&open),
                    "a change without its quorum"
                );
                self.happen(effected.body, seq);
            }
        }
    }

    fn ends(&mut self, command: StatementId, status: &'static str) {
        let asked = self.commands.get_mut(&command).unwrap();
        assert_eq!(asked.status, "requested");
        asked.status = status;
    }

    fn happen(&mut self, body: ChangeBody, seq: u64) {
        match body {
            ChangeBody::KeyAdded { principal, key, .. } => {
                self.keys.insert(key.key_id(), principal.to_string());
            }
            ChangeBody::KeyRevoked { key_id, .. } => {
                self.keys.remove(&key_id);
                self.changes.retain(|_, open| open.consents[0].1 != key_id);
            }
            ChangeBody::GroupChanged { group, add, remove } => {
                for who in add {
                    self.members.insert((who.to_string(), group.to_string()));
                }
                for who in remove {
                    self.members.remove(&(who.to_string(), group.to_string()));
                }
            }
            ChangeBody::RoleGranted { role, to } => {
                let who = to.to_string().strip_prefix("user:").unwrap().to_owned();
                self.roles.insert((who, role.to_string()));
            }
            ChangeBody::RoleRevoked { role, from } => {
                let who = from.to_string().strip_prefix("user:").unwrap().to_owned();
                self.roles.remove(&(who, role.to_string()));
                let left = self
                    .roles
                    .iter()
                    .filter(|(_, role)| role == "admin")
                    .count();
                assert!(left >= 2, "nobody is left to change rights");
            }
            ChangeBody::PolicyPublished { policy } => {
                let of = |rules: &&[Rule]| Policy::new(text(rules)).unwrap().digest() == policy;
                self.policy = (POLICIES.iter().position(of).unwrap(), seq);
            }
            _hosts_roles_and_tokens => {}
        }
    }
}

/// The command that an event is about.
fn about(event: &Event) -> Option<StatementId> {
    match event {
        Event::CommandAuthorized(said) => Some(said.command),
        Event::CommandVotedDown(said) => Some(said.command),
        Event::ReviewOpened(said) => Some(said.command),
        _other => None,
    }
}

fn key_name(who: usize, key: usize) -> String {
    format!("{}{}", PEOPLE[who], KEYS[key])
}

/// With everybody, both groups and the role of the ledger's own, under one of the policies.
fn begun(policy: usize) -> Book {
    let mut book = Book::genesis();
    book.enrol("web-1");
    for name in ["dave", "erin"] {
        book.welcome(name);
    }
    book.change(ChangeBody::RoleDefined {
        role: "approver".parse().unwrap(),
        permissions: vec![Permission::CommandApprove],
    });
    book.change(Book::group("sre", &["bob", "dave"], &[]));
    book.change(Book::group("security", &["bob", "carol", "erin"], &[]));
    book.change(Book::granted("approver", "user:dave"));
    book.publish_text(&text(POLICIES[policy]));
    book
}

fn change(book: &Book, what: &What) -> ChangeBody {
    match *what {
        What::Publish(at) => ChangeBody::PolicyPublished {
            policy: Policy::new(text(POLICIES[at])).unwrap().digest(),
        },
        What::Join(group, who) => Book::group(GROUPS[group], &[PEOPLE[who]], &[]),
        What::Leave(group, who) => Book::group(GROUPS[group], &[], &[PEOPLE[who]]),
        What::Grant(role, who) => Book::granted(ROLES[role], &format!("user:{}", PEOPLE[who])),
        What::Revoke(role, who) => Book::revoked(ROLES[role], &format!("user:{}", PEOPLE[who])),
        What::AddKey(who) => book.key_of(PEOPLE[who], &key_name(who, 1)),
        What::EndKey(who, key) => Book::ended(&key_name(who, key)),
    }
}

/// Says it, whoever may or may not. Whatever is refused left nothing behind.
fn play(book: &mut Book, commands: &mut Vec<StatementId>, op: &Op) -> Result<(), Refusal> {
    let of = |commands: &Vec<StatementId>, at: usize| commands.iter().rev().nth(at).copied();
    match op {
        Op::Ask { who, key, glass } => {
            let mut act = book.act(&["web-1"]);
            act.break_glass = *glass;
            let reason = book.blob(b"because");
            let event = say!(person book, PEOPLE[*who], CommandRequested {
                client_ref: None, token: None, retry: None, act: act, reason: reason,
            });
            commands.push(book.with_key(&key_name(*who, *key), event)?);
        }
        Op::Approve {
            who,
            key,
            command,
            reason,
        } => {
            let Some(command) = of(commands, *command) else {
                return Ok(());
            };
            let Event::CommandApproved(mut approval) = book.approval_event(PEOPLE[*who], command)
            else {
                panic!("an approval")
            };
            approval.reason = reason.then(|| book.blob(b"seen"));
            book.with_key(&key_name(*who, *key), approval.into())?;
        }
        Op::No {
            who,
            key,
            command,
            vote,
            reason,
        } => {
            let Some(command) = of(commands, *command) else {
                return Ok(());
            };
            let reason = reason.then(|| book.blob(b"no"));
            let event = say!(person book, PEOPLE[*who], CommandRejected {
                command: command, vote: *vote, reason: reason,
            });
            book.with_key(&key_name(*who, *key), event)?;
        }
        Op::Withdraw { who, command } => {
            let Some(command) = of(commands, *command) else {
                return Ok(());
            };
            let event = say!(person book, PEOPLE[*who], CommandWithdrawn {
                command: command, token: None, reason: None,
            });
            book.sign_and_append(PEOPLE[*who], &event)?;
        }
        Op::Review { who, command } => {
            let open: Vec<_> = book.state.rights().reviews().map(|(id, _)| *id).collect();
            if let Some(command) = open.get(*command) {
                book.close_review(PEOPLE[*who], *command)?;
            }
        }
        Op::Wait(seconds) => book.now += seconds * SECOND_US,
        Op::Change {
            asks,
            consents,
            what,
        } => {
            let body = change(book, what);
            let document = match what {
                What::Publish(at) => Some(book.blob(text(POLICIES[*at]).as_bytes())),
                _other => None,
            };
            let id = book.ask_with(PEOPLE[*asks], body, document)?;
            for (who, key) in consents {
                let body = book.state.rights().change(&id).map(|open| open.digest);
                let Some(body) = body else {
                    break;
                };
                let event = say!(person book, PEOPLE[*who], ChangeApproved {
                    change: id, body: body, reason: None,
                });
                book.with_key(&key_name(*who, *key), event)?;
            }
        }
        Op::Forge { command, lie } => {
            if let Some(command) = of(commands, *command) {
                forge(book, command, *lie)?;
            }
        }
    }
    Ok(())
}

/// The ledger's key lies about what suffices: always in vain, as what suffices was said at once.
fn forge(book: &mut Book, command: StatementId, lie: u8) -> Result<(), Refusal> {
    let waiting = book.command(command).clone();
    let mut approvals: Vec<u64> = waiting.approvals.iter().map(|given| given.seq).collect();
    let everybody = || PEOPLE.map(|name| name.parse().unwrap()).to_vec();
    let mut requirement = book
        .state
        .requirement(&waiting)
        .unwrap_or_else(|_| Requirement::of(1, vec!["role:admin".parse().unwrap()]));
    match lie {
        0 => {}
        1 => requirement = Requirement::of(1, vec!["role:admin".parse().unwrap()]),
        2 => approvals.truncate(1),
        3 => {
            requirement.demands.clear();
            requirement.break_glass = Some(BreakGlass { review_ms: 1 });
        }
        4 => {
            let effect = Effect::VoteDown {
                command,
                rejections: waiting.votes.iter().map(|vote| vote.seq).collect(),
            };
            let event = book.ledger_header().effect(effect);
            return book.sign_and_append("ledger", &event).map(drop);
        }
        _truncate => approvals.clear(),
    }
    let electors = requirement.electors().into_iter();
    let members = electors.map(|of| Membership {
        of: of.clone(),
        people: everybody(),
    });
    let effect = Effect::Authorize {
        command,
        request_seq: waiting.requested.seq,
        approvals,
        policy: book.state.rights().policy().unwrap().reference,
        members: members.collect(),
        requirement,
    };
    let event = book.ledger_header().effect(effect);
    book.sign_and_append("ledger", &event).map(drop)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_is_authorized_without_its_quorum(
        policy in 0..POLICIES.len(), ops in prop::collection::vec(op(), 1..50),
    ) {
        let mut book = begun(policy);
        let mut model = Model::default();
        model.follow(&book);
        let mut commands = Vec::new();
        for op in &ops {
            let before = book.entries.len();
            let said = play(&mut book, &mut commands, op);
            if said.is_err() && !matches!(op, Op::Change { .. }) || matches!(op, Op::Forge { .. }) {
                prop_assert_eq!(book.entries.len(), before, "{:?} left an entry", op);
            }
            model.follow(&book);
            for (id, asked) in &model.commands {
                prop_assert_eq!(book.status(*id), asked.status, "after {:?}", op);
            }
        }
        // And an auditor who reads the bytes comes to the same.
        let auditor = book.audit().unwrap();
        prop_assert_eq!(auditor.not_rejudged(), 0);
        prop_assert!(!auditor.owes_a_review());
        for (id, asked) in &model.commands {
            let found = auditor.state().command(id).unwrap().status();
            prop_assert_eq!(found.as_str(), asked.status);
        }
        let open: BTreeSet<_> = auditor.state().rights().reviews().map(|(id, _)| *id).collect();
        prop_assert_eq!(open, model.reviews.keys().copied().collect::<BTreeSet<_>>());
    }
}

/// The random statements above do come to authorizations, votes and reviews of every sort.
#[test]
fn the_random_statements_reach_what_they_are_about() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<&'static str, usize> = BTreeMap::new();
    for turn in 0..60 {
        let ops = prop::collection::vec(op(), 40..60)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let (mut book, mut commands) = (begun(turn % POLICIES.len()), Vec::new());
        let before = book.entries.len();
        for op in &ops {
            let _refused = play(&mut book, &mut commands, op);
        }
        for bytes in &book.entries[before..] {
            let kind = Entry::decode(bytes).unwrap().statement.kind;
            *seen.entry(kind.as_str()).or_default() += 1;
        }
    }
    for kind in [
        "command.authorized",
        "command.voted_down",
        "command.rejected",
        "command.withdrawn",
        "review.opened",
        "review.closed",
        "policy.published",
        "key.added",
        "key.revoked",
        "group.changed",
        "role.granted",
        "role.revoked",
    ] {
        assert!(
            seen.get(kind).is_some_and(|times| *times >= 2),
            "{kind}: {seen:?}"
        );
    }
}
