//! When the next day and the next month begin: once a majority's wall clocks are past the edge.

use super::{Plan, Policy};
use crate::entry::Op;
use crate::model::Windows;
use crate::state::State;
use crate::time::Stamp;

/// Windows that one round rolls at the most, when the group was down for long.
const ROLLS_MAX: usize = 400;

/// A node that said nothing for so long has no say. Every node in contact speaks up at least once a day, at the edge.
const SILENT_US: u64 = 2 * 86_400_000_000;

impl Policy {
    /// Rolls to what a majority of the group's nodes shows, one window after the other. The first windows of all are
    /// those that anybody shows.
    pub(super) fn roll(&self, stamp: Stamp, state: &State, plan: &mut Plan) {
        let ledger = state.windows();
        let day = self.agreed(stamp, state, ledger.day == 0, |windows| windows.day);
        let month = self.agreed(stamp, state, ledger.month == 0, |windows| windows.month);
        plan.ops.extend(steps(ledger.day, day).map(|day| Op::RollDay { day }));
        plan.ops.extend(steps(ledger.month, month).map(|month| Op::RollMonth { month }));
    }

    /// The latest window that a majority's clocks have reached; 0 when there is no majority.
    fn agreed(&self, stamp: Stamp, state: &State, is_first: bool, window: impl Fn(Windows) -> u64) -> u64 {
        let nodes = state.nodes().filter(|(_, row)| stamp.0 < row.renewed().0.saturating_add(SILENT_US)).count();
        let mut shown: Vec<u64> = self.peers.values().map(|peer| window(peer.windows)).collect();
        shown.sort_unstable_by(|a, b| b.cmp(a));
        let deciding = if is_first { 0 } else { nodes / 2 };
        shown.get(deciding).copied().unwrap_or(0)
    }
}

fn steps(from: u64, to: u64) -> impl Iterator<Item = u64> {
    let first = if from == 0 { to.max(1) } else { from + 1 };
    (first..=to).take(ROLLS_MAX)
}
