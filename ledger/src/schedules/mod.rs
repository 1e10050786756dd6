//! Directed schedules: for each of the seven rules that make leases exact, the shortest history that breaks the limit
//! when the rule is off. Each runs the shipped State, Keeper and Policy, twice: with every rule on, what reaches the
//! upstream stays within B + R x (t + delta) over every interval; with that one rule off, it does not.

pub(crate) mod rig;

use crate::model::{BucketLimit, Rate};
use crate::rules::Rules;
use crate::time::LEASE_US;
use rig::{Rig, tokens};

const SECOND: u64 = 1_000_000;
const BURST: u64 = 8_000;
const LIMIT: BucketLimit = BucketLimit { rate: Rate { units: 4_000, per_us: SECOND }, burst: BURST };

/// The node that has a slice, and the one that then uses whatever the ledger still has.
const HOLDER: usize = 0;
const SPENDER: usize = 1;

/// Runs a schedule with every rule on, and again without one.
fn check(letter: char, schedule: impl Fn(Rules) -> Rig) {
    let sound = schedule(Rules::ALL);
    assert_eq!(sound.excess(LIMIT), 0, "with every rule on the limit must hold");
    assert!(sound.arrived_since(0) >= BURST, "the schedule must use what there is");
    assert_eq!(sound.state.digest(), sound.digest_of_replay());
    let broken = schedule(Rules::without(letter));
    assert!(broken.excess(LIMIT) >= u128::from(BURST) / 4, "without rule ({letter}) the limit must break");
}

fn leader_and_holder(rules: Rules) -> Rig {
    // The leader stands aside, so that cutting the holder off leaves the ledger at work.
    let mut rig = Rig::new(3, rules, tokens(LIMIT));
    rig.lead(2);
    rig
}

#[test]
fn with_rule_a_off_the_bucket_refills_while_an_idle_node_holds_its_slice() {
    check('a', |rules| {
        let mut rig = leader_and_holder(rules);
        rig.take_slice(HOLDER, BURST);
        rig.pass(2 * SECOND);
        rig.spend(HOLDER, 4, 1_000);
        rig.spend(SPENDER, 8, 1_000);
        rig
    });
}

#[test]
fn with_rule_b_off_a_cut_off_holder_admits_past_its_lease() {
    check('b', |rules| {
        let mut rig = leader_and_holder(rules);
        rig.take_slice(HOLDER, BURST);
        rig.cut_off(HOLDER);
        rig.pass(LEASE_US + SECOND / 100);
        rig.round(Vec::new());
        rig.pass(2 * SECOND);
        rig.spend(SPENDER, 8, 1_000);
        rig.spend(HOLDER, 4, 1_000);
        rig
    });
}

#[test]
fn with_rule_c_off_a_late_reply_makes_a_lease_longer_than_the_ledger_gave() {
    check('c', |rules| {
        let mut rig = leader_and_holder(rules);
        rig.take_slice(HOLDER, BURST);
        rig.pass(SECOND / 5);
        let contact = rig.say(HOLDER).unwrap();
        let replies = rig.hear(vec![contact]);
        rig.cut_off(HOLDER);
        rig.pass(LEASE_US - SECOND / 5);
        replies.iter().filter(|reply| reply.who.node.0 == HOLDER as u64).for_each(|reply| rig.tell(reply));
        rig.pass(SECOND / 5 + SECOND / 100);
        rig.round(Vec::new());
        rig.pass(2 * SECOND);
        rig.spend(SPENDER, 8, 1_000);
        rig.spend(HOLDER, 4, 1_000);
        rig
    });
}

#[test]
fn with_rule_d_off_units_that_a_lost_holder_has_spent_are_spent_again() {
    check('d', |rules| {
        let mut rig = leader_and_holder(rules);
        rig.take_slice(HOLDER, BURST);
        rig.cut_off(HOLDER);
        rig.pass(LEASE_US - SECOND / 10);
        rig.spend(HOLDER, 4, 1_000);
        rig.pass(SECOND / 10 + SECOND / 100);
        rig.round(Vec::new());
        rig.spend(SPENDER, 8, 1_000);
        rig
    });
}

#[test]
fn with_rule_e_off_a_leader_whose_clock_is_ahead_fills_the_bucket_at_once() {
    check('e', |rules| {
        let ahead_us = 3_600 * SECOND;
        let mut rig = Rig::with_clocks(&[(0, 0), (ahead_us, 0)], rules, tokens(LIMIT));
        rig.pass(SECOND);
        rig.spend(HOLDER, 8, 1_000);
        rig.pass(SECOND / 100);
        rig.lead(SPENDER);
        rig.spend(SPENDER, 8, 1_000);
        rig
    });
}

#[test]
fn with_rule_f_off_a_refund_comes_back_that_the_bucket_had_no_room_for() {
    check('f', |rules| {
        let mut rig = leader_and_holder(rules);
        let tickets = rig.admit_all(HOLDER, 8, 1_000);
        let long: Vec<_> = tickets.into_iter().filter_map(|ticket| rig.send(HOLDER, ticket, 10)).collect();
        assert_eq!(long.len(), 8);
        rig.run(3 * SECOND);
        // The bucket is full again. All of it goes, and then the long requests turn out to have used next to nothing.
        assert_eq!(rig.spend(SPENDER, 8, 1_000), 8);
        long.into_iter().for_each(|ticket| rig.keeper(HOLDER).settle(ticket, crate::model::Spend::tokens(10)));
        rig.run(SECOND / 5);
        rig.spend(SPENDER, 7, 1_000);
        rig
    });
}

#[test]
fn with_rule_g_off_a_stopped_process_writes_after_its_lease() {
    check('g', |rules| {
        let mut rig = leader_and_holder(rules);
        rig.take_slice(HOLDER, BURST);
        rig.cut_off(HOLDER);
        rig.pass(LEASE_US - SECOND / 50);
        let tickets = rig.admit_all(HOLDER, 4, 1_000);
        assert_eq!(tickets.len(), 4, "the lease stands at admission");
        rig.pass(SECOND / 10);
        rig.round(Vec::new());
        rig.pass(2 * SECOND);
        rig.spend(SPENDER, 8, 1_000);
        tickets.into_iter().for_each(|ticket| _ = rig.send(HOLDER, ticket, 1_000));
        rig
    });
}

#[test]
fn drifting_clocks_cannot_bring_holder_and_ledger_apart() {
    for (holder, leader) in [(500, -500), (-500, 500)] {
        let mut rig = Rig::with_clocks(&[(7, holder), (99, 0), (0, leader)], Rules::ALL, tokens(LIMIT));
        rig.lead(2);
        rig.take_slice(HOLDER, BURST);
        rig.cut_off(HOLDER);
        // Every millisecond around the lease's end: whoever can, spends.
        rig.pass(LEASE_US - SECOND / 50);
        for _ in 0..40 {
            rig.pass(SECOND / 1_000);
            rig.round(Vec::new());
            rig.spend(HOLDER, 1, 100);
            rig.spend(SPENDER, 1, 400);
        }
        assert_eq!(rig.excess(LIMIT), 0);
    }
}
