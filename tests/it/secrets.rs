//! No key in any log line, however much is logged.

use crate::rig::{app, idle, sized};
use reqwest::Method;
use serde_json::{Value, json};
use support::{Reply, Script};

const UPSTREAM_KEY: &str = "sk-upstream-0123456789-secret";
const WRONG_KEY: &str = "tok_wrong0123456789wrong0123456789wrong01234567";
const WRONG_ADMIN_KEY: &str = "adm_wrong0123456789wrong0123456789";

#[tokio::test]
async fn no_key_is_in_the_log_at_debug() {
    let script =
        Script::from(Reply::tokens(3)).on_model("fails", Reply::status(500)).on_model("cut", Reply::cut_after(1));
    let keyed = |pool: support::Pool| pool.set("api_key", UPSTREAM_KEY);
    let app = app().pool("m", keyed).pool("fails", keyed).pool("cut", keyed).script(script);
    let mut app = app.env("RUST_LOG", "debug").set("log.format", "json").start().await.unwrap();
    let key = every_way_of_showing_a_key(&app).await;
    idle(&app.client).await;
    assert_eq!(app.upstream.calls()[0].header("authorization"), Some(format!("Bearer {UPSTREAM_KEY}").as_str()));
    let admin_key = app.gateway.admin_key().unwrap();
    app.gateway.sigterm().unwrap();
    app.gateway.wait_exit(crate::rig::PATIENCE).await.unwrap();

    let log = app.gateway.log();
    assert!(log.contains(r#""level":"DEBUG""#) && log.contains(r#""request_id":"req_"#), "{log}");
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "not JSON: {line}");
    }
    let secrets = [app.client.key(), &key, &admin_key, UPSTREAM_KEY, WRONG_KEY, WRONG_ADMIN_KEY];
    for secret in secrets {
        // The first twelve characters of a key name it in the log; what follows is nobody's business.
        let tail = &secret[12..];
        let line = log.lines().find(|line| line.contains(tail));
        assert_eq!(line, None, "{}.. is in the log", &secret[..12]);
    }
    let advice = "send it as `Authorization: Bearer KEY`";
    let bare = log.replace(advice, "").to_lowercase();
    assert_eq!(bare.lines().find(|line| line.contains("authorization") || line.contains("bearer")), None);
}

/// Uses keys in every way that the gateway knows, good and bad ones; gives one that was made and revoked.
async fn every_way_of_showing_a_key(app: &support::TestApp) -> String {
    let client = &app.client;
    for model in ["m", "fails", "cut", "unknown"] {
        let body = sized(model, "hello", 40);
        let reply = client.chat(&body).await.unwrap();
        assert_eq!(reply.status == 200, model == "m", "{model}: {}", reply.status);
    }
    client.chat_stream(&sized("m", "hello", 40)).await.unwrap();
    assert_eq!(client.with_key(WRONG_KEY).chat(&sized("m", "hello", 40)).await.unwrap().status, 401);
    let bare = reqwest::Client::new();
    for (name, value) in [("x-api-key", client.key()), ("x-goog-api-key", client.key()), ("x-api-key", WRONG_KEY)] {
        let status = bare.get(client.url("/v1/models")).header(name, value).send().await.unwrap().status();
        assert_eq!(status == 200, value == client.key(), "{name}: {status}");
    }
    for key in [client.key(), WRONG_KEY] {
        for path in ["models", "nothing"] {
            bare.get(client.url(&format!("/v1/{path}?key={key}"))).send().await.unwrap();
        }
    }
    let made = client.create_key(&json!({ "name": "short-lived" })).await.unwrap();
    let (status, _) = client.admin(Method::DELETE, "/keys/short-lived", None).await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(client.with_key(&made).chat(&sized("m", "hello", 40)).await.unwrap().status, 401);
    let wrong = client.with_key(WRONG_ADMIN_KEY).request(Method::GET, "/api/v1/admin/keys");
    assert_eq!(client.send(wrong).await.unwrap().status, 401);
    made
}
