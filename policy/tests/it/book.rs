//! A ledger in memory with fixed keys, so that rights are those that the real fold comes to; and
//! questions about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_policy::CedarJudge;
use countersign_protocol::audit;
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::command::{Act, CommandSpec, Mode, Targets};
use countersign_protocol::effect::LedgerHeader;
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::{
    Administrator, AgentEnrolled, ChangeApproved, ChangeRequested, CommandRequested, Event,
    LedgerGenesis, Seen,
};
use countersign_protocol::facts::Facts;
use countersign_protocol::fold::{Refusal, State};
use countersign_protocol::hash::{Digest, Hash, StatementId};
use countersign_protocol::judgement::{ChangeQuestion, Judge, Judgement, Question};
use countersign_protocol::key::PublicKey;
use countersign_protocol::lifecycle::Position;
use countersign_protocol::merkle::Tree;
use countersign_protocol::name::{Nonce, Principal, Time, TokenId};
use countersign_protocol::policy::Policy;
use countersign_protocol::quorum::Requirement;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::statement::Statement;
use countersign_protocol::target::{TargetLine, TargetList};
use ed25519_dalek::SigningKey;

/// 2027-01-15 08:00 UTC, a Friday.
pub(crate) const START: u64 = 1_800_000_000_000_000;

fn key(name: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    SigningKey::from_bytes(&seed)
}

pub(crate) fn public(name: &str) -> PublicKey {
    PublicKey::of(&key(name))
}

/// The ledger.
pub(crate) struct Book {
    state: State,
    blobs: BTreeMap<Digest, Blob>,
    tree: Tree,
    last: Hash,
    counter: u64,
    pub(crate) now: u64,
}

macro_rules! say {
    ($book:expr, $who:expr, $kind:ident { $author:ident, $($field:ident: $value:expr),* $(,)? }) => {{
        let header = $book.header($who);
        Event::from($kind {
            signer: header.signer, nonce: header.nonce, made_at: header.made_at,
            ledger: header.ledger, seen: header.seen,
            $author: $who.parse().unwrap(),
            $($field: $value,)*
        })
    }};
}

impl Book {
    /// Genesis alone: alice, bob and carol are administrators, two of them change rights.
    pub(crate) fn new() -> Self {
        let mut book = Self {
            state: State::new(Arc::new(CedarJudge::new())),
            blobs: BTreeMap::new(),
            tree: Tree::default(),
            last: Hash::ZERO,
            counter: 0,
            now: START,
        };
        let people = ["alice", "bob", "carol"].map(|name| Administrator {
            principal: name.parse().unwrap(),
            key: public(name),
        });
        let genesis = Event::from(LedgerGenesis {
            signer: public("ledger").key_id(),
            nonce: Nonce::new([9; 16]),
            made_at: book.time(),
            origin: "ledger.example.com".parse().unwrap(),
            checkpoint_key: public("checkpoint"),
            statement_key: public("ledger"),
            administrators: people.to_vec(),
            threshold: 2,
            gateway_key: Some(public("gateway")),
            recovery_key: None,
        });
        book.append("ledger", &genesis).unwrap();
        book
    }

    /// With people and hosts. dave is in `sre` and `ops`, erin in `sre`, frank in `security`; grace is
    /// in no group and has the role `deployer`, which may execute. web-1 and web-2 are production,
    /// dev-1 is not, bare has no labels.
    pub(crate) fn peopled() -> Self {
        let mut book = Self::new();
        for name in ["dave", "erin", "frank", "grace"] {
            book.add_person(name);
        }
        for (group, members) in [
            ("sre", &["dave", "erin"][..]),
            ("ops", &["dave"]),
            ("security", &["frank"]),
        ] {
            book.change(ChangeBody::GroupChanged {
                group: group.parse().unwrap(),
                add: members.iter().map(|name| name.parse().unwrap()).collect(),
                remove: Vec::new(),
            });
        }
        book.change(ChangeBody::RoleDefined {
            role: "deployer".parse().unwrap(),
            permissions: vec!["command:execute".parse().unwrap()],
        });
        book.change(ChangeBody::RoleGranted {
            role: "deployer".parse().unwrap(),
            to: "user:grace".parse().unwrap(),
        });
        for (name, labels) in [
            ("web-1", &["env=prod", "group=web.eu"][..]),
            ("web-2", &["env=prod", "group=web.us"]),
            ("dev-1", &["env=dev", "group=web.eu"]),
            ("bare", &[]),
        ] {
            book.accept(name, labels);
        }
        book
    }

