//! An API key as people make, change and see it.

use super::caller::{Caller, Tier};
use super::limits::{Limits, LimitsChange};
use super::scopes::Scopes;
use super::store::StoreError;
use ledger::model::Priority;
use std::sync::Arc;

/// Longest name of a key, in characters.
pub const NAME_CHARS_MAX: usize = 64;
const PATTERNS_MAX: usize = 100;
const PATTERN_CHARS_MAX: usize = 200;
const PRIORITY_MAX: u8 = 9;

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
    pub limits: Limits,
    /// The user whom it belongs to.
    pub user: Option<[u8; 16]>,
    /// The team that it belongs to, where it is not its user's.
    pub team: Option<[u8; 16]>,
    /// The groups of routes that it may use.
    pub scopes: Scopes,
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
            limits: Limits::default(),
            user: None,
            team: None,
            scopes: Scopes::default(),
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
        match self.expires_at {
            Some(at) if at <= now_wall_us => Err(StoreError::invalid("expires", "must be in the future")),
            Some(at) if i64::try_from(at).is_err() => Err(StoreError::invalid("expires", "is too far away")),
            _ => self.check_without_end(),
        }
    }

    /// As [`NewKey::check`], for a key that may have ended already.
    pub(super) fn check_without_end(&self) -> Result<(), StoreError> {
        check_name(&self.name)?;
        if self.priority().0 > PRIORITY_MAX {
            return Err(StoreError::invalid("priority", format!("must be from 0 to {PRIORITY_MAX}")));
        }
        if self.ceiling() > self.priority() {
            return Err(StoreError::invalid(
                "priority_ceiling",
                "must be as urgent as the priority or more (0 is first)",
            ));
        }
        self.limits.check()?;
        check_models(&self.models)
    }
}

/// What is to change of a key; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct KeyChange {
    /// Its name.
    pub name: Option<String>,
    /// Its class. Without a priority beside it, the priority becomes the class's.
    pub tier: Option<Tier>,
    /// Its priority.
    pub priority: Option<Priority>,
    /// Its ceiling.
    pub ceiling: Option<Priority>,
    /// Its limits.
    pub limits: LimitsChange,
    /// Its user; `Some(None)` for none.
    pub user: Option<Option<[u8; 16]>>,
    /// Its team; `Some(None)` for none of its own.
    pub team: Option<Option<[u8; 16]>>,
    /// The groups of routes that it may use.
    pub scopes: Option<Scopes>,
    /// The models that it may use.
    pub models: Option<Vec<String>>,
    /// When it ends; `Some(None)` for never.
    pub expires_at: Option<Option<u64>>,
    /// The version that is to be changed; another one is refused as stale.
    pub version: Option<u64>,
}

impl KeyChange {
    /// The key that it makes of another.
    pub(super) fn over(&self, now: &Key) -> NewKey {
        let caller = &now.caller;
        let tiers = self.tier.filter(|_| self.priority.is_none()).map(Tier::priority);
        let priority = self.priority.or(tiers).unwrap_or(caller.priority);
        // A ceiling below the priority would be none.
        let ceiling = self.ceiling.unwrap_or(caller.ceiling.min(priority));
        NewKey {
            name: self.name.clone().unwrap_or_else(|| caller.key_name.to_string()),
            tier: self.tier.unwrap_or(caller.tier),
            priority: Some(priority),
            ceiling: Some(ceiling),
            limits: self.limits.over(now.limits),
            user: self.user.unwrap_or(caller.user),
            team: self.team.unwrap_or(now.own_team),
            scopes: self.scopes.unwrap_or(caller.scopes),
            models: self.models.clone().unwrap_or_else(|| caller.models.iter().map(str::to_owned).collect()),
            expires_at: self.expires_at.unwrap_or(caller.expires_at),
        }
    }
}

/// A key as it is kept; neither the key itself nor its hash is in here.
#[derive(Clone, Debug)]
pub struct Key {
    /// Who calls with it.
    pub caller: Arc<Caller>,
    /// Its limits, as they were given.
    pub limits: Limits,
    /// The team that was given for the key itself.
    pub own_team: Option<[u8; 16]>,
    /// Name of its user.
    pub user_name: Option<String>,
    /// Name of its team.
    pub team_name: Option<String>,
    /// Raised with every change.
    pub version: u64,
    /// When it was made, in microseconds of the wall clock.
    pub created_at: u64,
    /// When it was last changed.
    pub updated_at: u64,
    /// While its last rotation's overlap lasts: when the secret before ends.
    pub previous_until: Option<u64>,
    /// Whether its user or its team was removed, so that it is refused.
    pub disabled: bool,
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
            _ => Err(StoreError::invalid("id", "must be a key's id, its first 12 characters or its name")),
        }
    }
}

/// Reads an id of 32 hexadecimal digits.
pub(crate) fn parse_id(text: &str) -> Option<[u8; 16]> {
    let mut id = [0u8; 16];
    hex::decode_to_slice(text, &mut id).ok().map(|()| id)
}

/// Says what is wrong with the name of a key, a user or a team.
pub(super) fn check_name(name: &str) -> Result<(), StoreError> {
    let chars = name.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX {
        return Err(StoreError::invalid("name", format!("must have 1 to {NAME_CHARS_MAX} characters")));
    }
    if name.trim() != name || !name.chars().all(|c| c.is_alphanumeric() || "-_.@: ".contains(c)) {
        return Err(StoreError::invalid("name", "may hold letters, digits, inner spaces and - _ . @ : only"));
    }
    if name.starts_with("tok_") || parse_id(name).is_some() || name.chars().all(|c| c == '.') {
        return Err(StoreError::invalid("name", "must not look like a key, an id or a path"));
    }
    Ok(())
}

pub(super) fn check_models(models: &[String]) -> Result<(), StoreError> {
    if models.len() > PATTERNS_MAX {
        return Err(StoreError::invalid("models", format!("may hold at most {PATTERNS_MAX} patterns")));
    }
    for model in models {
        if model.is_empty() || model.chars().count() > PATTERN_CHARS_MAX || model.chars().any(char::is_control) {
            return Err(StoreError::invalid(
                "models",
                format!("each must have 1 to {PATTERN_CHARS_MAX} printable characters"),
            ));
        }
        if model.matches('*').count() > 1 {
            return Err(StoreError::invalid("models", "each may hold one `*`"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
