//! Bytes that a release once wrote. They must decode forever: never edit one, add another beside it.

use ledger::entry::{Amounts, End, Entry, Op, PoolReport, Refund, Report, Who};
use ledger::model::{
    BucketLimit, Credential, Epoch, Incarnation, NodeId, PoolId, PoolLimits, QuotaKind, QuotaLimit, Quotas, Rate,
    Scope, ScopeKind, Spend, TenantLimits,
};
use ledger::time::Stamp;

const EVERY_OP: &str = include_str!("every_op_1.hex");
const LATER_OPS: &str = include_str!("later_ops.hex");

/// The entry whose bytes stand in `every_op_1.hex`: every op, every field set to a value of its own.
pub(crate) fn every_op() -> Entry {
    let ops = vec![
        Op::SetPool {
            name: "gpt-5/größer".into(),
            limits: PoolLimits {
                tokens: Some(BucketLimit { rate: Rate::per_min(2_000_000), burst: 500_000 }),
                requests: Some(BucketLimit { rate: Rate { units: 7, per_us: 3 }, burst: 11 }),
                concurrent: Some(64),
            },
            request_us_max: 600_000_000,
        },
        Op::RemovePool { name: "old".into() },
        Op::NodeUp { node: NodeId(3), boot_id: "4f1a6c1e-0b1d".into(), life: 12 },
        Op::Contact { who: who(), report: report() },
        Op::Expire { who: Who { epoch: Epoch(10), ..who() } },
        Op::FreeLost,
        Op::Grant { who: who(), pool: PoolId(2), amounts: Amounts { tokens: 40_000, requests: 21, permits: 22 } },
        reserve(vec![
            tenant(ScopeKind::Key, 0x10),
            TenantLimits { requests: None, tokens: None, concurrent: None, ..tenant(ScopeKind::User, 0x20) },
            TenantLimits { concurrent: Some(0), quotas: Quotas::default(), ..tenant(ScopeKind::Team, 0x30) },
        ]),
        Op::Correct { node: NodeId(3), incarnation: Incarnation(77), seq: 4_003, used: Spend::tokens(950) },
        Op::RollDay { day: 20_654 },
        Op::Checkpoint,
    ];
    Entry { proposer_term: 5, stamp: Stamp(1_234_567_890), ops }
}

/// What a contended request costs: its reservation, and the contact that reports its end.
pub(crate) fn per_request() -> [Entry; 2] {
    let one = |op| Entry { proposer_term: 5, stamp: Stamp(1_234_567_890), ops: vec![op] };
    let pools = vec![PoolReport {
        pool: PoolId(2),
        tokens_spent: 1_000_000,
        requests_spent: 1_000,
        permits_returned: 1_000,
        oldest_slot: 12_345,
        ..PoolReport::default()
    }];
    let ends = vec![End { seq: 4_004, used: Some(Spend::tokens(950)) }];
    let report = Report { pools, absorbed: vec![4_004], ends, low: 4_005 };
    [one(reserve(vec![tenant(ScopeKind::Key, 0x10)])), one(Op::Contact { who: who(), report })]
}

fn who() -> Who {
    Who { node: NodeId(3), incarnation: Incarnation(77), epoch: Epoch(9) }
}

fn reserve(tenants: Vec<TenantLimits>) -> Op {
    Op::Reserve { who: who(), seq: 4_004, pool: PoolId(2), spend: Spend::tokens(1_500), tenants: tenants.into() }
}

fn tenant(kind: ScopeKind, first: u8) -> TenantLimits {
    TenantLimits {
        scope: Scope { kind, id: std::array::from_fn(|i| first + i as u8) },
        version: 6,
        requests: Some(BucketLimit { rate: Rate::per_sec(5), burst: 10 }),
        tokens: Some(BucketLimit { rate: Rate::per_min(90_000), burst: 9_000 }),
        concurrent: Some(4),
        quotas: Quotas::default().with(QuotaKind::DayTokens, Some(QuotaLimit::hard(1_000_000))),
    }
}

