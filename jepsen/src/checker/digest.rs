//! Digests: two nodes that are equally far have the same ledger.

use super::{Checker, Finding, Verdict};
use crate::history::Folded;
use std::collections::BTreeMap;

pub(super) const CHECKER: Checker =
    Checker { name: "digest", claim: "the same digest on every node at every common index", check };

fn check(history: &Folded) -> Vec<Finding> {
    let mut seen: BTreeMap<u64, (u64, &str)> = BTreeMap::new();
    let (mut compared, mut problems) = (0_u64, Vec::new());
    for (_, state) in &history.states {
        let Some(digest) = &state.digest else { continue };
        match seen.get(&state.digest_index) {
            None => {
                seen.insert(state.digest_index, (state.node, digest));
            }
            Some((node, other)) => {
                compared += u64::from(*node != state.node);
                if other != digest {
                    let index = state.digest_index;
                    problems.push(format!("nodes {node} and {} differ at index {index}", state.node));
                }
            }
        }
    }
    if seen.is_empty() || (history.header.nodes > 1 && compared == 0 && problems.is_empty()) {
        return vec![Finding::new("digest", Verdict::Skipped, "nodes told no digest at a common index")];
    }
    vec![Finding::unless("digest", &problems, format!("{} indexes, {compared} of them on two nodes", seen.len()))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::NodeState;

    #[test]
    fn one_index_with_two_digests_is_invalid() {
        let state = |node, index, digest: &str| {
            (0, NodeState { node, digest_index: index, digest: Some(digest.into()), ..NodeState::default() })
        };
        let verdict = |states| check(&Folded { states, ..Folded::default() })[0].verdict;
        assert_eq!(verdict(vec![state(1, 7, "a"), state(2, 7, "a"), state(2, 8, "b")]), Verdict::Valid);
        assert_eq!(verdict(vec![state(1, 7, "a"), state(2, 7, "b")]), Verdict::Invalid);
        assert_eq!(verdict(vec![]), Verdict::Skipped);
    }
}
