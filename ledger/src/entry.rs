//! What stands in the log, and what nodes and leader say to each other. Plain data: what it means is in `state`,
//! `keeper` and `policy`.

use crate::model::{
    Credential, Dimension, Epoch, Incarnation, NodeId, PoolId, PoolLimits, Priority, QuotaKind, Scope, Spend,
    TenantLimits, Tenants, Windows,
};
use crate::time::{Boot, Stamp};
use std::sync::Arc;

/// Where an entry stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub struct LogPos {
    /// The term it was appended in.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term its proposer led; an entry appended in another term is void.
    pub proposer_term: u64,
    /// Ledger time.
    pub stamp: Stamp,
    /// What happens, in order.
    pub ops: Vec<Op>,
}

/// One operation on the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a pool's limits, making the pool when there is none of that name.
    SetPool {
        /// The pool's label.
        name: Arc<str>,
        /// Its limits.
        limits: PoolLimits,
        /// The longest that one of its requests lives; permits of a lost node come back after that.
        request_us_max: u64,
    },
    /// Forgets a pool.
    RemovePool {
        /// The pool's label.
        name: Arc<str>,
    },
    /// A process begins its life on a node.
    NodeUp {
        /// The node.
        node: NodeId,
        /// The machine's boot, to tell a restarted process from a restarted machine.
        boot_id: Arc<str>,
        /// How often the node has started, so that a late or repeated message does not begin another life.
        life: u64,
    },
    /// A node reports and renews its lease.
    Contact {
        /// Who.
        who: Who,
        /// What it did since.
        report: Report,
    },
    /// Ends a silent node's lease.
    Expire {
        /// Whose.
        who: Who,
    },
    /// Frees the permits of lost incarnations whose deadline has passed.
    FreeLost,
    /// Leases units to a node, to admit from in memory.
    Grant {
        /// To whom.
        who: Who,
        /// Of which pool.
        pool: PoolId,
        /// How much.
        amounts: Amounts,
    },
    /// Takes the whole vector of one request, or nothing.
    Reserve {
        /// For whom.
        who: Who,
        /// The request's number, given by its node.
        seq: u64,
        /// Of which pool.
        pool: PoolId,
        /// Worst case of the request; quotas of money count its cost.
        spend: Spend,
        /// The limits of the caller.
        tenants: Tenants,
    },
    /// Lowers what an expired hold was charged, once, within its window.
    Correct {
        /// The reservation's node.
        node: NodeId,
        /// The reservation's incarnation.
        incarnation: Incarnation,
        /// The reservation's number.
        seq: u64,
        /// What the request really used.
        used: Spend,
    },
    /// Begins the next day.
    RollDay {
        /// Days since 1970-01-01 in the quotas' time zone; must be one more than the present one, or the first.
        day: u64,
    },
    /// Drops rows that hold nothing a new row would not.
    Checkpoint,
    /// Refuses a key, or all keys of a tenant, whatever any store of keys says.
    Revoke {
        /// What is refused from now on.
        credential: Credential,
        /// The last day for which it must be remembered: a year after the key's own end, or `u64::MAX`.
        ///
        /// Units: days since 1970-01-01, as in `RollDay`.
        until_day: u64,
    },
    /// Begins the next month.
    RollMonth {
        /// Months since January 1970 in the quotas' time zone; must be one more than the present one, or the first.
        month: u64,
    },
    /// Corrects by hand what a tenant has used of a quota in the present window.
    AdjustQuota {
        /// The tenant, with its limits.
        limits: TenantLimits,
        /// Of which quota.
        kind: QuotaKind,
        /// What is added to what was used; not below zero.
        delta: i64,
        /// Who did it, for the record.
        by: Arc<str>,
    },
    /// Sets a tenant's limits. Reservations that carry an older version are held to these.
    SetTenant {
        /// The limits.
        limits: TenantLimits,
    },
}

/// A node in one incarnation and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Who {
    /// The node.
    pub node: NodeId,
    /// Its process.
    pub incarnation: Incarnation,
    /// Its lease.
    pub epoch: Epoch,
}

/// Units of a pool's three limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Amounts {
    /// Tokens.
    pub tokens: u64,
    /// Requests.
    pub requests: u64,
    /// Requests in flight.
    pub permits: u64,
}

/// Everything a node has to say; cumulative, so that it may be lost, repeated or reordered.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Report {
    /// By pool.
    pub pools: Vec<PoolReport>,
    /// Reservations whose units the counters above now include.
    pub absorbed: Vec<u64>,
    /// Reservations that ended.
    pub ends: Vec<End>,
    /// Every reservation below this number has ended.
    pub low: u64,
}

/// A node's counters of one pool, since its epoch began.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PoolReport {
    /// The pool.
    pub pool: PoolId,
    /// Tokens spent.
    pub tokens_spent: u64,
    /// Tokens given back unspent.
    pub tokens_returned: u64,
    /// Tokens used beyond reservations, since the process began.
    pub tokens_overrun: u64,
    /// Requests spent.
    pub requests_spent: u64,
    /// Requests given back unspent.
    pub requests_returned: u64,
    /// Permits that were in use when the epoch began.
    pub permits_base: u64,
    /// Permits given back.
    pub permits_returned: u64,
    /// Refunds by slot of their reservations.
    pub refunds: Vec<Refund>,
    /// No further refund comes for a slot before this one.
    pub oldest_slot: u64,
}

