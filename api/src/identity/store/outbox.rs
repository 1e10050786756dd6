//! What the ledger is still to hear of: written beside each change, taken out by the leader once the ledger knows.

use super::{Store, StoreError};
use crate::identity::database::Change;
use crate::identity::secret::KeyHash;
use crate::identity::sql::sql;
use ledger::model::{Scope, ScopeKind};
use raft::clock::wall_us;

/// Rows that the leader takes at once.
const BATCH: u64 = 200;

/// Something that the ledger is to hear.
#[derive(Clone, Debug)]
pub(crate) struct OutboxRow {
    pub(crate) id: u64,
    pub(crate) what: Told,
}

/// What the ledger is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The limits of a tenant have changed.
    Limits(Scope),
    /// A secret of a key ends.
    Ended(KeyHash),
}

pub(super) async fn limits_changed(change: &mut Change, scope: Scope, version: u64) -> Result<(), StoreError> {
    let insert =
        sql("INSERT INTO outbox (kind, scope_kind, scope_id, version, created_at) VALUES ('limits', $1, $2, $3, $4)")
            .bind(kind(scope.kind))
            .bind(scope.id)
            .bind(version)
            .bind(wall_us());
    change.run(insert).await?;
    Ok(())
}

/// Has the ledger refuse a secret from `due_wall_us` on.
pub(super) async fn ends(
    change: &mut Change,
    key: [u8; 16],
    hash: &KeyHash,
    due_wall_us: u64,
) -> Result<(), StoreError> {
    let insert = sql("INSERT INTO outbox (kind, scope_kind, scope_id, version, created_at, key_hash, due_at) \
                      VALUES ('revoke', 'key', $1, 0, $2, $3, $4)")
    .bind(key)
    .bind(wall_us())
    .bind(hash.0)
    .bind(due_wall_us);
    change.run(insert).await?;
    Ok(())
}

impl Store {
    /// What is due, the oldest first.
    pub(in crate::identity) async fn outbox(&self) -> Result<Vec<OutboxRow>, StoreError> {
        let query =
            sql("SELECT id, kind, scope_kind, scope_id, key_hash FROM outbox WHERE due_at <= $1 ORDER BY id LIMIT $2")
                .bind(wall_us())
                .bind(BATCH);
        let rows = self.all(query).await?;
        rows.iter()
            .map(|row| {
                let what = match row.optional_bytes("key_hash")? {
                    Some(hash) => Told::Ended(KeyHash(hash)),
                    None => {
                        Told::Limits(Scope { kind: parse_kind(&row.text("scope_kind")?)?, id: row.bytes("scope_id")? })
                    }
                };
                Ok(OutboxRow { id: row.whole("id")?, what })
            })
            .collect()
    }

    /// Takes out what the ledger has heard.
    pub(in crate::identity) async fn heard(&self, id: u64) -> Result<(), StoreError> {
        self.database.run(sql("DELETE FROM outbox WHERE id = $1").bind(id)).await?;
        Ok(())
    }
}

pub(super) fn kind(kind: ScopeKind) -> &'static str {
    match kind {
        ScopeKind::Key => "key",
        ScopeKind::User => "user",
        ScopeKind::Team => "team",
    }
}

fn parse_kind(name: &str) -> Result<ScopeKind, StoreError> {
    match name {
        "key" => Ok(ScopeKind::Key),
        "user" => Ok(ScopeKind::User),
        "team" => Ok(ScopeKind::Team),
        other => Err(StoreError::Corrupt(format!("scope_kind {other}"))),
    }
}
