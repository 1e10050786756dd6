//! The one place where an error becomes HTTP, in the words of the caller's dialect.

use crate::admission::Refusal;
use crate::chat::Failure;
use crate::dialect::Family;
use crate::error::{Error, is_quota};
use crate::usage::RequestId;
use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use ledger::model::Dimension;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::time::Duration;

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What an error is, in OpenAI's words, from which the other dialects' follow.
struct Shape {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<Cow<'static, str>>,
    /// Trying again is of no use.
    is_final: bool,
}

/// Makes the reply to a request that failed.
pub(crate) fn respond(error: &Error, family: Family, id: RequestId) -> Response<Body> {
    let shape = shape(error);
    let body = body(error, &shape, family, id).to_string();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = match (family, shape.status) {
        (Family::Anthropic, StatusCode::SERVICE_UNAVAILABLE) => {
            StatusCode::from_u16(529).expect("529, Anthropic's word for overloaded, is a status")
        }
        (_, status) => status,
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(after) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole(after, Duration::from_secs(1))));
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(whole(after, Duration::from_millis(1))));
    }
    if shape.is_final {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    response
}

/// The event that ends a stream which broke in the middle.
pub(crate) fn event(error: &Error, family: Family, id: RequestId) -> String {
    told(family, &body(error, &shape(error), family, id))
}

/// The event that ends a stream whose upstream told an error of another dialect.
pub(crate) fn failure_event(failure: &Failure, family: Family, id: RequestId) -> String {
    told(family, &failure_body(failure, family, id))
}

fn told(family: Family, body: &Value) -> String {
    match family {
        Family::Anthropic => format!("event: error\ndata: {body}\n\n"),
        Family::Openai | Family::Gemini => format!("data: {body}\n\n"),
    }
}

/// Makes the reply that tells an upstream's refusal in the words of another dialect.
pub(crate) fn respond_failure(failure: &Failure, family: Family, id: RequestId) -> Response<Body> {
    let mut response = Response::new(Body::from(failure_body(failure, family, id).to_string()));
    let status = match (family, failure.status) {
        (Family::Anthropic, 503) => 529,
        (_, 529) => 503,
        (_, status) => status,
    };
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = failure.retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn failure_body(failure: &Failure, family: Family, id: RequestId) -> Value {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let (message, code) = (&failure.message, &failure.code);
    match family {
        Family::Openai => {
            let (kind, code) = match status.as_u16() {
                429 => ("requests", Some("rate_limit_exceeded")),
                400..=499 => ("invalid_request_error", code.as_deref()),
                503 | 529 => ("server_error", Some("overloaded")),
                _ => ("server_error", code.as_deref()),
            };
            let kind = if code == Some("upstream_error") { "upstream_error" } else { kind };
            json!({"error": {"message": message, "type": kind, "param": failure.param, "code": code}})
        }
        Family::Anthropic => json!({
            "type": "error",
            "error": {"type": anthropic_type(status), "message": message},
            "request_id": id.to_string(),
        }),
        Family::Gemini => json!({
            "error": {"code": status.as_u16(), "message": message, "status": gemini_status(status), "details": []}
        }),
    }
}

/// So many whole units, rounded up, at least 1.
fn whole(span: Duration, unit: Duration) -> u64 {
    let units = span.as_micros().div_ceil(unit.as_micros()).max(1);
    u64::try_from(units).unwrap_or(u64::MAX)
}

fn shape(error: &Error) -> Shape {
    let invalid = "invalid_request_error";
    let (status, kind, code) = match error {
        Error::Invalid { .. } | Error::BodyBroken => (StatusCode::BAD_REQUEST, invalid, None),
        Error::ContextLength { .. } => (StatusCode::BAD_REQUEST, invalid, Some("context_length_exceeded")),
        Error::NoKey | Error::BadKey => (StatusCode::UNAUTHORIZED, invalid, Some("invalid_api_key")),
        Error::ModelNotAllowed { .. } => (StatusCode::FORBIDDEN, invalid, Some("model_not_allowed")),
        Error::RouteNotAllowed { .. } => (StatusCode::FORBIDDEN, invalid, Some("route_not_allowed")),
        Error::UnknownModel { .. } => (StatusCode::NOT_FOUND, invalid, Some("model_not_found")),
        Error::UnknownRoute { .. } => (StatusCode::NOT_FOUND, invalid, Some("unknown_url")),
        Error::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, invalid, Some("method_not_supported")),
        Error::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, invalid, Some("request_too_large")),
        Error::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, invalid, Some("request_timeout")),
        Error::Refused(refusal) => refused(refusal),
        Error::KeysUnavailable | Error::JournalUnavailable | Error::Draining => {
            (StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("overloaded"))
        }
        Error::UpstreamUnreachable => (StatusCode::BAD_GATEWAY, "server_error", Some("upstream_unreachable")),
        Error::UpstreamCut | Error::UpstreamBroken(_) => {
            (StatusCode::BAD_GATEWAY, "server_error", Some("upstream_broken"))
        }
        Error::UpstreamTimeout => (StatusCode::GATEWAY_TIMEOUT, "server_error", Some("upstream_timeout")),
        Error::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error")),
    };
    let param = match error {
        Error::Invalid { param, .. } => param.clone(),
        Error::ContextLength { .. } => Some("messages".into()),
        Error::UnknownModel { .. } | Error::ModelNotAllowed { .. } => Some("model".into()),
        _ => None,
    };
    let is_final = code == Some("insufficient_quota");
    Shape { status, kind, code, param, is_final }
}

