//! The built-in upstream for development: answers by itself, always the same to the same request, plain and streamed,
//! with usage as OpenAI would report it. No network.

use super::Answer;
use crate::config::Tokenizer;
use crate::dialect::json;
use crate::tokens::Piece;
use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::convert::Infallible;

const TOKENIZER: Tokenizer = Tokenizer::O200kBase;

#[derive(Deserialize)]
struct Asked<'a> {
    model: String,
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
    #[serde(default)]
    stream: Option<bool>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<u64>,
    stream_options: Option<Value>,
}

/// Answers a chat request.
pub(super) fn answer(body: &[u8]) -> Answer {
    let asked: Asked<'_> = match serde_json::from_slice(body) {
        Ok(asked) => asked,
        Err(cause) => {
            let error = json!({"error": {"message": format!("the loopback cannot read this: {cause}"),
                "type": "invalid_request_error", "param": null, "code": null}});
            return response(400, "application/json", error.to_string().into());
        }
    };
    let reply = Reply::to(&asked);
    if asked.stream == Some(true) {
        let wants_usage = asked.stream_options.as_ref().is_some_and(|options| options["include_usage"] == true);
        let events = reply.events(&asked.model, wants_usage).into_iter();
        let frames = events.map(|event| Ok::<_, Infallible>(Frame::data(Bytes::from(event))));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        return response(200, "text/event-stream", reqwest::Body::wrap(body));
    }
    response(200, "application/json", reply.whole(&asked.model).to_string().into())
}

fn response(status: u16, content_type: &'static str, body: reqwest::Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status of ours is valid");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

struct Reply {
    words: Vec<String>,
    finish: &'static str,
    choices: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Reply {
    fn to(asked: &Asked<'_>) -> Self {
        let (mut said, mut prompt_tokens) = (String::new(), 0);
        for message in &asked.messages {
            said.clear();
            json::texts(message.get(), &mut |piece| match piece {
                Piece::Text(text) => {
                    prompt_tokens += TOKENIZER.count(text);
                    said.push_str(text);
                }
                _ => prompt_tokens += 1,
            });
        }
        let text = format!("You said: {said}");
        let most = asked.max_completion_tokens.or(asked.max_tokens).unwrap_or(u64::MAX);
        let (mut words, mut tokens, mut finish) = (Vec::new(), 0, "stop");
        for word in text.split_inclusive(' ') {
            let more = TOKENIZER.count(word);
            if tokens + more > most {
                finish = "length";
                break;
            }
            tokens += more;
            words.push(word.to_owned());
        }
        let choices = asked.n.unwrap_or(1).clamp(1, 128);
        Self { words, finish, choices, prompt_tokens, completion_tokens: tokens * choices }
    }

    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        })
    }

    fn whole(&self, model: &str) -> Value {
        let content = self.words.concat();
        let choice = |index| {
            json!({"index": index, "finish_reason": self.finish, "logprobs": null,
                "message": {"role": "assistant", "content": content, "refusal": null}})
        };
        let choices: Vec<Value> = (0..self.choices).map(choice).collect();
        json!({"id": "chatcmpl-loopback", "object": "chat.completion", "created": 0, "model": model,
            "choices": choices, "usage": self.usage()})
    }

    fn events(&self, model: &str, wants_usage: bool) -> Vec<String> {
        let mut events = Vec::new();
        let mut push = |choices: Value, usage: Option<Value>| {
            let mut chunk = json!({"id": "chatcmpl-loopback", "object": "chat.completion.chunk", "created": 0,
                "model": model, "choices": choices});
            if wants_usage {
                chunk["usage"] = usage.unwrap_or_default();
            }
            events.push(format!("data: {chunk}\n\n"));
        };
        for index in 0..self.choices {
            let delta = json!({"role": "assistant", "content": ""});
            push(json!([{"index": index, "delta": delta, "finish_reason": null}]), None);
            for word in &self.words {
                push(json!([{"index": index, "delta": {"content": word}, "finish_reason": null}]), None);
            }
            push(json!([{"index": index, "delta": {}, "finish_reason": self.finish}]), None);
        }
        if wants_usage {
            push(json!([]), Some(self.usage()));
        }
        events.push("data: [DONE]\n\n".to_owned());
        events
    }
}
