//! The queue of one pool over the whole cluster: by priority, fair by tenant within one, then first come.
//!
//! Fairness is start-time fair queuing over what requests weigh. Source: Goyal, Vin, Cheng, "Start-time fair queueing",
//! SIGCOMM 1996. It orders as deficit round robin does, without a quantum to choose.

use super::{Config, Discipline};
use crate::entry::Ask;
use crate::model::{NodeId, Scope};
use crate::time::Boot;
use std::collections::BTreeMap;

/// Scales weights, so that shares of small requests stay exact enough.
const SCALE: u64 = 1_000;

/// How often priorities are looked at for aging.
const AGING_EVERY_US: u64 = 50_000;

/// A request in the queue.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) node: NodeId,
    pub(super) ask: Ask,
    pub(super) since: Boot,
    /// Since when the leader knows of it.
    pub(super) known: Boot,
    /// Its priority with aging.
    pub(super) class: usize,
    /// Its place when it came, from 1; none while that is not known.
    pub(super) position: Option<u32>,
}

type Place = (Boot, NodeId, u64);

/// Everything that waits at one pool.
#[derive(Debug)]
pub(super) struct Queue {
    classes: Vec<Class>,
    places: BTreeMap<(NodeId, u64), (usize, Option<Scope>, Place)>,
    now: u64,
    aged: Boot,
}

#[derive(Debug, Default)]
struct Class {
    tenants: BTreeMap<Option<Scope>, Line>,
    length: usize,
    now: u64,
    finish: u64,
}

#[derive(Debug, Default)]
struct Line {
    waiters: BTreeMap<Place, Waiter>,
    finish: u64,
}

