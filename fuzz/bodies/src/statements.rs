//! Pieces of the protocol: whatever is read has one encoding, and that is what was read.

use countersign_protocol::audit;
use countersign_protocol::blob::MAX_BLOB_BYTES;
use countersign_protocol::canonical;
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody, Origin, VerifierKey};
use countersign_protocol::command::{CommandSpec, Environment};
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::{Event, Kind};
use countersign_protocol::facts::Facts;
use countersign_protocol::key::{self, PublicKey};
use countersign_protocol::name::{AgentName, OsUser, Principal};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::short;
use countersign_protocol::sshsig::SshSig;
use countersign_protocol::statement::Statement;
use countersign_protocol::target::TargetLine;

use crate::story::{story, vkey};

/// A signature blob, binary or armoured. Nobody else's signature speaks for what people have signed.
pub fn sshsig(data: &[u8]) {
    if let Ok(signature) = SshSig::from_blob(data) {
        assert_eq!(signature.to_blob(), data);
        assert_eq!(
            SshSig::from_armour(&signature.to_armour()),
            Ok(signature.clone())
        );
        // A signature of the story's keys is one of the story's, and for one payload only.
        let mut holds = 0;
        for entry in &story().entries {
            let said = Entry::decode(&entry.0).unwrap();
            let ours = signature.key().key_id() == said.key_id;
            let namespace = said.statement.kind.namespace();
            if ours && signature.verify(namespace, &said.statement.payload).is_ok() {
                assert_eq!(data, said.statement.signature, "a second signature");
                holds += 1;
            }
        }
        assert!(holds <= 1);
    }
    if let Ok(text) = str::from_utf8(data)
        && let Ok(signature) = SshSig::from_armour(text)
    {
        assert_eq!(SshSig::from_blob(&signature.to_blob()), Ok(signature));
    }
}

/// An entry's bytes.
pub fn entry(data: &[u8]) {
    if let Ok(entry) = Entry::decode(data) {
        assert_eq!(entry.encode().as_deref(), Ok(data));
    }
    if let Ok(checked) = audit::check_entry(data) {
        assert_eq!(checked.leaf, entry::leaf(data));
        let known = story().entries.iter().any(|entry| {
            let entry = Entry::decode(&entry.0).unwrap();
            entry.statement == *checked.verified.statement()
        });
        let stranger = story().entries.iter().all(|entry| {
            Entry::decode(&entry.0).unwrap().key_id != checked.verified.key().key_id()
        });
        assert!(known || stranger, "words that nobody signed");
    }
}

/// A statement: its namespace, a newline, its payload.
pub fn payload(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n');
    let (namespace, payload) = data.split_at(at.unwrap_or(data.len()));
    let payload = payload.strip_prefix(b"\n").unwrap_or_default();
    let canonical = canonical::check_payload(payload);
    let Ok(kind) = str::from_utf8(namespace)
        .map_err(drop)
        .and_then(|namespace| Kind::from_namespace(namespace).map_err(drop))
    else {
        return;
    };
    if let Ok(event) = Event::parse(kind, payload) {
        assert_eq!(canonical, Ok(()));
        assert_eq!(event.kind(), kind);
        assert_eq!(event.to_payload().as_deref(), Ok(payload));
        let header = event.header();
        assert_eq!(header.ledger.is_none(), matches!(kind, Kind::LedgerGenesis));
        let _blobs = event.blobs();
    }
    let unsigned = Statement {
        kind,
        payload: payload.to_vec(),
        signature: Vec::new(),
    };
    assert!(unsigned.verify().is_err(), "believed without a signature");
}

/// Documents in blobs: command specs, environments, changes of rights, target lines.
pub fn documents(data: &[u8]) {
    let checked = canonical::check_document(data, MAX_BLOB_BYTES);
    if let Ok(spec) = canonical::from_document::<CommandSpec>(data, MAX_BLOB_BYTES) {
        assert_eq!(canonical::to_vec(&spec).as_deref(), Ok(data));
        if spec.check().is_ok() {
            assert_eq!(spec.to_document().as_deref(), Ok(data));
        }
    }
    if let Ok(environment) = Environment::parse(data) {
        assert_eq!(environment.to_document().as_deref(), Ok(data));
        for (name, value) in environment.variables() {
            assert!(!name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
        }
    }
    if let Ok(change) = ChangeBody::parse(data) {
        assert_eq!(change.to_document().as_deref(), Ok(data));
        assert_eq!(checked, Ok(()));
    }
    if let Ok(line) = canonical::from_document::<TargetLine>(data, MAX_BLOB_BYTES) {
        assert_eq!(canonical::to_vec(&line).as_deref(), Ok(data));
        assert_eq!(checked, Ok(()));
    }
    if let Ok(facts) = Facts::parse(data) {
        assert_eq!(facts.to_document().as_deref(), Ok(data));
        assert!(
            facts
                .iter()
                .all(|(_, value)| !value.as_str().starts_with('-'))
        );
    }
    if let (Ok(()), Ok(value)) = (checked, serde_json::from_slice::<serde_json::Value>(data)) {
        assert_eq!(canonical::to_vec(&value).as_deref(), Ok(data));
    }
}

/// A checkpoint's note, its parts, and names. Only what the pinned key signed opens.
pub fn note(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(body) = text.parse::<CheckpointBody>() {
        assert_eq!(body.to_string(), text);
    }
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(checkpoint) = Checkpoint::open(text, vkey()) {
        let true_note = &story().grants[0].0.stream.checkpoint;
        let true_body = Checkpoint::open(true_note, vkey()).unwrap();
        assert_eq!(checkpoint.body(), true_body.body());
        assert!(text.starts_with(&checkpoint.body().to_string()));
    }
    names(text);
}

fn names(text: &str) {
    if let Ok(name) = text.parse::<Origin>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(name) = text.parse::<AgentName>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(name) = text.parse::<Principal>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(name) = text.parse::<OsUser>() {
        assert_eq!(name.as_str(), text);
    }
    let _short = short::parse(text);
}

/// Public keys as blobs and lines, private keys as OpenSSH keeps them.
pub fn keys(data: &[u8]) {
    if let Ok(key) = PublicKey::from_blob(data) {
        assert_eq!(key.to_blob(), data);
        assert_eq!(PublicKey::from_openssh(&key.to_openssh()), Ok(key));
    }
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(key) = PublicKey::from_openssh(text) {
        assert_eq!(PublicKey::from_blob(&key.to_blob()), Ok(key.clone()));
        assert_eq!(PublicKey::from_openssh(&key.to_openssh()), Ok(key));
    }
    if let Ok(private) = key::from_openssh_private(text) {
        let again = key::to_openssh_private(&private, "again", 7);
        let again = key::from_openssh_private(&again).unwrap();
        assert_eq!(again.to_bytes(), private.to_bytes());
    }
}
