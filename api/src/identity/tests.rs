//! Keys on a real SQLite database.

use super::*;
use std::sync::atomic::Ordering;
use std::time::Duration;

async fn fresh() -> (tempfile::TempDir, Identity) {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(&format!("sqlite:{}/i.db", dir.path().display())).await.unwrap();
    (dir, identity)
}

#[tokio::test]
async fn a_new_key_is_found_with_all_that_was_said_of_it() {
    let (_dir, identity) = fresh().await;
    let mut new = NewKey::named("app");
    new.tier = Tier::Partner;
    new.ceiling = Some(Priority(1));
    new.limits = Limits { rps: 10, concurrency: 2, tokens_per_day: 1_000, ..Limits::default() };
    new.models = vec!["gpt-*".into()];
    new.expires_at = Some(raft::clock::wall_us() + 60_000_000);
    let (key, secret) = identity.create_key(&new, None, &Actor::node()).await.unwrap();
    assert!(identity.lookup_cached(secret.expose()).is_none());
    let caller = identity.lookup(secret.expose()).await.unwrap();
    assert_eq!(caller.key_id, key.caller.key_id);
    assert_eq!((&*caller.key_name, &*caller.key_prefix), ("app", secret.prefix()));
    assert_eq!((caller.tier, caller.priority, caller.ceiling), (Tier::Partner, Priority(3), Priority(1)));
    assert_eq!(&*caller.tenants, &[new.limits.tenant(Scope { kind: ScopeKind::Key, id: caller.key_id }, 1)]);
    assert!(caller.models.allows("gpt-4") && !caller.models.allows("claude"));
    assert_eq!((caller.expires_at, caller.role, key.limits), (new.expires_at, None, new.limits));
    let cached = identity.lookup_cached(secret.expose()).unwrap().unwrap();
    assert!(Arc::ptr_eq(&cached, &caller));
}

#[tokio::test]
async fn keys_survive_a_restart_and_the_database_holds_no_secret() {
    let (dir, identity) = fresh().await;
    let (_, secret) = identity.create_key(&NewKey::named("app"), None, &Actor::node()).await.unwrap();
    identity.database().close().await;
    let random = &secret.expose().as_bytes()[12..];
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(random.len()).any(|window| window == random));
    }
    let again = Identity::open(&format!("sqlite:{}/i.db", dir.path().display())).await.unwrap();
    assert!(again.lookup(secret.expose()).await.is_ok());
}

#[tokio::test]
async fn a_wrong_key_is_unknown_and_only_asked_for_once_a_second() {
    let (_dir, identity) = fresh().await;
    let stranger = Secret::generate().unwrap();
    for presented in ["", "sk-1", stranger.expose()] {
        assert_eq!(identity.lookup(presented).await.unwrap_err(), LookupError::Unknown);
    }
    assert_eq!(identity.lookup(stranger.expose()).await.unwrap_err(), LookupError::Unknown);
    assert_eq!(identity.counts().sql_miss.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_and_its_name_is_free_again() {
    let (_dir, identity) = fresh().await;
    let (key, secret) = identity.create_key(&NewKey::named("app"), None, &Actor::node()).await.unwrap();
    identity.lookup(secret.expose()).await.unwrap();
    let revoked = identity.revoke_key(&KeyRef::Name("app".into()), &Actor::node()).await.unwrap();
    assert!(identity.lookup_cached(secret.expose()).is_none());
    assert_eq!(identity.lookup(secret.expose()).await.unwrap_err(), LookupError::Revoked);
    let again = identity.revoke_key(&KeyRef::Id(key.caller.key_id), &Actor::node()).await.unwrap();
    assert_eq!(again.revoked_at, revoked.revoked_at);
    let (other, _) = identity.create_key(&NewKey::named("app"), None, &Actor::node()).await.unwrap();
    let named = identity.key(&KeyRef::Name("app".into())).await.unwrap();
    assert_eq!(named.caller.key_id, other.caller.key_id);
}

#[tokio::test]
async fn revocation_beats_lookups_that_run_at_the_same_time() {
    let (_dir, identity) = fresh().await;
    let (key, secret) = identity.create_key(&NewKey::named("app"), None, &Actor::node()).await.unwrap();
    let id = key.caller.key_id;
    let lookups: Vec<_> = (0..64)
        .map(|n| {
            let (identity, secret) = (identity.clone(), secret.clone());
            tokio::spawn(async move {
                if n == 30 {
                    identity.revoke_key(&KeyRef::Id(id), &Actor::node()).await.unwrap();
                    assert_eq!(identity.lookup(secret.expose()).await.unwrap_err(), LookupError::Revoked);
                }
                let _ = identity.lookup(secret.expose()).await;
            })
        })
        .collect();
    for lookup in lookups {
        lookup.await.unwrap();
    }
    assert_eq!(identity.lookup(secret.expose()).await.unwrap_err(), LookupError::Revoked);
    assert_eq!(identity.remembered(), 0);
}

#[tokio::test]
async fn an_expired_key_is_refused_from_memory_too() {
    let (_dir, identity) = fresh().await;
    let mut new = NewKey::named("app");
    new.expires_at = Some(raft::clock::wall_us() + 300_000);
    let (_, secret) = identity.create_key(&new, None, &Actor::node()).await.unwrap();
    identity.lookup(secret.expose()).await.unwrap();
    while raft::clock::wall_us() < new.expires_at.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(identity.lookup_cached(secret.expose()).unwrap().unwrap_err(), LookupError::Expired);
    assert_eq!(identity.lookup(secret.expose()).await.unwrap_err(), LookupError::Expired);
}

#[tokio::test]
async fn a_name_is_taken_once_and_keys_are_listed_in_pages() {
    let (_dir, identity) = fresh().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(
            identity
                .create_key(&NewKey::named(&format!("key {n}")), None, &Actor::node())
                .await
                .unwrap()
                .0
                .caller
                .key_id,
        );
    }
    let taken = identity.create_key(&NewKey::named("key 1"), None, &Actor::node()).await.unwrap_err();
    assert!(matches!(taken, StoreError::Conflict { field: "name", .. }), "{taken}");
    identity.revoke_key(&KeyRef::Id(ids[0]), &Actor::node()).await.unwrap();
    let listed = async |revoked, after| -> Vec<[u8; 16]> {
        identity.list_keys(revoked, after).await.unwrap().iter().map(|key| key.caller.key_id).collect()
    };
    assert_eq!(listed(true, None).await, ids);
    assert_eq!(listed(false, None).await, ids[1..]);
    assert_eq!(listed(true, Some(ids[1])).await, ids[2..]);
    let missing = identity.key(&KeyRef::Name("none".into())).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound("key")));
}

#[tokio::test]
async fn a_closed_store_leaves_known_keys_served_and_others_undecided() {
    let (_dir, identity) = fresh().await;
    let (_, known) = identity.create_key(&NewKey::named("known"), None, &Actor::node()).await.unwrap();
    let (_, cold) = identity.create_key(&NewKey::named("cold"), None, &Actor::node()).await.unwrap();
    identity.lookup(known.expose()).await.unwrap();
    identity.database().close().await;
    assert!(identity.lookup(known.expose()).await.is_ok());
    assert_eq!(identity.lookup(cold.expose()).await.unwrap_err(), LookupError::StoresDown);
    assert!(identity.stores_are_down());
}
