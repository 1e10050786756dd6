//! A bucket alone, against a model that computes its level anew from everything that ever happened.

use crate::model::{BucketLimit, Rate};
use crate::rules::Rules;
use crate::state::bucket::Bucket;
use crate::time::{SLOT_US, Stamp};
use proptest::prelude::*;

/// What happens to a bucket. Amounts are in thousandths of what is possible at the time.
#[derive(Clone, Copy, Debug)]
enum Event {
    Lease(u64),
    Spend(u64),
    GiveBack(u64),
    Burn(u64),
    Overrun(u64),
    /// Slots ago, units.
    Refund(u64, u64),
    Limit(BucketLimit),
}

fn limit() -> impl Strategy<Value = BucketLimit> {
    (0u64..30, 1u64..3_000_000, 0u64..60)
        .prop_map(|(units, per_us, burst)| BucketLimit { rate: Rate { units, per_us }, burst })
}

fn event() -> impl Strategy<Value = Event> {
    let part = 0u64..=1_000;
    prop_oneof![
        4 => part.clone().prop_map(Event::Lease),
        4 => part.clone().prop_map(Event::Spend),
        2 => part.clone().prop_map(Event::GiveBack),
        1 => part.prop_map(Event::Burn),
        1 => (0u64..40).prop_map(Event::Overrun),
        3 => (0u64..30, 0u64..40).prop_map(|(slots, units)| Event::Refund(slots, units)),
        1 => limit().prop_map(Event::Limit),
    ]
}

/// One thing that happened, in whole units.
#[derive(Clone, Copy)]
enum Fact {
    /// Units leave for nodes.
    Out(u64),
    /// Units that were out are no more.
    Gone(u64),
    /// Units that were out are back.
    Back(u64),
    /// Units are used that were never out.
    Over(u64),
    /// Units were not used after all, beginning with a slot.
    Unused(u64, u64),
    Limit(BucketLimit),
}

/// The naive model: all facts, and a limit to begin with.
struct History {
    limit: BucketLimit,
    facts: Vec<(Stamp, Fact)>,
}

/// What the model computes: level less debt as an exact fraction, what is out, and the room there was, by slot.
struct Now {
    limit: BucketLimit,
    scaled: i128,
    out: i128,
    room: Vec<(u64, i128)>,
}

impl History {
    /// Computes everything anew. A fraction is kept in parts of `per_us`, of which a limit change drops what is left.
    fn at(&self, end: Stamp) -> Now {
        let mut now = Now { limit: self.limit, scaled: whole(self.limit.burst, self.limit), out: 0, room: Vec::new() };
        let mut at = Stamp(0);
        for &(stamp, fact) in &self.facts {
            now.fill(at, stamp);
            at = stamp;
            now.happen(fact);
            now.note(stamp);
        }
        now.fill(at, end);
        now.note(end);
        now
    }
}

impl Now {
    fn fill(&mut self, from: Stamp, to: Stamp) {
        if to == from {
            return;
        }
        let most = self.most();
        if self.scaled < most {
            let minted = i128::from(self.limit.rate.units) * i128::from(to.0 - from.0);
            self.scaled = (self.scaled + minted).min(most);
        }
        self.note(to);
    }

    fn happen(&mut self, fact: Fact) {
        let units = |units: u64| whole(units, self.limit);
        match fact {
            Fact::Out(leased) => {
                self.scaled -= units(leased);
                self.out += i128::from(leased);
            }
            Fact::Gone(gone) => self.out -= i128::from(gone),
            Fact::Back(back) => {
                self.scaled += units(back);
                self.out -= i128::from(back);
                self.scaled = self.scaled.min(self.most());
            }
            Fact::Over(over) => self.scaled -= units(over),
            Fact::Unused(slot, unused) => {
                let counted = i128::from(unused).min(self.room_since(slot));
                self.scaled += counted * i128::from(self.limit.rate.per_us);
                self.room.iter_mut().filter(|(at, _)| *at >= slot).for_each(|(_, room)| *room -= counted);
            }
            Fact::Limit(limit) => {
                let kept = self.balance();
                self.limit = limit;
                self.scaled = (kept * i128::from(limit.rate.per_us)).min(self.most());
            }
        }
    }

    fn note(&mut self, stamp: Stamp) {
        let room = self.free();
        self.room.push((stamp.slot(), room));
    }

    fn room_since(&self, slot: u64) -> i128 {
        let since = self.room.iter().filter(|&&(at, _)| at >= slot).map(|&(_, room)| room);
        since.chain([self.free()]).min().unwrap().max(0)
    }

    /// Whole units of room, beside what is out.
    fn free(&self) -> i128 {
        let most = (i128::from(self.limit.burst) - self.out) * i128::from(self.limit.rate.per_us);
        (most - self.scaled).div_euclid(i128::from(self.limit.rate.per_us)).max(0)
    }

    fn most(&self) -> i128 {
        (i128::from(self.limit.burst) - self.out).max(0) * i128::from(self.limit.rate.per_us)
    }

    /// Level less debt.
    fn balance(&self) -> i128 {
        self.scaled.div_euclid(i128::from(self.limit.rate.per_us))
    }
}

