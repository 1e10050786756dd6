//! Random histories of the whole ledger, beside nodes that keep naive books: what was sent upstream and when, what runs,
//! what every quota was charged. Messages are lost, repeated and reordered. After every entry the invariants are checked.

use super::nodes::{Node, Run};
use crate::entry::{Amounts, Entry, LogPos, Op, Outcome, Who};
use crate::model::{
    BucketLimit, Credential, NodeId, PoolId, PoolLimits, QuotaKind, QuotaLimit, Quotas, Rate, Scope, ScopeKind, Spend,
    TenantLimits, Tenants, Windows,
};
use crate::rules::Rules;
use crate::state::State;
use crate::time::{LEASE_US, Stamp};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const POOL: PoolId = PoolId(0);
const REQUEST_US_MAX: u64 = 1_500_000;
const TOKENS: BucketLimit = BucketLimit { rate: Rate { units: 97, per_us: 1_000_000 }, burst: 100 };
const CALLS: BucketLimit = BucketLimit { rate: Rate { units: 30, per_us: 1_000_000 }, burst: 40 };
const PERMITS: u64 = 9;
const QUOTA: u64 = 900;
const BUDGET: u64 = 4_000;

/// What a token costs.
const PRICE: u64 = 3;

/// What happens next. `usize` picks among what there is.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Grant(usize, u64, u64, u64),
    Reserve(usize, u64, bool),
    Take(usize, u64),
    Start(usize, usize),
    Drop(usize, usize),
    Finish(usize, usize, u64),
    Return(usize),
    Report(usize),
    Deliver(usize, usize),
    Expire(usize),
    Restart(usize, bool),
    FreeLost,
    Limits(usize),
    Day,
    Month,
    Checkpoint,
    Correct(usize, u64),
    SetTenant,
    Revoke(u8, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (node, which, part) = (0usize..3, 0usize..20, prop_oneof![3 => 0u64..300, 1 => 0u64..=1_200]);
    prop_oneof![
        6 => (1u64..400_000).prop_map(Step::Pass),
        1 => (400_000u64..4_000_000).prop_map(Step::Pass),
        4 => (node.clone(), 0u64..100, 0u64..9, 0u64..5).prop_map(|(n, t, c, p)| Step::Grant(n, t, c, p)),
        5 => (node.clone(), 1u64..100, 0..3).prop_map(|(n, t, tenant)| Step::Reserve(n, t, tenant == 0)),
        6 => (node.clone(), 1u64..100).prop_map(|(n, t)| Step::Take(n, t)),
        5 => (node.clone(), which.clone()).prop_map(|(n, a)| Step::Start(n, a)),
        1 => (node.clone(), which.clone()).prop_map(|(n, a)| Step::Drop(n, a)),
        5 => (node.clone(), which.clone(), part).prop_map(|(n, a, p)| Step::Finish(n, a, p)),
        1 => node.clone().prop_map(Step::Return),
        6 => node.clone().prop_map(Step::Report),
        9 => (node.clone(), prop_oneof![3 => Just(0usize), 1 => 0usize..6]).prop_map(|(n, a)| Step::Deliver(n, a)),
        2 => node.clone().prop_map(Step::Expire),
        1 => (node, any::<bool>()).prop_map(|(n, same)| Step::Restart(n, same)),
        1 => Just(Step::FreeLost),
        1 => prop_oneof![2 => Just(0usize), 1 => 1usize..4].prop_map(Step::Limits),
        1 => Just(Step::Day),
        1 => Just(Step::Month),
        1 => Just(Step::Checkpoint),
        1 => (which, 0u64..150).prop_map(|(a, t)| Step::Correct(a, t)),
        1 => Just(Step::SetTenant),
        1 => (0u8..4, 0u64..5).prop_map(|(key, days)| Step::Revoke(key, days)),
    ]
}

fn tenant() -> TenantLimits {
    let scope = Scope { kind: ScopeKind::Key, id: [1; 16] };
    TenantLimits {
        scope,
        version: 1,
        requests: None,
        tokens: Some(TOKENS),
        concurrent: Some(6),
        quotas: Quotas::default()
            .with(QuotaKind::DayTokens, Some(QuotaLimit::hard(QUOTA)))
            .with(QuotaKind::MonthCost, Some(QuotaLimit::hard(BUDGET))),
    }
}

/// A hold on the tenant, as the naive books have it.
#[derive(Clone, Copy)]
struct Hold {
    spend: Spend,
    windows: Windows,
}

/// The quotas that the tenant has.
const KINDS: [QuotaKind; 2] = [QuotaKind::DayTokens, QuotaKind::MonthCost];

