//! A gateway on a free port, with one key, in front of an upstream that does what the model's name says.

use crate::admission::Admission;
use crate::config::{Config, Dialect, Pool, Secret};
use crate::identity::{Actor, Identity, NewKey};
use crate::metrics::Metrics;
use crate::usage::{Journal, JournalOptions, Shipper, UsageQuery, UsageRow, usage_page};
use crate::{App, Drained, Parts, board, router, serve};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::HeaderMap;
use ledger::model::NodeId;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// Models that the upstream acts on.
const MODELS: [&str; 12] =
    ["plain", "stream", "cut", "endless", "hang", "refuse", "billed", "html", "garbage", "redirect", "slow", "late"];
const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1}}\n\n";

/// A chat request for a model.
pub(super) fn chat(model: &str) -> String {
    format!(r#"{{"model":"{model}", "messages":[{{"role":"user","content":"hello"}}],"x_unknown":{{"kept":true}}}}"#)
}

#[derive(Default)]
struct Notes {
    sent: Mutex<Vec<(HeaderMap, Vec<u8>)>>,
    closed: Notify,
}

/// The gateway under test.
pub(super) struct Gateway {
    url: String,
    key: String,
    client: reqwest::Client,
    notes: Arc<Notes>,
    app: Arc<App>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Drained>,
    _dir: tempfile::TempDir,
}

impl Gateway {
    pub(super) async fn start() -> Self {
        let notes = Arc::new(Notes::default());
        let base_url = upstream(notes.clone()).await;
        let config = config(&base_url);
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(&format!("sqlite:{}", dir.path().join("id.db").display())).await.unwrap();
        let key = identity.create_key(&new_key(), None, &Actor::node()).await.unwrap().1.expose().to_owned();
        let parts = Parts {
            node: NodeId(1),
            admission: Admission::off(),
            identity,
            journal: Journal::open(&dir.path().join("usage"), &JournalOptions::default()).unwrap(),
            board: Arc::new(board::Blank),
            metrics: Arc::new(Metrics::new(10).unwrap()),
        };
        let app = App::new(&config, parts).unwrap();
        let listener = crate::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let table = router(app.clone(), None);
        let serving = app.clone();
        let running = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            serve(serving, table, &config.http, listener, stopped).await
        });
        let client = app.client_for_tests();
        Self { url, key, client, notes, app, stop: Some(stop), running, _dir: dir }
    }

    pub(super) async fn post(&self, body: String) -> reqwest::Response {
        self.post_as(&format!("Bearer {}", self.key), body).await
    }

    pub(super) async fn post_as(&self, authorization: &str, body: String) -> reqwest::Response {
        let request = self.client.post(format!("{}/v1/chat/completions", self.url)).header("x-custom", "kept");
        request.header("authorization", authorization).body(body).send().await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> reqwest::Response {
        let request = self.client.get(format!("{}{path}", self.url));
        let keyed = !path.contains("key=");
        let request = if keyed { request.bearer_auth(&self.key) } else { request };
        request.send().await.unwrap()
    }

    pub(super) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// What the upstream got so far.
    pub(super) fn sent(&self) -> Vec<(HeaderMap, Vec<u8>)> {
        self.notes.sent.lock().unwrap().clone()
    }

    /// Waits until the upstream sees its client gone.
    pub(super) async fn upstream_closed(&self) {
        tokio::time::timeout(Duration::from_secs(5), self.notes.closed.notified()).await.unwrap();
    }

    /// Waits until no call is open any more.
    pub(super) async fn idle(&self) {
        let idle = async {
            while self.app.metrics.in_flight.get() > 0.0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), idle).await.unwrap();
    }

    /// The usage rows so far.
    pub(super) async fn rows(&self) -> Vec<UsageRow> {
        let database = self.app.identity.database().clone();
        Shipper::new(self.app.journal.clone(), database.clone()).ship().await.unwrap();
        let query = UsageQuery { from_wall_us: 0, to_wall_us: i64::MAX as u64, after: None, limit: 100 };
        usage_page(&database, &query).await.unwrap()
    }

    /// Breaks the journal, as a sync that failed would.
    pub(super) fn break_journal(&self) {
        self.app.journal.fail();
    }

    pub(super) fn stop(&mut self) {
        drop(self.stop.take());
    }

    pub(super) async fn drained(self) -> Drained {
        drop(self.client);
        self.running.await.unwrap()
    }
}

