//! What a power loss may leave of a directory, worked out from the record of what was done to it.
//!
//! Kept for sure: what a finished `fsync` or `fdatasync` covers. Of everything later any subset may be kept, and a kept
//! write may be torn at 512 bytes. Names (creations, renames, removals) are kept as a prefix of what was done, at least
//! up to the last sync of their directory: file systems journal them in order.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const SECTOR: usize = 512;

/// A small generator of reproducible numbers.
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }
}

/// One line of the record.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) kind: u8,
    pub(super) inode: u64,
    number: u64,
    pub(super) data: Vec<u8>,
}

/// Reads a record; a torn last line is what a killed process leaves.
pub(super) fn read_records(path: &Path) -> Vec<Record> {
    let bytes = fs::read(path).unwrap_or_default();
    let (mut rest, mut records) = (&bytes[..], Vec::new());
    let number = |at: &[u8]| u64::from_ne_bytes(at.try_into().unwrap());
    while let Some((head, tail)) = rest.split_first_chunk::<25>() {
        let Some((data, next)) = tail.split_at_checked(number(&head[17..25]) as usize) else { break };
        let (inode, place) = (number(&head[1..9]), number(&head[9..17]));
        records.push(Record { kind: head[0], inode, number: place, data: data.to_vec() });
        rest = next;
    }
    records
}

#[derive(Debug, Clone)]
enum Content {
    Write { at: u64, record: usize },
    Truncate { to: u64 },
}

#[derive(Debug, Default)]
struct FileLife {
    base: Vec<u8>,
    /// Place in the record, and what was done.
    done: Vec<(usize, Content)>,
    /// Everything before this place in the record is on the platter.
    durable: usize,
}

#[derive(Debug)]
enum Name {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    Mkdir(PathBuf),
}

impl Name {
    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Create(path, _) | Self::Rename(_, path) | Self::Unlink(path) | Self::Mkdir(path)) = self;
        path.parent() == Some(dir)
    }
}

/// A directory with everything that was done to it until the power went.
#[derive(Debug)]
pub(super) struct Platter<'a> {
    records: &'a [Record],
    files: Vec<FileLife>,
    base: BTreeMap<PathBuf, usize>,
    names: Vec<(usize, Name)>,
    pinned: usize,
}

impl<'a> Platter<'a> {
    /// Plays the record of what a process did below `dir` on top of what stood there before.
    pub(super) fn new(base: &[(PathBuf, u64, Vec<u8>)], records: &'a [Record]) -> Self {
        let mut platter = Self { records, files: Vec::new(), base: BTreeMap::new(), names: Vec::new(), pinned: 0 };
        let (mut by_inode, mut paths) = (BTreeMap::new(), BTreeMap::new());
        for (path, inode, content) in base {
            by_inode.insert(*inode, platter.files.len());
            platter.base.insert(path.clone(), platter.files.len());
            platter.files.push(FileLife { base: content.clone(), ..FileLife::default() });
        }
        paths.extend(platter.base.clone());
        let mut syncs = BTreeMap::new();
        for (place, record) in records.iter().enumerate() {
            let path = || PathBuf::from(String::from_utf8(record.data.clone()).unwrap());
            match record.kind {
                b'c' => {
                    let known = by_inode.get(&record.inode).copied();
                    if known.is_none() || paths.get(&path()) != known.as_ref() {
                        // A name that was free: a new file, even if the inode has had an earlier life.
                        by_inode.insert(record.inode, platter.files.len());
                        paths.insert(path(), platter.files.len());
                        platter.names.push((place, Name::Create(path(), platter.files.len())));
                        platter.files.push(FileLife::default());
                    }
                }
                b'w' => {
                    platter.did(by_inode.get(&record.inode), place, Content::Write { at: record.number, record: place })
                }
                b't' => platter.did(by_inode.get(&record.inode), place, Content::Truncate { to: record.number }),
                b's' => drop(syncs.insert(record.number, (place, path()))),
                b'e' => {
                    let (began, dir) = syncs.remove(&record.number).unwrap();
                    match by_inode.get(&record.inode) {
                        Some(file) => platter.files[*file].durable = platter.files[*file].durable.max(began),
                        None => platter.pin(began, &dir),
                    }
                }
                b'r' => {
                    let both = String::from_utf8(record.data.clone()).unwrap();
                    let (from, to) = both.split_once('\0').unwrap();
                    if let Some(file) = paths.remove(Path::new(from)) {
                        paths.insert(to.into(), file);
                    }
                    platter.names.push((place, Name::Rename(from.into(), to.into())));
                }
                b'u' => {
                    paths.remove(&path());
                    platter.names.push((place, Name::Unlink(path())));
                }
                b'm' => platter.names.push((place, Name::Mkdir(path()))),
                other => panic!("the record holds an unknown kind {other}"),
            }
        }
        platter
    }

