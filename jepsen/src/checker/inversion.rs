//! Priority inversions: how long a request waited on after a less urgent one of its pool was admitted that it had waited
//! beside, by the times that replies tell. A request rises by one priority for each quantum that it waits, never into 0.
//! Requests that waited while a fault was at work, or soon after, are left out: what a fault costs is another number.

use super::{Checker, Finding, Verdict};
use crate::history::{Call, Fault, Folded};

/// The gateway's default.
const AGING_QUANTUM_US: u64 = 2_000_000;
/// Of real processes, at the 99th percentile; the machine's stall comes on top.
const BOUND_US: u64 = 10_000;
/// Requests in calm, below which the percentile is told and not judged.
const JUDGED_FROM: usize = 300;
/// A fault is over this long after it was mended: a lease and an election.
const AFTERMATH_US: u64 = 3_000_000;

pub(super) const CHECKER: Checker =
    Checker { name: "inversion", claim: "p99 of priority inversions at most 10 ms + stall, faults aside", check };

/// A request as its reply tells of it.
#[derive(Clone, Copy, Debug)]
struct Served {
    priority: u8,
    came_us: u64,
    admitted_us: u64,
}

impl Served {
    /// How urgent it is at a time, with what it gained by waiting.
    fn priority_at(self, at_us: u64) -> u64 {
        let gained = at_us.saturating_sub(self.came_us) / AGING_QUANTUM_US;
        u64::from(self.priority).saturating_sub(gained).max(u64::from(self.priority.min(1)))
    }
}

fn check(history: &Folded) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pool in &history.header.pools {
        let mut served = served(history, &pool.name);
        served.sort_unstable_by_key(|served| served.admitted_us);
        if served.iter().all(|one| one.priority == served[0].priority) {
            continue;
        }
        findings.push(of_pool(&pool.name, &served, history));
    }
    findings
}

fn of_pool(pool: &str, served: &[Served], history: &Folded) -> Finding {
    let calm = served.iter().filter(|served| !history.faults.iter().any(|fault| touches(fault, served)));
    let mut inversions: Vec<u64> = calm.map(|one| inversion_us(*one, served)).collect();
    inversions.sort_unstable();
    let name = format!("inversion {pool}");
    let Some(max_us) = inversions.last() else {
        return Finding::new(name, Verdict::Skipped, "no request was served in calm");
    };
    let p99_us = inversions[(inversions.len() - 1) * 99 / 100];
    let verdict = match inversions.len() {
        // The 99th percentile of a few is only their worst.
        ..JUDGED_FROM => Verdict::Skipped,
        _ if p99_us <= BOUND_US + history.stall_us => Verdict::Valid,
        _ => Verdict::Invalid,
    };
    let longest_us = served.iter().map(|one| one.admitted_us - one.came_us).max().unwrap_or(0);
    let said = format!(
        "of {} requests in calm: p99 {:.1} ms, most {:.1} ms; longest wait of all {:.2} s",
        inversions.len(),
        p99_us as f64 / 1e3,
        *max_us as f64 / 1e3,
        longest_us as f64 / 1e6,
    );
    Finding::new(name, verdict, said)
}

fn served(history: &Folded, pool: &str) -> Vec<Served> {
    let one = |op: &crate::history::Op| {
        let Call::Chat(chat) = &op.call else { return None };
        let answer = op.answer().filter(|answer| answer.admitted_us > 0 && chat.model == pool)?;
        let came_us = answer.admitted_us.saturating_sub(answer.wait_ms * 1_000);
        Some(Served { priority: chat.priority, came_us, admitted_us: answer.admitted_us })
    };
    history.ops.iter().filter_map(one).collect()
}

/// `all` in order of admission.
fn inversion_us(passed: Served, all: &[Served]) -> u64 {
    let from = all.partition_point(|other| other.admitted_us <= passed.came_us);
    let beside = all[from..].iter().take_while(|other| other.admitted_us < passed.admitted_us);
    let less = beside.filter(|other| other.priority_at(other.admitted_us) > passed.priority_at(other.admitted_us));
    let long = |other: &Served| (other.admitted_us - passed.came_us).min(passed.admitted_us - other.admitted_us);
    less.map(long).max().unwrap_or(0)
}

fn touches(fault: &Fault, served: &Served) -> bool {
    let over_us = fault.to_us.map_or(u64::MAX, |to_us| to_us + AFTERMATH_US);
    fault.from_us <= served.admitted_us && served.came_us <= over_us
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(priority: u8, came_ms: u64, admitted_ms: u64) -> Served {
        Served { priority, came_us: came_ms * 1_000, admitted_us: admitted_ms * 1_000 }
    }

    #[test]
    fn who_was_passed_by_a_less_urgent_one_shows_for_how_long() {
        let urgent = one(0, 100, 500);
        assert_eq!(inversion_us(urgent, &[one(5, 0, 200), urgent]), 100_000);
        assert_eq!(inversion_us(urgent, &[one(0, 0, 200), urgent]), 0);
        assert_eq!(inversion_us(urgent, &[one(5, 0, 90), urgent, one(5, 0, 600)]), 0);
    }

    #[test]
    fn a_request_that_has_aged_past_another_inverts_nothing() {
        let urgent = one(4, 3_900, 4_500);
        assert_eq!(inversion_us(urgent, &[one(5, 0, 4_200), urgent]), 0);
        // Aging never reaches priority 0.
        let first = one(0, 19_000, 20_500);
        assert_eq!(inversion_us(first, &[one(1, 0, 20_000), first]), 500_000);
    }
}
