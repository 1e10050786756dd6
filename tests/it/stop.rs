//! Stopping `gatewayd`: the first signal lets running requests finish, the second does not.

use crate::rig::{app, begin, replies, sized, waiting};
use serde_json::Value;
use std::time::Duration;
use support::client::chat_body;
use support::{ChatReply, GatewayBuilder, GatewayClient, GatewayProcess, Reply, Upstream};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway in the middle of a request that its upstream holds back.
struct Busy {
    upstream: Upstream,
    gateway: GatewayProcess,
    request: JoinHandle<anyhow::Result<ChatReply>>,
    _dir: tempfile::TempDir,
}

async fn busy() -> Busy {
    let upstream = Upstream::start().await;
    upstream.set(Reply::tokens(4).held());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, format!("[provider.local.held]\nbase_url = \"{}\"\n", upstream.base_url())).unwrap();
    let builder = GatewayBuilder::dev(env!("CARGO_BIN_EXE_gatewayd")).arg("--config").arg(file);
    let gateway = builder.start().await.unwrap();
    let client = GatewayClient::new(&gateway.base_url(), &gateway.key().unwrap(), "");
    let request = tokio::spawn(async move { client.chat(&chat_body("held", "hello", 8)).await });
    upstream.arrived(1).await;
    Busy { upstream, gateway, request, _dir: dir }
}

/// Asks for an end and waits until the node says that it takes no more requests.
async fn begin_to_stop(gateway: &GatewayProcess) {
    gateway.sigterm().unwrap();
    let gone = async {
        while gateway.data_dir().join("ready.json").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn a_stopping_node_finishes_the_requests_that_run() {
    let Busy { upstream, mut gateway, request, _dir } = busy().await;
    begin_to_stop(&gateway).await;
    upstream.open();
    let reply = request.await.unwrap().unwrap();
    assert_eq!(reply.status, 200);
    assert_ne!(reply.json(), Value::Null);
    assert_eq!(gateway.wait_exit(PATIENCE).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let Busy { upstream: _upstream, mut gateway, request, _dir } = busy().await;
    begin_to_stop(&gateway).await;
    gateway.sigterm().unwrap();
    assert_eq!(gateway.wait_exit(PATIENCE).await.unwrap().code(), Some(1));
    assert!(request.await.unwrap().is_err());
}

#[tokio::test]
async fn a_stopping_node_answers_those_that_wait_in_the_queue() {
    let app = app().pool("m", |pool| pool.concurrent(1)).script(Reply::tokens(1).held()).start().await.unwrap();
    let pending: Vec<_> = (0..3).map(|i| begin(&app.client, sized("m", &format!("{i}"), 100), &[])).collect();
    waiting(&app.client, 2).await;
    let mut gateway = app.gateway;
    begin_to_stop(&gateway).await;
    app.upstream.open();
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    assert_eq!(gateway.wait_exit(PATIENCE).await.unwrap().code(), Some(0));
}
