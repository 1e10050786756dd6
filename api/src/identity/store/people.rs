//! Users and teams in SQL.

use super::audit::{self, Actor, Target};
use super::rows::{self, LIMITS};
use super::{Once, PAGE, Store, StoreError, commit, fresh, new_id, once, outbox};
use crate::identity::database::Change;
use crate::identity::limits::Limits;
use crate::identity::people::{Named, NewTeam, NewUser, Team, TeamChange, User, UserChange};
use crate::identity::sql::{Query, Row, sql, sql_of};
use ledger::model::{Scope, ScopeKind};
use raft::clock::wall_us;
use serde_json::{Value, json};

const USERS: &str = "SELECT u.*, rps, rpm, burst_requests, tpm, burst_tokens, max_concurrent, quota_limit, budget_nano_usd \
                     FROM users AS u LEFT JOIN tenant_limits ON scope_kind = 'user' AND scope_id = u.id";
const TEAMS: &str = "SELECT t.*, rps, rpm, burst_requests, tpm, burst_tokens, max_concurrent, quota_limit, budget_nano_usd \
                     FROM teams AS t LEFT JOIN tenant_limits ON scope_kind = 'team' AND scope_id = t.id";

impl Store {
    pub(in crate::identity) async fn create_user(
        &self,
        new: NewUser,
        once: Option<&Once>,
        actor: &Actor,
    ) -> Result<User, StoreError> {
        let (new, id, now) = (new.checked()?, new_id()?, wall_us());
        let mut change = self.begin().await?;
        team_exists(&mut change, new.team).await?;
        let insert = sql("INSERT INTO users (id, name, email, role, team_id, version, created_at, updated_at) \
                          VALUES ($1, $2, $3, $4, $5, 1, $6, $6)")
        .bind(id)
        .bind(new.name.as_str())
        .bind(new.email.as_deref())
        .bind(new.role.as_str())
        .bind(new.team)
        .bind(now);
        change.run(insert).await?;
        set_limits(&mut change, Scope { kind: ScopeKind::User, id }, &new.limits, 1).await?;
        once::note(&mut change, once, &hex::encode(id)).await?;
        note(&mut change, actor, "user.create", id, &new.name, &of_user(&new)).await?;
        commit(change).await?;
        self.user(&Named::Id(id)).await
    }

    pub(in crate::identity) async fn user(&self, which: &Named) -> Result<User, StoreError> {
        rows::user(&one(self.all(user_by(which)).await?, "user")?)
    }

    pub(super) async fn find_user(&self, id: [u8; 16]) -> Result<Option<User>, StoreError> {
        self.all(user_by(&Named::Id(id))).await?.first().map(rows::user).transpose()
    }

    pub(in crate::identity) async fn users(&self, after: Option<[u8; 16]>) -> Result<Vec<User>, StoreError> {
        let query = sql_of(format!(
            "{USERS} WHERE disabled_at IS NULL AND ($1 IS NULL OR \
             (created_at, id) > (SELECT created_at, id FROM users WHERE id = $1)) ORDER BY created_at, id LIMIT $2"
        ));
        self.all(query.bind(after).bind(u64::from(PAGE))).await?.iter().map(rows::user).collect()
    }

    pub(in crate::identity) async fn update_user(
        &self,
        which: &Named,
        asked: &UserChange,
        actor: &Actor,
    ) -> Result<User, StoreError> {
        let mut change = self.begin().await?;
        let old = rows::user(&one(change.all(user_by(which)).await?, "user")?)?;
        fresh(asked.version, old.version)?;
        let new = asked.over(&old).checked()?;
        team_exists(&mut change, new.team).await?;
        let update = sql("UPDATE users SET name = $3, email = $4, role = $5, team_id = $6, updated_at = $7, \
                          version = version + 1 WHERE id = $1 AND version = $2 AND disabled_at IS NULL")
        .bind(old.id)
        .bind(old.version)
        .bind(new.name.as_str())
        .bind(new.email.as_deref())
        .bind(new.role.as_str())
        .bind(new.team)
        .bind(wall_us());
        untouched(change.run(update).await?, old.version)?;
        set_limits(&mut change, Scope { kind: ScopeKind::User, id: old.id }, &new.limits, old.version + 1).await?;
        note(&mut change, actor, "user.update", old.id, &new.name, &of_user(&new)).await?;
        commit(change).await?;
        self.user(&Named::Id(old.id)).await
    }

    /// Removes a user or a team, for ever: none of its keys is good any more.
    pub(in crate::identity) async fn remove(&self, scope: Scope, name: &str, actor: &Actor) -> Result<(), StoreError> {
        let (query, action) = match scope.kind {
            ScopeKind::Team => (
                "UPDATE teams SET disabled_at = $2, version = version + 1 WHERE id = $1 AND disabled_at IS NULL",
                "team.remove",
            ),
            _ => (
                "UPDATE users SET disabled_at = $2, email = NULL, version = version + 1 WHERE id = $1 AND disabled_at IS NULL",
                "user.remove",
            ),
        };
        let mut change = self.begin().await?;
        if change.run(sql(query).bind(scope.id).bind(wall_us())).await? > 0 {
            note(&mut change, actor, action, scope.id, name, &json!({})).await?;
        }
        commit(change).await
    }

