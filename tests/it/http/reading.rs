//! The windows: lists, one command, proofs, blobs, targets.

use countersign_protocol::api::{
    AgentItem, BlobBody, ChangeItem, CommandItem, EntryItem, ExecutionResult, Inbox, LedgerInfo,
    Page, ProofBody, Receipt, ResolvedTargets, StreamBody, StreamsBody,
};
use countersign_protocol::audit;
use countersign_protocol::checkpoint::{Checkpoint, VerifierKey};
use countersign_protocol::entry;
use countersign_protocol::hash::Hash;
use countersign_protocol::proof;
use countersign_protocol::short;
use reqwest::Method;

use crate::support::TestServer;
use crate::support::server::{json, problem};

#[tokio::test]
async fn a_command_is_found_by_id_short_form_and_prefix() {
    let server = TestServer::start().await;
    let (command, _) = server.book.authorized().await;
    let id = command.to_string();
    for name in [
        id.as_str(),
        &short::short(&command),
        &short::short(&command).to_lowercase(),
        &id[..8],
        &id[..21],
    ] {
        let item: CommandItem = server.get("alice", &format!("/v1/commands/{name}")).await;
        assert_eq!(item.id, id, "{name}");
        assert_eq!(item.status, "authorized");
    }
    let token = server.sign_in("alice").await;
    for (name, status) in [("00000000", 404), ("xyz", 400), (&"0".repeat(64), 404)] {
        let answer = problem(server.get_as(&token, &format!("/v1/commands/{name}")).await).await;
        assert_eq!(answer.0, status, "{name}");
    }
}

#[tokio::test]
async fn lists_are_paged_newest_first_and_filtered_by_status() {
    let server = TestServer::start().await;
    let mut ids = Vec::new();
    for _each in 0..5 {
        let (request, _) = server.book.request();
        ids.push(server.book.send(request).await.unwrap().id.to_string());
    }
    let (authorized, _) = server.book.authorized().await;
    ids.reverse();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: Page<CommandItem> = server
            .get(
                "bob",
                &format!("/v1/commands?status=requested&limit=2{cursor}"),
            )
            .await;
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|item| item.id));
        let Some(next) = page.next else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ids);
    let all: Page<CommandItem> = server.get("bob", "/v1/commands").await;
    assert_eq!(all.items[0].id, authorized.to_string());
    let token = server.sign_in("bob").await;
    for query in ["status=done", "cursor=x", "limit=many"] {
        let answer = problem(
            server
                .get_as(&token, &format!("/v1/commands?{query}"))
                .await,
        )
        .await;
        assert_eq!(answer.0, 400, "{query}");
    }
}

#[tokio::test]
async fn the_inbox_holds_what_waits_for_the_caller() {
    let server = TestServer::start().await;
    let (request, act) = server.book.request();
    let id = server.book.send(request).await.unwrap().id;
    let inbox: Inbox = server.get("alice", "/v1/inbox").await;
    assert_eq!(inbox.items, Vec::new());
    let inbox: Inbox = server.get("bob", "/v1/inbox").await;
    assert_eq!(inbox.items[0].id, id.to_string());
    server
        .book
        .send(server.book.approval("bob", id, &act))
        .await
        .unwrap();
    let inbox: Inbox = server.get("bob", "/v1/inbox").await;
    assert_eq!(inbox.items, Vec::new());
    let changes: Page<ChangeItem> = server.get("bob", "/v1/changes").await;
    assert_eq!(changes.items, Vec::new());
}

