//! `[snapshot]`: whose policy snapshot this host takes, and how old it may be; and how old the log.
//!
//! It must not look at any snapshot.

use std::path::{Path, PathBuf};

use countersign_protocol::name::SECOND_US;
use countersign_protocol::snapshot::MAX_VALID_US;
use serde::Deserialize;

use super::load;
use super::source::{ConfigError, Source};
use super::written::{Setting, Written};
use crate::signers::AllowedSigners;
use crate::snapshot::SnapshotRule;

/// So many administrators sign a change of rights too, unless their ledger says otherwise.
const DEFAULT_THRESHOLD: u32 = 2;

/// Most administrators of a genesis, and more than ever sign one snapshot.
const MAX_THRESHOLD: u32 = 32;

/// Below this an idle ledger, which makes an entry a minute, would look dead now and then.
const LEAST_SHOWN_S: u64 = 120;

/// The oldest that a signature can be.
const MAX_AGE_S: u64 = MAX_VALID_US / SECOND_US;

/// `[snapshot]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenSnapshot {
    pub(super) administrators: Setting<PathBuf>,
    pub(super) threshold: Setting<u32>,
    pub(super) max_age_s: Setting<u64>,
}

/// What a host asks for beside a true grant.
pub(super) struct Asked {
    pub(super) rule: Option<SnapshotRule>,
    /// Where its administrators stand.
    pub(super) file: Option<PathBuf>,
    /// How old the newest entry may be that a grant shows.
    pub(super) max_checkpoint_age_us: Option<u64>,
}

/// The settings, with the administrators that `read` finds in their file.
pub(super) fn asked(
    source: &Source<'_>,
    folder: &Path,
    written: &mut Written,
    read: &mut impl FnMut(PathBuf) -> Result<AllowedSigners, ConfigError>,
) -> Result<Asked, ConfigError> {
    let table = written.snapshot.take();
    let file = table.as_ref().and_then(|table| {
        let file = table.administrators.as_ref()?;
        Some(folder.join(file.get_ref()))
    });
    let rule = table
        .map(|table| snapshot(source, folder, table, read))
        .transpose()?;
    let bounds = (LEAST_SHOWN_S, load::MAX_AGE_S);
    let shown = written.max_checkpoint_age_s.take();
    let shown = shown
        .map(|age_s| source.number(Some(age_s), load::MAX_AGE_S, bounds))
        .transpose()?;
    Ok(Asked {
        rule,
        file,
        max_checkpoint_age_us: shown.map(|age_s| age_s.saturating_mul(SECOND_US)),
    })
}

fn snapshot(
    source: &Source<'_>,
    folder: &Path,
    mut written: WrittenSnapshot,
    read: &mut impl FnMut(PathBuf) -> Result<AllowedSigners, ConfigError>,
) -> Result<SnapshotRule, ConfigError> {
    let place = written.threshold.as_ref().map(toml::Spanned::span);
    let bounds = (1, MAX_THRESHOLD);
    let threshold = source.number(written.threshold.take(), DEFAULT_THRESHOLD, bounds)?;
    let max_age_s = source.number(written.max_age_s.take(), MAX_AGE_S, (1, MAX_AGE_S))?;
    let administrators = written.administrators.take().ok_or_else(|| {
        let problem = "[snapshot] has no administrators: the file of those whose snapshots count";
        source.mistake(None, problem)
    })?;
    let place = place.or_else(|| Some(administrators.span()));
    let administrators = read(folder.join(administrators.into_inner()))?;
    let people = administrators.people().len();
    if u32::try_from(people).unwrap_or(u32::MAX) < threshold {
        let problem = format!(
            "the file of administrators names {people} and a snapshot takes {threshold} of them, so \
             nothing could ever run; name more of them or lower threshold"
        );
        return Err(source.mistake(place, problem));
    }
    Ok(SnapshotRule {
        administrators,
        threshold,
        max_age_us: max_age_s.saturating_mul(SECOND_US),
    })
}
