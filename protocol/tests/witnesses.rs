//! Cosignatures, requests to witnesses, policies and names of tiles: beside second
//! implementations, and against every near miss.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use countersign_protocol::checkpoint::{
    Checkpoint, CheckpointBody, CheckpointError, Origin, VerifierKey,
};
use countersign_protocol::cosignature::{Cosignature, WitnessKey};
use countersign_protocol::hash::Hash;
use countersign_protocol::name::Time;
use countersign_protocol::tile::TilePlace;
use countersign_protocol::witness::{AddCheckpoint, MAX_PROOF_LINES};
use countersign_protocol::witness_policy::{PolicyError, QuorumError, WitnessPolicy};
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

const AT: u64 = 1_700_000_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn origin(name: &str) -> Origin {
    name.parse().unwrap()
}

fn seconds(seconds: u64) -> Time {
    Time::from_micros(seconds * 1_000_000).unwrap()
}

fn log() -> (Checkpoint, VerifierKey) {
    let origin = origin("ledger.example.com");
    let verifier = VerifierKey::new(origin.clone(), key(1).verifying_key().to_bytes()).unwrap();
    let body = CheckpointBody {
        origin,
        size: 77,
        root: Hash::new([5; 32]),
    };
    (Checkpoint::sign(body, &key(1)), verifier)
}

fn witness(seed: u8) -> (Origin, SigningKey, WitnessKey) {
    let name = origin(&format!("witness.example.com/w{seed}"));
    let known = WitnessKey::of(&name, &key(seed));
    (name, key(seed), known)
}

fn cosigned(by: &[u8]) -> (Checkpoint, VerifierKey) {
    let (checkpoint, verifier) = log();
    let lines: Vec<_> = by
        .iter()
        .map(|seed| {
            let (name, key, _) = witness(*seed);
            Cosignature::sign(checkpoint.body(), &name, &key, seconds(AT))
        })
        .collect();
    let lines = lines.iter().map(Cosignature::line);
    (checkpoint.with_lines(lines).unwrap(), verifier)
}

/// A verifier of our lines that shares no code with them.
struct Theirs {
    name: String,
    key: ed25519_dalek::VerifyingKey,
}

impl signed_note::Verifier for Theirs {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        let typed: Vec<u8> = [4].into_iter().chain(self.key.to_bytes()).collect();
        signed_note::key_id(&self.name, &typed)
    }

    fn verify(&self, msg: &[u8], sig: &[u8]) -> bool {
        let (time, sig) = sig.split_at(8);
        let time = u64::from_be_bytes(time.try_into().unwrap());
        let signed = [format!("cosignature/v1\ntime {time}\n").as_bytes(), msg].concat();
        let sig = ed25519_dalek::Signature::from_slice(sig).unwrap();
        self.key.verify_strict(&signed, &sig).is_ok()
    }
}

#[test]
fn the_signed_note_crate_reads_our_cosignatures() {
    let (checkpoint, verifier) = cosigned(&[7, 8]);
    let note = signed_note::Note::from_bytes(checkpoint.note().as_bytes()).unwrap();
    let mut known: Vec<Box<dyn signed_note::Verifier>> = vec![Box::new(
        signed_note::StandardVerifier::new(&verifier.to_string()).unwrap(),
    )];
    for seed in [7, 8] {
        let (name, key, _) = witness(seed);
        known.push(Box::new(Theirs {
            name: name.to_string(),
            key: key.verifying_key(),
        }));
    }
    let (verified, unverified) = note.verify(&signed_note::VerifierList::new(known)).unwrap();
    assert_eq!((verified.len(), unverified.len()), (3, 0));
}

#[test]
fn a_cosignature_is_found_beside_lines_of_others() {
    let (checkpoint, verifier) = cosigned(&[7, 8]);
    let again = Checkpoint::open(checkpoint.note(), &verifier).unwrap();
    for (seed, signed) in [(7, Some(AT)), (8, Some(AT)), (9, None)] {
        let (_, _, known) = witness(seed);
        let found = known.find(again.body(), again.signature_lines()).unwrap();
        assert_eq!(found.map(|found| found.seconds()), signed, "{seed}");
    }
}

