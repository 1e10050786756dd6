//! Who is in the group, and changes of that.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use proto::peer::change_request::Change;

use super::Group;
use crate::machine::Machine;
use crate::network::{self, Changed};
use crate::types::NodeId;

/// How long a change follows a leadership that moves.
const TRIES: usize = 20;

/// How soon a change is tried again while nobody leads.
const AGAIN: Duration = Duration::from_millis(200);

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It votes.
    Voter,
    /// It hears everything and has no vote.
    Learner,
}

/// One member, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Where it is reached.
    pub addr: String,
    /// What it may do.
    pub role: Role,
    /// The last entry that it has, as the leader knows; none elsewhere.
    pub matched: Option<u64>,
}

/// Where a member stands, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The newest term it knows.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The index of the last entry it applied.
    pub applied: Option<u64>,
    /// The digest of its state, and the index at which it was taken.
    pub digest: (u64, [u8; 16]),
    /// The version of its build.
    pub version: String,
}

/// How long a member may take to say where it stands.
const SURVEY_WITHIN: Duration = Duration::from_millis(700);

/// Why a change of membership did not come into force; named by what the caller does next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nobody leads.
    #[error("the group has no leader")]
    NoLeader,
    /// It cannot be done.
    #[error("{0}")]
    Refused(String),
    /// It may or may not come into force.
    #[error("the outcome is unknown: {0}")]
    Indeterminate(String),
}

impl<M: Machine> Group<M> {
    /// The members, by id.
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let members = metrics.membership_config.membership();
        let voters: std::collections::BTreeSet<NodeId> = members.voter_ids().collect();
        let nodes = members.nodes().map(|(&id, node)| Member {
            id,
            addr: node.addr.clone(),
            role: if voters.contains(&id) { Role::Voter } else { Role::Learner },
            matched: metrics.replication.as_ref().and_then(|all| all.get(&id)?.as_ref().map(|id| id.index)),
        });
        nodes.collect()
    }

    /// Asks every member where it stands; none for those that do not answer.
    pub async fn survey(&self) -> Vec<(Member, Option<Standing>)> {
        let asked = self.members().into_iter().map(|member| async move {
            let answer = if member.id == self.identity().node_id {
                Some(self.inner.door.status_here())
            } else {
                let asked = network::status(self.dial(), member.id, &member.addr);
                tokio::time::timeout(SURVEY_WITHIN, asked).await.ok().and_then(Result::ok)
            };
            let standing = answer.and_then(|answer| {
                let digest = (answer.digest_at, answer.digest.try_into().ok()?);
                let applied = answer.applied;
                Some(Standing { term: answer.term, leader: answer.leader, applied, digest, version: answer.version })
            });
            (member, standing)
        });
        futures_util::future::join_all(asked).await
    }

    /// Where a member is reached.
    pub(crate) fn address_of(&self, node: NodeId) -> Option<String> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        Some(metrics.membership_config.membership().get_node(&node)?.addr.clone())
    }

    /// Takes a node in that hears everything and has no vote.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn add(&self, node: NodeId, addr: String) -> Result<u64, ChangeError> {
        self.change(Change::Learn(proto::peer::Member { id: node, addr, store_uuid: Vec::new() })).await
    }

    /// Gives a learner a vote.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn promote(&self, node: NodeId) -> Result<u64, ChangeError> {
        self.change(Change::Promote(node)).await
    }

    /// Takes a member out.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn remove(&self, node: NodeId) -> Result<u64, ChangeError> {
        self.change(Change::Remove(node)).await
    }

    /// Has another voter lead.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn transfer_leader(&self, node: NodeId) -> Result<u64, ChangeError> {
        self.change(Change::TransferTo(node)).await
    }

    /// Carries the change to whoever leads.
    async fn change(&self, change: Change) -> Result<u64, ChangeError> {
        for _ in 0..TRIES {
            let leadership = *self.leadership().borrow();
            let changed = match leadership.leader {
                _ if leadership.is_leader => self.inner.door.change_here(change.clone()).await,
                Some(leader) => match self.address_of(leader) {
                    Some(addr) => network::change(self.dial(), leader, &addr, change.clone()).await,
                    None => Changed::NotLeader(None),
                },
                None => Changed::NotLeader(None),
            };
            match changed {
                Changed::Done(index) => return Ok(index),
                Changed::Refused(why) => return Err(ChangeError::Refused(why)),
                Changed::Unknown(why) => return Err(ChangeError::Indeterminate(why)),
                Changed::NotLeader(_) => tokio::time::sleep(AGAIN).await,
            }
        }
        Err(ChangeError::NoLeader)
    }
}
