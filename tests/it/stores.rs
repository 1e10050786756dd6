//! Scenarios of the key stores: a real PostgreSQL and a real Redis that die, hang, come back empty or older.

use crate::rig::{GATEWAYD, PATIENCE, app, prompt_tokens, report, sized};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;
use support::{
    ChatReply, ClusterBuilder, GatewayClient, PostgresServer, RedisServer, Reply, TestApp, TestAppBuilder, clock,
};

/// Nothing waits longer for a store; the rest is for the machine, which other tests share.
const STORE_WAIT_MAX: Duration = Duration::from_millis(250);
const SLACK: Duration = Duration::from_millis(400);
/// 100 ms, and the time of the requests that find out.
const REVOKED_MAX: Duration = Duration::from_millis(500);
const HEALED_MAX: Duration = Duration::from_secs(5);

struct Stores {
    postgres: PostgresServer,
    redis: RedisServer,
}

impl Stores {
    fn start() -> Self {
        let stores = Self { postgres: PostgresServer::start().unwrap(), redis: RedisServer::start().unwrap() };
        stores.postgres.create("gateway").unwrap();
        stores
    }

    fn app(&self) -> TestAppBuilder {
        let app = app().pool("m", |pool| pool).script(Reply::default().prompt_tokens(prompt_tokens("x")));
        app.set("identity.database_url", self.postgres.url("gateway")).set("identity.redis_url", self.redis.url())
    }

    fn kill(&mut self) {
        self.postgres.kill().unwrap();
        self.redis.kill().unwrap();
    }
}

async fn ask(client: &GatewayClient) -> ChatReply {
    client.chat(&sized("m", "x", 30)).await.unwrap()
}

/// Lookups of a layer that gave a result.
async fn lookups(client: &GatewayClient, layer: &str, result: &str) -> f64 {
    let metrics = client.metrics().await.unwrap();
    metrics.get("tokligence_token_lookup_total", &[("layer", layer), ("result", result)]).unwrap()
}

async fn mode_is(client: &GatewayClient, mode: &str, active: f64) {
    let is_so = |metrics: &support::Metrics| {
        metrics.get("tokligence_degradation_mode_active", &[("mode", mode)]) == Some(active)
    };
    client.metrics_until(PATIENCE, is_so).await.unwrap();
}

async fn status(client: &GatewayClient, path: &str) -> u16 {
    client.send(client.request(Method::GET, path)).await.unwrap().status
}

/// A key that no layer of the gateway's memory has.
async fn new_key(app: &TestApp, name: &str) -> GatewayClient {
    app.client.with_key(&app.client.create_key(&json!({ "name": name })).await.unwrap())
}

fn strangers(client: &GatewayClient, count: usize) -> Vec<GatewayClient> {
    (0..count).map(|n| client.with_key(&format!("tok_{n:043}"))).collect()
}

#[tokio::test]
async fn p0_tok_001_a_keys_metadata_is_found_by_its_hash() {
    let stores = Stores::start();
    let app = stores.app().start().await.unwrap();
    let fields = json!({ "name": "app", "tier": "partner", "tokens_per_day": 1_000 });
    let key = app.client.create_key(&fields).await.unwrap();
    let reply = ask(&app.client.with_key(&key)).await;
    assert_eq!((reply.status, reply.header("x-tokligence-tier")), (200, "partner"));
    assert_eq!(reply.header("x-tokligence-quota-remaining"), "970");
    let row = stores.postgres.sql(
        "gateway",
        "SELECT priority FROM token_metadata JOIN api_keys ON key_hash = token_hash WHERE name = 'app'",
    );
    assert_eq!(row.unwrap(), "3");
    let whole = stores.postgres.dump("gateway").unwrap();
    assert!(!whole.contains(&key[12..]));
}

#[tokio::test]
async fn p2_layers_001_to_003_memory_then_redis_then_postgres_each_promoting_what_it_finds() {
    let mut stores = Stores::start();
    let mut app = stores.app().start().await.unwrap();
    let client = new_key(&app, "app").await;
    assert_eq!(ask(&client).await.status, 200);
    // P2-LAYER-003: not in Redis, in Postgres, promoted to both.
    assert_eq!((lookups(&client, "redis", "miss").await, lookups(&client, "sql", "hit").await), (1.0, 1.0));
    wait(async || stores.redis.keys().unwrap() == 1).await;
    // P2-LAYER-001: hot lookups stay in memory.
    for _ in 0..20 {
        assert_eq!(ask(&client).await.status, 200);
    }
    assert_eq!(lookups(&client, "lru", "hit").await, 20.0);
    assert_eq!((lookups(&client, "redis", "hit").await, lookups(&client, "sql", "hit").await), (0.0, 1.0));
    // P2-LAYER-002: a new process has nothing in memory, finds it in Redis, and keeps it.
    app.restart().await.unwrap();
    let client = app.client.with_key(client.key());
    assert_eq!(ask(&client).await.status, 200);
    assert_eq!(ask(&client).await.status, 200);
    let found = (lookups(&client, "redis", "hit").await, lookups(&client, "sql", "hit").await);
    assert_eq!((found, lookups(&client, "lru", "hit").await), ((1.0, 0.0), 1.0));
    // Redis comes back empty: Postgres answers, and Redis has it again.
    stores.redis.restart().unwrap();
    app.restart().await.unwrap();
    let client = app.client.with_key(client.key());
    assert_eq!(ask(&client).await.status, 200);
    assert_eq!(lookups(&client, "sql", "hit").await, 1.0);
    wait(async || stores.redis.keys().unwrap() == 1).await;
}

