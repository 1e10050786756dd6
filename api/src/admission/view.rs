//! What admission shows of limits and of the group: to headers and metrics, and to the admin routes.

use super::clock_now;
use super::door::Shared;
use super::keys::KeyLedger;
use super::start::Seed;
use crate::admin::{AdminError, PoolAdmin, PoolChange, PoolUsage, PoolView};
use crate::board::{Board, Health, PoolGauge, RateGauge, Rates};
use futures_util::future::BoxFuture;
use ledger::entry::Op;
use ledger::model::{NodeId, PoolLimits, Rate, Tenants};
use ledger::state::{BucketView, PoolView as LedgerPool};
use ledger::time::{Boot, lease_end};
use raft::{Leader, Unproposed};
use std::sync::Arc;
use std::time::Duration;

/// Limits, their use, and the group, as this node sees them.
pub struct Capacity {
    shared: Arc<Shared>,
    pub(super) leader: Leader,
    pub(super) node: NodeId,
    seeds: Vec<Seed>,
}

impl Capacity {
    pub(super) fn new(shared: Arc<Shared>, leader: Leader, node: NodeId, seeds: Vec<Seed>) -> Self {
        Self { shared, leader, node, seeds }
    }

    /// The ledger's word on keys.
    pub fn keys(&self) -> KeyLedger {
        KeyLedger::new(self.leader.clone())
    }

    fn pool(&self, name: &str) -> Option<LedgerPool> {
        let stamp = self.leader.stamp();
        self.leader.with_state(|state| state.pool(name, stamp))
    }

    /// A pool as people see it: what this node holds unspent counts as at hand.
    fn shown(&self, pool: &LedgerPool) -> PoolView {
        let (_, tokens, requests) = self.shared.lock().keeper.holds(pool.id);
        let seed = self.seeds.iter().find(|seed| seed.name == pool.name);
        let context = seed.and_then(|seed| seed.context);
        let mut view = PoolView::of(&pool.name, &pool.limits, context);
        view.usage = PoolUsage {
            tokens_level: pool.tokens.map(|bucket| bucket.level + tokens),
            requests_level: pool.requests.map(|bucket| bucket.level + requests),
            in_flight: self.in_flight(pool),
            waiting: self.shared.waiting_at(pool.id),
        };
        let differs = seed.filter(|seed| seed.limits != pool.limits);
        view.in_file = differs.map(|seed| PoolView::of(&pool.name, &seed.limits, context).limits);
        view
    }

    /// Permits in use: on this node as they are, on others as the ledger has leased them.
    fn in_flight(&self, pool: &LedgerPool) -> u64 {
        let (in_flight, ..) = self.shared.lock().keeper.holds(pool.id);
        let own = self.leader.with_state(|state| state.permits_of(self.node, pool.id));
        in_flight + pool.permits_out.saturating_sub(own)
    }

    async fn propose(&self, op: Op) -> Result<(), AdminError> {
        match self.leader.propose(vec![op]).await {
            Ok(_) => {
                self.shared.learn_pools();
                Ok(())
            }
            Err(Unproposed::NotLeader { .. } | Unproposed::Stopped(_)) => {
                Err(AdminError::Unavailable("the ledger".to_owned()))
            }
            Err(Unproposed::Indeterminate) => {
                Err(AdminError::Indeterminate("look at the pool before you try again".to_owned()))
            }
        }
    }

    async fn change(&self, name: String, change: PoolChange) -> Result<PoolView, AdminError> {
        if change.context.is_some() {
            return Err(AdminError::invalid("context", "is set in the configuration: max_context_length of the pool"));
        }
        let Some(seed) = self.seeds.iter().find(|seed| *seed.name == *name) else {
            let nearest = crate::nearest(&name, self.seeds.iter().map(|seed| &*seed.name)).map(str::to_owned);
            return Err(AdminError::UnknownPool { name, nearest });
        };
        let now = self.pool(&name).map(|pool| pool.limits).unwrap_or_default();
        let limits = change.over(now)?;
        let request_us_max = u64::try_from(seed.request_max.as_micros()).unwrap_or(u64::MAX);
        self.propose(Op::SetPool { name: name.as_str().into(), limits, request_us_max }).await?;
        let pool = self.pool(&name).ok_or_else(|| AdminError::NotFound("pool".to_owned()))?;
        Ok(self.shown(&pool))
    }

    /// A configured pool without limits is unlimited; one that no configuration names goes.
    async fn forget(&self, name: String) -> Result<(), AdminError> {
        if self.pool(&name).is_none() {
            return Err(AdminError::NotFound("pool".to_owned()));
        }
        match self.seeds.iter().find(|seed| *seed.name == *name) {
            Some(seed) => {
                let request_us_max = u64::try_from(seed.request_max.as_micros()).unwrap_or(u64::MAX);
                let limits = PoolLimits::default();
                self.propose(Op::SetPool { name: seed.name.clone(), limits, request_us_max }).await
            }
            None => self.propose(Op::RemovePool { name: name.as_str().into() }).await,
        }
    }
}

