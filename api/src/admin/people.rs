//! `/api/v1/admin/users` and `/teams`: make, list, show, change and remove.

use super::Admin;
use super::error::{AdminError, json};
use super::fields::{Fields, Named as Path, version};
use super::keys::moment;
use super::who::Who;
use crate::identity::{
    Limits, Named, NewTeam, NewUser, PAGE, Role, StoreError, Team, TeamChange, User, UserChange, parse_id,
};
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use ledger::model::{Credential, Scope, ScopeKind};
use serde_json::{Value, json as value};

pub(super) async fn create_user(
    State(admin): State<Admin>,
    who: Who,
    request: Request,
) -> Result<Response, AdminError> {
    let (head, body) = request.into_parts();
    let (mut fields, bytes) = Fields::with_bytes(body).await?;
    let once = who.once(&head.headers, "users", &bytes)?;
    if let Some(once) = &once
        && let Some(id) = admin.identity.done(once).await?
    {
        return Ok(json(StatusCode::OK, &shown_user(&admin.identity.user(&Named::parse(&id)).await?)));
    }
    let new = NewUser {
        name: fields.text("name")?.ok_or_else(|| AdminError::invalid("name", "is missing"))?,
        email: fields.text("email")?,
        role: role(&mut fields)?.unwrap_or(Role::GatewayUser),
        team: match fields.text("team")? {
            Some(team) => Some(team_id(&admin, &team).await?),
            None => None,
        },
        limits: fields.limits()?.over(Limits::default()),
    };
    fields.done()?;
    if new.role > Role::GatewayUser {
        who.root("only a root_admin makes admins")?;
    }
    let user = admin.identity.create_user(new, once.as_ref(), &who.actor).await?;
    Ok(json(StatusCode::CREATED, &shown_user(&user)))
}

pub(super) async fn users(State(admin): State<Admin>, request: Request) -> Result<Response, AdminError> {
    let users = admin.identity.users(after(&request)?).await?;
    let next = (users.len() == PAGE as usize).then(|| users.last().map(|user| hex::encode(user.id))).flatten();
    let users: Vec<Value> = users.iter().map(shown_user).collect();
    Ok(json(StatusCode::OK, &value!({ "users": users, "next": next })))
}

pub(super) async fn user(State(admin): State<Admin>, Path(which): Path) -> Result<Response, AdminError> {
    Ok(json(StatusCode::OK, &shown_user(&admin.identity.user(&Named::parse(&which)).await?)))
}

pub(super) async fn update_user(
    State(admin): State<Admin>,
    who: Who,
    Path(which): Path,
    request: Request,
) -> Result<Response, AdminError> {
    let (head, body) = request.into_parts();
    let mut fields = Fields::of_body(body).await?;
    let now = admin.identity.user(&Named::parse(&which)).await?;
    who.may_change_user(&now)?;
    let change = UserChange {
        name: fields.text("name")?,
        email: fields.nullable_text("email")?,
        role: role(&mut fields)?,
        team: match fields.nullable_text("team")? {
            Some(Some(team)) => Some(Some(team_id(&admin, &team).await?)),
            other => other.map(|_| None),
        },
        limits: fields.limits()?,
        version: version(&mut fields, &head.headers)?,
    };
    fields.done()?;
    if change.role.is_some_and(|role| role != now.role) {
        who.root("only a root_admin gives roles")?;
    }
    let user = admin.identity.update_user(&Named::Id(now.id), &change, &who.actor).await?;
    Ok(json(StatusCode::OK, &shown_user(&user)))
}

pub(super) async fn remove_user(
    State(admin): State<Admin>,
    who: Who,
    Path(which): Path,
) -> Result<Response, AdminError> {
    let user = admin.identity.user(&Named::parse(&which)).await?;
    who.may_change_user(&user)?;
    let scope = Scope { kind: ScopeKind::User, id: user.id };
    admin.revoker.revoke(vec![Credential::Scope(scope)], None).await?;
    admin.identity.heed();
    admin.identity.remove_user(&user, &who.actor).await?;
    Ok(json(StatusCode::OK, &shown_user(&admin.identity.user(&Named::Id(user.id)).await?)))
}

pub(super) async fn create_team(
    State(admin): State<Admin>,
    who: Who,
    request: Request,
) -> Result<Response, AdminError> {
    let (head, body) = request.into_parts();
    let (mut fields, bytes) = Fields::with_bytes(body).await?;
    let once = who.once(&head.headers, "teams", &bytes)?;
    if let Some(once) = &once
        && let Some(id) = admin.identity.done(once).await?
    {
        return Ok(json(StatusCode::OK, &shown_team(&admin.identity.team(&Named::parse(&id)).await?)));
    }
    let name = fields.text("name")?.ok_or_else(|| AdminError::invalid("name", "is missing"))?;
    let limits = fields.limits()?.over(Limits::default());
    fields.done()?;
    let team = admin.identity.create_team(NewTeam { name, limits }, once.as_ref(), &who.actor).await?;
    Ok(json(StatusCode::CREATED, &shown_team(&team)))
}

