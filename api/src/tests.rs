//! The gateway as a client sees it: a real listener in front of a scripted upstream, over real sockets.

mod fixture;
mod sockets;

use fixture::{Gateway, chat};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn an_answer_in_one_piece_comes_back_with_our_headers() {
    let gateway = Gateway::start().await;
    let reply = gateway.post(chat("plain")).await;
    assert_eq!(reply.status(), 200);
    for name in ["x-request-id", "x-tokligence-node", "x-tokligence-overhead-us", "x-tokligence-queue-wait-ms"] {
        assert!(reply.headers().contains_key(name), "{name}");
    }
    assert_eq!(reply.headers()["x-tokligence-provider"], "plain");
    assert_eq!(reply.headers()["x-tokligence-tier"], "standard");
    assert_eq!(reply.headers()["x-upstream"], "yes");
    assert!(!reply.headers().contains_key("set-cookie"));
    let body: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "hello");
    let (headers, sent) = gateway.sent().pop().unwrap();
    assert_eq!(headers["authorization"], "Bearer upstream-key");
    assert_eq!(headers["x-custom"], "kept");
    assert_eq!(headers["content-length"], sent.len().to_string());
    assert_eq!(String::from_utf8(sent).unwrap(), chat("plain").replacen('{', r#"{"max_tokens":1024,"#, 1));
}

#[tokio::test]
async fn a_stream_passes_event_by_event_without_the_usage_nobody_asked_for() {
    let gateway = Gateway::start().await;
    let body = chat("stream").replacen('{', r#"{"stream":true,"#, 1);
    let reply = gateway.post(body.clone()).await;
    assert_eq!(reply.headers()["content-type"], "text/event-stream");
    let text = reply.text().await.unwrap();
    assert_eq!(text, "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n");
    let sent: Value = serde_json::from_slice(&gateway.sent().pop().unwrap().1).unwrap();
    assert_eq!(sent["stream_options"]["include_usage"], true);

    let asked = body.replacen('{', r#"{"stream_options":{"include_usage":true},"#, 1);
    let text = gateway.post(asked).await.text().await.unwrap();
    assert!(text.contains("\"usage\":{"), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_event() {
    let gateway = Gateway::start().await;
    let text = gateway.post(chat("cut").replacen('{', r#"{"stream":true,"#, 1)).await.text().await.unwrap();
    let (first, last) = text.split_once("\n\n").unwrap();
    assert_eq!(first, "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}");
    let error: Value = serde_json::from_str(last.trim().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "upstream_broken");
}

#[tokio::test]
async fn a_client_that_leaves_closes_the_upstream() {
    let gateway = Gateway::start().await;
    let mut reply = gateway.post(chat("endless").replacen('{', r#"{"stream":true,"#, 1)).await;
    assert!(reply.chunk().await.unwrap().is_some());
    drop(reply);
    gateway.upstream_closed().await;
    gateway.idle().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_frees_everything() {
    let gateway = Gateway::start().await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), gateway.post(chat("hang"))).await;
    assert!(waiting.is_err());
    gateway.idle().await;
}

#[tokio::test]
async fn upstream_failures_become_envelopes() {
    let gateway = Gateway::start().await;
    for (model, status, code) in [
        ("refuse", 429, json!("upstream_says")),
        ("html", 500, json!("upstream_error")),
        ("garbage", 502, json!("upstream_broken")),
        ("redirect", 502, json!("upstream_broken")),
        ("slow", 504, json!("upstream_timeout")),
        ("nowhere", 502, json!("upstream_unreachable")),
    ] {
        let reply = gateway.post(chat(model)).await;
        assert_eq!(reply.status(), status, "{model}");
        let body: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
        assert_eq!(body["error"]["code"], code, "{model}: {body}");
    }
    gateway.idle().await;
}

#[tokio::test]
async fn a_row_says_what_was_used_and_a_call_never_made_has_none() {
    let gateway = Gateway::start().await;
    for model in ["plain", "refuse", "billed", "html", "nowhere", "garbage"] {
        gateway.post(chat(model)).await;
    }
    gateway.idle().await;
    let rows = gateway.rows().await;
    let rows: Vec<_> =
        rows.iter().map(|row| (row.pool.as_str(), row.status.as_str(), row.http_status, row.charged_tokens)).collect();
    let in_full = rows.last().unwrap().3;
    assert_eq!(
        rows,
        [
            ("plain", "ok", 200, 8),
            ("refuse", "ok", 429, 0),
            ("billed", "ok", 500, 9),
            ("html", "ok", 500, 0),
            ("garbage", "cut", 0, in_full),
        ]
    );
    assert!(in_full > 1_024);
    let metrics = gateway.get("/metrics").await.text().await.unwrap();
    for line in [r#"{outcome="ok"} 1"#, r#"{outcome="refused"} 4"#, r#"{outcome="cut"} 1"#] {
        assert!(metrics.contains(&format!("tokligence_requests_total{line}")), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_node_whose_journal_failed_is_not_ready_and_calls_nobody() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.get("/health/ready").await.status(), 200);
    gateway.break_journal();
    let reply = gateway.get("/health/ready").await;
    assert_eq!(reply.status(), 503);
    let body: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
    assert_eq!(body["reason"], "the usage journal cannot be written");
    assert_eq!(gateway.post(chat("plain")).await.status(), 503);
    assert!(gateway.sent().is_empty());
    assert_eq!(gateway.get("/health/live").await.status(), 200);
}

#[tokio::test]
async fn bad_requests_are_refused_in_the_envelope() {
    let gateway = Gateway::start().await;
    let big = format!(r#"{{"model":"plain","messages":[{{"content":"{}"}}]}}"#, "a ".repeat(200_000));
    for (body, status, code) in [
        ("{".to_owned(), 400, Value::Null),
        (chat("nothing-like-it"), 404, json!("model_not_found")),
        (chat("secret"), 403, json!("model_not_allowed")),
        (chat("plain").replacen('{', r#"{"n":1000000000,"#, 1), 400, Value::Null),
        (chat("small").replacen('{', r#"{"max_tokens":5000,"#, 1), 400, json!("context_length_exceeded")),
        (big, 413, json!("request_too_large")),
    ] {
        let reply = gateway.post(body).await;
        assert_eq!(reply.status(), status);
        assert!(reply.headers().contains_key("x-request-id"));
        let body: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
        assert_eq!(body["error"]["code"], code, "{body}");
    }
    assert!(gateway.sent().is_empty());
}

#[tokio::test]
async fn who_shows_no_good_key_is_refused() {
    let gateway = Gateway::start().await;
    for key in ["", "tok_wrong", "Bearer"] {
        let reply = gateway.post_as(key, chat("plain")).await;
        assert_eq!(reply.status(), 401, "{key}");
        let body: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
        assert_eq!(body["error"]["code"], "invalid_api_key");
    }
}

#[tokio::test]
async fn a_prompt_over_the_context_goes_to_the_larger_model() {
    let gateway = Gateway::start().await;
    let body = format!(r#"{{"model":"with-larger","messages":[{{"content":"{}"}}]}}"#, "word ".repeat(200));
    let reply = gateway.post(body).await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["x-tokligence-provider"], "plain");
}

#[tokio::test]
async fn models_are_listed_with_provider_and_capacity() {
    let gateway = Gateway::start().await;
    let list: Value = serde_json::from_str(&gateway.get("/v1/models").await.text().await.unwrap()).unwrap();
    let models = list["data"].as_array().unwrap();
    let small = models.iter().find(|model| model["id"] == "small").unwrap();
    assert_eq!(small["owned_by"], "small");
    assert_eq!(small["tokligence"]["capacity"]["max_context_length"], 100);
    assert!(models.iter().all(|model| model["id"] != "secret"));
    assert_eq!(gateway.get("/v1/models/small").await.status(), 200);
    assert_eq!(gateway.get("/v1/models/secret").await.status(), 404);
}

#[tokio::test]
async fn the_loopback_answers_plain_and_streamed_within_the_cap() {
    let gateway = Gateway::start().await;
    let body = r#"{"model":"loop","messages":[{"role":"user","content":"one two"}]}"#;
    let reply: Value = serde_json::from_str(&gateway.post(body.to_owned()).await.text().await.unwrap()).unwrap();
    assert_eq!(reply["choices"][0]["message"]["content"], "You said: one two");
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    let capped = body.replacen('{', r#"{"max_tokens":2,"#, 1);
    let reply: Value = serde_json::from_str(&gateway.post(capped).await.text().await.unwrap()).unwrap();
    assert_eq!(reply["choices"][0]["finish_reason"], "length");
    assert!(reply["usage"]["completion_tokens"].as_u64().unwrap() <= 2);
    let text = gateway.post(body.replacen('{', r#"{"stream":true,"#, 1)).await.text().await.unwrap();
    assert!(text.contains(r#""content":"two""#) && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(!text.contains("usage"), "{text}");
}

#[tokio::test]
async fn a_stopping_node_finishes_what_it_began_and_takes_no_more() {
    let mut gateway = Gateway::start().await;
    let mut reply = gateway.post(chat("late").replacen('{', r#"{"stream":true,"#, 1)).await;
    assert!(reply.chunk().await.unwrap().is_some());
    gateway.stop();
    let mut rest = String::new();
    while let Some(chunk) = reply.chunk().await.unwrap() {
        rest.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    assert_eq!(gateway.drained().await, crate::Drained::Whole);
}

#[tokio::test]
async fn unknown_routes_answer_in_the_callers_dialect() {
    let gateway = Gateway::start().await;
    let body: Value = serde_json::from_str(&gateway.get("/v1/nothing").await.text().await.unwrap()).unwrap();
    assert_eq!(body["error"]["code"], "unknown_url");
    let body: Value =
        serde_json::from_str(&gateway.get("/v1/models/m:nothing?key=x").await.text().await.unwrap()).unwrap();
    assert_eq!(body["error"]["status"], "UNAUTHENTICATED");
    assert_eq!(gateway.get("/v1/chat/completions").await.status(), 405);
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(gateway.get(path).await.status(), 200);
    }
    let metrics = gateway.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("tokligence_gateway_overhead_seconds_count"));
}
