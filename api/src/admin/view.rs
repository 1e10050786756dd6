//! What the admin routes show of pools and the cluster, and the doors behind which the ledger and the group answer.

use futures_util::future::BoxFuture;
use ledger::model::PoolLimits;
use serde::{Deserialize, Serialize};

/// Why an admin request does not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The admin key is missing or wrong.
    #[error("admin key required")]
    Unauthorized,
    /// A field does not hold what it must.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing of that name.
    #[error("{0} not found")]
    NotFound(String),
    /// It would clash with what is there.
    #[error("{problem}")]
    Conflict {
        /// Which field.
        field: String,
        /// With what it clashes.
        problem: String,
    },
    /// The ledger or the store cannot answer now; nothing was changed.
    #[error("{0} is not available, try again")]
    Unavailable(String),
    /// It may or may not have happened.
    #[error("the outcome is unknown: {0}")]
    Indeterminate(String),
    /// A fault of ours.
    #[error("internal error")]
    Internal,
}

/// Pools, as the ledger has them. A pool's name is its label: a model or one wildcard pattern.
pub trait PoolAdmin: Send + Sync {
    /// Every pool.
    fn list(&self) -> BoxFuture<'_, Result<Vec<PoolView>, AdminError>>;
    /// Sets limits of a pool, making it when there is none.
    fn set(&self, pool: String, change: PoolChange) -> BoxFuture<'_, Result<PoolView, AdminError>>;
    /// Removes a pool's limits.
    fn remove(&self, pool: String) -> BoxFuture<'_, Result<(), AdminError>>;
}

/// What is to change of a pool: absent stays as it is, 0 means unlimited (for a burst: its default).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolChange {
    /// Tokens each second; not together with `tokens_per_min`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_sec: Option<u64>,
    /// Tokens each minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_min: Option<u64>,
    /// Requests each second; not together with `rpm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rps: Option<u64>,
    /// Requests each minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u64>,
    /// Requests in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u64>,
    /// Longest context, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    /// Tokens that the bucket saves up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_tokens: Option<u64>,
    /// Requests that the bucket saves up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_requests: Option<u64>,
}

/// A pool, its limits and its use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolView {
    /// Its label.
    pub model: String,
    /// Its limits; rates as they were set.
    pub limits: PoolChange,
    /// What is used now.
    pub usage: PoolUsage,
    /// Where the configuration file says otherwise: the file's values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_file: Option<PoolChange>,
}

/// What is used of a pool now; absent where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUsage {
    /// Tokens left in the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_level: Option<u64>,
    /// Requests left in the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_level: Option<u64>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests waiting.
    pub waiting: u64,
}

/// The group, as this node sees it.
pub trait ClusterView: Send + Sync {
    /// Its state now.
    fn status(&self) -> ClusterStatus;
}

/// State of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The node that answers.
    pub node_id: u64,
    /// The leader, when one is known.
    pub leader_id: Option<u64>,
    /// Term of the leader.
    pub term: u64,
    /// Highest committed index known here.
    pub committed_index: u64,
    /// Index up to which this node's ledger has come.
    pub applied_index: u64,
    /// All members.
    pub nodes: Vec<ClusterNode>,
}

/// A member of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNode {
    /// Its id.
    pub id: u64,
    /// Its peer address.
    pub addr: String,
    /// `voter` or `learner`.
    pub role: String,
    /// Whether it was heard of lately.
    pub alive: bool,
    /// How far its log is known to match the leader's; absent elsewhere than on the leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched_index: Option<u64>,
}

impl PoolView {
    /// A view of `limits` as the ledger has them, with a rate per minute where it is not whole per second.
    pub fn of(model: &str, _limits: &PoolLimits, context: Option<u64>) -> Self {
        Self { model: model.to_owned(), limits: PoolChange { context, ..Default::default() }, ..Default::default() }
    }
}
