//! Server-sent events: in order, resumable, over when the command is; an agent's work.

use std::time::Duration;

use countersign::clock::Clock;
use countersign_protocol::api::{Grant, LiveEntry, Notice, Work};
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::{Event, PolicySnapshot};
use countersign_protocol::hash::Hash;
use countersign_protocol::name::SECOND_US;
use countersign_protocol::proof;
use reqwest::Response;
use serde::de::DeserializeOwned;

use crate::statements::{blob, signed};
use crate::support::{TestLedger, TestServer};

/// Longer than a grant takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads events until `enough` or the end of the stream.
pub(crate) async fn events<T: DeserializeOwned>(
    response: &mut Response,
    enough: usize,
) -> Vec<(u64, T)> {
    let mut found = Vec::new();
    let mut text = String::new();
    while found.len() < enough {
        let Some(bytes) = response.chunk().await.unwrap() else {
            break;
        };
        text.push_str(std::str::from_utf8(&bytes).unwrap());
        while let Some((block, rest)) = text.split_once("\n\n") {
            let field = |name: &str| {
                block
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::trim)
            };
            if let (Some(id), Some(data)) = (field("id:"), field("data:")) {
                found.push((id.parse().unwrap(), serde_json::from_str(data).unwrap()));
            }
            text = rest.to_owned();
        }
    }
    found
}

/// The next piece of an agent's work, which is a grant.
pub(crate) async fn next_grant(work: &mut Response) -> Box<Grant> {
    let granted = tokio::time::timeout(PATIENCE, events::<Work>(work, 1)).await;
    match granted.expect("a grant comes").remove(0).1 {
        Work::Grant(grant) => grant,
        Work::Cancel(_) => unreachable!("nobody cancels"),
    }
}

#[tokio::test]
async fn a_command_is_followed_to_its_end_and_resumed_anywhere() {
    let server = TestServer::start().await;
    let (command, _) = server.book.authorized().await;
    let token = server.sign_in("alice").await;
    let path = format!("/v1/commands/{command}/events");
    let mut live = server.get_as(&token, &path).await;
    assert_eq!(live.headers()["content-type"], "text/event-stream");
    let before: Vec<(u64, LiveEntry)> = events(&mut live, 4).await;
    assert_eq!(before.len(), 4);
    server.book.run(command).await;
    let after: Vec<(u64, LiveEntry)> = events(&mut live, usize::MAX).await;
    assert_eq!(after.len(), 3);
    let all: Vec<u64> = before.iter().chain(&after).map(|(seq, _)| *seq).collect();
    assert!(all.is_sorted());
    for (seq, entry) in before.iter().chain(&after) {
        assert_eq!(Entry::decode(&entry.entry.0).unwrap().seq, *seq);
    }
    let resumed = server.call(reqwest::Method::GET, &path).bearer_auth(&token);
    let mut resumed = resumed
        .header("last-event-id", all[4].to_string())
        .send()
        .await
        .unwrap();
    let rest: Vec<(u64, LiveEntry)> = events(&mut resumed, usize::MAX).await;
    assert_eq!(
        rest.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        all[5..]
    );
}

#[tokio::test]
async fn notices_name_every_entry_after_the_last_one_heard() {
    let server = TestServer::start().await;
    let token = server.sign_in("alice").await;
    let first = server.book.ledger.newest().size();
    let mut now = server.get_as(&token, "/v1/events").await;
    server.book.authorized().await;
    let heard: Vec<(u64, Notice)> = events(&mut now, 4).await;
    let kinds: Vec<&str> = heard
        .iter()
        .map(|(_, notice)| notice.kind.as_str())
        .collect();
    assert_eq!(
        kinds,
        [
            "command.requested",
            "command.approved",
            "command.approved",
            "command.authorized"
        ]
    );
    assert_eq!(heard[0].0, first);
    let again = server
        .call(reqwest::Method::GET, "/v1/events")
        .bearer_auth(&token);
    let mut again = again.header("last-event-id", "0").send().await.unwrap();
    let all: Vec<(u64, Notice)> = events(&mut again, usize::try_from(first).unwrap()).await;
    assert_eq!(all[0].0, 1);
}

#[tokio::test]
async fn an_agent_gets_its_grants_and_cancels_and_nobody_elses() {
    let server = TestServer::start().await;
    server.book.enrol("web-2").await;
    let (open, _) = server.book.authorized().await;
    let token = server.sign_in("web-1").await;
    let mut work = server.get_as(&token, "/v1/agents/web-1/work").await;
    let granted: Vec<(u64, Work)> = events(&mut work, 1).await;
    let Work::Grant(grant) = &granted[0].1 else {
        unreachable!("a grant")
    };
    assert_eq!(grant.stream.entries.len(), 4);
    // The spec alone: no reason, no list of the other targets.
    assert_eq!(grant.stream.blobs.len(), 1);
    server.book.send(server.book.start(open)).await.unwrap();
    server
        .book
        .send(server.book.cancel("bob", open))
        .await
        .unwrap();
    let cancelled: Vec<(u64, Work)> = events(&mut work, 1).await;
    assert!(matches!(cancelled[0].1, Work::Cancel(_)));
    assert_eq!(
        server
            .get_as(&token, "/v1/agents/web-2/work")
            .await
            .status(),
        403
    );
}

