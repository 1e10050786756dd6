//! What the stores say of a key: its row with all that binds it, and the bytes that Redis and the snapshot keep of it.
//!
//! Shape: `version u8 | hash 32 | fields`, whole numbers in LEB128, texts and lists with their length before them. A
//! record of another version or a broken one is none: the next layer is asked.

use super::caller::{Caller, ModelPatterns, Tier};
use super::limits::Limits;
use super::scopes::{Role, Scopes};
use super::secret::KeyHash;
use ledger::model::{Priority, Scope, ScopeKind, Tenants};
use std::sync::Arc;

const VERSION: u8 = 1;

/// A key in force, as stores know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: [u8; 16],
    pub(super) name: String,
    pub(super) prefix: String,
    pub(super) tier: Tier,
    pub(super) priority: u8,
    pub(super) ceiling: u8,
    pub(super) version: u64,
    pub(super) limits: Limits,
    pub(super) user: Option<Owner>,
    pub(super) team: Option<Owner>,
    pub(super) role: Option<Role>,
    pub(super) scopes: Scopes,
    pub(super) models: Vec<String>,
    /// When this secret of the key ends.
    pub(super) expires_at: Option<u64>,
}

/// A user or a team that a key belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) id: [u8; 16],
    pub(super) version: u64,
    pub(super) limits: Limits,
}

impl Record {
    /// The caller that it makes. `degraded` names the mode in which it was found, when the stores are down.
    pub(super) fn caller(&self, degraded: Option<&'static str>) -> Caller {
        Caller {
            key_id: self.id,
            key_name: self.name.as_str().into(),
            key_prefix: self.prefix.as_str().into(),
            user: self.user.as_ref().map(|user| user.id),
            team: self.team.as_ref().map(|team| team.id),
            tier: self.tier,
            priority: Priority(self.priority),
            ceiling: Priority(self.ceiling),
            tenants: self.tenants(),
            models: ModelPatterns::new(&self.models),
            scopes: self.scopes,
            role: self.role,
            expires_at: self.expires_at,
            versions: [
                self.version,
                self.user.as_ref().map_or(0, |user| user.version),
                self.team.as_ref().map_or(0, |team| team.version),
            ],
            request_tokens_max: None,
            degraded,
        }
    }

    /// The limits of the key, its user and its team; a scope without any limit is left out.
    fn tenants(&self) -> Tenants {
        let key = Some((ScopeKind::Key, self.id, self.version, self.limits));
        let owner =
            |kind, owner: &Option<Owner>| owner.as_ref().map(|owner| (kind, owner.id, owner.version, owner.limits));
        let all = [key, owner(ScopeKind::User, &self.user), owner(ScopeKind::Team, &self.team)];
        let limited =
            all.into_iter().flatten().map(|(kind, id, version, limits)| limits.tenant(Scope { kind, id }, version));
        let limited: Vec<_> = limited.filter(|tenant| !tenant.is_unlimited()).collect();
        if limited.is_empty() { Arc::default() } else { limited.into() }
    }

