//! Every dialect of clients in front of every dialect of upstreams, through the real gateway: what the upstream sent is what
//! the client reads, and what goes wrong is told in the client's own words.

use crate::rig::{app, idle, row_of};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use support::{Act, ChatReply, Reply, Script, TestApp, Usage};

const UPSTREAMS: [&str; 3] = ["openai", "anthropic", "gemini"];
const CLIENTS: [&str; 3] = UPSTREAMS;
const TEXT: &str = "zażółć 漢字 \u{1f642} \"quoted\"\nline";
const ARGUMENTS: &str = r#"{"city":"Łódź","days":[1,2]}"#;

/// What a client reads of an answer, whatever its form.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    text: String,
    tools: Vec<(String, Value)>,
    stop: String,
    usage: (u64, u64),
}

async fn start(script: impl Into<Script>) -> TestApp {
    let mut builder = app().script(script).set("upstream.first_byte_timeout_ms", 1_000);
    for upstream in UPSTREAMS {
        builder = builder.pool(upstream, move |pool| pool.set("dialect", upstream).set("api_key", "up-key"));
    }
    builder.start().await.unwrap()
}

/// A request of a client of `dialect` for `model`.
fn asked(dialect: &str, model: &str, stream: bool) -> (String, Value) {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    match dialect {
        "openai" => (
            "/v1/chat/completions".to_owned(),
            json!({"model": model, "max_tokens": 500, "stream": stream, "stream_options": {"include_usage": true},
                "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}],
                "tools": [{"type": "function", "function": {"name": "weather", "parameters": schema}}]}),
        ),
        "anthropic" => (
            "/anthropic/v1/messages".to_owned(),
            json!({"model": model, "max_tokens": 500, "stream": stream, "system": "s",
                "messages": [{"role": "user", "content": "hello"}],
                "tools": [{"name": "weather", "input_schema": schema}]}),
        ),
        _ => (
            format!(
                "/v1beta/models/{model}:{}",
                if stream { "streamGenerateContent?alt=sse" } else { "generateContent" }
            ),
            json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}],
                "systemInstruction": {"parts": [{"text": "s"}]}, "generationConfig": {"maxOutputTokens": 500},
                "tools": [{"functionDeclarations": [{"name": "weather", "parametersJsonSchema": schema}]}]}),
        ),
    }
}

async fn send(app: &TestApp, dialect: &str, model: &str, stream: bool) -> ChatReply {
    let (path, body) = asked(dialect, model, stream);
    app.client.send(app.client.request(Method::POST, &path).json(&body)).await.unwrap()
}

