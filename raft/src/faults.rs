//! A switch that only tests can build: a sync that is left out.
//!
//! It proves that the test which guards rule R3 notices its absence. (A sync that fails is a switch of `fault.rs`.)

/// Set in the environment of a child process: acknowledge without `sync_data`.
pub(crate) const SKIP_SYNC: &str = "RAFT_FAULT_SKIP_SYNC";

/// Whether this process leaves `sync_data` out.
pub(crate) fn sync_is_skipped() -> bool {
    static SKIPPED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *SKIPPED.get_or_init(|| std::env::var_os(SKIP_SYNC).is_some())
}
