//! The one place where a node is put together: identity, journal, admission, gateway, listener.
//!
//! Everything below takes what it needs as an argument; nothing finds its own parts. What is opened first is closed
//! last.

use crate::config::Config;
use crate::daemon::DataDir;
use anyhow::Context;
use api::admin::{Admin, AdminKey};
use api::admission::{Admission, Capacity, Options};
use api::config::{Http, NodeId, Secret};
use api::identity::{self, Identity};
use api::metrics::Metrics;
use api::usage::{Journal, JournalOptions, Shipper, keep_for};
use api::{App, Drained, Parts};
use raft::group::Settings;
use raft::{Group, Replica};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A node whose parts stand, before it takes requests.
pub(crate) struct Node {
    app: Arc<App>,
    admin: Admin,
    group: Group<Replica>,
    identity: Identity,
    journal: Journal,
    listener: TcpListener,
    http: Http,
    retention_days: u64,
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
    group: Group<Replica>,
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
        let database_url = match revealed("database_url", &api.identity.database_url)?.as_str() {
            "" => format!("sqlite:{}", data.path().join("identity.db").display()),
            url => url.to_owned(),
        };
        let identity = Identity::start(identity::Options {
            database_url,
            redis_url: revealed("redis_url", &api.identity.redis_url)?,
            snapshot: Some(data.path().join("keys.snapshot")),
            snapshot_refresh: Duration::from_millis(api.identity.snapshot_refresh_ms),
            believed: Duration::from_millis(api.identity.cache_ttl_ms),
            mode: api.identity.degraded_mode,
        })
        .await?;
        let sync_every = Duration::from_millis(api.usage.sync_interval_ms);
        let journal_options = JournalOptions { sync_every, ..JournalOptions::default() };
        let journal = Journal::open(&data.path().join("usage"), &journal_options)?;
        let metrics = Metrics::new(api.scheduling.priority_levels)?;
        let disk = raft::metrics::DiskTimes::new(metrics.registry())?;
        let group = Group::start(disk.on(Settings::from(&raft)), Replica::new()).await?;
        raft::metrics::register(metrics.registry(), group.clone())?;
        let life = raft::starts::next(data.path()).context("the node's starts cannot be counted")?;
        let (admission, capacity) = Admission::start(group.clone(), options(&raft, &api, life), &journal).await?;
        tokio::spawn(capacity.keys().follow(identity.clone()));
        tokio::spawn(capacity.keys().tell(identity.clone()));
        let parts = Parts {
            node: NodeId(raft.node.id),
            admission,
            identity: identity.clone(),
            journal: journal.clone(),
            board: capacity.clone(),
            metrics: Arc::new(metrics),
        };
        let app = App::new(&api, parts)?;
        let admin = admin(&api, identity.clone(), capacity)?;
        Ok(Self {
            app,
            admin,
            group,
            identity,
            journal,
            listener,
            http: api.http,
            retention_days: api.usage.retention_days,
            data,
        })
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
        let Self { app, admin, group, identity, journal, listener, http, retention_days, data } = self;
        let address = listener.local_addr().context("the listener has no address")?;
        let (stop_accepting, stop_shipping) = (CancellationToken::new(), CancellationToken::new());
        let shipper = Shipper::new(journal, identity.database().clone()).run(stop_shipping.clone());
        let stopped = stop_accepting.clone().cancelled_owned();
        tokio::spawn(keep_for(identity.database().clone(), retention_days, stop_shipping.clone()));
        let server = async move {
            let router = api::router(app.clone(), Some(admin));
            api::serve(app, router, &http, listener, stopped).await
        };
        Ok(Serving {
            address,
            stop_accepting,
            stop_shipping,
            server: tokio::spawn(server),
            shipper: tokio::spawn(shipper),
            identity,
            group,
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
        let mut fatal = self.group.fatal();
        tokio::select! {
            ended = &mut self.server => match ended {
                Ok(_) => "the listener ended".to_owned(),
                Err(error) => format!("the listener failed: {error}"),
            },
            reason = fatal.wait_for(Option::is_some) => match reason {
                Ok(reason) => format!("this node's part in the group ended: {}", reason.as_deref().unwrap_or("unknown")),
                Err(_) => "this node's part in the group ended".to_owned(),
            },
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
        self.group.shutdown().await;
    }
}

fn options(raft: &raft::config::Config, api: &api::config::Config, life: u64) -> Options {
    Options {
        node: NodeId(raft.node.id),
        life,
        degraded_after: Duration::from_millis(raft.cluster.degraded_after_ms),
        ..Options::of(api)
    }
}

fn admin(api: &api::config::Config, identity: Identity, capacity: Arc<Capacity>) -> anyhow::Result<Admin> {
    let key = revealed("admin_key", &api.identity.admin_key)?;
    Ok(Admin {
        key: AdminKey::new(&key),
        identity,
        pools: capacity.clone(),
        revoker: Arc::new(capacity.keys()),
        cluster: capacity,
    })
}

fn revealed(name: &str, secret: &Secret) -> anyhow::Result<String> {
    secret.reveal().map_err(|error| anyhow::anyhow!("identity.{name}: {error}"))
}

fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let parsed: SocketAddr = address.parse().with_context(|| format!("http.listen: {address} is not an address"))?;
    api::bind(parsed).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!("http.listen: {address} is taken by another process"),
        _ => anyhow::Error::new(error).context(format!("http.listen: cannot listen on {address}")),
    })
}
