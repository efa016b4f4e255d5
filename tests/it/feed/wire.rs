//! Syslog: RFC 5424 in frames and datagrams, read by a parser that is not ours (`rfc5424.py`).

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::support::{Fed, until};
use crate::certificates::Authority;
use crate::support::TestLedger;

fn sink(to: &str, more: &str) -> String {
    format!(
        "[[sink]]\nname = \"siem\"\nkind = \"syslog\"\nto = \"{to}\"\nfrom = \"start\"\nkinds = [\"*\"]\n{more}\n"
    )
}

#[expect(clippy::disallowed_methods, reason = "the tests start python3")]
fn parsed(how: &str, bytes: &[u8]) -> Result<Vec<Value>, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/feed/rfc5424.py");
    let mut child = Command::new("python3")
        .args([script, how])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    Ok(text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect())
}

fn seq(message: &Value) -> u64 {
    message["data"]["countersign@32473"]["seq"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// What a message says in its header and its data is what its text says.
fn agrees(message: &Value) {
    let text: Value = serde_json::from_str(message["text"].as_str().unwrap()).unwrap();
    let data = &message["data"]["countersign@32473"];
    for name in ["ledger", "id", "kind", "time", "leaf"] {
        assert_eq!(text[name], data[name], "{name}");
    }
    assert_eq!(text["seq"].to_string(), data["seq"].as_str().unwrap());
    assert_eq!(
        (&message["msgid"], &message["time"]),
        (&data["kind"], &data["time"])
    );
    assert_eq!(
        (&message["app"], &message["host"]),
        (&"countersign".into(), &"test.example.com".into())
    );
    let priority: u8 = message["pri"].as_str().unwrap().parse().unwrap();
    assert_eq!(priority / 8, 13);
}

type Heard = Arc<Mutex<Vec<u8>>>;

async fn hear(mut stream: impl AsyncRead + Unpin, heard: Heard) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        heard.lock().unwrap().extend(&piece[..read]);
    }
}

/// Says it all: quotes, brackets, backslashes, letters of others, control characters.
async fn with_a_wild_reason() -> TestLedger {
    let book = TestLedger::ready().await;
    let reason = "\"]\\ gr\u{fc}\u{df}e \u{1f600} \u{1b}[2J\u{202e}\n<1>1 forged".as_bytes();
    book.send(book.request_running(&["echo", "a b"], reason).0)
        .await
        .unwrap();
    book
}

#[tokio::test]
async fn over_tcp_each_message_stands_in_a_frame_of_its_length() {
    let book = with_a_wild_reason().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = format!("tcp://{}", listener.local_addr().unwrap());
    let heard = Heard::default();
    let hearing = Arc::clone(&heard);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        hear(stream, hearing).await;
    });
    let fed = Fed::start(&book, &sink(&to, "texts = true")).await;
    fed.caught_up(&book).await;
    fed.stop().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let bytes = heard.lock().unwrap().clone();
    let messages = parsed("frames", &bytes).unwrap();
    let size = book.ledger.newest().size();
    assert_eq!(
        messages.iter().map(seq).collect::<Vec<u64>>(),
        (0..size).collect::<Vec<u64>>()
    );
    messages.iter().for_each(agrees);
    let last: Value =
        serde_json::from_str(messages.last().unwrap()["text"].as_str().unwrap()).unwrap();
    assert_eq!(last["texts"]["command"], "echo 'a b'");
    let reason = "\"]\\ gr\u{fc}\u{df}e \u{1f600} \\x1b[2J\\u{202e}\\n<1>1 forged";
    assert_eq!(last["texts"]["reason"], reason);
    // The parser takes nothing that is not whole.
    assert!(parsed("frames", &bytes[..bytes.len() - 1]).is_err());
    assert!(parsed("frames", &[b"1".to_vec(), bytes].concat()).is_err());
}

