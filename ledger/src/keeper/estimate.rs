//! When a request may come through, as far as a node knows: what Retry-After is made of.

use super::{Keeper, Request, WaitId};
use crate::entry::Backlog;
use crate::model::{BucketLimit, Dimension};
use crate::time::Boot;

/// When a request may come through, and what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// How long until then, if nothing more urgent comes.
    ///
    /// Units: microseconds.
    pub wait_us: u64,
    /// The limit that takes longest.
    pub dimension: Dimension,
}

/// The leader's last word on what waits at a pool.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) backlog: Backlog,
    /// When it came. What was to be filled by then has been filling since.
    pub(super) at: Boot,
    /// The newest message of this node that the leader had heard by then.
    pub(super) answered: u64,
}

impl Keeper {
    /// When a request of that size may come through. What waits in `place` is part of the leader's backlog once the
    /// leader has answered a message that named it; until then, and without a place, its own size comes on top.
    pub fn estimate(&self, now: Boot, request: &Request, place: Option<WaitId>) -> Estimate {
        let Some(holding) = self.pools.get(&request.pool) else {
            return Estimate { wait_us: 0, dimension: Dimension::Requests };
        };
        let nothing = Heard { at: now, ..Heard::default() };
        let Heard { backlog, at, answered } = self.backlogs.get(&request.pool).unwrap_or(&nothing);
        let named = place.and_then(|id| self.waiting.get(&id)?.named);
        let counted = named.is_some_and(|named| named <= *answered);
        let (tokens, requests) = if counted { (0, 0) } else { (request.spend.tokens, 1) };
        let ahead = |waits: &[u64]| waits.iter().take(usize::from(request.priority.0) + 1).sum::<u64>();
        let tokens = wait_us(holding.limits.tokens, ahead(&backlog.tokens), tokens, backlog.level_tokens);
        let requests = wait_us(holding.limits.requests, ahead(&backlog.requests), requests, backlog.level_requests);
        let dimension = match holding.limits.concurrent {
            _ if tokens > requests => Dimension::Tokens,
            Some(_) if requests == 0 => Dimension::Concurrent,
            _ => Dimension::Requests,
        };
        Estimate { wait_us: tokens.max(requests).saturating_sub(now.0.saturating_sub(at.0)), dimension }
    }
}

fn wait_us(limit: Option<BucketLimit>, ahead: u64, cost: u64, level: u64) -> u64 {
    let Some(limit) = limit.filter(|limit| limit.rate.units > 0) else { return 0 };
    let missing = u128::from(ahead.saturating_add(cost).saturating_sub(level));
    let wait = missing * u128::from(limit.rate.per_us) / u128::from(limit.rate.units);
    u64::try_from(wait).unwrap_or(u64::MAX)
}
