//! An API key as people make and see it, and what its limits mean to the ledger.

use super::caller::{Caller, Tier};
use super::store::StoreError;
use ledger::model::{BucketLimit, Priority, Rate, Scope, ScopeKind, TenantLimits, Tenants};
use std::sync::Arc;

/// Highest value of any limit: far above any real one, far below where arithmetic on it could overflow.
pub const LIMIT_MAX: u64 = 1_000_000_000_000_000;
/// Longest name of a key, in characters.
pub const NAME_CHARS_MAX: usize = 64;
const PATTERNS_MAX: usize = 100;
const PATTERN_CHARS_MAX: usize = 200;
const PRIORITY_MAX: u8 = 9;

/// The limits of a key; 0 is no limit, a burst of 0 is its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Requests each second; not together with `rpm`.
    pub rps: u64,
    /// Requests each minute.
    pub rpm: u64,
    /// Requests that may come at once; by default those of one second, at least one.
    pub burst_requests: u64,
    /// Tokens each minute.
    pub tpm: u64,
    /// Tokens that may come at once; by default those of one minute, since a tenant's request never waits and a
    /// smaller bucket would refuse ordinary ones for ever.
    pub burst_tokens: u64,
    /// Requests in flight.
    pub concurrency: u64,
    /// Tokens each day.
    pub tokens_per_day: u64,
}

impl KeyLimits {
    /// What the ledger is told.
    pub fn tenant(&self, key_id: [u8; 16], version: u64) -> TenantLimits {
        let requests = match (self.rps, self.rpm) {
            (0, 0) => None,
            (0, rpm) => Some(bucket(Rate::per_min(rpm), self.burst_requests, rpm / 60)),
            (rps, _) => Some(bucket(Rate::per_sec(rps), self.burst_requests, rps)),
        };
        TenantLimits {
            scope: Scope { kind: ScopeKind::Key, id: key_id },
            version,
            requests,
            tokens: some(self.tpm).map(|tpm| bucket(Rate::per_min(tpm), self.burst_tokens, tpm)),
            concurrent: some(self.concurrency),
            tokens_per_day: some(self.tokens_per_day),
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        for (field, value) in [
            ("rps", self.rps),
            ("rpm", self.rpm),
            ("burst_requests", self.burst_requests),
            ("tpm", self.tpm),
            ("burst_tokens", self.burst_tokens),
            ("concurrency", self.concurrency),
            ("tokens_per_day", self.tokens_per_day),
        ] {
            if value > LIMIT_MAX {
                return Err(invalid(field, format!("must be at most {LIMIT_MAX}")));
            }
        }
        if self.rps > 0 && self.rpm > 0 {
            return Err(invalid("rpm", "cannot be set together with rps"));
        }
        if self.burst_requests > 0 && self.rps == 0 && self.rpm == 0 {
            return Err(invalid("burst_requests", "needs rps or rpm"));
        }
        if self.burst_tokens > 0 && self.tpm == 0 {
            return Err(invalid("burst_tokens", "needs tpm"));
        }
        Ok(())
    }
}

/// A key that is to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its name, which no other key in force has.
    pub name: String,
    /// Its class.
    pub tier: Tier,
    /// Its priority, where it is not its tier's.
    pub priority: Option<Priority>,
    /// How far up its requests may raise themselves; by default not at all.
    pub ceiling: Option<Priority>,
    /// Its limits.
    pub limits: KeyLimits,
    /// The models that it may use, as names or patterns with one `*`; none means all.
    pub models: Vec<String>,
    /// When it ends.
    ///
    /// Units: microseconds of the wall clock since the Unix epoch.
    pub expires_at: Option<u64>,
}

