//! Canonical JSON: one verdict in Rust, Python and JavaScript, and the form of another crate.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the tests start python3 and node"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use countersign_protocol::canonical::{self, MAX_DEPTH, MAX_PAYLOAD_BYTES};
use countersign_protocol::name::MAX_INTEGER;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

#[path = "../../tests/support/left_out.rs"]
mod left_out;

use left_out::left_out;

/// A payload and its verdict, as `tests/vectors/canonical.json` lists them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    legal: bool,
    /// For bytes that are no text.
    hex: Option<String>,
    #[serde(default)]
    text: String,
    /// Stands `times` after `text` and before `end`.
    #[serde(default)]
    repeat: String,
    #[serde(default)]
    times: usize,
    #[serde(default)]
    end: String,
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        match &self.hex {
            Some(hex) => hex::decode(hex).unwrap(),
            None => [
                self.text.as_str(),
                &self.repeat.repeat(self.times),
                &self.end,
            ]
            .concat()
            .into_bytes(),
        }
    }
}

fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors")
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(vectors().join("canonical.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn is_legal(bytes: &[u8]) -> bool {
    canonical::check_payload(bytes).is_ok()
}

/// Asks another implementation: payloads in, verdicts out, in order.
fn judge(program: &str, arguments: &[&str], payloads: &[Vec<u8>]) -> Vec<bool> {
    let mut judge = Command::new(program)
        .args(arguments)
        .current_dir(vectors())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| unreachable!("{program} is needed for this test: {error}"));
    let lines: String = payloads
        .iter()
        .map(|bytes| hex::encode(bytes) + "\n")
        .collect();
    let mut input = judge.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = judge.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success(), "{program} failed");
    let verdicts: Vec<bool> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            assert!(line == "legal" || line == "refused", "{line}");
            line == "legal"
        })
        .collect();
    assert_eq!(verdicts.len(), payloads.len());
    verdicts
}

fn python(payloads: &[Vec<u8>]) -> Vec<bool> {
    judge("python3", &["check.py", "--judge"], payloads)
}

/// None, said aloud, where there is no `node`.
fn javascript(payloads: &[Vec<u8>]) -> Option<Vec<bool>> {
    if Command::new("node").arg("--version").output().is_err() {
        left_out("node is not installed: JavaScript's verdict");
        return None;
    }
    Some(judge("node", &["check.mjs"], payloads))
}

fn disagreement(payloads: &[Vec<u8>], ours: &[bool], theirs: &[bool]) -> Option<String> {
    let differs = ours.iter().zip(theirs).position(|(a, b)| a != b)?;
    let text = String::from_utf8_lossy(&payloads[differs]);
    let short: String = text.chars().take(200).collect();
    Some(format!("ours {}: {short:?}", ours[differs]))
}

#[test]
fn every_listed_payload_gets_its_verdict_in_rust_python_and_javascript() {
    let cases = cases();
    assert!(cases.len() > 100, "cases went missing");
    let payloads: Vec<_> = cases.iter().map(Case::bytes).collect();
    for (case, bytes) in cases.iter().zip(&payloads) {
        assert_eq!(is_legal(bytes), case.legal, "{}", case.name);
    }
    let ours: Vec<bool> = cases.iter().map(|case| case.legal).collect();
    assert_eq!(disagreement(&payloads, &ours, &python(&payloads)), None);
    if let Some(theirs) = javascript(&payloads) {
        assert_eq!(disagreement(&payloads, &ours, &theirs), None);
    }
}

/// A small generator with a fixed seed: the same payloads on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % sides
    }
}

/// What an edit may put in: the spellings that parsers disagree about, and structure.
const PIECES: &[&[u8]] = &[
    b"{}",
    b"[]",
    b"{\"a\":",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\\u0041",
    b"\\u001f",
    b"\\u001F",
    b"\\ud83e\\udd80",
    b"\\ud800",
    b"\\n",
    b"\\u000a",
    b"\\/",
    b"\xf0\x9f\xa6\x80",
    b"\xed\xa0\x80",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\x7f",
    b"\0",
    b" ",
    b"\n",
    b"0",
    b"1",
    b"-",
    b"-0",
    b".0",
    b"e1",
    b"E0",
    b"9007199254740991",
    b"9007199254740992",
    b"9007199254740993",
    b"00",
    b"true",
    b"false",
    b"null",
    b"NaN",
    b"\"a\":1,",
    b"\"b\":2,",
    b",\"a\":1",
    b"\"__proto__\":1,",
    b"_",
    b"A",
];

