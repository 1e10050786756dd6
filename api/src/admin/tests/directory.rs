//! Users, teams, roles, changes of keys, and the OpenAPI document held against the routes.

use super::*;
use crate::identity::Role;

struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    fn field(&self) -> &str {
        self.body["error"]["field"].as_str().unwrap_or_default()
    }
}

async fn ask(fixture: &Fixture, key: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut request =
        http::Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = fixture.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    Answer { status, body: serde_json::from_slice(&bytes).unwrap() }
}

async fn root(fixture: &Fixture, method: &str, path: &str, body: Value) -> Answer {
    ask(fixture, KEY, method, &format!("/api/v1/admin{path}"), &[], body).await
}

/// An admin key of a user of this role.
async fn key_of(fixture: &Fixture, role: Role, scopes: Value) -> String {
    let name = format!("{}-{}", role.as_str(), scopes[0].as_str().unwrap_or("none"));
    let made = root(fixture, "POST", "/users", json!({ "name": name, "role": role.as_str() })).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let key = root(fixture, "POST", "/keys", json!({ "name": name, "user": name, "scopes": scopes })).await;
    key.body["key"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_role_may_do_what_it_may_and_nothing_else() {
    let fixture = Fixture::new().await;
    let keys = [
        (key_of(&fixture, Role::RootAdmin, json!(["admin"])).await, 2),
        (key_of(&fixture, Role::GatewayAdmin, json!(["admin"])).await, 1),
        (key_of(&fixture, Role::GatewayUser, json!(["admin"])).await, 0),
        (key_of(&fixture, Role::RootAdmin, json!([])).await, 0),
        (key_of(&fixture, Role::GatewayAdmin, json!(["chat"])).await, 0),
    ];
    for (number, (key, may)) in keys.iter().enumerate() {
        for (needs, method, path, body) in [
            (1, "GET", "/keys", Value::Null),
            (1, "GET", "/users", Value::Null),
            (1, "GET", "/audit", Value::Null),
            (1, "GET", "/usage", Value::Null),
            (1, "GET", "/pools", Value::Null),
            (1, "POST", "/teams", json!({ "name": format!("team {number}") })),
            (1, "POST", "/users", json!({ "name": format!("user {number}") })),
            (1, "POST", "/keys", json!({ "name": format!("key {number}"), "user": format!("user {number}") })),
            (1, "PATCH", &format!("/keys/key%20{number}"), json!({ "rps": 5 })),
            (1, "POST", &format!("/keys/key%20{number}/rotate"), json!({})),
            (2, "POST", "/users", json!({ "name": format!("admin {number}"), "role": "gateway_admin" })),
            (2, "PATCH", &format!("/users/user%20{number}"), json!({ "role": "root_admin" })),
            (2, "PATCH", "/users/gateway_admin-admin", json!({ "rps": 5 })),
            (2, "PATCH", "/keys/gateway_admin-admin", json!({ "rps": 5 })),
            (2, "POST", "/keys", json!({ "name": format!("owned {number}"), "user": "gateway_admin-admin" })),
            (2, "POST", "/keys", json!({ "name": format!("admins {number}"), "scopes": ["admin"] })),
            (2, "POST", "/keys/root_admin-none/rotate", json!({})),
            (2, "DELETE", "/teams/team%200", Value::Null),
        ] {
            let answer = ask(&fixture, key, method, &format!("/api/v1/admin{path}"), &[], body).await;
            let allowed = answer.status < 300;
            assert_eq!(allowed, *may >= needs, "key {number}: {method} {path}: {} {}", answer.status, answer.body);
            assert!(allowed || answer.status == 403);
        }
    }
    let by: Vec<_> = root(&fixture, "GET", "/audit", Value::Null).await.body["events"].as_array().unwrap().clone();
    let actors: std::collections::BTreeSet<_> = by.iter().map(|event| event["actor"].as_str().unwrap()).collect();
    assert_eq!(actors.len(), 3, "{actors:?}");
    assert!(actors.contains("admin key") && actors.iter().any(|actor| actor.starts_with("gateway_admin-admin (tok_")));
}

#[tokio::test]
async fn the_document_names_every_route_and_every_field() {
    let fixture = Fixture::new().await;
    let document = ask(&fixture, KEY, "GET", "/api/v1/openapi.json", &[], Value::Null).await.body;
    assert_eq!(document, table::document());
    let mut operations = 0;
    for route in table::routes() {
        let shown = format!("{}{}", table::ROOT, route.path.replace("{*", "{"));
        let operation = &document["paths"][&shown][route.method];
        assert_eq!(operation["summary"], route.summary);
        operations += 1;
        // Nobody without a key learns whether the route is there.
        let path = shown.replace("{model}", "m").replace(['{', '}'], "");
        let method = route.method.to_uppercase();
        assert_eq!(ask(&fixture, "none", &method, &path, &[], Value::Null).await.status, 401, "{method} {path}");
        let there = ask(&fixture, KEY, &method, &path, &[], json!({})).await;
        assert!(there.status != 405 && there.body["error"]["message"] != "route not found", "{method} {path}");
        // A documented field is known: of a wrong kind, it is named, and not as one that is unknown.
        for (field, _) in &route.body {
            for (name, id) in [("key", "keys"), ("user", "users"), ("team", "teams")] {
                root(&fixture, "POST", &format!("/{id}"), json!({ "name": name })).await;
            }
            let mut body = json!({ "name": "n" });
            if !route.body.iter().any(|(name, _)| *name == "name") {
                body = json!({});
            }
            body[*field] = json!({});
            let answer = ask(&fixture, KEY, &method, &path, &[], body).await;
            assert_eq!((answer.status, answer.field()), (400, *field), "{method} {path}: {}", answer.body);
            assert!(
                !answer.body["error"]["message"].as_str().unwrap().contains("not a known"),
                "{method} {path} {field}"
            );
        }
        if !route.body.is_empty() {
            let answer = ask(&fixture, KEY, &method, &path, &[], json!({ "name": "n2", "undocumented": 1 })).await;
            assert_eq!(answer.status, 400, "{method} {path}: {}", answer.body);
        }
    }
    let documented: usize =
        document["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len()).sum();
    assert_eq!(documented, operations);
}

#[tokio::test]
async fn users_and_teams_are_made_changed_and_removed_with_their_keys() {
    let fixture = Fixture::new().await;
    root(&fixture, "POST", "/teams", json!({ "name": "core", "tokens_per_day": 9 })).await;
    let user = json!({ "name": "ann", "email": "Ann@Example.com", "team": "core", "concurrency": 3 });
    let user = root(&fixture, "POST", "/users", user).await;
    assert_eq!(
        (user.status, &user.body["email"], &user.body["role"]),
        (201, &json!("ann@example.com"), &json!("gateway_user"))
    );
    let key =
        root(&fixture, "POST", "/keys", json!({ "name": "app", "user": "ann@example.com", "scopes": ["chat"] })).await;
    assert_eq!(
        (&key.body["user"], &key.body["team"], &key.body["scopes"]),
        (&json!("ann"), &json!("core"), &json!(["chat"]))
    );
    let secret = key.body["key"].as_str().unwrap();
    assert_eq!(fixture.identity.lookup(secret).await.unwrap().tenants.len(), 2);
    let changed = root(&fixture, "PATCH", "/users/ann", json!({ "name": "anna", "team": null, "rps": 7 })).await;
    assert_eq!(
        (&changed.body["version"], &changed.body["team_id"], &changed.body["rps"]),
        (&json!(2), &Value::Null, &json!(7))
    );
    let caller = fixture.identity.lookup(secret).await.unwrap();
    assert_eq!((caller.tenants.len(), caller.team), (1, None));
    assert_eq!(root(&fixture, "DELETE", "/users/anna", Value::Null).await.status, 200);
    assert!(fixture.identity.lookup(secret).await.is_err());
    assert_eq!(root(&fixture, "GET", "/users", Value::Null).await.body["users"], json!([]));
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_until_the_overlap_ends() {
    let fixture = Fixture::new().await;
    let first = root(&fixture, "POST", "/keys", json!({ "name": "app", "rps": 1 })).await.body;
    let rotated = root(&fixture, "POST", "/keys/app/rotate", json!({ "overlap_s": 60 })).await;
    assert_eq!((rotated.status, &rotated.body["id"], &rotated.body["rps"]), (200, &first["id"], &json!(1)));
    let secrets = [&first["key"], &rotated.body["key"]].map(|key| key.as_str().unwrap());
    assert!(secrets[0] != secrets[1] && rotated.body["previous_until"].is_string());
    let [old, new] =
        [fixture.identity.lookup(secrets[0]).await.unwrap(), fixture.identity.lookup(secrets[1]).await.unwrap()];
    assert_eq!((old.key_id, &old.tenants), (new.key_id, &new.tenants));
    root(&fixture, "POST", "/keys/app/rotate", json!({ "overlap_s": 0 })).await;
    assert!(fixture.identity.lookup(secrets[0]).await.is_err());
    assert_eq!(fixture.identity.lookup(secrets[1]).await.unwrap_err(), crate::identity::LookupError::Expired);
}

#[tokio::test]
async fn a_post_with_an_idempotency_key_is_done_once_and_its_secret_is_shown_once() {
    let fixture = Fixture::new().await;
    let post = async |key: &str, body: Value| {
        ask(&fixture, KEY, "POST", "/api/v1/admin/keys", &[("idempotency-key", key)], body).await
    };
    let first = post("a", json!({ "name": "app" })).await;
    let again = post("a", json!({ "name": "app" })).await;
    assert_eq!((first.status, again.status, &again.body["id"]), (201, 200, &first.body["id"]));
    assert!(first.body["key"].is_string() && again.body.get("key").is_none());
    let other = post("a", json!({ "name": "other" })).await;
    assert_eq!((other.status, other.field()), (409, "Idempotency-Key"));
    assert_eq!(post(&"x".repeat(300), json!({ "name": "b" })).await.field(), "Idempotency-Key");
    assert_eq!(root(&fixture, "GET", "/keys", Value::Null).await.body["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_stale_or_bad_change_names_its_field() {
    let fixture = Fixture::new().await;
    root(&fixture, "POST", "/users", json!({ "name": "ann", "email": "a@b.c" })).await;
    root(&fixture, "POST", "/users", json!({ "name": "bob", "email": "b@b.c" })).await;
    root(&fixture, "POST", "/keys", json!({ "name": "app" })).await;
    for path in ["/keys/app", "/users/ann"] {
        let full = format!("/api/v1/admin{path}");
        assert_eq!(root(&fixture, "PATCH", path, json!({ "rps": 1, "version": 1 })).await.status, 200);
        let stale = root(&fixture, "PATCH", path, json!({ "rps": 2, "version": 1 })).await;
        assert_eq!((stale.status, stale.field()), (412, "version"));
        let stale = ask(&fixture, KEY, "PATCH", &full, &[("if-match", "\"1\"")], json!({ "rps": 2 })).await;
        assert_eq!((stale.status, stale.field()), (412, "version"));
        assert_eq!(ask(&fixture, KEY, "PATCH", &full, &[("if-match", "2")], json!({ "rps": 2 })).await.status, 200);
    }
    for (method, path, body, status, field) in [
        ("PATCH", "/users/bob", json!({ "email": "A@b.c" }), 409, "email"),
        ("POST", "/users", json!({ "name": "ann" }), 409, "name"),
        ("POST", "/users", json!({ "name": "x", "email": "nobody" }), 400, "email"),
        ("POST", "/users", json!({ "name": "x", "role": "emperor" }), 400, "role"),
        ("POST", "/users", json!({ "name": "x'; DROP TABLE users; --" }), 400, "name"),
        ("POST", "/users", json!({ "name": "x", "team": "'; DROP TABLE teams; --" }), 400, "team"),
        ("POST", "/teams", json!({ "name": "x", "tokens_per_day": -1 }), 400, "tokens_per_day"),
        ("POST", "/keys", json!({ "name": "x", "scopes": ["chat", "everything"] }), 400, "scopes"),
        ("POST", "/keys", json!({ "name": "x", "user": "nobody" }), 400, "user"),
        ("PATCH", "/keys/app", json!({ "rps": 1, "rpm": 1 }), 400, "rpm"),
        ("PATCH", "/keys/app", json!({ "priority_ceiling": 9 }), 400, "priority_ceiling"),
        ("POST", "/keys/app/rotate", json!({ "overlap_s": -1 }), 400, "overlap_s"),
        ("POST", "/keys", json!({ "name": "x".repeat(10_000_000) }), 413, "body"),
        ("GET", "/users?after=x", Value::Null, 400, "after"),
        ("GET", "/audit?before=-1", Value::Null, 400, "before"),
    ] {
        let answer = root(&fixture, method, path, body).await;
        assert_eq!((answer.status, answer.field()), (status, field), "{method} {path}: {}", answer.body);
    }
    assert_eq!(root(&fixture, "GET", "/users", Value::Null).await.body["users"].as_array().unwrap().len(), 2);
}