#[test]
fn of_two_cosignatures_by_one_witness_the_newer_counts() {
    let (checkpoint, _) = log();
    let (name, key, known) = witness(7);
    let [older, newer] =
        [AT, AT + 60].map(|at| Cosignature::sign(checkpoint.body(), &name, &key, seconds(at)));
    for lines in [[&newer, &older], [&older, &newer]] {
        let lines = lines.map(Cosignature::line);
        let found = known.find(checkpoint.body(), lines).unwrap().unwrap();
        assert_eq!(found.seconds(), AT + 60);
    }
}

/// The log's own signature says nothing of time and of other views; neither stands for the other.
#[test]
fn no_plain_signature_counts_as_a_cosignature_and_none_the_other_way() {
    let (checkpoint, verifier) = log();
    let name = verifier.origin().clone();
    let known = WitnessKey::of(&name, &key(1));
    let found = known.find(checkpoint.body(), checkpoint.signature_lines());
    assert_eq!(found, Ok(None));
    let line = Cosignature::sign(checkpoint.body(), &name, &key(1), seconds(AT));
    let note = format!("{}\n{}\n", checkpoint.body(), line.line());
    assert_eq!(
        Checkpoint::open(&note, &verifier),
        Err(CheckpointError::Unsigned)
    );
    assert!(verifier.to_string().parse::<WitnessKey>().is_err());
    assert!(known.to_string().parse::<VerifierKey>().is_err());
    assert_eq!(known.to_string().parse::<WitnessKey>().unwrap(), known);
}

#[test]
fn a_cosignature_with_a_time_past_the_formats_end_is_refused() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let (checkpoint, _) = log();
    let (name, key, known) = witness(7);
    let time = 1_u64 << 63;
    let message = format!("cosignature/v1\ntime {time}\n{}", checkpoint.body());
    let good = Cosignature::sign(checkpoint.body(), &name, &key, seconds(AT));
    let encoded = good.line().rsplit_once(' ').unwrap().1;
    let mut bytes = STANDARD.decode(encoded).unwrap()[..4].to_vec();
    bytes.extend(time.to_be_bytes());
    bytes.extend(key.sign(message.as_bytes()).to_bytes());
    let line = format!("\u{2014} {name} {}", STANDARD.encode(bytes));
    let found = known.find(checkpoint.body(), [line.as_str()]);
    assert_eq!(found, Err(CheckpointError::BadSignature));
}

proptest! {
    #[test]
    fn a_flipped_bit_of_a_cosignature_never_counts(at in any::<usize>(), bit in 0_u8..8) {
        let (checkpoint, _) = log();
        let (name, key, known) = witness(7);
        let line = Cosignature::sign(checkpoint.body(), &name, &key, seconds(AT));
        let mut bytes = line.line().as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(text) = String::from_utf8(bytes) {
            // Another name or key id is somebody else's line; all else rejects.
            let found = known.find(checkpoint.body(), [text.as_str()]);
            prop_assert!(!matches!(found, Ok(Some(_))), "{text}");
        }
    }

    #[test]
    fn a_cosignature_is_of_its_checkpoint_and_no_other(size in any::<u32>(), root in any::<[u8; 32]>()) {
        let (checkpoint, _) = log();
        let (name, key, known) = witness(7);
        let line = Cosignature::sign(checkpoint.body(), &name, &key, seconds(AT));
        let other = CheckpointBody {
            origin: origin("ledger.example.com"),
            size: size.into(),
            root: Hash::new(root),
        };
        prop_assert_eq!(
            known.find(&other, [line.line()]),
            Err(CheckpointError::BadSignature)
        );
    }

    #[test]
    fn a_request_is_read_as_it_was_written(
        old in any::<u64>(), proof in prop::collection::vec(any::<[u8; 32]>(), 0..=MAX_PROOF_LINES),
    ) {
        let (checkpoint, _) = cosigned(&[7]);
        let request = AddCheckpoint {
            old,
            proof: proof.into_iter().map(Hash::new).collect(),
            note: checkpoint.note().to_owned(),
        };
        let read: AddCheckpoint = request.to_string().parse().unwrap();
        prop_assert_eq!(read.claimed().unwrap(), checkpoint.body().clone());
        prop_assert_eq!(read, request);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in any::<String>(), lines in prop::collection::vec("(log|witness|group|quorum|old| |[a-z0-9+]{1,6}|none|all|\n){0,12}", 0..8)) {
        for text in [text, lines.concat()] {
            let _request = text.parse::<AddCheckpoint>();
            let _policy = text.parse::<WitnessPolicy>();
            let _key = text.parse::<WitnessKey>();
            let _tile = text.parse::<TilePlace>();
        }
    }

    #[test]
    fn a_tile_is_named_as_the_tlog_tiles_crate_names_it(n in 0_u64..1 << 40, w in 1_u32..=256, level in 0_u8..7) {
        let ours = TilePlace::new(n, w.into()).unwrap();
        let theirs = tlog_tiles::Tile::new(8, level, n, w, false).path();
        let theirs = theirs.strip_prefix(&format!("tile/8/{level}/")).unwrap().to_owned();
        prop_assert_eq!(ours.to_string(), &*theirs);
        prop_assert_eq!(theirs.parse::<TilePlace>().unwrap(), ours);
    }
}

