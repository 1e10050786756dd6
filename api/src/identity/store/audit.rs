//! Who changed what: one row in the transaction of the change itself. No row holds a secret.

use super::{PAGE, Store, StoreError};
use crate::identity::database::Change;
use crate::identity::sql::sql;
use raft::clock::wall_us;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who makes a change, as people read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(String);

impl Actor {
    /// The holder of the configured admin key.
    pub fn root() -> Self {
        Self("admin key".to_owned())
    }

    /// The node itself.
    pub fn node() -> Self {
        Self("node".to_owned())
    }

    /// An admin with a key of their own.
    pub fn user(name: &str, key_prefix: &str) -> Self {
        Self(format!("{name} ({key_prefix})"))
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Its number, in the order of changes.
    pub id: u64,
    /// When, in microseconds of the wall clock.
    pub at: u64,
    /// Who.
    pub actor: String,
    /// What was done, as `key.create`.
    pub action: String,
    /// `key`, `user`, `team` or `price`.
    pub target_kind: String,
    /// Its id.
    pub target_id: String,
    /// Its name.
    pub target_name: String,
    /// What was set, as JSON.
    pub detail: serde_json::Value,
}

/// What a change was made to.
pub(super) struct Target<'a> {
    pub(super) kind: &'static str,
    pub(super) id: &'a str,
    pub(super) name: &'a str,
}

/// Notes a change beside it.
pub(super) async fn note(
    change: &mut Change,
    actor: &Actor,
    action: &'static str,
    target: Target<'_>,
    detail: &serde_json::Value,
) -> Result<(), StoreError> {
    let insert = sql("INSERT INTO audit_events (at, actor, action, target_kind, target_id, target_name, detail) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7)")
    .bind(wall_us())
    .bind(actor.0.as_str())
    .bind(action)
    .bind(target.kind)
    .bind(target.id)
    .bind(target.name)
    .bind(detail.to_string().as_str());
    change.run(insert).await?;
    tracing::info!(%actor, action, target_id = target.id, target_name = target.name, "changed");
    Ok(())
}

impl Store {
    /// One page of changes, the latest first, those before `before` only.
    pub(in crate::identity) async fn audit(&self, before: Option<u64>) -> Result<Vec<AuditEvent>, StoreError> {
        let query = sql("SELECT * FROM audit_events WHERE id < $1 ORDER BY id DESC LIMIT $2")
            .bind(before.unwrap_or(u64::MAX))
            .bind(u64::from(PAGE));
        let read = |row: &crate::identity::sql::Row| -> Result<AuditEvent, StoreError> {
            Ok(AuditEvent {
                id: row.whole("id")?,
                at: row.whole("at")?,
                actor: row.text("actor")?,
                action: row.text("action")?,
                target_kind: row.text("target_kind")?,
                target_id: row.text("target_id")?,
                target_name: row.text("target_name")?,
                detail: serde_json::from_str(&row.text("detail")?).unwrap_or_default(),
            })
        };
        self.all(query).await?.iter().map(read).collect()
    }
}
