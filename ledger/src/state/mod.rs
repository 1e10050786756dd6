//! The state machine: what every node computes from the log, the same everywhere.
//!
//! [`State::apply`] is total and pure. It validates, then mutates, and only clamps to the invariants: who gets what is
//! the policy's choice, and a buggy or stale leader cannot break a limit. A refusal is a value.

mod bucket;
mod contact;
mod digest;
mod headroom;
mod node;
mod pool;
mod quota;
mod reserve;
mod revoked;
mod tenant;
mod view;

#[cfg(test)]
mod tests;

pub use bucket::Bucket;
pub use digest::Digest;
pub use node::NodeRow;
pub(crate) use pool::Balance;
pub use pool::Pool;
pub use tenant::{Claims, Tenant};
pub use view::{BucketView, PoolView, QuotaView, TenantView};

use crate::entry::{Amounts, Applied, Effect, Entry, LogPos, Op, Outcome, Who};
use crate::model::{Incarnation, NodeId, PoolId, PoolLimits, QuotaKind, Scope, Spend, TenantLimits, Windows};
use crate::rules::Rules;
use crate::time::{LEASE_US, Stamp};
use node::Charged;
use revoked::Revoked;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The capacity ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub(crate) at: LogPos,
    pub(crate) stamp: Stamp,
    pub(crate) windows: Windows,
    pub(crate) pools: BTreeMap<PoolId, Pool>,
    pub(crate) names: BTreeMap<Arc<str>, PoolId>,
    pub(crate) next_pool: u32,
    pub(crate) nodes: BTreeMap<NodeId, NodeRow>,
    pub(crate) tenants: BTreeMap<Scope, Tenant>,
    pub(crate) charged: BTreeMap<(NodeId, Incarnation, u64), Vec<Charged>>,
    /// Raised whenever a pool's limits change, so that nodes see it without comparing them all.
    pub(crate) pools_version: u64,
    /// How many reservations took from tenants; refunds to tenants go by it.
    pub(crate) reserved: u64,
    pub(crate) revoked: Revoked,
    /// Raised whenever a tenant's limits are set, so that nodes know to look at them.
    pub(crate) limits_version: u64,
    /// Of the entry that is being applied; empty between entries.
    #[serde(skip)]
    pub(crate) effects: Vec<Effect>,
    #[serde(skip)]
    pub(crate) rules: Rules,
}

impl State {
    /// An empty ledger.
    pub fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Applies the entry at `at`. An entry whose proposer no longer led when it was appended is void.
    ///
    /// Invariant L7: the ledger's time never decreases.
    pub fn apply(&mut self, at: LogPos, entry: &Entry) -> Applied {
        self.at = at;
        if entry.proposer_term != at.term {
            return Applied { at, void: true, outcomes: Vec::new(), effects: Vec::new() };
        }
        self.stamp = self.stamp.max(entry.stamp);
        // Once a pool was short within an entry, nothing behind in its queue may pass.
        let mut short = BTreeSet::new();
        let outcomes = entry.ops.iter().map(|op| self.apply_op(op, &mut short)).collect();
        Applied { at, void: false, outcomes, effects: std::mem::take(&mut self.effects) }
    }

    fn apply_op(&mut self, op: &Op, short: &mut BTreeSet<PoolId>) -> Outcome {
        match op {
            Op::SetPool { name, limits, request_us_max } => self.set_pool(name, *limits, *request_us_max),
            Op::RemovePool { name } => self.remove_pool(name),
            Op::NodeUp { node, boot_id, life } => self.node_up(*node, boot_id, *life),
            Op::Contact { who, report } => self.contact(*who, report),
            Op::Expire { who } => self.expire_if_due(*who),
            Op::FreeLost => self.free_lost(),
            Op::Grant { who, pool, amounts } => self.grant(*who, *pool, *amounts),
            Op::Reserve { who, seq, pool, spend, tenants } => self.reserve(*who, *seq, *pool, *spend, tenants, short),
            Op::Correct { node, incarnation, seq, used } => self.correct(*node, *incarnation, *seq, *used),
            Op::RollDay { day } => self.roll_day(*day),
            Op::RollMonth { month } => self.roll_month(*month),
            Op::AdjustQuota { limits, kind, delta, by: _ } => self.adjust_quota(limits, *kind, *delta),
            Op::Checkpoint => self.checkpoint(),
            Op::Revoke { credential, until_day } => self.revoked.revoke(*credential, *until_day),
            Op::SetTenant { limits } => self.set_tenant(limits),
        }
    }