#[test]
fn every_other_spelling_of_a_request_is_refused() {
    let note = cosigned(&[]).0.note().to_owned();
    let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(
        format!("old 1\n{hash}\n\n{note}")
            .parse::<AddCheckpoint>()
            .is_ok()
    );
    for bad in [
        String::new(),
        note.clone(),
        format!("old \n\n{note}"),
        format!("old 01\n\n{note}"),
        format!("old +1\n\n{note}"),
        format!("old -1\n\n{note}"),
        format!("old  1\n\n{note}"),
        format!("Old 1\n\n{note}"),
        format!("old 1\r\n\n{note}"),
        format!("old 18446744073709551616\n\n{note}"),
        format!("old 1\n{hash} \n\n{note}"),
        format!("old 1\n{}\n\n{note}", &hash[..43]),
        format!("old 1\n{}B=\n\n{note}", &hash[..42]),
        format!("old 1\nAAAA\n\n{note}"),
        format!("old 1\n{}\n{note}", format!("{hash}\n").repeat(64)),
        format!("old 1\n\n{}", "a".repeat(32 * 1024)),
    ] {
        assert!(bad.parse::<AddCheckpoint>().is_err(), "{bad}");
    }
    let body: AddCheckpoint = "old 1\n\nno checkpoint\n".parse().unwrap();
    assert!(body.claimed().is_err());
}

#[test]
fn every_other_name_of_a_tile_is_refused() {
    for good in [
        "000",
        "999",
        "x001/000",
        "x001/x234/067",
        "000.p/1",
        "x001/x234/067.p/255",
    ] {
        assert_eq!(good.parse::<TilePlace>().unwrap().to_string(), good);
    }
    for bad in [
        "",
        "0",
        "00",
        "0000",
        "1000",
        "x000/000",
        "001/000",
        "x001/x000",
        "x001000",
        "x001/00",
        "000.p/0",
        "000.p/256",
        "000.p/01",
        "000.p/+1",
        "000.p/",
        "000.p",
        "000/",
        "/000",
        "x001/x234/067.p/1/",
        "../000",
        "x999/x999/x999/x999/x999/x999/999",
    ] {
        assert!(bad.parse::<TilePlace>().is_err(), "{bad}");
    }
}

#[test]
fn a_tree_has_the_tiles_of_the_specifications_example() {
    let has = |level, index, width| {
        TilePlace::new(index, width)
            .unwrap()
            .is_within(level, 70_000)
    };
    for (level, index, width, is_there) in [
        (0, 272, 256, true),
        (0, 273, 112, true),
        (0, 273, 113, false),
        (0, 273, 256, false),
        (1, 0, 256, true),
        (1, 1, 17, true),
        (1, 1, 18, false),
        (2, 0, 1, true),
        (2, 0, 2, false),
        (3, 0, 1, false),
        (8, 0, 1, false),
        (255, 0, 1, false),
    ] {
        assert_eq!(
            has(level, index, width),
            is_there,
            "{level} {index} {width}"
        );
    }
}

fn vkey(seed: u8) -> String {
    witness(seed).2.to_string()
}

