//! Whether the leader's backlog counts the request that asks for an estimate, and which limit binds.

use crate::keeper::{Decision, Estimate, Request, WaitId};
use crate::model::{BucketLimit, Dimension, PoolLimits, Rate};
use crate::rules::Rules;
use crate::schedules::rig::{Rig, request, tokens};
use crate::time::{LEASE_US, RENEW_US};

const SECOND: u64 = 1_000_000;
const LIMIT: BucketLimit = BucketLimit { rate: Rate { units: 100, per_us: SECOND }, burst: 1_000 };

/// A rig whose tokens are all taken at this very moment.
fn empty(nodes: usize) -> Rig {
    let mut rig = Rig::new(nodes, Rules::ALL, tokens(LIMIT));
    assert_eq!(rig.admit_all(0, 1, 1_000).len(), 1);
    rig
}

fn waits(rig: &mut Rig, request: &Request) -> WaitId {
    match rig.admit(0, request) {
        Decision::Wait(id) => id,
        other => panic!("{other:?}"),
    }
}

fn wait_us(rig: &mut Rig, request: &Request, place: WaitId) -> u64 {
    let now = rig.boot(0);
    rig.keeper(0).estimate(now, request, Some(place)).wait_us
}

/// Ledger time goes a little slower than clocks, and tokens come whole.
fn assert_near(told_us: u64, right_us: u64) {
    assert!(told_us.abs_diff(right_us) <= 20_000, "told {told_us} us, {right_us} is right");
}

#[test]
fn a_waiting_request_counts_once_before_and_after_the_leader_knows_it() {
    let mut rig = empty(1);
    let request = request(500);
    let place = waits(&mut rig, &request);
    assert_eq!(wait_us(&mut rig, &request, place), 5 * SECOND, "the leader has not been told");
    let contact = rig.say(0).unwrap();
    assert_eq!(wait_us(&mut rig, &request, place), 5 * SECOND, "the leader has not answered");
    rig.round(vec![contact]);
    assert_eq!(wait_us(&mut rig, &request, place), 5 * SECOND, "the leader's backlog counts it");
    let now = rig.boot(0);
    let behind = rig.keeper(0).estimate(now, &request, None);
    assert_eq!(behind.wait_us, 10 * SECOND, "another of its kind stands behind it");
    rig.pass(RENEW_US / 2);
    assert_eq!(wait_us(&mut rig, &request, place), 5 * SECOND - RENEW_US / 2, "nothing new, but time");
    rig.run(LEASE_US);
    let again = wait_us(&mut rig, &request, place);
    assert_near(again, 5 * SECOND - RENEW_US / 2 - LEASE_US);
}

#[test]
fn an_answer_that_was_lost_counts_with_the_next() {
    let mut rig = empty(1);
    let request = request(500);
    let place = waits(&mut rig, &request);
    let contact = rig.say(0).unwrap();
    drop(rig.hear(vec![contact]));
    assert_eq!(wait_us(&mut rig, &request, place), 5 * SECOND);
    rig.pass(2 * RENEW_US);
    let contact = rig.say(0).unwrap();
    rig.round(vec![contact]);
    assert_near(wait_us(&mut rig, &request, place), 5 * SECOND - 2 * RENEW_US);
}

#[test]
fn who_comes_while_an_answer_is_on_its_way_is_not_in_it() {
    let mut rig = empty(1);
    let (first, second) = (request(300), request(200));
    let first_place = waits(&mut rig, &first);
    let contact = rig.say(0).unwrap();
    let second_place = waits(&mut rig, &second);
    rig.round(vec![contact]);
    assert_eq!(wait_us(&mut rig, &first, first_place), 3 * SECOND);
    assert_eq!(wait_us(&mut rig, &second, second_place), 5 * SECOND);
    rig.talk();
    assert_eq!(wait_us(&mut rig, &second, second_place), 5 * SECOND);
}

#[test]
fn a_new_leader_counts_whom_it_was_told_of() {
    let mut rig = empty(2);
    let request = request(500);
    let place = waits(&mut rig, &request);
    rig.talk();
    rig.lead(1);
    // It speaks first to a node whose message names another request only.
    let own = rig.say(1);
    rig.round(own.into_iter().collect());
    assert_eq!(wait_us(&mut rig, &request, place), 5 * SECOND);
    rig.talk();
    assert_eq!(wait_us(&mut rig, &request, place), 5 * SECOND);
}

#[test]
fn who_has_left_counts_as_another() {
    let mut rig = empty(1);
    let request = request(500);
    let place = waits(&mut rig, &request);
    rig.talk();
    rig.keeper(0).leave(place);
    rig.talk();
    assert_eq!(wait_us(&mut rig, &request, place), 5 * SECOND);
}

#[test]
fn the_limit_that_takes_longest_is_named() {
    let binds = |limits: PoolLimits, tokens: u64| {
        let mut rig = Rig::new(1, Rules::ALL, limits);
        let request = request(tokens);
        rig.admit_all(0, 1, tokens);
        let place = waits(&mut rig, &request);
        rig.talk();
        let now = rig.boot(0);
        let Estimate { wait_us, dimension } = rig.keeper(0).estimate(now, &request, Some(place));
        (wait_us, dimension)
    };
    let one = BucketLimit { rate: Rate::per_sec(1), burst: 1 };
    let both = PoolLimits { requests: Some(one), concurrent: Some(9), ..tokens(LIMIT) };
    assert_eq!(binds(both, 600), (2 * SECOND, Dimension::Tokens));
    assert_eq!(binds(both, 60), (SECOND, Dimension::Requests));
    let permits = PoolLimits { concurrent: Some(1), ..tokens(LIMIT) };
    assert_eq!(binds(permits, 60), (0, Dimension::Concurrent));
}
