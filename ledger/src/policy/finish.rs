//! From the outcomes of a round to the replies.

use super::{Plan, Policy, Waiter};
use crate::entry::{Amounts, Answer, Applied, Backlog, Outcome, PoolReply, Reply, Retry, Who};
use crate::model::{NodeId, PoolId};
use crate::state::{Bucket, Claims, State};
use crate::time::{Boot, Stamp};
use std::collections::{BTreeMap, BTreeSet};

/// What one node is to be told.
#[derive(Default)]
struct Told {
    answers_to: Option<(u64, Boot)>,
    answers: Vec<(u64, Answer)>,
    pools: BTreeSet<PoolId>,
}

impl Policy {
    /// Turns the outcomes of a round into replies. `state` is the ledger after it.
    pub fn finish(&mut self, state: &State, plan: Plan, applied: &Applied) -> Vec<Reply> {
        let mut told: BTreeMap<NodeId, Told> = BTreeMap::new();
        if applied.void {
            self.abandon(plan);
            return Vec::new();
        }
        for heard in &plan.contacts {
            let entry = told.entry(heard.who.node).or_default();
            if applied.outcomes.get(heard.op) == Some(&Outcome::Done) {
                let newest = entry.answers_to.is_none_or(|(number, _)| number < heard.number);
                if newest {
                    entry.answers_to = Some((heard.number, heard.sent));
                }
            }
            // A node that holds units others wait for hears so again with every reply, should one be lost.
            entry.pools.extend(self.queues.iter().filter(|(_, queue)| !queue.is_empty()).map(|(&pool, _)| pool));
        }
        for (op, who, waiter) in plan.reserves {
            let outcome = applied.outcomes.get(op).cloned().unwrap_or(Outcome::Short);
            if matches!(outcome, Outcome::Reserved(_)) {
                self.note_inversion(plan.planned, &waiter);
            }
            self.answer(state, who, waiter, outcome, &mut told);
        }
        for (node, entry) in &mut told {
            let said: BTreeSet<u64> = entry.answers.iter().map(|&(seq, _)| seq).collect();
            entry.answers.extend(granted_unheard(state, *node).filter(|(seq, _)| !said.contains(seq)));
        }
        self.refuse_fresh(state, &plan.fresh, &mut told);
        for &(node, pool) in &plan.touched {
            told.entry(node).or_default().pools.insert(pool);
        }
        self.tell_contended(&mut told);
        let replies = told.into_iter().filter_map(|(node, told)| {
            let who = state.who(node)?;
            Some(self.reply(state, who, told))
        });
        replies.collect()
    }

    /// Takes a plan back that was not applied: what it would have served waits on.
    pub fn abandon(&mut self, plan: Plan) {
        for (_, _, waiter) in plan.reserves {
            if let Some(queue) = self.queues.get_mut(&waiter.ask.pool) {
                queue.push(waiter);
            }
        }
    }

    fn note_inversion(&mut self, planned: Boot, granted: &Waiter) {
        let passed = self.queues.get(&granted.ask.pool).and_then(|queue| queue.more_urgent_known(granted.class));
        let waited_us = passed.map_or(0, |known| planned.0.saturating_sub(known.0));
        self.inversion_us_max = self.inversion_us_max.max(waited_us);
    }

    fn answer(&mut self, state: &State, who: Who, waiter: Waiter, outcome: Outcome, told: &mut BTreeMap<NodeId, Told>) {
        let pool = waiter.ask.pool;
        let (node, seq) = (waiter.node, waiter.ask.seq);
        let answer = match outcome {
            Outcome::Reserved(hold) => {
                let priority = waiter.ask.priority.0;
                let passed = || self.queues.get(&pool).is_some_and(|queue| queue.has_more_urgent(priority));
                let aged = waiter.class < usize::from(priority) && passed();
                Some(Answer::Granted { epoch: who.epoch, hold, position: waiter.position, aged })
            }
            Outcome::Refused { scope, dimension, retry } => {
                Some(Answer::Refused { scope, dimension, retry, retry_us: retry_us(state, retry) })
            }
            Outcome::Short => {
                if let Some(queue) = self.queues.get_mut(&pool) {
                    queue.push(waiter);
                }
                return;
            }
            _ => None,
        };
        self.unclaim(&waiter.ask);
        // A process that began its life within this very entry must not hear what its predecessor asked for.
        let same_life = state.who(node).is_some_and(|now| now.incarnation == who.incarnation);
        if let Some(answer) = answer.filter(|_| same_life) {
            told.entry(node).or_default().answers.push((seq, answer));
        }
    }

