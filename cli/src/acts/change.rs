//! Changes of rights: keys, agents, policies. Read from the proven rights stream, signed like all.

use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::event::{ChangeRequested, Event};
use countersign_protocol::hash::{KeyId, StatementId};
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::refusal::Refusal;
use countersign_protocol::rights::ChangeBody;

use super::connect::Client;
use super::read::RightsView;
use super::submit::{Accepted, person_event};
use crate::entropy;
use crate::failure::Failure;
use crate::streams::{Held, Link};

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeStage {
    /// Waits for consent.
    Requested,
    /// It holds.
    InEffect,
    /// Someone said no.
    Rejected,
}

impl ChangeStage {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::InEffect => "in_effect",
            Self::Rejected => "rejected",
        }
    }
}

/// A key of an agent that another one replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// Which.
    pub key_id: KeyId,
    /// The entry that made it count.
    pub since: u64,
}

/// A change of rights, from verified entries.
#[derive(Debug, Clone)]
pub struct ChangeView {
    /// Its id.
    pub id: StatementId,
    /// How far it has come.
    pub stage: ChangeStage,
    /// What would change.
    pub body: ChangeBody,
    /// The key that an acceptance replaces.
    pub replaces: Option<Replaced>,
    /// Digest of the body, as consents name it.
    pub named: BlobRef,
    /// Who asked.
    pub requester: Principal,
    /// Where the request stands.
    pub seq: u64,
    /// When.
    pub time: Time,
    /// Why, if they said so.
    pub reason: Option<Held<String>>,
    /// Who consented, the requester first.
    pub consents: Vec<Principal>,
    /// How many it takes.
    pub needed: u32,
}

/// The kind of a change, as its event will be called.
impl ChangeView {
    /// `key.added`, `policy.published`, …
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.body {
            ChangeBody::KeyAdded { .. } => "key.added",
            ChangeBody::KeyRevoked { .. } => "key.revoked",
            ChangeBody::AgentAccepted { .. } => "agent.accepted",
            ChangeBody::PolicyPublished { .. } => "policy.published",
        }
    }
}

impl RightsView {
    /// A key that the log knows, as one that is replaced.
    #[must_use]
    pub fn replaced(&self, key_id: KeyId) -> Option<Replaced> {
        let since = self.state.rights().key(&key_id)?.since;
        Some(Replaced { key_id, since })
    }

    /// All changes that were ever asked for, in order.
    ///
    /// # Errors
    /// A change whose document is not to be had.
    pub fn changes(&self) -> Result<Vec<ChangeView>, Failure> {
        let requests = self.stream.entries.iter().filter_map(|link| {
            let Event::ChangeRequested(request) = link.entry.verified.event() else {
                return None;
            };
            Some((link, request))
        });
        requests
            .map(|(link, request)| self.change_of(link, request))
            .collect()
    }

    /// One change.
    ///
    /// # Errors
    /// There is none of that id.
    pub fn change(&self, id: &StatementId) -> Result<ChangeView, Failure> {
        let found = self.changes()?.into_iter().find(|change| change.id == *id);
        found.ok_or_else(|| Failure::failed("unknown_change", "there is no such change"))
    }

    fn change_of(&self, link: &Link, request: &ChangeRequested) -> Result<ChangeView, Failure> {
        let document = self.stream.blobs.blob(&request.body);
        let body = document.and_then(|blob| ChangeBody::parse(blob.content()).ok());
        let body = body.ok_or(Failure::from(Refusal::BodyMissing))?;
        let replaces = match &body {
            ChangeBody::AgentAccepted { replaces, .. } => *replaces,
            ChangeBody::KeyAdded { .. }
            | ChangeBody::KeyRevoked { .. }
            | ChangeBody::PolicyPublished { .. } => None,
        };
        let id = link.entry.verified.id();
        let mut view = ChangeView {
            id,
            stage: ChangeStage::Requested,
            body,
            replaces: replaces.and_then(|key| self.replaced(key)),
            named: request.body,
            requester: request.principal.clone(),
            seq: link.entry.seq,
            time: link.entry.time,
            reason: request.reason.map(|named| {
                let content = self.stream.blobs.content(&named);
                content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            }),
            consents: vec![request.principal.clone()],
            needed: self
                .state
                .rights()
                .genesis()
                .map_or(0, |genesis| genesis.threshold),
        };
        for link in &self.stream.entries {
            view.take(link.entry.verified.event());
        }
        Ok(view)
    }
}

