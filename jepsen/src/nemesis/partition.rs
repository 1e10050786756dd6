//! Partitions: links that pass nothing, each shorter and longer than a lease and an election.

use super::{Case, Nemesis, Strike};
use crate::chance::Chance;
use anyhow::Context;

/// Shorter than a lease to much longer than one.
const HOLD_MS: (u64, u64) = (500, 8_000);

/// One node and the rest do not hear each other.
pub(super) const ISOLATE: Nemesis = Nemesis {
    name: "isolate",
    about: "a node of chance is cut off from all others, both ways",
    cannot: needs_three,
    strike: |case, chance| {
        let victim = chance.pick(&case.scene.db.fabric.all()).copied().unwrap_or(1);
        split(case, chance, vec![victim], true)
    },
};

/// The leader and the rest do not hear each other.
pub(super) const ISOLATE_LEADER: Nemesis = Nemesis {
    name: "isolate-leader",
    about: "the leader is cut off from all others, both ways",
    cannot: needs_three,
    strike: |case, chance| {
        Box::pin(async move {
            let leader = case.scene.db.leader().await.context("no leader is known")?;
            split(case, chance, vec![leader], true).await
        })
    },
};

/// Two parts of chance, the smaller one without a quorum.
pub(super) const HALVES: Nemesis = Nemesis {
    name: "halves",
    about: "the group falls into a majority and a minority",
    cannot: needs_three,
    strike: |case, chance| {
        let mut nodes = case.scene.db.fabric.all();
        chance.shuffle(&mut nodes);
        nodes.truncate(nodes.len() / 2);
        split(case, chance, nodes, true)
    },
};

/// What one node sends reaches nobody; it still hears all others.
pub(super) const ONE_WAY: Nemesis = Nemesis {
    name: "one-way",
    about: "what one node sends is lost, what it hears is not",
    cannot: needs_three,
    strike: |case, chance| {
        let victim = chance.pick(&case.scene.db.fabric.all()).copied().unwrap_or(1);
        split(case, chance, vec![victim], false)
    },
};

/// Each node hears only its neighbours in a ring, so that no two see the same majority.
pub(super) const RING: Nemesis = Nemesis {
    name: "majority-ring",
    about: "each of five nodes hears only its two neighbours",
    cannot: |nodes| (nodes < 5).then(|| "needs five nodes".to_owned()),
    strike: |case, chance| {
        Box::pin(async move {
            let nodes = case.scene.db.fabric.all();
            let count = nodes.len() as u64;
            for one in &nodes {
                let far = |other: &u64| ![0, 1, count - 1].contains(&((other + count - one) % count));
                let far: Vec<u64> = nodes.iter().copied().filter(far).collect();
                case.scene.db.fabric.cut(&[*one], &far);
            }
            hold(case, chance, &nodes, "ring").await
        })
    },
};

fn needs_three(nodes: u64) -> Option<String> {
    (nodes < 3).then(|| "a group of one has no links".to_owned())
}

fn split<'a>(case: &'a Case<'a>, chance: &'a mut Chance, part: Vec<u64>, both_ways: bool) -> Strike<'a> {
    Box::pin(async move {
        let fabric = &case.scene.db.fabric;
        let rest: Vec<u64> = fabric.all().into_iter().filter(|node| !part.contains(node)).collect();
        fabric.cut(&part, &rest);
        if both_ways {
            fabric.cut(&rest, &part);
        }
        let note = format!("{part:?} {} {rest:?}", if both_ways { "<-/->" } else { "-/->" });
        hold(case, chance, &part, &note).await
    })
}

async fn hold(case: &Case<'_>, chance: &mut Chance, nodes: &[u64], note: &str) -> anyhow::Result<()> {
    let fabric = &case.scene.db.fabric;
    let before = fabric.held_back();
    tokio::time::sleep(chance.millis(HOLD_MS.0, HOLD_MS.1)).await;
    let held_back = fabric.held_back() - before;
    if held_back > 0 {
        case.struck(nodes, format!("{note}, {held_back} sends held back"));
    }
    fabric.mend();
    anyhow::ensure!(held_back > 0, "{note}: nobody sent anything");
    Ok(())
}
