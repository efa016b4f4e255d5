//! A small ledger in memory with fixed keys: statements in, entries out, nothing hidden. What the
//! protocol's tests and the agent's both need of one; each adds its own people and commands to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_protocol::audit;
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::effect::LedgerHeader;
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::{
    Administrator, Event, KeyClaim, KeyClaimed, LedgerGenesis, Seen,
};
use countersign_protocol::fold::{Refusal, State};
use countersign_protocol::hash::{Digest, Hash, KeyId, LedgerId, StatementId};
use countersign_protocol::judgement::Judge;
use countersign_protocol::key::PublicKey;
use countersign_protocol::lifecycle::{Command, Position};
use countersign_protocol::merkle::Tree;
use countersign_protocol::name::{Nonce, Time};
use countersign_protocol::policy::Policy;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::statement::Statement;
use ed25519_dalek::SigningKey;

#[path = "named.rs"]
mod named;

pub(crate) use named::Named;

pub(crate) const START: u64 = 1_800_000_000_000_000;

pub(crate) fn key(name: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    SigningKey::from_bytes(&seed)
}

pub(crate) fn public(name: &str) -> PublicKey {
    PublicKey::of(&key(name))
}

/// Everything a person's or agent's payload needs beside its own fields.
#[macro_export]
macro_rules! say {
    (person $book:expr, $who:expr, $kind:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let (signer, nonce, made_at, ledger, seen) = $book.header($who);
        countersign_protocol::event::Event::from(countersign_protocol::event::$kind {
            signer, nonce, made_at, ledger, seen,
            principal: $who.parse().unwrap(),
            $($field: $value,)*
        })
    }};
    (agent $book:expr, $who:expr, $kind:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let (signer, nonce, made_at, ledger, seen) = $book.header($who);
        countersign_protocol::event::Event::from(countersign_protocol::event::$kind {
            signer, nonce, made_at, ledger, seen,
            agent: $who.parse().unwrap(),
            $($field: $value,)*
        })
    }};
}

/// A ledger in memory. `now` is its clock, to be moved by hand.
#[derive(Clone)]
pub(crate) struct Book {
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) blobs: BTreeMap<Digest, Blob>,
    pub(crate) state: State,
    pub(crate) tree: Tree,
    pub(crate) now: u64,
    nonce: u8,
    counter: u64,
    /// The leaf that the next entry follows.
    pub(crate) last: Hash,
}

impl Book {
    /// Genesis alone: alice, bob and carol are administrators, two of them change rights.
    pub(crate) fn genesis() -> Self {
        Self::found(|_| {})
    }

    /// As [`Book::genesis`], with another word in it.
    pub(crate) fn found(change: impl FnOnce(&mut LedgerGenesis)) -> Self {
        Self::judged_by(Arc::new(Named), change)
    }

    /// As [`Book::found`], with another reader of policies.
    pub(crate) fn judged_by(
        judge: Arc<dyn Judge>,
        change: impl FnOnce(&mut LedgerGenesis),
    ) -> Self {
        let mut book = Self {
            entries: Vec::new(),
            blobs: BTreeMap::new(),
            state: State::new(judge),
            tree: Tree::default(),
            now: START,
            nonce: 0,
            counter: 0,
            last: Hash::ZERO,
        };
        let mut genesis = LedgerGenesis {
            signer: public("ledger").key_id(),
            nonce: Nonce::new([9; 16]),
            made_at: Time::from_micros(START).unwrap(),
            origin: "ledger.example.com".parse().unwrap(),
            checkpoint_key: public("checkpoint"),
            statement_key: public("ledger"),
            administrators: ["alice", "bob", "carol"]
                .map(|name| Administrator {
                    principal: name.parse().unwrap(),
                    key: public(name),
                })
                .to_vec(),
            threshold: 2,
            gateway_key: Some(public("gateway")),
            recovery_key: None,
        };
        change(&mut genesis);
        let event = Event::from(genesis);
        book.sign_and_append("ledger", &event).unwrap();
        book
    }

    /// An agent enrols and is accepted.
    pub(crate) fn enrol(&mut self, name: &str) {
        let key = public(name);
        let event = say!(agent self, name, AgentEnrolled { key: key.clone(), sealing_key: None });
        self.sign_and_append(name, &event).unwrap();
        self.change(ChangeBody::AgentAccepted {
            agent: name.parse().unwrap(),
            key,
            replaces: None,
            labels: Vec::new(),
        });
    }

    /// So many of `approve` for what somebody of `request` asks, by a policy that is published.
    pub(crate) fn publish(&mut self, approvals: u32, request: &[&str], approve: &[&str]) {
        let (request, approve) = (request.join(","), approve.join(","));
        self.publish_text(&format!("{approvals} {request} {approve}"));
    }

    /// Publishes a policy in the words of [`Named`].
    pub(crate) fn publish_text(&mut self, text: &str) {
        let change = self.ask_policy("alice", text).unwrap();
        self.consent("bob", change).unwrap();
    }

    /// Asks for a policy to be published.
    pub(crate) fn ask_policy(&mut self, who: &str, text: &str) -> Result<StatementId, Refusal> {
        let policy = Policy::new(text.to_owned()).unwrap();
        let digest = policy.digest();
        let document = self.blob(text.as_bytes());
        self.ask_with(
            who,
            ChangeBody::PolicyPublished { policy: digest },
            Some(document),
        )
    }

    /// The change that makes a key a person's, with the key's own word for it.
    pub(crate) fn key_of(&self, principal: &str, name: &str) -> ChangeBody {
        ChangeBody::KeyAdded {
            principal: principal.parse().unwrap(),
            key: public(name),
            claim: KeyClaim::of(&self.claim(principal, name)),
            expires_at: None,
        }
    }

