//! A host and the grants that a server would send it.

use std::sync::Arc;

use countersign_agent::admission::{Host, Pins, Unproven, Verdict};
use countersign_agent::own::OwnFacts;
use countersign_agent::rules::{
    Account, Commands, Confine, Directory, Listed, LocalRefusal, NamePattern, Rules, RunAs,
};
use countersign_agent::signers::AllowedSigners;
use countersign_protocol::api::{Base64, BlobBody, Grant, ProvenEntry, StreamBody};
use countersign_protocol::canonical;
use countersign_protocol::command::{Act, Mode};
use countersign_protocol::entry::Entry;
use countersign_protocol::event::{CommandAuthorized, Event, Kind};
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::StatementId;
use countersign_protocol::name::{Principal, SECOND_US, Time};
use countersign_protocol::permission::Whom;
use countersign_protocol::proof;
use countersign_protocol::quorum::{Membership, Requirement};
use countersign_protocol::sshsig;
use countersign_protocol::statement::{Statement, statement_id};
use countersign_protocol::target::TargetList;

use super::book::{Book, START, key, public};

/// `allowed_signers` of these people, each with the key of the same name.
pub(crate) fn signers(names: &[&str]) -> AllowedSigners {
    let line = |name: &&str| format!("{name} {}\n", public(name).to_openssh());
    AllowedSigners::parse(&names.iter().map(line).collect::<String>()).unwrap()
}

/// Accounts of a host whose agent is `agent`.
pub(crate) fn people() -> Vec<Listed> {
    let account = |name: &str, uid| Listed {
        name: name.to_owned(),
        uid,
        gid: uid,
        groups: vec![uid, 27],
    };
    let mut twin = account("twin", 1001);
    twin.groups.push(4);
    vec![
        account("root", 0),
        account("toor", 0),
        account("www-data", 33),
        account("deploy", 1001),
        twin,
        account("4242", 4243),
    ]
}

