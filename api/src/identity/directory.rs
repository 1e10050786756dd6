//! Making, changing and removing keys, users and teams: what the admin routes and the command line do.
//!
//! A revocation goes to the ledger first and to the database then, see [`Identity::revoke_key`].

use super::store::{OutboxRow, Store};
use super::{
    Actor, AuditEvent, Identity, Key, KeyChange, KeyHash, KeyRef, Named, NewKey, NewTeam, NewUser, Once, Secret,
    StoreError, Team, TeamChange, User, UserChange,
};
use crate::identity::Caller;
use ledger::model::{Scope, ScopeKind, TenantLimits};
use std::sync::Arc;
use std::time::Duration;

/// How soon a revocation is tried again that the database did not take.
const AGAIN: Duration = Duration::from_millis(500);

impl Identity {
    /// Makes a key; the secret is never to be had again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn create_key(
        &self,
        new: &NewKey,
        once: Option<&Once>,
        actor: &Actor,
    ) -> Result<(Key, Secret), StoreError> {
        self.store()?.create(new, once, actor).await
    }

    /// What a request that is to be done once has made already: its id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn done(&self, once: &Once) -> Result<Option<String>, StoreError> {
        self.store()?.done(once).await
    }

    /// One page (at most [`super::PAGE`]) of keys in the order of their making, those behind `after` only.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn list_keys(&self, with_revoked: bool, after: Option<[u8; 16]>) -> Result<Vec<Key>, StoreError> {
        self.store()?.list(with_revoked, after).await
    }

    /// Shows a key.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn key(&self, which: &KeyRef) -> Result<Key, StoreError> {
        self.store()?.get(which).await
    }

    /// Changes a key.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn update_key(&self, which: &KeyRef, change: &KeyChange, actor: &Actor) -> Result<Key, StoreError> {
        let (key, hashes) = self.store()?.update(which, change, actor).await?;
        self.drop_everywhere(&hashes).await;
        Ok(key)
    }

    /// Gives a key a new secret; the one before is good until `until_wall_us`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn rotate_key(
        &self,
        which: &KeyRef,
        until_wall_us: u64,
        once: Option<&Once>,
        actor: &Actor,
    ) -> Result<(Key, Secret), StoreError> {
        let (key, secret, hashes) = self.store()?.rotate(which, until_wall_us, once, actor).await?;
        self.drop_everywhere(&hashes).await;
        Ok((key, secret))
    }

    /// A key and the hashes of its secrets, for the ledger to revoke.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn secrets(&self, which: &KeyRef) -> Result<(Key, Vec<KeyHash>), StoreError> {
        self.store()?.secrets(which).await
    }

    /// Takes a key back in the database, for ever; once more changes nothing. From its return on no lookup on this node
    /// finds it; on others when the ledger has heard of it, which is to be told before.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn revoke_key(&self, which: &KeyRef, actor: &Actor) -> Result<Key, StoreError> {
        let (key, hashes) = self.store()?.secrets(which).await?;
        let key = self.store()?.revoke(key.caller.key_id, actor).await?;
        self.drop_everywhere(&hashes).await;
        Ok(key)
    }

    /// A key and the hashes of its secrets: from the database, or as memory or the snapshot know it while that does not
    /// answer.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn key_to_revoke(&self, which: &KeyRef) -> Result<(Arc<Caller>, Vec<KeyHash>), StoreError> {
        let down = match self.secrets(which).await {
            Ok((key, hashes)) => return Ok((key.caller, hashes)),
            Err(StoreError::Down(error)) => StoreError::Down(error),
            Err(error) => return Err(error),
        };
        let is_it = |caller: &Caller| match which {
            KeyRef::Id(id) => caller.key_id == *id,
            KeyRef::Prefix(prefix) => *caller.key_prefix == **prefix,
            KeyRef::Name(name) => *caller.key_name == **name,
        };
        let remembered = self.inner.cache.find(is_it);
        let found = remembered.or_else(|| {
            let (hash, record) = self.inner.layers.snapshot().search(|record| is_it(&record.caller(None)))?;
            Some((hash, Arc::new(record.caller(None))))
        });
        found.map(|(hash, caller)| (caller, vec![hash])).ok_or(down)
    }

    /// Writes a revocation that the ledger has already to the database as soon as that answers.
    pub fn revoke_later(&self, id: [u8; 16], actor: Actor) {
        let identity = self.clone();
        tokio::spawn(async move {
            loop {
                match identity.revoke_key(&KeyRef::Id(id), &actor).await {
                    Ok(_) | Err(StoreError::NotFound(_)) => return,
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
            }
        });
    }

    /// Makes a user.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn create_user(&self, new: NewUser, once: Option<&Once>, actor: &Actor) -> Result<User, StoreError> {
        self.store()?.create_user(new, once, actor).await
    }

    /// One page of users in the order of their making.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn users(&self, after: Option<[u8; 16]>) -> Result<Vec<User>, StoreError> {
        self.store()?.users(after).await
    }

    /// Shows a user.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn user(&self, which: &Named) -> Result<User, StoreError> {
        self.store()?.user(which).await
    }

    /// Changes a user.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn update_user(&self, which: &Named, change: &UserChange, actor: &Actor) -> Result<User, StoreError> {
        let user = self.store()?.update_user(which, change, actor).await?;
        self.doubt(Scope { kind: ScopeKind::User, id: user.id });
        Ok(user)
    }

    /// Removes a user for ever; the ledger is to be told before.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove_user(&self, user: &User, actor: &Actor) -> Result<(), StoreError> {
        let scope = Scope { kind: ScopeKind::User, id: user.id };
        self.store()?.remove(scope, &user.name, actor).await?;
        self.doubt(scope);
        Ok(())
    }

    /// Makes a team.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn create_team(&self, new: NewTeam, once: Option<&Once>, actor: &Actor) -> Result<Team, StoreError> {
        self.store()?.create_team(new, once, actor).await
    }

    /// One page of teams in the order of their making.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn teams(&self, after: Option<[u8; 16]>) -> Result<Vec<Team>, StoreError> {
        self.store()?.teams(after).await
    }

    /// Shows a team.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn team(&self, which: &Named) -> Result<Team, StoreError> {
        self.store()?.team(which).await
    }

    /// Changes a team.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn update_team(&self, which: &Named, change: &TeamChange, actor: &Actor) -> Result<Team, StoreError> {
        let team = self.store()?.update_team(which, change, actor).await?;
        self.doubt(Scope { kind: ScopeKind::Team, id: team.id });
        Ok(team)
    }

    /// Removes a team for ever; the ledger is to be told before.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove_team(&self, team: &Team, actor: &Actor) -> Result<(), StoreError> {
        let scope = Scope { kind: ScopeKind::Team, id: team.id };
        self.store()?.remove(scope, &team.name, actor).await?;
        self.doubt(scope);
        Ok(())
    }

    /// One page of changes, the latest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn audit(&self, before: Option<u64>) -> Result<Vec<AuditEvent>, StoreError> {
        self.store()?.audit(before).await
    }

    /// What the ledger is still to hear.
    pub(crate) async fn outbox(&self) -> Result<Vec<OutboxRow>, StoreError> {
        self.store()?.outbox().await
    }

    /// Takes a row out of the outbox.
    pub(crate) async fn heard(&self, id: u64) -> Result<(), StoreError> {
        self.store()?.heard(id).await
    }

    /// The limits of a tenant, as the database has them.
    pub(crate) async fn limits_of(&self, scope: Scope) -> Result<Option<TenantLimits>, StoreError> {
        self.store()?.limits_of(scope).await
    }

    /// The durable store, unless it is known to be down: then nobody waits for it.
    fn store(&self) -> Result<&Store, StoreError> {
        let layers = &self.inner.layers;
        if layers.sql.is_open() { Err(StoreError::Down(sqlx::Error::PoolTimedOut)) } else { Ok(&layers.durable) }
    }

    async fn drop_everywhere(&self, hashes: &[KeyHash]) {
        hashes.iter().for_each(|hash| self.forget(hash));
        self.inner.layers.demote(hashes).await;
        // A lookup of before may have told Redis in between; what it told memory is not believed.
        hashes.iter().for_each(|hash| self.forget(hash));
    }

    /// Has the stores asked again about every key of a tenant that memory knows.
    fn doubt(&self, scope: Scope) {
        self.inner.cache.sift(|_, caller| {
            let of = match scope.kind {
                ScopeKind::Key => Some(caller.key_id),
                ScopeKind::User => caller.user,
                ScopeKind::Team => caller.team,
            };
            if of == Some(scope.id) { super::cache::Sifted::Stale } else { super::cache::Sifted::Good }
        });
    }
}
