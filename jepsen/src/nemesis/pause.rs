//! SIGSTOP: a node that stands still and does not know it, shorter and longer than its lease of 2.5 s.

use super::{Case, Nemesis, Strike, always};
use crate::chance::Chance;
use anyhow::ensure;
use rustix::process::Signal;
use std::time::Duration;

/// How often it is looked whether the process has stopped.
const LOOKS: u32 = 100;

/// Shorter than the lease.
pub(super) const SHORT: Nemesis = Nemesis {
    name: "pause-short",
    about: "SIGSTOP of a node for 0.1 to 2 s, shorter than its lease",
    cannot: always,
    strike: |case, chance| pause(case, chance, (100, 2_000)),
};

/// Longer than the lease.
pub(super) const LONG: Nemesis = Nemesis {
    name: "pause-long",
    about: "SIGSTOP of a node for 3 to 6 s, longer than its lease",
    cannot: always,
    strike: |case, chance| pause(case, chance, (3_000, 6_000)),
};

fn pause<'a>(case: &'a Case<'a>, chance: &'a mut Chance, (low_ms, high_ms): (u64, u64)) -> Strike<'a> {
    Box::pin(async move {
        let victim = case.victim(chance)?;
        let stopped = chance.millis(low_ms, high_ms);
        victim.signal(Signal::STOP).await?;
        // The kernel stops each thread in its own time.
        let mut state = victim.state().await;
        for _ in 0..LOOKS {
            if state == Some('T') {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            state = victim.state().await;
        }
        if state == Some('T') {
            case.struck(&[victim.id], format!("stopped for {stopped:?}"));
        }
        tokio::time::sleep(stopped).await;
        victim.signal(Signal::CONT).await?;
        ensure!(state == Some('T'), "the process did not stop, its state was {state:?}");
        Ok(())
    })
}
