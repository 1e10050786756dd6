//! `ready.json` in the data directory: there while the node serves, with the address that it is bound to.

use anyhow::Context;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Shape: `{"address":"127.0.0.1:8081","node_id":1,"pid":4711,"version":"0.1.0"}`.
#[derive(Debug, Serialize)]
struct Content {
    address: SocketAddr,
    node_id: u64,
    pid: u32,
    version: &'static str,
}

/// The file, which is removed at the latest when the value is dropped.
#[derive(Debug)]
pub(super) struct Ready {
    path: PathBuf,
}

impl Ready {
    /// Removes the file of an earlier life that was killed; it would name the wrong address.
    pub(super) fn clear(data_dir: &Path) {
        // Most often there is none; and if it cannot be removed, writing the new one says so.
        let _ = std::fs::remove_file(data_dir.join("ready.json"));
    }

    /// Says that the node serves. Readers see the whole file or none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(data_dir: &Path, address: SocketAddr, node_id: u64) -> anyhow::Result<Self> {
        let path = data_dir.join("ready.json");
        let content = Content { address, node_id, pid: std::process::id(), version: env!("CARGO_PKG_VERSION") };
        let temporary = data_dir.join("ready.tmp");
        let write = || -> std::io::Result<()> {
            std::fs::write(&temporary, serde_json::to_vec(&content)?)?;
            std::fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self { path })
    }

    /// Says that the node no longer takes requests.
    pub(super) fn remove(self) {
        drop(self);
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_there_exactly_while_the_node_serves() {
        let dir = tempfile::tempdir().unwrap();
        let ready = Ready::write(dir.path(), "127.0.0.1:8081".parse().unwrap(), 3).unwrap();
        let text = std::fs::read_to_string(dir.path().join("ready.json")).unwrap();
        let expected = format!(
            r#"{{"address":"127.0.0.1:8081","node_id":3,"pid":{},"version":"{}"}}"#,
            std::process::id(),
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(text, expected);
        ready.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
