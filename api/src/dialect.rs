//! The wire dialects. Each reads its own form into the hub of `chat.rs` and writes it from there; none knows another. This
//! file only chooses: which dialect reads, which one writes.

pub(crate) mod anthropic;
pub(crate) mod asked;
pub(crate) mod build;
pub(crate) mod embed;
pub(crate) mod fields;
pub(crate) mod gemini;
pub(crate) mod json;
pub(crate) mod openai;
pub(crate) mod splice;
#[cfg(test)]
mod tests;

use crate::chat::{self, Answer, Changes, Event, Failure};
use crate::error::Error;
use crate::identity::RouteGroup;
use asked::Asked;
use bytes::Bytes;
use http::{HeaderMap, Uri};

/// Whose clients speak so: decides the envelope of errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Family {
    /// OpenAI and everything alike.
    #[default]
    Openai,
    /// Anthropic.
    Anthropic,
    /// Gemini.
    Gemini,
}

impl Family {
    /// Tells the family on routes that several share, and on unknown ones.
    pub(crate) fn of(headers: &HeaderMap, uri: &Uri) -> Self {
        let path = uri.path();
        let keyed = uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("key=")));
        let verb = path.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let is_gemini_path = path.starts_with("/v1beta/") && !path.starts_with("/v1beta/openai/");
        let is_anthropic_path = path.starts_with("/anthropic/") || path.starts_with("/v1/messages");
        if is_anthropic_path {
            Self::Anthropic
        } else if headers.contains_key("x-goog-api-key") || keyed || verb || is_gemini_path {
            Self::Gemini
        } else if headers.contains_key("anthropic-version") {
            Self::Anthropic
        } else {
            Self::Openai
        }
    }
}

/// A form that requests and answers have on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// OpenAI's chat completions.
    Chat,
    /// Anthropic's messages.
    Anthropic,
    /// Gemini's generateContent.
    Gemini,
    /// OpenAI's embeddings.
    Embeddings,
    /// Gemini's embedContent.
    GeminiEmbed,
    /// Gemini's batchEmbedContents.
    GeminiEmbedBatch,
}

/// What a route says of a request before its body is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) wire: Wire,
    /// The model, where it stands in the path.
    pub(crate) model: Option<String>,
    /// Whether the path asks for a stream.
    pub(crate) stream: bool,
    /// Whether a stream is to be a JSON array.
    pub(crate) is_array: bool,
}

impl Route {
    pub(crate) fn of(wire: Wire) -> Self {
        Self { wire, model: None, stream: false, is_array: false }
    }
}

/// What a reply says beside what the model said.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    /// What its id is made of.
    pub(crate) id: String,
    /// Units: seconds of the wall clock since the Unix epoch.
    pub(crate) created_s: u64,
    /// The model that was asked for.
    pub(crate) model: String,
    /// Whether the client wants the usage at the end of a stream, where that is a wish.
    pub(crate) wants_usage: bool,
    /// Whether a stream is to be a JSON array.
    pub(crate) is_array: bool,
}

impl Wire {
    pub(crate) fn family(self) -> Family {
        match self {
            Self::Chat | Self::Embeddings => Family::Openai,
            Self::Anthropic => Family::Anthropic,
            Self::Gemini | Self::GeminiEmbed | Self::GeminiEmbedBatch => Family::Gemini,
        }
    }

    /// What a key has to be allowed for it.
    pub(crate) fn group(self) -> RouteGroup {
        if self.is_embedding() { RouteGroup::Embeddings } else { RouteGroup::Chat }
    }

    pub(crate) fn is_embedding(self) -> bool {
        matches!(self, Self::Embeddings | Self::GeminiEmbed | Self::GeminiEmbedBatch)
    }

    /// Reads the head of a request.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the member that is missing or of a wrong type.
    pub(crate) fn head(route: &Route, body: &[u8]) -> Result<Asked, Error> {
        let mut asked = match route.wire {
            Self::Chat => openai::head(body)?,
            Self::Anthropic => anthropic::head(body)?,
            Self::Gemini => gemini::head(body)?,
            Self::Embeddings | Self::GeminiEmbed | Self::GeminiEmbedBatch => embed::head(route.wire, body)?,
        };
        if let Some(model) = &route.model {
            asked.head.model.clone_from(model);
        }
        asked.head.stream |= route.stream;
        Ok(asked)
    }

    /// Where an upstream of this form takes a request, behind its base URL.
    pub(crate) fn path(self, model: &str, is_stream: bool) -> String {
        let verb = match self {
            Self::Chat => return "/chat/completions".to_owned(),
            Self::Embeddings => return "/embeddings".to_owned(),
            Self::Anthropic => return "/messages".to_owned(),
            Self::Gemini if is_stream => "streamGenerateContent?alt=sse",
            Self::Gemini => "generateContent",
            Self::GeminiEmbed => "embedContent",
            Self::GeminiEmbedBatch => "batchEmbedContents",
        };
        let kind = if model.contains('/') { "" } else { "models/" };
        format!("/{kind}{}:{verb}", escaped(model))
    }
}