    fn set_pool(&mut self, name: &Arc<str>, limits: PoolLimits, request_us_max: u64) -> Outcome {
        self.pools_version += 1;
        if let Some(id) = self.names.get(name).copied() {
            let Some(pool) = self.pools.get_mut(&id) else { return Outcome::Nothing };
            pool.advance(self.stamp, self.rules);
            pool.set_limits(limits, request_us_max, self.stamp);
            return Outcome::Pool(id);
        }
        let id = PoolId(self.next_pool);
        self.next_pool += 1;
        self.names.insert(name.clone(), id);
        self.pools.insert(id, Pool::new(name.clone(), limits, request_us_max, self.stamp));
        Outcome::Pool(id)
    }

    fn remove_pool(&mut self, name: &str) -> Outcome {
        let Some(id) = self.names.remove(name) else { return Outcome::Nothing };
        self.pools_version += 1;
        self.pools.remove(&id);
        Outcome::Done
    }

    fn node_up(&mut self, node: NodeId, boot_id: &Arc<str>, life: u64) -> Outcome {
        match self.nodes.get(&node) {
            Some(row) if row.life == life => return Outcome::Up(row.incarnation),
            Some(row) if row.life > life => return Outcome::Nothing,
            _ => {}
        }
        let incarnation = Incarnation(self.at.index);
        if let Some(old) = self.nodes.remove(&node) {
            self.lose(node, old, boot_id);
        }
        self.nodes.insert(node, NodeRow::new(incarnation, boot_id.clone(), life, self.stamp));
        Outcome::Up(incarnation)
    }

    /// Settles what a lost incarnation left behind: rate units are burned, quotas charged in full, permits freed at
    /// once when the machine still runs (its kernel closed the connections), else after the longest request.
    fn lose(&mut self, node: NodeId, mut old: NodeRow, boot_id: &Arc<str>) {
        let same_boot = !old.boot_id.is_empty() && old.boot_id == *boot_id;
        self.expire(node, &mut old);
        let mut request_us_max = 0;
        for pool in self.pools.values_mut() {
            request_us_max = request_us_max.max(pool.request_us_max);
            let Some(lease) = pool.leases.remove(&node) else { continue };
            let back = Stamp(old.renewed.0 + LEASE_US + pool.request_us_max);
            if lease.permits.out() > 0 && !same_boot {
                pool.lost.push((back, lease.permits.out()));
            }
        }
        let back = Stamp(old.renewed.0 + LEASE_US + request_us_max);
        for (seq, reservation) in old.open {
            let mut charges = Vec::new();
            for hold in reservation.tenants {
                let Some(tenant) = self.tenants.get_mut(&hold.scope) else { continue };
                tenant.touch(None, self.windows, self.stamp, self.reserved, self.rules);
                tenant.end(&hold, Some(hold.spend), self.rules, &mut self.effects);
                if hold.permit_held && !same_boot {
                    tenant.lost.push((back, 1));
                }
                if hold.quotas.any() {
                    charges.push(Charged { scope: hold.scope, quotas: hold.quotas, spend: hold.spend });
                }
            }
            if !charges.is_empty() {
                self.charged.insert((node, old.incarnation, seq), charges);
            }
        }
    }

    fn expire_if_due(&mut self, who: Who) -> Outcome {
        let Some(row) = self.nodes.get(&who.node) else { return Outcome::Nothing };
        if row.who(who.node) != who || self.stamp.0 < row.renewed.0 + LEASE_US {
            return Outcome::Nothing;
        }
        let Some(mut row) = self.nodes.remove(&who.node) else { return Outcome::Nothing };
        self.expire(who.node, &mut row);
        self.nodes.insert(who.node, row);
        Outcome::Done
    }

