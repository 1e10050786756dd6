//! A node's keeper: its lease, and admission from it in memory.
//!
//! The keeper reads no clock and sends nothing itself. It is told the time, says what to send and when, and turns
//! replies into wake-ups. While nobody waits on a pool it admits from its slice; otherwise it asks the leader, and only
//! the leader ever says no.

mod estimate;
mod holding;
mod talk;

pub use estimate::Estimate;

#[cfg(test)]
mod tests;

use crate::entry::{Amounts, Ask, End, Hold, Retry, Who};
use crate::model::{
    Dimension, Epoch, Incarnation, NodeId, PoolId, PoolLimits, Priority, Scope, Spend, Tenants, Windows,
};
use crate::rules::Rules;
use crate::time::{Boot, SEND_WITHIN_US, Stamp};
use estimate::Heard;
use holding::{Holding, Untold};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A request, as admission sees it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Of which pool.
    pub pool: PoolId,
    /// How urgent.
    pub priority: Priority,
    /// Worst case, prompt and output, and what that costs.
    pub spend: Spend,
    /// What it weighs among tenants of one priority.
    pub weight: u64,
    /// Whose it is, for fairness.
    pub tenant: Option<Scope>,
    /// The limits of the caller.
    pub tenants: Tenants,
}

/// Names a waiting request on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitId(pub u64);

/// The right to send one request. It must be settled or given back, once.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    pool: PoolId,
    epoch: Epoch,
    amounts: Amounts,
    slot: u64,
    /// The reservation that holds of tenants hang on.
    seq: Option<u64>,
    send_by: Boot,
}

/// What the keeper says to a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may go.
    Go(Ticket),
    /// It waits for the leader's word.
    Wait(WaitId),
    /// It is larger than the limit ever holds.
    Never {
        /// Which limit.
        dimension: Dimension,
        /// What it holds at the most.
        most: u64,
    },
    /// There is no such pool.
    NoPool,
}

/// The leader's word on a waiting request.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// It may go.
    Granted {
        /// The right to send.
        ticket: Ticket,
        /// Its place in the queue when it came, from 1; none when it did not wait there.
        position: Option<u32>,
        /// Aging carried it past its own priority.
        aged: bool,
        /// Tokens left of the smallest quota of tokens.
        quota_left: Option<u64>,
        /// Nano-USD left of the smallest quota of money.
        budget_left: Option<u64>,
    },
    /// A tenant's limit refused it.
    Refused {
        /// Whose.
        scope: Scope,
        /// Which.
        dimension: Dimension,
        /// When it would do.
        retry: Retry,
        /// Units: microseconds.
        retry_us: u64,
    },
}

/// A node's lease and all that hangs on it.
#[derive(Debug)]
pub struct Keeper {
    rules: Rules,
    who: Who,
    up: bool,
    lease_until: Boot,
    stamp: Stamp,
    pools: BTreeMap<PoolId, Holding>,
    backlogs: BTreeMap<PoolId, Heard>,
    waiting: BTreeMap<WaitId, Waiting>,
    by_seq: BTreeMap<u64, WaitId>,
    next_seq: u64,
    next_wait: u64,
    absorbed: Vec<(u64, Untold)>,
    ends: Vec<(End, Untold)>,
    /// Reservations with tenants' holds that run.
    held: BTreeMap<u64, PoolId>,
    term: u64,
    number: u64,
    in_flight: Option<(u64, Boot)>,
    last_sent: Boot,
    unanswered_since: Option<Boot>,
    last_tick: Boot,
    urgent: bool,
    /// The windows that the node's wall clock shows.
    windows: Windows,
    /// The ledger's windows are behind those.
    roll_is_due: bool,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    seq: u64,
    since: Boot,
    /// Ledger time known when it came: no refund of it counts from before.
    stamp: Stamp,
    /// When it was last told of; none means that the leader does not know of it.
    sent: Option<Boot>,
    /// The first message that named it to the present leader.
    named: Option<u64>,
}

impl Ticket {
    /// The reservation that its tenants' holds hang on, if there is one.
    pub fn reservation(&self) -> Option<u64> {
        self.seq
    }
}

