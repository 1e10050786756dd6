//! `/api/v1/admin/keys`: make, list, show, change, rotate and revoke API keys. A key in clear is in one answer only.

use super::Admin;
use super::error::{AdminError, json};
use super::fields::{Fields, Named, version};
use super::people::{team_id, user_id};
use super::who::Who;
use crate::identity::{Key, KeyChange, KeyRef, NewKey, Once, PAGE, RouteGroup, Scopes, StoreError, Tier, parse_id};
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use ledger::model::{Credential, Priority, Scope, ScopeKind};
use raft::clock::wall_us;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How long the secret before a rotation is good when nobody says, and at most.
const OVERLAP_S: u64 = 24 * 3_600;
const OVERLAP_S_MAX: u64 = 90 * 24 * 3_600;
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
    /// Money each month, in billionths of a US dollar.
    pub budget_nano_usd: u64,
    /// Id of its user.
    pub user_id: Option<String>,
    /// Name of its user.
    pub user: Option<String>,
    /// Id of its team, or of its user's.
    pub team_id: Option<String>,
    /// Name of that team.
    pub team: Option<String>,
    /// The groups of routes that it may use; none means all but the admin routes.
    pub scopes: Vec<String>,
    /// The models that it may use; none means all.
    pub models: Vec<String>,
    /// Raised with every change.
    pub version: u64,
    /// While a rotation's overlap lasts: when the secret before ends.
    pub previous_until: Option<String>,
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
            budget_nano_usd: limits.budget_nano_usd,
            user_id: caller.user.map(hex::encode),
            user: key.user_name.clone(),
            team_id: caller.team.map(hex::encode),
            team: key.team_name.clone(),
            scopes: caller.scopes.names().map(str::to_owned).collect(),
            models: caller.models.iter().map(str::to_owned).collect(),
            version: key.version,
            previous_until: key.previous_until.filter(|until| *until > wall_us()).map(moment),
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

pub(super) async fn create(State(admin): State<Admin>, who: Who, request: Request) -> Result<Response, AdminError> {
    let (head, body) = request.into_parts();
    let (mut fields, bytes) = Fields::with_bytes(body).await?;
    let once = who.once(&head.headers, "keys", &bytes)?;
    if let Some(answer) = done(&admin, once.as_ref()).await? {
        return Ok(answer);
    }
    let mut new = NewKey::named(&fields.text("name")?.ok_or_else(|| AdminError::invalid("name", "is missing"))?);
    let change = change(&admin, &who, &mut fields).await?;
    fields.done()?;
    new.tier = change.tier.unwrap_or(new.tier);
    (new.priority, new.ceiling) = (change.priority, change.ceiling);
    new.limits = change.limits.over(new.limits);
    (new.user, new.team) = (change.user.flatten(), change.team.flatten());
    new.scopes = change.scopes.unwrap_or_default();
    new.models = change.models.unwrap_or_default();
    new.expires_at = change.expires_at.flatten();
    let (key, secret) = admin.identity.create_key(&new, once.as_ref(), &who.actor).await?;
    Ok(json(StatusCode::CREATED, &Created { key: secret.expose(), view: KeyView::from(&key) }))
}

/// The answer to a request that was done already. The key in clear was in the first answer only: who lost that one
/// rotates the key.
async fn done(admin: &Admin, once: Option<&Once>) -> Result<Option<Response>, AdminError> {
    let Some(once) = once else { return Ok(None) };
    let Some(id) = admin.identity.done(once).await? else { return Ok(None) };
    let key = admin.identity.key(&KeyRef::parse(&id)?).await?;
    Ok(Some(json(StatusCode::OK, &KeyView::from(&key))))
}

pub(super) async fn update(
    State(admin): State<Admin>,
    who: Who,
    Named(which): Named,
    request: Request,
) -> Result<Response, AdminError> {
    let (head, body) = request.into_parts();
    let mut fields = Fields::of_body(body).await?;
    let now = admin.identity.key(&KeyRef::parse(&which)?).await?;
    who.may_change_key(&now)?;
    let name = fields.text("name")?;
    let version = version(&mut fields, &head.headers)?;
    let change = KeyChange { name, version, ..change(&admin, &who, &mut fields).await? };
    fields.done()?;
    let key = admin.identity.update_key(&KeyRef::Id(now.caller.key_id), &change, &who.actor).await?;
    Ok(json(StatusCode::OK, &KeyView::from(&key)))
}

