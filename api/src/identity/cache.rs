//! What memory knows of keys: callers in an LRU, refusals for a second, and who is already asking a store.
//!
//! A key that was forgotten stays forgotten: an answer that a store began to give before is not remembered.

use super::secret::KeyHash;
use super::{Caller, Lookup, LookupError};
use lru::LruCache;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

const KEYS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
const REFUSED_FOR_US: u64 = 1_000_000;

/// The cache. All of its methods are short and never wait for a store.
#[derive(Debug)]
pub(super) struct Cache {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: LruCache<KeyHash, Known>,
    refused: LruCache<KeyHash, Refused>,
    flights: HashMap<KeyHash, Arc<OnceCell<Lookup>>>,
    forgotten: u64,
}

#[derive(Clone, Debug)]
struct Known {
    caller: Arc<Caller>,
    /// From then on a store is asked again; until one answers, the caller is still known.
    fresh_until_boot_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    why: LookupError,
    until_boot_us: u64,
}

/// What becomes of a caller that memory knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sifted {
    Good,
    Stale,
    Gone,
}

/// The number of keys forgotten when a store was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since(u64);

impl Cache {
    pub(super) fn new() -> Self {
        let (known, refused) = (LruCache::new(KEYS_MAX), LruCache::new(KEYS_MAX));
        Self { state: Mutex::new(State { known, refused, flights: HashMap::new(), forgotten: 0 }) }
    }

    /// What is known, without asking anyone; nothing when it is time to ask again.
    pub(super) fn get(&self, key: &KeyHash) -> Option<Lookup> {
        let now = raft::clock::boot_us();
        let mut state = self.lock();
        match state.known.get(key) {
            Some(known) if now < known.fresh_until_boot_us => return Some(in_force(Arc::clone(&known.caller))),
            Some(_) => return None,
            None => {}
        }
        let refused = *state.refused.peek(key)?;
        if now < refused.until_boot_us {
            return Some(Err(refused.why));
        }
        state.refused.pop(key);
        None
    }

    /// A caller that was known before it was time to ask again; known for another moment.
    pub(super) fn stale(&self, key: &KeyHash, since: Since) -> Option<Arc<Caller>> {
        let mut state = self.lock();
        if Since(state.forgotten) != since {
            return None;
        }
        let known = state.known.get_mut(key)?;
        known.fresh_until_boot_us = raft::clock::boot_us() + REFUSED_FOR_US;
        Some(Arc::clone(&known.caller))
    }

    /// Joins those who are already asking for a key, or is the first.
    pub(super) fn join(&self, key: KeyHash) -> Flight<'_> {
        let cell = Arc::clone(self.lock().flights.entry(key).or_default());
        Flight { cache: self, key, cell }
    }

    /// To be taken before a store is asked.
    pub(super) fn since(&self) -> Since {
        Since(self.lock().forgotten)
    }

    /// Remembers a store's answer; false means that a key was forgotten meanwhile, so that the store has to be asked
    /// again. That no store answered is not remembered.
    pub(super) fn remember(&self, key: KeyHash, since: Since, answer: &Lookup, fresh_us: u64) -> bool {
        let mut state = self.lock();
        if Since(state.forgotten) != since {
            return false;
        }
        match answer {
            Ok(caller) => {
                state.refused.pop(&key);
                let fresh_until_boot_us = raft::clock::boot_us() + fresh_us;
                state.known.put(key, Known { caller: Arc::clone(caller), fresh_until_boot_us });
            }
            Err(LookupError::StoresDown) => {}
            Err(why) => {
                state.known.pop(&key);
                let until_boot_us = raft::clock::boot_us() + REFUSED_FOR_US;
                state.refused.put(key, Refused { why: *why, until_boot_us });
            }
        }
        true
    }

    pub(super) fn forget(&self, key: &KeyHash) {
        let mut state = self.lock();
        state.forgotten += 1;
        state.known.pop(key);
        state.refused.pop(key);
        state.flights.remove(key);
    }

    /// Forgets the callers that `is_gone` names, and has the stores asked again about those that it calls stale.
    pub(super) fn sift(&self, judge: impl Fn(&KeyHash, &Caller) -> Sifted) {
        let mut state = self.lock();
        state.forgotten += 1;
        let mut gone = Vec::new();
        for (key, known) in &mut state.known {
            match judge(key, &known.caller) {
                Sifted::Good => {}
                Sifted::Stale => known.fresh_until_boot_us = 0,
                Sifted::Gone => gone.push(*key),
            }
        }
        for key in gone {
            state.known.pop(&key);
        }
        state.flights.clear();
    }

    /// A caller that memory knows and that `is_it` names.
    pub(super) fn find(&self, is_it: impl Fn(&Caller) -> bool) -> Option<(KeyHash, Arc<Caller>)> {
        let state = self.lock();
        let found = state.known.iter().find(|(_, known)| is_it(&known.caller));
        found.map(|(key, known)| (*key, Arc::clone(&known.caller)))
    }

    pub(super) fn len(&self) -> usize {
        self.lock().known.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of those who ask for the same key. Dropping it in the middle leaves the question to the others.
pub(super) struct Flight<'a> {
    cache: &'a Cache,
    key: KeyHash,
    cell: Arc<OnceCell<Lookup>>,
}

impl Flight<'_> {
    /// Asks, unless another is asking: then waits for that answer.
    pub(super) async fn answer(&self, ask: impl Future<Output = Lookup>) -> Lookup {
        self.cell.get_or_init(|| ask).await.clone()
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        // Taken and dropped under the lock, so that of two who leave at once the second sees that it is the last.
        let cell = std::mem::take(&mut self.cell);
        let mine = state.flights.get(&self.key).is_some_and(|other| Arc::ptr_eq(other, &cell));
        // Two owners are the table and this one: nobody else is left to take over.
        if mine && (cell.initialized() || Arc::strong_count(&cell) == 2) {
            state.flights.remove(&self.key);
        }
        drop(cell);
        drop(state);
    }
}

/// The caller, unless its time is over.
pub(super) fn in_force(caller: Arc<Caller>) -> Lookup {
    match caller.expires_at {
        Some(at) if at <= raft::clock::wall_us() => Err(LookupError::Expired),
        _ => Ok(caller),
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
