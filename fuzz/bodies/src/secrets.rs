//! What a request hands over: the document of sealed secrets, and what stands inside a box.

use std::sync::LazyLock;

use countersign_protocol::blob::BlobRef;
use countersign_protocol::command::Act;
use countersign_protocol::entry::Entry;
use countersign_protocol::event::Event;
use countersign_protocol::hash::{Digest, KeyId};
use countersign_protocol::secret::{
    Delivery, MAX_SECRET_BYTES, MAX_SECRETS, MIN_SECRET_BYTES, SealedSecrets, SecretError,
    SecretName, parse_plaintext, plaintext,
};
use countersign_protocol::target::{TargetLine, TargetList};

use crate::story::story;

/// The act of some request of the story, with and without a text for standard input.
static ACTS: LazyLock<[Act; 2]> = LazyLock::new(|| {
    let mut entries = story().entries.iter();
    let act = entries.find_map(|entry| {
        let statement = Entry::decode(&entry.0).unwrap().statement;
        let event = Event::parse(statement.kind, &statement.payload).unwrap();
        let Event::CommandRequested(request) = event else {
            return None;
        };
        Some(request.act)
    });
    let named = BlobRef {
        digest: Digest::new([1; 32]),
        len: 1,
    };
    let quiet = Act {
        stdin: None,
        ..act.unwrap()
    };
    let speaking = Act {
        stdin: Some(named),
        ..quiet.clone()
    };
    [quiet, speaking]
});

/// The document has one encoding and keeps its limits, and so does what is sealed into a box.
pub fn secrets(data: &[u8]) {
    let [quiet, speaking] = &*ACTS;
    let read = SealedSecrets::parse(data, quiet);
    let beside_text = SealedSecrets::parse(data, speaking);
    match &read {
        Ok(sealed) => {
            let takes_stdin = promises(sealed, data);
            match beside_text {
                Ok(again) => assert!(again == *sealed && !takes_stdin),
                Err(error) => assert!(error == SecretError::Stdin && takes_stdin),
            }
        }
        Err(error) => assert_eq!(beside_text.as_ref(), Err(error)),
    }
    if let Ok((salt, value)) = parse_plaintext(data) {
        assert!((MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&value.len()));
        assert_eq!(plaintext(salt, value).as_deref(), Ok(data));
    }
}

/// What holds of a document that was read; whether one of its secrets goes to standard input.
fn promises(sealed: &SealedSecrets, data: &[u8]) -> bool {
    assert_eq!(sealed.to_document().as_deref(), Ok(data));
    let secrets = sealed.secrets();
    assert_eq!(
        SealedSecrets::new(secrets.to_vec()).as_ref(),
        Ok(sealed),
        "sorted already"
    );
    assert!((1..=MAX_SECRETS).contains(&secrets.len()));
    assert!(
        secrets
            .windows(2)
            .all(|pair| pair[0].name.as_str() < pair[1].name.as_str())
    );
    for secret in secrets {
        let name = secret.name.as_str();
        assert_eq!(name.parse::<SecretName>().as_ref(), Ok(&secret.name));
        // It becomes the name of a file.
        assert!(!name.starts_with('.') && !name.contains(['/', '\0']));
        assert!(secret.delivery != Delivery::Env || is_variable(name));
        let length = secret.boxes[0].ciphertext.0.len();
        assert!((MIN_SECRET_BYTES..MAX_SECRET_BYTES + 512).contains(&length));
        for sealed in &secret.boxes {
            // A host finds its own box and no other one.
            assert_eq!(secret.for_key(&sealed.key_id), Some(sealed));
            assert_eq!(sealed.enc.0.len(), 32);
            // The length tells neither one host from another nor much about the value.
            assert!(sealed.ciphertext.0.len() == length && (length - 16).is_multiple_of(256));
        }
    }
    targets(sealed);
    let on_stdin = secrets.iter().filter(|one| one.delivery == Delivery::Stdin);
    let on_stdin = on_stdin.count();
    assert!(on_stdin <= 1);
    on_stdin == 1
}

/// Boxes are for all targets and nobody else: one more or one less does not pass.
fn targets(sealed: &SealedSecrets) {
    let keys_of = |at: usize| {
        let boxes = sealed.secrets()[at].boxes.iter();
        boxes.map(|sealed| sealed.key_id).collect::<Vec<KeyId>>()
    };
    let first = keys_of(0);
    let alike = (1..sealed.secrets().len()).all(|at| keys_of(at) == first);
    let list = |keys: &[KeyId]| {
        let line = |(number, key_id): (usize, &KeyId)| TargetLine {
            agent: format!("host-{number}").parse().unwrap(),
            key_id: *key_id,
            service: None,
            spec: Digest::new([0; 32]),
            turn: None,
            facts: None,
        };
        TargetList::new(keys.iter().enumerate().map(line).collect())
    };
    if let Ok(list) = list(&first) {
        assert_eq!(sealed.check_targets(&list).is_ok(), alike);
    }
    if let Ok(fewer) = list(&first[1..]) {
        assert!(sealed.check_targets(&fewer).is_err());
    }
    let mut more = first;
    more.push(KeyId::new([0x77; 32]));
    if let Ok(more) = list(&more) {
        assert!(sealed.check_targets(&more).is_err());
    }
}

fn is_variable(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(fits) && !name.starts_with(|first: char| first.is_ascii_digit())
}
