//! The configuration of a run's nodes, with the keys that users write.

use super::Home;
use crate::fabric::Fabric;
use crate::history::Pool;
use anyhow::Context;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The admin key of every node; of no worth outside a run.
pub(crate) const ADMIN_KEY: &str = "adm_jepsen-only-0123456789abcdef0123456789abcdef";

/// How long a request waits in a queue at most.
const QUEUE_TIMEOUT_MS: u64 = 4_000;

/// The programs of a run.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    /// The gateway.
    pub(crate) gatewayd: PathBuf,
    /// The upstream.
    pub(crate) upstream: PathBuf,
}

/// What is to be started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The programs.
    pub(crate) binaries: Binaries,
    /// How many gateways.
    pub(crate) nodes: u64,
    /// Log entries between two snapshots: few, so that snapshots happen in short runs too.
    pub(crate) snapshot_entries: u64,
}

impl Binaries {
    /// The programs in a directory.
    ///
    /// # Errors
    /// When one is missing.
    pub(crate) fn in_dir(dir: &Path) -> anyhow::Result<Self> {
        let program = |name: &str| {
            let path = dir.join(name);
            let path = path.canonicalize();
            path.with_context(|| format!("there is no {name} in {}: build it, or name --bin-dir", dir.display()))
        };
        Ok(Self { gatewayd: program("gatewayd")?, upstream: program("scripted-upstream")? })
    }
}

/// One node's file.
pub(super) fn node_file(
    setup: &Setup,
    dir: &Path,
    id: u64,
    (home, fabric): (&Home, &Fabric),
    upstream: SocketAddr,
    pools: &[Pool],
) -> String {
    let mut text = String::new();
    let data = dir.join(format!("n{id}"));
    let members: Vec<String> = (1..=setup.nodes).map(|id| format!("\"{id}={}\"", home.peer(id))).collect();
    let members = if setup.nodes == 1 { String::new() } else { members.join(", ") };
    let ways = (1..=setup.nodes).filter_map(|peer| Some(format!("\"{peer}={}\"", fabric.way(id, peer)?)));
    let ways: Vec<String> = ways.collect();
    let via = if ways.is_empty() { String::new() } else { format!("via = [{}]\n", ways.join(", ")) };
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "[node]\nid = {id}\ndata_dir = {data:?}\n\n[http]\nlisten = \"{http}\"\ndrain_timeout_ms = 3000\n\n\
         [peer]\nlisten = \"{peer}\"\ntls = \"off\"\n{via}\n\
         [cluster]\ninitial_members = [{members}]\nsnapshot_entries = {snapshots}\n\n\
         [identity]\ndatabase_url = \"sqlite:{database}\"\nadmin_key = \"{ADMIN_KEY}\"\n\n\
         [scheduling]\nqueue_timeout_ms = {QUEUE_TIMEOUT_MS}\n\n[provider.local]\nenabled = true\n",
        http = home.http(id),
        peer = home.peer(id),
        snapshots = setup.snapshot_entries,
        database = dir.join("identity.db").display(),
    );
    for pool in pools {
        let _ = write!(
            text,
            "\n[provider.local.\"{}\"]\ndialect = \"openai\"\nbase_url = \"http://{upstream}/v1\"\n\
             api_key = \"upstream-key\"\ntokenizer = \"bytes\"\n",
            pool.name
        );
        for (key, value) in [
            ("max_tokens_per_sec", pool.tokens_per_sec),
            ("burst_tokens", pool.burst_tokens),
            ("max_rps", pool.rps),
            ("burst_requests", pool.burst_requests),
            ("max_concurrent", pool.concurrent),
        ] {
            if value > 0 {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
    }
    text
}
