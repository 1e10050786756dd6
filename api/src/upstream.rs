//! Calls upstreams: one HTTP client for all of them, and the loopback that needs none. Sends what it is given; what is
//! in it was decided before.

mod gated;
mod loopback;
mod tls;

use crate::config::{self, Dialect};
use crate::error::Error;
use crate::routing::{Place, Target};
use crate::settlement::Gate;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response};
use std::time::Duration;
use tokio::time::Instant;

/// The version of Anthropic's dialect that the gateway itself speaks: the one that takes sampling.
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// What an upstream says, its body still on the way.
pub(crate) type Answer = Response<reqwest::Body>;

/// The client of all upstreams.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    first_byte_max: Duration,
    pub(crate) idle_max: Duration,
    pub(crate) answer_bytes_max: usize,
    pub(crate) event_bytes_max: usize,
    pub(crate) cancel_grace: Duration,
}

impl Client {
    pub(crate) fn new(config: &config::Upstream) -> Result<Self, String> {
        let millis = Duration::from_millis;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config()?)
            .connect_timeout(millis(config.connect_timeout_ms))
            .pool_max_idle_per_host(config.pool_idle_connections)
            .pool_idle_timeout(millis(config.pool_idle_timeout_ms))
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .build()
            .map_err(|cause| cause.to_string())?;
        Ok(Self {
            http,
            first_byte_max: millis(config.first_byte_timeout_ms),
            idle_max: millis(config.idle_timeout_ms),
            answer_bytes_max: config.max_response_bytes,
            event_bytes_max: config.max_event_bytes,
            cancel_grace: millis(config.cancel_grace_ms),
        })
    }

    #[cfg(test)]
    pub(crate) fn http(&self) -> reqwest::Client {
        self.http.clone()
    }

    /// Sends a request to `path` with the headers of [`passed_on`], if it passes its gate, and waits for the head of the answer. Dropping the future breaks
    /// the call off.
    ///
    /// # Errors
    /// [`Error::UpstreamUnreachable`] when there is no connection, [`Error::UpstreamCut`] when it breaks,
    /// [`Error::UpstreamTimeout`] when no answer comes in time.
    pub(crate) async fn send(
        &self,
        target: &Target,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
        gate: Gate,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let Place::Http { base, credential } = &target.place else {
            return if gate.pass() { Ok(loopback::answer(&body)) } else { Err(Error::UpstreamUnreachable) };
        };
        let url = reqwest::Url::parse(&format!("{base}{path}")).map_err(|_| Error::UpstreamUnreachable)?;
        let mut request = reqwest::Request::new(Method::POST, url);
        request.headers_mut().clone_from(headers);
        if let Some((name, value)) = credential {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        if target.dialect == Dialect::Anthropic && !headers.contains_key(ANTHROPIC_VERSION) {
            request.headers_mut().insert(ANTHROPIC_VERSION, HeaderValue::from_static("2023-06-01"));
        }
        *request.body_mut() = Some(reqwest::Body::wrap(gated::Gated::new(body, gate)));
        let until = deadline.min(Instant::now() + self.first_byte_max);
        match tokio::time::timeout_at(until, self.http.execute(request)).await {
            Ok(Ok(answer)) => Ok(answer.into()),
            Ok(Err(cause)) => Err(failure(&cause)),
            Err(_) => Err(Error::UpstreamTimeout),
        }
    }
}

fn failure(cause: &reqwest::Error) -> Error {
    if cause.is_connect() {
        Error::UpstreamUnreachable
    } else if cause.is_timeout() {
        Error::UpstreamTimeout
    } else {
        Error::UpstreamCut
    }
}

/// The client's headers that the upstream gets: all but those of the connection, credentials, and our own. No
/// compression is asked for, since answers are read as they pass. Values are copied, so that a request that waits does
/// not keep its connection's read buffer, and there is no room to spare.
pub(crate) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let named = headers.get_all(header::CONNECTION);
    let named: Vec<&str> = named.iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',')).collect();
    let is_named = |name: &HeaderName| named.iter().any(|other| other.trim().eq_ignore_ascii_case(name.as_str()));
    let goes_on = |name: &HeaderName| !stays_here(name) && !is_named(name);
    let mut passed = HeaderMap::with_capacity(headers.keys().filter(|name| goes_on(name)).count());
    for (name, value) in headers.iter().filter(|(name, _)| goes_on(name)) {
        let copy = HeaderValue::from_bytes(value.as_bytes());
        passed.append(name.clone(), copy.unwrap_or_else(|_| value.clone()));
    }
    passed
}

/// The headers of a request that was translated: nothing that a client said in its own dialect.
pub(crate) fn translated_on() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers
}

fn stays_here(name: &HeaderName) -> bool {
    is_of_connection(name)
        || matches!(
            *name,
            header::HOST
                | header::CONTENT_LENGTH
                | header::EXPECT
                | header::ACCEPT_ENCODING
                | header::AUTHORIZATION
                | header::COOKIE
        )
        || matches!(name.as_str(), "x-api-key" | "x-goog-api-key" | "api-key")
        || name.as_str().starts_with("x-tokligence-")
}

/// Whether a header speaks of one connection only. Source: RFC 9110, 7.6.1.
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(*name, header::CONNECTION | header::TRANSFER_ENCODING | header::TE | header::TRAILER | header::UPGRADE)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "proxy-authorization" | "proxy-authenticate")
}

/// The upstream's headers that the client gets: all but those of the connection, those that the gateway writes itself,
/// cookies, which would be shared by all clients, and after a translation those of the upstream's own dialect.
pub(crate) fn passed_back(headers: &HeaderMap, is_translated: bool) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(headers.len() + 18);
    for (name, value) in headers {
        let text = name.as_str();
        let is_ours = matches!(*name, header::CONTENT_LENGTH | header::SET_COOKIE | header::DATE | header::SERVER)
            || matches!(text, "x-request-id" | "request-id")
            || text.starts_with("x-ratelimit-")
            || text.starts_with("anthropic-ratelimit-")
            || text.starts_with("x-tokligence-");
        let is_theirs = is_translated
            && (*name == header::CONTENT_TYPE
                || ["anthropic-", "openai-", "x-goog-", "x-gemini-"].iter().any(|start| text.starts_with(start)));
        if !is_ours && !is_theirs && !is_of_connection(name) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_connection_headers_never_go_upstream() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer tok_client"),
            ("x-api-key", "tok_client"),
            ("x-goog-api-key", "tok_client"),
            ("cookie", "a=b"),
            ("host", "gateway"),
            ("content-length", "7"),
            ("connection", "keep-alive, X-Private"),
            ("x-private", "1"),
            ("x-tokligence-priority", "1"),
            ("accept-encoding", "gzip"),
            ("openai-beta", "yes"),
            ("content-type", "application/json"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let passed = passed_on(&headers);
        let mut names: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "openai-beta"]);
    }
}
