//! The admin routes, called as HTTP calls them.

use super::*;
use crate::usage::{CallId, Intent, Journal, JournalOptions, RequestId, Settled, Shipper, Status};
use axum::body::Body;
use axum::routing::get;
use futures_util::future::{BoxFuture, FutureExt};
use ledger::model::{Credential, Incarnation, PoolLimits, Priority};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use tower::ServiceExt;

mod directory;

const KEY: &str = "adm_the-admin-key";

/// Pools in memory.
#[derive(Default)]
struct Pools(Mutex<BTreeMap<String, PoolLimits>>);

impl PoolAdmin for Pools {
    fn list(&self) -> BoxFuture<'_, Result<Vec<PoolView>, AdminError>> {
        let pools = self.0.lock().unwrap().iter().map(|(name, limits)| PoolView::of(name, limits, None)).collect();
        async { Ok(pools) }.boxed()
    }

    fn set(&self, pool: String, change: PoolChange) -> BoxFuture<'_, Result<PoolView, AdminError>> {
        async move {
            let mut pools = self.0.lock().unwrap();
            let limits = change.over(pools.get(&pool).copied().unwrap_or_default())?;
            pools.insert(pool.clone(), limits);
            Ok(PoolView::of(&pool, &limits, None))
        }
        .boxed()
    }

    fn remove(&self, pool: String) -> BoxFuture<'_, Result<(), AdminError>> {
        let removed = self.0.lock().unwrap().remove(&pool);
        async move { removed.map(drop).ok_or_else(|| AdminError::NotFound("pool".to_owned())) }.boxed()
    }
}

struct Alone;

impl ClusterView for Alone {
    fn status(&self) -> BoxFuture<'_, ClusterStatus> {
        let status = ClusterStatus { node_id: 1, leader_id: Some(1), term: 3, ..ClusterStatus::default() };
        Box::pin(std::future::ready(status))
    }

    fn change(&self, _: ClusterChange) -> BoxFuture<'_, Result<ClusterStatus, AdminError>> {
        Box::pin(std::future::ready(Err(AdminError::Unavailable("the group".to_owned()))))
    }
}

/// Remembers what was revoked.
#[derive(Default)]
struct Revoked(Mutex<Vec<Credential>>);

