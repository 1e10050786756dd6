//! One simulated node: the shipped keeper, policy and ledger, with a clock of its own.

use super::chance::Chance;
use crate::entry::{Contact, Entry, LogPos};
use crate::keeper::{Keeper, Request, Ticket, WaitId};
use crate::policy::{Config, Discipline, Plan, Policy};
use crate::rules::Rules;
use crate::state::State;
use crate::time::{Boot, LedgerClock, Stamp};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A request of the workload.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) request: Request,
    pub(super) arrived_us: u64,
    pub(super) used: u64,
    pub(super) runs_us: u64,
}

/// A running request.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) ticket: Ticket,
    pub(super) job: Job,
    pub(super) arrival: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) alive: bool,
    /// Raised with every crash, so that events of an earlier life are known.
    pub(super) life: u64,
    pub(super) boot_number: u64,
    pub(super) paused_until: u64,
    boot_offset: u64,
    drift_ppm: i64,
    pub(super) keeper: Keeper,
    pub(super) policy: Policy,
    pub(super) clock: LedgerClock,
    pub(super) state: State,
    pub(super) applied: usize,
    /// How much of the present leader's log it has.
    pub(super) received: usize,
    pub(super) commit: usize,
    pub(super) leads: Option<u64>,
    pub(super) ready: bool,
    pub(super) believes: usize,
    pub(super) inbox: Vec<Contact>,
    pub(super) round: Option<(usize, u64, Plan)>,
    pub(super) waiting: BTreeMap<WaitId, Job>,
    pub(super) running: BTreeMap<u64, Running>,
    pub(super) ups_asked: bool,
    pub(super) next_poll: Option<u64>,
    /// The machine went down with the process.
    pub(super) reboots: bool,
    rules: Rules,
}

impl Node {
    pub(super) fn new(rules: Rules, chance: &mut Chance) -> Self {
        let config = Config { discipline: Discipline::Strict, levels: 10, aging_us: 0 };
        let boot_offset = chance.between(0, 3_600_000_000);
        Self {
            alive: true,
            life: 0,
            boot_number: chance.next(),
            paused_until: 0,
            boot_offset,
            drift_ppm: i64::try_from(chance.between(0, 1_000)).unwrap_or(0) - 500,
            keeper: Keeper::new(rules),
            policy: Policy::new(config),
            clock: LedgerClock::new(Stamp(0), Boot(boot_offset), rules),
            state: State::new(rules),
            applied: 0,
            received: 0,
            commit: 0,
            leads: None,
            ready: false,
            believes: 0,
            inbox: Vec::new(),
            round: None,
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            ups_asked: false,
            next_poll: None,
            reboots: false,
            rules,
        }
    }

    /// The node's own clock at a true time.
    pub(super) fn boot(&self, now_us: u64) -> Boot {
        let drifted = i128::from(now_us) * i128::from(1_000_000 + self.drift_ppm) / 1_000_000;
        Boot(self.boot_offset + u64::try_from(drifted).unwrap_or(0))
    }

    /// The true time at which the node's clock shows `boot`, or a little later.
    pub(super) fn when(&self, boot: Boot) -> u64 {
        let own = i128::from(boot.0.saturating_sub(self.boot_offset));
        u64::try_from(own * 1_000_000 / i128::from(1_000_000 + self.drift_ppm)).unwrap_or(0) + 1
    }

    /// Takes in entries of the leader's log up to `length`.
    pub(super) fn receive(&mut self, now_us: u64, log: &[(u64, Rc<Entry>)], length: usize) {
        let now = self.boot(now_us);
        for (term, entry) in &log[self.received.min(length)..length] {
            self.clock.observe(*term, entry.stamp, now);
        }
        self.received = self.received.max(length);
    }

    pub(super) fn apply(&mut self, log: &[(u64, Rc<Entry>)], upto: usize) -> Vec<(usize, crate::entry::Applied)> {
        let mut all = Vec::new();
        while self.applied < upto {
            let (term, entry) = &log[self.applied];
            self.applied += 1;
            let at = LogPos { term: *term, index: self.applied as u64 };
            all.push((self.applied, self.state.apply(at, entry)));
        }
        all
    }

    /// The process dies; what it had in memory is gone, its log is not.
    pub(super) fn crash(&mut self) {
        self.alive = false;
        self.life += 1;
        self.leads = None;
        self.ready = false;
        self.inbox.clear();
        self.round = None;
        self.waiting.clear();
        self.running.clear();
        self.keeper = Keeper::new(self.rules);
    }

    /// The process comes back, on the same boot of the machine or on another.
    pub(super) fn restart(&mut self, now_us: u64, log: &[(u64, Rc<Entry>)], chance: &mut Chance) {
        self.alive = true;
        self.paused_until = 0;
        self.ups_asked = false;
        if self.reboots {
            self.boot_number = chance.next();
            self.boot_offset = chance.between(0, 1_000_000);
        }
        let last = log[..self.received].last().map_or(Stamp(0), |(_, entry)| entry.stamp);
        self.clock = LedgerClock::new(last, self.boot(now_us), self.rules);
    }
}
