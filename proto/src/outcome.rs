//! What operations gave, to protobuf and back.

use crate::{DecodeError, peer, required};
use ledger::entry::{Hold, Outcome, Retry};
use ledger::model::{Dimension, Epoch, Incarnation, PoolId};
use ledger::time::Stamp;
use peer::outcome::Kind;
use peer::retry::When;

impl From<&Outcome> for peer::Outcome {
    fn from(outcome: &Outcome) -> Self {
        let kind = match outcome {
            Outcome::Done => Kind::Done(peer::Empty {}),
            Outcome::Pool(pool) => Kind::Pool(pool.0),
            Outcome::Up(incarnation) => Kind::Up(incarnation.0),
            Outcome::Stale(epoch) => Kind::Stale(peer::Stale { epoch: epoch.map(|epoch| epoch.0) }),
            Outcome::Reserved(hold) => Kind::Reserved(hold.into()),
            Outcome::Short => Kind::Short(peer::Empty {}),
            Outcome::Refused { scope, dimension, retry } => Kind::Refused(peer::Refused {
                scope: Some(scope.into()),
                dimension: peer::Dimension::from(*dimension).into(),
                retry: Some((*retry).into()),
                retry_us: 0,
            }),
            Outcome::Nothing => Kind::Nothing(peer::Empty {}),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<peer::Outcome> for Outcome {
    type Error = DecodeError;

    fn try_from(outcome: peer::Outcome) -> Result<Self, DecodeError> {
        Ok(match outcome.kind.ok_or(DecodeError::UnknownEvent)? {
            Kind::Done(_) => Self::Done,
            Kind::Pool(pool) => Self::Pool(PoolId(pool)),
            Kind::Up(incarnation) => Self::Up(Incarnation(incarnation)),
            Kind::Stale(stale) => Self::Stale(stale.epoch.map(Epoch)),
            Kind::Reserved(hold) => Self::Reserved(hold.try_into()?),
            Kind::Short(_) => Self::Short,
            Kind::Refused(refused) => Self::Refused {
                dimension: refused.dimension().try_into()?,
                scope: required(refused.scope, "whose limit refused")?.try_into()?,
                retry: required(refused.retry, "when to come back")?.try_into()?,
            },
            Kind::Nothing(_) => Self::Nothing,
        })
    }
}

impl From<&Hold> for peer::Hold {
    fn from(hold: &Hold) -> Self {
        Self {
            amounts: Some((&hold.amounts).into()),
            tenants: hold.tenants,
            quota_left: hold.quota_left,
            budget_left: hold.budget_left,
            slot: hold.slot,
        }
    }
}

impl TryFrom<peer::Hold> for Hold {
    type Error = DecodeError;

    fn try_from(hold: peer::Hold) -> Result<Self, DecodeError> {
        Ok(Self {
            amounts: required(hold.amounts, "the amounts of a hold")?.into(),
            tenants: hold.tenants,
            quota_left: hold.quota_left,
            budget_left: hold.budget_left,
            slot: hold.slot,
        })
    }
}

impl From<Dimension> for peer::Dimension {
    fn from(dimension: Dimension) -> Self {
        match dimension {
            Dimension::Tokens => Self::Tokens,
            Dimension::Requests => Self::Requests,
            Dimension::Concurrent => Self::Concurrent,
            Dimension::TokensPerDay => Self::TokensPerDay,
            Dimension::TokensPerMonth => Self::TokensPerMonth,
            Dimension::CostPerDay => Self::CostPerDay,
            Dimension::CostPerMonth => Self::CostPerMonth,
        }
    }
}

impl TryFrom<peer::Dimension> for Dimension {
    type Error = DecodeError;

    fn try_from(dimension: peer::Dimension) -> Result<Self, DecodeError> {
        Ok(match dimension {
            peer::Dimension::Unspecified => return Err(DecodeError::UnknownEvent),
            peer::Dimension::Tokens => Self::Tokens,
            peer::Dimension::Requests => Self::Requests,
            peer::Dimension::Concurrent => Self::Concurrent,
            peer::Dimension::TokensPerDay => Self::TokensPerDay,
            peer::Dimension::TokensPerMonth => Self::TokensPerMonth,
            peer::Dimension::CostPerDay => Self::CostPerDay,
            peer::Dimension::CostPerMonth => Self::CostPerMonth,
        })
    }
}

impl From<Retry> for peer::Retry {
    fn from(retry: Retry) -> Self {
        let when = match retry {
            Retry::At(stamp) => When::AtUs(stamp.0),
            Retry::NextDay => When::NextDay(peer::Empty {}),
            Retry::NextMonth => When::NextMonth(peer::Empty {}),
            Retry::OnRelease => When::OnRelease(peer::Empty {}),
            Retry::Never(most) => When::Never(most),
        };
        Self { when: Some(when) }
    }
}

impl TryFrom<peer::Retry> for Retry {
    type Error = DecodeError;

    fn try_from(retry: peer::Retry) -> Result<Self, DecodeError> {
        Ok(match retry.when.ok_or(DecodeError::UnknownEvent)? {
            When::AtUs(at) => Self::At(Stamp(at)),
            When::NextDay(_) => Self::NextDay,
            When::NextMonth(_) => Self::NextMonth,
            When::OnRelease(_) => Self::OnRelease,
            When::Never(most) => Self::Never(most),
        })
    }
}
