//! Refusals cost nothing, and the times that are named with them hold.

use super::desk::{Desk, STRICT};
use crate::model::{BucketLimit, PoolLimits, Rate, Scope, ScopeKind, TenantLimits};
use crate::schedules::rig::{request, request_of, tokens};

const SECOND: u64 = 1_000_000;
const LIMIT: BucketLimit = BucketLimit { rate: Rate { units: 1_000, per_us: SECOND }, burst: 1_000 };

fn limited(requests: BucketLimit) -> TenantLimits {
    TenantLimits {
        scope: Scope { kind: ScopeKind::Key, id: [9; 16] },
        version: 1,
        requests: Some(requests),
        tokens: None,
        concurrent: None,
        quotas: crate::model::Quotas::default(),
    }
}

/// Asks for `tokens`, and says what was estimated before and what it took, in microseconds.
fn estimate_and_wait(desk: &mut Desk, priority: u8, tokens: u64) -> (u64, u64) {
    let request = request_of(priority, tokens, None, &[]);
    let now = desk.rig.boot(0);
    let estimate = desk.rig.keeper(0).estimate(now, &request, None).wait_us;
    let began = desk.rig.elapsed_us();
    desk.ask(0, '?', &request);
    while desk.count('?') == 0 {
        assert!(desk.rig.elapsed_us() < began + 60 * SECOND, "never served, estimated {estimate} us");
        desk.run(1_000);
    }
    (estimate, desk.rig.elapsed_us() - began)
}

fn assert_true((estimate, took): (u64, u64)) {
    assert!(took <= estimate + estimate / 100 + 10_000, "took {took}, was told {estimate}: a retry would fail");
    assert!(estimate <= took + took / 10 + 10_000, "took {took}, was told {estimate}: far too late");
}

#[test]
fn an_estimate_is_when_the_backlog_and_the_request_have_been_paid_for() {
    let mut desk = Desk::new(2, tokens(LIMIT), STRICT);
    desk.ask(1, 'x', &request(1_000));
    desk.end_all();
    (0..3).for_each(|_| desk.ask(1, 'a', &request(500)));
    desk.ask(0, 'a', &request(100));
    assert_true(estimate_and_wait(&mut desk, 5, 400));
}

#[test]
fn an_estimate_leaves_out_what_is_less_urgent() {
    let mut desk = Desk::new(2, tokens(LIMIT), STRICT);
    desk.ask(1, 'x', &request(1_000));
    desk.end_all();
    (0..3).for_each(|_| desk.ask(0, 'a', &request_of(8, 500, None, &[])));
    assert_true(estimate_and_wait(&mut desk, 2, 400));
}

#[test]
fn an_estimate_counts_the_debt_that_must_be_paid_first() {
    let mut desk = Desk::new(1, tokens(LIMIT), STRICT);
    for ticket in desk.rig.admit_all(0, 1, 1_000) {
        desk.rig.keeper(0).settle(ticket, crate::model::Spend::tokens(4_000));
    }
    desk.run(300_000);
    desk.ask(0, 'a', &request(100));
    assert_true(estimate_and_wait(&mut desk, 5, 400));
}

#[test]
fn an_estimate_counts_requests_where_they_are_scarce() {
    let requests = BucketLimit { rate: Rate::per_sec(2), burst: 2 };
    let mut desk = Desk::new(1, PoolLimits { requests: Some(requests), ..PoolLimits::default() }, STRICT);
    (0..6).for_each(|_| desk.ask(0, 'a', &request(1)));
    assert_true(estimate_and_wait(&mut desk, 5, 1));
}

#[test]
fn a_tenants_limit_refuses_at_once_and_says_when_it_will_not() {
    let mut desk = Desk::new(1, tokens(LIMIT), STRICT);
    let request = request_of(5, 10, None, &[limited(BucketLimit { rate: Rate::per_sec(2), burst: 2 })]);
    (0..2).for_each(|_| desk.ask(0, 'a', &request));
    desk.ask(0, 'r', &request);
    let [('r', retry_us)] = desk.refused[..] else { panic!("not refused at once: {:?}", desk.refused) };
    desk.run(retry_us - 10_000);
    desk.ask(0, 'e', &request);
    assert_eq!(desk.refused.len(), 2, "too early");
    desk.run(10_000 + 1_000);
    desk.ask(0, 'b', &request);
    assert_eq!((desk.refused.len(), desk.count('b')), (2, 1));
}

#[test]
fn a_tenant_is_refused_at_once_even_where_others_wait_and_its_own_waiting_ones_count() {
    let mut desk = Desk::new(2, tokens(LIMIT), STRICT);
    desk.ask(1, 'x', &request(1_000));
    desk.end_all();
    desk.ask(1, 'w', &request(900));
    let request = request_of(5, 10, None, &[limited(BucketLimit { rate: Rate::per_sec(1), burst: 2 })]);
    for label in ['a', 'b', 'c', 'd'] {
        desk.ask(0, label, &request);
    }
    let refused: Vec<char> = desk.refused.iter().map(|&(label, _)| label).collect();
    assert_eq!(refused, ['c', 'd']);
    desk.run(2 * SECOND);
    assert_eq!((desk.count('a'), desk.count('b')), (1, 1), "who waits has its place");
}

#[test]
fn a_refusal_changes_no_balance() {
    let mut desk = Desk::new(1, tokens(LIMIT), STRICT);
    let poor = limited(BucketLimit { rate: Rate::per_sec(1), burst: 1 });
    let rich = TenantLimits {
        scope: Scope { kind: ScopeKind::Team, id: [8; 16] },
        requests: None,
        tokens: Some(LIMIT),
        concurrent: Some(10),
        quotas: crate::model::Quotas::default()
            .with(crate::model::QuotaKind::DayTokens, Some(crate::model::QuotaLimit::hard(1_000))),
        ..poor
    };
    let request = request_of(5, 10, None, &[rich, poor]);
    desk.ask(0, 'a', &request);
    desk.rig.run(SECOND / 2);
    // One refusal brings the rows to the present; another at the same instant must leave them as they are.
    desk.ask_at_once(0, 'q', &request);
    desk.rig.talk();
    let (pools, tenants) = (desk.rig.state.pools.clone(), desk.rig.state.tenants.clone());
    let stamp = desk.rig.state.stamp();
    desk.ask_at_once(0, 'r', &request);
    desk.rig.talk();
    assert_eq!(desk.rig.state.stamp(), stamp);
    assert_eq!(desk.rig.refused().len(), 2);
    assert_eq!((&desk.rig.state.pools, &desk.rig.state.tenants), (&pools, &tenants));
}
