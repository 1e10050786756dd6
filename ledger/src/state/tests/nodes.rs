//! A naive node for random histories: it keeps its counters as the protocol says, and messages to send at will.

use crate::entry::{Amounts, End, Hold, PoolReport, Refund, Report, Who};
use crate::model::{Epoch, PoolId};
use crate::time::Stamp;
use std::collections::BTreeMap;

/// A request at the upstream.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// The reservation it came by, and whether that must be ended.
    pub(super) seq: Option<(u64, bool)>,
    pub(super) cost: Amounts,
    pub(super) slot: u64,
    pub(super) since: Stamp,
    /// Its place among what was sent.
    pub(super) sent: usize,
}

/// One life of a node's process.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) who: Who,
    pub(super) running: Vec<(Epoch, Run)>,
    /// Reservations that were made and not started.
    pub(super) reserved: BTreeMap<u64, Hold>,
    pub(super) ends: Vec<(u64, Option<u64>)>,
    granted: Amounts,
    spent: Amounts,
    returned: Amounts,
    overrun: u64,
    base: u64,
    refunds: BTreeMap<u64, Amounts>,
    absorbed: Vec<u64>,
    sent: Vec<(Who, Report)>,
    seq: u64,
}

impl Node {
    pub(super) fn new(who: Who) -> Self {
        Self { who, ..Self::default() }
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub(super) fn granted(&mut self, amounts: Amounts) {
        self.granted.tokens += amounts.tokens;
        self.granted.requests += amounts.requests;
        self.granted.permits += amounts.permits;
    }

    pub(super) fn covers(&self, cost: Amounts) -> bool {
        self.granted.tokens - self.spent.tokens - self.returned.tokens >= cost.tokens
            && self.granted.requests - self.spent.requests - self.returned.requests >= cost.requests
            && self.granted.permits - self.returned.permits - self.permits_in_use() as u64 >= cost.permits
    }

    pub(super) fn permits_in_use(&self) -> usize {
        self.running.iter().filter(|(_, run)| run.cost.permits > 0).count()
    }

    /// Starts a request; a reservation's units are first added to the counters.
    pub(super) fn start(&mut self, run: Run) {
        if let Some((seq, _)) = run.seq {
            self.granted(run.cost);
            self.absorbed.push(seq);
        }
        self.spent.tokens += run.cost.tokens;
        self.spent.requests += run.cost.requests;
        self.running.push((self.who.epoch, run));
    }

    pub(super) fn take_reserved(&mut self, which: usize) -> Option<(u64, Hold)> {
        let seq = *self.reserved.keys().nth(which.checked_rem(self.reserved.len())?)?;
        self.reserved.remove_entry(&seq)
    }

    pub(super) fn take_run(&mut self, which: usize) -> Option<Run> {
        let which = which.checked_rem(self.running.len())?;
        let (epoch, run) = self.running.remove(which);
        if run.cost.permits > 0 {
            self.returned.permits += 1;
        }
        // What was spent in an earlier epoch has no slot to be refunded to.
        Some(if epoch == self.who.epoch { run } else { Run { slot: u64::MAX, ..run } })
    }

    pub(super) fn outlived(&self, now: Stamp, most_us: u64) -> Option<usize> {
        self.running.iter().position(|(_, run)| run.since.0 + most_us <= now.0)
    }

    pub(super) fn finish(&mut self, run: &Run, used: u64) {
        self.overrun += used.saturating_sub(run.cost.tokens);
        if run.slot != u64::MAX {
            self.refunds.entry(run.slot).or_default().tokens += run.cost.tokens.saturating_sub(used);
        }
        if let Some((seq, true)) = run.seq {
            self.ends.push((seq, Some(used)));
        }
    }

    pub(super) fn give_back_all(&mut self) {
        self.returned.tokens = self.granted.tokens - self.spent.tokens;
        self.returned.requests = self.granted.requests - self.spent.requests;
        self.returned.permits = self.granted.permits - self.permits_in_use() as u64;
    }

    /// Writes a message with everything there is to say.
    pub(super) fn report(&mut self, pool: PoolId, now_slot: u64) {
        let oldest = self.running.iter().filter(|(epoch, _)| *epoch == self.who.epoch).map(|(_, run)| run.slot).min();
        let refund = |(&slot, amounts): (&u64, &Amounts)| Refund { slot, tokens: amounts.tokens, requests: 0 };
        let pools = vec![PoolReport {
            pool,
            tokens_spent: self.spent.tokens,
            tokens_returned: self.returned.tokens,
            tokens_overrun: self.overrun,
            requests_spent: self.spent.requests,
            requests_returned: self.returned.requests,
            permits_base: self.base,
            permits_returned: self.returned.permits,
            refunds: self.refunds.iter().map(refund).collect(),
            oldest_slot: oldest.unwrap_or(now_slot).min(now_slot),
        }];
        let ends = self.ends.iter().map(|&(seq, used)| End { seq, used: used.map(super::histories::priced) }).collect();
        self.sent.push((self.who, Report { pools, absorbed: self.absorbed.clone(), ends, low: 0 }));
    }

    /// A message that was sent, counted from the newest.
    pub(super) fn message(&self, back: usize) -> Option<(Who, Report)> {
        self.sent.iter().rev().nth(back).cloned()
    }

    /// The ledger ended the lease: counters begin anew, what runs goes on, what was not started is no more.
    pub(super) fn begin_epoch(&mut self, epoch: Epoch) {
        if epoch <= self.who.epoch {
            return;
        }
        self.who.epoch = epoch;
        let in_use = self.permits_in_use() as u64;
        self.granted = Amounts { permits: in_use, ..Amounts::default() };
        (self.spent, self.returned) = (Amounts::default(), Amounts::default());
        self.base = in_use;
        self.refunds.clear();
        self.absorbed.clear();
        let unstarted = std::mem::take(&mut self.reserved);
        self.ends.extend(unstarted.into_keys().map(|seq| (seq, None)));
    }
}
