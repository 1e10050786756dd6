//! What stands on disk: reopening, lost and mixed-up data, and disks that fail.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::EntryPayload;

use super::quick;
use crate::fault::Fault;
use crate::group::{ProposeError, StartError};
use crate::store::flusher::{Done, FsyncStats};
use crate::store::{MAX_PAYLOAD_BYTES, Store};
use crate::types::{Entry, Payload, Vote, log_id};

pub(super) fn open(dir: &Path) -> Store {
    Store::open(dir, Fault::new(), Arc::new(FsyncStats::default())).unwrap()
}

pub(super) fn entry(term: u64, index: u64, payload: Vec<u8>) -> Entry {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Payload(payload)) }
}

pub(super) async fn append(store: &Store, entries: impl IntoIterator<Item = Entry>) -> std::io::Result<()> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    store.append(entries, Done::Waiter(sender))?;
    receiver.await.unwrap()
}

fn indexes(store: &Store) -> Vec<u64> {
    store.entries(0..u64::MAX, usize::MAX).unwrap().into_iter().map(|entry| entry.log_id.index).collect()
}

#[tokio::test]
async fn reopening_keeps_entries_and_vote_and_purge_watermark() {
    let dir = tempfile::tempdir().unwrap();
    let mut vote = Vote::new(7, 3);
    vote.committed = true;
    {
        let store = open(dir.path());
        assert!(store.is_blank().unwrap());
        append(&store, (1..=2_000).map(|index| entry(7, index, vec![index as u8; 100]))).await.unwrap();
        store.save_vote(&vote).await.unwrap();
        store.truncate_after(Some(1_990)).await.unwrap();
        store.purge(&log_id(7, 1_500)).await.unwrap();
        assert_eq!(indexes(&store), (1_501..=1_990).collect::<Vec<_>>());
    }
    let store = open(dir.path());
    assert_eq!(store.vote().unwrap(), Some(vote));
    assert_eq!(store.ends().unwrap(), (Some(log_id(7, 1_500)), Some(log_id(7, 1_990))));
    let kept = store.entries(0..u64::MAX, usize::MAX).unwrap();
    assert_eq!(kept, (1_501..=1_990).map(|index| entry(7, index, vec![index as u8; 100])).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_emptied_log_goes_on_after_its_watermark() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, (0..10).map(|index| entry(1, index, vec![]))).await.unwrap();
    store.purge(&log_id(2, 20)).await.unwrap();
    assert_eq!(store.ends().unwrap(), (Some(log_id(2, 20)), Some(log_id(2, 20))));
    append(&store, [entry(2, 21, vec![1])]).await.unwrap();
    drop(store);
    assert_eq!(indexes(&open(dir.path())), [21]);
}

#[tokio::test]
async fn a_read_for_replication_keeps_to_its_budget_but_brings_one_entry_at_least() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, (1..=9).map(|index| entry(1, index, vec![0; 1000]))).await.unwrap();
    assert_eq!(store.entries(1..10, 3_100).unwrap().len(), 3);
    assert_eq!(store.entries(1..10, 10).unwrap().len(), 1);
    assert_eq!(store.entries(5..5, 10).unwrap().len(), 0);
}

#[tokio::test]
async fn an_entry_that_is_too_long_ends_the_stores_life_with_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, [entry(1, 1, vec![0; MAX_PAYLOAD_BYTES])]).await.unwrap();
    let error = append(&store, [entry(1, 2, vec![0; MAX_PAYLOAD_BYTES + 1])]).await.unwrap_err().to_string();
    assert!(error.contains("entry 2 has") && error.contains("the limit is 65536"), "{error}");
    assert_eq!(append(&store, [entry(1, 3, vec![])]).await.unwrap_err().to_string(), error);
}

