//! Chat completions, plain and streamed.

use crate::clock;
use crate::db::{Node, OP_HEADER, PROMPT_TOKENS};
use crate::history::{Answer, Chat, Outcome, Value};
use serde_json::json;
use std::time::Duration;

/// Longer than a queue and an answer together; who waits longer does not know what became of the request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tokens that the gateway counts for a message beside its text.
const FRAME_TOKENS: u64 = 12;

/// Tokens of the request that asks for a quota's rest: a prompt and one token.
pub(crate) const ONE_REQUEST: u64 = PROMPT_TOKENS + 1;

/// One client of the inference routes.
#[derive(Clone, Debug)]
pub(crate) struct ChatClient {
    http: reqwest::Client,
}

impl ChatClient {
    /// A client with connections of its own.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { http: super::http()? })
    }

    /// What a key's quota has left, by the headers of one more small request of [`ONE_REQUEST`]; `None` when it was
    /// refused since less than that is left.
    ///
    /// # Errors
    /// When the reply does not say.
    pub(crate) async fn quota_left(&self, node: &Node, model: &str, key: &str) -> anyhow::Result<Option<u64>> {
        let messages = json!([{"role": "user", "content": text(0)}]);
        let body = json!({"model": model, "max_tokens": 1, "messages": messages});
        let request = self
            .http
            .post(format!("http://{}/v1/chat/completions", node.http))
            .bearer_auth(key)
            .header("x-bench-output-tokens", 1)
            .json(&body);
        let reply = tokio::time::timeout(PATIENCE, request.send()).await??;
        let left = reply.headers().get("x-tokligence-quota-remaining").and_then(|value| value.to_str().ok());
        if let Some(left) = left.and_then(|left| left.parse().ok()) {
            return Ok(Some(left));
        }
        let said = refusal(reply.status().as_u16(), &reply.bytes().await?);
        anyhow::ensure!(said == "429 insufficient_quota", "a reply of {said} says nothing of the quota");
        Ok(None)
    }

    /// Asks a node, and says how it ended.
    pub(crate) async fn call(&self, node: &Node, op: u64, chat: &Chat, key: &str) -> Outcome {
        let mut body = json!({
            "model": chat.model, "max_tokens": chat.max_tokens,
            "messages": [{"role": "user", "content": text(op)}],
        });
        if chat.stream {
            body["stream"] = true.into();
        }
        let request = self
            .http
            .post(format!("http://{}/v1/chat/completions", node.http))
            .bearer_auth(key)
            .header(OP_HEADER, op)
            .header("x-bench-output-tokens", chat.output_tokens)
            .header("x-tokligence-priority", u64::from(chat.priority))
            .json(&body);
        let exchange = async {
            let reply = request.send().await?;
            let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, reply.bytes().await?))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Err(_) => Outcome::Unknown("timeout".to_owned()),
            // Nothing was sent.
            Ok(Err(error)) if error.is_connect() => Outcome::Fail("not connected".to_owned()),
            Ok(Err(_)) => Outcome::Unknown("broken off".to_owned()),
            Ok(Ok((200, headers, body))) => {
                if chat.stream && !body.trim_ascii_end().ends_with(b"data: [DONE]") {
                    return Outcome::Unknown("the stream was cut".to_owned());
                }
                Outcome::Ok(Value::Chat(answer(&headers)))
            }
            Ok(Ok((status, _, body))) => Outcome::Fail(refusal(status, &body)),
        }
    }
}

fn answer(headers: &reqwest::header::HeaderMap) -> Answer {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scheduled_ms: Option<u64> = text("x-tokligence-scheduled-timestamp").parse().ok();
    // The wall clock of the header, moved to the boot clock of the history.
    let wall_ahead_us = clock::wall_us().saturating_sub(clock::boot_us());
    Answer {
        request_id: text("x-request-id").to_owned(),
        wait_ms: text("x-tokligence-queue-wait-ms").parse().unwrap_or(0),
        admitted_us: scheduled_ms.map_or(0, |ms| (ms * 1_000).saturating_sub(wall_ahead_us)),
    }
}

/// `429 rate_limit_exceeded`, or the status alone where there is no code.
fn refusal(status: u16, body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match body["error"]["code"].as_str() {
        Some(code) => format!("{status} {code}"),
        None => status.to_string(),
    }
}

/// The text of an operation's message, of the length that every prompt has.
fn text(op: u64) -> String {
    let width = usize::try_from(PROMPT_TOKENS - FRAME_TOKENS).unwrap_or(0);
    format!("{op:0width$}")
}