/// The specification's example: two of three, and any of three others.
fn example() -> WitnessPolicy {
    let mut text = format!(
        "# two organisations\n\nlog {} https://ledger.example.com/\n",
        log().1
    );
    for (name, seed) in [
        ("X1", 11),
        ("X2", 12),
        ("X3", 13),
        ("Y1", 21),
        ("Y2", 22),
        ("Y3", 23),
    ] {
        text += &format!("\twitness {name}  {}\n", vkey(seed));
    }
    text += "group X 2 X1 X2 X3\ngroup Y any Y1 Y2 Y3\ngroup both all X Y\nquorum both\n";
    text.parse().unwrap()
}

#[test]
fn a_quorum_of_groups_counts_as_the_specification_says() {
    let policy = example();
    let met = |signed: &[usize]| policy.is_met(&signed.iter().copied().collect());
    assert!(met(&[0, 1, 3]) && met(&[0, 2, 5]) && met(&[0, 1, 2, 3, 4, 5]));
    for few in [
        &[][..],
        &[0, 1],
        &[0, 3],
        &[3, 4, 5],
        &[0, 1, 2],
        &[2, 3, 4, 5],
    ] {
        assert!(!met(few), "{few:?}");
    }
    assert!(policy.is_about(&log().1));
    let origin = origin("ledger.example.com");
    let other = VerifierKey::new(origin, key(2).verifying_key().to_bytes()).unwrap();
    assert!(!policy.is_about(&other));
    assert_eq!(
        policy.logs()[0].url.as_deref(),
        Some("https://ledger.example.com")
    );
}

#[test]
fn a_checkpoint_counts_with_a_quorum_of_cosignatures_in_time() {
    let policy = example();
    let always = |_| true;
    assert_eq!(policy.check(&cosigned(&[11, 13, 22]).0, always), Ok(()));
    let few = policy.check(&cosigned(&[11, 21, 22, 99]).0, always);
    let Err(QuorumError::NotMet {
        size: 77,
        signed,
        of: 6,
    }) = few
    else {
        unreachable!("{few:?}");
    };
    assert_eq!(signed, ["X1", "Y1", "Y2"]);
    let old = policy.check(&cosigned(&[11, 13, 22]).0, |at| at > AT);
    assert!(matches!(old, Err(QuorumError::NotMet { signed, .. }) if signed.is_empty()));
}

#[test]
fn one_bad_line_of_a_known_witness_rejects_the_checkpoint() {
    let (checkpoint, _) = log();
    let (name, key, _) = witness(23);
    let other = CheckpointBody {
        size: 78,
        ..checkpoint.body().clone()
    };
    let elsewhere = Cosignature::sign(&other, &name, &key, seconds(AT));
    let good = cosigned(&[11, 13, 22]).0;
    let mixed = good.with_lines([elsewhere.line()]).unwrap();
    let found = example().check(&mixed, |_| true);
    assert_eq!(found, Err(QuorumError::Note(CheckpointError::BadSignature)));
}

#[test]
fn a_policy_can_ask_for_one_witness_or_for_nobody() {
    let nobody: WitnessPolicy = "quorum none\n".parse().unwrap();
    assert!(nobody.is_met(&BTreeSet::new()));
    let one = format!("witness w {}\nquorum w\n", vkey(3));
    let one: WitnessPolicy = one.parse().unwrap();
    assert!(!one.is_met(&BTreeSet::new()) && one.is_met(&BTreeSet::from([0])));
}