#[tokio::test]
async fn p0_deg_001_and_p2_fail_001_unknown_keys_are_served_within_a_strict_allowance() {
    let mut stores = Stores::start();
    let app = stores.app().set("identity.degraded_mode", "fail_open").start().await.unwrap();
    let stranger = app.client.with_key(&format!("tok_{}", "a".repeat(43)));
    assert_eq!(ask(&stranger).await.status, 401, "a store that answers does not know it");
    stores.kill();
    let reply = ask(&stranger).await;
    // The refusal of a moment ago may still be remembered.
    assert!([200, 401].contains(&reply.status));
    mode_is(&app.client, "identity_fail_open", 1.0).await;
    assert_eq!(status(&app.client, "/health/ready").await, 200);

    let (before, mut passed) = (lookups(&app.client, "mode", "fail_open").await, 0);
    for client in strangers(&app.client, 100) {
        let reply = client.chat(&sized("m", "x", 500)).await.unwrap();
        match reply.status {
            200 => {
                passed += 1;
                assert_eq!(reply.header("x-tokligence-degraded"), "identity_fail_open");
                assert_eq!(reply.header("x-tokligence-tier"), "external");
            }
            429 => assert_eq!(reply.error_code(), "rate_limit_exceeded"),
            other => panic!("{other}: {}", reply.json()),
        }
    }
    assert!(passed >= 10, "{passed}");
    // P2-LAYER-004: counted once for each request.
    assert_eq!(lookups(&app.client, "mode", "fail_open").await - before, 100.0);
    for call in app.upstream.calls() {
        assert!(call.json()["max_tokens"].as_u64().unwrap() + prompt_tokens("x") <= 100, "{}", call.json());
    }
    let large = sized("m", &"x".repeat(200), 400);
    let refused = retried(|| async { strangers(&app.client, 101)[100].chat(&large).await.unwrap() }).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (400, "request_exceeds_limit"));
    assert!(app.gateway.log().contains("strict allowance"));
    // A day has 1000 tokens, ten requests of 100 each; the upstream uses all of what it may.
    app.upstream.set(Reply::default().prompt_tokens(prompt_tokens("x")));
    let one = &strangers(&app.client, 102)[101];
    let mut served = 0;
    loop {
        let reply = retried(|| async { one.chat(&sized("m", "x", 500)).await.unwrap() }).await;
        match reply.error_code().as_str() {
            "insufficient_quota" => break,
            _ => assert_eq!(reply.status, 200, "{}", reply.json()),
        }
        served += 1;
        assert!(served <= 60, "the day's allowance has no end");
    }
}

