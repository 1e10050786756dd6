//! What keeps the layers in order beside requests: probes of stores that are down, and the snapshot's refresh.

use super::layers::{Layers, jittered};
use super::record::Record;
use super::secret::KeyHash;
use super::snapshot::Builder;
use super::store::StoreError;
use raft::clock::wall_us;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Keys that one query of a refresh reads.
const PAGE: u64 = 2_000;
/// How soon a refresh that failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the snapshot cannot be written: {0}")]
    File(#[from] std::io::Error),
    #[error("the database is down")]
    Down,
}

/// Probes the database while it is down.
pub(super) async fn watch_sql(layers: Arc<Layers>) {
    layers.sql.watch(|| layers.durable.database().prepare()).await;
}

/// Probes Redis while it is down.
pub(super) async fn watch_redis(layers: Arc<Layers>) {
    if let Some((redis, breaker)) = &layers.redis {
        breaker.watch(|| redis.probe()).await;
    }
}

/// Takes a snapshot now and then.
pub(super) async fn refresh_snapshots(layers: Arc<Layers>, every: Duration) {
    loop {
        let pause = match refresh(&layers).await {
            Ok(()) => jittered(every),
            Err(NotTaken::Down) => AGAIN.min(every),
            Err(error) => {
                tracing::warn!(%error, "the snapshot of keys is not refreshed");
                AGAIN.min(every)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn refresh(layers: &Layers) -> Result<(), NotTaken> {
    let Some(path) = layers.snapshot_path.clone() else { return Ok(()) };
    if layers.sql.is_open() {
        return Err(NotTaken::Down);
    }
    let taken = wall_us();
    let mut builder = Builder::default();
    let mut after: Option<KeyHash> = None;
    loop {
        let page = layers.durable.in_force(after.as_ref(), PAGE).await?;
        let Some((last, ..)) = page.last() else { break };
        after = Some(*last);
        for (hash, record, previous) in page {
            if let Some((previous, until)) = previous.filter(|(_, until)| *until > taken) {
                let ends = record.expires_at.map_or(until, |at| at.min(until));
                builder.add(&previous, &Record { expires_at: Some(ends), ..record.clone() });
            }
            builder.add(&hash, &record);
        }
    }
    let snapshot = tokio::task::spawn_blocking(move || builder.write(&path, taken));
    let snapshot = snapshot.await.map_err(std::io::Error::other)??;
    layers.counts.snapshot_refreshes.fetch_add(1, Ordering::Relaxed);
    tracing::debug!(keys = snapshot.len(), "the snapshot of keys was refreshed");
    *layers.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    Ok(())
}
