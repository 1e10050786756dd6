//! What a child process does while it is killed or loses power, and what must be left of it: once to a bare store,
//! once to a whole group of one with its snapshots.
//!
//! Every step is written to a file of notes: before a step that takes something away, after a step that was
//! acknowledged. The notes stand in the watched directory, so that the record knows what was promised when.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use openraft::EntryPayload;
use tokio::sync::oneshot;

use super::disks::entry;
use super::platter::Dice;
use super::{Tape, quick};
use crate::fault::Fault;
use crate::group::{Group, Settings};
use crate::store::Store;
use crate::store::flusher::{Done, FsyncStats};
use crate::types::{Entry, Payload, Vote, log_id};

/// The file of notes within the directory.
pub(super) const NOTES: &str = "notes";
/// The store within the directory.
const STORE: &str = "raft";

/// Something a child does, and what it promised.
pub(super) trait Load: Clone + Default {
    /// Works in a directory until somebody kills the process.
    fn run(dir: &Path, seed: u64);

    /// Takes in one note.
    fn note(&mut self, line: &str);

    /// Opens what is left and compares; gives what is really there, which is what must be there from then on.
    fn check(&self, dir: &Path) -> Result<Self, String>;
}

/// What a store promised: entries with their terms, the newest vote, and what must not come back.
#[derive(Debug, Default, Clone)]
pub(super) struct StoreLoad {
    entries: BTreeMap<u64, u64>,
    vote: u64,
    /// After a truncation: above this index only entries of this term or later.
    floors: Vec<(u64, u64)>,
}

impl Load for StoreLoad {
    fn note(&mut self, line: &str) {
        let mut words = line.split(' ');
        let kind = words.next().unwrap();
        let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
        match (kind, &numbers[..]) {
            ("appended", &[term, first, last]) => self.entries.extend((first..=last).map(|index| (index, term))),
            ("voted", &[vote]) => self.vote = vote,
            ("purging", &[upto]) => self.entries.retain(|index, _| *index > upto),
            ("truncating", &[after]) => self.entries.retain(|index, _| *index <= after),
            ("truncated", &[after, term]) => self.floors.push((after, term)),
            _ => panic!("an unknown note: {line}"),
        }
    }

    fn check(&self, dir: &Path) -> Result<Self, String> {
        let stats = Arc::new(FsyncStats::default());
        let store = Store::open(&dir.join(STORE), Fault::new(), stats).map_err(|error| error.to_string())?;
        let found = store.entries(0..u64::MAX, usize::MAX).map_err(|error| error.to_string())?;
        let vote = store.vote().map_err(|error| error.to_string())?.map_or(0, |vote| vote.leader_id.voted_for);
        if vote < self.vote {
            return Err(format!("vote {} was acknowledged, {vote} is there", self.vote));
        }
        let mut there = BTreeMap::new();
        for item in &found {
            let (term, index) = (item.log_id.leader_id.term, item.log_id.index);
            if item.payload != EntryPayload::Normal(Payload(payload(term, index))) {
                return Err(format!("entry {index} of term {term} has another payload"));
            }
            if let Some(floor) = self.floors.iter().find(|(after, least)| index > *after && term < *least) {
                return Err(format!("entry {index} of term {term} came back after the truncation {floor:?}"));
            }
            if there.last_key_value().is_some_and(|(last, _)| last + 1 != index) {
                return Err(format!("there is a hole before entry {index}"));
            }
            there.insert(index, term);
        }
        for (index, term) in &self.entries {
            if there.get(index) != Some(term) {
                let here = there.get(index);
                return Err(format!("entry {index} of term {term} was acknowledged, of term {here:?} is there"));
            }
        }
        Ok(Self { entries: there, vote, floors: Vec::new() })
    }