impl Queue {
    pub(super) fn new(levels: u8) -> Self {
        let classes = (0..levels.max(1)).map(|_| Class::default()).collect();
        Self { classes, places: BTreeMap::new(), now: 0, aged: Boot(0) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn contains(&self, node: NodeId, seq: u64) -> bool {
        self.places.contains_key(&(node, seq))
    }

    pub(super) fn push(&mut self, mut waiter: Waiter) {
        waiter.class = waiter.class.min(self.classes.len() - 1);
        let place = (waiter.since, waiter.node, waiter.ask.seq);
        let tenant = waiter.ask.tenant;
        let class = &mut self.classes[waiter.class];
        let line = class.tenants.entry(tenant).or_default();
        if self.places.insert((waiter.node, waiter.ask.seq), (waiter.class, tenant, place)).is_none() {
            class.length += 1;
        }
        line.waiters.insert(place, waiter);
    }

    pub(super) fn remove(&mut self, node: NodeId, seq: u64) -> Option<Waiter> {
        let (class, tenant, place) = self.places.remove(&(node, seq))?;
        let class = &mut self.classes[class];
        class.length -= 1;
        let line = class.tenants.get_mut(&tenant)?;
        let waiter = line.waiters.remove(&place);
        if line.waiters.is_empty() && line.finish <= class.now {
            class.tenants.remove(&tenant);
        }
        waiter
    }

    /// The requests of a node that have left, as the node is gone.
    pub(super) fn remove_node(&mut self, node: NodeId) -> Vec<Waiter> {
        let gone: Vec<u64> = self.places.keys().filter(|(owner, _)| *owner == node).map(|&(_, seq)| seq).collect();
        gone.into_iter().filter_map(|seq| self.remove(node, seq)).collect()
    }

    /// The request that is next, by the discipline.
    pub(super) fn head(&self, config: &Config) -> Option<&Waiter> {
        let class = self.next_class(config)?;
        self.classes[class].head().map(|(_, waiter)| waiter)
    }

    /// Takes the next request out and charges its tenant and its class for it.
    pub(super) fn pop(&mut self, config: &Config) -> Option<Waiter> {
        let index = self.next_class(config)?;
        let start = self.now.max(self.classes[index].finish);
        let class = &mut self.classes[index];
        let (tenant, waiter) = class.head().map(|(tenant, waiter)| (tenant, waiter.clone()))?;
        let weight = waiter.ask.weight.max(1).saturating_mul(SCALE);
        if let Some(line) = class.tenants.get_mut(&tenant) {
            let began = class.now.max(line.finish);
            line.finish = began.saturating_add(weight);
            class.now = began;
        }
        // What is served first in any case takes no share from the others, and moves nothing among them.
        if config.discipline != Discipline::Hybrid || index > 0 {
            self.now = start;
            class.finish = start.saturating_add(weight / config.share(index));
        }
        self.remove(waiter.node, waiter.ask.seq)
    }

    /// How many requests stand before one of `class`.
    pub(super) fn ahead(&self, class: usize) -> usize {
        self.classes.iter().take(class + 1).map(|class| class.length).sum()
    }

    /// Whether a request more urgent by itself than `priority` waits.
    pub(super) fn has_more_urgent(&self, priority: u8) -> bool {
        self.classes
            .iter()
            .take(usize::from(priority))
            .flat_map(|class| class.tenants.values())
            .any(|line| line.waiters.values().next().is_some_and(|waiter| waiter.ask.priority.0 < priority))
    }

    /// Since when the leader knows of a request that is more urgent than `class` and waits: of the one, among the first of
    /// each tenant, that it has known longest.
    pub(super) fn more_urgent_known(&self, class: usize) -> Option<Boot> {
        let lines = self.classes.iter().take(class).flat_map(|class| class.tenants.values());
        lines.filter_map(|line| line.waiters.values().next()).map(|waiter| waiter.known).min()
    }

    /// Requests and tokens that wait, by class.
    pub(super) fn waiting(&self) -> (Vec<u64>, Vec<u64>) {
        let tokens = |class: &Class| {
            class.tenants.values().flat_map(|line| line.waiters.values()).map(|waiter| waiter.ask.spend.tokens).sum()
        };
        let requests = self.classes.iter().map(|class| class.length as u64).collect();
        (requests, self.classes.iter().map(tokens).collect())
    }

    /// Lets waiting requests age: one class for each quantum, never into the first.
    pub(super) fn age(&mut self, now: Boot, config: &Config) {
        if config.aging_us == 0 || now.0 < self.aged.0 + AGING_EVERY_US {
            return;
        }
        self.aged = now;
        // Not only the first of a line: behind it may stand one that came later and is due sooner, being more urgent.
        let mut overdue = Vec::new();
        for (class, waiting) in self.classes.iter().enumerate().skip(2) {
            for waiter in waiting.tenants.values().flat_map(|line| line.waiters.values()) {
                let aged = config.aged(waiter.ask.priority.0, now.0.saturating_sub(waiter.since.0));
                if aged < class {
                    overdue.push((waiter.node, waiter.ask.seq, aged));
                }
            }
        }
        for (node, seq, class) in overdue {
            if let Some(waiter) = self.remove(node, seq) {
                self.push(Waiter { class, ..waiter });
            }
        }
    }

    fn next_class(&self, config: &Config) -> Option<usize> {
        let mut waiting = self.classes.iter().enumerate().filter(|(_, class)| class.length > 0);
        let first = waiting.clone().next()?.0;
        let strict = match config.discipline {
            Discipline::Strict => true,
            Discipline::WeightedFair => false,
            Discipline::Hybrid => first == 0,
        };
        if strict {
            return Some(first);
        }
        let start = |class: &Class| self.now.max(class.finish);
        let mut best = waiting.next()?;
        for (index, class) in waiting {
            if start(class) < start(best.1) {
                best = (index, class);
            }
        }
        Some(best.0)
    }
}

impl Class {
    fn head(&self) -> Option<(Option<Scope>, &Waiter)> {
        let heads = self.tenants.iter().filter_map(|(&tenant, line)| {
            let (&place, waiter) = line.waiters.first_key_value()?;
            Some(((self.now.max(line.finish), place), tenant, waiter))
        });
        let (_, tenant, waiter) = heads.min_by_key(|&(order, _, _)| order)?;
        Some((tenant, waiter))
    }
}
