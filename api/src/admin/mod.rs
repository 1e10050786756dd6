//! The admin routes: keys, usage, pools and the cluster's state as JSON, behind the admin key.

mod view;

pub use view::{AdminError, ClusterNode, ClusterStatus, ClusterView, PoolAdmin, PoolChange, PoolUsage, PoolView};

use crate::identity::Identity;
use axum::Router;
use std::sync::Arc;

/// What the admin routes work on.
#[derive(Clone)]
pub struct Admin {
    /// Keys and usage rows.
    pub identity: Identity,
    /// Pools, in the ledger.
    pub pools: Arc<dyn PoolAdmin>,
    /// The group.
    pub cluster: Arc<dyn ClusterView>,
}

/// All routes under `/api/v1/admin`.
pub fn router(_admin: Admin) -> Router {
    Router::new()
}
