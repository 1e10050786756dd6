//! A client of the gateway: inference with an API key, admin routes with the admin key, metrics with none.

use crate::clock;
use crate::metrics::Metrics;
use crate::reply::{ChatReply, LiveStream, StreamReply};
use anyhow::Context;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::time::Duration;

/// Talks to one node with one API key and, for the admin routes, one admin key.
#[derive(Clone, Debug)]
pub struct GatewayClient {
    http: reqwest::Client,
    base_url: String,
    key: String,
    admin_key: String,
}

/// A chat completion request of one user message.
pub fn chat_body(model: &str, text: &str, max_tokens: u64) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens})
}

impl GatewayClient {
    /// A client of the node at `base_url` (`http://ADDR`, no path).
    ///
    /// # Panics
    /// When the HTTP client cannot be built.
    pub fn new(base_url: &str, key: &str, admin_key: &str) -> Self {
        // Another test in the process may have been first; any provider will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().tcp_nodelay(true).no_proxy().pool_max_idle_per_host(4096).build();
        Self {
            http: http.expect("an HTTP client of plain settings"),
            base_url: base_url.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
            admin_key: admin_key.to_owned(),
        }
    }

    /// The same node with another API key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// The API key in use.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// `http://ADDR` and a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    /// A request with the API key, to be added to and sent by [`GatewayClient::send`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path)).bearer_auth(&self.key)
    }

    /// Sends a request and reads the whole reply.
    ///
    /// # Errors
    /// When no complete reply comes.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<ChatReply> {
        let sent_us = clock::boot_us();
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?;
        Ok(ChatReply { status, headers, body, sent_us, ended_us: clock::boot_us() })
    }

    /// A plain chat completion.
    ///
    /// # Errors
    /// When no complete reply comes; an error status is no error.
    pub async fn chat(&self, body: &Value) -> anyhow::Result<ChatReply> {
        self.chat_with(body, &[]).await
    }

    /// A plain chat completion with more headers.
    ///
    /// # Errors
    /// When no complete reply comes; an error status is no error.
    pub async fn chat_with(&self, body: &Value, headers: &[(&str, &str)]) -> anyhow::Result<ChatReply> {
        self.send(self.chat_request(body, headers)).await
    }

    /// A streamed chat completion, read to its end; `stream` is set.
    ///
    /// # Errors
    /// When no head comes.
    pub async fn chat_stream(&self, body: &Value) -> anyhow::Result<StreamReply> {
        Ok(self.open_stream(body, &[]).await?.finish().await)
    }

    /// A streamed chat completion, given back once its head has come; `stream` is set.
    ///
    /// # Errors
    /// When no head comes.
    pub async fn open_stream(&self, body: &Value, headers: &[(&str, &str)]) -> anyhow::Result<LiveStream> {
        let mut body = body.clone();
        body["stream"] = Value::Bool(true);
        let request = self.chat_request(&body, headers);
        let sent_us = clock::boot_us();
        let response = request.send().await?;
        Ok(LiveStream::new(response, sent_us))
    }

    /// A request to an admin route, with the admin key; `path` follows `/api/v1/admin`.
    ///
    /// # Errors
    /// When no complete reply comes; an error status is no error.
    pub async fn admin(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
        let mut request =
            self.http.request(method, self.url(&format!("/api/v1/admin{path}"))).bearer_auth(&self.admin_key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let reply = self.send(request).await?;
        Ok((reply.status, reply.json()))
    }

    /// Makes an API key with these fields, and gives the key itself.
    ///
    /// # Errors
    /// When it is refused, or the reply holds no key.
    pub async fn create_key(&self, fields: &Value) -> anyhow::Result<String> {
        let (status, reply) = self.admin(Method::POST, "/keys", Some(fields)).await?;
        anyhow::ensure!((200..300).contains(&status), "no key was made: {status} {reply}");
        find_key(&reply).with_context(|| format!("no key in {reply}"))
    }

    /// Sets a pool's limits.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn set_pool(&self, model: &str, limits: &Value) -> anyhow::Result<Value> {
        let (status, reply) = self.admin(Method::PUT, &format!("/pools/{model}"), Some(limits)).await?;
        anyhow::ensure!((200..300).contains(&status), "the pool was not set: {status} {reply}");
        Ok(reply)
    }

    /// Scrapes the metrics.
    ///
    /// # Errors
    /// When no complete reply comes.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        let reply = self.send(self.http.get(self.url("/metrics"))).await?;
        Ok(Metrics::parse(&String::from_utf8_lossy(&reply.body)))
    }

    /// Scrapes the metrics until they satisfy `is_so`.
    ///
    /// # Errors
    /// When they do not within the patience.
    pub async fn metrics_until(&self, patience: Duration, is_so: impl Fn(&Metrics) -> bool) -> anyhow::Result<Metrics> {
        let started_us = clock::boot_us();
        loop {
            let metrics = self.metrics().await?;
            if is_so(&metrics) {
                return Ok(metrics);
            }
            anyhow::ensure!(clock::since(started_us) < patience, "the metrics never came to be so: {metrics:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn chat_request(&self, body: &Value, headers: &[(&str, &str)]) -> RequestBuilder {
        let request = self.request(Method::POST, "/v1/chat/completions").json(body);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    }
}

/// The first string in the reply that looks like an API key.
fn find_key(value: &Value) -> Option<String> {
    match value {
        // A prefix alone, as lists show it, is shorter than 32 bytes of key.
        Value::String(text) if text.starts_with("tok_") && text.len() > 32 => Some(text.clone()),
        Value::Array(items) => items.iter().find_map(find_key),
        Value::Object(fields) => fields.values().find_map(find_key),
        _ => None,
    }
}
