//! Who calls, for which cluster, from which disk, and to whom: shown with every call, checked before anything else.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use super::tls;
use crate::fault::Fault;
use crate::identity::ClusterId;
use crate::types::NodeId;

const CLUSTER: &str = "tokligence-cluster";
const FROM: &str = "tokligence-from";
const FROM_STORE: &str = "tokligence-from-store";
const TO: &str = "tokligence-to";
const TO_STORE: &str = "tokligence-to-store";
const VERSION: &str = "tokligence-version";

/// The version of what peers say to each other.
const WIRE_VERSION: &str = "1";

/// Refusals that were logged and are remembered, so that each is logged once.
const LOGGED_MAX: usize = 64;

/// What this node shows, and what it asks others to show.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    node: NodeId,
    store: [u8; 16],
    cluster: ClusterId,
    fault: Fault,
    tls: bool,
    logged: Arc<Mutex<BTreeSet<String>>>,
}

impl Pass {
    pub(crate) fn new(node: NodeId, store: [u8; 16], cluster: ClusterId, fault: Fault, tls: bool) -> Self {
        Self { node, store, cluster, fault, tls, logged: Arc::default() }
    }

    pub(crate) fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn store(&self) -> [u8; 16] {
        self.store
    }

    /// Puts this node's name on a call to a member; its disk is named when it is known.
    pub(crate) fn sign<T>(&self, mut request: Request<T>, to: NodeId, store: Option<[u8; 16]>) -> Request<T> {
        let cluster = self.cluster.get().map(hex::encode).unwrap_or_default();
        let fields = [
            (VERSION, WIRE_VERSION.to_owned()),
            (CLUSTER, cluster),
            (FROM, self.node.to_string()),
            (FROM_STORE, hex::encode(self.store)),
            (TO, to.to_string()),
            (TO_STORE, store.map(hex::encode).unwrap_or_default()),
        ];
        for (name, value) in fields {
            if let Ok(value) = value.parse() {
                request.metadata_mut().insert(name, value);
            }
        }
        request
    }

    /// Checks a call of a member, and says who calls.
    pub(crate) fn check<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let (fields, extensions) = (request.metadata(), request.extensions());
        let checked = self.check_caller(fields, extensions).and_then(|from| self.check_cluster(fields).map(|()| from));
        checked.map_err(|why| self.refuse(&why))
    }

    /// Checks a call that may come before this node has a cluster.
    pub(crate) fn check_stranger<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        self.check_caller(request.metadata(), request.extensions()).map_err(|why| self.refuse(&why))
    }

    /// Says no; each reason is logged once.
    pub(crate) fn refuse(&self, why: &str) -> Status {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() < LOGGED_MAX && logged.insert(why.to_owned()) {
            tracing::warn!(reason = %why, "a call of a peer was refused");
        }
        Status::failed_precondition(why)
    }

    fn check_caller(&self, fields: &MetadataMap, extensions: &Extensions) -> Result<NodeId, String> {
        let version = field(fields, VERSION)?;
        if version != WIRE_VERSION {
            return Err(format!("the peer speaks version {version}, this node speaks version {WIRE_VERSION}"));
        }
        let from: NodeId = field(fields, FROM)?.parse().map_err(|_| "the caller's id is not a number".to_owned())?;
        if self.tls && !shows_certificate_of(extensions, from) {
            return Err(format!("the certificate is not that of {}", tls::name(from)));
        }
        let to = field(fields, TO)?;
        if to != self.node.to_string() {
            return Err(format!("this is node {}, not node {to}", self.node));
        }
        Ok(from)
    }

    fn check_cluster(&self, fields: &MetadataMap) -> Result<(), String> {
        let meant = field(fields, TO_STORE)?;
        if !meant.is_empty() && meant != hex::encode(self.store) {
            let why = format!("node {} lost its data: remove it, add a new id", self.node);
            if self.cluster.get().is_none() {
                self.fault.end(why.clone());
            }
            return Err(why);
        }
        let theirs = field(fields, CLUSTER)?;
        match self.cluster.get().map(hex::encode) {
            Some(ours) if ours == theirs => Ok(()),
            Some(ours) => Err(format!("this node belongs to cluster {ours}, the caller to cluster {theirs}")),
            None => Err("this node belongs to no cluster yet".to_owned()),
        }
    }
}

fn field<'a>(fields: &'a MetadataMap, name: &str) -> Result<&'a str, String> {
    let value = fields.get(name).and_then(|value| value.to_str().ok());
    value.ok_or_else(|| format!("the call does not show {name}"))
}

fn shows_certificate_of(extensions: &Extensions, node: NodeId) -> bool {
    let info = extensions.get::<tonic::transport::server::TlsConnectInfo<tonic::transport::server::TcpConnectInfo>>();
    let shown = info.and_then(tonic::transport::server::TlsConnectInfo::peer_certs);
    shown.is_some_and(|shown| shown.first().is_some_and(|certificate| tls::names(certificate, node)))
}