/// A model's name as a part of a path.
fn escaped(model: &str) -> String {
    let mut out = String::with_capacity(model.len());
    for byte in model.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b'@' => out.push(byte as char),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Writes a request for an upstream: the client's own bytes where it speaks the same, else out of the hub.
///
/// # Errors
/// Names what the upstream's dialect has no word for.
pub(crate) fn outgoing(asked: &Asked, body: &Bytes, to: Wire, changes: Changes<'_>) -> Result<Bytes, Error> {
    if asked.wire == to {
        return Ok(splice::splice(asked, body, changes));
    }
    let text = std::str::from_utf8(body).expect("the body was read as UTF-8");
    if to.is_embedding() {
        return embed::translate(asked.wire, to, text, changes.model).map(Bytes::from);
    }
    if asked.head.choices > 1 {
        return Err(fields::refused(if asked.wire == Wire::Gemini { "generationConfig.candidateCount" } else { "n" }));
    }
    let request = read_request(asked.wire, text)?;
    let written = match to {
        Wire::Anthropic => anthropic::write::request(&request, &asked.head, changes)?,
        Wire::Gemini => gemini::write::request(&request, changes)?,
        _ => openai::write::request(&request, &asked.head, changes)?,
    };
    Ok(Bytes::from(written))
}

/// Reads a whole request.
///
/// # Errors
/// Names the first member that cannot be carried.
pub(crate) fn read_request(from: Wire, text: &str) -> Result<chat::Request, Error> {
    match from {
        Wire::Anthropic => anthropic::read::request(text),
        Wire::Gemini => gemini::read::request(text),
        _ => openai::read::request(text),
    }
}

/// Reads an upstream's answer, plain or streamed, into the events of the hub.
#[derive(Debug)]
pub(crate) enum Reader {
    Chat(openai::stream::Reader),
    Anthropic(anthropic::stream::Reader),
    Gemini(gemini::stream::Reader),
}

impl Reader {
    /// `seed` makes ids where the upstream gives none.
    pub(crate) fn new(wire: Wire, seed: &str) -> Self {
        match wire {
            Wire::Anthropic => Self::Anthropic(anthropic::stream::Reader::default()),
            Wire::Gemini => Self::Gemini(gemini::stream::Reader::new(seed)),
            _ => Self::Chat(openai::stream::Reader::default()),
        }
    }

    /// Reads the data of one event.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn event(&mut self, data: &[u8], out: &mut Vec<Event>) -> Result<(), &'static str> {
        let text = std::str::from_utf8(data).map_err(|_| "is not valid UTF-8")?;
        match self {
            Self::Chat(reader) => reader.read(text, out),
            Self::Anthropic(reader) => reader.event(text, out),
            Self::Gemini(reader) => reader.read(text, out),
        }
    }

    /// Reads a whole answer.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn answer(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), &'static str> {
        let text = std::str::from_utf8(body).map_err(|_| "is not valid UTF-8")?;
        if !text.trim_start().starts_with('{') {
            return Err("is not a JSON object");
        }
        match self {
            Self::Chat(reader) => reader.read(text, out),
            Self::Anthropic(reader) => reader.answer(text, out),
            Self::Gemini(reader) => reader.read(text, out),
        }
    }
}

/// Writes a stream for a client out of the hub's events.
#[derive(Debug)]
pub(crate) enum Writer {
    Chat(openai::reply::Writer),
    Anthropic(anthropic::reply::Writer),
    Gemini(gemini::reply::Writer),
}

impl Writer {
    pub(crate) fn new(wire: Wire, meta: Meta) -> Self {
        match wire {
            Wire::Anthropic => Self::Anthropic(anthropic::reply::Writer::new(meta)),
            Wire::Gemini => Self::Gemini(gemini::reply::Writer::new(meta)),
            _ => Self::Chat(openai::reply::Writer::new(meta)),
        }
    }

    /// Writes what an event means.
    pub(crate) fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match self {
            Self::Chat(writer) => writer.event(event, out),
            Self::Anthropic(writer) => writer.event(event, out),
            Self::Gemini(writer) => writer.event(event, out),
        }
    }

    /// Writes the end.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Chat(writer) => writer.end(out),
            Self::Anthropic(writer) => writer.end(out),
            Self::Gemini(writer) => writer.end(out),
        }
    }
}

/// Writes an answer in one piece.
pub(crate) fn write_answer(wire: Wire, answer: &Answer, meta: &Meta) -> Vec<u8> {
    match wire {
        Wire::Anthropic => anthropic::reply::answer(answer, meta),
        Wire::Gemini => gemini::reply::answer(answer, meta),
        _ => openai::reply::answer(answer, meta),
    }
}

/// Reads an upstream's refusal.
pub(crate) fn failure(family: Family, status: u16, body: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(body);
    let failure = match family {
        Family::Openai => openai::stream::failure(status, &text),
        Family::Anthropic => anthropic::stream::failure(status, &text),
        Family::Gemini => gemini::stream::failure(status, &text),
    };
    if !failure.message.is_empty() {
        return failure;
    }
    let message = format!("the upstream answered with status {status}");
    Failure { message, code: Some("upstream_error".to_owned()), ..failure }
}

/// Writes one server-sent event.
pub(crate) fn sse(out: &mut Vec<u8>, name: Option<&str>, data: &str) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data.as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// Says that a body is no JSON, without repeating what it holds.
pub(crate) fn not_json(cause: &serde_json::Error) -> Error {
    let (line, column) = (cause.line(), cause.column());
    let message = format!("the request body is not valid JSON (line {line} column {column})");
    Error::Invalid { message, param: None }
}
