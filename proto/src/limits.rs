//! Limits and tenants, to protobuf and back.

use crate::{DecodeError, malformed, pb, required};
use ledger::model::{BucketLimit, PoolLimits, QuotaKind, QuotaLimit, Quotas, Rate, Scope, ScopeKind, TenantLimits};

impl From<&BucketLimit> for pb::BucketLimit {
    fn from(limit: &BucketLimit) -> Self {
        Self { units: limit.rate.units, per_us: limit.rate.per_us, burst: limit.burst }
    }
}

impl From<pb::BucketLimit> for BucketLimit {
    fn from(limit: pb::BucketLimit) -> Self {
        Self { rate: Rate { units: limit.units, per_us: limit.per_us }, burst: limit.burst }
    }
}

impl From<&PoolLimits> for pb::PoolLimits {
    fn from(limits: &PoolLimits) -> Self {
        Self {
            tokens: limits.tokens.as_ref().map(Into::into),
            requests: limits.requests.as_ref().map(Into::into),
            concurrent: limits.concurrent,
        }
    }
}

impl From<pb::PoolLimits> for PoolLimits {
    fn from(limits: pb::PoolLimits) -> Self {
        Self {
            tokens: limits.tokens.map(Into::into),
            requests: limits.requests.map(Into::into),
            concurrent: limits.concurrent,
        }
    }
}

impl From<&TenantLimits> for pb::TenantLimits {
    fn from(limits: &TenantLimits) -> Self {
        let first = |kind: QuotaKind, limit: QuotaLimit| kind == QuotaKind::DayTokens && !limit.soft;
        let quotas = limits.quotas.iter().filter(|&(kind, limit)| !first(kind, limit));
        Self {
            scope: Some((&limits.scope).into()),
            version: limits.version,
            requests: limits.requests.as_ref().map(Into::into),
            tokens: limits.tokens.as_ref().map(Into::into),
            concurrent: limits.concurrent,
            tokens_per_day: day_tokens(limits),
            quotas: quotas.map(|(kind, limit)| quota(kind, limit)).collect(),
        }
    }
}

/// The one quota that the first release knew: hard, of tokens in a day.
fn day_tokens(limits: &TenantLimits) -> Option<u64> {
    limits.quotas.get(QuotaKind::DayTokens).filter(|limit| !limit.soft).map(|limit| limit.most)
}

fn quota(kind: QuotaKind, limit: QuotaLimit) -> pb::Quota {
    pb::Quota { kind: pb::QuotaKind::from(kind).into(), most: limit.most, soft: limit.soft }
}

impl From<QuotaKind> for pb::QuotaKind {
    fn from(kind: QuotaKind) -> Self {
        match kind {
            QuotaKind::DayTokens => Self::DayTokens,
            QuotaKind::MonthTokens => Self::MonthTokens,
            QuotaKind::DayCost => Self::DayCost,
            QuotaKind::MonthCost => Self::MonthCost,
        }
    }
}

/// A value that has no name here was written by a newer version.
pub(crate) fn quota_kind(kind: i32) -> Result<QuotaKind, DecodeError> {
    match pb::QuotaKind::try_from(kind).map_err(|_| DecodeError::UnknownEvent)? {
        pb::QuotaKind::Unspecified => Err(malformed("a quota's kind is missing")),
        pb::QuotaKind::DayTokens => Ok(QuotaKind::DayTokens),
        pb::QuotaKind::MonthTokens => Ok(QuotaKind::MonthTokens),
        pb::QuotaKind::DayCost => Ok(QuotaKind::DayCost),
        pb::QuotaKind::MonthCost => Ok(QuotaKind::MonthCost),
    }
}

