//! What a node holds of one pool: its slice, what is in use, and what it has yet to tell.

use crate::entry::{Amounts, PoolReport, Refund, Want};
use crate::model::{BucketLimit, PoolId, PoolLimits};
use crate::time::RENEW_US;
use std::collections::VecDeque;

/// For how long a slice should last: a failover and one renewal.
const SLICE_US: u64 = 1_500_000;

/// Something that is told with every message until one that carried it is acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Untold {
    dirty: bool,
    first: u64,
}

impl Untold {
    pub(super) fn touch(&mut self) {
        *self = Self { dirty: true, first: 0 };
    }

    /// Whether message `number` carries it.
    pub(super) fn tell(&mut self, number: u64) -> bool {
        if self.dirty && self.first == 0 {
            self.first = number;
        }
        self.dirty
    }

    pub(super) fn acknowledge(&mut self, number: u64) {
        if self.first != 0 && self.first <= number {
            *self = Self::default();
        }
    }

    pub(super) fn is_told(&self) -> bool {
        !self.dirty
    }
}

/// Counters of one limit; what is granted and neither spent nor returned is at hand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slice {
    pub(super) granted: u64,
    pub(super) spent: u64,
    pub(super) returned: u64,
}

impl Slice {
    pub(super) fn free(&self) -> u64 {
        self.granted.saturating_sub(self.spent + self.returned)
    }

    fn release(&mut self, keep: u64) -> bool {
        let excess = self.free().saturating_sub(keep);
        self.returned += excess;
        excess > 0
    }
}

/// The reservations of one slot of ledger time: how many run, and what the others did not use.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    open: u64,
    refund: Refund,
    untold: Untold,
}

impl Slot {
    fn is_done(&self) -> bool {
        self.open == 0 && self.untold.is_told()
    }
}

/// One pool on this node.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) limits: PoolLimits,
    pub(super) tokens: Slice,
    pub(super) requests: Slice,
    pub(super) permits: Slice,
    pub(super) permits_base: u64,
    pub(super) in_use: u64,
    pub(super) overrun: u64,
    pub(super) contended: bool,
    /// Log index of the reply that `contended` is from.
    pub(super) heard: u64,
    pub(super) waiting: u64,
    pub(super) untold: Untold,
    /// In order; a queue keeps its room, so that booking a request allocates nothing.
    slots: VecDeque<Slot>,
    want: Amounts,
    used: Amounts,
    peak: u64,
}

