//! The clients that openraft drives, one for each member and purpose.

use std::future::Future;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use proto::peer;
use proto::peer::raft_client::RaftClient;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::dial::Dial;
use super::{CHUNK_BYTES, MESSAGE_BYTES_MAX, wire};
use crate::types::{Node, NodeId, Snapshot, TypeConfig, Vote};

/// How soon a member that could not be reached is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// The least time that any call is given: openraft's own measure is the interval of heartbeats.
const CALL_WITHIN: Duration = Duration::from_millis(300);

/// How long a snapshot may take.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(60);

type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type BoxStream<'a, T> = std::pin::Pin<Box<dyn Stream<Item = T> + Send + 'a>>;

/// Makes clients to members.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    dial: Dial,
}

impl Network {
    pub(crate) fn new(dial: Dial) -> Self {
        Self { dial }
    }

    fn client(&self, target: NodeId, node: &Node, is_for_heartbeats: bool) -> Client {
        Client {
            target,
            store: node.store_uuid,
            channel: self.dial.lazily(target, &node.addr),
            dial: self.dial.clone(),
            is_for_heartbeats,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, node: &Node) -> Client {
        self.client(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Node) -> Client {
        self.client(target, node, true)
    }
}

/// A client to one member, with a connection of its own.
#[derive(Debug)]
pub(crate) struct Client {
    target: NodeId,
    store: [u8; 16],
    channel: Result<Channel, Status>,
    dial: Dial,
    is_for_heartbeats: bool,
}

impl Client {
    fn raft(&self) -> Result<RaftClient<Channel>, Status> {
        let client = RaftClient::new(self.channel.clone()?);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn sign<T>(&self, message: T) -> Request<T> {
        self.dial.pass.sign(Request::new(message), self.target, Some(self.store))
    }

    async fn within<T>(
        &self,
        within: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        let answer = tokio::time::timeout(within, call).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded(format!("node {} is silent", self.target)))?;
        answer.map(tonic::Response::into_inner)
    }

    async fn stream<S>(
        &self,
        input: S,
        option: &RPCOption,
    ) -> Result<BoxStream<'static, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, Status>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let mut raft = self.raft()?;
        let entries = input.map(|request| wire::append_to(&request));
        let answers = self.within(budget(option), raft.append(self.sign(entries))).await?;
        let answers = answers.map(|answer| answer.and_then(wire::appended_from).map_err(unreachable));
        Ok(Box::pin(answers))
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut raft = self.raft().map_err(unreachable)?;
        let call = raft.heartbeat(self.sign(wire::append_to(&rpc)));
        self.within(budget(&option), call).await.and_then(wire::beaten_from).map_err(unreachable)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        if self.is_for_heartbeats {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let answers = self.stream(input, &option).await.map_err(unreachable)?;
            let answers: BoxStream<'s, _> = answers;
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut raft = self.raft().map_err(unreachable)?;
        let call = raft.vote(self.sign(wire::ask_vote_to(&rpc)));
        self.within(budget(&option), call).await.and_then(wire::voted_from).map_err(unreachable)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut raft = self.raft().map_err(unreachable)?;
        let call = raft.pre_vote(self.sign(wire::ask_vote_to(&rpc)));
        self.within(budget(&option), call).await.and_then(wire::voted_from).map_err(unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        use peer::snapshot_chunk::Part;
        let mut raft = self.raft().map_err(|status| StreamingError::Unreachable(gone(&status)))?;
        let head = wire::head_to(&vote, &snapshot.meta, snapshot.snapshot.len());
        let body = snapshot.snapshot;
        let chunks = (0..body.len()).step_by(CHUNK_BYTES);
        let parts: Vec<_> = chunks.map(|at| body[at..body.len().min(at + CHUNK_BYTES)].to_vec()).collect();
        let parts = std::iter::once(Part::Head(head)).chain(parts.into_iter().map(Part::Body));
        let parts = stream::iter(parts.map(|part| peer::SnapshotChunk { part: Some(part) }));
        let sent = self.within(SNAPSHOT_WITHIN, raft.snapshot(self.sign(parts)));
        let answer = tokio::select! {
            answer = sent => answer,
            closed = cancel => return Err(closed.into()),
        };
        let vote = answer.and_then(|answer| wire::vote_from(answer.vote));
        vote.map(SnapshotResponse::new).map_err(|status| StreamingError::Unreachable(gone(&status)))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut raft = self.raft().map_err(unreachable)?;
        let call = raft.transfer(self.sign(wire::transfer_to(&request)));
        self.within(budget(&option), call).await.and_then(wire::transferred_from).map_err(unreachable)
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(AGAIN)))
    }
}

fn budget(option: &RPCOption) -> Duration {
    option.soft_ttl().max(CALL_WITHIN)
}

fn gone(status: &Status) -> Unreachable<TypeConfig> {
    Unreachable::from_string(format!("{}: {}", status.code(), status.message()))
}

fn unreachable(status: Status) -> RPCError<TypeConfig> {
    RPCError::Unreachable(gone(&status))
}
