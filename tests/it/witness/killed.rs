//! A witness that is killed at any moment signs, after it, nothing smaller and no other history.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::logs::{Log, WITNESS, answer, client, write_key};
use crate::folder::Folder;

/// Longer than a process takes to start here.
const PATIENCE: Duration = Duration::from_secs(20);

struct Process {
    child: Child,
    url: String,
}

impl Process {
    #[expect(
        clippy::disallowed_methods,
        reason = "the witness is a process of its own"
    )]
    async fn start(folder: &Path, log: &Log) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = free.local_addr().unwrap();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(["witness", "--name", WITNESS])
            .arg("--key")
            .arg(folder.join("witness.key"))
            .arg("--state")
            .arg(folder.join("state"))
            .args(["--log", &log.verifier.to_string()])
            .args(["--listen", &address.to_string()])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (this, begun) = (
            Self {
                child,
                url: format!("http://{address}"),
            },
            Instant::now(),
        );
        while client()
            .get(format!("{}/livez", this.url))
            .send()
            .await
            .is_err()
        {
            assert!(begun.elapsed() < PATIENCE, "it does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        this
    }

    fn kill(self) {
        drop(self);
    }
}

/// Also when the test fails.
impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The size that the state folder holds.
fn on_disk(folder: &Path) -> u64 {
    let all = std::fs::read_dir(folder.join("state")).unwrap().flatten();
    let note = all.filter_map(|one| std::fs::read_to_string(one.path().join("checkpoint")).ok());
    let size = note.last().map(|note| note.lines().nth(1).unwrap().parse());
    size.map_or(0, Result::unwrap)
}

/// Nothing smaller than `size` and no other history is signed.
async fn holds_to(url: &str, honest: &Log, forked: &Log, size: u64) {
    for smaller in [1, size / 2, size - 1] {
        for old in [0, smaller] {
            let (status, text) = answer(url, &honest.request(old, smaller)).await;
            assert_eq!((status, text), (409, format!("{size}\n")));
        }
    }
    for old in [0, size] {
        assert_eq!(answer(url, &forked.request(old, size)).await.0, 409);
    }
    assert_eq!(answer(url, &forked.request(size, size + 5)).await.0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_killed_before_its_answer_signs_nothing_smaller_afterwards() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let (honest, forked) = (Log::honest(300), Log::new("log.example.com", 1, 3, 300));
    let mut known = 0;
    for size in [20, 50, 90] {
        let witness = Process::start(folder.path(), &honest).await;
        let (url, request) = (witness.url.clone(), honest.request(known, size));
        let asked = tokio::spawn(async move {
            let call = client().post(format!("{url}/add-checkpoint"));
            let _cut = call.body(request.to_string()).send().await;
        });
        let begun = Instant::now();
        while on_disk(folder.path()) < size {
            assert!(begun.elapsed() < PATIENCE, "it is not written down");
        }
        witness.kill();
        asked.await.unwrap();
        let witness = Process::start(folder.path(), &honest).await;
        holds_to(&witness.url, &honest, &forked, size).await;
        assert_eq!(
            answer(&witness.url, &honest.request(size, size)).await.0,
            200
        );
        witness.kill();
        known = size;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_witness_answered_before_it_was_killed_binds_it_afterwards() {
    let folder = Folder::new("witness");
    write_key(folder.path(), 5);
    let (honest, forked) = (
        Arc::new(Log::honest(3000)),
        Log::new("log.example.com", 1, 1, 3000),
    );
    let mut known = 0;
    for round in 0..6_u64 {
        let witness = Process::start(folder.path(), &honest).await;
        let answered = Arc::new(AtomicU64::new(known));
        let (url, log, told) = (
            witness.url.clone(),
            Arc::clone(&honest),
            Arc::clone(&answered),
        );
        let asking = tokio::spawn(async move {
            let http = client();
            for old in known.. {
                let call = http.post(format!("{url}/add-checkpoint"));
                let call = call.body(log.request(old, old + 1).to_string());
                match call.send().await {
                    Ok(answer) => assert_eq!(answer.status(), 200),
                    Err(_killed) => return,
                }
                told.store(old + 1, Ordering::SeqCst);
            }
        });
        let begun = Instant::now();
        while answered.load(Ordering::SeqCst) < known + 5 {
            assert!(begun.elapsed() < PATIENCE, "it signs nothing");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        witness.kill();
        asking.await.unwrap();
        let (answered, kept) = (answered.load(Ordering::SeqCst), on_disk(folder.path()));
        assert!(kept >= answered, "{answered} was answered, {kept} is known");
        let witness = Process::start(folder.path(), &honest).await;
        holds_to(&witness.url, &honest, &forked, kept).await;
        witness.kill();
        known = kept;
    }
}
