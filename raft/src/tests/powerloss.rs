//! Power loss and `kill -9`: what was acknowledged is still there.
//!
//! A child process (this test binary again) works on a store under a recording file layer, `tests/powerloss/shim.c`, and
//! is killed. From the record come directories as a power loss at many moments may have left them; each must open and
//! hold what had been promised by then. The same with `sync_data` left out must lose something, or the test is blind.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::platter::{Dice, Platter, Record, read_records};
use super::workload::{GroupLoad, Load, NOTES, StoreLoad};
use crate::{clock, faults};

/// Set for a child: the directory it works on, and its seed.
const CHILD_DIR: &str = "RAFT_CHILD_DIR";
const CHILD_SEED: &str = "RAFT_CHILD_SEED";
/// Lives of the process on one disk, and power losses tried in each.
const LIVES: u64 = 3;
const LOSSES: u64 = 4;

/// In a child: works until killed. In the parent: goes on.
fn be_a_child<L: Load>() {
    if let (Ok(dir), Ok(seed)) = (env::var(CHILD_DIR), env::var(CHILD_SEED)) {
        L::run(Path::new(&dir), seed.parse().unwrap());
    }
}

/// This test binary again, running one test, which becomes the child.
fn child(test: &str, dir: &Path, seed: u64) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(CHILD_DIR, dir).env(CHILD_SEED, seed.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Lets a child live for a while, then kills it; it must not have ended by itself. Most lives are counted from the
/// first note, however slow the machine is; every fourth from the beginning, so that some end during open.
fn kill_some_time(mut child: Child, dir: &Path, dice: &mut Dice) {
    let notes = dir.join(NOTES);
    let patience = clock::boot() + Duration::from_secs(10);
    let early = dice.roll(4) == 0;
    while !early && fs::metadata(&notes).unwrap().len() == 0 && clock::boot() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(dice.roll(if early { 60 } else { 300 })));
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), None, "the child ended by itself: {said}");
}

fn build_shim(dir: &Path) -> PathBuf {
    let (source, shim) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/powerloss/shim.c"), dir.join("shim.so"));
    let mut cc = Command::new("cc");
    let built = cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).status();
    assert!(built.expect("a C compiler named cc, which rustc needs for linking, too").success());
    shim
}

/// All files below a directory, with their inodes.
fn files(dir: &Path) -> Vec<(PathBuf, u64, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), fs::metadata(&path).unwrap().ino(), fs::read(&path).unwrap()));
        }
    }
    found
}

/// What was promised by a moment of the record.
fn promised<L: Load>(start: &L, notes_inode: u64, records: &[Record]) -> (L, usize) {
    let (mut promised, mut notes) = (start.clone(), 0);
    for record in records.iter().filter(|record| record.kind == b'w' && record.inode == notes_inode) {
        String::from_utf8(record.data.clone()).unwrap().lines().for_each(|line| promised.note(line));
        notes += 1;
    }
    (promised, notes)
}

