//! Keys in SQL.

use super::audit::{self, Actor, Target};
use super::rows::{self, Found, LIMITS};
use super::{Once, PAGE, Store, StoreError, commit, fresh, new_id, once, outbox};
use crate::identity::database::Change;
use crate::identity::key::{Key, KeyChange, KeyRef, NewKey};
use crate::identity::record::Record;
use crate::identity::secret::{KeyHash, Secret};
use crate::identity::sql::{Query, Row, sql, sql_of};
use ledger::model::{Scope, ScopeKind, TenantLimits};
use raft::clock::wall_us;
use serde_json::json;

impl Store {
    /// The key that has this secret, in force or not.
    pub(in crate::identity) async fn find(&self, hash: &KeyHash) -> Result<Option<Found>, StoreError> {
        let query = sql("SELECT * FROM callers WHERE key_hash = $1 OR previous_hash = $1").bind(hash.0);
        match self.database.first(query).await? {
            Some(row) => rows::found(&row, hash),
            None => Ok(None),
        }
    }

    /// Makes a key: its row, its limits and what the ledger is to hear, all or none.
    pub(in crate::identity) async fn create(
        &self,
        new: &NewKey,
        once: Option<&Once>,
        actor: &Actor,
    ) -> Result<(Key, Secret), StoreError> {
        let now = wall_us();
        new.check(now)?;
        let (secret, id) = (Secret::generate().map_err(StoreError::Random)?, new_id()?);
        let mut change = self.begin().await?;
        owners_exist(&mut change, new).await?;
        let insert = sql("INSERT INTO api_keys (id, key_hash, key_prefix, name, user_id, team_id, scopes, models, \
                          created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
        .bind(id)
        .bind(secret.hash().0)
        .bind(secret.prefix())
        .bind(new.name.as_str())
        .bind(new.user)
        .bind(new.team)
        .bind(list(new.scopes.names()).as_str())
        .bind(list(new.models.iter().map(String::as_str)).as_str())
        .bind(now)
        .bind(new.expires_at);
        change.run(insert).await?;
        change.run(metadata(&secret.hash(), new, 1, now, now)).await?;
        outbox::limits_changed(&mut change, scope(id), 1).await?;
        once::note(&mut change, once, &hex::encode(id)).await?;
        note(&mut change, actor, "key.create", id, &new.name, &detail(new)).await?;
        commit(change).await?;
        Ok((self.get(&KeyRef::Id(id)).await?, secret))
    }

    /// The key that people mean. A name means the key in force, else the last one that had it.
    pub(in crate::identity) async fn get(&self, which: &KeyRef) -> Result<Key, StoreError> {
        rows::key(&one(self.all(by(which)).await?)?)
    }

    /// One page of keys in the order of their making, those behind `after` only.
    pub(in crate::identity) async fn list(
        &self,
        with_revoked: bool,
        after: Option<[u8; 16]>,
    ) -> Result<Vec<Key>, StoreError> {
        let query = sql("SELECT * FROM callers WHERE ($1 = 1 OR revoked_at IS NULL) AND ($2 IS NULL OR \
                         (created_at, id) > (SELECT created_at, id FROM api_keys WHERE id = $2)) \
                         ORDER BY created_at, id LIMIT $3")
        .bind(u64::from(with_revoked))
        .bind(after)
        .bind(u64::from(PAGE));
        self.all(query).await?.iter().map(rows::key).collect()
    }

    /// One page of keys in force in the order of their hashes, as the snapshot keeps them.
    pub(in crate::identity) async fn in_force(
        &self,
        after: Option<&KeyHash>,
        limit: u64,
    ) -> Result<Vec<(KeyHash, Record, Option<(KeyHash, u64)>)>, StoreError> {
        let query = sql("SELECT * FROM callers WHERE key_hash > $1 AND revoked_at IS NULL AND disabled_at IS NULL \
                         ORDER BY key_hash LIMIT $2")
        .bind(after.map_or(&[][..], |hash| &hash.0[..]))
        .bind(limit);
        let rows = self.all(query).await?;
        rows.iter()
            .map(|row| {
                let (hash, previous) = rows::hashes(row)?;
                let until = row.optional_whole("previous_until")?.unwrap_or(0);
                Ok((hash, rows::record(row)?, previous.map(|previous| (previous, until))))
            })
            .collect()
    }

    /// Changes a key; gives it, and its secrets' hashes, so that caches can drop them.
    pub(in crate::identity) async fn update(
        &self,
        which: &KeyRef,
        asked: &KeyChange,
        actor: &Actor,
    ) -> Result<(Key, Vec<KeyHash>), StoreError> {
        let now = wall_us();
        let mut change = self.begin().await?;
        let row = locked(&mut change, which).await?;
        let (old, hashes) = (rows::key(&row)?, rows::hashes(&row)?);
        fresh(asked.version, old.version)?;
        let new = asked.over(&old);
        match asked.expires_at {
            Some(Some(_)) => new.check(now)?,
            _ => new.check_without_end()?,
        }
        owners_exist(&mut change, &new).await?;
        let id = old.caller.key_id;
        let update = sql("UPDATE api_keys SET name = $2, user_id = $3, team_id = $4, scopes = $5, models = $6, \
                          expires_at = $7 WHERE id = $1")
        .bind(id)
        .bind(new.name.as_str())
        .bind(new.user)
        .bind(new.team)
        .bind(list(new.scopes.names()).as_str())
        .bind(list(new.models.iter().map(String::as_str)).as_str())
        .bind(new.expires_at);
        change.run(update).await?;
        let version = old.version + 1;
        change.run(sql("DELETE FROM token_metadata WHERE token_hash = $1").bind(hashes.0.0)).await?;
        change.run(metadata(&hashes.0, &new, version, old.created_at, now)).await?;
        outbox::limits_changed(&mut change, scope(id), version).await?;
        note(&mut change, actor, "key.update", id, &new.name, &detail(&new)).await?;
        commit(change).await?;
        let hashes = [Some(hashes.0), hashes.1].into_iter().flatten().collect();
        Ok((self.get(&KeyRef::Id(id)).await?, hashes))
    }

    /// Gives a key a new secret; the one before is good until `until_wall_us`, the one before that not any more.
    pub(in crate::identity) async fn rotate(
        &self,
        which: &KeyRef,
        until_wall_us: u64,
        once: Option<&Once>,
        actor: &Actor,
    ) -> Result<(Key, Secret, Vec<KeyHash>), StoreError> {
        let now = wall_us();
        let secret = Secret::generate().map_err(StoreError::Random)?;
        let mut change = self.begin().await?;
        let row = locked(&mut change, which).await?;
        let (old, (hash, before)) = (rows::key(&row)?, rows::hashes(&row)?);
        if old.revoked_at.is_some() {
            return Err(StoreError::Conflict { field: "id", problem: "a revoked key cannot be rotated" });
        }
        let (id, version) = (old.caller.key_id, old.version + 1);
        if let Some(before) = before {
            outbox::ends(&mut change, id, &before, now).await?;
        }
        outbox::ends(&mut change, id, &hash, until_wall_us).await?;
        change.run(sql("DELETE FROM token_metadata WHERE token_hash = $1").bind(hash.0)).await?;
        let update =
            sql("UPDATE api_keys SET key_hash = $2, key_prefix = $3, previous_hash = $4, previous_until = $5 \
                          WHERE id = $1")
            .bind(id)
            .bind(secret.hash().0)
            .bind(secret.prefix())
            .bind(hash.0)
            .bind(until_wall_us);
        change.run(update).await?;
        let same = KeyChange::default().over(&old);
        change.run(metadata(&secret.hash(), &same, version, old.created_at, now)).await?;
        once::note(&mut change, once, &hex::encode(id)).await?;
        let overlap = json!({ "previous_until": until_wall_us });
        note(&mut change, actor, "key.rotate", id, &old.caller.key_name, &overlap).await?;
        commit(change).await?;
        let hashes = [Some(hash), before].into_iter().flatten().collect();
        Ok((self.get(&KeyRef::Id(id)).await?, secret, hashes))
    }

    /// The secrets that a key has, and when it ends, to be revoked in the ledger before the row is.
    pub(in crate::identity) async fn secrets(&self, which: &KeyRef) -> Result<(Key, Vec<KeyHash>), StoreError> {
        let row = one(self.all(by(which)).await?)?;
        let (hash, previous) = rows::hashes(&row)?;
        Ok((rows::key(&row)?, [Some(hash), previous].into_iter().flatten().collect()))
    }

    /// Takes a key back, for ever; once more changes nothing.
    pub(in crate::identity) async fn revoke(&self, id: [u8; 16], actor: &Actor) -> Result<Key, StoreError> {
        let mut change = self.begin().await?;
        let update = sql("UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL");
        if change.run(update.bind(id).bind(wall_us())).await? > 0 {
            let row = one(change.all(by(&KeyRef::Id(id))).await?)?;
            note(&mut change, actor, "key.revoke", id, &row.text("name")?, &json!({})).await?;
        }
        commit(change).await?;
        self.get(&KeyRef::Id(id)).await
    }

    /// The limits of a tenant, as they are now.
    pub(in crate::identity) async fn limits_of(&self, of: Scope) -> Result<Option<TenantLimits>, StoreError> {
        match of.kind {
            ScopeKind::Key => match self.get(&KeyRef::Id(of.id)).await {
                Ok(key) => Ok(Some(key.limits.tenant(of, key.version))),
                Err(StoreError::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            },
            ScopeKind::User => Ok(self.find_user(of.id).await?.map(|user| user.limits.tenant(of, user.version))),
            ScopeKind::Team => Ok(self.find_team(of.id).await?.map(|team| team.limits.tenant(of, team.version))),
        }
    }
}

fn by(which: &KeyRef) -> Query {
    match which {
        KeyRef::Id(id) => sql("SELECT * FROM callers WHERE id = $1").bind(*id),
        KeyRef::Prefix(prefix) => sql("SELECT * FROM callers WHERE key_prefix = $1 LIMIT 2").bind(prefix.as_str()),
        KeyRef::Name(name) => sql("SELECT * FROM callers WHERE name = $1 \
                                   ORDER BY CASE WHEN revoked_at IS NULL THEN 0 ELSE 1 END, created_at DESC LIMIT 1")
        .bind(name.as_str()),
    }
}

fn one(mut rows: Vec<Row>) -> Result<Row, StoreError> {
    match rows.len() {
        0 => Err(StoreError::NotFound("key")),
        1 => Ok(rows.remove(0)),
        _ => Err(StoreError::Conflict { field: "id", problem: "several keys begin like this: use the id" }),
    }
}

/// The row of a key that nobody else can change until this change ends.
async fn locked(change: &mut Change, which: &KeyRef) -> Result<Row, StoreError> {
    let row = one(change.all(by(which)).await?)?;
    let id: [u8; 16] = row.bytes("id")?;
    // An update that changes nothing locks the row in Postgres; SQLite's write lock is taken already.
    change.run(sql("UPDATE api_keys SET name = name WHERE id = $1").bind(id)).await?;
    one(change.all(by(&KeyRef::Id(id))).await?)
}

/// A user or a team that a key is given to must be there.
async fn owners_exist(change: &mut Change, key: &NewKey) -> Result<(), StoreError> {
    if let Some(user) = key.user {
        let query = sql("SELECT id FROM users WHERE id = $1 AND disabled_at IS NULL").bind(user);
        change.first(query).await?.ok_or_else(|| StoreError::invalid("user", "there is no such user"))?;
    }
    if let Some(team) = key.team {
        let query = sql("SELECT id FROM teams WHERE id = $1 AND disabled_at IS NULL").bind(team);
        change.first(query).await?.ok_or_else(|| StoreError::invalid("team", "there is no such team"))?;
    }
    Ok(())
}

fn metadata(hash: &KeyHash, key: &NewKey, version: u64, created_at: u64, updated_at: u64) -> Query {
    let text = format!(
        "INSERT INTO token_metadata (token_hash, tier, priority, priority_ceiling, version, created_at, updated_at, \
         {LIMITS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
    );
    sql_of(text)
        .bind(hash.0)
        .bind(key.tier.as_str())
        .bind(u64::from(key.priority().0))
        .bind(u64::from(key.ceiling().0))
        .bind(version)
        .bind(created_at)
        .bind(updated_at)
        .bind_all(rows::limit_values(&key.limits))
}

fn scope(id: [u8; 16]) -> Scope {
    Scope { kind: ScopeKind::Key, id }
}

async fn note(
    change: &mut Change,
    actor: &Actor,
    action: &'static str,
    id: [u8; 16],
    name: &str,
    detail: &serde_json::Value,
) -> Result<(), StoreError> {
    audit::note(change, actor, action, Target { kind: "key", id: &hex::encode(id), name }, detail).await
}

fn detail(key: &NewKey) -> serde_json::Value {
    json!({
        "tier": key.tier, "priority": key.priority().0, "priority_ceiling": key.ceiling().0, "limits": key.limits,
        "user": key.user.map(hex::encode), "team": key.team.map(hex::encode),
        "scopes": key.scopes.names().collect::<Vec<_>>(), "models": key.models, "expires_at": key.expires_at,
    })
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    serde_json::Value::from(items.map(str::to_owned).collect::<Vec<_>>()).to_string()
}
