//! SIGTERM: a node drains and ends in good order, then starts again.

use super::{Nemesis, always};
use anyhow::Context;
use rustix::process::Signal;
use std::time::Duration;

/// Longer than the drain and the shipping of usage rows.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);

/// A node is asked to end.
pub(super) const TERM: Nemesis = Nemesis {
    name: "term",
    about: "SIGTERM: a node drains, ends with 0, and starts again",
    cannot: always,
    strike: |case, chance| {
        Box::pin(async move {
            let victim = case.victim(chance)?;
            victim.signal(Signal::TERM).await?;
            let status = victim.wait_exit(DRAINED_WITHIN).await.context("it did not drain")?;
            case.struck(&[victim.id], format!("ended with {status}"));
            tokio::time::sleep(chance.millis(0, 1_000)).await;
            victim.start().await
        })
    },
};