impl Hold {
    /// The window and the units of a quota.
    fn of(&self, kind: QuotaKind) -> ((QuotaKind, u64), u64) {
        ((kind, self.windows.of(kind)), kind.of(self.spend))
    }
}

pub(super) fn priced(tokens: u64) -> Spend {
    Spend { tokens, cost_nano_usd: tokens * PRICE }
}

struct History {
    state: State,
    log: Vec<(LogPos, Entry)>,
    now: Stamp,
    nodes: Vec<Node>,
    lives: u64,
    /// Sent upstream: when, tokens; set to what was used once that is known.
    sent: Vec<(Stamp, u64)>,
    /// In flight at the upstream of processes that are gone: until when.
    orphans: Vec<Stamp>,
    open: BTreeMap<(Who, u64), Hold>,
    lost: Vec<((Who, u64), Hold)>,
    /// What each window was charged, and how much of it was beyond what had been reserved.
    used: BTreeMap<(QuotaKind, u64), (u64, u64)>,
    versions: u64,
    /// Until which day each key is known to be revoked.
    revoked: BTreeMap<u8, u64>,
}

impl History {
    fn new() -> Self {
        let mut history = Self {
            state: State::new(Rules::ALL),
            log: Vec::new(),
            now: Stamp(1_000_000),
            nodes: Vec::new(),
            lives: 0,
            sent: Vec::new(),
            orphans: Vec::new(),
            open: BTreeMap::new(),
            lost: Vec::new(),
            used: BTreeMap::new(),
            versions: 1,
            revoked: BTreeMap::new(),
        };
        history.limit(0);
        history.apply(Op::RollDay { day: 1 });
        history.apply(Op::RollMonth { month: 1 });
        for node in 0..3 {
            history.nodes.push(Node::default());
            history.up(node, "boot".into());
        }
        history
    }

    fn apply(&mut self, op: Op) -> Outcome {
        let at = LogPos { term: 1, index: self.log.len() as u64 + 1 };
        let entry = Entry { proposer_term: 1, stamp: self.now, ops: vec![op] };
        let mut applied = self.state.apply(at, &entry);
        self.log.push((at, entry));
        applied.outcomes.remove(0)
    }

    fn limit(&mut self, which: usize) {
        let half = |limit: BucketLimit| BucketLimit { burst: limit.burst / 2, ..limit };
        let slow =
            |limit: BucketLimit| BucketLimit { rate: Rate { units: limit.rate.units / 3, ..limit.rate }, ..limit };
        let limits = match which {
            0 => PoolLimits { tokens: Some(TOKENS), requests: Some(CALLS), concurrent: Some(PERMITS) },
            1 => PoolLimits { tokens: Some(half(TOKENS)), requests: Some(slow(CALLS)), concurrent: Some(PERMITS / 2) },
            2 => PoolLimits { tokens: None, requests: Some(half(CALLS)), concurrent: Some(PERMITS) },
            _ => PoolLimits { tokens: Some(slow(TOKENS)), requests: None, concurrent: Some(PERMITS) },
        };
        self.apply(Op::SetPool { name: "pool".into(), limits, request_us_max: REQUEST_US_MAX });
    }

    fn up(&mut self, node: usize, boot_id: Arc<str>) {
        self.lives += 1;
        let outcome = self.apply(Op::NodeUp { node: NodeId(node as u64), boot_id, life: self.lives });
        assert!(matches!(outcome, Outcome::Up(_)));
        self.nodes[node] = Node::new(self.state.who(NodeId(node as u64)).unwrap());
    }