/// One disk through several lives and power losses; says what was lost.
fn disk_survives<L: Load>(test: &str, seed: u64, skip_sync: bool) -> Result<usize, String> {
    let scratch = tempfile::tempdir().unwrap();
    let shim = build_shim(scratch.path());
    let mut dice = Dice(seed);
    let (mut disk, mut start, mut notes) = (scratch.path().join("disk"), L::default(), 0);
    fs::create_dir(&disk).unwrap();
    for life in 0..LIVES {
        fs::write(disk.join(NOTES), b"").unwrap();
        let (base, log) = (files(&disk), scratch.path().join(format!("log{life}")));
        let mut command = child(test, &disk, dice.roll(u64::MAX));
        command.env("LD_PRELOAD", &shim).env("POWERLOSS_DIR", &disk).env("POWERLOSS_LOG", &log);
        if skip_sync {
            command.env(faults::SKIP_SYNC, "1");
        }
        kill_some_time(command.spawn().unwrap(), &disk, &mut dice);
        let records = read_records(&log);
        let notes_inode = fs::metadata(disk.join(NOTES)).unwrap().ino();
        let mut next = None;
        for loss in 0..LOSSES {
            // The last one is the moment of the kill, the others are any moment before.
            let all = records.len() as u64;
            let cut = if loss + 1 == LOSSES { all } else { dice.roll(all + 1) } as usize;
            let left = scratch.path().join(format!("left{life}-{loss}"));
            Platter::new(&base, &records[..cut]).lose_power(&mut dice, &disk, &left);
            let (promised, count) = promised(&start, notes_inode, &records[..cut]);
            notes += count;
            let there = promised.check(&left).map_err(|lost| format!("seed {seed}, life {life}, cut {cut}: {lost}"))?;
            if let Some((old, _)) = next.replace((left, there)) {
                fs::remove_dir_all(old).unwrap();
            }
        }
        fs::remove_dir_all(&disk).unwrap();
        (disk, start) = next.unwrap();
    }
    Ok(notes)
}

fn seeds(default: u64) -> u64 {
    env::var("POWERLOSS_SEEDS").map_or(default, |seeds| seeds.parse().unwrap())
}

#[test]
fn an_acknowledged_entry_survives_power_loss() {
    be_a_child::<StoreLoad>();
    let mut notes = 0;
    for seed in 0..seeds(3) {
        let test = "tests::powerloss::an_acknowledged_entry_survives_power_loss";
        notes += disk_survives::<StoreLoad>(test, seed, false).unwrap_or_else(|lost| panic!("{lost}"));
    }
    assert!(notes > 50, "only {notes} acknowledgements were put to the test");
}

#[test]
fn an_acknowledged_proposal_survives_power_loss_through_snapshots_and_purges() {
    be_a_child::<GroupLoad>();
    let mut notes = 0;
    for seed in 0..seeds(2) {
        let test = "tests::powerloss::an_acknowledged_proposal_survives_power_loss_through_snapshots_and_purges";
        notes += disk_survives::<GroupLoad>(test, seed, false).unwrap_or_else(|lost| panic!("{lost}"));
    }
    assert!(notes > 50, "only {notes} acknowledgements were put to the test");
}

#[test]
fn without_sync_data_a_power_loss_takes_acknowledged_entries() {
    be_a_child::<StoreLoad>();
    let test = "tests::powerloss::without_sync_data_a_power_loss_takes_acknowledged_entries";
    let lost = (0..seeds(10)).find_map(|seed| disk_survives::<StoreLoad>(test, seed, true).err());
    assert!(lost.is_some_and(|lost| lost.contains("acknowledged")), "nothing was lost, so the test sees nothing");
}

#[test]
fn a_store_that_was_killed_during_open_opens_again() {
    be_a_child::<StoreLoad>();
    let scratch = tempfile::tempdir().unwrap();
    let disk = scratch.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let (mut dice, mut start, mut notes) = (Dice(7), StoreLoad::default(), 0);
    let deadline = clock::boot() + Duration::from_secs(6);
    let test = "tests::powerloss::a_store_that_was_killed_during_open_opens_again";
    while clock::boot() < deadline {
        fs::write(disk.join(NOTES), b"").unwrap();
        let mut killed = child(test, &disk, dice.roll(u64::MAX)).spawn().unwrap();
        if dice.roll(2) == 0 {
            // Over before the store is open.
            std::thread::sleep(Duration::from_millis(dice.roll(40)));
            killed.kill().unwrap();
            killed.wait().unwrap();
        } else {
            kill_some_time(killed, &disk, &mut dice);
        }
        let mut promised = start.clone();
        for line in fs::read_to_string(disk.join(NOTES)).unwrap().lines() {
            promised.note(line);
            notes += 1;
        }
        start = promised.check(&disk).unwrap();
    }
    assert!(notes > 50, "only {notes} acknowledgements were put to the test");
}
