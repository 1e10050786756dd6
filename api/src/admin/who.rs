//! Who makes an admin request, and what their role lets them do.

use super::Admin;
use super::error::AdminError;
use crate::identity::{Actor, Caller, Key, LookupError, Once, Role, RouteGroup, User};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

const ONCE_CHARS_MAX: usize = 255;

/// An admin.
#[derive(Clone, Debug)]
pub(super) struct Who {
    role: Role,
    pub(super) actor: Actor,
}

impl Who {
    /// Fails for those who may not manage admins.
    pub(super) fn root(&self, what: &str) -> Result<(), AdminError> {
        if self.role == Role::RootAdmin { Ok(()) } else { Err(AdminError::Forbidden(what.to_owned())) }
    }

    /// Only a root admin touches an admin.
    pub(super) fn may_change_user(&self, user: &User) -> Result<(), AdminError> {
        if user.role > Role::GatewayUser { self.root("only a root_admin changes an admin") } else { Ok(()) }
    }

    /// Only a root admin touches a key with which admin routes can be used, or an admin's key.
    pub(super) fn may_change_key(&self, key: &Key) -> Result<(), AdminError> {
        self.may_change_caller(&key.caller)
    }

    pub(super) fn may_change_caller(&self, caller: &Caller) -> Result<(), AdminError> {
        let is_admins = caller.scopes.allows(RouteGroup::Admin) || caller.role > Some(Role::GatewayUser);
        if is_admins { self.root("only a root_admin changes an admin's key") } else { Ok(()) }
    }

    /// The request as one that is to be done once, when it carries an `Idempotency-Key`.
    pub(super) fn once(&self, headers: &HeaderMap, route: &str, body: &[u8]) -> Result<Option<Once>, AdminError> {
        let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
        let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= ONCE_CHARS_MAX);
        let key = key.ok_or_else(|| AdminError::invalid("Idempotency-Key", "must be 1 to 255 printable characters"))?;
        let request = [route.as_bytes(), &[0], body].concat();
        Ok(Some(Once::new(&self.actor.to_string(), key, &request)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AdminError> {
        parts.extensions.get::<Self>().cloned().ok_or(AdminError::Unauthorized)
    }
}

/// Lets admins pass, and nobody else: the holder of the admin key, and keys with the scope `admin` of users with an
/// admin's role.
pub(super) async fn authorize(State(admin): State<Admin>, mut request: Request, next: Next) -> Response {
    match who(&admin, request.headers()).await {
        Ok(who) => {
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Lets pass who has at least this role.
pub(super) async fn require(State(role): State<Role>, who: Who, request: Request, next: Next) -> Response {
    if who.role >= role {
        return next.run(request).await;
    }
    AdminError::Forbidden(format!("this needs the role {}", role.as_str())).into_response()
}

async fn who(admin: &Admin, headers: &HeaderMap) -> Result<Who, AdminError> {
    let presented = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let presented = presented.and_then(|value| value.split_once(' '));
    let presented = presented.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, presented) = presented.ok_or(AdminError::Unauthorized)?;
    if admin.key.is(presented.trim()) {
        return Ok(Who { role: Role::RootAdmin, actor: Actor::root() });
    }
    let caller = match admin.identity.lookup(presented.trim()).await {
        Ok(caller) => caller,
        Err(LookupError::StoresDown) => return Err(AdminError::Unavailable("the key store".to_owned())),
        Err(_) => return Err(AdminError::Unauthorized),
    };
    match caller.role {
        Some(role) if role > Role::GatewayUser && caller.scopes.allows(RouteGroup::Admin) => {
            Ok(Who { role, actor: Actor::user(&caller.key_name, &caller.key_prefix) })
        }
        _ => Err(AdminError::Forbidden("this key is no admin's, or lacks the scope admin".to_owned())),
    }
}
