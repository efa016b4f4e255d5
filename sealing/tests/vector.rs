//! The golden sealed secret is what the code makes, and what somebody else's reading of the RFCs opens.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use countersign_protocol::hash::{KeyId, LedgerId};
use countersign_protocol::name::Nonce;
use countersign_protocol::secret::{Binding, Delivery, SealedSecret, SealedSecrets, commitment};
use countersign_sealing::{SealingSecret, seal};
use zeroize::Zeroizing;

const VALUE: &str = "correct horse battery staple";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(name)
}

fn vector() -> String {
    let key = SealingSecret::new(Zeroizing::new([9; 32]));
    let (to, salt) = (key.public().unwrap(), [7; 32]);
    let binding = Binding {
        ledger: LedgerId::new([1; 32]),
        agent: KeyId::new([2; 32]),
        requester: KeyId::new([3; 32]),
        nonce: Nonce::new([4; 16]),
    };
    let name = "db.password".parse().unwrap();
    let drawn = Zeroizing::new([8; 32]);
    let sealed = seal((&salt, VALUE.as_bytes()), (&binding, &name), &to, drawn).unwrap();
    let secrets = SealedSecrets::new(vec![SealedSecret {
        boxes: vec![sealed],
        delivery: Delivery::File,
        digest: commitment(&salt, VALUE.as_bytes()),
        name,
    }]);
    let document = secrets.unwrap().to_document().unwrap();
    let document = String::from_utf8(document).unwrap().replace('"', "\\\"");
    // Canonical JSON is an object or an array; what stands in it is the word that we want.
    let public = countersign_protocol::canonical::to_vec(&[to]).unwrap();
    let public = String::from_utf8(public).unwrap();
    let public = public.trim_matches(['[', ']']);
    format!(
        "{{\n  \"ledger\": \"{}\",\n  \"agent\": \"{}\",\n  \"requester\": \"{}\",\n  \"nonce\": \"{}\",\n  \
         \"private\": \"{}\",\n  \"sealing_key\": {public},\n  \"value\": \"{VALUE}\",\n  \
         \"document\": \"{document}\"\n}}\n",
        "01".repeat(32),
        "02".repeat(32),
        "03".repeat(32),
        "04".repeat(16),
        "09".repeat(32),
    )
}

#[test]
#[ignore = "writes tests/vectors/sealed.json anew"]
fn write_the_vector() {
    fs::write(path("sealed.json"), vector()).unwrap();
}

#[test]
fn the_vector_is_what_the_code_makes() {
    assert_eq!(fs::read_to_string(path("sealed.json")).unwrap(), vector());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the judge is another program")]
fn python_opens_the_vector_with_nothing_of_ours() {
    let judge = || {
        let mut python = Command::new("python3");
        python.arg(path("sealed.py"));
        python
    };
    let opened = judge().arg(path("sealed.json")).output().unwrap();
    assert_eq!(
        opened.stdout,
        b"ok\n",
        "{}",
        String::from_utf8_lossy(&opened.stderr)
    );
    // And it does look: the same box in another request does not open.
    let folder = std::env::temp_dir().join(format!("countersign-sealed-{}", std::process::id()));
    let moved = vector().replace(&"04".repeat(16), &"05".repeat(16));
    fs::write(&folder, moved).unwrap();
    let refused = judge().arg(&folder).output().unwrap();
    fs::remove_file(&folder).unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the tag differs"));
}
