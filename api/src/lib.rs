//! The gateway: HTTP in, admission, upstream calls, settlement.

pub mod admin;
pub mod admission;
mod app;
pub mod board;
mod body;
pub mod calendar;
mod chat;
pub mod config;
mod counting;
mod credential;
mod dialect;
mod envelope;
mod error;
mod health;
pub mod identity;
pub mod metrics;
mod models;
mod nearest;
mod pipeline;
pub mod prices;
mod priority;
mod relay;
mod reply;
mod routes;
mod routing;
mod server;
mod settlement;
mod sse;
#[cfg(test)]
mod tests;
pub mod tokens;
mod upstream;
pub mod usage;

pub use app::{App, Parts, StartError};
pub use error::Error;
pub use nearest::nearest;
pub use reply::Arrival;
pub use routes::router;
pub use routing::BadPool;
pub use server::{Drained, bind, serve};
