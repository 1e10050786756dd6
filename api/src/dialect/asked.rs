//! Reads the head of a request: what the gateway needs to know of it, and the places in the client's bytes that may have to
//! change. Builds no tree. Every dialect says what its members mean ([`Names`]); what is done with them stands here.
//!
//! Where a member comes twice, parsers differ on which counts; the gateway then takes the one that asks for more, and
//! changes every one of them, so that no upstream can read it otherwise.

use super::json::{self, Field, Member, range_in};
use super::{Wire, not_json, splice};
use crate::chat::{Head, Service};
use crate::error::Error;
use crate::tokens::{Meter, PER_REQUEST, Piece};
use std::marker::PhantomData;
use std::ops::Range;

/// OpenAI's own bound on `n`.
const CHOICES_MAX: u64 = 128;
/// No model writes more at once; larger numbers are mistakes.
const OUTPUT_MAX: u64 = 1 << 31;

/// A request as read, with the places in the client's bytes that may change.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) wire: Wire,
    /// What the gateway needs to know.
    pub(crate) head: Head,
    /// Just after the opening brace of the body.
    pub(super) open: usize,
    pub(super) models: Vec<Range<usize>>,
    pub(super) caps: Vec<Cap>,
    /// Objects that lack the cap which belongs into them.
    pub(super) homes: Vec<Home>,
    pub(super) stream_options: Vec<Range<usize>>,
    prompts: Vec<Range<usize>>,
    schemas: Vec<Range<usize>>,
}

#[derive(Clone, Debug)]
pub(super) struct Cap {
    pub(super) is_null: bool,
    pub(super) value: Range<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Home {
    /// Just after its opening brace.
    pub(super) open: usize,
    pub(super) is_empty: bool,
}

/// What a member at the top of a request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Top {
    Model,
    /// What the model reads; by its name.
    Prompt(&'static str),
    Stream,
    StreamOptions,
    /// An output cap; by its name.
    Cap(&'static str),
    Choices,
    ServiceTier,
    /// What the model reads too, as it stands.
    Schema,
    /// Gemini's `generationConfig`.
    Generation,
}

/// What a dialect calls things.
pub(crate) trait Names {
    /// The member without which there is no request.
    const PROMPT: &'static str;
    /// Whether that has to be an array, of at least one element.
    const IS_LIST: bool = true;
    /// Whether the model stands in the body.
    const HAS_MODEL: bool = true;
    /// Knows a member by its name.
    fn named(name: &str) -> Option<Top>;
}

struct Known<N>(Top, PhantomData<N>);

impl<N: Names> Field for Known<N> {
    fn named(name: &str) -> Option<Self> {
        N::named(name).map(|top| Self(top, PhantomData))
    }
}

/// Reads a request's head.
///
/// # Errors
/// [`Error::Invalid`] names the member that is missing or of a wrong type.
pub(crate) fn read<N: Names>(wire: Wire, body: &[u8]) -> Result<Asked, Error> {
    let message = "the request body is not valid UTF-8".to_owned();
    let text = std::str::from_utf8(body).map_err(|_| Error::Invalid { message, param: None })?;
    let members = json::members::<Known<N>>(text).map_err(|cause| not_json(&cause))?;
    let mut asked = Asked {
        wire,
        head: Head { choices: 1, ..Head::default() },
        open: text.find('{').map_or(0, |at| at + 1),
        models: Vec::new(),
        caps: Vec::new(),
        homes: Vec::new(),
        stream_options: Vec::new(),
        prompts: Vec::new(),
        schemas: Vec::new(),
    };
    let mut has_prompt = false;
    for Member { field: Known(top, _), raw } in members {
        has_prompt |= top == Top::Prompt(N::PROMPT);
        asked.take::<N>(text, top, raw)?;
    }
    if N::HAS_MODEL && asked.models.is_empty() {
        return Err(Error::invalid("model", "you must provide a model parameter"));
    }
    if !has_prompt {
        return Err(Error::invalid(N::PROMPT, format!("missing required parameter: '{}'", N::PROMPT)));
    }
    Ok(asked)
}

impl Asked {
    fn take<N: Names>(&mut self, text: &str, top: Top, raw: &str) -> Result<(), Error> {
        let (at, head) = (range_in(text, raw), &mut self.head);
        match top {
            Top::Model => {
                head.model = string("model", raw)?.ok_or_else(|| wrong("model", "a string"))?;
                if head.model.is_empty() {
                    return Err(Error::invalid("model", "you must provide a model parameter"));
                }
                self.models.push(at);
            }
            Top::Prompt(name) => {
                if name == N::PROMPT && N::IS_LIST {
                    check_list(name, raw)?;
                }
                self.prompts.push(at);
            }
            Top::Stream => head.stream |= boolean("stream", raw)?,
            Top::StreamOptions => {
                head.wants_usage |= splice::wants_usage(raw)?;
                self.stream_options.push(at);
            }
            Top::Cap(name) => self.take_cap(name, raw, at)?,
            Top::Choices => self.take_choices("n", raw)?,
            Top::ServiceTier => match string("service_tier", raw)?.as_deref() {
                Some("priority") => head.service = Service::Priority,
                Some("flex") => head.service = Service::Flex,
                _ => head.service = Service::Usual,
            },
            Top::Schema => self.schemas.push(at),
            Top::Generation => self.take_generation(text, raw, at.start)?,
        }
        Ok(())
    }

    fn take_cap(&mut self, name: &'static str, raw: &str, value: Range<usize>) -> Result<(), Error> {
        let cap = integer(name, raw, 1, OUTPUT_MAX)?;
        self.head.output_max = self.head.output_max.max(cap);
        self.caps.push(Cap { is_null: cap.is_none(), value });
        Ok(())
    }

    fn take_choices(&mut self, name: &'static str, raw: &str) -> Result<(), Error> {
        if let Some(choices) = integer(name, raw, 1, CHOICES_MAX)? {
            self.head.choices = self.head.choices.max(choices);
        }
        Ok(())
    }

    fn take_generation(&mut self, text: &str, raw: &str, start: usize) -> Result<(), Error> {
        if raw == "null" {
            return Ok(());
        }
        let wrong = || wrong("generationConfig", "an object");
        let members = json::members::<InGeneration>(raw).map_err(|_| wrong())?;
        let mut has_cap = false;
        for Member { field, raw } in members {
            match field {
                InGeneration::Cap => {
                    has_cap = true;
                    self.take_cap("maxOutputTokens", raw, range_in(text, raw))?;
                }
                InGeneration::Choices => self.take_choices("candidateCount", raw)?,
                InGeneration::Schema => self.schemas.push(range_in(text, raw)),
                InGeneration::Thinking => {
                    let members = json::members::<Budget>(raw).unwrap_or_default();
                    let budgets = members.iter().filter_map(|member| member.raw.parse::<u64>().ok());
                    self.head.thinking = budgets.fold(self.head.thinking, u64::max).min(OUTPUT_MAX);
                }
            }
        }
        if !has_cap {
            let is_empty = raw[1..].trim_start() == "}";
            self.homes.push(Home { open: start + 1, is_empty });
        }
        Ok(())
    }

    /// Counts the prompt of the body that was read.
    pub(crate) fn count_prompt(&self, body: &[u8], mut meter: Meter) -> u64 {
        let text = |range: &Range<usize>| std::str::from_utf8(&body[range.clone()]).unwrap_or_default();
        for prompt in &self.prompts {
            json::texts(text(prompt), &mut |piece| meter.add(piece));
        }
        for schema in &self.schemas {
            meter.add(Piece::Text(text(schema)));
        }
        meter.tokens().saturating_add(PER_REQUEST)
    }
}

enum InGeneration {
    Cap,
    Choices,
    Schema,
    Thinking,
}

impl Field for InGeneration {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "maxOutputTokens" | "max_output_tokens" => Self::Cap,
            "candidateCount" | "candidate_count" => Self::Choices,
            "responseSchema" | "response_schema" | "responseJsonSchema" | "response_json_schema" => Self::Schema,
            "thinkingConfig" | "thinking_config" => Self::Thinking,
            _ => return None,
        })
    }
}

