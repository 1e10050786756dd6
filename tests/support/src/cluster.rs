//! Several gateways as one cluster in front of one scripted upstream, with links between them that can be cut.

use crate::client::GatewayClient;
use crate::config::{Config, Pool};
use crate::gateway::{GatewayBuilder, GatewayProcess};
use crate::link::Link;
use crate::testapp::ADMIN_KEY;
use crate::upstream::{Options, Script, Upstream};
use anyhow::Context;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Value;

/// How long a cluster may take to find a leader.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Debug)]
pub struct ClusterBuilder {
    binary: PathBuf,
    size: usize,
    script: Script,
    settings: Vec<(String, Value)>,
    pools: Vec<(String, Change)>,
    lean: bool,
}

/// Sets a pool's limits.
type Change = fn(Pool) -> Pool;

/// Nodes 1 to N, each with a client, and their upstream.
#[derive(Debug)]
pub struct Cluster {
    /// The upstream of every pool.
    pub upstream: Upstream,
    /// The nodes, by id from 1.
    pub nodes: Vec<GatewayProcess>,
    /// A client of each node, with one key that all of them know.
    pub clients: Vec<GatewayClient>,
    links: BTreeMap<(usize, usize), Link>,
    _dir: tempfile::TempDir,
}

impl ClusterBuilder {
    /// Starts from so many nodes; `binary` is `env!("CARGO_BIN_EXE_gatewayd")`.
    pub fn new(binary: impl Into<PathBuf>, size: usize) -> Self {
        Self {
            binary: binary.into(),
            size,
            script: Script::default(),
            settings: Vec::new(),
            pools: Vec::new(),
            lean: false,
        }
    }

    /// Adds a pool of the upstream.
    #[must_use]
    pub fn pool(mut self, model: &str, change: Change) -> Self {
        self.pools.push((model.to_owned(), change));
        self
    }

    /// Sets any key of every node's configuration.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.settings.push((path.to_owned(), value.into()));
        self
    }

    /// Sets what the upstream does at first.
    #[must_use]
    pub fn script(mut self, script: impl Into<Script>) -> Self {
        self.script = script.into();
        self
    }

    /// Lets the upstream keep counts only.
    #[must_use]
    pub fn lean(mut self) -> Self {
        self.lean = true;
        self
    }

    /// Starts everything, waits for a leader, and makes a key.
    ///
    /// # Errors
    /// When something cannot be started.
    pub async fn start(self) -> anyhow::Result<Cluster> {
        let dir = tempfile::tempdir()?;
        let options = Options { listen: None, lean: self.lean, script: self.script.clone() };
        let upstream = Upstream::start_with(options).await?;
        let peers = free_addresses(self.size)?;
        let mut links = BTreeMap::new();
        for from in 1..=self.size {
            for to in (1..=self.size).filter(|&to| to != from) {
                links.insert((from, to), Link::to(peers[to - 1]).await?);
            }
        }
        let starts = (1..=self.size).map(|id| {
            let config = self.config(id, dir.path(), &peers, &links, &upstream);
            GatewayBuilder::serve(&self.binary, dir.path().join(format!("n{id}")), config).start()
        });
        let nodes = futures_util::future::try_join_all(starts).await?;
        let admins = nodes.iter().map(|node| GatewayClient::new(&node.base_url(), "", ADMIN_KEY));
        let mut cluster = Cluster { clients: admins.collect(), upstream, nodes, links, _dir: dir };
        cluster.leader().await?;
        let key = cluster.clients[0].create_key(&json!({"name": "test", "priority_ceiling": 0})).await?;
        cluster.clients.iter_mut().for_each(|client| *client = client.with_key(&key));
        Ok(cluster)
    }

    fn config(
        &self,
        id: usize,
        dir: &Path,
        peers: &[SocketAddr],
        links: &BTreeMap<(usize, usize), Link>,
        upstream: &Upstream,
    ) -> Config {
        let text = |(at, address): (usize, &SocketAddr)| Value::from(format!("{}={address}", at + 1));
        let members: Vec<Value> = peers.iter().enumerate().map(text).collect();
        let via = links.iter().filter(|((from, _), _)| *from == id);
        let via: Vec<Value> = via.map(|((_, to), link)| Value::from(format!("{to}={}", link.address()))).collect();
        let data = dir.join(format!("n{id}"));
        let mut config = Config::one_node(&data, ADMIN_KEY)
            .set("node.id", id as i64)
            .set("peer.listen", peers[id - 1].to_string())
            .set("peer.via", via)
            .set("cluster.initial_members", members)
            // One file for all: what Postgres is for elsewhere.
            .set("identity.database_url", format!("sqlite:{}", dir.join("identity.db").display()));
        for (model, change) in &self.pools {
            config = config.pool(change(Pool::new(model, &upstream.base_url())));
        }
        for (path, value) in &self.settings {
            config = config.set(path, value.clone());
        }
        config
    }
}

impl Cluster {
    /// Waits until some node leads and all that run agree on it; gives its id.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        let agreed = async {
            loop {
                let mut seen = Vec::new();
                for (node, client) in self.nodes.iter().zip(&self.clients) {
                    if node.pid().is_some() {
                        seen.push(status(client).await.and_then(|status| status["leader_id"].as_u64()));
                    }
                }
                if let Some(Some(leader)) = seen.first()
                    && seen.iter().all(|other| *other == Some(*leader))
                    && self.nodes[*leader as usize - 1].pid().is_some()
                {
                    return *leader as usize;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, agreed).await.context("the nodes did not agree on a leader in time")
    }

    /// Cuts every link from and to a node, or mends them.
    pub fn isolate(&self, node: usize, cut: bool) {
        let touching = self.links.iter().filter(|((from, to), _)| *from == node || *to == node);
        touching.for_each(|(_, link)| link.set_cut(cut));
    }

    /// Cuts the links by which a node calls others, or mends them: it hears and is not heard.
    pub fn mute(&self, node: usize, cut: bool) {
        self.links.iter().filter(|((from, _), _)| *from == node).for_each(|(_, link)| link.set_cut(cut));
    }

    /// Starts a node again on its data, and points its client to its new port.
    ///
    /// # Errors
    /// As [`GatewayProcess::restart`].
    pub async fn restart(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node - 1].restart().await?;
        self.point_clients();
        Ok(())
    }

    /// Points every client to the present port of its node.
    pub fn point_clients(&mut self) {
        for (node, client) in self.nodes.iter().zip(&mut self.clients) {
            *client = GatewayClient::new(&node.base_url(), client.key(), ADMIN_KEY);
        }
    }
}

async fn status(client: &GatewayClient) -> Option<Json> {
    let asked = client.admin(reqwest::Method::GET, "/cluster", None);
    let (status, body) = tokio::time::timeout(Duration::from_secs(2), asked).await.ok()?.ok()?;
    (status == 200).then_some(body)
}

/// Ports that are free now; the listeners that held them are gone when this returns.
fn free_addresses(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?)).collect()
}
