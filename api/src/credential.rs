//! Takes the key out of a request's headers and asks the identity store whose it is. The key itself is never logged.

use crate::error::Error;
use crate::identity::{Caller, Identity, LookupError, RouteGroup};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};
use std::net::IpAddr;
use std::sync::Arc;

/// Finds the caller, in memory first, and sees that the key may use these routes.
///
/// # Errors
/// [`Error::NoKey`], [`Error::BadKey`], [`Error::RouteNotAllowed`] or [`Error::KeysUnavailable`].
pub(crate) async fn caller(
    identity: &Identity,
    headers: &HeaderMap,
    uri: &Uri,
    group: RouteGroup,
    client: Option<IpAddr>,
) -> Result<Arc<Caller>, Error> {
    let presented = presented(headers).or_else(|| in_query(uri)).ok_or(Error::NoKey)?;
    let lookup = match identity.lookup_cached(presented) {
        Some(lookup) => lookup,
        None => identity.lookup(presented).await,
    };
    let caller = match lookup {
        Ok(caller) => caller,
        Err(LookupError::Unknown | LookupError::Revoked | LookupError::Expired) => return Err(Error::BadKey),
        Err(LookupError::StoresDown) => identity.unchecked(presented, client).ok_or(Error::KeysUnavailable)?,
    };
    if !caller.scopes.allows(group) {
        return Err(Error::RouteNotAllowed { group: group.as_str() });
    }
    Ok(caller)
}

pub(crate) fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let named = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    bearer.or_else(|| named("x-api-key")).or_else(|| named("x-goog-api-key")).filter(|key| !key.is_empty())
}

/// Gemini's clients may put the key into the query.
fn in_query(uri: &Uri) -> Option<&str> {
    let is_geminis = ["/v1beta/models", "/v1/models"].iter().any(|start| uri.path().starts_with(start));
    uri.query()
        .filter(|_| is_geminis)?
        .split('&')
        .find_map(|pair| pair.strip_prefix("key="))
        .filter(|key| !key.is_empty())
}