/// What the reservations of one slot did not use, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Refund {
    /// The slot.
    pub slot: u64,
    /// Tokens.
    pub tokens: u64,
    /// Requests.
    pub requests: u64,
}

/// How a reservation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its number.
    pub seq: u64,
    /// What it used; nothing when it was void.
    pub used: Option<Spend>,
}

/// What applying an entry gave, in the order of its operations.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Applied {
    /// Where it stands.
    pub at: LogPos,
    /// Its proposer's term had ended, so nothing happened.
    pub void: bool,
    /// One for each operation.
    pub outcomes: Vec<Outcome>,
    /// What somebody outside should know of.
    pub effects: Vec<Effect>,
}

/// Something that applying an entry brought about and that concerns the world outside; the leader alone acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A quota's use reached a level for the first time in its window.
    QuotaReached {
        /// Whose.
        scope: Scope,
        /// Which.
        kind: QuotaKind,
        /// In which window.
        window: u64,
        /// The level, in percent of the quota.
        percent: u8,
        /// What is used.
        used: u64,
        /// The quota.
        most: u64,
    },
}

/// What one operation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// The pool's id.
    Pool(PoolId),
    /// The process' incarnation.
    Up(Incarnation),
    /// The named lease is not the present one; here is the present one, if the incarnation lives.
    Stale(Option<Epoch>),
    /// A reservation was made, of these units.
    Reserved(Hold),
    /// The pool has too little; nothing was taken.
    Short,
    /// A tenant's limit refused; nothing was taken.
    Refused {
        /// Whose limit.
        scope: Scope,
        /// Which.
        dimension: Dimension,
        /// When it would do.
        retry: Retry,
    },
    /// There is nothing to act on, or it was done before.
    Nothing,
}

/// When a refused request may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At this ledger time.
    At(Stamp),
    /// When the day's quota begins anew.
    NextDay,
    /// When the month's quota begins anew.
    NextMonth,
    /// When another request of the tenant ends.
    OnRelease,
    /// Never under this limit: it holds at most so much.
    Never(u64),
}

/// The pool's units that a reservation took, and whether tenants' holds go on until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Hold {
    /// What the node adds to its counters when it starts the request.
    pub amounts: Amounts,
    /// The node must report its end.
    pub tenants: bool,
    /// Tokens left of the smallest quota of tokens.
    pub quota_left: Option<u64>,
    /// Nano-USD left of the smallest quota of money.
    pub budget_left: Option<u64>,
    /// The slot of ledger time in which it was made: its refunds count from there.
    pub slot: u64,
}

/// A request that waits for the leader's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its number, given by its node.
    pub seq: u64,
    /// Of which pool.
    pub pool: PoolId,
    /// How urgent.
    pub priority: Priority,
    /// Worst case, prompt and output, and what that costs.
    pub spend: Spend,
    /// What it weighs among tenants of one priority.
    pub weight: u64,
    /// Whose it is, for fairness.
    pub tenant: Option<Scope>,
    /// The limits of the caller.
    pub tenants: Tenants,
    /// How long it has waited.
    ///
    /// Units: microseconds.
    pub waited_us: u64,
}

/// What a node would like to have more of a pool, to admit from in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The pool.
    pub pool: PoolId,
    /// Units beyond those at hand.
    pub amounts: Amounts,
}

/// A node's message to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub who: Who,
    /// Number of this message.
    pub number: u64,
    /// When it was sent, by the node's clock; the answer carries it back.
    pub sent: Boot,
    /// The windows that its wall clock shows.
    pub windows: Windows,
    /// What the node did.
    pub report: Report,
    /// Requests that wait, and that the leader may not know.
    pub asks: Vec<Ask>,
    /// What it would like to hold.
    pub wants: Vec<Want>,
}

/// The leader's message to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The leader's term.
    pub term: u64,
    /// Log index that it speaks of.
    pub index: u64,
    /// Ledger time.
    pub stamp: Stamp,
    /// To whom.
    pub who: Who,
    /// Which message it answers: number and sending time; none when the leader speaks first.
    pub answers_to: Option<(u64, Boot)>,
    /// The node's pools.
    pub pools: Vec<PoolReply>,
    /// Decisions.
    pub answers: Vec<(u64, Answer)>,
}

/// What a node holds of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PoolReply {
    /// The pool.
    pub pool: PoolId,
    /// Units granted since the epoch began.
    pub granted: Amounts,
    /// Others wait: give back what is unspent, admit nothing from memory.
    pub contended: bool,
    /// What waits over the cluster and what there is.
    pub backlog: Backlog,
}

/// What waits at a pool, for the estimate of Retry-After.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Tokens that wait, by effective priority; debt counts as the most urgent.
    pub tokens: Vec<u64>,
    /// Requests that wait, by effective priority.
    pub requests: Vec<u64>,
    /// Tokens at hand.
    pub level_tokens: u64,
    /// Requests at hand.
    pub level_requests: u64,
}

/// The leader's word on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may go, within the lease of this epoch.
    Granted {
        /// The epoch it was granted in.
        epoch: Epoch,
        /// What it holds.
        hold: Hold,
        /// Its place in the queue when it came, from 1; none when it did not wait.
        position: Option<u32>,
        /// It overtook its own priority by aging.
        aged: bool,
    },
    /// A tenant's limit refused it.
    Refused {
        /// Whose.
        scope: Scope,
        /// Which.
        dimension: Dimension,
        /// When it would do.
        retry: Retry,
        /// Microseconds until then, by ledger time.
        retry_us: u64,
    },
}
