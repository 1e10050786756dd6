//! Liveness, readiness and metrics, for machines that watch the node. Needs no key.

use crate::app::App;
use crate::board::Health;
use crate::config::KeyMode;
use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

/// The process runs.
pub(crate) fn live() -> Response<Body> {
    json_response(StatusCode::OK, &json!({"status": "alive"}))
}

/// Requests can be served here.
pub(crate) fn ready(app: &App) -> Response<Body> {
    match reason_not_ready(app) {
        None => json_response(StatusCode::OK, &json!({"status": "ready"})),
        Some(reason) => {
            json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "not_ready", "reason": reason}))
        }
    }
}

/// Both, and how well.
pub(crate) fn health(app: &App) -> Response<Body> {
    let reason = reason_not_ready(app);
    let degraded = match app.board.health() {
        Health::Degraded(mode) => Some(mode),
        Health::Ready | Health::NotReady(_) => keys_degraded(app),
    };
    let status = match (reason, degraded) {
        (Some(_), _) => "not_ready",
        (None, Some(_)) => "degraded",
        (None, None) => "ok",
    };
    let node = app.node.to_str().unwrap_or_default();
    let body = json!({
        "status": status, "node": node, "reason": reason, "degraded": degraded,
        "version": env!("CARGO_PKG_VERSION"), "in_flight": app.metrics.in_flight.get(),
    });
    json_response(if reason.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &body)
}

/// Prometheus's text form.
pub(crate) fn metrics(app: &App) -> Response<Body> {
    match app.metrics.render(&*app.board, &app.identity) {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            let text_form = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, text_form);
            response
        }
        Err(cause) => {
            tracing::error!(%cause, "metrics cannot be written");
            json_response(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "metrics cannot be written"}))
        }
    }
}

/// The mode that keys are in while their stores are down.
fn keys_degraded(app: &App) -> Option<&'static str> {
    app.identity.stores_are_down().then(|| match app.identity.mode() {
        KeyMode::FailClosed => "identity_fail_closed",
        KeyMode::FailOpen => "identity_fail_open",
    })
}

fn reason_not_ready(app: &App) -> Option<&'static str> {
    match app.board.health() {
        _ if app.is_draining() => Some("draining"),
        _ if app.journal.has_failed() => Some("the usage journal cannot be written"),
        Health::NotReady(reason) => Some(reason),
        _ if !app.identity.can_serve() => Some("no key store answers and no key is known"),
        Health::Ready | Health::Degraded(_) => None,
    }
}

/// A reply of ours in JSON.
pub(crate) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
