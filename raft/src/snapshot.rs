//! Snapshots as files of our own: a temporary file, synced, renamed, its directory synced.
//!
//! File layout: magic (8 bytes), version (4), length of the header (4), length of the body (8), CRC-32 of the three
//! lengths and versions, header and body (4), header, body; numbers little endian. The header says what the snapshot
//! covers; the body is the machine's, and this file never looks into it.
//! Two are kept, so that a damaged newest one can be made up for as long as the log still reaches back to the other.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::store::record::{self, StoredId, StoredMembersAt};
use crate::types::{LogId, Snapshot, SnapshotMeta};

const MAGIC: &[u8; 8] = b"TKGWSNAP";
const VERSION: u32 = 1;
const FIXED: usize = 28;
const KEEP: usize = 2;

/// What a snapshot covers, as stored.
#[derive(bincode::Encode, bincode::Decode)]
struct Header {
    last: Option<StoredId>,
    members: StoredMembersAt,
}

/// No snapshot can be used, although the log no longer holds what it covered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// The disk said no.
    #[error("{0}")]
    Io(String),
    /// Every snapshot that reaches the log is damaged.
    #[error("the log starts after entry {purged} and no snapshot up to there can be read{damage}")]
    Gap {
        /// The last entry that the log no longer holds.
        purged: u64,
        /// What is wrong with the snapshots there are.
        damage: String,
    },
}

/// The directory of snapshots.
#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    dir: PathBuf,
}

impl Snapshots {
    /// Makes the directory and clears what a crash left half written.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        disk::sync_dir(disk::parent(dir))?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(path)?;
            }
        }
        disk::sync_dir(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Sets aside damaged snapshots until the newest can be read, and checks that the log goes on where it ends.
    ///
    /// # Errors
    /// [`Unusable`] when the log was purged further than any readable snapshot reaches.
    pub(crate) fn settle(&self, purged: Option<LogId>) -> Result<(), Unusable> {
        let (mut damage, mut reached) = (String::new(), None);
        for path in self.newest_first().map_err(|error| Unusable::Io(error.to_string()))? {
            match read(&path) {
                Ok(snapshot) => {
                    reached = snapshot.meta.last_log_id;
                    break;
                }
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "a snapshot cannot be read; trying an older one");
                    damage.push_str(&format!("; {} {error}", path.display()));
                    let aside = path.with_extension("damaged");
                    fs::rename(&path, aside).map_err(|error| Unusable::Io(error.to_string()))?;
                }
            }
        }
        match purged {
            Some(purged) if reached < Some(purged) => Err(Unusable::Gap { purged: purged.index, damage }),
            _ => Ok(()),
        }
    }

    /// Writes a snapshot, durably, and removes all but the newest two.
    ///
    /// # Errors
    /// Whatever the file system says; the older snapshots are untouched then.
    pub(crate) fn write(&self, meta: &SnapshotMeta, body: &[u8]) -> io::Result<()> {
        let last = meta.last_log_id.as_ref();
        let header = Header { last: last.map(StoredId::from), members: (&meta.last_membership).into() };
        let header = record::encode_meta_body(&header);
        let mut fixed = Vec::with_capacity(FIXED);
        fixed.extend_from_slice(MAGIC);
        fixed.extend_from_slice(&VERSION.to_le_bytes());
        fixed.extend_from_slice(&(header.len() as u32).to_le_bytes());
        fixed.extend_from_slice(&(body.len() as u64).to_le_bytes());
        let crc = checksum(&fixed[MAGIC.len()..], &header, body);
        fixed.extend_from_slice(&crc.to_le_bytes());
        disk::write_atomic(&self.path(last), &[&fixed, &header, body])?;
        self.prune()
    }

    /// Reads the newest snapshot; none if there is none.
    ///
    /// # Errors
    /// What is wrong with the newest one.
    pub(crate) fn newest(&self) -> io::Result<Option<Snapshot>> {
        self.newest_first()?.first().map(|path| read(path)).transpose()
    }

    /// Whether the newest snapshot covers exactly this much.
    pub(crate) fn newest_is(&self, meta: &SnapshotMeta) -> io::Result<bool> {
        Ok(self.newest_first()?.first() == Some(&self.path(meta.last_log_id.as_ref())))
    }

    fn path(&self, last: Option<&LogId>) -> PathBuf {
        let (term, index) = last.map_or((0, 0), |id| (id.leader_id.term, id.index));
        self.dir.join(format!("{index:020}-{term:020}.snap"))
    }

    /// The name sorts by index, since the newest is the one that covers most.
    fn newest_first(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "snap") {
                paths.push(path);
            }
        }
        paths.sort_unstable_by(|a, b| b.cmp(a));
        Ok(paths)
    }

    fn prune(&self) -> io::Result<()> {
        self.newest_first()?.iter().skip(KEEP).try_for_each(fs::remove_file)
    }
}

