//! OpenAI chat completions: reads what the gateway needs of an answer, plain or one event of a stream.

use super::super::json::{self, Field, Member, range_in};
use crate::chat::{Keep, Seen, Usage};
use crate::tokens::Piece;
use memchr::memmem;
use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Top {
    Choices,
    Usage,
}

impl Field for Top {
    fn named(name: &str) -> Option<Self> {
        match name {
            "choices" => Some(Self::Choices),
            "usage" => Some(Self::Usage),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InChoice {
    Written,
    FinishReason,
}

impl Field for InChoice {
    fn named(name: &str) -> Option<Self> {
        match name {
            "delta" | "message" | "text" => Some(Self::Written),
            "finish_reason" => Some(Self::FinishReason),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InUsage {
    Prompt,
    Completion,
    PromptDetails,
    CompletionDetails,
}

impl Field for InUsage {
    fn named(name: &str) -> Option<Self> {
        match name {
            "prompt_tokens" => Some(Self::Prompt),
            "completion_tokens" => Some(Self::Completion),
            "prompt_tokens_details" => Some(Self::PromptDetails),
            "completion_tokens_details" => Some(Self::CompletionDetails),
            _ => None,
        }
    }
}

/// Reads a whole answer. Says whether it was one.
pub(crate) fn read(body: &[u8], seen: &mut Seen) -> bool {
    let members = std::str::from_utf8(body).ok().and_then(|text| json::members::<Top>(text).ok());
    let Some(members) = members else { return false };
    let usage = members.iter().rfind(|member| member.field == Top::Usage);
    seen.usage = usage.and_then(|member| usage_of(member.raw));
    if seen.usage.is_none() {
        let choices = members.iter().filter(|member| member.field == Top::Choices);
        choices.for_each(|member| read_choices(member.raw, seen));
    }
    true
}

/// Reads the data of one event of a stream, and says what of it the client is to see. `injected` says that the usage
/// was asked for by the gateway alone.
pub(crate) fn read_event(data: &[u8], injected: bool, seen: &mut Seen) -> Keep {
    if data == b"[DONE]" {
        seen.done = true;
        return Keep::All;
    }
    let members = std::str::from_utf8(data).ok().and_then(|text| Some((text, json::members::<Top>(text).ok()?)));
    let Some((text, members)) = members else { return Keep::All };
    let (mut is_usage_only, mut null_usage) = (false, None);
    for member in members {
        match member.field {
            Top::Choices => {
                is_usage_only = is_empty_array(member.raw);
                read_choices(member.raw, seen);
            }
            Top::Usage if member.raw == "null" => null_usage = Some(range_in(text, member.raw)),
            Top::Usage => seen.usage = usage_of(member.raw).or(seen.usage),
        }
    }
    match null_usage {
        Some(at) if injected => without_member(data, at).map_or(Keep::All, Keep::Without),
        None if injected && is_usage_only && memmem::find(data, b"\"usage\"").is_some() => Keep::Nothing,
        _ => Keep::All,
    }
}

fn is_empty_array(raw: &str) -> bool {
    raw.starts_with('[') && raw[1..].trim_start().starts_with(']')
}

fn read_choices(raw: &str, seen: &mut Seen) {
    let Ok(choices) = serde_json::from_str::<Vec<&serde_json::value::RawValue>>(raw) else { return };
    for choice in choices {
        for member in json::members::<InChoice>(choice.get()).unwrap_or_default() {
            match member.field {
                InChoice::FinishReason => seen.finished |= member.raw != "null",
                InChoice::Written => json::texts(member.raw, &mut |piece| {
                    if piece != Piece::Message {
                        seen.written.gather(piece);
                    }
                }),
            }
        }
    }
}

/// An upstream's usage; one that is no pair of whole numbers is none.
pub(crate) fn usage_of(raw: &str) -> Option<Usage> {
    let (mut prompt, mut completion) = (None, None);
    let mut usage = Usage::default();
    for member in json::members::<InUsage>(raw).ok()? {
        match member.field {
            InUsage::Prompt => prompt = Some(whole(member.raw)?),
            InUsage::Completion => completion = Some(whole(member.raw)?),
            InUsage::PromptDetails => {
                for Member { field, raw } in json::members::<InDetails>(member.raw).unwrap_or_default() {
                    match field {
                        InDetails::Cached => usage.cached = whole(raw).unwrap_or(0),
                        InDetails::CacheWritten => usage.cache_written = whole(raw).unwrap_or(0),
                        InDetails::Reasoning => {}
                    }
                }
            }
            InUsage::CompletionDetails => {
                let members = json::members::<InDetails>(member.raw).unwrap_or_default();
                let reasoning = members.iter().rfind(|member| matches!(member.field, InDetails::Reasoning));
                usage.reasoning = reasoning.and_then(|member| whole(member.raw)).unwrap_or(0);
            }
        }
    }
    Some(Usage { prompt: prompt?, completion: completion.unwrap_or(0), ..usage })
}

enum InDetails {
    Cached,
    CacheWritten,
    Reasoning,
}

impl Field for InDetails {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "cached_tokens" => Self::Cached,
            "cache_write_tokens" => Self::CacheWritten,
            "reasoning_tokens" => Self::Reasoning,
            _ => return None,
        })
    }
}

/// A whole number; one too large for the type becomes its largest.
pub(crate) fn whole(raw: &str) -> Option<u64> {
    let is_whole = !raw.is_empty() && raw.bytes().all(|byte| byte.is_ascii_digit());
    is_whole.then(|| raw.parse().unwrap_or(u64::MAX))
}

/// The range of the member `"usage": VALUE` with the comma that belongs to it, by the range of its value.
fn without_member(data: &[u8], value: Range<usize>) -> Option<Range<usize>> {
    let before = data[..value.start].trim_ascii_end().strip_suffix(b":")?;
    let before = before.trim_ascii_end().strip_suffix(b"\"usage\"")?.trim_ascii_end();
    if let Some(rest) = before.strip_suffix(b",") {
        return Some(rest.len()..value.end);
    }
    let after = data[value.end..].trim_ascii_start();
    let comma = usize::from(after.first() == Some(&b','));
    Some(before.len()..data.len() - after.len() + comma)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tokenizer;
    use crate::tokens::Meter;

    fn seen() -> Seen {
        Seen::new(Meter::new(Tokenizer::O200kBase))
    }

    #[test]
    fn usage_is_believed_only_where_it_is_numbers() {
        for (usage, expected) in [
            (r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#, Some((3, 4))),
            (r#"{"prompt_tokens":3}"#, Some((3, 0))),
            (r#"{"prompt_tokens":-3,"completion_tokens":4}"#, None),
            (r#"{"prompt_tokens":"3","completion_tokens":4}"#, None),
            (r#"{"prompt_tokens":3.5,"completion_tokens":4}"#, None),
            (r#"{"prompt_tokens":3,"completion_tokens":99999999999999999999999}"#, Some((3, u64::MAX))),
            (r#"{"completion_tokens":4}"#, None),
            ("[]", None),
            ("null", None),
        ] {
            let mut seen = seen();
            assert!(read(format!(r#"{{"choices":[],"usage":{usage}}}"#).as_bytes(), &mut seen));
            assert_eq!(seen.usage.map(|usage| (usage.prompt, usage.completion)), expected, "{usage}");
        }
        let bounded = Usage { prompt: u64::MAX, completion: 5, ..Usage::default() }.bounded(100);
        assert_eq!((bounded.prompt, bounded.completion), (1_000, 5));
    }

    #[test]
    fn an_answer_without_usage_is_counted_here() {
        let mut seen = seen();
        let body = br#"{"choices":[{"message":{"role":"assistant","content":"hello world"},"finish_reason":"stop"}]}"#;
        assert!(read(body, &mut seen));
        assert_eq!(seen.usage(30, 1_000), Usage { prompt: 30, completion: 2, ..Usage::default() });
        assert!(!read(b"<html>", &mut seen));
    }

    #[test]
    fn the_client_sees_only_the_usage_it_asked_for() {
        let only = br#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        assert_eq!(read_event(only, true, &mut seen()), Keep::Nothing);
        assert_eq!(read_event(only, false, &mut seen()), Keep::All);
        assert_eq!(read_event(br#"{"choices":[]}"#, true, &mut seen()), Keep::All);
        for (event, left) in [
            (r#"{"choices":[{}],"usage":null}"#, r#"{"choices":[{}]}"#),
            (r#"{"usage" : null, "choices":[{}]}"#, r#"{ "choices":[{}]}"#),
            (
                r#"{"a":"\"usage\":null", "usage": null ,"b":{"usage":null}}"#,
                r#"{"a":"\"usage\":null" ,"b":{"usage":null}}"#,
            ),
        ] {
            let Keep::Without(cut) = read_event(event.as_bytes(), true, &mut seen()) else { panic!("{event}") };
            let mut text = event.to_owned();
            text.replace_range(cut, "");
            assert_eq!(text, left);
            assert_eq!(read_event(event.as_bytes(), false, &mut seen()), Keep::All);
        }
    }

    #[test]
    fn deltas_are_counted_and_ends_are_seen() {
        let mut seen = seen();
        for event in [
            r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
            r#"{"choices":[{"delta":{"content":"hello"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"arguments":" world"}}]}}]}"#,
        ] {
            read_event(event.as_bytes(), true, &mut seen);
        }
        assert!(!seen.finished);
        read_event(br#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, true, &mut seen);
        assert!(seen.finished && !seen.done);
        read_event(b"[DONE]", true, &mut seen);
        assert!(seen.done);
        assert_eq!(seen.usage(5, 100), Usage { prompt: 5, completion: 2, ..Usage::default() });
    }
}
