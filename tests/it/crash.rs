//! `kill -9` in the middle of requests: every reply that a client saw complete is in the books once, limits hold over
//! the restart, and the node serves again at once.

use crate::rig::{PATIENCE, app, client_with, idle, prompt_tokens, report, sized};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::curve::{Curve, Event};
use support::{GatewayClient, Reply, TestApp, Upstream, clock};

const REQUESTS: u64 = 500;
const CLIENTS: u64 = 25;
const COST: u64 = 100;
const PERMITS: u64 = 20;
const RATE: u64 = 20_000;
const BURST: u64 = 10_000;

/// Ids of the replies that came complete, each with whether it was streamed.
type Complete = Vec<(String, bool)>;

/// One client: takes requests until there are none left, every second one streamed; a request that breaks off is over.
async fn client(client: GatewayClient, next: Arc<AtomicU64>, until: u64) -> Complete {
    let mut complete = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= until {
            return complete;
        }
        let body = sized("m", &text(number), COST);
        if number.is_multiple_of(2) {
            let Ok(reply) = client.chat(&body).await else { continue };
            assert_eq!(reply.status, 200, "{}", reply.json());
            complete.push((reply.header("x-request-id").to_owned(), false));
        } else {
            let Ok(stream) = client.open_stream(&body, &[]).await else { continue };
            let reply = stream.finish().await;
            assert_eq!(reply.status, 200);
            if reply.is_done() {
                complete.push((reply.header("x-request-id").to_owned(), true));
            }
        }
    }
}

fn text(number: u64) -> String {
    format!("{number:06}")
}

async fn load(gateway: &GatewayClient, requests: u64) -> Complete {
    let next = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client(gateway.clone(), next.clone(), requests))).collect();
    let mut complete = Vec::new();
    for client in clients {
        complete.extend(client.await.unwrap());
    }
    complete
}

/// Checks what reached the upstream, over all lives of the gateway, against the pool's limits.
fn assert_limits_held(upstream: &Upstream) {
    let calls = upstream.calls();
    let events: Vec<Event> = calls.iter().map(|call| (call.arrived_us, COST)).collect();
    let curve = Curve::per_sec(RATE, BURST).slack(Duration::from_millis(100));
    curve.check(&events).unwrap();
    assert!(upstream.stats().peak_in_flight <= PERMITS, "{:?}", upstream.stats());
}

async fn rows(client: &GatewayClient) -> Vec<Value> {
    let (status, rows) = client.admin(Method::GET, "/usage?format=json", None).await.unwrap();
    assert_eq!(status, 200);
    rows.as_array().unwrap().clone()
}

/// Waits until every one of these replies has a row, then checks that it is one of status ok.
async fn assert_in_the_books(client: &GatewayClient, complete: &Complete) {
    let find = async {
        loop {
            let rows = rows(client).await;
            let mut known: HashMap<&str, Vec<&Value>> = HashMap::new();
            for row in &rows {
                // The calls of one request share its id up to the dot.
                let id = row["request_id"].as_str().unwrap().split('.').next().unwrap();
                known.entry(id).or_default().push(row);
            }
            let missing = complete.iter().filter(|(id, _)| !known.contains_key(id.as_str())).count();
            if missing > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            for (id, streamed) in complete {
                let ok: Vec<_> = known[id.as_str()].iter().filter(|row| row["status"] == "ok").collect();
                assert_eq!(ok.len(), 1, "{id}: {:?}", known[id.as_str()]);
                assert_eq!((&ok[0]["streamed"], &ok[0]["charged_tokens"]), (&json!(streamed), &json!(COST)));
            }
            return rows.len();
        }
    };
    let count = tokio::time::timeout(PATIENCE, find).await.expect("some complete replies never had a row");
    report(&format!("{} complete replies among {count} usage rows", complete.len()));
}

/// The time from the start of the process to the first answer.
async fn restart(app: &mut TestApp) -> Duration {
    let began_us = clock::boot_us();
    app.restart().await.unwrap();
    let first = app.client.chat(&sized("m", "restart", COST)).await.unwrap();
    assert_eq!(first.status, 200, "{}", first.json());
    clock::since(began_us)
}

#[tokio::test]
async fn after_kill_9_amid_500_requests_the_books_are_complete_and_the_limits_held() {
    let limits = |pool: support::Pool| {
        pool.concurrent(20).tokens_per_sec(20_000).burst_tokens(10_000).set("max_rps", 400).set("burst_requests", 200)
    };
    let reply = Reply::default().prompt_tokens(prompt_tokens(&text(0)));
    let reply = reply.spread(Duration::from_millis(20), 30);
    let mut app = app().pool("m", limits).script(reply).start().await.unwrap();
    let first_life = app.client.clone();
    let load_of_first_life = tokio::spawn(async move { load(&first_life, REQUESTS).await });
    app.upstream.ended(REQUESTS / 2).await;
    app.gateway.kill9().await.unwrap();
    let mut complete = load_of_first_life.await.unwrap();
    let in_first_life = complete.len() as u64;
    assert!((REQUESTS / 2 - CLIENTS..REQUESTS).contains(&in_first_life), "{in_first_life}");

    let took = restart(&mut app).await;
    report(&format!("serves again {took:?} after the start"));
    assert!(took < Duration::from_secs(3), "{took:?}");
    let again = load(&app.client, REQUESTS).await;
    assert_eq!(again.len() as u64, REQUESTS);
    complete.extend(again);
    assert_in_the_books(&app.client, &complete).await;
    assert_limits_held(&app.upstream);
    idle(&app.client).await;
}

