//! Users, teams and keys through the command line, against a real gateway.

use crate::rig::{app, sized};
use serde_json::Value;
use std::process::Output;
use support::TestApp;

async fn gateway(app: &TestApp, line: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.args(["--yes", "--endpoint", &app.gateway.base_url()]);
    for (flag, value) in [("--admin-key", app.gateway.admin_key().unwrap()), ("--output", "json".to_owned())] {
        if !line.contains(&flag) {
            command.args([flag, &value]);
        }
    }
    command.args(line).output().await.unwrap()
}

async fn done(app: &TestApp, line: &[&str]) -> Value {
    let output = gateway(app, line).await;
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn fails(app: &TestApp, line: &[&str], code: i32, says: &str) {
    let output = gateway(app, line).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line:?}: {said}");
    assert!(said.contains(says), "{line:?}: {said}");
}

#[tokio::test]
async fn people_and_keys_are_managed_by_the_command_line_with_its_exit_codes() {
    let app = app().pool("m", |pool| pool).start().await.unwrap();
    done(&app, &["team", "create", "--name", "core", "--rps", "50"]).await;
    let user = ["user", "create", "--name", "ann", "--email", "ann@x.org", "--team", "core", "--concurrency", "5"];
    assert_eq!(done(&app, &user).await["concurrency"], 5);
    fails(&app, &user, 6, "another one has it").await;
    let key =
        ["key", "create", "--name", "app", "--user", "ann", "--rps", "100", "--budget-usd", "1.5", "--scope", "chat"];
    let key = done(&app, &key).await;
    assert_eq!(
        (&key["user"], &key["team"], &key["budget_nano_usd"]),
        (&"ann".into(), &"core".into(), &1_500_000_000_u64.into())
    );
    let client = app.client.with_key(key["key"].as_str().unwrap());
    assert_eq!(client.chat(&sized("m", "x", 50)).await.unwrap().status, 200);
    let models = client.send(client.request(reqwest::Method::GET, "/v1/models")).await.unwrap();
    assert_eq!((models.status, models.error_code().as_str()), (403, "route_not_allowed"));

    let changed = done(&app, &["key", "update", "app", "--tier", "partner", "--rps", "none"]).await;
    assert_eq!((&changed["priority"], &changed["rps"], &changed["version"]), (&3.into(), &0.into(), &2.into()));
    assert_eq!(client.chat(&sized("m", "x", 50)).await.unwrap().header("x-tokligence-tier"), "partner");
    fails(&app, &["key", "update", "app", "--if-version", "1", "--rps", "3"], 6, "stale").await;
    let rotated = done(&app, &["key", "rotate", "app", "--overlap", "1h"]).await;
    let renewed = app.client.with_key(rotated["key"].as_str().unwrap());
    for client in [&client, &renewed] {
        assert_eq!(client.chat(&sized("m", "x", 50)).await.unwrap().status, 200);
    }
    done(&app, &["key", "revoke", "app"]).await;
    for client in [&client, &renewed] {
        assert_eq!(client.chat(&sized("m", "x", 50)).await.unwrap().status, 401);
    }
    fails(&app, &["user", "show", "nobody"], 1, "user not found").await;
    fails(&app, &["key", "create", "--name", "k", "--scope", "everything"], 1, "scopes").await;
    fails(&app, &["--admin-key", "wrong", "user", "list"], 7, "admin key").await;
    fails(&app, &["user", "create", "--name", "x", "--rps", "0"], 2, "must be above 0").await;
    assert_eq!(done(&app, &["user", "list"]).await.as_array().unwrap().len(), 1);
    assert!(done(&app, &["team", "remove", "core"]).await["removed_at"].is_string());
    let table = gateway(&app, &["--output", "table", "key", "list"]).await;
    assert!(String::from_utf8_lossy(&table.stdout).starts_with("ID "), "{table:?}");
}

#[tokio::test]
async fn users_come_from_a_csv_file_and_bad_rows_are_named() {
    let app = app().start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.csv");
    let rows = "name,email,role,tokens_per_day\nann,ann@x.org,,1000\nbob,ANN@x.org,,\n\"eve\",eve@x.org,gateway_admin,\n,x@x.org,,\n";
    std::fs::write(&file, rows).unwrap();
    let output = gateway(&app, &["user", "import", file.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines: Vec<_> = report["refused"].as_array().unwrap().iter().map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!((report["made"].as_u64(), lines), (Some(2), vec![3, 5]));
    assert_eq!(done(&app, &["user", "show", "ann@x.org"]).await["tokens_per_day"], 1_000);
    assert_eq!(done(&app, &["user", "show", "eve"]).await["role"], "gateway_admin");
}

#[tokio::test]
async fn limits_of_key_user_and_team_bind_together_and_a_change_binds_at_once() {
    let app = app().pool("m", |pool| pool).start().await.unwrap();
    done(&app, &["team", "create", "--name", "core", "--tokens-per-day", "200"]).await;
    done(&app, &["user", "create", "--name", "ann", "--team", "core", "--tokens-per-day", "150"]).await;
    done(&app, &["user", "create", "--name", "bob", "--team", "core"]).await;
    let mut clients = Vec::new();
    for (name, user, limit) in [("a1", "ann", "100"), ("a2", "ann", "100"), ("b1", "bob", "100")] {
        let key = done(&app, &["key", "create", "--name", name, "--user", user, "--tokens-per-day", limit]).await;
        clients.push(app.client.with_key(key["key"].as_str().unwrap()));
    }
    app.upstream.set(support::Reply::tokens(87).prompt_tokens(13));
    let ask = async |client: usize| clients[client].chat(&sized("m", "x", 100)).await.unwrap();
    assert_eq!(ask(0).await.status, 200);
    // The user has 50 left, though the second key has all of its 100.
    assert_eq!(ask(1).await.error_code(), "insufficient_quota");
    assert_eq!(ask(2).await.status, 200);
    // The team is used up: a raised limit of the user alone lets nobody pass, that of the team does.
    done(&app, &["user", "update", "ann", "--tokens-per-day", "1000"]).await;
    assert_eq!(ask(1).await.error_code(), "insufficient_quota");
    done(&app, &["team", "update", "core", "--tokens-per-day", "1000"]).await;
    let reply = ask(1).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
}
