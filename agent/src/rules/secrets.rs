//! Whether a run may be handed sealed secrets, and how.
//!
//! A secret that becomes a variable is judged as a variable: it stands among them, without a value,
//! while everything else is judged. It must not open a box.

use countersign_protocol::command::Environment;
use countersign_protocol::event::RefusalReason;
use countersign_protocol::hash::KeyId;
use countersign_protocol::secret::{Delivery, SealedSecret, SealedSecrets};

use super::host::{Allowed, LocalRefusal, Rules};
use super::variables::is_plain;
use crate::execution::SECRETS_VARIABLE;

/// The setting that refusals name.
pub(crate) const SECRETS: &str = "secrets";

fn refused(why: RefusalReason, detail: String) -> LocalRefusal {
    LocalRefusal::new(why, SECRETS, detail)
}

fn not_allowed(detail: String) -> LocalRefusal {
    refused(RefusalReason::NotAllowed, detail)
}

fn by(secrets: &SealedSecrets, delivery: Delivery) -> impl Iterator<Item = &SealedSecret> {
    let secrets = secrets.secrets().iter();
    secrets.filter(move |secret| secret.delivery == delivery)
}

/// The request's variables and the names of those that are secret.
pub(crate) fn with_secrets(
    environment: Option<&Environment>,
    secrets: Option<&SealedSecrets>,
) -> Result<Option<Environment>, LocalRefusal> {
    let Some(secrets) = secrets else {
        return Ok(environment.cloned());
    };
    let plain = environment.into_iter().flat_map(Environment::variables);
    let plain = plain.map(|(name, _)| name.as_str());
    if by(secrets, Delivery::File).next().is_some() && plain.clone().any(|n| n == SECRETS_VARIABLE)
    {
        let detail = format!("{SECRETS_VARIABLE} says where secrets are, and nothing else");
        return Err(not_allowed(detail));
    }
    let secret = by(secrets, Delivery::Env).map(|secret| (secret.name.to_string(), String::new()));
    let variables = environment.into_iter().flat_map(Environment::variables);
    let all: Vec<_> = variables.cloned().chain(secret).collect();
    if all.is_empty() {
        return Ok(None);
    }
    let all = Environment::new(all).map_err(|error| {
        let detail =
            format!("a secret and a variable have one name, or they are too many: {error}");
        refused(RefusalReason::Unusable, detail)
    })?;
    Ok(Some(all))
}

/// Whether one of them takes the place of standard input.
pub(crate) fn on_stdin(secrets: Option<&SealedSecrets>) -> bool {
    secrets.is_some_and(|secrets| by(secrets, Delivery::Stdin).next().is_some())
}

impl Rules {
    /// Whether what is `allowed` may be handed these secrets by the host whose key is `key`. Their
    /// names leave its variables: the executor sets them, with their values.
    pub(crate) fn check_secrets(
        &self,
        allowed: &mut Allowed,
        secrets: Option<&SealedSecrets>,
        key: &KeyId,
    ) -> Result<(), LocalRefusal> {
        let Some(secrets) = secrets else {
            return Ok(());
        };
        if !self.secrets {
            let detail = "this host takes no sealed secrets: it says secrets = false";
            return Err(not_allowed(detail.to_owned()));
        }
        for secret in secrets.secrets() {
            if secret.for_key(key).is_none() {
                let detail = format!("the secret {} is not sealed to this host", secret.name);
                return Err(refused(RefusalReason::Unusable, detail));
            }
        }
        if let Some(file) = by(secrets, Delivery::File).next()
            && let Err(why) = allowed.files
        {
            let detail = format!("the secret {} cannot be a file: {why}", file.name);
            return Err(refused(RefusalReason::Unusable, detail));
        }
        for variable in by(secrets, Delivery::Env) {
            let name = variable.name.as_str();
            // Its value would have to be looked at, and a refusal would tell about it.
            if !is_plain(name) {
                let detail = format!("{name} is looked at by the C library and holds no secret");
                return Err(not_allowed(detail));
            }
            allowed.env.retain(|(known, _)| known != name);
        }
        Ok(())
    }
}
