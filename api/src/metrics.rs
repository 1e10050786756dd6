//! Prometheus metrics with the seed's names. Children of labels are looked up once, at start, so that the hot path does
//! no hashing; gauges of capacity are filled from the board when they are asked for.

use crate::admission::Path;
use crate::board::{Board, Health, PoolGauge};
use crate::config::KeyMode;
use crate::identity::Identity;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// From 100 µs, the scale of the local path, to the longest waits in a queue.
const WAIT_BUCKETS: [f64; 18] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const OVERHEAD_BUCKETS: [f64; 12] =
    [0.000_025, 0.000_05, 0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.005, 0.02, 0.1, 0.5, 2.0];

/// How a request ended, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With a status of 2xx and its last byte.
    Ok,
    /// With another status.
    Refused,
    /// In the middle.
    Cut,
}

/// All metrics of this crate, and the registry that others add theirs to.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    queue_depth: IntGaugeVec,
    waits: Vec<Histogram>,
    admissions: [IntCounter; 3],
    token_lookups: IntCounterVec,
    capacity: [GaugeVec; 3],
    snapshot: [Gauge; 2],
    snapshot_refreshes: IntCounter,
    degraded: IntGaugeVec,
    starvation_prevented: IntCounter,
    overrun_tokens: IntCounter,
    overhead: Histogram,
    ended: [IntCounter; 3],
    tokens: [IntCounter; 2],
    lease_age: Gauge,
    inversion: Gauge,
    pub(crate) in_flight: Gauge,
}

impl Metrics {
    /// Makes and registers every metric, for so many priorities.
    ///
    /// # Errors
    /// When two metrics would have one name.
    pub fn new(levels: u8) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let gauges = |name: &str, help: &str| {
            let gauge = GaugeVec::new(Opts::new(name, help), &["dimension", "model"])?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let int_gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let wait = HistogramVec::new(
            HistogramOpts::new("tokligence_scheduling_latency_seconds", "time from asking for capacity to having it")
                .buckets(WAIT_BUCKETS.to_vec()),
            &["priority"],
        )?;
        registry.register(Box::new(wait.clone()))?;
        let overhead = Histogram::with_opts(
            HistogramOpts::new(
                "tokligence_gateway_overhead_seconds",
                "time in the gateway, without queue and upstream",
            )
            .buckets(OVERHEAD_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(overhead.clone()))?;
        let in_flight = Gauge::new("tokligence_requests_in_flight", "upstream calls that have not ended")?;
        registry.register(Box::new(in_flight.clone()))?;
        let snapshot = [
            Gauge::new("tokligence_snapshot_cache_size", "keys in the snapshot")?,
            Gauge::new("tokligence_snapshot_cache_taken_seconds", "when the snapshot was taken; 0 without one")?,
        ];
        for gauge in &snapshot {
            registry.register(Box::new(gauge.clone()))?;
        }
        let lease_age = Gauge::new(
            "tokligence_lease_age_seconds",
            "time since the message to the leader that last renewed this node's lease; an idle node lets it lapse",
        )?;
        registry.register(Box::new(lease_age.clone()))?;
        let inversion = Gauge::new(
            "tokligence_priority_inversion_ms_max",
            "longest that a request waited, known to the leader, up to a grant to a less urgent one of its pool",
        )?;
        registry.register(Box::new(inversion.clone()))?;
        let admissions =
            counters("tokligence_admissions_total", "requests admitted, by the way they came through", &["path"])?;
        let ended = counters("tokligence_requests_total", "inference requests, by how they ended", &["outcome"])?;
        let tokens = counters("tokligence_tokens_total", "tokens settled, by kind", &["kind"])?;
        Ok(Self {
            queue_depth: int_gauges("tokligence_scheduling_queue_depth", "requests waiting", &["priority"])?,
            waits: (0..levels.max(1)).map(|level| wait.with_label_values(&[level.to_string()])).collect(),
            admissions: ["local", "direct", "queued"].map(|path| admissions.with_label_values(&[path])),
            token_lookups: counters("tokligence_token_lookup_total", "key lookups", &["layer", "result"])?,
            capacity: [
                gauges("tokligence_capacity_usage", "what is used of a limit")?,
                gauges("tokligence_capacity_utilization", "what is used of a limit, from 0 to 1")?,
                gauges("tokligence_capacity_limit", "the limit")?,
            ],
            snapshot,
            snapshot_refreshes: counter("tokligence_snapshot_cache_refresh_total", "snapshots of keys taken")?,
            degraded: int_gauges("tokligence_degradation_mode_active", "1 while the mode is on", &["mode"])?,
            starvation_prevented: counter(
                "tokligence_scheduling_starvation_prevented_total",
                "grants that only aging made possible",
            )?,
            overrun_tokens: counter(
                "tokligence_reservation_overrun_tokens_total",
                "tokens used beyond what was reserved",
            )?,
            overhead,
            ended: ["ok", "refused", "cut"].map(|outcome| ended.with_label_values(&[outcome])),
            tokens: ["prompt", "completion"].map(|kind| tokens.with_label_values(&[kind])),
            lease_age,
            inversion,
            in_flight,
            registry,
        })
    }

    /// The registry, for the metrics of other crates.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn admitted(&self, path: Path, priority: u8, wait: Duration) {
        let path = match path {
            Path::Local => 0,
            Path::Direct => 1,
            Path::Queued => 2,
        };
        self.admissions[path].inc();
        let last = self.waits.len() - 1;
        self.waits[usize::from(priority).min(last)].observe(wait.as_secs_f64());
    }

