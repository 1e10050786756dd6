//! What every reply says beside its body: request id, rate limits, and our own headers. Gathers the facts of a request
//! as it goes through the pipeline, so that a refusal tells as much as an answer.

use crate::app::App;
use crate::board::{Health, RateGauge};
use crate::dialect::Family;
use crate::envelope;
use crate::error::Error;
use crate::identity::{Caller, Tier};
use crate::usage::RequestId;
use axum::body::Body;
use http::Response;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// When and as what a request came in. Stands in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its id.
    pub id: RequestId,
    /// Units: microseconds of the boot clock.
    pub at_us: u64,
    /// Where the client is, as the connection says.
    pub client: Option<IpAddr>,
}

/// What is known of a request so far.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) arrival: Arrival,
    pub(crate) family: Family,
    pub(crate) caller: Option<Arc<Caller>>,
    pub(crate) pool: Option<Arc<str>>,
    pub(crate) provider: Option<Arc<str>>,
    /// Time from asking for capacity to the answer.
    pub(crate) wait: Duration,
    /// Whether it had to wait for capacity, rather than for the answer only.
    pub(crate) was_queued: bool,
    pub(crate) queue_position: Option<u32>,
    pub(crate) quota_remaining: Option<u64>,
    /// Nano-USD left of the smallest budget.
    pub(crate) budget_remaining: Option<u64>,
    /// When capacity was given. Units: microseconds of the wall clock since the Unix epoch.
    pub(crate) scheduled_wall_us: Option<u64>,
    /// Time spent on the client's body and on the upstream, which is not ours.
    pub(crate) outside_us: u64,
    /// Whether an upstream was called, so that the end of that call counts as the end of the request.
    pub(crate) was_sent: bool,
}

impl Facts {
    pub(crate) fn new(arrival: Arrival, family: Family) -> Self {
        Self {
            arrival,
            family,
            caller: None,
            pool: None,
            provider: None,
            wait: Duration::ZERO,
            was_queued: false,
            queue_position: None,
            quota_remaining: None,
            budget_remaining: None,
            scheduled_wall_us: None,
            outside_us: 0,
            was_sent: false,
        }
    }

    fn overhead_us(&self) -> u64 {
        let all = raft::clock::boot_us().saturating_sub(self.arrival.at_us);
        let wait = u64::try_from(self.wait.as_micros()).unwrap_or(u64::MAX);
        all.saturating_sub(wait).saturating_sub(self.outside_us)
    }
}

/// Makes the reply of what came out of the pipeline.
pub(crate) fn finish(app: &App, facts: &Facts, outcome: Result<Response<Body>, Error>) -> Response<Body> {
    let mut response = outcome.unwrap_or_else(|error| {
        log(facts, &error);
        envelope::respond(&error, facts.family, facts.arrival.id)
    });
    let overhead_us = facts.overhead_us();
    app.metrics.overhead_us(overhead_us);
    let headers = response.headers_mut();
    headers.reserve(18);
    stamp(headers, app, facts.arrival.id);
    if facts.family == Family::Anthropic {
        let id = headers["x-request-id"].clone();
        headers.insert(HeaderName::from_static("request-id"), id);
    }
    ours(headers, facts, overhead_us);
    let keys = facts.caller.as_ref().and_then(|caller| caller.degraded);
    let scheduling = match app.board.health() {
        Health::Degraded(mode) => Some(mode),
        Health::Ready | Health::NotReady(_) => None,
    };
    if let Some(mode) = scheduling.or(keys) {
        headers.insert(HeaderName::from_static("x-tokligence-degraded"), HeaderValue::from_static(mode));
    }
    rates(headers, app, facts);
    response
}

/// Puts on the headers that every reply carries, whatever route it is of.
pub(crate) fn stamp(headers: &mut HeaderMap, app: &App, id: RequestId) {
    let id = HeaderValue::try_from(id.to_string()).expect("a request id is plain ASCII");
    headers.insert(HeaderName::from_static("x-request-id"), id.clone());
    headers.insert(HeaderName::from_static("x-tokligence-request-id"), id);
    headers.insert(HeaderName::from_static("x-tokligence-node"), app.node.clone());
}

