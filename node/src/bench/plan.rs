//! What is sent, and when: decided before the run, without randomness, so that two runs send the same.

use super::args::{BenchArgs, Mix};
use super::trace::{self, Arrival};
use anyhow::bail;
use bytes::Bytes;
use serde_json::json;
use std::time::Duration;

const DEFAULT_REQUESTS: u64 = 1_000;
const DEFAULT_MAX_TOKENS: u64 = 16;

/// The whole load.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// When requests start.
    pub(crate) pace: Pace,
    /// No request starts after this.
    pub(crate) duration: Option<Duration>,
    requests: Option<u64>,
    prompts: Prompts,
    model: String,
    max_tokens: Option<u64>,
    stream: bool,
    priorities: Vec<u8>,
}

/// When requests start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// So many are always in flight.
    Closed {
        /// How many.
        concurrency: usize,
    },
    /// When they are due, whatever is in flight; `per_sec` is none for a trace, which brings its own times.
    Open {
        /// Starts each second.
        per_sec: Option<f64>,
    },
}

#[derive(Clone, Debug)]
enum Prompts {
    /// The same body every time.
    Same { body: Bytes },
    /// As the trace has them.
    Trace { arrivals: Vec<Arrival>, time_scale: f64, token_text: String },
}

/// One request to send.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Its place in the plan, from 0.
    pub(crate) index: u64,
    /// When it is due, from the start of the run; zero in a closed loop.
    pub(crate) due: Duration,
    /// The priority to ask for.
    pub(crate) priority: Option<u8>,
    /// The JSON body.
    pub(crate) body: Bytes,
    /// Whether the body asks for a stream.
    pub(crate) stream: bool,
    /// The output that the trace saw.
    pub(crate) wished_output: Option<u64>,
}

impl Plan {
    /// Makes a plan of the arguments.
    ///
    /// # Errors
    /// When they make no sense together, or the trace cannot be read.
    pub(crate) fn new(args: &BenchArgs) -> anyhow::Result<Self> {
        if args.concurrency == 0 {
            bail!("--concurrency must be at least 1");
        }
        if args.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            bail!("--rate must be above 0");
        }
        if !args.time_scale.is_finite() || args.time_scale <= 0.0 {
            bail!("--time-scale must be above 0");
        }
        let mut plan = Self {
            pace: match args.rate {
                Some(rate) => Pace::Open { per_sec: Some(rate) },
                None => Pace::Closed { concurrency: args.concurrency },
            },
            duration: args.duration,
            requests: args.requests.or(args.duration.is_none().then_some(DEFAULT_REQUESTS)),
            prompts: Prompts::Same { body: Bytes::new() },
            model: args.model.clone(),
            max_tokens: args.max_tokens,
            stream: args.stream,
            priorities: args.priority_mix.as_ref().map(spread).unwrap_or_default(),
        };
        match &args.trace {
            Some(path) => {
                let arrivals = trace::read(path, args.limit)?;
                let available = arrivals.len() as u64;
                plan.requests = Some(args.requests.unwrap_or(available).min(available));
                plan.pace = Pace::Open { per_sec: None };
                plan.prompts =
                    Prompts::Trace { arrivals, time_scale: args.time_scale, token_text: args.token_text.clone() };
            }
            None => {
                let prompt = "the quick brown fox jumps over the lazy dog ".chars().cycle();
                let prompt: String = prompt.take(args.prompt_bytes).collect();
                let cap = args.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
                plan.prompts = Prompts::Same { body: plan.body(&prompt, cap, None) };
            }
        }
        Ok(plan)
    }

    /// The same requests as a closed loop of another length.
    pub(crate) fn closed(&self, concurrency: usize, requests: u64) -> Self {
        Self { pace: Pace::Closed { concurrency }, requests: Some(requests), duration: None, ..self.clone() }
    }

    /// How many requests there are, if that is known.
    pub(crate) fn total(&self) -> Option<u64> {
        self.requests
    }

    /// The model that is asked for.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// Request `index`; `None` behind the last one.
    pub(crate) fn job(&self, index: u64) -> Option<Job> {
        if self.requests.is_some_and(|requests| index >= requests) {
            return None;
        }
        let place = usize::try_from(index).ok()?;
        let priority = self.priorities.get(place % self.priorities.len().max(1)).copied();
        let (due, body, wished_output) = match &self.prompts {
            Prompts::Same { body } => (self.due(index), body.clone(), None),
            Prompts::Trace { arrivals, time_scale, token_text } => {
                let arrival = arrivals.get(place)?;
                let output = arrival.output_tokens.max(1);
                let prompt = token_text.repeat(usize::try_from(arrival.prompt_tokens).unwrap_or(0));
                let body = self.body(&prompt, self.max_tokens.unwrap_or(output), Some(output));
                (arrival.at.div_f64(*time_scale), body, Some(output))
            }
        };
        Some(Job { index, due, priority, body, stream: self.stream, wished_output })
    }

    fn due(&self, index: u64) -> Duration {
        match self.pace {
            Pace::Open { per_sec: Some(rate) } => Duration::from_secs_f64(index as f64 / rate),
            _ => Duration::ZERO,
        }
    }

    fn body(&self, prompt: &str, max_tokens: u64, wished_output: Option<u64>) -> Bytes {
        let mut body = json!({
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
        });
        if self.stream {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
        }
        if let Some(tokens) = wished_output.filter(|&tokens| tokens != max_tokens) {
            // A gateway may drop unknown headers, but a field of OpenAI's own has to reach the upstream.
            body["metadata"] = json!({"bench_output_tokens": tokens.to_string()});
        }
        Bytes::from(body.to_string())
    }
}

