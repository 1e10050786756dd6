//! The admin routes: keys, users, teams, usage, pools and the cluster's state as JSON, behind an admin's key.

mod cluster;
mod error;
mod fields;
mod keys;
mod people;
mod pools;
mod table;
mod usage;
mod view;
mod who;

pub use error::AdminError;
pub use keys::KeyView;
pub use view::{
    ClusterChange, ClusterNode, ClusterStatus, ClusterView, PoolAdmin, PoolChange, PoolUsage, PoolView, Revoker,
};

use crate::identity::{Identity, KeyHash};
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::any;
use std::sync::Arc;

/// What the admin routes work on.
#[derive(Clone)]
pub struct Admin {
    /// Who may use them.
    pub key: AdminKey,
    /// Keys and usage rows.
    pub identity: Identity,
    /// Pools, in the ledger.
    pub pools: Arc<dyn PoolAdmin>,
    /// Revocations, in the ledger.
    pub revoker: Arc<dyn Revoker>,
    /// The group.
    pub cluster: Arc<dyn ClusterView>,
}

/// The admin key, of which only the hash is kept.
#[derive(Clone, Debug)]
pub struct AdminKey(KeyHash);

impl AdminKey {
    /// Keeps the hash of the configured key.
    pub fn new(secret: &str) -> Self {
        Self(KeyHash::of(secret))
    }

    /// Whether this is the key; in constant time.
    pub fn is(&self, presented: &str) -> bool {
        self.0 == KeyHash::of(presented)
    }
}

/// All routes under `/api/v1/admin`; nothing is answered, or read, without an admin's key.
pub fn router(admin: Admin) -> Router {
    table::router()
        .route("/api/v1/admin", any(unknown))
        .route("/api/v1/admin/{*rest}", any(unknown))
        .method_not_allowed_fallback(async || AdminError::MethodNotAllowed)
        .layer(from_fn_with_state(admin.clone(), who::authorize))
        .with_state(admin)
}

async fn unknown() -> AdminError {
    AdminError::NotFound("route".to_owned())
}

#[cfg(test)]
mod tests;
