//! Brings an upstream's answer to the client, and settles the call before the last byte: as a stream, event by event,
//! or in one piece.

mod stream;

use crate::chat::{Answer as Said, Event, Failure, Seen, Usage};
use crate::dialect::openai::answer;
use crate::dialect::{self, Meta, Reader, Wire, embed};
use crate::envelope;
use crate::error::Error;
use crate::settlement::{By, Call, Ending};
use crate::tokens::Meter;
use crate::upstream::{Answer, Client, passed_back};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::Instant;

/// What the relay needs to know of the request.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) id: crate::usage::RequestId,
    /// What the client speaks.
    pub(crate) client: Wire,
    /// What the upstream speaks.
    pub(crate) upstream: Wire,
    /// What a translated reply says beside what the model said.
    pub(crate) meta: Meta,
    /// Whether embeddings are to be packed.
    pub(crate) is_base64: bool,
    /// Usage was asked for by the gateway alone, so the client does not see it.
    pub(crate) usage_injected: bool,
    /// Counts the answer where the upstream does not.
    pub(crate) meter: Meter,
    /// When the call has to be over.
    pub(crate) deadline: Instant,
}

/// Relays an answer whose head is there.
///
/// # Errors
/// When an answer in one piece does not come to its end, is too large, or is none.
pub(crate) async fn relay(client: &Client, call: Call, reply: Answer, terms: Terms) -> Result<Response<Body>, Error> {
    let (head, body) = reply.into_parts();
    let is_translated = terms.client != terms.upstream || terms.meta.is_array;
    let is_stream = head.status.is_success() && is(&head.headers, b"text/event-stream");
    let mut response = if is_stream {
        let content_type = if terms.meta.is_array { "application/json" } else { "text/event-stream; charset=utf-8" };
        let mut response = Response::new(Body::new(stream::Relay::new(client, call, head.status, body, terms)));
        if is_translated {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        response
    } else if head.status.is_success() {
        whole(client, call, head.status, body, terms).await?
    } else {
        return failed(client, call, &head, body, terms).await;
    };
    *response.status_mut() = head.status;
    let rewritten = response.headers_mut().remove(CONTENT_TYPE);
    *response.headers_mut() = passed_back(&head.headers, is_translated);
    if let Some(content_type) = rewritten {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    Ok(response)
}

fn is(headers: &HeaderMap, media_type: &[u8]) -> bool {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    value.is_some_and(|value| {
        value.len() >= media_type.len() && value[..media_type.len()].eq_ignore_ascii_case(media_type)
    })
}

async fn whole(
    client: &Client,
    call: Call,
    status: StatusCode,
    body: reqwest::Body,
    terms: Terms,
) -> Result<Response<Body>, Error> {
    let bytes = match collect(client, body, terms.deadline).await {
        Ok(bytes) => bytes,
        Err(error) => {
            call.end(Ending::Unknown { by: By::of(&error) });
            return Err(error);
        }
    };
    let mut seen = Seen::new(terms.meter);
    let (wire, seed) = (terms.upstream, &terms.meta.id);
    let events = match read(wire, seed, terms.client == wire, &bytes, &mut seen) {
        Ok(events) => events,
        Err(cause) => {
            call.end(Ending::Unknown { by: By::Upstream });
            return Err(Error::UpstreamBroken(cause));
        }
    };
    let usage = seen.usage(call.prompt_counted, call.reserved);
    let written = if terms.client == wire {
        Ok(bytes)
    } else if wire.is_embedding() {
        embed::answer(terms.client, wire, &bytes, &terms.meta.model, usage, terms.is_base64).map(Bytes::from)
    } else {
        let answer = Said { usage: Some(usage), ..Said::of(events) };
        Ok(Bytes::from(dialect::write_answer(terms.client, &answer, &terms.meta)))
    };
    call.end(Ending::Answered { http_status: status.as_u16(), usage });
    let mut response = Response::new(Body::from(written.map_err(Error::UpstreamBroken)?));
    if terms.client != wire {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(response)
}

/// Reads a whole answer: what was used, and its events where it is to be translated.
fn read(wire: Wire, seed: &str, is_passed: bool, body: &[u8], seen: &mut Seen) -> Result<Vec<Event>, &'static str> {
    if wire.is_embedding() {
        seen.usage = embed::usage(body);
        let is_object = serde_json::from_slice::<dialect::fields::Members<'_>>(body).is_ok();
        return if is_object { Ok(Vec::new()) } else { Err("is not a JSON object") };
    }
    if is_passed && wire == Wire::Chat {
        return if answer::read(body, seen) { Ok(Vec::new()) } else { Err("is not a JSON object") };
    }
    let mut events = Vec::new();
    let outcome = Reader::new(wire, seed).answer(body, &mut events);
    events.iter().for_each(|event| seen.note(event));
    match outcome {
        // What cannot be read of an answer that only passes is the client's to read.
        Err("cannot be read") if is_passed && is_object(body) => Ok(Vec::new()),
        Err(cause) => Err(cause),
        Ok(()) if events.iter().any(|event| matches!(event, Event::Failed(_))) && !is_passed => Err("is an error"),
        Ok(()) => Ok(events),
    }
}

fn is_object(body: &[u8]) -> bool {
    serde_json::from_slice::<dialect::fields::Members<'_>>(body).is_ok()
}

/// An upstream's own refusal goes on as it is to a client of its dialect, else in the client's words.
async fn failed(
    client: &Client,
    call: Call,
    head: &http::response::Parts,
    body: reqwest::Body,
    terms: Terms,
) -> Result<Response<Body>, Error> {
    let status = head.status;
    let bytes = collect(client, body, terms.deadline).await;
    let http_status = status.as_u16();
    let ending = match &bytes {
        Ok(bytes) => Ending::Answered { http_status, usage: named_usage(bytes, &call, terms.meter) },
        Err(error) => Ending::Cut { http_status, usage: Usage::default(), by: By::of(error) },
    };
    call.end(ending);
    if !(status.is_client_error() || status.is_server_error()) {
        return Err(Error::UpstreamBroken("is neither an answer nor an error"));
    }
    let bytes = bytes.unwrap_or_default();
    let family = terms.client.family();
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
    if is_json && family == terms.upstream.family() {
        let mut response = Response::new(Body::from(bytes));
        *response.status_mut() = status;
        *response.headers_mut() = passed_back(&head.headers, false);
        return Ok(response);
    }
    let failure = if is_json {
        dialect::failure(terms.upstream.family(), http_status, &bytes)
    } else {
        let message = format!("the upstream answered with status {http_status}");
        Failure { status: http_status, message, code: Some("upstream_error".to_owned()), ..Failure::default() }
    };
    let mut response = envelope::respond_failure(&failure, family, terms.id);
    let told = std::mem::replace(response.headers_mut(), passed_back(&head.headers, true));
    for (name, value) in &told {
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    Ok(response)
}

/// What a refusal says it used. The vendors bill nothing for one and name none; one that does name some has run the model.
fn named_usage(bytes: &[u8], call: &Call, meter: Meter) -> Usage {
    let mut seen = Seen::new(meter);
    let is_read = answer::read(bytes, &mut seen);
    if is_read && seen.usage.is_some() { seen.usage(call.prompt_counted, call.reserved) } else { Usage::default() }
}

/// Reads a body to its end, within the bounds of size and time. A body that comes in one piece is not copied.
async fn collect(client: &Client, mut body: reqwest::Body, deadline: Instant) -> Result<Bytes, Error> {
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    loop {
        let until = deadline.min(Instant::now() + client.idle_max);
        let frame = tokio::time::timeout_at(until, body.frame()).await.map_err(|_| Error::UpstreamTimeout)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Error::UpstreamCut)?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > client.answer_bytes_max {
            return Err(Error::UpstreamBroken("is too large"));
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// How long the rest of an upstream's stream is read after its end mark, so that the connection can be used again.
const LINGER: Duration = Duration::from_secs(1);
