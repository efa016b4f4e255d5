//! The ledger's own words: how an effect or a deadline becomes an event.

use crate::event::{
    AccessDenied, AuditRead, CommandAuthorized, CommandExpired, CommandVotedDown, DeniedWhat,
    Event, ExecutionLost, ExecutionReleased, ExecutionSkipped, LedgerHeartbeat, LossForm, ReadWhat,
    ReviewOpened, Seen,
};
use crate::fold::Effect;
use crate::hash::{CommandId, KeyId, LedgerId};
use crate::lifecycle::Due;
use crate::name::{Nonce, Principal, Time, TokenId};
use crate::permission::Permission;

/// The fields that every statement of the ledger carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerHeader {
    /// The statement key.
    pub signer: KeyId,
    /// Random, drawn for this statement alone.
    pub nonce: Nonce,
    /// The ledger's clock.
    pub made_at: Time,
    /// The ledger.
    pub ledger: LedgerId,
    /// The checkpoint before the batch.
    pub seen: Seen,
}

/// Builds a ledger payload from the header and its own fields.
macro_rules! ledger_event {
    ($header:expr, $name:ident { $($field:ident $(: $value:expr)?),* $(,)? }) => {{
        let LedgerHeader { signer, nonce, made_at, ledger, seen } = $header;
        Event::from($name { signer, nonce, made_at, ledger, seen, $($field $(: $value)?),* })
    }};
}

/// What the server has seen at its door and the ledger writes down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// Somebody reads.
    Read {
        /// Who.
        reader: Principal,
        /// With the session of which key.
        key_id: Option<KeyId>,
        /// With which API token.
        token: Option<TokenId>,
        /// What.
        what: ReadWhat,
        /// Of which command.
        command: Option<CommandId>,
    },
    /// Calls were turned away.
    Denied {
        /// Why.
        what: DeniedWhat,
        /// Who said to be calling.
        principal: Option<Principal>,
        /// The permission that was missing.
        permission: Option<Permission>,
        /// How many.
        count: u64,
        /// The first.
        from: Time,
        /// The last.
        to: Time,
    },
}

impl LedgerHeader {
    /// `audit.read` or `access.denied`.
    #[must_use]
    pub fn note(self, note: Note) -> Event {
        match note {
            Note::Read {
                reader,
                key_id,
                token,
                what,
                command,
            } => ledger_event!(
                self,
                AuditRead {
                    reader,
                    key_id,
                    token,
                    what,
                    command
                }
            ),
            Note::Denied {
                what,
                principal,
                permission,
                count,
                from,
                to,
            } => ledger_event!(
                self,
                AccessDenied {
                    what,
                    principal,
                    permission,
                    count,
                    from,
                    to
                }
            ),
        }
    }

    /// `ledger.heartbeat`.
    #[must_use]
    pub fn heartbeat(self) -> Event {
        ledger_event!(self, LedgerHeartbeat {})
    }

    /// The event of an effect.
    #[must_use]
    pub fn effect(self, effect: Effect) -> Event {
        match effect {
            Effect::Authorize {
                command,
                request_seq,
                approvals,
                policy,
                requirement,
                members,
            } => ledger_event!(
                self,
                CommandAuthorized {
                    command,
                    request_seq,
                    approvals,
                    policy,
                    requirement,
                    members
                }
            ),
            Effect::Change {
                change,
                body,
                rests_on,
            } => body.into_event(self, change, rests_on),
            Effect::VoteDown {
                command,
                rejections,
            } => ledger_event!(
                self,
                CommandVotedDown {
                    command,
                    rejections
                }
            ),
            Effect::OpenReview {
                command,
                requester,
                due_at,
            } => ledger_event!(
                self,
                ReviewOpened {
                    command,
                    requester,
                    due_at
                }
            ),
        }
    }

    /// The event of a deadline that has passed, or of a turn that begins.
    #[must_use]
    pub fn due(self, command: CommandId, due: Due) -> Event {
        match due {
            Due::Expire => ledger_event!(self, CommandExpired { command }),
            Due::Skip(agent, why) => ledger_event!(
                self,
                ExecutionSkipped {
                    command,
                    agent,
                    why
                }
            ),
            Due::Release(turn) => ledger_event!(
                self,
                ExecutionReleased {
                    command,
                    agent: turn.agent,
                    turn: turn.number,
                    waited_for: turn.waited_for,
                    labels: turn.labels,
                    start_before: turn.start_before
                }
            ),
            Due::PresumeLost(agent, started) => ledger_event!(
                self,
                ExecutionLost {
                    command,
                    agent,
                    started,
                    form: LossForm::Presumed,
                    agent_seq: None,
                    agent_prev: None,
                }
            ),
        }
    }
}
