//! Rows of the view `callers` and of users and teams, as values.

use super::StoreError;
use crate::identity::caller::Tier;
use crate::identity::key::Key;
use crate::identity::limits::Limits;
use crate::identity::people::{Team, User};
use crate::identity::record::{Owner, Record};
use crate::identity::scopes::{Role, Scopes};
use crate::identity::secret::KeyHash;
use crate::identity::sql::{Row, Value};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The columns of limits, in the order of [`Limits::values`].
pub(super) const LIMITS: &str =
    "rps, rpm, burst_requests, tpm, burst_tokens, max_concurrent, quota_limit, budget_nano_usd";

/// A key that was found by one of its secrets.
pub(in crate::identity) struct Found {
    pub(in crate::identity) record: Record,
    /// Whether it was taken back, or its user or team removed.
    pub(in crate::identity) revoked: bool,
}

/// What a key's row says of one of its secrets; none when it is neither.
pub(super) fn found(row: &Row, hash: &KeyHash) -> Result<Option<Found>, StoreError> {
    let is = |other: [u8; 32]| bool::from(other.ct_eq(&hash.0));
    let mut record = record(row)?;
    if !is(row.bytes("key_hash")?) {
        let Some(previous) = row.optional_bytes("previous_hash")?.filter(|previous| is(*previous)) else {
            return Ok(None);
        };
        debug_assert!(is(previous));
        let until = row.optional_whole("previous_until")?.unwrap_or(1).max(1);
        record.expires_at = Some(record.expires_at.map_or(until, |at| at.min(until)));
    }
    let gone = |column| row.optional_whole(column).map(|at| at.is_some());
    Ok(Some(Found { record, revoked: gone("revoked_at")? || gone("disabled_at")? }))
}

/// The two secrets of a key, as they are kept.
pub(super) fn hashes(row: &Row) -> Result<(KeyHash, Option<KeyHash>), StoreError> {
    Ok((KeyHash(row.bytes("key_hash")?), row.optional_bytes("previous_hash")?.map(KeyHash)))
}

pub(super) fn key(row: &Row) -> Result<Key, StoreError> {
    let record = record(row)?;
    Ok(Key {
        limits: record.limits,
        own_team: row.optional_bytes("own_team_id")?,
        user_name: row.optional_text("user_name")?,
        team_name: row.optional_text("team_name")?,
        version: record.version,
        created_at: row.whole("created_at")?,
        updated_at: row.whole("updated_at")?,
        previous_until: row.optional_whole("previous_until")?,
        disabled: row.optional_whole("disabled_at")?.is_some(),
        revoked_at: row.optional_whole("revoked_at")?,
        caller: Arc::new(record.caller(None)),
    })
}

pub(super) fn record(row: &Row) -> Result<Record, StoreError> {
    let role = row.optional_text("user_role")?.map(|name| role(&name)).transpose()?;
    Ok(Record {
        id: row.bytes("id")?,
        name: row.text("name")?,
        prefix: row.text("key_prefix")?,
        tier: tier(&row.text("tier")?)?,
        priority: level(row.whole("priority")?)?,
        ceiling: level(row.whole("priority_ceiling")?)?,
        version: row.whole("version")?,
        limits: limits(row, "")?,
        user: owner(row, "user_id", "user_")?,
        team: owner(row, "team_id", "team_")?,
        role,
        scopes: Scopes::parse(strings(row, "scopes")?).map_err(|_| StoreError::Corrupt("scopes".to_owned()))?,
        models: strings(row, "models")?,
        expires_at: row.optional_whole("expires_at")?,
    })
}

pub(super) fn user(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        id: row.bytes("id")?,
        name: row.text("name")?,
        email: row.optional_text("email")?,
        role: row.optional_text("role")?.map_or(Ok(Role::GatewayUser), |name| role(&name))?,
        team: row.optional_bytes("team_id")?,
        limits: limits(row, "")?,
        version: row.whole("version")?,
        created_at: row.whole("created_at")?,
        updated_at: row.whole("updated_at")?,
        removed_at: row.optional_whole("disabled_at")?,
    })
}

pub(super) fn team(row: &Row) -> Result<Team, StoreError> {
    Ok(Team {
        id: row.bytes("id")?,
        name: row.text("name")?,
        limits: limits(row, "")?,
        version: row.whole("version")?,
        created_at: row.whole("created_at")?,
        updated_at: row.whole("updated_at")?,
        removed_at: row.optional_whole("disabled_at")?,
    })
}

/// Limits as values to bind, in the order of [`LIMITS`].
pub(super) fn limit_values(limits: &Limits) -> impl Iterator<Item = Value> {
    limits.values().into_iter().map(Value::from)
}

fn owner(row: &Row, id: &str, prefix: &str) -> Result<Option<Owner>, StoreError> {
    let Some(id) = row.optional_bytes(id)? else { return Ok(None) };
    // The id without its row: nothing is known of it, and nothing binds.
    let version = row.optional_whole(&format!("{prefix}version"))?.unwrap_or(0);
    Ok(Some(Owner { id, version, limits: limits(row, prefix)? }))
}

fn limits(row: &Row, prefix: &str) -> Result<Limits, StoreError> {
    let mut values = [0; 8];
    for (value, column) in values.iter_mut().zip(LIMITS.split(", ")) {
        *value = row.optional_whole(&format!("{prefix}{column}"))?.unwrap_or(0);
    }
    Ok(Limits::of_values(values))
}

fn tier(name: &str) -> Result<Tier, StoreError> {
    Tier::parse(name).ok_or_else(|| StoreError::Corrupt(format!("tier {name}")))
}

fn role(name: &str) -> Result<Role, StoreError> {
    Role::parse(name).ok_or_else(|| StoreError::Corrupt(format!("role {name}")))
}

fn level(value: u64) -> Result<u8, StoreError> {
    u8::try_from(value).map_err(|_| StoreError::Corrupt("priority".to_owned()))
}

fn strings(row: &Row, column: &str) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(&row.text(column)?).map_err(|_| StoreError::Corrupt(column.to_owned()))
}
