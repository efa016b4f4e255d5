//! The policy snapshot for the hosts: read off the verified rights, or found as another
//! administrator made it and held against what one would make oneself; then signed.

use std::time::Duration;

use countersign_protocol::api::ProofBody;
use countersign_protocol::blob::Blob;
use countersign_protocol::event::Seen;
use countersign_protocol::fold::MAX_AHEAD_US;
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::permission::{Permission, Whom};
use countersign_protocol::proof;
use countersign_protocol::quorum::Membership;
use countersign_protocol::refusal::Refusal;
use countersign_protocol::rights::{Rights, SnapshotRecord};
use countersign_protocol::snapshot::{MAX_VALID_US, Snapshot, SnapshotError};

use super::connect::Client;
use super::read::RightsView;
use super::submit::person_event;
use crate::failure::Failure;
use crate::{clock, entropy};

/// The longest that one is asked to hold: the signer's clock may be ahead of the ledger's.
const LONGEST_US: u64 = MAX_VALID_US - MAX_AHEAD_US;

/// So many people at least, when nobody says and no earlier snapshot does.
const DEFAULT_MIN_APPROVALS: u32 = 2;

/// What an administrator wants of a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotWish {
    /// How long it holds; a day at most.
    pub valid: Duration,
    /// The least number of people on every host; as before when left out.
    pub min_approvals: Option<u32>,
    /// Make another one, whatever waits.
    pub new: bool,
}

/// What there is to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotStep {
    /// A new document.
    New,
    /// One that another administrator made, and that one would make oneself.
    Join,
    /// Nothing: one's own word stands under it, and it holds for a while.
    Signed,
}

/// A snapshot that could be signed, or was.
#[derive(Debug, Clone)]
pub struct SnapshotDraft {
    /// The document.
    pub snapshot: Snapshot,
    /// Its bytes and salt.
    pub document: Blob,
    /// Until when it holds.
    pub expires_at: Time,
    /// What there is to do.
    pub step: SnapshotStep,
    /// Administrators whose words on it count.
    pub signed_by: Vec<Principal>,
    /// Administrators who have not signed it.
    pub missing: Vec<Principal>,
    /// How many it takes.
    pub needed: u32,
}

impl SnapshotDraft {
    /// Whether enough have signed it.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        u32::try_from(self.signed_by.len()).unwrap_or(u32::MAX) >= self.needed
    }

    fn sign_as(&mut self, me: &Principal) {
        self.missing.retain(|who| who != me);
        self.signed_by.push(me.clone());
        self.step = SnapshotStep::Signed;
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        Self::failed(
            "snapshot",
            format!("no policy snapshot can be made: {error}"),
        )
    }
}

/// What differs, in sentences: theirs is not what these rights give.
#[must_use]
pub fn snapshot_differences(theirs: &Snapshot, mine: &Snapshot) -> Vec<String> {
    let mut told = Vec::new();
    if theirs.policy != mine.policy {
        told.push(format!(
            "it names the policy of entry {}, and entry {} is in force",
            theirs.policy.seq, mine.policy.seq
        ));
    }
    if theirs.min_approvals != mine.min_approvals {
        let (theirs, mine) = (theirs.min_approvals, mine.min_approvals);
        told.push(format!(
            "it asks for {theirs} approvals at least, not {mine}"
        ));
    }
    for approver in &theirs.approvers {
        if !mine.approvers.contains(approver) {
            let who = &approver.principal;
            told.push(format!(
                "{who} with these keys is no approver in the ledger"
            ));
        }
    }
    for approver in &mine.approvers {
        if !theirs.approvers.contains(approver) {
            told.push(format!("it lacks {} with their keys", approver.principal));
        }
    }
    let lists = |all: &[Membership], one: &Membership| all.contains(one);
    let members = theirs.members.iter();
    let odd = members.filter(|one| !lists(&mine.members, one));
    let lacking = mine
        .members
        .iter()
        .filter(|one| !lists(&theirs.members, one));
    let mut whom: Vec<&Whom> = odd.chain(lacking).map(|one| &one.of).collect();
    whom.sort();
    whom.dedup();
    told.extend(
        whom.into_iter()
            .map(|of| format!("it has other people as {of}")),
    );
    if theirs.revoked != mine.revoked {
        told.push("it lists other revoked keys".to_owned());
    }
    if told.is_empty() && theirs != mine {
        told.push("it is of another ledger or checkpoint".to_owned());
    }
    told
}

/// Who approves commands by the policy in force.
fn electors(rights: &Rights) -> Result<Vec<Whom>, Failure> {
    let in_force = rights.policy().ok_or(Refusal::NoGenesis)?;
    let electors = countersign_policy::electors(&in_force.policy).map_err(|problems| {
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let message = format!("the policy in force cannot be read: {}", told.join("; "));
        Failure::failed("policy", message)
    })?;
    Ok(electors.into_iter().collect())
}

impl RightsView {
    /// The document of a snapshot that somebody has signed.
    fn snapshot_of(&self, record: &SnapshotRecord) -> Option<(Snapshot, Blob)> {
        let blob = self.stream.blobs.blob(&record.document)?;
        let snapshot = Snapshot::parse(blob.content()).ok()?;
        Some((snapshot, blob.clone()))
    }