    /// Whether the node may use its lease, as a holder with a perfect clock would know.
    fn leased(&self, node: usize) -> bool {
        let who = self.nodes[node].who;
        self.state.who(who.node) == Some(who) && self.now.0 < self.state.node(who.node).unwrap().renewed().0 + LEASE_US
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Pass(us) => self.pass(us),
            Step::Grant(node, tokens, requests, permits) => {
                let amounts = Amounts { tokens, requests, permits };
                let amounts = Amounts { tokens: tokens * u64::from(self.limits().tokens.is_some()), ..amounts };
                let who = self.nodes[node].who;
                if self.apply(Op::Grant { who, pool: POOL, amounts }) == Outcome::Done {
                    self.nodes[node].granted(amounts);
                }
            }
            Step::Reserve(node, tokens, with_tenant) => self.reserve(node, tokens, with_tenant),
            Step::Take(node, tokens) => {
                let cost = self.cost(tokens);
                if self.leased(node) && self.nodes[node].covers(cost) {
                    let run = Run { seq: None, cost, slot: self.now.slot(), since: self.now, sent: self.sent.len() };
                    self.sent.push((self.now, cost.tokens));
                    self.nodes[node].start(run);
                }
            }
            Step::Start(node, which) => {
                if !self.leased(node) {
                    return;
                }
                let Some((seq, hold)) = self.nodes[node].take_reserved(which) else { return };
                let (slot, sent) = (self.now.slot(), self.sent.len());
                let run = Run { seq: Some((seq, hold.tenants)), cost: hold.amounts, slot, since: self.now, sent };
                self.sent.push((self.now, hold.amounts.tokens));
                self.nodes[node].start(run);
            }
            Step::Drop(node, which) => {
                if let Some((seq, _)) = self.nodes[node].take_reserved(which) {
                    self.nodes[node].ends.push((seq, None));
                }
            }
            Step::Finish(node, which, part) => self.finish(node, which, part),
            Step::Return(node) => self.nodes[node].give_back_all(),
            Step::Report(node) => {
                let slot = self.now.slot();
                self.nodes[node].report(POOL, slot);
            }
            Step::Deliver(node, back) => self.deliver(node, back),
            Step::Expire(node) => _ = self.apply(Op::Expire { who: self.nodes[node].who }),
            Step::Restart(node, same_boot) => self.restart(node, same_boot),
            Step::FreeLost => _ = self.apply(Op::FreeLost),
            Step::Limits(which) => self.limit(which),
            Step::Day => self.roll(),
            Step::Month => self.roll_month(),
            Step::Checkpoint => _ = self.apply(Op::Checkpoint),
            Step::Correct(which, tokens) => self.correct(which, tokens),
            Step::SetTenant => self.set_tenant(),
            Step::Revoke(key, days) => self.revoke(key, days),
        }
    }

    /// Reservations go on carrying the first version.
    fn set_tenant(&mut self) {
        self.versions += 1;
        let limits = TenantLimits { version: self.versions, ..tenant() };
        assert_eq!(self.apply(Op::SetTenant { limits }), Outcome::Done);
        assert_eq!(self.apply(Op::SetTenant { limits: tenant() }), Outcome::Nothing);
        assert_eq!(self.state.limits_of(limits.scope), Some(limits));
    }

    fn revoke(&mut self, key: u8, days: u64) {
        let until_day = self.state.windows().day + days;
        let version = self.state.revoked_version();
        let credential = Credential::Hash([key; 32]);
        let changed = self.apply(Op::Revoke { credential, until_day }) == Outcome::Done;
        assert_eq!(self.state.revoked_version() != version, changed);
        let known = self.revoked.entry(key).or_default();
        *known = until_day.max(*known);
    }

    fn limits(&self) -> PoolLimits {
        self.state.pools[&POOL].limits
    }

    fn cost(&self, tokens: u64) -> Amounts {
        self.state.pools[&POOL].cost(tokens)
    }

    fn pass(&mut self, us: u64) {
        self.now.0 += us;
        // No request outlives the pool's maximum.
        for node in 0..self.nodes.len() {
            while let Some(old) = self.nodes[node].outlived(self.now, REQUEST_US_MAX) {
                self.finish(node, old, 1_000);
            }
        }
        let now = self.now;
        self.orphans.retain(|&until| until > now);
    }

    fn reserve(&mut self, node: usize, tokens: u64, with_tenant: bool) {
        let tenants: Tenants = if with_tenant { Arc::from([tenant()]) } else { Arc::from([]) };
        let seq = self.nodes[node].next_seq();
        let who = self.nodes[node].who;
        let op = Op::Reserve { who, seq, pool: POOL, spend: priced(tokens), tenants };
        let outcome = self.apply(op.clone());
        let before = self.state.clone();
        if let Outcome::Reserved(hold) = outcome {
            assert_eq!(self.apply(op), outcome, "a repeat is told the same");
            assert_eq!(State { at: before.at, ..self.state.clone() }, before);
            self.nodes[node].reserved.insert(seq, hold);
            if with_tenant {
                self.open.insert((life(who), seq), Hold { spend: priced(tokens), windows: self.state.windows() });
            }
        }
    }

    fn finish(&mut self, node: usize, which: usize, part: u64) {
        let Some(run) = self.nodes[node].take_run(which) else { return };
        let used = run.cost.tokens * part / 1_000;
        // Overruns are counted apart: at the upstream they are beyond what was admitted.
        self.sent[run.sent].1 = used.min(run.cost.tokens);
        self.nodes[node].finish(&run, used);
    }

    fn deliver(&mut self, node: usize, back: usize) {
        let Some((who, report)) = self.nodes[node].message(back) else { return };
        let outcome = self.apply(Op::Contact { who, report: report.clone() });
        if self.state.who(who.node).is_some_and(|now| life(now) == life(who)) {
            for end in &report.ends {
                // L6: the first word on an end is the last.
                let Some(hold) = self.open.remove(&(life(who), end.seq)) else { continue };
                self.charge(hold, end.used.unwrap_or_default());
            }
        }
        if let Outcome::Stale(Some(epoch)) = outcome
            && life(self.nodes[node].who) == life(who)
        {
            self.nodes[node].begin_epoch(epoch);
        }
    }

    fn restart(&mut self, node: usize, same_boot: bool) {
        let old = self.nodes[node].who;
        if !same_boot {
            // What ran goes on at the upstream, as long as it could have: the maximum counts from its start.
            let ends = self.nodes[node].running.iter().map(|(_, run)| Stamp(run.since.0 + REQUEST_US_MAX));
            self.orphans.extend(ends);
        }
        let lost: Vec<_> = self.open.keys().copied().filter(|&(who, _)| who == life(old)).collect();
        for key in lost {
            let hold = self.open.remove(&key).unwrap();
            self.charge(hold, hold.spend);
            if self.is_open(hold) {
                self.lost.push((key, hold));
            }
        }
        let boot = if same_boot { "boot".to_owned() } else { format!("boot {}", self.lives) };
        let kept = if same_boot { self.state.node(old.node).unwrap().boot_id.clone() } else { boot.into() };
        self.up(node, kept);
    }

    fn charge(&mut self, hold: Hold, used: Spend) {
        for kind in KINDS {
            let (window, held) = hold.of(kind);
            let (sum, overrun) = self.used.entry(window).or_default();
            *sum += kind.of(used);
            *overrun += kind.of(used).saturating_sub(held);
        }
    }

    /// Whether the window of any quota is the present one or the one before.
    fn is_open(&self, hold: Hold) -> bool {
        KINDS.into_iter().any(|kind| hold.windows.of(kind) + 1 >= self.state.windows().of(kind))
    }

    fn roll(&mut self) {
        let day = self.state.windows().day + 1;
        assert_eq!(self.apply(Op::RollDay { day: day + 1 }), Outcome::Nothing);
        assert_eq!(self.apply(Op::RollDay { day }), Outcome::Done);
        self.forget_closed();
    }

    fn roll_month(&mut self) {
        let month = self.state.windows().month + 1;
        assert_eq!(self.apply(Op::RollMonth { month: month + 1 }), Outcome::Nothing);
        assert_eq!(self.apply(Op::RollMonth { month }), Outcome::Done);
        self.forget_closed();
    }

    fn forget_closed(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        self.lost = lost.into_iter().filter(|&(_, hold)| self.is_open(hold)).collect();
    }

    fn correct(&mut self, which: usize, tokens: u64) {
        if self.lost.is_empty() {
            return;
        }
        let ((who, seq), hold) = self.lost.remove(which % self.lost.len());
        let op = Op::Correct { node: who.node, incarnation: who.incarnation, seq, used: priced(tokens) };
        assert_eq!(self.apply(op.clone()), Outcome::Done);
        assert_eq!(self.apply(op), Outcome::Nothing, "a correction counts once");
        for kind in KINDS {
            let (window, held) = hold.of(kind);
            if let Some((sum, _)) = self.used.get_mut(&window) {
                *sum -= held.saturating_sub(kind.of(priced(tokens)));
            }
        }
    }

    /// What must be true after every entry.
    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.state.breach(), None);
        let pool = &self.state.pools[&POOL];
        prop_assert_eq!(&pool.frozen, &None);
        // The bucket's total is the sum of its rows.
        let attached = self.state.nodes().flat_map(|(_, row)| row.open.values()).filter(|open| open.attached);
        let attached = attached.map(|open| open.amounts).fold(Amounts::default(), |sum, amounts| Amounts {
            tokens: sum.tokens + amounts.tokens,
            requests: sum.requests + amounts.requests,
            permits: sum.permits + amounts.permits,
        });
        let leased: u64 = pool.leases.values().map(|lease| lease.tokens.out()).sum();
        let calls: u64 = pool.leases.values().map(|lease| lease.requests.out()).sum();
        prop_assert_eq!(pool.tokens.as_ref().map(|bucket| bucket.outstanding), Some(leased + attached.tokens));
        prop_assert_eq!(pool.requests.as_ref().map(|bucket| bucket.outstanding), Some(calls + attached.requests));
        prop_assert_eq!(pool.attached_permits, attached.permits);
        for (&key, &until_day) in self.revoked.iter().filter(|(_, until_day)| **until_day >= self.state.windows().day) {
            prop_assert!(self.state.is_revoked(&[key; 32]), "revoked until day {}", until_day);
        }
        // L3: whatever runs has a permit, and a node runs no more than it holds.
        let running: usize = self.nodes.iter().map(|node| node.permits_in_use()).sum();
        prop_assert!((running + self.orphans.len()) as u64 <= pool.permits_out(), "L3: more runs than has permits");
        prop_assert!(pool.permits_out() <= PERMITS, "L3");
        // L4 and the quota's conservation: used and pending are what the naive books say.
        let windows = self.state.windows();
        for (kind, limit) in tenant().quotas.iter() {
            let row = self.state.tenants.get(&tenant().scope).and_then(|row| row.quota(kind).copied());
            let mut row = row.unwrap_or_else(|| crate::state::quota::Quota::new(kind, windows));
            row.roll(windows);
            for (window, back) in [(row.now, 0), (row.last, 1)] {
                let key = (kind, windows.of(kind) - back);
                let pending = self.open.values().filter(|hold| hold.of(kind).0 == key).map(|hold| hold.of(kind).1);
                let (used, overrun) = self.used.get(&key).copied().unwrap_or_default();
                prop_assert_eq!((window.used, window.pending), (used, pending.sum::<u64>()), "{:?}", key);
                prop_assert!(window.used + window.pending <= limit.most + overrun, "L4");
            }
        }
        Ok(())
    }

    /// L2: no interval of what was sent exceeds, by the largest limits that were ever set.
    fn excess(&self) -> i128 {
        let mut worst = 0;
        for (first, (from, _)) in self.sent.iter().enumerate() {
            let mut sum = 0;
            for (to, tokens) in &self.sent[first..] {
                sum += i128::from(*tokens) * i128::from(TOKENS.rate.per_us);
                let filled = i128::from(TOKENS.rate.units) * i128::from(to.0 - from.0);
                worst = worst.max(sum - i128::from(TOKENS.burst) * i128::from(TOKENS.rate.per_us) - filled);
            }
        }
        worst
    }
}

