//! How admission begins: the node is announced to the ledger, pools are seeded, what earlier lives left is charged.

use super::door::Shared;
use super::{Admission, Capacity};
use crate::calendar::Calendar;
use crate::config::{Config, Policy};
use crate::prices::{Prices, price_of};
use crate::usage::{Journal, LastLife};
use ledger::entry::{Op, Outcome};
use ledger::model::{Incarnation, NodeId, PoolLimits, Spend};
use ledger::policy;
use raft::{Group, Leader, Replica, Unproposed, clock};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often the node is announced again while nobody leads.
const AGAIN: Duration = Duration::from_millis(200);

/// How long a start waits for the group's leader before the node serves without one.
const START_WITHIN: Duration = Duration::from_secs(5);

/// How admission works on this node.
#[derive(Clone)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// Which start of the node this is ([`raft::starts::next`]).
    pub life: u64,
    /// False: every request passes, and limits do not count.
    pub enabled: bool,
    /// How the leader schedules.
    pub policy: policy::Config,
    /// Most requests that wait, per pool and priority.
    pub queue_depth: usize,
    /// How long requests queue without an answer of the leader.
    pub degraded_after: Duration,
    /// Pools of the configuration, to be made where the ledger has none of that name.
    pub pools: Vec<Seed>,
    /// The calendar of quotas.
    pub calendar: Calendar,
    /// What tokens cost, for calls of earlier lives.
    pub prices: Arc<dyn Prices>,
}

impl Options {
    /// What the configuration says; the node and its life are the caller's to fill in.
    pub fn of(config: &Config) -> Self {
        let scheduling = &config.scheduling;
        let discipline = match scheduling.policy {
            Policy::Strict => policy::Discipline::Strict,
            Policy::WeightedFair => policy::Discipline::WeightedFair,
            Policy::Hybrid => policy::Discipline::Hybrid,
        };
        let pools = config.pools().map(|(name, pool)| Seed {
            name: name.into(),
            limits: pool.limits(),
            context: Some(pool.max_context_length).filter(|&context| context > 0),
            request_max: Duration::from_millis(pool.max_request_ms),
        });
        Self {
            node: NodeId::default(),
            life: 0,
            enabled: scheduling.enabled,
            policy: policy::Config {
                discipline,
                levels: scheduling.priority_levels,
                aging_us: scheduling.aging_quantum_ms.saturating_mul(1_000),
            },
            queue_depth: usize::try_from(scheduling.queue_depth).unwrap_or(usize::MAX),
            degraded_after: Duration::from_secs(5),
            pools: pools.collect(),
            // A zone that does not exist is a problem of the configuration, told before anything starts.
            calendar: Calendar::of(&config.quotas.time_zone).unwrap_or_else(|_| Calendar::utc()),
            prices: Arc::new(config.prices.clone()),
        }
    }
}

/// A pool of the configuration.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Its label.
    pub name: Arc<str>,
    /// Its limits.
    pub limits: PoolLimits,
    /// Its longest context.
    pub context: Option<u64>,
    /// The longest that one of its requests lives.
    pub request_max: Duration,
}

/// Admission cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The group cannot take part.
    #[error("the ledger cannot be reached: {0}")]
    Ledger(String),
    /// The journal cannot be written.
    #[error("the usage journal cannot be written: {0}")]
    Journal(String),
}

impl Admission {
    /// Announces this life of the node, charges what earlier ones left open, seeds the pools, and keeps the lease from
    /// then on.
    ///
    /// # Errors
    /// When this node's part in the group ended, or the journal cannot be written.
    pub async fn start(
        group: Group<Replica>,
        options: Options,
        journal: &Journal,
    ) -> Result<(Self, Arc<Capacity>), StartError> {
        let shared = Shared::new(options.queue_depth, options.degraded_after, options.calendar.clone());
        let hearing = shared.clone();
        let leader = Leader::start(group, options.policy.clone(), Box::new(move |reply| hearing.hear(&reply)));
        shared.set_leader(leader.clone());
        let capacity = Arc::new(Capacity::new(shared.clone(), leader.clone(), options.node, options.pools.clone()));
        let enabled = options.enabled;
        let mut part = tokio::spawn(take_part(shared.clone(), leader, options, journal.clone()));
        match tokio::time::timeout(START_WITHIN, &mut part).await {
            Ok(Ok(taken)) => taken?,
            Ok(Err(error)) => return Err(StartError::Ledger(error.to_string())),
            // Nobody leads yet. The node serves what needs no lease, and takes part as soon as there is a leader.
            Err(_) => {
                tracing::warn!("the group has no leader yet; requests wait for one");
                tokio::spawn(async move {
                    if let Ok(Err(error)) = part.await {
                        tracing::error!(%error, "this node cannot take part in admission");
                    }
                });
            }
        }
        let shared = enabled.then_some(shared);
        Ok((Self { shared }, capacity))
    }
}

