//! A node's part in its group: the one door of this crate to consensus.
//!
//! On the main path a batch of ledger operations enters through [`Group::propose`] and comes back with its place in the
//! log and what applying it gave. What an entry means is the machine's business; who may propose is the leader's.

mod members;
pub mod settings;
pub mod start;
mod watcher;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::metrics::WaitError;
use std::fs::File;
use tokio::sync::watch;

pub use self::members::{ChangeError, Member, Role, Standing};
pub use self::settings::{LatencyHook, Peer, Settings};
pub use self::start::StartError;
pub use self::watcher::Leadership;
use crate::apply::Applier;
use crate::fault::Fault;
use crate::identity::{ClusterId, Identity};
use crate::leader::Desk;
use crate::machine::{Applied, Machine};
use crate::network::{self, Dial, Door, Pass};
use crate::store::MAX_PAYLOAD_BYTES;
use crate::store::flusher::FsyncStats;
use crate::types::{NodeId, Payload, TypeConfig};
use std::net::SocketAddr;

/// How long a shutdown waits for the last readers of the store.
const CLOSING: Duration = Duration::from_secs(2);

/// How often a snapshot is asked for until it is there.
const RETRIGGER: Duration = Duration::from_millis(50);

/// A running member of a group; clones share it. It runs until [`Self::shutdown`], even when the last clone is dropped.
#[derive(Debug)]
pub struct Group<M: Machine> {
    inner: Arc<Inner<M>>,
}

#[derive(Debug)]
struct Inner<M: Machine> {
    raft: Raft<TypeConfig, Applier<M>>,
    applier: Applier<M>,
    identity: Identity,
    fault: Fault,
    stats: Arc<FsyncStats>,
    leadership: watch::Receiver<Leadership>,
    closing: Arc<AtomicBool>,
    store: crate::store::Closing,
    lock: std::sync::Mutex<Option<File>>,
    dial: Dial,
    door: Arc<Door<M>>,
    /// The bound address of the listener for peers.
    peer: Option<SocketAddr>,
    stop_peers: watch::Sender<bool>,
}

/// Why a proposal gave no result; named by what the caller does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was written; ask the leader.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The entry may or may not be, or become, part of the log; only the log can tell.
    #[error("the outcome of the proposal is unknown")]
    Indeterminate,
    /// Nothing was written, and never will be by this process.
    #[error("this node's part in the group ended: {0}")]
    Stopped(String),
    /// Nothing was written; propose less at once.
    #[error("the entry has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
}

/// Where a member stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// The newest term it knows.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The index of the last entry in its log.
    pub last_log: Option<u64>,
    /// The index of the last entry it knows to be committed.
    pub committed: Option<u64>,
    /// The index of the last entry it applied.
    pub applied: Option<u64>,
    /// The index of the last entry its newest snapshot covers.
    pub snapshot: Option<u64>,
    /// The index of the last entry its log no longer holds.
    pub purged: Option<u64>,
    /// How often the log was synced.
    pub fsync_count: u64,
    /// How long that took in all, in microseconds.
    pub fsync_sum_us: u64,
}

impl<M: Machine> Clone for Group<M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<M: Machine> Group<M> {
    /// Opens the data directory, takes up the machine's state from there and takes part in the group; makes a group of
    /// one at the first start. A group of one leads itself, with everything applied, when this returns.
    ///
    /// # Errors
    /// [`StartError`], one clear sentence each.
    pub async fn start(settings: impl Into<Settings>, machine: M) -> Result<Self, StartError> {
        let settings = settings.into();
        let fault = Fault::new();
        let (on_append, on_fsync) = (settings.on_append.clone(), settings.on_fsync.clone());
        let stats = Arc::new(FsyncStats { on_append, on_fsync, ..FsyncStats::default() });
        let (tls, listening) = start::peer(&settings).await?;
        let opened = start::open(&settings, &fault, &stats).await?;
        let store = opened.store.closing();
        let applier = Applier::new(machine, opened.snapshots, fault.clone());
        let identity = opened.identity;
        let cluster = ClusterId::of(&identity);
        let pass = Pass::new(settings.node_id, identity.store_uuid, cluster, fault.clone(), tls.is_some());
        let detours = settings.peer.as_ref().map(|peer| peer.detours.clone()).unwrap_or_default();
        let dial = Dial::new(pass.clone(), tls, detours);
        let (raft, standing) = start::consensus(&settings, &identity, opened.store, applier.clone(), &dial)
            .await
            .map_err(|error| fault.reason().map_or(error, StartError::Consensus))?;
        let closing = Arc::new(AtomicBool::new(false));
        let leadership = watcher::spawn(raft.clone(), settings.node_id, fault.clone(), closing.clone());
        let lock = std::sync::Mutex::new(Some(opened.lock));
        let door = Arc::new(Door {
            pass,
            raft: raft.clone(),
            applier: applier.clone(),
            desk: std::sync::OnceLock::new(),
            data_dir: settings.data_dir.clone(),
            dial: dial.clone(),
        });
        let peer = listening.as_ref().and_then(|listening| listening.address().ok());
        let stop_peers = watch::Sender::new(false);
        if let Some(listening) = listening {
            tokio::spawn(network::serve(listening, door.clone(), stop_peers.subscribe()));
        }
        let inner = Inner {
            raft,
            applier,
            identity,
            fault,
            stats,
            leadership,
            closing,
            store,
            lock,
            dial,
            door,
            peer,
            stop_peers,
        };
        let group = Self { inner: Arc::new(inner) };
        if let Err(error) = start::settle(&settings, &group.inner.raft, &group.inner.fault, standing).await {
            group.shutdown().await;
            return Err(error);
        }
        if standing == start::Standing::Founder {
            let Inner { raft, dial, fault, closing, .. } = &*group.inner;
            let founding =
                start::found(raft.clone(), dial.clone(), settings.members.clone(), fault.clone(), closing.clone());
            tokio::spawn(founding);
        }
        Ok(group)
    }

