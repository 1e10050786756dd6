//! The scripted upstream as a process of its own: what it is told, and what it saw.

use super::process::Launch;
use super::{Binaries, Home, READY_WITHIN};
use crate::history::{Arrival, Pool, Recorder, What};
use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::process::Child;
use tokio::sync::Mutex;

/// The header by which a request is known at the upstream.
pub(crate) const OP_HEADER: &str = "x-jepsen-op";

/// Tokens of every prompt of the harness, by the gateway's count of one per byte.
pub(crate) const PROMPT_TOKENS: u64 = 24;

/// A running upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    http: reqwest::Client,
    child: Mutex<Option<Child>>,
}

/// A call as the upstream's control route tells it.
#[derive(Debug, Deserialize)]
struct Call {
    model: String,
    arrived_us: u64,
    ended_us: Option<u64>,
    closed_early_at: Option<u64>,
    status: u16,
    prompt_tokens: Option<i64>,
    completion_tokens: Option<i64>,
    emitted_tokens: u64,
    headers: Vec<(String, String)>,
}

impl Upstream {
    /// Starts it and tells it what to do.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) async fn start(binaries: &Binaries, dir: &Path, home: &Home, pools: &[Pool]) -> anyhow::Result<Self> {
        let address = home.upstream();
        let file = dir.join("upstream.address");
        let launch = Launch {
            program: binaries.upstream.clone(),
            args: vec![
                "--listen".into(),
                address.to_string().into(),
                "--address-file".into(),
                file.clone().into_os_string(),
            ],
            env: Vec::new(),
            log: dir.join("upstream.log"),
        };
        let child = launch.spawn()?;
        let wait = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(READY_WITHIN, wait).await.context("the upstream did not come up")?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let upstream = Self { address, http, child: Mutex::new(Some(child)) };
        upstream.script(&script(pools)).await?;
        Ok(upstream)
    }

    /// Tells it what to do from now on.
    ///
    /// # Errors
    /// When it does not take it.
    pub(crate) async fn script(&self, script: &Value) -> anyhow::Result<()> {
        let reply = self.http.put(self.url("script")).json(script).send().await?;
        anyhow::ensure!(reply.status().is_success(), "the upstream refused the script: {}", reply.text().await?);
        Ok(())
    }

    /// Puts every call that has ended into the history; the upstream forgets them.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn collect(&self, recorder: &Recorder) -> anyhow::Result<()> {
        let reply = self.http.post(self.url("take")).send().await?.error_for_status()?;
        for call in reply.json::<Vec<Call>>().await? {
            let (at_us, arrival) = call.into_arrival();
            recorder.note_at(at_us, What::Arrival(arrival));
        }
        Ok(())
    }

    /// How many calls are in flight.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn in_flight(&self) -> anyhow::Result<u64> {
        let stats: Value = self.http.get(self.url("stats")).send().await?.error_for_status()?.json().await?;
        stats["in_flight"].as_u64().context("the upstream's stats have no in_flight")
    }

    /// Ends it.
    pub(super) async fn end(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            // It may have ended already.
            let _ = child.kill().await;
        }
    }

    fn url(&self, route: &str) -> String {
        format!("http://{}/_control/{route}", self.address)
    }
}

/// Every pool answers in its own time, with the tokens that each request itself asks for.
pub(crate) fn script(pools: &[Pool]) -> Value {
    let rule = |pool: &Pool| {
        json!({"model": pool.name, "reply": {
            "spread_ms": pool.answer_ms, "prompt_tokens": PROMPT_TOKENS, "tokens_per_chunk": 20,
        }})
    };
    json!({"rules": pools.iter().map(rule).collect::<Vec<_>>(), "otherwise": {"prompt_tokens": PROMPT_TOKENS}})
}

impl Call {
    fn into_arrival(self) -> (u64, Arrival) {
        let op = self.headers.iter().find(|(name, _)| name == OP_HEADER).and_then(|(_, value)| value.parse().ok());
        let tokens = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
        let arrival = Arrival {
            op,
            model: self.model,
            ended_us: self.ended_us,
            closed_early: self.closed_early_at.is_some(),
            status: self.status,
            prompt_tokens: tokens(self.prompt_tokens),
            completion_tokens: tokens(self.completion_tokens),
            emitted_tokens: self.emitted_tokens,
        };
        (self.arrived_us, arrival)
    }
}
