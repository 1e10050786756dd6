//! Users and teams as people make, change and see them.

use super::key::{check_name, parse_id};
use super::limits::{Limits, LimitsChange};
use super::scopes::Role;
use super::store::StoreError;

/// Longest e-mail address (RFC 5321, 4.5.3.1.3).
const EMAIL_CHARS_MAX: usize = 254;

/// A user as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id; the ledger's `Scope` of kind `User`.
    pub id: [u8; 16],
    /// Its name, which no other user has.
    pub name: String,
    /// Its e-mail address, in small letters.
    pub email: Option<String>,
    /// What it may do on the admin routes.
    pub role: Role,
    /// Its team.
    pub team: Option<[u8; 16]>,
    /// The limits of all of its keys together.
    pub limits: Limits,
    /// Raised with every change.
    pub version: u64,
    /// When it was made, in microseconds of the wall clock.
    pub created_at: u64,
    /// When it was last changed.
    pub updated_at: u64,
    /// When it was removed.
    pub removed_at: Option<u64>,
}

/// A user that is to be made.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Its name.
    pub name: String,
    /// Its e-mail address.
    pub email: Option<String>,
    /// What it may do on the admin routes.
    pub role: Role,
    /// Its team.
    pub team: Option<[u8; 16]>,
    /// The limits of all of its keys together.
    pub limits: Limits,
}

/// What is to change of a user; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// Its name.
    pub name: Option<String>,
    /// Its e-mail address; `Some(None)` for none.
    pub email: Option<Option<String>>,
    /// Its role.
    pub role: Option<Role>,
    /// Its team; `Some(None)` for none.
    pub team: Option<Option<[u8; 16]>>,
    /// Its limits.
    pub limits: LimitsChange,
    /// The version that is to be changed; another one is refused as stale.
    pub version: Option<u64>,
}

impl NewUser {
    /// Says what is wrong with it, and writes its address as it is kept.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], naming the first field that is wrong.
    pub fn checked(mut self) -> Result<Self, StoreError> {
        check_name(&self.name)?;
        self.email = self.email.map(|email| checked_email(&email)).transpose()?;
        self.limits.check()?;
        Ok(self)
    }
}

impl UserChange {
    pub(super) fn over(&self, now: &User) -> NewUser {
        NewUser {
            name: self.name.clone().unwrap_or_else(|| now.name.clone()),
            email: self.email.clone().unwrap_or_else(|| now.email.clone()),
            role: self.role.unwrap_or(now.role),
            team: self.team.unwrap_or(now.team),
            limits: self.limits.over(now.limits),
        }
    }
}

/// A team as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// Its id; the ledger's `Scope` of kind `Team`.
    pub id: [u8; 16],
    /// Its name, which no other team has.
    pub name: String,
    /// The limits of all of its users and keys together.
    pub limits: Limits,
    /// Raised with every change.
    pub version: u64,
    /// When it was made, in microseconds of the wall clock.
    pub created_at: u64,
    /// When it was last changed.
    pub updated_at: u64,
    /// When it was removed.
    pub removed_at: Option<u64>,
}

/// A team that is to be made.
#[derive(Clone, Debug)]
pub struct NewTeam {
    /// Its name.
    pub name: String,
    /// The limits of all of its users and keys together.
    pub limits: Limits,
}

/// What is to change of a team; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct TeamChange {
    /// Its name.
    pub name: Option<String>,
    /// Its limits.
    pub limits: LimitsChange,
    /// The version that is to be changed; another one is refused as stale.
    pub version: Option<u64>,
}

impl NewTeam {
    /// Says what is wrong with it.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], naming the first field that is wrong.
    pub fn checked(self) -> Result<Self, StoreError> {
        check_name(&self.name)?;
        self.limits.check()?;
        Ok(self)
    }
}

impl TeamChange {
    pub(super) fn over(&self, now: &Team) -> NewTeam {
        NewTeam { name: self.name.clone().unwrap_or_else(|| now.name.clone()), limits: self.limits.over(now.limits) }
    }
}

/// How people name a user or a team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Its id, 32 hexadecimal digits.
    Id([u8; 16]),
    /// Its name.
    Name(String),
    /// A user's e-mail address.
    Email(String),
}

impl Named {
    /// Reads an id, an e-mail address or a name.
    pub fn parse(text: &str) -> Self {
        match parse_id(text) {
            Some(id) => Self::Id(id),
            None if checked_email(text).is_ok() => Self::Email(text.to_lowercase()),
            None => Self::Name(text.to_owned()),
        }
    }
}

fn checked_email(email: &str) -> Result<String, StoreError> {
    let whole = email.chars().count() <= EMAIL_CHARS_MAX
        && !email.chars().any(|c| c.is_whitespace() || c.is_control() || ",;:<>()[]\\\"'".contains(c));
    match email.split_once('@') {
        Some((local, domain)) if whole && !local.is_empty() && is_domain(domain) => Ok(email.to_lowercase()),
        _ => Err(StoreError::invalid("email", "must be like name@example.com")),
    }
}

fn is_domain(domain: &str) -> bool {
    let label = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-');
    !domain.is_empty() && domain.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_kept_in_small_letters_and_a_wrong_one_is_refused() {
        assert_eq!(checked_email("Ann.Lee+x@Example.COM").unwrap(), "ann.lee+x@example.com");
        for wrong in ["", "a", "@b.c", "a@", "a b@c.d", "a@b..c", "a@b@c", "a@b.c,d@e.f", "a\n@b.c", "'a'@b.c"] {
            assert!(matches!(checked_email(wrong), Err(StoreError::Invalid { field: "email", .. })), "{wrong:?}");
        }
        assert!(checked_email(&format!("{}@b.c", "x".repeat(251))).is_err());
    }

    #[test]
    fn people_are_named_by_id_address_or_name() {
        assert_eq!(Named::parse(&"0a".repeat(16)), Named::Id([10; 16]));
        assert_eq!(Named::parse("A@b.c"), Named::Email("a@b.c".into()));
        assert_eq!(Named::parse("ann"), Named::Name("ann".into()));
    }
}
