//! Who is in the group: taking up the cluster's id, changes of membership, and where a node stands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use proto::peer;
use proto::peer::change_request::Change;
use proto::peer::members_client::MembersClient;
use tonic::{Request, Response, Status};

use super::dial::Dial;
use super::server::Door;
use crate::identity;
use crate::machine::Machine;
use crate::types::{Node, NodeId, TypeConfig};

/// How long one step of a change may take.
const CHANGE_WITHIN: Duration = Duration::from_secs(20);

/// Asks a node to take up the cluster's id; gives the name of its disk.
pub(crate) async fn adopt(dial: &Dial, node: NodeId, addr: &str, cluster: [u8; 16]) -> Result<[u8; 16], Status> {
    let mut client = MembersClient::new(dial.now(node, addr).await?);
    let request = peer::AdoptRequest { cluster_id: cluster.to_vec(), node_id: node };
    let answer = client.adopt(dial.pass.sign(Request::new(request), node, None)).await?.into_inner();
    answer.store_uuid.try_into().map_err(|_| Status::internal("a store uuid has 16 bytes"))
}

/// Asks a member where it stands.
pub(crate) async fn status(dial: &Dial, node: NodeId, addr: &str) -> Result<peer::StatusResponse, Status> {
    let mut client = MembersClient::new(dial.now(node, addr).await?);
    Ok(client.status(dial.pass.sign(Request::new(peer::StatusRequest {}), node, None)).await?.into_inner())
}

impl<M: Machine> Door<M> {
    /// Where this node stands.
    pub(crate) fn status_here(&self) -> peer::StatusResponse {
        let (digest_at, digest) = self.applier.with_machine(Machine::digest);
        let metrics = self.raft.metrics().borrow_watched().clone();
        peer::StatusResponse {
            term: metrics.current_term,
            leader: metrics.current_leader,
            last: metrics.last_log_index,
            committed: metrics.local_committed.map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            digest: digest.to_le_bytes().to_vec(),
            digest_at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What became of a change of membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// It is in force, from this entry of the log on.
    Done(u64),
    /// Another node leads.
    NotLeader(Option<NodeId>),
    /// It cannot be done.
    Refused(String),
    /// It may or may not come into force.
    Unknown(String),
}

/// Asks the leader for a change of membership.
pub(crate) async fn change(dial: &Dial, leader: NodeId, addr: &str, change: Change) -> Changed {
    let channel = match dial.now(leader, addr).await {
        Ok(channel) => channel,
        Err(_) => return Changed::NotLeader(None),
    };
    let request = peer::ChangeRequest { change: Some(change) };
    let request = dial.pass.sign(Request::new(request), leader, None);
    match tokio::time::timeout(CHANGE_WITHIN, MembersClient::new(channel).change(request)).await {
        Ok(Ok(answer)) => Changed::Done(answer.into_inner().index),
        Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => Changed::NotLeader(None),
        Ok(Err(status)) if status.code() == tonic::Code::InvalidArgument => {
            Changed::Refused(status.message().to_owned())
        }
        Ok(Err(status)) => Changed::Unknown(status.message().to_owned()),
        Err(_) => Changed::Unknown("the leader did not answer in time".to_owned()),
    }
}

impl<M: Machine> Door<M> {
    /// Changes the membership, as the leader.
    pub(crate) async fn change_here(&self, change: Change) -> Changed {
        match tokio::time::timeout(CHANGE_WITHIN, self.try_change(change)).await {
            Ok(changed) => changed,
            Err(_) => Changed::Unknown("the change did not come into force in time".to_owned()),
        }
    }

    async fn try_change(&self, change: Change) -> Changed {
        let written = match change {
            Change::Learn(member) => return self.learn(member).await,
            Change::TransferTo(node) => return self.transfer_to(node).await,
            Change::Promote(node) => {
                self.raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([node])), false).await
            }
            Change::Demote(node) => {
                self.raft.change_membership(ChangeMembers::RemoveVoters(BTreeSet::from([node])), true).await
            }
            Change::Remove(node) => return self.remove(node).await,
        };
        changed(written)
    }

    async fn learn(&self, member: peer::Member) -> Changed {
        let Some(cluster) = self.pass.cluster().get() else { return Changed::Refused("no cluster yet".to_owned()) };
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.current_leader != Some(self.pass.node()) {
            return Changed::NotLeader(metrics.current_leader);
        }
        let store_uuid = match adopt(&self.dial, member.id, &member.addr, cluster).await {
            Ok(store_uuid) => store_uuid,
            Err(status) => return Changed::Refused(format!("{}: {}", member.addr, status.message())),
        };
        let known = metrics.membership_config.membership().get_node(&member.id).cloned();
        if known.is_some_and(|known| known.store_uuid != store_uuid) {
            return Changed::Refused(format!("node {} is a member with another disk: add a new id", member.id));
        }
        let node = Node { addr: member.addr, store_uuid };
        changed(self.raft.add_learner(member.id, node, false).await)
    }

