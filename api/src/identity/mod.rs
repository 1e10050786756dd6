//! Who may call: API keys, from the presented string to a [`Caller`]. First step of the main path.
//!
//! Limits are only carried here; the ledger holds their use. Stores are asked in order ([`layers`]), behind a cache in
//! memory ([`cache`]).

mod caller;
mod secret;

pub use caller::{Caller, ModelPatterns, Tier};
pub use secret::{KeyHash, Secret};

use std::sync::Arc;

/// Why a presented key does not make a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No reachable store knows it.
    #[error("unknown api key")]
    Unknown,
    /// It was taken back.
    #[error("revoked api key")]
    Revoked,
    /// Its time is over.
    #[error("expired api key")]
    Expired,
    /// No store answered, so that nobody can say whether it is good.
    #[error("no key store can be reached")]
    StoresDown,
}

/// What a lookup says.
pub type Lookup = Result<Arc<Caller>, LookupError>;

/// The identity store's door. Clones share everything.
#[derive(Clone, Debug)]
pub struct Identity {}

impl Identity {
    /// Looks in memory only: `None` means that [`Identity::lookup`] has to ask a store.
    pub fn lookup_cached(&self, _presented: &str) -> Option<Lookup> {
        None
    }

    /// Finds the caller of a presented key, in memory first. Dropping the future is fine.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub async fn lookup(&self, _presented: &str) -> Lookup {
        Err(LookupError::StoresDown)
    }

    /// Drops what memory knows of a key, at once and for good: an answer that a store gave before this call is not
    /// remembered either.
    pub fn forget(&self, _key: &KeyHash) {}
}
