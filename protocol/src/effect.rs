//! The ledger's own words: how an effect or a deadline becomes an event.

use crate::event::{
    AgentAccepted, CommandAuthorized, CommandExpired, Event, ExecutionLost, ExecutionSkipped,
    KeyAdded, KeyRevoked, LedgerHeartbeat, LossForm, PolicyPublished, Seen,
};
use crate::fold::Effect;
use crate::hash::{CommandId, KeyId, LedgerId};
use crate::lifecycle::Due;
use crate::name::{Nonce, Time};
use crate::rights::ChangeBody;

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

impl LedgerHeader {
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
            } => {
                ledger_event!(
                    self,
                    CommandAuthorized {
                        command,
                        request_seq,
                        approvals,
                        policy,
                        requirement
                    }
                )
            }
            Effect::Change {
                change,
                body,
                rests_on,
            } => match body {
                ChangeBody::KeyAdded { principal, key } => {
                    ledger_event!(
                        self,
                        KeyAdded {
                            change,
                            rests_on,
                            principal,
                            key
                        }
                    )
                }
                ChangeBody::KeyRevoked {
                    key_id,
                    suspect_from,
                } => {
                    ledger_event!(
                        self,
                        KeyRevoked {
                            change,
                            rests_on,
                            key_id,
                            suspect_from
                        }
                    )
                }
                ChangeBody::AgentAccepted {
                    agent,
                    key,
                    replaces,
                } => {
                    ledger_event!(
                        self,
                        AgentAccepted {
                            change,
                            rests_on,
                            agent,
                            key,
                            replaces
                        }
                    )
                }
                ChangeBody::PolicyPublished { policy } => {
                    ledger_event!(
                        self,
                        PolicyPublished {
                            change,
                            rests_on,
                            policy
                        }
                    )
                }
            },
        }
    }

    /// The event of a deadline that has passed.
    #[must_use]
    pub fn due(self, command: CommandId, due: Due) -> Event {
        match due {
            Due::Expire => ledger_event!(self, CommandExpired { command }),
            Due::Skip(agent) => ledger_event!(self, ExecutionSkipped { command, agent }),
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
