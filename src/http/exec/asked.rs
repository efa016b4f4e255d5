//! What a call asks for: checked, frozen into what is signed, and compared with what was asked for
//! before under the same id.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::canonical::CanonicalError;
use countersign_protocol::command::{
    Act, CommandSpec, DEFAULT_OUTPUT_LIMIT, DEFAULT_TIMEOUT_MS, Environment, Mode,
};
use countersign_protocol::facts::{self, FactName};
use countersign_protocol::hash::{CommandId, Digest};
use countersign_protocol::lifecycle::Command;
use countersign_protocol::name::{Nonce, SECOND_US};
use countersign_protocol::rollout::Rollout;
use countersign_protocol::secret::{SealedSecrets, token_nonce};
use countersign_protocol::target::{Place, TargetLine, TargetList};

use super::body::ExecBody;
use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::error::ApiError;
use crate::http::streams;
use crate::keys;
use crate::ledger::{history, store};

/// How long a request stays open unless it says otherwise: an hour for people to look at it.
const DEFAULT_OPEN_S: u64 = 3600;

/// What a call asks for, checked; what two calls are compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    spec: CommandSpec,
    /// Those that its words use.
    facts: BTreeSet<FactName>,
    places: BTreeSet<(String, Option<String>)>,
    env: Option<Environment>,
    stdin: Option<Vec<u8>>,
    secrets: Option<SealedSecrets>,
    rollout: Option<Rollout>,
    reason: String,
}

/// What is signed and sent along.
pub(super) struct Frozen {
    pub(super) act: Act,
    pub(super) reason: BlobRef,
    pub(super) blobs: Vec<Blob>,
}

pub(super) fn unusable(code: &str, error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, error.to_string())
}

impl Asked {
    pub(super) fn new(mode: Mode, body: &ExecBody) -> Result<Self, ApiError> {
        let words = [&body.command].into_iter().chain(&body.args);
        let user = body.user.as_ref().map(|user| user.parse()).transpose();
        let timeout = body
            .timeout
            .map_or(DEFAULT_TIMEOUT_MS, |s| s.saturating_mul(1000));
        let spec = CommandSpec {
            mode,
            argv: words.cloned().collect(),
            cwd: body.cwd.clone(),
            user: user.map_err(|error| unusable("user", &error))?,
            timeout_ms: timeout,
            output_limit: body.output_limit.unwrap_or(DEFAULT_OUTPUT_LIMIT),
            at_output_limit: None,
        };
        spec.check().map_err(|error| unusable("document", &error))?;
        let (spec, facts) = spec.recorded().map_err(|error| unusable("facts", &error))?;
        let mut places = BTreeSet::new();
        for text in &body.on {
            let place: Place = text.parse().map_err(|error| unusable("on", &error))?;
            let service = place.service.map(|service| service.to_string());
            if !places.insert((place.agent.to_string(), service)) {
                return Err(unusable("on", &"a host is named twice"));
            }
        }
        if places.is_empty() {
            return Err(unusable(
                "on",
                &"name at least one host; a target is never assumed",
            ));
        }
        let stdin = match (&body.stdin, &body.stdin_base64) {
            (Some(_), Some(_)) => return Err(unusable("stdin", &"give stdin or stdin_base64")),
            (Some(text), None) => Some(text.clone().into_bytes()),
            (None, Some(text)) => {
                let bytes = STANDARD.decode(text);
                Some(bytes.map_err(|_| unusable("stdin", &"stdin_base64 is not base64"))?)
            }
            (None, None) => None,
        };
        // Only a client seals: in clear a value would pass through here.
        let secrets = (!body.secrets.is_empty()).then(|| SealedSecrets::new(body.secrets.clone()));
        let secrets = secrets
            .transpose()
            .map_err(|error| unusable("secrets", &error))?;
        let plain = |(name, value): (&String, &String)| {
            let value = facts::literal(value, "a variable");
            let value = value.map_err(|error| unusable("facts", &error))?;
            Ok((name.clone(), value.into_owned()))
        };
        let variables: Result<Vec<_>, ApiError> = body.env.iter().map(plain).collect();
        let variables = variables?;
        let env = (!variables.is_empty()).then(|| Environment::new(variables));
        Ok(Self {
            spec,
            facts,
            places,
            env: env.transpose().map_err(|error| unusable("env", &error))?,
            stdin,
            secrets,
            rollout: body.rollout.clone(),
            reason: body
                .reason
                .clone()
                .unwrap_or_else(|| "asked with an API token".into()),
        })
    }

    /// The nonce of the request: drawn, or the one that its secrets are sealed to.
    pub(super) fn nonce(&self, reference: Option<&Digest>) -> Result<Nonce, ApiError> {
        match (&self.secrets, reference) {
            (None, _) => Ok(keys::nonce()),
            (Some(_), Some(reference)) => Ok(token_nonce(reference)),
            (Some(_), None) => Err(unusable(
                "secrets",
                &"secrets are sealed to an execution_id, and there is none",
            )
            .hint("countersign secret seal --execution-id ID …, and the same execution_id here")),
        }
    }

