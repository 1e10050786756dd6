//! A bucket: units that fill at a rate up to a burst, some of them leased out to nodes.
//!
//! Level and leased units together never exceed the burst (L1), so that whatever a node holds back cannot be minted a
//! second time. What went out is either spent, returned, or burned with its lease; nothing is forgotten (L5).

use super::headroom::Headroom;
use crate::model::BucketLimit;
use crate::rules::Rules;
use crate::time::Stamp;
use serde::{Deserialize, Serialize};

/// A bucket of units with its books.
///
/// Units: the bucket's own, tokens or requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    pub(crate) limit: BucketLimit,
    pub(crate) level: u64,
    pub(crate) debt: u64,
    pub(crate) outstanding: u64,
    pub(crate) at: Stamp,
    /// What `rate.units * microseconds` leaves when divided by `rate.per_us`.
    pub(crate) remainder: u64,
    pub(crate) books: Books,
    pub(crate) headroom: Headroom,
    /// What headroom is noted under, and refunds name: a slot of ledger time, or for tenants a count of reservations.
    pub(crate) mark: u64,
}

/// Cumulative sums, for conservation: `initial + minted + debt = level + outstanding + spent + burned + overflowed +
/// trimmed` (L5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Books {
    pub(crate) initial: u128,
    pub(crate) minted: u128,
    pub(crate) spent: u128,
    pub(crate) burned: u128,
    pub(crate) overflowed: u128,
    pub(crate) trimmed: u128,
}

impl Bucket {
    /// A full bucket. `slots` bounds how many different minima of headroom it remembers.
    pub(crate) fn new(limit: BucketLimit, now: Stamp, slots: usize) -> Self {
        let books = Books { initial: u128::from(limit.burst), ..Books::default() };
        Self {
            limit,
            level: limit.burst,
            debt: 0,
            outstanding: 0,
            at: now,
            remainder: 0,
            books,
            headroom: Headroom::new(slots),
            mark: 0,
        }
    }

    /// A full bucket that takes no refund from before `mark`: what was reserved then was not reserved of it.
    pub(crate) fn new_since(mark: u64, limit: BucketLimit, now: Stamp, slots: usize) -> Self {
        let mut bucket = Self { mark, ..Self::new(limit, now, slots) };
        bucket.note();
        bucket
    }

    /// Fills up to `now`: debt is paid first, and what finds no room is gone.
    pub(crate) fn advance(&mut self, now: Stamp, rules: Rules) {
        let elapsed = now.0.saturating_sub(self.at.0);
        if elapsed == 0 {
            return;
        }
        self.at = now;
        let (minted, remainder) = self.minted_in(elapsed);
        self.books.minted += u128::from(minted);
        self.remainder = remainder;
        let paid = minted.min(self.debt);
        self.debt -= paid;
        // Paying debt shrinks both sides of the books: the units were counted as spent when the debt arose.
        let left = minted - paid;
        let filled = left.min(self.room(rules));
        self.level += filled;
        self.books.overflowed += u128::from(left - filled);
        if self.debt == 0 && self.room(rules) == 0 {
            self.remainder = 0;
        }
        self.note();
    }

    /// The level that the bucket will show at `now` if nothing else happens.
    pub(crate) fn level_at(&self, now: Stamp) -> u64 {
        let (minted, _) = self.minted_in(now.0.saturating_sub(self.at.0));
        let left = minted - minted.min(self.debt);
        self.level + left.min(self.room(Rules::ALL))
    }

    /// The debt that will be left at `now` if nothing else happens.
    pub(crate) fn debt_at(&self, now: Stamp) -> u64 {
        let (minted, _) = self.minted_in(now.0.saturating_sub(self.at.0));
        self.debt.saturating_sub(minted)
    }

