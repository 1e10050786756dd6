//! One request: sent, read to its end, judged.

use super::args::BenchArgs;
use super::plan::Job;
use anyhow::{Context, bail};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, Url};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const PRIORITY: HeaderName = HeaderName::from_static("x-tokligence-priority");
const WISHED_OUTPUT: HeaderName = HeaderName::from_static("x-bench-output-tokens");
/// Enough of a stream's end for its usage chunk, an error event and `[DONE]`.
const TAIL: usize = 4 * 1024;
/// Requests in flight on a connection of HTTP/2.
const STREAMS: usize = 100;

/// Sends requests; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// They take turns; one of HTTP/2 has one connection.
    clients: Arc<[reqwest::Client]>,
    urls: Arc<[Url]>,
    headers: HeaderMap,
    keeps_ids: bool,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A complete answer.
    Ok,
    /// An error status, with the code of its envelope.
    Refused {
        /// `error.code`, else `error.type`, else empty.
        code: String,
        /// Whether no wait would help: the request is larger than a limit can ever hold.
        too_large: bool,
    },
    /// No complete answer.
    Broken(String),
}

/// What is known of one request.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) index: u64,
    pub(crate) priority: Option<u8>,
    /// When it was due; in a closed loop, when it started.
    pub(crate) due: Duration,
    pub(crate) started: Duration,
    /// First byte of the body after the head.
    pub(crate) first_byte: Option<Duration>,
    pub(crate) ended: Duration,
    /// 0 when no head came.
    pub(crate) status: u16,
    pub(crate) outcome: Outcome,
    pub(crate) queue_wait_ms: Option<f64>,
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) request_id: String,
}

/// A line of the CSV.
#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    index: u64,
    priority: Option<u8>,
    due_ms: f64,
    started_ms: f64,
    ended_ms: f64,
    latency_ms: f64,
    first_byte_ms: Option<f64>,
    queue_wait_ms: Option<f64>,
    status: u16,
    outcome: &'a str,
    detail: &'a str,
    prompt_tokens: u64,
    completion_tokens: u64,
    request_id: &'a str,
}

impl Sample {
    /// From its start to its end.
    pub(crate) fn latency(&self) -> Duration {
        self.ended.saturating_sub(self.started)
    }

    /// As a line of the CSV.
    pub(crate) fn row(&self) -> Row<'_> {
        let (outcome, detail) = match &self.outcome {
            Outcome::Ok => ("ok", ""),
            Outcome::Refused { code, too_large: true } => ("too_large", code.as_str()),
            Outcome::Refused { code, .. } => ("refused", code.as_str()),
            Outcome::Broken(reason) => ("broken", reason.as_str()),
        };
        Row {
            index: self.index,
            priority: self.priority,
            due_ms: super::millis(self.due),
            started_ms: super::millis(self.started),
            ended_ms: super::millis(self.ended),
            latency_ms: super::millis(self.latency()),
            first_byte_ms: self.first_byte.map(|at| super::millis(at.saturating_sub(self.started))),
            queue_wait_ms: self.queue_wait_ms,
            status: self.status,
            outcome,
            detail,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            request_id: &self.request_id,
        }
    }
}