    /// Draws salts, resolves hosts, and fixes times.
    pub(super) fn freeze(
        &self,
        app: &App,
        caller: &Caller,
        expires_in: Option<u64>,
    ) -> Result<Frozen, ApiError> {
        let spec = document(self.spec.to_document())?;
        let env = self.env.as_ref().map(|env| document(env.to_document()));
        let env = env.transpose()?;
        let stdin = self.stdin.clone().map(blob).transpose()?;
        let secrets = self
            .secrets
            .as_ref()
            .map(|some| document(some.to_document()));
        let secrets = secrets.transpose()?;
        let reason = blob(self.reason.clone().into_bytes())?;
        let list = self.targets(caller, spec.reference().digest)?;
        let targets = document(list.to_document())?;
        let now = app.clock.now();
        let open = expires_in
            .unwrap_or(DEFAULT_OPEN_S)
            .saturating_mul(SECOND_US);
        let act = Act {
            mode: self.spec.mode,
            spec: spec.reference(),
            env: env.as_ref().map(Blob::reference),
            stdin: stdin.as_ref().map(Blob::reference),
            secrets: secrets.as_ref().map(Blob::reference),
            targets: list
                .describe(targets.reference())
                .map_err(|error| unusable("on", &error))?,
            user: self.spec.user.clone(),
            timeout_ms: self.spec.timeout_ms,
            output_limit: self.spec.output_limit,
            at_output_limit: None,
            not_before: now,
            expires_at: now.plus_micros(open),
            max_runs: 1,
            rollout: self.rollout.clone(),
            break_glass: false,
        };
        act.check().map_err(|error| unusable("document", &error))?;
        let named = reason.reference();
        let further = env.into_iter().chain(stdin).chain(secrets);
        let blobs = [spec, targets, reason].into_iter().chain(further);
        Ok(Frozen {
            act,
            reason: named,
            blobs: blobs.collect(),
        })
    }

    fn targets(&self, caller: &Caller, spec: Digest) -> Result<TargetList, ApiError> {
        let unknown = || {
            ApiError::not_found("unknown_target", "one of the hosts is no accepted agent")
                .hint("GET /v1/agents lists them")
        };
        let mut lines = Vec::new();
        for (agent, service) in &self.places {
            let agent = agent.parse().map_err(|_| unknown())?;
            let service = service.as_ref().map(|service| service.parse()).transpose();
            let own = facts::of_host(&self.facts, &agent, &caller.rights);
            lines.push(TargetLine {
                facts: own.map_err(|error| unusable("facts", &error))?,
                key_id: caller.rights.agent(&agent).ok_or_else(unknown)?,
                agent,
                service: service.map_err(|_| unknown())?,
                spec,
                turn: None,
            });
        }
        TargetList::new(lines).map_err(|error| unusable("on", &error))
    }
}

fn document(bytes: Result<Vec<u8>, CanonicalError>) -> Result<Blob, ApiError> {
    blob(bytes.map_err(|error| unusable("document", &error))?)
}

fn blob(content: Vec<u8>) -> Result<Blob, ApiError> {
    Blob::new(keys::random(), content).map_err(|error| unusable("document", &error))
}

/// Turns away a call under an id that stands for something else.
pub(super) async fn same(app: &App, id: &CommandId, asked: &Asked) -> Result<(), ApiError> {
    let mut connection = app.ledger.pool().acquire().await?;
    let size = app.ledger.newest().size();
    let command = history::command(&mut connection, *id, size).await?;
    let command = command.ok_or_else(streams::commands_missing)?;
    let before = before(&mut connection, &command).await?;
    if before.as_ref() == Some(asked) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::CONFLICT,
        "client_ref",
        "this execution id stands for another command of yours, or for one whose text was redacted",
    )
    .hint("use a new id for a new command"))
}

/// What a command asked for, read from its documents; nothing when one of them is gone.
async fn before(
    connection: &mut sqlx::PgConnection,
    command: &Command,
) -> Result<Option<Asked>, ApiError> {
    let act = command.act();
    let mut texts: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
    let named = [
        Some(act.spec),
        act.env,
        act.stdin,
        act.secrets,
        Some(command.request.reason),
    ];
    for named in named.into_iter().flatten() {
        let Some(blob) = store::blob(connection, &named.digest).await?.flatten() else {
            return Ok(None);
        };
        texts.insert(named.digest, blob.content().to_vec());
    }
    let text = |named: &BlobRef| texts.get(&named.digest);
    let spec = text(&act.spec).and_then(|bytes| CommandSpec::parse(bytes, act).ok());
    let env = act
        .env
        .as_ref()
        .and_then(text)
        .map(|bytes| Environment::parse(bytes));
    let reason = text(&command.request.reason)
        .cloned()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let lines = command.targets.iter().flat_map(|list| list.lines());
    let places = lines.clone().map(|line| {
        let service = line.service.as_ref().map(ToString::to_string);
        (line.agent.to_string(), service)
    });
    let secrets = act
        .secrets
        .as_ref()
        .and_then(text)
        .map(|bytes| SealedSecrets::parse(bytes, act));
    let (Some(spec), Some(reason), Ok(env), Ok(secrets)) =
        (spec, reason, env.transpose(), secrets.transpose())
    else {
        return Ok(None);
    };
    let with_facts = lines.clone().any(|line| line.facts.is_some());
    let facts = if with_facts {
        spec.facts_used().unwrap_or_default()
    } else {
        BTreeSet::new()
    };
    Ok(Some(Asked {
        spec,
        facts,
        places: places.collect(),
        env,
        stdin: act.stdin.as_ref().and_then(text).cloned(),
        secrets,
        rollout: act.rollout.clone(),
        reason,
    }))
}
