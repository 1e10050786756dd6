//! The admin register: limits of pools that nobody uses, set and read on any node, as one register each.

use super::Workload;
use crate::generator::{Generator, Registers};
use crate::history::Pool;

const NAMES: [&str; 2] = ["register-a", "register-b"];

/// The workload.
pub(super) const WORKLOAD: Workload = Workload {
    name: "register",
    about: "limits of two pools set and read on any node, to be linearizable",
    pools,
    keys: Vec::new,
    clients,
};

fn pools() -> Vec<Pool> {
    NAMES.iter().map(|&name| Pool { name: name.to_owned(), concurrent: 1_000, ..Pool::default() }).collect()
}

fn clients(nodes: u64) -> Vec<Box<dyn Generator>> {
    let names = NAMES.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let client = |_| -> Box<dyn Generator> { Box::new(Registers { names: names.clone(), pause_ms: (100, 500) }) };
    (0..2 + nodes).map(client).collect()
}
