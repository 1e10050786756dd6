//! What a key may be used for, by groups of routes, and what its user's role allows on the admin routes.

use super::store::StoreError;

/// Routes that are allowed or not together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteGroup {
    /// Text from a model, in any dialect.
    Chat,
    /// Embeddings.
    Embeddings,
    /// Lists of models.
    Models,
    /// The admin routes, as far as the role of the key's user goes.
    Admin,
}

impl RouteGroup {
    /// Every group.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Embeddings, Self::Models, Self::Admin];

    /// Its name, as in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embeddings => "embeddings",
            Self::Models => "models",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The groups of routes that a key may use. Without any named: all but the admin routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Reads names of groups.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a name that is none.
    pub fn parse<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Self, StoreError> {
        let mut bits = 0;
        for name in names {
            let group = RouteGroup::ALL.into_iter().find(|group| group.as_str() == name.as_ref());
            let known = RouteGroup::ALL.map(RouteGroup::as_str).join(", ");
            bits |= group.ok_or_else(|| StoreError::invalid("scopes", format!("each must be one of {known}")))?.bit();
        }
        Ok(Self(bits))
    }

    /// Whether the routes of `group` may be used.
    pub fn allows(self, group: RouteGroup) -> bool {
        if self.0 == 0 { group != RouteGroup::Admin } else { self.0 & group.bit() != 0 }
    }

    /// The names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        RouteGroup::ALL.into_iter().filter(move |group| self.0 & group.bit() != 0).map(RouteGroup::as_str)
    }

    pub(super) fn bits(self) -> u8 {
        self.0
    }

    pub(super) fn of_bits(bits: u8) -> Self {
        Self(bits)
    }
}

/// What a user may do on the admin routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Nothing.
    GatewayUser,
    /// Users, teams, keys, limits, prices and usage; nobody's role, no key of another admin.
    GatewayAdmin,
    /// Everything.
    RootAdmin,
}

impl Role {
    /// Every role, the weakest first.
    pub const ALL: [Self; 3] = [Self::GatewayUser, Self::GatewayAdmin, Self::RootAdmin];

    /// Its name, as in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GatewayUser => "gateway_user",
            Self::GatewayAdmin => "gateway_admin",
            Self::RootAdmin => "root_admin",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_scope_is_every_group_but_admin() {
        let allowed = |scopes: Scopes| RouteGroup::ALL.map(|group| scopes.allows(group));
        assert_eq!(allowed(Scopes::default()), [true, true, true, false]);
        assert_eq!(allowed(Scopes::parse(["chat", "admin"]).unwrap()), [true, false, false, true]);
        assert_eq!(Scopes::parse(["admin", "chat"]).unwrap().names().collect::<Vec<_>>(), ["chat", "admin"]);
        assert!(matches!(Scopes::parse(["root"]), Err(StoreError::Invalid { field: "scopes", .. })));
    }

    #[test]
    fn every_role_has_its_name() {
        assert!(Role::ALL.into_iter().all(|role| Role::parse(role.as_str()) == Some(role)));
        assert!(Role::RootAdmin > Role::GatewayAdmin && Role::GatewayAdmin > Role::GatewayUser);
        assert_eq!(Role::parse("root"), None);
    }
}
