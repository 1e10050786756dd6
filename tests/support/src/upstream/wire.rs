//! HTTP/1.1 as bytes: reads requests, frames replies. Written by hand because the scripted upstream has to do to a
//! connection what a proper HTTP server will not: stop in mid-body, close, reset, send garbage.

use crate::clock;
use bytes::{Buf, Bytes, BytesMut};
use std::fmt::Write as _;
use std::future::Future;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MAX_HEAD: usize = 256 * 1024;
const MAX_AHEAD: usize = 1024 * 1024;

/// One request as it came.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) keep_alive: bool,
    /// When the whole head had been read, on the boot clock.
    pub(crate) arrived_us: u64,
}

impl Request {
    /// The value of a header, its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// The client went away, or its bytes make no sense.
#[derive(Debug)]
pub(crate) struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// A connection and what was read ahead of it.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    ahead: BytesMut,
}

impl Conn {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // Without it small chunks wait for the peer's delayed acknowledgement; a failure only costs time.
        let _ = stream.set_nodelay(true);
        Self { stream, ahead: BytesMut::with_capacity(8 * 1024) }
    }

    /// Reads the next request; `None` at a clean end.
    pub(crate) async fn read(&mut self) -> Result<Option<Request>, Gone> {
        let head = loop {
            if let Some(head) = parse_head(&self.ahead)? {
                break head;
            }
            if self.ahead.len() > MAX_HEAD {
                return Err(Gone);
            }
            if self.stream.read_buf(&mut self.ahead).await? == 0 {
                return if self.ahead.is_empty() { Ok(None) } else { Err(Gone) };
            }
        };
        self.ahead.advance(head.len);
        let mut request = head.request;
        request.arrived_us = clock::boot_us();
        if head.expects_continue {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        request.body = match head.length {
            Length::Bytes(length) => self.take(length).await?,
            Length::Chunked => self.take_chunked().await?,
        };
        Ok(Some(request))
    }

    /// Writes all of it.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Does `work`, unless the client closes first.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Gone> {
        tokio::pin!(work);
        loop {
            if self.ahead.len() > MAX_AHEAD {
                return Ok(work.await);
            }
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                read = self.stream.read_buf(&mut self.ahead) => {
                    if read? == 0 {
                        return Err(Gone);
                    }
                }
            }
        }
    }

    /// Makes the close that follows a TCP reset.
    pub(crate) fn reset(&self) {
        // When the option cannot be set, the close is an ordinary one: a weaker fault, not a wrong one.
        let _ = self.stream.set_zero_linger();
    }

    async fn fill(&mut self, length: usize) -> Result<(), Gone> {
        self.ahead.reserve(length.saturating_sub(self.ahead.len()));
        while self.ahead.len() < length {
            if self.stream.read_buf(&mut self.ahead).await? == 0 {
                return Err(Gone);
            }
        }
        Ok(())
    }

    async fn take(&mut self, length: usize) -> Result<Bytes, Gone> {
        self.fill(length).await?;
        Ok(self.ahead.split_to(length).freeze())
    }

    async fn take_line(&mut self) -> Result<Bytes, Gone> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.ahead, b"\r\n") {
                let line = self.ahead.split_to(end).freeze();
                self.ahead.advance(2);
                return Ok(line);
            }
            self.fill(self.ahead.len() + 1).await?;
        }
    }

    async fn take_chunked(&mut self) -> Result<Bytes, Gone> {
        let mut body = BytesMut::new();
        loop {
            let line = self.take_line().await?;
            let digits = line.split(|&b| b == b';').next().unwrap_or_default();
            let text = std::str::from_utf8(digits).map_err(|_| Gone)?;
            let length = usize::from_str_radix(text.trim(), 16).map_err(|_| Gone)?;
            if length == 0 {
                while !self.take_line().await?.is_empty() {}
                return Ok(body.freeze());
            }
            body.extend_from_slice(&self.take(length).await?);
            self.take(2).await?;
        }
    }
}

enum Length {
    Bytes(usize),
    Chunked,
}

struct Head {
    request: Request,
    len: usize,
    length: Length,
    expects_continue: bool,
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Gone> {
    let mut slots = [httparse::EMPTY_HEADER; 96];
    let mut parsed = httparse::Request::new(&mut slots);
    let httparse::Status::Complete(len) = parsed.parse(bytes).map_err(|_| Gone)? else {
        return Ok(None);
    };
    let mut length = Length::Bytes(0);
    let mut keep_alive = parsed.version == Some(1);
    let mut expects_continue = false;
    let mut headers = Vec::with_capacity(parsed.headers.len());
    for header in parsed.headers.iter() {
        let name = header.name.to_ascii_lowercase();
        let value = String::from_utf8_lossy(header.value).into_owned();
        match name.as_str() {
            "content-length" => length = Length::Bytes(value.trim().parse().map_err(|_| Gone)?),
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => length = Length::Chunked,
            "connection" if value.eq_ignore_ascii_case("close") => keep_alive = false,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => keep_alive = true,
            "expect" => expects_continue = true,
            _ => {}
        }
        headers.push((name, value));
    }
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: parsed.path.unwrap_or_default().to_owned(),
        headers,
        body: Bytes::new(),
        keep_alive,
        arrived_us: 0,
    };
    Ok(Some(Head { request, len, length, expects_continue }))
}

/// How long a reply's body is.
pub(crate) enum Framing {
    Length(usize),
    Chunked,
}

/// The head of a reply, with its final empty line.
pub(crate) fn head(status: u16, content_type: &str, extra: &[(String, String)], framing: &Framing) -> Vec<u8> {
    let mut text = String::with_capacity(160);
    let typed = extra.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    // Writing to a string cannot fail.
    let _ = write!(text, "HTTP/1.1 {status} {}\r\n", reason(status));
    if !typed {
        let _ = write!(text, "content-type: {content_type}\r\n");
    }
    for (name, value) in extra {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let _ = match framing {
        Framing::Length(length) => write!(text, "content-length: {length}\r\n\r\n"),
        Framing::Chunked => write!(text, "transfer-encoding: chunked\r\n\r\n"),
    };
    text.into_bytes()
}

/// Appends one HTTP chunk.
pub(crate) fn chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// What ends a chunked body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Scripted",
    }
}