impl Keeper {
    /// A keeper that holds nothing yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            who: Who::default(),
            up: false,
            lease_until: Boot(0),
            stamp: Stamp(0),
            pools: BTreeMap::new(),
            backlogs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            by_seq: BTreeMap::new(),
            next_seq: 1,
            next_wait: 1,
            absorbed: Vec::new(),
            ends: Vec::new(),
            held: BTreeMap::new(),
            term: 0,
            number: 0,
            in_flight: None,
            last_sent: Boot(0),
            unanswered_since: None,
            last_tick: Boot(0),
            urgent: false,
            windows: Windows::default(),
            roll_is_due: false,
        }
    }

    /// The node is known to the ledger: its process has an incarnation.
    pub fn node_up(&mut self, node: NodeId, incarnation: Incarnation, stamp: Stamp) {
        self.who = Who { node, incarnation, epoch: Epoch(1) };
        self.up = true;
        self.stamp = stamp;
    }

    /// Learns what the wall clock shows, and what the ledger counts for. While the ledger is behind, the node speaks up.
    pub fn set_windows(&mut self, shown: Windows, ledger: Windows) {
        self.windows = shown;
        self.roll_is_due = shown.day > ledger.day || shown.month > ledger.month;
    }

    /// Learns a pool's limits. A limit that is gone, or new, takes effect with the next admission.
    pub fn set_pool(&mut self, id: PoolId, limits: PoolLimits) {
        let holding = self.pools.entry(id).or_insert_with(|| Holding::new(limits));
        if holding.limits != limits {
            holding.limits = limits;
            self.urgent |= holding.release_all();
        }
    }

    /// Forgets pools that are no more, and gives the requests that waited for them.
    pub fn retain_pools(&mut self, known: impl Fn(PoolId) -> bool) -> Vec<WaitId> {
        self.pools.retain(|&id, _| known(id));
        let gone = self.waiting.iter().filter(|(_, waiting)| !known(waiting.request.pool)).map(|(&id, _)| id);
        let gone: Vec<_> = gone.collect();
        for &id in &gone {
            self.leave(id);
        }
        gone
    }

    /// Admits a request from memory, or lets it wait for the leader.
    pub fn admit(&mut self, now: Boot, request: &Request) -> Decision {
        let Some(holding) = self.pools.get_mut(&request.pool) else { return Decision::NoPool };
        if let Some((dimension, most)) = never_fits(&holding.limits, request.spend.tokens) {
            return Decision::Never { dimension, most };
        }
        let cost = holding.cost(request.spend.tokens);
        let unlimited = holding.is_unlimited();
        let leased = self.up && (!self.rules.holder_checks_expiry || now < self.lease_until);
        let green = leased && !holding.contended && holding.covers(cost);
        if request.tenants.is_empty() && (unlimited || green) {
            let slot = self.stamp.slot();
            holding.spend(cost, slot);
            if holding.runs_low() && now.0 >= self.last_sent.0 + crate::time::RENEW_US / 4 {
                self.urgent = true;
            }
            let send_by = self.send_by(now, unlimited);
            return Decision::Go(Ticket {
                pool: request.pool,
                epoch: self.who.epoch,
                amounts: cost,
                slot,
                seq: None,
                send_by,
            });
        }
        if !holding.contended && holding.waiting == 0 && request.tenants.is_empty() {
            holding.missed(cost);
            holding.release_all();
        }
        holding.waiting += 1;
        Decision::Wait(self.wait(now, request))
    }

    /// Says whether the request's head may be written now (rule g).
    pub fn may_send(&self, now: Boot, ticket: &Ticket) -> bool {
        !self.rules.send_checked_again || now < ticket.send_by
    }

    /// Takes a ticket back whose request was not sent.
    pub fn give_back(&mut self, ticket: Ticket) {
        self.finish(&ticket, None);
    }

    /// Ends a reservation with what its request used.
    pub fn settle(&mut self, ticket: Ticket, used: Spend) {
        self.finish(&ticket, Some(used));
    }

    /// A waiting request leaves the queue.
    pub fn leave(&mut self, id: WaitId) {
        let Some(waiting) = self.waiting.remove(&id) else { return };
        self.by_seq.remove(&waiting.seq);
        self.no_longer_waits(waiting.request.pool);
        self.end(waiting.seq, None);
    }

    /// Whether there is something that the leader should hear at once.
    pub fn is_urgent(&self) -> bool {
        self.urgent && self.in_flight.is_none()
    }

    /// Since when a message has been on its way without a reply.
    pub fn unanswered_since(&self) -> Option<Boot> {
        self.unanswered_since
    }

    /// The node and its life.
    pub fn who(&self) -> Who {
        self.who
    }

    /// When the lease ends, by the node's own clock.
    pub fn lease_until(&self) -> Boot {
        self.lease_until
    }

    /// Requests in flight and units at hand of a pool: `(in flight, unspent tokens, unspent requests)`.
    pub fn holds(&self, pool: PoolId) -> (u64, u64, u64) {
        let unspent = |holding: &Holding| (holding.in_use, holding.tokens.free(), holding.requests.free());
        self.pools.get(&pool).map_or((0, 0, 0), unspent)
    }

    #[cfg(test)]
    pub(crate) fn seq_of(&self, id: WaitId) -> Option<u64> {
        self.waiting.get(&id).map(|waiting| waiting.seq)
    }

    fn send_by(&self, now: Boot, unlimited: bool) -> Boot {
        let soon = Boot(now.0 + SEND_WITHIN_US);
        // The cap is part of rule (b): a holder that forgot its lease's end would not know it here either.
        if unlimited || !self.rules.holder_checks_expiry { soon } else { soon.min(self.lease_until) }
    }

    fn wait(&mut self, now: Boot, request: &Request) -> WaitId {
        let id = WaitId(self.next_wait);
        self.next_wait += 1;
        let seq = self.number_request(id);
        let waiting = Waiting { request: request.clone(), seq, since: now, stamp: self.stamp, sent: None, named: None };
        self.waiting.insert(id, waiting);
        self.urgent = true;
        id
    }

    fn number_request(&mut self, id: WaitId) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.by_seq.insert(seq, id);
        seq
    }

    fn finish(&mut self, ticket: &Ticket, used: Option<Spend>) {
        if let Some(holding) = self.pools.get_mut(&ticket.pool) {
            let Amounts { tokens, requests, permits } = ticket.amounts;
            let taken = used.unwrap_or_default().tokens;
            if tokens > 0 && taken > tokens {
                holding.overrun += taken - tokens;
                holding.untold.touch();
            }
            if ticket.epoch == self.who.epoch {
                let unsent = if used.is_none() { requests } else { 0 };
                holding.refund(ticket.slot, tokens.saturating_sub(taken), unsent);
                holding.close_slot(ticket.slot);
            }
            if permits > 0 && holding.free_permit() {
                self.urgent = true;
            }
        }
        if let Some(seq) = ticket.seq {
            self.held.remove(&seq);
            self.end(seq, used);
        }
    }

    fn end(&mut self, seq: u64, used: Option<Spend>) {
        let mut untold = Untold::default();
        untold.touch();
        self.ends.push((End { seq, used }, untold));
        self.urgent = true;
    }

    fn no_longer_waits(&mut self, pool: PoolId) {
        if let Some(holding) = self.pools.get_mut(&pool) {
            holding.waiting = holding.waiting.saturating_sub(1);
        }
    }

    /// Turns a granted hold into a ticket; a hold that came too late is given back.
    fn take_up(&mut self, now: Boot, waiting: &Waiting, epoch: Epoch, hold: &Hold) -> Option<Ticket> {
        let leased = !self.rules.holder_checks_expiry || now < self.lease_until;
        if epoch != self.who.epoch || !leased {
            return None;
        }
        let slot = hold.slot;
        let holding = self.pools.get_mut(&waiting.request.pool)?;
        holding.absorb(hold.amounts, slot);
        let mut untold = Untold::default();
        untold.touch();
        self.absorbed.push((waiting.seq, untold));
        if hold.tenants {
            self.held.insert(waiting.seq, waiting.request.pool);
        }
        self.urgent = true;
        Some(Ticket {
            pool: waiting.request.pool,
            epoch,
            amounts: hold.amounts,
            slot,
            seq: hold.tenants.then_some(waiting.seq),
            send_by: self.send_by(now, false),
        })
    }

    fn ask(&self, now: Boot, waiting: &Waiting) -> Ask {
        let request = &waiting.request;
        Ask {
            seq: waiting.seq,
            pool: request.pool,
            priority: request.priority,
            spend: request.spend,
            weight: request.weight,
            tenant: request.tenant,
            tenants: Arc::clone(&request.tenants),
            waited_us: now.0.saturating_sub(waiting.since.0),
        }
    }
}

/// The limit that a request of `tokens` can never fit in, with what that holds.
fn never_fits(limits: &PoolLimits, tokens: u64) -> Option<(Dimension, u64)> {
    let too_many = limits.tokens.filter(|limit| tokens > limit.burst).map(|limit| (Dimension::Tokens, limit.burst));
    let none_at_once = limits.concurrent.filter(|&limit| limit == 0).map(|_| (Dimension::Concurrent, 0));
    let none_ever = limits.requests.filter(|limit| limit.burst == 0).map(|_| (Dimension::Requests, 0));
    too_many.or(none_at_once).or(none_ever)
}
