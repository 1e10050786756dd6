//! Limits of a key, a user or a team, as people give them, and what they mean to the ledger.

use super::store::StoreError;
use ledger::model::{BucketLimit, QuotaKind, QuotaLimit, Quotas, Rate, Scope, TenantLimits};
use serde::{Deserialize, Serialize};

/// Highest value of any limit: far above any real one, far below where arithmetic on it could overflow.
pub const LIMIT_MAX: u64 = 1_000_000_000_000_000;

/// Limits; 0 is no limit, a burst of 0 is its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Requests each second; not together with `rpm`.
    pub rps: u64,
    /// Requests each minute.
    pub rpm: u64,
    /// Requests that may come at once; by default those of one second, at least one.
    pub burst_requests: u64,
    /// Tokens each minute.
    pub tpm: u64,
    /// Tokens that may come at once; by default those of one minute, since a tenant's request never waits and a
    /// smaller bucket would refuse ordinary ones for ever.
    pub burst_tokens: u64,
    /// Requests in flight.
    pub concurrency: u64,
    /// Tokens each day.
    pub tokens_per_day: u64,
    /// Money each month.
    ///
    /// Units: billionths of a US dollar.
    pub budget_nano_usd: u64,
}

/// What is to change of limits; what is absent stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitsChange {
    /// Requests each second; giving it ends a limit each minute.
    pub rps: Option<u64>,
    /// Requests each minute; giving it ends a limit each second.
    pub rpm: Option<u64>,
    /// Requests that may come at once.
    pub burst_requests: Option<u64>,
    /// Tokens each minute.
    pub tpm: Option<u64>,
    /// Tokens that may come at once.
    pub burst_tokens: Option<u64>,
    /// Requests in flight.
    pub concurrency: Option<u64>,
    /// Tokens each day.
    pub tokens_per_day: Option<u64>,
    /// Money each month, in billionths of a US dollar.
    pub budget_nano_usd: Option<u64>,
}

