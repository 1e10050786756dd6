//! The one place where a node is put together: identity, journal, admission, gateway, listener.
//!
//! Everything below takes what it needs as an argument; nothing finds its own parts. What is opened first is closed
//! last.

use crate::config::Config;
use crate::daemon::DataDir;
use anyhow::Context;
use api::admission::Admission;
use api::board::Blank;
use api::config::{Http, NodeId};
use api::identity::Identity;
use api::metrics::Metrics;
use api::usage::{Journal, JournalOptions, Shipper};
use api::{App, Drained, Parts};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A node whose parts stand, before it takes requests.
pub(crate) struct Node {
    app: Arc<App>,
    identity: Identity,
    journal: Journal,
    listener: TcpListener,
    http: Http,
    data: DataDir,
}

/// A node that takes requests.
pub(crate) struct Serving {
    address: SocketAddr,
    stop_accepting: CancellationToken,
    stop_shipping: CancellationToken,
    server: JoinHandle<Drained>,
    shipper: JoinHandle<()>,
    identity: Identity,
    _data: DataDir,
}

impl Node {
    /// Opens what the node stands on. The listener comes first: a taken port is found before anything is started.
    ///
    /// # Errors
    /// One sentence on what cannot be opened.
    pub(crate) async fn open(config: Config, data: DataDir) -> anyhow::Result<Self> {
        let Config { raft, api, .. } = config;
        let listener = listen(&api.http.listen)?;
        let database_url = match api.identity.database_url.as_str() {
            "" => format!("sqlite:{}", data.path().join("identity.db").display()),
            url => url.to_owned(),
        };
        let identity = Identity::open(&database_url).await?;
        let sync_every = Duration::from_millis(api.usage.sync_interval_ms);
        let options = JournalOptions { sync_every, ..JournalOptions::default() };
        let journal = Journal::open(&data.path().join("usage"), &options)?;
        for left in journal.recover().open {
            journal.write_off(&left.intent).context("the usage journal cannot be written")?;
        }
        let parts = Parts {
            node: NodeId(raft.node.id),
            admission: Admission {},
            identity: identity.clone(),
            journal: journal.clone(),
            board: Arc::new(Blank),
            metrics: Arc::new(Metrics::new(api.scheduling.priority_levels)?),
        };
        let app = App::new(&api, parts)?;
        Ok(Self { app, identity, journal, listener, http: api.http, data })
    }

    /// The key store.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Begins to take requests.
    ///
    /// # Errors
    /// When the node cannot serve.
    pub(crate) fn serve(self) -> anyhow::Result<Serving> {
        let Self { app, identity, journal, listener, http, data } = self;
        let address = listener.local_addr().context("the listener has no address")?;
        let (stop_accepting, stop_shipping) = (CancellationToken::new(), CancellationToken::new());
        let shipper = Shipper::new(journal, identity.database().clone()).run(stop_shipping.clone());
        let stopped = stop_accepting.clone().cancelled_owned();
        let server = async move {
            let router = api::router(app.clone(), None);
            api::serve(app, router, &http, listener, stopped).await
        };
        Ok(Serving {
            address,
            stop_accepting,
            stop_shipping,
            server: tokio::spawn(server),
            shipper: tokio::spawn(shipper),
            identity,
            _data: data,
        })
    }
}

impl Serving {
    /// The address that the listener is bound to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the node cannot go on, and says why.
    pub(crate) async fn ended(&mut self) -> String {
        match (&mut self.server).await {
            Ok(_) => "the listener ended".to_owned(),
            Err(error) => format!("the listener failed: {error}"),
        }
    }

    /// Takes no new requests, lets the running ones finish, ships what they used, and closes everything.
    pub(crate) async fn drain(self) {
        self.stop_accepting.cancel();
        match self.server.await {
            Ok(Drained::Whole) => {}
            Ok(Drained::Cut) => tracing::warn!("some requests were broken off: they took longer than drain_timeout_ms"),
            Err(error) => tracing::error!(%error, "the listener failed"),
        }
        self.stop_shipping.cancel();
        if let Err(error) = self.shipper.await {
            tracing::error!(%error, "the shipper of usage rows failed");
        }
        self.identity.database().close().await;
    }
}

fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let parsed: SocketAddr = address.parse().with_context(|| format!("http.listen: {address} is not an address"))?;
    api::bind(parsed).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!("http.listen: {address} is taken by another process"),
        _ => anyhow::Error::new(error).context(format!("http.listen: cannot listen on {address}")),
    })
}
