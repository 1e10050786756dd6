//! `/api/v1/admin/pools`: what the ledger says through [`PoolAdmin`].
//!
//! [`PoolAdmin`]: super::PoolAdmin

use super::Admin;
use super::error::{AdminError, json};
use super::fields::{Fields, Named};
use super::view::PoolChange;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;

const NAME_CHARS_MAX: usize = 200;

pub(super) async fn list(State(admin): State<Admin>) -> Result<Response, AdminError> {
    let pools = admin.pools.list().await?;
    Ok(json(StatusCode::OK, &serde_json::json!({ "pools": pools })))
}

pub(super) async fn show(State(admin): State<Admin>, Named(pool): Named) -> Result<Response, AdminError> {
    let found = admin.pools.list().await?.into_iter().find(|view| view.model == pool);
    Ok(json(StatusCode::OK, &found.ok_or_else(|| AdminError::NotFound("pool".to_owned()))?))
}

pub(super) async fn set(
    State(admin): State<Admin>,
    Named(pool): Named,
    request: Request,
) -> Result<Response, AdminError> {
    let chars = pool.chars().count();
    if chars > NAME_CHARS_MAX || pool.chars().any(char::is_control) || pool.matches('*').count() > 1 {
        let problem = format!("must be a model or a pattern with one `*`, of at most {NAME_CHARS_MAX} characters");
        return Err(AdminError::invalid("model", problem));
    }
    let change = read(Fields::of_body(request.into_body()).await?)?;
    let view = admin.pools.set(pool, change).await?;
    tracing::info!(pool = %view.model, ?change, "limits of a pool were set");
    Ok(json(StatusCode::OK, &view))
}

pub(super) async fn remove(State(admin): State<Admin>, Named(pool): Named) -> Result<Response, AdminError> {
    admin.pools.remove(pool.clone()).await?;
    tracing::info!(%pool, "limits of a pool were removed");
    Ok(json(StatusCode::OK, &serde_json::json!({ "model": pool, "removed": true })))
}

fn read(mut fields: Fields) -> Result<PoolChange, AdminError> {
    let change = PoolChange {
        tokens_per_sec: fields.limit("tokens_per_sec")?,
        tokens_per_min: fields.limit("tokens_per_min")?,
        rps: fields.limit("rps")?,
        rpm: fields.limit("rpm")?,
        concurrent: fields.limit("concurrent")?,
        context: fields.limit("context")?,
        burst_tokens: fields.limit("burst_tokens")?,
        burst_requests: fields.limit("burst_requests")?,
    };
    fields.done()?;
    if change == PoolChange::default() {
        return Err(AdminError::invalid("body", "names nothing to change"));
    }
    change.check()?;
    Ok(change)
}