    pub(crate) fn rights(&self) -> &countersign_protocol::rights::Rights {
        self.state.rights()
    }

    fn time(&self) -> Time {
        Time::from_micros(self.now).unwrap()
    }

    fn add_person(&mut self, name: &str) {
        let header = self.header(name);
        let claim = Event::from(countersign_protocol::event::KeyClaimed {
            signer: header.signer,
            principal: name.parse().unwrap(),
            nonce: header.nonce,
            made_at: header.made_at,
            ledger: header.ledger,
        });
        let claim = Statement::sign(&claim, &key(name)).unwrap();
        self.change(ChangeBody::KeyAdded {
            principal: name.parse().unwrap(),
            key: public(name),
            claim: countersign_protocol::event::KeyClaim::of(&claim),
            expires_at: None,
        });
    }

    pub(crate) fn accept(&mut self, name: &str, labels: &[&str]) {
        let event = say!(
            self,
            name,
            AgentEnrolled {
                agent,
                key: public(name),
                sealing_key: None
            }
        );
        self.append(name, &event).unwrap();
        self.change(ChangeBody::AgentAccepted {
            agent: name.parse().unwrap(),
            key: public(name),
            replaces: None,
            labels: labels.iter().map(|label| label.parse().unwrap()).collect(),
        });
    }

    /// A token of grace's with this role and permission.
    pub(crate) fn issue(&mut self, token: &str, role: &str, permission: &str) {
        let expires_at = self.time().plus_micros(1_000_000_000_000);
        self.change(ChangeBody::TokenIssued {
            token: token.parse().unwrap(),
            principal: "grace".parse().unwrap(),
            secret: Digest::new([1; 32]),
            roles: vec![role.parse().unwrap()],
            permissions: vec![permission.parse().unwrap()],
            labels: Vec::new(),
            commands: Vec::new(),
            expires_at,
        });
    }

    /// Publishes a policy.
    pub(crate) fn publish(&mut self, text: &str) {
        let policy = Policy::new(text.to_owned()).unwrap();
        let document = Some(self.blob(text.as_bytes()));
        let body = ChangeBody::PolicyPublished {
            policy: policy.digest(),
        };
        self.change_with(body, document).unwrap();
    }

    pub(crate) fn change(&mut self, body: ChangeBody) {
        self.change_with(body, None).unwrap();
    }

    /// Alice asks for a change and bob consents.
    pub(crate) fn change_with(
        &mut self,
        body: ChangeBody,
        document: Option<BlobRef>,
    ) -> Result<(), Refusal> {
        let named = self.blob(&body.to_document().unwrap());
        let ask = say!(
            self,
            "alice",
            ChangeRequested {
                principal,
                body: named,
                document: document,
                reason: None,
            }
        );
        let change = self.append("alice", &ask)?;
        let Some(open) = self.state.rights().change(&change) else {
            return Ok(());
        };
        let digest = open.digest;
        let consent = say!(
            self,
            "bob",
            ChangeApproved {
                principal,
                change: change,
                body: digest,
                reason: None,
            }
        );
        self.append("bob", &consent).map(drop)
    }