impl Holding {
    pub(super) fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            tokens: Slice::default(),
            requests: Slice::default(),
            permits: Slice::default(),
            permits_base: 0,
            in_use: 0,
            overrun: 0,
            contended: false,
            heard: 0,
            waiting: 0,
            untold: Untold::default(),
            slots: VecDeque::new(),
            want: Amounts::default(),
            used: Amounts::default(),
            peak: 0,
        }
    }

    pub(super) fn is_unlimited(&self) -> bool {
        self.limits == PoolLimits::default()
    }

    /// What a request of `tokens` takes of the limits that there are.
    pub(super) fn cost(&self, tokens: u64) -> Amounts {
        Amounts {
            tokens: if self.limits.tokens.is_some() { tokens } else { 0 },
            requests: u64::from(self.limits.requests.is_some()),
            permits: u64::from(self.limits.concurrent.is_some()),
        }
    }

    pub(super) fn permits_free(&self) -> u64 {
        self.permits.granted.saturating_sub(self.permits.returned + self.in_use)
    }

    pub(super) fn covers(&self, cost: Amounts) -> bool {
        self.tokens.free() >= cost.tokens
            && self.requests.free() >= cost.requests
            && (cost.permits == 0 || self.permits_free() >= cost.permits)
    }

    /// Spends out of the slice.
    pub(super) fn spend(&mut self, cost: Amounts, slot: u64) {
        if cost == Amounts::default() {
            return;
        }
        self.tokens.spent += cost.tokens;
        self.requests.spent += cost.requests;
        self.in_use += cost.permits;
        self.peak = self.peak.max(self.in_use);
        self.used.tokens += cost.tokens;
        self.used.requests += cost.requests;
        if cost.tokens > 0 || cost.requests > 0 {
            self.slot(slot).open += 1;
        }
        self.untold.touch();
    }

    /// Adds the units of a granted request to the counters and spends them.
    pub(super) fn absorb(&mut self, cost: Amounts, slot: u64) {
        self.tokens.granted += cost.tokens;
        self.requests.granted += cost.requests;
        self.permits.granted += cost.permits;
        self.spend(cost, slot);
    }

    /// Books what a reservation of `slot` did not use.
    pub(super) fn refund(&mut self, slot: u64, tokens: u64, requests: u64) {
        if tokens == 0 && requests == 0 {
            return;
        }
        let entry = self.slot(slot);
        entry.refund.tokens += tokens;
        entry.refund.requests += requests;
        entry.untold.touch();
        self.untold.touch();
    }

    /// No more refunds come from one reservation of `slot`.
    pub(super) fn close_slot(&mut self, slot: u64) {
        let entry = self.slot(slot);
        entry.open = entry.open.saturating_sub(1);
    }

    /// The slot's entry, made when there is none. Nearly always it is the last.
    fn slot(&mut self, slot: u64) -> &mut Slot {
        let at = self.slots.partition_point(|entry| entry.refund.slot < slot);
        if self.slots.get(at).is_none_or(|entry| entry.refund.slot != slot) {
            let refund = Refund { slot, ..Refund::default() };
            self.slots.insert(at, Slot { refund, ..Slot::default() });
        }
        &mut self.slots[at]
    }

    /// The oldest slot that may yet be refunded to, when requests yet to be admitted begin with `next_slot`.
    fn oldest_slot(&self, next_slot: u64) -> u64 {
        let open = self.slots.iter().find(|entry| entry.open > 0);
        open.map_or(next_slot, |entry| entry.refund.slot.min(next_slot))
    }

    /// Frees a permit: to the slice while nobody waits, else back to the ledger at once.
    pub(super) fn free_permit(&mut self) -> bool {
        self.in_use = self.in_use.saturating_sub(1);
        if !self.contended && self.waiting == 0 {
            return false;
        }
        self.release_permits(0)
    }

    /// Gives back whatever is not in use.
    pub(super) fn release_all(&mut self) -> bool {
        self.release(Amounts::default())
    }

    fn release(&mut self, keep: Amounts) -> bool {
        let tokens = self.tokens.release(keep.tokens);
        let requests = self.requests.release(keep.requests);
        let permits = self.release_permits(keep.permits);
        if tokens || requests {
            self.untold.touch();
        }
        tokens || requests || permits
    }

    fn release_permits(&mut self, keep: u64) -> bool {
        let excess = self.permits_free().saturating_sub(keep);
        if excess > 0 {
            self.permits.returned += excess;
            self.untold.touch();
        }
        excess > 0
    }

    /// The slice was too small: ask for a larger one.
    pub(super) fn missed(&mut self, cost: Amounts) {
        let grown = |want: u64, cost: u64, most: u64| want.saturating_mul(2).max(cost.saturating_mul(4)).min(most);
        let burst = |limit: Option<BucketLimit>| limit.map_or(0, |limit| limit.burst);
        self.want.tokens = grown(self.want.tokens, cost.tokens, burst(self.limits.tokens));
        self.want.requests = grown(self.want.requests, cost.requests, burst(self.limits.requests));
        self.want.permits = grown(self.want.permits, cost.permits, self.limits.concurrent.unwrap_or(0));
    }

    /// Adapts the wanted slice to what the last interval used, and gives back what is far above it.
    pub(super) fn tick(&mut self, elapsed_us: u64) {
        if self.used == Amounts::default() {
            self.want.tokens /= 2;
            self.want.requests /= 2;
            self.want.permits = if self.in_use == 0 { self.want.permits / 2 } else { self.want.permits };
        } else {
            let rate = |used: u64| used.saturating_mul(SLICE_US) / elapsed_us.max(RENEW_US / 4);
            let smooth = |want: u64, used: u64| rate(used).max(want - want / 8);
            self.want.tokens = smooth(self.want.tokens, self.used.tokens);
            self.want.requests = smooth(self.want.requests, self.used.requests);
            self.want.permits = self.peak.max(self.want.permits - self.want.permits / 8);
        }
        self.used = Amounts::default();
        self.peak = self.in_use;
        let double = |want: u64| want.saturating_mul(2);
        let keep = Amounts {
            tokens: double(self.want.tokens),
            requests: double(self.want.requests),
            permits: double(self.want.permits),
        };
        self.release(keep);
    }

    /// Whether the slice runs low before its time.
    pub(super) fn runs_low(&self) -> bool {
        let low = |limited: bool, free: u64, want: u64| limited && want > 0 && free < want / 4;
        low(self.limits.tokens.is_some(), self.tokens.free(), self.want.tokens)
            || low(self.limits.requests.is_some(), self.requests.free(), self.want.requests)
    }

    /// What the slice lacks; nothing while it is nearly what it should be.
    pub(super) fn want(&self, pool: PoolId) -> Option<Want> {
        let lacks = |limited: bool, want: u64, free: u64| {
            if limited && free < want - want / 4 { want - free } else { 0 }
        };
        let limits = &self.limits;
        let amounts = Amounts {
            tokens: lacks(limits.tokens.is_some(), self.want.tokens, self.tokens.free()),
            requests: lacks(limits.requests.is_some(), self.want.requests, self.requests.free()),
            permits: lacks(limits.concurrent.is_some(), self.want.permits, self.permits_free()),
        };
        (amounts != Amounts::default()).then_some(Want { pool, amounts })
    }

    /// Whether the lease is of any use now.
    pub(super) fn is_active(&self) -> bool {
        self.tokens.free() > 0
            || self.requests.free() > 0
            || self.permits_free() > 0
            || self.in_use > 0
            || self.waiting > 0
            || !self.slots.iter().all(Slot::is_done)
            || !self.untold.is_told()
    }

    /// What is to be told, if anything; requests yet to be admitted begin with `next_slot`.
    pub(super) fn report(&mut self, pool: PoolId, number: u64, next_slot: u64) -> Option<PoolReport> {
        if !self.untold.tell(number) {
            return None;
        }
        let oldest_slot = self.oldest_slot(next_slot);
        let told = self.slots.iter_mut().filter_map(|slot| slot.untold.tell(number).then_some(slot.refund));
        Some(PoolReport {
            pool,
            tokens_spent: self.tokens.spent,
            tokens_returned: self.tokens.returned,
            tokens_overrun: self.overrun,
            requests_spent: self.requests.spent,
            requests_returned: self.requests.returned,
            permits_base: self.permits_base,
            permits_returned: self.permits.returned,
            refunds: told.collect(),
            oldest_slot,
        })
    }

    /// The leader has heard a message. Slots are forgotten once nothing is left to tell of them and nothing more can
    /// come: what may yet go on keeps its sums, since the ledger knows it by its sums.
    pub(super) fn acknowledge(&mut self, number: u64, next_slot: u64) {
        self.untold.acknowledge(number);
        self.slots.iter_mut().for_each(|slot| slot.untold.acknowledge(number));
        while self.slots.front().is_some_and(|slot| slot.refund.slot < next_slot && slot.is_done()) {
            self.slots.pop_front();
        }
    }

    /// A new epoch: the old counters are void, only what is in flight and what was overrun stands.
    pub(super) fn begin_epoch(&mut self) {
        self.tokens = Slice::default();
        self.requests = Slice::default();
        self.permits = Slice { granted: self.in_use, ..Slice::default() };
        self.permits_base = self.in_use;
        self.slots.clear();
        self.heard = 0;
        self.untold.touch();
    }
}