    /// Requests that came in this round and must wait: a tenant's limit refuses at once, beside what waits already.
    fn refuse_fresh(&mut self, state: &State, fresh: &[(PoolId, NodeId, u64)], told: &mut BTreeMap<NodeId, Told>) {
        for &(pool, node, seq) in fresh {
            let Some(waiter) = self.queues.get_mut(&pool).and_then(|queue| queue.remove(node, seq)) else { continue };
            let ask = &waiter.ask;
            let refused = ask.tenants.iter().find_map(|limits| {
                let all = self.claims.get(&limits.scope).copied().unwrap_or_default();
                let spend = all.spend.saturating_sub(ask.spend);
                let others = Claims { spend, requests: all.requests.saturating_sub(1) };
                let (dimension, retry) = state.tenant_refuses(limits, ask.spend, others, state.stamp())?;
                Some(Answer::Refused { scope: limits.scope, dimension, retry, retry_us: retry_us(state, retry) })
            });
            if let Some(refused) = refused {
                self.unclaim(&waiter.ask);
                told.entry(node).or_default().answers.push((seq, refused));
                continue;
            }
            let Some(queue) = self.queues.get_mut(&pool) else { continue };
            let position = u32::try_from(queue.ahead(waiter.class) + 1).unwrap_or(u32::MAX);
            queue.push(Waiter { position: Some(position), ..waiter });
        }
    }

    /// Nodes hear at once when others begin to wait, and when that is over.
    fn tell_contended(&mut self, told: &mut BTreeMap<NodeId, Told>) {
        let contended: BTreeSet<PoolId> =
            self.queues.iter().filter(|(_, queue)| !queue.is_empty()).map(|(&pool, _)| pool).collect();
        self.queues.retain(|_, queue| !queue.is_empty());
        for (&node, peer) in &mut self.peers {
            if peer.contended != contended {
                let changed = peer.contended.symmetric_difference(&contended).copied();
                told.entry(node).or_default().pools.extend(changed);
                peer.contended = contended.clone();
            }
        }
    }

    fn reply(&self, state: &State, who: Who, told: Told) -> Reply {
        let pools = told.pools.iter().filter_map(|&id| self.pool_reply(state, who, id)).collect();
        Reply {
            term: self.term,
            index: state.at().index,
            stamp: state.stamp(),
            who,
            answers_to: told.answers_to,
            pools,
            answers: told.answers,
        }
    }

    fn pool_reply(&self, state: &State, who: Who, id: PoolId) -> Option<PoolReply> {
        let pool = state.pools.get(&id)?;
        let lease = pool.leases.get(&who.node).filter(|lease| lease.incarnation == who.incarnation);
        let lease = lease.filter(|lease| lease.epoch == who.epoch);
        let granted = lease.map_or(Amounts::default(), |lease| Amounts {
            tokens: lease.tokens.granted,
            requests: lease.requests.granted,
            permits: if lease.permits_unsettled { 0 } else { lease.permits.granted },
        });
        let queue = self.queues.get(&id).filter(|queue| !queue.is_empty());
        let now = state.stamp();
        let level = |bucket: &Option<Bucket>| bucket.as_ref().map_or(0, |bucket| bucket.level_at(now));
        let (mut requests, mut tokens) = queue.map(|queue| queue.waiting()).unwrap_or_default();
        owe_first(&mut tokens, pool.tokens.as_ref(), now);
        owe_first(&mut requests, pool.requests.as_ref(), now);
        let backlog =
            Backlog { tokens, requests, level_tokens: level(&pool.tokens), level_requests: level(&pool.requests) };
        Some(PoolReply { pool: id, granted, contended: queue.is_some(), backlog })
    }
}

/// Reservations that their node has not started: the word may have been lost, so it is said again with every reply.
fn granted_unheard(state: &State, node: NodeId) -> impl Iterator<Item = (u64, Answer)> + '_ {
    let open = state.nodes.get(&node).into_iter().flat_map(|row| row.open.iter().map(move |open| (row.epoch, open)));
    let attached = open.filter(|(epoch, (_, reservation))| reservation.attached && reservation.epoch == *epoch);
    attached.map(|(epoch, (&seq, reservation))| {
        let hold = reservation.hold();
        (seq, Answer::Granted { epoch, hold, position: None, aged: false })
    })
}

/// Debt is paid before anybody is served, so it stands with the most urgent.
fn owe_first(waiting: &mut Vec<u64>, bucket: Option<&Bucket>, now: Stamp) {
    let debt = bucket.map_or(0, |bucket| bucket.debt_at(now));
    if debt > 0 {
        waiting.resize(waiting.len().max(1), 0);
        waiting[0] = waiting[0].saturating_add(debt);
    }
}

fn retry_us(state: &State, retry: Retry) -> u64 {
    match retry {
        Retry::At(stamp) => stamp.0.saturating_sub(state.stamp().0),
        Retry::NextDay | Retry::NextMonth | Retry::OnRelease | Retry::Never(_) => 0,
    }
}
