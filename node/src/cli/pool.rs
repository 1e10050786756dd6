//! `gateway pool`: the capacity behind each model.

use super::Context;
use super::client::Call;
use super::failure::Failure;
use super::output::{number, table};
use api::admin::{PoolChange, PoolView};
use clap::{Args, Subcommand};
use serde_json::Value;

#[derive(Debug, Subcommand)]
pub(super) enum PoolCommand {
    /// List the pools: limits, use, and where the configuration file says otherwise.
    List,
    /// Set limits of a pool; what is not named stays. 0 means unlimited.
    Set {
        /// The model, or the pattern.
        model: String,
        #[command(flatten)]
        limits: Limits,
    },
    /// Remove the limits of a pool.
    Rm {
        /// The model, or the pattern.
        model: String,
    },
}

#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Limits {
    /// Tokens each second.
    #[arg(long, value_name = "N", conflicts_with = "tokens_per_min")]
    tokens_per_sec: Option<u64>,
    /// Tokens each minute.
    #[arg(long, value_name = "N")]
    tokens_per_min: Option<u64>,
    /// Requests each second.
    #[arg(long, value_name = "N", conflicts_with = "rpm")]
    rps: Option<u64>,
    /// Requests each minute.
    #[arg(long, value_name = "N")]
    rpm: Option<u64>,
    /// Requests in flight.
    #[arg(long, value_name = "N")]
    concurrent: Option<u64>,
    /// Tokens of prompt and answer together.
    #[arg(long, value_name = "N")]
    context: Option<u64>,
    /// Tokens that may be saved up; 0: four seconds of rate.
    #[arg(long, value_name = "N")]
    burst_tokens: Option<u64>,
    /// Requests that may be saved up; 0: one second of rate.
    #[arg(long, value_name = "N")]
    burst_requests: Option<u64>,
}

impl From<Limits> for PoolChange {
    fn from(limits: Limits) -> Self {
        Self {
            tokens_per_sec: limits.tokens_per_sec,
            tokens_per_min: limits.tokens_per_min,
            rps: limits.rps,
            rpm: limits.rpm,
            concurrent: limits.concurrent,
            context: limits.context,
            burst_tokens: limits.burst_tokens,
            burst_requests: limits.burst_requests,
        }
    }
}

impl PoolCommand {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            PoolCommand::List => {
                let pools: Value = context.client.json(Call::get(&["pools"])).await?;
                let rows = pools.get("pools").or_else(|| pools.get("data")).unwrap_or(&pools).clone();
                let rows: Vec<PoolView> = serde_json::from_value(rows)
                    .map_err(|error| Failure::Unhealthy(format!("the list of pools cannot be read: {error}")))?;
                context.output.show(&pools, |_| show(&rows))
            }
            PoolCommand::Set { model, limits } => {
                let change = PoolChange::from(limits);
                let pool: PoolView = context.client.json(Call::put(&["pools", &model], &change)).await?;
                context.output.show(&pool, |pool| show(std::slice::from_ref(pool)))
            }
            PoolCommand::Rm { model } => {
                context.confirm(&format!("This removes every limit of {model}"), &model)?;
                let _: Value = context.client.json(Call::delete(&["pools", &model])).await?;
                context.output.show(&serde_json::json!({ "model": model, "removed": true }), |_| {
                    format!("{model}: no limits any more")
                })
            }
        }
    }
}

fn show(pools: &[PoolView]) -> String {
    let head =
        ["MODEL", "TOKENS", "BURST", "REQUESTS", "BURST", "CONCURRENT", "CONTEXT", "IN FLIGHT", "WAITING", "FILE"];
    table(
        &head,
        pools.iter().map(|pool| {
            let limits = &pool.limits;
            [
                pool.model.clone(),
                rate(limits.tokens_per_sec, limits.tokens_per_min),
                number(limits.burst_tokens),
                rate(limits.rps, limits.rpm),
                number(limits.burst_requests),
                number(limits.concurrent),
                number(limits.context),
                pool.usage.in_flight.to_string(),
                pool.usage.waiting.to_string(),
                pool.in_file.map_or_else(|| "-".to_owned(), |_| "differs".to_owned()),
            ]
        }),
    )
}

fn rate(per_sec: Option<u64>, per_min: Option<u64>) -> String {
    match (per_sec, per_min) {
        (Some(rate), _) if rate > 0 => format!("{rate}/s"),
        (_, Some(rate)) if rate > 0 => format!("{rate}/min"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_one_line() {
        let limits =
            PoolChange { tokens_per_sec: Some(1_000), rpm: Some(60), concurrent: Some(8), ..Default::default() };
        let pool = PoolView { model: "gpt-4".into(), limits, ..Default::default() };
        let shown = show(&[pool]);
        let cells: Vec<_> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["gpt-4", "1000/s", "-", "60/min", "-", "8", "-", "0", "0", "-"]);
    }
}