fn read(path: &Path) -> io::Result<Snapshot> {
    let bytes = fs::read(path)?;
    decode(&bytes).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))
}

fn decode(bytes: &[u8]) -> Result<Snapshot, String> {
    let (fixed, rest) = bytes.split_first_chunk::<FIXED>().ok_or("is too short")?;
    let number = |from: usize, to: usize| fixed[from..to].iter().rev().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
    if &fixed[..8] != MAGIC {
        return Err("is not a snapshot".to_owned());
    }
    if number(8, 12) != u64::from(VERSION) {
        return Err(format!("has version {}, this build reads {VERSION}", number(8, 12)));
    }
    let header_bytes = usize::try_from(number(12, 16)).unwrap_or(usize::MAX);
    let (header, body) = rest.split_at_checked(header_bytes).ok_or("is cut short")?;
    if body.len() as u64 != number(16, 24) {
        return Err(format!("has {} bytes of {}", body.len(), number(16, 24)));
    }
    if u64::from(checksum(&fixed[8..24], header, body)) != number(24, 28) {
        return Err("does not match its checksum".to_owned());
    }
    let header: Header = record::decode_meta_body(b"header", header).map_err(|error| error.to_string())?;
    let last_membership = header.members.try_into().map_err(|error: record::Broken| error.to_string())?;
    let meta = SnapshotMeta { last_log_id: header.last.map(LogId::from), last_membership };
    Ok(Snapshot { meta, snapshot: body.to_vec() })
}

fn checksum(fixed: &[u8], header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(fixed);
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{StoredMembership, log_id};

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta { last_log_id: Some(log_id(3, index)), last_membership: StoredMembership::default() }
    }

    fn newest_index(snapshots: &Snapshots) -> Option<u64> {
        snapshots.newest().unwrap().map(|snapshot| snapshot.meta.last_log_id.unwrap().index)
    }

    #[test]
    fn a_snapshot_replaces_the_older_ones_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(dir.path()).unwrap();
        for index in [5, 10, 15] {
            snapshots.write(&meta(index), &[index as u8; 100]).unwrap();
        }
        assert_eq!(snapshots.newest_first().unwrap().len(), KEEP);
        // A crash in the middle of the next one leaves a temporary file, which is nobody's snapshot.
        fs::write(snapshots.path(Some(&log_id(3, 20))).with_extension("tmp"), b"half").unwrap();
        let snapshots = Snapshots::open(dir.path()).unwrap();
        assert_eq!(newest_index(&snapshots), Some(15));
        assert_eq!(snapshots.newest().unwrap().unwrap().snapshot, [15; 100]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), KEEP);
    }

    #[test]
    fn a_damaged_newest_snapshot_falls_back_only_if_the_log_reaches() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(dir.path()).unwrap();
        snapshots.write(&meta(5), b"five").unwrap();
        snapshots.write(&meta(10), b"ten").unwrap();
        let path = snapshots.path(Some(&log_id(3, 10)));
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        snapshots.settle(Some(log_id(3, 4))).unwrap();
        assert_eq!(newest_index(&snapshots), Some(5));
        assert!(matches!(snapshots.settle(Some(log_id(3, 6))), Err(Unusable::Gap { purged: 6, .. })));
    }

    #[test]
    fn a_snapshot_cut_short_anywhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(dir.path()).unwrap();
        snapshots.write(&meta(5), b"the state").unwrap();
        let bytes = fs::read(snapshots.path(Some(&log_id(3, 5)))).unwrap();
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "length {length}");
        }
        assert!(decode(&bytes).is_ok());
    }
}
