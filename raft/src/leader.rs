//! The leader at work: gathers what nodes say, lets the policy plan one entry, proposes it, and sends the replies.
//!
//! While one entry is on its way to the disks, messages gather for the next: that is the group commit, without a timer.
//! Every node runs this loop; it does something only while the node leads. What is decided stands in `ledger::policy`.

use crate::clock;
use crate::group::{Group, Leadership, ProposeError};
use crate::network::{Line, Routes, propose};
use crate::replica::{LedgerTime, Replica};
use ledger::entry::{Contact, Entry, Op, Outcome, Reply};
use ledger::policy::{Config, Plan, Policy};
use ledger::state::State;
use ledger::time::{Boot, Stamp};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Messages taken into one round, which bounds an entry's size.
const CONTACTS_MAX: usize = 64;

/// How long the loop sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(1);

/// Why operations gave no outcome; named by what the caller does next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproposed {
    /// Nothing happened; ask the leader.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, as far as this node knows.
        leader: Option<u64>,
    },
    /// It may or may not have happened.
    #[error("the outcome is unknown")]
    Indeterminate,
    /// Nothing happened, and nothing will.
    #[error("this node's part in the group ended: {0}")]
    Stopped(String),
}

/// The way to the leader of a group, and to this node's copy of its ledger. Clones share it.
#[derive(Clone)]
pub struct Leader {
    group: Group<Replica>,
    desk: Desk,
    line: Line,
    clock: LedgerTime,
    waiting: watch::Receiver<Vec<(ledger::model::PoolId, Vec<u64>)>>,
    inversion_us_max: Arc<AtomicU64>,
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader").finish_non_exhaustive()
    }
}

enum Message {
    Contact(Contact),
    Ops(Vec<Op>, Answer),
}

/// Takes an entry's index and its outcomes.
type Answer = oneshot::Sender<Result<(u64, Vec<Outcome>), Unproposed>>;

/// Where messages for the leader are left: this node's own, and those of others while this node leads.
#[derive(Clone)]
pub(crate) struct Desk {
    inbox: mpsc::UnboundedSender<Message>,
    routes: Routes,
    leadership: watch::Receiver<Leadership>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    pub(crate) fn leads(&self) -> bool {
        self.leadership.borrow().is_leader
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    pub(crate) fn contact(&self, contact: Contact) {
        // The loop ends only with the process.
        let _ = self.inbox.send(Message::Contact(contact));
    }

    pub(crate) async fn propose(&self, ops: Vec<Op>) -> Result<(u64, Vec<Outcome>), Unproposed> {
        let (answer, outcome) = oneshot::channel();
        let _ = self.inbox.send(Message::Ops(ops, answer));
        outcome.await.unwrap_or(Err(Unproposed::Indeterminate))
    }
}

/// Takes the replies for this node.
pub type OnReply = Box<dyn Fn(Reply) + Send + Sync>;

/// How long a node waits for its own copy to hold what the leader has done for it.
const CATCH_UP: Duration = Duration::from_secs(2);

impl Leader {
    /// Starts the loop beside a member of a group.
    pub fn start(group: Group<Replica>, config: Config, on_reply: OnReply) -> Self {
        let clock = group.with_machine(Replica::clock);
        let on_reply = Arc::new(on_reply);
        let (inbox, messages) = mpsc::unbounded_channel();
        let (depths, waiting) = watch::channel(Vec::new());
        let inversion_us_max = Arc::new(AtomicU64::new(0));
        let desk = Desk { inbox, routes: Routes::default(), leadership: group.leadership() };
        let finder = group.clone();
        let find = Arc::new(move |node| finder.address_of(node));
        let line = Line::start(group.dial().clone(), find, group.leadership(), on_reply.clone());
        let rounds = Rounds {
            leadership: group.leadership(),
            routes: desk.routes.clone(),
            group: group.clone(),
            policy: Policy::new(config),
            clock: clock.clone(),
            messages,
            on_reply,
            depths,
            inversion_us_max: inversion_us_max.clone(),
            term: None,
        };
        group.attach(desk.clone());
        tokio::spawn(rounds.run());
        Self { group, desk, line, clock, waiting, inversion_us_max }
    }

    /// Sends a node's message on its way. Whether it arrived shows in the reply, if there is one.
    pub fn contact(&self, contact: Contact) {
        if self.desk.leads() { self.desk.contact(contact) } else { self.line.send(contact) }
    }

    /// Has operations proposed by whoever leads, and waits for what they gave; this node's copy has them then.
    ///
    /// # Errors
    /// See [`Unproposed`].
    pub async fn propose(&self, ops: Vec<Op>) -> Result<Vec<Outcome>, Unproposed> {
        let leadership = *self.desk.leadership.borrow();
        let elsewhere = leadership.leader.filter(|_| !leadership.is_leader);
        let Some((leader, address)) = elsewhere.and_then(|leader| Some((leader, self.group.address_of(leader)?)))
        else {
            return self.desk.propose(ops).await.map(|(_, outcomes)| outcomes);
        };
        let (index, outcomes) = propose(self.group.dial(), leader, &address, ops).await?;
        if !self.group.applied(index, CATCH_UP).await {
            tracing::warn!(index, "this node lags behind what the leader has done for it");
        }
        Ok(outcomes)
    }

    /// Reads this node's copy of the ledger.
    pub fn with_state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        self.group.with_machine(|replica| read(replica.state()))
    }

    /// Ledger time now, as this node would stamp it.
    pub fn stamp(&self) -> Stamp {
        self.clock.with(|clock| clock.stamp(Boot(clock::boot_us())))
    }

    /// Requests that wait over the cluster, by pool and effective priority; empty elsewhere than on the leader.
    pub fn waiting(&self) -> Vec<(ledger::model::PoolId, Vec<u64>)> {
        self.waiting.borrow().clone()
    }

