//! The gateway: HTTP in, admission, upstream calls, settlement.

pub mod admin;
pub mod admission;
pub mod config;
pub mod identity;
pub mod usage;
