//! The document of sealed secrets has one form, and says exactly whom its boxes are for.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use countersign_protocol::api::Base64;
use countersign_protocol::blob::BlobRef;
use countersign_protocol::command::{Act, CommandSpec, Mode, Targets};
use countersign_protocol::event::{CommandRequested, Seen};
use countersign_protocol::hash::{Digest, Hash, KeyId, LedgerId};
use countersign_protocol::name::{Nonce, Principal, Time};
use countersign_protocol::secret::{
    Delivery, MAX_SECRETS, SealedBox, SealedSecret, SealedSecrets, SecretError, SecretName,
    parse_plaintext, plaintext, token_nonce,
};
use countersign_protocol::target::{TargetLine, TargetList};
use countersign_protocol::token::reference;

fn blob() -> BlobRef {
    BlobRef {
        digest: Digest::new([1; 32]),
        len: 1,
    }
}

fn act(stdin: bool) -> Act {
    Act {
        mode: Mode::Exec,
        spec: blob(),
        env: None,
        stdin: stdin.then(blob),
        secrets: Some(blob()),
        targets: Targets {
            count: 1,
            root: Hash::ZERO,
            list: blob(),
        },
        user: None,
        timeout_ms: 1,
        output_limit: 1,
        at_output_limit: None,
        not_before: Time::from_micros(0).unwrap(),
        expires_at: Time::from_micros(1).unwrap(),
        max_runs: 1,
        break_glass: false,
        rollout: None,
    }
}

fn secret(name: &str, delivery: Delivery, keys: &[u8]) -> SealedSecret {
    let sealed = |key: &u8| SealedBox {
        ciphertext: Base64(vec![0; 256 + 16]),
        enc: Base64(vec![0; 32]),
        key_id: KeyId::new([*key; 32]),
    };
    SealedSecret {
        boxes: keys.iter().map(sealed).collect(),
        delivery,
        digest: Digest::new([2; 32]),
        name: name.parse().unwrap(),
    }
}

fn refused(secrets: Vec<SealedSecret>) -> SecretError {
    SealedSecrets::new(secrets).unwrap_err()
}

#[test]
fn a_document_comes_back_as_it_was_written() {
    let secrets = vec![
        secret("b", Delivery::Stdin, &[2, 1]),
        secret("A_1", Delivery::Env, &[1, 2]),
    ];
    let sealed = SealedSecrets::new(secrets).unwrap();
    let document = sealed.to_document().unwrap();
    assert_eq!(
        SealedSecrets::parse(&document, &act(false)).unwrap(),
        sealed
    );
    // Sorted, whatever the order they were given in; another order is not canonical.
    assert_eq!(sealed.secrets()[0].name.as_str(), "A_1");
    let text = String::from_utf8(document.clone()).unwrap();
    let (first, second) = text[1..text.len() - 1].split_once("},{\"boxes").unwrap();
    let swapped = format!("[{{\"boxes{second},{first}}}]");
    let refused = SealedSecrets::parse(swapped.as_bytes(), &act(false));
    assert_eq!(refused.unwrap_err(), SecretError::Order);
    // Nothing else on standard input.
    let refused = SealedSecrets::parse(&document, &act(true));
    assert_eq!(refused.unwrap_err(), SecretError::Stdin);
}

#[test]
fn the_gateway_takes_secrets_only_under_the_nonce_of_its_callers_own_id() {
    let principal = |name: &str| name.parse::<Principal>().unwrap();
    let own = reference(&principal("ci"), "deploy-1");
    let nonce = token_nonce(&own);
    let sealed = SealedSecrets::new(vec![secret("a", Delivery::File, &[1])]).unwrap();
    let check = |token: bool, client_ref: Option<Digest>, nonce: Nonce| {
        let request = CommandRequested {
            signer: KeyId::new([1; 32]),
            principal: principal("ci"),
            nonce,
            made_at: Time::from_micros(0).unwrap(),
            ledger: LedgerId::new([1; 32]),
            seen: Seen {
                size: 1,
                root: Hash::ZERO,
            },
            client_ref,
            token: token.then(|| "ci".parse().unwrap()),
            retry: None,
            act: act(false),
            reason: blob(),
        };
        sealed.check_nonce(&request)
    };
    let drawn = Nonce::new([9; 16]);
    assert_eq!(check(true, Some(own), nonce), Ok(()));
    assert_eq!(check(true, Some(own), drawn), Err(SecretError::Nonce));
    assert_eq!(check(true, None, nonce), Err(SecretError::Nonce));
    // Somebody else's call by the same id, and another call of one's own.
    for (who, id) in [("mallory", "deploy-1"), ("ci", "deploy-2")] {
        let other = reference(&principal(who), id);
        assert_eq!(check(true, Some(other), nonce), Err(SecretError::Nonce));
    }
    // A person's key signs for that person alone.
    assert_eq!(check(false, None, drawn), Ok(()));
}