fn refused(refusal: &Refusal) -> (StatusCode, &'static str, Option<&'static str>) {
    let kind = |dimension: &Dimension| if *dimension == Dimension::Tokens { "tokens" } else { "requests" };
    match refusal {
        Refusal::Tenant { dimension, .. } | Refusal::NeverFits { dimension, .. } if is_quota(*dimension) => {
            (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", Some("insufficient_quota"))
        }
        Refusal::QueueFull { dimension, .. }
        | Refusal::QueueTimeout { dimension, .. }
        | Refusal::Tenant { dimension, .. } => {
            (StatusCode::TOO_MANY_REQUESTS, kind(dimension), Some("rate_limit_exceeded"))
        }
        Refusal::NeverFits { .. } => (StatusCode::BAD_REQUEST, "invalid_request_error", Some("request_exceeds_limit")),
        Refusal::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("overloaded")),
    }
}

fn body(error: &Error, shape: &Shape, family: Family, id: RequestId) -> Value {
    let message = error.to_string();
    match family {
        Family::Openai => json!({
            "error": {"message": message, "type": shape.kind, "param": shape.param, "code": shape.code}
        }),
        Family::Anthropic => json!({
            "type": "error",
            "error": {"type": anthropic_type(shape.status), "message": message},
            "request_id": id.to_string(),
        }),
        Family::Gemini => json!({
            "error": {
                "code": shape.status.as_u16(),
                "message": message,
                "status": gemini_status(shape.status),
                "details": gemini_details(error, shape),
            }
        }),
    }
}

fn anthropic_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 | 405 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    }
}

fn gemini_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        500 => "INTERNAL",
        501 | 405 => "UNIMPLEMENTED",
        502 | 503 | 529 => "UNAVAILABLE",
        408 | 504 => "DEADLINE_EXCEEDED",
        _ => "INVALID_ARGUMENT",
    }
}

fn gemini_details(error: &Error, shape: &Shape) -> Value {
    let Some(after) = error.retry_after() else { return json!([]) };
    let delay = format!("{}s", whole(after, Duration::from_secs(1)));
    let retry = json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay});
    if shape.status != StatusCode::TOO_MANY_REQUESTS {
        return json!([retry]);
    }
    let violation = json!({"subject": shape.code, "description": error.to_string()});
    json!([{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}, retry])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::model::{Scope, ScopeKind};

    fn written(error: &Error, family: Family) -> Value {
        body(error, &shape(error), family, RequestId([0; 16]))
    }

    #[test]
    fn a_refusal_carries_the_true_time_rounded_up() {
        let retry_after = Duration::from_micros(1_200_300);
        let error = Error::Refused(Refusal::QueueFull { dimension: Dimension::Concurrent, retry_after });
        let response = respond(&error, Family::Openai, RequestId([0; 16]));
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["retry-after-ms"], "1201");
        assert!(!response.headers().contains_key("x-should-retry"));
        assert_eq!(written(&error, Family::Openai)["error"]["code"], "rate_limit_exceeded");
    }

    #[test]
    fn a_queues_refusal_names_what_is_short() {
        let short =
            [(Dimension::Tokens, "tokens"), (Dimension::Requests, "requests"), (Dimension::Concurrent, "requests")];
        for (dimension, kind) in short {
            let retry_after = Duration::from_secs(1);
            for refusal in
                [Refusal::QueueFull { dimension, retry_after }, Refusal::QueueTimeout { dimension, retry_after }]
            {
                assert_eq!(written(&Error::Refused(refusal), Family::Openai)["error"]["type"], kind);
            }
        }
    }

    #[test]
    fn an_exhausted_day_says_not_to_retry() {
        let scope = Scope { kind: ScopeKind::Key, id: [0; 16] };
        let retry_after = Duration::from_secs(7_000);
        let error = Error::Refused(Refusal::Tenant { scope, dimension: Dimension::TokensPerDay, retry_after });
        let response = respond(&error, Family::Openai, RequestId([0; 16]));
        assert_eq!(response.headers()["x-should-retry"], "false");
        assert_eq!(written(&error, Family::Openai)["error"]["type"], "insufficient_quota");
        assert_eq!(written(&error, Family::Gemini)["error"]["details"][1]["retryDelay"], "7000s");
    }

    #[test]
    fn every_dialect_has_its_own_envelope() {
        let error = Error::UnknownModel { model: "x".into() };
        assert_eq!(
            written(&error, Family::Openai),
            json!({"error": {"message": "the model `x` does not exist", "type": "invalid_request_error",
                "param": "model", "code": "model_not_found"}})
        );
        assert_eq!(written(&error, Family::Anthropic)["error"]["type"], "not_found_error");
        assert_eq!(written(&error, Family::Gemini)["error"]["status"], "NOT_FOUND");
        assert_eq!(written(&Error::UpstreamCut, Family::Openai)["error"]["code"], "upstream_broken");
    }
}
