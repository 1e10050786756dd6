//! Bad requests: bodies, framing, heads, credentials and routes.

use super::Expect::{Admin, Anthropic, Bare, Closed, Gemini, Openai, Served, ServedOrClosed};
use super::{Case, Send, case};

const CHAT: &str = "POST /v1/chat/completions HTTP/1.1";
const MESSAGES: &str = r#""messages":[{"role":"user","content":"hello"}]"#;

/// Puts requests together as bytes, with a key that is in force.
pub(crate) struct Wire {
    pub(crate) key: String,
}

impl Wire {
    /// A request of these header lines and this body, with a key.
    pub(crate) fn raw(&self, line: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
        let mut text = format!("{line}\r\nHost: gateway\r\nAuthorization: Bearer {}\r\n", self.key);
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        [text.as_bytes(), body].concat()
    }

    /// A chat request with this body and its length.
    pub(crate) fn post(&self, body: &[u8]) -> Vec<u8> {
        self.post_with(&[], body)
    }

    /// The same with more header lines.
    pub(crate) fn post_with(&self, headers: &[&str], body: &[u8]) -> Vec<u8> {
        let length = format!("Content-Length: {}", body.len());
        let headers = [&["Content-Type: application/json", length.as_str()], headers].concat();
        self.raw(CHAT, &headers, body)
    }

    /// A chat request for `m` with these members beside it.
    pub(crate) fn chat(&self, members: &str) -> Vec<u8> {
        self.post(good(members).as_bytes())
    }

    fn get(&self, path: &str, headers: &[&str]) -> Vec<u8> {
        self.raw(&format!("GET {path} HTTP/1.1"), headers, b"")
    }
}