/// Asks again while the client's address is over its ten requests a second.
async fn retried<F: Future<Output = ChatReply>>(ask: impl Fn() -> F) -> ChatReply {
    loop {
        let reply = ask().await;
        if reply.status != 429 || reply.header("retry-after-ms").is_empty() || reply.header("x-should-retry") == "false"
        {
            return reply;
        }
        let pause = reply.header("retry-after-ms").parse().unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

#[tokio::test]
async fn p0_deg_002_and_p2_fail_002_without_any_store_unknown_keys_are_503_and_nothing_known_is_not_ready() {
    let mut stores = Stores::start();
    let mut app = stores.app().start().await.unwrap();
    assert_eq!(ask(&app.client).await.status, 200);
    stores.kill();
    for client in strangers(&app.client, 100) {
        let reply = ask(&client).await;
        assert_eq!(reply.status, 503, "{}", reply.json());
        assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
    }
    assert_eq!(lookups(&app.client, "mode", "fail_closed").await, 100.0);
    mode_is(&app.client, "identity_fail_closed", 1.0).await;
    assert_eq!(ask(&app.client).await.status, 200, "a known key goes on");
    assert_eq!(status(&app.client, "/health/ready").await, 200);
    // Nothing in memory and no snapshot: no key can be served.
    app.gateway.kill9().await.unwrap();
    std::fs::remove_file(app.gateway.data_dir().join("keys.snapshot")).unwrap();
    app.restart().await.unwrap();
    assert_eq!(status(&app.client, "/health/ready").await, 503);
    assert_eq!(status(&app.client, "/health/live").await, 200);
    assert_eq!(ask(&app.client).await.status, 503);
    stores.postgres.restart().unwrap();
    heals(&app.client).await;
}

#[tokio::test]
async fn p1_snap_001_and_002_the_snapshot_serves_what_it_has_with_a_warning_and_not_what_came_after() {
    let mut stores = Stores::start();
    let mut app = stores.app().start().await.unwrap();
    let old = new_key(&app, "old").await;
    app.restart().await.unwrap();
    refreshed(&app, 2.0).await;
    // The next refresh is minutes away.
    let new = new_key(&app, "new").await;
    stores.kill();
    app.restart().await.unwrap();
    let (old, new) = (app.client.with_key(old.key()), app.client.with_key(new.key()));
    let served = ask(&old).await;
    assert_eq!((served.status, served.header("x-tokligence-degraded")), (200, "identity_snapshot"));
    assert!(app.gateway.log().contains("served from the snapshot"));
    assert_eq!(lookups(&old, "snapshot", "hit").await, 1.0);
    assert_eq!(ask(&new).await.status, 503);
    stores.postgres.restart().unwrap();
    heals(&new).await;
    refreshed(&app, 3.0).await;
    let snapshot = std::fs::read(app.gateway.data_dir().join("keys.snapshot")).unwrap();
    assert!(!snapshot.windows(20).any(|window| window == &new.key().as_bytes()[12..32]));
}

/// Waits until a snapshot has so many keys. A restart of the gateway takes one at once.
async fn refreshed(app: &TestApp, keys: f64) {
    let size = |metrics: &support::Metrics| metrics.get("tokligence_snapshot_cache_size", &[]);
    if size(&app.client.metrics().await.unwrap()) != Some(keys) {
        app.client.metrics_until(PATIENCE, |metrics| size(metrics).is_some_and(|now| now >= keys)).await.unwrap();
    }
}

#[tokio::test]
async fn stores_that_die_or_hang_cost_no_known_key_anything_and_heal_by_themselves() {
    let mut stores = Stores::start();
    let app = stores.app().set("identity.cache_ttl_ms", 50).start().await.unwrap();
    let limited = app.client.create_key(&json!({ "name": "limited", "tokens_per_day": 3_000 })).await.unwrap();
    let limited = app.client.with_key(&limited);
    assert_eq!(ask(&limited).await.status, 200);
    let (mut slowest, mut spent) = (Duration::ZERO, 30);
    for what in ["kill postgres", "kill redis", "kill both", "pause postgres", "pause redis", "pause both"] {
        let (postgres, redis) = (!what.ends_with("redis"), !what.ends_with("postgres"));
        let kill = what.starts_with("kill");
        match (postgres, kill) {
            (true, true) => stores.postgres.kill().unwrap(),
            (true, false) => stores.postgres.pause().unwrap(),
            (false, _) => {}
        }
        match (redis, kill) {
            (true, true) => stores.redis.kill().unwrap(),
            (true, false) => stores.redis.pause().unwrap(),
            (false, _) => {}
        }
        for _ in 0..8 {
            let reply = ask(&limited).await;
            spent += 30;
            assert_eq!(
                (reply.status, reply.header("x-tokligence-quota-remaining")),
                (200, &*(3_000 - spent).to_string()),
                "{what}"
            );
            slowest = slowest.max(reply.took());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match (postgres, kill) {
            (true, true) => stores.postgres.restart().unwrap(),
            (true, false) => stores.postgres.resume().unwrap(),
            (false, _) => {}
        }
        match (redis, kill) {
            (true, true) => stores.redis.restart().unwrap(),
            (true, false) => stores.redis.resume().unwrap(),
            (false, _) => {}
        }
        let began_us = clock::boot_us();
        let fresh = healed(&app, what).await;
        assert!(clock::since(began_us) < HEALED_MAX, "{what} healed in {:?}", clock::since(began_us));
        assert_eq!(ask(&fresh).await.status, 200, "{what}");
    }
    report(&format!("slowest request while stores die or hang: {slowest:?}"));
    assert!(slowest < STORE_WAIT_MAX + SLACK, "{slowest:?}");
    let stranger = &strangers(&app.client, 1)[0];
    assert_eq!(ask(stranger).await.status, 401);
}

/// A key made as soon as the stores take one again, which proves that they answer.
async fn healed(app: &TestApp, what: &str) -> GatewayClient {
    let name = what.replace(' ', "-");
    let made = async {
        loop {
            if let Ok(key) = app.client.create_key(&json!({ "name": name })).await {
                return app.client.with_key(&key);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, made).await.unwrap()
}

/// Waits until a key is served again.
async fn heals(client: &GatewayClient) {
    let began_us = clock::boot_us();
    while ask(client).await.status != 200 {
        assert!(clock::since(began_us) < HEALED_MAX, "not healed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn after_an_older_dump_keys_made_since_are_401_and_revoked_ones_stay_revoked() {
    let stores = Stores::start();
    let app = stores.app().set("identity.cache_ttl_ms", 100).start().await.unwrap();
    let revoked = new_key(&app, "revoked").await;
    assert_eq!(ask(&revoked).await.status, 200);
    let dump = stores.postgres.dump("gateway").unwrap();
    let since = new_key(&app, "since").await;
    assert_eq!(ask(&since).await.status, 200);
    assert_eq!(app.client.admin(Method::DELETE, "/keys/revoked", None).await.unwrap().0, 200);
    stores.postgres.restore("gateway", &dump).unwrap();
    let began_us = clock::boot_us();
    while ask(&since).await.status != 401 {
        assert!(clock::since(began_us) < HEALED_MAX, "a key that no store knows is still served");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let alive =
        stores.postgres.sql("gateway", "SELECT count(*) FROM api_keys WHERE name = 'revoked' AND revoked_at IS NULL");
    assert_eq!(alive.unwrap(), "1", "the dump has it in force");
    let refused = ask(&revoked).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (401, "invalid_api_key"));
    assert_eq!(ask(&app.client).await.status, 200);
}

#[tokio::test]
async fn a_key_is_revoked_with_every_store_down() {
    let mut stores = Stores::start();
    let app = stores.app().start().await.unwrap();
    let client = new_key(&app, "gone").await;
    assert_eq!(ask(&client).await.status, 200);
    stores.kill();
    // The first to ask finds the stores dead.
    let stranger = &strangers(&app.client, 1)[0];
    assert_eq!(ask(stranger).await.status, 503);
    let (status, body) = app.client.admin(Method::DELETE, "/keys/gone", None).await.unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(ask(&client).await.status, 401);
    stores.postgres.restart().unwrap();
    wait(async || {
        stores.postgres.sql("gateway", "SELECT count(*) FROM api_keys WHERE revoked_at IS NOT NULL").unwrap() == "1"
    })
    .await;
    assert_eq!(ask(&client).await.status, 401);
}

#[tokio::test]
async fn a_gateway_starts_without_its_postgres_and_serves_what_it_knows() {
    let mut stores = Stores::start();
    let mut app = stores.app().start().await.unwrap();
    app.restart().await.unwrap();
    refreshed(&app, 1.0).await;
    let (mut gateway, key) = (app.gateway, app.client.key().to_owned());
    stores.kill();
    gateway.restart().await.unwrap();
    let client = GatewayClient::new(&gateway.base_url(), &key, &gateway.admin_key().unwrap());
    assert_eq!(ask(&client).await.status, 200);
}

async fn wait(is_so: impl AsyncFn() -> bool) {
    let began_us = clock::boot_us();
    while !is_so().await {
        assert!(clock::since(began_us) < PATIENCE, "it never came to be so");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_key_revoked_on_one_node_is_refused_on_all_with_every_store_down() {
    let mut stores = Stores::start();
    let cluster = ClusterBuilder::new(GATEWAYD, 3).pool("m", |pool| pool);
    let cluster = cluster.set("identity.database_url", stores.postgres.url("gateway"));
    let cluster = cluster.set("identity.redis_url", stores.redis.url()).start().await.unwrap();
    let key = cluster.clients[0].create_key(&json!({ "name": "gone" })).await.unwrap();
    let clients: Vec<_> = cluster.clients.iter().map(|client| client.with_key(&key)).collect();
    for client in clients.iter().chain(&cluster.clients) {
        assert_eq!(ask(client).await.status, 200);
    }
    stores.kill();
    mode_is(&cluster.clients[1], "identity_fail_closed", 1.0).await;
    let (status, body) = clients[1].admin(Method::DELETE, "/keys/gone", None).await.unwrap();
    assert_eq!(status, 200, "{body}");
    let began_us = clock::boot_us();
    for client in &clients {
        while ask(client).await.status != 401 {
            assert!(clock::since(began_us) < HEALED_MAX, "a revoked key is still served");
        }
    }
    let took = clock::since(began_us);
    report(&format!("a revoked key is refused on three nodes in {took:?}"));
    assert!(took < REVOKED_MAX, "{took:?}");
    for client in &cluster.clients {
        assert_eq!(ask(client).await.status, 200, "the other key goes on");
    }
}
