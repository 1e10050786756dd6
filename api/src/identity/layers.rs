//! The layers behind memory, in the order of asking: Redis, the database, what memory still knows, the snapshot.
//!
//! Above all of them stands the ledger: what it has revoked is refused, and limits that it knows in a newer version bind.

use super::breaker::{Breaker, Down};
use super::cache::{Cache, Since};
use super::record::Record;
use super::redis::Redis;
use super::secret::KeyHash;
use super::snapshot::Snapshot;
use super::store::Store;
use super::{Caller, Lookup, LookupCounts, LookupError};
use ledger::model::{Scope, ScopeKind, TenantLimits};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

/// Found while the stores are down; the mark that such replies carry.
pub(super) const FROM_SNAPSHOT: &str = "identity_snapshot";

/// What the ledger says of keys; answered from memory, at once.
pub trait Verdicts: Send + Sync {
    /// Whether the key of this hash, or all keys of one of these tenants, must be refused.
    fn is_revoked(&self, hash: &[u8; 32], scopes: &[Scope]) -> bool;

    /// The limits of a tenant, where the ledger has some of a version above this one.
    fn newer_limits(&self, scope: Scope, version: u64) -> Option<TenantLimits>;
}

/// The stores of one node.
pub(super) struct Layers {
    pub(super) redis: Option<(Redis, Breaker)>,
    pub(super) durable: Store,
    pub(super) sql: Breaker,
    pub(super) snapshot: RwLock<Arc<Snapshot>>,
    pub(super) snapshot_path: Option<PathBuf>,
    pub(super) verdicts: OnceLock<Arc<dyn Verdicts>>,
    pub(super) counts: LookupCounts,
    /// How long an answer of a store is believed.
    pub(super) believed: Duration,
}

/// An answer, and whether Redis should be told of it.
pub(super) struct Answer {
    pub(super) lookup: Lookup,
    pub(super) promote: Option<Record>,
}

