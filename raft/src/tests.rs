//! Tests of the crate as a whole. They stand inside it, since the switch that leaves `sync_data` out exists only here.

mod cluster;
mod disks;
mod fulldisk;
mod group;
mod platter;
mod powerloss;
mod suite;
mod workload;

use crate::group::{Group, Settings, StartError};
use crate::machine::{Applied, Machine, Stop};
use ledger::entry::LogPos;
use std::time::Duration;

/// A machine that keeps every payload, refuses nothing, and stops at one word.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tape {
    pub(crate) entries: Vec<(u64, Vec<u8>)>,
}

impl Machine for Tape {
    fn apply(&mut self, term: u64, index: u64, payload: &[u8]) -> Result<Applied, Stop> {
        match payload {
            b"stop" => return Err(Stop::new("an unknown event")),
            b"panic" => panic!("a broken invariant"),
            _ => self.entries.push((index, payload.to_vec())),
        }
        Ok(Applied { at: LogPos { term, index }, void: payload == b"void", outcomes: Vec::new(), effects: Vec::new() })
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (index, payload) in &self.entries {
            bytes.extend_from_slice(&index.to_le_bytes());
            bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    fn digest(&self) -> (u64, u128) {
        (self.entries.last().map_or(0, |&(index, _)| index), self.entries.len() as u128)
    }

    fn restore(&mut self, mut bytes: &[u8]) -> Result<(), Stop> {
        self.entries.clear();
        let cut = || Stop::new("cut short");
        while !bytes.is_empty() {
            let (index, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
            let (length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            let (payload, rest) = rest.split_at_checked(u64::from_le_bytes(*length) as usize).ok_or_else(cut)?;
            self.entries.push((u64::from_le_bytes(*index), payload.to_vec()));
            bytes = rest;
        }
        Ok(())
    }
}

/// A configuration with times as short as they go.
pub(crate) fn quick(dir: &std::path::Path) -> Settings {
    Settings { heartbeat_ms: 20, election_ms: (100, 150), start_ms_max: 10_000, ..Settings::new(dir, 1) }
}

/// Starts a group. Other tests fork children beside this one, and until such a child has become another program it
/// holds the lock of a directory that its parent has let go of already.
pub(crate) async fn start(settings: Settings) -> Result<Group<Tape>, StartError> {
    for _ in 0..250 {
        match Group::start(settings.clone(), Tape::default()).await {
            Err(StartError::AlreadyRunning { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            started => return started,
        }
    }
    panic!("the directory is still locked after five seconds");
}