pub(super) async fn rotate(
    State(admin): State<Admin>,
    who: Who,
    Named(which): Named,
    request: Request,
) -> Result<Response, AdminError> {
    let (head, body) = request.into_parts();
    let (mut fields, bytes) = Fields::with_bytes(body).await?;
    let once = who.once(&head.headers, &format!("rotate {which}"), &bytes)?;
    if let Some(answer) = done(&admin, once.as_ref()).await? {
        return Ok(answer);
    }
    let overlap_s = fields.whole("overlap_s", OVERLAP_S_MAX)?.unwrap_or(OVERLAP_S);
    fields.done()?;
    let now = admin.identity.key(&KeyRef::parse(&which)?).await?;
    who.may_change_key(&now)?;
    let until = wall_us() + overlap_s * 1_000_000;
    let id = KeyRef::Id(now.caller.key_id);
    let (key, secret) = admin.identity.rotate_key(&id, until, once.as_ref(), &who.actor).await?;
    Ok(json(StatusCode::OK, &Created { key: secret.expose(), view: KeyView::from(&key) }))
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

pub(super) async fn revoke(State(admin): State<Admin>, who: Who, Named(which): Named) -> Result<Response, AdminError> {
    let which = KeyRef::parse(&which)?;
    let (id, expires_at, hashes) = match (admin.identity.key_to_revoke(&which).await, &which) {
        (Ok((caller, hashes)), _) => {
            who.may_change_caller(&caller)?;
            (caller.key_id, caller.expires_at, hashes)
        }
        // With the id the ledger needs no more.
        (Err(StoreError::Down(_)), KeyRef::Id(id)) => {
            who.root("while the database is down only a root_admin revokes a key that nobody knows")?;
            (*id, None, Vec::new())
        }
        (Err(error), _) => return Err(error.into()),
    };
    let key = Credential::Scope(Scope { kind: ScopeKind::Key, id });
    let secrets = hashes.iter().map(|hash| Credential::Hash(hash.0));
    // The ledger first: it beats every store, whatever becomes of them.
    admin.revoker.revoke(secrets.chain([key]).collect(), expires_at).await?;
    admin.identity.heed();
    match admin.identity.revoke_key(&KeyRef::Id(id), &who.actor).await {
        Ok(key) => Ok(json(StatusCode::OK, &KeyView::from(&key))),
        Err(StoreError::Down(_) | StoreError::Indeterminate(_)) => {
            admin.identity.revoke_later(id, who.actor);
            let now = moment(wall_us());
            Ok(json(
                StatusCode::OK,
                &serde_json::json!({ "id": hex::encode(id), "revoked_at": now, "pending": "database" }),
            ))
        }
        Err(error) => Err(error.into()),
    }
}

/// What a request says of a key, beside its name and its version.
async fn change(admin: &Admin, who: &Who, fields: &mut Fields) -> Result<KeyChange, AdminError> {
    let mut change = KeyChange { limits: fields.limits()?, ..KeyChange::default() };
    if let Some(tier) = fields.text("tier")? {
        let names = Tier::ALL.map(Tier::as_str).join(", ");
        let tier = Tier::parse(&tier).ok_or_else(|| AdminError::invalid("tier", format!("must be one of {names}")))?;
        change.tier = Some(tier);
    }
    change.priority = priority(fields, "priority")?;
    change.ceiling = priority(fields, "priority_ceiling")?;
    if fields.has("scopes") {
        let scopes = Scopes::parse(fields.texts("scopes")?)?;
        if scopes.allows(RouteGroup::Admin) {
            who.root("only a root_admin gives the scope admin")?;
        }
        change.scopes = Some(scopes);
    }
    if fields.has("models") {
        change.models = Some(fields.texts("models")?);
    }
    if fields.has("expires_in_s") {
        change.expires_at = Some(match fields.whole("expires_in_s", EXPIRES_S_MAX)? {
            Some(0) => return Err(AdminError::invalid("expires_in_s", "must be at least 1, or null for never")),
            seconds => seconds.map(|seconds| wall_us() + seconds * 1_000_000),
        });
    }
    change.user = match fields.nullable_text("user")? {
        Some(Some(user)) => Some(Some(user_id(admin, who, &user).await?)),
        other => other.map(|_| None),
    };
    change.team = match fields.nullable_text("team")? {
        Some(Some(team)) => Some(Some(team_id(admin, &team).await?)),
        other => other.map(|_| None),
    };
    Ok(change)
}

fn priority(fields: &mut Fields, field: &str) -> Result<Option<Priority>, AdminError> {
    Ok(fields.whole(field, 9)?.and_then(|level| u8::try_from(level).ok()).map(Priority))
}

/// A moment of the wall clock as people write it.
pub(super) fn moment(wall_us: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall_us) * 1_000).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}
