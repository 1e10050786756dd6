//! Key lookups in memory: P2-LAYER-001 wants a hot one below a microsecond.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints, and stops where it cannot go on")]

use api::identity::{Actor, Identity, NewKey};
use std::hint::black_box;

const KEYS: usize = 10_000;
const LOOKUPS: usize = 1_000_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(&format!("sqlite:{}/i.db", dir.path().display())).await.unwrap();
        let (_, secret) = identity.create_key(&NewKey::named("hot"), None, &Actor::node()).await.unwrap();
        identity.lookup(secret.expose()).await.unwrap();
        let began_us = raft::clock::boot_us();
        for _ in 0..LOOKUPS {
            black_box(identity.lookup_cached(black_box(secret.expose()))).unwrap().unwrap();
        }
        let nanos = (raft::clock::boot_us() - began_us) * 1_000 / LOOKUPS as u64;
        println!("a hot key is found in memory in {nanos} ns, its SHA-256 included (aim: 1000; room for {KEYS} keys)");
        assert!(cfg!(debug_assertions) || nanos < 1_000, "{nanos} ns");
    });
}
