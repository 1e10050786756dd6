//! `gateway cluster`: the group of nodes.

use super::Context;
use super::client::Call;
use super::failure::Failure;
use super::output::{number, table};
use api::admin::ClusterStatus;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show the nodes and their leader; exit 5 without a leader, 3 when a node is down.
    Status,
}

impl ClusterCommand {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let ClusterCommand::Status = self;
        let status: ClusterStatus = context.client.json(Call::get(&["cluster"])).await?;
        context.output.show(&status, show)?;
        if status.leader_id.is_none() {
            return Err(Failure::NoQuorum("no leader: a majority of the nodes must be up and reach each other".into()));
        }
        let down: Vec<_> = status.nodes.iter().filter(|node| !node.alive).map(|node| node.id.to_string()).collect();
        if down.is_empty() {
            return Ok(());
        }
        Err(Failure::Unhealthy(format!("not heard of lately: node {}; start it again", down.join(", node "))))
    }
}

fn show(status: &ClusterStatus) -> String {
    let leader = number(status.leader_id);
    let nodes = table(
        &["NODE", "ADDRESS", "ROLE", "STATE", "MATCHED"],
        status.nodes.iter().map(|node| {
            let role = if status.leader_id == Some(node.id) { "leader" } else { node.role.as_str() };
            let state = if node.alive { "up" } else { "down" };
            [node.id.to_string(), node.addr.clone(), role.to_owned(), state.to_owned(), number(node.matched_index)]
        }),
    );
    format!(
        "leader {leader}, term {}, committed {}, applied {} (seen by node {})\n\n{nodes}",
        status.term, status.committed_index, status.applied_index, status.node_id
    )
}