    async fn remove(&self, node: NodeId) -> Changed {
        let membership = self.raft.metrics().borrow_watched().membership_config.membership().clone();
        if membership.get_node(&node).is_none() {
            return Changed::Refused(format!("node {node} is not a member"));
        }
        if membership.voter_ids().any(|voter| voter == node) {
            let voters = ChangeMembers::RemoveVoters(BTreeSet::from([node]));
            // What has no vote and is not kept is no member any more.
            return changed(self.raft.change_membership(voters, false).await);
        }
        changed(self.raft.change_membership(ChangeMembers::RemoveNodes(BTreeSet::from([node])), false).await)
    }

    async fn transfer_to(&self, node: NodeId) -> Changed {
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.current_leader != Some(self.pass.node()) {
            return Changed::NotLeader(metrics.current_leader);
        }
        if !metrics.membership_config.membership().voter_ids().any(|voter| voter == node) {
            return Changed::Refused(format!("node {node} is not a voter"));
        }
        if let Err(error) = self.raft.trigger().transfer_leader(node).await {
            return Changed::Unknown(error.to_string());
        }
        let taken = self.raft.wait(Some(CHANGE_WITHIN / 4)).current_leader(node, "the leadership is transferred").await;
        match taken {
            Ok(metrics) => Changed::Done(metrics.last_applied.map_or(0, |id| id.index)),
            Err(error) => Changed::Unknown(error.to_string()),
        }
    }
}

fn changed(
    written: Result<
        openraft::raft::ClientWriteResponse<TypeConfig>,
        RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
    >,
) -> Changed {
    match written {
        Ok(response) => Changed::Done(response.log_id.index),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => Changed::NotLeader(forward.leader_id),
        Err(RaftError::APIError(error)) => Changed::Refused(error.to_string()),
        Err(error) => Changed::Unknown(error.to_string()),
    }
}

#[tonic::async_trait]
impl<M: Machine> peer::members_server::Members for Door<M> {
    async fn adopt(&self, request: Request<peer::AdoptRequest>) -> Result<Response<peer::AdoptResponse>, Status> {
        let from = self.pass.check_stranger(&request)?;
        let request = request.into_inner();
        let cluster: [u8; 16] =
            request.cluster_id.try_into().map_err(|_| Status::invalid_argument("a cluster id has 16 bytes"))?;
        match self.pass.cluster().get() {
            Some(ours) if ours != cluster => {
                let ours = hex::encode(ours);
                let here = self.pass.node();
                let why = format!(
                    "node {here} belongs to cluster {ours} already; node {from} lost its data: remove it, add a new id"
                );
                return Err(self.pass.refuse(&why));
            }
            Some(_) => {}
            None => {
                let identity = identity::Identity {
                    cluster_id: cluster,
                    node_id: self.pass.node(),
                    store_uuid: self.pass.store(),
                };
                let path = self.data_dir.join(identity::FILE);
                identity.write(&path).map_err(|error| Status::internal(error.to_string()))?;
                self.pass.cluster().set(cluster);
            }
        }
        Ok(Response::new(peer::AdoptResponse { store_uuid: self.pass.store().to_vec() }))
    }

    async fn change(&self, request: Request<peer::ChangeRequest>) -> Result<Response<peer::ChangeResponse>, Status> {
        self.pass.check(&request)?;
        let change = request.into_inner().change.ok_or_else(|| Status::invalid_argument("no change"))?;
        match self.change_here(change).await {
            Changed::Done(index) => Ok(Response::new(peer::ChangeResponse { index })),
            Changed::NotLeader(_) => Err(Status::failed_precondition("this node does not lead the group")),
            Changed::Refused(why) => Err(Status::invalid_argument(why)),
            Changed::Unknown(why) => Err(Status::unknown(why)),
        }
    }

    async fn status(&self, request: Request<peer::StatusRequest>) -> Result<Response<peer::StatusResponse>, Status> {
        self.pass.check(&request)?;
        Ok(Response::new(self.status_here()))
    }
}

/// The first members, with the names of their disks, once every one of them has taken up the cluster's id.
pub(crate) async fn gather(
    dial: &Dial,
    members: &[(NodeId, String)],
    cluster: [u8; 16],
) -> Result<BTreeMap<NodeId, Node>, Status> {
    let mut nodes = BTreeMap::new();
    for (id, addr) in members {
        let store_uuid =
            if *id == dial.pass.node() { dial.pass.store() } else { adopt(dial, *id, addr, cluster).await? };
        nodes.insert(*id, Node { addr: addr.clone(), store_uuid });
    }
    Ok(nodes)
}