    /// Proposes an entry; returns its term and index, and what applying it gave, once it is committed and applied here.
    ///
    /// # Errors
    /// [`ProposeError`]. A caller that stops waiting must take the outcome as unknown, too.
    pub async fn propose(&self, payload: Vec<u8>) -> Result<(u64, u64, Applied), ProposeError> {
        let (bytes, limit) = (payload.len(), MAX_PAYLOAD_BYTES);
        if bytes > limit {
            return Err(ProposeError::TooLarge { bytes, limit });
        }
        if let Some(reason) = self.stopped() {
            return Err(ProposeError::Stopped(reason));
        }
        match self.inner.raft.client_write(Payload(payload)).await {
            Ok(response) => {
                let applied = response.data.applied.ok_or(ProposeError::Indeterminate)?;
                Ok((response.log_id.leader_id.term, response.log_id.index, applied))
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader { leader: forward.leader_id })
            }
            // The entry may have been written before consensus ended or another leader took over.
            Err(_) => Err(ProposeError::Indeterminate),
        }
    }

    /// Reads from the machine as this node has applied it; nothing is applied meanwhile.
    pub fn with_machine<T>(&self, read: impl FnOnce(&M) -> T) -> T {
        self.inner.applier.with_machine(read)
    }

    /// Watches who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Watches for the end of this node's part in the group: a message once a disk error or a fault of the machine ended
    /// it. A shutdown is not such an end.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.inner.fault.watch()
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Where this node stands now.
    pub fn metrics(&self) -> Metrics {
        let raft = self.inner.raft.metrics();
        let raft = raft.borrow_watched();
        Metrics {
            term: raft.current_term,
            leader: raft.current_leader,
            last_log: raft.last_log_index,
            committed: raft.local_committed.map(|id| id.index),
            applied: raft.last_applied.map(|id| id.index),
            snapshot: raft.snapshot.map(|id| id.index),
            purged: raft.purged.map(|id| id.index),
            fsync_count: self.inner.stats.count.load(Ordering::Relaxed),
            fsync_sum_us: self.inner.stats.sum_us.load(Ordering::Relaxed),
        }
    }

    /// The bound address of the listener for peers, if there is one.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.inner.peer
    }

    /// The way to other members.
    pub(crate) fn dial(&self) -> &Dial {
        &self.inner.dial
    }

    /// Lets calls of peers reach this node's loop.
    pub(crate) fn attach(&self, desk: Desk) {
        // It is attached once, when the loop starts.
        let _ = self.inner.door.desk.set(desk);
    }

    /// Waits until this node has applied the entry; false when that takes too long.
    pub(crate) async fn applied(&self, index: u64, within: Duration) -> bool {
        let wait = self.inner.raft.wait(Some(within));
        wait.applied_index_at_least(Some(index), "the caller's own entry").await.is_ok()
    }

    /// Takes a snapshot of everything applied so far; returns once it is on disk and counts.
    ///
    /// # Errors
    /// [`ProposeError::Stopped`] when this node's part ended.
    pub async fn snapshot_now(&self) -> Result<(), ProposeError> {
        let stopped = |error: String| ProposeError::Stopped(self.stopped().unwrap_or(error));
        // The metrics of consensus lag behind the machine by a moment.
        let (raft, applied) = (&self.inner.raft, self.inner.applier.applied());
        loop {
            raft.trigger().snapshot().await.map_err(|error| stopped(error.to_string()))?;
            let wait = raft.wait(Some(RETRIGGER));
            match wait.metrics(|m| m.snapshot.map(|id| id.index) >= applied, "a snapshot").await {
                Ok(_) => return Ok(()),
                // The one asked for is left out while an earlier one, that covers less, is still being taken.
                Err(WaitError::Timeout(..)) => {}
                Err(error) => return Err(stopped(error.to_string())),
            }
        }
    }

    /// Ends this node's part in good order; the data directory is free when this returns.
    pub async fn shutdown(&self) {
        self.inner.closing.store(true, Ordering::Release);
        self.inner.stop_peers.send_replace(true);
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "consensus did not end in good order");
        }
        if !self.inner.store.closed(CLOSING).await {
            tracing::warn!("the store is still being read after consensus ended");
        }
        self.inner.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }

    /// The switch of a failing disk.
    #[cfg(test)]
    pub(crate) fn fault(&self) -> &Fault {
        &self.inner.fault
    }

    fn stopped(&self) -> Option<String> {
        let closing = self.inner.closing.load(Ordering::Acquire);
        self.inner.fault.reason().or_else(|| closing.then(|| "it was shut down".to_owned()))
    }
}
