//! The capacity ledger: limits, leases and reservations, decided exactly and purely.

pub mod entry;
pub mod keeper;
pub mod model;
pub mod policy;
pub mod rules;
pub mod state;
pub mod time;

#[cfg(test)]
mod schedules;

#[cfg(test)]
#[path = "../../tests/sim/mod.rs"]
mod sim;
