//! Segments: the journal's files, how they are named, made and read. Which records mean what is not known here.

use super::codec::{self, Frame, Record};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const PREFIX: &str = "usage-";
const SUFFIX: &str = ".journal";
const CHUNK: usize = 256 * 1024;

/// Why the journal cannot be read or opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it open.
    #[error("{0} is in use by another process")]
    Busy(String),
    /// The disk refuses.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A record is damaged that no crash could have damaged. Nothing was changed.
    #[error("{file} is damaged at byte {offset}: {problem}")]
    Damaged {
        /// Which file.
        file: String,
        /// Where.
        offset: u64,
        /// How.
        problem: &'static str,
    },
    /// A newer version of this program wrote it. Nothing was changed.
    #[error("{file} holds a record of version {version} at byte {offset}: use a newer gatewayd")]
    Newer {
        /// Which file.
        file: String,
        /// Where.
        offset: u64,
        /// The record's version.
        version: u8,
    },
}

impl JournalError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source }
    }

    pub(super) fn damaged(path: &Path, offset: u64, problem: &'static str) -> Self {
        Self::Damaged { file: path.display().to_string(), offset, problem }
    }

    fn newer(path: &Path, offset: u64, version: u8) -> Self {
        Self::Newer { file: path.display().to_string(), offset, version }
    }
}

/// A place in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// The file of a segment.
pub(super) fn path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{segment:012}{SUFFIX}"))
}

/// The segments in a folder, in order.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(|source| JournalError::io(dir, source))? {
        let name = entry.map_err(|source| JournalError::io(dir, source))?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        segments.extend(number);
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Makes the names in a folder durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Reads one segment from a place to a place.
pub(super) struct Reader {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
    /// Place in the file of the first byte of `buffer` that was not given out yet.
    offset: u64,
    start: usize,
}

impl Reader {
    pub(super) fn open(dir: &Path, at: Position) -> Result<Self, JournalError> {
        let path = path(dir, at.segment);
        let file = File::open(&path).map_err(|source| JournalError::io(&path, source))?;
        Ok(Self { file, path, buffer: Vec::new(), offset: at.offset, start: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Place behind what was given out.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn length(&self) -> Result<u64, JournalError> {
        Ok(self.file.metadata().map_err(|source| JournalError::io(&self.path, source))?.len())
    }

    /// The next record that ends at `limit` or before; `None` exactly at `limit`.
    pub(super) fn next(&mut self, limit: u64) -> Result<Option<(Record, u64)>, JournalError> {
        if self.offset >= limit {
            return Ok(None);
        }
        match self.peek(limit)? {
            Frame::Whole { record, bytes, synced } => {
                self.start += bytes;
                self.offset += bytes as u64;
                Ok(Some((record, synced)))
            }
            Frame::Short => Err(JournalError::damaged(&self.path, self.offset, "the record is cut off")),
            Frame::Bad(problem) => Err(JournalError::damaged(&self.path, self.offset, problem)),
            Frame::Newer(version) => Err(JournalError::newer(&self.path, self.offset, version)),
        }
    }

    /// What stands next, reading more of the file when the buffer does not say.
    pub(super) fn peek(&mut self, limit: u64) -> Result<Frame, JournalError> {
        match codec::decode(&self.buffer[self.start..]) {
            Frame::Short => {
                self.fill(limit)?;
                Ok(codec::decode(&self.buffer))
            }
            frame => Ok(frame),
        }
    }

    /// Reads anew from the present place on.
    fn fill(&mut self, limit: u64) -> Result<(), JournalError> {
        let left = usize::try_from(limit.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        self.buffer.resize(left.min(CHUNK), 0);
        self.start = 0;
        let mut read = 0;
        while read < self.buffer.len() {
            match self.file.read_at(&mut self.buffer[read..], self.offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(JournalError::io(&self.path, source)),
            }
        }
        self.buffer.truncate(read);
        Ok(())
    }
}
