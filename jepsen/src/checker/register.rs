//! Linearizability of the admin registers: each operation takes effect at one moment between its begin and its end.
//!
//! The search is Wing and Gong's in Lowe's form: events in order of time, and the set of configurations (the value, and
//! which open operations have taken effect already) that could have led here. When an operation ends, those survive
//! in which it has taken effect. A write whose outcome is unknown stays open for ever: it may take effect at any time
//! or never. A read that failed says nothing.
//!
//! Source: G. Lowe, Testing for linearizability, Concurrency and Computation 29(4), 2017.

use super::{Checker, Finding, Verdict};
use crate::history::{Call, Folded, Outcome, Value};
use std::collections::{BTreeSet, HashSet};

/// More configurations than this are not searched: the verdict is unknown.
const CONFIGURATIONS_MAX: usize = 200_000;

pub(super) const CHECKER: Checker =
    Checker { name: "register", claim: "reads and writes of an admin register are linearizable", check };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Write(u64),
    Read(u64),
}

/// An operation on one register; `to_us` is none when its end is unknown.
#[derive(Clone, Copy, Debug)]
struct Span {
    id: u64,
    effect: Effect,
    from_us: u64,
    to_us: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Linearizable,
    /// The operation that could not have taken effect.
    Broken(u64),
    TooMany,
}

fn check(history: &Folded) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pool in &history.header.pools {
        let spans = spans(history, &pool.name);
        if spans.is_empty() {
            continue;
        }
        let name = format!("register {}", pool.name);
        let unknown = spans.iter().filter(|span| span.to_us.is_none()).count();
        let counted = format!("{} operations, {unknown} writes of unknown outcome", spans.len());
        findings.push(match search(pool.concurrent, &spans) {
            Found::Linearizable => Finding::new(name, Verdict::Valid, counted),
            Found::TooMany => Finding::new(name, Verdict::Unknown, format!("{counted}: too many to search")),
            Found::Broken(op) => {
                let node = history.op(op).map_or(0, |op| op.node);
                let said = format!("{counted}; operation {op} on node {node} fits no order");
                Finding::new(name, Verdict::Invalid, said)
            }
        });
    }
    findings
}

fn spans(history: &Folded, register: &str) -> Vec<Span> {
    let span = |op: &crate::history::Op| {
        let (effect, to_us) = match (&op.call, &op.outcome) {
            (Call::SetLimit { register: name, value }, outcome) if name == register => match outcome {
                Outcome::Ok(_) => (Effect::Write(*value), op.ended_us),
                Outcome::Unknown(_) => (Effect::Write(*value), None),
                Outcome::Fail(_) => return None,
            },
            (Call::GetLimit { register: name }, Outcome::Ok(Value::Limit { value })) if name == register => {
                (Effect::Read(*value), op.ended_us)
            }
            _ => return None,
        };
        Some(Span { id: op.id, effect, from_us: op.invoked_us, to_us })
    };
    history.ops.iter().filter_map(span).collect()
}

fn search(initial: u64, spans: &[Span]) -> Found {
    // Ends come after begins of the same microsecond: that allows more orders, never fewer.
    let begins = spans.iter().enumerate().map(|(place, span)| (span.from_us, false, place));
    let ends = spans.iter().enumerate().filter_map(|(place, span)| Some((span.to_us?, true, place)));
    let mut events: Vec<(u64, bool, usize)> = begins.chain(ends).collect();
    events.sort_unstable();
    let mut open = BTreeSet::new();
    let mut configurations = HashSet::from([(initial, BTreeSet::new())]);
    for (_, is_end, place) in events {
        if !is_end {
            open.insert(place);
            continue;
        }
        let mut seen = configurations.clone();
        let mut next: Vec<_> = configurations.drain().collect();
        while let Some((value, done)) = next.pop() {
            if done.contains(&place) {
                let mut done = done;
                done.remove(&place);
                configurations.insert((value, done));
                continue;
            }
            for &other in open.difference(&done) {
                let value = match spans[other].effect {
                    Effect::Write(new) => new,
                    Effect::Read(read) if read == value => value,
                    Effect::Read(_) => continue,
                };
                let mut done = done.clone();
                done.insert(other);
                if seen.insert((value, done.clone())) {
                    next.push((value, done));
                }
            }
            if seen.len() > CONFIGURATIONS_MAX {
                return Found::TooMany;
            }
        }
        if configurations.is_empty() {
            return Found::Broken(spans[place].id);
        }
        open.remove(&place);
    }
    Found::Linearizable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    fn span(id: u64, effect: Effect, from_us: u64, to_us: impl Into<Option<u64>>) -> Span {
        Span { id, effect, from_us, to_us: to_us.into() }
    }

    #[test]
    fn a_stale_read_is_broken_and_a_concurrent_one_is_not() {
        let write = span(1, Effect::Write(5), 10, 20);
        assert_eq!(search(0, &[write, span(2, Effect::Read(0), 30, 40)]), Found::Broken(2));
        assert_eq!(search(0, &[write, span(2, Effect::Read(0), 15, 40)]), Found::Linearizable);
        assert_eq!(search(0, &[write, span(2, Effect::Read(5), 30, 40)]), Found::Linearizable);
        let back = [write, span(2, Effect::Read(5), 11, 12), span(3, Effect::Read(0), 13, 14)];
        assert_eq!(search(0, &back), Found::Broken(3));
    }

    #[test]
    fn a_write_of_unknown_outcome_may_happen_late_or_never_but_not_twice() {
        let unknown = span(1, Effect::Write(5), 10, None);
        let never = [unknown, span(2, Effect::Read(0), 30, 40)];
        assert_eq!(search(0, &never), Found::Linearizable);
        let late = [unknown, span(2, Effect::Read(0), 30, 40), span(3, Effect::Read(5), 50, 60)];
        assert_eq!(search(0, &late), Found::Linearizable);
        let back = [unknown, span(2, Effect::Read(5), 30, 40), span(3, Effect::Read(0), 50, 60)];
        assert_eq!(search(0, &back), Found::Broken(3));
    }

    /// Tries every order of the operations, with each unknown write at any place or at none.
    fn naive(value: u64, left: &[Span]) -> bool {
        let ends = left.iter().filter_map(|span| span.to_us).min();
        let Some(first_end) = ends else { return true };
        left.iter().enumerate().filter(|(_, span)| span.from_us <= first_end).any(|(place, span)| {
            let mut rest = left.to_vec();
            rest.remove(place);
            match span.effect {
                Effect::Write(new) => naive(new, &rest),
                Effect::Read(read) => read == value && naive(value, &rest),
            }
        })
    }

    #[test]
    fn the_search_agrees_with_trying_every_order() {
        let mut chance = Chance::of(1, "register");
        let mut verdicts = [0, 0];
        for _ in 0..2_000 {
            let mut spans: Vec<Span> = (0..6)
                .map(|id| {
                    let from_us = chance.within(0, 20);
                    let to_us = from_us + chance.within(0, 10);
                    let value = chance.within(0, 2);
                    match chance.within(0, 4) {
                        0 => span(id, Effect::Write(value), from_us, None),
                        1 | 2 => span(id, Effect::Write(value), from_us, to_us),
                        _ => span(id, Effect::Read(value), from_us, to_us),
                    }
                })
                .collect();
            spans.sort_by_key(|span| span.from_us);
            let agrees = search(0, &spans) == Found::Linearizable;
            assert_eq!(agrees, naive(0, &spans), "{spans:?}");
            verdicts[usize::from(agrees)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 100), "{verdicts:?}");
    }
}
