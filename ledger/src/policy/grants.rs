//! Slices for nodes to admit from in memory, and the forecast of what a round may give out.

use super::{Plan, Policy};
use crate::entry::{Amounts, Contact, Op, Want, Who};
use crate::model::{NodeId, PoolId};
use crate::state::{Balance, State};
use crate::time::Stamp;
use std::collections::BTreeMap;

/// What each pool will have at hand once a round's reports are applied. It may be too low, never decides alone: the
/// ledger checks again.
pub(super) struct Forecast {
    pools: BTreeMap<PoolId, Ahead>,
}

struct Ahead {
    level: Amounts,
    out: Amounts,
    burst: Amounts,
    limited: Amounts,
    usable: bool,
    /// Tokens, requests and permits of each node, as its messages so far leave them.
    known: BTreeMap<NodeId, [Balance; 3]>,
}

impl Forecast {
    pub(super) fn new(state: &State, stamp: Stamp) -> Self {
        let pools = state.pools.iter().map(|(&id, pool)| {
            let level = |bucket: &Option<crate::state::Bucket>| {
                bucket.as_ref().map_or((u64::MAX, 0, 0), |bucket| {
                    let level = if bucket.outstanding > bucket.limit.burst { 0 } else { bucket.level_at(stamp) };
                    (level, bucket.outstanding, bucket.limit.burst)
                })
            };
            let (tokens, requests) = (level(&pool.tokens), level(&pool.requests));
            let ahead = Ahead {
                level: Amounts { tokens: tokens.0, requests: requests.0, permits: pool.permits_free() },
                out: Amounts { tokens: tokens.1, requests: requests.1, permits: pool.permits_out() },
                burst: Amounts { tokens: tokens.2, requests: requests.2, permits: pool.limits.concurrent.unwrap_or(0) },
                limited: pool.cost(1),
                usable: pool.frozen.is_none(),
                known: BTreeMap::new(),
            };
            (id, ahead)
        });
        Self { pools: pools.collect() }
    }

    /// Counts what a report will give back.
    pub(super) fn hear(&mut self, state: &State, contact: &Contact) {
        if state.who(contact.who.node) != Some(contact.who) {
            return;
        }
        for report in &contact.report.pools {
            let (Some(ahead), Some(pool)) = (self.pools.get_mut(&report.pool), state.pools.get(&report.pool)) else {
                continue;
            };
            let Some(lease) = pool.leases.get(&contact.who.node) else { continue };
            if lease.incarnation != contact.who.incarnation || lease.permits_unsettled {
                continue;
            }
            // A message may be there twice, and an older one behind a newer one: each unit comes back once.
            let known = ahead.known.entry(contact.who.node);
            let [tokens, requests, permits] = known.or_insert([lease.tokens, lease.requests, lease.permits]);
            let tokens = tokens.raise(report.tokens_spent, report.tokens_returned);
            let requests = requests.raise(report.requests_spent, report.requests_returned);
            let permits = permits.raise(0, report.permits_returned.saturating_sub(permits.spent));
            ahead.level.tokens = ahead.level.tokens.saturating_add(tokens.1);
            ahead.level.requests = ahead.level.requests.saturating_add(requests.1);
            ahead.level.permits = ahead.level.permits.saturating_add(permits.1);
            ahead.out.tokens = ahead.out.tokens.saturating_sub(tokens.0 + tokens.1);
            ahead.out.requests = ahead.out.requests.saturating_sub(requests.0 + requests.1);
        }
    }

    /// Takes a request of `tokens` out of the forecast, if it fits.
    pub(super) fn take(&mut self, pool: PoolId, tokens: u64) -> bool {
        let Some(ahead) = self.pools.get_mut(&pool) else { return false };
        let cost = Amounts {
            tokens: ahead.limited.tokens * tokens,
            requests: ahead.limited.requests,
            permits: ahead.limited.permits,
        };
        let fits = ahead.usable
            && (cost.tokens == 0 || ahead.level.tokens >= cost.tokens)
            && (cost.requests == 0 || ahead.level.requests >= cost.requests)
            && (cost.permits == 0 || ahead.level.permits >= cost.permits);
        if fits {
            ahead.level.tokens = ahead.level.tokens.saturating_sub(cost.tokens);
            ahead.level.requests = ahead.level.requests.saturating_sub(cost.requests);
            ahead.level.permits = ahead.level.permits.saturating_sub(cost.permits);
            ahead.out.tokens += cost.tokens;
            ahead.out.requests += cost.requests;
        }
        fits
    }

    /// What of a wish for a slice can be met: all slices together stay within half of the burst.
    fn slice(&mut self, pool: PoolId, wish: Amounts) -> Amounts {
        let Some(ahead) = self.pools.get_mut(&pool).filter(|ahead| ahead.usable) else { return Amounts::default() };
        let within = |wish: u64, level: u64, burst: u64, out: u64| wish.min(level).min((burst / 2).saturating_sub(out));
        let amounts = Amounts {
            tokens: within(wish.tokens, ahead.level.tokens, ahead.burst.tokens, ahead.out.tokens),
            requests: within(wish.requests, ahead.level.requests, ahead.burst.requests, ahead.out.requests),
            permits: wish.permits.min(ahead.level.permits / 2),
        };
        ahead.level.tokens = ahead.level.tokens.saturating_sub(amounts.tokens);
        ahead.level.requests = ahead.level.requests.saturating_sub(amounts.requests);
        ahead.level.permits = ahead.level.permits.saturating_sub(amounts.permits);
        ahead.out.tokens += amounts.tokens;
        ahead.out.requests += amounts.requests;
        amounts
    }
}

impl Policy {
    /// Leases slices of pools at which nobody waits.
    pub(super) fn grant(&self, plan: &mut Plan, forecast: &mut Forecast, wants: Vec<(Who, Want)>) {
        for (who, want) in wants {
            if self.queues.get(&want.pool).is_some_and(|queue| !queue.is_empty()) {
                continue;
            }
            let amounts = forecast.slice(want.pool, want.amounts);
            if amounts != Amounts::default() {
                plan.ops.push(Op::Grant { who, pool: want.pool, amounts });
            }
        }
    }
}
