//! What a group needs to be told: where its data stands, who it is, and its timing.
//!
//! The part of the crate's configuration that consensus needs, with the timing that tests shorten.

use std::path::PathBuf;
use std::sync::Arc;

use openraft::SnapshotPolicy;

use super::start::StartError;
use crate::config;
use crate::network::TlsFiles;
use crate::types::NodeId;

/// Is told how long something took, each time.
///
/// Units: microseconds.
#[derive(Clone)]
pub struct LatencyHook(pub Arc<dyn Fn(u64) + Send + Sync>);

impl std::fmt::Debug for LatencyHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LatencyHook")
    }
}

/// The listener for other members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The address to listen on.
    pub listen: std::net::SocketAddr,
    /// Certificates; none in plain text.
    pub tls: Option<TlsFiles>,
    /// Members that this node reaches elsewhere than where the group knows them.
    pub detours: std::collections::BTreeMap<NodeId, String>,
}

/// How a node takes part in its group.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Holds identity, log and snapshots; made if it does not exist.
    pub data_dir: PathBuf,
    /// This node's number; it must stay what it was at the first start.
    pub node_id: NodeId,
    /// How the other members reach this node; none in a group of one that nobody joins.
    pub peer: Option<Peer>,
    /// The members that a new group begins with, this node among them; empty when it waits to be taken in by a group.
    pub members: Vec<(NodeId, String)>,
    /// How often a leader says that it is there. The same on every node.
    pub heartbeat_ms: u64,
    /// The shortest and longest time without a leader before a node stands for election. The same on every node.
    pub election_ms: (u64, u64),
    /// A snapshot is taken after so many entries since the last one.
    pub snapshot_every: u64,
    /// So many entries that a snapshot already covers are kept for members that are a little behind.
    pub keep_entries: u64,
    /// How long a start may take until the group has a leader and this node has applied what it had before.
    pub start_ms_max: u64,
    /// Feeds a histogram of the time from each write to the log, or vote, until that is on disk.
    pub on_append: Option<LatencyHook>,
    /// Feeds a histogram of sync durations.
    pub on_fsync: Option<LatencyHook>,
}

impl Settings {
    /// The defaults for a data directory and a node.
    pub fn new(data_dir: impl Into<PathBuf>, node_id: NodeId) -> Self {
        Self {
            data_dir: data_dir.into(),
            node_id,
            peer: None,
            members: vec![(node_id, String::new())],
            heartbeat_ms: 100,
            election_ms: (400, 600),
            snapshot_every: 5_000,
            keep_entries: 1_000,
            start_ms_max: 30_000,
            on_append: None,
            on_fsync: None,
        }
    }

    /// Whether this node makes the group when there is none: the first of its first members does.
    pub(crate) fn founds(&self) -> bool {
        self.members.iter().map(|&(id, _)| id).min() == Some(self.node_id)
    }

    /// The same in openraft's words, checked.
    pub(crate) fn to_openraft(&self, cluster: &str) -> Result<Arc<openraft::Config>, StartError> {
        let (election_timeout_min, election_timeout_max) = self.election_ms;
        let config = openraft::Config {
            cluster_name: cluster.to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min,
            election_timeout_max,
            // Bounds every call that carries a snapshot, the small ones included: the default of 200 ms would fail.
            install_snapshot_timeout: 30_000,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep_entries,
            // A leader that lost its quorum probes for it instead of flooding; twice the longest election at least.
            quorum_loss_probe_interval: Some(2 * election_timeout_max),
            // Switched on once the start is through (`start.rs`).
            enable_elect: false,
            enable_pre_vote: Some(true),
            // The machine is rebuilt from snapshot and log, and no committed index is saved: a restarted leader must
            // be elected again, or it could serve a state older than what it acknowledged.
            enable_leader_restore: Some(false),
            // A batch of entries stays well below the largest message.
            max_payload_entries: 64,
            ..Default::default()
        };
        config.validate().map(Arc::new).map_err(|error| StartError::Config(error.to_string()))
    }
}

impl From<&config::Config> for Settings {
    fn from(config: &config::Config) -> Self {
        let cluster = &config.cluster;
        Self {
            peer: peer(config),
            members: config.first_members(),
            heartbeat_ms: cluster.heartbeat_ms,
            election_ms: (cluster.election_ms_min, cluster.election_ms_max),
            snapshot_every: cluster.snapshot_entries,
            ..Self::new(&config.node.data_dir, config.node.id)
        }
    }
}

fn peer(config: &config::Config) -> Option<Peer> {
    if !config.has_peers() {
        return None;
    }
    // `validate` has seen it.
    let listen = config.peer.listen.parse().ok()?;
    let tls = (config.peer.tls == config::Tls::Mutual).then(|| TlsFiles {
        cert: config.peer.cert.clone().into(),
        key: config.peer.key.clone().into(),
        ca: config.peer.ca.clone().into(),
    });
    Some(Peer { listen, tls, detours: config.detours() })
}
