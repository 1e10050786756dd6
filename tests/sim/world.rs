//! The simulated world: true time, the network, the log, and what the upstream sees.

use super::arrivals::Arrivals;
use super::chance::Chance;
use super::faults::Faults;
use super::node::{Job, Node, Running};
use crate::entry::{Contact, Entry, Op, Outcome, Reply};
use crate::keeper::{Decision, Request, WaitId, Word};
use crate::model::{
    BucketLimit, Incarnation, NodeId, PoolId, PoolLimits, Priority, QuotaKind, QuotaLimit, Quotas, Rate, Scope,
    ScopeKind, Spend, TenantLimits, Windows,
};
use crate::policy::Plan;
use crate::rules::Rules;
use crate::state::Digest;
use crate::time::{SEND_WITHIN_US, Stamp};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

const POOL: PoolId = PoolId(0);
const REQUEST_US_MAX: u64 = 4_000_000;
const HEARTBEAT_US: u64 = 100_000;
const RATE: u64 = 2_000;
const PERMITS: u64 = 12;
const DAY_US: u64 = 5_000_000;

/// What a token costs, and what the tenant may spend in all.
const PRICE: u64 = 3;
const BUDGET: u64 = 12_000;

/// One run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) faults: Faults,
    pub(super) rules: Rules,
    /// Only tokens are scarce, and always are.
    pub(super) saturated: bool,
    /// A third of the requests are of a tenant with a quota of tokens by the day and of money by the month.
    pub(super) tenants: bool,
    pub(super) busy_us: u64,
}

impl Setup {
    pub(super) fn new(seed: u64) -> Self {
        let faults = Faults::default();
        Self { seed, nodes: 3, faults, rules: Rules::ALL, saturated: false, tenants: false, busy_us: 20_000_000 }
    }
}

/// What a run showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    seed: u64,
    excess_tokens: u64,
    excess_requests: u64,
    in_flight_max: u64,
    broken: Option<String>,
    left: u64,
    left_waiting: usize,
    served: u64,
    /// Money that the tenant's requests really cost.
    cost: u64,
    /// The same as the ledger counts it.
    charged: u64,
    used_percent: u64,
    inversion_us: u64,
}

impl Report {
    pub(super) fn is_sound(&self) -> bool {
        self.excess_tokens == 0
            && self.excess_requests == 0
            && self.in_flight_max <= PERMITS
            && self.broken.is_none()
            && self.cost <= BUDGET
            && self.cost <= self.charged
    }

    pub(super) fn assert_sound(&self) {
        assert!(self.is_sound(), "a limit broke: {self:?}");
        assert_eq!(self.left, 0, "units were left out after quiet: {self:?}");
        assert_eq!(self.left_waiting, 0, "requests still wait after quiet: {self:?}");
        assert!(self.served > 0, "nothing was served: {self:?}");
    }

    pub(super) fn assert_used(&self, percent: u64) {
        assert!(self.used_percent >= percent, "capacity lay idle: {self:?}");
    }

    pub(super) fn assert_no_inversion_beyond_us(&self, most: u64) {
        assert!(self.inversion_us <= most, "a less urgent request went first: {self:?}");
    }
}

#[derive(Clone, Debug)]
enum Event {
    Arrive(usize),
    Poll(usize, u64),
    Up { from: usize, life: u64, boot: u64 },
    IsUp { to: usize, life: u64, incarnation: Incarnation, stamp: Stamp },
    Contact { to: usize, contact: Contact },
    Reply { to: usize, reply: Reply },
    Append { to: usize, term: u64, length: usize, commit: usize, leader: usize },
    Stored { node: usize, term: u64, length: usize },
    Heartbeat(u64),
    Send { node: usize, life: u64, id: u64 },
    UpstreamDone(u64),
    Finish { node: usize, life: u64, id: u64 },
    Leave { node: usize, life: u64, wait: WaitId },
    Fault,
    Restart(usize),
    Heal,
    Elect,
}

