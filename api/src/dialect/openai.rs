//! OpenAI chat completions: reads a request without building a tree.
//!
//! Where a member comes twice, parsers differ on which counts; the gateway then takes the one that asks for more, and
//! changes every one of them, so that no upstream can read it otherwise.

pub(crate) mod answer;
pub(crate) mod splice;

use super::json::{self, Field, Member, range_in};
use super::not_json;
use crate::chat::{Request, Service};
use crate::error::Error;
use crate::tokens::{Meter, PER_REQUEST, Piece};
use std::ops::Range;

/// OpenAI's own bound on `n`.
const CHOICES_MAX: u64 = 128;
/// No model writes more at once; larger numbers are mistakes.
const OUTPUT_MAX: u64 = 1 << 31;

/// A chat request as read, with the places in the client's bytes that may change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Read {
    /// What the gateway needs to know.
    pub(crate) request: Request,
    /// Just after the opening brace of the body.
    open: usize,
    models: Vec<Range<usize>>,
    caps: Vec<Cap>,
    stream_options: Vec<Range<usize>>,
    prompts: Vec<Range<usize>>,
    schemas: Vec<Range<usize>>,
}

#[derive(Clone, Debug)]
struct Cap {
    is_null: bool,
    value: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Top {
    Model,
    Messages,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    Choices,
    ServiceTier,
    Schema,
}

impl Field for Top {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "model" => Self::Model,
            "messages" => Self::Messages,
            "stream" => Self::Stream,
            "stream_options" => Self::StreamOptions,
            "max_tokens" => Self::MaxTokens,
            "max_completion_tokens" => Self::MaxCompletionTokens,
            "n" => Self::Choices,
            "service_tier" => Self::ServiceTier,
            "tools" | "functions" | "response_format" => Self::Schema,
            _ => return None,
        })
    }
}

/// Reads a chat completions request.
///
/// # Errors
/// [`Error::Invalid`] names the member that is missing or of a wrong type.
pub(crate) fn read(body: &[u8]) -> Result<Read, Error> {
    let message = "the request body is not valid UTF-8".to_owned();
    let text = std::str::from_utf8(body).map_err(|_| Error::Invalid { message, param: None })?;
    let members = json::members::<Top>(text).map_err(|cause| not_json(&cause))?;
    let open = text.find('{').map_or(0, |at| at + 1);
    let mut read = Read { open, request: Request { choices: 1, ..Request::default() }, ..Read::default() };
    for member in members {
        read.take(text, member)?;
    }
    if read.models.is_empty() {
        return Err(Error::invalid("model", "you must provide a model parameter"));
    }
    if read.prompts.is_empty() {
        return Err(Error::invalid("messages", "missing required parameter: 'messages'"));
    }
    Ok(read)
}

impl Read {
    fn take(&mut self, text: &str, Member { field, raw }: Member<'_, Top>) -> Result<(), Error> {
        let (at, request) = (range_in(text, raw), &mut self.request);
        match field {
            Top::Model => {
                request.model = string("model", raw)?.ok_or_else(|| wrong("model", "a string"))?;
                if request.model.is_empty() {
                    return Err(Error::invalid("model", "you must provide a model parameter"));
                }
                self.models.push(at);
            }
            Top::Messages => {
                if !raw.starts_with('[') {
                    return Err(wrong("messages", "an array of messages"));
                }
                if raw[1..].trim_start().starts_with(']') {
                    return Err(Error::invalid("messages", "'messages' must hold at least one message"));
                }
                self.prompts.push(at);
            }
            Top::Stream => request.stream |= boolean("stream", raw)?,
            Top::StreamOptions => {
                request.wants_usage |= splice::wants_usage(raw)?;
                self.stream_options.push(at);
            }
            Top::MaxTokens => self.take_cap("max_tokens", raw, at)?,
            Top::MaxCompletionTokens => self.take_cap("max_completion_tokens", raw, at)?,
            Top::Choices => {
                if let Some(choices) = integer("n", raw, 1, CHOICES_MAX)? {
                    request.choices = request.choices.max(choices);
                }
            }
            Top::ServiceTier => match string("service_tier", raw)?.as_deref() {
                Some("priority") => request.service = Service::Priority,
                Some("flex") => request.service = Service::Flex,
                _ => request.service = Service::Usual,
            },
            Top::Schema => self.schemas.push(at),
        }
        Ok(())
    }

