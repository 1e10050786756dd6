//! Time as the ledger knows it: always an argument, never read here.
//!
//! Two clocks meet. A node's *boot clock* counts its own microseconds and may run fast or slow by [`RHO_PPM`]. *Ledger
//! time* is the stamp of log entries; it never decreases and never runs ahead of real time (L7), so refill by it never
//! mints too much.

use crate::rules::Rules;

/// The most that a boot clock drifts.
///
/// Units: parts per million.
pub const RHO_PPM: u64 = 500;

/// How long a lease lasts unless it is renewed: `D`.
///
/// Units: microseconds.
pub const LEASE_US: u64 = 2_500_000;

/// How often a node in use renews its lease.
///
/// Units: microseconds.
pub const RENEW_US: u64 = 200_000;

/// How much later than its admission a request may leave: `delta`, of rule (g).
///
/// Units: microseconds.
pub const SEND_WITHIN_US: u64 = 100_000;

/// Refunds are kept by the slot of their reservation; this is a slot's length.
///
/// Units: microseconds of ledger time.
pub const SLOT_US: u64 = 100_000;

/// A reading of one node's boot clock.
///
/// Units: microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub struct Boot(pub u64);

/// A point of ledger time.
///
/// Units: microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The slot that refunds of a reservation made now belong to.
    pub fn slot(self) -> u64 {
        self.0 / SLOT_US
    }
}

/// When the holder of a lease must stop using it, if the contact that renewed it was sent at `sent`: a little before
/// the ledger may burn it, however the two clocks drift.
pub fn lease_end(sent: Boot) -> Boot {
    Boot(sent.0 + LEASE_US - LEASE_US * 3 * RHO_PPM / 1_000_000 - 5_000)
}

/// Turns a node's boot clock into stamps that never run ahead of real time.
///
/// A stamp is `offset + boot / (1 + rho)`. Within one term the offset only grows, and only by stamps received from the
/// leader; a leader does not set its clock by itself. The first entry of a later term sets it anew, even backwards: its
/// leader may have come back from a restart with a clock that lags, and a successor that went by what it knew from
/// before would jump ahead, minting for the lag at once and ending leases early (found by simulation, decision 0004).
/// So a new leader falls behind by one network delay at the most, and never leads.
#[derive(Clone, Debug)]
pub struct LedgerClock {
    offset: i128,
    term: u64,
    rules: Rules,
}

impl LedgerClock {
    /// Starts from the last stamp in the node's own log or snapshot.
    pub fn new(last: Stamp, now: Boot, rules: Rules) -> Self {
        Self { offset: i128::from(last.0) - slowed(now), term: 0, rules }
    }

    /// Learns from an entry that another node stamped in `term`.
    pub fn observe(&mut self, term: u64, stamp: Stamp, now: Boot) {
        let offset = i128::from(stamp.0) - slowed(now);
        if term > self.term {
            self.term = term;
            self.offset = offset;
        } else if term == self.term {
            self.offset = self.offset.max(offset);
        }
    }

    /// This node begins to lead `term`: its own entries teach it nothing.
    pub fn lead(&mut self, term: u64) {
        self.term = self.term.max(term);
    }

    /// The stamp of an entry proposed now.
    pub fn stamp(&self, now: Boot) -> Stamp {
        if !self.rules.refill_uses_ledger_time {
            return Stamp(now.0);
        }
        Stamp(u64::try_from(self.offset + slowed(now)).unwrap_or(0))
    }

    /// The boot time at which the clock will show `stamp`.
    pub fn boot_at(&self, stamp: Stamp) -> Boot {
        if !self.rules.refill_uses_ledger_time {
            return Boot(stamp.0);
        }
        let slow = (i128::from(stamp.0) - self.offset).max(0);
        let boot = slow * i128::from(1_000_000 + RHO_PPM) / 1_000_000 + 1;
        Boot(u64::try_from(boot).unwrap_or(u64::MAX))
    }
}

fn slowed(now: Boot) -> i128 {
    i128::from(now.0) * 1_000_000 / i128::from(1_000_000 + RHO_PPM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_never_outruns_the_slowest_real_second() {
        let clock = LedgerClock::new(Stamp(7_000_000), Boot(1_000), Rules::ALL);
        assert_eq!(clock.stamp(Boot(1_000)), Stamp(7_000_000));
        let fast_second = Boot(1_000 + 1_000_500);
        assert!(clock.stamp(fast_second) <= Stamp(8_000_000));
    }

    #[test]
    fn an_older_observation_does_not_turn_the_clock_back() {
        let mut clock = LedgerClock::new(Stamp(0), Boot(0), Rules::ALL);
        clock.observe(1, Stamp(5_000_000), Boot(1_000_000));
        let before = clock.stamp(Boot(2_000_000));
        clock.observe(1, Stamp(1_000_000), Boot(2_000_000));
        assert_eq!(clock.stamp(Boot(2_000_000)), before);
    }

    #[test]
    fn a_clock_that_lags_is_followed_when_its_node_leads() {
        let mut clock = LedgerClock::new(Stamp(0), Boot(0), Rules::ALL);
        clock.observe(1, Stamp(9_000_000), Boot(9_000_000));
        clock.observe(2, Stamp(5_000_000), Boot(10_000_000));
        assert!(clock.stamp(Boot(10_000_000)) <= Stamp(5_000_000), "a jump ahead would mint for the lag at once");
    }

    #[test]
    fn the_clock_shows_the_stamp_at_the_time_it_names() {
        let clock = LedgerClock::new(Stamp(123_456), Boot(99), Rules::ALL);
        let due = clock.boot_at(Stamp(1_123_456));
        assert!(clock.stamp(due) >= Stamp(1_123_456));
    }
}
