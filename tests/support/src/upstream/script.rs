//! What the scripted upstream is told to do: plain data, the same in a test's code and over the control routes.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Rules in order, the first that matches wins; `otherwise` answers the rest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// Tried in order.
    pub rules: Vec<Rule>,
    /// The answer when no rule matches.
    pub otherwise: Reply,
    /// What `GET /v1/models` lists.
    pub models: Vec<String>,
}

impl Default for Script {
    fn default() -> Self {
        Self { rules: Vec::new(), otherwise: Reply::default(), models: vec!["gpt-4".to_owned()] }
    }
}

impl From<Reply> for Script {
    fn from(otherwise: Reply) -> Self {
        Self { otherwise, ..Self::default() }
    }
}

impl Script {
    /// Answers one model with `reply`, whatever else the script says.
    #[must_use]
    pub fn on_model(self, model: &str, reply: Reply) -> Self {
        self.rule(Rule { model: Some(model.to_owned()), ..Rule::every(reply) })
    }

    /// Answers requests whose body contains `text` with `reply`.
    #[must_use]
    pub fn on_body(self, text: &str, reply: Reply) -> Self {
        self.rule(Rule { body_contains: Some(text.to_owned()), ..Rule::every(reply) })
    }

    /// Answers the next `times` requests with `reply`, then goes on with the rest of the script.
    #[must_use]
    pub fn first(self, times: u64, reply: Reply) -> Self {
        self.rule(Rule { times: Some(times), ..Rule::every(reply) })
    }

    /// Adds a rule behind those already there.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }
}

/// One line of a [`Script`]: what it matches and how it answers. What is absent matches everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Matches requests for this model only.
    pub model: Option<String>,
    /// Matches bodies that contain this text.
    pub body_contains: Option<String>,
    /// Matches requests that carry this header with this value; the name in lower case.
    pub header: Option<(String, String)>,
    /// Applies to so many requests, then never again.
    pub times: Option<u64>,
    /// The answer.
    pub reply: Reply,
}

impl Rule {
    /// A rule that matches everything.
    pub fn every(reply: Reply) -> Self {
        Self { reply, ..Self::default() }
    }
}

/// How one request is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reply {
    /// What happens at all.
    pub act: Act,
    /// Waits at the gate of this name, before anything is written, until a release lets it go.
    pub hold: Option<String>,
    /// Wait before the reply's head.
    pub head_delay_ms: u64,
    /// Wait before each content chunk of a stream.
    pub chunk_delay_ms: u64,
    /// Spreads a stream's content chunks evenly over this time; a plain reply waits for it before its head.
    pub spread_ms: u64,
    /// Output tokens per choice, never more than the request's cap; absent: exactly the cap.
    pub output_tokens: Option<u64>,
    /// Output tokens in one content chunk of a stream.
    pub tokens_per_chunk: u64,
    /// Prompt tokens to report; absent: a quarter of the bytes of `messages`.
    pub prompt_tokens: Option<u64>,
    /// The truth of the reported usage.
    pub usage: Usage,
    /// The text of the answer, in one chunk; absent: a word for each output token.
    pub text: Option<String>,
    /// Calls of tools behind the text: id, name, arguments as JSON.
    pub tools: Vec<(String, String, String)>,
    /// Ends the lines of a stream with CR LF.
    pub crlf: bool,
    /// Leaves out `data: [DONE]`.
    pub no_done: bool,
    /// Cuts a stream's bytes into HTTP chunks of this size, each written alone; 1 splits every UTF-8 character.
    pub split_bytes: Option<usize>,
    /// Headers added to the reply's head.
    pub headers: Vec<(String, String)>,
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            act: Act::Answer,
            hold: None,
            head_delay_ms: 0,
            chunk_delay_ms: 0,
            spread_ms: 0,
            output_tokens: None,
            tokens_per_chunk: 1,
            prompt_tokens: None,
            usage: Usage::Honest,
            text: None,
            tools: Vec::new(),
            crlf: false,
            no_done: false,
            split_bytes: None,
            headers: Vec::new(),
        }
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A proper answer.
    Answer,
    /// An error status with this body, or an OpenAI error envelope.
    Status {
        /// The HTTP status.
        status: u16,
        /// The body as it is.
        body: Option<String>,
    },
    /// Never a byte; ends when the client goes.
    Hang,
    /// The head and so many content chunks (of a plain reply: half the body), then nothing more.
    HangAfter {
        /// How many content chunks still come.
        chunks: u64,
    },
    /// The head and so many content chunks (of a plain reply: half the body), then the connection closes.
    CutAfter {
        /// How many content chunks still come.
        chunks: u64,
        /// Closes with a TCP reset.
        reset: bool,
    },
    /// So many content chunks, then a `data: {"error":..}` event and the end of the stream.
    ErrorAfter {
        /// How many content chunks still come.
        chunks: u64,
    },
    /// Closes the connection without a byte.
    Close,
    /// These bytes instead of an HTTP reply, then closes.
    Raw {
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// What the reply says about the tokens it used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Usage {
    /// What was really sent.
    Honest,
    /// No usage at all.
    Missing,
    /// The real output tokens plus this, which may be negative.
    Off(i64),
    /// This value in the place of the usage object.
    Raw(serde_json::Value),
}

