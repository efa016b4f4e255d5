//! How often one client may call, what it is told, and that clients of ours listen.

use std::time::Duration;

use countersign::http::Transport;
use countersign_cli::client::Http;
use countersign_protocol::hash::LedgerId;
use futures_util::StreamExt as _;
use reqwest::{Client, Method, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::statements::key;
use crate::support::server::problem;
use crate::support::{TestLedger, TestServer};

/// More than any burst that is used up here, and than what comes back meanwhile.
const MANY: usize = 6_000;

/// Calls under way at a time.
const AT_ONCE: usize = 64;

const CHALLENGE: &str = "/v1/sessions/challenge";

fn header(response: &Response, name: &str) -> String {
    response.headers()[name].to_str().unwrap().to_owned()
}

/// Calls, many at once, until one is refused; and how many were let in.
async fn exhaust<F: Future<Output = Response>>(call: impl FnMut(usize) -> F) -> (Response, usize) {
    let mut answers = futures_util::stream::iter(0..MANY)
        .map(call)
        .buffer_unordered(AT_ONCE);
    let mut let_in = 0;
    while let Some(response) = answers.next().await {
        if response.status() == 429 {
            return (response, let_in);
        }
        let_in += 1;
    }
    unreachable!("{MANY} calls were let in")
}

async fn behind_a_proxy() -> TestServer {
    let transport = Transport {
        behind_proxy: true,
        ..Transport::default()
    };
    TestServer::with(TestLedger::ready().await, transport, &[]).await
}

fn forwarded(server: &TestServer, list: &str) -> reqwest::RequestBuilder {
    let request = server.call(Method::POST, CHALLENGE);
    request.header("x-forwarded-for", list)
}

#[tokio::test]
async fn too_many_sign_ins_of_one_address_are_told_when_to_come_again() {
    let server = TestServer::start().await;
    let first = server.call(Method::POST, CHALLENGE).send().await.unwrap();
    assert_eq!(
        header(&first, "ratelimit-policy"),
        "\"sign-in\";q=1000;w=50"
    );
    assert_eq!(header(&first, "ratelimit"), "\"sign-in\";r=999;t=1");
    let call = |_count| async { server.call(Method::POST, CHALLENGE).send().await.unwrap() };
    let (refused, _let_in) = exhaust(call).await;
    assert_eq!(header(&refused, "retry-after"), "1");
    assert!(header(&refused, "ratelimit").starts_with("\"sign-in\";r=0;t="));
    assert_eq!(problem(refused).await, (429, "rate_limited".into()));
    // The other end of a sign-in is the same bucket; another address and the door are not.
    let call = |_count| async {
        let call = server.call(Method::POST, "/v1/sessions");
        call.send().await.unwrap()
    };
    let (_refused, let_in) = exhaust(call).await;
    assert!(let_in < 900, "{let_in}");
    let elsewhere = Client::builder()
        .no_proxy()
        .local_address(std::net::IpAddr::from([127, 0, 0, 2]))
        .build()
        .unwrap();
    let url = format!("{}{CHALLENGE}", server.url());
    assert_eq!(elsewhere.post(url).send().await.unwrap().status(), 200);
    let door = server.call(Method::POST, "/v1/statements").send().await;
    assert_eq!(door.unwrap().status(), 400);
    // After as long as it was told, it is let in.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let again = server.call(Method::POST, CHALLENGE).send().await.unwrap();
    assert_eq!(again.status(), 200);
}

#[tokio::test]
async fn what_anybody_may_read_and_is_long_is_not_read_without_end() {
    let server = TestServer::start().await;
    for path in ["/openapi.json", "/metrics"] {
        let first = server.call(Method::GET, path).send().await.unwrap();
        assert_eq!(first.status(), 200, "{path}");
        let policy = header(&first, "ratelimit-policy");
        assert_eq!(policy, "\"open\";q=100;w=10", "{path}");
    }
    let call = |_count| async {
        let call = server.call(Method::GET, "/openapi.json");
        call.send().await.unwrap()
    };
    let (refused, let_in) = exhaust(call).await;
    assert!(let_in < 1_000, "{let_in}");
    assert_eq!(problem(refused).await, (429, "rate_limited".into()));
    let alive = server.call(Method::GET, "/livez").send().await.unwrap();
    assert_eq!(alive.status(), 200);
}

#[tokio::test]
async fn the_door_takes_a_long_journal_at_once() {
    let server = TestServer::start().await;
    for count in 1..=300 {
        let answer = server.post("/v1/statements/batch", &()).await;
        assert_eq!(answer.status(), 400);
        if count == 1 {
            assert_eq!(header(&answer, "ratelimit-policy"), "\"door\";q=5000;w=10");
        }
    }
}

/// What is left for each of two sessions, called in one breath: at 200 a second a place comes back
/// within five milliseconds.
async fn left_for(server: &TestServer, tokens: [&str; 2]) -> Vec<String> {
    let request =
        |token| format!("GET /health HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let both = tokens.map(request).concat();
    stream.write_all(both.as_bytes()).await.unwrap();
    let mut answers = String::new();
    while answers.matches("{\"status\":\"ok\"}").count() < 2 {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "{answers}");
        answers.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    let lines = answers.lines();
    let left = lines.filter_map(|line| line.strip_prefix("ratelimit: \"session\";r="));
    left.map(|left| left.split_once(';').unwrap().0.to_owned())
        .collect()
}

#[tokio::test]
async fn a_sessions_calls_are_counted_for_its_key() {
    let server = TestServer::start().await;
    let (one, two) = (server.sign_in("alice").await, server.sign_in("alice").await);
    let bob = server.sign_in("bob").await;
    let mut tries = 0;
    // Another session of the same key takes from the same bucket.
    while left_for(&server, [&one, &two]).await != ["1999", "1998"] {
        tries += 1;
        assert!(tries < 100, "two sessions of one key have a bucket each");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for _each in 0..5 {
        assert_eq!(left_for(&server, [&one, &bob]).await[1], "1999");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let health = server.call(Method::GET, "/health").send().await.unwrap();
    assert!(!health.headers().contains_key("ratelimit"));
}

#[tokio::test]
async fn behind_a_proxy_the_last_hop_is_the_caller() {
    let server = behind_a_proxy().await;
    // Whatever a caller writes before it is no way around.
    let (refused, let_in) = exhaust(|count| {
        let list = format!("203.0.113.{}, 192.0.2.1", count % 250);
        let request = forwarded(&server, &list);
        async { request.send().await.unwrap() }
    })
    .await;
    assert!(refused.status() == 429 && let_in >= 900, "{let_in}");
    for other in ["192.0.2.2", "192.0.2.1, 192.0.2.3", "192.0.2.4:5678"] {
        let response = forwarded(&server, other).send().await.unwrap();
        assert_eq!(response.status(), 200, "{other}");
    }
}

#[tokio::test]
async fn without_a_proxy_nobody_chooses_his_address() {
    let server = TestServer::start().await;
    let (refused, let_in) = exhaust(|count| {
        let request = forwarded(&server, &format!("203.0.113.{}", count % 250));
        async { request.send().await.unwrap() }
    })
    .await;
    assert!(refused.status() == 429 && let_in >= 900, "{let_in}");
}

/// A server that refuses the first call to each path with 429 and answers the others.
async fn busy_once(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut first = true;
        while let Ok((mut stream, _peer)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let status = if first {
                "429 Too Many Requests"
            } else {
                "200 OK"
            };
            first = false;
            let answer = format!(
                "HTTP/1.1 {status}\r\nretry-after: 2\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn the_client_waits_as_long_as_it_is_asked() {
    let url = busy_once("{}").await;
    let http = Http::new(&url, &countersign_cli::tls::Way::default()).unwrap();
    let begun = Instant::now();
    let _answer: serde_json::Value = http.get("/health", &[], None).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2), "{begun:?}");
}

#[tokio::test]
async fn the_agent_waits_as_long_as_it_is_asked() {
    use countersign_agent::client::{Client, SignIn};
    let info = r#"{"ledger":"l","origin":"o","vkey":"v","checkpoint":"c","genesis":""}"#;
    let url = busy_once(info).await.parse().unwrap();
    let who = SignIn {
        agent: "web-1".parse().unwrap(),
        ledger: LedgerId::new([0; 32]),
        key: key("web-1"),
    };
    let clock = countersign_agent::clock::Clock::system();
    let client = Client::new(&url, None, who, clock).unwrap();
    let begun = Instant::now();
    let info = client.ledger().await.unwrap();
    assert_eq!(info.origin, "o");
    assert!(begun.elapsed() >= Duration::from_secs(2), "{begun:?}");
}
