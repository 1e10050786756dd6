//! From a model's name to the pool that serves it: aliases, exact names, then the longest wildcard. Built once from the
//! configuration; decides nothing about capacity.

use crate::config::{self, Config, Dialect, Tokenizer};
use crate::dialect::Wire;
use crate::error::Error;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::Url;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// No model has a longer name; what a wildcard lets through is kept in every usage row.
const NAME_BYTES_MAX: usize = 256;

/// A pool is configured in a way that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("provider.local.\"{pool}\": {problem}")]
pub struct BadPool {
    pool: String,
    problem: String,
}

/// Every pool of this gateway.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    exact: HashMap<Arc<str>, Arc<Pool>>,
    /// The longest pattern first.
    wildcards: Vec<(String, String, Arc<Pool>)>,
    aliases: HashMap<Arc<str>, Arc<str>>,
}

/// The upstream capacity behind a model.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Its name or pattern.
    pub(crate) label: Arc<str>,
    pub(crate) targets: Vec<Target>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) default_output: u64,
    /// Tokens of prompt and output together.
    pub(crate) context_max: Option<u64>,
    pub(crate) larger_model: Option<Arc<str>>,
    pub(crate) request_max: Duration,
    pub(crate) limits: ledger::model::PoolLimits,
}

/// One upstream of a pool.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: Arc<str>,
    pub(crate) dialect: Dialect,
    pub(crate) place: Place,
    /// The model's name there, when it is not the one that was asked for.
    pub(crate) model: Option<Arc<str>>,
    pub(crate) output_field: &'static str,
}

/// Where a target is.
#[derive(Debug)]
pub(crate) enum Place {
    /// In this process.
    Loopback,
    /// Behind a base URL. The header is marked sensitive, so that `Debug` hides it.
    Http { base: String, credential: Option<(HeaderName, HeaderValue)> },
}

/// A model's name, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The model, after aliases.
    pub(crate) model: Arc<str>,
    pub(crate) pool: Arc<Pool>,
}

impl Pools {
    /// Builds the table.
    ///
    /// # Errors
    /// When an address or a secret of a target cannot be used.
    pub(crate) fn new(config: &Config) -> Result<Self, BadPool> {
        let mut pools = Self::default();
        for (alias, model) in &config.aliases {
            pools.aliases.insert(alias.as_str().into(), model.as_str().into());
        }
        for (label, pool) in config.pools() {
            let built = Pool::new(label, pool);
            let pool = Arc::new(built.map_err(|problem| BadPool { pool: label.to_owned(), problem })?);
            match label.split_once('*') {
                Some((head, tail)) => pools.wildcards.push((head.to_owned(), tail.to_owned(), pool)),
                None => {
                    pools.exact.insert(pool.label.clone(), pool);
                }
            }
        }
        pools.wildcards.sort_by_key(|(head, tail, _)| std::cmp::Reverse(head.len() + tail.len()));
        Ok(pools)
    }

    /// Finds the pool of a model.
    pub(crate) fn find(&self, model: &str) -> Option<Found> {
        // A name may become a part of an upstream's path.
        if model.len() > NAME_BYTES_MAX || model.contains("..") {
            return None;
        }
        let alias = self.aliases.get(model);
        let name = alias.map_or(model, AsRef::as_ref);
        if let Some(pool) = self.exact.get(name) {
            return Some(Found { model: pool.label.clone(), pool: pool.clone() });
        }
        let fits = |head: &str, tail: &str| {
            name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
        };
        let (_, _, pool) = self.wildcards.iter().find(|(head, tail, _)| fits(head, tail))?;
        Some(Found { model: alias.cloned().unwrap_or_else(|| model.into()), pool: pool.clone() })
    }

    /// The pool for prompts that are too long for `found`; larger in truth, so that this comes to an end.
    pub(crate) fn larger(&self, found: &Found) -> Option<Found> {
        let larger = self.find(found.pool.larger_model.as_deref()?)?;
        let bound = |pool: &Pool| pool.context_max.unwrap_or(u64::MAX);
        (bound(&larger.pool) > bound(&found.pool)).then_some(larger)
    }

    /// Every pool, exact names first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.exact.values().chain(self.wildcards.iter().map(|(_, _, pool)| pool))
    }

    /// Every alias and the model it stands for.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.aliases.iter()
    }
}

impl Pool {
    fn new(label: &str, pool: &config::Pool) -> Result<Self, String> {
        let targets = pool.targets(label).iter().map(Target::new).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            label: label.into(),
            targets,
            tokenizer: pool.tokenizer,
            default_output: pool.default_max_tokens.max(1),
            context_max: (pool.max_context_length > 0).then_some(pool.max_context_length),
            larger_model: (!pool.larger_model.is_empty()).then(|| pool.larger_model.as_str().into()),
            request_max: Duration::from_millis(pool.max_request_ms),
            limits: pool.limits(),
        })
    }

    /// The output cap of one choice, given what the client allows. A cap of our own shrinks to fit the context.
    ///
    /// # Errors
    /// [`Error::ContextLength`] when prompt and output do not fit.
    pub(crate) fn output_max(&self, prompt: u64, asked: Option<u64>) -> Result<u64, Error> {
        let most = self.context_max.unwrap_or(u64::MAX);
        let left = most.saturating_sub(prompt);
        let output = asked.unwrap_or_else(|| self.default_output.min(left.max(1)));
        if output > left {
            let needed = prompt.saturating_add(output);
            return Err(Error::ContextLength { most, needed, prompt, output });
        }
        Ok(output)
    }

    /// The target that a request goes to.
    pub(crate) fn target(&self) -> &Target {
        self.targets.first().expect("a pool is built with at least one target")
    }
}

