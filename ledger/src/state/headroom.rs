//! The smallest headroom of a bucket since any point in time, for rule (f).
//!
//! A refund stands for a reservation that should have been smaller. Had it been, the bucket would since have held that
//! much more, and would have overflowed wherever there was less headroom than that. So a refund counts only as far as
//! the smallest headroom since the reservation, and, once counted, lowers the headroom from there on.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Suffix minima of headroom, by slot of ledger time; minima rise from front to back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Headroom {
    /// `(slot, headroom)`: from the slot before this one (exclusive) on, the smallest headroom is this.
    minima: VecDeque<(u64, u64)>,
    most: usize,
}

impl Headroom {
    pub(crate) fn new(most: usize) -> Self {
        Self { minima: VecDeque::new(), most }
    }

    /// Records the headroom seen in a slot; slots come in order.
    pub(crate) fn note(&mut self, slot: u64, headroom: u64) {
        while self.minima.back().is_some_and(|&(_, least)| least >= headroom) {
            self.minima.pop_back();
        }
        // The slot's own minimum is kept even when the headroom has since grown within it.
        if self.minima.back().is_none_or(|&(last, _)| last < slot) {
            self.minima.push_back((slot, headroom));
        }
        if self.minima.len() > self.most {
            self.merge_oldest();
        }
    }

    /// The smallest headroom since the beginning of `slot`.
    pub(crate) fn smallest_since(&self, slot: u64) -> u64 {
        let first = self.minima.partition_point(|&(last, _)| last < slot);
        self.minima.get(first).map_or(u64::MAX, |&(_, least)| least)
    }

    /// Takes a counted refund off every minimum since `slot`; older minima can be no larger than what follows them.
    pub(crate) fn lower(&mut self, slot: u64, units: u64) {
        let first = self.minima.partition_point(|&(last, _)| last < slot);
        for (_, least) in self.minima.range_mut(first..) {
            *least = least.saturating_sub(units);
        }
        let Some(&(_, bound)) = self.minima.get(first) else { return };
        let keep = self.minima.range(..first).take_while(|&&(_, least)| least < bound).count();
        self.minima.drain(keep..first);
    }

    /// Two oldest minima become the smaller of them, at the later slot: a refund from before counts less, never more.
    fn merge_oldest(&mut self) {
        let Some((_, least)) = self.minima.pop_front() else { return };
        if let Some((_, next)) = self.minima.front_mut() {
            *next = least.min(*next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_smallest_headroom_since_a_slot_is_what_a_full_record_says(
            steps in prop::collection::vec((0u64..3, 0u64..50), 1..60), from in 0u64..80,
        ) {
            let mut headroom = Headroom::new(1_000);
            let mut record: Vec<(u64, u64)> = Vec::new();
            let mut slot = 0;
            for (gap, value) in steps {
                slot += gap;
                headroom.note(slot, value);
                record.push((slot, value));
            }
            let naive = record.iter().filter(|&&(at, _)| at >= from).map(|&(_, value)| value).min();
            prop_assert_eq!(headroom.smallest_since(from), naive.unwrap_or(u64::MAX));
        }

        #[test]
        fn a_bounded_record_never_promises_more_than_a_full_one(
            steps in prop::collection::vec((0u64..3, 0u64..50), 1..60), from in 0u64..80, lower in 0u64..80,
        ) {
            let (mut small, mut full) = (Headroom::new(3), Headroom::new(1_000));
            let mut slot = 0;
            for (gap, value) in steps {
                slot += gap;
                small.note(slot, value);
                full.note(slot, value);
            }
            let units = small.smallest_since(lower);
            if units != u64::MAX {
                small.lower(lower, units);
                full.lower(lower, units);
            }
            prop_assert!(small.smallest_since(from) <= full.smallest_since(from));
        }
    }
}
