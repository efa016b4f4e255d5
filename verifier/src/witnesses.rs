//! Whether enough witnesses vouch for a bundle's checkpoint, and since when.

use std::collections::BTreeSet;

use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::witness_policy::WitnessPolicy;
use serde::Serialize;

use crate::log::note_word;

/// What witnesses say of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Witnessed {
    /// How many of those that the policy names have signed.
    pub witnesses: u64,
    /// When the quorum was reached, by the witnesses' own clocks, in microseconds since 1970:
    /// everything that the checkpoint covers was there by then.
    pub by_us: Time,
}

/// Counts the cosignatures.
///
/// # Errors
/// A line of a known witness that fails, or too few: the failure's name and a sentence.
pub(crate) fn vouch(
    policy: &WitnessPolicy,
    checkpoint: &Checkpoint,
) -> Result<Witnessed, (&'static str, String)> {
    let found = policy.cosignatures(checkpoint).map_err(|error| {
        let reason = format!("a witness's word on the checkpoint: {error}");
        (note_word(&error), reason)
    })?;
    let mut times: Vec<(u64, usize)> = found
        .iter()
        .enumerate()
        .filter_map(|(place, one)| Some((one.as_ref()?.seconds(), place)))
        .collect();
    times.sort_unstable();
    let mut signed = BTreeSet::new();
    let mut by = policy.is_met(&signed).then_some(0);
    for (seconds, place) in &times {
        signed.insert(*place);
        if by.is_none() && policy.is_met(&signed) {
            by = Some(*seconds);
        }
    }
    let by_us = by.and_then(|seconds| Time::from_micros(seconds.saturating_mul(SECOND_US)));
    let witnesses = u64::try_from(signed.len()).unwrap_or(u64::MAX);
    match by_us {
        Some(by_us) => Ok(Witnessed { witnesses, by_us }),
        None => Err((
            "unwitnessed",
            format!(
                "{witnesses} of the policy's {} witnesses vouch for the checkpoint, which is not enough",
                policy.witnesses().len()
            ),
        )),
    }
}
