//! A server of one ledger in memory, over real sockets, that can also be away, forgetful or lying.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use countersign_protocol::api::{
    Answer, Answers, Base64, ChallengeBody, Grant, LedgerInfo, Problem, ProofBody, Receipt,
    SessionBody, SnapshotBody, Submission, SubmissionBatch, Work,
};
use countersign_protocol::checkpoint::VerifierKey;
use countersign_protocol::event::Event;
use countersign_protocol::fold::Class;
use countersign_protocol::hash::{Digest, KeyId, StatementId};
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::proof;
use countersign_protocol::refusal::Refusal;
use countersign_protocol::rights::Holder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::book::{Book, public};
use super::grants::{grant, newest, stream};

/// What an agent is told on its stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tell {
    Grant(StatementId),
    Cancel(StatementId),
    /// A grant as it was some time ago.
    Stale(&'static Grant),
}

pub(crate) struct Wire {
    book: Mutex<Book>,
    tell: Mutex<Vec<Tell>>,
    told: Notify,
    /// Connections are closed without a word.
    pub(crate) away: AtomicBool,
    /// So many statements are entered and their answers lost.
    pub(crate) lose: AtomicUsize,
    /// Receipts are for entry 1, whatever was sent.
    pub(crate) lie: AtomicBool,
    /// What these keys say is answered with a code, and the log knows nothing of it.
    pub(crate) refuse: Mutex<HashMap<KeyId, &'static str>>,
    /// Proofs of consistency that are asked for in vain.
    pub(crate) unproven: AtomicUsize,
    /// So many answers to challenges are not taken.
    pub(crate) spent: AtomicUsize,
    /// Whoever asks for such a proof waits.
    pub(crate) hang: AtomicBool,
    /// How many have waited.
    pub(crate) hung: AtomicUsize,
    /// What comes with each grant.
    pub(crate) snapshot: Mutex<Option<SnapshotBody>>,
    /// How many milliseconds it takes to show what is signed by witnesses.
    pub(crate) slow: AtomicU64,
    /// What is shown as signed by witnesses.
    pub(crate) cosigned: Mutex<Option<String>>,
    /// Open streams of work end.
    pub(crate) hang_up: Notify,
    /// How often a stream of work was opened.
    pub(crate) streams: AtomicUsize,
    /// Statements that the ledger's rules refused.
    pub(crate) refused: AtomicUsize,
}

/// A running server.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) wire: Arc<Wire>,
    pub(crate) address: String,
}

impl Fake {
    pub(crate) async fn start(book: Book) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let wire = Arc::new(Wire {
            book: Mutex::new(book),
            tell: Mutex::new(Vec::new()),
            told: Notify::new(),
            away: AtomicBool::new(false),
            lose: AtomicUsize::new(0),
            lie: AtomicBool::new(false),
            refuse: Mutex::new(HashMap::new()),
            unproven: AtomicUsize::new(0),
            spent: AtomicUsize::new(0),
            hang: AtomicBool::new(false),
            hung: AtomicUsize::new(0),
            snapshot: Mutex::new(None),
            slow: AtomicU64::new(0),
            cosigned: Mutex::default(),
            hang_up: Notify::new(),
            streams: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&wire);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let wire = Arc::clone(&serving);
                tokio::spawn(async move { wire.serve(socket).await });
            }
        });
        Self { wire, address }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.wire.book.lock().unwrap()
    }

    /// Another past, while it is away: what was told is not told again.
    pub(crate) fn restore(&self, past: Book) -> Book {
        self.wire.tell.lock().unwrap().clear();
        std::mem::replace(&mut *self.book(), past)
    }

    pub(crate) fn tell(&self, tell: Tell) {
        self.wire.tell.lock().unwrap().push(tell);
        self.wire.told.notify_waiters();
    }
}

