//! Where requests with labels queue up: it notes in which order they are served, and ends them when told.

use crate::keeper::{Decision, Request, Ticket, WaitId, Word};
use crate::model::PoolLimits;
use crate::policy::{Config, Discipline};
use crate::rules::Rules;
use crate::schedules::rig::Rig;
use std::collections::BTreeMap;

/// A rig with labels on its requests.
pub(super) struct Desk {
    pub(super) rig: Rig,
    /// Labels in the order of service.
    pub(super) served: Vec<char>,
    /// Labels that a tenant's limit refused, and for how long.
    pub(super) refused: Vec<(char, u64)>,
    waits: BTreeMap<(usize, WaitId), (char, u64)>,
    running: Vec<(usize, Ticket, u64)>,
}

/// Strict priorities without aging.
pub(super) const STRICT: Config = Config { discipline: Discipline::Strict, levels: 10, aging_us: 0 };

/// One request in flight at a time, whatever its size.
pub(super) const ONE_AT_A_TIME: PoolLimits = PoolLimits { tokens: None, requests: None, concurrent: Some(1) };

impl Desk {
    pub(super) fn new(nodes: usize, limits: PoolLimits, config: Config) -> Self {
        let rig = Rig::with_config(&vec![(0, 0); nodes], Rules::ALL, limits, config);
        Self { rig, served: Vec::new(), refused: Vec::new(), waits: BTreeMap::new(), running: Vec::new() }
    }

    /// A request comes in at a node, a millisecond after whatever was before.
    pub(super) fn ask(&mut self, node: usize, label: char, request: &Request) {
        self.rig.pass(1_000);
        self.ask_at_once(node, label, request);
        self.listen();
    }

    /// As `ask`, without time or talk.
    pub(super) fn ask_at_once(&mut self, node: usize, label: char, request: &Request) {
        match self.rig.admit(node, request) {
            Decision::Go(ticket) => self.serve(node, label, ticket, request.spend.tokens),
            Decision::Wait(wait) => _ = self.waits.insert((node, wait), (label, request.spend.tokens)),
            other => panic!("{label}: {other:?}"),
        }
    }

    /// What runs ends, having used what it reserved. Whoever is next is served.
    pub(super) fn end_all(&mut self) {
        for (node, ticket, tokens) in std::mem::take(&mut self.running) {
            self.rig.keeper(node).settle(ticket, crate::model::Spend::tokens(tokens));
        }
        self.listen();
    }

    /// Ends what runs, again and again.
    pub(super) fn end_times(&mut self, times: usize) {
        (0..times).for_each(|_| self.end_all());
    }

    pub(super) fn run(&mut self, us: u64) {
        self.rig.run(us);
        self.listen();
    }

    /// How often a label was served.
    pub(super) fn count(&self, label: char) -> usize {
        self.served.iter().filter(|&&served| served == label).count()
    }

    fn listen(&mut self) {
        self.rig.talk();
        for (node, wait, word) in std::mem::take(&mut self.rig.words) {
            let (label, tokens) = self.waits.remove(&(node, wait)).expect("nobody hears twice");
            match word {
                Word::Granted { ticket, .. } => self.serve(node, label, ticket, tokens),
                Word::Refused { retry_us, .. } => self.refused.push((label, retry_us)),
            }
        }
    }

    fn serve(&mut self, node: usize, label: char, ticket: Ticket, tokens: u64) {
        self.served.push(label);
        self.running.push((node, ticket, tokens));
    }
}