/// A process, whatever its epoch.
fn life(who: Who) -> Who {
    Who { epoch: crate::model::Epoch(0), ..who }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn every_invariant_stands_after_every_entry_of_any_history(steps in prop::collection::vec(step(), 1..250)) {
        let mut history = History::new();
        for step in &steps {
            history.step(step);
            history.check()?;
        }
        prop_assert!(history.excess() <= 0, "L2: more was sent than burst and rate");
        // L9: the same log gives the same ledger.
        let mut again = State::new(Rules::ALL);
        history.log.iter().for_each(|(at, entry)| _ = again.apply(*at, entry));
        prop_assert_eq!(again.digest(), history.state.digest());
        prop_assert_eq!(again, history.state);
    }
}

/// Found by a random history: the request began as the lease ended, and its machine was lost while it ran.
#[test]
fn a_lost_machines_permits_come_back_once_its_last_request_must_have_ended() {
    let mut history = History::new();
    let began_us = LEASE_US - 200_000;
    for step in [Step::Reserve(1, 1, true), Step::Pass(began_us), Step::Start(1, 0), Step::Pass(REQUEST_US_MAX / 3)] {
        history.step(&step);
    }
    history.step(&Step::Restart(1, false));
    history.step(&Step::FreeLost);
    history.check().unwrap();
    assert_eq!(history.state.pools[&POOL].permits_out(), 1);
    history.step(&Step::Pass(LEASE_US + REQUEST_US_MAX - began_us - REQUEST_US_MAX / 3));
    history.step(&Step::FreeLost);
    history.check().unwrap();
    assert_eq!(history.state.pools[&POOL].permits_out(), 0);
}

#[test]
fn a_digest_differs_wherever_a_ledger_does() {
    let mut history = History::new();
    let mut seen = vec![history.state.digest().0];
    for step in [
        Step::Pass(1_000),
        Step::Grant(0, 10, 1, 1),
        Step::Reserve(1, 10, true),
        Step::Restart(1, false),
        Step::Checkpoint,
        Step::Day,
        Step::Limits(1),
    ] {
        history.step(&step);
        seen.push(State { at: LogPos::default(), ..history.state.clone() }.digest().0);
    }
    // Neither passing time nor a checkpoint of rows in use is an entry that changes anything.
    let mut distinct = seen.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), seen.len() - 1, "{seen:?}");
}