pub(super) struct World {
    setup: Setup,
    chance: Chance,
    now: u64,
    ties: u64,
    events: BTreeMap<(u64, u64), Event>,
    nodes: Vec<Node>,
    log: Vec<(u64, Rc<Entry>)>,
    stored: Vec<usize>,
    committed: usize,
    leader: usize,
    term: u64,
    blocked: BTreeSet<(usize, usize)>,
    limits: PoolLimits,
    tokens: Arrivals,
    requests: Arrivals,
    upstream: BTreeSet<u64>,
    next_job: u64,
    gap_us: u64,
    digests: BTreeMap<usize, Digest>,
    up_asks: BTreeMap<(usize, u64), u64>,
    report: Report,
}

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        let mut chance = Chance::new(setup.seed);
        let nodes: Vec<_> = (0..setup.nodes).map(|_| Node::new(setup.rules, &mut chance)).collect();
        let burst_s = [1, 4][usize::from(chance.per_mille(500))];
        let tokens = BucketLimit { rate: Rate::per_sec(RATE), burst: RATE * if setup.saturated { 4 } else { burst_s } };
        let requests = BucketLimit { rate: Rate::per_sec(20), burst: 20 };
        let limits = PoolLimits {
            tokens: Some(tokens),
            requests: (!setup.saturated).then_some(requests),
            concurrent: (!setup.saturated).then_some(PERMITS),
        };
        // Mean gap between arrivals over all nodes; an average request uses some 150 tokens.
        let gap_us = if setup.saturated { 40_000 } else { [200_000, 60_000, 15_000][chance.between(0, 2) as usize] };
        let stored = vec![0; setup.nodes];
        Self {
            setup,
            chance,
            now: 0,
            ties: 0,
            events: BTreeMap::new(),
            nodes,
            log: Vec::new(),
            stored,
            committed: 0,
            leader: 0,
            term: 0,
            blocked: BTreeSet::new(),
            limits,
            tokens: Arrivals::default(),
            requests: Arrivals::default(),
            upstream: BTreeSet::new(),
            next_job: 0,
            gap_us: gap_us * setup.nodes as u64,
            digests: BTreeMap::new(),
            up_asks: BTreeMap::new(),
            report: Report { seed: setup.seed, ..Report::default() },
        }
    }

    pub(super) fn run(mut self) -> Report {
        self.elect(0);
        for node in 0..self.setup.nodes {
            self.at(1_000, Event::Poll(node, 0));
            self.at(50_000, Event::Arrive(node));
        }
        self.at(2_000_000, Event::Fault);
        let busy = self.setup.busy_us;
        let (settled, quiet) = (busy + 20_000_000, busy + 200_000_000);
        let mut healed = false;
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > quiet || (at > settled && self.is_quiet()) {
                break;
            }
            self.now = at;
            if at > busy && !healed {
                healed = true;
                self.heal_everything();
            }
            self.handle(event);
        }
        self.conclude()
    }

    fn is_quiet(&self) -> bool {
        let idle = |node: &Node| node.waiting.is_empty() && node.running.is_empty();
        self.nodes.iter().all(idle) && self.nodes[self.leader].state.outstanding() == 0
    }

    fn conclude(mut self) -> Report {
        let limit = |limit: Option<BucketLimit>, arrivals: &Arrivals| {
            limit.map_or(0, |limit| arrivals.worst_excess(limit, SEND_WITHIN_US * 1_001 / 1_000))
        };
        self.report.excess_tokens = limit(self.limits.tokens, &self.tokens);
        self.report.excess_requests = limit(self.limits.requests, &self.requests);
        let from = 4_000_000;
        let filled = RATE * (self.setup.busy_us - from) / 1_000_000;
        self.report.used_percent = self.tokens.total_between(from, self.setup.busy_us) * 100 / filled;
        self.report.left = self.nodes[self.leader].state.outstanding();
        let row = self.nodes[self.leader].state.tenant_view(tenant().scope, Stamp(0));
        let money = row.and_then(|row| row.quotas.into_iter().find(|quota| quota.kind == QuotaKind::MonthCost));
        self.report.charged = money.map_or(0, |money| money.used);
        self.report.left_waiting = self.nodes.iter().map(|node| node.waiting.len()).sum();
        self.report
    }

    fn at(&mut self, at: u64, event: Event) {
        self.ties += 1;
        self.events.insert((at.max(self.now), self.ties), event);
    }

    fn after(&mut self, us: u64, event: Event) {
        self.at(self.now + us, event);
    }

    /// Sends a message; to itself a node always gets through.
    fn send(&mut self, from: usize, to: usize, event: Event) {
        if from == to {
            self.after(5, event);
            return;
        }
        if self.blocked.contains(&(from, to)) {
            return;
        }
        let rough = self.setup.faults.network && self.now < self.setup.busy_us;
        if rough && self.chance.per_mille(20) {
            return;
        }
        let copies = if rough && self.chance.per_mille(30) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = rough && self.chance.per_mille(15);
            let delay = if slow { self.chance.between(2_000, 1_500_000) } else { self.chance.between(100, 1_500) };
            self.after(delay, event.clone());
        }
    }

    fn handle(&mut self, event: Event) {
        if let Some(node) = target(&event)
            && self.nodes[node].paused_until > self.now
        {
            let resume = self.nodes[node].paused_until + self.chance.between(0, 50);
            self.at(resume, event);
            return;
        }
        match event {
            Event::Arrive(node) => self.arrive(node),
            Event::Poll(node, life) => self.poll(node, life),
            Event::Up { from, life, boot } => {
                self.up_asks.insert((from, life), boot);
                // A leader at rest is woken by what is proposed.
                if self.nodes[self.leader].next_poll.is_none() {
                    self.round(self.leader);
                }
            }
            Event::IsUp { to, life, incarnation, stamp } => self.is_up(to, life, incarnation, stamp),
            Event::Contact { to, contact } => {
                if self.nodes[to].ready && self.nodes[to].alive {
                    self.nodes[to].inbox.push(contact);
                    self.round(to);
                }
            }
            Event::Reply { to, reply } => self.reply(to, &reply),
            Event::Append { to, term, length, commit, leader } => self.append(to, term, length, commit, leader),
            Event::Stored { node, term, length } => self.stored(node, term, length),
            Event::Heartbeat(term) => self.heartbeat(term),
            Event::Send { node, life, id } => self.send_request(node, life, id),
            Event::UpstreamDone(id) => _ = self.upstream.remove(&id),
            Event::Finish { node, life, id } => self.finish(node, life, id),
            Event::Leave { node, life, wait } => self.leave(node, life, wait),
            Event::Fault => self.fault(),
            Event::Restart(node) => self.restart(node),
            Event::Heal => self.blocked.clear(),
            Event::Elect => self.elect_someone(),
        }
    }

    // The workload.

    fn arrive(&mut self, node: usize) {
        if self.now >= self.setup.busy_us {
            return;
        }
        let gap = self.chance.between(1, 2 * self.gap_us);
        self.after(gap, Event::Arrive(node));
        if !self.nodes[node].alive {
            return;
        }
        let tokens = self.chance.between(10, 400);
        let least = if self.setup.saturated { tokens * 3 / 4 } else { tokens / 20 };
        let limited = self.setup.tenants && self.next_job.is_multiple_of(3);
        let tenants = if limited { Arc::from([tenant()]) } else { Arc::from([]) };
        let request = Request {
            pool: POOL,
            priority: Priority(self.chance.between(0, 9) as u8),
            spend: Spend { tokens, cost_nano_usd: tokens * PRICE },
            weight: tokens,
            tenant: None,
            tenants,
        };
        let used = self.chance.between(least, tokens);
        let longest = if self.setup.saturated { 500_000 } else { 3_000_000 };
        let runs_us = self.chance.between(1_000, longest);
        self.next_job += 1;
        let job = Job { id: self.next_job, request, arrived_us: self.now, used, runs_us };
        self.admit(node, job);
    }

    fn admit(&mut self, node: usize, job: Job) {
        let life = self.nodes[node].life;
        let now = self.nodes[node].boot(self.now);
        match self.nodes[node].keeper.admit(now, &job.request) {
            Decision::Go(ticket) => self.go(node, ticket, job),
            Decision::Wait(wait) => {
                self.nodes[node].waiting.insert(wait, job);
                if self.chance.per_mille(100) {
                    let patience = self.chance.between(100_000, 8_000_000);
                    self.after(patience, Event::Leave { node, life, wait });
                }
            }
            Decision::Never { .. } | Decision::NoPool => {}
        }
        self.schedule_poll(node);
    }

    fn go(&mut self, node: usize, ticket: crate::keeper::Ticket, job: Job) {
        let (id, life) = (job.id, self.nodes[node].life);
        self.nodes[node].running.insert(id, Running { ticket, job, arrival: None });
        let stall = if self.setup.faults.pauses && self.chance.per_mille(10) { 300_000 } else { 3_000 };
        let delay = self.chance.between(0, stall);
        self.after(delay, Event::Send { node, life, id });
    }

    fn send_request(&mut self, node: usize, life: u64, id: u64) {
        if self.nodes[node].life != life {
            return;
        }
        let now = self.nodes[node].boot(self.now);
        let Some(mut running) = self.nodes[node].running.remove(&id) else { return };
        if !self.nodes[node].keeper.may_send(now, &running.ticket) {
            self.nodes[node].keeper.give_back(running.ticket);
            self.admit(node, running.job);
            return;
        }
        // Until it settles, a request counts for what it reserved; afterwards for what it used.
        let tokens = self.tokens.book(self.now, running.job.used);
        self.requests.book(self.now, 1);
        running.arrival = Some(tokens);
        self.upstream.insert(id);
        let in_flight = self.upstream.len() as u64;
        if self.limits.concurrent.is_some() {
            self.report.in_flight_max = self.report.in_flight_max.max(in_flight);
        }
        self.report.served += 1;
        if !running.job.request.tenants.is_empty() {
            self.report.cost += spent(&running.job).cost_nano_usd;
        }
        let runs_us = running.job.runs_us;
        self.nodes[node].running.insert(id, running);
        self.after(runs_us, Event::UpstreamDone(id));
        self.after(runs_us + 10, Event::Finish { node, life, id });
    }

    fn finish(&mut self, node: usize, life: u64, id: u64) {
        if self.nodes[node].life != life {
            return;
        }
        let Some(running) = self.nodes[node].running.remove(&id) else { return };
        if let Some(number) = running.arrival {
            self.tokens.set(number, running.job.used);
        }
        self.nodes[node].keeper.settle(running.ticket, spent(&running.job));
        self.schedule_poll(node);
    }

    fn leave(&mut self, node: usize, life: u64, wait: WaitId) {
        if self.nodes[node].life == life && self.nodes[node].waiting.remove(&wait).is_some() {
            self.nodes[node].keeper.leave(wait);
            self.schedule_poll(node);
        }
    }

    // Nodes and their leader.

    fn schedule_poll(&mut self, node: usize) {
        let this = &self.nodes[node];
        let now = this.boot(self.now);
        let mut due = this.keeper.due(now);
        if this.ready && this.leads == Some(self.term) && this.round.is_none() {
            let wake = this.policy.wake(now, &this.clock, &this.state);
            due = due.into_iter().chain(wake).min();
        }
        let life = this.life;
        if let Some(due) = due {
            let at = this.when(due).max(self.now + 1);
            self.poll_at(node, life, at);
        }
    }

    fn poll_at(&mut self, node: usize, life: u64, at: u64) {
        let sooner = self.nodes[node].next_poll.is_none_or(|next| at < next || next <= self.now);
        if sooner {
            self.nodes[node].next_poll = Some(at);
            self.at(at, Event::Poll(node, life));
        }
    }

    fn poll(&mut self, node: usize, life: u64) {
        if self.nodes[node].next_poll.is_some_and(|next| next <= self.now) {
            self.nodes[node].next_poll = None;
        }
        if self.nodes[node].life != life || !self.nodes[node].alive {
            return;
        }
        if !self.nodes[node].ups_asked {
            let to = self.nodes[node].believes;
            if self.nodes[to].ready && !self.blocked.contains(&(node, to)) {
                let boot = self.nodes[node].boot_number;
                self.send(node, to, Event::Up { from: node, life, boot });
            }
            self.poll_at(node, life, self.now + 300_000);
        }
        let now = self.nodes[node].boot(self.now);
        // Wall clocks are apart by some tenths of a second; a day has five seconds, and the month does not end.
        let wall = self.now + 100_000 * node as u64;
        let ledger = self.nodes[node].state.windows();
        self.nodes[node].keeper.set_windows(Windows { day: 1 + wall / DAY_US, month: 1 }, ledger);
        if let Some(contact) = self.nodes[node].keeper.contact(now) {
            let to = self.nodes[node].believes;
            self.send(node, to, Event::Contact { to, contact });
        }
        self.round(node);
        self.schedule_poll(node);
    }

    fn round(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        if !this.ready || this.round.is_some() {
            return;
        }
        let (boot, contacts) = (this.boot(self.now), std::mem::take(&mut this.inbox));
        let stamp = this.clock.stamp(boot);
        let mut plan = this.policy.plan(boot, stamp, &this.state, contacts);
        let leads = this.leads == Some(self.term);
        if leads {
            for (&(up, life), boot) in &self.up_asks {
                let boot_id: Arc<str> = format!("{boot:x}").into();
                plan.ops.push(Op::NodeUp { node: NodeId(up as u64), boot_id, life: life + 1_000 * up as u64 });
            }
            self.up_asks.clear();
        }
        if plan.ops.is_empty() {
            return;
        }
        if leads {
            let entry = Entry { proposer_term: self.term, stamp, ops: plan.ops.clone() };
            let index = self.propose(node, entry);
            self.nodes[node].round = Some((index, self.term, plan));
        } else {
            // It does not know yet that another leads: its entry will never commit.
            self.nodes[node].round = Some((usize::MAX, 0, plan));
        }
    }

    fn propose(&mut self, node: usize, entry: Entry) -> usize {
        self.log.push((self.term, Rc::new(entry)));
        let length = self.log.len();
        self.nodes[node].received = length;
        let disk = self.chance.between(200, 600);
        self.after(disk, Event::Stored { node, term: self.term, length });
        self.replicate(node);
        length
    }

    fn replicate(&mut self, leader: usize) {
        let (term, length, commit) = (self.term, self.log.len(), self.committed);
        for to in (0..self.nodes.len()).filter(|&to| to != leader) {
            self.send(leader, to, Event::Append { to, term, length, commit, leader });
        }
    }

    fn append(&mut self, to: usize, term: u64, length: usize, commit: usize, leader: usize) {
        if term != self.term || !self.nodes[to].alive {
            return;
        }
        let now = self.now;
        let node = &mut self.nodes[to];
        if node.leads.is_some_and(|led| led < term) {
            node.leads = None;
            node.ready = false;
            node.inbox.clear();
            node.round = None;
        }
        if node.believes != leader {
            node.believes = leader;
            node.keeper.not_delivered();
        }
        node.receive(now, &self.log, length);
        node.commit = node.commit.max(commit.min(node.received));
        let (upto, received) = (node.commit, node.received);
        let applied = node.apply(&self.log, upto);
        self.check_digests(to, &applied);
        self.learn_pools(to);
        if !self.blocked.contains(&(to, leader)) {
            let disk = self.chance.between(200, 600);
            let delay = self.chance.between(100, 1_500);
            self.after(disk + delay, Event::Stored { node: to, term, length: received });
        }
        self.schedule_poll(to);
    }

    fn stored(&mut self, node: usize, term: u64, length: usize) {
        if term != self.term {
            return;
        }
        self.stored[node] = self.stored[node].max(length);
        let mut lengths = self.stored.clone();
        lengths.sort_unstable();
        let agreed = lengths[(lengths.len() - 1) / 2];
        let leader = self.leader;
        if agreed <= self.committed || self.log[agreed - 1].0 != self.term || !self.nodes[leader].alive {
            return;
        }
        self.committed = agreed;
        let applied = self.nodes[leader].apply(&self.log, agreed);
        self.check_digests(leader, &applied);
        self.learn_pools(leader);
        if !self.nodes[leader].ready {
            let now = self.nodes[leader].boot(self.now);
            self.nodes[leader].policy.begin_term(self.term, now);
            self.nodes[leader].ready = true;
        }
        for (index, outcome) in applied {
            self.finish_round(leader, index, &outcome);
        }
        self.replicate(leader);
        self.round(leader);
        self.schedule_poll(leader);
    }

    fn finish_round(&mut self, leader: usize, index: usize, applied: &crate::entry::Applied) {
        let this = &mut self.nodes[leader];
        if this.round.as_ref().is_none_or(|(own, term, _)| *own != index || *term != applied.at.term) {
            return;
        }
        let Some((_, _, plan)) = this.round.take() else { return };
        let ups = ups_of(&plan, applied);
        let stamp = this.state.stamp();
        let replies = this.policy.finish(&this.state, plan, applied);
        for reply in replies {
            let to = reply.who.node.0 as usize;
            self.send(leader, to, Event::Reply { to, reply });
        }
        for (node, life, incarnation) in ups {
            let to = node.0 as usize;
            self.send(leader, to, Event::IsUp { to, life: life - 1_000 * to as u64, incarnation, stamp });
        }
    }

    fn is_up(&mut self, to: usize, life: u64, incarnation: Incarnation, stamp: Stamp) {
        let node = &mut self.nodes[to];
        if node.life == life && node.alive && !node.ups_asked {
            node.ups_asked = true;
            node.keeper.node_up(NodeId(to as u64), incarnation, stamp);
        }
        self.schedule_poll(to);
    }

    fn reply(&mut self, to: usize, reply: &Reply) {
        if !self.nodes[to].alive {
            return;
        }
        let now = self.nodes[to].boot(self.now);
        for (wait, word) in self.nodes[to].keeper.reply(now, reply) {
            let Some(job) = self.nodes[to].waiting.remove(&wait) else { continue };
            if let Word::Granted { ticket, .. } = word {
                self.watch_inversion(&job);
                self.go(to, ticket, job);
            }
        }
        self.schedule_poll(to);
    }

    fn watch_inversion(&mut self, served: &Job) {
        let ledger = &self.nodes[self.leader].state;
        let overtaken = self.nodes.iter().enumerate().flat_map(|(id, node)| {
            // One that the ledger has served already waits only for the good news.
            let served = move |wait| node.keeper.seq_of(wait).is_some_and(|seq| ledger.has_open(id as u64, seq));
            node.waiting.iter().filter(move |&(&wait, _)| !served(wait)).map(|(_, job)| job)
        });
        // Before the first contact nobody can know of the others.
        let overtaken = overtaken.filter(|job| job.arrived_us > 1_500_000);
        let overtaken = overtaken.filter(|job| job.request.priority < served.request.priority);
        let waited = overtaken.map(|job| self.now - job.arrived_us).max().unwrap_or(0);
        // What had not yet reached the leader when this one was served is no inversion; the bound is the caller's.
        self.report.inversion_us = self.report.inversion_us.max(waited);
    }

    fn learn_pools(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        for pool in node.state.pools(Stamp(0)) {
            node.keeper.set_pool(pool.id, pool.limits);
        }
    }

    fn check_digests(&mut self, node: usize, applied: &[(usize, crate::entry::Applied)]) {
        let state = &self.nodes[node].state;
        if let Some(why) = state.breach() {
            self.report.broken.get_or_insert(why);
        }
        let Some(&(index, _)) = applied.last() else { return };
        if index % 16 == 0 {
            let digest = state.digest();
            if *self.digests.entry(index).or_insert(digest) != digest {
                self.report.broken.get_or_insert(format!("L9: digests differ at {index}"));
            }
        }
    }

    // Faults.

    fn heartbeat(&mut self, term: u64) {
        if term == self.term {
            if self.nodes[self.leader].alive && self.nodes[self.leader].paused_until <= self.now {
                self.replicate(self.leader);
            }
            self.after(HEARTBEAT_US, Event::Heartbeat(term));
        }
    }

    fn fault(&mut self) {
        if self.now >= self.setup.busy_us {
            return;
        }
        let faults = self.setup.faults;
        let victim = self.chance.between(0, self.setup.nodes as u64 - 1) as usize;
        match self.chance.between(0, 4) {
            0 if faults.crashes && self.nodes[victim].alive => self.crash(victim),
            1 if faults.pauses => {
                let until = self.now + self.chance.between(50_000, 6_000_000);
                self.nodes[victim].paused_until = until;
            }
            2 if faults.partitions => {
                let one_way = self.chance.per_mille(300);
                for other in (0..self.setup.nodes).filter(|&other| other != victim) {
                    self.blocked.insert((victim, other));
                    if !one_way {
                        self.blocked.insert((other, victim));
                    }
                }
                let lasts = self.chance.between(100_000, 7_000_000);
                self.after(lasts, Event::Heal);
            }
            3 if faults.elections => self.elect_someone(),
            _ => {}
        }
        self.after(1_300_000, Event::Elect);
        let next = self.chance.between(300_000, 3_000_000);
        self.after(next, Event::Fault);
    }

    fn crash(&mut self, victim: usize) {
        let reboot = self.chance.per_mille(400);
        let running: Vec<u64> = self.nodes[victim].running.keys().copied().collect();
        self.nodes[victim].crash();
        if !reboot {
            // The machine lives on, and its kernel closes the connections.
            running.iter().for_each(|id| _ = self.upstream.remove(id));
        }
        self.nodes[victim].reboots = reboot;
        let back = self.chance.between(20_000, 5_000_000);
        self.after(back, Event::Restart(victim));
    }

    fn restart(&mut self, node: usize) {
        if self.nodes[node].alive {
            return;
        }
        let stored = self.nodes[node].received;
        self.nodes[node].restart(self.now, &self.log[..stored.min(self.log.len())], &mut self.chance);
        let life = self.nodes[node].life;
        self.learn_pools(node);
        self.nodes[node].next_poll = None;
        self.poll_at(node, life, self.now + 1_000);
        self.after(100_000, Event::Elect);
    }

    fn heal_everything(&mut self) {
        self.blocked.clear();
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until = 0;
            self.restart(node);
        }
        self.after(1_500_000, Event::Elect);
    }

    fn reaches_majority(&self, node: usize) -> Option<Vec<usize>> {
        let up = |node: usize| self.nodes[node].alive && self.nodes[node].paused_until <= self.now;
        let linked = |other: usize| {
            other == node
                || (up(other) && !self.blocked.contains(&(node, other)) && !self.blocked.contains(&(other, node)))
        };
        let peers: Vec<usize> = (0..self.nodes.len()).filter(|&other| linked(other)).collect();
        (up(node) && peers.len() * 2 > self.nodes.len()).then_some(peers)
    }

    /// Elects a node, unless the present leader still serves and no change was asked for.
    fn elect_someone(&mut self) {
        let serving = self.nodes[self.leader].leads == Some(self.term) && self.reaches_majority(self.leader).is_some();
        if serving && (!self.setup.faults.elections || self.chance.per_mille(700)) {
            return;
        }
        let first = self.chance.between(0, self.nodes.len() as u64 - 1) as usize;
        for step in 0..self.nodes.len() {
            let candidate = (first + step) % self.nodes.len();
            let Some(peers) = self.reaches_majority(candidate) else { continue };
            let longest = peers.iter().map(|&peer| self.nodes[peer].received).max();
            if Some(self.nodes[candidate].received) == longest && (candidate != self.leader || !serving) {
                self.elect(candidate);
                return;
            }
        }
    }

    fn elect(&mut self, candidate: usize) {
        self.term += 1;
        self.leader = candidate;
        self.log.truncate(self.nodes[candidate].received);
        assert!(self.log.len() >= self.committed, "the simulator lost a committed entry");
        let length = self.log.len();
        for node in &mut self.nodes {
            node.received = node.received.min(length);
        }
        self.stored = vec![0; self.nodes.len()];
        let now = self.nodes[candidate].boot(self.now);
        let node = &mut self.nodes[candidate];
        node.leads = Some(self.term);
        node.ready = false;
        node.round = None;
        node.inbox.clear();
        if node.believes != candidate {
            node.believes = candidate;
        }
        node.keeper.not_delivered();
        let stamp = node.clock.stamp(now);
        let first = self.term == 1;
        let set = Op::SetPool { name: "pool".into(), limits: self.limits, request_us_max: REQUEST_US_MAX };
        let ops = if first { vec![set] } else { Vec::new() };
        self.propose(candidate, Entry { proposer_term: self.term, stamp, ops });
        self.after(HEARTBEAT_US, Event::Heartbeat(self.term));
    }
}

