//! What nodes report, to protobuf and back.

use crate::pb;
use ledger::entry::{Amounts, End, PoolReport, Refund, Report, Who};
use ledger::model::{Epoch, Incarnation, NodeId, PoolId, Spend};

impl From<&Who> for pb::Who {
    fn from(who: &Who) -> Self {
        Self { node: who.node.0, incarnation: who.incarnation.0, epoch: who.epoch.0 }
    }
}

impl From<pb::Who> for Who {
    fn from(who: pb::Who) -> Self {
        Self { node: NodeId(who.node), incarnation: Incarnation(who.incarnation), epoch: Epoch(who.epoch) }
    }
}

impl From<&Amounts> for pb::Amounts {
    fn from(amounts: &Amounts) -> Self {
        Self { tokens: amounts.tokens, requests: amounts.requests, permits: amounts.permits }
    }
}

impl From<pb::Amounts> for Amounts {
    fn from(amounts: pb::Amounts) -> Self {
        Self { tokens: amounts.tokens, requests: amounts.requests, permits: amounts.permits }
    }
}

impl From<&Report> for pb::Report {
    fn from(report: &Report) -> Self {
        Self {
            pools: report.pools.iter().map(Into::into).collect(),
            absorbed: report.absorbed.clone(),
            ends: report.ends.iter().map(Into::into).collect(),
            low: report.low,
        }
    }
}

impl From<pb::Report> for Report {
    fn from(report: pb::Report) -> Self {
        Self {
            pools: report.pools.into_iter().map(Into::into).collect(),
            absorbed: report.absorbed,
            ends: report.ends.into_iter().map(Into::into).collect(),
            low: report.low,
        }
    }
}

impl From<&PoolReport> for pb::PoolReport {
    fn from(report: &PoolReport) -> Self {
        Self {
            pool: report.pool.0,
            tokens_spent: report.tokens_spent,
            tokens_returned: report.tokens_returned,
            tokens_overrun: report.tokens_overrun,
            requests_spent: report.requests_spent,
            requests_returned: report.requests_returned,
            permits_base: report.permits_base,
            permits_returned: report.permits_returned,
            refunds: report.refunds.iter().map(Into::into).collect(),
            oldest_slot: report.oldest_slot,
        }
    }
}

impl From<pb::PoolReport> for PoolReport {
    fn from(report: pb::PoolReport) -> Self {
        Self {
            pool: PoolId(report.pool),
            tokens_spent: report.tokens_spent,
            tokens_returned: report.tokens_returned,
            tokens_overrun: report.tokens_overrun,
            requests_spent: report.requests_spent,
            requests_returned: report.requests_returned,
            permits_base: report.permits_base,
            permits_returned: report.permits_returned,
            refunds: report.refunds.into_iter().map(Into::into).collect(),
            oldest_slot: report.oldest_slot,
        }
    }
}

impl From<&Refund> for pb::Refund {
    fn from(refund: &Refund) -> Self {
        Self { slot: refund.slot, tokens: refund.tokens, requests: refund.requests }
    }
}

impl From<pb::Refund> for Refund {
    fn from(refund: pb::Refund) -> Self {
        Self { slot: refund.slot, tokens: refund.tokens, requests: refund.requests }
    }
}

impl From<&End> for pb::End {
    fn from(end: &End) -> Self {
        Self {
            seq: end.seq,
            used: end.used.map(|used| used.tokens),
            cost_nano_usd: end.used.map_or(0, |used| used.cost_nano_usd),
        }
    }
}

impl From<pb::End> for End {
    fn from(end: pb::End) -> Self {
        let cost_nano_usd = end.cost_nano_usd;
        Self { seq: end.seq, used: end.used.map(|tokens| Spend { tokens, cost_nano_usd }) }
    }
}
