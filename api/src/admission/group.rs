//! The group as the admin routes show and change it.

use super::Capacity;
use crate::admin::{AdminError, ClusterChange, ClusterNode, ClusterStatus, ClusterView};
use futures_util::future::BoxFuture;
use raft::group::{ChangeError, Member, Role, Standing};

impl ClusterView for Capacity {
    fn status(&self) -> BoxFuture<'_, ClusterStatus> {
        Box::pin(self.survey())
    }

    fn change(&self, change: ClusterChange) -> BoxFuture<'_, Result<ClusterStatus, AdminError>> {
        Box::pin(async move {
            let group = self.leader.group();
            let changed = match change {
                ClusterChange::Add { id, addr } => group.add(id, addr).await,
                ClusterChange::Promote(id) => group.promote(id).await,
                ClusterChange::Remove(id) => group.remove(id).await,
                ClusterChange::Transfer(Some(id)) => group.transfer_leader(id).await,
                ClusterChange::Transfer(None) => group.transfer_leader(self.other_voter().await?).await,
            };
            changed.map_err(refusal)?;
            Ok(self.survey().await)
        })
    }
}

impl Capacity {
    async fn survey(&self) -> ClusterStatus {
        let group = self.leader.group();
        let (metrics, members) = (group.metrics(), group.survey().await);
        ClusterStatus {
            node_id: self.node.0,
            leader_id: metrics.leader,
            term: metrics.term,
            committed_index: metrics.committed.unwrap_or(0),
            applied_index: metrics.applied.unwrap_or(0),
            nodes: members.into_iter().map(|(member, standing)| shown(member, standing)).collect(),
        }
    }

    /// The voter that is furthest, apart from the present leader.
    async fn other_voter(&self) -> Result<u64, AdminError> {
        let leader = self.leader.group().metrics().leader;
        let others = self.leader.group().survey().await.into_iter();
        let others = others.filter(|(member, _)| member.role == Role::Voter && Some(member.id) != leader);
        let best = others.filter_map(|(member, standing)| Some((standing?.applied, member.id))).max();
        best.map(|(_, id)| id).ok_or_else(|| AdminError::Unavailable("another voter".to_owned()))
    }
}

fn shown(member: Member, standing: Option<Standing>) -> ClusterNode {
    let role = match member.role {
        Role::Voter => "voter",
        Role::Learner => "learner",
    };
    ClusterNode {
        id: member.id,
        addr: member.addr,
        role: role.to_owned(),
        alive: standing.is_some(),
        matched_index: member.matched,
        applied_index: standing.as_ref().and_then(|standing| standing.applied),
        digest: standing.as_ref().map(|standing| hex::encode(standing.digest.1)),
        digest_index: standing.as_ref().map(|standing| standing.digest.0),
        version: standing.map(|standing| standing.version),
    }
}

fn refusal(error: ChangeError) -> AdminError {
    match error {
        ChangeError::NoLeader => AdminError::Unavailable("the leader of the group".to_owned()),
        ChangeError::Refused(problem) => AdminError::Conflict { field: "member".to_owned(), problem },
        ChangeError::Indeterminate(_) => AdminError::Indeterminate("look at `gateway cluster status`".to_owned()),
    }
}
