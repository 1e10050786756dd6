//! Messages that are lost, repeated, reordered or late; epochs that end; grants that come when nobody wants them.

use crate::entry::{Answer, Contact};
use crate::keeper::{Decision, Ticket, Word};
use crate::model::{BucketLimit, PoolLimits, Rate};
use crate::rules::Rules;
use crate::schedules::rig::{POOL, REQUEST_US_MAX, Rig, request, tokens};
use crate::time::{LEASE_US, RENEW_US};

const LIMIT: BucketLimit = BucketLimit { rate: Rate { units: 1_000, per_us: 1_000_000 }, burst: 8_000 };

fn permits(most: u64) -> PoolLimits {
    PoolLimits { concurrent: Some(most), ..PoolLimits::default() }
}

fn waits(rig: &mut Rig, node: usize, tokens: u64) -> crate::keeper::WaitId {
    match rig.admit(node, &request(tokens)) {
        Decision::Wait(id) => id,
        other => panic!("{other:?}"),
    }
}

/// After quiet, nothing is out, and nobody waits.
fn assert_quiet(rig: &mut Rig) {
    rig.run(REQUEST_US_MAX + 3 * LEASE_US);
    assert_eq!(rig.state.outstanding(), 0, "units were left out");
    assert_eq!(rig.state.digest(), rig.digest_of_replay());
}

fn settle(rig: &mut Rig, node: usize, tickets: Vec<Ticket>, used: u64) {
    tickets.into_iter().for_each(|ticket| rig.keeper(node).settle(ticket, crate::model::Spend::tokens(used)));
}

#[test]
fn a_lost_contact_is_said_again_in_whole() {
    let mut rig = Rig::new(2, Rules::ALL, tokens(LIMIT));
    waits(&mut rig, 0, 100);
    let lost = rig.say(0).unwrap();
    assert_eq!(lost.asks.len(), 1);
    assert!(rig.say(0).is_none(), "one message at a time");
    rig.pass(2 * RENEW_US);
    let again = rig.say(0).unwrap();
    assert_eq!((again.asks[0].seq, again.number), (lost.asks[0].seq, lost.number + 1));
    rig.round(vec![again, lost]);
    let tickets = rig.granted(0);
    assert_eq!(tickets.len(), 1);
    settle(&mut rig, 0, tickets, 100);
    assert_quiet(&mut rig);
}

#[test]
fn a_lost_grant_is_told_again_and_taken_once() {
    let mut rig = Rig::new(2, Rules::ALL, permits(3));
    waits(&mut rig, 0, 1);
    let contact = rig.say(0).unwrap();
    let lost = rig.hear(vec![contact]);
    rig.run(2 * RENEW_US);
    lost.iter().for_each(|reply| rig.tell(reply));
    let tickets = rig.granted(0);
    assert_eq!(tickets.len(), 1);
    assert_eq!(rig.keeper(0).holds(POOL).0, 1, "in use");
    settle(&mut rig, 0, tickets, 1);
    assert_quiet(&mut rig);
}

#[test]
fn an_old_contact_behind_a_newer_one_brings_nobody_back_into_the_queue() {
    let mut rig = Rig::new(2, Rules::ALL, permits(1));
    let running = rig.admit_all(1, 1, 1);
    let gone = waits(&mut rig, 0, 1);
    let old = rig.say(0).unwrap();
    rig.round(vec![old.clone()]);
    rig.keeper(0).leave(gone);
    let newer = rig.say(0).unwrap();
    rig.round(vec![newer, old.clone()]);
    rig.round(vec![old]);
    assert_eq!(rig.policy.depth().map(|(_, depth)| depth.iter().sum::<u64>()).sum::<u64>(), 0, "a ghost waits");
    settle(&mut rig, 1, running, 1);
    assert_quiet(&mut rig);
}

#[test]
fn a_grant_for_a_request_that_left_goes_back() {
    let mut rig = Rig::new(2, Rules::ALL, tokens(LIMIT));
    let impatient = waits(&mut rig, 0, 5_000);
    let contact = rig.say(0).unwrap();
    let replies = rig.hear(vec![contact]);
    rig.keeper(0).leave(impatient);
    replies.iter().for_each(|reply| rig.tell(reply));
    assert!(rig.words.is_empty());
    rig.talk();
    let pool = &rig.state.pools(rig.state.stamp())[0];
    let tokens = pool.tokens.unwrap();
    assert_eq!(tokens.level + tokens.outstanding, 8_000, "nothing is spent");
    assert_quiet(&mut rig);
}

#[test]
fn a_grant_that_comes_after_the_lease_is_given_back_and_asked_for_anew() {
    let mut rig = Rig::new(2, Rules::ALL, tokens(LIMIT));
    rig.lead(1);
    let wait = waits(&mut rig, 0, 1_000);
    let contact = rig.say(0).unwrap();
    let late = rig.hear(vec![contact]);
    rig.cut_off(0);
    rig.pass(LEASE_US);
    late.iter().for_each(|reply| rig.tell(reply));
    assert!(rig.words.is_empty(), "the lease is over");
    rig.pass(RENEW_US);
    rig.round(Vec::new());
    rig.join(0);
    rig.run(RENEW_US);
    assert!(matches!(rig.words[..], [(0, id, Word::Granted { .. })] if id == wait));
    let tickets = rig.granted(0);
    settle(&mut rig, 0, tickets, 1_000);
    assert_quiet(&mut rig);
}

