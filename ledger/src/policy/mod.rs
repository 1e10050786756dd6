//! The leader's choice: who gets what, and when. Nothing here can break a limit, since the ledger clamps; what stands
//! here makes scheduling good.
//!
//! The leader works in rounds. [`Policy::plan`] turns the messages at hand into one log entry; once that is applied,
//! [`Policy::finish`] turns its outcomes into replies. While a round is in flight, messages gather for the next: that
//! is the batching, and there is no timer in it.

mod finish;
mod grants;
mod queue;
mod windows;

#[cfg(test)]
mod tests;

use crate::entry::{Ask, Contact, Op, Who};
use crate::model::{NodeId, PoolId, Scope, Windows};
use crate::state::{Claims, State};
use crate::time::{Boot, LEASE_US, LedgerClock, Stamp};
use queue::{Queue, Waiter};
use std::collections::{BTreeMap, BTreeSet};

/// Reservations in one entry, which bounds an entry's size.
const RESERVES_MAX: usize = 200;

/// How long the leader sleeps at the most while somebody waits, so that aging is seen.
const LOOK_AGAIN_US: u64 = 50_000;

/// How often rows that hold nothing are dropped.
const CHECKPOINT_US: u64 = 60_000_000;

/// How requests of different priorities share what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    /// The more urgent first, always.
    Strict,
    /// Each priority gets a share: `levels - priority` parts.
    WeightedFair,
    /// Priority 0 first, always; the others share.
    Hybrid,
}

/// How the leader schedules.
#[derive(Clone, Debug)]
pub struct Config {
    /// How priorities share.
    pub discipline: Discipline,
    /// How many priorities there are.
    pub levels: u8,
    /// A waiting request gains one priority in this time; 0 is never.
    pub aging_us: u64,
}

impl Config {
    fn aged(&self, priority: u8, waited_us: u64) -> usize {
        let own = usize::from(priority).min(usize::from(self.levels.max(1)) - 1);
        if own == 0 || self.aging_us == 0 {
            return own;
        }
        let steps = usize::try_from(waited_us / self.aging_us).unwrap_or(usize::MAX);
        own.saturating_sub(steps).max(1)
    }

    fn share(&self, class: usize) -> u64 {
        (usize::from(self.levels) - class.min(usize::from(self.levels) - 1)) as u64
    }
}

/// The leader's memory: soft, and built anew from the nodes' messages by every new leader.
#[derive(Debug)]
pub struct Policy {
    config: Config,
    term: u64,
    queues: BTreeMap<PoolId, Queue>,
    peers: BTreeMap<NodeId, Peer>,
    claims: BTreeMap<Scope, Claims>,
    checkpoint: Boot,
    inversion_us_max: u64,
}

#[derive(Debug)]
struct Peer {
    who: Who,
    heard: Boot,
    /// Its newest message. An older one that comes behind asks for nothing that this one did not, or that was answered.
    number: u64,
    /// The windows that its wall clock shows.
    windows: Windows,
    /// Pools that it was last told are contended.
    contended: BTreeSet<PoolId>,
}

/// One round: the operations to propose, and what their outcomes are for.
#[derive(Debug, Default)]
pub struct Plan {
    /// The operations. More may be appended; their outcomes follow behind.
    pub ops: Vec<Op>,
    contacts: Vec<Heard>,
    reserves: Vec<(usize, Who, Waiter)>,
    fresh: Vec<(PoolId, NodeId, u64)>,
    touched: BTreeSet<(NodeId, PoolId)>,
    planned: Boot,
}

#[derive(Debug)]
struct Heard {
    op: usize,
    who: Who,
    number: u64,
    sent: Boot,
}