#[tokio::test]
async fn a_receiver_that_hung_up_is_called_again() {
    let book = TestLedger::ready().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = format!("tcp://{}", listener.local_addr().unwrap());
    let (heard, lines) = (Heard::default(), Arc::new(Mutex::new(0)));
    let (hearing, counted) = (Arc::clone(&heard), Arc::clone(&lines));
    tokio::spawn(async move {
        // The first connection is dropped at once, the second after it has heard everything.
        for reads in [false, true, true] {
            let (stream, _) = listener.accept().await.unwrap();
            *counted.lock().unwrap() += 1;
            if reads {
                let one = hear(stream, Arc::clone(&hearing));
                let _late = tokio::time::timeout(Duration::from_millis(500), one).await;
            }
        }
    });
    let fed = Fed::start(&book, &sink(&to, "")).await;
    fed.caught_up(&book).await;
    // Nothing is on its way when the second ends, so nothing is lost.
    tokio::time::sleep(Duration::from_millis(800)).await;
    book.send(book.request().0).await.unwrap();
    fed.caught_up(&book).await;
    until("the third call came", || *lines.lock().unwrap() == 3).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let messages = parsed("frames", &heard.lock().unwrap()).unwrap();
    assert_eq!(
        seq(messages.last().unwrap()),
        book.ledger.newest().size() - 1
    );
}

#[tokio::test]
async fn over_udp_each_message_is_a_datagram() {
    let book = with_a_wild_reason().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = format!("udp://{}", socket.local_addr().unwrap());
    let fed = Fed::start(&book, &sink(&to, "")).await;
    let size = book.ledger.newest().size();
    let mut piece = vec![0; 64 * 1024];
    for expected in 0..size {
        let read = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut piece));
        let read = read.await.unwrap().unwrap();
        let message = parsed("datagram", &piece[..read]).unwrap().remove(0);
        assert_eq!(seq(&message), expected);
        agrees(&message);
    }
    fed.caught_up(&book).await;
}

/// What a receiver shows of itself.
fn identity(
    authority: &Authority,
    name: &str,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let pair = authority.issue(&[name]);
    let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    (chain.unwrap(), key)
}

#[tokio::test]
async fn over_tls_only_the_pinned_ca_is_believed() {
    let book = TestLedger::ready().await;
    let authority = Authority::new();
    authority.file(book.folder.path());
    let _second = rustls::crypto::ring::default_provider().install_default();
    let start = async |authority: &Authority, name: &str| {
        let (chain, key) = identity(authority, name);
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("tls://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let heard = Heard::default();
        let hearing = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(stream) = acceptor.accept(stream).await {
                    hear(stream, Arc::clone(&hearing)).await;
                }
            }
        });
        (to, heard)
    };
    for (issuer, name) in [(Authority::new(), "127.0.0.1"), (authority, "127.0.0.2")] {
        let (to, heard) = start(&issuer, name).await;
        let fed = Fed::start(&book, &sink(&to, "ca = \"ca.pem\"")).await;
        fed.state("retrying").await;
        assert_eq!(fed.report().error, Some("unreachable"));
        fed.stop().await;
        assert!(heard.lock().unwrap().is_empty());
        if name == "127.0.0.2" {
            let (to, heard) = start(&issuer, "127.0.0.1").await;
            let fed = Fed::start(&book, &sink(&to, "ca = \"ca.pem\"\nformat = \"ocsf\"")).await;
            fed.caught_up(&book).await;
            let size = book.ledger.newest().size();
            let heard = || parsed("frames", &heard.lock().unwrap()).unwrap_or_default();
            until("all is heard", || heard().len() as u64 == size).await;
            let first: Value = serde_json::from_str(heard()[0]["text"].as_str().unwrap()).unwrap();
            assert_eq!(first["class_uid"], 6002);
        }
    }
}

/// A receiver that asks who is calling.
#[tokio::test]
async fn a_receiver_that_demands_a_certificate_is_shown_one() {
    let book = TestLedger::ready().await;
    let folder = book.folder.path();
    let authority = Authority::new();
    authority.file(folder);
    authority.issue(&["feed.example.com"]).files(folder);
    let _second = rustls::crypto::ring::default_provider().install_default();
    let (chain, key) = identity(&authority, "127.0.0.1");
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::from_pem_slice(authority.pem.as_bytes()));
    let demanded = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots))
        .build()
        .unwrap();
    let config = ServerConfig::builder()
        .with_client_cert_verifier(demanded)
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = format!("tls://{}", listener.local_addr().unwrap());
    let heard = Heard::default();
    let hearing = Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                hear(stream, Arc::clone(&hearing)).await;
            }
        }
    });
    let with = "ca = \"ca.pem\"\ncert = \"cert.pem\"\nkey = \"key.pem\"";
    let fed = Fed::start(&book, &sink(&to, with)).await;
    fed.caught_up(&book).await;
    let size = book.ledger.newest().size();
    let told = || {
        parsed("frames", &heard.lock().unwrap())
            .unwrap_or_default()
            .len() as u64
    };
    until("all is heard", || told() == size).await;
    fed.stop().await;
}
