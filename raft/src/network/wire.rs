//! Consensus' messages, to protobuf and back.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use proto::peer;
use tonic::Status;

use crate::types::{Entry, LogId, Membership, Node, Payload, SnapshotMeta, StoredMembership, TypeConfig, Vote, log_id};

fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is missing"))
}

pub(super) fn vote_to(vote: &Vote) -> peer::RaftVote {
    peer::RaftVote { term: vote.leader_id.term(), node: *vote.leader_id.node_id(), committed: vote.committed }
}

pub(super) fn vote_from(vote: Option<peer::RaftVote>) -> Result<Vote, Status> {
    let stored = vote.ok_or_else(|| missing("the vote"))?;
    let mut vote = Vote::new(stored.term, stored.node);
    vote.committed = stored.committed;
    Ok(vote)
}

pub(super) fn id_to(id: &LogId) -> peer::LogId {
    peer::LogId { term: id.leader_id.term, index: id.index }
}

pub(super) fn id_from(id: peer::LogId) -> LogId {
    log_id(id.term, id.index)
}

fn membership_to(members: &Membership) -> peer::Membership {
    let configs = members.get_joint_config().iter();
    let nodes = members.nodes().map(|(&id, node)| peer::Member {
        id,
        addr: node.addr.clone(),
        store_uuid: node.store_uuid.to_vec(),
    });
    peer::Membership {
        configs: configs.map(|voters| peer::Config { voters: voters.iter().copied().collect() }).collect(),
        nodes: nodes.collect(),
    }
}

pub(super) fn member_from(member: peer::Member) -> Result<(u64, Node), Status> {
    let store_uuid = member.store_uuid.try_into().map_err(|_| missing("a member's store uuid"))?;
    Ok((member.id, Node { addr: member.addr, store_uuid }))
}

fn membership_from(members: peer::Membership) -> Result<Membership, Status> {
    let configs = members.configs.into_iter().map(|config| config.voters.into_iter().collect::<BTreeSet<_>>());
    let nodes = members.nodes.into_iter().map(member_from).collect::<Result<BTreeMap<_, _>, _>>()?;
    Membership::new(configs.collect(), nodes).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn entry_to(entry: &Entry) -> peer::RaftEntry {
    let payload = match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(Payload(bytes)) => Some(peer::raft_entry::Payload::Normal(bytes.clone())),
        EntryPayload::Membership(members) => Some(peer::raft_entry::Payload::Membership(membership_to(members))),
    };
    peer::RaftEntry { id: Some(id_to(&entry.log_id)), payload }
}

fn entry_from(entry: peer::RaftEntry) -> Result<Entry, Status> {
    let payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(peer::raft_entry::Payload::Normal(bytes)) => EntryPayload::Normal(Payload(bytes)),
        Some(peer::raft_entry::Payload::Membership(members)) => EntryPayload::Membership(membership_from(members)?),
    };
    Ok(Entry { log_id: id_from(entry.id.ok_or_else(|| missing("an entry's id"))?), payload })
}

pub(super) fn append_to(request: &AppendEntriesRequest<TypeConfig>) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: Some(vote_to(&request.vote)),
        prev: request.prev_log_id.as_ref().map(id_to),
        entries: request.entries.iter().map(entry_to).collect(),
        commit: request.leader_commit.as_ref().map(id_to),
    }
}

pub(super) fn append_from(request: peer::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    Ok(AppendEntriesRequest {
        vote: vote_from(request.vote)?,
        prev_log_id: request.prev.map(id_from),
        entries: request.entries.into_iter().map(entry_from).collect::<Result<_, _>>()?,
        leader_commit: request.commit.map(id_from),
    })
}

pub(super) fn appended_to(result: &StreamAppendResult<TypeConfig>) -> peer::AppendResponse {
    use peer::append_response::Result as Wire;
    let result = match result {
        Ok(last) => Wire::Stored(peer::Stored { last: last.as_ref().map(id_to) }),
        Err(StreamAppendError::Conflict(id)) => Wire::Conflict(id_to(id)),
        Err(StreamAppendError::HigherVote(vote)) => Wire::Higher(vote_to(vote)),
    };
    peer::AppendResponse { result: Some(result) }
}

