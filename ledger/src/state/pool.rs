//! A pool's row: its buckets, its permits, and what each node holds of them.

use super::bucket::Bucket;
use crate::entry::{Amounts, PoolReport, Who};
use crate::model::{Epoch, Incarnation, NodeId, PoolLimits};
use crate::rules::Rules;
use crate::time::Stamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Minima of headroom kept for a pool's bucket.
const POOL_SLOTS: usize = 1_024;

/// Upstream capacity behind a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub(crate) name: Arc<str>,
    pub(crate) limits: PoolLimits,
    pub(crate) request_us_max: u64,
    pub(crate) tokens: Option<Bucket>,
    pub(crate) requests: Option<Bucket>,
    pub(crate) leases: BTreeMap<NodeId, PoolLease>,
    /// Permits of reservations that their node has not started.
    pub(crate) attached_permits: u64,
    /// Permits of lost incarnations, with the time at which they come back.
    pub(crate) lost: Vec<(Stamp, u64)>,
    /// A broken invariant: nothing is granted any more (see the crate's page).
    pub(crate) frozen: Option<String>,
}

/// What one node holds of a pool, as counters since its epoch began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolLease {
    pub(crate) incarnation: Incarnation,
    pub(crate) epoch: Epoch,
    pub(crate) tokens: Balance,
    pub(crate) overrun: u64,
    pub(crate) requests: Balance,
    pub(crate) permits: Balance,
    /// The node has not yet said how many permits it still uses in this epoch.
    pub(crate) permits_unsettled: bool,
    pub(crate) refunds: BTreeMap<u64, (u64, u64)>,
    pub(crate) refund_floor: u64,
}

/// Cumulative counters; `granted - spent - returned` is out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Balance {
    pub(crate) granted: u64,
    pub(crate) spent: u64,
    pub(crate) returned: u64,
}

impl Balance {
    pub(crate) fn out(&self) -> u64 {
        self.granted - self.spent - self.returned
    }

    /// Raises the counters to what a report says, and gives the differences. A report beyond what was granted is cut
    /// and flagged.
    pub(crate) fn raise(&mut self, spent: u64, returned: u64) -> (u64, u64, bool) {
        let more_spent = spent.saturating_sub(self.spent);
        let cut_spent = more_spent.min(self.out());
        self.spent += cut_spent;
        let more_returned = returned.saturating_sub(self.returned);
        let cut_returned = more_returned.min(self.out());
        self.returned += cut_returned;
        (cut_spent, cut_returned, cut_spent < more_spent || cut_returned < more_returned)
    }
}

impl Pool {
    pub(crate) fn new(name: Arc<str>, limits: PoolLimits, request_us_max: u64, now: Stamp) -> Self {
        Self {
            name,
            limits,
            request_us_max,
            tokens: limits.tokens.map(|limit| Bucket::new(limit, now, POOL_SLOTS)),
            requests: limits.requests.map(|limit| Bucket::new(limit, now, POOL_SLOTS)),
            leases: BTreeMap::new(),
            attached_permits: 0,
            lost: Vec::new(),
            frozen: None,
        }
    }

    pub(crate) fn advance(&mut self, now: Stamp, rules: Rules) {
        for bucket in [&mut self.tokens, &mut self.requests].into_iter().flatten() {
            bucket.mark = now.slot();
            bucket.advance(now, rules);
        }
    }

    /// Sets other limits. A bucket whose limit goes keeps its books, so that what nodes still hold is not lost count of.
    pub(crate) fn set_limits(&mut self, limits: PoolLimits, request_us_max: u64, now: Stamp) {
        self.limits = limits;
        self.request_us_max = request_us_max;
        for (bucket, limit) in [(&mut self.tokens, limits.tokens), (&mut self.requests, limits.requests)] {
            match (bucket.as_mut(), limit) {
                (Some(bucket), Some(limit)) => bucket.set_limit(limit),
                (None, Some(limit)) => *bucket = Some(Bucket::new(limit, now, POOL_SLOTS)),
                (_, None) => {}
            }
        }
    }

    /// Requests that are, or may be, in flight.
    pub fn permits_out(&self) -> u64 {
        let leased: u64 = self.leases.values().map(|lease| lease.permits.out()).sum();
        let lost: u64 = self.lost.iter().map(|&(_, permits)| permits).sum();
        leased + lost + self.attached_permits
    }

    /// Permits that may still be granted (L3).
    pub fn permits_free(&self) -> u64 {
        self.limits.concurrent.map_or(u64::MAX, |limit| limit.saturating_sub(self.permits_out()))
    }

    /// What a request of `tokens` takes of the limits that there are.
    pub(crate) fn cost(&self, tokens: u64) -> Amounts {
        Amounts {
            tokens: if self.limits.tokens.is_some() { tokens } else { 0 },
            requests: u64::from(self.limits.requests.is_some()),
            permits: u64::from(self.limits.concurrent.is_some()),
        }
    }

    pub(crate) fn covers(&self, amounts: Amounts) -> bool {
        let bucket = |bucket: &Option<Bucket>, units| bucket.as_ref().map_or(units == 0, |bucket| bucket.covers(units));
        self.frozen.is_none()
            && bucket(&self.tokens, amounts.tokens)
            && bucket(&self.requests, amounts.requests)
            && (amounts.permits == 0 || amounts.permits <= self.permits_free())
    }

