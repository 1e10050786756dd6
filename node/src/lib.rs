//! The two programs: `gatewayd`, the daemon, and `gateway`, the command line. Both are thin; what they are made of
//! stands here, and the work is done in the crates below.

mod bench;
pub mod cli;
mod compose;
pub mod config;
pub mod daemon;