/// A proper body with these members beside model and messages; the first is a comma or nothing.
pub(crate) fn good(members: &str) -> String {
    format!(r#"{{"model":"m",{MESSAGES}{members}}}"#)
}

fn invalid(param: &'static str) -> super::Expect {
    Openai(400, "", param)
}

/// What a body says.
pub(crate) fn bodies(wire: &Wire) -> Vec<Case> {
    let post = |name, body: &[u8], expect| case(name, wire.post(body), expect);
    let chat = |name, members: &str, expect| case(name, wire.chat(members), expect);
    let model = |name, model: &str, expect| post(name, format!(r#"{{"model":{model},{MESSAGES}}}"#).as_bytes(), expect);
    let unknown = || Openai(404, "model_not_found", "model");
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    vec![
        post("an empty body", b"", invalid("")),
        post("a broken body", br#"{"model":"m","messages":[{"ro"#, invalid("")),
        post("a comma too many", br#"{"model":"m",}"#, invalid("")),
        post("something behind the body", format!("{} x", good("")).as_bytes(), invalid("")),
        post("an array", b"[]", invalid("")),
        post("a number", b"7", invalid("")),
        post("null", b"null", invalid("")),
        post("no model", format!("{{{MESSAGES}}}").as_bytes(), invalid("model")),
        post("no messages", br#"{"model":"m"}"#, invalid("messages")),
        post("empty messages", br#"{"model":"m","messages":[]}"#, invalid("messages")),
        post("messages as text", br#"{"model":"m","messages":"hello"}"#, invalid("messages")),
        post("messages as an object", br#"{"model":"m","messages":{}}"#, invalid("messages")),
        post("messages as null", br#"{"model":"m","messages":null}"#, invalid("messages")),
        model("a model that is a number", "7", invalid("model")),
        model("a model that is null", "null", invalid("model")),
        model("a model that is an object", "{}", invalid("model")),
        model("an empty model", r#""""#, invalid("model")),
        model("an unknown model", r#""nope""#, unknown()),
        model("a model with control characters", r#""m\u0000\u0007\r\n\u001b[31m""#, unknown()),
        model("a model that looks like a path", r#""../../etc/passwd""#, unknown()),
        model("a model of a megabyte", &format!(r#""{}""#, "m".repeat(1 << 20)), unknown()),
        model("a wild model of a megabyte", &format!(r#""wild-{}""#, "m".repeat(1 << 20)), unknown()),
        model("a model with half a surrogate", r#""m\ud800""#, invalid("model")),
        chat("stream as text", r#","stream":"true""#, invalid("stream")),
        chat("stream as a number", r#","stream":1"#, invalid("stream")),
        chat("stream_options as an array", r#","stream_options":[]"#, invalid("stream_options")),
        chat("include_usage as text", r#","stream_options":{"include_usage":"y"}"#, invalid("stream_options")),
        chat("max_tokens below zero", r#","max_tokens":-1"#, invalid("max_tokens")),
        chat("max_tokens of zero", r#","max_tokens":0"#, invalid("max_tokens")),
        chat("max_tokens as a fraction", r#","max_tokens":1.5"#, invalid("max_tokens")),
        chat("max_tokens as text", r#","max_tokens":"7""#, invalid("max_tokens")),
        chat("max_tokens of 10^30", &format!(r#","max_tokens":1{}"#, "0".repeat(30)), invalid("max_tokens")),
        chat("max_tokens with an exponent", r#","max_tokens":1e3"#, invalid("max_tokens")),
        chat("max_completion_tokens below zero", r#","max_completion_tokens":-9"#, invalid("max_completion_tokens")),
        chat("max_tokens over the burst", r#","max_tokens":20000000"#, Openai(400, "request_exceeds_limit", "")),
        chat(
            "n times max_tokens over the burst",
            r#","n":128,"max_tokens":1000000"#,
            Openai(400, "request_exceeds_limit", ""),
        ),
        chat("both caps", r#","max_tokens":3,"max_completion_tokens":4"#, Served),
        chat("n of 10^9", r#","n":1000000000"#, invalid("n")),
        chat("n of zero", r#","n":0"#, invalid("n")),
        chat("n below zero", r#","n":-1"#, invalid("n")),
        chat("n as text", r#","n":"2""#, invalid("n")),
        chat("service_tier as a number", r#","service_tier":3"#, invalid("service_tier")),
        chat("members twice", r#","max_tokens":3,"max_tokens":4,"model":"m","stream":false,"stream":null"#, Served),
        chat("a member of a thousand levels", &format!(r#","x":{}"#, deep(1_000)), Served),
        chat("a member of a hundred thousand levels", &format!(r#","x":{}"#, deep(100_000)), Served),
        chat(
            "objects of ten thousand levels",
            &format!(r#","x":{}1{}"#, r#"{"a":"#.repeat(10_000), "}".repeat(10_000)),
            Served,
        ),
        post(
            "messages of ten thousand levels",
            format!(r#"{{"model":"m","max_tokens":1,"messages":[{}]}}"#, deep(10_000)).as_bytes(),
            Served,
        ),
        post("ten thousand levels without an end", "[".repeat(10_000).as_bytes(), invalid("")),
        post("invalid UTF-8", &[br#"{"model":"m"#.as_slice(), b"\xff\xfe\"}"].concat(), invalid("")),
        post("UTF-16", &good("").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(), invalid("")),
        post("a byte order mark", format!("\u{feff}{}", good("")).as_bytes(), invalid("")),
        post("NUL in a text", b"{\"model\":\"m\0\",\"messages\":[{}]}", invalid("")),
        post("NUL behind the body", format!("{}\0", good("")).as_bytes(), invalid("")),
        post("only NULs", &[0; 4_096], invalid("")),
        post("a member name of a megabyte", good(&format!(r#","{}":1"#, "x".repeat(1 << 20))).as_bytes(), Served),
        post("fifty thousand members", good(&r#","x":1"#.repeat(50_000)).as_bytes(), Served),
    ]
}

/// How a body is framed, and how slowly it comes.
pub(crate) fn framing(wire: &Wire) -> Vec<Case> {
    let framed = |name, headers: &[&str], body: &[u8], expect| case(name, wire.raw(CHAT, headers, body), expect);
    let too_large = || Openai(413, "request_too_large", "");
    let late = || Openai(408, "request_timeout", "");
    let chunk = |body: &str| format!("{:x}\r\n{body}\r\n", body.len());
    let chunked = "Transfer-Encoding: chunked";
    let sent = |name, send, expect| Case { name, send, expect };
    let megabyte = format!("100000\r\n{}\r\n", "x".repeat(1 << 20)).into_bytes();
    vec![
        framed("50 MB, as it says", &["Content-Length: 52428800"], b"", too_large()),
        framed("50 MB, if it may", &["Content-Length: 52428800", "Expect: 100-continue"], b"", too_large()),
        sent(
            "50 MB that come",
            Send::Pour(wire.raw(CHAT, &["Content-Length: 52428800"], b""), vec![b' '; 1 << 20], 50),
            too_large(),
        ),
        sent("50 MB in chunks", Send::Pour(wire.raw(CHAT, &[chunked], b""), megabyte, 50), too_large()),
        framed("a length of 2^64 and more", &["Content-Length: 99999999999999999999"], b"", Bare(400)),
        framed("a length below zero", &["Content-Length: -1"], b"", Bare(400)),
        framed("a length that is no number", &["Content-Length: ten"], b"", Bare(400)),
        framed("two lengths", &["Content-Length: 2", "Content-Length: 3"], b"{}", Bare(400)),
        framed("a coding nobody knows", &["Transfer-Encoding: zip"], b"", Bare(400)),
        framed("chunks", &[chunked], format!("{}0\r\n\r\n", chunk(&good(""))).as_bytes(), Served),
        framed(
            "chunks with trailers",
            &[chunked],
            format!("{}0\r\nX-T: 1\r\n\r\n", chunk(&good(""))).as_bytes(),
            Served,
        ),
        framed("a chunk of no size", &[chunked], b"zz\r\n{}\r\n0\r\n\r\n", Openai(400, "", "")),
        framed("a chunk of 2^64", &[chunked], b"ffffffffffffffffff\r\n{}", Openai(400, "", "")),
        framed("a chunk that is longer than it says", &[chunked], b"2\r\n{}{}{}\r\n0\r\n\r\n", Openai(400, "", "")),
        sent("a body that stops", Send::Bytes(wire.raw(CHAT, &["Content-Length: 1000"], b"{\"model\"")), late()),
        sent("chunks that stop", Send::Bytes(wire.raw(CHAT, &[chunked], b"5\r\n{\"mod\r\n")), late()),
        sent("a body byte by byte", Send::Drip(wire.raw(CHAT, &["Content-Length: 1000"], b"{")), late()),
        sent("a body cut off", Send::Closed(wire.raw(CHAT, &["Content-Length: 1000"], b"{")), invalid("")),
        sent("half closed behind the request", Send::Closed(wire.chat("")), ServedOrClosed),
        framed(
            "a gzip body",
            &["Content-Encoding: gzip", "Content-Length: 20"],
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            invalid(""),
        ),
        case(
            "JSON under the name of text",
            wire.raw(
                CHAT,
                &["Content-Type: text/plain", &format!("Content-Length: {}", good("").len())],
                good("").as_bytes(),
            ),
            Served,
        ),
        framed(
            "a form",
            &["Content-Type: application/x-www-form-urlencoded", "Content-Length: 7"],
            b"model=m",
            invalid(""),
        ),
    ]
}

/// What stands before the body.
pub(crate) fn heads(wire: &Wire) -> Vec<Case> {
    let bytes = |name, bytes: &[u8], expect| case(name, bytes.to_vec(), expect);
    let with = |name, header: &str, expect| case(name, wire.post_with(&[header], good("").as_bytes()), expect);
    let line = |name, line: &str, expect| {
        let length = format!("Content-Length: {}", good("").len());
        case(name, wire.raw(line, &[length.as_str()], good("").as_bytes()), expect)
    };
    let many: Vec<String> = (0..200).map(|i| format!("X-H{i}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long_path = format!("/v1/{}", "a".repeat(70_000));
    let pour = |name, start: &str, piece: &[u8], times, expect| Case {
        name,
        send: Send::Pour(start.as_bytes().to_vec(), piece.to_vec(), times),
        expect,
    };
    let old = format!(
        "POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{}",
        wire.key,
        good("").len(),
        good("")
    );
    vec![
        case("two hundred headers", wire.post_with(&many, good("").as_bytes()), Bare(431)),
        with("a header of 64 KB", &format!("X-Long: {}", "a".repeat(64 << 10)), Bare(431)),
        pour("a header of 10 MB", "POST /v1/chat/completions HTTP/1.1\r\nX: ", &[b'a'; 1 << 16], 160, Bare(431)),
        pour("headers without end", "POST /v1/chat/completions HTTP/1.1\r\n", b"X: 1\r\n", 100_000, Bare(431)),
        case("a path of 70 KB", wire.get(&long_path, &[]), Bare(431)),
        with("a header without a colon", "X-Header", Bare(400)),
        with("NUL in a header", "X-Header: a\0b", Bare(400)),
        with("a space in a header's name", "X Header: a", Bare(400)),
        with("an empty header name", ": a", Bare(400)),
        bytes("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", Bare(400)),
        bytes("only line ends and NULs", b"\r\n\r\n\0\0\0\0\r\n\r\n", Bare(400)),
        bytes("another protocol", b"EHLO gateway\r\nMAIL FROM:<a@b>\r\n\r\n", Bare(400)),
        line("an unknown version", "POST /v1/chat/completions HTTP/9.9", Bare(400)),
        line("a request line without a version", "POST /v1/chat/completions", Bare(400)),
        line("a path without a slash", "POST v1/chat/completions HTTP/1.1", Bare(400)),
        bytes("a head that stops", b"POST /v1/chat/completions HTTP/1.1\r\nHost: ga", Closed),
        Case {
            name: "a head byte by byte",
            send: Send::Drip(b"POST /v1/chat/completions HTTP/1.1\r\nX:".to_vec()),
            expect: Closed,
        },
        bytes("nothing at all", b"", Closed),
        bytes("one letter", b"P", Closed),
        bytes("half of HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\n", Closed),
        bytes("HTTP/2 and then none", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n", Closed),
        case("HTTP/1.0", old.into_bytes(), Served),
        line("an absolute address", "POST http://gateway/v1/chat/completions HTTP/1.1", Served),
        case("no key", without_key(""), Openai(401, "invalid_api_key", "")),
        case("an empty key", without_key("Authorization: Bearer \r\n"), Openai(401, "invalid_api_key", "")),
        case(
            "another scheme",
            without_key("Authorization: Basic dG9rOnRvaw==\r\n"),
            Openai(401, "invalid_api_key", ""),
        ),
        case(
            "a key without a scheme",
            without_key(&format!("Authorization: {}\r\n", wire.key)),
            Openai(401, "invalid_api_key", ""),
        ),
        case(
            "an unknown key",
            without_key("Authorization: Bearer tok_0000000000\r\n"),
            Openai(401, "invalid_api_key", ""),
        ),
        case(
            "a key that is nearly right",
            without_key(&format!("Authorization: Bearer {}x\r\n", wire.key)),
            Openai(401, "invalid_api_key", ""),
        ),
        case(
            "a key of 16 KB",
            without_key(&format!("Authorization: Bearer {}\r\n", "k".repeat(16 << 10))),
            Openai(401, "invalid_api_key", ""),
        ),
        case(
            "a key that is no text",
            without_key("Authorization: Bearer tok_\u{fffd}ż\r\n"),
            Openai(401, "invalid_api_key", ""),
        ),
        case("the key in the address", keyed_address(wire), Openai(401, "invalid_api_key", "")),
        with("a priority of words", "X-Tokligence-Priority: high", invalid("x-tokligence-priority")),
        with("a priority below zero", "X-Tokligence-Priority: -1", invalid("x-tokligence-priority")),
        with("a priority of 32", "X-Tokligence-Priority: 32", invalid("x-tokligence-priority")),
        with("an empty priority", "X-Tokligence-Priority:", invalid("x-tokligence-priority")),
        with("a wait of words", "X-Tokligence-Timeout-Ms: soon", invalid("x-tokligence-timeout-ms")),
        with("a wait below zero", "X-Tokligence-Timeout-Ms: -5", invalid("x-tokligence-timeout-ms")),
        with("a wait of 2^64", "X-Tokligence-Timeout-Ms: 18446744073709551616", invalid("x-tokligence-timeout-ms")),
    ]
}

fn without_key(header: &str) -> Vec<u8> {
    let body = good("");
    format!("{CHAT}\r\nHost: gateway\r\n{header}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn keyed_address(wire: &Wire) -> Vec<u8> {
    let body = good("");
    let line = format!("POST /v1/chat/completions?key={} HTTP/1.1", wire.key);
    format!("{line}\r\nHost: gateway\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Where a request goes.
pub(crate) fn routes(wire: &Wire) -> Vec<Case> {
    let get = |name, path: &str, headers: &[&str], expect| case(name, wire.get(path, headers), expect);
    let unknown = || Openai(404, "unknown_url", "");
    let method = |name, line: &str| {
        case(name, wire.raw(line, &["Content-Length: 0"], b""), Openai(405, "method_not_supported", ""))
    };
    vec![
        get("an unknown route", "/v1/nope", &[], unknown()),
        get(
            "an unknown route of Anthropic's",
            "/v1/nope",
            &["anthropic-version: 2023-06-01"],
            Anthropic(404, "not_found_error"),
        ),
        get("an unknown route of Gemini's, by key", "/v1/nope", &["x-goog-api-key: k"], Gemini(404, "NOT_FOUND")),
        get("an unknown route of Gemini's, by address", "/v1/nope?key=k", &[], Gemini(404, "NOT_FOUND")),
        get("an unknown route of Gemini's, by verb", "/v9/models/m:sing", &[], Gemini(404, "NOT_FOUND")),
        get("a way up", "/v1/../../etc/passwd", &[], unknown()),
        get("a NUL in the path", "/v1/%00", &[], unknown()),
        get("an unknown model", "/v1/models/nope", &[], Openai(404, "model_not_found", "model")),
        get("a model that is no text", "/v1/models/%ff%fe", &[], Openai(404, "model_not_found", "model")),
        get("the admin routes with an API key", "/api/v1/admin/keys", &[], Admin(403, "forbidden")),
        method("GET where there is POST", "GET /v1/chat/completions HTTP/1.1"),
        method("a method nobody knows", "BREW /v1/chat/completions HTTP/1.1"),
        method("DELETE of the models", "DELETE /v1/models HTTP/1.1"),
    ]
}
