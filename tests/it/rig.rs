//! What the scenarios share: a gateway in front of a scripted upstream, requests of a known size, and what to wait for.

use reqwest::Method;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;
use support::client::chat_body;
use support::{ChatReply, GatewayClient, TestApp, TestAppBuilder, Upstream};
use tokio::task::JoinHandle;

pub(crate) const GATEWAYD: &str = env!("CARGO_BIN_EXE_gatewayd");
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a request of one user message costs beside its text, where the tokenizer is `bytes`.
const FRAME_TOKENS: usize = 12;

/// A gateway whose pools are still to be named.
pub(crate) fn app() -> TestAppBuilder {
    TestApp::builder(GATEWAYD)
}

/// Tokens of the prompt of a request made by [`sized`].
pub(crate) fn prompt_tokens(text: &str) -> u64 {
    (text.len() + FRAME_TOKENS) as u64
}

/// A request that reserves exactly `tokens` of a pool whose tokenizer is `bytes`.
pub(crate) fn sized(model: &str, text: &str, tokens: u64) -> Value {
    chat_body(model, text, tokens - prompt_tokens(text))
}

/// A request on its way.
pub(crate) type Pending = JoinHandle<ChatReply>;

/// Sends a request and goes on.
pub(crate) fn begin(client: &GatewayClient, body: Value, headers: &[(&'static str, String)]) -> Pending {
    let (client, headers) = (client.clone(), headers.to_vec());
    tokio::spawn(async move {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        client.chat_with(&body, &headers).await.unwrap()
    })
}

/// Sends a request of a priority and goes on.
pub(crate) fn begin_at(client: &GatewayClient, priority: u8, body: Value) -> Pending {
    begin(client, body, &[("x-tokligence-priority", priority.to_string())])
}

/// Every reply, in the order of the requests.
pub(crate) async fn replies(pending: Vec<Pending>) -> Vec<ChatReply> {
    let mut replies = Vec::new();
    for reply in pending {
        replies.push(reply.await.unwrap());
    }
    replies
}

/// Waits until exactly so many requests wait in queues.
pub(crate) async fn waiting(client: &GatewayClient, count: usize) {
    let is_so = |metrics: &support::Metrics| metrics.sum("tokligence_scheduling_queue_depth", &[]) == count as f64;
    client.metrics_until(PATIENCE, is_so).await.unwrap();
}

/// What is used of a pool's limit, and the part of it.
pub(crate) fn usage(metrics: &support::Metrics, dimension: &str, model: &str) -> (f64, f64) {
    let labels = [("dimension", dimension), ("model", model)];
    let value = |name| metrics.get(name, &labels).unwrap_or_else(|| panic!("no {name} of {dimension} {model}"));
    (value("tokligence_capacity_usage"), value("tokligence_capacity_utilization"))
}

/// Waits until nothing is taken of any pool and nobody waits.
pub(crate) async fn idle(client: &GatewayClient) {
    let is_so = |metrics: &support::Metrics| {
        let taken = metrics.sum("tokligence_capacity_usage", &[]);
        let waiting = metrics.sum("tokligence_scheduling_queue_depth", &[]);
        taken == 0.0 && waiting == 0.0 && metrics.sum("tokligence_requests_in_flight", &[]) == 0.0
    };
    client.metrics_until(PATIENCE, is_so).await.unwrap();
}

/// The text of every request that reached the upstream, in the order of arrival.
pub(crate) fn served(upstream: &Upstream) -> Vec<String> {
    let text = |call: &support::Call| call.json()["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
    upstream.calls().iter().map(text).collect()
}

/// A client with a new key.
pub(crate) async fn client_with(app: &TestApp, fields: Value) -> GatewayClient {
    let key = app.client.create_key(&fields).await.unwrap();
    app.client.with_key(&key)
}

/// Every usage row, once there are so many.
pub(crate) async fn usage_rows(client: &GatewayClient, count: usize) -> Vec<Value> {
    let read = async {
        loop {
            let rows = all_rows(client).await;
            if rows.len() >= count {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("there never were {count} usage rows"))
}

async fn all_rows(client: &GatewayClient) -> Vec<Value> {
    let (status, rows) = client.admin(Method::GET, "/usage?format=json", None).await.unwrap();
    assert_eq!(status, 200, "{rows}");
    rows.as_array().cloned().unwrap_or_default()
}

/// The usage row of a reply.
pub(crate) async fn row_of(client: &GatewayClient, request_id: &str) -> Value {
    let read = async {
        loop {
            let found = all_rows(client).await.into_iter().find(|row| row["request_id"] == json!(request_id));
            match found {
                Some(row) => return row,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("{request_id} never had a usage row"))
}

/// Checks an OpenAI refusal for want of capacity: its code, and that it says when to come back.
pub(crate) fn assert_told_to_wait(reply: &ChatReply) {
    assert_eq!((reply.status, reply.error_code().as_str()), (429, "rate_limit_exceeded"), "{}", reply.json());
    let seconds: u64 = reply.header("retry-after").parse().unwrap();
    let millis: u64 = reply.header("retry-after-ms").parse().unwrap();
    assert!(seconds >= 1 && millis >= 1 && millis <= seconds * 1_000, "{seconds} s, {millis} ms");
    assert_eq!(reply.header("x-should-retry"), "");
}

/// Shows a measured value in the test's output.
pub(crate) fn report(text: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "measured: {text}");
}
