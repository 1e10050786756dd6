//! What is revoked. It beats every store of keys: a store may be down, empty or restored from an older dump.

use crate::entry::Outcome;
use crate::model::Credential;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Revoked credentials, each with the last day for which it must be remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revoked {
    pub(crate) rows: BTreeMap<Credential, u64>,
    /// Raised whenever the rows change.
    pub(crate) version: u64,
}

impl Revoked {
    /// Revokes, for as long as anybody asked; nothing takes a revocation back.
    pub(crate) fn revoke(&mut self, credential: Credential, until_day: u64) -> Outcome {
        let known = self.rows.get(&credential).copied();
        if known.is_some_and(|known| known >= until_day) {
            return Outcome::Nothing;
        }
        self.rows.insert(credential, until_day);
        self.version += 1;
        Outcome::Done
    }

    pub(crate) fn contains(&self, credential: Credential) -> bool {
        self.rows.contains_key(&credential)
    }

    /// Forgets what need not be known on `today` any more.
    pub(crate) fn forget_before(&mut self, today: u64) {
        let before = self.rows.len();
        self.rows.retain(|_, &mut until_day| until_day >= today);
        self.version += u64::from(self.rows.len() < before);
    }
}