    /// Somebody breaks the glass, and it runs.
    pub(crate) fn break_glass(&mut self, who: &str, case: &Case) -> Result<StatementId, Refusal> {
        let mut case = case.clone();
        case.break_glass = true;
        let (mut act, spec, targets) = case.documents(self);
        act.spec = self.blob(&spec.to_document().unwrap());
        let mut lines = targets.lines().to_vec();
        for line in &mut lines {
            line.spec = act.spec.digest;
        }
        let targets = TargetList::new(lines).unwrap();
        let list = self.blob(&targets.to_document().unwrap());
        act.targets = targets.describe(list).unwrap();
        let reason = self.blob(b"fire");
        let event = say!(
            self,
            who,
            CommandRequested {
                principal,
                client_ref: None,
                token: None,
                retry: None,
                act: act,
                reason: reason,
            }
        );
        self.append(who, &event)
    }

    fn blob(&mut self, content: &[u8]) -> BlobRef {
        self.counter += 1;
        let mut salt = [0; 32];
        salt[..8].copy_from_slice(&self.counter.to_be_bytes());
        let blob = Blob::new(salt, content.to_vec()).unwrap();
        let reference = blob.reference();
        self.blobs.insert(reference.digest, blob);
        reference
    }

    fn header(&mut self, who: &str) -> LedgerHeader {
        self.counter += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.counter.to_be_bytes());
        let size = self.tree.size();
        LedgerHeader {
            signer: public(who).key_id(),
            nonce: Nonce::new(nonce),
            made_at: self.time(),
            ledger: self.state.rights().ledger().unwrap(),
            seen: Seen {
                size,
                root: self.tree.root_at(size).unwrap(),
            },
        }
    }

    /// Appends, and then whatever the ledger must say to it.
    fn append(&mut self, who: &str, event: &Event) -> Result<StatementId, Refusal> {
        let mut at = self.append_one(who, event)?;
        let id = at.id;
        let mut last = event.clone();
        while let Some(effect) = self.state.effect_of(&last, at) {
            last = self.header("ledger").effect(effect);
            at = self.append_one("ledger", &last)?;
        }
        Ok(id)
    }

    fn append_one(&mut self, who: &str, event: &Event) -> Result<Position, Refusal> {
        let statement = Statement::sign(event, &key(who)).unwrap();
        let verified = statement.clone().verify().unwrap();
        let at = Position {
            seq: self.tree.size(),
            time: self.time(),
            id: verified.id(),
        };
        let entry = Entry {
            seq: at.seq,
            time: at.time,
            prev: self.last,
            key_id: verified.facts().key_id,
            statement,
        };
        let leaf = entry::leaf(&entry.encode().unwrap());
        let attached = audit::attachment(event, |named| self.blobs.get(&named.digest).cloned())?;
        self.state.admit(&verified, at, leaf, attached)?;
        self.tree.push(leaf);
        self.last = leaf;
        Ok(at)
    }

    /// What a policy says of a request.
    pub(crate) fn judge(&self, policy: &str, case: &Case) -> Judgement {
        self.asked(case, |question| {
            CedarJudge::new().judge(&text(policy), question)
        })
    }

    pub(crate) fn asked<T>(&self, case: &Case, ask: impl FnOnce(&Question<'_>) -> T) -> T {
        let (act, spec, targets) = case.documents(self);
        let requester: Principal = case.who.parse().unwrap();
        let token: Option<TokenId> = case.token.as_ref().map(|token| token.parse().unwrap());
        ask(&Question {
            rights: self.rights(),
            requester: &requester,
            token: token.as_ref(),
            act: &act,
            spec: &spec,
            targets: &targets,
            now: Time::from_micros(case.now).unwrap(),
        })
    }

    /// As [`Book::asked`], of hosts which say each so of the fact `hostname`.
    pub(crate) fn asked_with_names<T>(
        &self,
        case: &Case,
        name: impl Fn(&str) -> String,
        ask: impl FnOnce(&Question<'_>) -> T,
    ) -> T {
        self.asked(case, |question| {
            let line = |line: &TargetLine| {
                let mut facts = Facts::default();
                let value = name(line.agent.as_str()).parse().unwrap();
                assert!(facts.insert("hostname".parse().unwrap(), value));
                TargetLine {
                    facts: Some(facts),
                    ..line.clone()
                }
            };
            let lines = question.targets.lines().iter().map(line);
            let targets = TargetList::new(lines.collect()).unwrap();
            ask(&Question {
                targets: &targets,
                ..*question
            })
        })
    }

    pub(crate) fn judge_change(
        &self,
        policy: &str,
        who: &str,
        body: &ChangeBody,
    ) -> Option<Requirement> {
        let question = ChangeQuestion {
            rights: self.rights(),
            requester: &who.parse().unwrap(),
            body,
            now: self.time(),
        };
        CedarJudge::new().judge_change(&text(policy), &question)
    }
}

pub(crate) fn text(policy: &str) -> Policy {
    Policy::new(policy.to_owned()).unwrap()
}

/// A request in short.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) who: String,
    pub(crate) token: Option<String>,
    pub(crate) mode: Mode,
    pub(crate) argv: Vec<String>,
    pub(crate) hosts: Vec<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) timeout_ms: u64,
    pub(crate) break_glass: bool,
    pub(crate) now: u64,
}

