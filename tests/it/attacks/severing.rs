//! A stand-in for the network between a server and Postgres, which breaks at the worst moment.
//!
//! It reads the frontend's messages one by one, so that it knows which of them is the COMMIT.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, watch};

use crate::folder::Folder;

/// How long a late COMMIT stays on its way: long enough for the server to ask before it arrives.
const ON_ITS_WAY: Duration = Duration::from_millis(400);

/// How long the pool of a test waits for a connection; a database that is away is away at once.
const ACQUIRE: Duration = Duration::from_millis(500);

/// The one message that comes before the first one.
const TLS_QUESTION_BYTES: usize = 8;

/// Where the connection breaks, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The COMMIT never arrives.
    BeforeCommit,
    /// It arrives and is done; its answer is lost.
    AfterCommit,
    /// The connection breaks first and the COMMIT arrives a moment later.
    LateCommit,
    /// As `AfterCommit`, and the database stays away until [`Network::mend`].
    AfterCommitForLong,
}

#[derive(Debug, Default)]
struct State {
    fault: Mutex<Option<Fault>>,
    is_down: watch::Sender<bool>,
}

/// A network that can be told to break.
pub(crate) struct Network {
    folder: Folder,
    state: Arc<State>,
    real: PgPool,
}

impl Network {
    /// A network to the database behind a pool.
    pub(crate) fn to(real: &PgPool) -> Self {
        let folder = Folder::new("network");
        let options = real.connect_options();
        let socket = format!(".s.PGSQL.{}", options.get_port());
        let upstream = options.get_socket().unwrap().join(&socket);
        let listener = UnixListener::bind(folder.path().join(&socket)).unwrap();
        let state = Arc::new(State::default());
        tokio::spawn(serve(listener, upstream, Arc::clone(&state)));
        Self {
            folder,
            state,
            real: real.clone(),
        }
    }

    /// A pool through this network.
    pub(crate) async fn pool(&self) -> PgPool {
        let options = (*self.real.connect_options())
            .clone()
            .socket(self.folder.path());
        PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(ACQUIRE)
            .connect_with(options)
            .await
            .unwrap()
    }

    /// Breaks at the next COMMIT.
    pub(crate) async fn break_at(&self, fault: Fault) {
        *self.state.fault.lock().await = Some(fault);
    }

    /// Whether what was to break has broken.
    pub(crate) async fn has_broken(&self) -> bool {
        self.state.fault.lock().await.is_none()
    }

    pub(crate) fn mend(&self) {
        self.state.is_down.send_replace(false);
    }
}

async fn serve(listener: UnixListener, upstream: impl AsRef<Path>, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        if *state.is_down.borrow() {
            continue;
        }
        let server = UnixStream::connect(upstream.as_ref()).await.unwrap();
        tokio::spawn(carry(client, server, Arc::clone(&state)));
    }
}

/// Carries one connection until it ends or is broken.
async fn carry(mut client: UnixStream, mut server: UnixStream, state: Arc<State>) {
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut waiting = Vec::new();
    let mut is_first = true;
    let mut down = state.is_down.subscribe();
    loop {
        tokio::select! {
            () = until_down(&mut down) => return,
            read = client.read(&mut asked) => {
                let Ok(len @ 1..) = read else { return };
                waiting.extend_from_slice(&asked[..len]);
                while let Some(message) = take_message(&mut waiting, is_first) {
                    // The question whether there is TLS has no type either.
                    is_first &= message.len() == TLS_QUESTION_BYTES;
                    if is_commit(&message)
                        && let Some(fault) = state.fault.lock().await.take()
                    {
                        return break_here(fault, &message, client, server, &state).await;
                    }
                    if server.write_all(&message).await.is_err() {
                        return;
                    }
                }
            }
            read = server.read(&mut answered) => {
                let Ok(len @ 1..) = read else { return };
                if client.write_all(&answered[..len]).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn until_down(down: &mut watch::Receiver<bool>) {
    let _down = down.wait_for(|is_down| *is_down).await;
}

/// Takes a whole message off the front: a length and a body, after the first one with a type before.
fn take_message(waiting: &mut Vec<u8>, is_first: bool) -> Option<Vec<u8>> {
    let head = usize::from(!is_first);
    let len: [u8; 4] = waiting.get(head..head + 4)?.try_into().unwrap();
    let end = head + u32::from_be_bytes(len) as usize;
    (waiting.len() >= end).then(|| waiting.drain(..end).collect())
}

/// A simple query whose text is COMMIT.
fn is_commit(message: &[u8]) -> bool {
    message.starts_with(b"Q") && message.get(5..11) == Some(b"COMMIT")
}

async fn break_here(
    fault: Fault,
    commit: &[u8],
    client: UnixStream,
    mut server: UnixStream,
    state: &State,
) {
    match fault {
        Fault::BeforeCommit => {}
        Fault::LateCommit => {
            drop(client);
            tokio::time::sleep(ON_ITS_WAY).await;
            server.write_all(commit).await.unwrap();
            let _answer = server.read(&mut [0; 64]).await;
        }
        Fault::AfterCommit | Fault::AfterCommitForLong => {
            let is_long = fault == Fault::AfterCommitForLong;
            state.is_down.send_replace(is_long);
            server.write_all(commit).await.unwrap();
            let mut answer = [0; 64];
            let len = server.read(&mut answer).await.unwrap();
            assert!(answer[..len].windows(6).any(|word| word == b"COMMIT"));
        }
    }
}
