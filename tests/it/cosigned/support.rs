//! A whole server with a witness policy, and witnesses of its ledger.

use std::time::{Duration, Instant};

use countersign::ledger::StartRule;
use countersign::server::{Options, Server, StartError, Way};
use countersign_protocol::checkpoint::Checkpoint;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::folder::Folder;
use crate::support::TestLedger;
use crate::witness::logs::{self, Running, client, write_key};

/// Longer than rounds take here.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A witness of a ledger, with a folder of its own.
pub(super) struct TestWitness {
    pub(super) folder: Folder,
    pub(super) running: Running,
}

impl TestWitness {
    pub(super) async fn start(book: &TestLedger, seed: u8) -> Self {
        let folder = Folder::new("witness");
        write_key(folder.path(), seed);
        let log = book.ledger.verifier().clone();
        let running = logs::start_for(folder.path(), vec![log]).await.unwrap();
        Self { folder, running }
    }

    /// Its line of a policy.
    pub(super) fn line(&self, name: &str) -> String {
        line(name, &self.running.key.to_string(), &self.running.url)
    }
}

pub(super) fn line(name: &str, vkey: &str, url: &str) -> String {
    format!("witness {name} {vkey} {url}\n")
}

/// A server on a ledger's database, which asks witnesses.
pub(super) struct Witnessed {
    pub(super) url: String,
    stop: DropGuard,
    ran: tokio::task::JoinHandle<Result<(), countersign::primary::FellSilent>>,
}

impl Witnessed {
    pub(super) async fn start(book: &TestLedger, policy: &str) -> Self {
        Self::try_start(book, policy).await.unwrap()
    }

    pub(super) async fn try_start(book: &TestLedger, policy: &str) -> Result<Self, StartError> {
        let file = book.folder.path().join("witnesses");
        std::fs::write(&file, policy).unwrap();
        let served = book.folder.path().join("served");
        let start = if served.exists() {
            StartRule::FileRequired
        } else {
            StartRule::FirstStart
        };
        let options = Options {
            database: book.database.app_url().await.into(),
            keys: book.folder.path().to_owned(),
            checkpoint_file: served,
            start,
            listen: "127.0.0.1:0".parse().unwrap(),
            way: Way::default(),
            witness_policy: Some(file),
            feed: None,
            clock: book.clock.clone(),
        };
        let stop = CancellationToken::new();
        let server = Server::start(options, stop.clone()).await?;
        let url = format!("http://{}", server.address());
        Ok(Self {
            url,
            stop: stop.drop_guard(),
            ran: tokio::spawn(server.run()),
        })
    }

    pub(super) async fn stop(self) {
        drop(self.stop);
        self.ran.await.unwrap().unwrap();
    }

    /// Status and text of a resource that is open to all.
    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        let answer = client()
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The published note, once it is of at least so many entries.
    pub(super) async fn cosigned(&self, book: &TestLedger, size: u64) -> Checkpoint {
        let begun = Instant::now();
        loop {
            let (status, note) = self.get("/checkpoint").await;
            if status == 200 {
                let note = Checkpoint::open(&note, book.ledger.verifier()).unwrap();
                if note.size() >= size {
                    return note;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "{status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