/// Announces this life of the node to the ledger, then keeps its lease for as long as the process lives.
async fn take_part(shared: Arc<Shared>, leader: Leader, options: Options, journal: Journal) -> Result<(), StartError> {
    let incarnation = announce(&leader, &options).await?;
    settle_earlier_lives(&leader, &options, &journal).await?;
    seed(&leader, &options.pools).await?;
    let stamp = leader.with_state(ledger::state::State::stamp);
    shared.node_up(options.node, incarnation, stamp);
    shared.learn_pools();
    shared.look_at_calendar();
    tokio::spawn(shared.keep());
    Ok(())
}

async fn announce(leader: &Leader, options: &Options) -> Result<Incarnation, StartError> {
    let up = Op::NodeUp { node: options.node, boot_id: clock::boot_id().into(), life: options.life };
    match propose(leader, vec![up]).await?.first() {
        Some(Outcome::Up(incarnation)) => Ok(*incarnation),
        _ => Err(StartError::Ledger("a later life of this node has begun already".to_owned())),
    }
}

/// The ledger has charged every reservation of earlier lives in full. The journal knows better: what was settled counts
/// as that, and what was never sent, on a journal that is whole, counts nothing. Then calls without an end get their
/// row, once.
async fn settle_earlier_lives(leader: &Leader, options: &Options, journal: &Journal) -> Result<(), StartError> {
    let recovered = journal.recover();
    let charged = leader.with_state(|state| state.charged(options.node));
    let failed = |error: std::io::Error| StartError::Journal(error.to_string());
    let mut corrections = Vec::new();
    let mut known: HashMap<(Incarnation, u64), Option<Spend>> = HashMap::new();
    for left in &recovered.open {
        known.insert((left.intent.incarnation, left.intent.reservation), None);
    }
    let mut incarnations: Vec<Incarnation> = charged.iter().map(|&(incarnation, _)| incarnation).collect();
    incarnations.dedup();
    for &incarnation in &incarnations {
        journal
            .settled_by(incarnation, |intent, settled| {
                let price = price_of(&*options.prices, &intent.model, &intent.pool);
                let spent = price.spend(settled.prompt_tokens, settled.completion_tokens);
                let spent = Spend { tokens: settled.charged_tokens, ..spent };
                known.insert((incarnation, intent.reservation), Some(spent));
            })
            .map_err(|error| StartError::Journal(error.to_string()))?;
    }
    for (incarnation, seq) in charged {
        let whole = recovered.last_life == LastLife::SameBoot;
        let used = match known.get(&(incarnation, seq)) {
            Some(Some(used)) => *used,
            Some(None) => continue,
            None if whole => Spend::default(),
            None => continue,
        };
        corrections.push(Op::Correct { node: options.node, incarnation, seq, used });
    }
    for ops in corrections.chunks(500) {
        propose(leader, ops.to_vec()).await?;
    }
    for left in &recovered.open {
        journal.write_off(&left.intent).map_err(failed)?;
    }
    Ok(())
}

async fn seed(leader: &Leader, pools: &[Seed]) -> Result<(), StartError> {
    let stamp = leader.stamp();
    let missing: Vec<Op> = leader.with_state(|state| {
        let missing = pools.iter().filter(|seed| state.pool(&seed.name, stamp).is_none());
        missing.map(Seed::op).collect()
    });
    if !missing.is_empty() {
        propose(leader, missing).await?;
    }
    Ok(())
}

impl Seed {
    fn op(&self) -> Op {
        let request_us_max = u64::try_from(self.request_max.as_micros()).unwrap_or(u64::MAX);
        Op::SetPool { name: self.name.clone(), limits: self.limits, request_us_max }
    }
}

/// Proposes until there is a leader; every operation here may be repeated.
async fn propose(leader: &Leader, ops: Vec<Op>) -> Result<Vec<Outcome>, StartError> {
    loop {
        match leader.propose(ops.clone()).await {
            Ok(outcomes) => return Ok(outcomes),
            Err(Unproposed::Stopped(why)) => return Err(StartError::Ledger(why)),
            Err(Unproposed::NotLeader { .. } | Unproposed::Indeterminate) => tokio::time::sleep(AGAIN).await,
        }
    }
}
