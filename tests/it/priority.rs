//! Scenarios of priority: who is served first, who is never starved, and what a request may say about itself.

use crate::rig::{app, begin, begin_at, client_with, replies, row_of, served, sized, usage_rows, waiting};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{GatewayClient, Reply, Script, TestApp};

/// One slot, taken by a request that the upstream holds back; nobody ages.
async fn one_slot(policy: &str) -> (TestApp, crate::rig::Pending) {
    let app = app().pool("m", |pool| pool.concurrent(1)).set("scheduling.policy", policy);
    let app = app.set("scheduling.aging_quantum_ms", 0).script(Reply::tokens(1).held()).start().await.unwrap();
    let held = begin(&app.client, sized("m", "first", 100), &[]);
    app.upstream.in_flight(1).await;
    (app, held)
}

#[tokio::test]
async fn p0_pri_001_the_more_urgent_is_served_first_then_who_came_first() {
    let (app, held) = one_slot("strict").await;
    let mut pending = vec![held];
    for (name, priority) in [("A", 4), ("B", 1), ("C", 4), ("D", 2)] {
        pending.push(begin_at(&app.client, priority, sized("m", name, 100)));
        waiting(&app.client, pending.len() - 1).await;
    }
    app.upstream.open();
    let replies = replies(pending).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(served(&app.upstream), ["first", "B", "D", "A", "C"]);
    assert_eq!(app.upstream.stats().peak_in_flight, 1);
    for reply in &replies[1..] {
        assert!(reply.queue_wait_ms() > 0.0);
        let position: usize = reply.header("x-tokligence-queue-position").parse().unwrap();
        assert!((1..=4).contains(&position), "{position}");
    }
}

#[tokio::test]
async fn int_001_a_high_request_takes_the_next_of_ten_slots_that_low_ones_hold() {
    let app = app().pool("m", |pool| pool.concurrent(10)).set("scheduling.aging_quantum_ms", 0);
    let app = app.script(Reply::tokens(1).held()).start().await.unwrap();
    let low = |name: String| begin_at(&app.client, 9, sized("m", &name, 100));
    let mut pending: Vec<_> = (0..10).map(|i| low(format!("low {i}"))).collect();
    app.upstream.in_flight(10).await;
    pending.extend((0..5).map(|i| low(format!("waiting {i}"))).collect::<Vec<_>>());
    waiting(&app.client, 5).await;
    pending.push(begin_at(&app.client, 0, sized("m", "high", 100)));
    waiting(&app.client, 6).await;
    app.upstream.release(1);
    app.upstream.arrived(11).await;
    assert_eq!(served(&app.upstream)[10], "high");
    app.upstream.open();
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    assert_eq!(app.upstream.stats().peak_in_flight, 10);
}

#[tokio::test]
async fn within_a_priority_one_busy_key_does_not_keep_another_waiting() {
    let (app, held) = one_slot("strict").await;
    let quiet = client_with(&app, json!({"name": "quiet"})).await;
    let mut pending = vec![held];
    pending.extend((0..30).map(|i| begin(&app.client, sized("m", &format!("busy {i}"), 100), &[])).collect::<Vec<_>>());
    waiting(&app.client, 30).await;
    pending.extend((0..5).map(|i| begin(&quiet, sized("m", &format!("quiet {i}"), 100), &[])).collect::<Vec<_>>());
    waiting(&app.client, 35).await;
    app.upstream.open();
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    let order = served(&app.upstream);
    let last_quiet = order.iter().rposition(|text| text.starts_with("quiet")).unwrap();
    // In turn, the five are through among the first ten; first come, first served would let them be the last.
    assert!(last_quiet <= 12, "{order:?}");
}

/// An endless stream of priority-1 requests on one slot, never less than three waiting.
struct Stream {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<u64>>,
}

impl Stream {
    fn begin(client: &GatewayClient) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..4).map(|_| tokio::spawn(urgent(client.clone(), stop.clone()))).collect();
        Self { stop, clients }
    }

    /// How many were served.
    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut served = 0;
        for client in self.clients {
            served += client.await.unwrap();
        }
        served
    }
}

async fn urgent(client: GatewayClient, stop: Arc<AtomicBool>) -> u64 {
    let mut served = 0;
    while !stop.load(Ordering::Relaxed) {
        let reply = client.chat_with(&sized("m", "urgent", 100), &[("x-tokligence-priority", "1")]).await.unwrap();
        assert_eq!(reply.status, 200);
        served += 1;
    }
    served
}

/// One slot of 10 ms, with this aging.
async fn aging(quantum_ms: i64) -> TestApp {
    let app = app().pool("m", |pool| pool.concurrent(1)).set("scheduling.aging_quantum_ms", quantum_ms);
    app.script(Reply::tokens(1).head_delay(Duration::from_millis(10))).start().await.unwrap()
}

#[tokio::test]
async fn p0_pri_002_a_low_request_under_an_endless_urgent_stream_is_served_within_the_aging_bound() {
    let app = aging(100).await;
    let stream = Stream::begin(&app.client);
    app.upstream.arrived(10).await;
    let low = begin_at(&app.client, 5, sized("m", "low", 100)).await.unwrap();
    assert_eq!(low.status, 200);
    // (5 - 1) quanta, then those of priority 1 that came before it; the rest is a loaded machine's.
    let wait = low.queue_wait_ms();
    assert!((300.0..1_500.0).contains(&wait), "{wait} ms");
    let seen = app.upstream.stats().requests;
    app.upstream.arrived(seen + 10).await;
    let metrics = app.client.metrics().await.unwrap();
    assert!(metrics.sum("tokligence_scheduling_starvation_prevented_total", &[]) >= 1.0);
    assert!(stream.end().await >= 20);
}

