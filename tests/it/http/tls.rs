//! TLS of the server's own: which versions, whose certificate, and files that change.

use std::sync::Arc;
use std::time::Duration;

use countersign::http::{ConnectionLimits, Tls, TlsError, TlsFiles, Transport};
use countersign::server::{Options, Server, StartError, Way};
use countersign_cli::client::Http;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::certificates::{Authority, put};
use crate::folder::Folder;
use crate::support::server::problem;
use crate::support::{TestLedger, TestServer};

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// How often these servers look at their files.
const LOOK: Duration = Duration::from_millis(100);

/// By now they have, twice and more.
const LOOKED_TWICE: Duration = Duration::from_secs(1);

struct Served {
    server: TestServer,
    authority: Authority,
    folder: Folder,
    files: TlsFiles,
}

fn files(folder: &Folder, authority: &Authority, names: &[&str]) -> TlsFiles {
    let (cert, key) = authority.issue(names).files(folder.path());
    TlsFiles { cert, key }
}

async fn served(names: &[&str], limits: ConnectionLimits) -> Served {
    let (authority, folder) = (Authority::new(), Folder::new("tls"));
    let files = files(&folder, &authority, names);
    let transport = Transport {
        tls: Some(Tls::open(files.clone()).unwrap().looking_every(LOOK)),
        limits,
        ..Transport::default()
    };
    let book = TestLedger::ready().await;
    Served {
        server: TestServer::with(book, transport, &[]).await,
        authority,
        folder,
        files,
    }
}

async fn at_loopback() -> Served {
    served(&["127.0.0.1"], ConnectionLimits::default()).await
}

impl Served {
    async fn connect(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.server.address()).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// The certificate that a new connection gets.
    async fn certificate(&self) -> Vec<u8> {
        let stream = self.connect(&BOTH).await.unwrap();
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        chain[0].to_vec()
    }

    /// What a client of the CLI hears, with a CA file.
    async fn ask(&self, server: &str, ca: &Authority) -> Result<serde_json::Value, String> {
        let way = countersign_cli::tls::Way {
            ca: Some(ca.file(self.folder.path())),
            insecure_http: false,
        };
        let http = Http::new(server, &way).unwrap();
        let answer = http.get("/health", &[], None).await;
        answer.map_err(|error| error.to_string())
    }

    /// A connection, and what comes back for some bytes until the server closes it.
    async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.server.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        // A reset is an end too.
        let _ended = read.expect("the server ends it");
        answer
    }
}

