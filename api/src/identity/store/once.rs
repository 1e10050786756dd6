//! POST requests that carry an Idempotency-Key: done once, answered again.
//!
//! What is kept of an answer holds no secret: a key in clear is in its maker's first answer only.

use super::{Store, StoreError};
use crate::identity::database::Change;
use crate::identity::sql::sql;
use raft::clock::wall_us;
use sha2::{Digest, Sha256};

/// How long an answer is kept.
const KEPT_US: u64 = 24 * 3_600 * 1_000_000;

/// A request that is to be done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Once {
    key: [u8; 32],
    request: [u8; 32],
}

impl Once {
    /// The request of a caller under a key of the caller's choice.
    pub fn new(caller: &str, key: &str, request: &[u8]) -> Self {
        let mut of_key = Sha256::new();
        of_key.update(caller.as_bytes());
        of_key.update([0]);
        of_key.update(key.as_bytes());
        Self { key: of_key.finalize().into(), request: Sha256::digest(request).into() }
    }
}

impl Store {
    /// The answer that was given already: the id of what was made.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the key was used for another request.
    pub(in crate::identity) async fn done(&self, once: &Once) -> Result<Option<String>, StoreError> {
        let query = sql("SELECT request_hash, answer FROM idempotency WHERE key_hash = $1 AND created_at > $2")
            .bind(once.key)
            .bind(wall_us().saturating_sub(KEPT_US));
        let Some(row) = self.database.first(query).await? else { return Ok(None) };
        if row.bytes::<32>("request_hash")? != once.request {
            let problem = "was used for another request";
            return Err(StoreError::Conflict { field: "Idempotency-Key", problem });
        }
        Ok(Some(row.text("answer")?))
    }
}

/// Notes what was made, in the transaction that makes it. Of two at once, the second waits for the first and then
/// fails on the row.
pub(super) async fn note(change: &mut Change, once: Option<&Once>, made: &str) -> Result<(), StoreError> {
    let Some(once) = once else { return Ok(()) };
    let now = wall_us();
    let old = sql("DELETE FROM idempotency WHERE created_at <= $1").bind(now.saturating_sub(KEPT_US));
    change.run(old).await?;
    let insert = sql("INSERT INTO idempotency (key_hash, request_hash, status, answer, created_at) \
                      VALUES ($1, $2, 201, $3, $4) ON CONFLICT (key_hash) DO NOTHING")
    .bind(once.key)
    .bind(once.request)
    .bind(made)
    .bind(now);
    if change.run(insert).await? == 0 {
        let problem = "another request with it is running or was just done: ask again";
        return Err(StoreError::Conflict { field: "Idempotency-Key", problem });
    }
    Ok(())
}