impl Caller {
    /// A caller of these endpoints, which take turns.
    ///
    /// # Errors
    /// When an endpoint is no URL, or the key cannot be a header.
    pub(crate) fn new(endpoint: &str, api_key: &str, args: &BenchArgs) -> anyhow::Result<Self> {
        // `main` may have installed it already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let connections = if args.http2 { args.concurrency.div_ceil(STREAMS) } else { 1 };
        let clients = (0..connections.max(1)).map(|_| client(args)).collect::<Result<_, _>>()?;
        let urls = endpoint.split(',').map(|one| {
            let url = format!("{}/v1/chat/completions", one.trim().trim_end_matches('/').trim_end_matches("/v1"));
            Url::parse(&url).with_context(|| format!("`{one}` is no URL"))
        });
        let urls: Arc<[Url]> = urls.collect::<anyhow::Result<_>>()?;
        if urls.is_empty() {
            bail!("no endpoint was given");
        }
        let mut headers = HeaderMap::new();
        let mut bearer = HeaderValue::from_str(&format!("Bearer {api_key}")).context("the key is no header value")?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { clients, urls, headers, keeps_ids: args.csv.is_some() })
    }

    /// Sends one request and reads its answer to the end.
    pub(crate) async fn call(&self, job: Job, origin: Instant) -> Sample {
        let turn = usize::try_from(job.index).unwrap_or(0);
        let url = self.urls[turn % self.urls.len()].clone();
        let http = &self.clients[turn % self.clients.len()];
        let mut headers = self.headers.clone();
        if let Some(priority) = job.priority {
            headers.insert(PRIORITY, HeaderValue::from(u16::from(priority)));
        }
        if let Some(tokens) = job.wished_output {
            headers.insert(WISHED_OUTPUT, HeaderValue::from(tokens));
        }
        let started = origin.elapsed();
        let mut sample = Sample {
            index: job.index,
            priority: job.priority,
            due: if job.due.is_zero() { started } else { job.due },
            started,
            first_byte: None,
            ended: started,
            status: 0,
            outcome: Outcome::Ok,
            queue_wait_ms: None,
            prompt_tokens: 0,
            completion_tokens: 0,
            request_id: String::new(),
        };
        match http.post(url).headers(headers).body(job.body).send().await {
            Ok(response) => self.read(response, job.stream, origin, &mut sample).await,
            Err(error) => sample.outcome = Outcome::Broken(reason(&error)),
        }
        sample.ended = origin.elapsed();
        sample
    }

    async fn read(&self, mut response: Response, stream: bool, origin: Instant, sample: &mut Sample) {
        sample.status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        sample.queue_wait_ms = header("x-tokligence-queue-wait-ms").and_then(|text| text.parse().ok());
        if self.keeps_ids {
            sample.request_id = header("x-tokligence-request-id").unwrap_or_default().to_owned();
        }
        let is_ok = response.status().is_success();
        let mut tail = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    sample.first_byte.get_or_insert_with(|| origin.elapsed());
                    tail.extend_from_slice(&bytes);
                    if stream && is_ok && tail.len() > 2 * TAIL {
                        tail.drain(..tail.len() - TAIL);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    sample.outcome = Outcome::Broken(reason(&error));
                    return;
                }
            }
        }
        sample.outcome = if !is_ok {
            refusal(&tail)
        } else if stream && !ends_properly(&tail) {
            Outcome::Broken("the stream ended without [DONE]".to_owned())
        } else {
            Outcome::Ok
        };
        sample.prompt_tokens = number_after(&tail, b"\"prompt_tokens\":").unwrap_or(0);
        sample.completion_tokens = number_after(&tail, b"\"completion_tokens\":").unwrap_or(0);
    }
}

fn client(args: &BenchArgs) -> reqwest::Result<reqwest::Client> {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(usize::MAX)
        .timeout(args.request_timeout);
    if args.http2 { builder.http2_prior_knowledge() } else { builder.http1_only() }.build()
}

fn ends_properly(tail: &[u8]) -> bool {
    tail.trim_ascii_end().ends_with(b"data: [DONE]")
}

/// Reads an error envelope of any of the dialects.
fn refusal(body: &[u8]) -> Outcome {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &body["error"];
    let text = |name: &str| error[name].as_str().unwrap_or_default();
    let code = if text("code").is_empty() { text("type") } else { text("code") };
    let too_large = matches!(code, "request_exceeds_limit" | "request_too_large" | "context_length_exceeded")
        || text("message").contains("too large")
        || text("message").contains("more tokens than");
    Outcome::Refused { code: code.to_owned(), too_large }
}

/// The number behind the last occurrence of `name`.
fn number_after(text: &[u8], name: &[u8]) -> Option<u64> {
    let at = text.windows(name.len()).rposition(|window| window == name)?;
    let rest = text[at + name.len()..].trim_ascii_start();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

/// The innermost cause: the layers above it name only themselves, and the URL.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timeout".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_and_the_end_are_read_from_the_tail() {
        let tail = b"data: {\"usage\":{\"prompt_tokens\": 12,\"completion_tokens\":34}}\n\ndata: [DONE]\n\n";
        assert!(ends_properly(tail));
        assert_eq!(number_after(tail, b"\"prompt_tokens\":"), Some(12));
        assert_eq!(number_after(tail, b"\"completion_tokens\":"), Some(34));
        assert_eq!(number_after(tail, b"\"total_tokens\":"), None);
        assert!(!ends_properly(b"data: {\"error\":{}}\n\n"));
    }

    #[test]
    fn a_refusal_is_named_by_its_code_and_by_its_size() {
        let queue = br#"{"error":{"message":"at capacity","type":"requests","code":"rate_limit_exceeded"}}"#;
        let expected = Outcome::Refused { code: "rate_limit_exceeded".into(), too_large: false };
        assert_eq!(refusal(queue), expected);
        let large = br#"{"error":{"message":"the request is too large: ..","type":"tokens","code":null}}"#;
        assert_eq!(refusal(large), Outcome::Refused { code: "tokens".into(), too_large: true });
        assert_eq!(refusal(b"<html>"), Outcome::Refused { code: String::new(), too_large: false });
    }
}
