//! What can go wrong with an admin request, and how it looks on the wire.
//!
//! Shape: `{"error":{"code","message","field"}}`, `field` only where one is to blame.

use crate::identity::StoreError;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

/// Why an admin request does not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The admin key is missing or wrong.
    #[error("this needs the admin key: send it as `Authorization: Bearer KEY`")]
    Unauthorized,
    /// The admin's role does not go so far.
    #[error("{0}")]
    Forbidden(String),
    /// A field does not hold what it must.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing of that name.
    #[error("{0} not found")]
    NotFound(String),
    /// No pool of the configuration has that name, so nothing would be routed to it.
    #[error("no pool of the configuration is called `{name}`{}", nearest.as_ref().map(|near| format!("; the nearest is `{near}`")).unwrap_or_default())]
    UnknownPool {
        /// The name that was given.
        name: String,
        /// The name that was probably meant.
        nearest: Option<String>,
    },
    /// The route exists, for other methods.
    #[error("this method is not allowed here")]
    MethodNotAllowed,
    /// The body is too large for anything that can be asked here.
    #[error("the request body is too large")]
    TooLarge,
    /// It would clash with what is there.
    #[error("{field}: {problem}")]
    Conflict {
        /// Which field.
        field: String,
        /// With what it clashes.
        problem: String,
    },
    /// Somebody else has changed it meanwhile.
    #[error("{0}")]
    Stale(String),
    /// The ledger or the store cannot answer now; nothing was changed.
    #[error("{0} is not available, try again")]
    Unavailable(String),
    /// It may or may not have happened.
    #[error("the outcome is unknown: {0}")]
    Indeterminate(String),
    /// A fault of ours.
    #[error("the gateway failed; its log holds the cause")]
    Internal,
}

impl AdminError {
    /// A field that does not hold what it must.
    pub fn invalid(field: &str, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.to_owned(), problem: problem.into() }
    }

    fn parts(&self) -> (StatusCode, &'static str, Option<&str>) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", None),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", None),
            Self::Invalid { field, .. } => (StatusCode::BAD_REQUEST, "invalid", Some(field)),
            Self::NotFound(_) | Self::UnknownPool { .. } => (StatusCode::NOT_FOUND, "not_found", None),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", None),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", Some("body")),
            Self::Conflict { field, .. } => (StatusCode::CONFLICT, "conflict", Some(field)),
            Self::Stale(_) => (StatusCode::PRECONDITION_FAILED, "stale", Some("version")),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", None),
            Self::Indeterminate(_) => (StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", None),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", None),
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let (status, code, field) = self.parts();
        let mut error = serde_json::json!({ "code": code, "message": self.to_string() });
        if let Some(field) = field {
            error["field"] = field.into();
        }
        let mut response = json(status, &serde_json::json!({ "error": error }));
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Invalid { field, problem } => Self::invalid(field, problem),
            StoreError::Conflict { field, problem } => {
                Self::Conflict { field: field.to_owned(), problem: problem.to_owned() }
            }
            StoreError::NotFound(what) => Self::NotFound(what.to_owned()),
            StoreError::Stale { .. } => Self::Stale(error.to_string()),
            StoreError::Down(cause) => unavailable(&cause),
            StoreError::Indeterminate(cause) => {
                tracing::warn!(%cause, "the key store broke off in the middle of a change");
                Self::Indeterminate("the key store broke off, look before you try again".to_owned())
            }
            StoreError::Corrupt(_) | StoreError::Random(_) => {
                tracing::error!(%error, "an admin request failed");
                Self::Internal
            }
        }
    }
}

/// The database does not answer.
pub(super) fn unavailable(cause: &sqlx::Error) -> AdminError {
    tracing::warn!(%cause, "the database does not answer an admin request");
    AdminError::Unavailable("the database".to_owned())
}

/// An answer in JSON that no cache may keep.
pub(super) fn json(status: StatusCode, body: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response(),
        Err(cause) => {
            tracing::error!(%cause, "an admin answer cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
