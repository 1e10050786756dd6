//! What was used: a node-local journal of upstream calls, shipped to the database as one row per call, once.
//!
//! Order on the main path: [`Journal::intent`] before the upstream call, [`Open::settle`] before the last byte of the
//! reply. Never read for admission: that is the ledger's.

mod journal;
mod record;

pub use journal::{Journal, Open};
pub use record::{CallId, Intent, QuotaHold, RequestId, RequestIds, Settled, Status};
