//! A tenant's row: its buckets, its permits and its quotas. It exists only while it differs from a new one.

use super::bucket::Bucket;
use super::node::Charged;
use super::quota::{HeldQuotas, Quota};
use crate::entry::{Effect, Outcome, Retry};
use crate::model::{Dimension, QuotaKind, QuotaLimit, Spend, TenantLimits, Windows};
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
    /// One for each kind that was ever limited.
    pub(crate) quotas: Vec<Quota>,
    /// The day on which its limits were set by an operation of their own.
    pub(crate) set_on: Option<u64>,
}

/// What one reservation holds of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TenantHold {
    pub(crate) scope: crate::model::Scope,
    pub(crate) spend: Spend,
    /// Whether the tenant had that limit when the hold was made.
    pub(crate) requests_held: bool,
    pub(crate) tokens_held: bool,
    pub(crate) permit_held: bool,
    pub(crate) quotas: HeldQuotas,
    /// The count of reservations that it was: refunds go back to here.
    pub(crate) mark: u64,
}

impl Tenant {
    /// A tenant that has used nothing, where `mark` reservations have been made.
    pub(crate) fn new(limits: TenantLimits, windows: Windows, now: Stamp, mark: u64) -> Self {
        let bucket = |limit| Bucket::new_since(mark, limit, now, TENANT_MINIMA);
        Self {
            limits,
            requests: limits.requests.map(bucket),
            tokens: limits.tokens.map(bucket),
            permits: 0,
            lost: Vec::new(),
            quotas: limits.quotas.iter().map(|(kind, _)| Quota::new(kind, windows)).collect(),
            set_on: None,
        }
    }

    /// Brings the row to the present: time, windows, and limits when these are newer.
    pub(crate) fn touch(
        &mut self,
        limits: Option<&TenantLimits>,
        windows: Windows,
        now: Stamp,
        mark: u64,
        rules: Rules,
    ) {
        for bucket in [&mut self.requests, &mut self.tokens].into_iter().flatten() {
            bucket.mark = mark;
            bucket.advance(now, rules);
        }
        self.quotas.iter_mut().for_each(|quota| quota.roll(windows));
        let Some(limits) = limits.filter(|limits| limits.version > self.limits.version) else { return };
        self.limits = *limits;
        for (kind, _) in limits.quotas.iter() {
            if self.quota(kind).is_none() {
                self.quotas.push(Quota::new(kind, windows));
            }
        }
        for (bucket, limit) in [(&mut self.requests, limits.requests), (&mut self.tokens, limits.tokens)] {
            match (bucket.as_mut(), limit) {
                (Some(bucket), Some(limit)) => bucket.set_limit(limit),
                (_, limit) => *bucket = limit.map(|limit| Bucket::new_since(mark, limit, now, TENANT_MINIMA)),
            }
        }
    }