    fn draft(
        &self,
        (snapshot, document): (Snapshot, Blob),
        record: Option<&SnapshotRecord>,
        (expires_at, step): (Time, SnapshotStep),
        now: Time,
    ) -> SnapshotDraft {
        let rights = self.state.rights();
        let words = record
            .into_iter()
            .flat_map(|record| rights.words_on(record, now));
        let signed_by: Vec<Principal> = words.map(|word| word.principal.clone()).collect();
        let all = rights.administrators(now).into_iter();
        let missing = all.filter(|who| !signed_by.contains(who)).cloned();
        SnapshotDraft {
            snapshot,
            document,
            expires_at,
            step,
            missing: missing.collect(),
            signed_by,
            needed: rights.snapshot_threshold(),
        }
    }
}

impl Client {
    /// What there is to sign for an administrator: the snapshot that another one made, when it is
    /// what these rights give, or a new one. Signs nothing.
    ///
    /// # Errors
    /// One is no administrator, the one that waits is another, or evidence of tampering.
    pub async fn snapshot(&self, wish: &SnapshotWish) -> Result<SnapshotDraft, Failure> {
        let (view, me) = self.rights_and_me().await?;
        let (rights, now) = (view.state.rights(), clock::now());
        if !rights.is_administrator(&me) {
            return Err(Refusal::NotPermitted(Permission::RightsManage).into());
        }
        let electors = electors(rights)?;
        let newest = rights.snapshots().last();
        let known = newest.and_then(|record| Some((record, view.snapshot_of(record)?)));
        // Of one that enough have signed: nobody lowers what hosts ask for by a draft that others join unread.
        let agreed = rights.agreed_snapshot();
        let agreed = agreed.and_then(|record| view.snapshot_of(record));
        let agreed = agreed.map(|(snapshot, _)| snapshot.min_approvals);
        let valid_us = u64::try_from(wish.valid.as_micros()).unwrap_or(u64::MAX);
        let valid_us = valid_us.min(LONGEST_US);
        if let Some((record, (theirs, document))) = known
            && !wish.new
            && now < record.expires_at
        {
            let mut words = rights.words_on(record, now);
            let is_mine = words.any(|word| word.principal == me);
            let holds_long = record.expires_at.micros_since(now) > valid_us / 2;
            let no_fewer = agreed.map_or(theirs.min_approvals, |agreed| {
                agreed.max(theirs.min_approvals)
            });
            let min_approvals = wish.min_approvals.unwrap_or(no_fewer);
            let mine = Snapshot::of(rights, theirs.seen, &electors, min_approvals);
            let differing = mine.map(|mine| snapshot_differences(&theirs, &mine));
            let differing = differing.unwrap_or_else(|error| vec![error.to_string()]);
            let made = (theirs, document);
            if !is_mine {
                if !differing.is_empty() {
                    return Err(other_snapshot(record, &differing));
                }
                self.check_root(&view, made.0.seen).await?;
                let what = (record.expires_at, SnapshotStep::Join);
                return Ok(view.draft(made, Some(record), what, now));
            }
            if holds_long && differing.is_empty() {
                let what = (record.expires_at, SnapshotStep::Signed);
                return Ok(view.draft(made, Some(record), what, now));
            }
        }
        let checkpoint = &view.stream.checkpoint;
        let seen = Seen {
            size: checkpoint.size(),
            root: checkpoint.root(),
        };
        let min_approvals = wish.min_approvals.or(agreed);
        let min_approvals = min_approvals.unwrap_or(DEFAULT_MIN_APPROVALS);
        let snapshot = Snapshot::of(rights, seen, &electors, min_approvals)?;
        let document = entropy::blob(snapshot.to_document()?)
            .map_err(|error| Failure::usage(format!("the snapshot is too large: {error}")))?;
        let what = (now.plus_micros(valid_us), SnapshotStep::New);
        Ok(view.draft((snapshot, document), None, what, now))
    }

    /// Signs a draft. Gives the draft with one's word, and where that stands.
    ///
    /// # Errors
    /// Refused, or no valid receipt.
    pub async fn sign_snapshot(
        &self,
        mut draft: SnapshotDraft,
    ) -> Result<(SnapshotDraft, u64), Failure> {
        let (_, me) = self.rights_and_me().await?;
        let head = self.head(&me)?;
        let event = person_event!(
            head,
            PolicySnapshot {
                document: draft.document.reference(),
                expires_at: draft.expires_at,
            }
        );
        let blobs = [draft.document.clone()];
        let accepted = self.submit(&event, &blobs).await?;
        draft.sign_as(&me);
        Ok((draft, accepted.seq))
    }

    /// The checkpoint that another administrator names is one of this very log.
    async fn check_root(&self, view: &RightsView, seen: Seen) -> Result<(), Failure> {
        let own = &view.stream.checkpoint;
        let query = [
            ("from", seen.size.to_string()),
            ("to", own.size().to_string()),
        ];
        let proof = if seen.size < own.size() {
            let body: ProofBody = self.get("/v1/proofs/consistency", &query).await?;
            body.proof
        } else {
            Vec::new()
        };
        proof::verify_consistency(seen.size, own.size(), &seen.root, &own.root(), &proof).map_err(
            |error| {
                Failure::tampering(
                    "snapshot_root",
                    format!("the waiting snapshot names a checkpoint of another log: {error}"),
                )
                .hint("ask whoever made it; `countersign policy snapshot --new` makes another")
            },
        )
    }
}

/// The snapshot that waits is not what one would sign.
fn other_snapshot(record: &SnapshotRecord, differing: &[String]) -> Failure {
    let by: Vec<String> = record
        .words
        .iter()
        .map(|word| word.principal.to_string())
        .collect();
    Failure::refused(
        "snapshot_differs",
        format!(
            "the snapshot signed by {} is not what the ledger's rights give: {}",
            by.join(", "),
            differing.join("; ")
        ),
    )
    .hint("if rights changed since, make another: countersign policy snapshot --new")
}