    fn run(dir: &Path, seed: u64) {
        block_on(async {
            let notes = OpenOptions::new().create(true).append(true).open(dir.join(NOTES)).unwrap();
            let store = Store::open(&dir.join(STORE), Fault::new(), Arc::new(FsyncStats::default())).unwrap();
            let last = store.ends().unwrap().1.unwrap_or(log_id(0, 0));
            let vote = store.vote().unwrap().map_or(0, |vote| vote.leader_id.voted_for);
            let (term, next) = (last.leader_id.term + 1, last.index + 1);
            let mut worker = Worker { store, notes, dice: Dice(seed), term, next, vote, open: Vec::new() };
            loop {
                worker.step().await;
            }
        });
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// The payload an entry must have: mostly short, now and then long, so that segments are used up and used again.
fn payload(term: u64, index: u64) -> Vec<u8> {
    let mut dice = Dice(term << 40 ^ index);
    let length = match dice.roll(100) {
        0 => 60_000,
        1..5 => 4_000 + dice.roll(16_000),
        _ => 20 + dice.roll(400),
    };
    let mut next = dice.0;
    let mut step = || {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (next >> 56) as u8
    };
    (0..length).map(|_| step()).collect()
}

struct Worker {
    store: Store,
    notes: File,
    dice: Dice,
    term: u64,
    next: u64,
    vote: u64,
    open: Vec<(u64, u64, oneshot::Receiver<std::io::Result<()>>)>,
}

impl Worker {
    async fn step(&mut self) {
        match self.dice.roll(100) {
            0..6 => {
                self.vote += 1;
                self.store.save_vote(&Vote::new(self.term, self.vote)).await.unwrap();
                self.note(format!("voted {}", self.vote));
            }
            6..9 if self.next > 100 => {
                self.drain(0).await;
                let upto = self.next - 60;
                self.note(format!("purging {upto}"));
                self.store.purge(&log_id(self.term, upto)).await.unwrap();
            }
            9..12 => {
                self.drain(0).await;
                let (_, last) = self.store.ends().unwrap();
                let first = self.store.entries(0..u64::MAX, 0).unwrap().first().map(|entry| entry.log_id.index);
                let (Some(last), Some(first)) = (last, first) else { return };
                let after = (last.index - self.dice.roll(10).min(last.index)).max(first);
                self.note(format!("truncating {after}"));
                self.store.truncate_after(Some(after)).await.unwrap();
                (self.term, self.next) = (self.term + 1, after + 1);
                self.note(format!("truncated {after} {}", self.term));
            }
            _ => {
                let count = 1 + self.dice.roll(16);
                let (first, last) = (self.next, self.next + count - 1);
                let entries: Vec<Entry> =
                    (first..=last).map(|index| entry(self.term, index, payload(self.term, index))).collect();
                let (sender, receiver) = oneshot::channel();
                self.store.append(entries, Done::Waiter(sender)).unwrap();
                self.open.push((first, last, receiver));
                self.next = last + 1;
                self.drain(3).await;
            }
        }
    }

    /// Waits for appends until at most so many are left open.
    async fn drain(&mut self, left: usize) {
        while self.open.len() > left {
            let (first, last, receiver) = self.open.remove(0);
            receiver.await.unwrap().unwrap();
            self.note(format!("appended {} {first} {last}", self.term));
        }
    }

    fn note(&mut self, line: String) {
        self.notes.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// What a group promised: numbers that were proposed and applied.
#[derive(Debug, Default, Clone)]
pub(super) struct GroupLoad {
    numbers: BTreeSet<u64>,
}

impl Load for GroupLoad {
    fn run(dir: &Path, seed: u64) {
        block_on(async {
            let notes = Arc::new(OpenOptions::new().create(true).append(true).open(dir.join(NOTES)).unwrap());
            let group = Group::start(snapshotting(dir), Tape::default()).await.unwrap();
            let proposers = (0..4u64).map(|proposer| {
                let (group, notes) = (group.clone(), notes.clone());
                tokio::spawn(async move {
                    for step in 0u32.. {
                        // Never the same number twice, whatever an earlier life did.
                        let number = (Dice(seed).roll(1 << 40) << 20) + (u64::from(step) << 2) + proposer;
                        group.propose(number.to_le_bytes().to_vec()).await.unwrap();
                        (&*notes).write_all(format!("applied {number}\n").as_bytes()).unwrap();
                    }
                })
            });
            for proposer in proposers.collect::<Vec<_>>() {
                proposer.await.unwrap();
            }
        });
    }

    fn note(&mut self, line: &str) {
        self.numbers.insert(line.strip_prefix("applied ").unwrap().parse().unwrap());
    }

    fn check(&self, dir: &Path) -> Result<Self, String> {
        let there = block_on(async {
            let started = Group::start(snapshotting(dir), Tape::default()).await;
            let group = started.map_err(|error| error.to_string())?;
            let number = |(_, payload): &(u64, Vec<u8>)| u64::from_le_bytes(payload[..].try_into().unwrap());
            let there: Vec<u64> = group.with_machine(|tape| tape.entries.iter().map(number).collect());
            group.shutdown().await;
            Ok::<_, String>(there)
        })?;
        let numbers: BTreeSet<u64> = there.iter().copied().collect();
        if numbers.len() != there.len() {
            return Err("an entry was applied twice".to_owned());
        }
        match self.numbers.difference(&numbers).next() {
            Some(lost) => Err(format!("the proposal {lost} was acknowledged and is not there")),
            None => Ok(Self { numbers }),
        }
    }
}

/// Takes a snapshot and purges at every turn.
fn snapshotting(dir: &Path) -> Settings {
    Settings { snapshot_every: 40, keep_entries: 5, ..quick(dir) }
}
