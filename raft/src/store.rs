//! The log and the votes on disk: sled, under the five rules that make it keep what it acknowledged.
//!
//! sled's own `flush` ends in `sync_file_range`, which survives a killed process but not a power loss. Hence:
//! - R1 leftovers of a crash during open are removed before open, names are made durable (`open.rs`).
//! - R2 the settings below; the segment size is fixed for the store's life.
//! - R3 an acknowledged append or vote is `apply_batch`, `flush` and `sync_data` on a handle of our own.
//! - R4 entries are at most 64 KiB, since bigger pages go to files that are never synced.
//! - R5 one thread syncs for all (`flusher.rs`); it completes in order, and deletes purged entries when idle.
//!
//! This is not the state machine, and it knows no consensus: `log.rs` lends it to openraft.

pub(crate) mod flusher;
mod log;
pub(crate) mod open;
pub(crate) mod record;

use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use self::flusher::{Done, Flusher, FsyncStats};
pub(crate) use self::open::OpenError;
use crate::clock;
use crate::fault::Fault;
use crate::types::{Entry, LogId, Vote};

/// The longest payload an entry may have.
///
/// Units: bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

/// The store; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: sled::Db,
    dir: PathBuf,
    flusher: Flusher,
    fault: Fault,
    /// The first index that was not purged; entries below it may still await deletion and must not be seen.
    first: AtomicU64,
}

/// Tells when the last user of a store has gone.
#[derive(Debug)]
pub(crate) struct Closing(Weak<Inner>);

impl Closing {
    /// Waits until the store is closed; false if that took too long.
    pub(crate) async fn closed(&self, within: Duration) -> bool {
        let deadline = clock::boot() + within;
        while self.0.strong_count() > 0 {
            if clock::boot() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }
}

impl Store {
    /// Opens or makes the store in a directory that nobody else has open.
    ///
    /// # Errors
    /// What is wrong with the directory, its content or the disk.
    pub(crate) fn open(dir: &Path, fault: Fault, stats: Arc<FsyncStats>) -> Result<Self, OpenError> {
        let (db, file) = open::open(dir)?;
        let purged = match db.get(record::PURGED).map_err(|error| OpenError::sled(dir, error))? {
            Some(bytes) => Some(record::decode_purged(&bytes).map_err(|error| OpenError::broken(dir, error))?),
            None => None,
        };
        let first = purged.map_or(0, |id: LogId| id.index + 1);
        let flusher = Flusher::spawn(db.clone(), file, fault.clone(), stats, dir)
            .map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
        let store = Self { inner: Arc::new(Inner { db, dir: dir.to_owned(), flusher, fault, first: first.into() }) };
        if first > 0 {
            // A crash may have come between the watermark and the last deletion.
            store.inner.flusher.purge(first);
        }
        Ok(store)
    }

    /// The store's own name; none before [`Self::save_uuid`].
    pub(crate) fn uuid(&self) -> io::Result<Option<[u8; 16]>> {
        self.get(record::UUID)?.map(|bytes| record::decode_uuid(&bytes).map_err(io::Error::other)).transpose()
    }

    /// Gives the store its name, durably.
    pub(crate) async fn save_uuid(&self, uuid: [u8; 16]) -> io::Result<()> {
        self.put(record::UUID, &record::encode_uuid(uuid))?;
        self.synced().await
    }

    /// Whether anything was ever voted or logged here.
    pub(crate) fn is_blank(&self) -> io::Result<bool> {
        Ok(self.vote()?.is_none() && self.ends()? == (None, None))
    }

    /// The ids of the last purged entry and of the last entry.
    pub(crate) fn ends(&self) -> io::Result<(Option<LogId>, Option<LogId>)> {
        let purged = self.get(record::PURGED)?;
        let purged = purged.map(|bytes| record::decode_purged(&bytes).map_err(io::Error::other)).transpose()?;
        let last = self.inner.db.range(self.keys_from(0)).next_back().transpose().map_err(io::Error::from)?;
        let last = match last {
            Some((key, value)) => Some(record::decode_entry(&key, &value).map_err(io::Error::other)?.log_id),
            None => purged,
        };
        Ok((purged, last))
    }