fn new_key() -> NewKey {
    NewKey {
        models: MODELS
            .into_iter()
            .chain(["small", "with-larger", "nowhere", "loop", "nothing*"])
            .map(Into::into)
            .collect(),
        ..NewKey::named("test")
    }
}

fn config(base_url: &str) -> Config {
    let mut config = Config::default();
    config.http.max_body_bytes = 256 << 10;
    config.http.body_read_timeout_ms = 300;
    config.upstream.first_byte_timeout_ms = 60_000;
    let pool = Pool { base_url: base_url.to_owned(), api_key: Secret::new("upstream-key"), ..Pool::default() };
    let pools = &mut config.provider.local.pools;
    for model in MODELS {
        pools.insert(model.to_owned(), pool.clone());
    }
    pools.insert("secret".into(), pool.clone());
    pools.insert("slow".into(), Pool { max_request_ms: 200, ..pool.clone() });
    pools.insert("small".into(), Pool { max_context_length: 100, ..pool.clone() });
    let larger_model = "plain".to_owned();
    let upstream_model = "plain".to_owned();
    pools.insert("with-larger".into(), Pool { max_context_length: 100, larger_model, upstream_model, ..pool.clone() });
    pools.insert("nowhere".into(), Pool { base_url: "http://127.0.0.1:1/v1".into(), ..pool });
    pools.insert("loop".into(), Pool { dialect: Dialect::Loopback, ..Pool::default() });
    config
}

async fn upstream(notes: Arc<Notes>) -> String {
    let table = Router::new().route("/v1/chat/completions", post(act)).with_state(notes);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, table).await });
    url
}

async fn act(State(notes): State<Arc<Notes>>, headers: HeaderMap, body: Bytes) -> Response {
    notes.sent.lock().unwrap().push((headers, body.to_vec()));
    let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let json = [("content-type", "application/json"), ("x-upstream", "yes"), ("set-cookie", "a=b")];
    let answer = r#"{"choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":7,"completion_tokens":1}}"#;
    match asked["model"].as_str().unwrap() {
        "stream" => events(vec![EVENT, USAGE, "data: [DONE]\n\n"], End::Close, notes),
        "cut" => events(vec![EVENT], End::Break, notes),
        "endless" => events(vec![EVENT], End::Never, notes),
        "late" => events(vec![EVENT], End::Late, notes),
        "hang" | "slow" => std::future::pending().await,
        "refuse" => {
            (http::StatusCode::TOO_MANY_REQUESTS, json, r#"{"error":{"code":"upstream_says"}}"#).into_response()
        }
        "billed" => (
            http::StatusCode::INTERNAL_SERVER_ERROR,
            json,
            r#"{"error":{},"usage":{"prompt_tokens":7,"completion_tokens":2}}"#,
        )
            .into_response(),
        "html" => (http::StatusCode::INTERNAL_SERVER_ERROR, "<html>").into_response(),
        "garbage" => "<html>".into_response(),
        "redirect" => (http::StatusCode::FOUND, [("location", "/elsewhere")]).into_response(),
        _ => (json, answer).into_response(),
    }
}

enum End {
    Close,
    Break,
    Never,
    Late,
}

/// Tells when it is dropped.
struct Held(Arc<Notes>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.closed.notify_one();
    }
}

fn events(events: Vec<&'static str>, end: End, notes: Arc<Notes>) -> Response {
    let held = Held(notes);
    let stream =
        futures_util::stream::unfold((events.into_iter(), Some(end), held), |(mut left, end, held)| async move {
            if let Some(event) = left.next() {
                return Some((Ok(Bytes::from(event)), (left, end, held)));
            }
            match end? {
                End::Close => None,
                End::Break => {
                    // Lets the server write out what it has, before the connection breaks.
                    tokio::task::yield_now().await;
                    Some((Err(std::io::Error::other("cut")), (left, None, held)))
                }
                End::Never => std::future::pending().await,
                End::Late => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    Some((Ok(Bytes::from("data: [DONE]\n\n")), (left, None, held)))
                }
            }
        });
    ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
}
