//! Carries the ledger: its log and votes in sled, consensus by openraft, and the way from a node to the leader.

pub mod clock;
pub mod config;