fn report() -> Report {
    let first = PoolReport {
        pool: PoolId(1),
        tokens_spent: 101,
        tokens_returned: 102,
        tokens_overrun: 103,
        requests_spent: 104,
        requests_returned: 105,
        permits_base: 106,
        permits_returned: 107,
        refunds: vec![
            Refund { slot: 12_345, tokens: 201, requests: 202 },
            Refund { slot: 12_346, tokens: 203, requests: 0 },
        ],
        oldest_slot: 12_340,
    };
    let ends = vec![
        End { seq: 4_001, used: Some(Spend::tokens(300)) },
        End { seq: 4_002, used: Some(Spend::tokens(0)) },
        End { seq: 4_003, used: None },
    ];
    let pools = vec![first, PoolReport { pool: PoolId(u32::MAX), ..PoolReport::default() }];
    Report { pools, absorbed: vec![3_999, 4_000, u64::MAX], ends, low: 3_998 }
}

/// Entries of later releases, oldest first: a line of `later_ops.hex` each.
fn later() -> Vec<Entry> {
    let one = |ops| Entry { proposer_term: 6, stamp: Stamp(2_345_678_901), ops };
    let quotas = tenant(ScopeKind::Key, 0x60).quotas;
    let quotas = quotas.with(QuotaKind::MonthTokens, Some(QuotaLimit { most: 9_000_000, soft: true }));
    let quotas = quotas.with(QuotaKind::DayCost, Some(QuotaLimit { most: 1_000_000_000, soft: true }));
    let quotas = quotas.with(QuotaKind::MonthCost, Some(QuotaLimit::hard(20_000_000_000)));
    let budgeted = TenantLimits { quotas, ..tenant(ScopeKind::Key, 0x60) };
    let spent = Spend { tokens: 950, cost_nano_usd: 11_000_000 };
    let ends = vec![End { seq: 4_004, used: Some(spent) }];
    vec![
        one(vec![
            Op::Revoke { credential: Credential::Hash(std::array::from_fn(|i| i as u8)), until_day: 21_000 },
            Op::Revoke { credential: Credential::Scope(tenant(ScopeKind::Team, 0x40).scope), until_day: u64::MAX },
            Op::SetTenant { limits: tenant(ScopeKind::User, 0x50) },
        ]),
        one(vec![
            Op::RollMonth { month: 680 },
            Op::AdjustQuota { limits: budgeted, kind: QuotaKind::MonthCost, delta: -70_000, by: "ann".into() },
            Op::Reserve {
                who: who(),
                seq: 4_005,
                pool: PoolId(2),
                spend: Spend { tokens: 1_600, cost_nano_usd: 20_000_000 },
                tenants: [budgeted].into(),
            },
            Op::Contact { who: who(), report: Report { ends, ..Report::default() } },
            Op::Correct { node: NodeId(3), incarnation: Incarnation(77), seq: 4_003, used: spent },
        ]),
    ]
}

#[test]
fn what_later_releases_wrote_is_read_and_written_alike() {
    let written: Vec<&str> = LATER_OPS.lines().collect();
    let entries = later();
    assert_eq!(entries.iter().map(|entry| hex::encode(proto::encode(entry))).collect::<Vec<_>>(), written);
    for (entry, written) in entries.iter().zip(written) {
        assert_eq!(proto::decode(&hex::decode(written).unwrap()).as_ref(), Ok(entry));
    }
}

#[test]
fn what_version_1_wrote_is_read_and_written_alike() {
    let written: String = EVERY_OP.split_whitespace().collect();
    assert_eq!(hex::encode(proto::encode(&every_op())), written, "left is written now, right is what was written");
    let entry = proto::decode(&hex::decode(written).unwrap());
    assert_eq!(entry, Ok(every_op()));
}
