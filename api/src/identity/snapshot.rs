//! A file with every key in force, for the time when no store answers: hashes and what binds them, no secret.
//!
//! Shape: `TKKEYS01 | taken u64 | count u32 | count x (length u32, record) | crc32 u32`, little endian, the records in
//! the order of their hashes. It is held in memory as it stands in the file, with one offset of 4 bytes for each key.

use super::record::Record;
use super::secret::KeyHash;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const MAGIC: &[u8; 8] = b"TKKEYS01";
const HEAD: usize = 20;
/// Where a record's hash stands, behind its version.
const HASH: std::ops::Range<usize> = 1..33;

/// Keys in force at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    bytes: Vec<u8>,
    /// Where each record's length stands, in the order of hashes.
    offsets: Vec<u32>,
    taken_wall_us: u64,
}

impl Snapshot {
    /// Reads the file; none when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub(super) fn load(path: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Self::parse(bytes).map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "is damaged"))
    }

    fn parse(mut bytes: Vec<u8>) -> Option<Self> {
        let body = bytes.len().checked_sub(4).filter(|body| *body >= HEAD)?;
        if crc32fast::hash(&bytes[..body]).to_le_bytes() != bytes[body..] || !bytes.starts_with(MAGIC) {
            return None;
        }
        bytes.truncate(body);
        let taken_wall_us = u64::from_le_bytes(*bytes[8..].first_chunk()?);
        let count = u32::from_le_bytes(*bytes[16..].first_chunk()?);
        let mut offsets = Vec::with_capacity(count as usize);
        let mut at = HEAD;
        for _ in 0..count {
            offsets.push(u32::try_from(at).ok()?);
            at = at.checked_add(4 + u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)?;
        }
        let snapshot = Self { bytes, offsets, taken_wall_us };
        let sorted = snapshot.offsets.iter().map(|&at| snapshot.hash(at)).is_sorted();
        (at == snapshot.bytes.len() && sorted).then_some(snapshot)
    }

    /// The key of that hash.
    pub(super) fn find(&self, hash: &KeyHash) -> Option<Record> {
        let place = self.offsets.binary_search_by(|&at| self.hash(at).cmp(&hash.0[..])).ok()?;
        Record::decode(hash, self.record(self.offsets[place]))
    }

    /// The first key that `is_it` names; reads them all.
    pub(super) fn search(&self, is_it: impl Fn(&Record) -> bool) -> Option<(KeyHash, Record)> {
        let read = |&at: &u32| {
            let hash = KeyHash(*self.hash(at).first_chunk()?);
            Some((hash, Record::decode(&hash, self.record(at))?))
        };
        self.offsets.iter().filter_map(read).find(|(_, record)| is_it(record))
    }

    /// How many keys it has.
    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// When it was taken.
    pub(super) fn taken_wall_us(&self) -> u64 {
        self.taken_wall_us
    }

    fn record(&self, at: u32) -> &[u8] {
        let rest = self.bytes.get(at as usize..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return &[] };
        rest.get(..u32::from_le_bytes(*length) as usize).unwrap_or_default()
    }

    fn hash(&self, at: u32) -> &[u8] {
        self.record(at).get(HASH).unwrap_or_default()
    }
}

/// A snapshot in the making.
#[derive(Debug, Default)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    offsets: Vec<u32>,
}

impl Builder {
    /// Adds a key, in any order.
    pub(super) fn add(&mut self, hash: &KeyHash, record: &Record) {
        let record = record.encode(hash);
        // Four gigabytes are some thirty million keys; those behind them are left to the stores.
        let (Ok(at), Ok(length)) = (u32::try_from(self.bytes.len()), u32::try_from(record.len())) else { return };
        self.offsets.push(at);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&record);
    }

    /// Writes the file whole, or leaves the one before it. Blocks.
    pub(super) fn write(self, path: &Path, taken_wall_us: u64) -> io::Result<Snapshot> {
        let unsorted = Snapshot { bytes: self.bytes, offsets: self.offsets, taken_wall_us };
        let mut order = unsorted.offsets.clone();
        order.sort_unstable_by_key(|&at| unsorted.hash(at));
        let mut bytes = Vec::with_capacity(HEAD + unsorted.bytes.len() + 4);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&taken_wall_us.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(order.len()).unwrap_or(u32::MAX).to_le_bytes());
        let mut offsets = Vec::with_capacity(order.len());
        for at in order {
            let record = unsorted.record(at);
            offsets.push(u32::try_from(bytes.len()).map_err(io::Error::other)?);
            bytes.extend_from_slice(&u32::try_from(record.len()).unwrap_or(0).to_le_bytes());
            bytes.extend_from_slice(record);
        }
        drop(unsorted);
        let crc = crc32fast::hash(&bytes).to_le_bytes();
        let temp = path.with_extension("new");
        let mut file = File::create(&temp)?;
        file.write_all(&bytes)?;
        file.write_all(&crc)?;
        file.sync_all()?;
        fs::rename(&temp, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(Snapshot { bytes, offsets, taken_wall_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::caller::Tier;
    use crate::identity::limits::Limits;
    use crate::identity::scopes::Scopes;

    fn record(name: &str) -> Record {
        Record {
            id: [1; 16],
            name: name.into(),
            prefix: "tok_12345678".into(),
            tier: Tier::Standard,
            priority: 5,
            ceiling: 5,
            version: 1,
            limits: Limits::default(),
            user: None,
            team: None,
            role: None,
            scopes: Scopes::default(),
            models: Vec::new(),
            expires_at: None,
        }
    }

    fn written(path: &Path) -> Snapshot {
        let mut builder = Builder::default();
        for n in [3u8, 1, 2] {
            builder.add(&KeyHash([n; 32]), &record(&format!("key {n}")));
        }
        builder.write(path, 7).unwrap()
    }

    #[test]
    fn what_was_written_is_found_before_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.snapshot");
        assert!(Snapshot::load(&path).unwrap().is_none());
        for snapshot in [written(&path), Snapshot::load(&path).unwrap().unwrap()] {
            assert_eq!((snapshot.len(), snapshot.taken_wall_us()), (3, 7));
            for n in [1u8, 2, 3] {
                assert_eq!(snapshot.find(&KeyHash([n; 32])), Some(record(&format!("key {n}"))));
            }
            assert_eq!(snapshot.find(&KeyHash([4; 32])), None);
        }
    }

    #[test]
    fn a_million_keys_are_loaded_within_three_seconds() {
        // Without optimisation a tenth of them takes as long.
        let keys = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.snapshot");
        let (mut builder, record) = (Builder::default(), record("service 0000001"));
        for n in 0..keys as u64 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            builder.add(&KeyHash(hash), &record);
        }
        let written = builder.write(&path, 1).unwrap();
        let began_us = raft::clock::boot_us();
        let loaded = Snapshot::load(&path).unwrap().unwrap();
        let took_us = raft::clock::boot_us() - began_us;
        assert_eq!(loaded.len(), keys);
        assert!(took_us < 3_000_000, "{took_us} us");
        // What docs/operations.md states.
        let bytes = written.bytes.len() + 4 * written.offsets.len();
        assert!((80..100).contains(&(bytes / keys)), "{bytes}");
    }

    #[test]
    fn a_damaged_file_is_refused_wherever_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.snapshot");
        written(&path);
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Snapshot::parse(damaged).is_none(), "byte {at}");
            assert!(Snapshot::parse(bytes[..at].to_vec()).is_none(), "cut at {at}");
        }
    }
}
