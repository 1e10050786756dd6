//! What others may read of the state: the leader's policy, metrics, and the admin's tables.

use super::{Bucket, Claims, NodeRow, Pool, State, Tenant};
use crate::entry::{LogPos, Retry, Who};
use crate::model::{
    BucketLimit, Credential, Dimension, Incarnation, NodeId, PoolId, PoolLimits, QuotaKind, QuotaLimit, Scope, Spend,
    TenantLimits, Windows,
};
use crate::time::{LEASE_US, Stamp};
use std::sync::Arc;

/// A pool, as read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// Its id.
    pub id: PoolId,
    /// Its label.
    pub name: Arc<str>,
    /// Its limits.
    pub limits: PoolLimits,
    /// The longest that a request lives.
    pub request_us_max: u64,
    /// Tokens.
    pub tokens: Option<BucketView>,
    /// Requests.
    pub requests: Option<BucketView>,
    /// Permits that nodes hold, used or not.
    pub permits_out: u64,
    /// Why nothing is granted any more, if so.
    pub frozen: Option<String>,
}

/// A bucket, as read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketView {
    /// Its limit.
    pub limit: BucketLimit,
    /// Units at hand.
    pub level: u64,
    /// Units with nodes.
    pub outstanding: u64,
    /// Units still owed.
    pub debt: u64,
}

/// A quota, as read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaView {
    /// Which.
    pub kind: QuotaKind,
    /// Its limit.
    pub limit: QuotaLimit,
    /// The present window.
    pub window: u64,
    /// What is used of it.
    pub used: u64,
    /// What open reservations hold of it.
    pub pending: u64,
    /// What was used in the window before.
    pub used_before: u64,
}

/// A tenant, as read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantView {
    /// Its limits.
    pub limits: TenantLimits,
    /// Its quotas.
    pub quotas: Vec<QuotaView>,
    /// Requests in flight.
    pub permits: u64,
    /// Requests over time.
    pub requests: Option<BucketView>,
    /// Tokens over time.
    pub tokens: Option<BucketView>,
}

impl State {
    /// Where the log has been applied to.
    pub fn at(&self) -> LogPos {
        self.at
    }

    /// Ledger time.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The windows that quotas count for.
    pub fn windows(&self) -> Windows {
        self.windows
    }

    /// Changes whenever a pool's limits do.
    pub fn pools_version(&self) -> u64 {
        self.pools_version
    }

    /// Every pool at `now`.
    pub fn pools(&self, now: Stamp) -> Vec<PoolView> {
        self.pools.iter().map(|(&id, pool)| pool_view(id, pool, now)).collect()
    }

    /// One pool at `now`.
    pub fn pool(&self, name: &str, now: Stamp) -> Option<PoolView> {
        let id = *self.names.get(name)?;
        Some(pool_view(id, self.pools.get(&id)?, now))
    }

    /// Permits of a pool that a node holds, as the ledger has it.
    pub fn permits_of(&self, node: NodeId, pool: PoolId) -> u64 {
        let attached = |row: &NodeRow| {
            let open = row.open.values().filter(|reservation| reservation.attached && reservation.pool == pool);
            open.map(|reservation| reservation.amounts.permits).sum::<u64>()
        };
        let leased = self.pools.get(&pool).and_then(|pool| pool.leases.get(&node)).map(|lease| lease.permits.out());
        leased.unwrap_or(0) + self.nodes.get(&node).map_or(0, attached)
    }

    /// Reservations of earlier lives of a node that were charged in full and may yet be corrected.
    pub fn charged(&self, node: NodeId) -> Vec<(Incarnation, u64)> {
        let charged = self.charged.keys().filter(|(owner, ..)| *owner == node);
        charged.map(|&(_, incarnation, seq)| (incarnation, seq)).collect()
    }

    /// One tenant at `now`.
    pub fn tenant_view(&self, scope: Scope, now: Stamp) -> Option<TenantView> {
        let mut tenant = self.tenants.get(&scope)?.clone();
        tenant.quotas.iter_mut().for_each(|quota| quota.roll(self.windows));
        let quotas = tenant.quotas_in_force().map(|(quota, limit)| QuotaView {
            kind: quota.kind,
            limit,
            window: quota.now.index,
            used: quota.now.used,
            pending: quota.now.pending,
            used_before: quota.last.used,
        });
        Some(TenantView {
            limits: tenant.limits,
            quotas: quotas.collect(),
            permits: tenant.permits,
            requests: tenant.requests.as_ref().map(|bucket| bucket_view(bucket, now)),
            tokens: tenant.tokens.as_ref().map(|bucket| bucket_view(bucket, now)),
        })
    }

    /// Whether a key must be refused, by its SHA-256, whatever any store of keys says.
    pub fn is_revoked(&self, hash: &[u8; 32]) -> bool {
        self.revoked.contains(Credential::Hash(*hash))
    }

    /// Whether every key of a tenant must be refused.
    pub fn is_scope_revoked(&self, scope: Scope) -> bool {
        self.revoked.contains(Credential::Scope(scope))
    }

    /// Changes whenever what is revoked does: whoever keeps keys then asks again which of them are.
    pub fn revoked_version(&self) -> u64 {
        self.revoked.version
    }

    /// The limits that a tenant is held to, if the ledger has a row of it. They bind only above the version at hand.
    pub fn limits_of(&self, scope: Scope) -> Option<TenantLimits> {
        self.tenants.get(&scope).map(|tenant| tenant.limits)
    }

    /// Changes whenever an operation sets a tenant's limits: whoever keeps limits then compares versions.
    pub fn limits_version(&self) -> u64 {
        self.limits_version
    }

