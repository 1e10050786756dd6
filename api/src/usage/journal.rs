//! The journal as the rest of the node sees it.

use super::codec::{Record, Write};
use super::position;
use super::record::{CallId, Intent, RequestId, Settled, Status};
use super::scan::{self, Left};
use super::segment::{self, JournalError, Position, Reader};
use super::writer::Writer;
use ledger::model::{Incarnation, Priority};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// The machine's present boot ([`raft::clock::boot_id`]).
    pub boot_id: String,
    /// Size at which a segment ends.
    pub segment_bytes: u64,
    /// Longest time between a record and its sync, without the sync itself.
    pub sync_every: Duration,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { boot_id: raft::clock::boot_id(), segment_bytes: 16 * 1024 * 1024, sync_every: Duration::from_millis(25) }
    }
}

/// What is known of the life of the node before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLife {
    /// Nothing: the journal is new, or its disk was lost.
    Unknown,
    /// It ran in another boot of the machine: its last records may be missing.
    OtherBoot,
    /// It ran in this boot: every record is there.
    SameBoot,
}

/// What earlier lives of the node left behind.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// How far the journal can be trusted to be whole.
    pub last_life: LastLife,
    /// Calls whose end nobody wrote down; to be charged in full, then to be passed to [`Journal::write_off`].
    pub open: Vec<Left>,
}

/// The node's journal of upstream calls. Clones share it.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Arc<Writer>,
    syncing: Option<JoinHandle<()>>,
    last_life: LastLife,
    left: Mutex<HashMap<CallId, (Left, u64)>>,
    /// Locked as long as this process has the journal.
    _in_use: File,
}

