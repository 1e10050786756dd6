//! The scripted upstream does what it is told, and records what it saw.

use serde_json::json;
use std::time::Duration;
use support::client::chat_body;
use support::{Act, Call, GatewayClient, Reply, Rule, Script, Upstream, Usage};

fn client(upstream: &Upstream) -> GatewayClient {
    GatewayClient::new(&format!("http://{}", upstream.addr()), "key", "")
}

async fn only_call(upstream: &Upstream) -> Call {
    upstream.ended(1).await;
    let calls = upstream.calls();
    assert_eq!(calls.len(), 1);
    calls[0].clone()
}

#[tokio::test]
async fn a_plain_answer_is_recorded_whole() {
    let upstream = Upstream::start().await;
    let body = chat_body("gpt-4", "hello", 7);
    let reply = client(&upstream).chat_with(&body, &[("x-mine", "1")]).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["usage"]["completion_tokens"], 7);
    assert_eq!(reply.json()["choices"][0]["finish_reason"], "length");
    let call = only_call(&upstream).await;
    assert_eq!(call.json(), body);
    assert_eq!(call.header("X-Mine"), Some("1"));
    assert_eq!((call.model.as_str(), call.max_tokens, call.status), ("gpt-4", Some(7), 200));
    assert_eq!((call.completion_tokens, call.emitted_tokens, call.closed_early_at), (Some(7), 7, None));
    assert!(reply.sent_us <= call.arrived_us && call.ended_us.unwrap() <= reply.ended_us);
}

#[tokio::test]
async fn a_stream_comes_in_chunks_with_usage_only_when_asked_for() {
    let upstream = Upstream::start().await;
    upstream.set(Reply { tokens_per_chunk: 4, ..Reply::tokens(10) });
    let client = client(&upstream);
    let mut body = chat_body("m", "hello", 100);
    let stream = client.chat_stream(&body).await.unwrap();
    assert!(stream.is_done() && stream.usage().is_none() && stream.broken.is_none());
    assert_eq!(stream.text(), "word ".repeat(10));
    assert_eq!(stream.events.len(), 1 + 3 + 1 + 1);
    body["stream_options"] = json!({"include_usage": true});
    let stream = client.chat_stream(&body).await.unwrap();
    assert_eq!(stream.usage().unwrap()["completion_tokens"], 10);
    assert!(stream.is_done());
}

#[tokio::test]
async fn the_request_may_name_its_own_output() {
    let upstream = Upstream::start().await;
    let client = client(&upstream);
    let mut body = chat_body("m", "hello", 100);
    let reply = client.chat_with(&body, &[("x-bench-output-tokens", "3")]).await.unwrap();
    assert_eq!(reply.json()["usage"]["completion_tokens"], 3);
    body["metadata"] = json!({"bench_output_tokens": "500"});
    let reply = client.chat(&body).await.unwrap();
    assert_eq!(reply.json()["usage"]["completion_tokens"], 100);
}

#[tokio::test]
async fn a_cut_stream_ends_without_its_end_and_a_cut_body_is_short() {
    let upstream = Upstream::start().await;
    let client = client(&upstream);
    upstream.set(Reply::cut_after(2));
    let stream = client.chat_stream(&chat_body("m", "hello", 9)).await.unwrap();
    assert!(!stream.is_done() && stream.broken.is_some());
    assert_eq!(stream.text(), "word word ");
    assert_eq!(only_call(&upstream).await.emitted_tokens, 2);
    assert!(client.chat(&chat_body("m", "hello", 9)).await.is_err());
    upstream.set(Reply { act: Act::CutAfter { chunks: 1, reset: true }, ..Reply::default() });
    assert!(client.chat_stream(&chat_body("m", "hello", 9)).await.unwrap().broken.is_some());
    assert_eq!(upstream.ended(3).await.closed_early, 0);
}