#[test]
fn what_no_host_could_hand_over_is_refused() {
    let file = |name: &str| secret(name, Delivery::File, &[1]);
    assert_eq!(refused(vec![]), SecretError::Number);
    let many = (0..=MAX_SECRETS).map(|number| file(&format!("s{number}")));
    assert_eq!(refused(many.collect()), SecretError::Number);
    assert_eq!(refused(vec![file("a"), file("a")]), SecretError::Order);
    assert_eq!(
        refused(vec![secret("a", Delivery::File, &[])]),
        SecretError::Order
    );
    assert_eq!(
        refused(vec![secret("a", Delivery::File, &[1, 1])]),
        SecretError::Order
    );
    let stdin = |name: &str| secret(name, Delivery::Stdin, &[1]);
    assert_eq!(refused(vec![stdin("a"), stdin("b")]), SecretError::Stdin);
    for name in ["a.b", "a-b", "1a"] {
        assert_eq!(
            refused(vec![secret(name, Delivery::Env, &[1])]),
            SecretError::Variable
        );
    }
    for length in [0, 16, 256, 256 + 15, 256 + 17, 300 * 256 + 16] {
        let mut odd = file("a");
        odd.boxes[0].ciphertext = Base64(vec![0; length]);
        assert_eq!(refused(vec![odd]), SecretError::Form, "{length}");
    }
    let mut odd = secret("a", Delivery::File, &[1, 2]);
    odd.boxes[1].ciphertext = Base64(vec![0; 512 + 16]);
    assert_eq!(refused(vec![odd]), SecretError::Form);
    let mut odd = file("a");
    odd.boxes[0].enc = Base64(vec![0; 31]);
    assert_eq!(refused(vec![odd]), SecretError::Form);
}

#[test]
fn a_name_is_a_files_and_leads_nowhere_else() {
    for good in ["a", "_A.b-c", "9", &"x".repeat(64)] {
        assert!(good.parse::<SecretName>().is_ok(), "{good}");
    }
    for bad in [
        "",
        ".",
        "..",
        ".a",
        "-a",
        "a/b",
        "a b",
        "a=b",
        "ä",
        "a\0",
        &"x".repeat(65),
    ] {
        assert!(bad.parse::<SecretName>().is_err(), "{bad:?}");
    }
}

#[test]
fn each_target_has_a_box_of_each_secret_and_nobody_else_has_one() {
    let spec = CommandSpec {
        mode: Mode::Exec,
        argv: vec!["true".into()],
        cwd: None,
        user: None,
        timeout_ms: 1,
        output_limit: 1,
        at_output_limit: None,
    };
    spec.check().unwrap();
    let line = |name: &str, key: u8| TargetLine {
        agent: name.parse().unwrap(),
        key_id: KeyId::new([key; 32]),
        service: None,
        spec: Digest::new([1; 32]),
        turn: None,
        facts: None,
    };
    // By name web-1 comes first, by key web-2.
    let targets = TargetList::new(vec![line("web-1", 2), line("web-2", 1)]).unwrap();
    let sealed = |keys: &[u8]| SealedSecrets::new(vec![secret("a", Delivery::File, keys)]).unwrap();
    assert_eq!(sealed(&[1, 2]).check_targets(&targets), Ok(()));
    for keys in [&[1][..], &[2], &[1, 3], &[1, 2, 3]] {
        let refused = sealed(keys).check_targets(&targets);
        assert_eq!(refused, Err(SecretError::Targets), "{keys:?}");
    }
}

#[test]
fn a_plaintext_of_another_form_is_refused() {
    let good = plaintext(&[7; 32], b"12345678").unwrap();
    assert_eq!(
        parse_plaintext(&good).unwrap(),
        (&[7; 32], &b"12345678"[..])
    );
    let padded = |change: fn(&mut Vec<u8>)| {
        let mut bad = good.clone();
        change(&mut bad);
        parse_plaintext(&bad).map(|_| ())
    };
    assert_eq!(padded(|bytes| bytes[255] = 1), Err(SecretError::Form));
    assert_eq!(padded(|bytes| bytes.truncate(255)), Err(SecretError::Form));
    assert_eq!(padded(|bytes| bytes.resize(512, 0)), Err(SecretError::Form));
    assert_eq!(padded(|bytes| bytes[35] = 7), Err(SecretError::Length));
    assert_eq!(padded(|bytes| bytes[32] = 255), Err(SecretError::Length));
    assert_eq!(parse_plaintext(&[0; 20]), Err(SecretError::Form));
}
