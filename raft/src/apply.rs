//! Applies committed entries to the machine, and makes and takes its snapshots: openraft's state machine.
//!
//! The machine, the place it has reached and the membership stand under one lock, so that a reader or a snapshot never
//! sees one without the others. The lock is held for one entry at a time.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use crate::fault::Fault;
use crate::machine::{Machine, Stop};
use crate::snapshot::Snapshots;
use crate::types::{Entry, LogId, Reply, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// The machine and how far it has come.
#[derive(Debug)]
struct State<M> {
    machine: M,
    applied: Option<LogId>,
    members: StoredMembership,
}

/// The machine as openraft and readers share it.
#[derive(Debug)]
pub(crate) struct Applier<M> {
    state: Arc<RwLock<State<M>>>,
    snapshots: Snapshots,
    fault: Fault,
}

impl<M> Clone for Applier<M> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), snapshots: self.snapshots.clone(), fault: self.fault.clone() }
    }
}

impl<M: Machine> Applier<M> {
    /// A machine that has applied nothing; openraft restores the newest snapshot into it.
    pub(crate) fn new(machine: M, snapshots: Snapshots, fault: Fault) -> Self {
        let state = State { machine, applied: None, members: StoredMembership::default() };
        Self { state: Arc::new(RwLock::new(state)), snapshots, fault }
    }

    /// Reads from the machine; no entry is applied meanwhile.
    pub(crate) fn with_machine<T>(&self, read: impl FnOnce(&M) -> T) -> T {
        // After a panic inside apply the node's part has ended; what stands there may still be looked at.
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner).machine)
    }

    /// The index of the last entry that was applied.
    pub(crate) fn applied(&self) -> Option<u64> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).applied.map(|id| id.index)
    }

    fn apply_one(&self, entry: Entry) -> io::Result<Reply> {
        let id = entry.log_id;
        let mut state = self.state.write().map_err(|_| self.stopped(id, "an earlier entry panicked"))?;
        let state = &mut *state;
        let applied = match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(payload) => {
                let machine = &mut state.machine;
                let (term, index) = (id.leader_id.term, id.index);
                let outcome = catch_unwind(AssertUnwindSafe(|| machine.apply(term, index, &payload.0)))
                    .unwrap_or_else(|panic| Err(Stop::new(format!("it panicked: {}", panic_message(&*panic)))));
                Some(outcome.map_err(|Stop(reason)| self.stopped(id, &reason))?)
            }
            EntryPayload::Membership(members) => {
                state.members = StoredMembership::new(Some(id), members);
                None
            }
        };
        state.applied = Some(id);
        Ok(Reply { applied })
    }

    fn stopped(&self, id: LogId, reason: &str) -> io::Error {
        io::Error::other(self.fault.end(format!("entry {} cannot be applied: {reason}", id.index)))
    }

    fn failed(&self, doing: &str, error: impl std::fmt::Display) -> io::Error {
        io::Error::other(self.fault.end(format!("{doing} failed: {error}")))
    }

    /// Encodes the state as it is now and writes it to disk.
    fn take_snapshot(&self) -> io::Result<Snapshot> {
        let (meta, body) = {
            let state = self.state.read().map_err(|_| self.failed("taking a snapshot", "an entry panicked"))?;
            let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.members.clone() };
            (meta, state.machine.snapshot())
        };
        self.snapshots.write(&meta, &body).map_err(|error| self.failed("writing a snapshot", error))?;
        Ok(Snapshot { meta, snapshot: body })
    }

    fn restore(&self, meta: &SnapshotMeta, body: &[u8]) -> io::Result<()> {
        let mut state = self.state.write().map_err(|_| self.failed("restoring a snapshot", "an entry panicked"))?;
        state.machine.restore(body).map_err(|stop| self.failed("restoring a snapshot", stop))?;
        state.applied = meta.last_log_id;
        state.members = meta.last_membership.clone();
        Ok(())
    }

    /// Runs what blocks on the disk where it holds up nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let applier = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&applier)).await;
        done.unwrap_or_else(|error| Err(self.failed("a snapshot", error)))
    }
}

impl<M: Machine> RaftStateMachine<TypeConfig> for Applier<M> {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Ok((state.applied, state.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let reply = self.apply_one(entry)?;
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, body: Vec<u8>) -> Result<(), io::Error> {
        let meta = meta.clone();
        self.blocking(move |applier| {
            let fail = |error| applier.failed("writing a snapshot", error);
            // At start openraft hands back the very one that stands on disk.
            if !applier.snapshots.newest_is(&meta).map_err(fail)? {
                applier.snapshots.write(&meta, &body).map_err(fail)?;
            }
            applier.restore(&meta, &body)
        })
        .await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.blocking(|applier| {
            applier.snapshots.newest().map_err(|error| applier.failed("reading the newest snapshot", error))
        })
        .await
    }
}

impl<M: Machine> RaftSnapshotBuilder<TypeConfig> for Applier<M> {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        self.blocking(Self::take_snapshot).await
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
