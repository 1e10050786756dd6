//! Stands before a store: one that fails or hangs is not asked again until it has answered a probe, so that a hanging
//! store costs one deadline and then nothing.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How often a store that is down is probed.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// How often one that is up is.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How long a probe may take.
const PROBE_MAX: Duration = Duration::from_secs(2);

/// A store's breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    name: &'static str,
    deadline: Duration,
    open: AtomicBool,
    opened: Notify,
}

/// The store did not answer, or was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Down {
    /// Whether it was asked.
    pub(super) was_asked: bool,
}

impl Breaker {
    /// A store that was not heard of yet.
    pub(super) fn new(name: &'static str, deadline: Duration) -> Self {
        Self { name, deadline, open: AtomicBool::new(true), opened: Notify::new() }
    }

    /// Whether the store is down, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Asks the store, unless it is down.
    pub(super) async fn ask<T, E: fmt::Display>(
        &self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Down> {
        if self.is_open() {
            return Err(Down { was_asked: false });
        }
        match tokio::time::timeout(self.deadline, question).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => self.trip(&error),
            Err(_) => self.trip(&format_args!("no answer in {:?}", self.deadline)),
        }
        Err(Down { was_asked: true })
    }

    fn trip(&self, cause: &dyn fmt::Display) {
        if !self.open.swap(true, Ordering::Relaxed) {
            tracing::warn!(store = self.name, %cause, "a key store does not answer; going on without it");
            self.opened.notify_one();
        }
    }

    /// Asks once whether the store is there.
    pub(super) async fn probe<E: fmt::Display>(&self, probe: impl Future<Output = Result<(), E>>) {
        match tokio::time::timeout(PROBE_MAX, probe).await {
            Ok(Ok(())) => {
                if self.open.swap(false, Ordering::Relaxed) {
                    tracing::info!(store = self.name, "a key store answers");
                }
            }
            Ok(Err(error)) => self.trip(&error),
            Err(_) => self.trip(&"no answer to a probe"),
        }
    }

    /// Probes the store for ever: often while it is down, and now and then while it is not, so that a dead store is known
    /// before anybody asks.
    pub(super) async fn watch<E: fmt::Display, F: Future<Output = Result<(), E>>>(&self, probe: impl Fn() -> F) {
        loop {
            let pause = if self.is_open() { PROBE_EVERY } else { WATCH_EVERY };
            // Either of them is reason to probe again.
            let _ = tokio::time::timeout(pause, self.opened.notified()).await;
            self.probe(probe()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Result<u8, &str> = Ok(1);

    #[tokio::test]
    async fn a_store_that_fails_or_hangs_is_not_asked_again_until_a_probe_succeeds() {
        let breaker = Breaker::new("test", Duration::from_millis(5));
        assert_eq!(breaker.ask(async { OK }).await, Err(Down { was_asked: false }));
        breaker.probe(async { Ok::<(), &str>(()) }).await;
        assert_eq!(breaker.ask(async { OK }).await, Ok(1));
        assert_eq!(breaker.ask(async { Err::<u8, _>("broken") }).await, Err(Down { was_asked: true }));
        assert_eq!(breaker.ask(async { OK }).await, Err(Down { was_asked: false }));
        breaker.probe(async { Err("still broken") }).await;
        assert!(breaker.is_open());
        breaker.probe(async { Ok::<(), &str>(()) }).await;
        let hanging = breaker.ask(std::future::pending::<Result<u8, &str>>());
        assert_eq!(hanging.await, Err(Down { was_asked: true }));
        assert!(breaker.is_open());
    }
}
