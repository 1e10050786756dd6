//! The wire dialects. Each reads its own form into the hub of `chat.rs` and writes its own errors; none knows another.

pub(crate) mod json;
pub(crate) mod openai;

use crate::error::Error;
use http::{HeaderMap, Uri};

/// Whose clients speak so: decides the envelope of errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Family {
    /// OpenAI and everything alike.
    #[default]
    Openai,
    /// Anthropic.
    Anthropic,
    /// Gemini.
    Gemini,
}

impl Family {
    /// Tells the family on routes that several share, and on unknown ones.
    pub(crate) fn of(headers: &HeaderMap, uri: &Uri) -> Self {
        let keyed = uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("key=")));
        let verb = uri.path().rsplit('/').next().is_some_and(|last| last.contains(':'));
        if headers.contains_key("x-goog-api-key") || keyed || verb {
            Self::Gemini
        } else if headers.contains_key("anthropic-version") {
            Self::Anthropic
        } else {
            Self::Openai
        }
    }
}

/// Says that a body is no JSON, without repeating what it holds.
pub(crate) fn not_json(cause: &serde_json::Error) -> Error {
    let (line, column) = (cause.line(), cause.column());
    let message = format!("the request body is not valid JSON (line {line} column {column})");
    Error::Invalid { message, param: None }
}
