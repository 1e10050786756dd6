//! The admin routes: keys, usage, pools and the cluster's state as JSON, behind the admin key.

mod cluster;
mod error;
mod fields;
mod keys;
mod pools;
mod usage;
mod view;

pub use error::AdminError;
pub use keys::KeyView;
pub use view::{
    ClusterChange, ClusterNode, ClusterStatus, ClusterView, PoolAdmin, PoolChange, PoolUsage, PoolView, Revoker,
};

use crate::identity::{Identity, KeyHash};
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use http::header::AUTHORIZATION;
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

/// All routes under `/api/v1/admin`; nothing is answered, or read, without the admin key.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/api/v1/admin/keys", get(keys::list).post(keys::create))
        .route("/api/v1/admin/keys/{key}", get(keys::show).delete(keys::revoke))
        .route("/api/v1/admin/usage", get(usage::rows))
        .route("/api/v1/admin/pools", get(pools::list))
        .route("/api/v1/admin/pools/{*model}", get(pools::show).put(pools::set).delete(pools::remove))
        .route("/api/v1/admin/cluster", get(cluster::status))
        .route("/api/v1/admin/cluster/members", post(cluster::add))
        .route("/api/v1/admin/cluster/members/{id}", delete(cluster::remove))
        .route("/api/v1/admin/cluster/members/{id}/promote", post(cluster::promote))
        .route("/api/v1/admin/cluster/leader", post(cluster::transfer))
        .route("/api/v1/admin", any(unknown))
        .route("/api/v1/admin/{*rest}", any(unknown))
        .method_not_allowed_fallback(async || AdminError::MethodNotAllowed)
        .layer(from_fn_with_state(admin.key.clone(), authorize))
        .with_state(admin)
}

async fn authorize(State(key): State<AdminKey>, request: Request, next: Next) -> Response {
    let presented = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let presented = presented.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| is_bearer(scheme));
    match presented {
        Some((_, presented)) if key.is(presented.trim()) => next.run(request).await,
        _ => AdminError::Unauthorized.into_response(),
    }
}

fn is_bearer(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("bearer")
}

async fn unknown() -> AdminError {
    AdminError::NotFound("route".to_owned())
}

#[cfg(test)]
mod tests;
