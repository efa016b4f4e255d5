//! Sign-in: a challenge, signed, for a token. Tokens carry a key's id; what the key may do is looked
//! up at each call. Stateless but for the challenges that were used here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_protocol::api::{ChallengeBody, SessionBody, Submission};
use countersign_protocol::event::{DeniedWhat, Event};
use countersign_protocol::hash::{Digest, KeyId};
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::origin::ServerOrigin;
use countersign_protocol::rights::{Holder, Rights};
use countersign_protocol::statement::Verified;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;

use super::app::App;
use super::bodies::{Body, Parameters};
use super::error::ApiError;
use super::statements;
use crate::keys;

/// How long a challenge may be answered: time to touch a security key.
const CHALLENGE_US: u64 = 60 * SECOND_US;

/// How far ahead of this server's clock a challenge may have been made: another server of the ledger made it,
/// and clocks that are kept in time differ by less.
const AHEAD_US: u64 = 5 * SECOND_US;

/// How long an answered challenge is remembered: until the latest at which it could be answered again.
const REMEMBER_US: u64 = AHEAD_US + CHALLENGE_US;

/// How long a session lasts.
const SESSION_US: u64 = 15 * 60 * SECOND_US;

/// Answered challenges that are remembered until they are too old anyway.
const REMEMBERED: usize = 100_000;

const CHALLENGE_DOMAIN: &[u8] = b"countersign/challenge/v1\n";
const TOKEN_DOMAIN: &[u8] = b"countersign/session/v1\n";

/// Makes and checks challenges and tokens.
pub(super) struct Sessions {
    mac: Hmac<Sha256>,
    used: Mutex<BTreeMap<Digest, Time>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl Sessions {
    pub(super) fn new(secret: [u8; 64]) -> Self {
        Self {
            mac: Hmac::new(&secret.into()),
            used: Mutex::new(BTreeMap::new()),
        }
    }

    fn mac(&self, domain: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(domain);
        parts.iter().for_each(|part| mac.update(part));
        mac
    }

    /// time ‖ random ‖ half a MAC over both: nothing has to be remembered for it.
    fn challenge(&self, now: Time) -> Digest {
        let time = now.as_micros().to_be_bytes();
        let random: [u8; 8] = keys::random();
        let tag = self
            .mac(CHALLENGE_DOMAIN, &[&time, &random])
            .finalize()
            .into_bytes();
        let mut bytes = [0; 32];
        let all = time.iter().chain(&random).chain(tag.iter());
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        Digest::new(bytes)
    }

    /// Says whether a challenge is ours, young, and not answered before; then it is used up.
    fn take(&self, challenge: Digest, now: Time) -> bool {
        let (made, rest) = challenge.as_bytes().split_at(8);
        let (random, tag) = rest.split_at(8);
        let ours = self
            .mac(CHALLENGE_DOMAIN, &[made, random])
            .verify_truncated_left(tag)
            .is_ok();
        let made = made.try_into().map(u64::from_be_bytes);
        let Some(made) = made.ok().and_then(Time::from_micros).filter(|_| ours) else {
            return false;
        };
        if made.micros_since(now) > AHEAD_US || now.micros_since(made) > CHALLENGE_US {
            return false;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= REMEMBERED {
            used.retain(|_, until| *until >= now);
        }
        let room = used.len() < REMEMBERED;
        room && used
            .insert(challenge, now.plus_micros(REMEMBER_US))
            .is_none()
    }

    fn token(&self, key: &KeyId, expires: Time) -> String {
        let until = expires.as_micros().to_be_bytes();
        let tag = self
            .mac(TOKEN_DOMAIN, &[key.as_bytes(), &until])
            .finalize()
            .into_bytes();
        let bytes: Vec<u8> = key
            .as_bytes()
            .iter()
            .chain(&until)
            .chain(tag.iter())
            .copied()
            .collect();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The key whose session this token is, while it lasts, and until when that is.
    pub(super) fn open(&self, token: &str, now: Time) -> Option<(KeyId, Time)> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (key, rest) = bytes.split_at_checked(32)?;
        let (until, tag) = rest.split_at_checked(8)?;
        self.mac(TOKEN_DOMAIN, &[key, until])
            .verify_slice(tag)
            .ok()?;
        let until = Time::from_micros(u64::from_be_bytes(until.try_into().ok()?))?;
        let key = KeyId::from_slice(key)?;
        (now < until).then_some((key, until))
    }
}

/// Who wants to sign in.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(super) struct Whose {
    /// The id of the key that will sign, 64 hex digits: the answer then says whose it is while it is in
    /// force, for those who have the key and not the name.
    key_id: Option<String>,
}

/// A challenge to sign in with.
#[utoipa::path(post, path = "/v1/sessions/challenge", tag = "sessions", params(Whose),
    responses((status = 200, body = ChallengeBody), super::openapi::Problems))]
