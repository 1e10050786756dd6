//! A node's line to the leader, and the leader's lines to the nodes. Messages may be lost: what they say is said again
//! until it is heard (decision 0006), so that nothing here waits, retries or keeps order over connections.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use ledger::entry::{Contact, Op, Outcome, Reply};
use proto::peer;
use proto::peer::ledger_client::LedgerClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::dial::Dial;
use super::server::Door;
use crate::group::Leadership;
use crate::leader::{OnReply, Unproposed};
use crate::machine::Machine;
use crate::types::NodeId;

/// Messages that wait for a slow line before new ones are dropped.
const WAITING_MAX: usize = 256;

/// How soon a broken line is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// How long a line may take to stand.
const OPEN_WITHIN: Duration = Duration::from_secs(1);

/// How long operations may take at the leader.
const PROPOSE_WITHIN: Duration = Duration::from_secs(10);

/// The leader's way to each node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes(Arc<Mutex<BTreeMap<NodeId, mpsc::Sender<peer::Reply>>>>);

impl Routes {
    fn open(&self, node: NodeId) -> mpsc::Receiver<peer::Reply> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node, sender);
        receiver
    }

    /// Sends a reply on its way, if there is one.
    pub(crate) fn send(&self, reply: &Reply) {
        let routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.get(&reply.who.node.0) {
            let _ = route.try_send(reply.into());
        }
    }
}

/// Where a member is reached.
pub(crate) type FindMember = Arc<dyn Fn(NodeId) -> Option<String> + Send + Sync>;

/// This node's line to whoever leads.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    outbox: mpsc::Sender<Contact>,
}

impl Line {
    /// Keeps a line to the leader as long as another node leads.
    pub(crate) fn start(
        dial: Dial,
        find: FindMember,
        leadership: watch::Receiver<Leadership>,
        on_reply: Arc<OnReply>,
    ) -> Self {
        let (outbox, messages) = mpsc::channel(WAITING_MAX);
        tokio::spawn(keep(dial, find, leadership, messages, on_reply));
        Self { outbox }
    }

    pub(crate) fn send(&self, contact: Contact) {
        let _ = self.outbox.try_send(contact);
    }
}

async fn keep(
    dial: Dial,
    find: FindMember,
    mut leadership: watch::Receiver<Leadership>,
    mut messages: mpsc::Receiver<Contact>,
    on_reply: Arc<OnReply>,
) {
    loop {
        let leader = leadership.borrow_and_update().leader.filter(|&leader| leader != dial.pass.node());
        let address = leader.and_then(|leader| Some((leader, find(leader)?)));
        let Some((leader, address)) = address else {
            // Nobody to talk to: what is said meanwhile is lost.
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { return },
                message = messages.recv() => if message.is_none() { return },
            }
            continue;
        };
        let talked = tokio::select! {
            talked = talk(&dial, leader, &address, &mut messages, &on_reply) => talked,
            changed = leadership.changed() => {
                if changed.is_err() { return }
                continue;
            }
        };
        let Err(status) = talked else { return };
        tracing::debug!(%status, leader, "the line to the leader broke");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Carries messages until the line breaks; ends well only when nobody has anything to say any more.
async fn talk(
    dial: &Dial,
    leader: NodeId,
    address: &str,
    messages: &mut mpsc::Receiver<Contact>,
    on_reply: &OnReply,
) -> Result<(), Status> {
    let mut client = LedgerClient::new(dial.now(leader, address).await?);
    let (sender, outgoing) = mpsc::channel(WAITING_MAX);
    let request = dial.pass.sign(Request::new(ReceiverStream::new(outgoing)), leader, None);
    let opened = tokio::time::timeout(OPEN_WITHIN, client.talk(request)).await;
    let mut replies = opened.map_err(|_| Status::deadline_exceeded("the leader is silent"))??.into_inner();
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(contact) => _ = sender.try_send(peer::Contact::from(&contact)),
                None => return Ok(()),
            },
            reply = replies.message() => match reply? {
                Some(reply) => match Reply::try_from(reply) {
                    Ok(reply) => on_reply(reply),
                    Err(error) => return Err(Status::invalid_argument(error.to_string())),
                },
                None => return Err(Status::unavailable("the leader closed the line")),
            },
        }
    }
}

/// Has the leader propose operations; gives their place in the log and their outcomes.
pub(crate) async fn propose(
    dial: &Dial,
    leader: NodeId,
    address: &str,
    ops: Vec<Op>,
) -> Result<(u64, Vec<Outcome>), Unproposed> {
    // Nothing was sent when there is no connection.
    let nobody = |_| Unproposed::NotLeader { leader: None };
    let mut client = LedgerClient::new(dial.now(leader, address).await.map_err(nobody)?);
    let entry = ledger::entry::Entry { proposer_term: 0, stamp: ledger::time::Stamp(0), ops };
    let proposal = peer::Proposal { entry: proto::encode(&entry) };
    let request = dial.pass.sign(Request::new(proposal), leader, None);
    let answer = tokio::time::timeout(PROPOSE_WITHIN, client.propose(request)).await;
    let answer = match answer.map_err(|_| Unproposed::Indeterminate)? {
        Ok(answer) => answer.into_inner(),
        Err(status) if status.code() == tonic::Code::FailedPrecondition => {
            return Err(Unproposed::NotLeader { leader: None });
        }
        Err(_) => return Err(Unproposed::Indeterminate),
    };
    let outcomes = answer.outcomes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>();
    Ok((answer.index, outcomes.map_err(|_| Unproposed::Indeterminate)?))
}

type Replies = Pin<Box<dyn Stream<Item = Result<peer::Reply, Status>> + Send>>;

#[tonic::async_trait]
impl<M: Machine> peer::ledger_server::Ledger for Door<M> {
    type TalkStream = Replies;

    async fn talk(&self, request: Request<Streaming<peer::Contact>>) -> Result<Response<Replies>, Status> {
        let from = self.pass.check(&request)?;
        let desk = self.desk.get().filter(|desk| desk.leads());
        let desk = desk.ok_or_else(|| Status::unavailable("this node does not lead the group"))?.clone();
        let replies = desk.routes().open(from);
        let mut contacts = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(contact)) = contacts.message().await {
                match Contact::try_from(contact) {
                    // A node speaks for itself only.
                    Ok(contact) if contact.who.node.0 == from => desk.contact(contact),
                    _ => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(replies).map(Ok))))
    }

    async fn propose(&self, request: Request<peer::Proposal>) -> Result<Response<peer::Outcomes>, Status> {
        self.pass.check(&request)?;
        let desk = self.desk.get().ok_or_else(|| Status::failed_precondition("this node does not lead the group"))?;
        let entry = proto::decode(&request.into_inner().entry);
        let entry = entry.map_err(|error| Status::invalid_argument(error.to_string()))?;
        match desk.propose(entry.ops).await {
            Ok((index, outcomes)) => {
                let outcomes = outcomes.iter().map(Into::into).collect();
                Ok(Response::new(peer::Outcomes { index, outcomes }))
            }
            Err(error @ Unproposed::NotLeader { .. }) => Err(Status::failed_precondition(error.to_string())),
            Err(error) => Err(Status::unknown(error.to_string())),
        }
    }
}
