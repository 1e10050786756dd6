//! A node's message to the leader and the leader's to a node, to protobuf and back.

use crate::{DecodeError, malformed, peer, required};
use ledger::entry::{Answer, Ask, Backlog, Contact, PoolReply, Reply, Want};
use ledger::model::{Epoch, PoolId, Priority, Spend, Windows};
use ledger::time::{Boot, Stamp};

impl From<&Contact> for peer::Contact {
    fn from(contact: &Contact) -> Self {
        Self {
            who: Some((&contact.who).into()),
            number: contact.number,
            sent_us: contact.sent.0,
            report: Some((&contact.report).into()),
            asks: contact.asks.iter().map(Into::into).collect(),
            wants: contact.wants.iter().map(Into::into).collect(),
            day: contact.windows.day,
            month: contact.windows.month,
        }
    }
}

impl TryFrom<peer::Contact> for Contact {
    type Error = DecodeError;

    fn try_from(contact: peer::Contact) -> Result<Self, DecodeError> {
        Ok(Self {
            who: required(contact.who, "who made contact")?.into(),
            number: contact.number,
            sent: Boot(contact.sent_us),
            windows: Windows { day: contact.day, month: contact.month },
            report: required(contact.report, "the report of a contact")?.into(),
            asks: contact.asks.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            wants: contact.wants.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Ask> for peer::Ask {
    fn from(ask: &Ask) -> Self {
        Self {
            seq: ask.seq,
            pool: ask.pool.0,
            priority: u32::from(ask.priority.0),
            tokens: ask.spend.tokens,
            cost_nano_usd: ask.spend.cost_nano_usd,
            weight: ask.weight,
            tenant: ask.tenant.as_ref().map(Into::into),
            tenants: ask.tenants.iter().map(Into::into).collect(),
            waited_us: ask.waited_us,
        }
    }
}

impl TryFrom<peer::Ask> for Ask {
    type Error = DecodeError;

    fn try_from(ask: peer::Ask) -> Result<Self, DecodeError> {
        Ok(Self {
            seq: ask.seq,
            pool: PoolId(ask.pool),
            priority: Priority(u8::try_from(ask.priority).map_err(|_| malformed("a priority above 255"))?),
            spend: Spend { tokens: ask.tokens, cost_nano_usd: ask.cost_nano_usd },
            weight: ask.weight,
            tenant: ask.tenant.map(TryInto::try_into).transpose()?,
            tenants: ask.tenants.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            waited_us: ask.waited_us,
        })
    }
}

impl From<&Want> for peer::Want {
    fn from(want: &Want) -> Self {
        Self { pool: want.pool.0, amounts: Some((&want.amounts).into()) }
    }
}

impl TryFrom<peer::Want> for Want {
    type Error = DecodeError;

    fn try_from(want: peer::Want) -> Result<Self, DecodeError> {
        Ok(Self { pool: PoolId(want.pool), amounts: required(want.amounts, "the amounts of a wish")?.into() })
    }
}

impl From<&Reply> for peer::Reply {
    fn from(reply: &Reply) -> Self {
        Self {
            term: reply.term,
            index: reply.index,
            stamp_us: reply.stamp.0,
            who: Some((&reply.who).into()),
            answers_to: reply.answers_to.map(|(number, sent)| peer::Answered { number, sent_us: sent.0 }),
            pools: reply.pools.iter().map(Into::into).collect(),
            answers: reply.answers.iter().map(|(seq, answer)| answer_to(*seq, answer)).collect(),
        }
    }
}

impl TryFrom<peer::Reply> for Reply {
    type Error = DecodeError;

    fn try_from(reply: peer::Reply) -> Result<Self, DecodeError> {
        Ok(Self {
            term: reply.term,
            index: reply.index,
            stamp: Stamp(reply.stamp_us),
            who: required(reply.who, "whom a reply is for")?.into(),
            answers_to: reply.answers_to.map(|answered| (answered.number, Boot(answered.sent_us))),
            pools: reply.pools.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            answers: reply.answers.into_iter().map(answer_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&PoolReply> for peer::PoolReply {
    fn from(reply: &PoolReply) -> Self {
        let Backlog { tokens, requests, level_tokens, level_requests } = &reply.backlog;
        Self {
            pool: reply.pool.0,
            granted: Some((&reply.granted).into()),
            contended: reply.contended,
            backlog_tokens: tokens.clone(),
            backlog_requests: requests.clone(),
            level_tokens: *level_tokens,
            level_requests: *level_requests,
        }
    }
}

impl TryFrom<peer::PoolReply> for PoolReply {
    type Error = DecodeError;

    fn try_from(reply: peer::PoolReply) -> Result<Self, DecodeError> {
        Ok(Self {
            pool: PoolId(reply.pool),
            granted: required(reply.granted, "what a node holds of a pool")?.into(),
            contended: reply.contended,
            backlog: Backlog {
                tokens: reply.backlog_tokens,
                requests: reply.backlog_requests,
                level_tokens: reply.level_tokens,
                level_requests: reply.level_requests,
            },
        })
    }
}

fn answer_to(seq: u64, answer: &Answer) -> peer::Answer {
    let word = match answer {
        Answer::Granted { epoch, hold, position, aged } => peer::answer::Word::Granted(peer::Granted {
            epoch: epoch.0,
            hold: Some(hold.into()),
            position: *position,
            aged: *aged,
        }),
        Answer::Refused { scope, dimension, retry, retry_us } => peer::answer::Word::Refused(peer::Refused {
            scope: Some(scope.into()),
            dimension: peer::Dimension::from(*dimension).into(),
            retry: Some((*retry).into()),
            retry_us: *retry_us,
        }),
    };
    peer::Answer { seq, word: Some(word) }
}

fn answer_from(answer: peer::Answer) -> Result<(u64, Answer), DecodeError> {
    let word = match answer.word.ok_or(DecodeError::UnknownEvent)? {
        peer::answer::Word::Granted(granted) => Answer::Granted {
            epoch: Epoch(granted.epoch),
            hold: required(granted.hold, "the units of a grant")?.try_into()?,
            position: granted.position,
            aged: granted.aged,
        },
        peer::answer::Word::Refused(refused) => Answer::Refused {
            dimension: refused.dimension().try_into()?,
            scope: required(refused.scope, "whose limit refused")?.try_into()?,
            retry: required(refused.retry, "when to come back")?.try_into()?,
            retry_us: refused.retry_us,
        },
    };
    Ok((answer.seq, word))
}