    /// Its bytes.
    pub(super) fn encode(&self, hash: &KeyHash) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.push(VERSION);
        out.extend_from_slice(&hash.0);
        out.extend_from_slice(&self.id);
        put_text(&mut out, &self.name);
        put_text(&mut out, &self.prefix);
        let tier = Tier::ALL.iter().position(|tier| *tier == self.tier).unwrap_or_default() as u8;
        let role = self.role.map_or(0, |role| 1 + role as u8);
        out.extend_from_slice(&[tier, self.priority, self.ceiling, role, self.scopes.bits()]);
        put(&mut out, self.expires_at.unwrap_or(0));
        put_limits(&mut out, self.version, &self.limits);
        for owner in [&self.user, &self.team] {
            out.push(u8::from(owner.is_some()));
            if let Some(owner) = owner {
                out.extend_from_slice(&owner.id);
                put_limits(&mut out, owner.version, &owner.limits);
            }
        }
        put(&mut out, self.models.len() as u64);
        self.models.iter().for_each(|model| put_text(&mut out, model));
        out
    }

    /// Reads its bytes; none when they are of another key, of another version, or broken.
    pub(super) fn decode(hash: &KeyHash, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.byte()? != VERSION || KeyHash(fields.array()?) != *hash {
            return None;
        }
        let (id, name, prefix) = (fields.array()?, fields.text()?, fields.text()?);
        let [tier, priority, ceiling, role, scopes] = fields.array()?;
        let expires_at = Some(fields.whole()?).filter(|at| *at > 0);
        let (version, limits) = fields.limits()?;
        let (user, team) = (fields.owner()?, fields.owner()?);
        let models = (0..fields.whole()?).map(|_| fields.text()).collect::<Option<Vec<_>>>()?;
        let role = match role {
            0 => None,
            role => Some(*Role::ALL.get(usize::from(role) - 1)?),
        };
        let tier = *Tier::ALL.get(usize::from(tier))?;
        let scopes = Scopes::of_bits(scopes);
        let record = Self {
            id,
            name,
            prefix,
            tier,
            priority,
            ceiling,
            version,
            limits,
            user,
            team,
            role,
            scopes,
            models,
            expires_at,
        };
        fields.0.is_empty().then_some(record)
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_limits(out: &mut Vec<u8>, version: u64, limits: &Limits) {
    put(out, version);
    let set = limits.values().iter().enumerate().fold(0, |set, (place, value)| set | u8::from(*value > 0) << place);
    out.push(set);
    limits.values().into_iter().filter(|value| *value > 0).for_each(|value| put(out, value));
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn whole(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.whole()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn limits(&mut self) -> Option<(u64, Limits)> {
        let (version, set) = (self.whole()?, self.byte()?);
        let mut values = [0; 8];
        for (place, value) in values.iter_mut().enumerate() {
            if set & (1 << place) != 0 {
                *value = self.whole()?;
            }
        }
        Some((version, Limits::of_values(values)))
    }

    #[expect(clippy::option_option, reason = "broken, absent and there are three things")]
    fn owner(&mut self) -> Option<Option<Owner>> {
        if self.byte()? == 0 {
            return Some(None);
        }
        let id = self.array()?;
        let (version, limits) = self.limits()?;
        Some(Some(Owner { id, version, limits }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let limits = Limits { rps: 10, tokens_per_day: 1 << 40, ..Limits::default() };
        Record {
            id: [1; 16],
            name: "größe".into(),
            prefix: "tok_12345678".into(),
            tier: Tier::Partner,
            priority: 3,
            ceiling: 1,
            version: 300,
            limits,
            user: Some(Owner { id: [2; 16], version: 1, limits: Limits::default() }),
            team: Some(Owner { id: [3; 16], version: 2, limits }),
            role: Some(Role::GatewayAdmin),
            scopes: Scopes::parse(["chat", "admin"]).unwrap(),
            models: vec!["gpt-*".into(), String::new()],
            expires_at: Some(u64::MAX),
        }
    }

    const HASH: KeyHash = KeyHash([9; 32]);

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let record = record();
        assert_eq!(Record::decode(&HASH, &record.encode(&HASH)), Some(record.clone()));
        let bare = Record { user: None, team: None, role: None, models: Vec::new(), expires_at: None, ..record };
        assert_eq!(Record::decode(&HASH, &bare.encode(&HASH)), Some(bare));
    }

    #[test]
    fn a_broken_record_or_one_of_another_key_is_none() {
        let bytes = record().encode(&HASH);
        assert_eq!(Record::decode(&KeyHash([8; 32]), &bytes), None);
        for length in 0..bytes.len() {
            assert_eq!(Record::decode(&HASH, &bytes[..length]), None, "{length}");
        }
        assert_eq!(Record::decode(&HASH, &[&bytes[..], &[0]].concat()), None);
        let newer = [&[VERSION + 1], &bytes[1..]].concat();
        assert_eq!(Record::decode(&HASH, &newer), None);
    }

    #[test]
    fn limits_of_key_user_and_team_bind_together_and_those_without_any_are_left_out() {
        let kinds: Vec<_> = record().tenants().iter().map(|tenant| (tenant.scope.kind, tenant.version)).collect();
        assert_eq!(kinds, [(ScopeKind::Key, 300), (ScopeKind::Team, 2)]);
    }
}