impl NewKey {
    /// A key of that name, of the standard tier, without limits.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            tier: Tier::Standard,
            priority: None,
            ceiling: None,
            limits: KeyLimits::default(),
            models: Vec::new(),
            expires_at: None,
        }
    }

    /// Its priority, with the tier's where it has none.
    pub fn priority(&self) -> Priority {
        self.priority.unwrap_or_else(|| self.tier.priority())
    }

    /// Its ceiling, with the priority where it has none.
    pub fn ceiling(&self) -> Priority {
        self.ceiling.unwrap_or_else(|| self.priority())
    }

    /// Says what is wrong with it.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], naming the first field that is wrong.
    pub fn check(&self, now_wall_us: u64) -> Result<(), StoreError> {
        check_name(&self.name)?;
        if self.priority().0 > PRIORITY_MAX {
            return Err(invalid("priority", format!("must be from 0 to {PRIORITY_MAX}")));
        }
        if self.ceiling() > self.priority() {
            return Err(invalid("priority_ceiling", "must be as urgent as the priority or more (0 is first)"));
        }
        self.limits.check()?;
        check_models(&self.models)?;
        match self.expires_at {
            Some(at) if at <= now_wall_us => Err(invalid("expires", "must be in the future")),
            Some(at) if i64::try_from(at).is_err() => Err(invalid("expires", "is too far away")),
            _ => Ok(()),
        }
    }
}

/// A key as it is kept; neither the key itself nor its hash is in here.
#[derive(Clone, Debug)]
pub struct Key {
    /// Who calls with it.
    pub caller: Arc<Caller>,
    /// Its limits, as they were given.
    pub limits: KeyLimits,
    /// When it was made, in microseconds of the wall clock.
    pub created_at: u64,
    /// When it was taken back, in microseconds of the wall clock.
    pub revoked_at: Option<u64>,
}

/// How people name a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRef {
    /// Its id, 32 hexadecimal digits.
    Id([u8; 16]),
    /// Its first twelve characters.
    Prefix(String),
    /// Its name.
    Name(String),
}

impl KeyRef {
    /// Reads an id, a prefix or a name.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for what looks like a whole key, which has no place in an address.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        if let Some(id) = parse_id(text) {
            return Ok(Self::Id(id));
        }
        if !text.starts_with("tok_") {
            return Ok(Self::Name(text.to_owned()));
        }
        match text.chars().count() {
            12 => Ok(Self::Prefix(text.to_owned())),
            _ => Err(invalid("id", "must be a key's id, its first 12 characters or its name")),
        }
    }
}

/// The tenants of a key with these limits.
pub(super) fn tenants(limits: &KeyLimits, key_id: [u8; 16], version: u64) -> Tenants {
    let tenant = limits.tenant(key_id, version);
    if tenant.is_unlimited() { Arc::default() } else { Arc::new([tenant]) }
}

/// Reads an id of 32 hexadecimal digits.
pub(crate) fn parse_id(text: &str) -> Option<[u8; 16]> {
    let mut id = [0u8; 16];
    hex::decode_to_slice(text, &mut id).ok().map(|()| id)
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let chars = name.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX {
        return Err(invalid("name", format!("must have 1 to {NAME_CHARS_MAX} characters")));
    }
    if name.trim() != name || !name.chars().all(|c| c.is_alphanumeric() || "-_.@: ".contains(c)) {
        return Err(invalid("name", "may hold letters, digits, inner spaces and - _ . @ : only"));
    }
    if name.starts_with("tok_") || parse_id(name).is_some() || name.chars().all(|c| c == '.') {
        return Err(invalid("name", "must not look like a key, an id or a path"));
    }
    Ok(())
}

fn check_models(models: &[String]) -> Result<(), StoreError> {
    if models.len() > PATTERNS_MAX {
        return Err(invalid("models", format!("may hold at most {PATTERNS_MAX} patterns")));
    }
    for model in models {
        if model.is_empty() || model.chars().count() > PATTERN_CHARS_MAX || model.chars().any(char::is_control) {
            return Err(invalid("models", format!("each must have 1 to {PATTERN_CHARS_MAX} printable characters")));
        }
        if model.matches('*').count() > 1 {
            return Err(invalid("models", "each may hold one `*`"));
        }
    }
    Ok(())
}

fn invalid(field: &'static str, problem: impl Into<String>) -> StoreError {
    StoreError::Invalid { field, problem: problem.into() }
}

fn some(limit: u64) -> Option<u64> {
    (limit > 0).then_some(limit)
}

fn bucket(rate: Rate, burst: u64, default: u64) -> BucketLimit {
    BucketLimit { rate, burst: some(burst).unwrap_or(default).max(1) }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
