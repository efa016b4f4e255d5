//! Connections that take too long, are too many, or begin with too much.

use std::time::Duration;

use countersign::http::{ConnectionLimits, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::support::{TestLedger, TestServer};

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";

async fn with(limits: ConnectionLimits) -> TestServer {
    let transport = Transport {
        limits,
        ..Transport::default()
    };
    TestServer::with(TestLedger::ready().await, transport, &[]).await
}

/// What comes until the other side ends it.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    // A reset is an end too.
    assert!(read.is_ok(), "the server does not end it after {answer:?}");
    answer
}

/// Whether a connection is let in and answered; it stays open.
async fn is_answered(stream: &mut TcpStream) -> bool {
    if stream.write_all(HEALTH).await.is_err() {
        return false;
    }
    let mut piece = [0; 1024];
    let read = timeout(Duration::from_secs(5), stream.read(&mut piece)).await;
    read.unwrap().is_ok_and(|count| count > 0)
}

async fn from(source: &str, server: &TestServer) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    let address = server.address().parse().unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut() {
    let server = with(ConnectionLimits {
        head: Duration::from_millis(500),
        ..ConnectionLimits::default()
    })
    .await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let begun = Instant::now();
    // A byte each 50 ms: it never ends, and no pause is long.
    let cut = loop {
        if stream.write_all(b"x").await.is_err() || begun.elapsed() > Duration::from_secs(5) {
            break begun.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(cut < Duration::from_secs(2), "{cut:?}");
    // One that is quick is answered, and may not wait for ever for its next.
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    assert!(is_answered(&mut stream).await);
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = with(ConnectionLimits::default()).await;
    for (count, size) in [(65, 1), (2, 40_000)] {
        let line = format!("x-more: {}\r\n", "a".repeat(size));
        let request = format!("GET /health HTTP/1.1\r\n{}\r\n", line.repeat(count));
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{count}: {answer}");
    }
}

#[tokio::test]
async fn connections_are_bounded_for_one_address_and_for_all() {
    let server = with(ConnectionLimits {
        all: 4,
        of_one: 3,
        ..ConnectionLimits::default()
    })
    .await;
    let mut open = Vec::new();
    for _each in 0..3 {
        let mut stream = from("127.0.0.1", &server).await;
        assert!(is_answered(&mut stream).await);
        open.push(stream);
    }
    let mut fourth = from("127.0.0.1", &server).await;
    assert!(!is_answered(&mut fourth).await, "one address has them all");
    let mut other = from("127.0.0.2", &server).await;
    assert!(is_answered(&mut other).await, "another one has a place");
    let mut fifth = from("127.0.0.3", &server).await;
    assert!(!is_answered(&mut fifth).await, "more than there are");
    // Those that are open go on, and a place that is given back is there again.
    assert!(is_answered(&mut open[0]).await);
    drop(open.pop());
    let begun = Instant::now();
    loop {
        let mut next = from("127.0.0.1", &server).await;
        if is_answered(&mut next).await {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "no place again");
    }
}

#[tokio::test]
async fn a_proxys_address_has_all_connections_there_are() {
    let transport = Transport {
        behind_proxy: true,
        limits: ConnectionLimits {
            all: 4,
            of_one: 1,
            ..ConnectionLimits::default()
        },
        ..Transport::default()
    };
    let server = TestServer::with(TestLedger::ready().await, transport, &[]).await;
    let mut open = Vec::new();
    for _each in 0..4 {
        let mut stream = from("127.0.0.1", &server).await;
        assert!(is_answered(&mut stream).await);
        open.push(stream);
    }
}
