//! Checkers: each judges one promise by the history alone, and says what it measured.

mod availability;
mod coverage;
mod curve;
mod digest;
mod inversion;
mod permits;
mod quiet;
mod quota;
mod register;
mod usage;

use crate::history::Folded;
use serde::Serialize;

/// What a checker came to. The worse one comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// There was nothing for it to judge in this run.
    Skipped,
    /// The promise held.
    Valid,
    /// Nobody can say.
    Unknown,
    /// The promise was broken.
    Invalid,
}

/// What a checker says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// Which checker, and on what.
    pub(crate) checker: String,
    /// What it came to.
    pub(crate) verdict: Verdict,
    /// In one sentence, with what was measured.
    pub(crate) said: String,
}

impl Finding {
    fn new(checker: impl Into<String>, verdict: Verdict, said: impl Into<String>) -> Self {
        Self { checker: checker.into(), verdict, said: said.into() }
    }

    /// Valid unless there are problems, the first of which are told.
    fn unless(checker: impl Into<String>, problems: &[String], otherwise: impl Into<String>) -> Self {
        match problems {
            [] => Self::new(checker, Verdict::Valid, otherwise),
            problems => {
                let shown = problems.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
                Self::new(checker, Verdict::Invalid, format!("{} problems: {shown}", problems.len()))
            }
        }
    }
}

/// One checker: the promise, and the function that judges it.
pub(crate) struct Checker {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it claims.
    pub(crate) claim: &'static str,
    /// Judges a history.
    pub(crate) check: fn(&Folded) -> Vec<Finding>,
}

/// Every checker. A new one is a file here and a row in this table.
pub(crate) const CHECKERS: [Checker; 10] = [
    curve::CHECKER,
    permits::CHECKER,
    usage::CHECKER,
    quota::CHECKER,
    inversion::CHECKER,
    register::CHECKER,
    digest::CHECKER,
    quiet::CHECKER,
    availability::CHECKER,
    coverage::CHECKER,
];

/// Judges a history by every checker.
pub(crate) fn judge(history: &Folded) -> Vec<Finding> {
    CHECKERS.iter().flat_map(|checker| (checker.check)(history)).collect()
}

/// The worst of them; unknown when nothing was judged.
pub(crate) fn verdict(findings: &[Finding]) -> Verdict {
    match findings.iter().map(|finding| finding.verdict).max() {
        None | Some(Verdict::Skipped) => Verdict::Unknown,
        Some(verdict) => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_verdict_and_nothing_judged_is_no_pass() {
        let finding = |verdict| Finding::new("c", verdict, "");
        assert_eq!(verdict(&[finding(Verdict::Valid), finding(Verdict::Skipped)]), Verdict::Valid);
        assert_eq!(verdict(&[finding(Verdict::Valid), finding(Verdict::Unknown)]), Verdict::Unknown);
        assert_eq!(verdict(&[finding(Verdict::Invalid), finding(Verdict::Unknown)]), Verdict::Invalid);
        assert_eq!(verdict(&[finding(Verdict::Skipped)]), Verdict::Unknown);
        assert_eq!(verdict(&[]), Verdict::Unknown);
    }
}
