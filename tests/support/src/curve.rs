//! The arrival curve: whether a limit of rate R and burst B held over *every* interval of a run.
//!
//! For events at `t_1 <= t_2 <= ..` of amounts `a_k` and a slack d the claim is, for all i <= j,
//! `a_i + .. + a_j <= B + R (t_j - t_i + d)`. With `C_k = a_1 + .. + a_k` it reads
//! `(C_j - R t_j) - (C_{i-1} - R t_i) <= B + R d`. The left part depends on j only, the right part on i only: so one
//! pass that keeps the smallest `C_{i-1} - R t_i` seen so far finds the worst interval of all n (n + 1) / 2 of them.
//! Any interval of time that holds events i..=j is at least as long as `t_j - t_i`, so none is worse.
//!
//! Everything is exact: both sides are multiplied by the rate's denominator and kept in 128 bits.

use std::time::Duration;

/// A limit to check events against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Curve {
    /// Units that come back in each `per_us`.
    pub units: u64,
    /// Microseconds.
    pub per_us: u64,
    /// Units that may be saved up.
    pub burst: u64,
    /// Slack d: the largest delay between admission and what was observed, in microseconds.
    pub slack_us: u64,
}

/// One event: when, in microseconds of one clock, and how much.
pub type Event = (u64, u64);

/// The interval that used most of what it was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worst {
    /// Time of its first event.
    pub from_us: u64,
    /// Time of its last event.
    pub to_us: u64,
    /// Units of its events, both ends included.
    pub amount: u128,
    /// Units above what was allowed, rounded up; zero or less means that the limit held everywhere.
    pub excess: i128,
}

impl Curve {
    /// So many units each second, and a burst.
    pub fn per_sec(units: u64, burst: u64) -> Self {
        Self { units, per_us: 1_000_000, burst, slack_us: 0 }
    }

    /// So many units each minute, and a burst.
    pub fn per_min(units: u64, burst: u64) -> Self {
        Self { units, per_us: 60_000_000, burst, slack_us: 0 }
    }

    /// Allows for a delay between admission and observation.
    #[must_use]
    pub fn slack(mut self, slack: Duration) -> Self {
        self.slack_us = u64::try_from(slack.as_micros()).unwrap_or(u64::MAX);
        self
    }

    /// Finds the worst interval, in O(n log n) for events in any order (O(n) once sorted); `None` without events.
    pub fn worst(&self, events: &[Event]) -> Option<Worst> {
        let mut events = events.to_vec();
        events.sort_by_key(|&(at, _)| at);
        let mut best: Option<(i128, Worst)> = None;
        // The smallest C_{i-1} - R t_i so far, with the i it came from.
        let mut floor: Option<(i128, u64, u128)> = None;
        let mut total: u128 = 0;
        for &(at, amount) in &events {
            let refilled = i128::from(at) * i128::from(self.units);
            let start = self.scaled(total) - refilled;
            if floor.is_none_or(|(low, ..)| start < low) {
                floor = Some((start, at, total));
            }
            total += u128::from(amount);
            let Some((low, from_us, before)) = floor else { continue };
            let excess = self.scaled(total) - refilled - low - self.allowance();
            if best.is_none_or(|(most, _)| excess > most) {
                let worst = Worst { from_us, to_us: at, amount: total - before, excess: self.units_of(excess) };
                best = Some((excess, worst));
            }
        }
        best.map(|(_, worst)| worst)
    }

    /// Checks that the limit held over every interval.
    ///
    /// # Errors
    /// A sentence that names the worst interval.
    pub fn check(&self, events: &[Event]) -> Result<(), String> {
        match self.worst(events) {
            Some(worst) if worst.excess > 0 => Err(format!(
                "{} units in {} us (from {} to {}) are {} above burst {} + {}/{}us with a slack of {} us",
                worst.amount,
                worst.to_us - worst.from_us,
                worst.from_us,
                worst.to_us,
                worst.excess,
                self.burst,
                self.units,
                self.per_us,
                self.slack_us
            )),
            _ => Ok(()),
        }
    }

    /// B + R d, times the rate's denominator.
    fn allowance(&self) -> i128 {
        i128::from(self.burst) * i128::from(self.per_us) + i128::from(self.units) * i128::from(self.slack_us)
    }

    fn scaled(&self, amount: u128) -> i128 {
        i128::try_from(amount).unwrap_or(i128::MAX / 2).saturating_mul(i128::from(self.per_us))
    }

    fn units_of(&self, scaled: i128) -> i128 {
        -(-scaled).div_euclid(i128::from(self.per_us.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(curve: &Curve, events: &[Event]) -> Option<i128> {
        let mut events = events.to_vec();
        events.sort_by_key(|&(at, _)| at);
        let mut worst = None;
        for i in 0..events.len() {
            for j in i..events.len() {
                let sum: i128 = events[i..=j].iter().map(|&(_, amount)| i128::from(amount)).sum();
                let span = i128::from(events[j].0 - events[i].0 + curve.slack_us);
                let excess =
                    (sum - i128::from(curve.burst)) * i128::from(curve.per_us) - i128::from(curve.units) * span;
                worst = worst.max(Some(excess));
            }
        }
        worst.map(|excess| curve.units_of(excess))
    }

    #[test]
    fn a_burst_at_once_is_allowed_and_one_more_unit_is_not() {
        let curve = Curve::per_sec(10, 100);
        assert_eq!(curve.check(&[(5, 60), (5, 40)]), Ok(()));
        let worst = curve.worst(&[(5, 60), (5, 41)]).unwrap();
        assert_eq!((worst.excess, worst.amount, worst.from_us, worst.to_us), (1, 101, 5, 5));
    }

    #[test]
    fn a_window_edge_is_seen_although_each_window_is_within_the_limit() {
        let curve = Curve::per_min(60, 60);
        let edge = [(59_000_000, 60), (61_000_000, 60)];
        assert_eq!(curve.worst(&edge).unwrap().excess, 58);
        assert!(curve.check(&edge).unwrap_err().contains("58 above"));
        assert_eq!(curve.slack(Duration::from_secs(58)).check(&edge), Ok(()));
    }

    #[test]
    fn nothing_breaks_no_limit() {
        assert_eq!(Curve::per_sec(1, 1).worst(&[]), None);
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_all_intervals_show(
            events in prop::collection::vec((0u64..2_000, 0u64..50), 0..40),
            units in 0u64..2_000, per_us in 1u64..1_000, burst in 0u64..200, slack_us in 0u64..100,
        ) {
            let curve = Curve { units, per_us, burst, slack_us };
            let worst = curve.worst(&events);
            prop_assert_eq!(worst.map(|w| w.excess), naive(&curve, &events));
            if let Some(worst) = worst {
                let inside: u128 = events.iter()
                    .filter(|(at, _)| (worst.from_us..=worst.to_us).contains(at))
                    .map(|&(_, amount)| u128::from(amount)).sum();
                prop_assert!(worst.amount <= inside);
            }
        }
    }
}
