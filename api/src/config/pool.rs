//! One pool: an upstream behind a model, and its limits.

use super::Secret;
use ledger::model::{BucketLimit, PoolLimits, Rate};
use serde::{Deserialize, Serialize};

/// `[provider.local."MODEL"]`: one pool. In every number, 0 means unlimited or "derive it".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// What the upstream speaks.
    pub dialect: Dialect,
    /// Where the upstream is, up to and with its version: `http://127.0.0.1:9999/v1`.
    pub base_url: String,
    /// The key that the upstream wants.
    pub api_key: Secret,
    /// The model's name at the upstream; empty: the name that was asked for.
    pub upstream_model: String,
    /// Tokens each second.
    pub max_tokens_per_sec: u64,
    /// Tokens each minute; one of the two.
    pub max_tokens_per_min: u64,
    /// Requests each second.
    pub max_rps: u64,
    /// Requests each minute; one of the two.
    pub max_rpm: u64,
    /// Requests in flight.
    pub max_concurrent: u64,
    /// Tokens that may be saved up; 0: four seconds of rate.
    pub burst_tokens: u64,
    /// Requests that may be saved up; 0: one second of rate, at least 1.
    pub burst_requests: u64,
    /// Tokens of prompt and answer together.
    pub max_context_length: u64,
    /// The output cap of a request that names none.
    pub default_max_tokens: u64,
    /// How prompts are counted before the upstream counts them.
    pub tokenizer: Tokenizer,
    /// The field that carries the output cap when the client used none.
    pub max_tokens_field: MaxTokensField,
    /// The longest time one request may take at the upstream.
    pub max_request_ms: u64,
    /// Other models, tried in order when this one fails.
    pub fallback: Vec<String>,
    /// The model for prompts over `max_context_length`; empty: they are refused.
    pub larger_model: String,
    /// What happens without contact to a majority of the nodes.
    pub degraded_mode: PoolMode,
    /// Several upstreams instead of one.
    pub targets: Vec<Target>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            dialect: Dialect::Openai,
            base_url: String::new(),
            api_key: Secret::default(),
            upstream_model: String::new(),
            max_tokens_per_sec: 0,
            max_tokens_per_min: 0,
            max_rps: 0,
            max_rpm: 0,
            max_concurrent: 0,
            burst_tokens: 0,
            burst_requests: 0,
            max_context_length: 0,
            default_max_tokens: 1_024,
            tokenizer: Tokenizer::O200kBase,
            max_tokens_field: MaxTokensField::MaxTokens,
            max_request_ms: 600_000,
            fallback: Vec::new(),
            larger_model: String::new(),
            degraded_mode: PoolMode::Inherit,
            targets: Vec::new(),
        }
    }
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI's, at any base URL.
    #[default]
    Openai,
    /// Anthropic's.
    Anthropic,
    /// Gemini's.
    Gemini,
    /// The built-in upstream that answers by itself.
    Loopback,
}

/// How prompts are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tokenizer {
    /// OpenAI's newer vocabulary.
    #[default]
    #[serde(rename = "o200k_base")]
    O200kBase,
    /// OpenAI's older vocabulary.
    #[serde(rename = "cl100k_base")]
    Cl100kBase,
    /// One token for each byte, the safe bound.
    #[serde(rename = "bytes")]
    Bytes,
}

/// The field that carries the output cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxTokensField {
    /// `max_tokens`, which every server knows.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`, which OpenAI's reasoning models insist on.
    MaxCompletionTokens,
}

/// What happens to one pool without contact to a majority of the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolMode {
    /// As `scheduling.degraded_mode` says.
    #[default]
    Inherit,
    /// Requests are refused with 503.
    FailClosed,
    /// Each node serves its own share of the limits, exactly.
    FairShare,
    /// Everything is served, unbounded, with an alarm.
    FailOpen,
}

/// `[[provider.local."MODEL".targets]]`: one of several upstreams of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    /// Its name in headers and metrics.
    pub name: String,
    /// What it speaks.
    pub dialect: Dialect,
    /// Where it is.
    pub base_url: String,
    /// The key that it wants.
    pub api_key: Secret,
    /// The model's name there; empty: the name that was asked for.
    pub upstream_model: String,
    /// Its share among the targets.
    pub weight: u32,
    /// The field that carries the output cap when the client used none.
    pub max_tokens_field: MaxTokensField,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            name: String::new(),
            dialect: Dialect::Openai,
            base_url: String::new(),
            api_key: Secret::default(),
            upstream_model: String::new(),
            weight: 1,
            max_tokens_field: MaxTokensField::MaxTokens,
        }
    }
}

impl Pool {
    /// The upstreams of the pool: its `targets`, or the one that it is itself, named like the pool.
    pub fn targets(&self, label: &str) -> Vec<Target> {
        if !self.targets.is_empty() {
            return self.targets.clone();
        }
        vec![Target {
            name: label.to_owned(),
            dialect: self.dialect,
            base_url: self.base_url.clone(),
            api_key: self.api_key.clone(),
            upstream_model: self.upstream_model.clone(),
            weight: 1,
            max_tokens_field: self.max_tokens_field,
        }]
    }

    /// The limits as the ledger takes them.
    pub fn limits(&self) -> PoolLimits {
        let tokens = rate(self.max_tokens_per_sec, self.max_tokens_per_min);
        let requests = rate(self.max_rps, self.max_rpm);
        PoolLimits {
            tokens: tokens.map(|rate| BucketLimit { rate, burst: burst(self.burst_tokens, rate, 4) }),
            requests: requests.map(|rate| BucketLimit { rate, burst: burst(self.burst_requests, rate, 1) }),
            concurrent: (self.max_concurrent > 0).then_some(self.max_concurrent),
        }
    }
}

fn rate(per_sec: u64, per_min: u64) -> Option<Rate> {
    match (per_sec, per_min) {
        (0, 0) => None,
        (0, per_min) => Some(Rate::per_min(per_min)),
        (per_sec, _) => Some(Rate::per_sec(per_sec)),
    }
}

fn burst(configured: u64, rate: Rate, seconds: u64) -> u64 {
    if configured > 0 {
        return configured;
    }
    let units = u128::from(rate.units) * u128::from(seconds) * 1_000_000 / u128::from(rate.per_us);
    u64::try_from(units).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_without_limits_is_unlimited() {
        assert_eq!(Pool::default().limits(), PoolLimits::default());
    }

    #[test]
    fn bursts_default_to_four_seconds_of_tokens_and_one_of_requests() {
        let limits = Pool { max_tokens_per_sec: 1_000, max_rpm: 30, max_concurrent: 7, ..Pool::default() }.limits();
        assert_eq!(limits.tokens, Some(BucketLimit { rate: Rate::per_sec(1_000), burst: 4_000 }));
        assert_eq!(limits.requests, Some(BucketLimit { rate: Rate::per_min(30), burst: 1 }));
        assert_eq!(limits.concurrent, Some(7));
        let limits = Pool { max_tokens_per_min: 600, burst_tokens: 5, ..Pool::default() }.limits();
        assert_eq!(limits.tokens, Some(BucketLimit { rate: Rate::per_min(600), burst: 5 }));
    }
}
