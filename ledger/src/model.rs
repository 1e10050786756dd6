//! The words of the ledger: ids, amounts and limits. No behaviour lives here.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A node of the group; never used again once removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct NodeId(pub u64);

/// One life of a node's process: the log index of its `NodeUp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Incarnation(pub u64);

/// Fencing number of a node's lease, raised whenever the ledger expires it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Epoch(pub u64);

/// A pool: upstream capacity behind a model. Given out by the ledger when the pool is first set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct PoolId(pub u32);

/// How urgent a request is; 0 is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Priority(pub u8);

/// What kind of tenant a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ScopeKind {
    /// An API key.
    Key,
    /// A user, over all of their keys.
    User,
    /// A team, over all of its users and keys.
    Team,
}

/// A tenant: a key, a user or a team.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// What kind of tenant it is.
    pub kind: ScopeKind,
    /// The tenant's id in the identity store.
    pub id: [u8; 16],
}

/// What can be revoked: one API key, or all that a tenant has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Credential {
    /// The SHA-256 of an API key.
    Hash([u8; 32]),
    /// Every API key of a tenant.
    Scope(Scope),
}

/// A rate as an exact fraction.
///
/// Units: `units` per `per_us` microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many units.
    pub units: u64,
    /// In how many microseconds.
    pub per_us: u64,
}

impl Rate {
    /// So many units each second.
    pub fn per_sec(units: u64) -> Self {
        Self { units, per_us: 1_000_000 }
    }

    /// So many units each minute.
    pub fn per_min(units: u64) -> Self {
        Self { units, per_us: 60_000_000 }
    }
}

/// The limit of a bucket: a rate and the burst it may save up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketLimit {
    /// How fast it fills.
    pub rate: Rate,
    /// How much it holds, in units.
    pub burst: u64,
}

/// The limits of a pool; what is absent is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolLimits {
    /// Tokens over time.
    pub tokens: Option<BucketLimit>,
    /// Requests over time.
    pub requests: Option<BucketLimit>,
    /// Requests in flight.
    pub concurrent: Option<u64>,
}

/// The limits of a tenant, as the identity store has them; what is absent is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantLimits {
    /// Whose limits they are.
    pub scope: Scope,
    /// Raised with every change, so that an older copy never replaces a newer one.
    pub version: u64,
    /// Requests over time.
    pub requests: Option<BucketLimit>,
    /// Tokens over time.
    pub tokens: Option<BucketLimit>,
    /// Requests in flight.
    pub concurrent: Option<u64>,
    /// Tokens in a day.
    pub tokens_per_day: Option<u64>,
}

impl TenantLimits {
    /// Whether nothing is limited at all.
    pub fn is_unlimited(&self) -> bool {
        self.requests.is_none() && self.tokens.is_none() && self.concurrent.is_none() && self.tokens_per_day.is_none()
    }
}

/// The limits that bind one caller: its key's, its user's, its team's.
pub type Tenants = Arc<[TenantLimits]>;

/// Which limit refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dimension {
    /// Requests over time.
    Requests,
    /// Tokens over time.
    Tokens,
    /// Requests in flight.
    Concurrent,
    /// Tokens in a day.
    TokensPerDay,
}