/// A ledger and a host of it that pins alice, bob and carol, but not dave.
pub(crate) struct World {
    pub(crate) book: Book,
    pub(crate) host: Host,
    /// The host's clock.
    pub(crate) now: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self::without_host();
        world.book.enrol("web-1");
        world
    }

    /// The ledger does not know the host yet.
    pub(crate) fn without_host() -> Self {
        let mut book = Book::ready();
        let host = Host {
            pins: Pins {
                ledger: book.state.rights().ledger().unwrap(),
                statement_key: public("ledger"),
                gateway_key: Some(public("gateway")),
                agent: "web-1".parse().unwrap(),
                key_id: public("web-1").key_id(),
            },
            signers: signers(&["alice", "bob", "carol"]),
            rules: Rules {
                execution: true,
                min_approvals: 2,
                shell_min_approvals: 2,
                max_approval_age_us: 3600 * SECOND_US,
                break_glass: vec![],
                secrets: true,
                gateway_may_cancel: false,
                modes: vec![Mode::Exec],
                actions: Vec::new(),
                services: Vec::new(),
                commands: Commands {
                    allow_all: true,
                    ..Commands::default()
                },
                shell: true,
                path: vec!["/usr/bin".into(), "/bin".into()],
                environment: vec![NamePattern::parse("LC_*").unwrap()],
                environment_dangerous: vec![],
                account: Account {
                    uid: 1000,
                    gid: 1000,
                    name: Some("agent".into()),
                    default_user: None,
                    users: None,
                    run_as: RunAs::Setuid,
                    directory: Directory::These(people()),
                },
                confine: Confine::default(),
                shell_confine: Confine::default(),
                own_files: vec![],
            },
            snapshot: None,
            snapshots: Arc::default(),
            max_checkpoint_age_us: None,
            facts: OwnFacts::Silent,
            journal_since: Time::from_micros(START - 1000 * SECOND_US).unwrap(),
        };
        book.now += SECOND_US;
        let now = book.now;
        Self { book, host, now }
    }

    /// Alice asks for this, bob and carol approve.
    pub(crate) fn approved(&mut self, act: Act) -> StatementId {
        let id = self.book.request("alice", act);
        self.book.approve("bob", id).unwrap();
        self.book.approve("carol", id).unwrap();
        id
    }

    pub(crate) fn approved_true(&mut self) -> StatementId {
        let act = self.act();
        self.approved(act)
    }

    /// `true` on this host.
    pub(crate) fn act(&mut self) -> Act {
        self.book.act(&["web-1"], &Book::spec(&["true"]))
    }

    /// What the server sends this host of that command.
    pub(crate) fn grant(&self, id: StatementId) -> Grant {
        grant(&self.book, id, "web-1")
    }

    pub(crate) fn admit(&self, grant: &Grant) -> Result<Verdict, Unproven> {
        let now = Time::from_micros(self.now).unwrap();
        let vkey = countersign_protocol::checkpoint::VerifierKey::of(
            &"ledger.example.com".parse().unwrap(),
            &public("checkpoint"),
        );
        let checkpoint = countersign_protocol::checkpoint::Checkpoint::open(
            &grant.stream.checkpoint,
            &vkey.unwrap(),
        );
        self.host.admit(grant, &checkpoint.unwrap(), now, |_| false)
    }

    pub(crate) fn runs(&self, id: StatementId) -> bool {
        matches!(self.admit(&self.grant(id)), Ok(Verdict::Run(_)))
    }

    /// Why the host itself refuses it.
    pub(crate) fn refused(&self, id: StatementId) -> LocalRefusal {
        match self.admit(&self.grant(id)) {
            Ok(Verdict::Refuse { refusal, .. }) => refusal,
            other => panic!("not refused by the host: {other:?}"),
        }
    }

    /// Why it is not believed.
    pub(crate) fn unproven(&self, id: StatementId) -> Unproven {
        match self.admit(&self.grant(id)) {
            Err(unproven) => unproven,
            Ok(verdict) => panic!("believed: {verdict:?}"),
        }
    }

    /// The word of a thief of the ledger's statement key: these approvals suffice.
    pub(crate) fn force_authorized(&mut self, id: StatementId, approvals: Vec<u64>, need: u32) {
        let names = ["alice", "bob", "carol", "dave", "eve", "mallory"];
        let of = || {
            names
                .map(|name| format!("user:{name}").parse().unwrap())
                .to_vec()
        };
        self.force_requirement(id, approvals, Requirement::of(need, of()), |whom| {
            let people = names
                .iter()
                .filter(|name| whom.to_string() == format!("user:{name}"));
            people.map(|name| name.parse().unwrap()).collect()
        });
    }

    /// The same, under another policy than the one in force.
    pub(crate) fn force_authorized_by(
        &mut self,
        id: StatementId,
        approvals: Vec<u64>,
        policy: countersign_protocol::policy::PolicyRef,
    ) {
        let of = ["user:bob", "user:carol"].map(|whom| whom.parse().unwrap());
        let requirement = Requirement::of(2, of.to_vec());
        let people = |whom: &Whom| vec![whom.to_string()["user:".len()..].parse().unwrap()];
        self.force_under(id, (approvals, policy), requirement, people);
    }

    /// The same with a requirement of the thief's own, and his own word on who is one of whom.
    pub(crate) fn force_requirement(
        &mut self,
        id: StatementId,
        approvals: Vec<u64>,
        requirement: Requirement,
        people: impl Fn(&Whom) -> Vec<Principal>,
    ) {
        let policy = self.book.state.rights().policy().unwrap().reference;
        self.force_under(id, (approvals, policy), requirement, people);
    }

    fn force_under(
        &mut self,
        id: StatementId,
        (approvals, policy): (Vec<u64>, countersign_protocol::policy::PolicyRef),
        requirement: Requirement,
        people: impl Fn(&Whom) -> Vec<Principal>,
    ) {
        let header = self.book.ledger_header();
        let request_seq = self.seq_of(id);
        let electors = requirement.electors().into_iter();
        let members = electors.map(|whom| Membership {
            of: whom.clone(),
            people: people(whom),
        });
        let authorized = CommandAuthorized {
            signer: header.signer,
            nonce: header.nonce,
            made_at: header.made_at,
            ledger: header.ledger,
            seen: header.seen,
            command: id,
            request_seq,
            approvals,
            policy,
            members: members.collect(),
            requirement,
        };
        // Not by the way that checks what is signed: a thief writes what he likes.
        let (kind, payload) = (
            Kind::CommandAuthorized,
            canonical::to_vec(&authorized).unwrap(),
        );
        let signature = sshsig::sign(&key("ledger"), kind.namespace(), &payload).to_blob();
        self.book.force(Statement {
            kind,
            payload,
            signature,
        });
    }

    pub(crate) fn seq_of(&self, id: StatementId) -> u64 {
        self.book.seq_of(id).unwrap()
    }

    /// A request that only a thief could enter, with `approvals` entered the same way.
    pub(crate) fn force_request(&mut self, who: &str, signed_by: &str, act: Act) -> StatementId {
        let Event::CommandRequested(mut request) = self.book.request_event(who, act) else {
            panic!("no request");
        };
        request.signer = public(signed_by).key_id();
        let event = Event::from(request);
        let id = statement_id(event.kind(), &event.to_payload().unwrap());
        self.book.force_event(signed_by, &event);
        id
    }

    /// An approval by `who`, changed and signed with `signed_by`'s key, entered by a thief.
    pub(crate) fn force_approval(
        &mut self,
        (who, signed_by): (&str, &str),
        id: StatementId,
        (requester, act): (&str, &Act),
        change: impl FnOnce(&mut countersign_protocol::event::CommandApproved),
    ) -> u64 {
        let (_, nonce, made_at, ledger, seen) = self.book.header(who);
        let mut approval = countersign_protocol::event::CommandApproved {
            signer: public(signed_by).key_id(),
            principal: who.parse().unwrap(),
            nonce,
            made_at,
            ledger,
            seen,
            command: id,
            requester: requester.parse().unwrap(),
            act: act.clone(),
            policy: self.book.state.rights().policy().unwrap().reference,
            reason: None,
        };
        change(&mut approval);
        self.book.force_event(signed_by, &Event::from(approval))
    }
}

