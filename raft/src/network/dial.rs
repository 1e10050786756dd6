//! Connections to members.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::pass::Pass;
use super::tls::Tls;
use crate::types::NodeId;

/// How long a connection may take to stand.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);

/// A silent connection is asked whether it still stands, this often, and given up after as long again without an answer.
const KEEPALIVE: Duration = Duration::from_millis(700);

/// Opens connections, in plain text or with certificates.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) pass: Pass,
    tls: Option<Tls>,
    detours: Arc<BTreeMap<NodeId, String>>,
}

impl Dial {
    pub(crate) fn new(pass: Pass, tls: Option<Tls>, detours: BTreeMap<NodeId, String>) -> Self {
        Self { pass, tls, detours: Arc::new(detours) }
    }

    /// A connection that is opened when it is first used, and again when it broke.
    pub(crate) fn lazily(&self, to: NodeId, addr: &str) -> Result<Channel, Status> {
        Ok(self.endpoint(to, addr)?.connect_lazy())
    }

    /// A connection that stands.
    pub(crate) async fn now(&self, to: NodeId, addr: &str) -> Result<Channel, Status> {
        self.endpoint(to, addr)?.connect().await.map_err(|error| Status::unavailable(error.to_string()))
    }

    fn endpoint(&self, to: NodeId, addr: &str) -> Result<Endpoint, Status> {
        let addr = self.detours.get(&to).map_or(addr, String::as_str);
        let bad = |error: tonic::transport::Error| Status::unavailable(format!("{addr} cannot be called: {error}"));
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{addr}")).map_err(bad)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.client(to)).map_err(bad),
            None => Ok(endpoint),
        }
    }
}
