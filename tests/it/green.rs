//! The uncontended path: requests far below every limit are decided on the node, and the log does not grow with them.

use crate::rig::{app, report, sized};
use reqwest::Method;
use support::{GatewayClient, Metrics, TestApp};

const REQUESTS: u64 = 10_000;
const CLIENTS: u64 = 16;
const WARM: u64 = 200;

/// So many requests, by all clients together, one after the other each.
async fn load(client: &GatewayClient, requests: u64) {
    let one = |client: GatewayClient| async move {
        for _ in 0..requests / CLIENTS {
            let reply = client.chat(&sized("m", "hello", 100)).await.unwrap();
            assert_eq!(reply.status, 200, "{}", reply.json());
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(one(client.clone()))).collect();
    for client in clients {
        client.await.unwrap();
    }
}

async fn applied(app: &TestApp) -> u64 {
    let (status, cluster) = app.client.admin(Method::GET, "/cluster", None).await.unwrap();
    assert_eq!(status, 200, "{cluster}");
    cluster["applied_index"].as_u64().unwrap()
}

fn admitted(metrics: &Metrics, path: &str) -> f64 {
    metrics.sum("tokligence_admissions_total", &[("path", path)])
}

#[tokio::test]
async fn ten_thousand_uncontended_requests_are_admitted_locally_and_add_few_log_entries() {
    let far = |pool: support::Pool| pool.tokens_per_sec(100_000_000).rps(1_000_000).concurrent(10_000);
    let app = app().pool("m", move |pool| far(pool).set("dialect", "loopback")).lean().start().await.unwrap();
    // The node learns what it needs.
    load(&app.client, WARM).await;
    let (before, index) = (app.client.metrics().await.unwrap(), applied(&app).await);
    let began_us = support::clock::boot_us();
    load(&app.client, REQUESTS).await;
    let took = support::clock::since(began_us);
    let (after, entries) = (app.client.metrics().await.unwrap(), applied(&app).await - index);
    let [local, direct, queued] = ["local", "direct", "queued"].map(|p| admitted(&after, p) - admitted(&before, p));
    let shown = format!("{entries} log entries in {took:?}; {local} local, {direct} direct, {queued} queued");
    report(&format!("green mode: {shown}"));
    assert_eq!(local + direct + queued, REQUESTS as f64, "{shown}");
    assert!(entries < 200, "{shown}");
    assert!(local >= 0.95 * REQUESTS as f64, "{shown}");
}
