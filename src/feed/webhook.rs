//! Webhooks as Standard Webhooks has them: one POST a message, signed, delivered once it is
//! answered with a 2xx.
//!
//! It follows no redirect, and shows no more of an address than its origin. Where it posts is the
//! operator's own word and comes from no event, so that nobody can send it elsewhere.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::{Client, Response, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::config::{Format, WebhookTo};
use super::message::{Message, stamp};
use super::outlet::Trouble;
use crate::clock::Clock;

/// How long an answer may take: Standard Webhooks asks for 15 to 30 seconds.
const ANSWER: Duration = Duration::from_secs(20);

/// The longest that a receiver can ask to be left alone: more would be a sink that nobody notices.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// A webhook.
pub(super) struct WebhookOutlet {
    to: WebhookTo,
    http: Client,
    clock: Clock,
}

impl fmt::Debug for WebhookOutlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookOutlet")
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

impl WebhookOutlet {
    pub(super) fn new(to: WebhookTo, clock: Clock) -> Result<Self, reqwest::Error> {
        // Another part of the process may have installed the same one before.
        drop(rustls::crypto::ring::default_provider().install_default());
        let builder = Client::builder()
            .timeout(ANSWER)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let builder = match &to.ca {
            Some(certificates) => builder.tls_certs_only(certificates.clone()),
            None => builder,
        };
        Ok(Self {
            http: builder.build()?,
            to,
            clock,
        })
    }

    pub(super) async fn post(&self, message: &Message) -> Result<(), Trouble> {
        let body = match message.format {
            // Chat services know no envelope.
            Format::Slack => message.body.to_string(),
            Format::Event | Format::Ocsf => json!({
                "type": message.kind.as_str(),
                "timestamp": stamp(message.time),
                "data": message.body,
            })
            .to_string(),
        };
        let (id, now) = (message.id.to_string(), self.clock.now());
        let timestamp = (now.as_micros() / 1_000_000).to_string();
        let mut request = self
            .http
            .post(self.to.url.expose_secret())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "countersign")
            .header("webhook-id", &id)
            .header("webhook-timestamp", &timestamp);
        if self.to.secrets.count() > 0 {
            let signature = self.to.secrets.sign(&id, &timestamp, body.as_bytes());
            request = request.header("webhook-signature", signature);
        }
        let answer = request.body(body).send().await.map_err(trouble)?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::GONE => Err(Trouble::Gone),
            status => Err(Trouble::Refused {
                status: status.as_u16(),
                retry_after: self.retry_after(&answer),
            }),
        }
    }

    /// Seconds, or a date.
    fn retry_after(&self, answer: &Response) -> Option<Duration> {
        let text = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
        let wait = match text.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                let at = DateTimeParser::new().parse_timestamp(text).ok()?;
                let at = u64::try_from(at.as_microsecond()).ok()?;
                Duration::from_micros(at.saturating_sub(self.clock.now().as_micros()))
            }
        };
        Some(wait.min(LONGEST_RETRY_AFTER))
    }
}

/// The innermost cause, without the address.
fn trouble(error: reqwest::Error) -> Trouble {
    let error = error.without_url();
    if error.is_timeout() {
        return Trouble::Timeout;
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Trouble::Unreachable(
        error
            .source()
            .map_or_else(|| error.to_string(), |_| cause.to_string()),
    )
}
