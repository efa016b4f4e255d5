//! A client of one ledger: pins checked, key known, checkpoints believed only with their proofs.

use std::path::PathBuf;

use countersign_protocol::api::{LedgerInfo, ProofBody};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::hash::{Hash, KeyId, LedgerId};
use countersign_protocol::name::Principal;
use tokio::sync::Mutex;

use super::session::Session;
use crate::client::{ClientError, Http};
use crate::failure::Failure;
use crate::home::LedgerHome;
use crate::sign::Signer;
use crate::tls::Way;
use crate::trust::{Need, Pins, Standing, Trust};

/// How often another process may move the memory while a proof is fetched, before we give up.
const MEMORY_RACES: usize = 16;

/// Whom to talk to, as whom, and what is pinned.
#[derive(Debug, Clone)]
pub struct Connection {
    /// `http://HOST:PORT` or `https://HOST`.
    pub server: String,
    /// How it is reached.
    pub way: Way,
    /// The pinned ledger.
    pub pins: Pins,
    /// Where things are remembered; see [`crate::home::find`].
    pub state_home: PathBuf,
    /// Who signs.
    pub signer: Signer,
    /// The name to sign in as, when the client cannot know it by itself yet.
    pub principal: Option<Principal>,
}

/// A connection to a ledger that is the pinned one.
#[derive(Debug)]
pub struct Client {
    pub(super) http: Http,
    pub(super) trust: Trust,
    pub(super) signer: Signer,
    pub(super) key_id: KeyId,
    pub(super) principal: Option<Principal>,
    pub(super) session: Mutex<Option<Session>>,
}

impl Client {
    /// Meets the server and checks that its ledger is the pinned one. Signs nothing yet.
    ///
    /// # Errors
    /// Unreachable, another ledger, or a key that cannot be read.
    pub async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let http = Http::new(&connection.server, &connection.way)?;
        let key_id = connection.signer.public_key().await?.key_id();
        let info: LedgerInfo = http.get("/v1/ledger", &[], None).await?;
        let home = LedgerHome::open(&connection.state_home, &connection.pins.ledger)?;
        Ok(Self {
            http,
            trust: Trust::new(&info, &connection.pins, home)?,
            signer: connection.signer.clone(),
            key_id,
            principal: connection.principal.clone(),
            session: Mutex::new(None),
        })
    }

    /// The pinned ledger.
    #[must_use]
    pub const fn ledger(&self) -> LedgerId {
        self.trust.ledger()
    }

    /// The key that signs.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// What is pinned and remembered.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Believes a checkpoint or says why not: signed by the ledger's key, and proved to be of one
    /// history with the remembered one. The memory moves forward with it, never back.
    ///
    /// # Errors
    /// A forged note, a fork, or a ledger that has shrunk: exit code 3.
    pub async fn believe(&self, note: &str) -> Result<(Checkpoint, Standing), Failure> {
        self.believe_since(note, None).await
    }

    /// As [`Client::believe`], with a proof that may have come along: that the checkpoint goes on
    /// from the size it is given with. It is used where it fits the memory, and checked all the same.
    pub(super) async fn believe_since(
        &self,
        note: &str,
        since: Option<(u64, &[Hash])>,
    ) -> Result<(Checkpoint, Standing), Failure> {
        let received = self.trust.open(note)?;
        for _race in 0..MEMORY_RACES {
            let need = self.trust.need(&received)?;
            let fits = |size| {
                matches!(&need, Need::Consistency { from, to, .. }
                if *from == size && *to == received.size())
            };
            let proof = match since.filter(|(size, _)| fits(*size)) {
                Some((_, proof)) => proof.to_vec(),
                None => self.consistency(&received, &need).await?,
            };
            if let Some(standing) = self.trust.believe(&received, &need, &proof)? {
                return Ok((received, standing));
            }
        }
        Err(Failure::failed(
            "memory_busy",
            "other processes keep moving the remembered checkpoint",
        )
        .hint("try again"))
    }

    async fn consistency(&self, received: &Checkpoint, need: &Need) -> Result<Vec<Hash>, Failure> {
        let Need::Consistency {
            from,
            to,
            remembered,
        } = need
        else {
            return Ok(Vec::new());
        };
        let query = [("from", from.to_string()), ("to", to.to_string())];
        let answer = self.get::<ProofBody>("/v1/proofs/consistency", &query);
        match answer.await {
            Ok(body) => Ok(body.proof),
            // It gave us a smaller log and has no size that it signed before: entries were cut.
            Err(error) if remembered.size() == *to && is_denial(&error) => {
                Err(self.trust.shrunk(remembered, received).into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Says whether the server understood and has no such thing, rather than being away.
fn is_denial(error: &GetError) -> bool {
    matches!(error, GetError::Client(error) if matches!(error.status(), Some(400 | 404 | 409 | 422)))
}

/// Why a read with a session failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum GetError {
    /// The read itself.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The sign-in before it.
    #[error(transparent)]
    SignIn(#[from] Failure),
}

impl GetError {
    /// The status of the server's answer, when it gave an error.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Client(error) => error.status(),
            Self::SignIn(_) => None,
        }
    }
}

impl From<GetError> for Failure {
    fn from(error: GetError) -> Self {
        match error {
            GetError::Client(error) => error.into(),
            GetError::SignIn(failure) => failure,
        }
    }
}