#[tokio::test]
async fn a_stream_is_proved_from_bytes() {
    let server = TestServer::start().await;
    let (command, _) = server.book.authorized().await;
    server.book.run(command).await;
    for path in [
        format!("/v1/commands/{command}/entries"),
        "/v1/streams/rights".to_owned(),
    ] {
        let body: StreamBody = server.get("carol", &path).await;
        let checkpoint = Checkpoint::open(&body.checkpoint, server.book.ledger.verifier()).unwrap();
        assert!(!body.entries.is_empty());
        for proven in &body.entries {
            let checked = audit::check_entry(&proven.entry.0).unwrap();
            assert_eq!(checked.seq, proven.seq);
            let (size, root) = (checkpoint.size(), checkpoint.root());
            proof::verify_inclusion(&checked.leaf, proven.seq, size, &proven.inclusion, &root)
                .unwrap();
            for named in checked.verified.event().blobs() {
                let here = body.blobs.iter().cloned().filter_map(BlobBody::into_blob);
                assert!(here.into_iter().any(|blob| blob.reference() == named));
            }
        }
    }
    let output: Page<ExecutionResult> = server
        .get("carol", &format!("/v1/commands/{command}/output"))
        .await;
    assert_eq!(output.items[0].stdout, "hello\n");
    assert_eq!(output.items[0].exit_code, Some(0));
    let token = server.sign_in("carol").await;
    for part in ["entries", "output", "events"] {
        let path = format!("/v1/commands/{}/{part}", "0".repeat(64));
        let answer = problem(server.get_as(&token, &path).await).await;
        assert_eq!(answer, (404, "unknown_command".into()), "{part}");
    }
}

#[tokio::test]
async fn several_streams_are_what_each_of_them_is_alone_without_the_output() {
    let server = TestServer::start().await;
    let (ran, _) = server.book.authorized().await;
    server.book.run(ran).await;
    let (waits, _) = server.book.authorized().await;
    let (request, _) = server.book.request();
    let asked = server.book.send(request).await.unwrap().id;
    let ids = [waits, ran, asked];
    let token = server.sign_in("carol").await;
    let size = server.book.ledger.newest().size();
    let body: StreamsBody = json(many(&server, &token, &ids.map(|id| id.to_string())).await).await;
    // Nothing of it is what hosts wrote, so that nothing is written down of who reads it.
    assert_eq!(server.book.ledger.newest().size(), size);
    assert_eq!(body.streams.len(), ids.len());
    for (id, part) in ids.iter().zip(body.streams) {
        let path = format!("/v1/commands/{id}/entries?output=false");
        let alone: StreamBody = server.get("carol", &path).await;
        assert_eq!(body.checkpoint, alone.checkpoint);
        assert_eq!(part.entries, alone.entries);
        assert_eq!(
            (part.blobs, part.redacted),
            (alone.blobs, alone.redacted),
            "{id}"
        );
    }
}

#[tokio::test]
async fn several_streams_take_the_right_to_each_of_them() {
    let server = TestServer::start().await;
    let (first, _) = server.book.authorized().await;
    let (second, _) = server.book.authorized().await;
    let (first, second) = (first.to_string(), second.to_string());
    let token = server.sign_in("carol").await;
    let nothing = "0".repeat(64);
    let many_ids: Vec<String> = (0..201).map(|n| format!("{n:064x}")).collect();
    let refused: [(&[String], u16, &str); 6] = [
        (&[], 400, "ids"),
        (&[first[..8].to_owned()], 400, "ids"),
        (&[first.clone(), first.clone()], 400, "ids"),
        (&many_ids, 400, "ids"),
        (&[first.clone(), nothing.clone()], 404, "unknown_command"),
        (&[nothing], 404, "unknown_command"),
    ];
    for (ids, status, code) in refused {
        let answer = problem(many(&server, &token, ids).await).await;
        assert_eq!(answer, (status, code.into()), "{} ids", ids.len());
    }
    // Output is asked for by command, where the log says who reads it.
    let body = serde_json::json!({ "ids": [&first], "output": true });
    let call = server.call(Method::POST, "/v1/commands/entries");
    let answer = call.bearer_auth(&token).json(&body).send().await.unwrap();
    assert_eq!(problem(answer).await, (400, "body".into()));
    let answer = many(&server, &token, &[first, second]).await;
    assert!(answer.status().is_success());
    assert!(
        answer.headers()["ratelimit-policy"]
            .to_str()
            .unwrap()
            .starts_with("\"streams\"")
    );
}

async fn many(server: &TestServer, token: &str, ids: &[String]) -> reqwest::Response {
    let call = server.call(Method::POST, "/v1/commands/entries");
    let body = serde_json::json!({ "ids": ids });
    call.bearer_auth(token).json(&body).send().await.unwrap()
}

