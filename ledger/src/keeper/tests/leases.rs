//! Admission from memory: only within a valid lease, never past somebody who waits, and quiet about it.

use crate::keeper::Decision;
use crate::model::{BucketLimit, PoolLimits, Rate};
use crate::rules::Rules;
use crate::schedules::rig::{POOL, Rig, request, tokens};
use crate::time::{LEASE_US, RENEW_US, SEND_WITHIN_US};

const BURST: u64 = 8_000;
const LIMIT: BucketLimit = BucketLimit { rate: Rate { units: 4_000, per_us: 1_000_000 }, burst: BURST };

fn with_slice() -> Rig {
    let mut rig = Rig::new(2, Rules::ALL, tokens(LIMIT));
    rig.lead(1);
    rig.take_slice(0, BURST);
    rig
}

fn is_admitted(rig: &mut Rig, tokens: u64) -> bool {
    matches!(rig.admit(0, &request(tokens)), Decision::Go(_))
}

#[test]
fn a_node_admits_from_its_slice_until_the_lease_ends_by_its_own_clock() {
    let mut rig = with_slice();
    let left_us = rig.keeper(0).lease_until().0 - rig.boot(0).0;
    assert!((LEASE_US - 20_000..LEASE_US).contains(&left_us));
    rig.pass(left_us - 1);
    assert!(is_admitted(&mut rig, 100));
    rig.pass(1);
    assert!(!is_admitted(&mut rig, 100));
}

#[test]
fn a_new_process_holds_nothing_until_the_ledger_says_so() {
    let mut rig = with_slice();
    rig.bring_up(0, "boot", 2);
    assert!(!is_admitted(&mut rig, 1));
    assert_eq!(rig.keeper(0).holds(POOL), (0, 0, 0));
}

#[test]
fn what_does_not_fit_the_slice_waits_and_nothing_overtakes_it() {
    let mut rig = with_slice();
    assert!(!is_admitted(&mut rig, BURST / 2 + 1));
    assert!(!is_admitted(&mut rig, 1), "a small one behind it would fit");
    rig.run(3_000_000);
    assert_eq!(rig.granted(0).len(), 2);
    assert!(is_admitted(&mut rig, 1), "nobody waits any more");
}

#[test]
fn who_waits_at_another_node_is_not_overtaken_from_memory() {
    let mut rig = with_slice();
    assert!(matches!(rig.admit(1, &request(BURST)), Decision::Wait(_)));
    rig.talk();
    assert!(!is_admitted(&mut rig, 1));
    assert_eq!(rig.keeper(0).holds(POOL), (0, 0, 0), "the slice went back at once");
    rig.run(4_000_000);
    assert_eq!((rig.granted(1).len(), rig.granted(0).len()), (1, 1));
}

#[test]
fn a_ticket_is_sent_within_delta_and_within_the_lease() {
    let mut rig = with_slice();
    let Decision::Go(first) = rig.admit(0, &request(10)) else { panic!("there is a slice") };
    let now = rig.boot(0);
    let late = crate::time::Boot(now.0 + SEND_WITHIN_US);
    assert!(rig.keeper(0).may_send(crate::time::Boot(late.0 - 1), &first));
    assert!(!rig.keeper(0).may_send(late, &first));
    let end = rig.keeper(0).lease_until();
    rig.pass(end.0 - now.0 - 10);
    let Decision::Go(last) = rig.admit(0, &request(10)) else { panic!("the lease stands") };
    assert!(rig.keeper(0).may_send(crate::time::Boot(end.0 - 1), &last));
    assert!(!rig.keeper(0).may_send(end, &last));
}

#[test]
fn an_idle_node_returns_its_slice_and_falls_silent() {
    let limits = PoolLimits { requests: Some(LIMIT), concurrent: Some(50), ..tokens(LIMIT) };
    let mut rig = Rig::new(1, Rules::ALL, limits);
    for _ in 0..100 {
        for ticket in rig.admit_all(0, 1, 20) {
            rig.keeper(0).settle(ticket, crate::model::Spend::tokens(20));
        }
        rig.run(10_000);
    }
    rig.run(10_000_000);
    assert_eq!(rig.state.outstanding(), 0);
    let (entries, contacts) = (rig.log.len(), rig.contacts);
    rig.run(50_000_000);
    assert_eq!((rig.log.len(), rig.contacts), (entries, contacts), "the log grows while nothing happens");
    assert!(rig.keeper(0).lease_until() < rig.boot(0), "the lease has lapsed");
    rig.admit_all(0, 1, 20)
        .into_iter()
        .for_each(|ticket| rig.keeper(0).settle(ticket, crate::model::Spend::tokens(20)));
    assert!(rig.log.len() > entries, "and is taken up again");
}

#[test]
fn ten_thousand_uncontended_requests_take_less_than_two_hundred_entries() {
    let plenty = |burst| BucketLimit { rate: Rate::per_sec(burst), burst };
    let limits = PoolLimits { tokens: Some(plenty(1_000_000)), requests: Some(plenty(10_000)), concurrent: Some(200) };
    let mut rig = Rig::new(1, Rules::ALL, limits);
    rig.admit_all(0, 1, 100)
        .into_iter()
        .for_each(|ticket| rig.keeper(0).settle(ticket, crate::model::Spend::tokens(100)));
    rig.run(2_000_000);
    let (entries, contacts) = (rig.log.len(), rig.contacts);
    let mut waited = 0;
    let mut running = std::collections::VecDeque::new();
    for _ in 0..10_000 {
        // A thousand each second, each of 20 ms.
        rig.run(1_000);
        match rig.admit(0, &request(100)) {
            Decision::Go(ticket) => running.push_back(ticket),
            Decision::Wait(_) => {
                waited += 1;
                rig.talk();
                running.extend(rig.granted(0));
            }
            other => panic!("{other:?}"),
        }
        if running.len() > 20 {
            let ticket = running.pop_front().unwrap();
            rig.keeper(0).settle(ticket, crate::model::Spend::tokens(50));
        }
    }
    let (entries, contacts) = (rig.log.len() - entries, rig.contacts - contacts);
    assert!(entries < 200 && contacts < 200, "{entries} entries, {contacts} contacts, {waited} waited");
    assert!(waited < 50, "{waited} waited");
}

#[test]
fn a_node_in_use_renews_its_lease_in_good_time() {
    let mut rig = with_slice();
    let tickets = rig.admit_all(0, 1, 10);
    for _ in 0..50 {
        rig.run(RENEW_US);
        let left_us = rig.keeper(0).lease_until().0.saturating_sub(rig.boot(0).0);
        assert!(left_us > LEASE_US - 2 * RENEW_US, "{left_us} us left");
    }
    tickets.into_iter().for_each(|ticket| rig.keeper(0).settle(ticket, crate::model::Spend::tokens(10)));
}
