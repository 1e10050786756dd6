//! The listener for the other nodes: hands what they say to consensus and to the leader's desk.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::Raft;
use openraft::raft::AppendEntriesResponse;
use proto::peer;
use proto::peer::ledger_server::LedgerServer;
use proto::peer::members_server::MembersServer;
use proto::peer::raft_server::RaftServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::tls::Tls;
use super::{MESSAGE_BYTES_MAX, wire};
use crate::apply::Applier;
use crate::leader::Desk;
use crate::machine::Machine;
use crate::network::Pass;
use crate::types::{Snapshot, TypeConfig};

/// A silent connection is asked whether it still stands, this often.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// The largest snapshot that is taken in.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: TcpListener,
    tls: Option<Tls>,
}

/// What the calls of peers are handed to.
#[derive(Debug)]
pub(crate) struct Door<M: Machine> {
    pub(crate) pass: Pass,
    pub(crate) raft: Raft<TypeConfig, Applier<M>>,
    pub(crate) applier: Applier<M>,
    /// Present once the node's loop runs.
    pub(crate) desk: OnceLock<Desk>,
    pub(crate) data_dir: std::path::PathBuf,
    pub(crate) dial: super::Dial,
}

/// Binds the listener, so that a taken port is found before anything starts.
pub(crate) async fn listen(address: SocketAddr, tls: Option<Tls>) -> std::io::Result<Listening> {
    Ok(Listening { listener: TcpListener::bind(address).await?, tls })
}

impl Listening {
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Serves peers until told to stop.
pub(crate) async fn serve<M: Machine>(
    listening: Listening,
    door: std::sync::Arc<Door<M>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE));
    if let Some(tls) = &listening.tls {
        server = match server.tls_config(tls.server()) {
            Ok(server) => server,
            Err(error) => return tracing::error!(%error, "the peer listener cannot use its certificate"),
        };
    }
    let sized = |door: &std::sync::Arc<Door<M>>| {
        let raft = RaftServer::from_arc(door.clone());
        raft.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
    };
    let router = server
        .add_service(sized(&door))
        .add_service(LedgerServer::from_arc(door.clone()))
        .add_service(MembersServer::from_arc(door.clone()));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listening.listener);
    // Connections that stand are told to go, too: their tasks would outlive the listener.
    let stopped = async move { _ = stop.wait_for(|stop| *stop).await };
    if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped).await {
        tracing::error!(%error, "the peer listener ended");
    }
}

type Appended = Pin<Box<dyn Stream<Item = Result<peer::AppendResponse, Status>> + Send>>;

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this node's part in the group ended: {error}"))
}

#[tonic::async_trait]
impl<M: Machine> peer::raft_server::Raft for Door<M> {
    type AppendStream = Appended;

    async fn append(&self, request: Request<Streaming<peer::AppendRequest>>) -> Result<Response<Appended>, Status> {
        self.pass.check(&request)?;
        // What cannot be read ends the stream; the leader begins another one.
        let readable = |message: Result<peer::AppendRequest, Status>| async { wire::append_from(message.ok()?).ok() };
        let requests = request.into_inner().map(readable).buffered(1).take_while(|request| {
            let goes_on = request.is_some();
            async move { goes_on }
        });
        let requests = requests.filter_map(|request| async { request });
        let results = self.raft.stream_append(Box::pin(requests));
        let results = results.map(|result| match result {
            Ok(result) => Ok(wire::appended_to(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        Ok(Response::new(Box::pin(results)))
    }

    async fn heartbeat(&self, request: Request<peer::AppendRequest>) -> Result<Response<peer::AppendResponse>, Status> {
        self.pass.check(&request)?;
        let request = wire::append_from(request.into_inner())?;
        let prev = request.prev_log_id;
        let result = match self.raft.append_entries(request).await.map_err(stopped)? {
            AppendEntriesResponse::Success => Ok(prev),
            AppendEntriesResponse::PartialSuccess(last) => Ok(last),
            AppendEntriesResponse::Conflict => {
                let prev = prev.ok_or_else(|| Status::internal("a conflict with the beginning of the log"))?;
                Err(openraft::raft::StreamAppendError::Conflict(prev))
            }
            AppendEntriesResponse::HigherVote(vote) => Err(openraft::raft::StreamAppendError::HigherVote(vote)),
        };
        Ok(Response::new(wire::appended_to(&result)))
    }

    async fn vote(&self, request: Request<peer::VoteRequest>) -> Result<Response<peer::VoteResponse>, Status> {
        self.pass.check(&request)?;
        let asked = wire::ask_vote_from(request.into_inner())?;
        let voted = self.raft.vote(asked).await.map_err(stopped)?;
        Ok(Response::new(wire::voted_to(&voted)))
    }

    async fn pre_vote(&self, request: Request<peer::VoteRequest>) -> Result<Response<peer::VoteResponse>, Status> {
        self.pass.check(&request)?;
        let asked = wire::ask_vote_from(request.into_inner())?;
        let voted = self.raft.pre_vote(asked).await.map_err(stopped)?;
        Ok(Response::new(wire::voted_to(&voted)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<peer::SnapshotChunk>>,
    ) -> Result<Response<peer::SnapshotResponse>, Status> {
        use peer::snapshot_chunk::Part;
        self.pass.check(&request)?;
        let mut chunks = request.into_inner();
        let head = chunks.message().await?.and_then(|chunk| chunk.part);
        let Some(Part::Head(head)) = head else {
            return Err(Status::invalid_argument("a snapshot begins with its head"));
        };
        let bytes = head.bytes;
        if bytes > SNAPSHOT_BYTES_MAX {
            return Err(Status::invalid_argument(format!("a snapshot of {bytes} bytes is too large")));
        }
        let (vote, meta) = wire::head_from(head)?;
        let mut body = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            let Some(Part::Body(part)) = chunk.part else { return Err(Status::invalid_argument("two heads")) };
            body.extend_from_slice(&part);
            if body.len() as u64 > bytes {
                return Err(Status::invalid_argument("a snapshot is longer than its head says"));
            }
        }
        if body.len() as u64 != bytes {
            return Err(Status::invalid_argument("a snapshot was cut short"));
        }
        let installed = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: body }).await;
        let response = installed.map_err(stopped)?;
        Ok(Response::new(peer::SnapshotResponse { vote: Some(wire::vote_to(&response.vote)) }))
    }

    async fn transfer(
        &self,
        request: Request<peer::TransferRequest>,
    ) -> Result<Response<peer::TransferResponse>, Status> {
        self.pass.check(&request)?;
        let request = wire::transfer_from(request.into_inner())?;
        let response = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(Response::new(wire::transferred_to(&response)))
    }
}