impl Policy {
    /// A policy that knows of nobody yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            term: 0,
            queues: BTreeMap::new(),
            peers: BTreeMap::new(),
            claims: BTreeMap::new(),
            checkpoint: Boot(0),
            inversion_us_max: 0,
        }
    }

    /// Begins to lead: nothing is known of who waits until the nodes say so.
    pub fn begin_term(&mut self, term: u64, now: Boot) {
        let inversion_us_max = self.inversion_us_max;
        *self = Self { term, checkpoint: now, inversion_us_max, ..Self::new(self.config.clone()) };
    }

    /// Plans one round from the messages at hand.
    pub fn plan(&mut self, now: Boot, stamp: Stamp, state: &State, contacts: Vec<Contact>) -> Plan {
        let mut plan = Plan { planned: now, ..Plan::default() };
        let mut forecast = grants::Forecast::new(state, stamp);
        let mut wants = Vec::new();
        for contact in contacts {
            wants.extend(contact.wants.iter().map(|want| (contact.who, *want)));
            forecast.hear(state, &contact);
            self.hear(now, state, contact, &mut plan);
        }
        self.roll(stamp, state, &mut plan);
        self.drop_silent(now, stamp, state, &mut plan);
        for (&pool, queue) in &mut self.queues {
            queue.age(now, &self.config);
            while let Some(head) = queue.head(&self.config) {
                if plan.reserves.len() >= RESERVES_MAX || !forecast.take(pool, head.ask.spend.tokens) {
                    break;
                }
                let Some(waiter) = queue.pop(&self.config) else { break };
                plan.reserve(self.peers.get(&waiter.node).map(|peer| peer.who), waiter);
            }
        }
        self.grant(&mut plan, &mut forecast, wants);
        if now.0 >= self.checkpoint.0 + CHECKPOINT_US {
            self.checkpoint = now;
            plan.ops.push(Op::Checkpoint);
        }
        plan
    }

    /// When the next round is due without any message: a refill serves a head, a lost permit comes back.
    pub fn wake(&self, now: Boot, clock: &LedgerClock, state: &State) -> Option<Boot> {
        let mut due: Option<Boot> = None;
        let mut at = |when: Boot| due = Some(due.map_or(when, |due| due.min(when)));
        for (&id, queue) in self.queues.iter().filter(|(_, queue)| !queue.is_empty()) {
            at(Boot(now.0 + LOOK_AGAIN_US));
            let (Some(head), Some(pool)) = (queue.head(&self.config), state.pools.get(&id)) else { continue };
            let cost = pool.cost(head.ask.spend.tokens);
            if cost.permits > pool.permits_free() {
                continue;
            }
            let reaches = |bucket: &Option<crate::state::Bucket>, units: u64| match bucket {
                Some(bucket) if units > 0 => {
                    if bucket.outstanding > bucket.limit.burst {
                        None
                    } else {
                        bucket.reaches(units)
                    }
                }
                _ => Some(Stamp(0)),
            };
            if let (Some(tokens), Some(requests)) =
                (reaches(&pool.tokens, cost.tokens), reaches(&pool.requests, cost.requests))
            {
                at(clock.boot_at(tokens.max(requests)).max(now));
            }
        }
        if let Some(expiry) = state.next_expiry() {
            at(clock.boot_at(expiry).max(Boot(now.0 + 1_000)));
        }
        due
    }

    /// Requests that wait, by pool and class.
    pub fn depth(&self) -> impl Iterator<Item = (PoolId, Vec<u64>)> + '_ {
        self.queues.iter().map(|(&pool, queue)| (pool, queue.waiting().0))
    }

    /// The longest time, in microseconds, that a request waited which the leader knew of, up to a grant to a less urgent one
    /// of its pool. Urgent is meant with aging. Under strict priorities there is none but for what the ledger clamps;
    /// where priorities share, it tells how long the more urgent had to.
    pub fn inversion_us_max(&self) -> u64 {
        self.inversion_us_max
    }

    fn hear(&mut self, now: Boot, state: &State, contact: Contact, plan: &mut Plan) {
        let who = contact.who;
        let peer = self.peers.entry(who.node).or_insert_with(|| Peer {
            who,
            heard: now,
            number: 0,
            windows: Windows::default(),
            contended: BTreeSet::new(),
        });
        if peer.who.incarnation != who.incarnation {
            let newer = who.incarnation > peer.who.incarnation;
            if newer {
                *peer = Peer { who, heard: now, number: 0, windows: Windows::default(), contended: BTreeSet::new() };
                self.drop_node(who.node);
            }
        }
        let mut is_new = false;
        if let Some(peer) = self.peers.get_mut(&who.node) {
            peer.who = peer.who.max(who);
            peer.heard = now;
            peer.windows = contact.windows;
            is_new = peer.who == who && contact.number > peer.number;
            if is_new {
                peer.number = contact.number;
            }
        }
        for end in &contact.report.ends {
            self.leave(who.node, end.seq);
        }
        for pool in &contact.report.pools {
            plan.touched.insert((who.node, pool.pool));
        }
        for want in &contact.wants {
            plan.touched.insert((who.node, want.pool));
        }
        if is_new {
            for ask in contact.asks {
                self.enqueue(now, state, who.node, ask, plan);
            }
        }
        plan.contacts.push(Heard { op: plan.ops.len(), who, number: contact.number, sent: contact.sent });
        plan.ops.push(Op::Contact { who, report: contact.report });
    }

    fn enqueue(&mut self, now: Boot, state: &State, node: NodeId, ask: Ask, plan: &mut Plan) {
        let ended = state.node(node).is_some_and(|row| row.has_ended(ask.seq));
        let known = self.queues.values().any(|queue| queue.contains(node, ask.seq));
        if ended || known || !state.pools.contains_key(&ask.pool) {
            return;
        }
        for limits in ask.tenants.iter() {
            let claims = self.claims.entry(limits.scope).or_default();
            claims.spend = claims.spend.saturating_add(ask.spend);
            claims.requests += 1;
        }
        plan.fresh.push((ask.pool, node, ask.seq));
        plan.touched.insert((node, ask.pool));
        let levels = self.config.levels;
        let queue = self.queues.entry(ask.pool).or_insert_with(|| Queue::new(levels));
        let since = Boot(now.0.saturating_sub(ask.waited_us));
        let class = self.config.aged(ask.priority.0, ask.waited_us);
        queue.push(Waiter { node, ask, since, known: now, class, position: None });
    }

    fn leave(&mut self, node: NodeId, seq: u64) {
        let removed: Vec<_> = self.queues.values_mut().filter_map(|queue| queue.remove(node, seq)).collect();
        removed.iter().for_each(|waiter| self.unclaim(&waiter.ask));
    }

    fn drop_node(&mut self, node: NodeId) {
        let removed: Vec<_> = self.queues.values_mut().flat_map(|queue| queue.remove_node(node)).collect();
        removed.iter().for_each(|waiter| self.unclaim(&waiter.ask));
    }

    fn unclaim(&mut self, ask: &Ask) {
        for limits in ask.tenants.iter() {
            let Some(claims) = self.claims.get_mut(&limits.scope) else { continue };
            claims.spend = claims.spend.saturating_sub(ask.spend);
            claims.requests = claims.requests.saturating_sub(1);
            if *claims == Claims::default() {
                self.claims.remove(&limits.scope);
            }
        }
    }

    /// Ends leases that nobody renewed, and forgets requests of nodes that fell silent.
    fn drop_silent(&mut self, now: Boot, stamp: Stamp, state: &State, plan: &mut Plan) {
        let silent: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| now.0 > peer.heard.0 + LEASE_US).map(|(&node, _)| node).collect();
        for node in silent {
            self.peers.remove(&node);
            self.drop_node(node);
        }
        plan.ops.extend(state.due_expiries(stamp).map(|who| Op::Expire { who }));
        if state.lost_is_due(stamp) {
            plan.ops.push(Op::FreeLost);
        }
    }
}

impl Plan {
    fn reserve(&mut self, who: Option<Who>, waiter: Waiter) {
        let Some(who) = who else { return };
        self.touched.insert((waiter.node, waiter.ask.pool));
        let ask = &waiter.ask;
        let op = Op::Reserve { who, seq: ask.seq, pool: ask.pool, spend: ask.spend, tenants: ask.tenants.clone() };
        self.reserves.push((self.ops.len(), who, waiter));
        self.ops.push(op);
    }
}
