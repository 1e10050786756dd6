//! Scenarios of capacity: bursts, permits, context lengths, and that each model has limits of its own.

use crate::rig::{app, begin, replies, served, sized, usage, waiting};
use serde_json::{Value, json};
use std::time::Duration;
use support::client::chat_body;
use support::{ChatReply, Reply, Script};

#[tokio::test]
async fn p0_cap_001_the_eleventh_request_waits_for_refill() {
    let script = Script::from(Reply::default().held()).on_model("warm", Reply::tokens(1));
    let limited = app().pool("m", |pool| pool.tokens_per_sec(1_000).burst_tokens(1_000));
    let app = limited.pool("warm", |pool| pool).script(script).start().await.unwrap();
    // The key is known and connections are open, so that the burst is over before much flows back.
    let warm = (0..11).map(|_| begin(&app.client, chat_body("warm", "hello", 1), &[])).collect();
    replies(warm).await;
    app.upstream.clear();

    let first: Vec<_> = (0..11).map(|i| begin(&app.client, sized("m", &format!("{i:02}"), 100), &[])).collect();
    // Those behind them take what flows back; none of the burst is left while they wait.
    let behind: Vec<_> = (0..20).map(|i| begin(&app.client, sized("m", &format!("behind {i}"), 100), &[])).collect();
    let full = |metrics: &support::Metrics| usage(metrics, "tokens", "m").1 >= 0.96;
    let metrics = app.client.metrics_until(Duration::from_secs(5), full).await.unwrap();
    assert_eq!(format!("{:.1}", usage(&metrics, "tokens", "m").1), "1.0");
    app.upstream.open();

    let mut waits = Vec::new();
    for reply in replies(first).await.into_iter().chain(replies(behind).await) {
        assert_eq!(reply.status, 200, "{}", reply.json());
        waits.push(reply.queue_wait_ms());
    }
    waits.sort_by(f64::total_cmp);
    // The refill of one request takes 100 ms: the first ten did not wait for any, though perhaps for the leader's word;
    // the eleventh did, and each behind it for 100 ms more.
    assert!(waits[9] < 60.0 && waits[10] >= 60.0, "{waits:?}");
    assert!(waits[10] < 1_000.0 && waits[30] >= 1_500.0, "{waits:?}");
}

#[tokio::test]
async fn p0_cap_002_the_eleventh_long_request_waits_for_a_permit() {
    let limited = app().pool("m", |pool| pool.tokens_per_sec(1_000).rps(50).concurrent(10));
    let app = limited.script(Reply::tokens(1).held()).start().await.unwrap();
    let mut pending: Vec<_> = (0..10).map(|i| begin(&app.client, sized("m", &format!("{i:02}"), 20), &[])).collect();
    app.upstream.in_flight(10).await;
    pending.push(begin(&app.client, sized("m", "eleven", 20), &[]));
    waiting(&app.client, 1).await;
    assert_eq!(app.upstream.stats().requests, 10);

    app.upstream.release(1);
    app.upstream.arrived(11).await;
    assert_eq!(served(&app.upstream)[10], "eleven");
    app.upstream.set(Reply::tokens(1).head_delay(Duration::from_millis(15)));
    app.upstream.open();
    let more = (0..60).map(|i| begin(&app.client, sized("m", &format!("more {i}"), 20), &[]));
    pending.extend(more.collect::<Vec<_>>());
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    assert_eq!(app.upstream.stats().peak_in_flight, 10);
}

fn long(model: &str, bytes: usize) -> Value {
    chat_body(model, &"a".repeat(bytes), 1_000)
}

fn assert_too_long(reply: &ChatReply) {
    assert_eq!((reply.status, reply.error_code().as_str()), (400, "context_length_exceeded"), "{}", reply.json());
    assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    assert_eq!(reply.json()["error"]["param"], "messages");
}

#[tokio::test]
async fn p0_cap_003_a_prompt_over_the_context_limit_is_refused() {
    let app = app().pool("m", |pool| pool.context(128_000)).start().await.unwrap();
    assert_eq!(app.client.chat(&long("m", 100_000)).await.unwrap().status, 200);
    let refused = app.client.chat(&long("m", 150_000)).await.unwrap();
    assert_too_long(&refused);
    let said = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(said.contains("128000") && said.contains("151012"), "{said}");
    // A prompt that fits, with an answer that does not.
    assert_too_long(&app.client.chat(&chat_body("m", &"a".repeat(100_000), 28_000)).await.unwrap());
    assert_eq!(app.upstream.stats().requests, 1);
}

#[tokio::test]
async fn p0_cap_003_a_prompt_over_the_context_limit_goes_to_the_larger_model() {
    let pools = app().pool("m", |pool| pool.context(128_000).set("larger_model", "m-long"));
    let app = pools.pool("m-long", |pool| pool.context(200_000)).start().await.unwrap();
    for (bytes, model) in [(100_000, "m"), (150_000, "m-long")] {
        let reply = app.client.chat(&long("m", bytes)).await.unwrap();
        assert_eq!((reply.status, reply.header("x-tokligence-provider")), (200, model));
    }
    assert_too_long(&app.client.chat(&long("m", 250_000)).await.unwrap());
    let models: Vec<_> = app.upstream.calls().into_iter().map(|call| call.model).collect();
    assert_eq!(models, ["m", "m-long"]);
}