    pub(crate) fn overhead_us(&self, us: u64) {
        self.overhead.observe(Duration::from_micros(us).as_secs_f64());
    }

    pub(crate) fn ended(&self, ended: Ended) {
        self.ended[ended as usize].inc();
    }

    pub(crate) fn settled(&self, prompt: u64, completion: u64, reserved: u64) {
        self.tokens[0].inc_by(prompt);
        self.tokens[1].inc_by(completion);
        self.overrun_tokens.inc_by(prompt.saturating_add(completion).saturating_sub(reserved));
    }

    /// Writes every metric in Prometheus's text form.
    ///
    /// # Errors
    /// When a metric cannot be written, which would be a bug.
    pub fn render(&self, board: &dyn Board, identity: &Identity) -> prometheus::Result<Vec<u8>> {
        for pool in board.pools() {
            self.fill_capacity(&pool);
        }
        let waiting = board.waiting();
        for priority in 0..self.waits.len().max(waiting.len()) {
            let depth = i64::try_from(waiting.get(priority).copied().unwrap_or(0)).unwrap_or(i64::MAX);
            self.queue_depth.with_label_values(&[priority.to_string()]).set(depth);
        }
        self.fill_lookups(identity);
        let new = board.starvation_prevented().saturating_sub(self.starvation_prevented.get());
        self.starvation_prevented.inc_by(new);
        self.lease_age.set(board.lease_age().unwrap_or_default().as_secs_f64());
        self.inversion.set(board.inversion_max().as_secs_f64() * 1_000.0);
        let down = identity.stores_are_down();
        self.fill_degraded(board.health(), down.then(|| identity.mode()));
        let mut out = Vec::with_capacity(16 << 10);
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }

    fn fill_degraded(&self, health: Health, keys: Option<KeyMode>) {
        let scheduling = match health {
            Health::Degraded(mode) => Some(mode),
            Health::NotReady(_) => Some("fail_closed"),
            Health::Ready => None,
        };
        for mode in ["fail_closed", "fair_share", "fail_open"] {
            let is_active = i64::from(scheduling == Some(mode));
            self.degraded.with_label_values(&[format!("scheduling_{mode}")]).set(is_active);
        }
        for (name, mode) in [("identity_fail_closed", KeyMode::FailClosed), ("identity_fail_open", KeyMode::FailOpen)] {
            self.degraded.with_label_values(&[name]).set(i64::from(keys == Some(mode)));
        }
    }

