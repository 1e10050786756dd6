//! What the keeper says to the leader, when, and what it makes of the replies. Every message may be lost, repeated or
//! reordered: what matters is told again until it is acknowledged.

use super::{Keeper, WaitId, Waiting, Word};
use crate::entry::{Answer, Contact, PoolReply, Reply, Report};
use crate::model::{Epoch, PoolId};
use crate::time::{Boot, LEASE_US, RENEW_US, Stamp, lease_end};
use std::collections::BTreeMap;

/// How long the keeper waits for a reply before it speaks again.
const REPLY_WITHIN_US: u64 = 2 * RENEW_US;

impl Keeper {
    /// When the keeper next wants to speak; never, while its lease is of no use.
    pub fn due(&self, now: Boot) -> Option<Boot> {
        if !self.up {
            return None;
        }
        let open = match self.in_flight {
            Some((_, sent)) => Boot(sent.0 + REPLY_WITHIN_US),
            None => now,
        };
        if self.urgent {
            return Some(open);
        }
        let active = self.roll_is_due
            || !self.waiting.is_empty()
            || !self.held.is_empty()
            || !self.ends.is_empty()
            || !self.absorbed.is_empty()
            || self.pools.values().any(|holding| holding.is_active());
        active.then(|| open.max(Boot(self.last_sent.0 + RENEW_US)))
    }

    /// The message that is due now, if one is.
    pub fn contact(&mut self, now: Boot) -> Option<Contact> {
        if self.due(now).is_none_or(|due| due > now) {
            return None;
        }
        let elapsed = now.0.saturating_sub(self.last_tick.0);
        if elapsed >= RENEW_US {
            self.last_tick = now;
            self.pools.values_mut().for_each(|holding| holding.tick(elapsed.min(2 * RENEW_US)));
        }
        if self.in_flight.is_some() {
            // No reply came in time: whether the leader knows the requests is unknown, so they are named again.
            self.waiting.values_mut().for_each(|waiting| waiting.sent = None);
        }
        self.number += 1;
        self.urgent = false;
        self.last_sent = now;
        self.in_flight = Some((self.number, now));
        self.unanswered_since.get_or_insert(now);
        let report = self.report();
        let mut asks = Vec::new();
        // Now and then a request is named again: the leader may have forgotten it, or its word may have been lost.
        let due = |waiting: &Waiting| waiting.sent.is_none_or(|sent| now.0 >= sent.0 + LEASE_US);
        for waiting in self.waiting.values().filter(|waiting| due(waiting)) {
            asks.push(self.ask(now, waiting));
        }
        for waiting in self.waiting.values_mut().filter(|waiting| due(waiting)) {
            waiting.sent = Some(now);
            waiting.named.get_or_insert(self.number);
        }
        let wants = self.pools.iter().filter(|(_, holding)| !holding.contended);
        let wants = wants.filter_map(|(&pool, holding)| holding.want(pool)).collect();
        Some(Contact { who: self.who, number: self.number, sent: now, windows: self.windows, report, asks, wants })
    }

    /// The message was lost for certain, or the leader changed: what it carried is said again.
    pub fn not_delivered(&mut self) {
        self.in_flight = None;
        self.urgent |= !self.waiting.is_empty();
        self.waiting.values_mut().for_each(|waiting| waiting.sent = None);
    }

    /// Takes in a reply and gives the leader's words on waiting requests.
    pub fn reply(&mut self, now: Boot, reply: &Reply) -> Vec<(WaitId, Word)> {
        if !self.up || reply.who.node != self.who.node || reply.who.incarnation != self.who.incarnation {
            return Vec::new();
        }
        if reply.who.epoch < self.who.epoch {
            return Vec::new();
        }
        if reply.who.epoch > self.who.epoch {
            self.begin_epoch(reply.who.epoch);
        }
        if reply.term > self.term {
            self.term = reply.term;
            let answered = reply.answers_to.map(|(number, _)| number);
            for waiting in self.waiting.values_mut() {
                waiting.sent = None;
                waiting.named = waiting.named.filter(|&named| answered == Some(named));
            }
            self.urgent |= !self.waiting.is_empty();
        }
        self.stamp = self.stamp.max(reply.stamp);
        self.unanswered_since = None;
        if let Some((number, sent)) = reply.answers_to {
            self.renewed(number, if self.rules.lease_runs_from_sending { sent } else { now });
        }
        for pool in &reply.pools {
            self.hear_pool(now, reply, pool);
        }
        let words = reply.answers.iter().filter_map(|(seq, answer)| self.hear_answer(now, *seq, answer));
        words.collect()
    }

    fn renewed(&mut self, number: u64, from: Boot) {
        self.lease_until = self.lease_until.max(lease_end(from));
        if self.in_flight.is_some_and(|(sent, _)| sent <= number) {
            self.in_flight = None;
        }
        for (_, untold) in &mut self.absorbed {
            untold.acknowledge(number);
        }
        self.absorbed.retain(|(_, untold)| !untold.is_told());
        for (_, untold) in &mut self.ends {
            untold.acknowledge(number);
        }
        self.ends.retain(|(_, untold)| !untold.is_told());
        for (&pool, holding) in &mut self.pools {
            holding.acknowledge(number, next_slot(self.stamp, &self.waiting, pool));
        }
    }

