//! What a ledger must refuse, sent on purpose: for `selfcheck`, which looks whether it does.
//!
//! Everywhere else the client refuses such things before it signs. Nothing here can have an effect
//! on a ledger that works: the person's own approval of their own request, and an approval that
//! somebody gave before with one bit of it changed.

use countersign_protocol::api::{Receipt, Submission};
use countersign_protocol::event::Kind;
use countersign_protocol::refusal::Refusal;
use countersign_protocol::statement::Statement;
use serde_json::Value;

use super::connect::Client;
use super::judge;
use crate::client::ClientError;
use crate::failure::Failure;
use crate::view::CommandView;

/// The field of a payload in which a bit is changed: hex digits, so that it stays canonical JSON.
const NONCE: &[u8] = b"\"nonce\":\"";

/// Where an approval is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flip {
    /// In what was signed.
    Payload,
    /// In the signature.
    Signature,
}

/// What the server said to a statement that it must refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It refused.
    Refused {
        /// Its word for why.
        code: String,
    },
    /// It says that it entered it.
    Entered {
        /// Where.
        seq: u64,
    },
}

fn flipped(mut statement: Statement, flip: Flip) -> Option<Statement> {
    match flip {
        Flip::Payload => {
            let mut windows = statement.payload.windows(NONCE.len());
            let at = windows.position(|window| window == NONCE)? + NONCE.len();
            let digit = statement.payload.get_mut(at)?;
            *digit = if *digit == b'0' { b'1' } else { b'0' };
        }
        Flip::Signature => *statement.signature.last_mut()? ^= 1,
    }
    Some(statement)
}

impl Client {
    /// Whether the server says of itself that it lives and is ready.
    ///
    /// # Errors
    /// It is not, or cannot be reached.
    pub async fn health(&self) -> Result<(), Failure> {
        for path in ["/livez", "/readyz"] {
            let _said: Value = self.http.get(path, &[], None).await?;
        }
        Ok(())
    }

    /// Signs an approval of one's own request and sends it: four eyes say no.
    ///
    /// # Errors
    /// Nothing could be signed or sent.
    pub async fn approve_own(&self, view: &CommandView) -> Result<Answer, Failure> {
        let rights = self.rights_as_of(view.size).await?;
        let me = rights.person(&self.key_id())?;
        let in_force = rights.state.rights().policy();
        let policy = in_force.ok_or(Failure::from(Refusal::NoGenesis))?.reference;
        let event = judge::approval(self.head(&me)?, view, policy, None);
        let signed = self.signer.sign(&event).await?;
        self.probe(signed.statement()).await
    }

    /// Sends an approval of this command again, changed. Nothing where there is none.
    ///
    /// # Errors
    /// It could not be sent.
    pub async fn approve_tampered(
        &self,
        view: &CommandView,
        flip: Flip,
    ) -> Result<Option<Answer>, Failure> {
        let mut statements = view
            .entries
            .iter()
            .map(|link| link.entry.verified.statement());
        let approval = statements.find(|said| said.kind == Kind::CommandApproved);
        match approval.and_then(|approval| flipped(approval.clone(), flip)) {
            Some(changed) => self.probe(&changed).await.map(Some),
            None => Ok(None),
        }
    }

    async fn probe(&self, statement: &Statement) -> Result<Answer, Failure> {
        let body = Submission::new(statement, &[]);
        let answer: Result<Receipt, _> = self.http.post("/v1/statements", &[], &body, None).await;
        match answer {
            Ok(receipt) => Ok(Answer::Entered { seq: receipt.seq }),
            Err(ClientError::Problem(problem)) if (400..500).contains(&problem.status) => {
                Ok(Answer::Refused { code: problem.code })
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_character_is_changed_and_the_rest_stays() {
        let statement = Statement {
            kind: Kind::CommandApproved,
            payload: br#"{"nonce":"0a","x":1}"#.to_vec(),
            signature: vec![1, 2, 3],
        };
        let payload = flipped(statement.clone(), Flip::Payload).unwrap();
        assert_eq!(payload.payload, br#"{"nonce":"1a","x":1}"#);
        assert_eq!(payload.signature, statement.signature);
        let signature = flipped(statement.clone(), Flip::Signature).unwrap();
        assert_eq!(
            (signature.payload, signature.signature),
            (statement.payload, vec![1, 2, 2])
        );
    }
}
