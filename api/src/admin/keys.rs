//! `/api/v1/admin/keys`: make, list, show and revoke API keys. A key in clear is in one answer only: its making's.

use super::Admin;
use super::error::{AdminError, json};
use super::fields::{Fields, Named};
use crate::identity::{Actor, Key, KeyRef, Limits, NewKey, PAGE, StoreError, Tier, parse_id};
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use ledger::model::{Credential, Priority, Scope, ScopeKind};
use raft::clock::wall_us;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const EXPIRES_S_MAX: u64 = 100 * 366 * 24 * 3_600;

/// A key as it is shown. Limits of 0 are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// Its first 12 characters.
    pub prefix: String,
    /// Its name.
    pub name: String,
    /// Its class.
    pub tier: Tier,
    /// How urgent its requests are.
    pub priority: u8,
    /// How far they may raise themselves.
    pub priority_ceiling: u8,
    /// Requests each second.
    pub rps: u64,
    /// Requests each minute.
    pub rpm: u64,
    /// Requests that may come at once, where it is not the default.
    pub burst_requests: u64,
    /// Tokens each minute.
    pub tpm: u64,
    /// Tokens that may come at once, where it is not the default.
    pub burst_tokens: u64,
    /// Requests in flight.
    pub concurrency: u64,
    /// Tokens each day.
    pub tokens_per_day: u64,
    /// The models that it may use; none means all.
    pub models: Vec<String>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When it ends.
    pub expires_at: Option<String>,
    /// When it was taken back.
    pub revoked_at: Option<String>,
}

impl From<&Key> for KeyView {
    fn from(key: &Key) -> Self {
        let (caller, limits) = (&key.caller, key.limits);
        Self {
            id: hex::encode(caller.key_id),
            prefix: caller.key_prefix.to_string(),
            name: caller.key_name.to_string(),
            tier: caller.tier,
            priority: caller.priority.0,
            priority_ceiling: caller.ceiling.0,
            rps: limits.rps,
            rpm: limits.rpm,
            burst_requests: limits.burst_requests,
            tpm: limits.tpm,
            burst_tokens: limits.burst_tokens,
            concurrency: limits.concurrency,
            tokens_per_day: limits.tokens_per_day,
            models: caller.models.iter().map(str::to_owned).collect(),
            created_at: moment(key.created_at),
            expires_at: caller.expires_at.map(moment),
            revoked_at: key.revoked_at.map(moment),
        }
    }
}

#[derive(Serialize)]
struct Created<'a> {
    key: &'a str,
    #[serde(flatten)]
    view: KeyView,
}

pub(super) async fn create(State(admin): State<Admin>, request: Request) -> Result<Response, AdminError> {
    let new = read(Fields::of_body(request.into_body()).await?)?;
    let (key, secret) = admin.identity.create_key(&new, None, &Actor::root()).await?;
    let view = KeyView::from(&key);
    tracing::info!(key_id = %view.id, name = %view.name, "an API key was made");
    Ok(json(StatusCode::CREATED, &Created { key: secret.expose(), view }))
}

pub(super) async fn list(State(admin): State<Admin>, request: Request) -> Result<Response, AdminError> {
    let mut fields = Fields::of_query(request.uri())?;
    let (revoked, after) = (fields.flag("revoked")?, fields.text("after")?);
    fields.done()?;
    let after = match after {
        None => None,
        Some(text) => {
            let unknown = || AdminError::invalid("after", "must be the id of a key");
            let id = parse_id(&text).ok_or_else(unknown)?;
            Some(admin.identity.key(&KeyRef::Id(id)).await.map_err(|error| match AdminError::from(error) {
                AdminError::NotFound(_) => unknown(),
                other => other,
            })?)
        }
    };
    let keys = admin.identity.list_keys(revoked, after.map(|key| key.caller.key_id)).await?;
    let keys: Vec<KeyView> = keys.iter().map(KeyView::from).collect();
    let next = if keys.len() == PAGE as usize { keys.last().map(|key| key.id.clone()) } else { None };
    Ok(json(StatusCode::OK, &serde_json::json!({ "keys": keys, "next": next })))
}

