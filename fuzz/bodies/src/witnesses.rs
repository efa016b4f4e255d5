//! What witnesses are asked and what they answer: one spelling of each text, and no word of a witness
//! that it did not give.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody, VerifierKey};
use countersign_protocol::cosignature::{Cosignature, WitnessKey};
use countersign_protocol::hash::Hash;
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::tile::{MAX_TILE_LEVEL, TILE_WIDTH, TilePlace};
use countersign_protocol::witness::{AddCheckpoint, MAX_PROOF_LINES, MAX_REQUEST_BYTES};
use countersign_protocol::witness_policy::{
    MAX_GROUPS, MAX_LOGS, MAX_POLICY_BYTES, MAX_WITNESSES, WitnessPolicy,
};

use crate::story::key;

/// When the one witness signed, in seconds since the Unix epoch.
const SIGNED_AT: u64 = 1_700_000_000;

/// A checkpoint that one of two witnesses has signed.
pub struct Cosigned {
    /// As it is published, with the witness's line.
    pub note: String,
    log: VerifierKey,
    line: String,
    policy: WitnessPolicy,
    /// The same, asking for both.
    both: WitnessPolicy,
}

/// The one behind the seeds.
#[must_use]
pub fn cosigned() -> &'static Cosigned {
    static COSIGNED: OnceLock<Cosigned> = OnceLock::new();
    COSIGNED.get_or_init(|| {
        let origin = "ledger.example.com".parse().unwrap();
        let log = VerifierKey::of(&origin, &PublicKey::of(&key("checkpoint"))).unwrap();
        let body = CheckpointBody {
            origin,
            size: 12,
            root: Hash::from_slice(&[7; 32]).unwrap(),
        };
        let names = ["one.example.com", "two.example.com"];
        let at = Time::from_micros(SIGNED_AT * SECOND_US).unwrap();
        let [one, two] = names.map(|name| WitnessKey::of(&name.parse().unwrap(), &key(name)));
        let word = Cosignature::sign(&body, one.name(), &key(names[0]), at);
        let checkpoint = Checkpoint::sign(body, &key("checkpoint"));
        let line = word.line().to_owned();
        let policy = |wanted: &str| {
            format!("witness one {one}\nwitness two {two}\ngroup enough {wanted} one two\nquorum enough\n")
                .parse()
                .unwrap()
        };
        Cosigned {
            note: format!("{}{line}\n", checkpoint.note()),
            log,
            line,
            policy: policy("any"),
            both: policy("all"),
        }
    })
}

/// The body of `add-checkpoint`: one spelling, within its limits.
pub fn add_checkpoint(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let Ok(read) = text.parse::<AddCheckpoint>() else {
        return;
    };
    assert!(text.len() <= MAX_REQUEST_BYTES && read.proof.len() <= MAX_PROOF_LINES);
    assert_eq!(read.to_string(), text);
    if let Ok(body) = read.claimed() {
        assert!(read.note.starts_with(&body.to_string()));
    }
}

/// A policy: within the limits of its format; nobody's word is not enough unless it asks for nobody,
/// and one more word never makes less of it.
pub fn witness_policy(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let Ok(policy) = text.parse::<WitnessPolicy>() else {
        return;
    };
    let lines = |word: &str| {
        let lines = text.lines();
        lines
            .filter(|line| line.split([' ', '\t']).find(|part| !part.is_empty()) == Some(word))
            .count()
    };
    assert!(text.len() <= MAX_POLICY_BYTES);
    assert!(policy.logs().len() == lines("log") && lines("log") <= MAX_LOGS);
    assert!(policy.witnesses().len() == lines("witness") && lines("witness") <= MAX_WITNESSES);
    assert!(lines("group") <= MAX_GROUPS && lines("quorum") == 1);
    let asks_for_nobody = text.lines().any(|line| {
        line.split([' ', '\t'])
            .filter(|part| !part.is_empty())
            .eq(["quorum", "none"])
    });
    let mut signed = BTreeSet::new();
    let mut was_met = policy.is_met(&signed);
    assert_eq!(was_met, asks_for_nobody);
    for place in 0..policy.witnesses().len() {
        signed.insert(place);
        let is_met = policy.is_met(&signed);
        assert!(is_met || !was_met, "one more word is less");
        was_met = is_met;
    }
    assert!(was_met, "all of them are enough");
}

/// A note that somebody makes of a cosigned one: the witness's word is in it, or it does not count.
pub fn cosigned_note(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let known = cosigned();
    let Ok(checkpoint) = Checkpoint::open(text, &known.log) else {
        return;
    };
    assert!(
        known.note.starts_with(&checkpoint.body().to_string()),
        "another checkpoint"
    );
    assert!(
        known.both.check(&checkpoint, |_| true).is_err(),
        "two of one word"
    );
    let counts = known
        .policy
        .check(&checkpoint, |seconds| seconds == SIGNED_AT);
    let is_there = text.lines().any(|line| line == known.line);
    // A line of the witness's that fails may stand beside the true one: then nothing counts.
    assert!(is_there || counts.is_err(), "a word that nobody gave");
    assert!(known.policy.check(&checkpoint, |_| false).is_err());
}

/// The place of a tile: one spelling, and within a tree only where the tree has it.
pub fn tile_place(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let Ok(place) = text.parse::<TilePlace>() else {
        return;
    };
    assert_eq!(place.to_string(), text);
    assert_eq!(TilePlace::new(place.index(), place.width()), Some(place));
    assert!((1..=TILE_WIDTH).contains(&place.width()));
    let end = place.first() + place.width();
    assert!(place.is_within(0, end) && !place.is_within(0, end - 1));
    assert!(!place.is_within(MAX_TILE_LEVEL + 1, u64::MAX));
}
