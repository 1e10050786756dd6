//! Gemini's generateContent.

pub(crate) mod read;
pub(crate) mod reply;
pub(crate) mod schema;
pub(crate) mod stream;
pub(crate) mod write;

use super::Wire;
use super::asked::{self, Asked, Names, Top};
use crate::error::Error;

struct Contents;

impl Names for Contents {
    const PROMPT: &'static str = "contents";
    const HAS_MODEL: bool = false;

    fn named(name: &str) -> Option<Top> {
        Some(match name {
            "contents" => Top::Prompt("contents"),
            "systemInstruction" | "system_instruction" => Top::Prompt("systemInstruction"),
            "generationConfig" | "generation_config" => Top::Generation,
            "tools" => Top::Schema,
            _ => return None,
        })
    }
}

struct Counted;

impl Names for Counted {
    const PROMPT: &'static str = "contents";
    const IS_LIST: bool = false;
    const HAS_MODEL: bool = false;

    fn named(name: &str) -> Option<Top> {
        match name {
            // The whole request, where more than its contents is to be counted.
            "generateContentRequest" | "generate_content_request" => Some(Top::Prompt("contents")),
            name => Contents::named(name),
        }
    }
}

/// Reads the head of a request for content.
///
/// # Errors
/// [`Error::Invalid`] names the member that is missing or of a wrong type.
pub(crate) fn head(body: &[u8]) -> Result<Asked, Error> {
    asked::read::<Contents>(Wire::Gemini, body)
}

/// Reads the head of a request that only wants its tokens counted.
///
/// # Errors
/// [`Error::Invalid`] names the member that is missing or of a wrong type.
pub(crate) fn head_to_count(body: &[u8]) -> Result<Asked, Error> {
    asked::read::<Counted>(Wire::Gemini, body)
}