#[tokio::test]
async fn what_a_crash_during_open_left_does_not_brick_the_store() {
    let dir = tempfile::tempdir().unwrap();
    append(&open(dir.path()), [entry(1, 1, vec![5])]).await.unwrap();
    fs::write(dir.path().join("snap.00000000DEADBEEF.generating"), b"half a snapshot").unwrap();
    fs::write(dir.path().join("conf"), b"segment_size: 83886").unwrap();
    assert_eq!(indexes(&open(dir.path())), [1]);
    assert!(!dir.path().join("snap.00000000DEADBEEF.generating").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_disk_ends_the_nodes_part_and_acknowledges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let group = super::start(quick(dir.path())).await.unwrap();
    group.propose(b"kept".to_vec()).await.unwrap();
    group.fault().syncs_fail.store(true, Ordering::Relaxed);
    assert_eq!(group.propose(b"lost".to_vec()).await, Err(ProposeError::Indeterminate));
    let message = group.fatal().wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(message.contains("the disk is gone"), "{message}");
    group.leadership().wait_for(|now| !now.is_leader).await.unwrap();
    // A disk that recovers does not help: what the failed sync dropped is not known.
    group.fault().syncs_fail.store(false, Ordering::Relaxed);
    assert_eq!(group.propose(b"more".to_vec()).await, Err(ProposeError::Stopped(message)));
    group.shutdown().await;
}

async fn refusal(dir: &Path, node: u64) -> StartError {
    let mut settings = quick(dir);
    settings.node_id = node;
    super::start(settings).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_and_mixed_up_data_is_refused_with_one_sentence() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for path in [dir.path(), other.path()] {
        let group = super::start(quick(path)).await.unwrap();
        group.propose(b"mine".to_vec()).await.unwrap();
        group.shutdown().await;
    }
    let wrong_node = refusal(dir.path(), 2).await;
    assert!(matches!(wrong_node, StartError::OtherNode { found: 1, expected: 2, .. }), "{wrong_node}");

    fs::rename(dir.path().join("identity"), dir.path().join("aside")).unwrap();
    let nobody = refusal(dir.path(), 1).await.to_string();
    assert!(nobody.contains("it is missing beside a log that is in use"), "{nobody}");

    fs::copy(other.path().join("identity"), dir.path().join("identity")).unwrap();
    let mixed = refusal(dir.path(), 1).await.to_string();
    assert!(mixed.contains("another store than the one beside it"), "{mixed}");

    fs::rename(dir.path().join("aside"), dir.path().join("identity")).unwrap();
    fs::remove_dir_all(dir.path().join("raft")).unwrap();
    let lost = refusal(dir.path(), 1).await;
    assert_eq!(lost.to_string(), "node 1 lost its data: remove it, add a new id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_used_is_refused_with_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let no_directory = refusal(&dir.path().join("file"), 1).await;
    assert!(matches!(no_directory, StartError::Io { .. }), "{no_directory}");
    for (kind, expected) in [
        (std::io::ErrorKind::StorageFull, "the disk that holds /d is full"),
        (std::io::ErrorKind::ReadOnlyFilesystem, "/d cannot be written: read-only filesystem or storage medium"),
        (std::io::ErrorKind::PermissionDenied, "/d cannot be written: permission denied"),
    ] {
        assert_eq!(StartError::io(Path::new("/d"), kind.into()).to_string(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_only_snapshot_is_refused_once_the_log_was_purged() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = quick(dir.path());
    (settings.snapshot_every, settings.keep_entries) = (1_000, 0);
    let group = super::start(settings).await.unwrap();
    for item in 0..20 {
        group.propose(vec![item]).await.unwrap();
    }
    group.snapshot_now().await.unwrap();
    while group.metrics().purged.is_none() {
        group.propose(b"on".to_vec()).await.unwrap();
    }
    group.shutdown().await;
    let snapshot = fs::read_dir(dir.path().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let length = fs::metadata(&snapshot).unwrap().len();
    fs::OpenOptions::new().write(true).open(&snapshot).unwrap().set_len(length - 1).unwrap();
    let error = refusal(dir.path(), 1).await.to_string();
    assert!(error.contains("no snapshot up to there can be read") && error.contains(".snap has"), "{error}");
}
