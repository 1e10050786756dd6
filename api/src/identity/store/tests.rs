//! One suite over both databases: a real SQLite file and a real PostgreSQL.

use super::*;
use crate::identity::database::Database;
use crate::identity::key::{KeyChange, KeyRef, NewKey};
use crate::identity::limits::{Limits, LimitsChange};
use crate::identity::people::{Named, NewTeam, NewUser, UserChange};
use crate::identity::scopes::{Role, Scopes};
use crate::identity::sql::sql;
use support::PostgresServer;

async fn suite(store: Store) {
    a_key_lives(&store).await;
    a_rotated_key_has_two_secrets(&store).await;
    limits_of_user_and_team_come_with_the_key(&store).await;
    what_clashes_is_named(&store).await;
    a_stale_change_is_refused(&store).await;
    text_is_only_ever_a_value(&store).await;
    a_request_is_done_once(&store).await;
    lists_come_in_the_order_of_making(&store).await;
    store.database().close().await;
}

#[tokio::test]
async fn the_suite_holds_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("new/identity.db").display());
    suite(opened(&url).await).await;
}

#[tokio::test]
async fn the_suite_holds_on_postgres() {
    let server = PostgresServer::start().unwrap();
    suite(opened(&server.create("suite").unwrap()).await).await;
}

#[tokio::test]
async fn nodes_that_start_at_once_migrate_once_and_both_schemas_have_the_same_columns() {
    let server = PostgresServer::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let postgres = server.create("many").unwrap();
    let sqlite = format!("sqlite:{}", dir.path().join("identity.db").display());
    for url in [&postgres, &sqlite] {
        let nodes: Vec<_> = (0..5)
            .map(|_| {
                tokio::spawn({
                    let url = url.clone();
                    async move { opened(&url).await }
                })
            })
            .collect();
        for node in nodes {
            node.await.unwrap().database().prepare().await.unwrap();
        }
    }
    let of_postgres = opened(&postgres).await;
    let query = "SELECT table_name || '.' || column_name AS place FROM information_schema.columns \
                 WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%' ORDER BY 1";
    let of_sqlite = opened(&sqlite).await;
    let mut columns = Vec::new();
    for (store, query) in [
        (of_postgres, query),
        (
            of_sqlite,
            "SELECT m.name || '.' || c.name AS place FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c \
                     WHERE m.type IN ('table', 'view') AND m.name NOT LIKE 'sqlite%' AND m.name NOT LIKE '\\_sqlx%' \
                     ESCAPE '\\' AND m.name <> 'keys_with_limits' ORDER BY 1",
        ),
    ] {
        let rows = store.all(sql(query)).await.unwrap();
        let mut places: Vec<String> = rows.iter().map(|row| row.text("place").unwrap()).collect();
        places.sort();
        columns.push(places);
    }
    assert!(columns[0].len() > 80);
    assert_eq!(columns[0], columns[1]);
}

async fn opened(url: &str) -> Store {
    let database = Database::open(url).await.unwrap();
    assert!(database.is_prepared());
    Store::new(database)
}

fn actor() -> Actor {
    Actor::user("ann", "tok_12345678")
}

async fn made(store: &Store, name: &str) -> (Key, Secret) {
    store.create(&NewKey::named(name), None, &actor()).await.unwrap()
}

use crate::identity::key::Key;
use crate::identity::secret::Secret;

