//! The door to the ledger: asks for capacity, waits for it, gives it back. It decides nothing itself: it locks the
//! keeper, waits, and wakes.

use ledger::model::{Dimension, Priority, Scope, Tenants};
use std::sync::Arc;
use std::time::Duration;

/// What a request asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Label of the pool.
    pub pool: Arc<str>,
    /// The limits of the caller.
    pub tenants: Tenants,
    /// How urgent it is.
    pub priority: Priority,
    /// Worst case of the request, prompt and output.
    pub tokens: u64,
    /// How long it may wait in the queue.
    pub max_wait: Duration,
}

/// How a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// From this node's lease, in memory.
    Local,
    /// Decided by the ledger at once.
    Direct,
    /// After a wait in the queue.
    Queued,
}

/// Why a request does not come through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The queue of its model and priority is full.
    QueueFull {
        /// When a new try may succeed.
        retry_after: Duration,
    },
    /// It waited as long as it may.
    QueueTimeout {
        /// When a new try may succeed.
        retry_after: Duration,
    },
    /// A tenant's limit.
    Tenant {
        /// Whose.
        scope: Scope,
        /// Which.
        dimension: Dimension,
        /// When a new try may succeed; for a quota, when its window rolls.
        retry_after: Duration,
    },
    /// It is larger than what the limit can ever hold.
    NeverFits {
        /// Which limit.
        dimension: Dimension,
        /// What that limit holds at the most.
        most: u64,
    },
    /// No contact with the group's majority, or the local part of the group has stopped.
    Unavailable {
        /// When a new try may succeed.
        retry_after: Duration,
    },
}

/// The right to send one request upstream. Dropping it before it was sent gives everything back; dropping it after
/// that charges the full reservation.
#[derive(Debug)]
pub struct Admitted {
    /// How it came through.
    pub path: Path,
    /// Time spent waiting.
    pub wait: Duration,
    /// Its place in the queue when it came to wait, from 1.
    pub queue_position: Option<u32>,
    /// Tokens left of the caller's smallest daily quota.
    pub quota_remaining: Option<u64>,
    /// Tokens reserved.
    pub tokens: u64,
}

impl Admitted {
    /// Says whether the request head may be written right now (rule g); false means: ask again.
    pub fn may_send(&mut self) -> bool {
        true
    }

    /// Ends the reservation with what the request really used.
    pub fn settle(self, _tokens: u64) {}
}

/// Admission on this node.
#[derive(Clone, Debug)]
pub struct Admission {}

impl Admission {
    /// Waits until the request may go, or says why it may not. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn admit(&self, ask: Ask) -> Result<Admitted, Refusal> {
        Ok(Admitted {
            path: Path::Local,
            wait: Duration::ZERO,
            queue_position: None,
            quota_remaining: None,
            tokens: ask.tokens,
        })
    }
}
