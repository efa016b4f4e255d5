//! One statement of the log in short: who made it, with which key, and what it is about.

use countersign_protocol::event::{Author, DeniedWhat, Event, Kind, ReadWhat};
use countersign_protocol::hash::{CommandId, KeyId, StatementId};
use countersign_protocol::key;
use countersign_protocol::name::{AgentName, Principal, Time};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::subject::Subject;

/// Who made a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The ledger.
    Ledger,
    /// A person.
    Person(Principal),
    /// A host.
    Agent(AgentName),
}

impl Who {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Ledger => "the ledger",
            Self::Person(name) => name.as_str(),
            Self::Agent(name) => name.as_str(),
        }
    }
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A command.
    Command(CommandId),
    /// A change of rights.
    Change(StatementId),
    /// Somebody read something.
    Read {
        /// Who.
        reader: Principal,
        /// With which key, if it was no token.
        key_id: Option<KeyId>,
        /// What.
        what: ReadWhat,
        /// Of which command.
        command: Option<CommandId>,
    },
    /// Somebody was turned away, so many times.
    Denied {
        /// Who, where that is known.
        who: Option<Principal>,
        /// From what.
        what: DeniedWhat,
        /// How often.
        count: u64,
    },
    /// The ledger or a host as a whole.
    Other,
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Where it stands.
    pub seq: u64,
    /// When it was entered.
    pub time: Time,
    /// What it is.
    pub kind: Kind,
    /// Who made it.
    pub who: Who,
    /// Which key signed it.
    pub key_id: KeyId,
    /// What it is about.
    pub about: About,
}

impl Fact {
    /// A statement in short; none for a piece of output, of which there are too many to tell of.
    #[must_use]
    pub fn of(seq: u64, time: Time, id: StatementId, event: &Event) -> Option<Self> {
        if matches!(event, Event::ExecutionOutput(_)) {
            return None;
        }
        let header = event.header();
        Some(Self {
            seq,
            time,
            kind: event.kind(),
            who: match header.author {
                Author::Ledger => Who::Ledger,
                Author::Person(name) => Who::Person(name.clone()),
                Author::Agent(name) => Who::Agent(name.clone()),
            },
            key_id: header.signer,
            about: about(id, event),
        })
    }

    /// The command that it is about.
    #[must_use]
    pub const fn command(&self) -> Option<CommandId> {
        match &self.about {
            About::Command(id) => Some(*id),
            About::Read { command, .. } => *command,
            About::Change(_) | About::Denied { .. } | About::Other => None,
        }
    }

    /// The change of rights that it is about.
    #[must_use]
    pub const fn change(&self) -> Option<StatementId> {
        match &self.about {
            About::Change(id) => Some(*id),
            About::Command(_) | About::Read { .. } | About::Denied { .. } | About::Other => None,
        }
    }
}

fn about(id: StatementId, event: &Event) -> About {
    if let Event::AuditRead(read) = event {
        return About::Read {
            reader: read.reader.clone(),
            key_id: read.key_id,
            what: read.what,
            command: read.command,
        };
    }
    if let Event::AccessDenied(denied) = event {
        return About::Denied {
            who: denied.principal.clone(),
            what: denied.what,
            count: denied.count,
        };
    }
    match Subject::of(event, id) {
        Some(Subject::Command(command)) => About::Command(command),
        Some(Subject::Change(change)) => About::Change(change),
        None => About::Other,
    }
}

/// A change of rights as one line: the document that people consented to, with each key by its
/// fingerprint and without the proof of possession that came with it.
pub(super) fn change_line(body: &ChangeBody) -> String {
    let key = match body {
        ChangeBody::KeyAdded { key, .. } | ChangeBody::AgentAccepted { key, .. } => Some(key),
        ChangeBody::KeyRevoked { .. }
        | ChangeBody::RoleDefined { .. }
        | ChangeBody::RoleGranted { .. }
        | ChangeBody::RoleRevoked { .. }
        | ChangeBody::GroupChanged { .. }
        | ChangeBody::PolicyPublished { .. }
        | ChangeBody::AgentRejected { .. }
        | ChangeBody::AgentRelabelled { .. }
        | ChangeBody::AgentDrained { .. }
        | ChangeBody::AgentUndrained { .. }
        | ChangeBody::AgentRetired { .. }
        | ChangeBody::TokenIssued { .. }
        | ChangeBody::TokenRevoked { .. }
        | ChangeBody::BlobRedacted { .. }
        | ChangeBody::HoldPlaced { .. }
        | ChangeBody::HoldLifted { .. } => None,
    };
    let Ok(mut told) = serde_json::to_value(body) else {
        return String::new();
    };
    if let (Some(key), Some(fields)) = (key, told.as_object_mut()) {
        fields.remove("claim");
        fields.insert("key".to_owned(), key::fingerprint(&key.key_id()).into());
    }
    told.to_string()
}

/// The word for what was read.
pub(super) const fn read_word(what: ReadWhat) -> &'static str {
    match what {
        ReadWhat::Output => "output",
        ReadWhat::Log => "log",
        ReadWhat::Replay => "replay",
        ReadWhat::Export => "export",
    }
}

/// The word for what somebody was turned away from.
pub(super) const fn denied_word(what: DeniedWhat) -> &'static str {
    match what {
        DeniedWhat::SignIn => "sign_in",
        DeniedWhat::Token => "token",
        DeniedWhat::Permission => "permission",
        DeniedWhat::Statement => "statement",
        DeniedWhat::RateLimit => "rate_limit",
    }
}
