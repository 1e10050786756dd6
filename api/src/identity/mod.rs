//! Who may call: API keys, from the presented string to a [`Caller`]. First step of the main path.
//!
//! Limits are only carried here; the ledger holds their use. Memory is asked first, then the [`layers`] behind it.

mod breaker;
mod cache;
mod caller;
mod counts;
mod database;
mod directory;
mod key;
mod layers;
mod limits;
mod people;
mod record;
mod redis;
mod scopes;
mod secret;
mod snapshot;
pub(crate) mod sql;
mod store;
mod upkeep;

pub use caller::{Caller, ModelPatterns, Tier};
pub use counts::LookupCounts;
pub use database::{Database, DatabaseError};
pub use key::{Key, KeyChange, KeyRef, NAME_CHARS_MAX, NewKey};
pub use layers::Verdicts;
pub use limits::{LIMIT_MAX, Limits, LimitsChange};
pub use people::{Named, NewTeam, NewUser, Team, TeamChange, User, UserChange};
pub use scopes::{Role, RouteGroup, Scopes};
pub use secret::{KeyHash, Secret};
pub use store::{Actor, AuditEvent, Once, PAGE, StoreError};

pub(crate) use key::parse_id;
pub(crate) use store::{OutboxRow, Told};

use crate::config::KeyMode;
use breaker::Breaker;
use cache::{Cache, Sifted};
use layers::{Answer, FROM_SNAPSHOT, Layers, jittered};
use ledger::model::{BucketLimit, Priority, QuotaKind, QuotaLimit, Quotas, Rate, Scope, ScopeKind, TenantLimits};
use redis::Redis;
use sha2::{Digest, Sha256};
use snapshot::Snapshot;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;
use store::Store;

const ASK_AGAIN_MAX: usize = 3;
/// How long a lookup waits for Redis.
const REDIS_MAX: Duration = Duration::from_millis(50);
/// How long a lookup waits for the database, after Redis.
const SQL_MAX: Duration = Duration::from_millis(180);
/// The embedded database is no other machine that could hang; it may only be slow, on a disk that is.
const EMBEDDED_MAX: Duration = Duration::from_secs(5);
/// How long what is known from the snapshot is believed before the stores are asked again.
const SNAPSHOT_BELIEVED_US: u64 = 1_000_000;

/// What a key that nobody can check may use under `fail_open`: of this class, so many tokens in a request and in a day,
/// and so many requests a second from its client's address.
const OPEN_TIER: Tier = Tier::External;
const OPEN_REQUEST_TOKENS: u64 = 100;
const OPEN_DAY_TOKENS: u64 = 1_000;
const OPEN_ADDRESS_RPS: u64 = 10;
pub(crate) const FAIL_OPEN: &str = "identity_fail_open";

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

/// Where keys are.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database: `sqlite:PATH` or `postgres://..`.
    pub database_url: String,
    /// Redis; empty for none.
    pub redis_url: String,
    /// The file of the snapshot; none keeps none.
    pub snapshot: Option<PathBuf>,
    /// How often the snapshot is refreshed.
    pub snapshot_refresh: Duration,
    /// How long memory and Redis believe what the database said.
    pub believed: Duration,
    /// What happens to keys that nobody can check.
    pub mode: KeyMode,
}

/// The identity store's door. Clones share everything.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Cache,
    layers: Arc<Layers>,
    mode: KeyMode,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("remembered", &self.remembered()).finish_non_exhaustive()
    }
}

