//! The names on `/metrics` are a contract: dashboards break when one goes.

use crate::rig::{app, idle, sized};
use support::Reply;

/// Every name of interfaces.md that one node has, with the labels that it must carry. Circuits, the firewall and
/// the `gen_ai_*` names come with what they measure.
const NAMES: [(&str, &[(&str, &str)]); 34] = [
    ("tokligence_scheduling_queue_depth", &[("priority", "0")]),
    ("tokligence_scheduling_queue_depth", &[("priority", "9")]),
    ("tokligence_scheduling_latency_seconds_count", &[("priority", "5")]),
    ("tokligence_scheduling_latency_seconds_bucket", &[("priority", "5"), ("le", "0.001")]),
    ("tokligence_scheduling_starvation_prevented_total", &[]),
    ("tokligence_capacity_usage", &[("dimension", "concurrent"), ("model", "m")]),
    ("tokligence_capacity_usage", &[("dimension", "tokens"), ("model", "m")]),
    ("tokligence_capacity_utilization", &[("dimension", "tokens"), ("model", "m")]),
    ("tokligence_capacity_limit", &[("dimension", "tokens"), ("model", "m")]),
    ("tokligence_token_lookup_total", &[("layer", "lru"), ("result", "hit")]),
    ("tokligence_token_lookup_total", &[("layer", "lru"), ("result", "miss")]),
    ("tokligence_token_lookup_total", &[("layer", "sql"), ("result", "hit")]),
    ("tokligence_degradation_mode_active", &[("mode", "identity_fail_closed")]),
    ("tokligence_degradation_mode_active", &[("mode", "identity_fail_open")]),
    ("tokligence_degradation_mode_active", &[("mode", "scheduling_fail_closed")]),
    ("tokligence_degradation_mode_active", &[("mode", "scheduling_fair_share")]),
    ("tokligence_degradation_mode_active", &[("mode", "scheduling_fail_open")]),
    ("tokligence_admissions_total", &[("path", "local")]),
    ("tokligence_admissions_total", &[("path", "direct")]),
    ("tokligence_admissions_total", &[("path", "queued")]),
    ("tokligence_reservation_overrun_tokens_total", &[]),
    ("tokligence_gateway_overhead_seconds_count", &[]),
    ("tokligence_raft_term", &[]),
    ("tokligence_raft_is_leader", &[]),
    ("tokligence_raft_commit_index", &[]),
    ("tokligence_raft_applied_index", &[]),
    ("tokligence_raft_last_log_index", &[]),
    ("tokligence_raft_append_seconds_count", &[]),
    ("tokligence_raft_fsync_seconds_count", &[]),
    ("tokligence_lease_age_seconds", &[]),
    ("tokligence_token_lookup_total", &[("layer", "redis"), ("result", "hit")]),
    ("tokligence_token_lookup_total", &[("layer", "mode"), ("result", "fail_open")]),
    ("tokligence_snapshot_cache_size", &[]),
    ("tokligence_snapshot_cache_refresh_total", &[]),
];

#[tokio::test]
async fn every_promised_metric_is_there_and_what_happened_is_counted() {
    let app = app().pool("m", |pool| pool.concurrent(2).tokens_per_sec(10_000));
    let usage = support::Usage::Off(40);
    let app = app.script(Reply::tokens(10).prompt_tokens(17).usage(usage)).start().await.unwrap();
    for _ in 0..2 {
        let reply = app.client.chat(&sized("m", "hello", 27)).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.json());
    }
    idle(&app.client).await;
    let metrics = app.client.metrics().await.unwrap();
    for (name, labels) in NAMES {
        assert!(metrics.get(name, labels).is_some(), "{name} {labels:?}");
    }
    let sum = |name, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert_eq!(sum("tokligence_token_lookup_total", &[("layer", "sql"), ("result", "hit")]), 1.0);
    assert_eq!(sum("tokligence_token_lookup_total", &[("layer", "lru"), ("result", "hit")]), 1.0);
    assert_eq!(sum("tokligence_reservation_overrun_tokens_total", &[]), 80.0);
    assert_eq!(sum("tokligence_degradation_mode_active", &[]), 0.0);
    assert_eq!(sum("tokligence_raft_is_leader", &[]), 1.0);
    assert!(sum("tokligence_raft_fsync_seconds_count", &[]) >= 1.0);
    assert!(sum("tokligence_gateway_overhead_seconds_count", &[]) >= 2.0);
    assert!(metrics.samples.len() < 10_000);
}
