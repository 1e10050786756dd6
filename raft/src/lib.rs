//! Carries the ledger: its log and votes in sled, consensus by openraft, and the way from a node to the leader.

mod apply;
pub mod clock;
pub mod config;
mod disk;
mod fault;
#[cfg(any(test, tokligence_faults))]
mod faults;
pub mod group;
mod identity;
pub mod leader;
pub mod machine;
pub mod metrics;
mod network;
pub mod replica;
mod snapshot;
pub mod starts;
mod store;
#[cfg(test)]
mod tests;
mod types;

pub use group::Group;
pub use identity::Identity;
pub use leader::{Leader, Unproposed};
pub use machine::{Applied, Machine, Stop};
pub use network::TlsFiles;
pub use replica::Replica;
pub use store::MAX_PAYLOAD_BYTES;
pub use types::NodeId;