fn log(facts: &Facts, error: &Error) {
    let id = facts.arrival.id;
    let key = facts.caller.as_ref().map_or("", |caller| &caller.key_prefix);
    match error {
        Error::Internal | Error::JournalUnavailable => tracing::error!(request_id = %id, key, %error, "request failed"),
        Error::UpstreamUnreachable
        | Error::UpstreamTimeout
        | Error::UpstreamCut
        | Error::UpstreamBroken(_)
        | Error::KeysUnavailable => {
            tracing::warn!(request_id = %id, key, provider = facts.provider.as_deref(), %error, "request failed");
        }
        _ => tracing::debug!(request_id = %id, key, %error, "request refused"),
    }
}

fn ours(headers: &mut HeaderMap, facts: &Facts, overhead_us: u64) {
    let mut put = |name, value: HeaderValue| headers.insert(HeaderName::from_static(name), value);
    if let Some(caller) = &facts.caller {
        put("x-tokligence-tier", HeaderValue::from_static(Tier::as_str(caller.tier)));
    }
    if let Some(provider) = facts.provider.as_deref().and_then(|name| HeaderValue::try_from(name).ok()) {
        put("x-tokligence-provider", provider);
    }
    put("x-tokligence-queue-wait-ms", HeaderValue::from(if facts.was_queued { wait_ms(facts.wait) } else { 0 }));
    if let Some(position) = facts.queue_position {
        put("x-tokligence-queue-position", HeaderValue::from(position));
    }
    if let Some(at) = facts.scheduled_wall_us {
        put("x-tokligence-scheduled-timestamp", HeaderValue::from(at / 1_000));
    }
    if let Some(left) = facts.quota_remaining {
        put("x-tokligence-quota-remaining", HeaderValue::from(left));
    }
    if let Some(left) = facts.budget_remaining {
        put("x-tokligence-budget-remaining-nano-usd", HeaderValue::from(left));
    }
    put("x-tokligence-overhead-us", HeaderValue::from(overhead_us));
}

/// Whole milliseconds; any wait at all is at least one.
fn wait_ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

fn rates(headers: &mut HeaderMap, app: &App, facts: &Facts) {
    let (Some(pool), Some(caller)) = (&facts.pool, &facts.caller) else { return };
    let rates = app.board.rates(pool, &caller.tenants);
    let (prefix, is_anthropic) = match facts.family {
        Family::Anthropic => ("anthropic-ratelimit", true),
        Family::Openai | Family::Gemini => ("x-ratelimit", false),
    };
    let mut put = |rate: Option<RateGauge>, kind: &str| {
        let Some(rate) = rate else { return };
        let reset = if is_anthropic { instant(rate.reset) } else { span(rate.reset) };
        for (what, value) in
            [("limit", rate.limit.to_string()), ("remaining", rate.remaining.to_string()), ("reset", reset)]
        {
            let name = if is_anthropic { format!("{prefix}-{kind}-{what}") } else { format!("{prefix}-{what}-{kind}") };
            let name = HeaderName::try_from(name).expect("the words of a rate make a header's name");
            headers.insert(name, HeaderValue::try_from(value).expect("digits and unit letters are plain ASCII"));
        }
    };
    put(rates.requests, "requests");
    put(rates.tokens, "tokens");
}

/// The end of a time span that begins now, as Anthropic writes it: RFC 3339.
fn instant(span: Duration) -> String {
    let wall_us = raft::clock::wall_us().saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    let seconds = i64::try_from(wall_us.div_ceil(1_000_000)).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// A time span as OpenAI writes it: `12ms`, `1s`, `6m0s`, `1h0m5s`.
fn span(span: Duration) -> String {
    let millis = u64::try_from(span.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    let seconds = millis.div_ceil(1_000);
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_openai_does() {
        for (millis, expected) in
            [(0, "0ms"), (12, "12ms"), (1_000, "1s"), (1_001, "2s"), (360_000, "6m0s"), (3_605_000, "1h0m5s")]
        {
            assert_eq!(span(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn a_wait_is_never_rounded_to_none() {
        assert_eq!((wait_ms(Duration::ZERO), wait_ms(Duration::from_micros(1))), (0, 1));
    }
}
