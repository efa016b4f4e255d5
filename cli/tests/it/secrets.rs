//! Secrets are sealed to the key that a host enrolled with, and to none that a server names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_cli::acts::{RequestSpec, SecretSpec};
use countersign_cli::exit_code;
use countersign_protocol::secret::{Binding, Delivery, SealedSecret, SealedSecrets, commitment};
use countersign_sealing::seal;
use serde_json::Value;
use zeroize::Zeroizing;

use super::book::{Book, public, sealing};
use super::client;
use super::server::Server;

const VALUE: &str = "correct horse battery staple";

fn spec(host: &str) -> RequestSpec {
    let mut spec = RequestSpec::new(vec![host.parse().unwrap()], vec!["true".into()], "because");
    spec.secrets = vec![SecretSpec {
        name: "db.password".parse().unwrap(),
        delivery: Delivery::File,
        value: Zeroizing::new(VALUE.into()),
    }];
    spec
}

#[tokio::test]
async fn a_secret_reaches_the_log_sealed_and_its_host_opens_it() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let wanted = spec("web-1");
    assert!(!format!("{wanted:?}").contains("horse"));
    let id = alice.request(&wanted).await.unwrap().id;

    // Who approves is shown a name and a digest.
    let bob = client(&server, home.path(), "bob").await;
    let view = bob.check_approval(&id, None).await.unwrap();
    let sealed = view.secrets.as_ref().unwrap().here().unwrap();
    let secret = &sealed.secrets()[0];
    let shown = countersign_cli::describe::act(&view);
    let line = format!(
        "db.password as a file, sealed to 1 of the hosts; digest {}",
        secret.digest
    );
    assert!(shown.contains(&line), "{shown}");
    assert!(!shown.contains("horse"));
    bob.approve(&id, None).await.unwrap();

    let request = view.command.request.clone();
    let binding = Binding {
        ledger: request.ledger,
        agent: public("web-1").key_id(),
        requester: request.signer,
        nonce: request.nonce,
    };
    let own = secret.for_key(&binding.agent).unwrap();
    let opened = sealing("web-1").open(own, (&binding, &secret.name), &secret.digest);
    assert_eq!(*opened.unwrap(), VALUE.as_bytes());
    let document = sealed.to_document().unwrap();
    assert!(!String::from_utf8(document).unwrap().contains("horse"));
}

/// The server is asked for the rights, and the sealing key in them is its own.
#[tokio::test]
async fn a_key_that_the_server_put_in_the_place_of_a_hosts_is_found_before_anything_is_sealed() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let encoded = |host: &str| STANDARD.encode(sealing(host).public().unwrap().as_bytes());
    let (good, bad) = (encoded("web-1"), encoded("the server's own"));
    server.lies(move |path, _status, body| {
        if !path.ends_with("/streams/rights") {
            return;
        }
        for item in body["entries"].as_array_mut().unwrap() {
            let bytes = STANDARD.decode(item["entry"].as_str().unwrap()).unwrap();
            let Some(at) = bytes.windows(44).position(|piece| piece == good.as_bytes()) else {
                continue;
            };
            let mut bytes = bytes;
            bytes[at..at + 44].copy_from_slice(bad.as_bytes());
            item["entry"] = Value::from(STANDARD.encode(bytes));
        }
    });
    let failure = alice.request(&spec("web-1")).await.unwrap_err();
    assert_eq!(failure.exit, exit_code::TAMPERING, "{failure}");
    assert_eq!(server.signed(), 0);
}

#[tokio::test]
async fn a_host_without_a_sealing_key_gets_no_secret() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let failure = alice.request(&spec("web-2")).await.unwrap_err();
    assert_eq!(failure.code, "no_sealing_key", "{failure}");
    assert_eq!(server.signed(), 0);
}

/// A request by another client, whose boxes are for somebody else than its targets.
#[tokio::test]
async fn boxes_for_others_than_the_targets_are_not_approved() {
    let mut book = Book::ready();
    let (name, salt) = ("db.password".parse().unwrap(), [7; 32]);
    let binding = Binding {
        ledger: book.ledger(),
        agent: public("web-2").key_id(),
        requester: public("alice").key_id(),
        nonce: countersign_protocol::name::Nonce::new([1; 16]),
    };
    let to = sealing("web-2").public().unwrap();
    let drawn = Zeroizing::new([8; 32]);
    let sealed = seal((&salt, VALUE.as_bytes()), (&binding, &name), &to, drawn).unwrap();
    let secret = SealedSecret {
        boxes: vec![sealed],
        delivery: Delivery::File,
        digest: commitment(&salt, VALUE.as_bytes()),
        name,
    };
    let document = SealedSecrets::new(vec![secret])
        .unwrap()
        .to_document()
        .unwrap();
    let id = book.request_with("alice", &["web-1"], &["true"], Some(&document));
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let bob = client(&server, home.path(), "bob").await;
    let failure = bob.approve(&id, None).await.unwrap_err();
    assert_eq!(failure.code, "secret_targets", "{failure}");
    assert_eq!(server.signed(), 0);
}
