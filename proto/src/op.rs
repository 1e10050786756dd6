//! Entries and their operations, to protobuf and back.

use crate::limits::quota_kind;
use crate::pb::{self, op::Kind};
use crate::{DecodeError, malformed, required};
use ledger::entry::{Entry, Op};
use ledger::model::{Credential, Incarnation, NodeId, PoolId, Spend};
use ledger::time::Stamp;

impl From<&Entry> for pb::Entry {
    fn from(entry: &Entry) -> Self {
        Self {
            proposer_term: entry.proposer_term,
            stamp_us: entry.stamp.0,
            ops: entry.ops.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::Entry> for Entry {
    type Error = DecodeError;

    fn try_from(entry: pb::Entry) -> Result<Self, DecodeError> {
        Ok(Self {
            proposer_term: entry.proposer_term,
            stamp: Stamp(entry.stamp_us),
            ops: entry.ops.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Op> for pb::Op {
    fn from(op: &Op) -> Self {
        let kind = match op {
            Op::SetPool { name, limits, request_us_max } => Kind::SetPool(pb::SetPool {
                name: name.as_ref().to_owned(),
                limits: Some(limits.into()),
                request_us_max: *request_us_max,
            }),
            Op::RemovePool { name } => Kind::RemovePool(pb::RemovePool { name: name.as_ref().to_owned() }),
            Op::NodeUp { node, boot_id, life } => {
                Kind::NodeUp(pb::NodeUp { node: node.0, boot_id: boot_id.as_ref().to_owned(), life: *life })
            }
            Op::Contact { who, report } => {
                Kind::Contact(pb::Contact { who: Some(who.into()), report: Some(report.into()) })
            }
            Op::Expire { who } => Kind::Expire(pb::Expire { who: Some(who.into()) }),
            Op::FreeLost => Kind::FreeLost(pb::FreeLost {}),
            Op::Grant { who, pool, amounts } => {
                Kind::Grant(pb::Grant { who: Some(who.into()), pool: pool.0, amounts: Some(amounts.into()) })
            }
            Op::Reserve { who, seq, pool, spend, tenants } => Kind::Reserve(pb::Reserve {
                who: Some(who.into()),
                seq: *seq,
                pool: pool.0,
                tokens: spend.tokens,
                cost_nano_usd: spend.cost_nano_usd,
                tenants: tenants.iter().map(Into::into).collect(),
            }),
            Op::Correct { node, incarnation, seq, used } => Kind::Correct(pb::Correct {
                node: node.0,
                incarnation: incarnation.0,
                seq: *seq,
                tokens: used.tokens,
                cost_nano_usd: used.cost_nano_usd,
            }),
            Op::RollDay { day } => Kind::RollDay(pb::RollDay { day: *day }),
            Op::Checkpoint => Kind::Checkpoint(pb::Checkpoint {}),
            Op::Revoke { credential, until_day } => {
                let (hash, scope) = match credential {
                    Credential::Hash(hash) => (Some(hash.to_vec()), None),
                    Credential::Scope(scope) => (None, Some(scope.into())),
                };
                Kind::Revoke(pb::Revoke { hash, scope, until_day: *until_day })
            }
            Op::RollMonth { month } => Kind::RollMonth(pb::RollMonth { month: *month }),
            Op::AdjustQuota { limits, kind, delta, by } => Kind::AdjustQuota(pb::AdjustQuota {
                limits: Some(limits.into()),
                kind: pb::QuotaKind::from(*kind).into(),
                delta: *delta,
                by: by.as_ref().to_owned(),
            }),
            Op::SetTenant { limits } => Kind::SetTenant(pb::SetTenant { limits: Some(limits.into()) }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::Op> for Op {
    type Error = DecodeError;

    fn try_from(op: pb::Op) -> Result<Self, DecodeError> {
        Ok(match op.kind.ok_or(DecodeError::UnknownEvent)? {
            Kind::SetPool(op) => Op::SetPool {
                name: op.name.into(),
                limits: required(op.limits, "the limits of a pool")?.into(),
                request_us_max: op.request_us_max,
            },
            Kind::RemovePool(op) => Op::RemovePool { name: op.name.into() },
            Kind::NodeUp(op) => Op::NodeUp { node: NodeId(op.node), boot_id: op.boot_id.into(), life: op.life },
            Kind::Contact(op) => Op::Contact {
                who: required(op.who, "who made contact")?.into(),
                report: required(op.report, "the report of a contact")?.into(),
            },
            Kind::Expire(op) => Op::Expire { who: required(op.who, "who expires")?.into() },
            Kind::FreeLost(pb::FreeLost {}) => Op::FreeLost,
            Kind::Grant(op) => Op::Grant {
                who: required(op.who, "the holder of a grant")?.into(),
                pool: PoolId(op.pool),
                amounts: required(op.amounts, "the amounts of a grant")?.into(),
            },
            Kind::Reserve(op) => Op::Reserve {
                who: required(op.who, "the holder of a reservation")?.into(),
                seq: op.seq,
                pool: PoolId(op.pool),
                spend: Spend { tokens: op.tokens, cost_nano_usd: op.cost_nano_usd },
                tenants: op.tenants.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            },
            Kind::Correct(op) => Op::Correct {
                node: NodeId(op.node),
                incarnation: Incarnation(op.incarnation),
                seq: op.seq,
                used: Spend { tokens: op.tokens, cost_nano_usd: op.cost_nano_usd },
            },
            Kind::RollDay(op) => Op::RollDay { day: op.day },
            Kind::Checkpoint(pb::Checkpoint {}) => Op::Checkpoint,
            Kind::Revoke(op) => Op::Revoke { credential: credential(op.hash, op.scope)?, until_day: op.until_day },
            Kind::RollMonth(op) => Op::RollMonth { month: op.month },
            Kind::AdjustQuota(op) => Op::AdjustQuota {
                limits: required(op.limits, "the limits of a tenant")?.try_into()?,
                kind: quota_kind(op.kind)?,
                delta: op.delta,
                by: op.by.into(),
            },
            Kind::SetTenant(op) => Op::SetTenant { limits: required(op.limits, "the limits of a tenant")?.try_into()? },
        })
    }
}

fn credential(hash: Option<Vec<u8>>, scope: Option<pb::Scope>) -> Result<Credential, DecodeError> {
    match (hash, scope) {
        (Some(hash), None) => {
            let hash = hash.try_into().map_err(|_| malformed("a key's hash does not have 32 bytes"))?;
            Ok(Credential::Hash(hash))
        }
        (None, Some(scope)) => Ok(Credential::Scope(scope.try_into()?)),
        _ => Err(malformed("a revocation names a hash or a scope, and only one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_names_one_credential_of_the_right_length() {
        let scope = || Some(pb::Scope { kind: 1, id: vec![7; 16] });
        assert!(credential(Some(vec![1; 32]), None).is_ok());
        assert!(credential(None, scope()).is_ok());
        for (hash, scope) in [(None, None), (Some(vec![1; 32]), scope()), (Some(vec![1; 31]), None)] {
            assert!(matches!(credential(hash, scope), Err(DecodeError::Malformed(_))));
        }
    }

    #[test]
    fn an_op_without_its_required_messages_is_refused() {
        let kinds = [
            Kind::SetPool(pb::SetPool::default()),
            Kind::Contact(pb::Contact::default()),
            Kind::Contact(pb::Contact { who: Some(pb::Who::default()), report: None }),
            Kind::Expire(pb::Expire::default()),
            Kind::Grant(pb::Grant::default()),
            Kind::Grant(pb::Grant { who: Some(pb::Who::default()), ..Default::default() }),
            Kind::Reserve(pb::Reserve::default()),
            Kind::SetTenant(pb::SetTenant::default()),
            Kind::AdjustQuota(pb::AdjustQuota::default()),
        ];
        for kind in kinds {
            let refusal = Op::try_from(pb::Op { kind: Some(kind) }).unwrap_err();
            assert!(matches!(&refusal, DecodeError::Malformed(what) if what.ends_with("is missing")), "{refusal}");
        }
    }
}
