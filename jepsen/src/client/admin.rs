//! The admin routes and the metrics: keys, limits, usage rows, the group's state.

use crate::db::{ADMIN_KEY, Node};
use crate::history::{NodeState, Outcome, Row, Value as Register};
use anyhow::Context;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const ROWS_OF_A_PAGE: usize = 1_000;

/// What is zero when nothing is under way.
const OUTSTANDING: [&str; 3] =
    ["tokligence_capacity_usage{", "tokligence_scheduling_queue_depth{", "tokligence_requests_in_flight"];

/// Speaks to whichever node answers.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    nodes: Vec<Arc<Node>>,
}

impl Admin {
    /// Of these nodes, asked in this order.
    pub(crate) fn new(nodes: Vec<Arc<Node>>) -> Self {
        Self { nodes }
    }

    /// One request to one node; an error status is no error.
    ///
    /// # Errors
    /// When no complete reply comes.
    pub(crate) async fn ask(
        &self,
        node: &Node,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let mut request =
            http.request(method, format!("http://{}/api/v1/admin{path}", node.http)).bearer_auth(ADMIN_KEY);
        if let Some(body) = body {
            request = request.json(body);
        }
        let reply = request.send().await?;
        let status = reply.status().as_u16();
        let body = reply.bytes().await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// Makes an API key.
    ///
    /// # Errors
    /// When it is refused, or the reply holds no key.
    pub(crate) async fn create_key(&self, fields: &Value) -> anyhow::Result<String> {
        let node = self.nodes.first().context("there is no node")?;
        let (status, reply) = self.ask(node, reqwest::Method::POST, "/keys", Some(fields)).await?;
        anyhow::ensure!((200..300).contains(&status), "no key was made: {status} {reply}");
        find_key(&reply).with_context(|| format!("no key in {reply}"))
    }

    /// Sets the limit of concurrent requests of a pool.
    pub(crate) async fn set_limit(&self, node: &Node, pool: &str, value: u64) -> Outcome {
        let body = serde_json::json!({"concurrent": value});
        match self.ask(node, reqwest::Method::PUT, &format!("/pools/{pool}"), Some(&body)).await {
            Ok((200, _)) => Outcome::Ok(Register::Set),
            // Refused for what it says, before anything was decided.
            Ok((status @ 400..=499, _)) => Outcome::Fail(status.to_string()),
            Ok((status, _)) => Outcome::Unknown(status.to_string()),
            Err(error) if error.is_connect() => Outcome::Fail("not connected".to_owned()),
            Err(_) => Outcome::Unknown("broken off".to_owned()),
        }
    }

    /// Reads the limit of concurrent requests of a pool; a read that failed changed nothing.
    pub(crate) async fn limit(&self, node: &Node, pool: &str) -> Outcome {
        match self.ask(node, reqwest::Method::GET, &format!("/pools/{pool}"), None).await {
            Ok((200, reply)) => match reply["limits"]["concurrent"].as_u64() {
                Some(value) => Outcome::Ok(Register::Limit { value }),
                None => Outcome::Fail("no limit in the reply".to_owned()),
            },
            Ok((status, _)) => Outcome::Fail(status.to_string()),
            Err(error) if error.is_connect() => Outcome::Fail("not connected".to_owned()),
            Err(_) => Outcome::Fail("broken off".to_owned()),
        }
    }

    /// Every usage row.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub(crate) async fn usage_rows(&self) -> anyhow::Result<Vec<Row>> {
        let node = self.nodes.first().context("there is no node")?;
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let after = rows.last().map_or(String::new(), |row| format!("&after={}", row.request_id));
            let path = format!("/usage?limit={ROWS_OF_A_PAGE}{after}");
            let (status, reply) = self.ask(node, reqwest::Method::GET, &path, None).await?;
            anyhow::ensure!(status == 200, "no usage rows: {status} {reply}");
            let page: Vec<Row> =
                serde_json::from_value(reply["usage"].clone()).context("usage rows of another form")?;
            let is_last = page.len() < ROWS_OF_A_PAGE;
            rows.extend(page);
            if is_last {
                return Ok(rows);
            }
        }
    }

    /// What a node says of the group and of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn state(&self, node: &Node) -> anyhow::Result<NodeState> {
        let (status, reply) = self.ask(node, reqwest::Method::GET, "/cluster", None).await?;
        anyhow::ensure!(status == 200, "no state of the group: {status} {reply}");
        let number = |field: &str| reply[field].as_u64();
        let own = reply["nodes"].as_array().and_then(|nodes| nodes.iter().find(|own| own["id"] == node.id));
        Ok(NodeState {
            node: node.id,
            leader: number("leader_id"),
            term: number("term").unwrap_or(0),
            applied_index: number("applied_index").unwrap_or(0),
            digest_index: own.and_then(|own| own["digest_index"].as_u64()).unwrap_or(0),
            digest: own.and_then(|own| own["digest"].as_str()).map(str::to_owned),
            ..NodeState::default()
        })
    }

    /// What is taken or waits on a node, by its metrics; empty: nothing.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn outstanding(&self, node: &Node) -> anyhow::Result<Vec<String>> {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let text = http.get(format!("http://{}/metrics", node.http)).send().await?.error_for_status()?.text().await?;
        let taken = |line: &&str| {
            let is_of_interest = OUTSTANDING.iter().any(|name| line.starts_with(name));
            is_of_interest && line.rsplit_once(' ').is_some_and(|(_, value)| value.parse() != Ok(0.0))
        };
        Ok(text.lines().filter(taken).map(str::to_owned).collect())
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