async fn a_key_lives(store: &Store) {
    let limits = Limits { rps: 5, tokens_per_day: 100, budget_nano_usd: 7, ..Limits::default() };
    let new = NewKey {
        limits,
        models: vec!["a*".into()],
        scopes: Scopes::parse(["chat"]).unwrap(),
        ..NewKey::named("lives")
    };
    let (key, secret) = store.create(&new, None, &actor()).await.unwrap();
    assert_eq!((key.limits, key.version, key.caller.scopes), (limits, 1, new.scopes));
    let found = store.find(&secret.hash()).await.unwrap().unwrap();
    assert!(!found.revoked && found.record.models == ["a*"]);
    let id = KeyRef::Id(key.caller.key_id);
    let change = KeyChange { limits: LimitsChange { rpm: Some(60), ..Default::default() }, ..Default::default() };
    let (changed, hashes) = store.update(&id, &change, &actor()).await.unwrap();
    assert_eq!(
        (changed.limits.rps, changed.limits.rpm, changed.limits.tokens_per_day, changed.version),
        (0, 60, 100, 2)
    );
    assert_eq!(hashes, [secret.hash()]);
    let revoked = store.revoke(key.caller.key_id, &actor()).await.unwrap();
    assert_eq!(store.revoke(key.caller.key_id, &actor()).await.unwrap().revoked_at, revoked.revoked_at);
    assert!(store.find(&secret.hash()).await.unwrap().unwrap().revoked);
    assert!(store.in_force(None, 100).await.unwrap().iter().all(|(hash, ..)| *hash != secret.hash()));
    let actions: Vec<_> =
        store.audit(None).await.unwrap().into_iter().map(|event| (event.action, event.actor)).collect();
    let by = "ann (tok_12345678)".to_owned();
    let expected = ["key.revoke", "key.update", "key.create"].map(|action| (action.to_owned(), by.clone()));
    assert_eq!(actions, expected);
    let told: Vec<_> = store.outbox().await.unwrap();
    assert_eq!(told.len(), 2);
    for row in told {
        store.heard(row.id).await.unwrap();
    }
    assert!(store.outbox().await.unwrap().is_empty());
}

async fn a_rotated_key_has_two_secrets(store: &Store) {
    let (key, first) = made(store, "rotated").await;
    let id = KeyRef::Id(key.caller.key_id);
    let until = raft::clock::wall_us() + 60_000_000;
    let (rotated, second, _) = store.rotate(&id, until, None, &actor()).await.unwrap();
    assert_eq!((rotated.caller.key_id, rotated.previous_until), (key.caller.key_id, Some(until)));
    assert_eq!(store.find(&first.hash()).await.unwrap().unwrap().record.expires_at, Some(until));
    assert_eq!(store.find(&second.hash()).await.unwrap().unwrap().record.expires_at, None);
    let (_, third, hashes) = store.rotate(&id, until, None, &actor()).await.unwrap();
    assert_eq!(hashes, [second.hash(), first.hash()]);
    assert!(store.find(&first.hash()).await.unwrap().is_none());
    assert!(store.find(&third.hash()).await.unwrap().is_some());
    // What ended for good is told to the ledger at once, what ends later is not yet.
    let ended = store.outbox().await.unwrap().into_iter().filter(|row| row.what == outbox::Told::Ended(first.hash()));
    assert_eq!(ended.count(), 1);
}

async fn limits_of_user_and_team_come_with_the_key(store: &Store) {
    let limits = |rps| Limits { rps, ..Limits::default() };
    let team = store.create_team(NewTeam { name: "core".into(), limits: limits(100) }, None, &actor()).await.unwrap();
    let new = NewUser {
        name: "bob".into(),
        email: Some("Bob@X.org".into()),
        role: Role::GatewayAdmin,
        team: Some(team.id),
        limits: limits(10),
    };
    let user = store.create_user(new, None, &actor()).await.unwrap();
    assert_eq!(user.email.as_deref(), Some("bob@x.org"));
    let new = NewKey { user: Some(user.id), ..NewKey::named("of bob") };
    let (key, secret) = store.create(&new, None, &actor()).await.unwrap();
    assert_eq!((key.user_name.as_deref(), key.team_name.as_deref()), (Some("bob"), Some("core")));
    let rates: Vec<_> = key.caller.tenants.iter().map(|tenant| tenant.requests.unwrap().burst).collect();
    assert_eq!((rates, key.caller.role), (vec![10, 100], Some(Role::GatewayAdmin)));
    let change = UserChange {
        limits: LimitsChange { rps: Some(20), ..Default::default() },
        team: Some(None),
        ..Default::default()
    };
    store.update_user(&Named::Email("bob@x.org".into()), &change, &actor()).await.unwrap();
    let record = store.find(&secret.hash()).await.unwrap().unwrap().record;
    assert_eq!((record.user.unwrap().limits.rps, record.team), (20, None));
    let scope = ledger::model::Scope { kind: ledger::model::ScopeKind::User, id: user.id };
    assert_eq!(store.limits_of(scope).await.unwrap().unwrap().version, 2);
    store.remove(scope, "bob", &actor()).await.unwrap();
    assert!(store.find(&secret.hash()).await.unwrap().unwrap().revoked);
}

