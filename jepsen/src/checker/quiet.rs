//! Rest: after the last client has gone and every fault is mended, nothing is taken, nothing waits, on any node.

use super::{Checker, Finding, Verdict};
use crate::history::Folded;

pub(super) const CHECKER: Checker =
    Checker { name: "quiet", claim: "nothing outstanding on any node after quiet", check };

fn check(history: &Folded) -> Vec<Finding> {
    let mut problems = Vec::new();
    let mut heard = 0;
    for (_, state) in history.states.iter().filter(|(_, state)| state.is_final) {
        heard += 1;
        for line in &state.outstanding {
            problems.push(format!("node {}: {line}", state.node));
        }
    }
    if problems.is_empty() && heard < history.header.nodes {
        let said = format!("{heard} of {} nodes answered after the run", history.header.nodes);
        return vec![Finding::new("quiet", Verdict::Unknown, said)];
    }
    vec![Finding::unless("quiet", &problems, format!("{heard} nodes at rest"))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Header, NodeState};

    #[test]
    fn a_permit_that_never_comes_back_is_invalid_and_a_silent_node_is_unknown() {
        let state = |outstanding: &[&str]| {
            let outstanding = outstanding.iter().map(|&line| line.to_owned()).collect();
            (0, NodeState { node: 1, is_final: true, outstanding, ..NodeState::default() })
        };
        let header = Header { nodes: 1, ..Header::default() };
        let verdict = |states| check(&Folded { header: header.clone(), states, ..Folded::default() })[0].verdict;
        assert_eq!(verdict(vec![state(&[])]), Verdict::Valid);
        assert_eq!(verdict(vec![state(&["tokligence_requests_in_flight 1"])]), Verdict::Invalid);
        assert_eq!(verdict(vec![]), Verdict::Unknown);
    }
}
