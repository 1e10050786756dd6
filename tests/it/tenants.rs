//! Scenarios of what a key may use: its tokens per day, its requests per second, its permits. Tenants never wait.

use crate::rig::{app, begin, client_with, idle, prompt_tokens, replies, row_of, sized, usage_rows};
use serde_json::json;
use std::time::Duration;
use support::{ChatReply, Reply, clock};

fn assert_out_of_quota(reply: &ChatReply) {
    let error = &reply.json()["error"];
    assert_eq!((reply.status, &error["code"]), (429, &json!("insufficient_quota")), "{error}");
    assert_eq!(error["type"], "insufficient_quota");
    assert_eq!(reply.header("x-should-retry"), "false");
    assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(reply.queue_wait_ms(), 0.0);
}

#[tokio::test]
async fn p0_tok_002_a_request_beyond_the_days_quota_is_refused_and_spends_nothing() {
    let app = app().pool("m", |pool| pool).script(Reply::default().prompt_tokens(prompt_tokens("x")));
    let app = app.start().await.unwrap();
    let client = client_with(&app, json!({"name": "daily", "tokens_per_day": 1_000})).await;
    assert_eq!(client.chat(&sized("m", "x", 950)).await.unwrap().status, 200);

    let passes = client.chat(&sized("m", "x", 30)).await.unwrap();
    assert_eq!((passes.status, passes.header("x-tokligence-quota-remaining")), (200, "20"));
    assert_out_of_quota(&client.chat(&sized("m", "x", 30)).await.unwrap());
    assert_out_of_quota(&client.chat(&sized("m", "x", 21)).await.unwrap());
    assert_eq!(app.upstream.stats().requests, 2);

    // Nothing was spent by the refusals: the 20 are all there.
    let last = client.chat(&sized("m", "x", 20)).await.unwrap();
    assert_eq!((last.status, last.header("x-tokligence-quota-remaining")), (200, "0"));
    let rows = usage_rows(&app.client, 3).await;
    let charged: u64 = rows.iter().map(|row| row["charged_tokens"].as_u64().unwrap()).sum();
    assert_eq!((rows.len(), charged), (3, 1_000));
    // Another key is another day.
    assert_eq!(app.client.chat(&sized("m", "x", 30)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_days_quota_gets_back_what_was_reserved_and_not_used() {
    let app = app().pool("m", |pool| pool).script(Reply::tokens(3).prompt_tokens(7)).start().await.unwrap();
    let client = client_with(&app, json!({"name": "daily", "tokens_per_day": 1_000})).await;
    // Each reserves 900 and uses 10, so that all pass, one after the other.
    for _ in 0..10 {
        let reply = client.chat(&sized("m", "x", 900)).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.json());
        assert_eq!(row_of(&client, reply.header("x-request-id")).await["charged_tokens"], 10);
    }
    assert_out_of_quota(&client.chat(&sized("m", "x", 901)).await.unwrap());
    assert_eq!(client.chat(&sized("m", "x", 900)).await.unwrap().status, 200);
}

#[tokio::test]
async fn p1_prot_002_a_key_of_10_rps_passes_its_burst_and_rate_and_the_rest_is_refused_at_once() {
    let app = app().pool("m", |pool| pool.concurrent(100)).start().await.unwrap();
    let limited = client_with(&app, json!({"name": "ten", "rps": 10, "burst_requests": 10})).await;
    // Connections and the other key are ready before the clock runs.
    assert_eq!(app.client.chat(&sized("m", "warm", 100)).await.unwrap().status, 200);
    app.upstream.clear();
    let started = tokio::time::Instant::now();
    let mut pending = Vec::new();
    for i in 0..60_u32 {
        tokio::time::sleep_until(started + Duration::from_secs(2) * i / 60).await;
        pending.push(begin(&limited, sized("m", &format!("{i}"), 100), &[]));
    }
    let replies = replies(pending).await;
    let (passed, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert!((29..=30).contains(&passed.len()), "{} passed", passed.len());
    for reply in refused {
        assert_eq!((reply.status, reply.error_code().as_str()), (429, "rate_limit_exceeded"), "{}", reply.json());
        assert_eq!((reply.queue_wait_ms(), reply.header("x-tokligence-queue-position")), (0.0, ""));
        assert!(reply.took() < Duration::from_millis(500), "{:?}", reply.took());
        // A slot of ten each second is never more than 100 ms away.
        assert!((1..=100).contains(&reply.header("retry-after-ms").parse::<u64>().unwrap()));
    }
    assert_eq!(app.upstream.stats().requests, passed.len() as u64);
    let metrics = app.client.metrics().await.unwrap();
    assert_eq!(metrics.sum("tokligence_admissions_total", &[("path", "queued")]), 0.0);
    // Every other scope is untouched.
    let other = client_with(&app, json!({"name": "other", "rps": 10, "burst_requests": 10})).await;
    let ten = (0..10).map(|i| begin(&other, sized("m", &format!("other {i}"), 100), &[])).collect();
    assert!(crate::rig::replies(ten).await.iter().all(|reply| reply.status == 200));
    idle(&app.client).await;
}

#[tokio::test]
async fn a_keys_own_permits_are_refused_at_once_and_come_back() {
    let app = app().pool("m", |pool| pool.concurrent(100)).script(Reply::tokens(1).held()).start().await.unwrap();
    let client = client_with(&app, json!({"name": "two", "concurrency": 2})).await;
    let two: Vec<_> = (0..2).map(|i| begin(&client, sized("m", &format!("{i}"), 100), &[])).collect();
    app.upstream.in_flight(2).await;
    let began_us = clock::boot_us();
    let refused = client.chat(&sized("m", "third", 100)).await.unwrap();
    assert_eq!((refused.status, refused.error_code().as_str()), (429, "rate_limit_exceeded"), "{}", refused.json());
    assert!(clock::since(began_us) < Duration::from_secs(1));
    assert!(!refused.header("retry-after").is_empty());
    let other = begin(&app.client, sized("m", "other key", 100), &[]);
    app.upstream.in_flight(3).await;
    app.upstream.open();
    assert!(replies(two).await.iter().all(|reply| reply.status == 200));
    assert_eq!(other.await.unwrap().status, 200);
    assert_eq!(client.chat(&sized("m", "again", 100)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_refusal_by_one_limit_spends_nothing_of_the_others() {
    let app = app().pool("m", |pool| pool.tokens_per_sec(10).burst_tokens(1_000)).start().await.unwrap();
    let client = client_with(&app, json!({"name": "both", "rpm": 1, "burst_requests": 1, "tokens_per_day": 500})).await;
    assert_eq!(client.chat(&sized("m", "x", 100)).await.unwrap().status, 200);
    for _ in 0..20 {
        let refused = client.chat(&sized("m", "x", 400)).await.unwrap();
        assert_eq!((refused.status, refused.error_code().as_str()), (429, "rate_limit_exceeded"));
    }
    // 20 x 400 tokens would have emptied the pool, and this would wait for 85 s; but 900 of its 1000 are there still.
    let other = app.client.chat(&sized("m", "x", 850)).await.unwrap();
    assert_eq!(other.status, 200, "{}", other.json());
    assert!(other.queue_wait_ms() < 5_000.0, "{} ms", other.queue_wait_ms());
}

#[tokio::test]
async fn a_revoked_key_is_refused_from_then_on_and_its_running_request_ends_well() {
    let app = app().pool("m", |pool| pool).script(Reply::tokens(1).held()).start().await.unwrap();
    let client = client_with(&app, json!({"name": "short-lived"})).await;
    let running = begin(&client, sized("m", "running", 100), &[]);
    app.upstream.in_flight(1).await;
    let (status, _) = app.client.admin(reqwest::Method::DELETE, "/keys/short-lived", None).await.unwrap();
    assert_eq!(status, 200);
    let refused = client.chat(&sized("m", "after", 100)).await.unwrap();
    assert_eq!((refused.status, refused.error_code().as_str()), (401, "invalid_api_key"));
    app.upstream.open();
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(app.upstream.stats().requests, 1);
}

#[tokio::test]
async fn of_200_parallel_calls_at_two_cents_a_budget_of_a_dollar_pays_for_50() {
    let app = app().pool("m", |pool| pool).script(Reply::default().prompt_tokens(prompt_tokens("x")));
    let price = 200_000;
    let app = app.set("prices.m.input_nano_usd", price).set("prices.m.output_nano_usd", price).start().await.unwrap();
    let client = client_with(&app, json!({"name": "dollar", "budget_nano_usd": 1_000_000_000})).await;
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.chat(&sized("m", "x", 100)).await.unwrap() })
        })
        .collect();
    let mut passed = 0;
    for call in calls {
        let reply = call.await.unwrap();
        if reply.status == 200 {
            passed += 1;
        } else {
            assert_out_of_quota(&reply);
        }
    }
    assert_eq!((passed, app.upstream.stats().requests), (50, 50));
    let rows = usage_rows(&app.client, 50).await;
    let charged: u64 = rows.iter().map(|row| row["charged_tokens"].as_u64().unwrap()).sum();
    assert_eq!(charged * price as u64, 1_000_000_000);
}
