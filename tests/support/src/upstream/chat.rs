//! OpenAI chat completions: what is read from a request, and the bytes of its answer.

use super::forms::{self, Form, Said};
use super::script::{Reply, Usage};
use super::wire::Request;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;

/// The fields of a request that the answer depends on.
#[derive(Debug, Deserialize)]
pub(crate) struct Ask<'a> {
    #[serde(borrow, default)]
    pub(crate) model: Cow<'a, str>,
    #[serde(default)]
    pub(crate) stream: Option<bool>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    n: Option<u64>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(borrow, default)]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(default, rename = "generationConfig")]
    generation: Option<Generation>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Generation {
    max_output_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Metadata {
    bench_output_tokens: Option<String>,
}

impl Ask<'_> {
    /// The request's own cap on output tokens.
    pub(crate) fn cap(&self) -> Option<u64> {
        let gemini = self.generation.as_ref().and_then(|generation| generation.max_output_tokens);
        self.max_completion_tokens.or(self.max_tokens).or(gemini)
    }
}

const DEFAULT_OUTPUT: u64 = 16;
const WORD: &str = "word ";

/// A body whose members come more than once, read as most parsers do: the last one counts.
pub(crate) fn without_repeats(body: &[u8]) -> Option<Vec<u8>> {
    let once: Value = serde_json::from_slice(body).ok()?;
    serde_json::to_vec(&once).ok()
}

/// An answer, all but its bytes.
#[derive(Debug)]
pub(crate) struct Answer {
    seq: u64,
    model: String,
    choices: u64,
    /// Output tokens of one choice.
    output: u64,
    finish: &'static str,
    text: Option<String>,
    usage: Option<Value>,
    include_usage: bool,
    per_chunk: u64,
    form: Form,
    tools: Vec<(String, String, String)>,
}

impl Answer {
    pub(crate) fn new(seq: u64, request: &Request, ask: &Ask<'_>, reply: &Reply) -> Self {
        let cap = ask.cap();
        let wished = wished(request, ask).or(reply.output_tokens).or(cap).unwrap_or(DEFAULT_OUTPUT);
        let output = wished.min(cap.unwrap_or(u64::MAX));
        let choices = ask.n.unwrap_or(1).clamp(1, 128);
        let prompt =
            reply.prompt_tokens.unwrap_or_else(|| ask.messages.map_or(1, |m| (m.get().len() as u64 / 4).max(1)));
        Self {
            seq,
            model: serde_json::to_string(&ask.model).expect("a string is JSON"),
            choices,
            output,
            finish: if !reply.tools.is_empty() {
                "tool_calls"
            } else if cap == Some(output) {
                "length"
            } else {
                "stop"
            },
            text: reply.text.clone(),
            usage: usage(&reply.usage, prompt, output * choices),
            include_usage: ask.stream_options.as_ref().and_then(|o| o.include_usage).unwrap_or(false),
            per_chunk: reply.tokens_per_chunk.max(1),
            form: Form::of(&request.path),
            tools: reply.tools.clone(),
        }
    }

    /// Whether the client will read the usage: always in a plain reply, on request in a stream.
    pub(crate) fn tells_usage(&self, stream: bool) -> bool {
        !stream || self.include_usage || self.form != Form::Openai
    }

    /// Prompt and output tokens as reported, where they are numbers.
    pub(crate) fn reported(&self) -> (Option<i64>, Option<i64>) {
        let field = |name: &str| self.usage.as_ref().and_then(|usage| usage.get(name)).and_then(Value::as_i64);
        (field("prompt_tokens"), field("completion_tokens"))
    }

    /// How many content chunks a stream has.
    pub(crate) fn chunks(&self) -> u64 {
        if self.text.is_some() { 1 } else { self.output.div_ceil(self.per_chunk) }
    }

    /// Output tokens in content chunk `index`.
    pub(crate) fn tokens_in(&self, index: u64) -> u64 {
        let one = if self.text.is_some() {
            self.output
        } else {
            self.per_chunk.min(self.output.saturating_sub(index * self.per_chunk))
        };
        one * self.choices
    }

    /// All output tokens, over all choices.
    pub(crate) fn tokens(&self) -> u64 {
        self.output * self.choices
    }

