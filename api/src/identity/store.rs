//! Keys in SQL: the durable layer, the only one that makes and revokes them.

use super::caller::{Caller, ModelPatterns, Tier};
use super::database::Database;
use super::key::{self, Key, KeyLimits, KeyRef, NewKey};
use super::secret::{KeyHash, Secret};
use ledger::model::Priority;
use raft::clock::wall_us;
use sqlx::Row;
use sqlx::error::ErrorKind;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Keys on one page of a list.
pub const PAGE: u32 = 500;

/// Why the store does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A field does not hold what it must.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// It would clash with what is there.
    #[error("{field}: {problem}")]
    Conflict {
        /// Which field.
        field: &'static str,
        /// With what it clashes.
        problem: &'static str,
    },
    /// There is no such key.
    #[error("key not found")]
    NotFound,
    /// The database does not answer; nothing was changed.
    #[error("the key store does not answer: {0}")]
    Down(#[source] sqlx::Error),
    /// The database broke off while it committed.
    #[error("the key store broke off, the change may or may not be there: {0}")]
    Indeterminate(#[source] sqlx::Error),
    /// A row holds what we never write.
    #[error("the key store holds a row that cannot be read: {0}")]
    Corrupt(String),
    /// The system has no randomness to give.
    #[error("no randomness: {0}")]
    Random(#[source] std::io::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) => Self::Corrupt(error.to_string()),
            other => Self::Down(other),
        }
    }
}

/// The keys in a database.
#[derive(Clone, Debug)]
pub(super) struct Store {
    database: Database,
}

impl Store {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// The key of that hash, in force or not.
    pub(super) async fn find(&self, hash: &KeyHash) -> Result<Option<Key>, StoreError> {
        let query = sqlx::query("SELECT * FROM keys_with_limits WHERE key_hash = ?").bind(&hash.0[..]);
        let Some(row) = query.fetch_optional(self.database.pool()).await? else { return Ok(None) };
        let same: bool = row.try_get::<&[u8], _>("key_hash")?.ct_eq(&hash.0).into();
        if same { read(&row).map(Some) } else { Ok(None) }
    }

    /// Makes a key: its row, its limits and the outbox row for the ledger, all or none.
    pub(super) async fn create(&self, new: &NewKey) -> Result<(Key, Secret), StoreError> {
        let now = wall_us();
        new.check(now)?;
        let secret = Secret::generate().map_err(StoreError::Random)?;
        let mut id = [0u8; 16];
        getrandom::fill(&mut id).map_err(|error| StoreError::Random(std::io::Error::other(error.to_string())))?;
        let mut change = self.database.pool().begin_with("BEGIN IMMEDIATE").await?;
        insert_key(&mut change, &id, &secret, new, now).await.map_err(name_taken)?;
        insert_limits(&mut change, &secret.hash(), new, now).await?;
        sqlx::query(
            "INSERT INTO outbox (kind, scope_kind, scope_id, version, created_at) VALUES ('limits', 'key', ?, 1, ?)",
        )
        .bind(&id[..])
        .bind(integer(now))
        .execute(&mut *change)
        .await?;
        change.commit().await.map_err(StoreError::Indeterminate)?;
        let key = self.get(&KeyRef::Id(id)).await?;
        Ok((key, secret))
    }

    /// The key that people mean. A name means the key in force, else the last one that had it.
    pub(super) async fn get(&self, which: &KeyRef) -> Result<Key, StoreError> {
        let query = match which {
            KeyRef::Id(id) => sqlx::query("SELECT * FROM keys_with_limits WHERE id = ?").bind(id.to_vec()),
            KeyRef::Prefix(prefix) => {
                sqlx::query("SELECT * FROM keys_with_limits WHERE key_prefix = ? LIMIT 2").bind(prefix)
            }
            KeyRef::Name(name) => sqlx::query(
                "SELECT * FROM keys_with_limits WHERE name = ? ORDER BY revoked_at IS NOT NULL, place DESC LIMIT 1",
            )
            .bind(name),
        };
        let rows = query.fetch_all(self.database.pool()).await?;
        match rows.as_slice() {
            [] => Err(StoreError::NotFound),
            [row] => read(row),
            _ => Err(StoreError::Conflict { field: "id", problem: "several keys begin like this: use the id" }),
        }
    }

    /// One page of keys in the order of their making, those behind `after` only.
    pub(super) async fn list(&self, with_revoked: bool, after: Option<[u8; 16]>) -> Result<Vec<Key>, StoreError> {
        let query = sqlx::query(
            "SELECT * FROM keys_with_limits WHERE (? OR revoked_at IS NULL) \
             AND place > coalesce((SELECT rowid FROM api_keys WHERE id = ?), 0) ORDER BY place LIMIT ?",
        );
        let rows = query.bind(with_revoked).bind(after.map(|id| id.to_vec())).bind(PAGE);
        rows.fetch_all(self.database.pool()).await?.iter().map(read).collect()
    }

