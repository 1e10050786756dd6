//! What requests did not use, or used beyond their reservation, reaches the ledger whole.

use crate::entry::{Amounts, Op};
use crate::keeper::{Decision, Request};
use crate::model::{BucketLimit, NodeId, PoolLimits, Priority, Rate, Scope, ScopeKind, TenantLimits};
use crate::rules::Rules;
use crate::schedules::rig::{POOL, Rig, request_of, tokens};
use crate::state::PoolView;
use crate::time::LEASE_US;

const LIMIT: BucketLimit = BucketLimit { rate: Rate { units: 1, per_us: 1_000_000 }, burst: 10_000 };

fn pool(rig: &Rig) -> PoolView {
    rig.state.pools(rig.state.stamp())[0].clone()
}

/// What the ledger counts as spent so far; refunds are taken off.
fn spent(rig: &Rig) -> u128 {
    rig.state.pools[&POOL].tokens.as_ref().unwrap().books.spent
}

/// A pool of which half is spent, a while ago, and which hardly fills: refunds have room.
fn half_empty() -> Rig {
    let mut rig = Rig::new(1, Rules::ALL, tokens(LIMIT));
    rig.admit_copies(0, 1, &guest(5_000))
        .into_iter()
        .for_each(|ticket| rig.keeper(0).settle(ticket, crate::model::Spend::tokens(5_000)));
    rig.run(5_000_000);
    rig
}

/// A request with a tenant: it goes by the leader and is given no slice, and its end is told at once.
fn guest(tokens: u64) -> Request {
    let scope = Scope { kind: ScopeKind::Key, id: [1; 16] };
    let limits = TenantLimits {
        scope,
        version: 1,
        requests: None,
        tokens: None,
        concurrent: Some(100),
        quotas: crate::model::Quotas::default(),
    };
    request_of(5, tokens, None, &[limits])
}

#[test]
fn short_requests_of_one_slot_are_all_refunded() {
    let mut rig = half_empty();
    let before = spent(&rig);
    // Each is over, told and acknowledged before the next one comes, all within a tenth of a second.
    for _ in 0..4 {
        let tickets = rig.admit_copies(0, 1, &guest(1_000));
        assert_eq!(tickets.len(), 1);
        tickets.into_iter().for_each(|ticket| rig.keeper(0).settle(ticket, crate::model::Spend::tokens(10)));
        rig.talk();
        rig.pass(1_000);
    }
    rig.run(1_000_000);
    assert_eq!(spent(&rig) - before, 4 * 10);
}

#[test]
fn a_request_that_waited_while_others_ran_is_refunded() {
    let mut rig = half_empty();
    let before = spent(&rig);
    let level = pool(&rig).tokens.unwrap().level;
    let Decision::Wait(_) = rig.admit(0, &guest(level + 10)) else { panic!("tenants are the leader's") };
    rig.run(1_000_000);
    assert!(rig.words.is_empty(), "there is not that much yet");
    let urgent = Request { priority: Priority(0), ..guest(1) };
    rig.admit_copies(0, 1, &urgent)
        .into_iter()
        .for_each(|ticket| rig.keeper(0).settle(ticket, crate::model::Spend::tokens(1)));
    rig.run(10_000_000);
    let tickets = rig.granted(0);
    assert_eq!(tickets.len(), 1);
    tickets.into_iter().for_each(|ticket| rig.keeper(0).settle(ticket, crate::model::Spend::tokens(5)));
    rig.run(1_000_000);
    let lost_room = 20;
    assert!(spent(&rig) - before <= 1 + 5 + lost_room, "{} were refunded as nothing", spent(&rig) - before);
}

#[test]
fn an_overrun_is_not_forgotten_when_the_lease_ends_before_it_is_told() {
    let mut rig = half_empty();
    let before = spent(&rig);
    let tickets = rig.admit_copies(0, 1, &guest(100));
    rig.cut_off(0);
    tickets.into_iter().for_each(|ticket| rig.keeper(0).settle(ticket, crate::model::Spend::tokens(3_100)));
    expire(&mut rig);
    rig.join(0);
    rig.run(1_000_000);
    let reserved = 0..=100;
    assert!(reserved.contains(&(spent(&rig) - before - 3_000)), "{} of an overrun of 3000", spent(&rig) - before);
}

#[test]
fn an_overrun_is_counted_once_however_often_it_is_told() {
    let mut rig = half_empty();
    let before = spent(&rig);
    let tickets = rig.admit_copies(0, 1, &guest(100));
    // The report is heard, the reply is lost, and the lease ends.
    tickets.into_iter().for_each(|ticket| rig.keeper(0).settle(ticket, crate::model::Spend::tokens(600)));
    let contact = rig.say(0).unwrap();
    rig.hear(vec![contact]);
    expire(&mut rig);
    rig.run(1_000_000);
    assert_eq!(spent(&rig) - before, 100 + 500);
}

/// Lets the lease end, by taking a reservation that the node never hears of.
fn expire(rig: &mut Rig) {
    let who = rig.state.who(NodeId(0)).unwrap();
    rig.propose(vec![Op::Grant { who, pool: POOL, amounts: Amounts { tokens: 1, ..Amounts::default() } }]);
    rig.pass(LEASE_US + 10_000);
    rig.round(Vec::new());
    assert!(rig.state.who(NodeId(0)).unwrap().epoch > who.epoch);
}

#[test]
fn a_request_that_was_not_sent_gives_everything_back() {
    let limits = PoolLimits { requests: Some(LIMIT), concurrent: Some(3), ..tokens(LIMIT) };
    let mut rig = Rig::new(1, Rules::ALL, limits);
    rig.admit_copies(0, 1, &guest(5_000))
        .into_iter()
        .for_each(|ticket| rig.keeper(0).settle(ticket, crate::model::Spend::tokens(5_000)));
    rig.run(5_000_000);
    let before = pool(&rig);
    rig.admit_copies(0, 3, &guest(1_000)).into_iter().for_each(|ticket| rig.keeper(0).give_back(ticket));
    rig.run(5_000_000);
    let after = pool(&rig);
    assert!(after.tokens.unwrap().level >= before.tokens.unwrap().level);
    assert!(after.requests.unwrap().level >= before.requests.unwrap().level - 3, "the bucket was full");
    assert_eq!((after.permits_out, rig.state.outstanding()), (0, 0));
}
