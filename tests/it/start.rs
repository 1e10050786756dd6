//! Starting and stopping `gatewayd`: what it prints, what it leaves behind, and what it says when it cannot start.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use support::GatewayBuilder;

const GATEWAYD: &str = env!("CARGO_BIN_EXE_gatewayd");
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `gatewayd` to its end, in a directory of its own and without the caller's configuration.
fn gatewayd(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(GATEWAYD);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TOKLIGENCE_")) {
        command.env_remove(name);
    }
    command.args(args).current_dir(dir).output().unwrap()
}

fn http() -> reqwest::Client {
    // Another test in the process may have been first; any provider will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Checks that a start is refused with exit code 2 and one sentence.
fn refused(dir: &Path, args: &[&str], sentence: &str) {
    let output = gatewayd(dir, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.trim_end(), format!("gatewayd: {sentence}"), "{args:?}");
    assert_eq!(output.status.code(), Some(2), "{args:?}");
}

#[tokio::test]
async fn dev_finds_the_same_state_at_its_second_start() {
    let mut gateway = GatewayBuilder::dev(GATEWAYD).start().await.unwrap();
    let (key, admin_key) = (gateway.key().unwrap(), gateway.admin_key().unwrap());
    gateway.sigterm().unwrap();
    assert_eq!(gateway.wait_exit(PATIENCE).await.unwrap().code(), Some(0));
    assert!(!gateway.data_dir().join("ready.json").exists());
    gateway.restart().await.unwrap();
    assert_eq!((gateway.key().unwrap(), gateway.admin_key().unwrap()), (key.clone(), admin_key));
    let models = http().get(format!("{}/v1/models", gateway.base_url())).bearer_auth(key);
    assert_eq!(models.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_dev_prints_works_when_pasted() {
    let gateway = GatewayBuilder::dev(GATEWAYD).start().await.unwrap();
    let log = wait_for_lines(&gateway, "curl", 2).await;
    let lines: Vec<_> = log.lines().filter(|line| line.starts_with("curl")).collect();
    for (line, streams) in lines.iter().zip([false, true]) {
        let url = line.split(' ').find(|word| word.starts_with("http://")).unwrap();
        let quoted: Vec<_> = line.split('\'').skip(1).step_by(2).collect();
        let mut request = http().post(url).body(quoted[2].to_owned());
        for header in &quoted[..2] {
            let (name, value) = header.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{line}");
        let body = answer.text().await.unwrap();
        assert_eq!(body.starts_with("data: ") && body.ends_with("data: [DONE]\n\n"), streams, "{line}\n{body}");
    }
}

async fn wait_for_lines(gateway: &support::GatewayProcess, start: &str, count: usize) -> String {
    let read = async {
        loop {
            let log = gateway.log();
            if log.lines().filter(|line| line.starts_with(start)).count() >= count {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap()
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused() {
    let gateway = GatewayBuilder::dev(GATEWAYD).start().await.unwrap();
    let dir = gateway.data_dir().to_str().unwrap();
    let sentence = format!("the data directory {dir} is in use by another process");
    refused(gateway.data_dir(), &["dev", "--data-dir", dir, "--listen", "127.0.0.1:0"], &sentence);
}

#[test]
fn a_taken_port_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(dir.path(), &["dev", "--listen", &address], &format!("http.listen: {address} is taken by another process"));
}

#[test]
fn a_data_directory_that_cannot_be_made_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let sentence = "the data directory file/data cannot be made: Not a directory (os error 20)";
    refused(dir.path(), &["dev", "--data-dir", "file/data"], sentence);
}

#[test]
fn dev_mode_never_listens_beyond_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let sentence = "http.listen: dev mode listens on loopback only, not on 0.0.0.0:8081";
    refused(dir.path(), &["dev", "--listen", "0.0.0.0:8081"], sentence);
}

#[test]
fn a_broken_configuration_is_one_sentence_per_problem() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bad.toml"), "[http]\nlistn = \"x\"\n[scheduling]\npolicy = \"fair\"\n").unwrap();
    for args in [["dev", "--config", "bad.toml"].as_slice(), &["config", "check", "--config", "bad.toml"]] {
        let output = gatewayd(dir.path(), args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("bad.toml: http.listn: unknown key; the nearest known one is `listen`"), "{said}");
        assert!(said.contains("bad.toml: scheduling.policy: unknown variant `fair`"), "{said}");
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn the_default_file_is_printed_and_in_order_but_for_an_admin_key() {
    let dir = tempfile::tempdir().unwrap();
    let printed = gatewayd(dir.path(), &["config", "default"]);
    assert_eq!(printed.status.code(), Some(0));
    std::fs::write(dir.path().join("all.toml"), printed.stdout).unwrap();
    let sentence = "all.toml: identity.admin_key: must be set, best as env:NAME or file:PATH";
    refused(dir.path(), &["config", "check", "--config", "all.toml"], sentence);
}
