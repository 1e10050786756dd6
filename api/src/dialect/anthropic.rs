//! Anthropic messages.

pub(crate) mod read;
pub(crate) mod reply;
pub(crate) mod stream;
pub(crate) mod write;

use super::Wire;
use super::asked::{self, Asked, Names, Top};
use crate::error::Error;

struct Messages;

impl Names for Messages {
    const PROMPT: &'static str = "messages";

    fn named(name: &str) -> Option<Top> {
        Some(match name {
            "model" => Top::Model,
            "messages" => Top::Prompt("messages"),
            "system" => Top::Prompt("system"),
            "stream" => Top::Stream,
            "max_tokens" => Top::Cap("max_tokens"),
            "tools" | "output_config" => Top::Schema,
            _ => return None,
        })
    }
}

/// Reads the head of a request for a message.
///
/// # Errors
/// [`Error::Invalid`] names the member that is missing or of a wrong type.
pub(crate) fn head(body: &[u8]) -> Result<Asked, Error> {
    let asked = head_to_count(body)?;
    if asked.head.output_max.is_none() {
        return Err(Error::invalid("max_tokens", "missing required parameter: 'max_tokens'"));
    }
    Ok(asked)
}

/// Reads the head of a request that only wants its tokens counted, and so needs no cap.
///
/// # Errors
/// [`Error::Invalid`] names the member that is missing or of a wrong type.
pub(crate) fn head_to_count(body: &[u8]) -> Result<Asked, Error> {
    asked::read::<Messages>(Wire::Anthropic, body)
}