    fn hear_pool(&mut self, now: Boot, reply: &Reply, pool: &PoolReply) {
        let Some(holding) = self.pools.get_mut(&pool.pool) else { return };
        holding.tokens.granted = holding.tokens.granted.max(pool.granted.tokens);
        holding.requests.granted = holding.requests.granted.max(pool.granted.requests);
        holding.permits.granted = holding.permits.granted.max(pool.granted.permits);
        if reply.index < holding.heard {
            return;
        }
        holding.heard = reply.index;
        holding.contended = pool.contended;
        let heard = self.backlogs.entry(pool.pool).or_default();
        heard.backlog = pool.backlog.clone();
        heard.at = now;
        if let Some((number, _)) = reply.answers_to {
            heard.answered = heard.answered.max(number);
        }
        if pool.contended && holding.release_all() {
            self.urgent = true;
        }
    }

    fn hear_answer(&mut self, now: Boot, seq: u64, answer: &Answer) -> Option<(WaitId, Word)> {
        let Some(id) = self.by_seq.get(&seq).copied() else {
            self.not_wanted(seq, answer);
            return None;
        };
        match answer {
            Answer::Granted { epoch, hold, position, aged } => {
                let waiting = self.waiting.remove(&id)?;
                self.by_seq.remove(&seq);
                if let Some(ticket) = self.take_up(now, &waiting, *epoch, hold) {
                    self.no_longer_waits(waiting.request.pool);
                    let word = Word::Granted {
                        ticket,
                        position: *position,
                        aged: *aged,
                        quota_left: hold.quota_left,
                        budget_left: hold.budget_left,
                    };
                    return Some((id, word));
                }
                // It came too late to be used: given back, and asked for again under a new number.
                self.end(seq, None);
                let seq = self.number_request(id);
                self.waiting.insert(id, Waiting { seq, sent: None, named: None, ..waiting });
                None
            }
            Answer::Refused { scope, dimension, retry, retry_us } => {
                let waiting = self.waiting.remove(&id)?;
                self.by_seq.remove(&seq);
                self.no_longer_waits(waiting.request.pool);
                self.end(seq, None);
                let word = Word::Refused { scope: *scope, dimension: *dimension, retry: *retry, retry_us: *retry_us };
                Some((id, word))
            }
        }
    }

    /// A grant for a request that has left the queue goes back; one that runs already is an echo.
    fn not_wanted(&mut self, seq: u64, answer: &Answer) {
        let runs = self.held.contains_key(&seq) || self.absorbed.iter().any(|&(known, _)| known == seq);
        let ended = self.ends.iter().any(|(end, _)| end.seq == seq);
        if matches!(answer, Answer::Granted { .. }) && !runs && !ended && seq >= self.low() {
            self.end(seq, None);
        }
    }

    /// The ledger has ended the old lease: what was granted under it is gone, and what waits is asked for anew.
    fn begin_epoch(&mut self, epoch: Epoch) {
        self.who.epoch = epoch;
        self.lease_until = Boot(0);
        self.in_flight = None;
        self.urgent = true;
        self.absorbed.clear();
        self.pools.values_mut().for_each(|holding| holding.begin_epoch());
        let waiting: Vec<WaitId> = self.waiting.keys().copied().collect();
        for id in waiting {
            let next = self.next_seq;
            let Some(waiting) = self.waiting.get_mut(&id) else { continue };
            let old = waiting.seq;
            waiting.seq = next;
            waiting.sent = None;
            waiting.named = None;
            self.by_seq.remove(&old);
            self.number_request(id);
            self.end(old, None);
        }
    }

    /// Every reservation below this has ended and was told so.
    fn low(&self) -> u64 {
        let waiting = self.by_seq.keys().next().copied();
        let held = self.held.keys().next().copied();
        let absorbed = self.absorbed.iter().map(|&(seq, _)| seq).min();
        let ends = self.ends.iter().map(|(end, _)| end.seq).min();
        [waiting, held, absorbed, ends].into_iter().flatten().min().unwrap_or(self.next_seq)
    }

    fn report(&mut self) -> Report {
        let number = self.number;
        let low = self.low();
        let absorbed = self.absorbed.iter_mut().filter_map(|(seq, untold)| untold.tell(number).then_some(*seq));
        let absorbed = absorbed.collect();
        let ends = self.ends.iter_mut().filter_map(|(end, untold)| untold.tell(number).then_some(*end)).collect();
        let pools = self
            .pools
            .iter_mut()
            .filter_map(|(&pool, holding)| holding.report(pool, number, next_slot(self.stamp, &self.waiting, pool)));
        Report { pools: pools.collect(), absorbed, ends, low }
    }
}

/// The oldest slot that a request yet to be admitted refunds to: of those that wait, the first came first.
fn next_slot(now: Stamp, waiting: &BTreeMap<WaitId, Waiting>, pool: PoolId) -> u64 {
    let first = waiting.values().find(|waiting| waiting.request.pool == pool);
    first.map_or(now, |first| first.stamp).slot()
}
