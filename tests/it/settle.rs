//! Settlement: however a call ends, its permit comes back, what it used is charged, and nothing stays reserved.

use crate::rig::{PATIENCE, app, begin, client_with, idle, prompt_tokens, report, row_of, sized, waiting};
use serde_json::{Value, json};
use std::time::Duration;
use support::{Act, GatewayClient, Reply, Script, TestApp, Usage, clock};

const BURST: u64 = 2_000;

/// One permit, and a bucket that is full again in one second.
async fn tight(reply: Reply) -> TestApp {
    let app = app().pool("m", |pool| pool.concurrent(1).tokens_per_sec(2_000).burst_tokens(2_000));
    app.script(reply).start().await.unwrap()
}

/// Checks that nothing is left of any call: all gauges read zero, and a request for all there is passes.
async fn nothing_is_left(app: &TestApp) {
    idle(&app.client).await;
    app.upstream.set(Reply::tokens(1));
    let all = app.client.chat(&sized("m", "all", BURST)).await.unwrap();
    assert_eq!(all.status, 200, "{}", all.json());
    idle(&app.client).await;
}

#[tokio::test]
async fn a_client_that_goes_in_mid_stream_closes_the_upstream_and_frees_the_permit() {
    let app = tight(Reply::default().spread(Duration::from_secs(60), 1)).await;
    app.upstream.set(Reply { chunk_delay_ms: 20, ..Reply::default() });
    let mut stream = app.client.open_stream(&sized("m", "x", 1_000), &[]).await.unwrap();
    let id = stream.headers()["x-request-id"].to_str().unwrap().to_owned();
    for _ in 0..5 {
        stream.next().await.unwrap().unwrap();
    }
    let queued = begin(&app.client, sized("m", "next", 100), &[]);
    waiting(&app.client, 1).await;
    let left_us = clock::boot_us();
    drop(stream);
    app.upstream.wait_until("an early close", |stats| stats.closed_early == 1).await;
    let closed_us = app.upstream.calls()[0].closed_early_at.unwrap();
    assert!(closed_us - left_us < 1_000_000, "closed after {} us", closed_us - left_us);

    app.upstream.arrived(2).await;
    app.upstream.set(Reply::tokens(1));
    let reply = queued.await.unwrap();
    assert_eq!(reply.status, 200);
    let row = row_of(&app.client, &id).await;
    let streamed = row["completion_tokens"].as_u64().unwrap();
    // Four words of five bytes at least had come; the 985 of the cap had not.
    assert!((20..600).contains(&streamed), "{row}");
    assert_eq!((&row["status"], &row["prompt_tokens"]), (&json!("cut"), &json!(prompt_tokens("x"))), "{row}");
    assert_eq!(row["charged_tokens"], streamed + prompt_tokens("x"), "{row}");
    nothing_is_left(&app).await;
}

#[tokio::test]
async fn a_client_that_goes_before_the_answer_closes_the_upstream_and_is_charged_in_full() {
    let app = tight(Reply::tokens(1).held()).await;
    let gone = begin(&app.client, sized("m", "gone", 700), &[]);
    app.upstream.in_flight(1).await;
    gone.abort();
    app.upstream.wait_until("an early close", |stats| stats.closed_early == 1).await;
    let rows = crate::rig::usage_rows(&app.client, 1).await;
    assert_eq!((&rows[0]["status"], &rows[0]["charged_tokens"]), (&json!("cut"), &json!(700)), "{rows:?}");
    nothing_is_left(&app).await;
}

