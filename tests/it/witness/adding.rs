//! What a witness signs and what it refuses, by C2SP tlog-witness.

use std::sync::Barrier;

use countersign::clock::Clock;
use countersign::witness::{Answer, Watch};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::hash::Hash;
use countersign_protocol::witness_policy::WitnessPolicy;
use ed25519_dalek::SigningKey;

use super::logs::{Log, WITNESS, answer, ask, start, write_key};
use crate::folder::Folder;

#[tokio::test]
async fn what_continues_the_last_checkpoint_is_signed() {
    let folder = Folder::new("witness");
    let key = write_key(folder.path(), 5);
    let log = Log::honest(40);
    let witness = start(folder.path(), &[&log]).await.unwrap();
    assert_eq!(witness.key, key);
    let policy = format!("witness w {key}\nquorum w\n");
    let policy: WitnessPolicy = policy.parse().unwrap();
    for (old, new) in [(0, 7), (7, 7), (7, 8), (8, 40), (40, 40)] {
        let (status, lines) = answer(&witness.url, &log.request(old, new)).await;
        assert_eq!(status, 200, "{old} {new}: {lines}");
        let cosigned = log.checkpoint(new).with_lines(lines.lines()).unwrap();
        let again = Checkpoint::open(cosigned.note(), &log.verifier).unwrap();
        assert_eq!(policy.check(&again, |_| true), Ok(()), "{old} {new}");
    }
}

#[tokio::test]
async fn a_size_that_is_not_the_known_one_is_answered_with_it() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let log = Log::honest(40);
    let witness = start(folder.path(), &[&log]).await.unwrap();
    let conflict = async |old, new, known: &str| {
        let answer = ask(&witness.url, &log.request(old, new)).await;
        let kind = answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            (answer.status().as_u16(), kind.as_str()),
            (409, "text/x.tlog.size")
        );
        assert_eq!(answer.text().await.unwrap(), known, "{old} {new}");
    };
    conflict(7, 20, "0\n").await;
    assert_eq!(answer(&witness.url, &log.request(0, 20)).await.0, 200);
    // Smaller ones: a log that was cut, or a request that was overtaken.
    for (old, new) in [(0, 10), (10, 10), (10, 20), (0, 20), (19, 40)] {
        conflict(old, new, "20\n").await;
    }
    assert_eq!(answer(&witness.url, &log.request(20, 40)).await.0, 200);
}

#[tokio::test]
async fn what_is_malformed_unknown_unsigned_or_unproved_is_refused() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let log = Log::honest(40);
    let witness = start(folder.path(), &[&log]).await.unwrap();
    let asked = async |body: String| answer(&witness.url, &body).await.0;
    assert_eq!(asked(log.request(0, 20).to_string()).await, 200);

    assert_eq!(asked(String::new()).await, 400);
    assert_eq!(asked("old 20\n\nnothing\n".into()).await, 400);
    let (mut larger, mut extended) = (log.request(20, 30), log.request(20, 30));
    larger.old = 31;
    assert_eq!(asked(larger.to_string()).await, 400);
    extended.note = extended.note.replacen("\n\n", "\nmore\n\n", 1);
    assert_eq!(asked(extended.to_string()).await, 400);
    assert_eq!(asked("x".repeat(64 * 1024)).await, 413);

    let stranger = Log::new("other.example.com", 0, 0, 40);
    assert_eq!(asked(stranger.request(0, 7).to_string()).await, 404);

    let mut forged = Log::honest(40);
    forged.key = SigningKey::from_bytes(&[78; 32]);
    assert_eq!(asked(forged.request(20, 30).to_string()).await, 403);
    let mut torn = log.request(20, 30);
    torn.note = torn.note.replacen("\n30\n", "\n31\n", 1);
    assert_eq!(asked(torn.to_string()).await, 403);

    let good = log.request(20, 30);
    let mut short = good.clone();
    short.proof.pop();
    let mut long = good.clone();
    long.proof.push(Hash::ZERO);
    let mut wrong = good.clone();
    wrong.proof[0] = Hash::ZERO;
    let mut none = good.clone();
    none.proof.clear();
    for bad in [short, long, wrong, none] {
        assert_eq!(asked(bad.to_string()).await, 422);
    }
    assert_eq!(asked(good.to_string()).await, 200);
    let mut needless = log.request(30, 30);
    needless.proof.push(Hash::ZERO);
    assert_eq!(asked(needless.to_string()).await, 422);
}

#[tokio::test]
async fn a_first_checkpoint_needs_no_proof_and_takes_none() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let log = Log::honest(40);
    let witness = start(folder.path(), &[&log]).await.unwrap();
    let mut request = log.request(0, 20);
    request.proof.push(Hash::ZERO);
    assert_eq!(answer(&witness.url, &request).await.0, 422);
    assert_eq!(answer(&witness.url, &log.request(0, 20)).await.0, 200);
}

/// Of all that come at once from one size, one wins; so no two histories can both be signed. Tried
/// on many logs, as threads meet only now and then.
#[test]
fn of_many_at_once_one_wins() {
    let folder = Folder::new("witness");
    let logs: Vec<Vec<Log>> = (0..100)
        .map(|n| {
            let name = format!("log-{n}.example.com");
            (0..8).map(|view| Log::new(&name, view, 1, 12)).collect()
        })
        .collect();
    let keys: Vec<_> = logs.iter().map(|views| views[0].verifier.clone()).collect();
    let (state, key) = (
        folder.path().join("state"),
        SigningKey::from_bytes(&[5; 32]),
    );
    let watch = Watch::open(
        &state,
        WITNESS.parse().unwrap(),
        key,
        &keys,
        Clock::system(),
    );
    let watch = watch.unwrap();
    for views in &logs {
        assert!(matches!(
            watch.add(&views[0].request(0, 1)),
            Answer::Signed(_)
        ));
        let barrier = Barrier::new(views.len());
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let asked: Vec<_> = views
                .iter()
                .map(|view| {
                    let request = view.request(1, 12);
                    let (watch, barrier) = (&watch, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        watch.add(&request)
                    })
                })
                .collect();
            asked.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let signed = answers
            .iter()
            .filter(|one| matches!(one, Answer::Signed(_)));
        assert_eq!(signed.count(), 1, "{answers:?}");
    }
}

#[tokio::test]
async fn each_log_is_watched_by_itself() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let (log, other) = (Log::honest(40), Log::new("other.example.com", 3, 0, 40));
    let witness = start(folder.path(), &[&log, &other]).await.unwrap();
    assert_eq!(answer(&witness.url, &log.request(0, 30)).await.0, 200);
    assert_eq!(answer(&witness.url, &other.request(0, 7)).await.0, 200);
    assert_eq!(answer(&witness.url, &log.request(30, 31)).await.0, 200);
    assert_eq!(answer(&witness.url, &other.request(7, 8)).await.0, 200);
}