    /// The worst priority inversion while this node led; see [`Policy::inversion_us_max`].
    pub fn inversion_max(&self) -> Duration {
        Duration::from_micros(self.inversion_us_max.load(Ordering::Relaxed))
    }

    /// The member this loop runs beside.
    pub fn group(&self) -> &Group<Replica> {
        &self.group
    }
}

/// The loop's own things.
struct Rounds {
    routes: Routes,
    group: Group<Replica>,
    leadership: watch::Receiver<Leadership>,
    policy: Policy,
    clock: LedgerTime,
    messages: mpsc::UnboundedReceiver<Message>,
    on_reply: Arc<OnReply>,
    depths: watch::Sender<Vec<(ledger::model::PoolId, Vec<u64>)>>,
    inversion_us_max: Arc<AtomicU64>,
    /// The term this node leads in, once it has begun it.
    term: Option<u64>,
}

/// Operations of somebody who waits for their outcomes, and where these begin.
struct Asked {
    first: usize,
    count: usize,
    answer: Answer,
}

impl Rounds {
    async fn run(mut self) {
        while let Some((contacts, asked)) = self.gather().await {
            self.round(contacts, asked).await;
        }
    }

    /// Waits for a message or until something is due, then takes whatever else is there; none when nobody listens.
    async fn gather(&mut self) -> Option<(Vec<Contact>, Vec<Message>)> {
        let due = self.due();
        let first = tokio::select! {
            message = self.messages.recv() => Some(message?),
            () = tokio::time::sleep(due) => None,
            changed = self.leadership.changed() => {
                if changed.is_err() {
                    tokio::time::sleep(IDLE).await;
                }
                None
            }
        };
        let (mut contacts, mut ops) = (Vec::new(), Vec::new());
        let mut next = first;
        while let Some(message) = next {
            match message {
                Message::Contact(contact) => contacts.push(contact),
                ops_message @ Message::Ops(..) => ops.push(ops_message),
            }
            next = if contacts.len() < CONTACTS_MAX { self.messages.try_recv().ok() } else { None };
        }
        Some((contacts, ops))
    }

    fn due(&self) -> Duration {
        if self.term.is_none() {
            return IDLE;
        }
        let now = Boot(clock::boot_us());
        let clock = self.clock.with(|clock| clock.clone());
        let wake = self.group.with_machine(|replica| self.policy.wake(now, &clock, replica.state()));
        wake.map_or(IDLE, |at| Duration::from_micros(at.0.saturating_sub(now.0)).min(IDLE))
    }

    async fn round(&mut self, contacts: Vec<Contact>, messages: Vec<Message>) {
        let leadership = *self.leadership.borrow();
        let now = Boot(clock::boot_us());
        if !leadership.is_leader {
            self.term = None;
            refuse(messages, &Unproposed::NotLeader { leader: leadership.leader });
            return;
        }
        if self.term != Some(leadership.term) {
            self.term = Some(leadership.term);
            self.clock.with(|clock| clock.lead(leadership.term));
            self.policy.begin_term(leadership.term, now);
        }
        let stamp = self.clock.with(|clock| clock.stamp(now));
        let (group, policy) = (&self.group, &mut self.policy);
        let mut plan = group.with_machine(|replica| policy.plan(now, stamp, replica.state(), contacts));
        let asked = append(&mut plan, messages);
        if plan.ops.is_empty() {
            return;
        }
        let ops = std::mem::take(&mut plan.ops);
        let entry = Entry { proposer_term: leadership.term, stamp, ops };
        self.propose(&entry, plan, asked).await;
    }

    async fn propose(&mut self, entry: &Entry, plan: Plan, asked: Vec<Asked>) {
        match self.group.propose(proto::encode(entry)).await {
            Ok((_, index, applied)) => {
                let (group, policy) = (&self.group, &mut self.policy);
                let replies = group.with_machine(|replica| policy.finish(replica.state(), plan, &applied));
                self.inversion_us_max.store(self.policy.inversion_us_max(), Ordering::Relaxed);
                let own = self.group.identity().node_id;
                for reply in replies {
                    if reply.who.node.0 == own { (self.on_reply)(reply) } else { self.routes.send(&reply) }
                }
                for Asked { first, count, answer } in asked {
                    let outcomes = applied.outcomes.get(first..first + count).map(<[Outcome]>::to_vec);
                    let _ = answer.send(outcomes.map(|outcomes| (index, outcomes)).ok_or(Unproposed::Indeterminate));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "an entry was not committed");
                self.policy.abandon(plan);
                let error = match error {
                    ProposeError::NotLeader { leader } => Unproposed::NotLeader { leader },
                    ProposeError::Stopped(why) => Unproposed::Stopped(why),
                    ProposeError::Indeterminate => Unproposed::Indeterminate,
                    ProposeError::TooLarge { .. } => Unproposed::Stopped(error.to_string()),
                };
                for Asked { answer, .. } in asked {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
        let depths: Vec<_> = self.policy.depth().collect();
        self.depths.send_if_modified(|old| {
            let changed = *old != depths;
            *old = depths;
            changed
        });
    }
}

fn append(plan: &mut Plan, messages: Vec<Message>) -> Vec<Asked> {
    let mut asked = Vec::new();
    for message in messages {
        let Message::Ops(ops, answer) = message else { continue };
        asked.push(Asked { first: plan.ops.len(), count: ops.len(), answer });
        plan.ops.extend(ops);
    }
    asked
}

fn refuse(messages: Vec<Message>, error: &Unproposed) {
    for message in messages {
        if let Message::Ops(_, answer) = message {
            let _ = answer.send(Err(error.clone()));
        }
    }
}