pub(super) async fn show(State(admin): State<Admin>, Named(which): Named) -> Result<Response, AdminError> {
    let key = admin.identity.key(&KeyRef::parse(&which)?).await?;
    Ok(json(StatusCode::OK, &KeyView::from(&key)))
}

pub(super) async fn revoke(State(admin): State<Admin>, Named(which): Named) -> Result<Response, AdminError> {
    let which = KeyRef::parse(&which)?;
    let (id, expires_at, hashes) = match (admin.identity.key_to_revoke(&which).await, &which) {
        (Ok((caller, hashes)), _) => (caller.key_id, caller.expires_at, hashes),
        // With the id the ledger needs no more.
        (Err(StoreError::Down(_)), KeyRef::Id(id)) => (*id, None, Vec::new()),
        (Err(error), _) => return Err(error.into()),
    };
    let key = Credential::Scope(Scope { kind: ScopeKind::Key, id });
    let secrets = hashes.iter().map(|hash| Credential::Hash(hash.0));
    // The ledger first: it beats every store, whatever becomes of them.
    admin.revoker.revoke(secrets.chain([key]).collect(), expires_at).await?;
    admin.identity.heed();
    match admin.identity.revoke_key(&KeyRef::Id(id), &Actor::root()).await {
        Ok(key) => Ok(json(StatusCode::OK, &KeyView::from(&key))),
        Err(StoreError::Down(_) | StoreError::Indeterminate(_)) => {
            admin.identity.revoke_later(id, Actor::root());
            let now = moment(wall_us());
            Ok(json(
                StatusCode::OK,
                &serde_json::json!({ "id": hex::encode(id), "revoked_at": now, "pending": "database" }),
            ))
        }
        Err(error) => Err(error.into()),
    }
}

fn read(mut fields: Fields) -> Result<NewKey, AdminError> {
    let name = fields.text("name")?.ok_or_else(|| AdminError::invalid("name", "is missing"))?;
    let mut new = NewKey::named(&name);
    if let Some(tier) = fields.text("tier")? {
        let names = Tier::ALL.map(Tier::as_str).join(", ");
        new.tier = Tier::parse(&tier).ok_or_else(|| AdminError::invalid("tier", format!("must be one of {names}")))?;
    }
    new.priority = priority(&mut fields, "priority")?;
    new.ceiling = priority(&mut fields, "priority_ceiling")?;
    new.limits = Limits {
        rps: fields.limit("rps")?.unwrap_or(0),
        rpm: fields.limit("rpm")?.unwrap_or(0),
        burst_requests: fields.limit("burst_requests")?.unwrap_or(0),
        tpm: fields.limit("tpm")?.unwrap_or(0),
        burst_tokens: fields.limit("burst_tokens")?.unwrap_or(0),
        concurrency: fields.limit("concurrency")?.unwrap_or(0),
        tokens_per_day: fields.limit("tokens_per_day")?.unwrap_or(0),
        budget_nano_usd: 0,
    };
    new.models = fields.texts("models")?;
    new.expires_at = match fields.whole("expires_in_s", EXPIRES_S_MAX)? {
        Some(0) => return Err(AdminError::invalid("expires_in_s", "must be at least 1")),
        seconds => seconds.map(|seconds| wall_us() + seconds * 1_000_000),
    };
    fields.done()?;
    Ok(new)
}

fn priority(fields: &mut Fields, field: &str) -> Result<Option<Priority>, AdminError> {
    Ok(fields.whole(field, 9)?.and_then(|level| u8::try_from(level).ok()).map(Priority))
}

/// A moment of the wall clock as people write it.
pub(super) fn moment(wall_us: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall_us) * 1_000).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}
