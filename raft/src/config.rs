//! What a node must be told about its group: who it is, where its data lies, whom it talks to, and the timings.
//!
//! Plain values with defaults. Reading files and the environment is not done here but in `node/src/config.rs`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How long a lease lasts. Not configurable: the ledger computes with it, so that it must be the same on every node.
const LEASE_MS: u64 = 2_500;

/// The longest that one contact with the leader and one commit take when all is well.
const CONTACT_AND_COMMIT_MS: u64 = 600;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, with its section: `cluster.heartbeat_ms`.
    pub key: String,
    /// What is wrong, in lower case and without a final stop.
    pub message: String,
}

impl Problem {
    /// Names a problem of one key.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Everything this crate is configured by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Who this node is.
    pub node: Node,
    /// How other nodes reach it.
    pub peer: Peer,
    /// The group and its timings.
    pub cluster: Cluster,
}

/// `[node]`: who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// The node's id in the group, from 1. Never used again once the node was removed.
    pub id: u64,
    /// Where the log, the snapshots, the journal and the embedded database lie.
    pub data_dir: PathBuf,
}

impl Default for Node {
    fn default() -> Self {
        Self { id: 1, data_dir: PathBuf::from("data/n1") }
    }
}

/// `[peer]`: the listener for the other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peer {
    /// Address of the gRPC listener. A group of one does not open it.
    pub listen: String,
    /// `ID=HOST:PORT` of members that this node reaches elsewhere than where the group knows them: behind a translated
    /// address, or through a proxy.
    pub via: Vec<String>,
    /// Whether the nodes prove to each other who they are.
    pub tls: Tls,
    /// PEM file with this node's certificate; its name is the node's id.
    pub cert: String,
    /// PEM file with this node's private key.
    pub key: String,
    /// PEM file with the certificate authority of the group.
    pub ca: String,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7081".into(),
            via: Vec::new(),
            tls: Tls::Off,
            cert: String::new(),
            key: String::new(),
            ca: String::new(),
        }
    }
}

/// Whether the traffic between nodes is authenticated and encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// Plain text, on loopback only.
    #[default]
    Off,
    /// Both sides show a certificate of the group's authority.
    Mutual,
}

/// `[cluster]`: the members a new group starts with, and the timings, which are the same on every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// `ID=HOST:PORT` of each first member; empty means this node alone. Counts only before the first membership
    /// entry.
    pub initial_members: Vec<String>,
    /// True: this node waits until a running group takes it in (`gateway cluster add`); `initial_members` stays empty.
    pub join: bool,
    /// How often the leader lets the others hear of it.
    pub heartbeat_ms: u64,
    /// The least wait before a node campaigns.
    pub election_ms_min: u64,
    /// The longest wait before a node campaigns.
    pub election_ms_max: u64,
    /// How long after its lease's end a node goes on queueing before a degraded mode starts.
    pub degraded_after_ms: u64,
    /// How many log entries lie between two snapshots.
    pub snapshot_entries: u64,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            initial_members: Vec::new(),
            join: false,
            heartbeat_ms: 100,
            election_ms_min: 400,
            election_ms_max: 600,
            degraded_after_ms: 5_000,
            snapshot_entries: 20_000,
        }
    }
}

/// One first member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its node id.
    pub id: u64,
    /// Its peer address, `HOST:PORT`.
    pub address: String,
}

impl Config {
    /// The first members of the group, this node alone when none are named.
    ///
    /// # Errors
    /// Names each entry that is not `ID=HOST:PORT`.
    pub fn members(&self) -> Result<Vec<Member>, Vec<Problem>> {
        if self.cluster.initial_members.is_empty() {
            return Ok(vec![Member { id: self.node.id, address: self.peer.listen.clone() }]);
        }
        let mut members = Vec::new();
        let mut problems = Vec::new();
        for text in &self.cluster.initial_members {
            match member(text) {
                Some(member) => members.push(member),
                None => problems.push(Problem::new(
                    "cluster.initial_members",
                    format!("`{text}` is not ID=HOST:PORT, as in 1=10.0.0.1:7081"),
                )),
            }
        }
        if problems.is_empty() { Ok(members) } else { Err(problems) }
    }

    /// Whether other nodes talk to this one: then it listens for them.
    pub(crate) fn has_peers(&self) -> bool {
        self.cluster.join || !self.cluster.initial_members.is_empty()
    }

    /// The members that a new group begins with; none when this node joins another group.
    pub(crate) fn first_members(&self) -> Vec<(u64, String)> {
        if self.cluster.join {
            return Vec::new();
        }
        // `validate` has named what cannot be read.
        let members = self.members().unwrap_or_default();
        members.into_iter().map(|member| (member.id, member.address)).collect()
    }

    /// Where this node reaches members elsewhere than where the group knows them.
    pub(crate) fn detours(&self) -> BTreeMap<u64, String> {
        // `validate` has named what cannot be read.
        let members = self.peer.via.iter().filter_map(|text| member(text));
        members.map(|member| (member.id, member.address)).collect()
    }

