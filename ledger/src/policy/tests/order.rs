//! Priorities: strict order over nodes, aging, and large requests that save up.

use super::desk::{Desk, ONE_AT_A_TIME, STRICT};
use crate::keeper::Decision;
use crate::model::{BucketLimit, Dimension, PoolLimits, Rate};
use crate::policy::{Config, Discipline};
use crate::schedules::rig::{request, request_of, tokens};

const SECOND: u64 = 1_000_000;

#[test]
fn waiting_requests_of_all_nodes_are_served_by_priority_then_arrival() {
    let mut desk = Desk::new(3, ONE_AT_A_TIME, STRICT);
    desk.ask(0, 'x', &request_of(0, 1, None, &[]));
    for (node, label, priority) in [(1, 'A', 4), (2, 'B', 1), (0, 'C', 4), (1, 'D', 2)] {
        desk.ask(node, label, &request_of(priority, 1, None, &[]));
    }
    assert_eq!(desk.served, ['x'], "one at a time");
    desk.end_times(5);
    assert_eq!(desk.served, ['x', 'B', 'D', 'A', 'C']);
    assert_eq!(desk.rig.policy.inversion_us_max(), 0);
    desk.run(5 * SECOND);
    assert_eq!(desk.rig.state.outstanding(), 0);
}

/// A request of `priority` waits beside an endless stream of another, each of 100 ms. Says when it was served.
fn beside_a_stream(priority: u8, stream: u8, aging_us: u64, for_us: u64) -> Option<u64> {
    let mut desk = Desk::new(2, ONE_AT_A_TIME, Config { aging_us, ..STRICT });
    desk.ask(0, 's', &request_of(stream, 1, None, &[]));
    desk.ask(1, 'p', &request_of(priority, 1, None, &[]));
    let began = desk.rig.elapsed_us();
    while desk.rig.elapsed_us() < began + for_us {
        desk.ask(0, 's', &request_of(stream, 1, None, &[]));
        desk.run(100_000);
        desk.end_all();
        if desk.count('p') > 0 {
            assert_eq!(desk.rig.policy.inversion_us_max(), 0, "urgent with aging");
            return Some(desk.rig.elapsed_us() - began);
        }
    }
    None
}

#[test]
fn aging_serves_the_least_urgent_within_its_bound() {
    let quantum = 2 * SECOND;
    for priority in [3, 9] {
        let served = beside_a_stream(priority, 1, quantum, 30 * SECOND).expect("served");
        let least = (u64::from(priority) - 1) * quantum;
        let drain = 300_000;
        assert!((least - drain..least + drain).contains(&served), "priority {priority} after {served} us");
    }
}

#[test]
fn an_inversion_lasts_from_when_the_leader_knew_of_the_more_urgent() {
    let mut desk = Desk::new(1, ONE_AT_A_TIME, Config { discipline: Discipline::WeightedFair, ..STRICT });
    desk.ask(0, 'x', &request_of(0, 1, None, &[]));
    desk.run(300_000);
    for (label, priority) in [('A', 0), ('A', 0), ('b', 9)] {
        desk.ask(0, label, &request_of(priority, 100, None, &[]));
    }
    desk.run(500_000);
    desk.end_times(1);
    assert_eq!(
        (&desk.served[..], desk.rig.policy.inversion_us_max()),
        (&['x', 'A'][..], 0),
        "the most urgent was next"
    );
    desk.run(200_000);
    desk.end_times(1);
    assert_eq!(desk.served, ['x', 'A', 'b'], "their shares let the less urgent go before");
    let inversion_us = desk.rig.policy.inversion_us_max();
    assert!((700_000..710_000).contains(&inversion_us), "{inversion_us} us");
}

#[test]
fn without_aging_a_stream_of_more_urgent_requests_goes_first_for_ever() {
    assert_eq!(beside_a_stream(9, 1, 0, 30 * SECOND), None);
}

#[test]
fn nothing_ages_into_the_most_urgent_priority() {
    assert_eq!(beside_a_stream(1, 0, 2 * SECOND, 30 * SECOND), None);
}

#[test]
fn a_request_ages_behind_a_less_urgent_one_of_its_tenant() {
    let mut desk = Desk::new(1, ONE_AT_A_TIME, Config { aging_us: 2 * SECOND, ..STRICT });
    desk.ask(0, 'x', &request_of(0, 1, None, &[]));
    desk.ask(0, 'a', &request_of(9, 1, None, &[]));
    desk.run(7 * SECOND);
    desk.ask(0, 'b', &request_of(5, 1, None, &[]));
    // From 8 s on both are of priority 5, from 9 s on the second is of 4, the first only from 10 s on.
    desk.run(2 * SECOND + 100_000);
    desk.ask(0, 'c', &request_of(4, 1, None, &[]));
    desk.end_times(4);
    assert_eq!(desk.served, ['x', 'b', 'c', 'a']);
}

#[test]
fn a_large_head_is_not_overtaken_while_it_saves_up() {
    let limit = BucketLimit { rate: Rate::per_sec(1_000), burst: 1_000 };
    let mut desk = Desk::new(2, tokens(limit), STRICT);
    desk.ask(0, 'x', &request(1_000));
    desk.end_all();
    desk.ask(0, 'L', &request(900));
    for _ in 0..8 {
        desk.ask(1, 's', &request(10));
        desk.run(99_000);
    }
    assert_eq!(desk.served, ['x'], "the small ones wait behind it");
    desk.run(SECOND);
    assert_eq!(desk.served[..2], ['x', 'L']);
    assert_eq!(desk.count('s'), 8);
}

#[test]
fn a_more_urgent_request_passes_a_large_head() {
    let limit = BucketLimit { rate: Rate::per_sec(1_000), burst: 1_000 };
    let mut desk = Desk::new(2, tokens(limit), STRICT);
    desk.ask(0, 'x', &request(1_000));
    desk.end_all();
    desk.ask(0, 'L', &request(900));
    desk.ask(1, 'u', &request_of(1, 100, None, &[]));
    desk.run(2 * SECOND);
    assert_eq!(desk.served, ['x', 'u', 'L']);
}

#[test]
fn what_the_limit_never_holds_is_refused_at_once() {
    let limit = BucketLimit { rate: Rate::per_sec(1_000), burst: 1_000 };
    let mut desk = Desk::new(1, tokens(limit), STRICT);
    let never = desk.rig.admit(0, &request(1_001));
    assert_eq!(never, Decision::Never { dimension: Dimension::Tokens, most: 1_000 });
    desk.rig.set_pool(PoolLimits { concurrent: Some(0), ..PoolLimits::default() });
    assert_eq!(desk.rig.admit(0, &request(1)), Decision::Never { dimension: Dimension::Concurrent, most: 0 });
}
