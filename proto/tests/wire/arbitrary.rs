//! Any entry, over every kind of operation.

use ledger::entry::{Amounts, End, Entry, Op, PoolReport, Refund, Report, Who};
use ledger::model::{
    BucketLimit, Credential, Epoch, Incarnation, NodeId, PoolId, PoolLimits, QuotaKind, QuotaLimit, Quotas, Rate,
    Scope, ScopeKind, Spend, TenantLimits,
};
use ledger::time::Stamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::sync::Arc;

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    (number(), number(), vec(op(), 0..8)).prop_map(|(proposer_term, stamp, ops)| Entry {
        proposer_term,
        stamp: Stamp(stamp),
        ops,
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (name(), pool_limits(), number()).prop_map(|(name, limits, request_us_max)| Op::SetPool {
            name,
            limits,
            request_us_max
        }),
        name().prop_map(|name| Op::RemovePool { name }),
        (number(), name(), number()).prop_map(|(node, boot_id, life)| Op::NodeUp { node: NodeId(node), boot_id, life }),
        (who(), report()).prop_map(|(who, report)| Op::Contact { who, report }),
        who().prop_map(|who| Op::Expire { who }),
        Just(Op::FreeLost),
        (who(), pool(), amounts()).prop_map(|(who, pool, amounts)| Op::Grant { who, pool, amounts }),
        (who(), number(), pool(), spend(), vec(tenant_limits(), 0..4)).prop_map(|(who, seq, pool, spend, tenants)| {
            Op::Reserve { who, seq, pool, spend, tenants: tenants.into() }
        }),
        (number(), number(), number(), spend()).prop_map(|(node, incarnation, seq, used)| Op::Correct {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            seq,
            used
        }),
        number().prop_map(|day| Op::RollDay { day }),
        number().prop_map(|month| Op::RollMonth { month }),
        (tenant_limits(), quota_kind(), any::<i64>(), name()).prop_map(|(limits, kind, delta, by)| Op::AdjustQuota {
            limits,
            kind,
            delta,
            by
        }),
        Just(Op::Checkpoint),
        (credential(), number()).prop_map(|(credential, until_day)| Op::Revoke { credential, until_day }),
        tenant_limits().prop_map(|limits| Op::SetTenant { limits }),
    ]
}

/// Small and zero as often as anything.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..300_u64, any::<u64>(), Just(u64::MAX)]
}

fn name() -> impl Strategy<Value = Arc<str>> {
    any::<String>().prop_map(Into::into)
}

fn pool() -> impl Strategy<Value = PoolId> {
    prop_oneof![0..4_u32, any::<u32>()].prop_map(PoolId)
}

fn who() -> impl Strategy<Value = Who> {
    (number(), number(), number()).prop_map(|(node, incarnation, epoch)| Who {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        epoch: Epoch(epoch),
    })
}

fn amounts() -> impl Strategy<Value = Amounts> {
    (number(), number(), number()).prop_map(|(tokens, requests, permits)| Amounts { tokens, requests, permits })
}

fn report() -> impl Strategy<Value = Report> {
    let end = (number(), option::of(spend())).prop_map(|(seq, used)| End { seq, used });
    (vec(pool_report(), 0..4), vec(number(), 0..6), vec(end, 0..6), number())
        .prop_map(|(pools, absorbed, ends, low)| Report { pools, absorbed, ends, low })
}

fn pool_report() -> impl Strategy<Value = PoolReport> {
    let refund = (number(), number(), number()).prop_map(|(slot, tokens, requests)| Refund { slot, tokens, requests });
    let counters = proptest::array::uniform8(number());
    (pool(), counters, vec(refund, 0..4)).prop_map(|(pool, counters, refunds)| PoolReport {
        pool,
        tokens_spent: counters[0],
        tokens_returned: counters[1],
        tokens_overrun: counters[2],
        requests_spent: counters[3],
        requests_returned: counters[4],
        permits_base: counters[5],
        permits_returned: counters[6],
        refunds,
        oldest_slot: counters[7],
    })
}

fn bucket() -> impl Strategy<Value = Option<BucketLimit>> {
    option::of(
        (number(), number(), number())
            .prop_map(|(units, per_us, burst)| BucketLimit { rate: Rate { units, per_us }, burst }),
    )
}

fn pool_limits() -> impl Strategy<Value = PoolLimits> {
    (bucket(), bucket(), option::of(number())).prop_map(|(tokens, requests, concurrent)| PoolLimits {
        tokens,
        requests,
        concurrent,
    })
}

fn scope() -> impl Strategy<Value = Scope> {
    let kind = prop_oneof![Just(ScopeKind::Key), Just(ScopeKind::User), Just(ScopeKind::Team)];
    (kind, any::<[u8; 16]>()).prop_map(|(kind, id)| Scope { kind, id })
}

fn credential() -> impl Strategy<Value = Credential> {
    prop_oneof![any::<[u8; 32]>().prop_map(Credential::Hash), scope().prop_map(Credential::Scope)]
}

fn spend() -> impl Strategy<Value = Spend> {
    (number(), number()).prop_map(|(tokens, cost_nano_usd)| Spend { tokens, cost_nano_usd })
}

fn quota_kind() -> impl Strategy<Value = QuotaKind> {
    proptest::sample::select(&QuotaKind::ALL[..])
}

fn quotas() -> impl Strategy<Value = Quotas> {
    let limit = || option::of((number(), any::<bool>()).prop_map(|(most, soft)| QuotaLimit { most, soft }));
    proptest::array::uniform4(limit()).prop_map(|limits| {
        QuotaKind::ALL.into_iter().zip(limits).fold(Quotas::default(), |quotas, (kind, limit)| quotas.with(kind, limit))
    })
}

fn tenant_limits() -> impl Strategy<Value = TenantLimits> {
    (scope(), number(), bucket(), bucket(), option::of(number()), quotas()).prop_map(
        |(scope, version, requests, tokens, concurrent, quotas)| TenantLimits {
            scope,
            version,
            requests,
            tokens,
            concurrent,
            quotas,
        },
    )
}
