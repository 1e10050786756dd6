//! The door to the ledger: asks for capacity, waits for it, gives it back. It decides nothing itself: it locks the
//! keeper, waits, and wakes.

mod door;
mod group;
mod keys;
mod start;
mod view;

pub use keys::KeyLedger;
pub use start::{Options, Seed, StartError};
pub use view::Capacity;

use door::{Place, Shared};
use ledger::keeper::{Decision, Request, Ticket, Word};
use ledger::model::{Dimension, Incarnation, Priority, Scope, Spend, Tenants};
use raft::clock;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a request asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Label of the pool.
    pub pool: Arc<str>,
    /// Whose it is, for fairness within a priority.
    pub tenant: Option<Scope>,
    /// The limits of the caller.
    pub tenants: Tenants,
    /// How urgent it is.
    pub priority: Priority,
    /// Worst case of the request, prompt and output, and what that costs.
    pub spend: Spend,
    /// What it weighs among tenants of one priority: output counts twice.
    pub weight: u64,
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
        /// The limit that takes longest.
        dimension: Dimension,
        /// When a new try may succeed.
        retry_after: Duration,
    },
    /// It waited as long as it may.
    QueueTimeout {
        /// The limit that takes longest.
        dimension: Dimension,
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
pub struct Admitted {
    /// How it came through.
    pub path: Path,
    /// Time spent waiting.
    pub wait: Duration,
    /// Its place in the queue when it came to wait, from 1.
    pub queue_position: Option<u32>,
    /// Tokens left of the caller's smallest quota of tokens.
    pub quota_remaining: Option<u64>,
    /// Nano-USD left of the caller's smallest budget.
    pub budget_remaining: Option<u64>,
    /// What is reserved.
    pub spend: Spend,
    /// The life of this node that reserved.
    pub incarnation: Incarnation,
    /// The reservation that tenants' holds hang on; 0 when there is none.
    pub reservation: u64,
    held: Option<(Arc<Shared>, Ticket)>,
    sent: bool,
}

impl Admitted {
    /// Says whether the request head may be written right now (rule g); false means: ask again.
    pub fn may_send(&mut self) -> bool {
        if let Some((shared, ticket)) = &self.held {
            let door = shared.lock();
            self.sent = door.keeper.may_send(clock_now(), ticket);
            return self.sent;
        }
        self.sent = true;
        true
    }

    /// Ends the reservation with what the request really used.
    pub fn settle(mut self, used: Spend) {
        if let Some((shared, ticket)) = self.held.take() {
            shared.with(|door| door.keeper.settle(ticket, used));
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some((shared, ticket)) = self.held.take() else { return };
        let used = self.sent.then_some(self.spend);
        shared.with(|door| match used {
            Some(used) => door.keeper.settle(ticket, used),
            None => door.keeper.give_back(ticket),
        });
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").field("path", &self.path).field("spend", &self.spend).finish_non_exhaustive()
    }
}

/// Admission on this node. Clones share it.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Nothing while scheduling is off: then every request passes.
    shared: Option<Arc<Shared>>,
}

impl Admission {
    /// Admission with scheduling off: limits and queues do not count.
    pub fn off() -> Self {
        Self { shared: None }
    }

    /// Waits until the request may go, or says why it may not. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn admit(&self, ask: Ask) -> Result<Admitted, Refusal> {
        let Some(shared) = &self.shared else { return Ok(passed(ask.spend)) };
        let asked = shared.with(|door| {
            let request = request(&ask, door.pool(&ask.pool)?);
            let decision = door.keeper.admit(clock_now(), &request);
            let place = match decision {
                Decision::Wait(id) => Some(shared.take_place(door, id, &request)),
                _ => None,
            };
            Some((request, decision, place))
        });
        let Some((request, decision, place)) = asked else {
            return Err(Refusal::Unavailable { retry_after: Duration::from_secs(1) });
        };
        if let Some(place) = place {
            return wait(shared, &ask, &request, place?).await;
        }
        match decision {
            Decision::Go(ticket) => {
                Ok(granted(shared, Path::Local, Duration::ZERO, ask.spend, ticket, None, (None, None)))
            }
            Decision::Never { dimension, most } => Err(Refusal::NeverFits { dimension, most }),
            Decision::NoPool | Decision::Wait(_) => Err(Refusal::Unavailable { retry_after: Duration::from_secs(1) }),
        }
    }
}

fn clock_now() -> ledger::time::Boot {
    ledger::time::Boot(clock::boot_us())
}

fn request(ask: &Ask, pool: ledger::model::PoolId) -> Request {
    Request {
        pool,
        priority: ask.priority,
        spend: ask.spend,
        weight: ask.weight,
        tenant: ask.tenant,
        tenants: ask.tenants.clone(),
    }
}

/// Waits in the queue. Leaving early, in whatever way, gives the place up.
async fn wait(shared: &Arc<Shared>, ask: &Ask, request: &Request, mut place: Place) -> Result<Admitted, Refusal> {
    let began_us = clock::boot_us();
    let word = tokio::time::timeout(ask.max_wait, place.word()).await;
    let wait = Duration::from_micros(clock::boot_us().saturating_sub(began_us));
    let word = match word {
        Ok(Some(word)) => word,
        Ok(None) => return Err(Refusal::Unavailable { retry_after: Duration::from_secs(1) }),
        Err(_) => return Err(place.timeout(request)),
    };
    match word {
        Word::Granted { ticket, position, aged, quota_left, budget_left } => {
            if aged {
                shared.count_aged();
            }
            let path = if position.is_some() { Path::Queued } else { Path::Direct };
            Ok(granted(shared, path, wait, ask.spend, ticket, position, (quota_left, budget_left)))
        }
        Word::Refused { scope, dimension, retry, retry_us } => {
            Err(shared.refusal(scope, dimension, retry, Duration::from_micros(retry_us)))
        }
    }
}

fn granted(
    shared: &Arc<Shared>,
    path: Path,
    wait: Duration,
    spend: Spend,
    ticket: Ticket,
    queue_position: Option<u32>,
    (quota_remaining, budget_remaining): (Option<u64>, Option<u64>),
) -> Admitted {
    Admitted {
        path,
        wait,
        queue_position,
        quota_remaining,
        budget_remaining,
        spend,
        incarnation: shared.incarnation(),
        reservation: ticket.reservation().unwrap_or(0),
        held: Some((shared.clone(), ticket)),
        sent: false,
    }
}

fn passed(spend: Spend) -> Admitted {
    Admitted {
        path: Path::Local,
        wait: Duration::ZERO,
        queue_position: None,
        quota_remaining: None,
        budget_remaining: None,
        spend,
        incarnation: Incarnation::default(),
        reservation: 0,
        held: None,
        sent: false,
    }
}