    /// Burns a node's leased units and raises its epoch. Reservations that it has not started lose their units too;
    /// their permits wait, with the others, for the node's word.
    pub(crate) fn expire(&mut self, node: NodeId, row: &mut NodeRow) {
        row.epoch.0 += 1;
        let mut done = Vec::new();
        for (&seq, reservation) in row.open.iter_mut().filter(|(_, reservation)| reservation.attached) {
            reservation.attached = false;
            if let Some(pool) = self.pools.get_mut(&reservation.pool) {
                pool.advance(self.stamp, self.rules);
                let who = Who { node, incarnation: row.incarnation, epoch: reservation.epoch };
                pool.lease_of(who).permits.granted += reservation.amounts.permits;
                pool.attached_permits -= reservation.amounts.permits;
                pool.burn(Amounts { permits: 0, ..reservation.amounts }, self.rules);
            }
            if reservation.tenants.is_empty() {
                done.push(seq);
            }
        }
        for seq in done {
            row.open.remove(&seq);
            row.close(seq);
        }
        for pool in self.pools.values_mut() {
            pool.advance(self.stamp, self.rules);
            pool.expire(node, row.epoch, self.rules);
        }
    }

    fn free_lost(&mut self) -> Outcome {
        let now = self.stamp;
        for tenant in self.tenants.values_mut() {
            tenant.lost.retain(|&(back, _)| back > now);
        }
        for pool in self.pools.values_mut() {
            pool.lost.retain(|&(back, _)| back > now);
            for (node, lease) in &mut pool.leases {
                let Some(row) = self.nodes.get(node) else { continue };
                if lease.permits_unsettled && row.renewed.0 + LEASE_US + pool.request_us_max <= now.0 {
                    lease.permits = pool::Balance::default();
                }
            }
        }
        Outcome::Done
    }

    fn correct(&mut self, node: NodeId, incarnation: Incarnation, seq: u64, used: Spend) -> Outcome {
        let Some(charges) = self.charged.remove(&(node, incarnation, seq)) else { return Outcome::Nothing };
        for charge in charges {
            if let Some(tenant) = self.tenants.get_mut(&charge.scope) {
                tenant.correct(&charge, used);
            }
        }
        Outcome::Done
    }

    fn roll_day(&mut self, day: u64) -> Outcome {
        if self.windows.day != 0 && day != self.windows.day + 1 {
            return Outcome::Nothing;
        }
        self.windows.day = day;
        self.close_windows()
    }

    fn roll_month(&mut self, month: u64) -> Outcome {
        if self.windows.month != 0 && month != self.windows.month + 1 {
            return Outcome::Nothing;
        }
        self.windows.month = month;
        self.close_windows()
    }

    /// Forgets charges that no open window can be corrected by.
    fn close_windows(&mut self) -> Outcome {
        let windows = self.windows;
        self.charged.retain(|_, charges| charges.iter().any(|charge| charge.quotas.is_open(windows)));
        Outcome::Done
    }

    fn adjust_quota(&mut self, limits: &TenantLimits, kind: QuotaKind, delta: i64) -> Outcome {
        let mut effects = std::mem::take(&mut self.effects);
        let outcome = self.tenant(limits).adjust(kind, delta, &mut effects);
        self.effects = effects;
        outcome
    }

    /// Sets a tenant's limits unless newer ones are known. The row is kept for a while even if it holds nothing, since
    /// nodes may yet bring an older copy.
    fn set_tenant(&mut self, limits: &TenantLimits) -> Outcome {
        if self.tenants.get(&limits.scope).is_some_and(|tenant| tenant.limits.version >= limits.version) {
            return Outcome::Nothing;
        }
        let day = self.windows.day;
        self.tenant(limits).set_on = Some(day);
        self.limits_version += 1;
        Outcome::Done
    }

    fn checkpoint(&mut self) -> Outcome {
        for tenant in self.tenants.values_mut() {
            tenant.touch(None, self.windows, self.stamp, self.reserved, self.rules);
        }
        self.tenants.retain(|_, tenant| !tenant.is_idle(self.windows.day));
        self.revoked.forget_before(self.windows.day);
        Outcome::Done
    }
}
