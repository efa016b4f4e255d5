//! Two administrators who accept many keys: each acceptance is asked for by one and consented to by
//! the other, as the ledger demands it.

use countersign_agent::client::{Client, ClientError, SignIn};
use countersign_agent::clock::Clock;
use countersign_agent::key as agent_key;
use countersign_protocol::api::{Answer, Submission};
use countersign_protocol::blob::Blob;
use countersign_protocol::checkpoint::{Checkpoint, VerifierKey};
use countersign_protocol::event::{ChangeApproved, ChangeRequested, Event, Seen};
use countersign_protocol::hash::{Digest, LedgerId, StatementId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::{AgentName, Principal};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::statement::Statement;
use ed25519_dalek::SigningKey;
use reqwest::Url;
use std::sync::Arc;

use crate::SimulationError;
use crate::fleet::Newcomer;

/// Changes in a request: what a batch holds, and half of what one person may have open.
const AT_ONCE: usize = 64;

/// An administrator's name and key.
#[derive(Clone)]
pub struct Administrator {
    /// Who.
    pub name: Principal,
    /// With which key.
    pub key: SigningKey,
}

/// Two administrators at one server.
pub struct Office {
    client: Client,
    clock: Clock,
    ledger: LedgerId,
    vkey: VerifierKey,
    asks: Administrator,
    consents: Administrator,
}

impl Office {
    /// For a ledger where two administrators suffice. Connects to nothing yet.
    ///
    /// # Errors
    /// The address.
    pub fn new(
        server: &Url,
        (ledger, vkey): (LedgerId, VerifierKey),
        asks: Administrator,
        consents: Administrator,
    ) -> Result<Self, SimulationError> {
        let clock = Clock::system();
        let name: Result<AgentName, _> = "office".parse();
        // It only carries signed statements to the door, which asks for no session.
        let who = SignIn {
            agent: name.map_err(|error| SimulationError::shape("a name")(&error))?,
            ledger,
            key: asks.key.clone(),
        };
        Ok(Self {
            client: Client::new(server, None, who, clock.clone())?,
            clock,
            ledger,
            vkey,
            asks,
            consents,
        })
    }

    /// Accepts these keys under these names.
    ///
    /// # Errors
    /// The server, or a refusal.
    pub async fn accept(&self, newcomers: Vec<Newcomer>) -> Result<(), SimulationError> {
        for some in newcomers.chunks(AT_ONCE) {
            let seen = self.seen().await?;
            let mut changes = Vec::with_capacity(some.len());
            let mut requests = Vec::with_capacity(some.len());
            for (agent, key) in some {
                let (submission, change) = self.request(agent, key, seen)?;
                requests.push(Arc::new(submission));
                changes.push(change);
            }
            self.send(&requests).await?;
            let consents: Result<Vec<_>, SimulationError> = changes
                .into_iter()
                .map(|(change, body)| self.consent(change, body, seen).map(Arc::new))
                .collect();
            self.send(&consents?).await?;
        }
        Ok(())
    }

    async fn seen(&self) -> Result<Seen, SimulationError> {
        let info = self.client.ledger().await?;
        let newest = Checkpoint::open(&info.checkpoint, &self.vkey);
        let newest = newest.map_err(|error| SimulationError::shape("the checkpoint")(&error))?;
        Ok(Seen {
            size: newest.size(),
            root: newest.root(),
        })
    }

    fn request(
        &self,
        agent: &AgentName,
        key: &PublicKey,
        seen: Seen,
    ) -> Result<(Submission, (StatementId, Digest)), SimulationError> {
        let random = |error| SimulationError::shape("randomness")(&error);
        let body = ChangeBody::AgentAccepted {
            agent: agent.clone(),
            key: key.clone(),
            replaces: None,
            labels: Vec::new(),
        };
        let document = body.to_document();
        let document = document.map_err(|error| SimulationError::shape("a change")(&error))?;
        let blob = Blob::new(agent_key::random().map_err(random)?, document);
        let blob = blob.map_err(|error| SimulationError::shape("a change")(&error))?;
        let event = Event::from(ChangeRequested {
            signer: PublicKey::of(&self.asks.key).key_id(),
            nonce: agent_key::nonce().map_err(random)?,
            made_at: self.clock.now(),
            ledger: self.ledger,
            seen,
            principal: self.asks.name.clone(),
            body: blob.reference(),
            document: None,
            reason: None,
        });
        let statement = sign(&event, &self.asks.key)?;
        let change = (statement.id(), blob.reference().digest);
        Ok((Submission::new(&statement, [&blob]), change))
    }

    fn consent(
        &self,
        change: StatementId,
        body: Digest,
        seen: Seen,
    ) -> Result<Submission, SimulationError> {
        let nonce = agent_key::nonce();
        let event = Event::from(ChangeApproved {
            signer: PublicKey::of(&self.consents.key).key_id(),
            nonce: nonce.map_err(|error| SimulationError::shape("randomness")(&error))?,
            made_at: self.clock.now(),
            ledger: self.ledger,
            seen,
            principal: self.consents.name.clone(),
            change,
            body,
            reason: None,
        });
        Ok(Submission::new(&sign(&event, &self.consents.key)?, []))
    }

    async fn send(&self, batch: &[Arc<Submission>]) -> Result<(), SimulationError> {
        let answers = loop {
            match self.client.submit_batch(batch).await {
                Err(ClientError::Unreachable(_)) => {
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
                other => break other?,
            }
        };
        for answer in answers {
            if let Answer::Problem(problem) = answer {
                return Err(SimulationError::Refused {
                    what: "a change",
                    code: problem.code,
                    detail: problem.detail,
                });
            }
        }
        Ok(())
    }
}

fn sign(event: &Event, key: &SigningKey) -> Result<Statement, SimulationError> {
    let signed = Statement::sign(event, key);
    signed.map_err(|error| SimulationError::shape("a statement")(&error))
}