/// One round of a mix, its priorities as evenly spread as their weights allow (smooth weighted round robin).
fn spread(mix: &Mix) -> Vec<u8> {
    let divisor = mix.0.iter().fold(0, |divisor, &(_, weight)| gcd(divisor, weight)).max(1);
    let weights: Vec<i64> = mix.0.iter().map(|&(_, weight)| i64::from(weight / divisor)).collect();
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0i64; weights.len()];
    let mut round = Vec::new();
    // Weights without a common divisor could make a round of billions; a long one is even enough.
    for _ in 0..total.min(100_000) {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += weight;
        }
        let Some(next) = (0..credit.len()).max_by_key(|&i| credit[i]) else { break };
        credit[next] -= total;
        round.push(mix.0[next].0);
    }
    round
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn plan(args: &[&str]) -> Plan {
        Plan::new(&Cli::parse_from([&["bench"], args].concat()).bench).unwrap()
    }

    #[test]
    fn a_mix_is_kept_exactly_and_spread_evenly() {
        let round = spread(&Mix(vec![(0, 5), (5, 95)]));
        assert_eq!(round.len(), 20);
        assert_eq!(round.iter().filter(|&&priority| priority == 0).count(), 1);
        assert_eq!(spread(&Mix(vec![(1, 1), (2, 1)])).len(), 2);
    }

    #[test]
    fn a_closed_loop_ends_at_its_count_and_a_timed_one_has_none() {
        let closed = plan(&["-n", "3", "--priority-mix", "2:1"]);
        assert!(closed.job(2).is_some() && closed.job(3).is_none());
        assert_eq!(closed.job(0).unwrap().priority, Some(2));
        assert_eq!(plan(&["-d", "1s"]).total(), None);
        assert_eq!(plan(&[]).total(), Some(1_000));
    }

    #[test]
    fn an_open_loop_is_evenly_spaced() {
        let open = plan(&["--rate", "4"]);
        assert_eq!(open.job(6).unwrap().due, Duration::from_millis(1_500));
    }

    #[test]
    fn a_trace_asks_for_what_it_saw() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 00:00:00.0,3,44\n2023-11-16 00:00:10.0,2,7\n",
        )
        .unwrap();
        let path = file.path().to_str().unwrap();
        let replay = plan(&["--trace", path, "--time-scale", "10", "--token-text", "x", "--max-tokens", "1000"]);
        let job = replay.job(1).unwrap();
        assert_eq!((job.due, job.wished_output), (Duration::from_secs(1), Some(7)));
        let body: serde_json::Value = serde_json::from_slice(&job.body).unwrap();
        assert_eq!((body["max_tokens"].as_u64(), body["messages"][0]["content"].as_str()), (Some(1000), Some("xx")));
        assert_eq!(body["metadata"]["bench_output_tokens"], "7");
        assert!(replay.job(2).is_none());
        assert_eq!(plan(&["--trace", path, "--limit", "1"]).total(), Some(1));
    }
}
