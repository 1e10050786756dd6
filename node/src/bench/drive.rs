//! Sends the plan: a closed loop of workers, or an open loop that starts each request when it is due.

use super::call::{Caller, Sample};
use super::plan::{Job, Pace, Plan};
use indicatif::ProgressBar;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

const REDRAW: Duration = Duration::from_millis(200);

/// A load about to be sent.
pub(crate) struct Drive {
    plan: Arc<Plan>,
    caller: Caller,
}

/// What was sent, and how each request ended.
#[derive(Debug)]
pub(crate) struct Run {
    /// In order of their ends within each worker.
    pub(crate) samples: Vec<Sample>,
    /// Given up in flight, because the run was stopped.
    pub(crate) aborted: u64,
    /// From the first start to the last end.
    pub(crate) took: Duration,
    /// The most requests that were in flight at once.
    pub(crate) peak_in_flight: u64,
    /// Whether Ctrl-C ended it.
    pub(crate) stopped_early: bool,
}

/// What workers share.
struct Shared {
    plan: Arc<Plan>,
    caller: Caller,
    origin: Instant,
    next: AtomicU64,
    done: AtomicU64,
    in_flight: AtomicU64,
    peak: AtomicU64,
    aborted: AtomicU64,
    stop: watch::Receiver<bool>,
}

impl Drive {
    pub(crate) fn new(plan: Arc<Plan>, caller: Caller) -> Self {
        Self { plan, caller }
    }

    /// Sends everything; Ctrl-C ends it with what there is by then.
    pub(crate) async fn run(self, bar: &ProgressBar) -> Run {
        let (stopper, stop) = watch::channel(false);
        let stopped = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            plan: self.plan,
            caller: self.caller,
            origin: Instant::now(),
            next: AtomicU64::new(0),
            done: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            stop,
        });
        let watcher = tokio::spawn({
            let stopped = Arc::clone(&stopped);
            async move {
                // Without a handler Ctrl-C simply ends the process, as ever.
                if tokio::signal::ctrl_c().await.is_ok() {
                    stopped.store(true, Ordering::Relaxed);
                    // Nobody listens any more once the run is over.
                    let _ = stopper.send(true);
                }
                std::future::pending::<()>().await;
            }
        });
        let painter = tokio::spawn(paint(Arc::clone(&shared), bar.clone()));
        let samples = match shared.plan.pace {
            Pace::Closed { concurrency } => closed(&shared, concurrency).await,
            Pace::Open { .. } => open(&shared).await,
        };
        painter.abort();
        watcher.abort();
        let last = samples.iter().map(|sample| sample.ended).max().unwrap_or_default();
        Run {
            samples,
            aborted: shared.aborted.load(Ordering::Relaxed),
            took: last,
            peak_in_flight: shared.peak.load(Ordering::Relaxed),
            stopped_early: stopped.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    /// Sends one request; `None` when it was given up.
    async fn send(&self, job: Job, stop: &mut watch::Receiver<bool>) -> Option<Sample> {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
        let sample = tokio::select! {
            biased;
            sample = self.caller.call(job, self.origin) => Some(sample),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let counter = if sample.is_some() { &self.done } else { &self.aborted };
        counter.fetch_add(1, Ordering::Relaxed);
        sample
    }

    fn is_over(&self) -> bool {
        *self.stop.borrow() || self.plan.duration.is_some_and(|duration| self.origin.elapsed() >= duration)
    }
}

async fn closed(shared: &Arc<Shared>, concurrency: usize) -> Vec<Sample> {
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        let shared = Arc::clone(shared);
        workers.spawn(async move {
            let mut stop = shared.stop.clone();
            let mut samples = Vec::new();
            while !shared.is_over() {
                let Some(job) = shared.plan.job(shared.next.fetch_add(1, Ordering::Relaxed)) else { break };
                samples.extend(shared.send(job, &mut stop).await);
            }
            samples
        });
    }
    workers.join_all().await.into_iter().flatten().collect()
}

async fn open(shared: &Arc<Shared>) -> Vec<Sample> {
    let mut requests = JoinSet::new();
    let mut samples = Vec::new();
    let mut stop = shared.stop.clone();
    for index in 0.. {
        let Some(job) = shared.plan.job(index) else { break };
        if shared.plan.duration.is_some_and(|duration| job.due >= duration) {
            break;
        }
        let due = shared.origin + job.due;
        if due > Instant::now() {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
        if *shared.stop.borrow() {
            break;
        }
        while let Some(Ok(sample)) = requests.try_join_next() {
            samples.extend(sample);
        }
        let (shared, mut stop) = (Arc::clone(shared), stop.clone());
        requests.spawn(async move { shared.send(job, &mut stop).await });
    }
    samples.extend(requests.join_all().await.into_iter().flatten());
    samples
}

async fn paint(shared: Arc<Shared>, bar: ProgressBar) {
    let mut turn = tokio::time::interval(REDRAW);
    loop {
        turn.tick().await;
        bar.set_position(shared.done.load(Ordering::Relaxed));
        bar.set_message(format!("{} in flight", shared.in_flight.load(Ordering::Relaxed)));
    }
}