#[test]
fn replies_of_an_earlier_epoch_or_life_are_not_heard() {
    let mut rig = Rig::new(2, Rules::ALL, tokens(LIMIT));
    rig.lead(1);
    rig.take_slice(0, 8_000);
    waits(&mut rig, 0, 7_000);
    let contact = rig.say(0).unwrap();
    let of_before = rig.hear(vec![contact]);
    rig.cut_off(0);
    rig.pass(LEASE_US + RENEW_US);
    rig.round(Vec::new());
    rig.join(0);
    rig.talk();
    let (holds, lease) = (rig.keeper(0).holds(POOL), rig.keeper(0).lease_until());
    of_before.iter().for_each(|reply| rig.tell(reply));
    assert_eq!((rig.keeper(0).holds(POOL), rig.keeper(0).lease_until()), (holds, lease));
    rig.bring_up(0, "boot", 2);
    of_before.iter().for_each(|reply| rig.tell(reply));
    assert_eq!(rig.keeper(0).holds(POOL), (0, 0, 0));
    assert_quiet(&mut rig);
}

#[test]
fn permits_in_use_are_kept_over_an_epoch_and_idle_ones_are_free() {
    let mut rig = Rig::new(2, Rules::ALL, permits(4));
    rig.lead(1);
    let tickets = rig.admit_all(0, 2, 1);
    rig.cut_off(0);
    rig.pass(LEASE_US + RENEW_US);
    rig.round(Vec::new());
    rig.join(0);
    rig.talk();
    assert_eq!(tickets.len(), 2);
    assert_eq!(rig.keeper(0).holds(POOL).0, 2);
    let others = rig.admit_all(1, 4, 1);
    assert_eq!(others.len(), 2, "two are in use");
    settle(&mut rig, 0, tickets, 1);
    rig.talk();
    let last = rig.granted(1);
    assert_eq!(last.len(), 2);
    settle(&mut rig, 1, others, 1);
    settle(&mut rig, 1, last, 1);
    assert_quiet(&mut rig);
}

#[test]
fn a_new_leader_learns_who_waits_from_the_nodes() {
    let mut rig = Rig::new(3, Rules::ALL, permits(1));
    let running = rig.admit_all(2, 1, 1);
    waits(&mut rig, 0, 1);
    waits(&mut rig, 1, 1);
    rig.talk();
    rig.lead(1);
    rig.talk();
    assert_eq!(rig.policy.depth().map(|(_, depth)| depth.iter().sum::<u64>()).sum::<u64>(), 2);
    settle(&mut rig, 2, running, 1);
    rig.talk();
    let first = rig.granted(0);
    assert_eq!(first.len(), 1);
    settle(&mut rig, 0, first, 1);
    rig.talk();
    let second = rig.granted(1);
    settle(&mut rig, 1, second, 1);
    assert_quiet(&mut rig);
}

#[test]
fn any_order_of_messages_ends_in_the_same_counters() {
    // Four messages of one node, in every order, each a second time behind all.
    let mut orders = vec![vec![]];
    for next in 0..4 {
        let longer = orders.iter().flat_map(|order: &Vec<usize>| {
            (0..=order.len()).map(move |at| {
                let mut longer = order.clone();
                longer.insert(at, next);
                longer
            })
        });
        orders = longer.collect();
    }
    assert_eq!(orders.len(), 24);
    let mut seen = None;
    for order in orders {
        let mut rig = Rig::new(1, Rules::ALL, PoolLimits { concurrent: Some(9), ..tokens(LIMIT) });
        let tickets = rig.admit_all(0, 3, 500);
        rig.talk();
        let mut messages: Vec<Contact> = Vec::new();
        for ticket in tickets {
            rig.keeper(0).settle(ticket, crate::model::Spend::tokens(600));
            rig.pass(2 * RENEW_US);
            messages.extend(rig.say(0));
        }
        rig.pass(2 * RENEW_US);
        messages.extend(rig.say(0));
        assert_eq!(messages.len(), 4);
        let mut inbox: Vec<Contact> = order.iter().map(|&at| messages[at].clone()).collect();
        inbox.extend(messages);
        let replies = rig.hear(inbox);
        assert!(
            replies.iter().flat_map(|reply| &reply.answers).all(|(_, answer)| matches!(answer, Answer::Granted { .. }))
        );
        let pool = &rig.state.pools[&POOL];
        let bucket = pool.tokens.as_ref().unwrap();
        let end = (pool.leases.clone(), bucket.level, bucket.outstanding, bucket.debt, bucket.books.spent);
        assert_eq!(seen.get_or_insert(end.clone()), &end, "{order:?}");
    }
}
