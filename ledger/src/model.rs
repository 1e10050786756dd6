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
    /// Tokens and money in a day and in a month.
    pub quotas: Quotas,
}

impl TenantLimits {
    /// Whether nothing is limited at all.
    pub fn is_unlimited(&self) -> bool {
        self.requests.is_none()
            && self.tokens.is_none()
            && self.concurrent.is_none()
            && self.quotas == Quotas::default()
    }
}

/// A quota: what it counts, and over which window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum QuotaKind {
    /// Tokens in a day.
    DayTokens,
    /// Tokens in a month.
    MonthTokens,
    /// Money in a day, in nano-USD.
    DayCost,
    /// Money in a month, in nano-USD.
    MonthCost,
}

impl QuotaKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::DayTokens, Self::MonthTokens, Self::DayCost, Self::MonthCost];

    /// Whether its window is the month.
    pub fn is_monthly(self) -> bool {
        matches!(self, Self::MonthTokens | Self::MonthCost)
    }

    /// Whether it counts money.
    pub fn is_money(self) -> bool {
        matches!(self, Self::DayCost | Self::MonthCost)
    }

    /// What it counts of a request.
    pub fn of(self, spend: Spend) -> u64 {
        if self.is_money() { spend.cost_nano_usd } else { spend.tokens }
    }

    /// The limit that a refusal names.
    pub fn dimension(self) -> Dimension {
        match self {
            Self::DayTokens => Dimension::TokensPerDay,
            Self::MonthTokens => Dimension::TokensPerMonth,
            Self::DayCost => Dimension::CostPerDay,
            Self::MonthCost => Dimension::CostPerMonth,
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// How much a quota allows in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaLimit {
    /// The allowance, in tokens or nano-USD.
    pub most: u64,
    /// It only warns: requests beyond it pass.
    pub soft: bool,
}

impl QuotaLimit {
    /// A quota that refuses what is beyond it.
    pub fn hard(most: u64) -> Self {
        Self { most, soft: false }
    }
}

/// A tenant's quotas, at most one of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quotas([Option<QuotaLimit>; 4]);

impl Quotas {
    /// The quota of a kind.
    pub fn get(&self, kind: QuotaKind) -> Option<QuotaLimit> {
        self.0[kind.index()]
    }

    /// These quotas with another of one kind.
    #[must_use]
    pub fn with(mut self, kind: QuotaKind, limit: Option<QuotaLimit>) -> Self {
        self.0[kind.index()] = limit;
        self
    }

    /// The quotas that there are.
    pub fn iter(&self) -> impl Iterator<Item = (QuotaKind, QuotaLimit)> + '_ {
        QuotaKind::ALL.into_iter().filter_map(|kind| Some((kind, self.get(kind)?)))
    }
}

/// What a request takes of quotas, reserved or used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// Tokens.
    pub tokens: u64,
    /// Money, by the prices of the node that served it.
    pub cost_nano_usd: u64,
}

impl Spend {
    /// Tokens that cost nothing.
    pub fn tokens(tokens: u64) -> Self {
        Self { tokens, cost_nano_usd: 0 }
    }
}

/// The windows that quotas count for. Which ones these are is computed from wall clocks and a time zone, elsewhere: the
/// ledger knows numbers only. 0 is not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// Days since 1970-01-01.
    pub day: u64,
    /// Months since January 1970.
    pub month: u64,
}

impl Windows {
    /// The window that a quota counts in.
    pub fn of(&self, kind: QuotaKind) -> u64 {
        if kind.is_monthly() { self.month } else { self.day }
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
    /// Tokens in a month.
    TokensPerMonth,
    /// Money in a day.
    CostPerDay,
    /// Money in a month.
    CostPerMonth,
}
