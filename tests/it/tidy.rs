//! The house rules that a compiler does not check: layers, file sizes, module docs, clocks, paths.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Lines of a file, its own tests aside, above which it must be split.
const LINES_MAX: usize = 600;

/// Which of our crates each crate may build on.
const LAYERS: [(&str, &[&str]); 7] = [
    ("ledger", &[]),
    ("proto", &["ledger"]),
    ("raft", &["ledger", "proto"]),
    ("api", &["ledger", "raft"]),
    ("node", &["api", "raft"]),
    ("tests/support", &[]),
    ("jepsen", &[]),
];

/// Which of our crates may use what comes from outside; anything else is free.
const OUTSIDE: [(&str, &[&str]); 12] = [
    ("axum", &["api", "tests/support"]),
    ("reqwest", &["api", "node", "tests/support", "jepsen"]),
    ("sqlx", &["api"]),
    ("redis", &["api"]),
    ("openraft", &["raft"]),
    ("sled", &["raft"]),
    ("tonic", &["proto", "raft"]),
    ("prost", &["proto"]),
    ("prometheus", &["api", "raft"]),
    ("clap", &["node", "tests/support", "jepsen"]),
    ("anyhow", &["node", "tests/support", "jepsen"]),
    ("tracing-subscriber", &["node"]),
];

/// The ledger is pure; this list is the proof.
const LEDGER_USES: [&str; 2] = ["serde", "thiserror"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every text file of the repository with its path from the root.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", "data", "bench-results", ".git"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let from_root = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((from_root, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(found.len() > 3, "the repository was not found");
    found
}

fn check(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn manifest(folder: &str) -> Table {
    fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap().parse().unwrap()
}

fn dependencies(manifest: &Table, section: &str) -> BTreeSet<String> {
    let table = manifest.get(section).and_then(Value::as_table);
    table.into_iter().flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn every_crate_stands_in_a_layer() {
    let workspace = manifest("");
    let members: BTreeSet<_> =
        workspace["workspace"]["members"].as_array().unwrap().iter().map(|member| member.as_str().unwrap()).collect();
    assert_eq!(members, LAYERS.iter().map(|(name, _)| *name).collect());
}

#[test]
fn a_crate_builds_only_on_the_layers_below_it() {
    let ours: BTreeSet<_> = ["ledger", "proto", "raft", "api", "node", "jepsen", "marketplace"].into();
    let mut problems = Vec::new();
    for (folder, below) in LAYERS {
        for dependency in dependencies(&manifest(folder), "dependencies") {
            if ours.contains(dependency.as_str()) && !below.contains(&dependency.as_str()) {
                problems.push(format!("{folder} must not build on {dependency}"));
            }
        }
    }
    check(&problems);
}

#[test]
fn what_comes_from_outside_stays_in_its_crates() {
    let mut problems = Vec::new();
    for (folder, _) in LAYERS {
        let manifest = manifest(folder);
        for dependency in dependencies(&manifest, "dependencies") {
            let allowed = OUTSIDE.iter().find(|(name, _)| *name == dependency).map(|(_, allowed)| *allowed);
            if allowed.is_some_and(|allowed| !allowed.contains(&folder)) {
                problems.push(format!("{folder} must not use {dependency}"));
            }
        }
    }
    let ledger = dependencies(&manifest("ledger"), "dependencies");
    if ledger.iter().any(|dependency| !LEDGER_USES.contains(&dependency.as_str())) {
        problems.push(format!("the ledger is pure and uses {LEDGER_USES:?} only, not {ledger:?}"));
    }
    check(&problems);
}

#[test]
fn no_file_is_too_long() {
    let mut problems = Vec::new();
    for (path, text) in files(&[".rs"]) {
        if is_test(&path) {
            continue;
        }
        let own = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = own.lines().count();
        if lines > LINES_MAX {
            problems.push(format!("{path} has {lines} lines, split it below {LINES_MAX}"));
        }
    }
    check(&problems);
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.starts_with("tests/") || path.ends_with("tests.rs")
}

#[test]
fn every_file_says_what_it_is() {
    let silent = files(&[".rs"]).into_iter().filter(|(_, text)| !text.starts_with("//! "));
    let problems: Vec<_> = silent.map(|(path, _)| format!("{path} must begin with `//! ` and what it is")).collect();
    check(&problems);
}

#[test]
fn clocks_are_read_in_one_place() {
    // Timers are tokio's, and so are the deadlines that they wait for.
    let std_instant =
        ["use std::time::Instant", "std::time::{Instant", "Duration, Instant}", "std::time::Instant::now"];
    let reads = ["SystemTime::now", "clock_gettime(", "::now_utc(", "UtcDateTime::now(", "::now_local("];
    let mut problems = Vec::new();
    for (path, text) in files(&[".rs"]) {
        // The harness imports nothing of ours, hence reads the clock by itself, in one place too.
        if path == "raft/src/clock.rs" || path == "jepsen/src/clock.rs" || path.starts_with("tests/") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let of_std = std_instant.iter().any(|read| line.contains(read)) && !line.contains("tokio::time");
            if of_std || reads.iter().any(|read| line.contains(read)) {
                problems.push(format!("{path}:{}: reads a clock; only raft/src/clock.rs does", number + 1));
            }
        }
    }
    check(&problems);
}

#[test]
fn no_test_is_ignored() {
    let mark = concat!("#[", "ignore");
    let ignoring = files(&[".rs"]).into_iter().filter(|(_, text)| text.contains(mark));
    check(&ignoring.map(|(path, _)| format!("{path} ignores a test")).collect::<Vec<_>>());
}

#[test]
fn nothing_names_a_place_on_somebodys_machine() {
    let places = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];
    let mut problems = Vec::new();
    for (path, text) in files(&[".rs", ".toml", ".md", ".sh", ".sql", ".in", ".awk", "Makefile", "run"]) {
        for (number, line) in text.lines().enumerate() {
            if places.iter().any(|place| line.contains(place)) {
                problems.push(format!("{path}:{}: names a place on a machine", number + 1));
            }
        }
    }
    check(&problems);
}