struct Budget;

impl Field for Budget {
    fn named(name: &str) -> Option<Self> {
        matches!(name, "thinkingBudget" | "thinking_budget").then_some(Self)
    }
}

fn check_list(name: &'static str, raw: &str) -> Result<(), Error> {
    if !raw.starts_with('[') {
        return Err(wrong(name, "an array"));
    }
    if raw[1..].trim_start().starts_with(']') {
        return Err(Error::invalid(name, format!("'{name}' must hold at least one element")));
    }
    Ok(())
}

fn wrong(param: &'static str, expected: &str) -> Error {
    super::fields::wrong(param, expected)
}

fn string(param: &'static str, raw: &str) -> Result<Option<String>, Error> {
    serde_json::from_str(raw).map_err(|_| wrong(param, "a string"))
}

pub(super) fn boolean(param: &'static str, raw: &str) -> Result<bool, Error> {
    match raw {
        "true" => Ok(true),
        "false" | "null" => Ok(false),
        _ => Err(wrong(param, "a boolean")),
    }
}

fn integer(param: &'static str, raw: &str, least: u64, most: u64) -> Result<Option<u64>, Error> {
    if raw == "null" {
        return Ok(None);
    }
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong(param, "an integer"));
    }
    match raw.parse::<u64>() {
        Ok(value) if (least..=most).contains(&value) => Ok(Some(value)),
        Ok(value) if value < least => Err(Error::invalid(param, format!("'{param}' must be at least {least}"))),
        Err(_) if raw.starts_with('-') => Err(Error::invalid(param, format!("'{param}' must be at least {least}"))),
        _ => Err(Error::invalid(param, format!("'{param}' must be at most {most}"))),
    }
}
