//! The types openraft is instantiated with, and short names for them.
//!
//! None of them is what stands on disk or on the wire: those forms are our own (`store/record.rs`, `snapshot.rs`), so
//! that a bump of openraft cannot change them behind our back.

use std::fmt;

use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};

use crate::machine::Applied;

/// Numbers a node within its group; never used again once the node was removed.
pub type NodeId = u64;

/// One entry's payload, already encoded by whoever proposed it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload(pub(crate) Vec<u8>);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "payload of {} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry gave: nothing for the entries that openraft writes for itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The machine's result. It only travels inside this process, hence not serialized.
    #[serde(skip)]
    pub(crate) applied: Option<Applied>,
}

/// Where a member is reached, and which disk it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Host and port of its peer listener; empty in a group of one.
    pub addr: String,
    /// Names the member's store, so that a node that lost its disk is not taken for the one that had it.
    pub store_uuid: [u8; 16],
}

/// Binds openraft to the types above.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Payload;
    type R = Reply;
    type NodeId = NodeId;
    type Node = Node;
    type Term = u64;
    // One leader per term at most: an entry names its proposer by the term alone.
    type LeaderId = LeaderId<u64, NodeId>;
    type Vote = openraft::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Payload, NodeId, Node>;
    type Entry = Entry;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = openraft::impls::ProgressResponder<Self, T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// A term, as it stands in the id of a committed entry.
pub(crate) type CommittedLeaderId = <LeaderId<u64, NodeId> as RaftLeaderId>::Committed;
/// The id of an entry: term and index.
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
/// A log entry in memory.
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, openraft::EntryPayload<Payload, NodeId, Node>>;
/// A vote in memory.
pub(crate) type Vote = openraft::Vote<LeaderId<u64, NodeId>>;
/// The members of the group.
pub(crate) type Membership = openraft::Membership<NodeId, Node>;
/// The members of the group, with the entry that made them so.
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, Node>;
/// What a snapshot covers.
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, NodeId, Node>;
/// A snapshot in memory.
pub(crate) type Snapshot = openraft::Snapshot<CommittedLeaderId, NodeId, Node, Vec<u8>>;

/// Builds the id of an entry.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: term.into(), index }
}