    /// The vote, if one was ever saved.
    pub(crate) fn vote(&self) -> io::Result<Option<Vote>> {
        self.get(record::VOTE)?.map(|bytes| record::decode_vote(&bytes).map_err(io::Error::other)).transpose()
    }

    /// Saves a vote; returns once it is durable.
    pub(crate) async fn save_vote(&self, vote: &Vote) -> io::Result<()> {
        self.put(record::VOTE, &record::encode_vote(vote))?;
        self.synced().await
    }

    /// Entries of a range that still exist, stopping before the byte budget is exceeded, but never before the first.
    pub(crate) fn entries(&self, range: Range<u64>, budget_bytes: usize) -> io::Result<Vec<Entry>> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let start = range.start.max(self.inner.first.load(Ordering::Acquire));
        if start >= range.end {
            return Ok(entries);
        }
        let keys = record::entry_key(start)..record::entry_key(range.end);
        for item in self.inner.db.range(keys) {
            let (key, value) = item.map_err(|error| self.failed("reading the log", error))?;
            bytes += value.len();
            if bytes > budget_bytes && !entries.is_empty() {
                break;
            }
            entries.push(record::decode_entry(&key, &value).map_err(|error| self.failed("reading the log", error))?);
        }
        Ok(entries)
    }

    /// Appends entries: readable when this returns, durable when `done` is completed.
    pub(crate) fn append(&self, entries: impl IntoIterator<Item = Entry>, done: Done) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for entry in entries {
            let index = entry.log_id.index;
            let value = record::encode_entry(&entry);
            if value.len() > MAX_PAYLOAD_BYTES + record::OVERHEAD {
                let (bytes, limit) = (value.len(), MAX_PAYLOAD_BYTES);
                return Err(self.failed("appending", format!("entry {index} has {bytes} bytes, the limit is {limit}")));
            }
            batch.insert(&record::entry_key(index), value);
        }
        self.apply(batch)?;
        self.inner.flusher.sync(done);
        Ok(())
    }

    /// Removes every entry after `last`; returns once that is durable.
    pub(crate) async fn truncate_after(&self, last: Option<u64>) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for key in self.inner.db.range(self.keys_from(last.map_or(0, |last| last + 1))).keys() {
            batch.remove(key.map_err(|error| self.failed("truncating the log", error))?);
        }
        self.apply(batch)?;
        self.synced().await
    }

    /// Forgets every entry up to and with `upto`: at once for readers, in the background on disk.
    pub(crate) async fn purge(&self, upto: &LogId) -> io::Result<()> {
        self.put(record::PURGED, &record::encode_purged(upto))?;
        self.synced().await?;
        self.inner.first.fetch_max(upto.index + 1, Ordering::AcqRel);
        self.inner.flusher.purge(upto.index + 1);
        Ok(())
    }

    /// A way to wait for the end of this store that does not itself keep it open.
    pub(crate) fn closing(&self) -> Closing {
        Closing(Arc::downgrade(&self.inner))
    }

    /// Where the store stands.
    pub(crate) fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Waits until everything written so far is durable.
    async fn synced(&self) -> io::Result<()> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.inner.flusher.sync(Done::Waiter(sender));
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the store was closed")))
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<sled::IVec>> {
        self.inner.db.get(key).map_err(|error| self.failed("reading", error))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        batch.insert(key, value);
        self.apply(batch)
    }

    fn apply(&self, batch: sled::Batch) -> io::Result<()> {
        self.inner.fault.check()?;
        self.inner.db.apply_batch(batch).map_err(|error| self.failed("writing", error))
    }

    /// Keys of all entries from an index on that were not purged.
    fn keys_from(&self, index: u64) -> RangeInclusive<[u8; 9]> {
        let first = self.inner.first.load(Ordering::Acquire);
        record::entry_key(index.max(first))..=record::entry_key(u64::MAX)
    }

    /// Any error of the disk ends this node's part in the group: going on could forget what was promised.
    fn failed(&self, doing: &str, error: impl std::fmt::Display) -> io::Error {
        let dir = self.inner.dir.display();
        io::Error::other(self.inner.fault.end(format!("{doing} in {dir} failed: {error}")))
    }
}
