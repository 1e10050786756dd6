//! What was used: a node-local journal of upstream calls, shipped to the database as one row per call, once.
//!
//! Order on the main path: [`Journal::intent`] before the upstream call, [`Open::settle`] before the last byte of the
//! reply. At the start: [`Journal::open`], [`Journal::recover`], the ledger charges what was left open,
//! [`Journal::write_off`], then [`Shipper::run`]. Never read for admission: that is the ledger's.

mod codec;
mod journal;
mod position;
mod record;
mod rows;
mod scan;
mod segment;
mod shipper;
mod summary;
mod writer;

pub use journal::{Journal, JournalOptions, LastLife, Open, Recovered};
pub use record::{CallId, Intent, RequestId, RequestIds, Settled, Status};
pub use rows::{PAGE_MAX, UsageQuery, UsageRow, usage_page};
pub use scan::Left;
pub use segment::JournalError;
pub use shipper::{ShipError, Shipper};
pub use summary::{By, UsageSum, keep_for, usage_sums};

pub(crate) use rows::usage_row_exists;

#[cfg(test)]
mod tests;
