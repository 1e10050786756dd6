//! How nodes are connected: one TCP proxy for each directed link between peers, in the harness itself, so that no right
//! beyond a user's is needed. What runs from a to b on any connection between the two can be held back alone.

mod proxy;

use crate::db::Home;
use proxy::{Cut, Link};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The links of a group.
#[derive(Debug)]
pub(crate) struct Fabric {
    nodes: u64,
    /// By who sends and who receives.
    cuts: BTreeMap<(u64, u64), Arc<Cut>>,
    /// By who dials and who is dialled.
    links: BTreeMap<(u64, u64), Link>,
}

impl Fabric {
    /// Opens a proxy for every node's way to each of its peers.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub(crate) async fn open(nodes: u64, home: &Home) -> anyhow::Result<Self> {
        let pairs = || (1..=nodes).flat_map(move |from| (1..=nodes).map(move |to| (from, to))).filter(|(a, b)| a != b);
        let cuts: BTreeMap<_, _> = pairs().map(|pair| (pair, Arc::new(Cut::default()))).collect();
        let mut links = BTreeMap::new();
        for (from, to) in pairs() {
            let there = cuts[&(from, to)].clone();
            let back = cuts[&(to, from)].clone();
            links.insert((from, to), Link::open(home.link(from, to), home.peer(to), there, back).await?);
        }
        Ok(Self { nodes, cuts, links })
    }

    /// Where a node dials a peer.
    pub(crate) fn way(&self, from: u64, to: u64) -> Option<SocketAddr> {
        self.links.get(&(from, to)).map(|link| link.address)
    }

    /// Holds back what these nodes send to those.
    pub(crate) fn cut(&self, from: &[u64], to: &[u64]) {
        for (pair, cut) in &self.cuts {
            if from.contains(&pair.0) && to.contains(&pair.1) {
                cut.set(true);
            }
        }
    }

    /// Lets everything through again.
    pub(crate) fn mend(&self) {
        self.cuts.values().for_each(|cut| cut.set(false));
    }

    /// How many bytes or connections were held back so far, over all links: a partition that nobody ran into struck
    /// nobody.
    pub(crate) fn held_back(&self) -> u64 {
        self.cuts.values().map(|cut| cut.held_back()).sum()
    }

    /// Every node.
    pub(crate) fn all(&self) -> Vec<u64> {
        (1..=self.nodes).collect()
    }
}