#[tokio::test]
async fn p0_pri_002_without_aging_the_same_request_starves_and_nothing_is_counted() {
    let app = aging(0).await;
    let stream = Stream::begin(&app.client);
    app.upstream.arrived(10).await;
    let low = begin_at(&app.client, 5, sized("m", "low", 100));
    waiting_at(&app.client, 5).await;
    // As many as pass in three times the bound of the test above.
    app.upstream.arrived(app.upstream.stats().requests + 100).await;
    assert!(!low.is_finished() && !served(&app.upstream).contains(&"low".to_owned()));
    stream.end().await;
    assert_eq!(low.await.unwrap().status, 200);
    let metrics = app.client.metrics().await.unwrap();
    assert_eq!(metrics.sum("tokligence_scheduling_starvation_prevented_total", &[]), 0.0);
}

async fn waiting_at(client: &GatewayClient, priority: u8) {
    let level = priority.to_string();
    let depth = |metrics: &support::Metrics| {
        metrics.get("tokligence_scheduling_queue_depth", &[("priority", level.as_str())]) == Some(1.0)
    };
    client.metrics_until(crate::rig::PATIENCE, depth).await.unwrap();
}

#[tokio::test]
async fn p0_pri_003_a_key_has_its_tiers_priority_without_the_client_saying_so() {
    let (app, held) = one_slot("strict").await;
    let partner = client_with(&app, json!({"name": "partner", "tier": "partner"})).await;
    let internal = client_with(&app, json!({"name": "internal", "tier": "internal"})).await;
    let mut pending = vec![held, begin(&partner, sized("m", "partner", 100), &[])];
    waiting(&app.client, 1).await;
    pending.push(begin(&internal, sized("m", "internal", 100), &[]));
    waiting(&app.client, 2).await;
    app.upstream.open();
    let replies = replies(pending).await;
    assert_eq!(served(&app.upstream), ["first", "internal", "partner"]);
    for (reply, tier, priority) in [(&replies[1], "partner", 3), (&replies[2], "internal", 1)] {
        assert_eq!(reply.header("x-tokligence-tier"), tier);
        assert_eq!(row_of(&app.client, reply.header("x-request-id")).await["priority"], priority);
    }
}

#[tokio::test]
async fn a_request_lowers_itself_at_will_and_rises_to_its_keys_ceiling_only() {
    let app = app().pool("m", |pool| pool).start().await.unwrap();
    let client = client_with(&app, json!({"name": "bounded", "priority": 5, "priority_ceiling": 3})).await;
    let tier = |name: &str| {
        let mut body = sized("m", "hello", 100);
        body["service_tier"] = json!(name);
        body
    };
    let plain = sized("m", "hello", 100);
    let asked = |priority: u8| vec![("x-tokligence-priority", priority.to_string())];
    let cases = [
        (plain.clone(), Vec::new(), 5),
        (plain.clone(), asked(7), 7),
        (plain.clone(), asked(4), 4),
        (plain.clone(), asked(0), 3),
        (plain, asked(31), 9),
        (tier("priority"), Vec::new(), 3),
        (tier("flex"), Vec::new(), 7),
        (tier("default"), Vec::new(), 5),
        (tier("priority"), asked(6), 6),
    ];
    for (body, headers, expected) in cases {
        let reply = begin(&client, body.clone(), &headers).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.json());
        let row = row_of(&client, reply.header("x-request-id")).await;
        assert_eq!(row["priority"], expected, "{body} {headers:?}");
    }
    let refused = client.chat_with(&sized("m", "hello", 100), &[("x-tokligence-priority", "high")]).await.unwrap();
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("x-tokligence-priority")));
    assert_eq!(usage_rows(&client, 9).await.len(), 9);
}

/// The priorities of those that are served one after the other, when 30 of each of these have come to wait.
async fn order_of(policy: &str, priorities: &[u8]) -> Vec<u8> {
    let (app, held) = one_slot(policy).await;
    let mut pending = vec![held];
    for i in 0..30 {
        let each = priorities.iter().map(|&p| begin_at(&app.client, p, sized("m", &format!("{p} {i}"), 100)));
        pending.extend(each.collect::<Vec<_>>());
    }
    waiting(&app.client, pending.len() - 1).await;
    app.upstream.set(Script::from(Reply::tokens(1)));
    app.upstream.open();
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    served(&app.upstream)[1..].iter().map(|text| text.split(' ').next().unwrap().parse().unwrap()).collect()
}

fn count(order: &[u8], priority: u8) -> usize {
    order.iter().filter(|served| **served == priority).count()
}

#[tokio::test]
async fn strict_serves_each_priority_to_its_end_before_the_next() {
    let order = order_of("strict", &[1, 4, 7]).await;
    assert!(order.is_sorted(), "{order:?}");
}

#[tokio::test]
async fn weighted_fair_gives_each_priority_its_share() {
    // Of ten levels, 1 and 7 have shares of 9 and 3.
    let order = order_of("weighted_fair", &[1, 7]).await;
    let first = &order[..32];
    assert!((20..=28).contains(&count(first, 1)), "{order:?}");
    assert!(count(first, 7) >= 4, "{order:?}");
}

#[tokio::test]
async fn hybrid_serves_priority_0_first_and_the_others_by_their_shares() {
    let order = order_of("hybrid", &[0, 2, 8]).await;
    assert_eq!(count(&order[..30], 0), 30, "{order:?}");
    // Of ten levels, 2 and 8 have shares of 8 and 2.
    let shared = &order[30..60];
    assert!((20..=28).contains(&count(shared, 2)) && count(shared, 8) >= 2, "{order:?}");
}
