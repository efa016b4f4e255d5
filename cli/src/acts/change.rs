//! Changes of rights: keys, agents, policies. Read from the proven rights stream, signed like all.

use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::event::{ChangeRequested, Event};
use countersign_protocol::hash::{KeyId, StatementId};
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::policy::Policy;
use countersign_protocol::quorum::Requirement;
use countersign_protocol::refusal::Refusal;
use countersign_protocol::rights::{ChangeBody, Consent};

use super::connect::Client;
use super::read::RightsView;
use super::submit::{Accepted, person_event};
use crate::clock;
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
    /// Its time, or the key of whoever asked for it, was over before enough consented.
    Expired,
}

impl ChangeStage {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::InEffect => "in_effect",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
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
    /// The text of the policy that it would publish.
    pub policy: Option<Policy>,
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
    /// How many it takes; of one that is settled, as many as genesis asks for.
    pub needed: u32,
    /// Whose consent it takes, while it waits.
    pub requirement: Option<Requirement>,
}

/// The kind of a change, as its event will be called.
impl ChangeView {
    /// `key.added`, `policy.published`, …
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.body.kind().as_str()
    }
}

impl RightsView {
    /// A key that the log knows, as one that is replaced.
    #[must_use]
    pub fn replaced(&self, key_id: KeyId) -> Option<Replaced> {
        let since = self.state.rights().key(&key_id)?.since;
        Some(Replaced { key_id, since })
    }

    /// The very same change, when it waits for consent already.
    #[must_use]
    pub fn waiting(&self, body: &ChangeBody) -> Option<StatementId> {
        let mut waiting = self.state.rights().changes();
        let same = waiting.find(|(_, open)| open.body == *body);
        same.map(|(id, _)| *id)
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

    /// How many consents a change takes that waits.
    fn needed(&self, id: &StatementId) -> u32 {
        let rights = self.state.rights();
        let threshold = rights.genesis().map_or(0, |genesis| genesis.threshold);
        match (rights.change(id), rights.changed_at()) {
            (Some(open), Some(now)) => rights.change_standing(open, self.state.judge(), now).need,
            _settled => threshold,
        }
    }

    /// Whose consent a change takes that waits.
    fn change_requirement(&self, id: &StatementId) -> Option<Requirement> {
        let rights = self.state.rights();
        let (open, now) = (rights.change(id)?, rights.changed_at()?);
        let requester = &open.consents.first()?.principal;
        Some(rights.change_requirement(&open.body, requester, self.state.judge(), now))
    }

    fn policy_text(&self, named: &BlobRef) -> Result<Policy, Failure> {
        let document = self.stream.blobs.blob(named);
        let text = document.and_then(|blob| String::from_utf8(blob.content().to_vec()).ok());
        let policy = text.and_then(|text| Policy::new(text).ok());
        policy.ok_or_else(|| Failure::from(Refusal::BodyMissing))
    }

    fn change_of(&self, link: &Link, request: &ChangeRequested) -> Result<ChangeView, Failure> {
        let document = self.stream.blobs.blob(&request.body);
        let body = document.and_then(|blob| ChangeBody::parse(blob.content()).ok());
        let body = body.ok_or(Failure::from(Refusal::BodyMissing))?;
        let replaces = if let ChangeBody::AgentAccepted { replaces, .. } = &body {
            *replaces
        } else {
            None
        };
        let policy = match request.document.as_ref() {
            Some(named) => Some(self.policy_text(named)?),
            None => None,
        };
        let id = link.entry.verified.id();
        let mut view = ChangeView {
            id,
            stage: ChangeStage::Requested,
            body,
            policy,
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
            needed: self.needed(&id),
            requirement: self.change_requirement(&id),
        };
        for link in &self.stream.entries {
            view.take(link.entry.verified.event());
        }
        let rights = self.state.rights();
        let open = rights.change(&id);
        let waits = open.is_some_and(|open| rights.is_waiting(open, clock::now()));
        if view.stage == ChangeStage::Requested && !waits {
            view.stage = ChangeStage::Expired;
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
        } else if let Some(effect) = ChangeBody::effected(event) {
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

/// The change while it waits, when this client's word counts on it.
fn open_change(
    rights: &RightsView,
    me: &Principal,
    id: &StatementId,
) -> Result<ChangeView, Failure> {
    let change = rights.change(id)?;
    let state = &rights.state;
    if let (Some(open), Some(now)) = (state.rights().change(id), state.rights().changed_at()) {
        let may = state.rights().may_consent(me, open, state.judge(), now);
        may.map_err(|refusal| Failure::from(refusal).hint(WHO_CHANGES))?;
    }
    if change.stage == ChangeStage::Requested {
        return Ok(change);
    }
    let message = format!("the change is settled already: {}", change.stage.as_str());
    Err(Failure::refused("over", message))
}

const WHO_CHANGES: &str = "administrators change rights; countersign whoami says what you may do";

impl Client {
    /// Asks for a change of rights, and consents to it by asking.
    ///
    /// # Errors
    /// No right to ask for it, the same change waits already, refused, or no valid receipt.
    pub async fn change(
        &self,
        body: &ChangeBody,
        policy: Option<&Policy>,
        reason: Option<&str>,
    ) -> Result<Accepted, Failure> {
        let (rights, me) = self.rights_and_me().await?;
        let may = rights.state.rights().may_ask(&me, body);
        may.map_err(|refusal| Failure::from(refusal).hint(WHO_CHANGES))?;
        if let Some(id) = rights.waiting(body) {
            let short = countersign_protocol::short::short(&id);
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
        let text = policy.map(|policy| entropy::blob(policy.text().as_bytes().to_vec()));
        let text = text.transpose();
        let text =
            text.map_err(|error| Failure::usage(format!("the policy is too large: {error}")))?;
        let why = said(reason)?;
        let head = self.head(&me)?;
        let event = person_event!(
            head,
            ChangeRequested {
                body: document.reference(),
                document: text.as_ref().map(Blob::reference),
                reason: why.as_ref().map(Blob::reference)
            }
        );
        let blobs: Vec<Blob> = [document].into_iter().chain(text).chain(why).collect();
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
    /// One's consent does not count, was given before, it is settled, or no valid receipt.
    pub async fn approve_change(
        &self,
        id: &StatementId,
        reason: Option<&str>,
    ) -> Result<Accepted, Failure> {
        let (rights, me) = self.rights_and_me().await?;
        let change = open_change(&rights, &me, id)?;
        let held = rights.state.rights();
        let stands = |given: &Consent| {
            let key = held.key(&given.key_id);
            given.principal == me && key.is_some_and(|key| key.is_in_force(clock::now()))
        };
        let open = held.change(id);
        if open.is_some_and(|open| open.consents.iter().any(stands)) {
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
    /// One's consent would not count, it is settled, or no valid receipt.
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