    /// The body of a plain reply.
    pub(crate) fn body(&self) -> Vec<u8> {
        if self.form != Form::Openai {
            return forms::body(self.form, &self.said()).into_bytes();
        }
        let content = match &self.text {
            Some(text) => serde_json::to_string(text).expect("a string is JSON"),
            None => format!("\"{}\"", self.words(self.output)),
        };
        let mut out = format!(
            r#"{{"id":"chatcmpl-{}","object":"chat.completion","created":1700000000,"model":{},"choices":["#,
            self.seq, self.model
        );
        let tools =
            if self.tools.is_empty() { String::new() } else { format!(",\"tool_calls\":{}", self.openai_calls()) };
        for choice in 0..self.choices {
            if choice > 0 {
                out.push(',');
            }
            out.push_str(&format!(
                r#"{{"index":{choice},"message":{{"role":"assistant","content":{content},"refusal":null{tools}}},"logprobs":null,"finish_reason":"{}"}}"#,
                self.finish
            ));
        }
        out.push(']');
        if let Some(usage) = &self.usage {
            out.push_str(&format!(r#","usage":{usage}"#));
        }
        out.push('}');
        out.into_bytes()
    }

    /// The event that opens a stream.
    pub(crate) fn opening(&self) -> Vec<String> {
        if self.form != Form::Openai {
            return forms::opening(self.form, &self.said());
        }
        self.per_choice(r#"{"role":"assistant","content":""}"#, "null")
    }

    /// Content chunk `index`: one event for each choice.
    pub(crate) fn content(&self, index: u64) -> Vec<String> {
        let content = match &self.text {
            Some(text) => serde_json::to_string(text).expect("a string is JSON"),
            None => format!("\"{}\"", self.words(self.tokens_in(index) / self.choices)),
        };
        if self.form != Form::Openai {
            return forms::content(self.form, &content);
        }
        self.per_choice(&format!(r#"{{"content":{content}}}"#), "null")
    }

    /// What follows the content: the finish reason, and the usage where it was asked for.
    pub(crate) fn closing(&self) -> Vec<String> {
        if self.form != Form::Openai {
            return forms::closing(self.form, &self.said());
        }
        let mut events = Vec::new();
        for (index, (id, name, arguments)) in self.tools.iter().enumerate() {
            let call =
                json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}});
            events.extend(self.per_choice(&json!({"tool_calls": [call]}).to_string(), "null"));
            // In two pieces, neither of which is JSON.
            let (head, tail) = arguments.split_at(arguments.len().min(3));
            for piece in [head, tail] {
                let call = json!({"index": index, "function": {"arguments": piece}});
                events.extend(self.per_choice(&json!({"tool_calls": [call]}).to_string(), "null"));
            }
        }
        events.extend(self.per_choice("{}", &format!("\"{}\"", self.finish)));
        if let (true, Some(usage)) = (self.include_usage, &self.usage) {
            events.push(format!("{}[],\"usage\":{usage}}}", self.prefix()));
        }
        events
    }

    /// Whether a stream of this form ends with a mark of its own.
    pub(crate) fn has_done(&self) -> bool {
        self.form == Form::Openai
    }

    fn said(&self) -> Said<'_> {
        Said {
            id: self.seq,
            model: &self.model,
            text: self.text.clone().unwrap_or_else(|| self.words(self.output)),
            finish: self.finish,
            tools: &self.tools,
            usage: self.usage.as_ref(),
        }
    }

    fn openai_calls(&self) -> Value {
        let call = |(id, name, arguments): &(String, String, String)| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        self.tools.iter().map(call).collect()
    }

    fn prefix(&self) -> String {
        format!(
            r#"{{"id":"chatcmpl-{}","object":"chat.completion.chunk","created":1700000000,"model":{},"choices":"#,
            self.seq, self.model
        )
    }

    fn per_choice(&self, delta: &str, finish: &str) -> Vec<String> {
        let usage = if self.include_usage { r#","usage":null"# } else { "" };
        (0..self.choices)
            .map(|choice| {
                format!(
                    r#"{}[{{"index":{choice},"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]{usage}}}"#,
                    self.prefix()
                )
            })
            .collect()
    }

    fn words(&self, count: u64) -> String {
        WORD.repeat(usize::try_from(count).unwrap_or(0).min(4_000_000))
    }
}

/// An error in the envelope of the dialect whose route this is.
pub(crate) fn error_of(path: &str, status: u16, message: &str) -> Vec<u8> {
    match Form::of(path) {
        Form::Openai => error_body(status, message),
        form => forms::error(form, status, message).into_bytes(),
    }
}

/// An error in OpenAI's envelope.
pub(crate) fn error_body(status: u16, message: &str) -> Vec<u8> {
    let (kind, code) = match status {
        429 => ("requests", "rate_limit_exceeded"),
        400..=499 => ("invalid_request_error", "invalid_request"),
        503 => ("server_error", "overloaded"),
        _ => ("server_error", "server_error"),
    };
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    body.to_string().into_bytes()
}

/// The body of `GET /v1/models`.
pub(crate) fn models_body(models: &[String]) -> Vec<u8> {
    let data: Vec<Value> = models
        .iter()
        .map(|id| json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "scripted"}))
        .collect();
    json!({"object": "list", "data": data}).to_string().into_bytes()
}

/// Output tokens that the request itself asks its mock for: a header, or a metadata field for gateways that drop it.
fn wished(request: &Request, ask: &Ask<'_>) -> Option<u64> {
    if let Some(tokens) = request.header("x-bench-output-tokens") {
        return tokens.parse().ok();
    }
    let metadata: Metadata = serde_json::from_str(ask.metadata?.get()).ok()?;
    metadata.bench_output_tokens?.parse().ok()
}

fn usage(truth: &Usage, prompt: u64, completion: u64) -> Option<Value> {
    let honest = |completion: i64| {
        let total = completion.saturating_add(i64::try_from(prompt).unwrap_or(i64::MAX));
        json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total})
    };
    let completion = i64::try_from(completion).unwrap_or(i64::MAX);
    match truth {
        Usage::Honest => Some(honest(completion)),
        Usage::Missing => None,
        Usage::Off(by) => Some(honest(completion.saturating_add(*by))),
        Usage::Raw(value) => Some(value.clone()),
    }
}
