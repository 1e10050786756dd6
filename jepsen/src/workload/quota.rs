//! Quotas: a day's tokens of a key, which what was used and what is left must always add up to.

use super::{Key, Workload};
use crate::generator::{Generator, Mix};
use crate::history::Pool;
use serde_json::json;

/// Enough for any run.
const AMPLE: u64 = 1_000_000_000;
/// Used up within the first minute.
const SCARCE: u64 = 30_000;

/// The workload.
pub(super) const WORKLOAD: Workload = Workload {
    name: "quota",
    about: "a day's tokens of an ample and a scarce key, added up after the run",
    pools,
    keys,
    clients,
};

fn pools() -> Vec<Pool> {
    vec![Pool { name: "daily".to_owned(), concurrent: 20, answer_ms: 30, ..Pool::default() }]
}

fn keys() -> Vec<Key> {
    let key = |name, limit: u64| Key {
        name,
        fields: json!({"priority_ceiling": 0, "tokens_per_day": limit}),
        tokens_per_day: Some(limit),
        model: "daily",
    };
    vec![key("ample", AMPLE), key("scarce", SCARCE)]
}

fn clients(nodes: u64) -> Vec<Box<dyn Generator>> {
    let mix = |key: &str| Mix {
        models: vec!["daily".to_owned()],
        key: key.to_owned(),
        priorities: vec![3],
        max_tokens: (20, 200),
        pause_ms: (20, 200),
    };
    let mut clients: Vec<Box<dyn Generator>> = Vec::new();
    for client in 0..2 + 2 * nodes {
        clients.push(Box::new(mix(if client % 2 == 0 { "ample" } else { "scarce" })));
    }
    clients
}
