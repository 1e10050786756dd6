//! A disk that runs full under a running group: the node's part ends with a message, and nothing acknowledged is lost.
//!
//! The full disk is a limit on the size of files, set by the shell that starts the child. What the store sees is the
//! same as on a full disk: a write that fails half way.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::quick;
use crate::group::ProposeError;

const CHILD_DIR: &str = "RAFT_FULL_DISK_DIR";
/// Units: blocks of 512 or 1024 bytes, depending on the shell; sled's first segment of 8 MiB fits, not much more does.
const LIMIT_BLOCKS: &str = "18000";

#[tokio::main]
async fn fill(dir: &Path) {
    let group = super::start(quick(dir)).await.unwrap();
    let mut acknowledged = 0u64;
    let error = loop {
        let mut payload = vec![7; 8_000];
        payload[..8].copy_from_slice(&acknowledged.to_le_bytes());
        match group.propose(payload).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, ProposeError::Indeterminate);
    let message = group.fatal().wait_for(Option::is_some).await.unwrap().clone().unwrap();
    fs::write(dir.join("seen"), format!("{acknowledged} {message}")).unwrap();
    // Without the tidy end that a shutdown would make: the disk is still full.
    std::process::exit(0);
}

#[test]
fn a_full_disk_ends_the_nodes_part_and_loses_nothing() {
    if let Ok(dir) = env::var(CHILD_DIR) {
        return fill(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let limited = format!("trap '' XFSZ; ulimit -f {LIMIT_BLOCKS}; exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &limited, "sh"]).arg(env::current_exe().unwrap());
    command.args(["--exact", "tests::fulldisk::a_full_disk_ends_the_nodes_part_and_loses_nothing", "--nocapture"]);
    let output = command.env(CHILD_DIR, dir.path()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen = fs::read_to_string(dir.path().join("seen")).unwrap();
    let (acknowledged, message) = seen.split_once(' ').unwrap();
    let acknowledged: usize = acknowledged.parse().unwrap();
    assert!(acknowledged > 100 && message.contains("failed"), "{seen}");
    let after = async {
        let group = super::start(quick(dir.path())).await.unwrap();
        let found =
            group.with_machine(|tape| tape.entries.iter().map(|(_, payload)| payload.len()).collect::<Vec<_>>());
        assert!(found.len() >= acknowledged && found.iter().all(|length| *length == 8_000), "{} kept", found.len());
        group.propose(b"room again".to_vec()).await.unwrap();
        group.shutdown().await;
    };
    tokio::runtime::Runtime::new().unwrap().block_on(after);
}