#[tokio::test]
async fn calls_that_were_cut_by_kill_9_are_charged_and_give_their_permits_back() {
    let mut app = app().pool("m", |pool| pool.concurrent(4)).script(Reply::tokens(1).held()).start().await.unwrap();
    let pending: Vec<_> = (0..4)
        .map(|i| {
            let (client, body) = (app.client.clone(), sized("m", &format!("{i}"), COST));
            tokio::spawn(async move { client.chat(&body).await })
        })
        .collect();
    app.upstream.in_flight(4).await;
    app.gateway.kill9().await.unwrap();
    for reply in pending {
        assert!(reply.await.unwrap().is_err());
    }
    app.upstream.set(Reply::tokens(1));
    restart(&mut app).await;
    let lost: Vec<_> =
        crate::rig::usage_rows(&app.client, 5).await.into_iter().filter(|r| r["status"] != "ok").collect();
    assert_eq!(lost.len(), 4, "{lost:?}");
    for row in lost {
        assert_eq!((&row["status"], &row["charged_tokens"]), (&json!("lost"), &json!(COST)), "{row}");
    }
    // All four permits are there again, so that four are in flight at once.
    app.upstream.set(Reply::tokens(1).held_at("second"));
    let again: Vec<_> =
        (0..4).map(|i| crate::rig::begin(&app.client, sized("m", &format!("again {i}"), COST), &[])).collect();
    app.upstream.in_flight(4).await;
    app.upstream.open_at("second");
    assert!(crate::rig::replies(again).await.iter().all(|reply| reply.status == 200));
    idle(&app.client).await;
}

#[tokio::test]
async fn a_days_quota_survives_kill_9() {
    let app = app().pool("m", |pool| pool).script(Reply::default().prompt_tokens(prompt_tokens("x")));
    let mut app = app.start().await.unwrap();
    let daily = client_with(&app, json!({"name": "daily", "tokens_per_day": 1_000})).await;
    for _ in 0..9 {
        assert_eq!(daily.chat(&sized("m", "x", COST)).await.unwrap().status, 200);
    }
    app.gateway.kill9().await.unwrap();
    app.restart().await.unwrap();
    let daily = app.client.with_key(daily.key());
    let last = daily.chat(&sized("m", "x", COST)).await.unwrap();
    assert_eq!((last.status, last.header("x-tokligence-quota-remaining")), (200, "0"), "{}", last.json());
    let refused = daily.chat(&sized("m", "x", COST)).await.unwrap();
    assert_eq!((refused.status, refused.error_code().as_str()), (429, "insufficient_quota"));
}

#[tokio::test]
async fn after_kill_9_a_days_quota_is_charged_what_the_usage_rows_say() {
    const DAY: u64 = 10_000_000;
    let reply = Reply::default().prompt_tokens(prompt_tokens(&text(0))).spread(Duration::from_millis(10), 30);
    let mut app = app().pool("m", |pool| pool.concurrent(20)).script(reply).start().await.unwrap();
    let daily = client_with(&app, json!({"name": "daily", "tokens_per_day": DAY, "concurrency": 100})).await;
    for life in 1..=3 {
        let client = app.client.with_key(daily.key());
        let load = tokio::spawn(async move { load(&client, 200).await });
        app.upstream.ended(life * 100).await;
        app.gateway.kill9().await.unwrap();
        load.await.unwrap();
        app.restart().await.unwrap();
    }
    idle(&app.client).await;
    // Every call that the upstream heard of has its row, and so may have some whose intent was all that came of them.
    let calls = usize::try_from(app.upstream.stats().requests).unwrap();
    let daily = app.client.with_key(daily.key());
    let last = daily.chat(&sized("m", &text(1), COST)).await.unwrap();
    let left: u64 = last.header("x-tokligence-quota-remaining").parse().unwrap();
    let rows = crate::rig::usage_rows(&app.client, calls + 1).await;
    let charged: u64 = rows.iter().map(|row| row["charged_tokens"].as_u64().unwrap()).sum();
    let lost = rows.iter().filter(|row| row["status"] == "lost").count();
    report(&format!("three lives killed: {calls} calls, {} rows, {lost} lost", rows.len()));
    assert_eq!(DAY - left, charged);
}

#[tokio::test]
async fn a_second_start_finds_the_same_keys_and_pools() {
    let pools = app().pool("m", |pool| pool.concurrent(7)).pool("other", |pool| pool.rps(5));
    let mut app = pools.start().await.unwrap();
    app.client.set_pool("m", &json!({"concurrent": 9, "rps": 100})).await.unwrap();
    let (_, keys) = app.client.admin(Method::GET, "/keys", None).await.unwrap();
    let (_, pools) = app.client.admin(Method::GET, "/pools", None).await.unwrap();
    let limits = |pools: &Value| -> Vec<Value> {
        pools["pools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pool| json!([pool["model"], pool["limits"], pool["in_file"]]))
            .collect()
    };
    let m = limits(&pools).into_iter().find(|pool| pool[0] == "m").unwrap();
    assert_eq!((&m[1]["concurrent"], &m[1]["rps"]), (&json!(9), &json!(100)), "{m}");
    app.gateway.sigterm().unwrap();
    assert_eq!(app.gateway.wait_exit(PATIENCE).await.unwrap().code(), Some(0));
    app.restart().await.unwrap();
    let (_, keys_after) = app.client.admin(Method::GET, "/keys", None).await.unwrap();
    let (_, pools_after) = app.client.admin(Method::GET, "/pools", None).await.unwrap();
    assert_eq!((keys, limits(&pools)), (keys_after, limits(&pools_after)));
    assert_eq!(app.client.chat(&sized("m", "x", COST)).await.unwrap().status, 200);
}
