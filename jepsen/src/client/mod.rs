//! Clients: what speaks HTTP to the gateways, and sorts every outcome into happened, did not happen, unknown.

mod admin;
mod chat;

pub(crate) use admin::Admin;
pub(crate) use chat::{ChatClient, ONE_REQUEST};

/// A client of plain settings that never goes through a proxy of the environment.
///
/// # Errors
/// When the HTTP client cannot be built.
pub(crate) fn http() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().tcp_nodelay(true).no_proxy().build()?)
}
