//! What came back from the gateway, with everything kept: status, headers, bytes, events, times.

use crate::clock;
use crate::sse::{SseEvent, SseParser};
use bytes::Bytes;
use reqwest::Response;
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;

/// A whole reply.
#[derive(Clone, Debug)]
pub struct ChatReply {
    /// HTTP status.
    pub status: u16,
    /// Every header.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
    /// When the request was handed to the socket, boot-clock microseconds.
    pub sent_us: u64,
    /// When the last byte had come.
    pub ended_us: u64,
}

impl ChatReply {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header's value; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// `error.code` of an OpenAI error envelope; empty if it is absent.
    pub fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or("").to_owned()
    }

    /// The answer's text.
    pub fn text(&self) -> String {
        self.json()["choices"][0]["message"]["content"].as_str().unwrap_or("").to_owned()
    }

    /// `X-Tokligence-Queue-Wait-Ms`; 0 if it is absent.
    pub fn queue_wait_ms(&self) -> f64 {
        self.header("x-tokligence-queue-wait-ms").parse().unwrap_or(0.0)
    }

    /// From sending to the last byte.
    pub fn took(&self) -> Duration {
        Duration::from_micros(self.ended_us.saturating_sub(self.sent_us))
    }
}

/// A stream, read to its end.
#[derive(Clone, Debug)]
pub struct StreamReply {
    /// HTTP status.
    pub status: u16,
    /// Every header.
    pub headers: HeaderMap,
    /// Every event, in order, `[DONE]` among them.
    pub events: Vec<SseEvent>,
    /// When the request was handed to the socket, boot-clock microseconds.
    pub sent_us: u64,
    /// When the head had come.
    pub head_us: u64,
    /// When the last byte had come.
    pub ended_us: u64,
    /// Why the connection broke, if it did.
    pub broken: Option<String>,
}

impl StreamReply {
    /// A header's value; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// Whether the stream was closed by `[DONE]`.
    pub fn is_done(&self) -> bool {
        self.events.last().is_some_and(|event| event.data == "[DONE]")
    }

    /// The text of choice 0, put together.
    pub fn text(&self) -> String {
        let json = self.events.iter().filter_map(SseEvent::json);
        json.filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
    }

    /// The usage chunk, if there was one.
    pub fn usage(&self) -> Option<Value> {
        self.events.iter().filter_map(SseEvent::json).map(|event| event["usage"].clone()).find(Value::is_object)
    }

    /// The error event, if there was one.
    pub fn error(&self) -> Option<Value> {
        self.events.iter().filter_map(SseEvent::json).map(|event| event["error"].clone()).find(Value::is_object)
    }
}

/// A stream that is still open; dropping it closes the connection.
#[derive(Debug)]
pub struct LiveStream {
    response: Response,
    parser: SseParser,
    ready: VecDeque<SseEvent>,
    /// When the request was handed to the socket, boot-clock microseconds.
    pub sent_us: u64,
    /// When the head had come.
    pub head_us: u64,
}

impl LiveStream {
    pub(crate) fn new(response: Response, sent_us: u64) -> Self {
        let head_us = clock::boot_us();
        Self { response, parser: SseParser::default(), ready: VecDeque::new(), sent_us, head_us }
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Every header.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> anyhow::Result<Option<SseEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.response.chunk().await? {
                Some(bytes) => self.ready.extend(self.parser.feed(&bytes)),
                None => return Ok(None),
            }
        }
    }

    /// Reads the rest.
    pub async fn finish(mut self) -> StreamReply {
        let mut events = Vec::new();
        let broken = loop {
            match self.next().await {
                Ok(Some(event)) => events.push(event),
                Ok(None) if self.parser.is_mid_event() => break Some("the stream ended inside an event".to_owned()),
                Ok(None) => break None,
                Err(error) => break Some(format!("{error:#}")),
            }
        };
        StreamReply {
            status: self.status(),
            headers: self.response.headers().clone(),
            events,
            sent_us: self.sent_us,
            head_us: self.head_us,
            ended_us: clock::boot_us(),
            broken,
        }
    }
}
