//! The arrival curve of every bucket: no interval of arrivals at the upstream holds more than B + R (t + d).
//!
//! For arrivals at `t_1 <= t_2 <= ..` of amounts `a_k`, with `C_k` their sum so far, the excess of the interval i..=j is
//! `(C_j - R t_j) - (C_{i-1} - R t_i) - B`; keeping the smallest right part seen makes one pass of all intervals. The
//! excess over R is the d that the history needs: it is measured and told, and judged against what is promised (100 ms
//! between the last look at the clock and the write) plus the largest stall of this machine.
//!
//! A node that stands still between that look and the write sends late, one request for each of its threads. So many
//! arrivals of the node right after its pause are not counted against it.

use super::{Checker, Finding, Verdict};
use crate::history::Folded;

/// Promised between the last look at the clock and the write of the request's head.
const DELTA_US: u64 = 100_000;
/// What a stopped node had in hand arrives so soon after it goes on.
const AFTER_PAUSE_US: u64 = 250_000;

pub(super) const CHECKER: Checker = Checker {
    name: "curve",
    claim: "of every bucket, each interval t of arrivals holds at most B + R (t + d), d = 100 ms + stall",
    check,
};

/// A limit: so many units each second, so many saved up.
#[derive(Clone, Copy, Debug)]
struct Limit {
    per_sec: u64,
    burst: u64,
}

/// The interval that used most of what it was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Worst {
    from_us: u64,
    to_us: u64,
    amount: u64,
    /// Units times 1,000,000 above B + R t.
    excess: i128,
}

fn check(history: &Folded) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pool in &history.header.pools {
        for (dimension, per_sec, burst) in
            [("tokens", pool.tokens_per_sec, pool.burst_tokens), ("requests", pool.rps, pool.burst_requests)]
        {
            if per_sec > 0 {
                let limit = Limit { per_sec, burst };
                findings.push(of_bucket(history, &pool.name, dimension, limit));
            }
        }
    }
    findings
}

fn of_bucket(history: &Folded, pool: &str, dimension: &str, limit: Limit) -> Finding {
    let name = format!("curve {pool} {dimension}");
    let late = late_arrivals(history);
    let prompt = crate::db::PROMPT_TOKENS;
    let arrivals = history
        .arrivals
        .iter()
        .enumerate()
        .filter(|(place, (_, arrival))| arrival.model == pool && !late.contains(place));
    let events: Vec<(u64, u64)> = arrivals
        .map(|(_, (at_us, arrival))| (*at_us, if dimension == "tokens" { arrival.tokens(prompt) } else { 1 }))
        .collect();
    let Some(worst) = worst(limit, &events) else {
        return Finding::new(name, Verdict::Skipped, "nothing arrived");
    };
    let d_us = needed_us(limit, &worst);
    let allowed_us = DELTA_US + history.stall_us;
    let verdict = if d_us <= allowed_us { Verdict::Valid } else { Verdict::Invalid };
    let said = format!(
        "{} arrivals; the worst interval held {} in {:.3} s (from {} us); d = {:.1} ms of {:.1} ms; {} late after pauses",
        events.len(),
        worst.amount,
        (worst.to_us - worst.from_us) as f64 / 1e6,
        worst.from_us,
        d_us as f64 / 1e3,
        allowed_us as f64 / 1e3,
        late.len(),
    );
    Finding::new(name, verdict, said)
}

/// Places of the arrivals that a stopped node had in hand: the first ones after it went on, one for each thread.
fn late_arrivals(history: &Folded) -> std::collections::BTreeSet<usize> {
    let mut late = std::collections::BTreeSet::new();
    for fault in history.faults.iter().filter(|fault| fault.nemesis.starts_with("pause") && fault.struck_us.is_some()) {
        let (Some(struck_us), Some(resumed_us)) = (fault.struck_us, fault.to_us) else { continue };
        let in_hand = history.arrivals.iter().enumerate().filter(|(_, (at_us, arrival))| {
            let op = arrival.op.and_then(|op| history.op(op));
            let soon_after = resumed_us.saturating_sub(20_000)..resumed_us + AFTER_PAUSE_US;
            soon_after.contains(at_us)
                && op.is_some_and(|op| fault.nodes.contains(&op.node) && op.invoked_us < struck_us)
        });
        let threads = usize::try_from(history.header.worker_threads).unwrap_or(0);
        late.extend(in_hand.map(|(place, _)| place).take(threads));
    }
    late
}

