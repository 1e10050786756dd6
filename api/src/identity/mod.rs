//! Who may call: API keys, from the presented string to a [`Caller`]. First step of the main path.
//!
//! Limits are only carried here; the ledger holds their use. Stores are asked in order, behind a cache in memory.

mod cache;
mod caller;
mod database;
mod key;
mod secret;
mod store;

pub use caller::{Caller, ModelPatterns, Tier};
pub use database::{Database, DatabaseError};
pub use key::{Key, KeyLimits, KeyRef, LIMIT_MAX, NAME_CHARS_MAX, NewKey};
pub use secret::{KeyHash, Secret};
pub use store::{PAGE, StoreError};

pub(crate) use key::parse_id;

use cache::Cache;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use store::Store;

const ASK_AGAIN_MAX: usize = 3;

/// Why a presented key does not make a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No reachable store knows it.
    #[error("unknown api key")]
    Unknown,
    /// It was taken back.
    #[error("revoked api key")]
    Revoked,
    /// Its time is over.
    #[error("expired api key")]
    Expired,
    /// No store answered, so that nobody can say whether it is good.
    #[error("no key store can be reached")]
    StoresDown,
}

/// What a lookup says.
pub type Lookup = Result<Arc<Caller>, LookupError>;

/// How often a layer was asked and what it said, since the start; for `tokligence_token_lookup_total`.
#[derive(Debug, Default)]
pub struct LookupCounts {
    /// Found in memory.
    pub lru_hit: AtomicU64,
    /// Not known in memory.
    pub lru_miss: AtomicU64,
    /// Found in the database, in force.
    pub sql_hit: AtomicU64,
    /// Not in the database, or no longer in force.
    pub sql_miss: AtomicU64,
    /// The database did not answer.
    pub sql_error: AtomicU64,
    /// No store answered when one was last asked, so that a key that memory does not know cannot be served.
    pub stores_down: AtomicBool,
}

/// The stores that are asked for a key that memory does not know.
#[derive(Debug)]
enum Layer {
    Sql(Store),
}

/// The identity store's door. Clones share everything.
#[derive(Clone, Debug)]
pub struct Identity {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cache: Cache,
    /// In the order of asking.
    layers: Vec<Layer>,
    durable: Store,
    counts: LookupCounts,
}

impl Identity {
    /// Opens the database at `sqlite:PATH`.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn open(database_url: &str) -> Result<Self, DatabaseError> {
        Ok(Self::new(Database::open(database_url).await?))
    }

    /// Keeps its keys in an open database.
    pub fn new(database: Database) -> Self {
        let durable = Store::new(database);
        let layers = vec![Layer::Sql(durable.clone())];
        let inner = Inner { cache: Cache::new(), layers, durable, counts: LookupCounts::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The database, which usage rows go to as well.
    pub fn database(&self) -> &Database {
        self.inner.durable.database()
    }

    /// Looks in memory only: `None` means that [`Identity::lookup`] has to ask a store.
    pub fn lookup_cached(&self, presented: &str) -> Option<Lookup> {
        let Some(hash) = KeyHash::of_well_formed(presented) else {
            return Some(Err(LookupError::Unknown));
        };
        self.in_memory(&hash)
    }

    /// Finds the caller of a presented key, in memory first. Dropping the future is fine.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub async fn lookup(&self, presented: &str) -> Lookup {
        let hash = KeyHash::of_well_formed(presented).ok_or(LookupError::Unknown)?;
        if let Some(answer) = self.in_memory(&hash) {
            return answer;
        }
        count(&self.inner.counts.lru_miss);
        self.inner.cache.join(hash).answer(self.ask(hash)).await
    }

    /// Drops what memory knows of a key, at once and for good: an answer that a store gave before this call is not
    /// remembered either.
    pub fn forget(&self, key: &KeyHash) {
        self.inner.cache.forget(key);
    }

    /// Makes a key; the secret is never to be had again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn create_key(&self, new: &NewKey) -> Result<(Key, Secret), StoreError> {
        self.inner.durable.create(new).await
    }

    /// One page (at most [`PAGE`]) of keys in the order of their making, those behind `after` only.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn list_keys(&self, with_revoked: bool, after: Option<[u8; 16]>) -> Result<Vec<Key>, StoreError> {
        self.inner.durable.list(with_revoked, after).await
    }

    /// Shows a key.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn key(&self, which: &KeyRef) -> Result<Key, StoreError> {
        self.inner.durable.get(which).await
    }

    /// Takes a key back, for ever; once more changes nothing. From its return on no lookup on this node finds it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn revoke_key(&self, which: &KeyRef) -> Result<Key, StoreError> {
        let (key, hash) = self.inner.durable.revoke(which).await?;
        self.forget(&hash);
        Ok(key)
    }

    /// How many callers memory knows; with the stores down these can still be served.
    pub fn remembered(&self) -> usize {
        self.inner.cache.len()
    }

    /// What lookups came to.
    pub fn counts(&self) -> &LookupCounts {
        &self.inner.counts
    }

    fn in_memory(&self, hash: &KeyHash) -> Option<Lookup> {
        let answer = self.inner.cache.get(hash)?;
        count(&self.inner.counts.lru_hit);
        Some(answer)
    }

    /// Asks the stores until no key was forgotten meanwhile, then remembers what they say.
    async fn ask(&self, hash: KeyHash) -> Lookup {
        let cache = &self.inner.cache;
        for _ in 1..ASK_AGAIN_MAX {
            let since = cache.since();
            let answer = self.ask_layers(&hash).await;
            if cache.remember(hash, since, &answer) {
                return answer.and_then(cache::in_force);
            }
        }
        self.ask_layers(&hash).await.and_then(cache::in_force)
    }

    async fn ask_layers(&self, hash: &KeyHash) -> Lookup {
        for layer in &self.inner.layers {
            match layer {
                Layer::Sql(store) => match store.find(hash).await {
                    // The durable store has the last word.
                    Ok(found) => {
                        self.inner.counts.stores_down.store(false, Ordering::Relaxed);
                        return self.verdict(found);
                    }
                    Err(error) => {
                        count(&self.inner.counts.sql_error);
                        tracing::warn!(%error, "the key store does not answer");
                    }
                },
            }
        }
        self.inner.counts.stores_down.store(true, Ordering::Relaxed);
        Err(LookupError::StoresDown)
    }

    fn verdict(&self, found: Option<Key>) -> Lookup {
        let lookup = match found {
            None => Err(LookupError::Unknown),
            Some(key) if key.revoked_at.is_some() => Err(LookupError::Revoked),
            Some(key) => Ok(key.caller),
        };
        count(if lookup.is_ok() { &self.inner.counts.sql_hit } else { &self.inner.counts.sql_miss });
        lookup
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