fn tenant() -> TenantLimits {
    let quotas = Quotas::default()
        .with(QuotaKind::DayTokens, Some(QuotaLimit::hard(2_500)))
        .with(QuotaKind::MonthCost, Some(QuotaLimit::hard(BUDGET)));
    let scope = Scope { kind: ScopeKind::Key, id: [1; 16] };
    TenantLimits { scope, version: 1, requests: None, tokens: None, concurrent: None, quotas }
}

fn spent(job: &Job) -> Spend {
    Spend { tokens: job.used, cost_nano_usd: job.used * PRICE }
}

/// The node that an event happens on.
fn target(event: &Event) -> Option<usize> {
    match event {
        Event::Poll(node, _)
        | Event::Send { node, .. }
        | Event::Finish { node, .. }
        | Event::Leave { node, .. }
        | Event::Arrive(node) => Some(*node),
        Event::Contact { to, .. } | Event::Reply { to, .. } | Event::Append { to, .. } | Event::IsUp { to, .. } => {
            Some(*to)
        }
        _ => None,
    }
}

fn ups_of(plan: &Plan, applied: &crate::entry::Applied) -> Vec<(NodeId, u64, Incarnation)> {
    let ups = plan.ops.iter().zip(&applied.outcomes).filter_map(|(op, outcome)| match (op, outcome) {
        (Op::NodeUp { node, life, .. }, Outcome::Up(incarnation)) => Some((*node, *life, *incarnation)),
        _ => None,
    });
    ups.collect()
}