    /// Takes a key back, for ever; once more changes nothing.
    pub(super) async fn revoke(&self, which: &KeyRef) -> Result<(Key, KeyHash), StoreError> {
        let key = self.get(which).await?;
        let id = &key.caller.key_id[..];
        let row = sqlx::query(
            "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ? RETURNING key_hash, revoked_at",
        )
        .bind(integer(wall_us()))
        .bind(id)
        .fetch_optional(self.database.pool())
        .await
        .map_err(StoreError::Indeterminate)?
        .ok_or(StoreError::NotFound)?;
        let hash = KeyHash(bytes(&row, "key_hash")?);
        Ok((Key { revoked_at: optional_unsigned(&row, "revoked_at")?, ..key }, hash))
    }
}

async fn insert_key(
    change: &mut SqliteConnection,
    id: &[u8; 16],
    secret: &Secret,
    new: &NewKey,
    now: u64,
) -> Result<(), sqlx::Error> {
    let models = serde_json::Value::from(new.models.clone()).to_string();
    sqlx::query(
        "INSERT INTO api_keys (id, key_hash, key_prefix, name, models, created_at, expires_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&id[..])
    .bind(&secret.hash().0[..])
    .bind(secret.prefix())
    .bind(&new.name)
    .bind(models)
    .bind(integer(now))
    .bind(new.expires_at.map(integer))
    .execute(change)
    .await
    .map(drop)
}

async fn insert_limits(
    change: &mut SqliteConnection,
    hash: &KeyHash,
    new: &NewKey,
    now: u64,
) -> Result<(), sqlx::Error> {
    let limits = &new.limits;
    sqlx::query(
        "INSERT INTO token_metadata (token_hash, tier, priority, priority_ceiling, quota_limit, rps, rpm, \
         burst_requests, tpm, burst_tokens, max_concurrent, version, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?)",
    )
    .bind(&hash.0[..])
    .bind(new.tier.as_str())
    .bind(new.priority().0)
    .bind(new.ceiling().0)
    .bind(integer(limits.tokens_per_day))
    .bind(integer(limits.rps))
    .bind(integer(limits.rpm))
    .bind(integer(limits.burst_requests))
    .bind(integer(limits.tpm))
    .bind(integer(limits.burst_tokens))
    .bind(integer(limits.concurrency))
    .bind(integer(now))
    .bind(integer(now))
    .execute(change)
    .await
    .map(drop)
}

fn name_taken(error: sqlx::Error) -> StoreError {
    let taken = error.as_database_error().is_some_and(|error| error.kind() == ErrorKind::UniqueViolation);
    if taken { StoreError::Conflict { field: "name", problem: "another key has it" } } else { error.into() }
}

fn read(row: &SqliteRow) -> Result<Key, StoreError> {
    let key_id = bytes(row, "id")?;
    let limits = KeyLimits {
        rps: unsigned(row, "rps")?,
        rpm: unsigned(row, "rpm")?,
        burst_requests: unsigned(row, "burst_requests")?,
        tpm: unsigned(row, "tpm")?,
        burst_tokens: unsigned(row, "burst_tokens")?,
        concurrency: unsigned(row, "max_concurrent")?,
        tokens_per_day: unsigned(row, "quota_limit")?,
    };
    let tier: &str = row.try_get("tier")?;
    let caller = Caller {
        key_id,
        key_name: row.try_get::<&str, _>("name")?.into(),
        key_prefix: row.try_get::<&str, _>("key_prefix")?.into(),
        user: optional_bytes(row, "user_id")?,
        team: optional_bytes(row, "team_id")?,
        tier: Tier::parse(tier).ok_or_else(|| StoreError::Corrupt(format!("tier {tier}")))?,
        priority: Priority(row.try_get("priority")?),
        ceiling: Priority(row.try_get("priority_ceiling")?),
        tenants: key::tenants(&limits, key_id, unsigned(row, "version")?),
        models: ModelPatterns::new(strings(row, "models")?),
        admin: strings(row, "scopes")?.iter().any(|scope| scope == "admin"),
        expires_at: optional_unsigned(row, "expires_at")?,
    };
    Ok(Key {
        caller: Arc::new(caller),
        limits,
        created_at: unsigned(row, "created_at")?,
        revoked_at: optional_unsigned(row, "revoked_at")?,
    })
}

fn bytes<const N: usize>(row: &SqliteRow, column: &str) -> Result<[u8; N], StoreError> {
    optional_bytes(row, column)?.ok_or_else(|| StoreError::Corrupt(column.to_owned()))
}

fn optional_bytes<const N: usize>(row: &SqliteRow, column: &str) -> Result<Option<[u8; N]>, StoreError> {
    let Some(bytes) = row.try_get::<Option<&[u8]>, _>(column)? else { return Ok(None) };
    bytes.try_into().map(Some).map_err(|_| StoreError::Corrupt(column.to_owned()))
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
    optional_unsigned(row, column)?.ok_or_else(|| StoreError::Corrupt(column.to_owned()))
}

fn optional_unsigned(row: &SqliteRow, column: &str) -> Result<Option<u64>, StoreError> {
    let Some(value) = row.try_get::<Option<i64>, _>(column)? else { return Ok(None) };
    u64::try_from(value).map(Some).map_err(|_| StoreError::Corrupt(column.to_owned()))
}

fn strings(row: &SqliteRow, column: &str) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(row.try_get::<&str, _>(column)?).map_err(|_| StoreError::Corrupt(column.to_owned()))
}

/// As SQL has it; whatever reaches this was checked to fit.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
