//! Rule R5: one thread that makes writes durable and says so, in the order in which they were made.
//!
//! Writes are applied to sled by whoever makes them; here they wait for one `flush` and one `sync_data` that serve all
//! that queued up meanwhile. The same thread deletes purged entries in small batches, so that no deletion ever races
//! another or holds up an append for long.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use openraft::storage::IOFlushed;

use super::{open, record};
use crate::clock;
use crate::fault::Fault;
use crate::group::LatencyHook;
use crate::types::TypeConfig;

/// Deleted at a time when nobody waits, and when somebody does.
const DELETE_IDLE: usize = 256;
const DELETE_BUSY: usize = 32;
/// How many syncs pass between two looks at `blobs/`.
const BLOB_CHECK: u64 = 4096;

/// Who is told that a write is durable.
pub(crate) enum Done {
    /// openraft, about an append.
    Openraft(IOFlushed<TypeConfig>),
    /// A caller that waits.
    Waiter(tokio::sync::oneshot::Sender<io::Result<()>>),
}

/// Counts syncs and how long they took.
#[derive(Default)]
pub(crate) struct FsyncStats {
    pub(crate) count: AtomicU64,
    pub(crate) sum_us: AtomicU64,
    /// Hears how long each write waited until it was on disk.
    pub(crate) on_append: Option<LatencyHook>,
    /// Hears how long each sync took.
    pub(crate) on_fsync: Option<LatencyHook>,
}

impl std::fmt::Debug for FsyncStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FsyncStats").field("count", &self.count).field("sum_us", &self.sum_us).finish_non_exhaustive()
    }
}

/// The door to the thread; dropping it waits until the thread has done all that was asked.
#[derive(Debug)]
pub(crate) struct Flusher {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Sync(Waiting),
    Purge { below: u64 },
}

/// A write that is not durable yet.
struct Waiting {
    done: Done,
    since_us: u64,
}

impl Flusher {
    /// Starts the thread.
    pub(crate) fn spawn(
        db: sled::Db,
        file: File,
        fault: Fault,
        stats: Arc<FsyncStats>,
        dir: &Path,
    ) -> io::Result<Self> {
        let (sender, jobs) = channel();
        let worker = Worker { db, file, fault, stats, dir: dir.to_owned(), jobs, purge_below: 0, waiting: Vec::new() };
        let thread = std::thread::Builder::new().name("raft-flush".to_owned()).spawn(move || worker.run())?;
        Ok(Self { jobs: Some(sender), thread: Some(thread) })
    }

    /// Asks for everything applied so far to be made durable.
    pub(crate) fn sync(&self, done: Done) {
        self.send(Job::Sync(Waiting { done, since_us: clock::boot_us() }));
    }

    /// Asks for the entries below an index to be deleted, some time.
    pub(crate) fn purge(&self, below: u64) {
        self.send(Job::Purge { below });
    }

    fn send(&self, job: Job) {
        let sent = match &self.jobs {
            Some(jobs) => jobs.send(job).map_err(|unsent| unsent.0),
            None => Err(job),
        };
        if let Err(Job::Sync(waiting)) = sent {
            waiting.done.complete(Err("the store was closed".to_owned()));
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Done {
    fn complete(self, result: Result<(), String>) {
        let result = result.map_err(io::Error::other);
        match self {
            Self::Openraft(flushed) => flushed.io_completed(result),
            // Whoever stopped waiting does not need to know.
            Self::Waiter(sender) => drop(sender.send(result)),
        }
    }
}

struct Worker {
    db: sled::Db,
    file: File,
    fault: Fault,
    stats: Arc<FsyncStats>,
    dir: PathBuf,
    jobs: Receiver<Job>,
    purge_below: u64,
    waiting: Vec<Waiting>,
}

impl Worker {
    fn run(mut self) {
        while self.collect() {
            let busy = !self.waiting.is_empty();
            if busy {
                let result = self.make_durable();
                let now_us = clock::boot_us();
                for Waiting { done, since_us } in self.waiting.drain(..) {
                    if let Some(LatencyHook(hook)) = &self.stats.on_append {
                        hook(now_us.saturating_sub(since_us));
                    }
                    done.complete(result.clone());
                }
            }
            self.delete_purged(if busy { DELETE_BUSY } else { DELETE_IDLE });
        }
    }

    /// Takes every job that is there; blocks for one only if there is nothing to delete either. False at the end.
    fn collect(&mut self) -> bool {
        let mut next = if self.purge_below > 0 {
            self.jobs.try_recv()
        } else {
            self.jobs.recv().map_err(|_| TryRecvError::Disconnected)
        };
        loop {
            match next {
                Ok(Job::Sync(waiting)) => self.waiting.push(waiting),
                Ok(Job::Purge { below }) => self.purge_below = self.purge_below.max(below),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return !self.waiting.is_empty(),
            }
            next = self.jobs.try_recv();
        }
    }

    fn make_durable(&self) -> Result<(), String> {
        if let Some(reason) = self.fault.reason() {
            return Err(reason);
        }
        let from = clock::boot_us();
        let flushed = self.db.flush().map_err(io::Error::from).and_then(|_| self.sync_data());
        let took_us = clock::boot_us().saturating_sub(from);
        self.stats.sum_us.fetch_add(took_us, Ordering::Relaxed);
        if let Some(LatencyHook(hook)) = &self.stats.on_fsync {
            hook(took_us);
        }
        if self.stats.count.fetch_add(1, Ordering::Relaxed).is_multiple_of(BLOB_CHECK) {
            open::alarm_on_blobs(&self.dir);
        }
        flushed.map_err(|error| self.fault.end(format!("syncing {} failed: {error}", self.dir.display())))
    }

    /// The step that rule R3 adds to sled.
    fn sync_data(&self) -> io::Result<()> {
        #[cfg(any(test, tokligence_faults))]
        if crate::faults::sync_is_skipped() {
            return Ok(());
        }
        #[cfg(any(test, tokligence_faults))]
        self.fault.sync_may_fail()?;
        self.file.sync_data()
    }

    /// Deletes some of the entries below the watermark. The watermark was made durable first, so nobody misses them.
    fn delete_purged(&mut self, at_most: usize) {
        if self.purge_below == 0 || self.fault.reason().is_some() {
            self.purge_below = 0;
            return;
        }
        let range = record::entry_key(0)..record::entry_key(self.purge_below);
        let keys: Result<Vec<_>, _> = self.db.range(range).keys().take(at_most).collect();
        let deleted = keys.and_then(|keys| {
            let mut batch = sled::Batch::default();
            let count = keys.len();
            keys.into_iter().for_each(|key| batch.remove(key));
            self.db.apply_batch(batch).map(|()| count)
        });
        match deleted {
            Ok(count) if count == at_most => {}
            // All gone: sync once, so that sled reuses no segment on the strength of something only it calls stable.
            Ok(_) => {
                self.purge_below = 0;
                let _ = self.make_durable();
            }
            Err(error) => {
                self.fault.end(format!("deleting purged entries in {} failed: {error}", self.dir.display()));
            }
        }
    }
}
