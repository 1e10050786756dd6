//! Availability: the longest time without one whole reply, in calm and by fault. On one node it is told, not judged: a
//! node that is down serves nobody. A run in which nothing is served at all proves nothing.

use super::{Checker, Finding, Verdict};
use crate::history::{Fault, Folded};
use std::collections::BTreeMap;

/// A gap belongs to a fault that ended at most this long before it.
const AFTERMATH_US: u64 = 3_000_000;

pub(super) const CHECKER: Checker =
    Checker { name: "availability", claim: "the longest serving gap, per fault", check };

fn check(history: &Folded) -> Vec<Finding> {
    let began_us = history.began_us();
    let ended_us = history.stage_us("mend").unwrap_or(u64::MAX);
    let mut replies: Vec<u64> =
        history.ops.iter().filter(|op| op.answer().is_some()).filter_map(|op| op.ended_us).collect();
    replies.retain(|at_us| *at_us <= ended_us);
    replies.sort_unstable();
    if replies.is_empty() {
        return vec![Finding::new("availability", Verdict::Unknown, "not one request was served")];
    }
    let mut gaps: BTreeMap<&str, u64> = BTreeMap::new();
    let mut last_us = began_us;
    for at_us in replies.iter().copied().chain([ended_us].into_iter().filter(|end| *end != u64::MAX)) {
        let gap_us = at_us.saturating_sub(last_us);
        let mut in_calm = true;
        for fault in history.faults.iter().filter(|fault| touches(fault, last_us, at_us)) {
            in_calm = false;
            let longest = gaps.entry(fault.nemesis.as_str()).or_default();
            *longest = (*longest).max(gap_us);
        }
        if in_calm {
            let longest = gaps.entry("calm").or_default();
            *longest = (*longest).max(gap_us);
        }
        last_us = at_us;
    }
    let gaps: Vec<String> = gaps.iter().map(|(name, us)| format!("{name} {:.2} s", *us as f64 / 1e6)).collect();
    let said = format!("{} replies; longest gap: {}", replies.len(), gaps.join(", "));
    vec![Finding::new("availability", Verdict::Valid, said)]
}

fn touches(fault: &Fault, from_us: u64, to_us: u64) -> bool {
    let ended_us = fault.to_us.map_or(u64::MAX, |to_us| to_us + AFTERMATH_US);
    fault.from_us <= to_us && from_us <= ended_us
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_belongs_to_the_faults_that_it_touches() {
        let fault = Fault {
            nemesis: "kill".into(),
            nodes: vec![1],
            from_us: 10_000_000,
            struck_us: None,
            to_us: Some(11_000_000),
            notes: Vec::new(),
        };
        assert!(touches(&fault, 9_000_000, 10_500_000));
        assert!(touches(&fault, 12_000_000, 20_000_000));
        assert!(!touches(&fault, 1_000_000, 9_999_999));
        assert!(!touches(&fault, 14_000_001, 15_000_000));
    }
}
