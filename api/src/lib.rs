//! The gateway: HTTP in, admission, upstream calls, settlement.

pub mod admission;
pub mod config;
