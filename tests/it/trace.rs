//! A replay of traffic that wants far more than the limits allow: they hold over every interval, nothing is lost, and
//! the more urgent go first.

use crate::rig::{PATIENCE, Pending, app, begin, idle, replies, report};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use support::curve::{Curve, Event};
use support::{Call, ChatReply, Pool, Reply, TestApp, clock};

const REQUESTS: u64 = 300;
const LEVELS: u64 = 5;
const TOKENS_PER_SEC: u64 = 4_000;
const BURST_TOKENS: u64 = 3_000;
const RPS: u64 = 48;
const BURST_REQUESTS: u64 = 20;
const PERMITS: u64 = 6;

/// What [`support::clock`] and the wall may disagree by in one test, and the rounding of a header.
const CLOCK_ERROR_US: u64 = 2_000;

/// How long the more urgent of two requests may be passed: the leader decides in batches, and a loaded machine is slow
/// to tell both of its word.
const INVERSION_US_MAX: i64 = 100_000;

/// One request of the trace.
struct Arrival {
    at: Duration,
    prompt_tokens: u64,
    output_tokens: u64,
}

/// A trace in the format of the Azure LLM inference traces, three seconds long: always the same.
fn trace() -> String {
    let mut state = 20_231_116_u64;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let mut text = "TIMESTAMP,ContextTokens,GeneratedTokens\n".to_owned();
    for i in 0..REQUESTS {
        let at_ms = 46_680 + i * 3_000 / REQUESTS + below(10);
        let (prompt, output) = (20 + below(200), 10 + below(90));
        text += &format!("2023-11-16 18:15:{:02}.{:03}0000,{prompt},{output}\n", at_ms / 1_000, at_ms % 1_000);
    }
    text
}

fn parse(text: &str) -> Vec<Arrival> {
    let arrival = |line: &str| {
        let (stamp, tokens) = line.split_once(',').unwrap();
        let (prompt, output) = tokens.split_once(',').unwrap();
        let seconds: f64 = stamp.rsplit(':').next().unwrap().parse().unwrap();
        Arrival {
            at: Duration::from_secs_f64(seconds - 46.68),
            prompt_tokens: prompt.parse().unwrap(),
            output_tokens: output.parse().unwrap(),
        }
    };
    text.lines().skip(1).map(arrival).collect()
}

/// One pool of all three limits, strict, without aging, each answer 50 ms long.
async fn limited() -> TestApp {
    let pool = |pool: Pool| {
        let pool = pool.tokens_per_sec(TOKENS_PER_SEC as u32).burst_tokens(BURST_TOKENS as u32);
        pool.rps(RPS as u32).burst_requests(BURST_REQUESTS as u32).concurrent(PERMITS as u32)
    };
    let app = app().pool("m", pool).set("scheduling.priority_levels", LEVELS as i64);
    let app = app.set("scheduling.aging_quantum_ms", 0).set("scheduling.queue_timeout_ms", 60_000);
    app.script(Reply::default().spread(Duration::from_millis(50), 10)).start().await.unwrap()
}

/// Sends each request when it is due. What it reserves is twice of what it will use, and more.
async fn replay(app: &TestApp, trace: &[Arrival]) -> Vec<Pending> {
    let began = tokio::time::Instant::now();
    let mut pending = Vec::new();
    for (number, arrival) in trace.iter().enumerate() {
        tokio::time::sleep_until(began + arrival.at).await;
        let text = format!("{number:04}{}", "a".repeat(usize::try_from(arrival.prompt_tokens).unwrap()));
        let mut body = support::client::chat_body("m", &text, 2 * arrival.output_tokens);
        body["stream"] = Value::Bool(number % 2 == 1);
        let headers = [
            ("x-tokligence-priority", (number as u64 % LEVELS).to_string()),
            ("x-bench-output-tokens", arrival.output_tokens.to_string()),
        ];
        pending.push(begin(&app.client, body, &headers));
    }
    pending
}

/// Checks that no interval of arrivals at the upstream held more than the limits allow.
fn assert_limits_held(app: &TestApp, slack: Duration) {
    let calls = app.upstream.calls();
    let used = |call: &Call| call.prompt_tokens.zip(call.completion_tokens).map(|(p, c)| (p + c).unsigned_abs());
    let tokens: Vec<Event> = calls.iter().map(|call| (call.arrived_us, used(call).unwrap())).collect();
    let requests: Vec<Event> = calls.iter().map(|call| (call.arrived_us, 1)).collect();
    Curve::per_sec(TOKENS_PER_SEC, BURST_TOKENS).slack(slack).check(&tokens).unwrap();
    Curve::per_sec(RPS, BURST_REQUESTS).slack(slack).check(&requests).unwrap();
    assert!(app.upstream.stats().peak_in_flight <= PERMITS, "{:?}", app.upstream.stats());
    // The limits were what held it back: without any, all would have come in three seconds.
    let span = calls.last().unwrap().arrived_us - calls[0].arrived_us;
    assert!(span > 4_000_000, "{span} us");
}

