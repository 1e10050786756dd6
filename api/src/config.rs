//! What the gateway is configured by: listeners, identity, scheduling, upstreams and pools.
//!
//! Plain values with defaults; `0` and `""` mean "none" throughout, so that every key has a value to show. Reading files
//! and the environment is not done here but in `node/src/config.rs`.

mod check;
mod pool;
mod secret;

pub use crate::prices::Price;
pub use ledger::model::NodeId;
pub use pool::{Dialect, MaxTokensField, Pool, PoolMode, Target, Tokenizer};
pub use raft::config::Problem;
pub use secret::{Secret, SecretError};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything this crate is configured by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The listener and what a client may send.
    pub http: Http,
    /// Keys, and who may use the gateway.
    pub identity: Identity,
    /// Queues and priorities.
    pub scheduling: Scheduling,
    /// How upstreams are called.
    pub upstream: Upstream,
    /// The journal of what was used.
    pub usage: Usage,
    /// The models that are served.
    pub provider: Provider,
    /// Other names of models: `alias = "model"`.
    pub aliases: BTreeMap<String, String>,
    /// The calendar of quotas.
    pub quotas: Quotas,
    /// What tokens cost, by model or pool.
    pub prices: BTreeMap<String, Price>,
}

/// `[quotas]`: the calendar of quotas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Days and months begin at midnight here; the same on every node.
    pub time_zone: String,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { time_zone: "UTC".into() }
    }
}

/// `[http]`: the listener and what a client may send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address of inference, admin, metrics and health. Port 0 takes any free one.
    pub listen: String,
    /// Open connections; more wait in the system's backlog.
    pub max_connections: usize,
    /// The largest request body; larger ones are 413.
    pub max_body_bytes: usize,
    /// The request line and all headers together; larger ones are 431.
    pub max_header_bytes: usize,
    /// Headers of one request; more are 431.
    pub max_headers: usize,
    /// How long a client may take to send its headers, counted from the end of its last request.
    pub header_read_timeout_ms: u64,
    /// How long a client may take to send its body.
    pub body_read_timeout_ms: u64,
    /// How long a client may leave bytes of its answer unread before it counts as gone.
    pub write_timeout_ms: u64,
    /// How long a stopping node lets running requests finish.
    pub drain_timeout_ms: u64,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8081".into(),
            max_connections: 20_000,
            max_body_bytes: 32 << 20,
            max_header_bytes: 32 << 10,
            max_headers: 100,
            header_read_timeout_ms: 30_000,
            body_read_timeout_ms: 60_000,
            write_timeout_ms: 60_000,
            drain_timeout_ms: 30_000,
        }
    }
}

/// `[identity]`: keys, and who may use the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// `sqlite:PATH` or `postgres://HOST/NAME`; empty means `identity.db` in the node's data directory.
    pub database_url: Secret,
    /// A cache between the nodes and the database; empty for none.
    pub redis_url: Secret,
    /// The key of the admin routes.
    pub admin_key: Secret,
    /// What happens to keys that cannot be looked up while the key stores are down.
    pub degraded_mode: KeyMode,
    /// How long a node and Redis believe what the database said of a key.
    pub cache_ttl_ms: u64,
    /// How often each node takes a snapshot of all keys in force.
    pub snapshot_refresh_ms: u64,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            database_url: Secret::default(),
            redis_url: Secret::default(),
            admin_key: Secret::default(),
            degraded_mode: KeyMode::FailClosed,
            cache_ttl_ms: 60_000,
            snapshot_refresh_ms: 300_000,
        }
    }
}

/// What happens to keys that cannot be looked up while the key stores are down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyMode {
    /// They are refused with 503.
    #[default]
    FailClosed,
    /// They are served within a strict allowance.
    FailOpen,
}

/// `[scheduling]`: queues and priorities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scheduling {
    /// Off: no limits and no queues; identity and usage stay.
    pub enabled: bool,
    /// Who goes first when requests wait.
    pub policy: Policy,
    /// Priorities are 0 to one less than this.
    pub priority_levels: u8,
    /// How long a request may wait in the queue, unless it says so itself.
    pub queue_timeout_ms: u64,
    /// The longest wait that a request may ask for.
    pub queue_timeout_ms_max: u64,
    /// A waiting request rises by one priority each such time, never into 0; 0 turns it off.
    pub aging_quantum_ms: u64,
    /// Requests that may wait, per model, priority and node.
    pub queue_depth: u32,
    /// What happens without contact to a majority of the nodes.
    pub degraded_mode: DegradedMode,
}

impl Default for Scheduling {
    fn default() -> Self {
        Self {
            enabled: true,
            policy: Policy::Strict,
            priority_levels: 10,
            queue_timeout_ms: 30_000,
            queue_timeout_ms_max: 300_000,
            aging_quantum_ms: 2_000,
            queue_depth: 1_000,
            degraded_mode: DegradedMode::FailClosed,
        }
    }
}

/// Who goes first when requests wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The more urgent priority, always.
    #[default]
    Strict,
    /// Each priority has a share: `priority_levels - priority` parts.
    WeightedFair,
    /// Priority 0 always first, the others by their shares.
    Hybrid,
}

/// What happens without contact to a majority of the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DegradedMode {
    /// Requests are refused with 503.
    #[default]
    FailClosed,
    /// Each node serves its own share of the limits, exactly.
    FairShare,
    /// Everything is served, unbounded, with an alarm.
    FailOpen,
}

/// `[upstream]`: how upstreams are called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// How long a connection may take to open.
    pub connect_timeout_ms: u64,
    /// How long an upstream may take until its first byte.
    pub first_byte_timeout_ms: u64,
    /// How long a stream may stay silent.
    pub idle_timeout_ms: u64,
    /// The largest answer that is not streamed.
    pub max_response_bytes: usize,
    /// The largest single event of a stream.
    pub max_event_bytes: usize,
    /// How long a permit stays taken after a call was broken off, unless the upstream confirms the close earlier.
    pub cancel_grace_ms: u64,
    /// Idle connections kept per host.
    pub pool_idle_connections: usize,
    /// How long an idle connection is kept.
    pub pool_idle_timeout_ms: u64,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 5_000,
            first_byte_timeout_ms: 300_000,
            idle_timeout_ms: 120_000,
            max_response_bytes: 64 << 20,
            max_event_bytes: 8 << 20,
            cancel_grace_ms: 1_000,
            pool_idle_connections: 1_024,
            pool_idle_timeout_ms: 60_000,
        }
    }
}

/// `[usage]`: the journal of what was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// The longest time between writing a record and syncing it to disk.
    pub sync_interval_ms: u64,
    /// How many days usage rows are kept in the database; 0: for ever.
    pub retention_days: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { sync_interval_ms: 25, retention_days: 0 }
    }
}

/// `[provider]`: where models come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provider {
    /// Models that this configuration lists.
    pub local: Local,
}

/// `[provider.local]`: `enabled`, and beside it one table per pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Local {
    /// Off: none of the pools is served.
    pub enabled: bool,
    /// The pools, by model name or by one wildcard pattern.
    #[serde(flatten)]
    pub pools: BTreeMap<String, Pool>,
}

impl Default for Local {
    fn default() -> Self {
        Self { enabled: true, pools: BTreeMap::new() }
    }
}

impl Config {
    /// The pools that are served, by label.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &Pool)> {
        let on = self.provider.local.enabled;
        self.provider.local.pools.iter().filter(move |_| on).map(|(label, pool)| (label.as_str(), pool))
    }

    /// Finds everything that is wrong.
    pub fn validate(&self) -> Vec<Problem> {
        check::config(self)
    }
}
