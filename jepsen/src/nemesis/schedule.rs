//! When which nemesis strikes: lanes that run side by side, each a seeded round of its nemeses.

use super::{Case, NEMESES, Nemesis, Scene};
use crate::chance::Chance;
use crate::history::Phase;
use std::time::Duration;
use tokio::time::Instant;

/// Clients work undisturbed first, so that there is something to compare with.
const CALM_FIRST: Duration = Duration::from_secs(3);
/// No strike begins later than this before the end.
const CALM_LAST: Duration = Duration::from_secs(8);
/// Between two strikes of a lane.
const REST_MS: (u64, u64) = (1_500, 4_000);

/// Nemeses that strike one after the other, in rounds, so that each has its turn.
#[derive(Clone)]
pub(crate) struct Lane {
    nemeses: Vec<&'static Nemesis>,
    chance: Chance,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.nemeses.iter().map(|nemesis| nemesis.name)).finish()
    }
}

/// The nemeses that are named in a list of lanes; `all` is every one, `none` is none.
///
/// # Errors
/// When one of the names is none.
pub(crate) fn named(list: &str) -> anyhow::Result<Vec<Vec<&'static Nemesis>>> {
    if list == "none" {
        return Ok(Vec::new());
    }
    let find = |name: &str| {
        let known = || NEMESES.iter().map(|nemesis| nemesis.name).collect::<Vec<_>>().join(", ");
        let found = NEMESES.iter().find(|nemesis| nemesis.name == name.trim());
        found.ok_or_else(|| anyhow::anyhow!("there is no nemesis {name}; there are {}", known()))
    };
    let lane = |names: &str| match names {
        "all" => Ok(NEMESES.iter().collect()),
        names => names.split(',').map(find).collect(),
    };
    list.split('+').map(lane).collect()
}

/// The lanes of a run, without what cannot work here, and that with its reason.
pub(crate) fn lanes(named: &[Vec<&'static Nemesis>], seed: u64, nodes: u64) -> (Vec<Lane>, Vec<(String, String)>) {
    let (mut lanes, mut skipped) = (Vec::new(), Vec::new());
    for (number, nemeses) in named.iter().enumerate() {
        let mut able = Vec::new();
        for nemesis in nemeses {
            match (nemesis.cannot)(nodes) {
                Some(reason) => skipped.push((nemesis.name.to_owned(), reason)),
                None => able.push(*nemesis),
            }
        }
        if !able.is_empty() {
            lanes.push(Lane { nemeses: able, chance: Chance::of(seed, &format!("lane {number}")) });
        }
    }
    (lanes, skipped)
}

impl Lane {
    /// Strikes again and again until the end is near. A strike that could not be mended ends the lane: a node that does
    /// not come back is for the checkers to judge.
    pub(crate) async fn run(mut self, scene: &Scene, until: Instant) {
        tokio::time::sleep(CALM_FIRST).await;
        loop {
            let mut round = self.nemeses.clone();
            self.chance.shuffle(&mut round);
            for nemesis in round {
                if Instant::now() + CALM_LAST > until {
                    return;
                }
                let fault = scene.recorder.fault();
                scene.recorder.phase(fault, nemesis.name, Phase::Begin, &[], "");
                let case = Case { scene, name: nemesis.name, fault };
                match (nemesis.strike)(&case, &mut self.chance).await {
                    Ok(()) => scene.recorder.phase(fault, nemesis.name, Phase::End, &[], ""),
                    Err(error) => scene.recorder.phase(fault, nemesis.name, Phase::Missed, &[], format!("{error:#}")),
                }
                tokio::time::sleep(self.chance.millis(REST_MS.0, REST_MS.1)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_read_from_the_command_line() {
        let names = |list| -> Vec<Vec<&str>> {
            named(list).unwrap().iter().map(|lane| lane.iter().map(|nemesis| nemesis.name).collect()).collect()
        };
        assert_eq!(names("kill,term+pause-short"), [vec!["kill", "term"], vec!["pause-short"]]);
        assert_eq!(names("all"), [NEMESES.iter().map(|nemesis| nemesis.name).collect::<Vec<_>>()]);
        assert!(names("none").is_empty());
        assert!(named("kill,meteor").is_err_and(|error| error.to_string().contains("no nemesis meteor")));
    }
}
