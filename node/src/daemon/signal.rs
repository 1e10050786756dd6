//! SIGTERM and SIGINT: the first asks the node to finish what runs and stop, the second to stop at once.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Counts the signals that ask for an end.
#[derive(Debug)]
pub(super) struct Stop {
    signals: watch::Receiver<u32>,
}

impl Stop {
    /// Listens from now on. To be called before anything slow, so that no early signal is lost.
    ///
    /// # Errors
    /// When the system does not let us.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let (sender, signals) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                sender.send_modify(|count| *count += 1);
            }
        });
        Ok(Self { signals })
    }

    /// Waits for the first signal.
    pub(super) async fn first(&self) {
        self.at_least(1).await;
    }

    /// Waits for the second signal.
    pub(super) async fn second(&self) {
        self.at_least(2).await;
    }

    async fn at_least(&self, count: u32) {
        // The sender lives as long as the runtime; without it no signal can come any more.
        if self.signals.clone().wait_for(|seen| *seen >= count).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