    /// When the level will reach `wanted`, if nothing else happens; never, if it cannot.
    pub(crate) fn reaches(&self, wanted: u64) -> Option<Stamp> {
        let missing = (u128::from(wanted) + u128::from(self.debt)).saturating_sub(u128::from(self.level));
        if missing == 0 {
            return Some(self.at);
        }
        if self.limit.rate.units == 0 || wanted > self.limit.burst {
            return None;
        }
        let needed = (missing * u128::from(self.limit.rate.per_us)).saturating_sub(u128::from(self.remainder));
        let wait = needed.div_ceil(u128::from(self.limit.rate.units));
        Some(Stamp(self.at.0.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))))
    }

    /// Whether `units` may leave the bucket now (L1: nothing leaves while more is out than the burst allows).
    pub(crate) fn covers(&self, units: u64) -> bool {
        self.level >= units && (units == 0 || self.outstanding <= self.limit.burst)
    }

    /// Leases units out: they leave the level but still occupy the bucket.
    pub(crate) fn lease(&mut self, units: u64) {
        debug_assert!(self.covers(units));
        self.level -= units;
        self.outstanding += units;
    }

    /// Books leased units as spent.
    pub(crate) fn spend(&mut self, units: u64) {
        debug_assert!(self.outstanding >= units);
        self.outstanding -= units;
        self.books.spent += u128::from(units);
        self.note();
    }

    /// Takes leased, unspent units back.
    pub(crate) fn give_back(&mut self, units: u64) {
        debug_assert!(self.outstanding >= units);
        self.outstanding -= units;
        self.add(units);
        self.trim();
        self.note();
    }

    /// Destroys leased units whose lease expired (rule d).
    pub(crate) fn burn(&mut self, units: u64, rules: Rules) {
        debug_assert!(self.outstanding >= units);
        if !rules.expired_units_burn {
            self.give_back(units);
            return;
        }
        self.outstanding -= units;
        self.books.burned += u128::from(units);
        self.note();
    }

    /// Counts what a request used beyond its reservation: out of the level, and what that does not hold is debt.
    pub(crate) fn overrun(&mut self, units: u64) {
        let taken = units.min(self.level);
        self.level -= taken;
        self.debt += units - taken;
        self.books.spent += u128::from(units);
        self.note();
    }

    /// Refunds what a reservation at `mark` did not use, and says how much of it counts: never more than the bucket
    /// would have kept, had the reservation been smaller from the start (rule f).
    pub(crate) fn refund(&mut self, mark: u64, units: u64, rules: Rules) -> u64 {
        let most = if rules.refund_within_headroom {
            self.headroom.smallest_since(mark).min(self.headroom_now())
        } else {
            self.limit.burst.saturating_sub(self.level)
        };
        let counted = units.min(most).min(u64::try_from(self.books.spent).unwrap_or(u64::MAX));
        self.headroom.lower(mark, counted);
        self.books.spent -= u128::from(counted);
        self.add(counted);
        self.note();
        counted
    }

    /// Sets another limit. A smaller burst trims the level; a larger one fills in time.
    pub(crate) fn set_limit(&mut self, limit: BucketLimit) {
        self.remainder = 0;
        self.limit = limit;
        self.trim();
        self.note();
    }

    /// Whether the bucket is as a new one would be.
    pub(crate) fn is_full(&self) -> bool {
        self.debt == 0 && self.outstanding == 0 && self.level >= self.limit.burst
    }

    /// Checks L1 and L5 and says what is wrong.
    pub(crate) fn breach(&self, rules: Rules) -> Option<&'static str> {
        let held = u128::from(self.level) + u128::from(self.outstanding);
        if rules == Rules::ALL && held > u128::from(self.limit.burst.max(self.outstanding)) {
            return Some("L1: level and leased units exceed the burst");
        }
        let books = &self.books;
        let sources = books.initial + books.minted + u128::from(self.debt);
        let uses = held + books.spent + books.burned + books.overflowed + books.trimmed;
        (sources != uses).then_some("L5: units appeared or vanished")
    }

    fn minted_in(&self, elapsed_us: u64) -> (u64, u64) {
        let rate = self.limit.rate;
        if rate.per_us == 0 {
            return (0, 0);
        }
        let total = u128::from(self.remainder) + u128::from(rate.units) * u128::from(elapsed_us);
        let minted = u64::try_from(total / u128::from(rate.per_us)).unwrap_or(u64::MAX);
        let remainder = u64::try_from(total % u128::from(rate.per_us)).unwrap_or(0);
        (minted, remainder)
    }

    fn room(&self, rules: Rules) -> u64 {
        let occupied = if rules.leased_units_occupy { self.level + self.outstanding } else { self.level };
        self.limit.burst.saturating_sub(occupied)
    }

    /// Whole units that would still find room; a fraction on its way takes one of them.
    fn headroom_now(&self) -> u64 {
        let occupied = self.level + self.outstanding + u64::from(self.remainder > 0);
        (self.limit.burst + self.debt).saturating_sub(occupied)
    }

    /// Adds units, paying debt first.
    fn add(&mut self, units: u64) {
        let paid = units.min(self.debt);
        self.debt -= paid;
        self.level += units - paid;
    }

    fn trim(&mut self) {
        let most = self.limit.burst.saturating_sub(self.outstanding);
        let excess = self.level.saturating_sub(most);
        self.level -= excess;
        self.books.trimmed += u128::from(excess);
    }

    fn note(&mut self) {
        self.headroom.note(self.mark, self.headroom_now());
    }
}
