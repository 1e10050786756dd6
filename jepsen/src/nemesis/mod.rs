//! Nemeses: what breaks nodes, disks, clocks and links, how it is known to have struck, and how it is mended.

mod kill;
mod partition;
mod pause;
mod schedule;
mod stop;

pub(crate) use schedule::{Lane, lanes, named};

use crate::chance::Chance;
use crate::db::{Db, Node};
use crate::history::{Phase, Recorder};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// What a nemesis works on.
#[derive(Debug)]
pub(crate) struct Scene {
    /// The processes.
    pub(crate) db: Arc<Db>,
    /// Where it tells what it does.
    pub(crate) recorder: Arc<Recorder>,
}

/// A strike from its begin to its mending.
pub(crate) type Strike<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

/// One nemesis.
pub(crate) struct Nemesis {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) about: &'static str,
    /// Why it cannot work here, if it cannot: with so many nodes, on this machine.
    pub(crate) cannot: fn(u64) -> Option<String>,
    /// Strikes once and mends.
    pub(crate) strike: for<'a> fn(&'a Case<'a>, &'a mut Chance) -> Strike<'a>,
}

/// Every nemesis. A new one is a file here and a row in this table.
pub(crate) const NEMESES: [Nemesis; 10] = [
    kill::KILL,
    kill::KILL_OPENING,
    stop::TERM,
    pause::SHORT,
    pause::LONG,
    partition::ISOLATE,
    partition::ISOLATE_LEADER,
    partition::HALVES,
    partition::ONE_WAY,
    partition::RING,
];

/// One strike: what it works on, and its number in the history.
pub(crate) struct Case<'a> {
    /// What it works on.
    pub(crate) scene: &'a Scene,
    name: &'static str,
    fault: u64,
}

impl Case<'_> {
    /// The fault is seen to strike these nodes.
    pub(crate) fn struck(&self, nodes: &[u64], note: impl Into<String>) {
        self.scene.recorder.phase(self.fault, self.name, Phase::Struck, nodes, note);
    }

    /// A node that no other fault works on, until it is dropped.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn victim(&self, chance: &mut Chance) -> anyhow::Result<Victim> {
        let mut nodes = self.scene.db.nodes.clone();
        chance.shuffle(&mut nodes);
        let free = nodes.into_iter().find(|node| node.take());
        free.map(Victim).ok_or_else(|| anyhow::anyhow!("every node has a fault already"))
    }
}

/// A node that is one fault's alone.
pub(crate) struct Victim(Arc<Node>);

impl std::ops::Deref for Victim {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.0
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// Works everywhere.
fn always(_nodes: u64) -> Option<String> {
    None
}
