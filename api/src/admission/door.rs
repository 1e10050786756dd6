//! The keeper behind its lock, and those who wait at it.

use super::{Refusal, clock_now};
use crate::calendar::Calendar;
use ledger::entry::{Reply, Retry};
use ledger::keeper::{Estimate, Keeper, Request, WaitId, Word};
use ledger::model::{Dimension, Incarnation, NodeId, PoolId, Scope};
use ledger::rules::Rules;
use ledger::time::Stamp;
use raft::{Leader, clock};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How often the door looks whether a message is due.
const LOOK: Duration = Duration::from_millis(20);

/// The shortest Retry-After: what frees a permit is not known, and less would only hammer.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// One node's admission, shared by all requests.
pub(super) struct Shared {
    door: Mutex<Door>,
    leader: OnceLock<Leader>,
    incarnation: OnceLock<Incarnation>,
    aged: AtomicU64,
    queue_depth: usize,
    degraded_after_us: u64,
    calendar: Calendar,
}

/// What the lock protects.
pub(super) struct Door {
    pub(super) keeper: Keeper,
    names: HashMap<Arc<str>, PoolId>,
    pools_version: u64,
    waiters: HashMap<WaitId, Waiter>,
    depths: HashMap<(PoolId, u8), usize>,
}

struct Waiter {
    word: oneshot::Sender<Word>,
    at: (PoolId, u8),
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Door {
    pub(super) fn pool(&self, name: &str) -> Option<PoolId> {
        self.names.get(name).copied()
    }

    fn estimate(&self, request: &Request, place: Option<WaitId>) -> (Dimension, Duration) {
        let Estimate { wait_us, dimension } = self.keeper.estimate(clock_now(), request, place);
        (dimension, Duration::from_micros(wait_us).max(RETRY_MIN))
    }

    fn forget(&mut self, id: WaitId) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        if let Some(depth) = self.depths.get_mut(&waiter.at) {
            *depth = depth.saturating_sub(1);
        }
        Some(waiter)
    }
}

