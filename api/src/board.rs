//! What the ledger's side shows to the HTTP side: rates for headers, capacity for metrics and the list of models,
//! readiness. Never asked for a decision; that is admission's.

use ledger::model::{PoolLimits, Tenants};
use std::time::Duration;

/// Shows the state of limits. All methods answer from memory, at once.
pub trait Board: Send + Sync {
    /// The rates that bind a caller at a pool, the tightest of each kind.
    fn rates(&self, _pool: &str, _tenants: &Tenants) -> Rates {
        Rates::default()
    }

    /// The pools and what is used of them.
    fn pools(&self) -> Vec<PoolGauge> {
        Vec::new()
    }

    /// Requests that wait, by priority, over all pools of this node.
    fn waiting(&self) -> Vec<u64> {
        Vec::new()
    }

    /// Grants that only aging made possible, so far.
    fn starvation_prevented(&self) -> u64 {
        0
    }

    /// The longest that a request waited, known to the leader, up to a grant to a less urgent one of its pool; zero where this
    /// node never led.
    fn inversion_max(&self) -> Duration {
        Duration::ZERO
    }

    /// How old the node's lease is: the time since the last message to the leader that renewed it was sent. An idle node
    /// lets its lease lapse.
    fn lease_age(&self) -> Option<Duration> {
        None
    }

    /// Whether requests can be admitted, and how well.
    fn health(&self) -> Health {
        Health::Ready
    }
}

/// A board that knows of no limits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blank;

impl Board for Blank {}

/// The rates that bind a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Requests over time.
    pub requests: Option<RateGauge>,
    /// Tokens over time.
    pub tokens: Option<RateGauge>,
}

/// One rate and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateGauge {
    /// The most that can be had at once.
    pub limit: u64,
    /// What can be had now.
    pub remaining: u64,
    /// When all of it can be had again.
    pub reset: Duration,
}

/// A pool, its limits and its use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolGauge {
    /// Its label.
    pub pool: String,
    /// Its limits, as the ledger has them.
    pub limits: PoolLimits,
    /// Tokens of the burst that are taken.
    pub tokens_used: u64,
    /// Requests of the burst that are taken.
    pub requests_used: u64,
    /// Requests in flight.
    pub in_flight: u64,
}

/// Whether requests can be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Yes.
    Ready,
    /// Yes, in the degraded mode of this name.
    Degraded(&'static str),
    /// No, for this reason.
    NotReady(&'static str),
}
