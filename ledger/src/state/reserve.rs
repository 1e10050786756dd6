//! What the leader gives out: units to admit from in memory, and whole vectors of single requests.

use super::State;
use super::node::Reservation;
use super::tenant::{Claims, Tenant};
use crate::entry::{Amounts, Hold, Outcome, Who};
use crate::model::{PoolId, Spend, TenantLimits, Tenants};
use std::collections::BTreeSet;

impl State {
    /// Leases units to a node, clamped to what there is (L1, L3).
    pub(crate) fn grant(&mut self, who: Who, id: PoolId, amounts: Amounts) -> Outcome {
        if self.nodes.get(&who.node).is_none_or(|row| row.who(who.node) != who) {
            return Outcome::Nothing;
        }
        let Some(pool) = self.pools.get_mut(&id) else { return Outcome::Nothing };
        pool.advance(self.stamp, self.rules);
        if pool.lease_of(who).permits_unsettled || !pool.covers(amounts) {
            return Outcome::Short;
        }
        pool.take(amounts);
        let lease = pool.lease_of(who);
        lease.tokens.granted += amounts.tokens;
        lease.requests.granted += amounts.requests;
        lease.permits.granted += amounts.permits;
        Outcome::Done
    }

    /// Takes one request's vector over its pool and its tenants: all or nothing.
    pub(crate) fn reserve(
        &mut self,
        who: Who,
        seq: u64,
        id: PoolId,
        spend: Spend,
        tenants: &Tenants,
        short: &mut BTreeSet<PoolId>,
    ) -> Outcome {
        let Some(row) = self.nodes.get(&who.node).filter(|row| row.who(who.node) == who) else {
            return Outcome::Stale(self.nodes.get(&who.node).map(|row| row.epoch));
        };
        if let Some(open) = row.open.get(&seq).filter(|open| open.attached && open.epoch == who.epoch) {
            return Outcome::Reserved(open.hold());
        }
        if row.open.contains_key(&seq) || row.has_ended(seq) {
            return Outcome::Nothing;
        }
        let Some(pool) = self.pools.get_mut(&id) else { return Outcome::Nothing };
        pool.advance(self.stamp, self.rules);
        let amounts = pool.cost(spend.tokens);
        if short.contains(&id) || !pool.covers(amounts) {
            short.insert(id);
            return Outcome::Short;
        }
        if let Some(refused) = self.tenants_refuse(spend, tenants) {
            return refused;
        }
        self.reserved += u64::from(!tenants.is_empty());
        let mark = self.reserved;
        let windows = self.windows;
        let holds: Vec<_> = tenants.iter().map(|limits| self.tenant(limits).take(spend, windows, mark)).collect();
        let left = |money| tenants.iter().filter_map(|limits| self.tenants.get(&limits.scope)?.quota_left(money)).min();
        let (quota_left, budget_left) = (left(false), left(true));
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.take(amounts);
            pool.attached_permits += amounts.permits;
        }
        let slot = self.stamp.slot();
        let reservation = Reservation {
            pool: id,
            epoch: who.epoch,
            amounts,
            attached: true,
            tenants: holds,
            quota_left,
            budget_left,
            slot,
        };
        let hold = reservation.hold();
        if let Some(row) = self.nodes.get_mut(&who.node) {
            row.open.insert(seq, reservation);
        }
        Outcome::Reserved(hold)
    }

    fn tenants_refuse(&mut self, spend: Spend, tenants: &Tenants) -> Option<Outcome> {
        tenants.iter().find_map(|limits| {
            let (dimension, retry) = self.tenant(limits).refuses(spend, Claims::default())?;
            Some(Outcome::Refused { scope: limits.scope, dimension, retry })
        })
    }

    /// The tenant's row brought to the present; made when there is none.
    pub(crate) fn tenant(&mut self, limits: &TenantLimits) -> &mut Tenant {
        let tenant = self
            .tenants
            .entry(limits.scope)
            .or_insert_with(|| Tenant::new(*limits, self.windows, self.stamp, self.reserved));
        tenant.touch(Some(limits), self.windows, self.stamp, self.reserved, self.rules);
        tenant
    }
}

impl Reservation {
    pub(crate) fn hold(&self) -> Hold {
        let tenants = !self.tenants.is_empty();
        Hold {
            amounts: self.amounts,
            tenants,
            quota_left: self.quota_left,
            budget_left: self.budget_left,
            slot: self.slot,
        }
    }
}