pub(super) async fn challenge(
    State(app): State<App>,
    Parameters(whose): Parameters<Whose>,
) -> Result<Json<ChallengeBody>, ApiError> {
    let mut principal = None;
    if let Some(key) = whose.key_id.and_then(|id| id.parse::<KeyId>().ok()) {
        let rights = app.reader.rights().await?;
        let now = app.clock.now();
        let record = rights.key(&key).filter(|record| record.is_in_force(now));
        if let Some(Holder::Person(name)) = record.map(|record| &record.holder) {
            principal = Some(name.to_string());
        }
    }
    Ok(Json(ChallengeBody {
        challenge: app.sessions.challenge(app.clock.now()).to_string(),
        ledger: app.ledger.id().to_string(),
        principal,
    }))
}

/// A session for a signed challenge.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", request_body = Submission,
    responses((status = 200, body = SessionBody), super::openapi::Problems))]
pub(super) async fn sign_in(
    State(app): State<App>,
    Body(submission, _room): Body<Submission>,
) -> Result<Json<SessionBody>, ApiError> {
    let submission = statements::unpack(submission)?;
    let verified = submission
        .statement
        .verify()
        .map_err(|error| ApiError::bad_request("statement", error.to_string()))?;
    let now = app.clock.now();
    let mut rights = app.reader.rights().await?;
    if !may_sign_in(&verified, &rights, now) {
        // Another server may have accepted the key a moment ago.
        app.ledger.look().await?;
        rights = app.reader.rights().await?;
    }
    if !may_sign_in(&verified, &rights, now) {
        app.denials.count(DeniedWhat::SignIn, None, None, now);
        return Err(ApiError::new(
            axum::http::StatusCode::FORBIDDEN,
            "unknown_key",
            "no person or accepted agent of this name signs with this key here",
        )
        .hint("ask an administrator to add the key, or to accept the agent"));
    }
    let Event::SessionChallenge(answer) = verified.event() else {
        return Err(ApiError::bad_request(
            "kind",
            "a sign-in is a session.challenge",
        ));
    };
    if !app.origins.contains(&answer.server) {
        app.denials.count(DeniedWhat::SignIn, None, None, now);
        return Err(other_origin(&answer.server));
    }
    if answer.ledger != app.ledger.id() || !app.sessions.take(answer.challenge, now) {
        app.denials.count(DeniedWhat::SignIn, None, None, now);
        return Err(ApiError::new(
            axum::http::StatusCode::FORBIDDEN,
            "challenge",
            "the challenge is not this server's, too old, or was used",
        )
        .hint("get a new challenge"));
    }
    let expires = now.plus_micros(SESSION_US);
    Ok(Json(SessionBody {
        token: app.sessions.token(&answer.signer, expires),
        expires_us: expires.as_micros(),
    }))
}

fn other_origin(named: &ServerOrigin) -> ApiError {
    ApiError::new(
        axum::http::StatusCode::FORBIDDEN,
        "origin",
        format!(
            "the sign-in is for {named}, which is no address of this server, so whoever stands \
             between cannot use it"
        ),
    )
    .hint(
        "connect to this server at its own address; if that is one, its operator names it with \
         --public-url",
    )
}

fn may_sign_in(verified: &Verified, rights: &Rights, now: Time) -> bool {
    let Event::SessionChallenge(answer) = verified.event() else {
        return false;
    };
    let Some(record) = rights.key(&verified.facts().key_id) else {
        return false;
    };
    let holder = match (&answer.principal, &answer.agent) {
        (Some(person), None) => record.holder == Holder::Person(person.clone()),
        (None, Some(agent)) => record.holder == Holder::Agent(agent.clone()),
        (Some(_), Some(_)) | (None, None) => false,
    };
    holder && record.is_in_force(now) && record.key == *verified.key()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: u64 = 1_800_000_000 * SECOND_US;

    fn at(us: u64) -> Time {
        Time::from_micros(us).unwrap()
    }

    /// Two servers of one ledger.
    fn servers() -> (Sessions, Sessions) {
        (Sessions::new([1; 64]), Sessions::new([1; 64]))
    }

    #[test]
    fn a_challenge_of_another_server_whose_clock_is_some_seconds_ahead_is_taken() {
        let (one, other) = servers();
        let ahead = |us| one.challenge(at(NOW_US + us));
        assert!(other.take(ahead(1), at(NOW_US)));
        assert!(other.take(ahead(AHEAD_US), at(NOW_US)));
        assert!(!other.take(ahead(AHEAD_US + 1), at(NOW_US)));
        let old = one.challenge(at(NOW_US));
        assert!(!other.take(old, at(NOW_US + CHALLENGE_US + 1)));
        let strange = Sessions::new([2; 64]).challenge(at(NOW_US));
        assert!(!other.take(strange, at(NOW_US)));
    }

    #[test]
    fn a_challenge_is_remembered_for_as_long_as_it_could_be_answered_again() {
        let (one, other) = servers();
        let challenge = one.challenge(at(NOW_US + AHEAD_US));
        assert!(other.take(challenge, at(NOW_US)));
        {
            // So full that what is over is forgotten.
            let mut used = other.used.lock().unwrap();
            let more = (0_u32..).take(REMEMBERED - 1).map(|number| {
                let mut bytes = [0; 32];
                bytes[..4].copy_from_slice(&number.to_be_bytes());
                (Digest::new(bytes), at(NOW_US))
            });
            used.extend(more);
        }
        let last = NOW_US + AHEAD_US + CHALLENGE_US;
        assert!(!other.take(challenge, at(last)));
    }
}