impl Revoker for Revoked {
    fn revoke(&self, what: Vec<Credential>, _: Option<u64>) -> BoxFuture<'_, Result<(), AdminError>> {
        self.0.lock().unwrap().extend(what);
        async { Ok(()) }.boxed()
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    router: Router,
    identity: Identity,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(&format!("sqlite:{}/i.db", dir.path().display())).await.unwrap();
        let router = router(Admin {
            key: AdminKey::new(KEY),
            identity: identity.clone(),
            pools: Arc::new(Pools::default()),
            revoker: Arc::new(Revoked::default()),
            cluster: Arc::new(Alone),
        });
        Self { dir, router, identity }
    }

    async fn raw(&self, method: &str, path: &str, key: Option<&str>, body: impl Into<Body>) -> (u16, String) {
        let mut request = http::Request::builder().method(method).uri(format!("/api/v1/admin{path}"));
        if let Some(key) = key {
            request = request.header("authorization", key);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) = self.raw(method, path, Some(&format!("Bearer {KEY}")), body).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, Value::Null).await
    }

    async fn used(&self, count: u8) {
        let journal = Journal::open(&self.dir.path().join("usage"), &JournalOptions::default()).unwrap();
        for number in 0..count {
            let intent = Intent {
                call: CallId::from(RequestId([number; 16])),
                incarnation: Incarnation(1),
                pool: "p".into(),
                model: "m".into(),
                target: "a,b".into(),
                key_id: [1; 16],
                user: None,
                team: None,
                priority: Priority(5),
                tokens_reserved: 10,
                reservation: 0,
                started_wall_us: 1_790_000_000_000_000 + u64::from(number) * 1_000_000,
            };
            let settled = Settled {
                status: Status::Ok,
                prompt_tokens: 1,
                completion_tokens: 1,
                charged_tokens: number.into(),
                http_status: 200,
                streamed: false,
                latency_us: 1,
                wait_us: 0,
            };
            journal.intent(intent).unwrap().settle(&settled).unwrap();
        }
        Shipper::new(journal, self.identity.database().clone()).ship().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_answered_without_the_admin_key() {
    let fixture = Fixture::new().await;
    let (_, made) = fixture.call("POST", "/keys", json!({ "name": "app" })).await;
    let api_key = format!("Bearer {}", made["key"].as_str().unwrap());
    let almost = format!("Bearer {KEY}x");
    let basic = format!("Basic {KEY}");
    for key in
        [None, Some(""), Some("Bearer"), Some("Bearer "), Some(KEY), Some(&*almost), Some(&*basic), Some(&*api_key)]
    {
        for (method, path) in [
            ("GET", "/keys"),
            ("POST", "/keys"),
            ("DELETE", "/keys/app"),
            ("GET", "/usage"),
            ("GET", "/pools"),
            ("PUT", "/pools/m"),
            ("GET", "/cluster"),
            ("GET", ""),
            ("GET", "/nothing/here"),
            ("PATCH", "/keys"),
        ] {
            let (status, text) = fixture.raw(method, path, key, "{").await;
            // A key that is known, and no admin's, is told so.
            let known = key == Some(&*api_key);
            assert_eq!(status, if known { 403 } else { 401 }, "{method} {path} with {key:?}");
            let code = if known { r#""code":"forbidden""# } else { r#""code":"unauthorized""# };
            assert!(text.contains(code) && !text.contains("adm_"), "{text}");
        }
    }
    assert_eq!(fixture.raw("GET", "/keys", Some(&format!("bearer {KEY}")), "").await.0, 200);
    assert!(!format!("{:?}", AdminKey::new(KEY)).contains("adm"));
}

#[tokio::test]
async fn a_key_is_made_shown_listed_and_revoked_and_its_secret_is_shown_once() {
    let fixture = Fixture::new().await;
    let asked = json!({ "name": "app 1", "tier": "partner", "priority_ceiling": 1, "rps": 10, "burst_requests": 20,
        "tpm": 600, "concurrency": 3, "tokens_per_day": 1_000, "models": ["gpt-*"], "expires_in_s": 3_600 });
    let (status, made) = fixture.call("POST", "/keys", asked.clone()).await;
    assert_eq!(status, 201);
    let secret = made["key"].as_str().unwrap().to_owned();
    for (field, value) in asked.as_object().unwrap() {
        assert!(field == "expires_in_s" || made[field] == *value, "{field}");
    }
    assert_eq!((&made["priority"], &made["rpm"], &made["revoked_at"]), (&json!(3), &json!(0), &Value::Null));
    assert!(made["expires_at"].as_str().unwrap().ends_with('Z'));
    assert!(fixture.identity.lookup(&secret).await.is_ok());
    for which in [made["id"].as_str().unwrap(), made["prefix"].as_str().unwrap(), "app%201"] {
        let (status, shown) = fixture.get(&format!("/keys/{which}")).await;
        assert_eq!((status, &shown["id"]), (200, &made["id"]));
        assert_eq!(shown.get("key"), None);
    }
    let (_, listed) = fixture.get("/keys").await;
    assert!(listed["keys"].as_array().unwrap().len() == 1 && !listed.to_string().contains(&secret[12..]));
    let (status, revoked) = fixture.call("DELETE", "/keys/app%201", Value::Null).await;
    assert_eq!(status, 200);
    assert!(revoked["revoked_at"].is_string());
    assert!(fixture.identity.lookup(&secret).await.is_err());
    assert_eq!(fixture.get("/keys").await.1["keys"], json!([]));
    assert_eq!(fixture.get("/keys?revoked=true").await.1["keys"][0]["id"], made["id"]);
}

#[tokio::test]
async fn a_wrong_field_is_named() {
    let fixture = Fixture::new().await;
    for (body, field) in [
        (json!({}), "name"),
        (json!({ "name": 5 }), "name"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "x".repeat(65) }), "name"),
        (json!({ "name": "a/b" }), "name"),
        (json!({ "name": "a", "teir": "partner" }), "teir"),
        (json!({ "name": "a", "tier": "gold" }), "tier"),
        (json!({ "name": "a", "priority": 10 }), "priority"),
        (json!({ "name": "a", "priority": -1 }), "priority"),
        (json!({ "name": "a", "priority": "high" }), "priority"),
        (json!({ "name": "a", "priority_ceiling": 9 }), "priority_ceiling"),
        (json!({ "name": "a", "rps": -1 }), "rps"),
        (json!({ "name": "a", "rps": 1.5 }), "rps"),
        (json!({ "name": "a", "rps": 1e300 }), "rps"),
        (json!({ "name": "a", "tokens_per_day": u64::MAX }), "tokens_per_day"),
        (json!({ "name": "a", "rps": 1, "rpm": 1 }), "rpm"),
        (json!({ "name": "a", "burst_tokens": 1 }), "burst_tokens"),
        (json!({ "name": "a", "models": "gpt" }), "models"),
        (json!({ "name": "a", "models": [1] }), "models"),
        (json!({ "name": "a", "models": ["*a*"] }), "models"),
        (json!({ "name": "a", "expires_in_s": 0 }), "expires_in_s"),
        (json!({ "name": "a", "expires_in_s": u64::MAX }), "expires_in_s"),
        (json!([]), "body"),
    ] {
        let (status, answer) = fixture.call("POST", "/keys", body.clone()).await;
        assert_eq!((status, &answer["error"]["field"]), (400, &json!(field)), "{body}");
        assert!(answer["error"]["message"].as_str().unwrap().starts_with(field));
    }
    let key = format!("Bearer {KEY}");
    assert_eq!(fixture.raw("POST", "/keys", Some(&key), "{\"name\":").await.0, 400);
    assert_eq!(fixture.raw("POST", "/keys", Some(&key), " ".repeat(100_000)).await.0, 413);
    for query in [
        "/keys?page=1",
        "/keys?revoked=maybe",
        "/keys?after=x",
        "/usage?from=yesterday",
        "/usage?limit=0",
        "/usage?limit=5000",
        "/usage?format=xml",
        "/usage?after=req_none",
        "/usage?format=csv&limit=1",
        "/usage?to=1&to=2",
    ] {
        assert_eq!(fixture.get(query).await.0, 400, "{query}");
    }
}