impl Layers {
    /// Whether no store can be asked now.
    pub(super) fn are_down(&self) -> bool {
        self.sql.is_open() && self.redis.as_ref().is_none_or(|(_, breaker)| breaker.is_open())
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks one layer after the other.
    pub(super) async fn ask(&self, hash: &KeyHash, cache: &Cache, since: Since) -> Answer {
        let only = |lookup| Answer { lookup, promote: None };
        if self.is_revoked(hash, &[]) {
            return only(Err(LookupError::Revoked));
        }
        if let Some(record) = self.ask_redis(hash).await {
            return only(self.judged(hash, &record, None));
        }
        match self.ask_sql(hash).await {
            Ok(None) => return only(Err(LookupError::Unknown)),
            Ok(Some((_, true))) => return only(Err(LookupError::Revoked)),
            Ok(Some((record, false))) => {
                return Answer { lookup: self.judged(hash, &record, None), promote: Some(record) };
            }
            Err(Down { .. }) => {}
        }
        if let Some(caller) = cache.stale(hash, since) {
            return only(self.in_ledger(hash, caller));
        }
        let found = self.snapshot().find(hash);
        let count = if found.is_some() { &self.counts.snapshot_hit } else { &self.counts.snapshot_miss };
        LookupCounts::add(count);
        match found {
            Some(record) => {
                tracing::warn!(key = record.prefix, "served from the snapshot: the key stores are down");
                only(self.judged(hash, &record, Some(FROM_SNAPSHOT)))
            }
            None => only(Err(LookupError::StoresDown)),
        }
    }

    async fn ask_redis(&self, hash: &KeyHash) -> Option<Record> {
        let (redis, breaker) = self.redis.as_ref()?;
        let found = match breaker.ask(redis.get(hash)).await {
            // One that the ledger knows better is as good as none.
            Ok(found) => found.filter(|record| self.is_current(record)),
            Err(Down { was_asked }) => {
                if was_asked {
                    LookupCounts::add(&self.counts.redis_error);
                }
                return None;
            }
        };
        LookupCounts::add(if found.is_some() { &self.counts.redis_hit } else { &self.counts.redis_miss });
        found
    }

    /// The database has the last word. The flag says that the key is revoked.
    async fn ask_sql(&self, hash: &KeyHash) -> Result<Option<(Record, bool)>, Down> {
        let found = self.sql.ask(self.durable.find(hash)).await.inspect_err(|down| {
            if down.was_asked {
                LookupCounts::add(&self.counts.sql_error);
            }
        })?;
        let good = found.as_ref().is_some_and(|found| !found.revoked);
        LookupCounts::add(if good { &self.counts.sql_hit } else { &self.counts.sql_miss });
        Ok(found.map(|found| (found.record, found.revoked)))
    }

    fn judged(&self, hash: &KeyHash, record: &Record, degraded: Option<&'static str>) -> Lookup {
        self.in_ledger(hash, Arc::new(record.caller(degraded)))
    }

    /// A caller as the ledger lets it pass: refused when revoked, with newer limits where it knows some.
    fn in_ledger(&self, hash: &KeyHash, caller: Arc<Caller>) -> Lookup {
        let Some(verdicts) = self.verdicts.get() else { return Ok(caller) };
        let scopes = caller.scopes_of();
        if verdicts.is_revoked(&hash.0, &scopes.map(|(scope, _)| scope)) {
            return Err(LookupError::Revoked);
        }
        let newer = scopes.iter().filter_map(|(scope, version)| verdicts.newer_limits(*scope, *version));
        let newer: Vec<TenantLimits> = newer.collect();
        if newer.is_empty() {
            return Ok(caller);
        }
        let mut caller = Caller::clone(&caller);
        let kept = caller.tenants.iter().filter(|tenant| newer.iter().all(|newer| newer.scope != tenant.scope));
        let all: Vec<_> = kept.copied().chain(newer.iter().copied().filter(|new| !new.is_unlimited())).collect();
        caller.tenants = all.into();
        Ok(Arc::new(caller))
    }

    fn is_current(&self, record: &Record) -> bool {
        let Some(verdicts) = self.verdicts.get() else { return true };
        let scopes = record.caller(None).scopes_of();
        scopes.iter().all(|(scope, version)| verdicts.newer_limits(*scope, *version).is_none())
    }

    pub(super) fn is_revoked(&self, hash: &KeyHash, scopes: &[Scope]) -> bool {
        self.verdicts.get().is_some_and(|verdicts| verdicts.is_revoked(&hash.0, scopes))
    }

    pub(super) fn is_outdated(&self, caller: &Caller) -> bool {
        let newer = |(scope, version): &(Scope, u64)| {
            self.verdicts.get().is_some_and(|verdicts| verdicts.newer_limits(*scope, *version).is_some())
        };
        caller.scopes_of().iter().any(newer)
    }

    /// Tells Redis of a key; best effort.
    pub(super) async fn promote(&self, hash: &KeyHash, record: &Record) {
        if let Some((redis, breaker)) = &self.redis {
            // Not told is only not cached.
            let _ = breaker.ask(redis.put(hash, record, jittered(self.believed))).await;
        }
    }

    /// Has Redis forget keys; best effort.
    pub(super) async fn demote(&self, hashes: &[KeyHash]) {
        let Some((redis, breaker)) = &self.redis else { return };
        for hash in hashes {
            // What stays there lives for a minute, and what the ledger says beats it.
            let _ = breaker.ask(redis.forget(hash)).await;
        }
    }
}

impl Caller {
    /// Its key, its user and its team with the versions of their limits; an absent one is the key once more.
    fn scopes_of(&self) -> [(Scope, u64); 3] {
        let key = (Scope { kind: ScopeKind::Key, id: self.key_id }, self.versions[0]);
        let owner = |kind, id: Option<[u8; 16]>, version| id.map_or(key, |id| (Scope { kind, id }, version));
        [key, owner(ScopeKind::User, self.user, self.versions[1]), owner(ScopeKind::Team, self.team, self.versions[2])]
    }
}

/// Up to a fifth shorter, so that what was learned together is not asked for together.
pub(super) fn jittered(most: Duration) -> Duration {
    let mut byte = [0u8; 1];
    // Without randomness nothing is jittered, which is only less even.
    let _ = getrandom::fill(&mut byte);
    most - most * u32::from(byte[0]) / (5 * 255)
}
