//! Who this node is: cluster, number and disk, in one small file beside the store.
//!
//! It is written once, after the store's first open succeeded. A store without it, or it without its store, is a disk
//! that was lost or mixed up, and the node refuses to start.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::disk;
use crate::types::NodeId;

/// The file's name within the data directory.
pub(crate) const FILE: &str = "identity";

const VERSION: &str = "1";

/// The id of the cluster that a node belongs to, once it does. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterId(std::sync::Arc<std::sync::OnceLock<[u8; 16]>>);

/// What the identity file names as long as the node belongs to no cluster.
pub(crate) const NO_CLUSTER: [u8; 16] = [0; 16];

impl ClusterId {
    pub(crate) fn of(identity: &Identity) -> Self {
        let cluster = Self::default();
        if identity.cluster_id != NO_CLUSTER {
            cluster.set(identity.cluster_id);
        }
        cluster
    }

    pub(crate) fn get(&self) -> Option<[u8; 16]> {
        self.0.get().copied()
    }

    /// It is set once; the file beside the store is written before.
    pub(crate) fn set(&self, cluster: [u8; 16]) {
        let _ = self.0.set(cluster);
    }
}

/// Names a node, its cluster and its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// 16 random bytes, drawn when the cluster was first started and on every restore from a backup.
    pub cluster_id: [u8; 16],
    /// This node's number within the cluster.
    pub node_id: NodeId,
    /// 16 random bytes, drawn when this node's store was made.
    pub store_uuid: [u8; 16],
}

impl Identity {
    /// Reads the identity of a data directory; none if it has never been written.
    ///
    /// # Errors
    /// A message that says what is wrong with the file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, String> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        parse(&text).map(Some)
    }

    /// Writes the identity, whole or not at all.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = String::new();
        let (cluster, store) = (hex::encode(self.cluster_id), hex::encode(self.store_uuid));
        let node = self.node_id;
        let body = format!("version = {VERSION}\ncluster = {cluster}\nnode = {node}\nstore = {store}\n");
        text.push_str(&body);
        let _ = writeln!(text, "crc = {:08x}", crc32fast::hash(body.as_bytes()));
        disk::write_atomic(path, &[text.as_bytes()])
    }
}

fn parse(text: &str) -> Result<Identity, String> {
    let (body, crc) = text.rsplit_once("crc = ").ok_or("it has no checksum")?;
    let crc = u32::from_str_radix(crc.trim(), 16).map_err(|_| "its checksum cannot be read")?;
    if crc != crc32fast::hash(body.as_bytes()) {
        return Err("its checksum does not match".to_owned());
    }
    let field = |name: &str| {
        body.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))
            .ok_or_else(|| format!("the field {name} is missing"))
    };
    if field("version")? != VERSION {
        return Err(format!("it has version {}, this build reads {VERSION}", field("version")?));
    }
    Ok(Identity {
        cluster_id: bytes16(field("cluster")?)?,
        node_id: field("node")?.parse().map_err(|_| "the field node is not a number")?,
        store_uuid: bytes16(field("store")?)?,
    })
}

fn bytes16(text: &str) -> Result<[u8; 16], String> {
    let bytes = hex::decode(text).map_err(|error| format!("{text} is not hexadecimal: {error}"))?;
    bytes.try_into().map_err(|_| format!("{text} is not 16 bytes long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let identity = Identity { cluster_id: [1; 16], node_id: 7, store_uuid: [0xfe; 16] };
        assert_eq!(Identity::read(&path), Ok(None));
        identity.write(&path).unwrap();
        assert_eq!(Identity::read(&path), Ok(Some(identity)));
    }

    #[test]
    fn an_edited_identity_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        Identity { cluster_id: [1; 16], node_id: 7, store_uuid: [2; 16] }.write(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap().replace("node = 7", "node = 8");
        fs::write(&path, text).unwrap();
        assert_eq!(Identity::read(&path), Err("its checksum does not match".to_owned()));
    }
}
