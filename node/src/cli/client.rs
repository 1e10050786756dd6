//! The HTTP side of the command line: endpoints tried in order, JSON in and out, and what became of a call.

use super::failure::Failure;
use reqwest::{Method, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// Where `gatewayd dev` keeps its keys, seen from the working directory.
const DEV_DIR: &str = "data/dev";

/// Where the gateway may be reached.
#[derive(Clone, Debug)]
pub(super) struct Endpoints(Vec<Url>);

impl Endpoints {
    /// Reads addresses with commas between them.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let parse = |text: &str| {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            url.ok_or_else(|| Failure::Usage(format!("--endpoint: `{text}` is not an http:// or https:// address")))
        };
        Ok(Self(text.split(',').map(|text| parse(text.trim())).collect::<Result<_, _>>()?))
    }

    /// Reads a key that dev mode keeps in the working directory; only for a gateway on this machine.
    pub(super) fn dev_file(&self, name: &str) -> Option<String> {
        if !self.0.iter().all(is_loopback) {
            return None;
        }
        let key = std::fs::read_to_string(Path::new(DEV_DIR).join(name)).ok()?;
        Some(key.trim().to_owned()).filter(|key| !key.is_empty())
    }

    fn shown(&self) -> String {
        self.0.iter().map(|url| url.as_str().trim_end_matches('/')).collect::<Vec<_>>().join(", ")
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A call to the admin routes.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'a str, String)>,
    body: Option<serde_json::Value>,
}

impl<'a> Call<'a> {
    /// Reads; the path stands below `/api/v1/admin`.
    pub(super) fn get(path: &'a [&'a str]) -> Self {
        Self { method: Method::GET, path, query: Vec::new(), body: None }
    }

    /// Removes.
    pub(super) fn delete(path: &'a [&'a str]) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }

    /// Makes.
    pub(super) fn post(path: &'a [&'a str], body: &impl Serialize) -> Self {
        Self { method: Method::POST, body: Some(json(body)), ..Self::get(path) }
    }

    /// Changes.
    pub(super) fn patch(path: &'a [&'a str], body: &impl Serialize) -> Self {
        Self { method: Method::PATCH, body: Some(json(body)), ..Self::get(path) }
    }

    /// Sets.
    pub(super) fn put(path: &'a [&'a str], body: &impl Serialize) -> Self {
        Self { method: Method::PUT, body: Some(json(body)), ..Self::get(path) }
    }

    /// Adds a parameter, when there is one.
    pub(super) fn query(mut self, name: &'a str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    fn url(&self, endpoint: &Url) -> Url {
        let mut url = endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1", "admin"]).extend(self.path);
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        url
    }
}

fn json(body: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(body).expect("request bodies are plain structs")
}

/// Calls the admin routes.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoints: Endpoints,
    admin_key: Option<String>,
    timeout: Duration,
}

impl Client {
    /// Makes a client; `timeout` bounds each answer.
    pub(super) fn new(endpoints: Endpoints, admin_key: Option<String>, timeout: Duration) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().no_proxy().connect_timeout(timeout).build();
        let http = http.map_err(|error| Failure::Refused(format!("the HTTP client cannot start: {error}")))?;
        Ok(Self { http, endpoints, admin_key, timeout })
    }

    /// Calls, and reads the answer as JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, Failure> {
        let writes = call.method != Method::GET;
        let answer = tokio::time::timeout(self.timeout, async {
            let answer = self.send(call).await?;
            answer.bytes().await.map_err(|error| broken_off(writes, &error))
        });
        let body = answer.await.unwrap_or_else(|_| Err(self.timed_out(writes)))?;
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body)
            .map_err(|error| Failure::Unhealthy(format!("the answer cannot be read, is this a gateway? {error}")))
    }

    /// Calls, and leaves the body to be read in pieces.
    pub(super) async fn stream(&self, call: Call<'_>) -> Result<Response, Failure> {
        let answer = tokio::time::timeout(self.timeout, self.send(call)).await;
        answer.unwrap_or_else(|_| Err(self.timed_out(false)))
    }

    /// Tries one endpoint after the other until one takes the connection. A call that was sent is never sent again.
    async fn send(&self, call: Call<'_>) -> Result<Response, Failure> {
        let key = self.admin_key.as_deref().ok_or_else(|| {
            Failure::NotAllowed("no admin key: give --admin-key or set TOKLIGENCE_ADMIN_KEY".to_owned())
        })?;
        let mut last = String::new();
        for endpoint in &self.endpoints.0 {
            let mut request = self.http.request(call.method.clone(), call.url(endpoint)).bearer_auth(key);
            if let Some(body) = &call.body {
                request = request.json(body);
            }
            match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    return Err(Failure::of_answer(status, &answer.text().await.unwrap_or_default()));
                }
                Err(error) if error.is_connect() => last = root(&error),
                Err(error) => return Err(broken_off(call.method != Method::GET, &error)),
            }
        }
        let shown = self.endpoints.shown();
        Err(Failure::Unreachable(format!("no gateway at {shown} ({last}); is it running? --endpoint names another")))
    }

    fn timed_out(&self, writes: bool) -> Failure {
        let said = format!("no answer within {}", humantime::format_duration(self.timeout));
        if writes {
            return Failure::OutcomeUnknown(format!("{said}; look before you try again"));
        }
        Failure::Unreachable(format!("{said}; --timeout waits longer"))
    }
}

fn broken_off(writes: bool, error: &reqwest::Error) -> Failure {
    let said = format!("the connection broke off ({})", root(error));
    if writes {
        Failure::OutcomeUnknown(format!("{said}; look before you try again"))
    } else {
        Failure::Unreachable(said)
    }
}

/// The innermost cause, which is what people can act on.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gateway_on_this_machine_gets_the_dev_key() {
        for (text, loopback) in [
            ("http://127.0.0.1:8081", true),
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1:8081", false),
            ("https://localhost.example.com", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(text).unwrap()), loopback, "{text}");
        }
    }

    #[test]
    fn an_endpoint_that_is_no_address_is_a_usage_error() {
        assert_eq!(Endpoints::parse("127.0.0.1:8081").unwrap_err().exit_code(), 2);
        assert_eq!(Endpoints::parse("http://a,http://b").unwrap().0.len(), 2);
    }

    #[test]
    fn names_are_escaped_in_paths_and_queries() {
        let call = Call::get(&["pools", "a/b *"]).query("from", Some("x&y")).query("to", None::<&str>);
        let url = call.url(&Url::parse("http://h/base/").unwrap());
        assert_eq!(url.as_str(), "http://h/base/api/v1/admin/pools/a%2Fb%20*?from=x%26y");
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable_and_no_key_is_not_allowed() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoints = Endpoints::parse("http://127.0.0.1:9").unwrap();
        let client = Client::new(endpoints.clone(), Some("k".into()), Duration::from_secs(5)).unwrap();
        let failure = client.json::<serde_json::Value>(Call::get(&["keys"])).await.unwrap_err();
        assert_eq!(failure.exit_code(), 4, "{failure}");
        let client = Client::new(endpoints, None, Duration::from_secs(5)).unwrap();
        assert_eq!(client.json::<serde_json::Value>(Call::get(&["keys"])).await.unwrap_err().exit_code(), 7);
    }
}
