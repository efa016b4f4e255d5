//! Why a statement may not follow: one list, the same words at the server, the agent and the audit.

use crate::lifecycle::CommandStatus;

/// How a refusal should be met by whoever gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The statement can never be right.
    Invalid,
    /// This key, person or agent may not say it.
    Forbidden,
    /// It names something that is not there.
    Missing,
    /// It does not fit what has happened.
    Conflict,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident $(($value:ty))? $({ $field:ident: $inner:ty })?,
       $class:ident, $code:literal, $text:literal;)*) => {
        /// Why a statement may not follow. The text says what happened and what it means.
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        pub enum Refusal {
            $($(#[$doc])* #[error($text)] $name $(($value))? $({
                /// What would have been right.
                $field: $inner
            })?,)*
        }

        impl Refusal {
            /// A stable word for programs.
            #[must_use]
            pub const fn code(&self) -> &'static str {
                match self { $(Self::$name { .. } => $code,)* }
            }

            /// How to meet it.
            #[must_use]
            pub const fn class(&self) -> Class {
                match self { $(Self::$name { .. } => Class::$class,)* }
            }
        }
    };
}

refusals! {
    /// The log is empty and this is no genesis.
    NoGenesis, Conflict, "no_genesis", "the ledger has no genesis yet; nothing else can come first";
    /// There is a genesis already.
    SecondGenesis, Conflict, "second_genesis", "the ledger has its genesis; a second one is refused";
    /// Meant for another ledger.
    WrongLedger, Conflict, "wrong_ledger",
        "the statement is for another ledger; check the pinned ledger id";
    /// The log does not know this key.
    UnknownKey, Forbidden, "unknown_key", "the ledger does not know this key; ask an administrator to add it";
    /// The key was revoked.
    RevokedKey, Forbidden, "revoked_key", "this key was revoked or retired";
    /// The key's role signs other kinds.
    KeyRole, Forbidden, "key_role", "a key of this role does not sign statements of this kind";
    /// The key is somebody else's.
    KeyHolder, Forbidden, "key_holder", "the key does not belong to the one the statement names";
    /// The key is known already.
    KeyTaken, Conflict, "key_taken", "this key is already known to the ledger; a key has one holder for ever";
    /// The name has another key than the change would replace.
    AgentTaken, Conflict, "agent_taken",
        "the agent of this name has another key now than this acceptance says; look again at whose key it would replace";
    /// An agent's newest key does not retire.
    CurrentKey, Conflict, "current_key",
        "this is the agent's current key; it retires once a newer one was accepted";
    /// The key has a run that is not over.
    RunsOpen, Conflict, "runs_open", "a run that this key started is not over; the key retires after it";
    /// No such enrolment.
    UnknownAgent, Missing, "unknown_agent", "no agent of this name and key is enrolled here";
    /// Too much waits already.
    TooManyOpen, Conflict, "too_many_open", "too many of these are waiting already; try again when some are settled";
    /// Statements of this kind are never entries.
    NotAnEvent, Invalid, "not_an_event", "statements of this kind are not events of the log";
    /// The document of a change did not come with it.
    BodyMissing, Invalid, "body_missing", "the document that the change names is missing or not readable";
    /// No such open change.
    UnknownChange, Missing, "unknown_change", "no such change is waiting for consent";
    /// No such command.
    UnknownCommand, Missing, "unknown_command", "no such command";
    /// Rights do not allow it.
    NotPermitted, Forbidden, "not_permitted", "you do not have the right to do this";
    /// No policy was published.
    NoPolicy, Forbidden, "no_policy", "no policy is in force; without one nothing is allowed";
    /// Made under a policy that is not in force.
    OtherPolicy, Conflict, "other_policy", "the policy changed since; look again and sign anew";
    /// A field does not equal what it must repeat.
    Binding(&'static str), Conflict, "binding", "the field `{0}` differs from what it must repeat";
    /// The same person approved before.
    DuplicateApproval, Conflict, "duplicate_approval", "you have approved this already; a person counts once";
    /// Four eyes: the requester does not judge the own request.
    OwnRequest, Forbidden, "own_request", "you asked for this yourself; someone else must judge it";
    /// Not enough distinct people.
    Quorum, Forbidden, "quorum", "the approvals do not suffice";
    /// Not listed in the state machine.
    Transition, Conflict, "transition", "this cannot follow what has happened";
    /// The command is past that point.
    Over(CommandStatus), Conflict, "over", "the command is already {0}";
    /// Before its time.
    NotYet, Conflict, "not_yet", "its time has not come yet";
    /// After its time.
    Late, Conflict, "late", "its time is over";
    /// The host is no target of the command, or its key changed.
    NotATarget, Forbidden, "not_a_target", "this agent, with this key, is not a target of the command";
    /// Started before: at most once.
    AlreadyStarted, Conflict, "already_started", "this host has started or ended this command already";
    /// Cancelled before.
    AlreadyCancelled, Conflict, "already_cancelled", "a cancel was already requested";
    /// The run is not known.
    NeverStarted, Missing, "never_started", "no such run was started by this agent";
    /// Output is not the next chunk.
    Chain { expected: u64 }, Conflict, "chunk_chain", "the output chain does not continue; chunk {expected} is next";
    /// Not the agent's next statement.
    AgentChain { expected: u64 }, Conflict, "agent_chain", "the agent's chain does not continue; number {expected} is next";
    /// A checkpoint larger than the log.
    SeenAhead, Conflict, "seen_ahead", "the statement has seen a larger log than this; is this server behind?";
    /// A checkpoint that this log never had.
    SeenFork, Conflict, "seen_fork", "the statement has seen another history than this log's";
    /// The signer's clock.
    MadeAt, Invalid, "made_at", "the statement was made more than 24 h ago or more than 2 min ahead; check the clock and sign anew";
    /// The targets do not match what is signed.
    Targets, Invalid, "targets", "the list of targets is missing, or not the one that was signed";
    /// The caller's own id stands for something else.
    ClientRef, Conflict, "client_ref", "this client_ref was used for another request";
}
