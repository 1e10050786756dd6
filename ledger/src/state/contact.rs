//! A node's report: counters are raised, reservations absorbed and ended, the lease renewed.

use super::State;
use super::node::NodeRow;
use crate::entry::{Amounts, End, Outcome, Report, Who};
use crate::time::LEASE_US;

impl State {
    pub(crate) fn contact(&mut self, who: Who, report: &Report) -> Outcome {
        let Some(mut row) = self.nodes.remove(&who.node) else { return Outcome::Stale(None) };
        let outcome = self.contact_of(who, &mut row, report);
        self.nodes.insert(who.node, row);
        outcome
    }

    fn contact_of(&mut self, who: Who, row: &mut NodeRow, report: &Report) -> Outcome {
        if row.incarnation != who.incarnation {
            return Outcome::Stale(None);
        }
        if row.epoch == who.epoch && self.stamp.0 >= row.renewed.0 + LEASE_US && self.holds_units(who.node, row) {
            self.expire(who.node, row);
        }
        let current = row.epoch == who.epoch;
        if current {
            self.absorb(who, row, &report.absorbed);
        }
        for end in &report.ends {
            self.end(row, *end);
        }
        row.raise_low(report.low);
        if !current {
            // Rule (d): the counters of an ended lease speak of units that are burned already.
            return Outcome::Stale(Some(row.epoch));
        }
        for pool_report in &report.pools {
            if let Some(pool) = self.pools.get_mut(&pool_report.pool) {
                pool.advance(self.stamp, self.rules);
                pool.report(who, pool_report, self.rules);
                if let Some(why) = pool.breach(self.rules) {
                    pool.freeze(&why);
                }
            }
        }
        row.renewed = self.stamp;
        Outcome::Done
    }

    /// Moves reservations' units into the node's counters: it has started these requests.
    fn absorb(&mut self, who: Who, row: &mut NodeRow, absorbed: &[u64]) {
        for &seq in absorbed {
            let Some(reservation) = row.open.get_mut(&seq).filter(|reservation| reservation.attached) else { continue };
            reservation.attached = false;
            let Amounts { tokens, requests, permits } = reservation.amounts;
            if let Some(pool) = self.pools.get_mut(&reservation.pool) {
                let lease = pool.lease_of(who);
                lease.tokens.granted += tokens;
                lease.requests.granted += requests;
                lease.permits.granted += permits;
                pool.attached_permits -= permits;
            }
            if reservation.tenants.is_empty() {
                row.open.remove(&seq);
                row.close(seq);
            }
        }
    }

    /// Ends a reservation once (L6): a repeat finds it closed.
    fn end(&mut self, row: &mut NodeRow, end: End) {
        let Some(reservation) = row.open.remove(&end.seq) else {
            row.close(end.seq);
            return;
        };
        row.close(end.seq);
        if reservation.attached
            && let Some(pool) = self.pools.get_mut(&reservation.pool)
        {
            pool.advance(self.stamp, self.rules);
            pool.give_back(reservation.amounts);
            pool.attached_permits -= reservation.amounts.permits;
        }
        for hold in &reservation.tenants {
            if let Some(tenant) = self.tenants.get_mut(&hold.scope) {
                tenant.touch(None, self.windows, self.stamp, self.reserved, self.rules);
                tenant.end(hold, end.used, self.rules, &mut self.effects);
            }
        }
    }
}