    fn fill_lookups(&self, identity: &Identity) {
        let counts = identity.counts();
        for (layer, result, count) in counts.all() {
            let counter = self.token_lookups.with_label_values(&[layer, result]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        let (keys, taken_wall_us) = identity.snapshot_size();
        self.snapshot[0].set(keys as f64);
        self.snapshot[1].set(Duration::from_micros(taken_wall_us).as_secs_f64());
        let refreshes = counts.snapshot_refreshes.load(Ordering::Relaxed);
        self.snapshot_refreshes.inc_by(refreshes.saturating_sub(self.snapshot_refreshes.get()));
    }

    fn fill_capacity(&self, pool: &PoolGauge) {
        let limits = &pool.limits;
        let rows = [
            ("tokens", limits.tokens.map(|limit| limit.burst), pool.tokens_used),
            ("requests", limits.requests.map(|limit| limit.burst), pool.requests_used),
            ("concurrent", limits.concurrent, pool.in_flight),
        ];
        let [usage, utilization, limits] = &self.capacity;
        for (dimension, limit, used) in rows {
            let labels = [dimension, pool.pool.as_str()];
            let Some(limit) = limit else {
                for family in &self.capacity {
                    // Absent already is as good as removed.
                    let _ = family.remove_label_values(&labels);
                }
                continue;
            };
            usage.with_label_values(&labels).set(used as f64);
            limits.with_label_values(&labels).set(limit as f64);
            let part = if limit == 0 { 1.0 } else { (used as f64 / limit as f64).clamp(0.0, 1.0) };
            utilization.with_label_values(&labels).set(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::model::{BucketLimit, PoolLimits, Rate};

    struct One;

    impl Board for One {
        fn pools(&self) -> Vec<PoolGauge> {
            let tokens = Some(BucketLimit { rate: Rate::per_sec(1_000), burst: 1_000 });
            vec![PoolGauge {
                pool: "m".into(),
                limits: PoolLimits { tokens, requests: None, concurrent: Some(10) },
                tokens_used: 650,
                requests_used: 0,
                in_flight: 2,
            }]
        }

        fn waiting(&self) -> Vec<u64> {
            vec![0, 3]
        }
    }

    async fn identity(dir: &tempfile::TempDir) -> Identity {
        Identity::open(&format!("sqlite:{}/i.db", dir.path().display())).await.unwrap()
    }

    #[tokio::test]
    async fn capacity_is_shown_absolute_and_as_a_part() {
        let metrics = Metrics::new(2).unwrap();
        metrics.admitted(Path::Queued, 200, Duration::from_millis(3));
        let text =
            String::from_utf8(metrics.render(&One, &identity(&tempfile::tempdir().unwrap()).await).unwrap()).unwrap();
        for line in [
            r#"tokligence_capacity_usage{dimension="tokens",model="m"} 650"#,
            r#"tokligence_capacity_utilization{dimension="tokens",model="m"} 0.65"#,
            r#"tokligence_capacity_limit{dimension="concurrent",model="m"} 10"#,
            r#"tokligence_scheduling_queue_depth{priority="0"} 0"#,
            r#"tokligence_scheduling_queue_depth{priority="1"} 3"#,
            r#"tokligence_admissions_total{path="queued"} 1"#,
            r#"tokligence_scheduling_latency_seconds_count{priority="1"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn every_degraded_mode_is_shown_and_only_the_active_one_is_1() {
        let metrics = Metrics::new(2).unwrap();
        for (keys, closed, open) in [(None, 0, 0), (Some(KeyMode::FailClosed), 1, 0), (Some(KeyMode::FailOpen), 0, 1)] {
            metrics.fill_degraded(Health::Ready, keys);
            let mut text = Vec::new();
            TextEncoder::new().encode(&metrics.registry.gather(), &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            let mut modes: Vec<_> = text.lines().filter(|line| line.starts_with("tokligence_degradation")).collect();
            modes.sort_unstable();
            let expected = [
                ("identity_fail_closed", closed),
                ("identity_fail_open", open),
                ("scheduling_fail_closed", 0),
                ("scheduling_fail_open", 0),
                ("scheduling_fair_share", 0),
            ]
            .map(|(mode, value)| format!("tokligence_degradation_mode_active{{mode=\"{mode}\"}} {value}"));
            assert_eq!(modes, expected);
        }
    }
}
