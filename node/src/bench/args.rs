//! The arguments of `gateway bench`.

use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Sends load to the gateway and says how it went.
///
/// Closed loop by default: --concurrency requests are always in flight. With --rate or --trace requests start when
/// they are due, however many are in flight (open loop).
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    /// Model to ask for.
    #[arg(long, short, default_value = "loopback")]
    pub(crate) model: String,
    /// Requests in flight (closed loop).
    #[arg(long, short, default_value_t = 16, conflicts_with_all = ["rate", "trace"])]
    pub(crate) concurrency: usize,
    /// Requests in all; 1000 unless --duration is given.
    #[arg(long, short = 'n')]
    pub(crate) requests: Option<u64>,
    /// Starts no more requests after this time, for example 30s.
    #[arg(long, short, value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Requests started each second, evenly spaced (open loop).
    #[arg(long, conflicts_with = "trace")]
    pub(crate) rate: Option<f64>,
    /// Replays a trace in the Azure LLM inference format (TIMESTAMP,ContextTokens,GeneratedTokens).
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Replays the trace so many times faster.
    #[arg(long, default_value_t = 1.0, requires = "trace")]
    pub(crate) time_scale: f64,
    /// Replays only the first N requests of the trace.
    #[arg(long, value_name = "N", requires = "trace")]
    pub(crate) limit: Option<usize>,
    /// The text that stands for one prompt token of the trace; one byte for a pool whose tokenizer is `bytes`.
    #[arg(long, default_value = " the", requires = "trace")]
    pub(crate) token_text: String,
    /// Bytes of the prompt.
    #[arg(long, default_value_t = 256, conflicts_with = "trace")]
    pub(crate) prompt_bytes: usize,
    /// Output cap of each request: 16, or with a trace what the trace says was generated. With a trace and this, the
    /// trace's output is asked for in `x-bench-output-tokens` and `metadata.bench_output_tokens`, which a mock may
    /// honour.
    #[arg(long)]
    pub(crate) max_tokens: Option<u64>,
    /// Asks for streams.
    #[arg(long, short)]
    pub(crate) stream: bool,
    /// Priorities and their weights, for example `0:5,5:95`; absent: the key's own.
    #[arg(long, value_name = "P:WEIGHT,..", value_parser = parse_mix)]
    pub(crate) priority_mix: Option<Mix>,
    /// Speaks HTTP/2 without TLS, 100 requests in flight on each connection (closed loop).
    #[arg(long, conflicts_with_all = ["rate", "trace"])]
    pub(crate) http2: bool,
    /// Gives a request up after this time.
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) request_timeout: Duration,
    /// Requests sent before the measurement, with the same concurrency.
    #[arg(long, default_value_t = 0, conflicts_with_all = ["rate", "trace"])]
    pub(crate) warmup: u64,
    /// Writes one line per request, ready to plot.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Draws no progress bar.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Priorities with their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mix(pub(crate) Vec<(u8, u32)>);

fn parse_mix(text: &str) -> Result<Mix, String> {
    let mut mix = Vec::new();
    for part in text.split(',') {
        let (priority, weight) = part.split_once(':').ok_or_else(|| format!("`{part}` is not PRIORITY:WEIGHT"))?;
        let priority: u8 = priority.trim().parse().map_err(|_| format!("`{priority}` is no priority"))?;
        let weight: u32 = weight.trim().parse().map_err(|_| format!("`{weight}` is no weight"))?;
        mix.push((priority, weight));
    }
    if mix.iter().all(|&(_, weight)| weight == 0) {
        return Err("at least one weight must be above 0".to_owned());
    }
    Ok(Mix(mix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_or_refused_with_its_part_named() {
        assert_eq!(parse_mix("0:5, 5:95"), Ok(Mix(vec![(0, 5), (5, 95)])));
        assert!(parse_mix("0").unwrap_err().contains("`0`"));
        assert!(parse_mix("300:1").unwrap_err().contains("300"));
        assert!(parse_mix("1:0").is_err());
    }
}