    /// Why a tenant's limit would refuse a request now, beside what waits already.
    pub fn tenant_refuses(
        &self,
        limits: &TenantLimits,
        spend: Spend,
        claims: Claims,
        now: Stamp,
    ) -> Option<(Dimension, Retry)> {
        let mut tenant = match self.tenants.get(&limits.scope) {
            Some(tenant) => tenant.clone(),
            None => Tenant::new(*limits, self.windows, now, self.reserved),
        };
        tenant.touch(Some(limits), self.windows, now, self.reserved, self.rules);
        tenant.refuses(spend, claims)
    }

    /// The present lease of a node.
    pub fn who(&self, node: NodeId) -> Option<Who> {
        self.nodes.get(&node).map(|row| row.who(node))
    }

    /// A node's row.
    pub fn node(&self, node: NodeId) -> Option<&NodeRow> {
        self.nodes.get(&node)
    }

    /// Every node.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeRow)> {
        self.nodes.iter().map(|(&node, row)| (node, row))
    }

    /// Leases that nobody renewed in time and that still hold something.
    pub(crate) fn due_expiries(&self, now: Stamp) -> impl Iterator<Item = Who> + '_ {
        let due = self.nodes.iter().filter(move |(_, row)| now.0 >= row.renewed.0 + LEASE_US);
        due.filter(|&(&node, row)| self.holds_units(node, row)).map(|(&node, row)| row.who(node))
    }

    /// When the next lease ends unless it is renewed, or a lost permit comes back.
    pub(crate) fn next_expiry(&self) -> Option<Stamp> {
        let holding = self.nodes.iter().filter(|&(&node, row)| self.holds_units(node, row));
        let leases = holding.map(|(_, row)| Stamp(row.renewed.0 + LEASE_US));
        leases.chain(self.lost_dues()).min()
    }

    /// Whether permits of lost incarnations come back at `now`.
    pub(crate) fn lost_is_due(&self, now: Stamp) -> bool {
        self.lost_dues().any(|due| due <= now)
    }

    fn lost_dues(&self) -> impl Iterator<Item = Stamp> + '_ {
        let pools = self.pools.values().flat_map(|pool| pool.lost.iter().map(|&(back, _)| back));
        let tenants = self.tenants.values().flat_map(|tenant| tenant.lost.iter().map(|&(back, _)| back));
        let silent = self.pools.values().flat_map(move |pool| {
            let held = pool.leases.iter().filter(|(_, lease)| lease.permits_unsettled && lease.permits.out() > 0);
            held.filter_map(|(node, _)| {
                let row = self.nodes.get(node)?;
                Some(Stamp(row.renewed.0 + LEASE_US + pool.request_us_max))
            })
        });
        pools.chain(tenants).chain(silent)
    }

    /// Whether a node holds anything that its lease's end takes away, or puts in doubt.
    pub(crate) fn holds_units(&self, node: NodeId, row: &NodeRow) -> bool {
        row.open.values().any(|reservation| reservation.attached)
            || self.pools.values().filter_map(|pool| pool.leases.get(&node)).any(|lease| {
                let permits = if lease.permits_unsettled { 0 } else { lease.permits.out() };
                lease.tokens.out() + lease.requests.out() + permits > 0
            })
    }

    #[cfg(test)]
    pub(crate) fn has_open(&self, node: u64, seq: u64) -> bool {
        self.nodes.get(&NodeId(node)).is_some_and(|row| row.open.contains_key(&seq))
    }

    /// Units that are out on any resource: zero after quiet.
    pub fn outstanding(&self) -> u64 {
        let out = |bucket: &Option<Bucket>| bucket.as_ref().map_or(0, |bucket| bucket.outstanding);
        let pools = self.pools.values().map(|pool| out(&pool.tokens) + out(&pool.requests) + pool.permits_out());
        let pending = |tenant: &Tenant| {
            let windows = tenant.quotas.iter().flat_map(|quota| [(quota.kind, quota.now), (quota.kind, quota.last)]);
            let open = windows.filter(|(kind, window)| window.index + 1 >= self.windows.of(*kind));
            open.map(|(_, window)| window.pending).fold(0, u64::saturating_add)
        };
        let tenants = self.tenants.values().map(|tenant| tenant.permits.saturating_add(pending(tenant)));
        pools.sum::<u64>() + tenants.sum::<u64>()
    }

    /// What is wrong with the ledger, if anything: L1, L3, L4, L5.
    pub fn breach(&self) -> Option<String> {
        for pool in self.pools.values() {
            if let Some(why) = pool.breach(self.rules) {
                return Some(format!("{}: {why}", pool.name));
            }
        }
        for tenant in self.tenants.values() {
            let buckets = [&tenant.requests, &tenant.tokens];
            if let Some(why) = buckets.into_iter().flatten().find_map(|bucket| bucket.breach(self.rules)) {
                return Some(format!("{:?}: {why}", tenant.limits.scope));
            }
        }
        None
    }
}

fn pool_view(id: PoolId, pool: &Pool, now: Stamp) -> PoolView {
    let view = |bucket: &Bucket| bucket_view(bucket, now);
    PoolView {
        id,
        name: pool.name.clone(),
        limits: pool.limits,
        request_us_max: pool.request_us_max,
        tokens: pool.limits.tokens.and(pool.tokens.as_ref()).map(view),
        requests: pool.limits.requests.and(pool.requests.as_ref()).map(view),
        permits_out: pool.permits_out(),
        frozen: pool.frozen.clone(),
    }
}

fn bucket_view(bucket: &Bucket, now: Stamp) -> BucketView {
    BucketView { limit: bucket.limit, level: bucket.level_at(now), outstanding: bucket.outstanding, debt: bucket.debt }
}

impl NodeRow {
    /// When the lease was last renewed.
    pub fn renewed(&self) -> Stamp {
        self.renewed
    }
}
