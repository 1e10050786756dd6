//! Changes a client's bytes as little as the gateway must: the model, an output cap where there is none, and the wish
//! for usage at the end of a stream. Every other byte stays as it is.

use super::Wire;
use super::asked::{Asked, boolean};
use super::build::quoted;
use super::fields::wrong;
use super::json::{self, Field, range_in};
use crate::chat::Changes;
use crate::error::Error;
use bytes::Bytes;
use std::ops::Range;

/// Applies the changes to the body that was read.
pub(crate) fn splice(asked: &Asked, body: &Bytes, changes: Changes<'_>) -> Bytes {
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut first = String::new();
    if asked.head.model != changes.model || asked.models.len() > 1 {
        let name = quoted(changes.model);
        edits.extend(asked.models.iter().map(|at| (at.clone(), name.clone())));
    }
    splice_caps(asked, changes, &mut edits, &mut first);
    if asked.wire == Wire::Chat && asked.head.stream {
        if asked.stream_options.is_empty() {
            first.push_str(r#""stream_options":{"include_usage":true},"#);
        }
        for at in &asked.stream_options {
            edits.extend(ask_for_usage(body, at));
        }
    }
    if !first.is_empty() {
        edits.push((asked.open..asked.open, first));
    }
    apply(body, edits)
}

/// Writes the cap where there is none. Where members come twice, one without a number would be no cap to a parser that
/// takes that one.
fn splice_caps(asked: &Asked, changes: Changes<'_>, edits: &mut Vec<(Range<usize>, String)>, first: &mut String) {
    if asked.wire.is_embedding() {
        return;
    }
    let field = match asked.wire {
        Wire::Chat => changes.output_field,
        Wire::Gemini => "maxOutputTokens",
        _ => "max_tokens",
    };
    let cap = changes.output_max;
    let is_capped = asked.head.output_max.is_some();
    // A caller within a strict allowance gets less than it asks for.
    let is_lowered = asked.head.output_max.is_some_and(|asked| asked > cap);
    if !is_capped || is_lowered || asked.caps.len() > 1 {
        let nulls = asked.caps.iter().filter(|cap| cap.is_null || is_lowered);
        edits.extend(nulls.map(|at| (at.value.clone(), cap.to_string())));
    }
    if !is_capped && asked.caps.is_empty() && asked.homes.is_empty() {
        first.push_str(&match asked.wire {
            Wire::Gemini => format!(r#""generationConfig":{{"{field}":{cap}}},"#),
            _ => format!("{}:{cap},", quoted(field)),
        });
        return;
    }
    for home in &asked.homes {
        let comma = if home.is_empty { "" } else { "," };
        edits.push((home.open..home.open, format!(r#""{field}":{cap}{comma}"#)));
    }
}

/// Whether `stream_options` asks for usage.
pub(super) fn wants_usage(raw: &str) -> Result<bool, Error> {
    if raw == "null" {
        return Ok(false);
    }
    let members = json::members::<IncludeUsage>(raw).map_err(|_| wrong("stream_options", "an object"))?;
    let mut wants = false;
    for member in members {
        wants |= boolean("stream_options", member.raw)?;
    }
    Ok(wants)
}

#[derive(Clone, Copy, Debug)]
struct IncludeUsage;

impl Field for IncludeUsage {
    fn named(name: &str) -> Option<Self> {
        (name == "include_usage").then_some(Self)
    }
}

fn ask_for_usage(body: &Bytes, at: &Range<usize>) -> Vec<(Range<usize>, String)> {
    let raw = std::str::from_utf8(&body[at.clone()]).expect("the body was read as UTF-8");
    let Ok(members) = json::members::<IncludeUsage>(raw) else {
        return vec![(at.clone(), r#"{"include_usage":true}"#.to_owned())];
    };
    if members.is_empty() {
        let comma = if raw[1..].trim_start() == "}" { "" } else { "," };
        return vec![(at.start + 1..at.start + 1, format!(r#""include_usage":true{comma}"#))];
    }
    let off = members.iter().filter(|member| member.raw != "true").map(|member| range_in(raw, member.raw));
    off.map(|part| (at.start + part.start..at.start + part.end, "true".to_owned())).collect()
}

fn apply(body: &Bytes, mut edits: Vec<(Range<usize>, String)>) -> Bytes {
    if edits.is_empty() {
        return body.clone();
    }
    edits.sort_by_key(|(at, _)| at.start);
    let added: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(body.len() + added);
    let mut from = 0;
    for (at, text) in edits {
        out.extend_from_slice(&body[from..at.start]);
        out.extend_from_slice(text.as_bytes());
        from = at.end;
    }
    out.extend_from_slice(&body[from..]);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::openai::head as read;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    fn spliced(body: &str, model: &str) -> String {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let read = read(&body).unwrap();
        let output_max = read.head.output_max.unwrap_or(1_024);
        let changes = Changes { model, output_max, output_field: "max_tokens" };
        String::from_utf8(splice(&read, &body, changes).to_vec()).unwrap()
    }

    #[test]
    fn only_what_must_change_changes() {
        let messages = r#""messages":[{"role":"user","content":"model"}]"#;
        for (sent, expected) in [
            (r#"{"model":"m",M,"max_tokens":7}"#, r#"{"model":"m",M,"max_tokens":7}"#),
            (r#"{"model":"m",M}"#, r#"{"max_tokens":1024,"model":"m",M}"#),
            (r#" { "model" : "a" , M , "n":1}"#, r#" {"max_tokens":1024, "model" : "m" , M , "n":1}"#),
            (r#"{"model":"a","model":"b",M,"max_tokens":7}"#, r#"{"model":"m","model":"m",M,"max_tokens":7}"#),
            (
                r#"{"x":{"model":"a"},"mod\u0065l":"a",M,"max_tokens":7}"#,
                r#"{"x":{"model":"a"},"mod\u0065l":"m",M,"max_tokens":7}"#,
            ),
            (r#"{"model":"m",M,"max_tokens":null}"#, r#"{"model":"m",M,"max_tokens":1024}"#),
            (r#"{"model":"m",M,"max_tokens":null,"max_tokens":7}"#, r#"{"model":"m",M,"max_tokens":7,"max_tokens":7}"#),
            (
                r#"{"model":"m",M,"max_tokens":7,"stream":true}"#,
                r#"{"stream_options":{"include_usage":true},"model":"m",M,"max_tokens":7,"stream":true}"#,
            ),
            (
                r#"{"model":"m",M,"max_tokens":7,"stream":true,"stream_options":{ }}"#,
                r#"{"model":"m",M,"max_tokens":7,"stream":true,"stream_options":{"include_usage":true }}"#,
            ),
            (
                r#"{"model":"m",M,"max_tokens":7,"stream":true,"stream_options":{"x":1,"include_usage":false}}"#,
                r#"{"model":"m",M,"max_tokens":7,"stream":true,"stream_options":{"x":1,"include_usage":true}}"#,
            ),
            (
                r#"{"model":"m",M,"max_tokens":7,"stream":true,"stream_options":{"x":1}}"#,
                r#"{"model":"m",M,"max_tokens":7,"stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
            ),
            (
                r#"{"model":"m",M,"max_tokens":7,"stream":true,"stream_options":null}"#,
                r#"{"model":"m",M,"max_tokens":7,"stream":true,"stream_options":{"include_usage":true}}"#,
            ),
        ] {
            assert_eq!(spliced(&sent.replace('M', messages), "m"), expected.replace('M', messages));
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\"\\\\é\\n{}:,]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let name = prop_oneof![Just("model".to_owned()), Just("n".to_owned()), "[a-z\"]{0,6}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn sent() -> impl Strategy<Value = Map<String, Value>> {
        let known = (
            "[a-z\"é]{1,8}",
            value(),
            prop::option::of(prop_oneof![Just(Value::Null), (1u64..9_999).prop_map(Value::from)]),
            prop::option::of(any::<bool>()),
            prop::option::of(prop_oneof![Just(json!({})), Just(json!({"include_usage": false})), Just(Value::Null)]),
        );
        (known, prop::collection::btree_map("x_[a-z]{0,6}", value(), 0..5)).prop_map(|(known, others)| {
            let (model, content, max_tokens, stream, options) = known;
            let mut map: Map<String, Value> = others.into_iter().collect();
            map.insert("model".into(), model.into());
            map.insert("messages".into(), json!([{"role": "user", "content": content}]));
            map.extend(max_tokens.map(|max| ("max_tokens".to_owned(), max)));
            map.extend(stream.map(|stream| ("stream".to_owned(), stream.into())));
            map.extend(options.map(|options| ("stream_options".to_owned(), options)));
            map
        })
    }

    proptest! {
        #[test]
        fn a_spliced_body_differs_in_the_changed_members_only(sent in sent(), pretty in any::<bool>()) {
            let body = if pretty { serde_json::to_string_pretty(&sent) } else { serde_json::to_string(&sent) }.unwrap();
            let got: Map<String, Value> = serde_json::from_str(&spliced(&body, "upstream")).unwrap();
            let mut expected = sent.clone();
            expected.insert("model".into(), "upstream".into());
            if sent.get("max_tokens").is_none_or(Value::is_null) {
                expected.insert("max_tokens".into(), 1_024.into());
            }
            if sent.get("stream") == Some(&Value::Bool(true)) {
                expected.insert("stream_options".into(), json!({"include_usage": true}));
            }
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn a_body_that_needs_no_change_keeps_every_byte(mut sent in sent()) {
            sent.insert("max_tokens".into(), 5.into());
            sent.remove("stream");
            let body = serde_json::to_string_pretty(&sent).unwrap();
            prop_assert_eq!(spliced(&body, sent["model"].as_str().unwrap()), body);
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&body);
        }
    }
}