#[test]
fn a_policy_that_could_mean_two_things_is_refused() {
    let (a, b, log) = (vkey(3), vkey(4), log().1);
    let pair = format!("witness a {a}\nwitness b {b}\n");
    for (bad, line) in [
        (format!("{pair}witness a {}\nquorum a\n", vkey(5)), 3),
        (format!("witness a {a}\nwitness b {a}\nquorum a\n"), 2),
        (format!("witness none {a}\nquorum none\n"), 1),
        (format!("log {log}\nlog {log}\nquorum none\n"), 2),
        (format!("log {a}\nquorum none\n"), 1),
        (format!("witness a {log}\nquorum a\n"), 1),
        (format!("{pair}group g 3 a b\nquorum g\n"), 3),
        (format!("{pair}group g 0 a b\nquorum g\n"), 3),
        (format!("{pair}group g 01 a b\nquorum g\n"), 3),
        (format!("{pair}group g +1 a b\nquorum g\n"), 3),
        (format!("{pair}group g all\nquorum g\n"), 3),
        (format!("{pair}group g some a b\nquorum g\n"), 3),
        (format!("{pair}group g 2 a a\nquorum g\n"), 3),
        (
            format!("{pair}group g any a\ngroup h any a b\nquorum h\n"),
            4,
        ),
        (format!("{pair}group g any g\nquorum g\n"), 3),
        (format!("{pair}group g any a none\nquorum g\n"), 3),
        (format!("group g any a\nwitness a {a}\nquorum g\n"), 1),
        (format!("quorum a\nwitness a {a}\n"), 1),
        (format!("{pair}quorum a\nquorum b\n"), 4),
        (format!("{pair}quorum c\n"), 3),
        (format!("{pair}quorum a b\n"), 3),
        (format!("{pair}Quorum a\n"), 3),
        (format!("witness a {a} ftp://x\nquorum a\n"), 1),
        (format!("witness a {a} https://x?y\nquorum a\n"), 1),
        (format!("witness {} {a}\nquorum none\n", "n".repeat(129)), 1),
        (format!("witness a {a}\r\nquorum a\r\n"), 1),
        ("quorum none\n\u{7f}\n".to_owned(), 2),
    ] {
        let found = bad.parse::<WitnessPolicy>();
        assert!(
            matches!(&found, Err(PolicyError::Line { line: found, .. }) if *found == line),
            "{bad}: {found:?}"
        );
    }
    assert_eq!(pair.parse::<WitnessPolicy>(), Err(PolicyError::NoQuorum));
    assert_eq!("".parse::<WitnessPolicy>(), Err(PolicyError::NoQuorum));
    let cut = format!("{pair}quorum a");
    assert_eq!(cut.parse::<WitnessPolicy>(), Err(PolicyError::Unfinished));
    let large = "#\n".repeat(200_000);
    assert_eq!(large.parse::<WitnessPolicy>(), Err(PolicyError::TooLarge));
}

#[test]
fn a_policy_holds_so_many_witnesses_and_groups_and_no_more() {
    let witnesses = |count: u8| -> String {
        (1..=count)
            .map(|n| format!("witness w{n} {}\n", vkey(n)))
            .collect()
    };
    let chain = |count: u8| -> String {
        let first = "group g1 any w1\n".to_owned();
        first
            + &(2..=count)
                .map(|n| format!("group g{n} any g{}\n", n - 1))
                .collect::<String>()
    };
    let deep: WitnessPolicy = format!("{}{}quorum g32\n", witnesses(32), chain(32))
        .parse()
        .unwrap();
    assert!(deep.is_met(&BTreeSet::from([0])) && !deep.is_met(&BTreeSet::from([1])));
    assert!(
        format!("{}quorum w1\n", witnesses(33))
            .parse::<WitnessPolicy>()
            .is_err()
    );
    assert!(
        format!("{}{}quorum g1\n", witnesses(1), chain(33))
            .parse::<WitnessPolicy>()
            .is_err()
    );
}

#[test]
fn further_lines_are_kept_up_to_the_notes_limits_and_only_lines() {
    let (checkpoint, verifier) = cosigned(&[7]);
    assert_eq!(checkpoint.signature_lines().count(), 2);
    let line = checkpoint.signature_lines().last().unwrap().to_owned();
    let many = vec![line.as_str(); 62];
    let full = checkpoint.with_lines(many.clone()).unwrap();
    assert_eq!(Checkpoint::open(full.note(), &verifier), Ok(full.clone()));
    assert_eq!(
        full.with_lines([line.as_str()]),
        Err(CheckpointError::TooLarge)
    );
    for bad in [
        "",
        "x",
        "\u{2014} a",
        "\u{2014} a AAAA",
        "\u{2014} a\nb AAAAAAAA",
        "\u{2014} a AAAAAAAA\n",
    ] {
        assert!(checkpoint.with_lines([bad]).is_err(), "{bad:?}");
    }
}