fn edited(dice: &mut Dice, text: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(bytes.len() + 1);
        match dice.roll(4) {
            0 => {
                let piece = PIECES[dice.roll(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            1 if at < bytes.len() => {
                bytes.remove(at);
            }
            2 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            _other => {
                let end = (at + 1 + dice.roll(6)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes
}

#[test]
fn thousands_of_edited_payloads_get_one_verdict_in_all_three() {
    let mut dice = Dice(0x00c0_ffee);
    // Edits of legal texts stay legal now and then; edits of refused ones come close to it.
    let (legal, refused): (Vec<Case>, Vec<Case>) = cases()
        .into_iter()
        .filter(|case| case.times == 0)
        .partition(|case| case.legal);
    let payloads: Vec<_> = (0..12_000)
        .map(|round| {
            let texts = if round % 2 == 0 { &legal } else { &refused };
            let text = texts[dice.roll(texts.len())].bytes();
            edited(&mut dice, &text)
        })
        .collect();
    let ours: Vec<bool> = payloads.iter().map(|bytes| is_legal(bytes)).collect();
    let legal = ours.iter().filter(|legal| **legal).count();
    assert!(
        legal > 500,
        "only {legal} stayed legal: nothing is compared"
    );
    assert_eq!(disagreement(&payloads, &ours, &python(&payloads)), None);
    if let Some(theirs) = javascript(&payloads) {
        assert_eq!(disagreement(&payloads, &ours, &theirs), None);
    }
}

fn integer() -> impl Strategy<Value = i64> {
    let largest = i64::try_from(MAX_INTEGER).unwrap();
    prop_oneof![
        -largest..=largest,
        -20..20_i64,
        Just(largest),
        Just(-largest)
    ]
}

fn text() -> impl Strategy<Value = String> {
    let any_character = prop_oneof![
        4 => any::<char>(),
        2 => prop::char::range('\0', '\u{7f}'),
        1 => prop::char::range('\u{2020}', '\u{2030}'),
    ];
    prop::collection::vec(any_character, 0..12).prop_map(|all| all.into_iter().collect())
}

/// Any value of the profile but for its top, at most seven deep.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        integer().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    let deeper = u32::try_from(MAX_DEPTH).unwrap() - 1;
    leaf.prop_recursive(deeper, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z0-9_]{1,6}", inner, 0..6)
                .prop_map(|map| Value::from(map.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-z0-9_]{1,6}", value(), 0..6)
        .prop_map(|map| Value::from(map.into_iter().collect::<serde_json::Map<_, _>>()))
}

proptest! {
    #[test]
    fn any_value_of_the_profile_goes_there_and_back_in_its_one_form(value in object()) {
        let bytes = canonical::to_vec(&value).unwrap();
        prop_assume!(bytes.len() <= MAX_PAYLOAD_BYTES);
        prop_assert_eq!(canonical::check_payload(&bytes), Ok(()));
        let back: Value = canonical::from_payload(&bytes).unwrap();
        prop_assert_eq!(&back, &value);
        prop_assert_eq!(&canonical::to_vec(&back).unwrap(), &bytes);
        // Another crate's JCS writes the same bytes.
        prop_assert_eq!(serde_json_canonicalizer::to_vec(&value).unwrap(), bytes);
    }

    #[test]
    fn whatever_is_accepted_equals_its_canonical_form(value in object(), seed in 1..u64::MAX) {
        let bytes = edited(&mut Dice(seed), &canonical::to_vec(&value).unwrap());
        if is_legal(&bytes) {
            let parsed: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(&serde_json_canonicalizer::to_vec(&parsed).unwrap(), &bytes);
            prop_assert_eq!(canonical::to_vec(&parsed).unwrap(), bytes);
        }
    }

    #[test]
    fn no_bytes_make_the_check_fail_other_than_by_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let _either = is_legal(&bytes);
    }
}

#[test]
fn values_outside_the_profile_have_no_form() {
    for text in [
        "{\"a\":null}",
        "{\"a\":1.5}",
        "{\"a\":9007199254740992}",
        "{\"A\":1}",
        "{\"a\":[[[[[[[[]]]]]]]]}",
        "1",
    ] {
        let value: Value = serde_json::from_str(text).unwrap();
        assert!(canonical::to_vec(&value).is_err(), "{text}");
    }
}