impl ChangeView {
    fn take(&mut self, event: &Event) {
        let settled = |change: StatementId, stage| (change == self.id).then_some(stage);
        let stage = if let Event::ChangeApproved(word) = event {
            if word.change == self.id {
                self.consents.push(word.principal.clone());
            }
            None
        } else if let Event::ChangeRejected(word) = event {
            settled(word.change, ChangeStage::Rejected)
        } else if let Event::KeyAdded(effect) = event {
            settled(effect.change, ChangeStage::InEffect)
        } else if let Event::KeyRevoked(effect) = event {
            settled(effect.change, ChangeStage::InEffect)
        } else if let Event::PolicyPublished(effect) = event {
            settled(effect.change, ChangeStage::InEffect)
        } else if let Event::AgentAccepted(effect) = event {
            settled(effect.change, ChangeStage::InEffect)
        } else {
            None
        };
        self.stage = stage.unwrap_or(self.stage);
    }
}

fn said(reason: Option<&str>) -> Result<Option<Blob>, Failure> {
    let text = reason.filter(|text| !text.is_empty());
    let blob = text.map(|text| entropy::blob(text.as_bytes().to_vec()));
    blob.transpose()
        .map_err(|error| Failure::usage(format!("the reason is too long: {error}")))
}

/// The administrator that this client is, and the change while it waits.
fn open_change(
    rights: &RightsView,
    me: &Principal,
    id: &StatementId,
) -> Result<ChangeView, Failure> {
    require_administrator(rights, me)?;
    let change = rights.change(id)?;
    if change.stage == ChangeStage::Requested {
        return Ok(change);
    }
    let message = format!("the change is settled already: {}", change.stage.as_str());
    Err(Failure::refused("over", message))
}

fn require_administrator(rights: &RightsView, me: &Principal) -> Result<(), Failure> {
    if rights.state.rights().is_administrator(me) {
        return Ok(());
    }
    Err(Failure::from(Refusal::NotPermitted).hint("only administrators change rights"))
}

impl Client {
    /// Asks for a change of rights, and consents to it by asking.
    ///
    /// # Errors
    /// Not an administrator, the same change waits already, refused, or no valid receipt.
    pub async fn change(
        &self,
        body: &ChangeBody,
        reason: Option<&str>,
    ) -> Result<Accepted, Failure> {
        let (rights, me) = self.rights_and_me().await?;
        require_administrator(&rights, &me)?;
        let waiting = rights.state.rights().changes();
        if let Some((id, _)) = waiting.into_iter().find(|(_, open)| open.body == *body) {
            let short = countersign_protocol::short::short(id);
            return Err(
                Failure::refused("change_waits", "the same change waits already")
                    .hint(format!("countersign approve {short}")),
            );
        }
        let document = body
            .to_document()
            .map_err(|error| Failure::usage(format!("the change cannot be written: {error}")))?;
        let document = entropy::blob(document)
            .map_err(|error| Failure::usage(format!("the change is too large: {error}")))?;
        let why = said(reason)?;
        let head = self.head(&me)?;
        let event = person_event!(
            head,
            ChangeRequested {
                body: document.reference(),
                reason: why.as_ref().map(Blob::reference)
            }
        );
        let blobs: Vec<Blob> = [document].into_iter().chain(why).collect();
        self.submit(&event, &blobs).await
    }

    /// A change as it is once the entry at `seq` is among the rights: what one just wrote, one reads.
    ///
    /// # Errors
    /// There is no such change, or evidence of tampering.
    pub async fn change_with(&self, id: &StatementId, seq: u64) -> Result<ChangeView, Failure> {
        // A checkpoint of more entries than `seq` covers it and what followed from it at once.
        self.rights_as_of(seq + 1).await?.change(id)
    }

    /// Consents to exactly the change that verified entries hold under this id.
    ///
    /// # Errors
    /// Not an administrator, consented before, settled, or no valid receipt.
    pub async fn approve_change(
        &self,
        id: &StatementId,
        reason: Option<&str>,
    ) -> Result<Accepted, Failure> {
        let (rights, me) = self.rights_and_me().await?;
        let change = open_change(&rights, &me, id)?;
        if change.consents.contains(&me) {
            return Err(Refusal::DuplicateApproval.into());
        }
        let why = said(reason)?;
        let head = self.head(&me)?;
        let event = person_event!(
            head,
            ChangeApproved {
                change: *id,
                body: change.named.digest,
                reason: why.as_ref().map(Blob::reference)
            }
        );
        self.submit(&event, why.as_slice()).await
    }

    /// Ends a change that waits.
    ///
    /// # Errors
    /// Not an administrator, settled, or no valid receipt.
    pub async fn reject_change(
        &self,
        id: &StatementId,
        reason: Option<&str>,
    ) -> Result<Accepted, Failure> {
        let (rights, me) = self.rights_and_me().await?;
        open_change(&rights, &me, id)?;
        let why = said(reason)?;
        let head = self.head(&me)?;
        let event = person_event!(
            head,
            ChangeRejected {
                change: *id,
                reason: why.as_ref().map(Blob::reference)
            }
        );
        self.submit(&event, why.as_slice()).await
    }
}