    /// Finds everything that is wrong.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.node.id == 0 {
            problems.push(Problem::new("node.id", "ids begin with 1"));
        }
        if self.node.data_dir.as_os_str().is_empty() {
            problems.push(Problem::new("node.data_dir", "must name a directory"));
        }
        self.validate_peer(&mut problems);
        self.validate_members(&mut problems);
        self.cluster.validate_timings(&mut problems);
        problems
    }

    fn validate_peer(&self, problems: &mut Vec<Problem>) {
        for text in self.peer.via.iter().filter(|text| member(text).is_none()) {
            problems.push(Problem::new("peer.via", format!("`{text}` is not ID=HOST:PORT, as in 2=10.0.0.2:7081")));
        }
        let address = self.peer.listen.parse::<SocketAddr>();
        if let Err(cause) = &address {
            let listen = &self.peer.listen;
            problems.push(Problem::new("peer.listen", format!("`{listen}` is not an address with a port: {cause}")));
        }
        match self.peer.tls {
            Tls::Off => {
                if address.is_ok_and(|address| !address.ip().is_loopback()) {
                    problems.push(Problem::new("peer.tls", "may be \"off\" only while peer.listen is on loopback"));
                }
            }
            Tls::Mutual => {
                for (name, value) in [("cert", &self.peer.cert), ("key", &self.peer.key), ("ca", &self.peer.ca)] {
                    if value.is_empty() {
                        problems.push(Problem::new(format!("peer.{name}"), "must name a PEM file when tls is on"));
                    }
                }
            }
        }
    }

    fn validate_members(&self, problems: &mut Vec<Problem>) {
        let members = match self.members() {
            Ok(members) => members,
            Err(found) => return problems.extend(found),
        };
        let key = "cluster.initial_members";
        if self.cluster.join && !self.cluster.initial_members.is_empty() {
            problems.push(Problem::new(key, "must be empty on a node that joins (cluster.join)"));
        }
        if !members.iter().any(|member| member.id == self.node.id) {
            problems.push(Problem::new(key, format!("does not hold this node, {}", self.node.id)));
        }
        for (at, member) in members.iter().enumerate() {
            if members[..at].iter().any(|other| other.id == member.id) {
                problems.push(Problem::new(key, format!("names node {} twice", member.id)));
            }
            if members[..at].iter().any(|other| other.address == member.address) {
                problems.push(Problem::new(key, format!("names {} twice", member.address)));
            }
        }
    }
}

impl Cluster {
    fn validate_timings(&self, problems: &mut Vec<Problem>) {
        let least = [
            ("heartbeat_ms", self.heartbeat_ms),
            ("election_ms_min", self.election_ms_min),
            ("snapshot_entries", self.snapshot_entries),
        ];
        for (name, value) in least {
            if value == 0 {
                problems.push(Problem::new(format!("cluster.{name}"), "must be above 0"));
            }
        }
        if self.election_ms_max <= self.election_ms_min {
            problems.push(Problem::new("cluster.election_ms_max", "must be above election_ms_min"));
        }
        if self.election_ms_min < self.heartbeat_ms.saturating_mul(2) {
            problems.push(Problem::new("cluster.election_ms_min", "must be at least twice heartbeat_ms"));
        }
        // A lease must outlive a change of leader, or every failover would end every lease (architecture.md, Time).
        let most = (LEASE_MS - CONTACT_AND_COMMIT_MS) / 2;
        if self.election_ms_max >= most {
            let message = format!("must be below {most}, so that a lease of {LEASE_MS} ms outlives a change of leader");
            problems.push(Problem::new("cluster.election_ms_max", message));
        }
    }
}

fn member(text: &str) -> Option<Member> {
    let (id, address) = text.split_once('=')?;
    let (host, port) = address.rsplit_once(':')?;
    let id = id.trim().parse().ok().filter(|id| *id > 0)?;
    let port: u16 = port.trim().parse().ok()?;
    (!host.trim().is_empty()).then(|| Member { id, address: format!("{}:{port}", host.trim()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), []);
    }

    #[test]
    fn every_problem_is_found_at_once() {
        let mut config = Config::default();
        config.node.id = 0;
        config.peer.listen = "0.0.0.0:7081".into();
        config.cluster.initial_members = vec!["1=a:1".into(), "1=a:1".into()];
        config.cluster.election_ms_max = 1_000;
        let keys: Vec<_> = config.validate().into_iter().map(|problem| problem.key).collect();
        let members = "cluster.initial_members";
        assert_eq!(keys, ["node.id", "peer.tls", members, members, members, "cluster.election_ms_max"]);
    }

    #[test]
    fn a_member_that_is_no_address_is_named() {
        let mut config = Config::default();
        config.cluster.initial_members = vec!["1:127.0.0.1".into()];
        assert!(config.validate()[0].message.contains("`1:127.0.0.1` is not ID=HOST:PORT"));
    }
}