fn events(reply: &ChatReply) -> Vec<Value> {
    let mut parser = support::sse::SseParser::default();
    parser.feed(&reply.body).iter().filter_map(support::sse::SseEvent::json).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

fn read_openai(reply: &ChatReply, stream: bool) -> Read {
    let mut read = Read::default();
    let chunks = if stream { events(reply) } else { vec![reply.json()] };
    let mut calls: Vec<(String, String)> = Vec::new();
    for chunk in chunks {
        let choice = &chunk["choices"][0];
        let said = if stream { &choice["delta"] } else { &choice["message"] };
        read.text += said["content"].as_str().unwrap_or_default();
        for (place, call) in said["tool_calls"].as_array().into_iter().flatten().enumerate() {
            let index = call["index"].as_u64().map_or(place, |index| index as usize);
            if calls.len() <= index {
                calls.push((call["function"]["name"].as_str().unwrap().to_owned(), String::new()));
            }
            calls[index].1 += call["function"]["arguments"].as_str().unwrap_or_default();
        }
        if let Some(stop) = choice["finish_reason"].as_str() {
            stop.clone_into(&mut read.stop);
        }
        if chunk["usage"].is_object() {
            read.usage = (number(&chunk["usage"]["prompt_tokens"]), number(&chunk["usage"]["completion_tokens"]));
        }
    }
    read.tools = calls.into_iter().map(|(name, arguments)| (name, parse(&arguments))).collect();
    read
}

fn read_anthropic(reply: &ChatReply, stream: bool) -> Read {
    let mut read = Read::default();
    let whole = if stream { folded(&events(reply)) } else { reply.json() };
    for block in whole["content"].as_array().unwrap() {
        match block["type"].as_str().unwrap() {
            "text" => read.text += block["text"].as_str().unwrap(),
            "tool_use" => read.tools.push((block["name"].as_str().unwrap().to_owned(), block["input"].clone())),
            other => panic!("{other}"),
        }
    }
    whole["stop_reason"].as_str().unwrap().clone_into(&mut read.stop);
    read.usage = (number(&whole["usage"]["input_tokens"]), number(&whole["usage"]["output_tokens"]));
    read
}

/// Puts a stream of Anthropic's together as its SDK does.
fn folded(events: &[Value]) -> Value {
    let mut message = Value::Null;
    let mut inputs = std::collections::BTreeMap::<u64, String>::new();
    for event in events {
        let index = number(&event["index"]);
        match event["type"].as_str().unwrap() {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                assert_eq!(message["content"].as_array().unwrap().len() as u64, index);
                message["content"].as_array_mut().unwrap().push(event["content_block"].clone());
            }
            "content_block_delta" => {
                let delta = &event["delta"];
                if let Some(text) = delta["text"].as_str() {
                    let so_far = message["content"][index as usize]["text"].as_str().unwrap().to_owned();
                    message["content"][index as usize]["text"] = json!(so_far + text);
                }
                if let Some(json) = delta["partial_json"].as_str() {
                    inputs.entry(index).or_default().push_str(json);
                }
            }
            "message_delta" => {
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                for (name, value) in event["usage"].as_object().unwrap() {
                    message["usage"][name] = value.clone();
                }
            }
            _ => {}
        }
    }
    for (index, input) in inputs {
        message["content"][index as usize]["input"] = parse(if input.is_empty() { "{}" } else { &input });
    }
    assert_eq!(events.last().unwrap()["type"], "message_stop");
    message
}

fn read_gemini(reply: &ChatReply, stream: bool) -> Read {
    let mut read = Read::default();
    for chunk in if stream { events(reply) } else { vec![reply.json()] } {
        let candidate = &chunk["candidates"][0];
        for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
            read.text += part["text"].as_str().unwrap_or_default();
            if let Some(call) = part["functionCall"].as_object() {
                read.tools.push((call["name"].as_str().unwrap().to_owned(), call["args"].clone()));
            }
        }
        if let Some(stop) = candidate["finishReason"].as_str() {
            stop.clone_into(&mut read.stop);
        }
        if let Some(usage) = chunk["usageMetadata"].as_object() {
            read.usage = (number(&usage["promptTokenCount"]), number(&usage["candidatesTokenCount"]));
        }
    }
    read
}

fn read(client: &str, reply: &ChatReply, stream: bool) -> Read {
    match client {
        "openai" => read_openai(reply, stream),
        "anthropic" => read_anthropic(reply, stream),
        _ => read_gemini(reply, stream),
    }
}

fn stop_word(client: &str, openai: &str) -> &'static str {
    match (client, openai) {
        ("openai", "tool_calls") => "tool_calls",
        ("openai", "length") => "length",
        ("openai", _) => "stop",
        ("anthropic", "tool_calls") => "tool_use",
        ("anthropic", "length") => "max_tokens",
        ("anthropic", _) => "end_turn",
        (_, "length") => "MAX_TOKENS",
        _ => "STOP",
    }
}

#[tokio::test]
async fn every_client_reads_what_every_upstream_sent() {
    let app = start(Script::default()).await;
    let two = Reply::tokens(40)
        .prompt_tokens(123)
        .text(TEXT)
        .tool("call_1", "weather", ARGUMENTS)
        .tool("call_2", "weather", "{}");
    for (reply, stop, has_tools, completion) in [
        (Reply::tokens(40).prompt_tokens(123).text(TEXT), "stop", false, 40),
        (two, "tool_calls", true, 40),
        (Reply::default().prompt_tokens(123).text(TEXT), "length", false, 500),
    ] {
        // Every byte alone, with the other line ends.
        app.upstream.set(Reply { split_bytes: Some(1), crlf: true, ..reply });
        for (client, upstream) in CLIENTS.iter().flat_map(|client| UPSTREAMS.map(|upstream| (*client, upstream))) {
            for stream in [false, true] {
                let got = send(&app, client, upstream, stream).await;
                let case = format!("{client} {upstream} {stream}: {}", String::from_utf8_lossy(&got.body));
                assert_eq!(got.status, 200, "{case}");
                let got = read(client, &got, stream);
                assert_eq!(got.text, TEXT, "{case}");
                assert_eq!(got.usage, (123, completion), "{case}");
                assert_eq!(got.stop, stop_word(client, stop), "{case}");
                let expected = [("weather".to_owned(), parse(ARGUMENTS)), ("weather".to_owned(), json!({}))];
                assert_eq!(got.tools, if has_tools { expected.to_vec() } else { Vec::new() }, "{case}");
            }
        }
    }
    idle(&app.client).await;
}

