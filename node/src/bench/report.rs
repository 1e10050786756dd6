//! What a run came to, as numbers.

use super::call::{Outcome, Sample};
use super::drive::Run;
use super::plan::{Pace, Plan};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Two hours.
const LONGEST_US: u64 = 2 * 3_600 * 1_000_000;

/// The summary of a run; its JSON is what `--output json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) model: String,
    pub(crate) mode: &'static str,
    pub(crate) concurrency: Option<usize>,
    pub(crate) stopped_early: bool,
    pub(crate) seconds: f64,
    /// Requests that ended, in whatever way.
    pub(crate) requests: u64,
    pub(crate) ok: u64,
    pub(crate) refused: Vec<Refused>,
    /// Of the refused, those larger than a limit can ever hold: refused by design.
    pub(crate) refused_too_large: u64,
    pub(crate) errors: Vec<Broken>,
    pub(crate) aborted: u64,
    pub(crate) peak_in_flight: u64,
    pub(crate) requests_per_sec: f64,
    pub(crate) ok_per_sec: f64,
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) tokens_per_sec: f64,
    /// Of complete answers, from start to last byte.
    pub(crate) latency: Spread,
    /// Of complete answers, from start to the first byte of the body.
    pub(crate) first_byte: Spread,
    /// As the gateway says in `X-Tokligence-Queue-Wait-Ms`.
    pub(crate) queue_wait: Spread,
    /// How late the generator itself started requests that were due (open loop).
    pub(crate) generator_lag: Spread,
    pub(crate) priorities: Vec<ByPriority>,
}

/// Error replies of one kind.
#[derive(Debug, Serialize)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) count: u64,
}

/// Requests without a complete reply, of one kind.
#[derive(Debug, Serialize)]
pub(crate) struct Broken {
    pub(crate) reason: String,
    pub(crate) count: u64,
}

/// Quantiles of a time, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: u64,
    pub(crate) mean_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// The requests of one priority.
#[derive(Debug, Serialize)]
pub(crate) struct ByPriority {
    /// What was asked for; none means the key's own.
    pub(crate) priority: Option<u8>,
    pub(crate) requests: u64,
    pub(crate) ok: u64,
    pub(crate) latency: Spread,
    pub(crate) queue_wait: Spread,
}

impl Summary {
    /// Sums a run up.
    pub(crate) fn new(plan: &Plan, run: &Run) -> Self {
        let samples = &run.samples;
        let seconds = run.took.as_secs_f64();
        let per_sec = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let ok = count_ok(samples.iter());
        let prompt_tokens = samples.iter().map(|sample| sample.prompt_tokens).sum();
        let completion_tokens = samples.iter().map(|sample| sample.completion_tokens).sum();
        let (refused, refused_too_large) = refused(samples);
        let (mode, concurrency) = match plan.pace {
            Pace::Closed { concurrency } => ("closed", Some(concurrency)),
            Pace::Open { per_sec: Some(_) } => ("open", None),
            Pace::Open { per_sec: None } => ("trace", None),
        };
        Self {
            model: plan.model().to_owned(),
            mode,
            concurrency,
            stopped_early: run.stopped_early,
            seconds,
            requests: samples.len() as u64,
            ok,
            refused,
            refused_too_large,
            errors: broken(samples),
            aborted: run.aborted,
            peak_in_flight: run.peak_in_flight,
            requests_per_sec: per_sec(samples.len() as u64),
            ok_per_sec: per_sec(ok),
            prompt_tokens,
            completion_tokens,
            tokens_per_sec: per_sec(prompt_tokens + completion_tokens),
            latency: latency(samples.iter()),
            first_byte: spread(complete(samples.iter()).filter_map(|s| Some(s.first_byte?.saturating_sub(s.started)))),
            queue_wait: queue_wait(samples.iter()),
            generator_lag: match plan.pace {
                Pace::Closed { .. } => Spread::default(),
                Pace::Open { .. } => spread(samples.iter().map(|s| s.started.saturating_sub(s.due))),
            },
            priorities: priorities(samples),
        }
    }
}

fn complete<'a>(samples: impl Iterator<Item = &'a Sample>) -> impl Iterator<Item = &'a Sample> {
    samples.filter(|sample| sample.outcome == Outcome::Ok)
}

fn count_ok<'a>(samples: impl Iterator<Item = &'a Sample>) -> u64 {
    complete(samples).count() as u64
}

fn latency<'a>(samples: impl Iterator<Item = &'a Sample>) -> Spread {
    spread(complete(samples).map(Sample::latency))
}

fn queue_wait<'a>(samples: impl Iterator<Item = &'a Sample>) -> Spread {
    spread(samples.filter_map(|s| Duration::try_from_secs_f64(s.queue_wait_ms? / 1_000.0).ok()))
}

fn refused(samples: &[Sample]) -> (Vec<Refused>, u64) {
    let mut kinds: BTreeMap<(u16, &str), u64> = BTreeMap::new();
    let mut large = 0;
    for sample in samples {
        if let Outcome::Refused { code, too_large } = &sample.outcome {
            *kinds.entry((sample.status, code)).or_default() += 1;
            large += u64::from(*too_large);
        }
    }
    let kinds = kinds.into_iter().map(|((status, code), count)| Refused { status, code: code.to_owned(), count });
    (kinds.collect(), large)
}

fn broken(samples: &[Sample]) -> Vec<Broken> {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for sample in samples {
        if let Outcome::Broken(reason) = &sample.outcome {
            *kinds.entry(reason).or_default() += 1;
        }
    }
    kinds.into_iter().map(|(reason, count)| Broken { reason: reason.to_owned(), count }).collect()
}

fn priorities(samples: &[Sample]) -> Vec<ByPriority> {
    let mut groups: BTreeMap<Option<u8>, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        groups.entry(sample.priority).or_default().push(sample);
    }
    let by_priority = groups.into_iter().map(|(priority, group)| ByPriority {
        priority,
        requests: group.len() as u64,
        ok: count_ok(group.iter().copied()),
        latency: latency(group.iter().copied()),
        queue_wait: queue_wait(group.iter().copied()),
    });
    by_priority.collect()
}

fn spread(times: impl Iterator<Item = Duration>) -> Spread {
    // Microseconds to within a thousandth; what takes longer than the longest counts as the longest.
    let histogram = Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3);
    let mut histogram = histogram.expect("the bounds are in order and three significant digits are allowed");
    for time in times {
        histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
    if histogram.is_empty() {
        return Spread::default();
    }
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    Spread {
        count: histogram.len(),
        mean_ms: histogram.mean() / 1_000.0,
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        max_ms: histogram.max() as f64 / 1_000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_quantiles() {
        let spread = spread((1..=100).map(Duration::from_millis));
        assert_eq!((spread.count, spread.max_ms.round() as u64, spread.p50_ms.round() as u64), (100, 100, 50));
        assert_eq!(super::spread(std::iter::empty()), Spread::default());
    }
}