impl Target {
    /// The form in which it takes a request that came in `wire`; none where it has no such thing.
    pub(crate) fn wire(&self, wire: Wire) -> Option<Wire> {
        Some(match (self.dialect, wire) {
            (Dialect::Anthropic | Dialect::Loopback, wire) if wire.is_embedding() => return None,
            (Dialect::Openai, wire) if wire.is_embedding() => Wire::Embeddings,
            (Dialect::Gemini, Wire::GeminiEmbed) => Wire::GeminiEmbed,
            (Dialect::Gemini, wire) if wire.is_embedding() => Wire::GeminiEmbedBatch,
            (Dialect::Anthropic, _) => Wire::Anthropic,
            (Dialect::Gemini, _) => Wire::Gemini,
            (Dialect::Openai | Dialect::Loopback, _) => Wire::Chat,
        })
    }

    fn new(target: &config::Target) -> Result<Self, String> {
        let place = match target.dialect {
            Dialect::Loopback => Place::Loopback,
            dialect => {
                Url::parse(&target.base_url).map_err(|cause| format!("base_url: {cause}"))?;
                let base = target.base_url.trim_end_matches('/').to_owned();
                Place::Http { base, credential: credential(dialect, &target.api_key)? }
            }
        };
        let output_field = match target.max_tokens_field {
            config::MaxTokensField::MaxTokens => "max_tokens",
            config::MaxTokensField::MaxCompletionTokens => "max_completion_tokens",
        };
        let model = (!target.upstream_model.is_empty()).then(|| target.upstream_model.as_str().into());
        Ok(Self { name: target.name.as_str().into(), dialect: target.dialect, place, model, output_field })
    }
}

/// The header that carries the key, as the dialect wants it.
fn credential(dialect: Dialect, key: &config::Secret) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    let key = key.reveal().map_err(|cause| format!("api_key: {cause}"))?;
    if key.is_empty() {
        return Ok(None);
    }
    let (name, text) = match dialect {
        Dialect::Anthropic => (HeaderName::from_static("x-api-key"), key),
        Dialect::Gemini => (HeaderName::from_static("x-goog-api-key"), key),
        Dialect::Openai | Dialect::Loopback => (AUTHORIZATION, format!("Bearer {key}")),
    };
    let mut value =
        HeaderValue::try_from(&*text).map_err(|_| "api_key: holds characters that no header may hold".to_owned())?;
    value.set_sensitive(true);
    Ok(Some((name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(labels: &[&str], aliases: &[(&str, &str)]) -> Pools {
        let mut config = Config::default();
        for label in labels {
            let pool = config::Pool { dialect: config::Dialect::Loopback, ..config::Pool::default() };
            config.provider.local.pools.insert((*label).to_owned(), pool);
        }
        config.aliases.extend(aliases.iter().map(|(alias, model)| ((*alias).to_owned(), (*model).to_owned())));
        Pools::new(&config).unwrap()
    }

    #[test]
    fn an_exact_name_wins_then_the_longest_pattern() {
        let pools = pools(&["gpt-4", "gpt-*", "gpt-4*", "*"], &[("best", "gpt-4o"), ("four", "gpt-4")]);
        for (asked, label, model) in [
            ("gpt-4", "gpt-4", "gpt-4"),
            ("gpt-4o", "gpt-4*", "gpt-4o"),
            ("gpt-3", "gpt-*", "gpt-3"),
            ("llama", "*", "llama"),
            ("best", "gpt-4*", "gpt-4o"),
            ("four", "gpt-4", "gpt-4"),
        ] {
            let found = pools.find(asked).unwrap();
            assert_eq!((&*found.pool.label, &*found.model), (label, model), "{asked}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_no_model() {
        let pools = pools(&["*"], &[]);
        assert!(pools.find(&"m".repeat(NAME_BYTES_MAX)).is_some());
        assert!(pools.find(&"m".repeat(NAME_BYTES_MAX + 1)).is_none());
    }

    #[test]
    fn a_pattern_does_not_match_with_its_ends_overlapping() {
        let pools = pools(&["ab*ba"], &[]);
        assert!(pools.find("aba").is_none());
        assert!(pools.find("abba").is_some());
    }

    #[test]
    fn an_upstream_key_is_never_shown() {
        let target = config::Target {
            base_url: "http://127.0.0.1:1/v1/".into(),
            api_key: config::Secret::new("sk-hunter2"),
            ..config::Target::default()
        };
        let target = Target::new(&target).unwrap();
        assert!(!format!("{target:?}").contains("hunter2"));
        let Place::Http { base, .. } = target.place else { panic!("not http") };
        assert_eq!(base, "http://127.0.0.1:1/v1");
    }
}
