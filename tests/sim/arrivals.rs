//! What the upstream sees: arrivals over time and requests in flight.

use crate::model::BucketLimit;

/// Charges in order of their arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrivals {
    events: Vec<(u64, u64)>,
}

impl Arrivals {
    /// Books a charge and gives its number, by which its amount may yet be set to what was really used.
    pub(super) fn book(&mut self, at_us: u64, units: u64) -> usize {
        self.events.push((at_us, units));
        self.events.len() - 1
    }

    pub(super) fn set(&mut self, number: usize, units: u64) {
        self.events[number].1 = units;
    }

    pub(super) fn total_between(&self, from_us: u64, to_us: u64) -> u64 {
        self.events.iter().filter(|&&(at, _)| (from_us..to_us).contains(&at)).map(|&(_, units)| units).sum()
    }

    /// The worst excess, in units, of any interval over `burst + rate * (length + slack)`; zero when none exceeds.
    ///
    /// With `S(i)` the sum up to event `i` and `x(i) = S(i) - rate * t(i)`, an interval from `i` to `j` exceeds when
    /// `x(j) - x(i - 1 at t(i))` does; so one pass with the smallest left side is enough.
    pub(super) fn worst_excess(&self, limit: BucketLimit, slack_us: u64) -> u64 {
        let per = i128::from(limit.rate.per_us);
        let filled = |us: u64| i128::from(limit.rate.units) * i128::from(us);
        let (mut sum, mut least, mut worst) = (0i128, i128::MAX, 0i128);
        for &(at, units) in &self.events {
            least = least.min(sum * per - filled(at));
            sum += i128::from(units);
            worst = worst.max(sum * per - filled(at) - least);
        }
        let allowed = i128::from(limit.burst) * per + filled(slack_us);
        u64::try_from((worst - allowed + per - 1) / per).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rate;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_pass_finds_what_every_interval_would(
            steps in prop::collection::vec((0u64..5_000_000, 0u64..50), 1..40), burst in 1u64..100, units in 0u64..20,
        ) {
            let mut arrivals = Arrivals::default();
            let mut now = 0;
            for (gap, amount) in steps {
                now += gap;
                arrivals.book(now, amount);
            }
            let limit = BucketLimit { rate: Rate::per_sec(units), burst };
            let events = &arrivals.events;
            let mut naive = 0i128;
            for from in 0..events.len() {
                let mut sum = 0i128;
                for to in from..events.len() {
                    sum += i128::from(events[to].1);
                    let allowed = i128::from(burst) * 1_000_000
                        + i128::from(units) * i128::from(events[to].0 - events[from].0);
                    naive = naive.max(sum * 1_000_000 - allowed);
                }
            }
            let naive = u64::try_from((naive + 999_999) / 1_000_000).unwrap_or(0);
            prop_assert_eq!(arrivals.worst_excess(limit, 0), naive);
        }
    }
}
