//! `kill -9`: of a node that serves, and of one that is just opening its data.

use super::{Nemesis, always};

/// A node that serves is killed and started again a while later.
pub(super) const KILL: Nemesis = Nemesis {
    name: "kill",
    about: "kill -9 of a node, started again up to 3 s later",
    cannot: always,
    strike: |case, chance| {
        Box::pin(async move {
            let victim = case.victim(chance)?;
            let down = chance.millis(0, 3_000);
            victim.kill().await?;
            case.struck(&[victim.id], format!("killed; down for {down:?}"));
            tokio::time::sleep(down).await;
            victim.start().await
        })
    },
};

/// A node is killed several times while it opens its data.
pub(super) const KILL_OPENING: Nemesis = Nemesis {
    name: "kill-opening",
    about: "kill -9, then again two to five times while the node opens its log, at any moment of it",
    cannot: always,
    strike: |case, chance| {
        Box::pin(async move {
            let victim = case.victim(chance)?;
            victim.kill().await?;
            let times = chance.within(2, 5);
            for _ in 0..times {
                victim.begin().await?;
                tokio::time::sleep(chance.millis(1, 250)).await;
                victim.kill().await?;
            }
            case.struck(&[victim.id], format!("killed {times} times while opening"));
            victim.start().await
        })
    },
};