#[tokio::test]
async fn what_is_taken_or_not_there_is_said() {
    let fixture = Fixture::new().await;
    fixture.call("POST", "/keys", json!({ "name": "app" })).await;
    let (status, taken) = fixture.call("POST", "/keys", json!({ "name": "app" })).await;
    assert_eq!((status, &taken["error"]["code"], &taken["error"]["field"]), (409, &json!("conflict"), &json!("name")));
    let id = "0".repeat(32);
    for path in ["/keys/nobody", "/keys/tok_12345678", &format!("/keys/{id}"), "/pools/none", "/elsewhere", ""] {
        let (status, answer) = fixture.get(path).await;
        assert_eq!((status, &answer["error"]["code"]), (404, &json!("not_found")), "{path}");
    }
    assert_eq!(fixture.call("DELETE", "/keys/nobody", Value::Null).await.0, 404);
    assert_eq!(fixture.call("DELETE", "/pools/none", Value::Null).await.0, 404);
    assert_eq!(fixture.call("PATCH", "/keys", Value::Null).await.0, 405);
    fixture.identity.database().close().await;
    assert_eq!(fixture.get("/keys").await.0, 503);
    assert_eq!(fixture.get("/usage").await.0, 503);
}

#[tokio::test]
async fn pools_are_set_in_part_and_the_cluster_is_shown() {
    let fixture = Fixture::new().await;
    let (status, pool) = fixture.call("PUT", "/pools/org%2Fmodel-*", json!({ "tokens_per_sec": 100 })).await;
    assert_eq!((status, &pool["model"], &pool["limits"]["burst_tokens"]), (200, &json!("org/model-*"), &json!(400)));
    fixture.call("PUT", "/pools/org/model-*", json!({ "concurrent": 5 })).await;
    let (_, pool) = fixture.get("/pools/org/model-*").await;
    assert_eq!(pool["limits"], json!({ "tokens_per_sec": 100, "burst_tokens": 400, "concurrent": 5 }));
    assert_eq!(fixture.get("/pools").await.1["pools"], json!([pool]));
    for (body, field) in [
        (json!({}), "body"),
        (json!({ "rps": -1 }), "rps"),
        (json!({ "rps": 1, "rpm": 2 }), "rpm"),
        (json!({ "burst_requests": 2 }), "burst_requests"),
        (json!({ "max_rps": 1 }), "max_rps"),
    ] {
        let (status, answer) = fixture.call("PUT", "/pools/m", body).await;
        assert_eq!((status, &answer["error"]["field"]), (400, &json!(field)));
    }
    assert_eq!(fixture.call("PUT", &format!("/pools/{}", "x".repeat(201)), json!({ "rps": 1 })).await.0, 400);
    assert_eq!(fixture.call("DELETE", "/pools/org/model-*", Value::Null).await.0, 200);
    assert_eq!(fixture.get("/cluster").await.1["leader_id"], json!(1));
}