    /// Says whether one more request fits beside `claims` that wait already, and if not, why.
    pub(crate) fn refuses(&self, spend: Spend, claims: Claims) -> Option<(Dimension, Retry)> {
        for (kind, limit) in self.limits.quotas.iter().filter(|(_, limit)| !limit.soft) {
            let taken = self.taken(kind).saturating_add(kind.of(claims.spend));
            if taken.saturating_add(kind.of(spend)) > limit.most {
                let retry = if kind.is_monthly() { Retry::NextMonth } else { Retry::NextDay };
                return Some((kind.dimension(), retry));
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
            (Dimension::Tokens, &self.tokens, spend.tokens, claims.spend.tokens),
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
    pub(crate) fn take(&mut self, spend: Spend, windows: Windows, mark: u64) -> TenantHold {
        for (bucket, units) in [(&mut self.requests, 1), (&mut self.tokens, spend.tokens)] {
            let Some(bucket) = bucket else { continue };
            bucket.mark = mark;
            bucket.lease(units);
            bucket.spend(units);
        }
        let permit_held = self.limits.concurrent.is_some();
        self.permits += u64::from(permit_held);
        let mut quotas = HeldQuotas::new(windows);
        for (kind, _) in self.limits.quotas.iter() {
            if let Some(quota) = self.quotas.iter_mut().find(|quota| quota.kind == kind) {
                quota.take(kind.of(spend));
                quotas.hold(kind);
            }
        }
        TenantHold {
            scope: self.limits.scope,
            spend,
            requests_held: self.requests.is_some(),
            tokens_held: self.tokens.is_some(),
            permit_held,
            quotas,
            mark,
        }
    }

    /// Ends a hold with what was used; `None` gives everything back.
    pub(crate) fn end(&mut self, hold: &TenantHold, used: Option<Spend>, rules: Rules, effects: &mut Vec<Effect>) {
        let spent = used.unwrap_or_default();
        if let (Some(bucket), true) = (&mut self.tokens, hold.tokens_held) {
            let (used, held) = (spent.tokens, hold.spend.tokens);
            if used > held {
                bucket.overrun(used - held);
            } else {
                bucket.refund(hold.mark, held - used, rules);
            }
        }
        if let (Some(bucket), true, None) = (&mut self.requests, hold.requests_held, used) {
            bucket.refund(hold.mark, 1, rules);
        }
        if hold.permit_held {
            self.permits = self.permits.saturating_sub(1);
        }
        for quota in &mut self.quotas {
            let Some(window) = hold.quotas.window(quota.kind) else { continue };
            quota.settle(window, quota.kind.of(hold.spend), quota.kind.of(spent));
            if let Some(limit) = self.limits.quotas.get(quota.kind) {
                quota.tell(self.limits.scope, limit, effects);
            }
        }
    }

    /// What is left of the smallest quota that refuses, of tokens or of money.
    pub(crate) fn quota_left(&self, money: bool) -> Option<u64> {
        let hard = self.limits.quotas.iter().filter(|(kind, limit)| !limit.soft && kind.is_money() == money);
        hard.map(|(kind, limit)| limit.most.saturating_sub(self.taken(kind))).min()
    }

    /// Lowers what an expired hold was charged, in the windows that it names.
    pub(crate) fn correct(&mut self, charge: &Charged, used: Spend) {
        for quota in &mut self.quotas {
            if let Some(window) = charge.quotas.window(quota.kind) {
                quota.correct(window, quota.kind.of(charge.spend), quota.kind.of(used));
            }
        }
    }

    /// Adds to what was used of a quota in the present window, or takes from it.
    pub(crate) fn adjust(&mut self, kind: QuotaKind, delta: i64, effects: &mut Vec<Effect>) -> Outcome {
        let Some(limit) = self.limits.quotas.get(kind) else { return Outcome::Nothing };
        let Some(quota) = self.quotas.iter_mut().find(|quota| quota.kind == kind) else { return Outcome::Nothing };
        quota.adjust(delta);
        quota.tell(self.limits.scope, limit, effects);
        Outcome::Done
    }

    /// A tenant's quota of a kind, if it is or was limited.
    pub(crate) fn quota(&self, kind: QuotaKind) -> Option<&Quota> {
        self.quotas.iter().find(|quota| quota.kind == kind)
    }

    /// The quotas in force, with their use.
    pub(crate) fn quotas_in_force(&self) -> impl Iterator<Item = (&Quota, QuotaLimit)> {
        self.limits.quotas.iter().filter_map(|(kind, limit)| Some((self.quota(kind)?, limit)))
    }

    fn taken(&self, kind: QuotaKind) -> u64 {
        self.quota(kind).map_or(0, Quota::taken)
    }

    /// Whether a new row would be no different. One whose limits were set stays through the next day: by then every
    /// node has read them from the store.
    pub(crate) fn is_idle(&self, today: u64) -> bool {
        let is_known = self.set_on.is_none_or(|day| today > day + 1);
        let quota_idle = self.quotas.iter().all(Quota::is_empty);
        let buckets_full = [&self.requests, &self.tokens].into_iter().flatten().all(Bucket::is_full);
        is_known && self.permits == 0 && self.lost.is_empty() && quota_idle && buckets_full
    }
}

/// What waiting requests of a tenant have already laid claim to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Their worst cases.
    pub spend: Spend,
    /// Their number.
    pub requests: u64,
}