#[tokio::test]
async fn a_grant_brings_what_administrators_signed_and_the_newest_entry() {
    let server = TestServer::start().await;
    let granted = async || {
        let token = server.sign_in("web-1").await;
        let mut work = server.get_as(&token, "/v1/agents/web-1/work").await;
        let granted: Vec<(u64, Work)> = events(&mut work, 1).await;
        let Work::Grant(grant) = granted.into_iter().next().unwrap().1 else {
            unreachable!("a grant")
        };
        grant
    };
    server.book.authorized().await;
    let grant = granted().await;
    assert_eq!(grant.snapshot, None);
    let document = blob(b"what a snapshot says is for its signers and the hosts");
    let now = server.book.clock.now();
    for who in ["alice", "bob"] {
        let (signer, nonce, made_at, ledger, seen) = server.book.header(who);
        let word = PolicySnapshot {
            signer,
            principal: who.parse().unwrap(),
            nonce,
            made_at,
            ledger,
            seen,
            document: document.reference(),
            expires_at: now.plus_micros(3_600_000_000),
        };
        let word = signed(who, &word.into(), vec![document.clone()]);
        server.book.send(word).await.unwrap();
    }
    let grant = granted().await;
    let snapshot = grant.snapshot.unwrap();
    assert_eq!(snapshot.document.into_blob().unwrap(), document);
    let words = snapshot.statements.iter().map(|word| {
        let verified = word.statement().unwrap().verify().unwrap();
        let Event::PolicySnapshot(word) = verified.event() else {
            unreachable!("a word on it")
        };
        word.principal.to_string()
    });
    assert_eq!(words.collect::<Vec<_>>(), ["alice", "bob"]);
    // Its end is what an operator watches, while it holds and when it is over.
    let metrics = server.call(reqwest::Method::GET, "/metrics").send().await;
    let metrics = metrics.unwrap().text().await.unwrap();
    let end = now.as_micros() / 1_000_000 + 3600;
    let line = format!("countersign_snapshot_end_timestamp_seconds {end}\n");
    assert!(metrics.contains(&line), "{metrics}");
    // The last entry of the very checkpoint that the grant is proved in.
    let newest = grant.newest.unwrap();
    let size = grant.stream.checkpoint.lines().nth(1).unwrap();
    let size: u64 = size.parse().unwrap();
    assert_eq!(newest.seq, size - 1);
    let root = grant.stream.checkpoint.lines().nth(2).unwrap();
    let root = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, root).unwrap();
    let root = Hash::from_slice(&root).unwrap();
    let leaf = entry::leaf(&newest.entry.0);
    proof::verify_inclusion(&leaf, newest.seq, size, &newest.inclusion, &root).unwrap();
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let server = TestServer::start().await;
    let token = server.sign_in("alice").await;
    let mut live = server.get_as(&token, "/v1/events").await;
    server.shutdown.cancel();
    let rest: Vec<(u64, Notice)> = events(&mut live, usize::MAX).await;
    assert_eq!(rest.len(), 0);
}

/// A stream to its end.
async fn rest(mut response: Response) -> String {
    let whole = async {
        let mut text = Vec::new();
        while let Some(bytes) = response.chunk().await.unwrap() {
            text.extend_from_slice(&bytes);
        }
        String::from_utf8(text).unwrap()
    };
    let whole = tokio::time::timeout(Duration::from_secs(10), whole);
    whole.await.expect("the stream ends")
}

#[tokio::test]
async fn a_stream_ends_with_the_right_to_it_and_says_so() {
    let server = TestServer::start().await;
    server.book.join("reader").await;
    server.book.grant("read", "user:reader").await;
    let session = server.sign_in("reader").await;
    let (command, _) = server.book.authorized().await;
    let everything = server.get_as(&session, "/v1/events").await;
    let path = format!("/v1/commands/{command}/events");
    let one = server.get_as(&session, &path).await;
    server.book.take_away("read", "user:reader").await;
    server.book.run(command).await;
    for stream in [everything, one] {
        let text = rest(stream).await;
        assert!(!text.contains("execution."), "{text}");
        assert!(!text.contains("aGVsbG8K"), "hello, in base64");
        let (_before, last) = text.rsplit_once("event: problem\n").expect(&text);
        assert!(last.contains("\"not_permitted\""), "{last}");
    }
}

#[tokio::test]
async fn what_a_host_writes_is_shown_while_the_right_to_it_lasts() {
    let server = TestServer::start().await;
    server.book.join("reader").await;
    server.book.grant("read", "user:reader").await;
    server.book.grant("auditor", "user:reader").await;
    let session = server.sign_in("reader").await;
    let (command, _) = server.book.authorized().await;
    let path = format!("/v1/commands/{command}/events");
    let live = server.get_as(&session, &path).await;
    server.book.take_away("auditor", "user:reader").await;
    server.book.run(command).await;
    let text = rest(live).await;
    assert!(!text.contains("event: problem"), "{text}");
    assert_eq!(text.matches("event: entry").count(), 7, "{text}");
    assert!(!text.contains("aGVsbG8K"), "hello, in base64");
}

#[tokio::test]
async fn a_stream_goes_on_no_longer_than_its_session() {
    let mut book = TestLedger::ready().await;
    let clock = Clock::fixed(book.clock.now());
    let machine = std::mem::replace(&mut book.clock, clock.clone());
    let mut server = TestServer::over(book).await;
    let session = server.sign_in("alice").await;
    server.book.clock = machine;
    let (command, _) = server.book.authorized().await;
    let path = format!("/v1/commands/{command}/events");
    let streams = [
        server.get_as(&session, "/v1/events").await,
        server.get_as(&session, &path).await,
    ];
    clock.advance(15 * 60 * SECOND_US);
    server.book.run(command).await;
    for stream in streams {
        let text = rest(stream).await;
        assert!(!text.contains("execution."), "{text}");
        let (_before, last) = text.rsplit_once("event: problem\n").expect(&text);
        assert!(last.contains("\"no_session\""), "{last}");
        assert!(!last.contains("event: entry"), "{last}");
    }
}
