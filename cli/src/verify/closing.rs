//! What is compared once the last entry is audited: checkpoints, head, subtrees, open streams, and
//! the rows of the log itself behind its index.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use countersign_protocol::audit::Auditor;
use countersign_protocol::checkpoint::{Checkpoint, CheckpointError, VerifierKey};
use countersign_protocol::hash::{Digest, Hash};
use countersign_protocol::lifecycle::Command;
use countersign_protocol::merkle::NodeSource as _;
use countersign_protocol::name::Time;
use countersign_protocol::proof;
use countersign_verifier::{Findings, compare_root, note_word};
use futures_util::TryStreamExt as _;
use tokio::task::JoinHandle;

use super::database::{Database, HeadRow};
use super::error::VerifyError;
use super::pipeline::cores;

/// Height of the stored subtrees, as in C2SP tlog-tiles.
const TILE_HEIGHT: u8 = 8;

/// Notes that one thread opens at a time: some 10 ms of work.
const NOTES: usize = 256;

/// Digests that are asked about at once: the length of one SQL array.
const ERASED_AT_ONCE: usize = 4096;

type Opened = (u64, String, Result<Checkpoint, CheckpointError>);

/// What the checkpoints came to.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// How many hold.
    pub(super) good: u64,
    /// Size and note of the largest.
    newest: Option<(u64, String)>,
}

/// Opens every stored note and compares its root. `seen` are sizes that signers say they saw, with
/// the first entry that says so: each was committed, so each is here.
pub(super) async fn checkpoints(
    database: &mut Database,
    auditor: &Auditor,
    verifier: &VerifierKey,
    mut seen: BTreeMap<u64, u64>,
    whole: bool,
    findings: &mut Findings,
) -> Result<Checkpoints, VerifyError> {
    let mut result = Checkpoints::default();
    let mut waiting: VecDeque<JoinHandle<Vec<Opened>>> = VecDeque::new();
    let mut rows = database.checkpoints().try_chunks(NOTES);
    loop {
        let next = rows.try_next().await.map_err(|error| error.1)?;
        let end = next.is_none();
        if let Some(notes) = next {
            let verifier = verifier.clone();
            waiting.push_back(tokio::task::spawn_blocking(move || open(notes, &verifier)));
        }
        while waiting.len() > 2 * cores() || (end && !waiting.is_empty()) {
            let Some(opened) = waiting.pop_front() else {
                break;
            };
            for opened in opened.await.map_err(|_| VerifyError::Worker)? {
                seen.remove(&opened.0);
                compare_note(auditor, opened, whole, &mut result, findings);
            }
        }
        if end {
            break;
        }
    }
    if let Some((size, seq)) = seen.into_iter().min_by_key(|(_, seq)| *seq) {
        let reason =
            format!("its signer saw the checkpoint of {size} entries, which is no longer stored");
        findings.bad("missing_checkpoint", seq, reason);
    }
    Ok(result)
}

fn open(notes: Vec<(u64, String)>, verifier: &VerifierKey) -> Vec<Opened> {
    let open = |(size, note): (u64, String)| {
        let opened = Checkpoint::open(&note, verifier);
        (size, note, opened)
    };
    notes.into_iter().map(open).collect()
}

fn compare_note(
    auditor: &Auditor,
    (size, note, opened): Opened,
    whole: bool,
    result: &mut Checkpoints,
    findings: &mut Findings,
) {
    result.newest = Some((size, note));
    if !whole && size > auditor.size() {
        return;
    }
    let last = size.saturating_sub(1);
    match opened {
        Err(error) => {
            let reason = format!("the checkpoint of {size} entries: {error}");
            findings.bad(note_word(&error), last, reason);
        }
        Ok(opened) if opened.size() != size => {
            let says = opened.size();
            findings.bad(
                "other_checkpoint",
                last.min(says.saturating_sub(1)),
                format!("the checkpoint that is stored for {size} entries is of {says}"),
            );
        }
        Ok(opened) => {
            let claim = (size, opened.root());
            result.good += u64::from(compare_root(auditor, claim, "the checkpoint", findings));
        }
    }
}

/// The newest checkpoint must cover all entries, and the head must be what follows from them.
pub(super) fn head(
    head: Option<&HeadRow>,
    checkpoints: &Checkpoints,
    auditor: &Auditor,
    last: Option<(Hash, Time)>,
    findings: &mut Findings,
) {
    let size = auditor.size();
    let covered = checkpoints.newest.as_ref().map_or(0, |(size, _)| *size);
    if covered < size {
        let reason = format!(
            "{size} entries are stored, but the newest checkpoint is of {covered}: it was removed, or entries were put behind it"
        );
        findings.bad("missing_checkpoint", covered, reason);
    }
    let Some(head) = head else {
        findings.bad("missing_head", size, "the head row is gone");
        return;
    };
    if head.size != size {
        let reason = format!("the head says {} entries, {size} are stored", head.size);
        findings.bad("other_head", head.size.min(size), reason);
        return;
    }
    let edge: Option<Vec<Hash>> = proof::nodes_for_root(size)
        .iter()
        .map(|id| auditor.tree().node(id.level, id.index))
        .collect();
    let stored: Option<Vec<Hash>> = head
        .right_edge
        .iter()
        .map(|node| Hash::from_slice(node))
        .collect();
    let note = checkpoints.newest.as_ref().map(|(_, note)| note.as_str());
    let (leaf, time) = last.map_or((Hash::ZERO, 0), |(leaf, time)| (leaf, time.as_micros()));
    let differs = [
        ("last leaf", head.last_leaf != leaf.as_bytes()),
        ("time", head.last_time_us != time),
        ("right edge", edge.is_none() || edge != stored),
        ("note", head.note != note.unwrap_or_default()),
    ];
    for (what, _) in differs.iter().filter(|(_, differs)| *differs) {
        let reason = format!("the head's {what} is not that of the last entry");
        findings.bad("other_head", size.saturating_sub(1), reason);
    }
}

