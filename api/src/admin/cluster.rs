//! `/api/v1/admin/cluster`: who is in the group, where each member stands, and changes of that.

use super::fields::{Fields, Named};
use super::{Admin, AdminError, ClusterChange, ClusterStatus};
use axum::Json;
use axum::body::Body;
use axum::extract::State;

type Changed = Result<Json<ClusterStatus>, AdminError>;

pub(super) async fn status(State(admin): State<Admin>) -> Json<ClusterStatus> {
    Json(admin.cluster.status().await)
}

pub(super) async fn add(State(admin): State<Admin>, body: Body) -> Changed {
    let mut fields = Fields::of_body(body).await?;
    let (id, addr) = (fields.limit("id")?, fields.text("addr")?);
    fields.done()?;
    let id = id.filter(|&id| id > 0).ok_or_else(|| AdminError::invalid("id", "ids begin with 1"))?;
    let addr = addr.unwrap_or_default();
    let port = addr.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>()));
    if !matches!(port, Some(Ok(_))) {
        return Err(AdminError::invalid("addr", "is not HOST:PORT, as in 10.0.0.1:7081"));
    }
    admin.cluster.change(ClusterChange::Add { id, addr }).await.map(Json)
}

pub(super) async fn promote(State(admin): State<Admin>, Named(id): Named) -> Changed {
    admin.cluster.change(ClusterChange::Promote(member(&id)?)).await.map(Json)
}

pub(super) async fn remove(State(admin): State<Admin>, Named(id): Named) -> Changed {
    admin.cluster.change(ClusterChange::Remove(member(&id)?)).await.map(Json)
}

/// Any other voter, when none is named.
pub(super) async fn transfer(State(admin): State<Admin>, body: Body) -> Changed {
    let mut fields = Fields::of_body(body).await?;
    let id = fields.limit("id")?;
    fields.done()?;
    admin.cluster.change(ClusterChange::Transfer(id)).await.map(Json)
}

/// The member that the address names.
fn member(id: &str) -> Result<u64, AdminError> {
    id.parse().map_err(|_| AdminError::invalid("id", "must be the id of a node, a whole number"))
}