impl Limits {
    /// The names of the fields, as in JSON.
    pub const FIELDS: [&'static str; 8] =
        ["rps", "rpm", "burst_requests", "tpm", "burst_tokens", "concurrency", "tokens_per_day", "budget_nano_usd"];

    /// The values, in the order of [`Limits::FIELDS`].
    pub fn values(&self) -> [u64; 8] {
        [
            self.rps,
            self.rpm,
            self.burst_requests,
            self.tpm,
            self.burst_tokens,
            self.concurrency,
            self.tokens_per_day,
            self.budget_nano_usd,
        ]
    }

    /// Limits of these values, in the order of [`Limits::FIELDS`].
    pub fn of_values(values: [u64; 8]) -> Self {
        let [rps, rpm, burst_requests, tpm, burst_tokens, concurrency, tokens_per_day, budget_nano_usd] = values;
        Self { rps, rpm, burst_requests, tpm, burst_tokens, concurrency, tokens_per_day, budget_nano_usd }
    }

    /// What the ledger is told.
    pub fn tenant(&self, scope: Scope, version: u64) -> TenantLimits {
        let requests = match (self.rps, self.rpm) {
            (0, 0) => None,
            (0, rpm) => Some(bucket(Rate::per_min(rpm), self.burst_requests, rpm / 60)),
            (rps, _) => Some(bucket(Rate::per_sec(rps), self.burst_requests, rps)),
        };
        TenantLimits {
            scope,
            version,
            requests,
            tokens: some(self.tpm).map(|tpm| bucket(Rate::per_min(tpm), self.burst_tokens, tpm)),
            concurrent: some(self.concurrency),
            quotas: Quotas::default()
                .with(QuotaKind::DayTokens, some(self.tokens_per_day).map(QuotaLimit::hard))
                .with(QuotaKind::MonthCost, some(self.budget_nano_usd).map(QuotaLimit::hard)),
        }
    }

    /// Says what is wrong with them.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], naming the first field that is wrong.
    pub fn check(&self) -> Result<(), StoreError> {
        for (field, value) in Self::FIELDS.into_iter().zip(self.values()) {
            if value > LIMIT_MAX {
                return Err(StoreError::invalid(field, format!("must be at most {LIMIT_MAX}")));
            }
        }
        if self.rps > 0 && self.rpm > 0 {
            return Err(StoreError::invalid("rpm", "cannot be set together with rps"));
        }
        if self.burst_requests > 0 && self.rps == 0 && self.rpm == 0 {
            return Err(StoreError::invalid("burst_requests", "needs rps or rpm"));
        }
        if self.burst_tokens > 0 && self.tpm == 0 {
            return Err(StoreError::invalid("burst_tokens", "needs tpm"));
        }
        Ok(())
    }
}

impl LimitsChange {
    /// The changed limits. A rate that goes takes its burst with it.
    pub fn over(&self, now: Limits) -> Limits {
        let mut then = Limits {
            rps: self.rps.unwrap_or(if self.rpm.is_some_and(|rpm| rpm > 0) { 0 } else { now.rps }),
            rpm: self.rpm.unwrap_or(if self.rps.is_some_and(|rps| rps > 0) { 0 } else { now.rpm }),
            burst_requests: self.burst_requests.unwrap_or(now.burst_requests),
            tpm: self.tpm.unwrap_or(now.tpm),
            burst_tokens: self.burst_tokens.unwrap_or(now.burst_tokens),
            concurrency: self.concurrency.unwrap_or(now.concurrency),
            tokens_per_day: self.tokens_per_day.unwrap_or(now.tokens_per_day),
            budget_nano_usd: self.budget_nano_usd.unwrap_or(now.budget_nano_usd),
        };
        if then.rps == 0 && then.rpm == 0 && self.burst_requests.is_none() {
            then.burst_requests = 0;
        }
        if then.tpm == 0 && self.burst_tokens.is_none() {
            then.burst_tokens = 0;
        }
        then
    }
}

fn some(limit: u64) -> Option<u64> {
    (limit > 0).then_some(limit)
}

fn bucket(rate: Rate, burst: u64, default: u64) -> BucketLimit {
    BucketLimit { rate, burst: some(burst).unwrap_or(default).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::model::ScopeKind;

    const SCOPE: Scope = Scope { kind: ScopeKind::User, id: [1; 16] };

    #[test]
    fn limits_become_buckets_and_what_is_zero_is_unlimited() {
        let none = Limits::default();
        assert!(none.tenant(SCOPE, 1).is_unlimited());
        let ten = Limits { rps: 10, tokens_per_day: 1_000, ..none }.tenant(SCOPE, 7);
        assert_eq!(ten.requests, Some(BucketLimit { rate: Rate::per_sec(10), burst: 10 }));
        assert_eq!(
            (ten.scope, ten.version, ten.quotas.get(QuotaKind::DayTokens), ten.concurrent),
            (SCOPE, 7, Some(QuotaLimit::hard(1_000)), None)
        );
        let slow = Limits { rpm: 30, tpm: 600, concurrency: 2, ..none }.tenant(SCOPE, 1);
        assert_eq!(slow.requests, Some(BucketLimit { rate: Rate::per_min(30), burst: 1 }));
        assert_eq!(slow.tokens, Some(BucketLimit { rate: Rate::per_min(600), burst: 600 }));
        let own = Limits { rpm: 30, burst_requests: 5, tpm: 600, burst_tokens: 50, ..none }.tenant(SCOPE, 1);
        assert_eq!((own.requests.unwrap().burst, own.tokens.unwrap().burst), (5, 50));
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_one_rate_ends_the_other() {
        let now = Limits { rps: 10, burst_requests: 20, tpm: 600, burst_tokens: 700, ..Limits::default() };
        assert_eq!(LimitsChange::default().over(now), now);
        let per_minute = LimitsChange { rpm: Some(60), ..LimitsChange::default() }.over(now);
        assert_eq!((per_minute.rps, per_minute.rpm, per_minute.burst_requests), (0, 60, 20));
        let none = LimitsChange { rps: Some(0), tpm: Some(0), ..LimitsChange::default() }.over(now);
        assert_eq!(none, Limits::default());
    }
}