#[tokio::test]
async fn an_upstream_gets_its_own_key_path_and_words() {
    let app = start(Reply::tokens(2)).await;
    for client in CLIENTS {
        for (upstream, header, path) in [
            ("openai", "authorization", "/v1/chat/completions"),
            ("anthropic", "x-api-key", "/v1/messages"),
            ("gemini", "x-goog-api-key", "/v1/models/gemini:generateContent"),
        ] {
            app.upstream.clear();
            assert_eq!(send(&app, client, upstream, false).await.status, 200);
            let call = app.upstream.calls().remove(0);
            assert_eq!(call.path, path, "{client}");
            assert_eq!(call.header(header).unwrap().trim_start_matches("Bearer "), "up-key");
            assert_eq!(call.header("anthropic-version").is_some(), upstream == "anthropic", "{client} {upstream}");
            assert_eq!(call.max_tokens, Some(500));
            if client == upstream {
                let mut sent = asked(client, upstream, false).1;
                // Only what must change does.
                if client == "openai" {
                    sent["stream"] = json!(false);
                }
                assert_eq!(call.json(), sent);
            }
        }
    }
}

#[tokio::test]
async fn every_failure_is_told_in_the_clients_words() {
    let app = start(Script::default()).await;
    for (reply, status, kinds) in [
        (Reply::too_many(7), [429, 429, 429], ["rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"]),
        (Reply::status(500), [500, 500, 500], ["", "api_error", "INTERNAL"]),
        (Reply::status(503), [503, 529, 503], ["overloaded", "overloaded_error", "UNAVAILABLE"]),
        (Reply::status(400), [400, 400, 400], ["", "invalid_request_error", "INVALID_ARGUMENT"]),
        (Reply::hang(), [504, 504, 504], ["upstream_timeout", "timeout_error", "DEADLINE_EXCEEDED"]),
        (Reply::garbage(), [502, 502, 502], ["upstream_broken", "api_error", "UNAVAILABLE"]),
        (Reply::garbage_json(), [502, 502, 502], ["upstream_broken", "api_error", "UNAVAILABLE"]),
        (Reply::cut_after(1), [502, 502, 502], ["upstream_broken", "api_error", "UNAVAILABLE"]),
    ] {
        app.upstream.set(reply.clone());
        for (place, client) in CLIENTS.iter().enumerate() {
            for upstream in UPSTREAMS {
                let got = send(&app, client, upstream, false).await;
                let body = got.json();
                let case = format!("{client} {upstream} {:?}: {body}", reply.act);
                // The same dialect on both sides: the upstream's own status.
                let own = client == &upstream && reply.act == Act::Status { status: 503, body: None };
                assert_eq!(got.status, if own { 503 } else { status[place] }, "{case}");
                let kind = match *client {
                    "openai" => &body["error"]["code"],
                    "anthropic" => &body["error"]["type"],
                    _ => &body["error"]["status"],
                };
                assert!(kinds[place].is_empty() || *kind == kinds[place], "{case}");
                assert!(!body["error"]["message"].as_str().unwrap().is_empty(), "{case}");
                if got.status == 429 {
                    assert_eq!(got.header("retry-after"), "7", "{case}");
                }
            }
        }
    }
    idle(&app.client).await;
}

