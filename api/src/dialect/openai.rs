//! OpenAI chat completions.

pub(crate) mod answer;

pub(crate) mod read;
pub(crate) mod reply;
pub(crate) mod stream;
pub(crate) mod write;

use super::Wire;
use super::asked::{self, Asked, Names, Top};
use crate::error::Error;

struct Chat;

impl Names for Chat {
    const PROMPT: &'static str = "messages";

    fn named(name: &str) -> Option<Top> {
        Some(match name {
            "model" => Top::Model,
            "messages" => Top::Prompt("messages"),
            "stream" => Top::Stream,
            "stream_options" => Top::StreamOptions,
            "max_tokens" => Top::Cap("max_tokens"),
            "max_completion_tokens" => Top::Cap("max_completion_tokens"),
            "n" => Top::Choices,
            "service_tier" => Top::ServiceTier,
            "tools" | "functions" | "response_format" => Top::Schema,
            _ => return None,
        })
    }
}

/// Reads the head of a chat completions request.
///
/// # Errors
/// [`Error::Invalid`] names the member that is missing or of a wrong type.
pub(crate) fn head(body: &[u8]) -> Result<Asked, Error> {
    asked::read::<Chat>(Wire::Chat, body)
}

#[cfg(test)]
mod tests {
    use super::head as read;
    use super::*;
    use crate::chat::{Head, Service};
    use crate::config::Tokenizer;
    use crate::tokens::{Meter, PER_REQUEST};

    fn with(members: &str) -> String {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hello world"}}]{members}}}"#)
    }

    fn param(body: &str) -> String {
        match read(body.as_bytes()) {
            Err(Error::Invalid { param, .. }) => param.map_or("(body)".to_owned(), Into::into),
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
            assert_eq!(param(&with(members)), expected, "{members}");
        }
        assert_eq!(param(r#"{"messages":[{}]}"#), "model");
        assert_eq!(param(r#"{"model":"m"}"#), "messages");
        for broken in ["", "{", "[]", "7", "nul", r#"{"model":"m",}"#, r#"{"model":"m"} x"#, "\u{feff}{}"] {
            assert_eq!(param(broken), "(body)", "{broken}");
        }
        assert!(matches!(read(b"{\"model\":\"\xff\"}"), Err(Error::Invalid { .. })));
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let body = with(
            r#", "max_tokens": 5,"max_completion_tokens" :9, "n":3,"stream":true,
               "stream_options":{"include_usage":true},"service_tier":"flex","metadata":{"model":"x","n":77}"#,
        );
        let request = read(body.as_bytes()).unwrap().head;
        assert_eq!(
            request,
            Head {
                model: "m".into(),
                stream: true,
                wants_usage: true,
                output_max: Some(9),
                choices: 3,
                thinking: 0,
                service: Service::Flex
            }
        );
    }

    #[test]
    fn the_larger_of_repeated_members_counts() {
        let body = with(r#","max_tokens":50,"max_tokens":3,"n":4,"n":1,"m\u006fdel":"last""#);
        let request = read(body.as_bytes()).unwrap().head;
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