impl Board for Capacity {
    fn rates(&self, pool: &str, tenants: &Tenants) -> Rates {
        let stamp = self.leader.stamp();
        let (pool, of_tenants) = self.leader.with_state(|state| {
            let of_tenants = tenants.iter().map(|limits| (limits, state.tenant_view(limits.scope, stamp)));
            (state.pool(pool, stamp), of_tenants.collect::<Vec<_>>())
        });
        let Some(pool) = pool else { return Rates::default() };
        let (_, tokens, requests) = self.shared.lock().keeper.holds(pool.id);
        let mut rates = Rates {
            requests: pool.requests.map(|bucket| gauge(bucket, requests)),
            tokens: pool.tokens.map(|bucket| gauge(bucket, tokens)),
        };
        for (limits, view) in of_tenants {
            let full = |limit| BucketView { limit, level: limit.burst, outstanding: 0, debt: 0 };
            let bucket = |kept: Option<BucketView>, limit: Option<_>| kept.or_else(|| limit.map(full));
            let requests = bucket(view.as_ref().and_then(|view| view.requests), limits.requests);
            let tokens = bucket(view.as_ref().and_then(|view| view.tokens), limits.tokens);
            rates.requests = tightest(rates.requests, requests.map(|bucket| gauge(bucket, 0)));
            rates.tokens = tightest(rates.tokens, tokens.map(|bucket| gauge(bucket, 0)));
        }
        rates
    }

    fn pools(&self) -> Vec<PoolGauge> {
        let stamp = self.leader.stamp();
        let pools = self.leader.with_state(|state| state.pools(stamp));
        let gauges = pools.iter().map(|pool| {
            let (_, tokens, requests) = self.shared.lock().keeper.holds(pool.id);
            let used = |bucket: Option<BucketView>, held: u64| {
                bucket.map_or(0, |bucket| bucket.limit.burst.saturating_sub(bucket.level + held))
            };
            PoolGauge {
                pool: pool.name.to_string(),
                limits: pool.limits,
                tokens_used: used(pool.tokens, tokens),
                requests_used: used(pool.requests, requests),
                in_flight: self.in_flight(pool),
            }
        });
        gauges.collect()
    }

    fn waiting(&self) -> Vec<u64> {
        self.shared.waiting()
    }

    fn starvation_prevented(&self) -> u64 {
        self.shared.aged()
    }

    fn inversion_max(&self) -> Duration {
        self.leader.inversion_max()
    }

    fn lease_age(&self) -> Option<Duration> {
        let until = self.shared.lock().keeper.lease_until();
        let sent_us = until.0.checked_sub(lease_end(Boot(0)).0)?;
        Some(Duration::from_micros(clock_now().0.saturating_sub(sent_us)))
    }

    fn health(&self) -> Health {
        if self.leader.group().fatal().borrow().is_some() {
            return Health::NotReady("this node's part in the group ended");
        }
        if self.shared.is_cut_off() {
            return Health::NotReady("no contact with a majority of the group");
        }
        Health::Ready
    }
}

impl PoolAdmin for Capacity {
    fn list(&self) -> BoxFuture<'_, Result<Vec<PoolView>, AdminError>> {
        let stamp = self.leader.stamp();
        let pools = self.leader.with_state(|state| state.pools(stamp));
        let views = pools.iter().map(|pool| self.shown(pool)).collect();
        Box::pin(async move { Ok(views) })
    }

    fn set(&self, pool: String, change: PoolChange) -> BoxFuture<'_, Result<PoolView, AdminError>> {
        Box::pin(self.change(pool, change))
    }

    fn remove(&self, pool: String) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(self.forget(pool))
    }
}

fn gauge(bucket: BucketView, held: u64) -> RateGauge {
    let remaining = (bucket.level + held).min(bucket.limit.burst);
    let missing = bucket.limit.burst - remaining + bucket.debt;
    RateGauge { limit: bucket.limit.burst, remaining, reset: filling(missing, bucket.limit.rate) }
}

fn filling(units: u64, rate: Rate) -> Duration {
    let us = u128::from(units) * u128::from(rate.per_us) / u128::from(rate.units.max(1));
    Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX))
}

fn tightest(one: Option<RateGauge>, other: Option<RateGauge>) -> Option<RateGauge> {
    match (one, other) {
        (Some(one), Some(other)) if other.remaining < one.remaining => Some(other),
        (one, other) => one.or(other),
    }
}