/// The entries that a host needs, with their proofs, as the server chooses them.
pub(crate) fn grant(book: &Book, id: StatementId, host: &str) -> Grant {
    let stream = stream(book, id);
    let request = Entry::decode(&stream.entries[0].entry.0).unwrap().statement;
    let Event::CommandRequested(request) = Event::parse(request.kind, &request.payload).unwrap()
    else {
        panic!("the stream begins with its request");
    };
    let targets = request.act.targets;
    let list = book.blobs[&targets.list.digest].content();
    let list = TargetList::parse(list, &targets).unwrap();
    let (line_index, line) = list.line_of(&host.parse().unwrap()).unwrap();
    Grant {
        stream,
        line_index,
        line: Base64(canonical::to_vec(line).unwrap()),
        line_proof: list.prove(line_index).unwrap(),
        ahead: None,
        snapshot: None,
        newest: None,
        since: None,
    }
}

/// The newest entry, as the server shows it.
pub(crate) fn newest(book: &Book) -> ProvenEntry {
    let size = book.tree.size();
    ProvenEntry {
        seq: size - 1,
        entry: Base64(book.entries.last().unwrap().clone()),
        inclusion: proof::inclusion_proof(&book.tree, size - 1, size).unwrap(),
    }
}

pub(crate) fn stream(book: &Book, id: StatementId) -> StreamBody {
    let checkpoint = book.checkpoint();
    let mut entries = Vec::new();
    let mut blobs = Vec::new();
    for (seq, bytes) in book.entries.iter().enumerate() {
        let statement = Entry::decode(bytes).unwrap().statement;
        let proven = || ProvenEntry {
            seq: seq as u64,
            entry: Base64(bytes.clone()),
            inclusion: proof::inclusion_proof(&book.tree, seq as u64, checkpoint.size()).unwrap(),
        };
        let Ok(event) = Event::parse(statement.kind, &statement.payload) else {
            // A thief's, of whatever command the test is about.
            entries.push(proven());
            continue;
        };
        let own = statement_id(statement.kind, &statement.payload);
        let of_turns = [Kind::ExecutionReleased, Kind::RolloutContinued];
        let host_needs =
            event.kind().as_str().starts_with("command.") || of_turns.contains(&event.kind());
        if Stream::of(&event, own) != Some(Stream::Command(id)) || !host_needs {
            continue;
        }
        if event.kind() == Kind::CommandRequested {
            let named = event.blobs().into_iter();
            blobs.extend(named.filter_map(|named| book.blobs.get(&named.digest)));
        }
        entries.push(proven());
    }
    StreamBody {
        checkpoint: checkpoint.note().to_owned(),
        entries,
        blobs: blobs.into_iter().map(BlobBody::from).collect(),
        redacted: vec![],
    }
}

/// Signs with the key of that name.
pub(crate) fn sign(event: &Event, who: &str) -> Statement {
    Statement::sign(event, &key(who)).unwrap()
}
