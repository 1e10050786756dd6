//! What a local admission costs, from the lock's inside: admit and settle, out of a slice of tokens, requests and
//! permits. It also counts allocations, and fails when there are any.

use criterion::Criterion;
use ledger::entry::{Entry, LogPos, Op, Outcome};
use ledger::keeper::{Decision, Keeper, Request};
use ledger::model::{BucketLimit, Incarnation, NodeId, PoolId, PoolLimits, Priority, Rate};
use ledger::policy::{Config, Discipline, Policy};
use ledger::rules::Rules;
use ledger::state::State;
use ledger::time::{Boot, Stamp};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::hint::black_box;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NODE: NodeId = NodeId(1);

/// A node with a slice large enough for the whole bench.
struct Rig {
    state: State,
    policy: Policy,
    keeper: Keeper,
    index: u64,
    now: Boot,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            state: State::new(Rules::ALL),
            policy: Policy::new(Config { discipline: Discipline::Strict, levels: 10, aging_us: 2_000_000 }),
            keeper: Keeper::new(Rules::ALL),
            index: 0,
            now: Boot(1_000_000),
        };
        let plenty = Some(BucketLimit { rate: Rate::per_sec(1 << 50), burst: 1 << 55 });
        let limits = PoolLimits { tokens: plenty, requests: plenty, concurrent: Some(100_000) };
        let set = Op::SetPool { name: "gpt".into(), limits, request_us_max: 1 };
        let up = Op::NodeUp { node: NODE, boot_id: "boot".into(), life: 1 };
        let outcomes = rig.apply(vec![set, up]);
        let Outcome::Up(incarnation) = outcomes[1] else { panic!("the node is new") };
        rig.policy.begin_term(1, rig.now);
        rig.keeper.node_up(NODE, Incarnation(incarnation.0), Stamp(1));
        rig.keeper.set_pool(PoolId(0), limits);
        // The first requests go by the leader, until the slice fits the demand.
        for _ in 0..60 {
            for _ in 0..50 {
                if let Decision::Go(ticket) = rig.keeper.admit(rig.now, &request()) {
                    rig.keeper.settle(ticket, ledger::model::Spend::tokens(500));
                }
            }
            rig.talk();
            rig.now.0 += 1_000;
        }
        rig
    }

    fn apply(&mut self, ops: Vec<Op>) -> Vec<Outcome> {
        self.index += 1;
        let entry = Entry { proposer_term: 1, stamp: Stamp(self.now.0), ops };
        self.state.apply(LogPos { term: 1, index: self.index }, &entry).outcomes
    }

    fn talk(&mut self) {
        while let Some(contact) = self.keeper.contact(self.now) {
            let mut plan = self.policy.plan(self.now, Stamp(self.now.0), &self.state, vec![contact]);
            self.index += 1;
            let ops = std::mem::take(&mut plan.ops);
            let entry = Entry { proposer_term: 1, stamp: Stamp(self.now.0), ops };
            let applied = self.state.apply(LogPos { term: 1, index: self.index }, &entry);
            for reply in self.policy.finish(&self.state, plan, &applied) {
                for (_, word) in self.keeper.reply(self.now, &reply) {
                    if let ledger::keeper::Word::Granted { ticket, .. } = word {
                        self.keeper.settle(ticket, ledger::model::Spend::tokens(500));
                    }
                }
            }
        }
    }

    fn admit_and_settle(&mut self, request: &Request) {
        match self.keeper.admit(black_box(self.now), black_box(request)) {
            Decision::Go(ticket) => self.keeper.settle(ticket, ledger::model::Spend::tokens(500)),
            // The slice is used up, which is rare: the leader gives a new one.
            Decision::Wait(_) => {
                self.now.0 += 1_000;
                self.talk();
            }
            other => panic!("not admitted: {other:?}"),
        }
    }
}

fn request() -> Request {
    Request {
        pool: PoolId(0),
        priority: Priority(5),
        spend: ledger::model::Spend::tokens(1_000),
        weight: 1_500,
        tenant: None,
        tenants: Arc::from([]),
    }
}

#[expect(clippy::print_stdout, reason = "a bench reports on its standard output")]
fn main() {
    let mut rig = Rig::new();
    let request = request();
    let region = Region::new(ALLOCATOR);
    for _ in 0..1_000 {
        rig.admit_and_settle(&request);
    }
    let change = region.change();
    assert_eq!(change.allocations, 0, "a local admission allocates: {change:?}");
    println!("local admission: 0 allocations in 1,000");
    let mut criterion = Criterion::default().configure_from_args();
    criterion
        .bench_function("local admission: admit and settle", |bench| bench.iter(|| rig.admit_and_settle(&request)));
    criterion.final_summary();
}
