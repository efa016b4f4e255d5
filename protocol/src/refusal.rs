//! Why a statement may not follow: one list, the same words at the server, the agent and the audit.

use alloc::string::String;

use crate::lifecycle::CommandStatus;
use crate::name::{AgentName, HoldName, RuleName};
use crate::permission::Permission;

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

/// Refuses, unless something holds.
pub(crate) fn require(holds: bool, otherwise: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(otherwise) }
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
    /// The key's time is over.
    KeyExpired, Forbidden, "expired_key", "this key's time is over; ask an administrator to add a new one";
    /// The key did not claim to be this person's.
    KeyClaim, Invalid, "key_claim", "the key has not signed that it is this person's, for this ledger";
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
    /// The host takes no new work.
    Drained, Conflict, "drained", "this host is drained: it takes no new work until it is undrained";
    /// Built-in roles are what they are, and changing rights is an administrator's alone.
    BuiltInRole, Conflict, "built_in_role", "a built-in role cannot be defined anew, and rights:manage belongs to admin alone";
    /// No such role.
    UnknownRole, Missing, "unknown_role", "no role of this name is defined";
    /// No such group.
    UnknownGroup, Missing, "unknown_group", "no group of this name has members";
    /// Nobody of this name has a key.
    UnknownPerson, Missing, "unknown_person", "nobody of this name has a key in this ledger";
    /// It is so already.
    NothingChanges, Conflict, "nothing_changes", "this would change nothing: it is so already";
    /// Rights could never be changed again.
    LastAdministrators, Conflict, "last_administrators", "fewer administrators would be left than a change takes; make somebody else one first";
    /// A no on what would be taken from oneself.
    OwnLoss, Forbidden, "own_loss", "this change takes a key, a role, a group or a token from you; whether it happens is for others to say";
    /// A group without members that has roles.
    GroupHoldsRoles, Conflict, "group_holds_roles", "nobody would be left in this group and it holds roles, which a later group of its name would have; take the roles from it first";
    /// No gateway key in force.
    NoGateway, Conflict, "no_gateway", "no gateway key of this ledger is in force, so nobody could sign for an API token";
    /// No such token.
    UnknownToken, Missing, "unknown_token", "no API token of this name was issued";
    /// A token has its name for ever.
    TokenTaken, Conflict, "token_taken", "an API token of this name was issued before";
    /// A token never allows anything.
    TokenRight, Conflict, "token_right", "an API token asks and reads; it never approves, reviews or changes rights";
    /// Revoked or expired.
    TokenEnded, Forbidden, "token_ended", "this API token was revoked, or its time is over";
    /// Outside of what the token may ask for.
    TokenScope(&'static str), Forbidden, "token_scope", "this API token may not ask for this {0}";
    /// Longer than a snapshot may hold.
    SnapshotSpan, Invalid, "snapshot_span", "a snapshot holds for 24 hours at most; sign one that ends sooner";
    /// Nothing to review.
    UnknownReview, Missing, "unknown_review", "no review of this command is open";
    /// Four eyes: nobody reviews the own run.
    OwnReview, Forbidden, "own_review", "you ran this yourself; someone else must review it";
    /// No such enrolment.
    UnknownAgent, Missing, "unknown_agent", "no agent of this name and key is enrolled here";
    /// Too much waits already.
    TooManyOpen, Conflict, "too_many_open", "too many of these are waiting already; try again when some are settled";
    /// One person asks for more than others can look at.
    TooManyWaiting, Conflict, "too_many_waiting", "too much that you asked for waits already: 1,000 requests, 200,000 hosts or 64 MiB of what they would run; withdraw what nobody needs (`countersign list`, `countersign withdraw ID`), or have some approved";
    /// It would stay open for longer than a decision holds.
    Lifetime, Invalid, "lifetime", "a request ends 7 days after it was asked for at the latest; ask for one that ends sooner";
    /// Statements of this kind are never entries.
    NotAnEvent, Invalid, "not_an_event", "statements of this kind are not events of the log";
    /// The document of a change did not come with it.
    BodyMissing, Invalid, "body_missing", "the document that the change names is missing or not readable";
    /// No entry has room for what would follow.
    TooLarge, Conflict, "too_large", "what the ledger would have to write after this does not fit into one entry (16 KiB), so nothing was written; name fewer people, groups or rules at once, or shorter ones";
    /// No such open change.
    UnknownChange, Missing, "unknown_change", "no such change is waiting for consent: it took effect, somebody rejected it, or it came to its end, after 7 days or with the key that asked for it; ask for it anew";
    /// No such command.
    UnknownCommand, Missing, "unknown_command", "no such command";
    /// Rights do not allow it.
    NotPermitted(Permission), Forbidden, "not_permitted", "you do not have the right to do this: it takes the permission {0}, or a rule that names you";
    /// It is the requester's alone.
    NotYours, Forbidden, "not_permitted", "only whoever asked for it may take it back";
    /// No rule of the policy permits the request.
    NoRule, Forbidden, "not_permitted", "no rule of the policy permits you to ask for this";
    /// A rule of the policy forbids the request.
    ForbiddenBy(RuleName), Forbidden, "forbidden_by_rule", "the rule {0} of the policy forbids this";
    /// The request exceeds what its rules permit.
    OverLimit(String), Forbidden, "over_limit", "{0}";
    /// The policy cannot be evaluated for this request, so nothing is permitted.
    PolicyBroken(String), Forbidden, "policy_broken", "the policy cannot judge this, so it is not permitted: {0}";
    /// The text is no policy.
    Policy(String), Invalid, "policy", "the policy cannot be published: {0}";
    /// The rule wants each approver's reason.
    ReasonMissing, Forbidden, "reason_missing", "the rule of this request wants to know why; give a reason";
    /// The rule ends a request by one no, or by several.
    OtherRejection, Conflict, "other_rejection", "the rule of this request counts noes in another way than this one was signed; look again and sign anew";
    /// Made under a policy that is not in force.
    OtherPolicy, Conflict, "other_policy", "the policy changed since; look again and sign anew";
    /// A field does not equal what it must repeat.
    Binding(&'static str), Conflict, "binding", "the field `{0}` differs from what it must repeat";
    /// The same person approved before.
    DuplicateApproval, Conflict, "duplicate_approval", "you have approved this already; a person counts once";
    /// Four eyes: the requester does not judge the own request.
    OwnRequest, Forbidden, "own_request", "you asked for this yourself; someone else must judge it";
    /// Whoever asked could not ask any more.
    RequesterEnded, Conflict, "requester_ended",
        "the key or API token that asked for this was revoked, is over, or may not ask for it any more; it cannot be authorized, so have it asked for again";
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
    /// A host of a rollout before its turn.
    NoTurn, Conflict, "no_turn", "the command goes over its hosts in turns, and this host has not had its turn";
    /// The host before it is not over, or the gap is not.
    TurnNotFree, Conflict, "turn_not_free", "this turn cannot begin: a host that it waits for is not over, the gap after one is not, or the rollout has stopped";
    /// A gap for a label that no target has.
    NoHostWithLabel, Conflict, "no_host_with_label", "the gap is for a label that none of these hosts has; labels are shown by `countersign agents`";
    /// Nothing to pause.
    NoRollout, Conflict, "no_rollout", "all hosts of this command start at once, so there is nothing to pause or to continue; `cancel` stops it";
    /// Paused already.
    Paused, Conflict, "paused", "the rollout is paused";
    /// Not paused.
    NotPaused, Conflict, "not_paused", "the rollout is not paused, so there is nothing to resume";
    /// No canary, or continued before.
    NoCanary, Conflict, "no_canary", "no canary of this command waits for a person's word";
    /// The canary is not over.
    CanaryOpen, Conflict, "canary_open", "not all hosts of the canary are over; look at how they came out, then continue";
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
    /// The command's words do not match what is signed.
    Spec, Invalid, "spec", "the command's words are missing, or not what was signed";
    /// The targets do not match what is signed.
    Targets, Invalid, "targets", "the list of targets is missing, or not the one that was signed";
    /// Facts of hosts stand where none may, or the lines have others than the words use.
    Facts(String), Invalid, "facts", "{0}";
    /// Another value than the host signed last, or none.
    FactsDiffer(String), Conflict, "facts_differ", "{0}";
    /// Several facts in a row.
    FactsTooSoon, Conflict, "facts_too_soon", "this host said its facts less than a minute ago; say them again later";
    /// What would be run again goes on.
    RetryTooEarly, Conflict, "retry_too_early", "the command that this would run again is not over; wait for its end or cancel it";
    /// Another act than the earlier one.
    RetryDiffers(&'static str), Invalid, "retry_differs", "a retry runs exactly what was recorded, and its `{0}` is another one; ask for it as a new request";
    /// Sealed for another request.
    RetrySecrets, Conflict, "retry_secrets", "a command that hands over secrets is not run again: they are sealed to one request; ask for it anew";
    /// No host of the earlier one, or another place in it.
    RetryElsewhere(AgentName), Invalid, "retry_elsewhere", "the earlier command was not for {0}, or for another place in it; a retry is for no other hosts";
    /// It went well there.
    RetrySucceeded(AgentName), Conflict, "retry_succeeded", "it went well on {0}, and is not run there again";
    /// It may have run there.
    RetryLost(AgentName), Conflict, "retry_lost", "nobody can say how it ended on {0}: it may have run there; the request has to say that it is for such hosts too";
    /// A legal hold covers it.
    Held(HoldName), Conflict, "held", "the legal hold {0} covers a command that names this: nothing of it is erased until the hold is lifted";
    /// No such hold.
    UnknownHold, Missing, "unknown_hold", "no hold of this name is in force";
    /// A hold of this name is in force.
    HoldTaken, Conflict, "hold_taken", "a hold of this name is in force; lift it first, or take another name";
    /// Erased by an entry.
    Redacted, Conflict, "redacted", "an entry of the log has redacted this text: it cannot be named anew, brought back or erased again";
    /// Only what is over is erased.
    NotSettled, Conflict, "not_settled", "a command that names this is not over, and what it needs is not erased; wait for its end or cancel it";
    /// Not of what a redaction may be about.
    NotErasable(&'static str), Conflict, "not_erasable", "this cannot be erased: {0}";
    /// The caller's own id stands for something else.
    ClientRef, Conflict, "client_ref", "this client_ref was used for another request";
}
