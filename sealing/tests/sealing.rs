//! A secret opens where it was sealed for, and nowhere else.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use countersign_protocol::api::Base64;
use countersign_protocol::hash::{Digest, KeyId, LedgerId};
use countersign_protocol::name::Nonce;
use countersign_protocol::secret::{
    Binding, MAX_SECRET_BYTES, MIN_SECRET_BYTES, SEAL_TAG_BYTES, SECRET_PAD_BYTES, SealedBox,
    SealingKey, SecretName, commitment,
};
use countersign_sealing::{OpenError, SealError, SealingSecret, seal};
use zeroize::Zeroizing;

const VALUE: &[u8] = b"correct horse battery staple";
const SALT: [u8; 32] = [7; 32];

fn key(byte: u8) -> SealingSecret {
    SealingSecret::new(Zeroizing::new([byte; 32]))
}

fn binding() -> Binding {
    Binding {
        ledger: LedgerId::new([1; 32]),
        agent: KeyId::new([2; 32]),
        requester: KeyId::new([3; 32]),
        nonce: Nonce::new([4; 16]),
    }
}

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn sealed() -> SealedBox {
    let (to, drawn) = (key(9).public().unwrap(), Zeroizing::new([8; 32]));
    seal((&SALT, VALUE), (&binding(), &name("db")), &to, drawn).unwrap()
}

fn digest() -> Digest {
    commitment(&SALT, VALUE)
}

fn open_as(binding: &Binding, called: &str) -> Result<Vec<u8>, OpenError> {
    let opened = key(9).open(&sealed(), (binding, &name(called)), &digest());
    opened.map(|value| value.to_vec())
}

#[test]
fn a_secret_opens_where_it_was_sealed_for() {
    assert_eq!(open_as(&binding(), "db").unwrap(), VALUE);
}

#[test]
fn a_secret_that_was_moved_does_not_open() {
    let moved = [
        Binding {
            ledger: LedgerId::new([0; 32]),
            ..binding()
        },
        Binding {
            agent: KeyId::new([0; 32]),
            ..binding()
        },
        Binding {
            requester: KeyId::new([0; 32]),
            ..binding()
        },
        Binding {
            nonce: Nonce::new([0; 16]),
            ..binding()
        },
    ];
    for elsewhere in moved {
        assert_eq!(
            open_as(&elsewhere, "db"),
            Err(OpenError::Foreign),
            "{elsewhere:?}"
        );
    }
    assert_eq!(open_as(&binding(), "other"), Err(OpenError::Foreign));
    let other_key = key(10).open(&sealed(), (&binding(), &name("db")), &digest());
    assert_eq!(other_key.unwrap_err(), OpenError::Foreign);
}

#[test]
fn a_value_that_nobody_signed_for_is_refused() {
    let other = commitment(&SALT, b"another value");
    let opened = key(9).open(&sealed(), (&binding(), &name("db")), &other);
    assert_eq!(opened.unwrap_err(), OpenError::OtherValue);
}

#[test]
fn every_flipped_bit_of_a_box_is_found() {
    let good = sealed();
    let mut flipped = Vec::new();
    for bit in 0..good.ciphertext.0.len() * 8 {
        let mut bad = good.clone();
        bad.ciphertext.0[bit / 8] ^= 1 << (bit % 8);
        flipped.push((bit, bad));
    }
    // X25519 has always ignored the highest bit of a public key, but HPKE binds the bytes.
    for bit in 0..256 {
        let mut bad = good.clone();
        bad.enc.0[bit / 8] ^= 1 << (bit % 8);
        flipped.push((bit, bad));
    }
    for (bit, bad) in flipped {
        let opened = key(9).open(&bad, (&binding(), &name("db")), &digest());
        assert_eq!(opened.unwrap_err(), OpenError::Foreign, "bit {bit}");
    }
}

#[test]
fn a_box_tells_a_length_only_roughly() {
    let (to, length) = (key(9).public().unwrap(), |bytes: usize| {
        let value = vec![b'x'; bytes];
        let drawn = Zeroizing::new([8; 32]);
        let to = key(9).public().unwrap();
        let sealed = seal((&SALT, &value), (&binding(), &name("db")), &to, drawn).unwrap();
        let opened = key(9).open(
            &sealed,
            (&binding(), &name("db")),
            &commitment(&SALT, &value),
        );
        assert_eq!(*opened.unwrap(), value);
        sealed.ciphertext.0.len()
    });
    assert_eq!(length(MIN_SECRET_BYTES), SECRET_PAD_BYTES + SEAL_TAG_BYTES);
    assert_eq!(length(MIN_SECRET_BYTES), length(220));
    assert!(length(221) > length(220));
    assert!(length(MAX_SECRET_BYTES) > MAX_SECRET_BYTES);
    for bytes in [0, MIN_SECRET_BYTES - 1, MAX_SECRET_BYTES + 1] {
        let value = vec![b'x'; bytes];
        let drawn = Zeroizing::new([8; 32]);
        let refused = seal((&SALT, &value), (&binding(), &name("db")), &to, drawn);
        assert!(matches!(refused, Err(SealError::Value(_))), "{bytes}");
    }
}

#[test]
fn a_key_of_small_order_takes_no_secret() {
    // Every secret sealed to it would be sealed with the same shared secret: all zeros.
    for byte in [0, 1] {
        let mut bytes = [0; 32];
        bytes[0] = byte;
        let drawn = Zeroizing::new([8; 32]);
        let to = SealingKey::new(bytes);
        let refused = seal((&SALT, VALUE), (&binding(), &name("db")), &to, drawn);
        assert_eq!(refused.unwrap_err(), SealError::Key);
        let bad = SealedBox {
            enc: Base64(bytes.to_vec()),
            ..sealed()
        };
        let opened = key(9).open(&bad, (&binding(), &name("db")), &digest());
        assert_eq!(opened.unwrap_err(), OpenError::Foreign);
    }
}

#[test]
fn no_key_is_ever_shown() {
    assert_eq!(format!("{:?}", key(9)), "SealingSecret(..)");
}