    /// Leases units out of the buckets; permits are counted by the caller.
    pub(crate) fn take(&mut self, amounts: Amounts) {
        debug_assert!(self.covers(amounts));
        if let Some(bucket) = &mut self.tokens {
            bucket.lease(amounts.tokens);
        }
        if let Some(bucket) = &mut self.requests {
            bucket.lease(amounts.requests);
        }
    }

    /// Takes back leased, unspent units.
    pub(crate) fn give_back(&mut self, amounts: Amounts) {
        if let Some(bucket) = &mut self.tokens {
            bucket.give_back(amounts.tokens.min(bucket.outstanding));
        }
        if let Some(bucket) = &mut self.requests {
            bucket.give_back(amounts.requests.min(bucket.outstanding));
        }
    }

    /// Destroys leased units.
    pub(crate) fn burn(&mut self, amounts: Amounts, rules: Rules) {
        if let Some(bucket) = &mut self.tokens {
            bucket.burn(amounts.tokens.min(bucket.outstanding), rules);
        }
        if let Some(bucket) = &mut self.requests {
            bucket.burn(amounts.requests.min(bucket.outstanding), rules);
        }
    }

    /// The node's row, begun anew when its process or its epoch is.
    pub(crate) fn lease_of(&mut self, who: Who) -> &mut PoolLease {
        let lease = self.leases.entry(who.node).or_default();
        if lease.incarnation != who.incarnation {
            *lease = PoolLease { incarnation: who.incarnation, epoch: who.epoch, ..PoolLease::default() };
        }
        lease.epoch = who.epoch;
        lease
    }

    /// Applies a node's counters.
    pub(crate) fn report(&mut self, who: Who, report: &PoolReport, rules: Rules) {
        let lease = self.lease_of(who);
        if lease.permits_unsettled {
            // Rule of permits over epochs: the node keeps what is in flight, the rest is free again.
            // What was freed meanwhile, as it outlived every request, counts as gone.
            let gone = report.permits_base.saturating_sub(lease.permits.out());
            lease.permits = Balance { granted: report.permits_base, spent: gone, returned: 0 };
            lease.permits_unsettled = false;
        }
        let permits_returned = report.permits_returned.saturating_sub(lease.permits.spent);
        let (_, _, permits_cut) = lease.permits.raise(0, permits_returned);
        let tokens = lease.tokens.raise(report.tokens_spent, report.tokens_returned);
        let requests = lease.requests.raise(report.requests_spent, report.requests_returned);
        let overrun = report.tokens_overrun.saturating_sub(lease.overrun);
        lease.overrun += overrun;
        let mut refunds = Vec::new();
        for refund in report.refunds.iter().filter(|refund| refund.slot >= lease.refund_floor) {
            let (tokens, requests) = lease.refunds.entry(refund.slot).or_default();
            let more = (refund.tokens.saturating_sub(*tokens), refund.requests.saturating_sub(*requests));
            *tokens += more.0;
            *requests += more.1;
            refunds.push((refund.slot, more));
        }
        lease.refund_floor = lease.refund_floor.max(report.oldest_slot);
        let floor = lease.refund_floor;
        lease.refunds = lease.refunds.split_off(&floor);
        if permits_cut || tokens.2 || requests.2 {
            self.freeze("a node reported more than it was granted");
        }
        if let Some(bucket) = &mut self.tokens {
            bucket.spend(tokens.0);
            bucket.give_back(tokens.1);
            bucket.overrun(overrun);
            refunds.iter().for_each(|&(slot, (units, _))| _ = bucket.refund(slot, units, rules));
        }
        if let Some(bucket) = &mut self.requests {
            bucket.spend(requests.0);
            bucket.give_back(requests.1);
            refunds.iter().for_each(|&(slot, (_, units))| _ = bucket.refund(slot, units, rules));
        }
    }

    /// Ends a node's lease: its rate units are burned, its permits wait for its word (rule d).
    pub(crate) fn expire(&mut self, node: NodeId, next: Epoch, rules: Rules) {
        let Some(lease) = self.leases.get_mut(&node) else { return };
        let out = Amounts { tokens: lease.tokens.out(), requests: lease.requests.out(), permits: 0 };
        *lease = PoolLease {
            incarnation: lease.incarnation,
            epoch: next,
            permits: Balance { granted: lease.permits.out(), ..Balance::default() },
            permits_unsettled: true,
            // Overruns are counted over epochs: what was not told in time is told later.
            overrun: lease.overrun,
            ..PoolLease::default()
        };
        self.burn(out, rules);
    }

    /// Stops granting for good: an invariant is broken.
    pub(crate) fn freeze(&mut self, why: &str) {
        if cfg!(test) {
            panic!("{}: {why}", self.name);
        }
        self.frozen.get_or_insert_with(|| why.to_owned());
    }

    /// What is wrong with the row, if anything (L1, L3, L5).
    pub(crate) fn breach(&self, rules: Rules) -> Option<String> {
        for (bucket, out) in [
            (&self.tokens, self.leases.values().map(|lease| lease.tokens.out()).sum::<u64>()),
            (&self.requests, self.leases.values().map(|lease| lease.requests.out()).sum::<u64>()),
        ] {
            let Some(bucket) = bucket else { continue };
            if let Some(why) = bucket.breach(rules) {
                return Some(why.to_owned());
            }
            if out > bucket.outstanding {
                return Some("L5: nodes hold more than the bucket has out".to_owned());
            }
        }
        None
    }
}