/// `who` asks for these words on web-1.
pub(crate) fn exec(who: &str, argv: &[&str]) -> Case {
    Case {
        who: who.to_owned(),
        token: None,
        mode: Mode::Exec,
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        hosts: vec!["web-1".to_owned()],
        cwd: None,
        user: None,
        timeout_ms: 30_000,
        break_glass: false,
        now: START,
    }
}

/// `who` asks for a script.
pub(crate) fn shell(who: &str, script: &str) -> Case {
    Case {
        mode: Mode::Shell,
        ..exec(who, &[script])
    }
}

impl Case {
    /// On these hosts, `HOST` or `HOST/SERVICE`.
    pub(crate) fn on(mut self, hosts: &[&str]) -> Self {
        self.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        self
    }

    pub(crate) fn at(mut self, now: u64) -> Self {
        self.now = now;
        self
    }

    pub(crate) fn breaking_glass(mut self) -> Self {
        self.break_glass = true;
        self
    }

    fn documents(&self, book: &Book) -> (Act, CommandSpec, TargetList) {
        let blob = Blob::new([0; 32], b"x".to_vec()).unwrap().reference();
        let spec = CommandSpec {
            mode: self.mode,
            argv: self.argv.clone(),
            cwd: self.cwd.clone(),
            user: self.user.as_ref().map(|user| user.parse().unwrap()),
            timeout_ms: self.timeout_ms,
            output_limit: 1024,
            at_output_limit: None,
        };
        let lines = self.hosts.iter().map(|host| {
            let (agent, service) = match host.split_once('/') {
                Some((agent, service)) => (agent, Some(service.parse().unwrap())),
                None => (host.as_str(), None),
            };
            TargetLine {
                key_id: public(agent).key_id(),
                agent: agent.parse().unwrap(),
                service,
                spec: blob.digest,
                turn: None,
                facts: None,
            }
        });
        let targets = TargetList::new(lines.collect()).unwrap();
        let now = Time::from_micros(book.now).unwrap();
        let act = Act {
            mode: self.mode,
            spec: blob,
            env: None,
            stdin: None,
            secrets: None,
            targets: Targets {
                count: self.hosts.len() as u64,
                root: Hash::ZERO,
                list: blob,
            },
            user: spec.user.clone(),
            timeout_ms: self.timeout_ms,
            output_limit: 1024,
            at_output_limit: None,
            not_before: now,
            expires_at: now.plus_micros(3_600_000_000),
            max_runs: 1,
            break_glass: self.break_glass,
            rollout: None,
        };
        (act, spec, targets)
    }
}