    fn did(&mut self, file: Option<&usize>, place: usize, content: Content) {
        self.files[*file.unwrap()].done.push((place, content));
    }

    fn pin(&mut self, before: usize, dir: &Path) {
        let last = self.names.iter().rposition(|(place, name)| *place < before && name.is_in(dir));
        self.pinned = self.pinned.max(last.map_or(0, |last| last + 1));
    }

    /// Writes what one power loss leaves to another directory; `dir` is how the record names the first.
    pub(super) fn lose_power(&self, dice: &mut Dice, dir: &Path, to: &Path) {
        let loose = (self.names.len() - self.pinned) as u64;
        let kept = self.pinned + if dice.roll(2) == 0 { 0 } else { dice.roll(loose + 1) as usize };
        let mut paths = self.base.clone();
        let moved = |path: &Path| to.join(path.strip_prefix(dir).unwrap());
        fs::create_dir_all(to).unwrap();
        for (_, name) in &self.names[..kept] {
            match name {
                Name::Create(path, file) => drop(paths.insert(path.clone(), *file)),
                Name::Rename(from, into) => {
                    let file = paths.remove(from).unwrap();
                    paths.insert(into.clone(), file);
                }
                Name::Unlink(path) => drop(paths.remove(path)),
                Name::Mkdir(path) => fs::create_dir_all(moved(path)).unwrap(),
            }
        }
        // How much of what was not synced reaches the platter differs from one power loss to the next.
        let keep_of_8 = [0, 2, 4, 6, 8][dice.roll(5) as usize];
        for (path, file) in paths {
            // Its directory may have stood there, empty, before the record began.
            fs::create_dir_all(moved(&path).parent().unwrap()).unwrap();
            fs::write(moved(&path), self.content(&self.files[file], dice, keep_of_8)).unwrap();
        }
    }

    fn content(&self, file: &FileLife, dice: &mut Dice, keep_of_8: u64) -> Vec<u8> {
        let mut bytes = file.base.clone();
        for (place, content) in &file.done {
            let durable = *place < file.durable;
            if !durable && dice.roll(8) >= keep_of_8 {
                continue;
            }
            match content {
                Content::Truncate { to } => bytes.resize(*to as usize, 0),
                Content::Write { at, record } => {
                    let (data, at) = (&self.records[*record].data, *at as usize);
                    let torn = !durable && dice.roll(3) == 0;
                    let mut from = 0;
                    while from < data.len() {
                        let until = data.len().min(from + SECTOR - (at + from) % SECTOR);
                        if !torn || dice.roll(2) == 0 {
                            bytes.resize(bytes.len().max(at + until), 0);
                            bytes[at + from..at + until].copy_from_slice(&data[from..until]);
                        }
                        from = until;
                    }
                }
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, number: u64, data: &[u8]) -> Record {
        Record { kind, inode: 7, number, data: data.to_vec() }
    }

    #[test]
    fn what_was_synced_is_always_kept_and_what_was_not_only_sometimes() {
        let dir = tempfile::tempdir().unwrap();
        let old = Path::new("/watched");
        let records = [
            record(b'c', 0, b"/watched/file"),
            record(b'w', 0, b"synced"),
            record(b's', 1, b"/watched/file"),
            record(b'w', 6, b"loose"),
            record(b'e', 1, b""),
            Record { kind: b's', inode: 1, number: 2, data: b"/watched".to_vec() },
            Record { kind: b'e', inode: 1, number: 2, data: vec![] },
        ];
        let platter = Platter::new(&[], &records);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let to = dir.path().join(seed.to_string());
            platter.lose_power(&mut Dice(seed), old, &to);
            seen.insert(fs::read(to.join("file")).unwrap());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [b"synced".to_vec(), b"syncedloose".to_vec()]);
    }
}