    pub(in crate::identity) async fn create_team(
        &self,
        new: NewTeam,
        once: Option<&Once>,
        actor: &Actor,
    ) -> Result<Team, StoreError> {
        let (new, id, now) = (new.checked()?, new_id()?, wall_us());
        let mut change = self.begin().await?;
        let insert = sql("INSERT INTO teams (id, name, version, created_at, updated_at) VALUES ($1, $2, 1, $3, $3)");
        change.run(insert.bind(id).bind(new.name.as_str()).bind(now)).await?;
        set_limits(&mut change, Scope { kind: ScopeKind::Team, id }, &new.limits, 1).await?;
        once::note(&mut change, once, &hex::encode(id)).await?;
        note(&mut change, actor, "team.create", id, &new.name, &json!({ "limits": new.limits })).await?;
        commit(change).await?;
        self.team(&Named::Id(id)).await
    }

    pub(in crate::identity) async fn team(&self, which: &Named) -> Result<Team, StoreError> {
        rows::team(&one(self.all(team_by(which)).await?, "team")?)
    }

    pub(super) async fn find_team(&self, id: [u8; 16]) -> Result<Option<Team>, StoreError> {
        self.all(team_by(&Named::Id(id))).await?.first().map(rows::team).transpose()
    }

    pub(in crate::identity) async fn teams(&self, after: Option<[u8; 16]>) -> Result<Vec<Team>, StoreError> {
        let query = sql_of(format!(
            "{TEAMS} WHERE disabled_at IS NULL AND ($1 IS NULL OR \
             (created_at, id) > (SELECT created_at, id FROM teams WHERE id = $1)) ORDER BY created_at, id LIMIT $2"
        ));
        self.all(query.bind(after).bind(u64::from(PAGE))).await?.iter().map(rows::team).collect()
    }

    pub(in crate::identity) async fn update_team(
        &self,
        which: &Named,
        asked: &TeamChange,
        actor: &Actor,
    ) -> Result<Team, StoreError> {
        let mut change = self.begin().await?;
        let old = rows::team(&one(change.all(team_by(which)).await?, "team")?)?;
        fresh(asked.version, old.version)?;
        let new = asked.over(&old).checked()?;
        let update = sql("UPDATE teams SET name = $3, updated_at = $4, version = version + 1 \
                          WHERE id = $1 AND version = $2 AND disabled_at IS NULL")
        .bind(old.id)
        .bind(old.version)
        .bind(new.name.as_str())
        .bind(wall_us());
        untouched(change.run(update).await?, old.version)?;
        set_limits(&mut change, Scope { kind: ScopeKind::Team, id: old.id }, &new.limits, old.version + 1).await?;
        note(&mut change, actor, "team.update", old.id, &new.name, &json!({ "limits": new.limits })).await?;
        commit(change).await?;
        self.team(&Named::Id(old.id)).await
    }
}

fn user_by(which: &Named) -> Query {
    match which {
        Named::Id(id) => sql_of(format!("{USERS} WHERE u.id = $1")).bind(*id),
        Named::Name(name) => sql_of(format!("{USERS} WHERE u.name = $1")).bind(name.as_str()),
        Named::Email(email) => {
            sql_of(format!("{USERS} WHERE u.email = $1 OR u.name = $1 LIMIT 1")).bind(email.as_str())
        }
    }
}

fn team_by(which: &Named) -> Query {
    match which {
        Named::Id(id) => sql_of(format!("{TEAMS} WHERE t.id = $1")).bind(*id),
        Named::Name(name) | Named::Email(name) => sql_of(format!("{TEAMS} WHERE t.name = $1")).bind(name.as_str()),
    }
}

fn one(mut rows: Vec<Row>, what: &'static str) -> Result<Row, StoreError> {
    if rows.is_empty() { Err(StoreError::NotFound(what)) } else { Ok(rows.remove(0)) }
}

/// Of two who change a row at once, one sees that nothing was left to change.
fn untouched(rows: u64, version: u64) -> Result<(), StoreError> {
    if rows == 0 { Err(StoreError::Stale { now: version + 1 }) } else { Ok(()) }
}

async fn team_exists(change: &mut Change, team: Option<[u8; 16]>) -> Result<(), StoreError> {
    let Some(team) = team else { return Ok(()) };
    let query = sql("SELECT id FROM teams WHERE id = $1 AND disabled_at IS NULL").bind(team);
    change.first(query).await?.ok_or_else(|| StoreError::invalid("team", "there is no such team")).map(drop)
}

async fn set_limits(change: &mut Change, scope: Scope, limits: &Limits, version: u64) -> Result<(), StoreError> {
    let kind = outbox::kind(scope.kind);
    let delete = sql("DELETE FROM tenant_limits WHERE scope_kind = $1 AND scope_id = $2");
    change.run(delete.bind(kind).bind(scope.id)).await?;
    let insert = sql_of(format!(
        "INSERT INTO tenant_limits (scope_kind, scope_id, {LIMITS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    ));
    change.run(insert.bind(kind).bind(scope.id).bind_all(rows::limit_values(limits))).await?;
    outbox::limits_changed(change, scope, version).await
}

async fn note(
    change: &mut Change,
    actor: &Actor,
    action: &'static str,
    id: [u8; 16],
    name: &str,
    detail: &Value,
) -> Result<(), StoreError> {
    let kind = action.split_once('.').map_or(action, |(kind, _)| kind);
    audit::note(change, actor, action, Target { kind, id: &hex::encode(id), name }, detail).await
}

fn of_user(user: &NewUser) -> Value {
    json!({
        "email": user.email, "role": user.role.as_str(), "team": user.team.map(hex::encode), "limits": user.limits,
    })
}