async fn what_clashes_is_named(store: &Store) {
    made(store, "taken").await;
    let clash = store.create(&NewKey::named("taken"), None, &actor()).await.unwrap_err();
    assert!(matches!(clash, StoreError::Conflict { field: "name", .. }), "{clash}");
    let user = |name: &str, email: &str| NewUser {
        name: name.into(),
        email: Some(email.into()),
        role: Role::GatewayUser,
        team: None,
        limits: Limits::default(),
    };
    store.create_user(user("u1", "a@b.c"), None, &actor()).await.unwrap();
    let clash = store.create_user(user("u2", "A@B.c"), None, &actor()).await.unwrap_err();
    assert!(matches!(clash, StoreError::Conflict { field: "email", .. }), "{clash}");
    let clash = store.create_user(user("u1", "x@b.c"), None, &actor()).await.unwrap_err();
    assert!(matches!(clash, StoreError::Conflict { field: "name", .. }), "{clash}");
    let missing = NewKey { user: Some([9; 16]), ..NewKey::named("orphan") };
    let missing = store.create(&missing, None, &actor()).await.unwrap_err();
    assert!(matches!(missing, StoreError::Invalid { field: "user", .. }), "{missing}");
    assert!(matches!(store.user(&Named::Name("nobody".into())).await, Err(StoreError::NotFound("user"))));
}

async fn a_stale_change_is_refused(store: &Store) {
    let (key, _) = made(store, "stale").await;
    let id = KeyRef::Id(key.caller.key_id);
    let change = KeyChange { version: Some(1), ..Default::default() };
    store.update(&id, &change, &actor()).await.unwrap();
    assert!(matches!(store.update(&id, &change, &actor()).await, Err(StoreError::Stale { now: 2 })));
}

async fn text_is_only_ever_a_value(store: &Store) {
    for evil in ["'; DROP TABLE users; --", "%", "_", "\u{0}", "$1", "\" OR \"\"=\""] {
        assert!(matches!(store.get(&KeyRef::Name(evil.into())).await, Err(StoreError::NotFound("key"))), "{evil:?}");
        assert!(matches!(store.team(&Named::Name(evil.into())).await, Err(StoreError::NotFound("team"))), "{evil:?}");
    }
    assert!(store.users(None).await.is_ok());
}

async fn a_request_is_done_once(store: &Store) {
    let once = Once::new("root", "k-1", b"{}");
    assert_eq!(store.done(&once).await.unwrap(), None);
    let (key, _) = store.create(&NewKey::named("once"), Some(&once), &actor()).await.unwrap();
    assert_eq!(store.done(&once).await.unwrap(), Some(hex::encode(key.caller.key_id)));
    assert_eq!(store.done(&Once::new("other", "k-1", b"{}")).await.unwrap(), None);
    let other = store.done(&Once::new("root", "k-1", b"{1}")).await.unwrap_err();
    assert!(matches!(other, StoreError::Conflict { field: "Idempotency-Key", .. }));
    let again = store.create(&NewKey::named("twice"), Some(&once), &actor()).await.unwrap_err();
    assert!(matches!(again, StoreError::Conflict { field: "Idempotency-Key", .. }));
    assert!(matches!(store.get(&KeyRef::Name("twice".into())).await, Err(StoreError::NotFound(_))));
}

async fn lists_come_in_the_order_of_making(store: &Store) {
    let all = store.list(true, None).await.unwrap();
    let names: Vec<_> = all.iter().map(|key| key.caller.key_name.to_string()).collect();
    assert_eq!(names, ["lives", "rotated", "of bob", "taken", "stale", "once"]);
    let rest = store.list(false, Some(all[2].caller.key_id)).await.unwrap();
    assert_eq!(rest.len(), 3);
    let mut hashes = Vec::new();
    while let Some((hash, ..)) = store.in_force(hashes.last(), 2).await.unwrap().last() {
        hashes.push(*hash);
    }
    assert!(hashes.is_sorted_by_key(|hash| hash.0) && hashes.len() == 2);
}
