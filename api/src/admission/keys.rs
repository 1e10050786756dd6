//! The ledger's word on keys: what is revoked, which limits are newer, and how both get there.
//!
//! A revocation is proposed here before any database hears of it. Changed limits come through the outbox: the database
//! has them first, and the leader tells the ledger.

use crate::admin::{AdminError, Revoker};
use crate::identity::{Identity, OutboxRow, Told, Verdicts};
use futures_util::future::BoxFuture;
use ledger::entry::Op;
use ledger::model::{Credential, Scope, TenantLimits};
use raft::{Leader, Unproposed};
use std::sync::Arc;
use std::time::Duration;

/// How often the leader looks into the outbox.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const DAY_US: u64 = 86_400_000_000;
/// How long a revocation is remembered after the key's own end.
const REMEMBERED_DAYS: u64 = 366;

/// The way to the ledger for what concerns keys. Clones share it.
#[derive(Clone, Debug)]
pub struct KeyLedger {
    leader: Leader,
}

impl KeyLedger {
    pub(super) fn new(leader: Leader) -> Self {
        Self { leader }
    }

    async fn revoke_all(&self, what: Vec<Credential>, expires_wall_us: Option<u64>) -> Result<(), AdminError> {
        let until_day = expires_wall_us.map_or(u64::MAX, |at| at / DAY_US + REMEMBERED_DAYS);
        let ops = what.into_iter().map(|credential| Op::Revoke { credential, until_day }).collect();
        self.propose(ops).await.map_err(|error| match error {
            Unproposed::NotLeader { .. } | Unproposed::Stopped(_) => AdminError::Unavailable("the ledger".to_owned()),
            Unproposed::Indeterminate => AdminError::Indeterminate("the ledger may have revoked it".to_owned()),
        })
    }

    /// Keeps memory in step with the ledger: what it revokes is dropped when this node applies it.
    pub async fn follow(self, identity: Identity) {
        let mut changes = self.leader.group().with_machine(raft::Replica::changes);
        identity.attach(Arc::new(self));
        while changes.changed().await.is_ok() {
            identity.heed();
        }
    }

    /// While this node leads, tells the ledger what the outbox holds.
    pub async fn tell(self, identity: Identity) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.leader.group().leadership().borrow().is_leader || identity.database_is_down() {
                continue;
            }
            if let Err(error) = self.empty(&identity).await {
                tracing::warn!(error, "the ledger is not told of all changes yet");
            }
        }
    }

    async fn empty(&self, identity: &Identity) -> Result<(), String> {
        for OutboxRow { id, what } in identity.outbox().await.map_err(|error| error.to_string())? {
            let op = match what {
                Told::Ended(hash) => Some(Op::Revoke { credential: Credential::Hash(hash.0), until_day: u64::MAX }),
                Told::Limits(scope) => {
                    let limits = identity.limits_of(scope).await.map_err(|error| error.to_string())?;
                    // Of the first version nobody can have an older one.
                    limits.filter(|limits| limits.version > 1).map(|limits| Op::SetTenant { limits })
                }
            };
            if let Some(op) = op {
                self.propose(vec![op]).await.map_err(|error| error.to_string())?;
            }
            identity.heard(id).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn propose(&self, ops: Vec<Op>) -> Result<(), Unproposed> {
        self.leader.propose(ops).await.map(drop)
    }
}

impl Revoker for KeyLedger {
    fn revoke(&self, what: Vec<Credential>, expires_wall_us: Option<u64>) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(self.revoke_all(what, expires_wall_us))
    }
}

impl Verdicts for KeyLedger {
    fn is_revoked(&self, hash: &[u8; 32], scopes: &[Scope]) -> bool {
        self.leader
            .with_state(|state| state.is_revoked(hash) || scopes.iter().any(|scope| state.is_scope_revoked(*scope)))
    }

    fn newer_limits(&self, scope: Scope, version: u64) -> Option<TenantLimits> {
        self.leader.with_state(|state| state.limits_of(scope)).filter(|limits| limits.version > version)
    }
}