impl Journal {
    /// Opens the journal in a folder, making it where there is none. A torn end is cut off; see [`JournalError`] for what
    /// is refused.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn open(dir: &Path, options: &JournalOptions) -> Result<Self, JournalError> {
        let failed = |source| JournalError::io(dir, source);
        fs::create_dir_all(dir).map_err(failed)?;
        let in_use = File::create(dir.join("lock")).map_err(failed)?;
        in_use.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::Busy(dir.display().to_string()),
            TryLockError::Error(source) => failed(source),
        })?;
        let scan = scan::scan(dir, &options.boot_id, position::load(dir))?;
        if scan.segments.is_empty() {
            position::reset(dir).map_err(failed)?;
        }
        let last_life = match scan.last_boot_id {
            None => LastLife::Unknown,
            Some(boot_id) if !boot_id.is_empty() && boot_id == options.boot_id => LastLife::SameBoot,
            Some(_) => LastLife::OtherBoot,
        };
        let mut old: BTreeMap<u64, u64> = scan.segments.iter().map(|&segment| (segment, 0)).collect();
        for (_, segment) in scan.open.values() {
            *old.entry(*segment).or_default() += 1;
        }
        let writer = Arc::new(Writer::new(dir, &options.boot_id, options.segment_bytes, old)?);
        let (of_thread, every) = (Arc::clone(&writer), options.sync_every);
        let syncing = std::thread::Builder::new()
            .name("usage-sync".to_owned())
            .spawn(move || of_thread.sync_in_groups(every))
            .map_err(failed)?;
        let left = Mutex::new(scan.open);
        let inner = Inner { writer, syncing: Some(syncing), last_life, left, _in_use: in_use };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Writes down what a call is about to use. Blocks for one `write(2)` into the page cache.
    ///
    /// # Errors
    /// When the disk refuses; then the upstream must not be called.
    pub fn intent(&self, intent: Intent) -> io::Result<Open> {
        let segment = self.inner.writer.begin_call(Write::Intent(&intent))?;
        Ok(Open { journal: self.clone(), intent, segment, ended: false })
    }

    /// What earlier lives of the node left behind and was not written off yet. To be asked before this life's first call.
    pub fn recover(&self) -> Recovered {
        let mut open: Vec<Left> = self.left().values().map(|(left, _)| left.clone()).collect();
        open.sort_by_key(|left| left.intent.call);
        Recovered { last_life: self.inner.last_life, open }
    }

    /// Tells every ended call of an earlier life that is still in the journal: all that ended in its last minute, and
    /// maybe more. Reads the whole journal.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn settled_by(
        &self,
        incarnation: Incarnation,
        mut tell: impl FnMut(&Intent, &Settled),
    ) -> Result<(), JournalError> {
        let end = self.inner.writer.end();
        for segment in segment::list(self.inner.writer.dir())? {
            let mut reader = Reader::open(self.inner.writer.dir(), Position { segment, offset: 0 })?;
            let limit = if segment == end.segment { end.offset } else { reader.length()? };
            while let Some((record, _)) = reader.next(limit)? {
                match record {
                    Record::Settled(intent, settled) if intent.incarnation == incarnation => tell(&intent, &settled),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Writes the `lost` end of a call that an earlier life left open: its row, at what was reserved. Once more changes
    /// nothing. To be called when the ledger has charged it.
    ///
    /// # Errors
    /// When the disk refuses; then the next start finds the call open again.
    pub fn write_off(&self, intent: &Intent) -> io::Result<()> {
        let Some((_, segment)) = self.left().get(&intent.call).cloned() else { return Ok(()) };
        let lost = unfinished(Status::Lost, intent, 0);
        self.inner.writer.end_call(Write::Settled(intent, &lost), segment)?;
        self.left().remove(&intent.call);
        Ok(())
    }

    /// Writes the one `lost` row of what a life of this node held of a pool and no intent tells of: the ledger charged it
    /// because the journal was lost, in whole or at its end. However often it is written, it is one row.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_off_rest(&self, incarnation: Incarnation, pool: &str, tokens: u64) -> io::Result<()> {
        let intent = Intent {
            call: lost_call(incarnation, pool),
            incarnation,
            reservation: 0,
            pool: pool.into(),
            model: "".into(),
            target: "".into(),
            key_id: [0; 16],
            user: None,
            team: None,
            priority: Priority(0),
            tokens_reserved: tokens,
            started_wall_us: raft::clock::wall_us(),
        };
        self.inner.writer.note(Write::Settled(&intent, &unfinished(Status::Lost, &intent, 0)))
    }

    /// Whether nothing can be written any more, so that no call may be made; the cause was logged.
    pub fn has_failed(&self) -> bool {
        self.inner.writer.has_failed()
    }

    /// As after a sync that failed.
    #[cfg(test)]
    pub(crate) fn fail(&self) {
        self.inner.writer.fail();
    }

    pub(super) fn writer(&self) -> &Writer {
        &self.inner.writer
    }

    fn left(&self) -> MutexGuard<'_, HashMap<CallId, (Left, u64)>> {
        self.inner.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("dir", &self.inner.writer.dir()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.writer.stop();
        if let Some(syncing) = self.syncing.take()
            && syncing.join().is_err()
        {
            tracing::error!("the thread that syncs the usage journal panicked");
        }
    }
}

/// A call between its intent and its end. Dropping it settles it as `cut`, charged in full.
#[derive(Debug)]
#[must_use]
pub struct Open {
    journal: Journal,
    intent: Intent,
    segment: u64,
    ended: bool,
}

impl Open {
    /// What was written down.
    pub fn intent(&self) -> &Intent {
        &self.intent
    }

    /// Writes down what the call really used. Blocks for one `write(2)`; to be called before the reply's last byte.
    ///
    /// # Errors
    /// When the disk refuses; a restart then charges the call in full.
    pub fn settle(mut self, settled: &Settled) -> io::Result<()> {
        self.end(settled)
    }

    /// Writes down that the call was never made: the upstream did not hear of it, so that it has no row.
    ///
    /// # Errors
    /// When the disk refuses; a restart then charges the call in full.
    pub fn void(mut self) -> io::Result<()> {
        self.ended = true;
        self.journal.inner.writer.end_call(Write::Void(self.intent.call), self.segment)
    }

    /// Leaves the call as a killed process would.
    #[cfg(test)]
    pub(super) fn abandon(mut self) {
        self.ended = true;
    }

    fn end(&mut self, settled: &Settled) -> io::Result<()> {
        self.ended = true;
        self.journal.inner.writer.end_call(Write::Settled(&self.intent, settled), self.segment)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let latency_us = raft::clock::wall_us().saturating_sub(self.intent.started_wall_us);
        let cut = unfinished(Status::Cut, &self.intent, latency_us);
        if let Err(error) = self.end(&cut) {
            tracing::error!(request_id = %self.intent.call, %error, "cannot write down how a call ended");
        }
    }
}

/// The end of a call of which nobody knows more than what it reserved.
fn unfinished(status: Status, intent: &Intent, latency_us: u64) -> Settled {
    Settled {
        status,
        prompt_tokens: 0,
        completion_tokens: 0,
        charged_tokens: intent.tokens_reserved,
        http_status: 0,
        streamed: false,
        latency_us,
        wait_us: 0,
    }
}

/// The same id whenever the same loss is written down: an incarnation is never used again.
fn lost_call(incarnation: Incarnation, pool: &str) -> CallId {
    let digest = Sha256::new().chain_update(incarnation.0.to_le_bytes()).chain_update(pool).finalize();
    let mut id = [0u8; 16];
    id[..4].copy_from_slice(b"lost");
    id[4..].copy_from_slice(&digest[..12]);
    CallId::from(RequestId(id))
}
