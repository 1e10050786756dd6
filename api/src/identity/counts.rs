//! What lookups came to, layer by layer.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often a layer was asked and what it said, since the start; for `tokligence_token_lookup_total`.
#[derive(Debug, Default)]
pub struct LookupCounts {
    /// Found in memory.
    pub lru_hit: AtomicU64,
    /// Not known in memory, or not fresh there.
    pub lru_miss: AtomicU64,
    /// Found in Redis.
    pub redis_hit: AtomicU64,
    /// Not in Redis.
    pub redis_miss: AtomicU64,
    /// Redis was asked and did not answer.
    pub redis_error: AtomicU64,
    /// Found in the database, in force.
    pub sql_hit: AtomicU64,
    /// Not in the database, or no longer in force.
    pub sql_miss: AtomicU64,
    /// The database was asked and did not answer.
    pub sql_error: AtomicU64,
    /// Found in the snapshot, while the stores are down.
    pub snapshot_hit: AtomicU64,
    /// Not in the snapshot either.
    pub snapshot_miss: AtomicU64,
    /// Served within the strict allowance of `fail_open`.
    pub mode_open: AtomicU64,
    /// Refused by `fail_closed`.
    pub mode_closed: AtomicU64,
    /// Snapshots taken.
    pub snapshot_refreshes: AtomicU64,
}

impl LookupCounts {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Every count with its layer and its result.
    pub fn all(&self) -> [(&'static str, &'static str, u64); 12] {
        [
            ("lru", "hit", &self.lru_hit),
            ("lru", "miss", &self.lru_miss),
            ("redis", "hit", &self.redis_hit),
            ("redis", "miss", &self.redis_miss),
            ("redis", "error", &self.redis_error),
            ("sql", "hit", &self.sql_hit),
            ("sql", "miss", &self.sql_miss),
            ("sql", "error", &self.sql_error),
            ("snapshot", "hit", &self.snapshot_hit),
            ("snapshot", "miss", &self.snapshot_miss),
            ("mode", "fail_open", &self.mode_open),
            ("mode", "fail_closed", &self.mode_closed),
        ]
        .map(|(layer, result, count)| (layer, result, count.load(Ordering::Relaxed)))
    }
}