#[tokio::test]
async fn a_hang_ends_when_the_client_goes_and_says_so() {
    let upstream = Upstream::start().await;
    upstream.set(Reply::hang());
    let client = client(&upstream);
    let waiting = tokio::spawn(async move { client.chat(&chat_body("m", "hello", 9)).await });
    assert_eq!(upstream.arrived(1).await.in_flight, 1);
    waiting.abort();
    let call = only_call(&upstream).await;
    assert!(call.closed_early_at.is_some() && call.status == 0);
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_is_seen() {
    let upstream = Upstream::start().await;
    upstream.set(Reply { act: Act::HangAfter { chunks: 3 }, ..Reply::default() });
    let client = client(&upstream);
    let mut stream = client.open_stream(&chat_body("m", "hello", 9), &[]).await.unwrap();
    for _ in 0..4 {
        assert!(stream.next().await.unwrap().is_some());
    }
    drop(stream);
    let call = only_call(&upstream).await;
    assert_eq!((call.emitted_tokens, call.status), (3, 200));
    assert!(call.closed_early_at.is_some());
}

#[tokio::test]
async fn usage_lies_as_told() {
    let upstream = Upstream::start().await;
    let client = client(&upstream);
    let body = chat_body("m", "hello", 10);
    let lies = [
        (Usage::Off(90), json!(100)),
        (Usage::Off(-9), json!(1)),
        (Usage::Off(-15), json!(-5)),
        (Usage::Missing, json!(null)),
        (Usage::Raw(json!({"prompt_tokens": "ten", "completion_tokens": "many"})), json!("many")),
    ];
    for (usage, told) in lies {
        upstream.set(Reply::default().usage(usage));
        assert_eq!(client.chat(&body).await.unwrap().json()["usage"]["completion_tokens"], told);
    }
}

#[tokio::test]
async fn held_replies_wait_for_their_release_in_order() {
    let upstream = Upstream::start().await;
    upstream.set(Script::from(Reply::default().held()).on_model("free", Reply::default()));
    let client = client(&upstream);
    let mut waiting = Vec::new();
    for i in 0..3 {
        let client = client.clone();
        let body = chat_body("m", &format!("n{i}"), 1);
        waiting.push(tokio::spawn(async move { client.chat(&body).await.unwrap().ended_us }));
        upstream.arrived(i + 1).await;
    }
    assert_eq!(client.chat(&chat_body("free", "x", 1)).await.unwrap().status, 200);
    assert_eq!(upstream.stats().in_flight, 3);
    upstream.release(1);
    upstream.in_flight(2).await;
    assert!(upstream.calls()[0].ended_us.is_some() && upstream.calls()[1].ended_us.is_none());
    upstream.open();
    let stats = upstream.ended(4).await;
    assert_eq!(
        (stats.peak_in_flight, stats.models["m"].peak_in_flight, stats.models["free"].peak_in_flight),
        (4, 3, 1)
    );
    for task in waiting {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn errors_garbage_and_odd_streams_come_as_scripted() {
    let upstream = Upstream::start().await;
    let client = client(&upstream);
    let body = chat_body("m", "hello", 5);
    upstream.set(Script::from(Reply::default()).first(1, Reply::too_many(7)).first(1, Reply::status(503)));
    let reply = client.chat(&body).await.unwrap();
    assert_eq!(
        (reply.status, reply.header("retry-after"), reply.error_code().as_str()),
        (429, "7", "rate_limit_exceeded")
    );
    assert_eq!(client.chat(&body).await.unwrap().status, 503);
    assert_eq!(client.chat(&body).await.unwrap().status, 200);
    for (broken, reply) in [(true, Reply::garbage()), (true, Reply { act: Act::Close, ..Reply::default() })] {
        upstream.set(reply);
        assert_eq!(client.chat(&body).await.is_err(), broken);
    }
    upstream.set(Reply::garbage_json());
    assert!(client.chat(&body).await.unwrap().json().is_null());
    upstream.set(Reply { crlf: true, no_done: true, ..Reply::split_utf8() });
    let stream = client.chat_stream(&body).await.unwrap();
    assert_eq!(stream.text(), "zażółć gęślą jaźń, 漢字, 🙂");
    assert!(!stream.is_done() && stream.broken.is_none());
    upstream.set(Reply::giant_line(3_000_000));
    assert_eq!(client.chat_stream(&body).await.unwrap().text().len(), 3_000_000);
    upstream.set(Reply { act: Act::ErrorAfter { chunks: 1 }, ..Reply::default() });
    assert!(client.chat_stream(&body).await.unwrap().error().is_some());
}

#[tokio::test]
async fn delays_are_kept() {
    let upstream = Upstream::start().await;
    let client = client(&upstream);
    let body = chat_body("m", "hello", 20);
    upstream.set(Reply::default().head_delay(Duration::from_millis(40)));
    assert!(client.chat(&body).await.unwrap().took() >= Duration::from_millis(40));
    upstream.set(Reply::default().spread(Duration::from_millis(60), 5));
    let stream = client.chat_stream(&body).await.unwrap();
    assert!(stream.ended_us - stream.head_us >= 55_000);
    assert_eq!(stream.text(), "word ".repeat(20));
}

#[tokio::test]
async fn the_control_routes_do_what_the_handle_does() {
    let upstream = Upstream::start().await;
    let client = client(&upstream);
    let rule = Rule { header: Some(("x-kind".to_owned(), "bad".to_owned())), ..Rule::every(Reply::status(500)) };
    let script = Script::from(Reply::tokens(2)).rule(rule).on_body("slow", Reply::default().held());
    let put = client.request(reqwest::Method::PUT, "/_control/script").json(&script);
    assert_eq!(client.send(put).await.unwrap().status, 204);
    let body = chat_body("m", "hello", 5);
    assert_eq!(client.chat_with(&body, &[("x-kind", "bad")]).await.unwrap().status, 500);
    assert_eq!(client.chat(&body).await.unwrap().json()["usage"]["completion_tokens"], 2);
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.chat(&chat_body("m", "slow", 5)).await.unwrap().status }
    });
    upstream.arrived(3).await;
    let release = client.request(reqwest::Method::POST, "/_control/release/main/1");
    assert_eq!(client.send(release).await.unwrap().status, 204);
    assert_eq!(slow.await.unwrap(), 200);
    let stats = client.send(client.request(reqwest::Method::GET, "/_control/stats")).await.unwrap().json();
    assert_eq!((&stats["requests"], &stats["in_flight"]), (&json!(3), &json!(0)));
    let record = client.send(client.request(reqwest::Method::GET, "/_control/record")).await.unwrap().json();
    assert_eq!(record[1]["body"], body.to_string());
    let take = || client.send(client.request(reqwest::Method::POST, "/_control/take"));
    assert_eq!(take().await.unwrap().json().as_array().unwrap().len(), 3);
    assert_eq!(take().await.unwrap().json(), json!([]));
    assert_eq!(upstream.stats().requests, 3);
    client.send(client.request(reqwest::Method::DELETE, "/_control/record")).await.unwrap();
    assert!(upstream.calls().is_empty() && upstream.stats().requests == 0);
    let models = client.send(client.request(reqwest::Method::GET, "/v1/models")).await.unwrap().json();
    assert_eq!(models["data"][0]["id"], "gpt-4");
}

#[tokio::test]
async fn a_body_in_chunks_and_a_broken_one_are_read() {
    let upstream = Upstream::start().await;
    let client = client(&upstream);
    let text = chat_body("m", "hello", 5).to_string();
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = text.as_bytes().chunks(7).map(|p| Ok(p.to_vec())).collect();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let chunked = client.request(reqwest::Method::POST, "/v1/chat/completions").body(body);
    assert_eq!(client.send(chunked).await.unwrap().status, 200);
    assert_eq!(only_call(&upstream).await.body, text.as_bytes());
    let broken = client.request(reqwest::Method::POST, "/v1/chat/completions").body("{\"model\": 7");
    assert_eq!(client.send(broken).await.unwrap().status, 400);
}
