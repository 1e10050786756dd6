//! Everything that a request needs of its node, put together once at start and shared by all requests.

use crate::admission::Admission;
use crate::board::Board;
use crate::config::Config;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::prices::Prices;
use crate::routing::{BadPool, Pools};
use crate::upstream::Client;
use crate::usage::{Journal, RequestIds};
use http::HeaderValue;
use ledger::model::NodeId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What an [`App`] is made of.
pub struct Parts {
    /// The node that answers.
    pub node: NodeId,
    /// The door to the ledger.
    pub admission: Admission,
    /// Who may call.
    pub identity: Identity,
    /// Where use is written down.
    pub journal: Journal,
    /// What the ledger's side shows.
    pub board: Arc<dyn Board>,
    /// Metrics, with one histogram for each of `scheduling.priority_levels`.
    pub metrics: Arc<Metrics>,
}

/// The gateway cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A pool cannot be served.
    #[error(transparent)]
    Pool(#[from] BadPool),
    /// The client of upstreams cannot be made.
    #[error("the client of upstreams cannot be made: {0}")]
    Client(String),
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Random(std::io::Error),
}

/// One node's gateway.
pub struct App {
    pub(crate) node: HeaderValue,
    pub(crate) admission: Admission,
    pub(crate) identity: Identity,
    pub(crate) journal: Journal,
    pub(crate) board: Arc<dyn Board>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pools: Pools,
    pub(crate) prices: Arc<dyn Prices>,
    pub(crate) client: Client,
    pub(crate) ids: RequestIds,
    pub(crate) priority_levels: u8,
    pub(crate) queue_wait: Duration,
    pub(crate) queue_wait_max: Duration,
    pub(crate) body_bytes_max: usize,
    pub(crate) body_time_max: Duration,
    draining: AtomicBool,
}

impl App {
    /// Puts the gateway together.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn new(config: &Config, parts: Parts) -> Result<Arc<Self>, StartError> {
        let pools = Pools::new(config)?;
        pools.iter().for_each(|pool| crate::tokens::warm_up(pool.tokenizer));
        Ok(Arc::new(Self {
            node: HeaderValue::from(parts.node.0),
            admission: parts.admission,
            identity: parts.identity,
            journal: parts.journal,
            board: parts.board,
            metrics: parts.metrics,
            pools,
            prices: Arc::new(config.prices.clone()),
            client: Client::new(&config.upstream).map_err(StartError::Client)?,
            ids: RequestIds::new().map_err(StartError::Random)?,
            priority_levels: config.scheduling.priority_levels,
            queue_wait: Duration::from_millis(config.scheduling.queue_timeout_ms),
            queue_wait_max: Duration::from_millis(config.scheduling.queue_timeout_ms_max),
            body_bytes_max: config.http.max_body_bytes,
            body_time_max: Duration::from_millis(config.http.body_read_timeout_ms),
            draining: AtomicBool::new(false),
        }))
    }

    #[cfg(test)]
    pub(crate) fn client_for_tests(&self) -> reqwest::Client {
        self.client.http()
    }

    /// Says that the node is stopping: readiness turns red, running requests go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the node is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