/// A request as its reply tells of it. Units: microseconds of the boot clock.
struct Served {
    priority: usize,
    came_us: i64,
    admitted_us: i64,
}

fn served(replies: &[ChatReply]) -> Vec<Served> {
    let wall_ahead_us = clock::wall_us() as i64 - clock::boot_us() as i64;
    let one = |(number, reply): (usize, &ChatReply)| {
        let stamp_ms: i64 = reply.header("x-tokligence-scheduled-timestamp").parse().unwrap();
        let admitted_us = stamp_ms * 1_000 - wall_ahead_us;
        let came_us = admitted_us - (reply.queue_wait_ms() * 1_000.0) as i64;
        Served { priority: number % LEVELS as usize, came_us, admitted_us }
    };
    replies.iter().enumerate().map(one).collect()
}

/// The longest that a request waited on after a less urgent one was admitted that it had waited beside.
fn worst_inversion_us(served: &[Served]) -> i64 {
    let mut worst = 0;
    for passed in served {
        for less in served.iter().filter(|less| less.priority > passed.priority) {
            let waited_beside = less.admitted_us - passed.came_us;
            worst = worst.max(waited_beside.min(passed.admitted_us - less.admitted_us));
        }
    }
    worst
}

#[tokio::test]
async fn a_replayed_trace_keeps_every_limit_loses_nothing_and_serves_the_urgent_first() {
    let app = limited().await;
    let pending = replay(&app, &parse(&trace())).await;
    let replies = replies(pending).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    app.upstream.ended(REQUESTS).await;

    let served = served(&replies);
    let text = |call: &Call| call.json()["messages"][0]["content"].as_str().unwrap()[..4].parse::<usize>().unwrap();
    let arrived: HashMap<usize, u64> = app.upstream.calls().iter().map(|c| (text(c), c.arrived_us)).collect();
    assert_eq!(arrived.len() as u64, REQUESTS);
    let delay = |(number, served): (usize, &Served)| arrived[&number] as i64 - served.admitted_us;
    let delay_us_max = served.iter().enumerate().map(delay).max().unwrap();
    let slack = Duration::from_micros(delay_us_max as u64 + CLOCK_ERROR_US);
    let inversion_us = worst_inversion_us(&served);
    let mut waits = [0.0; LEVELS as usize];
    for (served, reply) in served.iter().zip(&replies) {
        waits[served.priority] += reply.queue_wait_ms() / (REQUESTS / LEVELS) as f64;
    }
    report(&format!("trace: d = {delay_us_max} us, worst inversion {inversion_us} us, mean waits {waits:.0?} ms"));
    assert_limits_held(&app, slack);
    assert!(inversion_us <= INVERSION_US_MAX, "{inversion_us} us");
    assert!(waits.is_sorted() && waits[0] * 4.0 < waits[4], "{waits:?}");
    idle(&app.client).await;
}

#[tokio::test]
async fn gateway_bench_replays_a_trace_and_every_request_is_answered() {
    let app = limited().await;
    let dir = tempfile::tempdir().unwrap();
    let (file, csv) = (dir.path().join("trace.csv"), dir.path().join("out.csv"));
    std::fs::write(&file, trace()).unwrap();
    let summary = bench(&app, &["--trace", path(&file), "--token-text", "a", "--csv", path(&csv)]).await;
    assert_eq!((&summary["requests"], &summary["ok"]), (&json!(REQUESTS), &json!(REQUESTS)), "{summary}");
    assert_eq!((&summary["errors"], &summary["refused"]), (&json!([]), &json!([])), "{summary}");
    let lines = std::fs::read_to_string(&csv).unwrap().lines().count() as u64;
    assert_eq!((lines, app.upstream.stats().requests), (REQUESTS + 1, REQUESTS));
    assert_limits_held(&app, Duration::from_millis(100));
    idle(&app.client).await;
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs `gateway bench` and gives its summary.
async fn bench(app: &TestApp, args: &[&str]) -> Value {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.args(["--endpoint", &app.gateway.base_url(), "--output", "json", "bench", "--quiet", "--model", "m"]);
    command.args(["--api-key", app.client.key(), "--stream", "--priority-mix", "1:1,3:2"]).args(args);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TOKLIGENCE_")) {
        command.env_remove(name);
    }
    let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}