#[tokio::test]
async fn p0_loc_001_the_models_are_listed_with_provider_and_capacity() {
    let pools = app().pool("gpt-4", |pool| pool.tokens_per_sec(1_000).rps(50).concurrent(10).context(128_000));
    let app = pools.pool("llama-3", |pool| pool).start().await.unwrap();
    let reply = app.client.send(app.client.request(reqwest::Method::GET, "/v1/models")).await.unwrap();
    let list = reply.json();
    assert_eq!((reply.status, &list["object"]), (200, &json!("list")));
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["gpt-4", "llama-3"]);
    let model = &list["data"][0];
    assert_eq!((&model["object"], &model["owned_by"]), (&json!("model"), &json!("gpt-4")), "{model}");
    let capacity = &model["tokligence"]["capacity"];
    for (name, expected) in
        [("max_tokens_per_sec", 1_000), ("max_rps", 50), ("max_concurrent", 10), ("max_context_length", 128_000)]
    {
        assert_eq!(capacity[name], expected, "{name}: {model}");
    }
}

#[tokio::test]
async fn p0_loc_002_a_model_at_its_limit_does_not_touch_another() {
    let pools = app().pool("full", |pool| pool.concurrent(1)).pool("free", |pool| pool.concurrent(1));
    let script = Script::default().on_model("full", Reply::tokens(1).held());
    let app = pools.script(script).start().await.unwrap();
    let held = begin(&app.client, sized("full", "held", 100), &[]);
    app.upstream.in_flight(1).await;
    let queued = begin(&app.client, sized("full", "queued", 100), &[]);
    waiting(&app.client, 1).await;
    for i in 0..5 {
        let reply = app.client.chat(&sized("free", &format!("free {i}"), 100)).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.json());
    }
    assert!(!queued.is_finished());
    assert_eq!(app.upstream.stats().models["full"].requests, 1);
    app.upstream.open();
    let replies = replies(vec![held, queued]).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(app.upstream.stats().models["full"].peak_in_flight, 1);
}

#[tokio::test]
async fn a_raised_limit_serves_those_that_wait_and_a_lowered_one_holds_from_then_on() {
    let app = app().pool("m", |pool| pool.concurrent(1)).script(Reply::tokens(1).held()).start().await.unwrap();
    let mut pending: Vec<_> = (0..6).map(|i| begin(&app.client, sized("m", &format!("{i}"), 100), &[])).collect();
    waiting(&app.client, 5).await;
    app.client.set_pool("m", &json!({"concurrent": 4})).await.unwrap();
    app.upstream.in_flight(4).await;
    waiting(&app.client, 2).await;
    app.client.set_pool("m", &json!({"concurrent": 2})).await.unwrap();
    // Two go, and nobody takes their place; the third makes room for one.
    app.upstream.release(2);
    app.upstream.ended(2).await;
    app.upstream.in_flight(2).await;
    pending.push(begin(&app.client, sized("m", "late", 100), &[]));
    waiting(&app.client, 3).await;
    assert_eq!(app.upstream.stats().requests, 4);
    app.upstream.clear();
    app.upstream.open();
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    assert_eq!(app.upstream.stats().peak_in_flight, 2);
}

#[tokio::test]
async fn limits_are_set_only_of_a_pool_that_the_configuration_has() {
    let app = app().pool("gpt-4", |pool| pool.concurrent(1)).start().await.unwrap();
    let refused = app.client.set_pool("gtp-4", &json!({"concurrent": 4})).await.unwrap_err().to_string();
    assert!(refused.contains("404") && refused.contains("the nearest is `gpt-4`"), "{refused}");
    let listed = app.client.admin(reqwest::Method::GET, "/pools", None).await.unwrap().1;
    let names: Vec<_> = listed["pools"].as_array().unwrap().iter().map(|pool| pool["model"].clone()).collect();
    assert!(names.contains(&json!("gpt-4")) && !names.contains(&json!("gtp-4")), "{names:?}");
}

#[tokio::test]
async fn all_models_of_a_wildcard_pool_share_its_limits_and_an_alias_has_none_of_its_own() {
    let app = app().pool("gpt-*", |pool| pool.concurrent(2)).script(Reply::tokens(1).held());
    let app = app.set("aliases.best", "gpt-5").start().await.unwrap();
    let models = ["gpt-4", "gpt-5", "best", "gpt-4"];
    let pending: Vec<_> = models.iter().map(|model| begin(&app.client, sized(model, "x", 100), &[])).collect();
    app.upstream.in_flight(2).await;
    waiting(&app.client, 2).await;
    let metrics = app.client.metrics().await.unwrap();
    assert_eq!(usage(&metrics, "concurrent", "gpt-*"), (2.0, 1.0));
    app.upstream.open();
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    let mut models: Vec<_> = app.upstream.calls().into_iter().map(|call| call.model).collect();
    models.sort();
    assert_eq!(models, ["gpt-4", "gpt-4", "gpt-5", "gpt-5"]);
    assert_eq!(app.upstream.stats().peak_in_flight, 2);
}

#[tokio::test]
async fn with_scheduling_off_limits_do_not_count_but_keys_and_usage_do() {
    let app = app().pool("m", |pool| pool.concurrent(1).rps(1)).set("scheduling.enabled", false);
    let app = app.script(Reply::tokens(1).held()).start().await.unwrap();
    let pending: Vec<_> = (0..10).map(|i| begin(&app.client, sized("m", &format!("{i}"), 100), &[])).collect();
    app.upstream.in_flight(10).await;
    app.upstream.open();
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    assert_eq!(crate::rig::usage_rows(&app.client, 10).await.len(), 10);
    let stranger = app.client.with_key("tok_unknown").chat(&sized("m", "x", 100)).await.unwrap();
    assert_eq!((stranger.status, stranger.error_code().as_str()), (401, "invalid_api_key"));
}