/// How a call that goes wrong is told to the client, and what its usage row says.
struct Wrong {
    name: &'static str,
    reply: Reply,
    stream: bool,
    /// Status, and the code of the error in the body or the stream; none for an answer.
    told: (u16, Option<&'static str>),
    status: &'static str,
    charged: u64,
}

fn wrongs() -> Vec<Wrong> {
    let wrong = |name, reply, stream, told, status, charged| Wrong { name, reply, stream, told, status, charged };
    let honest = || Reply::tokens(10).prompt_tokens(20);
    let prompt = prompt_tokens("x");
    let ten_words = 50;
    vec![
        wrong("plain, honest", honest(), false, (200, None), "ok", 30),
        wrong("stream, honest", honest(), true, (200, None), "ok", 30),
        wrong("plain, cut", Reply::cut_after(0), false, (502, Some("upstream_broken")), "cut", 100),
        wrong("stream, cut", Reply::cut_after(4), true, (200, Some("upstream_broken")), "cut", prompt + 20),
        wrong(
            "stream, reset",
            Reply { act: Act::CutAfter { chunks: 0, reset: true }, chunk_delay_ms: 1, ..Reply::default() },
            true,
            (200, Some("upstream_broken")),
            "cut",
            prompt,
        ),
        wrong("plain, no usage", honest().usage(Usage::Missing), false, (200, None), "ok", prompt + ten_words),
        wrong("stream, no usage", honest().usage(Usage::Missing), true, (200, None), "ok", prompt + ten_words),
        wrong("plain, usage too large", honest().usage(Usage::Off(490)), false, (200, None), "ok", 520),
        wrong("stream, usage too large", honest().usage(Usage::Off(490)), true, (200, None), "ok", 520),
        wrong("plain, usage absurd", honest().usage(Usage::Off(i64::MAX / 2)), false, (200, None), "ok", 1_020),
        wrong(
            "plain, negative usage",
            honest().usage(Usage::Off(-5_000)),
            false,
            (200, None),
            "ok",
            prompt + ten_words,
        ),
        wrong("plain, usage of text", raw_usage(json!("lots")), false, (200, None), "ok", prompt + ten_words),
        wrong(
            "stream, usage of text",
            raw_usage(json!({"prompt_tokens": []})),
            true,
            (200, None),
            "ok",
            prompt + ten_words,
        ),
        wrong(
            "stream, error inside",
            Reply { act: Act::ErrorAfter { chunks: 2 }, ..honest() },
            true,
            (200, Some("server_error")),
            "cut",
            prompt + 10,
        ),
        wrong("plain, 500", Reply::status(500), false, (500, Some("server_error")), "ok", 0),
        wrong(
            "closed",
            Reply { act: Act::Close, ..Reply::default() },
            false,
            (502, Some("upstream_broken")),
            "cut",
            100,
        ),
        wrong("garbage", Reply::garbage(), false, (502, Some("upstream_broken")), "cut", 100),
        wrong("garbage JSON", Reply::garbage_json(), false, (502, Some("upstream_broken")), "cut", 100),
    ]
}

fn raw_usage(usage: Value) -> Reply {
    Reply::tokens(10).usage(Usage::Raw(usage))
}

#[tokio::test]
async fn however_a_call_ends_it_is_charged_once_and_nothing_stays_reserved() {
    let app = tight(Reply::default()).await;
    let mut problems = Vec::new();
    for wrong in wrongs() {
        app.upstream.set(wrong.reply);
        let body = sized("m", "x", 100);
        let (told, id) = if wrong.stream {
            let reply = app.client.chat_stream(&body).await.unwrap();
            let error = reply.error().map(|error| error["code"].as_str().unwrap_or("no code").to_owned());
            ((reply.status, error), reply.header("x-request-id").to_owned())
        } else {
            let reply = app.client.chat(&body).await.unwrap();
            let code = Some(reply.error_code()).filter(|code| !code.is_empty());
            ((reply.status, code), reply.header("x-request-id").to_owned())
        };
        let expected = (wrong.told.0, wrong.told.1.map(str::to_owned));
        let row = row_of(&app.client, &id).await;
        let seen = (told, row["status"].as_str().unwrap().to_owned(), row["charged_tokens"].as_u64().unwrap());
        if seen != (expected.clone(), wrong.status.to_owned(), wrong.charged) {
            problems.push(format!("{}: {seen:?}, not {:?} {} {}", wrong.name, expected, wrong.status, wrong.charged));
        }
        idle(&app.client).await;
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    nothing_is_left(&app).await;
    let metrics = app.client.metrics().await.unwrap();
    // 420 of each usage that is too large, 920 of the absurd one.
    assert_eq!(metrics.sum("tokligence_reservation_overrun_tokens_total", &[]), 1_760.0);
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// One client: plain or streamed, patient or not, who may go at any moment; the upstream may do anything.
async fn fickle(client: GatewayClient, seed: u64) {
    let mut dice = Dice(seed);
    for i in 0..100 {
        let tag = ["fine", "fine", "slow", "cut", "close", "hang", "liar"][dice.below(7) as usize];
        let body = sized("m", &format!("{tag} {seed:02} {i:03}"), 50 + dice.below(200));
        let headers = [
            ("x-tokligence-timeout-ms", (5 + dice.below(100)).to_string()),
            ("x-tokligence-priority", dice.below(5).to_string()),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let stay = if dice.below(2) == 0 { Duration::from_millis(dice.below(60)) } else { PATIENCE };
        // Whatever comes back, or nothing: the books are looked at in the end.
        if dice.below(2) == 0 {
            drop(tokio::time::timeout(stay, client.chat_with(&body, &headers)).await);
        } else {
            let stream = async { Some(client.open_stream(&body, &headers).await.ok()?.finish().await) };
            drop(tokio::time::timeout(stay, stream).await);
        }
    }
}

#[tokio::test]
async fn after_fickle_clients_and_upstreams_every_permit_is_back_and_every_token_is_booked() {
    const DAY: u64 = 10_000_000;
    let slow = || Reply { chunk_delay_ms: 2, ..Reply::tokens(10) };
    let script = Script::from(Reply::tokens(5).prompt_tokens(20))
        .on_body("slow ", slow())
        .on_body("cut ", Reply { act: Act::CutAfter { chunks: 2, reset: false }, ..slow() })
        .on_body("close ", Reply { act: Act::Close, ..Reply::default() })
        .on_body("hang ", Reply::hang())
        .on_body("liar ", slow().usage(Usage::Off(300)));
    let pool =
        |pool: support::Pool| pool.concurrent(6).tokens_per_sec(20_000).burst_tokens(5_000).rps(400).burst_requests(40);
    let app = app().pool("m", pool).script(script).set("scheduling.priority_levels", 5);
    let app = app.set("upstream.first_byte_timeout_ms", 100).set("upstream.cancel_grace_ms", 20);
    let app = app.set("scheduling.queue_depth", 8).start().await.unwrap();
    let fields = json!({"name": "fickle", "priority_ceiling": 0, "concurrency": 8, "rps": 300, "tokens_per_day": DAY});
    let client = client_with(&app, fields).await;
    let clients: Vec<_> = (0..16).map(|seed| tokio::spawn(fickle(client.clone(), seed))).collect();
    for client in clients {
        client.await.unwrap();
    }
    idle(&app.client).await;
    assert!(app.upstream.stats().peak_in_flight <= 6, "{:?}", app.upstream.stats());
    assert_eq!(app.upstream.in_flight(0).await.in_flight, 0);

    // The key's own permits: eight may come at once, of which six run.
    app.upstream.set(Reply::tokens(1).held_at("after"));
    let eight: Vec<_> = (0..8).map(|i| begin(&client, sized("m", &format!("after {i}"), 50), &[])).collect();
    app.upstream.in_flight(6).await;
    waiting(&app.client, 2).await;
    app.upstream.open_at("after");
    assert!(crate::rig::replies(eight).await.iter().all(|reply| reply.status == 200));
    idle(&app.client).await;

    // The day's quota has been charged what the usage rows say, to the token.
    let calls = app.upstream.stats().requests;
    let last = client.chat(&sized("m", "last", 50)).await.unwrap();
    let left: u64 = last.header("x-tokligence-quota-remaining").parse().unwrap();
    let rows = crate::rig::usage_rows(&app.client, usize::try_from(calls + 1).unwrap()).await;
    let id = last.header("x-request-id");
    let charged = rows.iter().filter(|row| row["request_id"] != json!(id));
    let charged: u64 = charged.map(|row| row["charged_tokens"].as_u64().unwrap()).sum();
    assert_eq!((rows.len() as u64, DAY - left), (calls + 1, charged + 50));
    report(&format!("{calls} calls of fickle clients, {charged} tokens"));
    assert!(!app.gateway.log().contains("panicked"));
}
