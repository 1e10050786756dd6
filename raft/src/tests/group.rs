//! A group of one, from its first start to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Tape, quick};
use crate::group::{Group, LatencyHook, ProposeError, Settings, StartError};
use crate::store::MAX_PAYLOAD_BYTES;

async fn start(settings: Settings) -> Group<Tape> {
    super::start(settings).await.unwrap()
}

fn payloads(group: &Group<Tape>) -> Vec<Vec<u8>> {
    group.with_machine(|tape| tape.entries.iter().map(|(_, payload)| payload.clone()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_comes_back_with_its_place_and_its_result() {
    let dir = tempfile::tempdir().unwrap();
    let group = start(quick(dir.path())).await;
    let leadership = *group.leadership().borrow();
    let (term, index, applied) = group.propose(b"abc".to_vec()).await.unwrap();
    let (again, next, _) = group.propose(b"def".to_vec()).await.unwrap();
    assert_eq!((again, next), (term, index + 1));
    assert_eq!((applied.at.term, applied.at.index, applied.void), (term, index, false));
    assert!(leadership.term <= term);
    group.leadership().wait_for(|now| now.is_leader && now.leader == Some(1) && now.term == term).await.unwrap();
    let metrics = group.metrics();
    assert_eq!(metrics.leader, Some(1));
    assert!(metrics.fsync_count >= 2 && metrics.fsync_sum_us > 0);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hook_hears_of_every_sync() {
    let dir = tempfile::tempdir().unwrap();
    let heard = Arc::new(AtomicU64::new(0));
    let ear = heard.clone();
    let hook = LatencyHook(Arc::new(move |_us| {
        ear.fetch_add(1, Ordering::Relaxed);
    }));
    let group = start(Settings { on_fsync: Some(hook), ..quick(dir.path()) }).await;
    group.propose(b"abc".to_vec()).await.unwrap();
    group.shutdown().await;
    assert!(heard.load(Ordering::Relaxed) >= 2);
    assert_eq!(heard.load(Ordering::Relaxed), group.metrics().fsync_count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_what_was_acknowledged_and_who_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut expected, mut identity, mut newest) = (Vec::new(), None, (0, 0));
    for life in 0..3u8 {
        let group = start(quick(dir.path())).await;
        assert_eq!(payloads(&group), expected);
        assert_eq!(*identity.get_or_insert_with(|| group.identity().clone()), *group.identity());
        for item in 0..20 {
            let (term, index, _) = group.propose(vec![life, item]).await.unwrap();
            assert!((term, index) > newest, "terms and indexes only grow");
            newest = (term, index);
            expected.push(vec![life, item]);
        }
        group.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_and_purge_and_restart_give_the_machine_back() {
    let dir = tempfile::tempdir().unwrap();
    let config = Settings { keep_entries: 5, snapshot_every: 50, ..quick(dir.path()) };
    let mut expected = Vec::new();
    let group = start(config.clone()).await;
    for item in 0..200u8 {
        group.propose(vec![item; 40]).await.unwrap();
        expected.push(vec![item; 40]);
    }
    group.snapshot_now().await.unwrap();
    let metrics = group.metrics();
    assert!(metrics.snapshot >= metrics.last_log, "{metrics:?}");
    group.propose(b"after".to_vec()).await.unwrap();
    expected.push(b"after".to_vec());
    for _ in 0..250 {
        if group.metrics().purged > Some(100) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(group.metrics().purged > Some(100), "the log was purged: {metrics:?}");
    group.shutdown().await;
    let group = start(config).await;
    assert_eq!(payloads(&group), expected);
    assert!(std::fs::read_dir(dir.path().join("snapshots")).unwrap().count() <= 2);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_64_kib_is_kept_and_a_longer_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let group = start(quick(dir.path())).await;
    for item in 0..40u8 {
        group.propose(vec![item; MAX_PAYLOAD_BYTES]).await.unwrap();
    }
    let refused = group.propose(vec![0; MAX_PAYLOAD_BYTES + 1]).await;
    let (bytes, limit) = (MAX_PAYLOAD_BYTES + 1, MAX_PAYLOAD_BYTES);
    assert_eq!(refused, Err(ProposeError::TooLarge { bytes, limit }));
    group.propose(b"goes on".to_vec()).await.unwrap();
    group.shutdown().await;
    assert_eq!(std::fs::read_dir(dir.path().join("raft/blobs")).unwrap().count(), 0, "nothing went to blobs");
    let group = start(quick(dir.path())).await;
    assert_eq!(payloads(&group).len(), 41);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_stops_ends_the_nodes_part_and_says_why() {
    for (word, reason) in [("stop", "an unknown event"), ("panic", "a broken invariant")] {
        let dir = tempfile::tempdir().unwrap();
        let group = start(quick(dir.path())).await;
        let mut fatal = group.fatal();
        assert_eq!(group.propose(word.into()).await, Err(ProposeError::Indeterminate));
        let message = fatal.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(message.contains(reason), "{message}");
        assert_eq!(group.propose(b"more".to_vec()).await, Err(ProposeError::Stopped(message)));
        group.leadership().wait_for(|now| !now.is_leader).await.unwrap();
        group.shutdown().await;
        // The entry is in the log for good, so another start ends at the same place.
        let again = super::start(quick(dir.path())).await;
        assert!(matches!(&again, Err(StartError::Consensus(message)) if message.contains(reason)), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_proposals_at_once_share_their_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let group = start(quick(dir.path())).await;
    let before = group.metrics();
    let tasks: Vec<_> = (0..64u8)
        .map(|task| {
            let group = group.clone();
            tokio::spawn(async move {
                for item in 0..20u8 {
                    group.propose(vec![task, item]).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
    }
    let syncs = group.metrics().fsync_count - before.fsync_count;
    assert!(syncs < 64 * 20 / 2, "{syncs} syncs for 1280 entries");
    assert_eq!(payloads(&group).len(), 1280);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_is_no_fault_and_frees_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let group = start(quick(dir.path())).await;
    let taken = Group::start(quick(dir.path()), Tape::default()).await;
    assert!(matches!(taken, Err(StartError::AlreadyRunning { .. })), "{taken:?}");
    assert!(taken.unwrap_err().to_string().contains(&format!("(pid {})", std::process::id())));
    let fatal = group.fatal();
    group.shutdown().await;
    assert_eq!(*fatal.borrow(), None);
    assert_eq!(group.propose(vec![1]).await, Err(ProposeError::Stopped("it was shut down".to_owned())));
    start(quick(dir.path())).await.shutdown().await;
}
