//! `gateway cluster`: the group of nodes.

use super::Context;
use super::client::Call;
use super::failure::Failure;
use super::output::{number, table};
use api::admin::{ClusterNode, ClusterStatus};
use clap::Subcommand;
use std::time::Duration;

/// How often, and how soon, digests are asked for again until all were taken at the same index.
const VERIFY_TRIES: usize = 50;
const VERIFY_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show the nodes and their leader; exit 5 without a leader, 3 when a node is down.
    Status,
    /// List the members.
    Members,
    /// Take in a node that was started with `cluster.join = true`; it hears everything and has no vote yet.
    Add {
        /// The node's id; never one that was used before.
        id: u64,
        /// Where the members reach it: HOST:PORT of its peer listener.
        addr: String,
    },
    /// Give a member a vote.
    Promote {
        /// The node's id.
        id: u64,
    },
    /// Take a member out, alive or dead; its id is never used again.
    Remove {
        /// The node's id.
        id: u64,
    },
    /// Have another node lead.
    TransferLeader {
        /// Which; any other voter when not given.
        id: Option<u64>,
    },
    /// Compare the ledgers of all nodes; exit 3 when one differs or does not answer.
    Verify,
}

impl ClusterCommand {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            ClusterCommand::Status => {
                let status = status(context).await?;
                context.output.show(&status, show)?;
                health(&status)
            }
            ClusterCommand::Members => context.output.show(&status(context).await?.nodes, |nodes| members(nodes)),
            ClusterCommand::Add { id, addr } => {
                let member = serde_json::json!({ "id": id, "addr": addr });
                changed(context, Call::post(&["cluster", "members"], &member)).await
            }
            ClusterCommand::Promote { id } => {
                let id = id.to_string();
                let nothing = serde_json::json!({});
                changed(context, Call::post(&["cluster", "members", &id, "promote"], &nothing)).await
            }
            ClusterCommand::Remove { id } => {
                let id = id.to_string();
                context.confirm(&format!("This takes node {id} out of the group"), &id)?;
                changed(context, Call::delete(&["cluster", "members", &id])).await
            }
            ClusterCommand::TransferLeader { id } => {
                let leader = id.map_or(serde_json::json!({}), |id| serde_json::json!({ "id": id }));
                changed(context, Call::post(&["cluster", "leader"], &leader)).await
            }
            ClusterCommand::Verify => verify(context).await,
        }
    }
}

async fn status(context: &Context) -> Result<ClusterStatus, Failure> {
    context.client.json(Call::get(&["cluster"])).await
}

async fn changed(context: &Context, call: Call<'_>) -> Result<(), Failure> {
    let status: ClusterStatus = context.client.json(call).await?;
    context.output.show(&status, show)
}

fn health(status: &ClusterStatus) -> Result<(), Failure> {
    if status.leader_id.is_none() {
        return Err(Failure::NoQuorum("no leader: a majority of the nodes must be up and reach each other".into()));
    }
    let down: Vec<_> = status.nodes.iter().filter(|node| !node.alive).map(|node| node.id.to_string()).collect();
    if down.is_empty() {
        return Ok(());
    }
    Err(Failure::Unhealthy(format!("does not answer: node {}; start it again", down.join(", node "))))
}

/// Digests can be compared where they were taken at the same index, so they are asked for until those of all nodes that
/// answer were.
async fn verify(context: &Context) -> Result<(), Failure> {
    let mut status = status(context).await?;
    for _ in 0..VERIFY_TRIES {
        let mut indexes = status.nodes.iter().filter_map(|node| node.digest_index);
        let first = indexes.next();
        if indexes.all(|index| Some(index) == first) {
            break;
        }
        tokio::time::sleep(VERIFY_AGAIN).await;
        status = self::status(context).await?;
    }
    context.output.show(&status, |status| digests(&status.nodes))?;
    health(&status)?;
    let first = status.nodes.first();
    let same_index = status.nodes.iter().all(|node| node.digest_index == first.and_then(|first| first.digest_index));
    if !same_index {
        return Err(Failure::Unhealthy(
            "the nodes were never seen at the same index: try again when it is quieter".into(),
        ));
    }
    let same = status.nodes.iter().all(|node| node.digest == first.and_then(|first| first.digest.clone()));
    if same {
        Ok(())
    } else {
        Err(Failure::Unhealthy(
            "the ledgers differ: stop the node that differs from the others, remove it, and add a new one".into(),
        ))
    }
}

fn show(status: &ClusterStatus) -> String {
    let leader = number(status.leader_id);
    let nodes = standing(&status.nodes, status.leader_id);
    format!(
        "leader {leader}, term {}, committed {}, applied {} (seen by node {})\n\n{nodes}",
        status.term, status.committed_index, status.applied_index, status.node_id
    )
}

fn standing(nodes: &[ClusterNode], leader: Option<u64>) -> String {
    table(
        &["NODE", "ADDRESS", "ROLE", "STATE", "APPLIED", "MATCHED", "VERSION"],
        nodes.iter().map(|node| {
            let role = if leader == Some(node.id) { "leader" } else { node.role.as_str() };
            let state = if node.alive { "up" } else { "down" };
            let (applied, matched) = (number(node.applied_index), number(node.matched_index));
            let version = node.version.clone().unwrap_or_else(|| "-".to_owned());
            [node.id.to_string(), node.addr.clone(), role.to_owned(), state.to_owned(), applied, matched, version]
        }),
    )
}

fn members(nodes: &[ClusterNode]) -> String {
    let rows = nodes.iter().map(|node| [node.id.to_string(), node.addr.clone(), node.role.clone()]);
    table(&["NODE", "ADDRESS", "ROLE"], rows)
}

fn digests(nodes: &[ClusterNode]) -> String {
    let rows = nodes.iter().map(|node| {
        [node.id.to_string(), number(node.digest_index), node.digest.clone().unwrap_or_else(|| "-".to_owned())]
    });
    table(&["NODE", "INDEX", "DIGEST"], rows)
}