    /// The word of the key called `name` that it is `principal`'s.
    pub(crate) fn claim(&self, principal: &str, name: &str) -> Statement {
        let event = Event::from(KeyClaimed {
            signer: public(name).key_id(),
            principal: principal.parse().unwrap(),
            nonce: Nonce::new([7; 16]),
            made_at: Time::from_micros(self.now).unwrap(),
            ledger: self.state.rights().ledger().unwrap(),
        });
        Statement::sign(&event, &key(name)).unwrap()
    }

    /// Alice asks for a change, bob consents.
    pub(crate) fn change(&mut self, body: ChangeBody) {
        let change = self.ask_change("alice", body).unwrap();
        self.consent("bob", change).unwrap();
    }

    pub(crate) fn ask_change(
        &mut self,
        who: &str,
        body: ChangeBody,
    ) -> Result<StatementId, Refusal> {
        self.ask_with(who, body, None)
    }

    /// Asks for a change, with the text that it names by its digest.
    pub(crate) fn ask_with(
        &mut self,
        who: &str,
        body: ChangeBody,
        document: Option<BlobRef>,
    ) -> Result<StatementId, Refusal> {
        let why = body.needs_reason();
        let body = self.blob(&body.to_document().unwrap());
        let reason = why.then(|| self.blob(b"the counsel wants it"));
        let event = say!(person self, who, ChangeRequested {
            body: body, document: document, reason: reason,
        });
        self.sign_and_append(who, &event)
    }

    pub(crate) fn consent(
        &mut self,
        who: &str,
        change: StatementId,
    ) -> Result<StatementId, Refusal> {
        let body = self.state.rights().change(&change).map(|open| open.digest);
        let body = body.unwrap_or(Digest::new([0; 32]));
        let event =
            say!(person self, who, ChangeApproved { change: change, body: body, reason: None });
        self.sign_and_append(who, &event)
    }

    pub(crate) fn blob(&mut self, content: &[u8]) -> BlobRef {
        self.counter += 1;
        let mut salt = [0; 32];
        salt[..8].copy_from_slice(&self.counter.to_be_bytes());
        let blob = Blob::new(salt, content.to_vec()).unwrap();
        let reference = blob.reference();
        self.blobs.insert(reference.digest, blob);
        reference
    }

    pub(crate) fn header(&mut self, who: &str) -> (KeyId, Nonce, Time, LedgerId, Seen) {
        self.nonce = self.nonce.wrapping_add(1);
        self.counter += 1;
        let mut nonce = [self.nonce; 16];
        nonce[..8].copy_from_slice(&self.counter.to_be_bytes());
        let size = self.tree.size();
        let seen = Seen {
            size,
            root: self.tree.root_at(size).unwrap(),
        };
        let ledger = self.state.rights().ledger().unwrap();
        let now = Time::from_micros(self.now).unwrap();
        (public(who).key_id(), Nonce::new(nonce), now, ledger, seen)
    }

    pub(crate) fn approval_event(&mut self, who: &str, command: StatementId) -> Event {
        let (requester, act) = {
            let command = self.command(command);
            (command.requester().clone(), command.act().clone())
        };
        let policy = self.state.rights().policy().unwrap().reference;
        say!(person self, who, CommandApproved {
            command: command, requester: requester, act: act, policy: policy, reason: None,
        })
    }

    pub(crate) fn approve(
        &mut self,
        who: &str,
        command: StatementId,
    ) -> Result<StatementId, Refusal> {
        let event = self.approval_event(who, command);
        self.sign_and_append(who, &event)
    }

    pub(crate) fn command(&self, id: StatementId) -> &Command {
        self.state.command(&id).unwrap()
    }

    /// Signs with `who`'s key and appends; then says what the ledger must say to it.
    pub(crate) fn sign_and_append(
        &mut self,
        who: &str,
        event: &Event,
    ) -> Result<StatementId, Refusal> {
        let statement = Statement::sign(event, &key(who)).unwrap();
        self.append(statement)
    }

    pub(crate) fn append(&mut self, statement: Statement) -> Result<StatementId, Refusal> {
        let (said, mut event) = self.append_one(statement)?;
        let mut at = said;
        // An effect may have one of its own: a run without approvals opens its review.
        while let Some(effect) = self.state.effect_of(&event, at) {
            let word = self.ledger_header().effect(effect);
            (at, event) = self.append_one(Statement::sign(&word, &key("ledger")).unwrap())?;
        }
        Ok(said.id)
    }

    pub(crate) fn ledger_header(&mut self) -> LedgerHeader {
        let (_, nonce, made_at, ledger, seen) = self.header("ledger");
        LedgerHeader {
            signer: public("ledger").key_id(),
            nonce,
            made_at,
            ledger,
            seen,
        }
    }

    /// Appends without what the ledger would have to say to it.
    pub(crate) fn append_one(
        &mut self,
        statement: Statement,
    ) -> Result<(Position, Event), Refusal> {
        let seq = self.entries.len() as u64;
        let time = Time::from_micros(self.now).unwrap();
        let verified = statement.clone().verify().unwrap();
        let key_id = verified.facts().key_id;
        let bytes = Entry {
            seq,
            time,
            prev: self.last,
            key_id,
            statement,
        }
        .encode()
        .unwrap();
        let leaf = entry::leaf(&bytes);
        let id = verified.id();
        let event = verified.event().clone();
        let attached = audit::attachment(&event, |named| self.blobs.get(&named.digest).cloned())?;
        let at = Position { seq, time, id };
        self.state.admit(&verified, at, leaf, attached)?;
        self.entries.push(bytes);
        self.tree.push(leaf);
        self.last = leaf;
        Ok((at, event))
    }
}