pub(super) fn appended_from(response: peer::AppendResponse) -> Result<StreamAppendResult<TypeConfig>, Status> {
    use peer::append_response::Result as Wire;
    Ok(match response.result.ok_or_else(|| missing("what became of the entries"))? {
        Wire::Stored(stored) => Ok(stored.last.map(id_from)),
        Wire::Conflict(id) => Err(StreamAppendError::Conflict(id_from(id))),
        Wire::Higher(vote) => Err(StreamAppendError::HigherVote(vote_from(Some(vote))?)),
    })
}

/// A heartbeat's answer: it carries no entries, so "stored" is all that can go well.
pub(super) fn beaten_from(response: peer::AppendResponse) -> Result<AppendEntriesResponse<TypeConfig>, Status> {
    Ok(match appended_from(response)? {
        Ok(_) => AppendEntriesResponse::Success,
        Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
        Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
    })
}

pub(super) fn ask_vote_to(request: &VoteRequest<TypeConfig>) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: Some(vote_to(&request.vote)),
        last: request.last_log_id.as_ref().map(id_to),
        transfer: request.leadership_transfer,
    }
}

pub(super) fn ask_vote_from(request: peer::VoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
    let mut asked = VoteRequest::new(vote_from(request.vote)?, request.last.map(id_from));
    asked.leadership_transfer = request.transfer;
    Ok(asked)
}

pub(super) fn voted_to(response: &VoteResponse<TypeConfig>) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(vote_to(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(id_to),
    }
}

pub(super) fn voted_from(response: peer::VoteResponse) -> Result<VoteResponse<TypeConfig>, Status> {
    Ok(VoteResponse::new(vote_from(response.vote)?, response.last.map(id_from), response.granted))
}

pub(super) fn head_to(vote: &Vote, meta: &SnapshotMeta, bytes: usize) -> peer::SnapshotHead {
    peer::SnapshotHead {
        vote: Some(vote_to(vote)),
        last: meta.last_log_id.as_ref().map(id_to),
        membership_at: meta.last_membership.log_id().as_ref().map(id_to),
        membership: Some(membership_to(meta.last_membership.membership())),
        bytes: bytes as u64,
    }
}

pub(super) fn head_from(head: peer::SnapshotHead) -> Result<(Vote, SnapshotMeta), Status> {
    let members = membership_from(head.membership.ok_or_else(|| missing("the membership"))?)?;
    let meta = SnapshotMeta {
        last_log_id: head.last.map(id_from),
        last_membership: StoredMembership::new(head.membership_at.map(id_from), members),
    };
    Ok((vote_from(head.vote)?, meta))
}

pub(super) fn transfer_to(request: &TransferLeaderRequest<TypeConfig>) -> peer::TransferRequest {
    peer::TransferRequest {
        from: Some(vote_to(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(id_to),
    }
}

pub(super) fn transfer_from(request: peer::TransferRequest) -> Result<TransferLeaderRequest<TypeConfig>, Status> {
    Ok(TransferLeaderRequest::new(vote_from(request.from)?, request.to, request.last.map(id_from)))
}

pub(super) fn transferred_to(response: &TransferLeaderResponse<TypeConfig>) -> peer::TransferResponse {
    match response {
        Ok(()) => peer::TransferResponse::default(),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => peer::TransferResponse {
            vote_expected: Some(vote_to(expected)),
            vote_actual: Some(vote_to(actual)),
            log: None,
        },
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            let (expected, actual) = (expected.as_ref().map(id_to), actual.as_ref().map(id_to));
            peer::TransferResponse { log: Some(peer::LogPosition { expected, actual }), ..Default::default() }
        }
    }
}

pub(super) fn transferred_from(response: peer::TransferResponse) -> Result<TransferLeaderResponse<TypeConfig>, Status> {
    if let Some(log) = response.log {
        let (expected, actual) = (log.expected.map(id_from), log.actual.map(id_from));
        return Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual }));
    }
    if response.vote_expected.is_none() {
        return Ok(Ok(()));
    }
    let (expected, actual) = (vote_from(response.vote_expected)?, vote_from(response.vote_actual)?);
    Ok(Err(TransferLeaderError::VoteChanged { expected, actual }))
}