impl Wire {
    async fn serve(&self, mut socket: TcpStream) -> Option<()> {
        let (head, body) = read_request(&mut socket).await?;
        if self.away.load(Ordering::SeqCst) {
            return None;
        }
        let target = head.split(' ').nth(1)?.to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let answer = match path {
            "/v1/ledger" => ok(&self.info()),
            "/checkpoint" => {
                let slow = self.slow.load(Ordering::SeqCst);
                tokio::time::sleep(std::time::Duration::from_millis(slow)).await;
                let note = self.cosigned.lock().unwrap().clone();
                if let Some(note) = note {
                    (200, note.into_bytes())
                } else {
                    let problem = refusal(503, "no_quorum");
                    (503, serde_json::to_vec(&problem).unwrap())
                }
            }
            "/v1/sessions/challenge" => ok(&ChallengeBody {
                challenge: Digest::new([3; 32]).to_string(),
                ledger: self.info().ledger,
                principal: None,
            }),
            "/v1/sessions" => self.sign_in(&parse(&body)),
            "/v1/proofs/consistency" => {
                let lose = |left: usize| left.checked_sub(1);
                let lost = self
                    .unproven
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose);
                if lost.is_ok() {
                    return None;
                }
                if self.hang.load(Ordering::SeqCst) {
                    self.hung.fetch_add(1, Ordering::SeqCst);
                }
                while self.hang.load(Ordering::SeqCst) {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                self.consistency(query)
            }
            "/v1/statements" => match self.enter(&parse(&body)) {
                Ok(receipt) => ok(&receipt),
                Err(problem) => (problem.status, serde_json::to_vec(&problem).unwrap()),
            },
            "/v1/statements/batch" => {
                let batch: SubmissionBatch = parse(&body);
                let answers = batch.statements.iter().map(|one| match self.enter(one) {
                    Ok(receipt) => Answer::Receipt(receipt),
                    Err(problem) => Answer::Problem(*problem),
                });
                let answers = answers.collect();
                ok(&Answers { answers })
            }
            _work => return self.stream(socket, head.contains("Bearer token")).await,
        };
        let lose = |left: usize| left.checked_sub(1);
        let entered = path.starts_with("/v1/statements");
        if entered
            && self
                .lose
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose)
                .is_ok()
        {
            return None;
        }
        let (status, body) = answer;
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.ok()?;
        socket.write_all(&body).await.ok()
    }

    /// Events in pieces of a few bytes, each in a chunk of its own.
    async fn stream(&self, mut socket: TcpStream, signed_in: bool) -> Option<()> {
        if !signed_in {
            return None;
        }
        self.streams.fetch_add(1, Ordering::SeqCst);
        let head = "HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hello\n\n";
        socket.write_all(head.as_bytes()).await.ok()?;
        let mut next = 0;
        loop {
            let told = self.told.notified();
            let hang_up = self.hang_up.notified();
            let news = self.tell.lock().unwrap()[next..].to_vec();
            next += news.len();
            for tell in news {
                let event = self.event(tell);
                for piece in event.as_bytes().chunks(1999) {
                    socket.write_all(piece).await.ok()?;
                    socket.flush().await.ok()?;
                }
            }
            tokio::select! {
                () = told => {}
                () = hang_up => return None,
                () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
            }
            if self.away.load(Ordering::SeqCst) {
                return None;
            }
        }
    }

    fn event(&self, tell: Tell) -> String {
        let book = self.book.lock().unwrap();
        let work = match tell {
            Tell::Grant(id) => Work::Grant(Box::new(Grant {
                newest: Some(newest(&book)),
                snapshot: self.snapshot.lock().unwrap().clone(),
                ..grant(&book, id, "web-1")
            })),
            Tell::Stale(grant) => Work::Grant(Box::new(grant.clone())),
            Tell::Cancel(id) => Work::Cancel(stream(&book, id)),
        };
        let data = serde_json::to_string(&work).unwrap();
        format!("event: work\nid: 1\ndata: {data}\n\n")
    }

    fn info(&self) -> LedgerInfo {
        let book = self.book.lock().unwrap();
        let origin = "ledger.example.com".parse().unwrap();
        LedgerInfo {
            ledger: book.state.rights().ledger().unwrap().to_string(),
            origin: "ledger.example.com".into(),
            vkey: VerifierKey::of(&origin, &public("checkpoint"))
                .unwrap()
                .to_string(),
            checkpoint: book.checkpoint().note().to_owned(),
            genesis: Base64(book.entries[0].clone()),
        }
    }

    fn sign_in(&self, submission: &Submission) -> (u16, Vec<u8>) {
        let verified = submission.statement().unwrap().verify().unwrap();
        let Event::SessionChallenge(answer) = verified.event() else {
            panic!("no sign-in");
        };
        let book = self.book.lock().unwrap();
        let agent = answer.agent.as_ref().unwrap();
        let record = book.state.rights().key(&answer.signer);
        let lets_in = record.is_some_and(|record| {
            record.holder == Holder::Agent(agent.clone()) && record.revoked.is_none()
        });
        if !lets_in {
            return problem(403, "unknown_key");
        }
        let less = |left: usize| left.checked_sub(1);
        let spent = self
            .spent
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        if spent.is_ok() {
            return problem(403, "challenge");
        }
        ok(&SessionBody {
            token: "token".into(),
            expires_us: book.now + 900 * SECOND_US,
        })
    }

    fn consistency(&self, query: &str) -> (u16, Vec<u8>) {
        let number = |name: &str| -> u64 {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name));
            pair.unwrap().parse().unwrap()
        };
        let book = self.book.lock().unwrap();
        match proof::consistency_proof(&book.tree, number("from="), number("to=")) {
            Some(proof) => ok(&ProofBody {
                checkpoint: book.checkpoint().note().to_owned(),
                proof,
            }),
            None => problem(409, "no_such_size"),
        }
    }

    /// The door. The same statement again has the same place.
    fn enter(&self, submission: &Submission) -> Result<Receipt, Box<Problem>> {
        let mut book = self.book.lock().unwrap();
        let statement = submission.statement().unwrap();
        let id = statement.id();
        let event = Event::parse(statement.kind, &statement.payload).unwrap();
        let signer = event.header().signer;
        if let Some(code) = self.refuse.lock().unwrap().get(&signer) {
            return Err(Box::new(refusal(403, code)));
        }
        let before = book.seq_of(id);
        let seen = event.header().seen;
        if seen.is_some_and(|seen| seen.size > book.entries.len() as u64) {
            return Err(Box::new(refusal(409, Refusal::SeenAhead.code())));
        }
        if before.is_none() {
            for blob in &submission.blobs {
                let blob = blob.clone().into_blob().unwrap();
                book.blobs.insert(blob.reference().digest, blob);
            }
            book.append(statement).map_err(|refusal| {
                self.refused.fetch_add(1, Ordering::SeqCst);
                Box::new(Problem {
                    kind: "about:blank".into(),
                    title: "refused".into(),
                    status: match refusal.class() {
                        Class::Invalid => 400,
                        Class::Forbidden => 403,
                        Class::Missing => 404,
                        Class::Conflict => 409,
                    },
                    code: refusal.code().into(),
                    detail: refusal.to_string(),
                    hint: None,
                })
            })?;
        }
        let mut seq = book.seq_of(id).unwrap();
        if self.lie.load(Ordering::SeqCst) {
            seq = 1;
        }
        let checkpoint = book.checkpoint();
        let entry = book.entries[usize::try_from(seq).unwrap()].clone();
        Ok(Receipt {
            statement_id: id.to_string(),
            seq,
            time_us: book.now,
            leaf: countersign_protocol::entry::leaf(&entry).to_string(),
            entry: Base64(entry),
            inclusion: proof::inclusion_proof(&book.tree, seq, checkpoint.size()).unwrap(),
            checkpoint: checkpoint.note().to_owned(),
            since_seen: None,
            status: None,
            repeated: before.is_some(),
            results: None,
        })
    }
}

/// Head and body of one request.
async fn read_request(socket: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8(bytes).ok()?;
    let length = head.to_ascii_lowercase().lines().find_map(|line| {
        line.strip_prefix("content-length: ")
            .and_then(|length| length.trim().parse::<usize>().ok())
    });
    while body.len() < length.unwrap_or(0) {
        if socket.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, body))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> T {
    serde_json::from_slice(body).unwrap()
}

fn ok(body: &impl Serialize) -> (u16, Vec<u8>) {
    (200, serde_json::to_vec(body).unwrap())
}

fn refusal(status: u16, code: &str) -> Problem {
    Problem {
        kind: "about:blank".into(),
        title: code.into(),
        status,
        code: code.into(),
        detail: code.into(),
        hint: None,
    }
}

fn problem(status: u16, code: &str) -> (u16, Vec<u8>) {
    (status, serde_json::to_vec(&refusal(status, code)).unwrap())
}

/// Kept here so that tests need no clock of their own.
pub(crate) fn at(us: u64) -> Time {
    Time::from_micros(us).unwrap()
}