fn quotas(tokens_per_day: Option<u64>, others: Vec<pb::Quota>) -> Result<Quotas, DecodeError> {
    let mut quotas = Quotas::default().with(QuotaKind::DayTokens, tokens_per_day.map(QuotaLimit::hard));
    for quota in others {
        let kind = quota_kind(quota.kind)?;
        if quotas.get(kind).is_some() {
            return Err(malformed("a tenant has two quotas of one kind"));
        }
        quotas = quotas.with(kind, Some(QuotaLimit { most: quota.most, soft: quota.soft }));
    }
    Ok(quotas)
}

impl TryFrom<pb::TenantLimits> for TenantLimits {
    type Error = DecodeError;

    fn try_from(limits: pb::TenantLimits) -> Result<Self, DecodeError> {
        Ok(Self {
            scope: required(limits.scope, "a tenant's scope")?.try_into()?,
            version: limits.version,
            requests: limits.requests.map(Into::into),
            tokens: limits.tokens.map(Into::into),
            concurrent: limits.concurrent,
            quotas: quotas(limits.tokens_per_day, limits.quotas)?,
        })
    }
}

impl From<&Scope> for pb::Scope {
    fn from(scope: &Scope) -> Self {
        let kind = match scope.kind {
            ScopeKind::Key => pb::ScopeKind::Key,
            ScopeKind::User => pb::ScopeKind::User,
            ScopeKind::Team => pb::ScopeKind::Team,
        };
        Self { kind: kind.into(), id: scope.id.to_vec() }
    }
}

impl TryFrom<pb::Scope> for Scope {
    type Error = DecodeError;

    fn try_from(scope: pb::Scope) -> Result<Self, DecodeError> {
        // A value that has no name here was written by a newer version.
        let kind = match pb::ScopeKind::try_from(scope.kind).map_err(|_| DecodeError::UnknownEvent)? {
            pb::ScopeKind::Unspecified => return Err(malformed("a scope's kind is missing")),
            pb::ScopeKind::Key => ScopeKind::Key,
            pb::ScopeKind::User => ScopeKind::User,
            pb::ScopeKind::Team => ScopeKind::Team,
        };
        let id = scope.id.as_slice().try_into();
        let id =
            id.map_err(|_| DecodeError::Malformed(format!("a scope's id has {} bytes, not 16", scope.id.len())))?;
        Ok(Self { kind, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: i32, id_len: usize) -> DecodeError {
        Scope::try_from(pb::Scope { kind, id: vec![7; id_len] }).unwrap_err()
    }

    #[test]
    fn a_scope_needs_an_id_of_16_bytes() {
        assert!(Scope::try_from(pb::Scope { kind: 1, id: vec![7; 16] }).is_ok());
        for len in [0, 15, 17] {
            let expected = DecodeError::Malformed(format!("a scope's id has {len} bytes, not 16"));
            assert_eq!(refused(1, len), expected);
        }
    }

    #[test]
    fn a_scope_needs_a_kind() {
        assert_eq!(refused(0, 16), malformed("a scope's kind is missing"));
    }

    #[test]
    fn a_kind_without_a_name_is_of_a_newer_version() {
        assert_eq!(refused(4, 16), DecodeError::UnknownEvent);
        assert_eq!(refused(-1, 16), DecodeError::UnknownEvent);
    }

    #[test]
    fn a_tenant_has_at_most_one_quota_of_a_kind() {
        let quota = |kind| pb::Quota { kind, most: 1, soft: true };
        assert!(quotas(Some(1), vec![quota(2), quota(3), quota(4)]).is_ok());
        for (first, others) in [(Some(1), vec![quota(1)]), (None, vec![quota(2), quota(2)]), (None, vec![quota(0)])] {
            assert!(matches!(quotas(first, others), Err(DecodeError::Malformed(_))));
        }
        assert_eq!(quotas(None, vec![quota(5)]), Err(DecodeError::UnknownEvent));
    }

    #[test]
    fn a_tenant_needs_a_scope() {
        let limits = TenantLimits::try_from(pb::TenantLimits::default());
        assert_eq!(limits.unwrap_err(), malformed("a tenant's scope is missing"));
    }
}
