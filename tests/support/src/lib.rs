//! What the tests and benchmarks stand on: a scripted upstream, a starter for the real gateway, a client, and the
//! checks that need arithmetic. Nothing here is part of the product, and nothing here imports it: the gateway is
//! started as a process and talked to over HTTP, as its users do.

pub mod client;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod curve;
pub mod gateway;
pub mod link;
pub mod metrics;
pub mod postgres;
mod process;
pub mod raw;
pub mod redis;
pub mod reply;
pub mod sse;
pub mod testapp;
pub mod upstream;

pub use client::GatewayClient;
pub use cluster::{Cluster, ClusterBuilder};
pub use config::{Config, Pool};
pub use gateway::{GatewayBuilder, GatewayProcess};
pub use metrics::Metrics;
pub use postgres::PostgresServer;
pub use raw::{RawConn, RawReply};
pub use redis::RedisServer;
pub use reply::{ChatReply, LiveStream, StreamReply};
pub use testapp::{TestApp, TestAppBuilder};
pub use upstream::{Act, Call, Reply, Rule, Script, Stats, Upstream, Usage};
