//! Tenants' limits where rows come and go: what a row has forgotten must not be paid back.

use crate::entry::{End, Entry, LogPos, Op, Outcome, Report};
use crate::model::{
    BucketLimit, NodeId, PoolId, PoolLimits, QuotaKind, QuotaLimit, Quotas, Rate, Scope, ScopeKind, Spend, TenantLimits,
};
use crate::rules::Rules;
use crate::state::State;
use crate::time::Stamp;
use std::sync::Arc;

struct Ledger {
    state: State,
    index: u64,
}

fn tenant(version: u64, tokens: Option<BucketLimit>) -> TenantLimits {
    let scope = Scope { kind: ScopeKind::Key, id: [7; 16] };
    TenantLimits { scope, version, requests: None, tokens, concurrent: None, quotas: Quotas::default() }
}

impl Ledger {
    fn new() -> Self {
        let mut ledger = Self { state: State::new(Rules::ALL), index: 0 };
        let limits = PoolLimits { concurrent: Some(100), ..PoolLimits::default() };
        ledger.apply(0, Op::SetPool { name: "pool".into(), limits, request_us_max: 1 });
        ledger.apply(0, Op::NodeUp { node: NodeId(1), boot_id: "a".into(), life: 1 });
        ledger
    }

    fn apply(&mut self, at_us: u64, op: Op) -> Outcome {
        self.index += 1;
        let at = LogPos { term: 1, index: self.index };
        let mut applied = self.state.apply(at, &Entry { proposer_term: 1, stamp: Stamp(at_us), ops: vec![op] });
        assert_eq!(self.state.breach(), None);
        applied.outcomes.remove(0)
    }

    fn reserve(&mut self, at_us: u64, seq: u64, tokens: u64, limits: TenantLimits) -> bool {
        let who = self.state.who(NodeId(1)).unwrap();
        let op = Op::Reserve { who, seq, pool: PoolId(0), spend: Spend::tokens(tokens), tenants: Arc::from([limits]) };
        matches!(self.apply(at_us, op), Outcome::Reserved(_))
    }

    fn end(&mut self, at_us: u64, seq: u64, used: Option<u64>) {
        let who = self.state.who(NodeId(1)).unwrap();
        let report = Report { ends: vec![End { seq, used: used.map(Spend::tokens) }], ..Report::default() };
        assert_eq!(self.apply(at_us, Op::Contact { who, report }), Outcome::Done);
    }
}

const LIMIT: BucketLimit = BucketLimit { rate: Rate { units: 100, per_us: 1_000_000 }, burst: 100 };

#[test]
fn a_refund_from_before_a_row_was_forgotten_does_not_count_in_its_successor() {
    let mut ledger = Ledger::new();
    let limits = tenant(1, Some(LIMIT));
    assert!(ledger.reserve(0, 1, 100, limits));
    ledger.apply(2_000_000, Op::Checkpoint);
    assert!(ledger.reserve(2_000_000, 2, 100, limits));
    ledger.end(2_000_000, 1, Some(0));
    assert!(!ledger.reserve(2_000_000, 3, 100, limits), "200 tokens at once under a burst of 100");
}

#[test]
fn a_refund_from_before_a_limit_was_lifted_does_not_count_when_it_is_back() {
    let mut ledger = Ledger::new();
    assert!(ledger.reserve(0, 1, 100, tenant(1, Some(LIMIT))));
    assert!(ledger.reserve(0, 2, 500, tenant(2, None)));
    assert!(ledger.reserve(0, 3, 100, tenant(3, Some(LIMIT))));
    ledger.end(0, 1, Some(0));
    assert!(!ledger.reserve(0, 4, 100, tenant(3, Some(LIMIT))), "the limit is new, and 100 are spent of it");
}

#[test]
fn what_a_request_did_not_use_comes_back_to_its_tenant() {
    let mut ledger = Ledger::new();
    let limits = tenant(1, Some(LIMIT));
    // However often: a tenant at rest, whose one request reserves all of its burst and uses next to nothing.
    for round in 0..5 {
        let at_us = round * 10_000;
        assert!(ledger.reserve(at_us, round * 2 + 1, 90, limits), "round {round}");
        ledger.end(at_us + 5_000, round * 2 + 1, Some(1));
    }
}

#[test]
fn a_refusal_takes_nothing_from_anybody() {
    let mut ledger = Ledger::new();
    let other = Scope { kind: ScopeKind::Team, id: [8; 16] };
    let poor = tenant(1, Some(BucketLimit { burst: 10, ..LIMIT }));
    let rich = TenantLimits {
        scope: other,
        concurrent: Some(5),
        quotas: Quotas::default().with(QuotaKind::DayTokens, Some(QuotaLimit::hard(1_000))),
        ..tenant(1, Some(LIMIT))
    };
    let reserve = |ledger: &mut Ledger, seq, tokens| {
        let who = ledger.state.who(NodeId(1)).unwrap();
        let op =
            Op::Reserve { who, seq, pool: PoolId(0), spend: Spend::tokens(tokens), tenants: Arc::from([rich, poor]) };
        ledger.apply(0, op)
    };
    assert!(matches!(reserve(&mut ledger, 1, 5), Outcome::Reserved(_)));
    let before = ledger.state.clone();
    assert!(matches!(reserve(&mut ledger, 2, 6), Outcome::Refused { .. }));
    let after = State { at: before.at, ..ledger.state.clone() };
    assert_eq!(before, after);
    assert_eq!(before.digest(), after.digest());
}
