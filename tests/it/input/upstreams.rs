//! Bad upstreams: what they do is chosen by the text of the message.

use super::Expect::{BrokenStream, Openai, Passed, Served};
use super::cases::Wire;
use super::{Case, case};
use support::{Act, Reply, Script};

/// An answer that each case of bad input would get.
fn fine() -> Reply {
    Reply::tokens(2)
}

fn raw(text: &str) -> Reply {
    Reply { act: Act::Raw { bytes: text.as_bytes().to_vec() }, ..Reply::default() }
}

fn head(lines: &str, body: &str) -> Reply {
    raw(&format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{lines}\r\n{body}"))
}

fn misdeeds() -> Vec<(&'static str, Reply)> {
    let many: String = (0..300).map(|i| format!("X-H{i}: 1\r\n")).collect();
    vec![
        ("hang", Reply::hang()),
        ("stop in the middle", Reply { act: Act::HangAfter { chunks: 1 }, ..Reply::tokens(4) }),
        ("garbage", Reply::garbage()),
        ("garbled JSON", Reply::garbage_json()),
        ("array", Reply::raw_body("application/json", "[1,2,3]")),
        ("page", Reply::raw_body("text/html", "<html>welcome</html>")),
        ("nothing", Reply::raw_body("application/json", "")),
        ("close", Reply { act: Act::Close, ..Reply::default() }),
        ("cut", Reply::cut_after(1)),
        ("reset", Reply { act: Act::CutAfter { chunks: 1, reset: true }, chunk_delay_ms: 5, ..Reply::default() }),
        ("long length", head("Content-Length: 1000\r\n", r#"{"id":"x"}"#)),
        ("short length", head("Content-Length: 5\r\n", r#"{"id":"x"}"#)),
        ("no number", head("Content-Length: ten\r\n", "{}")),
        ("bad chunk", head("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n")),
        ("many headers", head(&many, "{}")),
        ("half a head", raw("HTTP/1.1 200 OK\r\nContent-Ty")),
        ("too much", Reply::giant_line(2 << 20)),
        (
            "elsewhere",
            Reply { act: Act::Status { status: 302, body: None }, ..Reply::default() }
                .header("location", "http://127.0.0.1:1/"),
        ),
        ("five hundred", Reply::status(500)),
        ("unavailable", Reply::status(503).header("retry-after", "7")),
        ("too many", Reply::too_many(9)),
        (
            "teapot",
            Reply { act: Act::Status { status: 418, body: Some("short and stout".to_owned()) }, ..Reply::default() },
        ),
        ("error inside", Reply { act: Act::ErrorAfter { chunks: 1 }, ..Reply::default() }),
    ]
}

/// What the upstream does to `bad: NAME`, and to all else.
pub(crate) fn script() -> Script {
    let start = Script::from(fine());
    misdeeds().into_iter().fold(start, |script, (name, reply)| script.on_body(&format!("bad: {name}\""), reply))
}

pub(crate) fn cases(wire: &Wire) -> Vec<Case> {
    let body = |does: &str, stream: bool| {
        format!(
            r#"{{"model":"m","max_tokens":20,"stream":{stream},"messages":[{{"role":"user","content":"bad: {does}"}}]}}"#
        )
    };
    let plain = |name, does: &str, expect| case(name, wire.post(body(does, false).as_bytes()), expect);
    let stream = |name, does: &str, expect| case(name, wire.post(body(does, true).as_bytes()), expect);
    let late = || Openai(504, "upstream_timeout", "");
    let broken = || Openai(502, "upstream_broken", "");
    vec![
        plain("an upstream that hangs", "hang", late()),
        plain("an upstream that stops in the middle", "stop in the middle", late()),
        plain("an upstream of garbage", "garbage", broken()),
        plain("an upstream of garbled JSON", "garbled JSON", broken()),
        plain("an upstream that answers an array", "array", broken()),
        plain("an upstream that answers a page", "page", broken()),
        plain("an upstream that answers nothing", "nothing", broken()),
        plain("an upstream that closes", "close", broken()),
        plain("an upstream that closes in the middle", "cut", broken()),
        plain("an upstream that resets", "reset", broken()),
        plain("an upstream with too long a length", "long length", broken()),
        plain("an upstream with too short a length", "short length", broken()),
        plain("an upstream whose length is no number", "no number", broken()),
        plain("an upstream with a bad chunk", "bad chunk", broken()),
        plain("an upstream of many headers", "many headers", broken()),
        plain("an upstream with half a head", "half a head", broken()),
        plain("an upstream that answers too much", "too much", broken()),
        plain("an upstream that points elsewhere", "elsewhere", broken()),
        plain("an upstream of 500", "five hundred", Passed(500, &[("content-type", "application/json")])),
        plain("an upstream of 503", "unavailable", Passed(503, &[("retry-after", "7")])),
        plain("an upstream of 429", "too many", Passed(429, &[("retry-after", "9")])),
        plain("an upstream of text", "teapot", Passed(418, &[("content-type", "application/json")])),
        stream("a stream that hangs", "hang", late()),
        stream("a stream that stops in the middle", "stop in the middle", BrokenStream("upstream_timeout")),
        stream("a stream of garbage", "garbage", broken()),
        stream("a stream that closes", "close", broken()),
        stream("a stream that closes in the middle", "cut", BrokenStream("upstream_broken")),
        stream("a stream that resets", "reset", BrokenStream("upstream_broken")),
        stream("a stream with an event that is too large", "too much", BrokenStream("upstream_broken")),
        stream("a stream with an error inside", "error inside", BrokenStream("server_error")),
        stream("a stream that gets a page", "page", broken()),
        stream("a stream of 503", "unavailable", Passed(503, &[("retry-after", "7")])),
        plain("an upstream that is fine", "no", Served),
    ]
}