fn worst(limit: Limit, events: &[(u64, u64)]) -> Option<Worst> {
    let mut worst: Option<Worst> = None;
    let mut floor: Option<(i128, u64, u64)> = None;
    let mut total: u64 = 0;
    for &(at_us, amount) in events {
        let refilled = i128::from(at_us) * i128::from(limit.per_sec);
        let start = i128::from(total) * 1_000_000 - refilled;
        if floor.is_none_or(|(low, ..)| start < low) {
            floor = Some((start, at_us, total));
        }
        total += amount;
        let Some((low, from_us, before)) = floor else { continue };
        let excess = (i128::from(total) - i128::from(limit.burst)) * 1_000_000 - refilled - low;
        if worst.is_none_or(|worst| excess > worst.excess) {
            worst = Some(Worst { from_us, to_us: at_us, amount: total - before, excess });
        }
    }
    worst
}

/// The smallest d with which the limit held, rounded up.
fn needed_us(limit: Limit, worst: &Worst) -> u64 {
    let per_sec = i128::from(limit.per_sec.max(1));
    u64::try_from(worst.excess.max(0).div_euclid(per_sec) + i128::from(worst.excess.max(0) % per_sec > 0))
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;
    use crate::history::{Arrival, Header, Pool};

    fn run(arrivals: &[(u64, u64)]) -> Finding {
        let pool = Pool { name: "m".into(), tokens_per_sec: 100, burst_tokens: 50, ..Pool::default() };
        let arrival = |&(at_us, tokens): &(u64, u64)| {
            let used = Arrival {
                model: "m".into(),
                prompt_tokens: Some(tokens),
                completion_tokens: Some(0),
                ..Arrival::default()
            };
            (at_us, used)
        };
        let header = Header { pools: vec![pool], ..Header::default() };
        let history = Folded { header, arrivals: arrivals.iter().map(arrival).collect(), ..Folded::default() };
        check(&history).remove(0)
    }

    #[test]
    fn a_burst_and_what_refills_are_valid_and_twice_the_burst_is_not() {
        assert_eq!(run(&[(0, 50), (1_000_000, 50)]).verdict, Verdict::Valid);
        let broken = run(&[(0, 50), (1_000, 50)]);
        assert_eq!(broken.verdict, Verdict::Invalid, "{}", broken.said);
        assert!(broken.said.contains("held 100 in 0.001 s"), "{}", broken.said);
        // 10 units above are 100 ms of this rate: just what is promised.
        assert_eq!(run(&[(0, 60)]).verdict, Verdict::Valid);
        assert_eq!(run(&[(0, 61)]).verdict, Verdict::Invalid);
        assert_eq!(run(&[]).verdict, Verdict::Skipped);
    }

    #[test]
    fn one_pass_finds_what_all_intervals_show() {
        let mut chance = Chance::of(1, "curve");
        for _ in 0..200 {
            let limit = Limit { per_sec: chance.within(0, 3_000_000), burst: chance.within(0, 100) };
            let mut events: Vec<(u64, u64)> = (0..20).map(|_| (chance.within(0, 99), chance.within(0, 40))).collect();
            events.sort_unstable();
            let mut naive = i128::MIN;
            for i in 0..events.len() {
                for j in i..events.len() {
                    let sum: u64 = events[i..=j].iter().map(|event| event.1).sum();
                    let span = i128::from(events[j].0 - events[i].0) * i128::from(limit.per_sec);
                    naive = naive.max((i128::from(sum) - i128::from(limit.burst)) * 1_000_000 - span);
                }
            }
            assert_eq!(worst(limit, &events).map(|worst| worst.excess), Some(naive));
        }
    }
}
