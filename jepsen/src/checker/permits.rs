//! Permits: at no moment are more requests of a pool at the upstream than it allows.

use super::{Checker, Finding, Verdict};
use crate::history::Folded;

pub(super) const CHECKER: Checker =
    Checker { name: "permits", claim: "never more than C requests of a pool in flight at the upstream", check };

fn check(history: &Folded) -> Vec<Finding> {
    let limited = history.header.pools.iter().filter(|pool| pool.concurrent > 0);
    limited.map(|pool| of_pool(history, &pool.name, pool.concurrent)).collect()
}

fn of_pool(history: &Folded, pool: &str, limit: u64) -> Finding {
    // An end before a begin at the same microsecond: the upstream notes an end before the client can know of it.
    let mut edges: Vec<(u64, i64)> = Vec::new();
    for (at_us, arrival) in history.arrivals.iter().filter(|(_, arrival)| arrival.model == pool) {
        edges.push((*at_us, 1));
        edges.extend(arrival.ended_us.map(|ended_us| (ended_us, -1)));
    }
    edges.sort_unstable();
    let (mut now, mut peak, mut peak_us) = (0, 0, 0);
    for (at_us, change) in &edges {
        now += change;
        if now > peak {
            (peak, peak_us) = (now, *at_us);
        }
    }
    let name = format!("permits {pool}");
    if edges.is_empty() {
        return Finding::new(name, Verdict::Skipped, "nothing arrived");
    }
    let verdict = if peak <= i64::try_from(limit).unwrap_or(i64::MAX) { Verdict::Valid } else { Verdict::Invalid };
    Finding::new(name, verdict, format!("at most {peak} of {limit} in flight (at {peak_us} us)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Arrival;

    #[test]
    fn one_more_than_allowed_at_one_moment_is_invalid() {
        let arrival = |from: u64, to| (from, Arrival { model: "m".into(), ended_us: to, ..Arrival::default() });
        let history = |arrivals| Folded { arrivals, ..Folded::default() };
        let apart = history(vec![arrival(1, Some(5)), arrival(2, Some(6)), arrival(5, Some(9))]);
        assert_eq!(of_pool(&apart, "m", 2).verdict, Verdict::Valid);
        let beside = history(vec![arrival(1, Some(5)), arrival(2, Some(6)), arrival(4, Some(9))]);
        assert_eq!(of_pool(&beside, "m", 2).verdict, Verdict::Invalid);
        let endless = history(vec![arrival(1, None), arrival(2, None), arrival(9, None)]);
        assert_eq!(of_pool(&endless, "m", 2).verdict, Verdict::Invalid);
    }
}
