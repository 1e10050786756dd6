//! Capacity: rates, tokens and permits of several pools, each asked for more than it has.

use super::{Key, Workload};
use crate::generator::{Generator, Mix};
use crate::history::Pool;
use serde_json::json;

const KEY: &str = "capacity";

/// The workload.
pub(super) const WORKLOAD: Workload = Workload {
    name: "capacity",
    about: "rate, tokens and permits over mixed models and priorities, at more than the limits",
    pools,
    keys,
    clients,
};

fn pools() -> Vec<Pool> {
    let pool = |name: &str| Pool { name: name.to_owned(), answer_ms: 20, ..Pool::default() };
    vec![
        Pool { tokens_per_sec: 3_000, burst_tokens: 3_000, ..pool("tokens") },
        Pool { rps: 20, burst_requests: 10, ..pool("rate") },
        Pool { concurrent: 3, answer_ms: 120, ..pool("permits") },
        Pool { tokens_per_sec: 4_000, burst_tokens: 4_000, rps: 25, burst_requests: 15, concurrent: 4, ..pool("all") },
    ]
}

fn keys() -> Vec<Key> {
    vec![Key { name: KEY, fields: json!({"priority_ceiling": 0}), tokens_per_day: None, model: "tokens" }]
}

fn clients(nodes: u64) -> Vec<Box<dyn Generator>> {
    let mix = |models: &[&str]| Mix {
        models: models.iter().map(|&model| model.to_owned()).collect(),
        key: KEY.to_owned(),
        priorities: vec![0, 2, 5, 9],
        max_tokens: (20, 400),
        pause_ms: (10, 150),
    };
    let mut clients: Vec<Box<dyn Generator>> = Vec::new();
    for client in 0..14 + 2 * nodes {
        clients.push(Box::new(match client % 4 {
            0 => mix(&["tokens"]),
            1 => mix(&["rate", "all"]),
            2 => mix(&["permits"]),
            _ => mix(&["tokens", "rate", "permits", "all"]),
        }));
    }
    clients
}
