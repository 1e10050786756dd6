//! The journal against crashes, and its rows in a real SQLite database.

use super::segment::{self, Position};
use super::*;
use crate::identity::Database;
use ledger::model::{Incarnation, Priority};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An intent whose fields follow from its number.
pub(super) fn intent(number: u8) -> Intent {
    let mut id = [0; 16];
    id[15] = number;
    Intent {
        call: CallId::from(RequestId(id)),
        incarnation: Incarnation(4),
        pool: "pool".into(),
        model: "model".into(),
        target: "target".into(),
        key_id: [9; 16],
        user: None,
        team: None,
        priority: Priority(5),
        tokens_reserved: 1_000 + u64::from(number),
        reservation: 0,
        started_wall_us: 1_000_000 + u64::from(number),
    }
}

/// An end of a call that charges so much.
pub(super) fn settled(charged_tokens: u64) -> Settled {
    Settled {
        status: Status::Ok,
        prompt_tokens: 1,
        completion_tokens: 2,
        charged_tokens,
        http_status: 200,
        streamed: false,
        latency_us: 3,
        wait_us: 4,
    }
}

fn options(boot_id: &str) -> JournalOptions {
    JournalOptions { boot_id: boot_id.to_owned(), ..JournalOptions::default() }
}

fn open(dir: &Path) -> Journal {
    Journal::open(dir, &options("boot")).unwrap()
}

fn left(journal: &Journal) -> Vec<Intent> {
    journal.recover().open.into_iter().map(|left| left.intent).collect()
}

fn last_segment(dir: &Path) -> PathBuf {
    segment::path(dir, *segment::list(dir).unwrap().last().unwrap())
}

/// Ends without anything that a clean end does: as after `kill -9`.
fn killed(journal: Journal, calls: Vec<Open>) {
    calls.into_iter().for_each(Open::abandon);
    drop(journal);
}

/// A folder like another at this moment, as a machine would find it that stopped now.
fn copy(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

mod crashes;
mod shipping;

#[test]
fn request_ids_are_ordered_and_unique_and_calls_are_numbered() {
    let ids = RequestIds::new().unwrap();
    let made: Vec<_> = (0..1_000).map(|_| ids.next()).collect();
    assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
    let call = CallId::from(RequestId([0xab; 16]));
    assert_eq!(call.to_string(), format!("req_{}", "ab".repeat(16)));
    assert_eq!(CallId { call: 2, ..call }.to_string(), format!("{call}.2"));
}
