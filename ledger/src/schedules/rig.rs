//! A tiny rig around the shipped State, Keeper and Policy: true time, clocks that drift, and messages that a schedule
//! carries by hand. It holds no admission logic: what it is told to deliver, it delivers, twice and out of order.

use crate::entry::{Contact, Entry, LogPos, Op, Outcome, Reply};
use crate::keeper::{Decision, Keeper, Request, Ticket, WaitId, Word};
use crate::model::{BucketLimit, NodeId, PoolId, PoolLimits, Priority, Scope, Tenants};
use crate::policy::{Config, Discipline, Policy};
use crate::rules::Rules;
use crate::state::{Digest, State};
use crate::time::{Boot, LedgerClock, SEND_WITHIN_US, Stamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The one pool of a rig.
pub(crate) const POOL: PoolId = PoolId(0);

/// Its longest request.
pub(crate) const REQUEST_US_MAX: u64 = 3_000_000;

const START_US: u64 = 10_000_000;

/// A request of priority 5 without tenants.
pub(crate) fn request(tokens: u64) -> Request {
    request_of(5, tokens, None, &[])
}

/// A request of a priority; `tenant` is whose it is for fairness, `tenants` bind it.
pub(crate) fn request_of(
    priority: u8,
    tokens: u64,
    tenant: Option<Scope>,
    tenants: &[crate::model::TenantLimits],
) -> Request {
    let tenants: Tenants = Arc::from(tenants);
    Request {
        pool: POOL,
        priority: Priority(priority),
        spend: crate::model::Spend::tokens(tokens),
        weight: tokens,
        tenant,
        tenants,
    }
}

/// Tokens only.
pub(crate) fn tokens(limit: BucketLimit) -> PoolLimits {
    PoolLimits { tokens: Some(limit), ..PoolLimits::default() }
}

struct Node {
    keeper: Keeper,
    clock: LedgerClock,
    offset_us: u64,
    drift_ppm: i64,
    cut_off: bool,
    last_said: Option<Contact>,
    last_told: Option<Reply>,
}

impl Node {
    fn boot(&self, now_us: u64) -> Boot {
        let own = i128::from(now_us) * i128::from(1_000_000 + self.drift_ppm) / 1_000_000;
        Boot(self.offset_us + u64::try_from(own).unwrap())
    }

    fn when(&self, boot: Boot) -> u64 {
        let own = i128::from(boot.0.saturating_sub(self.offset_us)) * 1_000_000;
        u64::try_from(own / i128::from(1_000_000 + self.drift_ppm)).unwrap() + 1
    }
}

/// Nodes, their leader, the log and the upstream.
pub(crate) struct Rig {
    rules: Rules,
    now_us: u64,
    pub(crate) state: State,
    pub(crate) policy: Policy,
    pub(crate) log: Vec<(LogPos, Entry)>,
    /// Contacts that reached the leader, repeats aside.
    pub(crate) contacts: usize,
    /// The leader's words, in the order they were heard: node, wait, word.
    pub(crate) words: Vec<(usize, WaitId, Word)>,
    nodes: Vec<Node>,
    term: u64,
    leader: usize,
    /// Charges at the upstream: when, and how many tokens.
    arrivals: Vec<(u64, u64)>,
}

impl Rig {
    /// Nodes with true clocks; the first leads. Every process is up, and the pool is set.
    pub(crate) fn new(nodes: usize, rules: Rules, limits: PoolLimits) -> Self {
        Self::with_clocks(&vec![(0, 0); nodes], rules, limits)
    }

    /// As `new`, with each node's boot clock: how far it is ahead, in microseconds, and how fast, in ppm.
    pub(crate) fn with_clocks(clocks: &[(u64, i64)], rules: Rules, limits: PoolLimits) -> Self {
        let config = Config { discipline: Discipline::Strict, levels: 10, aging_us: 0 };
        Self::with_config(clocks, rules, limits, config)
    }

    /// As `with_clocks`, with another discipline.
    pub(crate) fn with_config(clocks: &[(u64, i64)], rules: Rules, limits: PoolLimits, config: Config) -> Self {
        let nodes = clocks.iter().map(|&(offset_us, drift_ppm)| {
            let keeper = Keeper::new(rules);
            let clock = LedgerClock::new(Stamp(0), Boot(offset_us), rules);
            Node { keeper, clock, offset_us, drift_ppm, cut_off: false, last_said: None, last_told: None }
        });
        let mut rig = Self {
            rules,
            now_us: START_US,
            state: State::new(rules),
            policy: Policy::new(config),
            log: Vec::new(),
            contacts: 0,
            words: Vec::new(),
            nodes: nodes.collect(),
            term: 0,
            leader: 0,
            arrivals: Vec::new(),
        };
        rig.lead(0);
        rig.set_pool(limits);
        (0..clocks.len()).for_each(|node| rig.bring_up(node, "boot", 1));
        rig
    }

    /// Microseconds since the rig was made.
    pub(crate) fn elapsed_us(&self) -> u64 {
        self.now_us - START_US
    }

    /// Lets time pass in which nobody does or says anything.
    pub(crate) fn pass(&mut self, us: u64) {
        self.now_us += us;
    }

    pub(crate) fn set_pool(&mut self, limits: PoolLimits) {
        self.propose(vec![Op::SetPool { name: "pool".into(), limits, request_us_max: REQUEST_US_MAX }]);
        self.nodes.iter_mut().for_each(|node| node.keeper.set_pool(POOL, limits));
    }

    /// A process begins its life, with an empty memory.
    pub(crate) fn bring_up(&mut self, node: usize, boot_id: &str, life: u64) {
        let up = Op::NodeUp { node: NodeId(node as u64), boot_id: boot_id.into(), life };
        let outcomes = self.propose(vec![up]);
        let [Outcome::Up(incarnation)] = outcomes[..] else { panic!("not up: {outcomes:?}") };
        let limits = self.state.pools(Stamp(0))[0].limits;
        let this = &mut self.nodes[node];
        this.keeper = Keeper::new(self.rules);
        this.keeper.set_pool(POOL, limits);
        this.keeper.node_up(NodeId(node as u64), incarnation, self.state.stamp());
        (this.last_said, this.last_told) = (None, None);
    }

    /// Another node leads from now on.
    pub(crate) fn lead(&mut self, node: usize) {
        self.term += 1;
        self.leader = node;
        let now = self.nodes[node].boot(self.now_us);
        self.policy.begin_term(self.term, now);
        self.nodes.iter_mut().for_each(|node| node.keeper.not_delivered());
        self.propose(Vec::new());
    }

    /// Nothing from or to the node gets through, until it is joined again.
    pub(crate) fn cut_off(&mut self, node: usize) {
        self.nodes[node].cut_off = true;
    }

    pub(crate) fn join(&mut self, node: usize) {
        self.nodes[node].cut_off = false;
    }

    pub(crate) fn keeper(&mut self, node: usize) -> &mut Keeper {
        &mut self.nodes[node].keeper
    }

    /// The node's own clock.
    pub(crate) fn boot(&self, node: usize) -> Boot {
        self.nodes[node].boot(self.now_us)
    }

    /// What the keeper says when asked now, if it has anything to say.
    pub(crate) fn say(&mut self, node: usize) -> Option<Contact> {
        let now = self.boot(node);
        self.nodes[node].keeper.contact(now)
    }

    /// The leader's round on some messages.
    pub(crate) fn hear(&mut self, contacts: Vec<Contact>) -> Vec<Reply> {
        let leader = &self.nodes[self.leader];
        let (now, stamp) = (leader.boot(self.now_us), leader.clock.stamp(leader.boot(self.now_us)));
        let plan = self.policy.plan(now, stamp, &self.state, contacts);
        if plan.ops.is_empty() {
            return Vec::new();
        }
        let at = self.append(plan.ops.clone());
        let applied = self.state.apply(at, &self.log[self.log.len() - 1].1.clone());
        self.assert_whole();
        self.policy.finish(&self.state, plan, &applied)
    }

    /// The keeper hears a reply.
    pub(crate) fn tell(&mut self, reply: &Reply) {
        let node = usize::try_from(reply.who.node.0).unwrap();
        let now = self.boot(node);
        let words = self.nodes[node].keeper.reply(now, reply);
        self.words.extend(words.into_iter().map(|(wait, word)| (node, wait, word)));
    }

    /// One exchange: the node speaks if it is due, the leader hears it, and everybody hears the leader. Each message
    /// comes twice, with an old one between.
    pub(crate) fn exchange(&mut self, node: usize) -> bool {
        let Some(contact) = self.say(node) else { return false };
        if self.nodes[node].cut_off {
            return false;
        }
        self.contacts += 1;
        let old = self.nodes[node].last_said.replace(contact.clone());
        let mut contacts = vec![contact.clone()];
        contacts.extend(old);
        contacts.push(contact);
        self.round(contacts);
        true
    }

    /// The leader's round, with its replies delivered to whom they reach.
    pub(crate) fn round(&mut self, contacts: Vec<Contact>) {
        for reply in self.hear(contacts) {
            let node = usize::try_from(reply.who.node.0).unwrap();
            if self.nodes[node].cut_off {
                continue;
            }
            self.tell(&reply);
            if let Some(old) = self.nodes[node].last_told.replace(reply.clone()) {
                self.tell(&old);
            }
            self.tell(&reply);
        }
    }

    /// Exchanges at this instant until nobody has anything urgent to say.
    pub(crate) fn talk(&mut self) {
        let mut left = 1_000;
        while (0..self.nodes.len()).any(|node| self.exchange(node)) {
            left -= 1;
            assert!(left > 0, "the nodes never fall silent");
        }
    }

    /// Lets time pass with everybody speaking when due, over a network that takes no time.
    pub(crate) fn run(&mut self, us: u64) {
        let end = self.now_us + us;
        self.talk();
        while let Some(next) = self.next_due().filter(|&next| next <= end) {
            self.now_us = next.max(self.now_us + 1);
            self.round(Vec::new());
            self.talk();
        }
        self.now_us = end;
        self.talk();
    }

    fn next_due(&self) -> Option<u64> {
        let reached = self.nodes.iter().filter(|node| !node.cut_off);
        let keepers = reached.filter_map(|node| Some(node.when(node.keeper.due(node.boot(self.now_us))?)));
        let leader = &self.nodes[self.leader];
        let wake = self.policy.wake(leader.boot(self.now_us), &leader.clock, &self.state);
        keepers.chain(wake.map(|boot| leader.when(boot))).min()
    }

    /// A request comes in at a node.
    pub(crate) fn admit(&mut self, node: usize, request: &Request) -> Decision {
        let now = self.boot(node);
        self.nodes[node].keeper.admit(now, request)
    }

    /// Writes a request to the upstream, unless it is too late: then it is given back.
    pub(crate) fn send(&mut self, node: usize, ticket: Ticket, charged: u64) -> Option<Ticket> {
        let now = self.boot(node);
        if !self.nodes[node].keeper.may_send(now, &ticket) {
            self.nodes[node].keeper.give_back(ticket);
            return None;
        }
        self.arrivals.push((self.now_us, charged));
        Some(ticket)
    }

    /// Requests of one size come in at a node, and what is admitted, now or after a talk, is sent. Says how many were.
    pub(crate) fn spend(&mut self, node: usize, requests: usize, tokens: u64) -> usize {
        let tickets = self.admit_all(node, requests, tokens);
        tickets.into_iter().filter_map(|ticket| self.send(node, ticket, tokens)).count()
    }

    /// As `spend`, but nothing is sent yet.
    pub(crate) fn admit_all(&mut self, node: usize, requests: usize, tokens: u64) -> Vec<Ticket> {
        self.admit_copies(node, requests, &request(tokens))
    }

    /// As `admit_all`, of any kind.
    pub(crate) fn admit_copies(&mut self, node: usize, requests: usize, request: &Request) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        for _ in 0..requests {
            if let Decision::Go(ticket) = self.admit(node, request) {
                tickets.push(ticket);
            }
        }
        self.talk();
        tickets.extend(self.granted(node));
        tickets
    }

    /// Takes the tickets that the leader granted to a node since this was last asked.
    pub(crate) fn granted(&mut self, node: usize) -> Vec<Ticket> {
        let words = std::mem::take(&mut self.words);
        let (mine, others): (Vec<_>, Vec<_>) = words.into_iter().partition(|&(owner, ..)| owner == node);
        self.words = others;
        let tickets = mine.into_iter().filter_map(|(.., word)| match word {
            Word::Granted { ticket, .. } => Some(ticket),
            Word::Refused { .. } => None,
        });
        tickets.collect()
    }

    /// Gives a node a slice of half the burst: it misses a quarter of the burst once, and is helped.
    pub(crate) fn take_slice(&mut self, node: usize, burst: u64) {
        assert_eq!(self.spend(node, 1, burst / 4), 1);
        let (_, unspent, _) = self.keeper(node).holds(POOL);
        assert_eq!(unspent, burst / 2, "the slice");
    }

    /// Tokens that reached the upstream since an elapsed time.
    pub(crate) fn arrived_since(&self, elapsed_us: u64) -> u64 {
        self.arrivals.iter().filter(|&&(at, _)| at >= START_US + elapsed_us).map(|&(_, charged)| charged).sum()
    }

    /// Tokens by which the worst interval of all exceeds B + R x (t + delta).
    pub(crate) fn excess(&self, limit: BucketLimit) -> u128 {
        let delta = SEND_WITHIN_US + SEND_WITHIN_US / 1_000;
        let per = u128::from(limit.rate.per_us);
        let mut worst = 0;
        for (first, &(from, _)) in self.arrivals.iter().enumerate() {
            let mut sum = 0;
            for &(to, charged) in &self.arrivals[first..] {
                sum += u128::from(charged) * per;
                let filled = u128::from(limit.rate.units) * u128::from(to - from + delta);
                worst = worst.max(sum.saturating_sub(u128::from(limit.burst) * per + filled));
            }
        }
        worst.div_ceil(per)
    }

    /// Commits an entry of the leader's.
    pub(crate) fn propose(&mut self, ops: Vec<Op>) -> Vec<Outcome> {
        let at = self.append(ops);
        let entry = self.log[self.log.len() - 1].1.clone();
        let applied = self.state.apply(at, &entry);
        self.assert_whole();
        applied.outcomes
    }

    /// Invariants L1, L3, L4 and L5 stand after every entry.
    fn assert_whole(&self) {
        assert_eq!(self.state.breach(), None);
    }

    /// L9: another node that replays the log has the same ledger.
    pub(crate) fn digest_of_replay(&self) -> Digest {
        let mut state = State::new(self.rules);
        self.log.iter().for_each(|(at, entry)| _ = state.apply(*at, entry));
        state.digest()
    }

    /// The waits that were refused, with the words.
    pub(crate) fn refused(&self) -> BTreeMap<(usize, WaitId), &Word> {
        let refused = self.words.iter().filter(|(.., word)| matches!(word, Word::Refused { .. }));
        refused.map(|(node, wait, word)| ((*node, *wait), word)).collect()
    }

    fn append(&mut self, ops: Vec<Op>) -> LogPos {
        let leader = &self.nodes[self.leader];
        let stamp = leader.clock.stamp(leader.boot(self.now_us));
        let at = LogPos { term: self.term, index: self.log.len() as u64 + 1 };
        self.log.push((at, Entry { proposer_term: self.term, stamp, ops }));
        let (now_us, leader) = (self.now_us, self.leader);
        for (number, node) in self.nodes.iter_mut().enumerate() {
            if number != leader && !node.cut_off {
                let now = node.boot(now_us);
                node.clock.observe(at.term, stamp, now);
            }
        }
        at
    }
}