#[tokio::test]
async fn a_stream_that_breaks_ends_in_the_clients_words_and_is_charged_once() {
    let app = start(Script::default()).await;
    let slow = |reply: Reply| reply.chunk_delay(Duration::from_millis(5));
    for reply in [
        slow(Reply { act: Act::CutAfter { chunks: 2, reset: false }, ..Reply::tokens(10) }),
        slow(Reply { act: Act::ErrorAfter { chunks: 2 }, ..Reply::tokens(10) }),
    ] {
        app.upstream.set(reply.clone());
        for client in CLIENTS {
            for upstream in UPSTREAMS {
                let got = send(&app, client, upstream, true).await;
                let text = String::from_utf8_lossy(&got.body).into_owned();
                let case = format!("{client} {upstream} {:?}: {text}", reply.act);
                let errors: Vec<Value> = events(&got).into_iter().filter(|event| event["error"].is_object()).collect();
                assert!(!errors.is_empty(), "{case}");
                assert_eq!(text.contains("event: error\n"), client == "anthropic", "{case}");
                assert_eq!(errors[0]["error"]["code"].is_u64(), client == "gemini", "{case}");
                assert_eq!(text.matches("word ").count(), 2, "{case}");
                let row = row_of(&app.client, got.header("x-tokligence-request-id")).await;
                assert_eq!(row["status"], "cut", "{case}");
            }
        }
    }
    idle(&app.client).await;
}

#[tokio::test]
async fn usage_that_an_upstream_leaves_out_is_counted_here() {
    let app = start(Reply::tokens(4).usage(Usage::Missing)).await;
    for client in CLIENTS {
        for upstream in UPSTREAMS {
            let got = send(&app, client, upstream, true).await;
            let row = row_of(&app.client, got.header("x-tokligence-request-id")).await;
            assert_eq!((&row["status"], row["completion_tokens"].as_u64().unwrap() > 0), (&json!("ok"), true), "{row}");
        }
    }
}

#[tokio::test]
async fn a_stream_without_sse_is_an_array() {
    let app = start(Reply::tokens(3).prompt_tokens(9)).await;
    for upstream in UPSTREAMS {
        let (_, body) = asked("gemini", upstream, true);
        let path = format!("/v1/models/{upstream}:streamGenerateContent");
        let got = app.client.send(app.client.request(Method::POST, &path).json(&body)).await.unwrap();
        assert!(got.header("content-type").starts_with("application/json"), "{upstream}");
        let chunks = got.json();
        let chunks = chunks.as_array().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&got.body)));
        assert_eq!(chunks.last().unwrap()["usageMetadata"]["promptTokenCount"], 9, "{upstream}");
    }
}

#[tokio::test]
async fn a_count_is_what_a_request_reserves() {
    let app = start(Reply::tokens(1).usage(Usage::Missing)).await;
    for (client, count, path, body) in [
        ("anthropic", "input_tokens", "/v1/messages/count_tokens", asked("anthropic", "openai", false).1),
        ("gemini", "totalTokens", "/v1beta/models/openai:countTokens", asked("gemini", "openai", false).1),
    ] {
        let got = app.client.send(app.client.request(Method::POST, path).json(&body)).await.unwrap();
        let counted = got.json()[count].as_u64().unwrap();
        let sent = send(&app, client, "openai", false).await;
        let row = row_of(&app.client, sent.header("x-tokligence-request-id")).await;
        assert_eq!(row["prompt_tokens"].as_u64().unwrap(), counted, "{client}");
    }
}

#[tokio::test]
async fn what_is_refused_early_is_refused_in_the_routes_words() {
    let app = start(Script::default()).await;
    let keyless = app.client.with_key("tok_wrong");
    for (path, status, at, word) in [
        ("/v1/messages", 401, "type", "authentication_error"),
        ("/v1beta/models/m:generateContent", 401, "status", "UNAUTHENTICATED"),
        ("/v1/chat/completions", 401, "code", "invalid_api_key"),
        ("/anthropic/v1/nothing", 404, "type", "not_found_error"),
        ("/v1beta/nothing", 404, "status", "NOT_FOUND"),
        ("/v1beta/openai/nothing", 404, "code", "unknown_url"),
    ] {
        let got = keyless.send(keyless.request(Method::POST, path).body("{")).await.unwrap();
        assert_eq!((got.status, &got.json()["error"][at]), (status, &json!(word)), "{path}: {}", got.json());
    }
    let got = app.client.send(app.client.request(Method::POST, "/v1/messages").body("{")).await.unwrap();
    assert_eq!(got.json()["type"], "error");
    assert!(got.header("request-id").starts_with("req_"));
}
