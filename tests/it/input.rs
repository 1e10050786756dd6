//! What must not hurt: requests that are broken, too large, too slow or not HTTP at all, and upstreams that hang, lie or
//! send garbage. Each gets a proper refusal or a closed connection, and when all are through nothing is left of them.

mod cases;
mod upstreams;

use crate::rig::{PATIENCE, app, begin, idle, replies, report, sized};
use cases::Wire;
use serde_json::Value;
use std::time::Duration;
use support::{RawConn, RawReply, TestApp};

/// How one case is sent.
pub(crate) enum Send {
    /// At once.
    Bytes(Vec<u8>),
    /// At once, then the sending side is closed.
    Closed(Vec<u8>),
    /// The head, then this piece so many times, until the gateway answers.
    Pour(Vec<u8>, Vec<u8>, usize),
    /// The head, then one byte after the other with pauses between them, until the gateway answers.
    Drip(Vec<u8>),
}

/// What must come back.
#[derive(Clone, Debug)]
pub(crate) enum Expect {
    /// An answer.
    Served,
    /// OpenAI's envelope: status, `code`, `param`; empty is null.
    Openai(u16, &'static str, &'static str),
    /// Anthropic's envelope: status and `type`.
    Anthropic(u16, &'static str),
    /// Gemini's envelope: status and `status`.
    Gemini(u16, &'static str),
    /// The admin routes' envelope: status and `code`.
    Admin(u16, &'static str),
    /// What is no HTTP the gateway can read: this status without a body, then a closed connection.
    Bare(u16),
    /// A closed connection, and nothing else.
    Closed,
    /// Either of both: who half closes may be taken for gone, unless the answer was faster.
    ServedOrClosed,
    /// A stream that breaks off with an error event of this code.
    BrokenStream(&'static str),
    /// What the upstream said, with its status and headers.
    Passed(u16, &'static [(&'static str, &'static str)]),
}

/// One line of the table.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) send: Send,
    pub(crate) expect: Expect,
}

pub(crate) fn case(name: &'static str, bytes: Vec<u8>, expect: Expect) -> Case {
    Case { name, send: Send::Bytes(bytes), expect }
}

/// Sends a case and gives what came back, and whether the connection was closed behind it.
async fn exchange(address: &str, send: &Send) -> (Option<RawReply>, RawConn) {
    let mut conn = RawConn::open(address).await.unwrap();
    // A gateway that has answered already may close while the rest is still being sent.
    match send {
        Send::Bytes(bytes) => {
            let _ = conn.send(bytes).await;
        }
        Send::Closed(bytes) => {
            let _ = conn.send(bytes).await;
            let _ = conn.finish().await;
        }
        Send::Pour(head, piece, times) => {
            let _ = conn.send(head).await;
            conn.pour(piece, *times).await;
        }
        Send::Drip(head) => {
            let _ = conn.send(head).await;
            return (conn.drip(b" ", Duration::from_millis(50)).await, conn);
        }
    }
    (conn.reply().await, conn)
}

async fn check(address: &str, case: &Case) -> Result<(), String> {
    let exchanged = tokio::time::timeout(PATIENCE, exchange(address, &case.send)).await;
    let (reply, mut conn) = exchanged.map_err(|_| format!("{}: neither a reply nor a close", case.name))?;
    let closed = async |conn: &mut RawConn| {
        let rest = tokio::time::timeout(PATIENCE, conn.closed()).await;
        rest.map(drop).map_err(|_| format!("{}: the connection stayed open", case.name))
    };
    let Some(reply) = reply else {
        return match case.expect {
            Expect::Closed | Expect::ServedOrClosed => closed(&mut conn).await,
            _ => Err(format!("{}: closed, not {:?}", case.name, case.expect)),
        };
    };
    let shown = || String::from_utf8_lossy(&reply.body).chars().take(300).collect::<String>();
    judge(&case.expect, &reply).map_err(|why| format!("{}: {why}: {} {}", case.name, reply.status, shown()))?;
    if matches!(case.expect, Expect::Bare(_)) { closed(&mut conn).await } else { Ok(()) }
}

fn judge(expect: &Expect, reply: &RawReply) -> Result<(), String> {
    let (body, status) = (reply.json(), reply.status);
    let error = &body["error"];
    let (seen, wanted) = match *expect {
        Expect::Served | Expect::ServedOrClosed => {
            return same((status, body["object"].as_str()), (200, Some("chat.completion")));
        }
        Expect::Openai(status, code, param) => {
            let text = |name: &str| if error[name].is_null() { Some("") } else { error[name].as_str() };
            (vec![text("code"), text("param")], (status, vec![Some(code), Some(param)]))
        }
        Expect::Anthropic(status, kind) => {
            (vec![body["type"].as_str(), error["type"].as_str()], (status, vec![Some("error"), Some(kind)]))
        }
        Expect::Gemini(status, name) => {
            same(error["code"].as_u64(), Some(u64::from(status)))?;
            (vec![error["status"].as_str()], (status, vec![Some(name)]))
        }
        Expect::Admin(status, code) => (vec![error["code"].as_str()], (status, vec![Some(code)])),
        Expect::Bare(wanted) => return same((status, reply.body.len()), (wanted, 0)),
        Expect::Closed => return Err("a reply, not a close".to_owned()),
        Expect::BrokenStream(code) => return broken_stream(reply, code),
        Expect::Passed(wanted, headers) => {
            same(status, wanted)?;
            same(error.is_object(), true)?;
            return headers.iter().try_for_each(|(name, value)| same(reply.header(name), *value));
        }
    };
    same((status, seen), wanted)?;
    same(error["message"].as_str().is_some_and(|message| !message.is_empty() && message.len() < 1_000), true)?;
    same(reply.header("content-type"), "application/json")?;
    same(reply.header("x-request-id").is_empty(), false)
}

fn broken_stream(reply: &RawReply, code: &str) -> Result<(), String> {
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let events = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let events = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let errors: Vec<Value> =
        events.map(|event| event["error"]["code"].clone()).filter(|code| !code.is_null()).collect();
    same(reply.status, 200)?;
    same(text.contains("[DONE]"), false)?;
    same(errors.first().and_then(Value::as_str), Some(code))
}

fn same<T: PartialEq + std::fmt::Debug>(seen: T, wanted: T) -> Result<(), String> {
    if seen == wanted { Ok(()) } else { Err(format!("{seen:?}, not {wanted:?}")) }
}

/// A gateway with little patience, small bounds, and four permits.
async fn impatient() -> TestApp {
    let pool = |pool: support::Pool| pool.concurrent(4).tokens_per_sec(10_000_000).burst_tokens(10_000_000);
    let app = app().pool("m", pool).pool("wild-*", |pool| pool).script(upstreams::script());
    app.set("http.header_read_timeout_ms", 700)
        .set("http.body_read_timeout_ms", 700)
        .set("upstream.first_byte_timeout_ms", 700)
        .set("upstream.idle_timeout_ms", 700)
        .set("upstream.cancel_grace_ms", 50)
        .set("upstream.max_response_bytes", 1 << 20)
        .set("upstream.max_event_bytes", 1 << 20)
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn bad_input_is_refused_properly_and_leaves_nothing_behind() {
    let app = impatient().await;
    let wire = Wire { key: app.client.key().to_owned() };
    let table: Vec<Case> = [
        cases::bodies(&wire),
        cases::framing(&wire),
        cases::heads(&wire),
        cases::routes(&wire),
        upstreams::cases(&wire),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(table.len() >= 100, "{}", table.len());
    // Twice, so that what grows with each bad request shows; the first time is for buffers that stay.
    let mut problems = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..2 {
        for case in &table {
            problems.extend(check(app.gateway.address(), case).await.err());
        }
        idle(&app.client).await;
        resident.push(app.gateway.rss_kb().unwrap() / 1_024);
    }
    problems.sort();
    problems.dedup();
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
    report(&format!("{} cases of bad input, twice; resident {} MB, then {} MB", table.len(), resident[0], resident[1]));
    assert!(resident[1] < resident[0] + 32 && resident[1] < 300, "{resident:?} MB");

    // Every permit is there: four run at once, the fifth would wait.
    app.upstream.set(support::Reply::tokens(1).held_at("after"));
    let four: Vec<_> = (0..4).map(|i| begin(&app.client, sized("m", &format!("after {i}"), 100), &[])).collect();
    app.upstream.in_flight(4).await;
    app.upstream.open_at("after");
    assert!(replies(four).await.iter().all(|reply| reply.status == 200));
    assert!(!app.gateway.log().contains("panicked"), "{}", app.gateway.log());
}

#[tokio::test]
async fn garbage_behind_a_request_does_not_hurt_its_answer() {
    let app = app().pool("m", |pool| pool.concurrent(1)).script(support::Reply::tokens(2)).start().await.unwrap();
    let wire = Wire { key: app.client.key().to_owned() };
    for garbage in ["\0\0\0\r\n\r\n", "POST /v1/chat/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n"] {
        let mut conn = RawConn::open(app.gateway.address()).await.unwrap();
        conn.send(&[wire.chat("").as_slice(), garbage.as_bytes()].concat()).await.unwrap();
        let answered = async {
            let first = conn.reply().await.unwrap();
            assert_eq!((first.status, first.json()["object"].as_str()), (200, Some("chat.completion")));
            let second = conn.reply().await.unwrap();
            assert_eq!((second.status, second.body.len()), (400, 0));
            conn.closed().await;
        };
        tokio::time::timeout(PATIENCE, answered).await.unwrap();
    }
    // Two proper requests in one go are two answers, in order.
    let mut conn = RawConn::open(app.gateway.address()).await.unwrap();
    conn.send(&wire.chat("").repeat(2)).await.unwrap();
    for _ in 0..2 {
        let reply = tokio::time::timeout(PATIENCE, conn.reply()).await.unwrap().unwrap();
        assert_eq!(reply.status, 200);
    }
    idle(&app.client).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_permit_to_the_next() {
    let app = app().pool("m", |pool| pool.concurrent(1)).set("http.write_timeout_ms", 500);
    // Far more than sockets hold.
    let flood = support::Reply { tokens_per_chunk: 10_000, ..support::Reply::tokens(10_000_000) };
    let app = app.script(flood).start().await.unwrap();
    let wire = Wire { key: app.client.key().to_owned() };
    let mut deaf = RawConn::open(app.gateway.address()).await.unwrap();
    deaf.send(&wire.chat(r#","stream":true,"max_tokens":10000000"#)).await.unwrap();
    app.upstream.wait_until("an early close", |stats| stats.closed_early == 1).await;
    app.upstream.set(support::Reply::tokens(1));
    assert_eq!(app.client.chat(&sized("m", "next", 100)).await.unwrap().status, 200);
    idle(&app.client).await;
    drop(deaf);
}

#[tokio::test]
async fn clients_that_vanish_at_any_point_leave_nothing_behind() {
    let app = app().pool("m", |pool| pool.concurrent(4)).set("upstream.cancel_grace_ms", 50);
    let slow = support::Reply { chunk_delay_ms: 2, ..support::Reply::tokens(10) };
    let app = app.script(slow).start().await.unwrap();
    let wire = Wire { key: app.client.key().to_owned() };
    let request = wire.chat(r#","stream":true"#);
    for i in 0..120_usize {
        let mut conn = RawConn::open(app.gateway.address()).await.unwrap();
        // The first half go within their request, the others within the answer.
        let sent = if i < 60 { request.len() * i / 60 } else { request.len() };
        conn.send(&request[..sent]).await.unwrap();
        if i >= 60 {
            tokio::time::timeout(PATIENCE, conn.bytes((i - 60) * 40)).await.unwrap();
        }
        if i.is_multiple_of(2) { conn.reset().unwrap() } else { drop(conn) }
    }
    idle(&app.client).await;
    assert!(!app.gateway.log().contains("panicked"), "{}", app.gateway.log());
    let four: Vec<_> = (0..4).map(|i| begin(&app.client, sized("m", &format!("{i}"), 100), &[])).collect();
    assert!(replies(four).await.iter().all(|reply| reply.status == 200));
}