impl Identity {
    /// Opens a database alone: no Redis, no snapshot.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn open(database_url: &str) -> Result<Self, DatabaseError> {
        Self::start(Options {
            database_url: database_url.to_owned(),
            redis_url: String::new(),
            snapshot: None,
            snapshot_refresh: Duration::from_secs(300),
            believed: Duration::from_secs(60),
            mode: KeyMode::FailClosed,
        })
        .await
    }

    /// Opens every layer and keeps them in order from then on. Redis and Postgres may be down; they are asked once they
    /// answer.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn start(options: Options) -> Result<Self, DatabaseError> {
        let embedded = options.database_url.starts_with("sqlite:");
        let database = Database::open(&options.database_url).await?;
        let redis = match options.redis_url.as_str() {
            "" => None,
            url => Some(Redis::new(url).map_err(|_| DatabaseError::Redis)?),
        };
        let snapshot = options.snapshot.as_ref().map(|path| (path, Snapshot::load(path)));
        let snapshot = match snapshot {
            Some((path, Err(error))) => {
                tracing::warn!(path = %path.display(), %error, "the snapshot of keys cannot be used");
                None
            }
            Some((_, Ok(snapshot))) => snapshot,
            None => None,
        };
        let layers = Arc::new(Layers {
            redis: redis.map(|redis| (redis, Breaker::new("redis", REDIS_MAX))),
            durable: Store::new(database.clone()),
            sql: Breaker::new("database", if embedded { EMBEDDED_MAX } else { SQL_MAX }),
            snapshot: RwLock::new(Arc::new(snapshot.unwrap_or_default())),
            snapshot_path: options.snapshot,
            verdicts: OnceLock::new(),
            counts: LookupCounts::default(),
            believed: options.believed,
        });
        if database.is_prepared() {
            layers.sql.probe(database.prepare()).await;
        }
        if let Some((redis, breaker)) = &layers.redis {
            breaker.probe(redis.probe()).await;
        }
        tokio::spawn(upkeep::watch_sql(layers.clone()));
        tokio::spawn(upkeep::watch_redis(layers.clone()));
        if layers.snapshot_path.is_some() {
            tokio::spawn(upkeep::refresh_snapshots(layers.clone(), options.snapshot_refresh));
        }
        Ok(Self { inner: Arc::new(Inner { cache: Cache::new(), layers, mode: options.mode }) })
    }

    /// Has the ledger's word beat every store from now on.
    pub fn attach(&self, verdicts: Arc<dyn Verdicts>) {
        // A second ledger would be a mistake of the composition; the first one stays.
        let _ = self.inner.layers.verdicts.set(verdicts);
        self.heed();
    }

    /// To be called when the ledger has revoked something, or knows newer limits: drops what memory should not believe
    /// any more.
    pub fn heed(&self) {
        let layers = &self.inner.layers;
        self.inner.cache.sift(|hash, caller| {
            let scopes = [
                Some(Scope { kind: ScopeKind::Key, id: caller.key_id }),
                caller.user.map(|id| Scope { kind: ScopeKind::User, id }),
                caller.team.map(|id| Scope { kind: ScopeKind::Team, id }),
            ];
            let scopes: Vec<Scope> = scopes.into_iter().flatten().collect();
            if layers.is_revoked(hash, &scopes) {
                Sifted::Gone
            } else if layers.is_outdated(caller) {
                Sifted::Stale
            } else {
                Sifted::Good
            }
        });
    }

    /// The database, which usage rows go to as well.
    pub fn database(&self) -> &Database {
        self.inner.layers.durable.database()
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
        LookupCounts::add(&self.counts().lru_miss);
        self.inner.cache.join(hash).answer(self.ask(hash)).await
    }

    /// The caller that a key makes which nobody can check: none under `fail_closed`. Counts the request.
    pub(crate) fn unchecked(&self, presented: &str, client: Option<IpAddr>) -> Option<Arc<Caller>> {
        if self.inner.mode == KeyMode::FailClosed {
            LookupCounts::add(&self.counts().mode_closed);
            return None;
        }
        LookupCounts::add(&self.counts().mode_open);
        tracing::warn!("an unknown key is served within the strict allowance: the key stores are down");
        let tenant = |id, requests, tokens_per_day: Option<u64>| TenantLimits {
            requests,
            quotas: Quotas::default().with(QuotaKind::DayTokens, tokens_per_day.map(QuotaLimit::hard)),
            ..Limits::default().tenant(Scope { kind: ScopeKind::Key, id }, 1)
        };
        let key_id = derived_id(b"key", presented.as_bytes());
        let address = client.map_or_else(|| "unknown".to_owned(), |client| client.to_string());
        let rate = BucketLimit { rate: Rate::per_sec(OPEN_ADDRESS_RPS), burst: OPEN_ADDRESS_RPS };
        Some(Arc::new(Caller {
            key_id,
            key_name: "unchecked".into(),
            key_prefix: "unchecked".into(),
            user: None,
            team: None,
            tier: OPEN_TIER,
            priority: OPEN_TIER.priority(),
            ceiling: Priority(9),
            tenants: Arc::new([
                tenant(key_id, None, Some(OPEN_DAY_TOKENS)),
                tenant(derived_id(b"address", address.as_bytes()), Some(rate), None),
            ]),
            models: ModelPatterns::default(),
            scopes: Scopes::default(),
            role: None,
            expires_at: None,
            versions: [1, 0, 0],
            request_tokens_max: Some(OPEN_REQUEST_TOKENS),
            degraded: Some(FAIL_OPEN),
        }))
    }

    /// Drops what memory knows of a key, at once and for good: an answer that a store gave before this call is not
    /// remembered either.
    pub fn forget(&self, key: &KeyHash) {
        self.inner.cache.forget(key);
    }

    /// How many callers memory knows; with the stores down these can still be served.
    pub fn remembered(&self) -> usize {
        self.inner.cache.len()
    }

    /// How many keys the snapshot has, and when it was taken, in microseconds of the wall clock.
    pub fn snapshot_size(&self) -> (usize, u64) {
        let snapshot = self.inner.layers.snapshot();
        (snapshot.len(), snapshot.taken_wall_us())
    }

    /// Whether no store of keys answers.
    pub fn stores_are_down(&self) -> bool {
        self.inner.layers.are_down()
    }

    /// Whether the database does not answer.
    pub(crate) fn database_is_down(&self) -> bool {
        self.inner.layers.sql.is_open()
    }

    /// What happens to keys that nobody can check.
    pub fn mode(&self) -> KeyMode {
        self.inner.mode
    }

    /// Whether any key can be served at all.
    pub fn can_serve(&self) -> bool {
        let known = || self.remembered() > 0 || self.snapshot_size().0 > 0;
        !self.stores_are_down() || self.inner.mode == KeyMode::FailOpen || known()
    }

    /// What lookups came to.
    pub fn counts(&self) -> &LookupCounts {
        &self.inner.layers.counts
    }

    fn in_memory(&self, hash: &KeyHash) -> Option<Lookup> {
        let answer = self.inner.cache.get(hash)?;
        LookupCounts::add(&self.counts().lru_hit);
        Some(answer)
    }

    /// Asks the stores until no key was forgotten meanwhile, then remembers what they say.
    async fn ask(&self, hash: KeyHash) -> Lookup {
        let (cache, layers) = (&self.inner.cache, &self.inner.layers);
        for _ in 1..ASK_AGAIN_MAX {
            let since = cache.since();
            let Answer { lookup, promote } = layers.ask(&hash, cache, since).await;
            let from_snapshot = lookup.as_ref().is_ok_and(|caller| caller.degraded == Some(FROM_SNAPSHOT));
            let believed = u64::try_from(jittered(layers.believed).as_micros()).unwrap_or(u64::MAX);
            if cache.remember(hash, since, &lookup, if from_snapshot { SNAPSHOT_BELIEVED_US } else { believed }) {
                if let Some(record) = promote {
                    let layers = Arc::clone(layers);
                    tokio::spawn(async move { layers.promote(&hash, &record).await });
                }
                return lookup.and_then(cache::in_force);
            }
        }
        let since = cache.since();
        layers.ask(&hash, cache, since).await.lookup.and_then(cache::in_force)
    }
}

/// The id of something that no store knows.
fn derived_id(kind: &[u8], of: &[u8]) -> [u8; 16] {
    let digest =
        Sha256::new().chain_update(b"unchecked ").chain_update(kind).chain_update([0]).chain_update(of).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

#[cfg(test)]
mod tests;
