//! Reads a journal that an earlier life of the node left behind: which calls it left open, and where its end is torn.

use super::codec::{self, Frame, Record};
use super::record::{CallId, Intent};
use super::segment::{self, JournalError, Position, Reader};
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::path::Path;

/// What an earlier life of the node left behind.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Every segment, in order.
    pub(super) segments: Vec<u64>,
    /// Calls without an end, and the segment of their intent.
    pub(super) open: HashMap<CallId, (Left, u64)>,
    /// The boot in which the last life ran.
    pub(super) last_boot_id: Option<String>,
}

/// A call that an earlier life of the node did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What was written down of it.
    pub intent: Intent,
    /// Whether that life ran in the machine's present boot, so that no later intent of it can be missing.
    pub same_boot: bool,
}

/// Reads all segments and cuts a torn end off, so that only whole records remain. `shipped` is how far the shipper
/// came: of the segments before it some may be gone already.
pub(super) fn scan(dir: &Path, boot_id: &str, shipped: Position) -> Result<Scan, JournalError> {
    let mut scan = Scan { segments: segment::list(dir)?, ..Scan::default() };
    let segments = scan.segments.clone();
    for pair in segments.windows(2) {
        if pair[1] != pair[0] + 1 && pair[1] > shipped.segment {
            return Err(JournalError::damaged(&segment::path(dir, pair[0] + 1), 0, "the file is missing"));
        }
    }
    for &number in &segments {
        let is_last = segments.last() == Some(&number);
        if !read(&mut scan, dir, number, boot_id, is_last)? {
            scan.segments.pop();
        }
    }
    Ok(scan)
}

/// Reads one segment; false means that not even its header was there and the file is gone now.
fn read(scan: &mut Scan, dir: &Path, number: u64, boot_id: &str, is_last: bool) -> Result<bool, JournalError> {
    let mut reader = Reader::open(dir, Position { segment: number, offset: 0 })?;
    let length = reader.length()?;
    let mut same_boot = false;
    loop {
        let offset = reader.offset();
        if is_last && !matches!(reader.peek(length)?, Frame::Whole { .. } | Frame::Newer(_)) && offset < length
            || (is_last && length == 0)
        {
            check_torn(&reader, length, same_boot)?;
            return cut(dir, reader.path(), offset, length);
        }
        match reader.next(length)? {
            Some((Record::Header { segment, boot_id: of_segment }, _)) if offset == 0 && segment == number => {
                same_boot = !boot_id.is_empty() && of_segment == boot_id;
                scan.last_boot_id = Some(of_segment);
            }
            Some((Record::Intent(intent), _)) if offset > 0 => {
                scan.open.insert(intent.call, (Left { intent, same_boot }, number));
            }
            Some((Record::Settled(intent, _), _)) if offset > 0 => {
                scan.open.remove(&intent.call);
            }
            Some((Record::Void(call), _)) if offset > 0 => {
                scan.open.remove(&call);
            }
            Some(_) => {
                return Err(JournalError::damaged(
                    reader.path(),
                    offset,
                    "the header is missing or in the wrong place",
                ));
            }
            None => return Ok(true),
        }
    }
}

/// Says whether a crash explains what stands at the reader's place. While the machine runs on, a killed process leaves
/// at most the beginning of one record. When the machine itself stopped, what was not yet synced may be anything; but
/// damage before what a later record knows to be synced is damage.
fn check_torn(reader: &Reader, length: u64, same_boot: bool) -> Result<(), JournalError> {
    let offset = reader.offset();
    let bytes = fs::read(reader.path()).map_err(|source| JournalError::io(reader.path(), source))?;
    let rest = &bytes[usize::try_from(offset.min(length)).unwrap_or(0)..];
    if same_boot && codec::decode(rest) != Frame::Short {
        return Err(JournalError::damaged(reader.path(), offset, "a record in the middle is damaged"));
    }
    for start in 1..rest.len() {
        if let Frame::Whole { synced, .. } = codec::decode(&rest[start..])
            && (same_boot || synced > offset)
        {
            return Err(JournalError::damaged(reader.path(), offset, "records behind it are whole"));
        }
    }
    Ok(())
}

fn cut(dir: &Path, path: &Path, keep: u64, length: u64) -> Result<bool, JournalError> {
    let failed = |source| JournalError::io(path, source);
    tracing::warn!(file = %path.display(), keep, dropped = length - keep, "cut the torn end off the usage journal");
    if keep == 0 {
        fs::remove_file(path).map_err(failed)?;
        segment::sync_dir(dir).map_err(failed)?;
        return Ok(false);
    }
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    file.set_len(keep).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(true)
}
