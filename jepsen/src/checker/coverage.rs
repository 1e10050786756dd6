//! Coverage: every nemesis that was asked for struck at least once. A fault that never struck proves nothing.

use super::{Checker, Finding, Verdict};
use crate::history::Folded;
use std::collections::BTreeMap;

pub(super) const CHECKER: Checker =
    Checker { name: "coverage", claim: "every nemesis that was asked for was seen to strike, and was mended", check };

fn check(history: &Folded) -> Vec<Finding> {
    let mut findings: Vec<Finding> = history
        .header
        .skipped
        .iter()
        .map(|(name, reason)| Finding::new(format!("coverage {name}"), Verdict::Skipped, format!("skipped: {reason}")))
        .collect();
    let mut strikes: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for name in &history.header.asked {
        strikes.insert(name, (0, 0));
    }
    for fault in &history.faults {
        let counts = strikes.entry(fault.nemesis.as_str()).or_default();
        counts.0 += 1;
        counts.1 += u64::from(fault.struck_us.is_some());
    }
    for (name, (tries, struck)) in strikes {
        let verdict = if struck > 0 { Verdict::Valid } else { Verdict::Unknown };
        let mut said = format!("struck {struck} of {tries} times");
        let failed = history.faults.iter().filter(|fault| fault.nemesis == name && fault.struck_us.is_none());
        if let Some(note) = failed.filter_map(|fault| fault.notes.last()).next() {
            said = format!("{said}; not struck: {note}");
        }
        findings.push(Finding::new(format!("coverage {name}"), verdict, said));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Fault, Header};

    #[test]
    fn a_fault_that_never_struck_is_no_pass_and_what_cannot_work_here_is_skipped() {
        let fault = |nemesis: &str, struck_us| Fault {
            nemesis: nemesis.into(),
            nodes: Vec::new(),
            from_us: 1,
            struck_us,
            to_us: Some(2),
            notes: Vec::new(),
        };
        let header = Header {
            asked: vec!["kill".into(), "pause".into(), "term".into()],
            skipped: vec![("power".into(), "no compiler".into())],
            ..Header::default()
        };
        let faults = vec![fault("kill", Some(1)), fault("kill", None), fault("pause", None)];
        let findings = check(&Folded { header, faults, ..Folded::default() });
        let verdicts: Vec<_> = findings.iter().map(|finding| (finding.checker.as_str(), finding.verdict)).collect();
        assert_eq!(
            verdicts,
            [
                ("coverage power", Verdict::Skipped),
                ("coverage kill", Verdict::Valid),
                ("coverage pause", Verdict::Unknown),
                ("coverage term", Verdict::Unknown),
            ]
        );
    }
}
