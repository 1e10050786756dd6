//! A tenant's row: its buckets, its permits and its quota of the day. It exists only while it differs from a new one.

use super::bucket::Bucket;
use crate::entry::Retry;
use crate::model::{Dimension, TenantLimits};
use crate::rules::Rules;
use crate::time::Stamp;
use serde::{Deserialize, Serialize};

/// Minima of headroom kept for a tenant's bucket; older ones merge, so a late refund may count less, never more.
const TENANT_MINIMA: usize = 32;

/// What a tenant has used of its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    pub(crate) limits: TenantLimits,
    pub(crate) requests: Option<Bucket>,
    pub(crate) tokens: Option<Bucket>,
    /// Permits held by open reservations.
    pub(crate) permits: u64,
    /// Permits of lost incarnations, with the time at which they come back.
    pub(crate) lost: Vec<(Stamp, u64)>,
    pub(crate) day: Day,
    /// The day on which its limits were set by an operation of their own.
    pub(crate) set_on: Option<u64>,
}

/// A quota within one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Day {
    pub(crate) day: u64,
    pub(crate) used: u64,
    pub(crate) pending: u64,
}

/// What one reservation holds of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TenantHold {
    pub(crate) scope: crate::model::Scope,
    pub(crate) tokens: u64,
    /// Whether the tenant had that limit when the hold was made.
    pub(crate) requests_held: bool,
    pub(crate) tokens_held: bool,
    pub(crate) permit_held: bool,
    pub(crate) day: Option<u64>,
    /// The count of reservations that it was: refunds go back to here.
    pub(crate) mark: u64,
}

impl Tenant {
    /// A tenant that has used nothing, where `mark` reservations have been made.
    pub(crate) fn new(limits: TenantLimits, day: u64, now: Stamp, mark: u64) -> Self {
        let bucket = |limit| Bucket::new_since(mark, limit, now, TENANT_MINIMA);
        Self {
            limits,
            requests: limits.requests.map(bucket),
            tokens: limits.tokens.map(bucket),
            permits: 0,
            lost: Vec::new(),
            day: Day { day, ..Day::default() },
            set_on: None,
        }
    }

    /// Brings the row to the present: time, day, and limits when these are newer.
    pub(crate) fn touch(&mut self, limits: Option<&TenantLimits>, day: u64, now: Stamp, mark: u64, rules: Rules) {
        for bucket in [&mut self.requests, &mut self.tokens].into_iter().flatten() {
            bucket.mark = mark;
            bucket.advance(now, rules);
        }
        if self.day.day != day {
            self.day = Day { day, ..Day::default() };
        }
        let Some(limits) = limits.filter(|limits| limits.version > self.limits.version) else { return };
        self.limits = *limits;
        for (bucket, limit) in [(&mut self.requests, limits.requests), (&mut self.tokens, limits.tokens)] {
            match (bucket.as_mut(), limit) {
                (Some(bucket), Some(limit)) => bucket.set_limit(limit),
                (_, limit) => *bucket = limit.map(|limit| Bucket::new_since(mark, limit, now, TENANT_MINIMA)),
            }
        }
    }

    /// Says whether one more request of `tokens` fits beside `claims` that wait already, and if not, why.
    pub(crate) fn refuses(&self, tokens: u64, claims: Claims) -> Option<(Dimension, Retry)> {
        if let Some(limit) = self.limits.tokens_per_day {
            let taken = self.day.used.saturating_add(self.day.pending).saturating_add(claims.tokens);
            if taken.saturating_add(tokens) > limit {
                return Some((Dimension::TokensPerDay, Retry::NextDay));
            }
        }
        if let Some(limit) = self.limits.concurrent {
            let lost: u64 = self.lost.iter().map(|&(_, permits)| permits).sum();
            if self.permits + lost + claims.requests + 1 > limit {
                return Some((Dimension::Concurrent, Retry::OnRelease));
            }
        }
        let rates = [
            (Dimension::Requests, &self.requests, 1, claims.requests),
            (Dimension::Tokens, &self.tokens, tokens, claims.tokens),
        ];
        for (dimension, bucket, cost, claimed) in rates {
            let Some(bucket) = bucket else { continue };
            let wanted = cost.saturating_add(claimed);
            if !bucket.covers(wanted) {
                let retry = match bucket.reaches(wanted) {
                    Some(at) => Retry::At(at),
                    None if cost > bucket.limit.burst => Retry::Never(bucket.limit.burst),
                    None => Retry::OnRelease,
                };
                return Some((dimension, retry));
            }
        }
        None
    }

    /// Takes what `refuses` allowed, as reservation number `mark`.
    pub(crate) fn take(&mut self, tokens: u64, mark: u64) -> TenantHold {
        for (bucket, units) in [(&mut self.requests, 1), (&mut self.tokens, tokens)] {
            let Some(bucket) = bucket else { continue };
            bucket.mark = mark;
            bucket.lease(units);
            bucket.spend(units);
        }
        let permit_held = self.limits.concurrent.is_some();
        self.permits += u64::from(permit_held);
        let day = self.limits.tokens_per_day.map(|_| self.day.day);
        if day.is_some() {
            self.day.pending += tokens;
        }
        TenantHold {
            scope: self.limits.scope,
            tokens,
            requests_held: self.requests.is_some(),
            tokens_held: self.tokens.is_some(),
            permit_held,
            day,
            mark,
        }
    }

    /// Ends a hold with what was used; `None` gives everything back.
    pub(crate) fn end(&mut self, hold: &TenantHold, used: Option<u64>, rules: Rules) {
        if let (Some(bucket), true) = (&mut self.tokens, hold.tokens_held) {
            let used = used.unwrap_or(0);
            if used > hold.tokens {
                bucket.overrun(used - hold.tokens);
            } else {
                bucket.refund(hold.mark, hold.tokens - used, rules);
            }
        }
        if let (Some(bucket), true, None) = (&mut self.requests, hold.requests_held, used) {
            bucket.refund(hold.mark, 1, rules);
        }
        if hold.permit_held {
            self.permits = self.permits.saturating_sub(1);
        }
        if hold.day == Some(self.day.day) {
            self.day.pending = self.day.pending.saturating_sub(hold.tokens);
            self.day.used = self.day.used.saturating_add(used.unwrap_or(0));
        }
    }

    /// Tokens left of the day's quota.
    pub(crate) fn quota_left(&self) -> Option<u64> {
        self.limits.tokens_per_day.map(|limit| limit.saturating_sub(self.day.used + self.day.pending))
    }

    /// Lowers what an expired hold was charged, in the same day.
    pub(crate) fn correct(&mut self, day: u64, charged: u64, used: u64) {
        if day == self.day.day {
            self.day.used = self.day.used.saturating_sub(charged.saturating_sub(used));
        }
    }

    /// Whether a new row would be no different. One whose limits were set stays through the next day: by then every
    /// node has read them from the store.
    pub(crate) fn is_idle(&self, today: u64) -> bool {
        let is_known = self.set_on.is_none_or(|day| today > day + 1);
        let quota_idle = self.day.day != today || (self.day.used == 0 && self.day.pending == 0);
        let buckets_full = [&self.requests, &self.tokens].into_iter().flatten().all(Bucket::is_full);
        is_known && self.permits == 0 && self.lost.is_empty() && quota_idle && buckets_full
    }
}

/// What waiting requests of a tenant have already laid claim to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Their tokens.
    pub tokens: u64,
    /// Their number.
    pub requests: u64,
}
