//! Brings an upstream's answer to the client, and settles the call before the last byte: as a stream, event by event,
//! or in one piece.

mod stream;

use crate::chat::{Seen, Usage};
use crate::dialect::openai::answer;
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
    let is_stream = head.status.is_success() && is(&head.headers, b"text/event-stream");
    let mut response = if is_stream {
        Response::new(Body::new(stream::Relay::new(client, call, head.status, body, terms)))
    } else if head.status.is_success() {
        whole(client, call, head.status, body, terms).await?
    } else {
        failed(client, call, head.status, body, terms).await?
    };
    *response.status_mut() = head.status;
    let rewritten = response.headers_mut().remove(CONTENT_TYPE);
    *response.headers_mut() = passed_back(&head.headers);
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
    if !answer::read(&bytes, &mut seen) {
        call.end(Ending::Unknown { by: By::Upstream });
        return Err(Error::UpstreamBroken("is not a JSON object"));
    }
    let usage = seen.usage(call.prompt_counted, call.reserved);
    call.end(Ending::Answered { http_status: status.as_u16(), usage });
    Ok(Response::new(Body::from(bytes)))
}

/// An upstream's own refusal goes on as it is; one that is no JSON is put into the envelope.
async fn failed(
    client: &Client,
    call: Call,
    status: StatusCode,
    body: reqwest::Body,
    terms: Terms,
) -> Result<Response<Body>, Error> {
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
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
    if is_json {
        return Ok(Response::new(Body::from(bytes)));
    }
    let message = format!("the upstream answered with status {}", status.as_u16());
    let envelope = serde_json::json!({
        "error": {"message": message, "type": "upstream_error", "param": null, "code": "upstream_error"}
    });
    let mut response = Response::new(Body::from(envelope.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
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
