//! The capacity ledger.

pub mod model;
