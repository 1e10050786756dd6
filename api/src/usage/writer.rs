//! The journal's writing half: one file, one buffer, one lock, and a thread that syncs what was written in groups.
//!
//! An append is one `write(2)`: from then on a killed process loses nothing. A power failure may lose what was written
//! in the last sync interval; the ledger then charges everything outstanding in full.

use super::codec::{self, Write};
use super::segment::{self, JournalError, Position};
use raft::clock::boot_us;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a segment is kept after its last record, so that a restarted node can still tell the ledger how calls
/// ended that no report has told it yet.
const KEEP_US: u64 = 60_000_000;

pub(super) struct Writer {
    dir: PathBuf,
    boot_id: String,
    segment_bytes: u64,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    file: Arc<File>,
    at: Position,
    /// How much of the present segment is surely on disk.
    synced: u64,
    /// Whether something was written that the syncing thread has not taken up.
    dirty: bool,
    stop: bool,
    /// Set for good once the file may hold what it must not, or may lose what it must hold.
    failed: bool,
    buffer: Vec<u8>,
    /// Every segment that is there, the present one last.
    segments: BTreeMap<u64, Segment>,
}

#[derive(Clone, Copy)]
struct Segment {
    /// Intents in it whose calls have not ended.
    open: u64,
    /// When it was written last, as far as is known; of the present one, when it was made.
    last_boot_us: u64,
}

impl Writer {
    /// Begins a new segment behind `old` ones, of which each has so many open intents.
    pub(super) fn new(
        dir: &Path,
        boot_id: &str,
        segment_bytes: u64,
        old: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<Self, JournalError> {
        let now = boot_us();
        let mut segments: BTreeMap<_, _> =
            old.into_iter().map(|(number, open)| (number, Segment { open, last_boot_us: now })).collect();
        let number = segments.last_key_value().map_or(1, |(last, _)| last + 1);
        let mut buffer = Vec::with_capacity(1024);
        let (file, length) = begin(dir, number, boot_id, &mut buffer)
            .map_err(|source| JournalError::io(&segment::path(dir, number), source))?;
        segments.insert(number, Segment { open: 0, last_boot_us: now });
        let at = Position { segment: number, offset: length };
        let state = State { file, at, synced: length, dirty: false, stop: false, failed: false, buffer, segments };
        let (dir, boot_id) = (dir.to_owned(), boot_id.to_owned());
        Ok(Self { dir, boot_id, segment_bytes, state: Mutex::new(state), wake: Condvar::new() })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Place behind the last record.
    pub(super) fn end(&self) -> Position {
        self.lock().at
    }

    /// Writes an intent; says in which segment.
    pub(super) fn begin_call(&self, write: Write<'_>) -> io::Result<u64> {
        let mut state = self.lock();
        self.append(&mut state, write)?;
        let segment = state.at.segment;
        state.count(segment, 1);
        Ok(segment)
    }

    /// Writes the end of a call whose intent is in `segment`.
    pub(super) fn end_call(&self, write: Write<'_>, segment: u64) -> io::Result<()> {
        let mut state = self.lock();
        self.append(&mut state, write)?;
        state.count(segment, -1);
        Ok(())
    }

    /// Writes a record that is neither.
    pub(super) fn note(&self, write: Write<'_>) -> io::Result<()> {
        self.append(&mut self.lock(), write)
    }

    fn append(&self, state: &mut State, write: Write<'_>) -> io::Result<()> {
        if state.failed {
            return Err(io::Error::other("the usage journal failed before"));
        }
        codec::encode(&mut state.buffer, write, state.synced);
        if state.at.offset + state.buffer.len() as u64 > self.segment_bytes {
            self.rotate(state)?;
            codec::encode(&mut state.buffer, write, state.synced);
        }
        if let Err(error) = (&*state.file).write_all(&state.buffer) {
            // A part of the record may be there; nothing may be written behind it.
            state.failed = state.file.set_len(state.at.offset).is_err();
            return Err(error);
        }
        state.at.offset += state.buffer.len() as u64;
        if !state.dirty {
            state.dirty = true;
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Begins the next segment once the present one is on disk, so that only the last segment can be torn.
    fn rotate(&self, state: &mut State) -> io::Result<()> {
        state.file.sync_data().inspect_err(|_| state.failed = true)?;
        let number = state.at.segment + 1;
        let (file, length) = begin(&self.dir, number, &self.boot_id, &mut state.buffer)?;
        let now = boot_us();
        if let Some(full) = state.segments.get_mut(&state.at.segment) {
            full.last_boot_us = now;
        }
        state.segments.insert(number, Segment { open: 0, last_boot_us: now });
        (state.file, state.at, state.synced) = (file, Position { segment: number, offset: length }, length);
        Ok(())
    }

    /// Runs on a thread of its own: syncs what was written, at most so long after it was.
    pub(super) fn sync_in_groups(&self, every: Duration) {
        loop {
            let state = self.lock();
            let state = self.wake.wait_while(state, |state| !state.dirty && !state.stop);
            let state = state.unwrap_or_else(PoisonError::into_inner);
            let waited = self.wake.wait_timeout_while(state, every, |state| !state.stop);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let (file, upto, stop) = (Arc::clone(&state.file), state.at, state.stop);
            state.dirty = false;
            drop(state);
            let synced = file.sync_data();
            let mut state = self.lock();
            match synced {
                Ok(()) if state.at.segment == upto.segment => state.synced = upto.offset,
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(%error, "the usage journal cannot be synced, no more calls are taken");
                    state.failed = true;
                }
            }
            if stop || state.failed {
                return;
            }
        }
    }

    /// Ends the syncing thread after one more sync.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_all();
    }

    /// Removes the segments before `shipped` that nobody needs: no call of theirs is open, and their last record is old.
    pub(super) fn trim(&self, shipped: Position) -> io::Result<usize> {
        let mut state = self.lock();
        let now = boot_us();
        let mut removed = 0;
        while let Some((&number, &first)) = state.segments.first_key_value() {
            let old = now.saturating_sub(first.last_boot_us) > KEEP_US;
            if number >= shipped.segment.min(state.at.segment) || first.open > 0 || !old {
                break;
            }
            std::fs::remove_file(segment::path(&self.dir, number))?;
            state.segments.remove(&number);
            removed += 1;
        }
        Ok(removed)
    }

    /// Whether nothing can be written any more.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().failed
    }

    /// As after a sync that failed.
    #[cfg(test)]
    pub(super) fn fail(&self) {
        self.lock().failed = true;
    }

    /// Makes every segment old enough to be trimmed.
    #[cfg(test)]
    pub(super) fn age(&self) {
        self.lock().segments.values_mut().for_each(|segment| segment.last_boot_us = 0);
    }

    /// How much of the present segment is surely on disk.
    #[cfg(test)]
    pub(super) fn synced(&self) -> u64 {
        self.lock().synced
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&mut self, segment: u64, by: i64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.open = segment.open.saturating_add_signed(by);
        }
    }
}

/// Makes a segment with its header, on disk when it returns.
fn begin(dir: &Path, segment: u64, boot_id: &str, buffer: &mut Vec<u8>) -> io::Result<(Arc<File>, u64)> {
    let path = segment::path(dir, segment);
    let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
    codec::encode(buffer, Write::Header { segment, boot_id }, 0);
    let written = (&file).write_all(buffer).and_then(|()| file.sync_all()).and_then(|()| segment::sync_dir(dir));
    // A full disk may have room later: then this is tried again.
    written.inspect_err(|_| drop(std::fs::remove_file(&path)))?;
    Ok((Arc::new(file), buffer.len() as u64))
}
