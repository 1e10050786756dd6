//! This node's copy of the ledger, driven by the log.
//!
//! Decodes an entry and applies it; what the entry means is decided in the ledger crate. An entry that this build cannot
//! read stops the node's part in the group: skipping it would let the copies differ.

use crate::clock;
use crate::machine::{Applied, Machine, Stop};
use ledger::entry::LogPos;
use ledger::rules::Rules;
use ledger::state::State;
use ledger::time::{Boot, LedgerClock, Stamp};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Version of the snapshot's encoding.
const SNAPSHOT_VERSION: u8 = 3;

/// The ledger as this node has applied it.
#[derive(Debug)]
pub struct Replica {
    state: State,
    /// The versions of what is revoked and of tenants' limits, for those who keep copies of keys.
    changes: watch::Sender<(u64, u64)>,
    clock: LedgerTime,
}

/// Ledger time as this node knows it, learned from what it applies. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LedgerTime(Arc<Mutex<LedgerClock>>);

impl LedgerTime {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(LedgerClock::new(Stamp(0), Boot(clock::boot_us()), Rules::ALL))))
    }

    /// Works on the clock; what is behind its lock stays whole when a thread panics beside it.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut LedgerClock) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Replica {
    /// An empty ledger.
    pub fn new() -> Self {
        Self { state: State::new(Rules::ALL), clock: LedgerTime::new(), changes: watch::Sender::new((0, 0)) }
    }

    pub(crate) fn clock(&self) -> LedgerTime {
        self.clock.clone()
    }

    /// The ledger.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Tells whenever something was revoked or a tenant's limits were set.
    pub fn changes(&self) -> watch::Receiver<(u64, u64)> {
        self.changes.subscribe()
    }

    fn tell(&self) {
        let now = (self.state.revoked_version(), self.state.limits_version());
        self.changes.send_if_modified(|told| std::mem::replace(told, now) != now);
    }
}

impl Default for Replica {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine for Replica {
    fn apply(&mut self, term: u64, index: u64, payload: &[u8]) -> Result<Applied, Stop> {
        let entry = proto::decode(payload).map_err(|error| Stop::new(error.to_string()))?;
        // Applied is later than received: the clock lags by that, and never leads. Of this node's own entries it learns
        // nothing, since it has led their term from the start.
        self.clock.with(|clock| clock.observe(term, entry.stamp, Boot(clock::boot_us())));
        let applied = self.state.apply(LogPos { term, index }, &entry);
        self.tell();
        Ok(applied)
    }

    /// Shape: one byte of version, 16 bytes of digest (little-endian), the state in bincode.
    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = vec![SNAPSHOT_VERSION];
        bytes.extend_from_slice(&self.state.digest().0.to_le_bytes());
        // The state holds nothing that bincode cannot write, and a vector takes every byte.
        let encoded = bincode::serde::encode_to_vec(&self.state, bincode::config::standard());
        bytes.extend(encoded.expect("the ledger's rows are plain data"));
        bytes
    }

    fn digest(&self) -> (u64, u128) {
        (self.state.at().index, self.state.digest().0)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let damaged = || Stop::new("the snapshot of the ledger cannot be read");
        let (&version, rest) = bytes.split_first().ok_or_else(damaged)?;
        if version != SNAPSHOT_VERSION {
            return Err(Stop::new(format!(
                "the snapshot has version {version}; this node reads version {SNAPSHOT_VERSION}"
            )));
        }
        let (digest, encoded) = rest.split_first_chunk::<16>().ok_or_else(damaged)?;
        let (state, _): (State, usize) =
            bincode::serde::decode_from_slice(encoded, bincode::config::standard()).map_err(|_| damaged())?;
        if state.digest().0 != u128::from_le_bytes(*digest) {
            return Err(Stop::new("the snapshot of the ledger does not have the digest it names"));
        }
        self.state = state;
        let (term, stamp) = (self.state.at().term, self.state.stamp());
        self.clock.with(|clock| clock.observe(term, stamp, Boot(clock::boot_us())));
        self.tell();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::entry::{Entry, Op};
    use ledger::model::{BucketLimit, PoolLimits, Rate};
    use ledger::time::Stamp;

    fn replica() -> Replica {
        let limits =
            PoolLimits { tokens: Some(BucketLimit { rate: Rate::per_sec(10), burst: 40 }), ..PoolLimits::default() };
        let set = Op::SetPool { name: "gpt".into(), limits, request_us_max: 1 };
        let entry = Entry { proposer_term: 1, stamp: Stamp(5), ops: vec![set] };
        let mut replica = Replica::new();
        replica.apply(1, 1, &proto::encode(&entry)).unwrap();
        replica
    }

    #[test]
    fn a_snapshot_restores_the_same_ledger() {
        let replica = replica();
        let mut other = Replica::new();
        other.restore(&replica.snapshot()).unwrap();
        assert_eq!(other.state(), replica.state());
    }

    #[test]
    fn a_damaged_snapshot_is_refused() {
        let bytes = replica().snapshot();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Replica::new().restore(&damaged).is_err(), "byte {at}");
        }
    }
}
