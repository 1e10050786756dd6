//! Shares: between priorities when they are weighted, and between tenants of one priority.

use super::desk::{Desk, ONE_AT_A_TIME, STRICT};
use crate::keeper::Request;
use crate::model::{Scope, ScopeKind};
use crate::policy::{Config, Discipline};
use crate::schedules::rig::request_of;

const WEIGHTED: Config = Config { discipline: Discipline::WeightedFair, ..STRICT };
const HYBRID: Config = Config { discipline: Discipline::Hybrid, ..STRICT };

fn tenant(name: u8) -> Option<Scope> {
    Some(Scope { kind: ScopeKind::Key, id: [name; 16] })
}

fn of_priority(priority: u8) -> Request {
    request_of(priority, 100, None, &[])
}

/// A desk with somebody at it, and so many waiting of each label.
fn crowded(config: Config, crowd: &[(char, Request, usize)]) -> Desk {
    let mut desk = Desk::new(2, ONE_AT_A_TIME, config);
    desk.ask(0, 'x', &of_priority(0));
    for (label, request, count) in crowd {
        (0..*count).for_each(|each| desk.ask_at_once(each % 2, *label, request));
    }
    desk.run(1_000);
    desk
}

fn assert_near(count: usize, wanted: usize) {
    assert!(count.abs_diff(wanted) <= 2, "{count} instead of {wanted}");
}

#[test]
fn weighted_priorities_share_in_proportion_to_their_weights() {
    // Priority p of ten levels weighs 10 - p.
    let crowd = [('1', of_priority(1), 150), ('5', of_priority(5), 150), ('9', of_priority(9), 150)];
    let mut desk = crowded(WEIGHTED, &crowd);
    desk.end_times(150);
    assert_near(desk.count('1'), 90);
    assert_near(desk.count('5'), 50);
    assert_near(desk.count('9'), 10);
}

#[test]
fn weights_are_of_work_not_of_requests() {
    let large = request_of(5, 400, None, &[]);
    let mut desk = crowded(WEIGHTED, &[('0', of_priority(0), 150), ('L', large, 150)]);
    desk.end_times(90);
    // 10 shares to 5, the large ones of four times the work each.
    assert_near(desk.count('0'), 80);
    assert_near(desk.count('L'), 10);
}

#[test]
fn a_priority_that_was_idle_saves_up_no_share() {
    let mut desk = crowded(WEIGHTED, &[('1', of_priority(1), 100)]);
    desk.end_times(50);
    (0..100).for_each(|_| desk.ask_at_once(1, '9', &of_priority(9)));
    desk.run(1_000);
    desk.served.clear();
    desk.end_times(30);
    assert_near(desk.count('9'), 3);
}

#[test]
fn hybrid_serves_the_most_urgent_first_and_shares_the_rest() {
    let crowd = [('1', of_priority(1), 150), ('9', of_priority(9), 150), ('0', of_priority(0), 20)];
    let mut desk = crowded(HYBRID, &crowd);
    desk.served.clear();
    desk.end_times(20);
    assert_eq!(desk.count('0'), 20);
    desk.end_times(100);
    assert_near(desk.count('1'), 90);
    assert_near(desk.count('9'), 10);
}

#[test]
fn hybrid_shares_the_rest_fairly_while_urgent_requests_keep_coming() {
    let urgent = request_of(0, 5_000, None, &[]);
    let mut desk = crowded(HYBRID, &[('1', of_priority(1), 200), ('9', of_priority(9), 200)]);
    desk.served.clear();
    for _ in 0..100 {
        desk.end_all();
        desk.ask(1, '0', &urgent);
        desk.end_all();
    }
    assert_eq!(desk.count('0'), 100);
    assert_near(desk.count('1'), 90);
    assert_near(desk.count('9'), 10);
}

#[test]
fn two_tenants_of_one_priority_take_turns() {
    let of = |name| request_of(5, 100, tenant(name), &[]);
    let mut desk = crowded(STRICT, &[('a', of(1), 50), ('b', of(2), 10)]);
    desk.served.clear();
    desk.end_times(20);
    assert_near(desk.count('a'), 10);
    assert_near(desk.count('b'), 10);
}

#[test]
fn a_tenant_of_small_requests_is_served_as_much_as_one_of_large_ones() {
    let of = |name, weight| Request { weight, ..request_of(5, 100, tenant(name), &[]) };
    let mut desk = crowded(STRICT, &[('a', of(1, 100), 200), ('b', of(2, 1_000), 200)]);
    desk.served.clear();
    desk.end_times(110);
    assert_near(desk.count('a'), 100);
    assert_near(desk.count('b'), 10);
}

#[test]
fn a_tenant_that_comes_late_is_not_behind_the_others_queue() {
    let of = |name| request_of(5, 100, tenant(name), &[]);
    let mut desk = crowded(STRICT, &[('a', of(1), 100)]);
    desk.end_times(30);
    desk.ask(1, 'b', &of(2));
    desk.served.clear();
    desk.end_times(2);
    assert_eq!(desk.count('b'), 1);
}
