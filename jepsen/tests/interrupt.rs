//! What a run leaves behind when it is broken off: nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A stand-in for every program of a run: it writes the address file that the harness waits for, then stays.
const STAND_IN: &str = "#!/bin/sh\nwhile [ $# -gt 0 ]; do\n  if [ \"$1\" = --address-file ]; then echo x > \"$2\"; fi\n  \
                        shift\ndone\nexec sleep 600\n";

fn stand_in(dir: &Path, name: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    std::fs::write(&path, STAND_IN).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Process ids whose command line or open working file names the directory.
fn processes_of(dir: &Path) -> Vec<u32> {
    let dir = dir.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let log = std::fs::read_link(format!("/proc/{pid}/fd/1")).unwrap_or_default();
        if log.to_string_lossy().starts_with(&dir) {
            found.push(pid);
        }
    }
    found
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

fn broken_off_by(signal: &str) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    stand_in(&root, "gatewayd");
    stand_in(&root, "scripted-upstream");
    let out = root.join("report");
    let mut run = Command::new(env!("CARGO_BIN_EXE_tokligence-jepsen"))
        .args(["run", "--time", "60", "--bin-dir"])
        .arg(&root)
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the upstream starts", || !processes_of(&out).is_empty());
    let killed = Command::new("kill").args([signal, &run.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let status = run.wait().unwrap();
    until("its processes are gone", || processes_of(&out).is_empty());
    if signal != "-KILL" {
        assert_eq!(status.code(), Some(2));
        assert!(!out.join("nodes").exists());
    }
}

#[test]
fn after_ctrl_c_no_process_and_no_data_is_left() {
    broken_off_by("-INT");
    broken_off_by("-TERM");
}

#[test]
fn even_a_killed_run_leaves_no_process() {
    broken_off_by("-KILL");
}
