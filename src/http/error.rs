//! The only place of status codes: what the inner rooms say, as RFC 9457 problems.
//!
//! A problem's text is for the caller and tells an attacker nothing; what the log needs is logged
//! where the error comes from.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_protocol::api::Problem;
use countersign_protocol::fold::{Class, Refusal};
use countersign_protocol::permission::Permission;

use crate::ledger::{AppendError, OpenError};
use crate::projections::{ReadError, SearchError};

/// Seconds after which a caller that was turned away may come again.
const RETRY_AFTER: &str = "1";

/// An answer that is no success.
#[derive(Debug, Clone)]
pub(super) struct ApiError(pub(super) Box<Problem>);

impl ApiError {
    /// An error with a stable code; `detail` says what happened and what it means.
    pub(super) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or("error").into(),
            status: status.as_u16(),
            code: code.into(),
            detail: detail.into(),
            hint: None,
        }))
    }

    /// Adds what to do next.
    pub(super) fn hint(mut self, hint: &str) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(super) fn bad_request(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(super) fn not_found(code: &str, detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    pub(super) fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "no_session",
            "there is no session, or it has ended",
        )
        .hint("sign in: POST /v1/sessions/challenge, sign it, POST /v1/sessions")
    }

    pub(super) fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "not_permitted", detail)
    }

    /// The caller lacks a permission.
    pub(super) fn lacks(right: Permission) -> Self {
        Self::forbidden(&format!(
            "this takes the permission {right}, which you do not hold"
        ))
        .hint("countersign whoami says what you may do; administrators grant roles")
    }

    pub(super) fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "the server has too much to do at this moment; nothing was written",
        )
        .hint("send the same statement again in a moment; it is entered once")
    }

    pub(super) fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the database cannot be reached at this moment",
        )
        .hint("try again in a moment; a statement that is sent again is entered once")
    }

    /// What others committed cannot be kept here, so that it is not shown here.
    pub(super) fn not_kept() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "checkpoint_file",
            "this server cannot write its checkpoint file, so it shows nothing of what the ledger holds by now",
        )
        .hint("ask another server of this ledger, or its operator; a statement that is sent again is entered once")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry = matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        );
        let mut response = (status, Json(self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

impl From<&Refusal> for ApiError {
    fn from(refusal: &Refusal) -> Self {
        let status = match refusal.class() {
            Class::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Class::Forbidden => StatusCode::FORBIDDEN,
            Class::Missing => StatusCode::NOT_FOUND,
            Class::Conflict => StatusCode::CONFLICT,
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        let detail = error.to_string();
        match &error {
            AppendError::Statement(_) => Self::bad_request("statement", detail)
                .hint("the payload must be canonical JSON of its kind, signed as SSHSIG"),
            AppendError::Blob(_) => Self::bad_request("blob", detail),
            AppendError::BlobMissing => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "blob_missing", detail)
            }
            AppendError::Document(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "document", detail)
            }
            AppendError::Refused(refusal) => refusal.into(),
            AppendError::Busy => Self::busy(),
            AppendError::Unavailable => Self::unavailable(),
            AppendError::NotKept => Self::not_kept(),
            AppendError::Clock => Self::new(StatusCode::SERVICE_UNAVAILABLE, "clock", detail),
            // Why is in the server's log: the caller cannot do anything about it.
            AppendError::Stopped(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopped",
                "this ledger has stopped writing; its operator must look",
            ),
        }
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        tracing::warn!(%error, "a read failed");
        Self::unavailable()
    }
}

impl From<OpenError> for ApiError {
    fn from(error: OpenError) -> Self {
        if let OpenError::Database(error) = error {
            return error.into();
        }
        if let OpenError::Unanswered = error {
            return Self::unavailable();
        }
        if let OpenError::File(_) | OpenError::Unkept = error {
            // It was logged where it was tried. Nothing is known that could not be kept.
            return Self::not_kept();
        }
        tracing::error!(%error, "the log does not stand");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "log",
            "the log in the database does not stand; run `countersign verify`",
        )
    }
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Read(error) => error.into(),
            SearchError::Broad => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "broad", error.to_string()).hint(
                    "ask for less: a host, a time, a longer text; or read the whole log (--whole)",
                )
            }
            SearchError::Cursor => Self::bad_request("cursor", error.to_string()),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Database(error) => error.into(),
            ReadError::Behind => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "behind",
                "the lists are behind the log at this moment",
            ),
            ReadError::Ambiguous => Self::new(StatusCode::CONFLICT, "ambiguous", error.to_string()),
        }
    }
}
