//! Scenarios of what an operator sees: queue depths and the use of limits, from `/metrics`.

use crate::rig::{app, begin, begin_at, idle, replies, sized, usage, waiting};
use support::Reply;

#[tokio::test]
async fn p1_obs_001_ten_queued_at_each_of_five_priorities_show_as_ten_each() {
    let app = app().pool("m", |pool| pool.concurrent(1)).set("scheduling.priority_levels", 5);
    let app = app.script(Reply::tokens(1).held()).start().await.unwrap();
    let mut pending = vec![begin(&app.client, sized("m", "held", 100), &[])];
    app.upstream.in_flight(1).await;
    for i in 0..50 {
        pending.push(begin_at(&app.client, i % 5, sized("m", &format!("{i}"), 100)));
    }
    waiting(&app.client, 50).await;
    let metrics = app.client.metrics().await.unwrap();
    for priority in 0..5 {
        let depth = metrics.get("tokligence_scheduling_queue_depth", &[("priority", &priority.to_string())]);
        assert_eq!(depth, Some(10.0), "priority {priority}");
    }
    app.upstream.open();
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    idle(&app.client).await;
    let metrics = app.client.metrics().await.unwrap();
    assert_eq!(metrics.sum("tokligence_admissions_total", &[("path", "queued")]), 50.0);
    assert_eq!(metrics.sum("tokligence_scheduling_latency_seconds_count", &[]), 51.0);
}

#[tokio::test]
async fn p1_obs_003_650_of_1000_in_use_read_as_650_and_0_65() {
    let app = app().pool("m", |pool| pool.concurrent(1_000)).script(Reply::tokens(1).held()).start().await.unwrap();
    let pending: Vec<_> = (0..650).map(|i| begin(&app.client, sized("m", &format!("{i}"), 100), &[])).collect();
    app.upstream.in_flight(650).await;
    let metrics = app.client.metrics().await.unwrap();
    assert_eq!(usage(&metrics, "concurrent", "m"), (650.0, 0.65));
    let labels = [("dimension", "concurrent"), ("model", "m")];
    assert_eq!(metrics.get("tokligence_capacity_limit", &labels), Some(1_000.0));
    app.upstream.open();
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    idle(&app.client).await;
}