/// The subtrees that are stored are exactly those that are complete, with their roots.
pub(super) async fn subtrees(
    database: &mut Database,
    auditor: &Auditor,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let size = auditor.size();
    let levels = (1..)
        .map(|n| n * TILE_HEIGHT)
        .take_while(|level| size >> level > 0);
    let mut wanted = levels
        .take(7)
        .flat_map(|level| (0..size >> level).map(move |index| (u64::from(level), index, level)));
    let last_of = |level: u64, index: u64| {
        let leaves = 1_u64.checked_shl(u32::try_from(level).unwrap_or(u32::MAX));
        leaves
            .and_then(|leaves| leaves.checked_mul(index.checked_add(1)?))
            .map_or(size, |end| (end - 1).min(size))
    };
    let mut rows = database.subtrees();
    loop {
        let (wanted, row) = (wanted.next(), rows.try_next().await?);
        let (seq, what) = match (wanted, row) {
            (None, None) => return Ok(()),
            (Some((level, index, _)), None) => (last_of(level, index), "a subtree is missing"),
            (None, Some((level, index, _))) => (
                last_of(level, index),
                "it holds a subtree that is not complete",
            ),
            (Some((level, index, height)), Some((row_level, row_index, root))) => {
                if (level, index) < (row_level, row_index) {
                    (last_of(level, index), "a subtree is missing")
                } else if (level, index) > (row_level, row_index) {
                    (
                        last_of(row_level, row_index),
                        "it holds a subtree that is none",
                    )
                } else if auditor.tree().node(height, index) != Hash::from_slice(&root) {
                    (
                        last_of(level, index),
                        "a subtree has another root than its entries",
                    )
                } else {
                    continue;
                }
            }
        };
        findings.table("subtrees", seq, what);
        return Ok(());
    }
}

/// The streams noted as open are exactly the commands that are not settled.
pub(super) async fn open_streams(
    database: &mut Database,
    auditor: &Auditor,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let state = auditor.state();
    // Without its targets nobody can say which hosts are still to come.
    let open = |command: &&Command| command.targets.is_some() && !command.status().is_final();
    let mut wanted: BTreeSet<Vec<u8>> = state
        .commands()
        .filter(open)
        .map(|command| command.id.as_bytes().to_vec())
        .collect();
    let at = |stream: &[u8]| {
        let id = countersign_protocol::hash::CommandId::from_slice(stream);
        id.and_then(|id| state.command(&id))
    };
    let mut rows = database.open_streams();
    let mut first: Option<(u64, &str)> = None;
    let mut differ = |seq: u64, what| {
        if first.is_none_or(|(first, _)| seq < first) {
            first = Some((seq, what));
        }
    };
    while let Some(stream) = rows.try_next().await? {
        if wanted.remove(&stream) {
            continue;
        }
        match at(&stream) {
            Some(command) if command.targets.is_none() => {}
            Some(command) => differ(command.requested.seq, "a settled command is noted as open"),
            None => differ(auditor.size(), "it notes a command that does not exist"),
        }
    }
    for stream in &wanted {
        let seq = at(stream).map_or(auditor.size(), |command| command.requested.seq);
        differ(seq, "an open command is not noted");
    }
    if let Some((seq, what)) = first {
        findings.table("open_streams", seq, what);
    }
    Ok(())
}

/// What an entry erased is not stored: a backup that was read back may hold it again.
pub(super) async fn erased(
    database: &mut Database,
    auditor: &Auditor,
    findings: &mut Findings,
) -> Result<(), VerifyError> {
    let all: Vec<(Digest, u64)> = auditor
        .state()
        .rights()
        .all_redacted()
        .map(|(digest, seq)| (*digest, seq))
        .collect();
    for some in all.chunks(ERASED_AT_ONCE) {
        let digests: Vec<Digest> = some.iter().map(|(digest, _)| *digest).collect();
        for digest in database.stored(&digests).await? {
            let seq = some.iter().find(|(erased, _)| *erased == digest);
            let seq = seq.map_or(auditor.size(), |(_, seq)| *seq);
            let reason = format!(
                "the blob {digest} that this entry erased is stored all the same: was a backup read back? Erase it again (SELECT erase_blobs({seq}))"
            );
            findings.bad("not_erased", seq, reason);
        }
    }
    Ok(())
}

/// Every row of the log is one of the audited entries, also what an index hides.
pub(super) async fn heap(
    database: &mut Database,
    auditor: &Auditor,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let size = auditor.size();
    let mut rows = database.leaves();
    let mut count = 0_u64;
    while let Some((seq, leaf)) = rows.try_next().await? {
        count += 1;
        let audited = auditor.tree().node(0, seq);
        if audited.is_none() || audited != Hash::from_slice(&leaf) {
            let reason = "the table holds a row of this number that its index does not show";
            findings.bad("hidden_row", seq.min(size), reason);
        }
    }
    if count != size {
        let reason =
            format!("the table holds {count} rows, its index shows {size}: the index is corrupted");
        findings.bad("hidden_row", size, reason);
    }
    Ok(())
}