#[tokio::test]
async fn usage_comes_in_pages_or_as_one_stream() {
    let fixture = Fixture::new().await;
    fixture.used(5).await;
    let (_, page) = fixture.get("/usage?limit=3").await;
    assert_eq!(page["usage"].as_array().unwrap().len(), 3);
    let (_, rest) = fixture.get(&format!("/usage?limit=3&after={}", page["next"].as_str().unwrap())).await;
    assert_eq!((rest["usage"].as_array().unwrap().len(), &rest["next"]), (2, &Value::Null));
    let (_, some) = fixture.get("/usage?from=2026-09-21T14:13:21Z&to=2026-09-21T14:13:23Z").await;
    let charged: Vec<_> = some["usage"].as_array().unwrap().iter().map(|row| row["charged_tokens"].clone()).collect();
    assert_eq!(charged, [json!(1), json!(2)]);
    assert_eq!(fixture.get("/usage?from=2026-09-22").await.1["usage"], json!([]));
    let (_, all) = fixture.get("/usage?format=json").await;
    assert_eq!(all.as_array().unwrap().len(), 5);
    let (_, csv) = fixture.raw("GET", "/usage?format=csv", Some(&format!("Bearer {KEY}")), "").await;
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 6);
    assert!(lines[0].starts_with("request_id,status,started_at,"));
    assert!(lines[2].contains(",2026-09-21T14:13:21Z,") && lines[2].contains(",\"a,b\","), "{}", lines[2]);
    assert_eq!(fixture.get("/usage?format=json&to=2026-01-01").await.1, json!([]));
}

#[tokio::test]
async fn the_routes_stand_beside_others_and_keep_their_own_envelope() {
    let mut fixture = Fixture::new().await;
    let others = Router::new()
        .route("/v1/models/{*id}", get(async || "model"))
        .fallback(async || "other")
        .method_not_allowed_fallback(async || "other method");
    fixture.router = others.merge(fixture.router);
    assert_eq!(fixture.get("/pools/%FF").await.1["error"]["field"], json!("path"));
    assert_eq!(fixture.get("/nothing").await.0, 404);
    assert_eq!(fixture.call("PATCH", "/keys", Value::Null).await.0, 405);
    let outside = http::Request::builder().uri("/elsewhere").body(Body::empty()).unwrap();
    assert_eq!(fixture.router.oneshot(outside).await.unwrap().status(), 200);
}