pub(super) async fn teams(State(admin): State<Admin>, request: Request) -> Result<Response, AdminError> {
    let teams = admin.identity.teams(after(&request)?).await?;
    let next = (teams.len() == PAGE as usize).then(|| teams.last().map(|team| hex::encode(team.id))).flatten();
    let teams: Vec<Value> = teams.iter().map(shown_team).collect();
    Ok(json(StatusCode::OK, &value!({ "teams": teams, "next": next })))
}

pub(super) async fn team(State(admin): State<Admin>, Path(which): Path) -> Result<Response, AdminError> {
    Ok(json(StatusCode::OK, &shown_team(&admin.identity.team(&Named::parse(&which)).await?)))
}

pub(super) async fn update_team(
    State(admin): State<Admin>,
    who: Who,
    Path(which): Path,
    request: Request,
) -> Result<Response, AdminError> {
    let (head, body) = request.into_parts();
    let mut fields = Fields::of_body(body).await?;
    let change = TeamChange {
        name: fields.text("name")?,
        limits: fields.limits()?,
        version: version(&mut fields, &head.headers)?,
    };
    fields.done()?;
    let team = admin.identity.update_team(&Named::parse(&which), &change, &who.actor).await?;
    Ok(json(StatusCode::OK, &shown_team(&team)))
}

pub(super) async fn remove_team(
    State(admin): State<Admin>,
    who: Who,
    Path(which): Path,
) -> Result<Response, AdminError> {
    who.root("only a root_admin removes a team, with all of its keys")?;
    let team = admin.identity.team(&Named::parse(&which)).await?;
    let scope = Scope { kind: ScopeKind::Team, id: team.id };
    admin.revoker.revoke(vec![Credential::Scope(scope)], None).await?;
    admin.identity.heed();
    admin.identity.remove_team(&team, &who.actor).await?;
    Ok(json(StatusCode::OK, &shown_team(&admin.identity.team(&Named::Id(team.id)).await?)))
}

/// `/api/v1/admin/audit`: who changed what, the latest first.
pub(super) async fn audit(State(admin): State<Admin>, request: Request) -> Result<Response, AdminError> {
    let mut fields = Fields::of_query(request.uri())?;
    let before = fields.whole("before", i64::MAX as u64)?;
    fields.done()?;
    let events = admin.identity.audit(before).await?;
    let next = (events.len() == PAGE as usize).then(|| events.last().map(|event| event.id)).flatten();
    let events: Vec<Value> = events
        .iter()
        .map(|event| {
            let mut shown = serde_json::to_value(event).unwrap_or_default();
            shown["at"] = moment(event.at).into();
            shown
        })
        .collect();
    Ok(json(StatusCode::OK, &value!({ "events": events, "next": next })))
}

/// The id of a user that a field names.
pub(super) async fn user_id(admin: &Admin, who: &Who, named: &str) -> Result<[u8; 16], AdminError> {
    match admin.identity.user(&Named::parse(named)).await {
        Ok(user) => who.may_change_user(&user).map(|()| user.id),
        Err(StoreError::NotFound(_)) => Err(AdminError::invalid("user", "there is no such user")),
        Err(error) => Err(error.into()),
    }
}

/// The id of a team that a field names.
pub(super) async fn team_id(admin: &Admin, named: &str) -> Result<[u8; 16], AdminError> {
    match admin.identity.team(&Named::parse(named)).await {
        Ok(team) => Ok(team.id),
        Err(StoreError::NotFound(_)) => Err(AdminError::invalid("team", "there is no such team")),
        Err(error) => Err(error.into()),
    }
}

fn role(fields: &mut Fields) -> Result<Option<Role>, AdminError> {
    let Some(name) = fields.text("role")? else { return Ok(None) };
    let names = Role::ALL.map(Role::as_str).join(", ");
    Role::parse(&name).map(Some).ok_or_else(|| AdminError::invalid("role", format!("must be one of {names}")))
}

fn after(request: &Request) -> Result<Option<[u8; 16]>, AdminError> {
    let mut fields = Fields::of_query(request.uri())?;
    let after = fields.text("after")?;
    fields.done()?;
    let unknown = || AdminError::invalid("after", "must be an id of the page before");
    after.map(|after| parse_id(&after).ok_or_else(unknown)).transpose()
}

fn shown_user(user: &User) -> Value {
    let mut shown = value!({
        "id": hex::encode(user.id), "name": user.name, "email": user.email, "role": user.role.as_str(),
        "team_id": user.team.map(hex::encode), "version": user.version, "created_at": moment(user.created_at),
        "updated_at": moment(user.updated_at), "removed_at": user.removed_at.map(moment),
    });
    with_limits(&mut shown, &user.limits);
    shown
}

fn shown_team(team: &Team) -> Value {
    let mut shown = value!({
        "id": hex::encode(team.id), "name": team.name, "version": team.version, "created_at": moment(team.created_at),
        "updated_at": moment(team.updated_at), "removed_at": team.removed_at.map(moment),
    });
    with_limits(&mut shown, &team.limits);
    shown
}

fn with_limits(shown: &mut Value, limits: &Limits) {
    for (field, limit) in Limits::FIELDS.into_iter().zip(limits.values()) {
        shown[field] = limit.into();
    }
}