impl Reply {
    /// A proper answer of so many output tokens.
    pub fn tokens(output: u64) -> Self {
        Self { output_tokens: Some(output), ..Self::default() }
    }

    /// An error status with an OpenAI error envelope.
    pub fn status(status: u16) -> Self {
        Self { act: Act::Status { status, body: None }, ..Self::default() }
    }

    /// A 429 with `Retry-After`.
    pub fn too_many(retry_after_s: u64) -> Self {
        Self::status(429).header("retry-after", &retry_after_s.to_string())
    }

    /// Never answers.
    pub fn hang() -> Self {
        Self { act: Act::Hang, ..Self::default() }
    }

    /// Closes the connection after so many content chunks, or in the middle of a plain body.
    pub fn cut_after(chunks: u64) -> Self {
        Self { act: Act::CutAfter { chunks, reset: false }, ..Self::default() }
    }

    /// Bytes that are not HTTP.
    pub fn garbage() -> Self {
        Self { act: Act::Raw { bytes: b"\x16\x03\x01\xff\xfe garbage \x00\r\n\r\n".to_vec() }, ..Self::default() }
    }

    /// A 200 whose body is not JSON.
    pub fn garbage_json() -> Self {
        Self::raw_body("application/json", "{\"id\": \"chatcmpl-1\", \"choices\": [{oops")
    }

    /// A 200 event stream whose events are not JSON.
    pub fn garbage_events() -> Self {
        Self::raw_body("text/event-stream", "data: {not json\n\ndata: [[[\n\ndata: [DONE]\n\n")
    }

    /// A 200 with exactly this body.
    pub fn raw_body(content_type: &str, body: &str) -> Self {
        let reply = Self { act: Act::Status { status: 200, body: Some(body.to_owned()) }, ..Self::default() };
        reply.header("content-type", content_type)
    }

    /// An answer whose one content line has so many bytes.
    pub fn giant_line(bytes: usize) -> Self {
        Self::default().text("x".repeat(bytes))
    }

    /// An answer with characters of 2, 3 and 4 bytes, every byte in an HTTP chunk of its own.
    pub fn split_utf8() -> Self {
        Self { split_bytes: Some(1), ..Self::default().text("zażółć gęślą jaźń, 漢字, 🙂") }
    }

    /// Waits at the gate `main` until [`super::Upstream::release`] lets it go.
    #[must_use]
    pub fn held(self) -> Self {
        self.held_at("main")
    }

    /// Waits at a named gate.
    #[must_use]
    pub fn held_at(mut self, gate: &str) -> Self {
        self.hold = Some(gate.to_owned());
        self
    }

    /// Adds a header to the reply.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the text of the answer.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Adds the call of a tool; `arguments` are JSON.
    #[must_use]
    pub fn tool(mut self, id: &str, name: &str, arguments: &str) -> Self {
        self.tools.push((id.to_owned(), name.to_owned(), arguments.to_owned()));
        self
    }

    /// Sets the truth of the reported usage.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// Sets the reported prompt tokens.
    #[must_use]
    pub fn prompt_tokens(mut self, tokens: u64) -> Self {
        self.prompt_tokens = Some(tokens);
        self
    }

    /// Waits before the head.
    #[must_use]
    pub fn head_delay(mut self, delay: Duration) -> Self {
        self.head_delay_ms = millis(delay);
        self
    }

    /// Waits before each content chunk.
    #[must_use]
    pub fn chunk_delay(mut self, delay: Duration) -> Self {
        self.chunk_delay_ms = millis(delay);
        self
    }

    /// Spreads the content over a time, in chunks of so many tokens.
    #[must_use]
    pub fn spread(mut self, over: Duration, tokens_per_chunk: u64) -> Self {
        self.spread_ms = millis(over);
        self.tokens_per_chunk = tokens_per_chunk;
        self
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
