//! A node's row: its lease, and the reservations that it has not ended.

use super::quota::HeldQuotas;
use super::tenant::TenantHold;
use crate::entry::{Amounts, Who};
use crate::model::{Epoch, Incarnation, NodeId, PoolId, Scope, Spend};
use crate::time::Stamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One node and its present incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    pub(crate) incarnation: Incarnation,
    pub(crate) boot_id: Arc<str>,
    pub(crate) life: u64,
    pub(crate) epoch: Epoch,
    pub(crate) renewed: Stamp,
    /// Every reservation below this has ended.
    pub(crate) low: u64,
    pub(crate) open: BTreeMap<u64, Reservation>,
    /// Ended reservations from `low` on, so that a late repeat is known.
    pub(crate) closed: BTreeSet<u64>,
}

/// One request's worst-case hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reservation {
    pub(crate) pool: PoolId,
    pub(crate) epoch: Epoch,
    pub(crate) amounts: Amounts,
    /// The pool's units are still counted here, not in the node's counters.
    pub(crate) attached: bool,
    pub(crate) tenants: Vec<TenantHold>,
    pub(crate) quota_left: Option<u64>,
    pub(crate) budget_left: Option<u64>,
    pub(crate) slot: u64,
}

/// What a lost reservation's quota was charged, until it is corrected or its windows are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Charged {
    pub(crate) scope: Scope,
    pub(crate) quotas: HeldQuotas,
    pub(crate) spend: Spend,
}

impl NodeRow {
    pub(crate) fn new(incarnation: Incarnation, boot_id: Arc<str>, life: u64, now: Stamp) -> Self {
        Self {
            incarnation,
            boot_id,
            life,
            epoch: Epoch(1),
            renewed: now,
            low: 0,
            open: BTreeMap::new(),
            closed: BTreeSet::new(),
        }
    }

    pub(crate) fn who(&self, node: NodeId) -> Who {
        Who { node, incarnation: self.incarnation, epoch: self.epoch }
    }

    /// Whether a reservation of that number has ended already.
    pub fn has_ended(&self, seq: u64) -> bool {
        seq < self.low || self.closed.contains(&seq)
    }

    pub(crate) fn close(&mut self, seq: u64) {
        if seq >= self.low {
            self.closed.insert(seq);
        }
    }

    /// Forgets ended reservations below `low`; open ones are kept, whatever the node says.
    pub(crate) fn raise_low(&mut self, low: u64) {
        let low = self.open.keys().next().map_or(low, |&first| low.min(first));
        if low > self.low {
            self.low = low;
            self.closed = self.closed.split_off(&low);
        }
    }
}