    fn take_cap(&mut self, name: &'static str, raw: &str, value: Range<usize>) -> Result<(), Error> {
        let cap = integer(name, raw, 1, OUTPUT_MAX)?;
        self.request.output_max = self.request.output_max.max(cap);
        self.caps.push(Cap { is_null: cap.is_none(), value });
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

fn wrong(param: &'static str, expected: &str) -> Error {
    Error::invalid(param, format!("invalid type for '{param}': expected {expected}"))
}

fn string(param: &'static str, raw: &str) -> Result<Option<String>, Error> {
    serde_json::from_str(raw).map_err(|_| wrong(param, "a string"))
}

fn boolean(param: &'static str, raw: &str) -> Result<bool, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tokenizer;

    fn with(members: &str) -> String {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hello world"}}]{members}}}"#)
    }

    fn param(body: &str) -> Option<&'static str> {
        match read(body.as_bytes()) {
            Err(Error::Invalid { param, .. }) => param.or(Some("(body)")),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn a_wrong_member_is_named() {
        for (members, expected) in [
            (r#","stream":1"#, "stream"),
            (r#","stream":"true""#, "stream"),
            (r#","stream_options":[]"#, "stream_options"),
            (r#","stream_options":{"include_usage":1}"#, "stream_options"),
            (r#","max_tokens":-1"#, "max_tokens"),
            (r#","max_tokens":0"#, "max_tokens"),
            (r#","max_tokens":1.5"#, "max_tokens"),
            (r#","max_tokens":1e3"#, "max_tokens"),
            (r#","max_tokens":"7""#, "max_tokens"),
            (r#","max_tokens":99999999999999999999999999"#, "max_tokens"),
            (r#","max_completion_tokens":-99999999999999999999999999"#, "max_completion_tokens"),
            (r#","n":1000000000"#, "n"),
            (r#","n":0"#, "n"),
            (r#","n":{}"#, "n"),
            (r#","service_tier":3"#, "service_tier"),
            (r#","model":7"#, "model"),
            (r#","model":null"#, "model"),
            (r#","model":"""#, "model"),
            (r#","messages":{}"#, "messages"),
            (r#","messages":[ ]"#, "messages"),
        ] {
            assert_eq!(param(&with(members)), Some(expected), "{members}");
        }
        assert_eq!(param(r#"{"messages":[{}]}"#), Some("model"));
        assert_eq!(param(r#"{"model":"m"}"#), Some("messages"));
        for broken in ["", "{", "[]", "7", "nul", r#"{"model":"m",}"#, r#"{"model":"m"} x"#, "\u{feff}{}"] {
            assert_eq!(param(broken), Some("(body)"), "{broken}");
        }
        assert!(matches!(read(b"{\"model\":\"\xff\"}"), Err(Error::Invalid { .. })));
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let body = with(
            r#", "max_tokens": 5,"max_completion_tokens" :9, "n":3,"stream":true,
               "stream_options":{"include_usage":true},"service_tier":"flex","metadata":{"model":"x","n":77}"#,
        );
        let request = read(body.as_bytes()).unwrap().request;
        assert_eq!(
            request,
            Request {
                model: "m".into(),
                stream: true,
                wants_usage: true,
                output_max: Some(9),
                choices: 3,
                service: Service::Flex
            }
        );
    }

    #[test]
    fn the_larger_of_repeated_members_counts() {
        let body = with(r#","max_tokens":50,"max_tokens":3,"n":4,"n":1,"m\u006fdel":"last""#);
        let request = read(body.as_bytes()).unwrap().request;
        assert_eq!((request.output_max, request.choices, request.model.as_str()), (Some(50), 4, "last"));
    }

    #[test]
    fn the_prompt_is_counted_by_its_texts() {
        let count =
            |body: &str| read(body.as_bytes()).unwrap().count_prompt(body.as_bytes(), Meter::new(Tokenizer::O200kBase));
        let plain = count(&with(""));
        assert_eq!(plain, PER_REQUEST + crate::tokens::PER_MESSAGE + 2);
        let parts = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hello world"},
            {"type":"image_url","image_url":{"url":"data:aaaa"}}]}]}"#;
        assert_eq!(count(parts), plain + crate::tokens::PER_IMAGE);
        assert!(count(&with(r#","tools":[{"type":"function","function":{"name":"f"}}]"#)) > plain);
    }

    #[test]
    fn deep_nesting_neither_overflows_nor_goes_uncounted() {
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        let body = format!(r#"{{"model":"m","messages":[{deep}],"x":{deep}}}"#);
        let read = read(body.as_bytes()).unwrap();
        assert!(read.count_prompt(body.as_bytes(), Meter::new(Tokenizer::Bytes)) > 50_000);
    }
}