impl Shared {
    pub(super) fn new(queue_depth: usize, degraded_after: Duration, calendar: Calendar) -> Arc<Self> {
        let door = Door {
            keeper: Keeper::new(Rules::ALL),
            names: HashMap::new(),
            pools_version: u64::MAX,
            waiters: HashMap::new(),
            depths: HashMap::new(),
        };
        Arc::new(Self {
            door: Mutex::new(door),
            leader: OnceLock::new(),
            incarnation: OnceLock::new(),
            aged: AtomicU64::new(0),
            queue_depth,
            calendar,
            degraded_after_us: u64::try_from(degraded_after.as_micros()).unwrap_or(u64::MAX),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Door> {
        // The keeper's counters stay right when a thread panics beside it.
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the door, then sends what became urgent by it.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Door) -> T) -> T {
        let mut door = self.lock();
        let done = work(&mut door);
        if door.keeper.is_urgent() {
            self.speak(&mut door);
        }
        done
    }

    pub(super) fn leader(&self) -> Option<&Leader> {
        self.leader.get()
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation.get().copied().unwrap_or_default()
    }

    pub(super) fn set_leader(&self, leader: Leader) {
        // It is set once, at start.
        let _ = self.leader.set(leader);
    }

    pub(super) fn node_up(&self, node: NodeId, incarnation: Incarnation, stamp: Stamp) {
        let _ = self.incarnation.set(incarnation);
        self.lock().keeper.node_up(node, incarnation, stamp);
    }

    pub(super) fn count_aged(&self) {
        self.aged.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn aged(&self) -> u64 {
        self.aged.load(Ordering::Relaxed)
    }

    /// Requests that wait at this node, by priority.
    pub(super) fn waiting(&self) -> Vec<u64> {
        let door = self.lock();
        let mut waiting = Vec::new();
        for (&(_, priority), &depth) in &door.depths {
            let index = usize::from(priority);
            if waiting.len() <= index {
                waiting.resize(index + 1, 0);
            }
            waiting[index] += depth as u64;
        }
        waiting
    }

    /// Requests that wait at this node for one pool.
    pub(super) fn waiting_at(&self, pool: PoolId) -> u64 {
        let door = self.lock();
        door.depths.iter().filter(|((at, _), _)| *at == pool).map(|(_, &depth)| depth as u64).sum()
    }

    /// Takes a place in the queue for a request that the keeper has just let wait. It is the keeper's own lock that is
    /// held, so that the leader's word cannot come before there is somebody to hear it.
    pub(super) fn take_place(
        self: &Arc<Self>,
        door: &mut Door,
        id: WaitId,
        request: &Request,
    ) -> Result<Place, Refusal> {
        if self.cuts_off(door) {
            door.keeper.leave(id);
            return Err(Refusal::Unavailable { retry_after: Duration::from_secs(1) });
        }
        let at = (request.pool, request.priority.0);
        let depth = door.depths.entry(at).or_default();
        if *depth >= self.queue_depth {
            door.keeper.leave(id);
            let (dimension, retry_after) = door.estimate(request, None);
            return Err(Refusal::QueueFull { dimension, retry_after });
        }
        *depth += 1;
        let (sender, word) = oneshot::channel();
        door.waiters.insert(id, Waiter { word: sender, at });
        Ok(Place { shared: self.clone(), id, word, heard: false })
    }

    /// Takes in a reply of the leader and wakes those it is about.
    pub(super) fn hear(&self, reply: &Reply) {
        self.with(|door| {
            for (id, word) in door.keeper.reply(clock_now(), reply) {
                let Some(waiter) = door.forget(id) else {
                    discard(&mut door.keeper, word);
                    continue;
                };
                if let Err(word) = waiter.word.send(word) {
                    discard(&mut door.keeper, word);
                }
            }
        });
    }

    /// Whether the leader has not answered for so long that waiting is pointless.
    pub(super) fn is_cut_off(&self) -> bool {
        self.cuts_off(&self.lock())
    }

    fn cuts_off(&self, door: &Door) -> bool {
        let since = door.keeper.unanswered_since();
        since.is_some_and(|since| clock::boot_us() > since.0 + self.degraded_after_us)
    }

    /// A tenant's refusal, with the time until another try may succeed.
    pub(super) fn refusal(&self, scope: Scope, dimension: Dimension, retry: Retry, in_: Duration) -> Refusal {
        let retry_after = match retry {
            Retry::At(_) => in_.max(Duration::from_millis(1)),
            Retry::NextDay | Retry::NextMonth => {
                self.calendar.until(retry, clock::wall_us()).unwrap_or(Duration::from_secs(60))
            }
            Retry::OnRelease => Duration::from_secs(1),
            Retry::Never(most) => return Refusal::NeverFits { dimension, most },
        };
        Refusal::Tenant { scope, dimension, retry_after }
    }

    /// Lets the keeper know what the wall clock shows.
    pub(super) fn look_at_calendar(&self) {
        let Some(leader) = self.leader() else { return };
        let shown = self.calendar.windows(clock::wall_us());
        let ledger = leader.with_state(ledger::state::State::windows);
        self.lock().keeper.set_windows(shown, ledger);
    }

    /// Keeps the lease alive and the pools known, as long as the node lives.
    pub(super) async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.learn_pools();
            self.look_at_calendar();
            let cut_off = self.is_cut_off();
            let mut door = self.lock();
            if cut_off {
                let waiting: Vec<WaitId> = door.waiters.keys().copied().collect();
                for id in waiting {
                    // Dropping the sender tells the request that nobody will answer.
                    door.forget(id);
                    door.keeper.leave(id);
                }
            }
            self.speak(&mut door);
        }
    }

    /// Takes over the limits of pools from this node's copy of the ledger, when they changed.
    pub(super) fn learn_pools(&self) {
        let Some(leader) = self.leader() else { return };
        let known = self.lock().pools_version;
        let pools = leader.with_state(|state| {
            let version = state.pools_version();
            (version != known).then(|| (version, state.pools(state.stamp())))
        });
        let Some((version, pools)) = pools else { return };
        self.with(|door| {
            door.pools_version = version;
            door.names = pools.iter().map(|pool| (pool.name.clone(), pool.id)).collect();
            for pool in &pools {
                door.keeper.set_pool(pool.id, pool.limits);
            }
            for id in door.keeper.retain_pools(|id| pools.iter().any(|pool| pool.id == id)) {
                door.forget(id);
            }
        });
    }

    fn speak(&self, door: &mut Door) {
        if let Some(leader) = self.leader()
            && let Some(contact) = door.keeper.contact(clock_now())
        {
            leader.contact(contact);
        }
    }
}

/// A place in the queue, and where the leader's word comes to. Dropping it gives the place up, and a grant that came
/// but was not taken.
pub(super) struct Place {
    shared: Arc<Shared>,
    id: WaitId,
    word: oneshot::Receiver<Word>,
    heard: bool,
}

impl Place {
    /// Waits for the leader's word; none when there will not be one.
    pub(super) async fn word(&mut self) -> Option<Word> {
        let word = (&mut self.word).await.ok();
        self.heard = true;
        word
    }

    /// What a request that waited here in vain is told. It still has its place: what the leader counts it in is known.
    pub(super) fn timeout(&self, request: &Request) -> Refusal {
        let (dimension, retry_after) = self.shared.lock().estimate(request, Some(self.id));
        Refusal::QueueTimeout { dimension, retry_after }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.heard {
            return;
        }
        let (id, word) = (self.id, &mut self.word);
        self.shared.with(|door| {
            door.forget(id);
            door.keeper.leave(id);
            // Words are sent under this lock: one that was sent is here.
            if let Ok(word) = word.try_recv() {
                discard(&mut door.keeper, word);
            }
        });
    }
}

/// A grant that nobody waits for any more goes back.
fn discard(keeper: &mut Keeper, word: Word) {
    if let Word::Granted { ticket, .. } = word {
        keeper.give_back(ticket);
    }
}
