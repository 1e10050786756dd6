//! Prometheus metrics of a member of a group: where it stands in the log, and how fast its disk is.
//!
//! Filled when they are asked for, except for the two histograms, which the thread that syncs feeds. Who keeps the
//! registry is the caller's business.

use crate::group::{Group, LatencyHook, Settings};
use crate::machine::Machine;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntGauge, Registry};
use std::sync::Arc;
use std::time::Duration;

/// From a disk that only acknowledges (50 µs) to one that is about to fail.
const DISK_BUCKETS: [f64; 14] =
    [0.000_05, 0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.05, 0.1, 0.5, 1.0, 5.0];

/// How long the disk takes. Made before the group, which feeds it.
#[derive(Clone, Debug)]
pub struct DiskTimes {
    append: Histogram,
    fsync: Histogram,
}

impl DiskTimes {
    /// Makes the two histograms, and registers them.
    ///
    /// # Errors
    /// When the registry has one of that name.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str| {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(DISK_BUCKETS.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            prometheus::Result::Ok(histogram)
        };
        Ok(Self {
            append: histogram(
                "tokligence_raft_append_seconds",
                "time from appending to the log until that is on disk, with the wait for the sync before it",
            )?,
            fsync: histogram("tokligence_raft_fsync_seconds", "time of one sync of the log")?,
        })
    }

    /// Has a group's disk timed.
    #[must_use]
    pub fn on(&self, settings: Settings) -> Settings {
        Settings { on_append: Some(hook(&self.append)), on_fsync: Some(hook(&self.fsync)), ..settings }
    }
}

fn hook(histogram: &Histogram) -> LatencyHook {
    let histogram = histogram.clone();
    LatencyHook(Arc::new(move |us| histogram.observe(Duration::from_micros(us).as_secs_f64())))
}

/// Where a member of a group stands.
struct Standing<M: Machine> {
    group: Group<M>,
    term: IntGauge,
    is_leader: IntGauge,
    last_log: IntGauge,
    committed: IntGauge,
    applied: IntGauge,
    snapshot: IntGauge,
}

/// Registers the gauges of a running member.
///
/// # Errors
/// When the registry has one of that name.
pub fn register<M: Machine>(registry: &Registry, group: Group<M>) -> prometheus::Result<()> {
    registry.register(Box::new(Standing {
        group,
        term: IntGauge::new("tokligence_raft_term", "newest term this node knows")?,
        is_leader: IntGauge::new("tokligence_raft_is_leader", "1 while this node leads the group")?,
        last_log: IntGauge::new("tokligence_raft_last_log_index", "last entry of this node's log")?,
        committed: IntGauge::new("tokligence_raft_commit_index", "last entry this node knows to be committed")?,
        applied: IntGauge::new("tokligence_raft_applied_index", "last entry this node applied")?,
        snapshot: IntGauge::new("tokligence_raft_snapshot_index", "last entry this node's newest snapshot covers")?,
    }))
}

impl<M: Machine> Standing<M> {
    fn gauges(&self) -> [&IntGauge; 6] {
        [&self.term, &self.is_leader, &self.last_log, &self.committed, &self.applied, &self.snapshot]
    }
}

impl<M: Machine> Collector for Standing<M> {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = self.group.metrics();
        let index = |index: Option<u64>| i64::try_from(index.unwrap_or(0)).unwrap_or(i64::MAX);
        self.term.set(index(Some(now.term)));
        self.is_leader.set(i64::from(self.group.leadership().borrow().is_leader));
        self.last_log.set(index(now.last_log));
        self.committed.set(index(now.committed));
        self.applied.set(index(now.applied));
        self.snapshot.set(index(now.snapshot));
        self.gauges().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Tape, quick};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_member_shows_where_it_stands_and_how_fast_its_disk_is() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::new();
        let times = DiskTimes::new(&registry).unwrap();
        let group = Group::start(times.on(quick(dir.path())), Tape::default()).await.unwrap();
        register(&registry, group.clone()).unwrap();
        let (term, index, _) = group.propose(b"abc".to_vec()).await.unwrap();
        group.leadership().wait_for(|now| now.is_leader).await.unwrap();
        let value = |name: &str| {
            let family = registry.gather().into_iter().find(|family| family.name() == name).unwrap();
            family.get_metric()[0].get_gauge().get_value()
        };
        assert_eq!(value("tokligence_raft_term"), term as f64);
        assert_eq!(value("tokligence_raft_is_leader"), 1.0);
        for name in ["last_log", "commit", "applied"] {
            // Consensus tells of its progress a moment after it answered.
            let told = async {
                while value(&format!("tokligence_raft_{name}_index")) < index as f64 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), told).await.unwrap();
        }
        group.shutdown().await;
        assert!(times.append.get_sample_count() >= 2);
        assert_eq!(times.fsync.get_sample_count(), group.metrics().fsync_count);
        assert!(times.append.get_sample_sum() > 0.0);
    }
}