fn whole(units: u64, limit: BucketLimit) -> i128 {
    i128::from(units) * i128::from(limit.rate.per_us)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_bucket_is_what_its_whole_history_says(
        first in limit(), steps in prop::collection::vec((0u64..400_000, event()), 1..60),
    ) {
        let mut bucket = Bucket::new(first, Stamp(0), 1_000);
        let mut history = History { limit: first, facts: Vec::new() };
        let mut spent = 0;
        let mut now = Stamp(0);
        for (gap, event) in steps {
            now.0 += gap;
            advance(&mut bucket, now);
            let part = |part: u64, of: u64| of * part / 1_000;
            let fact = match event {
                Event::Lease(share) => {
                    let units = part(share, bucket.level);
                    if !bucket.covers(units) {
                        continue;
                    }
                    bucket.lease(units);
                    Fact::Out(units)
                }
                Event::Spend(share) => {
                    let units = part(share, bucket.outstanding);
                    spent += units;
                    bucket.spend(units);
                    Fact::Gone(units)
                }
                Event::GiveBack(share) => {
                    let units = part(share, bucket.outstanding);
                    bucket.give_back(units);
                    Fact::Back(units)
                }
                Event::Burn(share) => {
                    let units = part(share, bucket.outstanding);
                    bucket.burn(units, Rules::ALL);
                    Fact::Gone(units)
                }
                Event::Overrun(units) => {
                    spent += units;
                    bucket.overrun(units);
                    Fact::Over(units)
                }
                Event::Refund(slots, units) => {
                    let (slot, units) = (now.slot().saturating_sub(slots), units.min(spent));
                    spent -= bucket.refund(slot, units, Rules::ALL);
                    Fact::Unused(slot, units)
                }
                Event::Limit(limit) => {
                    bucket.set_limit(limit);
                    Fact::Limit(limit)
                }
            };
            history.facts.push((now, fact));
            let model = history.at(now);
            prop_assert_eq!(bucket.breach(Rules::ALL), None);
            prop_assert_eq!(i128::from(bucket.level) - i128::from(bucket.debt), model.balance(), "{:?}", event);
            prop_assert!(bucket.level == 0 || bucket.debt == 0, "debt beside a level");
            prop_assert_eq!(i128::from(bucket.outstanding), model.out);
            let later = Stamp(now.0 + 123_457);
            prop_assert_eq!(i128::from(bucket.level_at(later)), history.at(later).balance().max(0));
        }
    }

    /// What rule (f) is for: with every refund counted back to when its request was admitted, no interval exceeds.
    #[test]
    fn with_refunds_counted_no_interval_of_admissions_exceeds_burst_and_rate(
        limit in limit(), slots in 2usize..6,
        steps in prop::collection::vec((0u64..400_000, 0u64..=1_000, 0usize..8, 0u64..=1_000), 1..60),
    ) {
        let mut bucket = Bucket::new(limit, Stamp(0), slots);
        let mut admitted: Vec<(Stamp, u64, bool)> = Vec::new();
        let mut now = Stamp(0);
        for (gap, share, which, unused) in steps {
            now.0 += gap;
            advance(&mut bucket, now);
            let units = bucket.level * share / 1_000;
            bucket.lease(units);
            bucket.spend(units);
            admitted.push((now, units, false));
            let which = which % admitted.len();
            let (at, reserved, ended) = &mut admitted[which];
            if !*ended {
                *ended = true;
                let refund = *reserved * unused / 1_000;
                *reserved -= refund;
                bucket.refund(at.slot(), refund, Rules::ALL);
            }
            prop_assert_eq!(excess(&admitted, limit), 0);
        }
    }

    #[test]
    fn the_time_a_level_is_promised_for_is_the_first_at_which_it_is_there(
        limit in limit(), spend in 0u64..=1_000, over in 0u64..50, gap in 0u64..3_000_000, wanted in 1u64..70,
    ) {
        let mut bucket = Bucket::new(limit, Stamp(0), 10);
        bucket.lease(limit.burst * spend / 1_000);
        bucket.spend(bucket.outstanding);
        bucket.overrun(over);
        advance(&mut bucket, Stamp(gap));
        match bucket.reaches(wanted) {
            Some(at) => {
                prop_assert!(bucket.level_at(at) >= wanted);
                prop_assert!(at == bucket.at || bucket.level_at(Stamp(at.0 - 1)) < wanted);
            }
            None => prop_assert!(bucket.level_at(Stamp(u64::MAX / 4)) < wanted),
        }
    }
}

/// As a pool does it: headroom is noted by slots of ledger time.
fn advance(bucket: &mut Bucket, now: Stamp) {
    bucket.mark = now.slot();
    bucket.advance(now, Rules::ALL);
}

/// Units by which the worst interval exceeds.
fn excess(admitted: &[(Stamp, u64, bool)], limit: BucketLimit) -> i128 {
    let mut worst = 0;
    for (first, (from, ..)) in admitted.iter().enumerate() {
        let mut sum = 0;
        for (to, units, _) in &admitted[first..] {
            sum += whole(*units, limit);
            let filled = i128::from(limit.rate.units) * i128::from(to.0 - from.0);
            worst = worst.max(sum - whole(limit.burst, limit) - filled);
        }
    }
    worst
}

#[test]
fn a_refund_that_fills_the_bucket_does_not_keep_a_fraction_on_top() {
    let limit = BucketLimit { rate: Rate::per_sec(1), burst: 10 };
    let mut bucket = Bucket::new(limit, Stamp(0), 10);
    bucket.lease(10);
    bucket.spend(10);
    // 9.9 units are back; of one more, only a tenth would have found room.
    advance(&mut bucket, Stamp(9_900_000));
    bucket.refund(0, 1, Rules::ALL);
    let first = bucket.level;
    bucket.lease(first);
    bucket.spend(first);
    advance(&mut bucket, Stamp(9_900_000 + SLOT_US));
    assert!(first + bucket.level <= 10, "more than burst and rate within a tenth of a second");
}