/// `GET /health`, and the first line of the answer.
async fn health(stream: &mut TlsStream<TcpStream>) -> String {
    let request = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    while !answer.contains("{\"status\":\"ok\"}") {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "{answer}");
        answer.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    answer.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn tls_1_3_and_1_2_are_spoken() {
    let served = at_loopback().await;
    for (version, expected) in [
        (&TLS13, ProtocolVersion::TLSv1_3),
        (&TLS12, ProtocolVersion::TLSv1_2),
    ] {
        let mut stream = served.connect(&[version]).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        assert_eq!(health(&mut stream).await, "HTTP/1.1 200 OK");
    }
}

#[tokio::test]
async fn tls_1_1_and_clear_text_are_not() {
    let served = at_loopback().await;
    // A ClientHello of TLS 1.1: two suites that 1.2 has too, no compression; an algorithm and a
    // curve that 1.2 has too.
    let suites = [0x00, 0x04, 0xc0, 0x2f, 0xc0, 0x13];
    let extensions = [0, 16, 0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 23];
    let hello = [&[3, 2][..], &[7; 32], &[0], &suites, &[1, 0], &extensions].concat();
    let length = u8::try_from(hello.len()).unwrap();
    let message = [&[1, 0, 0, length][..], &hello].concat();
    let record = [&[22, 3, 1, 0, length + 4][..], &message].concat();
    let answer = served.raw(&record).await;
    // A fatal alert: protocol_version.
    assert_eq!(answer.get(..7), Some(&[21, 3, 3, 0, 2, 2, 70][..]));
    let answer = served.raw(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(
        !String::from_utf8_lossy(&answer).contains("HTTP"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn only_a_certificate_that_fits_is_believed_and_the_reason_is_a_sentence() {
    let served = at_loopback().await;
    let url = served.server.url();
    let told = served.ask(url, &served.authority).await;
    assert_eq!(told.unwrap()["status"], "ok");
    for other in [Authority::named("another CA"), Authority::new()] {
        let told = served.ask(url, &other).await.unwrap_err();
        assert!(
            told.contains("not issued by a CA that is trusted here"),
            "{told}"
        );
    }
    let by_name = url.replace("127.0.0.1", "localhost");
    let told = served.ask(&by_name, &served.authority).await.unwrap_err();
    assert!(told.contains("for another name"), "{told}");
    let expired = served.authority.issue_until(&["127.0.0.1"], 2020);
    expired.files(served.folder.path());
    tokio::time::sleep(LOOKED_TWICE).await;
    let told = served.ask(url, &served.authority).await.unwrap_err();
    assert!(told.contains("has expired"), "{told}");
}

#[tokio::test]
async fn a_new_certificate_serves_without_a_restart_and_open_connections_go_on() {
    let served = at_loopback().await;
    let before = served.certificate().await;
    let mut open = served.connect(&BOTH).await.unwrap();
    assert_eq!(health(&mut open).await, "HTTP/1.1 200 OK");
    let renewed = served.authority.issue(&["127.0.0.1"]);
    renewed.files(served.folder.path());
    tokio::time::sleep(LOOKED_TWICE).await;
    let after = served.certificate().await;
    assert_ne!(before, after);
    let expected = CertificateDer::from_pem_slice(renewed.cert.as_bytes()).unwrap();
    assert_eq!(after, expected.to_vec());
    assert_eq!(health(&mut open).await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_pair_that_does_not_serve_leaves_the_old_one() {
    let served = at_loopback().await;
    let before = served.certificate().await;
    let (one, other) = (
        served.authority.issue(&["127.0.0.1"]),
        served.authority.issue(&["127.0.0.1"]),
    );
    let TlsFiles { cert, key } = &served.files;
    // Half a pair; a key that others read; no certificate; no file.
    put(cert, &one.cert, 0o644);
    tokio::time::sleep(LOOKED_TWICE).await;
    assert_eq!(served.certificate().await, before);
    put(key, &one.key, 0o644);
    tokio::time::sleep(LOOKED_TWICE).await;
    assert_eq!(served.certificate().await, before);
    put(cert, "nothing", 0o644);
    put(key, &other.key, 0o600);
    tokio::time::sleep(LOOKED_TWICE).await;
    assert_eq!(served.certificate().await, before);
    std::fs::remove_file(cert).unwrap();
    tokio::time::sleep(LOOKED_TWICE).await;
    assert_eq!(served.certificate().await, before);
    // Whole again.
    put(cert, &other.cert, 0o644);
    tokio::time::sleep(LOOKED_TWICE).await;
    assert_ne!(served.certificate().await, before);
}

#[test]
fn files_that_cannot_serve_are_told_at_the_start() {
    let (authority, folder) = (Authority::new(), Folder::new("tls"));
    let files = files(&folder, &authority, &["127.0.0.1"]);
    assert!(Tls::open(files.clone()).is_ok());
    let open = || Tls::open(files.clone()).unwrap_err();
    let key = std::fs::read_to_string(&files.key).unwrap();
    for mode in [0o604, 0o644, 0o620] {
        put(&files.key, &key, mode);
        let told = open().to_string();
        let line = format!("chmod 600 {}", files.key.display());
        assert!(told.contains(&line), "{mode:o}: {told}");
    }
    // A group that its operator made may read it.
    put(&files.key, &key, 0o640);
    assert!(Tls::open(files.clone()).is_ok());
    put(&files.key, &authority.issue(&["127.0.0.1"]).key, 0o600);
    assert!(matches!(open(), TlsError::Mismatch { .. }));
    put(&files.key, &authority.pem, 0o600);
    assert!(matches!(open(), TlsError::NoKey(_)));
    put(&files.cert, &key, 0o644);
    assert!(matches!(open(), TlsError::NoCertificate(_)));
    std::fs::remove_file(&files.cert).unwrap();
    assert!(matches!(open(), TlsError::Read { .. }));
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut() {
    let limits = ConnectionLimits {
        handshake: Duration::from_millis(300),
        ..ConnectionLimits::default()
    };
    let served = served(&["127.0.0.1"], limits).await;
    assert_eq!(served.raw(&[22]).await, b"");
}

#[tokio::test]
async fn a_sign_in_over_tls_names_the_https_address() {
    let served = at_loopback().await;
    let ca = reqwest::Certificate::from_pem(served.authority.pem.as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([ca])
        .build()
        .unwrap();
    let server = served.server.using(client);
    assert_eq!(server.url().split_once(':').unwrap().0, "https");
    let token = server.sign_in("alice").await;
    assert_eq!(server.get_as(&token, "/v1/inbox").await.status(), 200);
    let in_clear = server.url().replace("https:", "http:");
    let answer = server.answer_at("alice", &in_clear).await;
    assert_eq!(
        problem(server.sign_in_with(&answer).await).await,
        (403, "origin".into())
    );
}

async fn start(listen: &str, way: Way) -> StartError {
    let options = Options {
        database: "nothing".to_owned().into(),
        keys: "nowhere".into(),
        checkpoint_file: "nowhere".into(),
        start: countersign::ledger::StartRule::FileRequired,
        listen: listen.parse().unwrap(),
        witness_policy: None,
        feed: None,
        way,
        clock: countersign::clock::Clock::system(),
    };
    Server::start(options, CancellationToken::new())
        .await
        .expect_err("there is no such database")
}

#[tokio::test]
async fn clear_text_is_for_loopback_unless_a_proxy_ends_tls() {
    let public_urls = vec!["https://ledger.example.com".parse().unwrap()];
    for listen in ["0.0.0.0:0", "192.0.2.1:7070", "[::]:0"] {
        let public_urls = public_urls.clone();
        let way = Way {
            public_urls,
            ..Way::default()
        };
        let told = start(listen, way.clone()).await;
        assert!(matches!(told, StartError::InClear(_)), "{told}");
        for way_out in ["--tls-cert", "--listen 127.0.0.1:7070", "--behind-proxy"] {
            assert!(told.to_string().contains(way_out), "{told}");
        }
        let behind_proxy = Way {
            behind_proxy: true,
            ..way
        };
        let told = start(listen, behind_proxy).await;
        assert!(matches!(told, StartError::Database(_)), "{told}");
    }
    let told = start("127.0.0.1:0", Way::default()).await;
    assert!(matches!(told, StartError::Database(_)), "{told}");
    // Whoever is met elsewhere says where, or nobody could sign in.
    let nameless = Way {
        behind_proxy: true,
        ..Way::default()
    };
    let told = start("127.0.0.1:0", nameless).await;
    assert!(told.to_string().contains("--public-url"), "{told}");
}
