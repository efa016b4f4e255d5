//! Standard Webhooks: signatures that another tool makes too, ids that stay, secrets that change.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::support::{Call, Fed, Hook, SECRET, private, until};
use crate::support::TestLedger;

const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The signature of a call by a secret, as OpenSSL makes it.
#[expect(clippy::disallowed_methods, reason = "the tests start openssl")]
fn openssl(secret: &str, call: &Call) -> String {
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-mac", "HMAC", "-binary", "-macopt"])
        .arg(format!("hexkey:{}", hex::encode(key)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let signed = [
        call.header("webhook-id"),
        call.header("webhook-timestamp"),
        "",
    ]
    .join(".");
    input.write_all(signed.as_bytes()).unwrap();
    input.write_all(&call.body).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    format!("v1,{}", STANDARD.encode(output.stdout))
}

#[tokio::test]
async fn openssl_makes_the_same_signature_over_id_time_and_body() {
    let book = TestLedger::ready().await;
    private(book.folder.path(), "secret", SECRET);
    let hook = Hook::start().await;
    let fed = Fed::start(&book, &hook.sink("")).await;
    fed.caught_up(&book).await;
    let calls = hook.calls();
    assert_eq!(calls.len() as u64, book.ledger.newest().size());
    for call in &calls {
        assert_eq!(call.header("webhook-signature"), openssl(SECRET, call));
        assert_ne!(call.header("webhook-signature"), openssl(OTHER, call));
        let (told, data) = (call.json(), call.json()["data"].clone());
        assert_eq!(call.header("webhook-id"), data["id"]);
        assert_eq!(
            (&told["type"], &told["timestamp"]),
            (&data["kind"], &data["time"])
        );
        let now = book.clock.now().as_micros() / 1_000_000;
        let stamped: u64 = call.header("webhook-timestamp").parse().unwrap();
        assert!(now.abs_diff(stamped) < 60);
        assert_eq!(call.header("content-type"), "application/json");
    }
    fed.stop().await;
}

#[tokio::test]
async fn while_secrets_change_both_sign() {
    let book = TestLedger::ready().await;
    private(book.folder.path(), "secret", SECRET);
    private(book.folder.path(), "next", OTHER);
    let hook = Hook::start().await;
    let both = hook
        .sink("")
        .replace("[\"secret\"]", "[\"next\", \"secret\"]");
    let fed = Fed::start(&book, &both).await;
    fed.caught_up(&book).await;
    fed.stop().await;
    for call in hook.calls() {
        let signatures = format!("{} {}", openssl(OTHER, &call), openssl(SECRET, &call));
        assert_eq!(call.header("webhook-signature"), signatures);
    }
    let before = hook.calls().len();
    book.send(book.request().0).await.unwrap();
    let fed = Fed::start(&book, &hook.sink("").replace("\"secret\"", "\"next\"")).await;
    fed.caught_up(&book).await;
    let calls = hook.calls();
    assert_eq!(calls.len(), before + 1);
    assert_eq!(
        calls[before].header("webhook-signature"),
        openssl(OTHER, &calls[before])
    );
}

#[tokio::test]
async fn what_was_not_taken_comes_again_under_the_same_id_and_nothing_overtakes_it() {
    let book = TestLedger::ready().await;
    private(book.folder.path(), "secret", SECRET);
    let hook = Hook::start().await;
    let elsewhere = vec![("location", "http://127.0.0.1:9/".to_owned())];
    hook.answer(vec![
        (StatusCode::BAD_REQUEST, Vec::new()),
        (StatusCode::TEMPORARY_REDIRECT, elsewhere),
        (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    ]);
    let fed = Fed::start(&book, &hook.sink("")).await;
    fed.caught_up(&book).await;
    let calls = hook.calls();
    let ids: Vec<&str> = calls.iter().map(|call| call.header("webhook-id")).collect();
    assert!(ids[..4].iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(calls[0].body, calls[3].body);
    let size = book.ledger.newest().size();
    assert_eq!(hook.seqs()[3..], (0..size).collect::<Vec<u64>>());
    let report = fed.report();
    assert_eq!(
        (report.failures["refused"], report.delivered, report.error),
        (3, size, None)
    );
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it() {
    let book = TestLedger::ready().await;
    private(book.folder.path(), "secret", SECRET);
    let hook = Hook::start().await;
    let later = vec![("retry-after", "3".to_owned())];
    hook.answer(vec![(StatusCode::TOO_MANY_REQUESTS, later)]);
    let fed = Fed::start(&book, &hook.sink("")).await;
    fed.caught_up(&book).await;
    let calls = hook.calls();
    let waited = calls[1].at - calls[0].at;
    assert!(waited >= Duration::from_millis(2900), "{waited:?}");
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone_aloud_and_nothing_is_skipped() {
    let book = TestLedger::ready().await;
    private(book.folder.path(), "secret", SECRET);
    let hook = Hook::start().await;
    hook.answer(vec![
        (StatusCode::GONE, Vec::new()),
        (StatusCode::OK, Vec::new()),
    ]);
    let fed = Fed::start(&book, &hook.sink("")).await;
    fed.state("disabled").await;
    assert_eq!(fed.report().error, Some("gone"));
    book.send(book.request().0).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(hook.seqs(), [0, 1]);
    fed.stop().await;
    // The operator starts a server anew: it goes on where it was.
    let fed = Fed::start(&book, &hook.sink("")).await;
    fed.caught_up(&book).await;
    assert_eq!(hook.seqs()[1..3], [1, 1]);
    assert_eq!(
        *hook.seqs().last().unwrap(),
        book.ledger.newest().size() - 1
    );
}

#[tokio::test]
async fn a_chat_service_gets_one_sentence_whose_marks_are_harmless() {
    let book = TestLedger::ready().await;
    let hook = Hook::start().await;
    let reason = b"<!channel> & \x1b[31mhello\nthere";
    book.send(book.request_running(&["true"], reason).0)
        .await
        .unwrap();
    let sink = hook.sink("format = \"slack\"\ntexts = true");
    let sink = sink
        .replace("secret_files = [\"secret\"]\n", "")
        .replace("\"*\"", "\"command.*\"");
    let fed = Fed::start(&book, &sink).await;
    fed.caught_up(&book).await;
    until("it was told", || hook.calls().len() == 1).await;
    let told = hook.calls()[0].json();
    let text = told["text"].as_str().unwrap();
    assert_eq!(told.as_object().unwrap().len(), 1);
    assert!(
        text.starts_with("command.requested by alice, command "),
        "{text}"
    );
    assert!(
        text.contains("reason: &lt;!channel&gt; &amp; \\x1b[31mhello\\nthere"),
        "{text}"
    );
}
