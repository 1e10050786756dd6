//! Workloads: pools, keys and clients that exercise one promise. Several run at once, each on its own pools and keys.

mod capacity;
mod quota;
mod register;

use crate::generator::Generator;
use crate::history::Pool;

/// An API key of a workload.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// Its name, by which calls refer to it.
    pub(crate) name: &'static str,
    /// The fields of its creation beside the name, as JSON.
    pub(crate) fields: serde_json::Value,
    /// Tokens of its day, when they are checked after the run.
    pub(crate) tokens_per_day: Option<u64>,
    /// A pool that it is asked on.
    pub(crate) model: &'static str,
}

/// One workload.
#[derive(Debug)]
pub(crate) struct Workload {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it exercises.
    pub(crate) about: &'static str,
    /// Its pools.
    pub(crate) pools: fn() -> Vec<Pool>,
    /// Its keys.
    pub(crate) keys: fn() -> Vec<Key>,
    /// Its clients, for a group of so many nodes.
    pub(crate) clients: fn(u64) -> Vec<Box<dyn Generator>>,
}

/// Every workload. A new one is a file here and a row in this table.
pub(crate) const WORKLOADS: [Workload; 3] = [capacity::WORKLOAD, quota::WORKLOAD, register::WORKLOAD];

/// The workloads of a comma-separated list; `all` is every one.
///
/// # Errors
/// When one of the names is none.
pub(crate) fn named(list: &str) -> anyhow::Result<Vec<&'static Workload>> {
    if list == "all" {
        return Ok(WORKLOADS.iter().collect());
    }
    let find = |name: &str| {
        let known = || WORKLOADS.iter().map(|workload| workload.name).collect::<Vec<_>>().join(", ");
        let found = WORKLOADS.iter().find(|workload| workload.name == name.trim());
        found.ok_or_else(|| anyhow::anyhow!("there is no workload {name}; there are {}", known()))
    };
    list.split(',').map(find).collect()
}