#[tokio::test]
async fn proofs_hold_between_committed_sizes() {
    let server = TestServer::start().await;
    let old = server.book.ledger.newest();
    server.book.authorized().await;
    let newest = server.book.ledger.newest();
    let path = format!(
        "/v1/proofs/consistency?from={}&to={}",
        old.size(),
        newest.size()
    );
    let body: ProofBody = server.get("web-1", &path).await;
    proof::verify_consistency(
        old.size(),
        newest.size(),
        &old.root(),
        &newest.root(),
        &body.proof,
    )
    .unwrap();
    let seq = old.size();
    let body: ProofBody = server
        .get("web-1", &format!("/v1/proofs/inclusion?seq={seq}"))
        .await;
    let entries: Page<EntryItem> = server
        .get("alice", &format!("/v1/entries?from={seq}&limit=1"))
        .await;
    let leaf: Hash = entry::leaf(&entries.items[0].entry.0);
    proof::verify_inclusion(&leaf, seq, newest.size(), &body.proof, &newest.root()).unwrap();
    assert_eq!(entries.next, Some((seq + 1).to_string()));
    let token = server.sign_in("alice").await;
    for path in [
        "/v1/proofs/consistency?from=0",
        "/v1/proofs/consistency?from=9999",
        "/v1/proofs/inclusion?seq=9999",
        "/v1/proofs/inclusion?seq=0&size=9999",
        "/v1/blobs/0000000000000000000000000000000000000000000000000000000000000000",
    ] {
        assert_eq!(
            problem(server.get_as(&token, path).await).await.0,
            404,
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_ledger_says_who_it_is_and_genesis_proves_it() {
    let server = TestServer::start().await;
    let info: LedgerInfo = json(server.call(Method::GET, "/v1/ledger").send().await.unwrap()).await;
    assert_eq!(entry::leaf(&info.genesis.0).to_string(), info.ledger);
    let vkey: VerifierKey = info.vkey.parse().unwrap();
    Checkpoint::open(&info.checkpoint, &vkey).unwrap();
    let note = server
        .call(Method::GET, "/v1/checkpoint")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    Checkpoint::open(&note, &vkey).unwrap();
}

#[tokio::test]
async fn targets_are_named_and_known() {
    let server = TestServer::start().await;
    server.book.enrol("web-2").await;
    let token = server.sign_in("alice").await;
    let resolve = |names: &str| {
        let call = server
            .call(Method::POST, "/v1/targets/resolve")
            .bearer_auth(&token);
        call.body(format!("{{\"names\":[{names}]}}")).send()
    };
    let two: ResolvedTargets = json(resolve("\"web-2\",\"web-1\"").await.unwrap()).await;
    assert_eq!(
        two.targets
            .iter()
            .map(|target| target.agent.as_str())
            .collect::<Vec<_>>(),
        ["web-1", "web-2"]
    );
    assert_eq!(
        problem(resolve("\"web-3\"").await.unwrap()).await,
        (404, "unknown_target".into())
    );
    assert_eq!(problem(resolve("").await.unwrap()).await.0, 422);
    let agents: Page<AgentItem> = server.get("alice", "/v1/agents").await;
    assert_eq!(agents.items.len(), 2);
}

#[tokio::test]
async fn a_receipt_proves_that_its_checkpoint_continues_the_one_that_was_seen() {
    let server = TestServer::start().await;
    let seen = server.book.ledger.newest();
    let (request, _) = server.book.request();
    // Others write in between.
    server.book.authorized().await;
    let receipt: Receipt = json(server.submit(&request).await).await;
    let newest = Checkpoint::open(&receipt.checkpoint, server.book.ledger.verifier()).unwrap();
    assert!(newest.size() > seen.size() + 1);
    let (old, new) = (seen.size(), newest.size());
    let proof = receipt.since_seen.unwrap();
    proof::verify_consistency(old, new, &seen.root(), &newest.root(), &proof).unwrap();
}
