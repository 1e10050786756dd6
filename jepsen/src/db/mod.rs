//! What is tested: real `gatewayd` processes in front of the real scripted upstream, on addresses of this run alone.

mod config;
mod home;
mod node;
mod process;
mod upstream;

pub(crate) use config::{ADMIN_KEY, Binaries, Setup};
pub(crate) use home::Home;
pub(crate) use node::Node;
pub(crate) use upstream::{OP_HEADER, PROMPT_TOKENS, Upstream};

use crate::client::Admin;
use crate::fabric::Fabric;
use crate::history::{NodeState, Pool};
use anyhow::Context;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a node may take until it serves; a debug build on a busy machine is slow.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(60);

/// A node that is stopped does not answer.
const ANSWERS_WITHIN: Duration = Duration::from_millis(300);

/// The processes of a run.
#[derive(Debug)]
pub(crate) struct Db {
    /// The gateways; number 1 is the first.
    pub(crate) nodes: Vec<Arc<Node>>,
    /// What they call.
    pub(crate) upstream: Upstream,
    /// What connects the nodes.
    pub(crate) fabric: Fabric,
    /// The run's own corner of loopback.
    home: Home,
}

impl Db {
    /// Starts the upstream, then every node, and waits until all serve.
    ///
    /// # Errors
    /// When one of them does not come up: a fault of the harness or the machine, no verdict.
    pub(crate) async fn start(setup: &Setup, dir: &Path, pools: &[Pool]) -> anyhow::Result<Self> {
        let home = Home::claim().await?;
        let fabric = Fabric::open(setup.nodes, &home).await?;
        let upstream = Upstream::start(&setup.binaries, dir, &home, pools).await?;
        let mut nodes = Vec::new();
        for id in 1..=setup.nodes {
            nodes.push(Arc::new(Node::new(setup, dir, id, (&home, &fabric), &upstream, pools)?));
        }
        let db = Self { nodes, upstream, fabric, home };
        // All at once: the first of a group of three serves only with a second one.
        let starts: Vec<_> =
            db.nodes.iter().cloned().map(|node| tokio::spawn(async move { node.start().await })).collect();
        for start in starts {
            start.await.context("a start of a node broke off")??;
        }
        Ok(db)
    }

    /// A node by its number.
    pub(crate) fn node(&self, id: u64) -> anyhow::Result<&Arc<Node>> {
        self.nodes.iter().find(|node| node.id == id).with_context(|| format!("there is no node {id}"))
    }

    /// The leader, by the word of the first node that knows one.
    pub(crate) async fn leader(&self) -> Option<u64> {
        let admin = self.admin();
        for node in &self.nodes {
            let asked = tokio::time::timeout(ANSWERS_WITHIN, admin.state(node)).await;
            if let Ok(Ok(NodeState { leader: Some(leader), .. })) = asked {
                return Some(leader);
            }
        }
        None
    }

    /// The admin routes of the first node that answers.
    pub(crate) fn admin(&self) -> Admin {
        Admin::new(self.nodes.clone())
    }

    /// Brings every node back to work: resumes what is stopped, starts what is gone.
    ///
    /// # Errors
    /// When a node does not come back, which is a finding of the run.
    pub(crate) async fn mend(&self) -> anyhow::Result<()> {
        self.fabric.mend();
        for node in &self.nodes {
            node.resume().await;
        }
        for node in &self.nodes {
            node.ensure_running().await?;
        }
        Ok(())
    }

    /// Ends every process and waits until they are gone.
    pub(crate) async fn stop(&self) {
        for node in &self.nodes {
            node.end().await;
        }
        self.upstream.end().await;
        self.home.leave();
    }
}
