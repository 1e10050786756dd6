//! Who is calling: what the pipeline knows of an API key after it was identified. No secret and no hash is in here.

use super::scopes::{Role, Scopes};
use ledger::model::{Priority, Tenants};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A caller, as its API key makes it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Id of the key; the ledger's `Scope` of kind `Key`.
    pub key_id: [u8; 16],
    /// Name that people gave the key.
    pub key_name: Arc<str>,
    /// First characters of the key, for people and logs.
    pub key_prefix: Arc<str>,
    /// The user whom the key belongs to.
    pub user: Option<[u8; 16]>,
    /// The team that the key belongs to.
    pub team: Option<[u8; 16]>,
    /// Named class of the key.
    pub tier: Tier,
    /// How urgent its requests are when they do not say.
    pub priority: Priority,
    /// How far up a request may raise itself.
    pub ceiling: Priority,
    /// The limits that bind it; a scope without any limit is left out.
    pub tenants: Tenants,
    /// Which models it may use.
    pub models: ModelPatterns,
    /// Which groups of routes it may use.
    pub scopes: Scopes,
    /// The role of its user.
    pub role: Option<Role>,
    /// When the key ends.
    ///
    /// Units: microseconds of the wall clock since the Unix epoch.
    pub expires_at: Option<u64>,
    /// The versions of its key, its user and its team that these limits are of.
    pub versions: [u64; 3],
    /// The most tokens of one request, where the key is served within a strict allowance only.
    pub request_tokens_max: Option<u64>,
    /// The degraded mode in which it is served, if it is.
    pub degraded: Option<&'static str>,
}

/// A key's named class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// The company's own interactive work.
    Internal,
    /// Partners.
    Partner,
    /// Everyone without another tier.
    Standard,
    /// The outside world.
    External,
}

impl Tier {
    /// Every tier, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Internal, Self::Partner, Self::Standard, Self::External];

    /// The priority of a key that has none of its own.
    pub fn priority(self) -> Priority {
        match self {
            Self::Internal => Priority(1),
            Self::Partner => Priority(3),
            Self::Standard => Priority(5),
            Self::External => Priority(7),
        }
    }

    /// Its name, as in JSON, SQL and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Partner => "partner",
            Self::Standard => "standard",
            Self::External => "external",
        }
    }

    /// The tier of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == name)
    }
}

/// The models that a key may use: names, or patterns with one `*`. Without any, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelPatterns(Arc<[Arc<str>]>);

impl ModelPatterns {
    /// Allows what any of `patterns` matches; none allows every model.
    pub fn new(patterns: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self(patterns.into_iter().map(|pattern| Arc::from(pattern.as_ref())).collect())
    }

    /// Whether `model` may be used.
    pub fn allows(&self, model: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| matches(pattern, model))
    }

    /// Whether every model is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns, as they were given.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}

fn matches(pattern: &str, model: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == model,
        Some((head, tail)) => {
            model.len() >= head.len() + tail.len() && model.starts_with(head) && model.ends_with(tail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_names_a_priority() {
        let pairs: Vec<_> = Tier::ALL.into_iter().map(|tier| (tier.as_str(), tier.priority().0)).collect();
        assert_eq!(pairs, [("internal", 1), ("partner", 3), ("standard", 5), ("external", 7)]);
        assert!(Tier::ALL.into_iter().all(|tier| Tier::parse(tier.as_str()) == Some(tier)));
        assert_eq!(Tier::parse("gold"), None);
    }

    #[test]
    fn no_pattern_allows_every_model_and_a_star_stands_for_any_middle() {
        assert!(ModelPatterns::default().allows("anything"));
        let some = ModelPatterns::new(["gpt-4", "claude-*", "*-mini", "a*a"]);
        for model in ["gpt-4", "claude-", "claude-opus", "gpt-4o-mini", "aa", "aba"] {
            assert!(some.allows(model), "{model}");
        }
        for model in ["gpt-4o", "xclaude-1", "mini", "a", ""] {
            assert!(!some.allows(model), "{model}");
        }
    }
}
