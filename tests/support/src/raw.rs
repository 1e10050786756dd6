//! A client that sends bytes, whatever they are, and reads what comes back: for requests that no proper HTTP client
//! would send.

use bytes::{Buf, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// One connection.
#[derive(Debug)]
pub struct RawConn {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    ahead: BytesMut,
}

/// A reply as it came.
#[derive(Clone, Debug)]
pub struct RawReply {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks put together.
    pub body: Vec<u8>,
}

impl RawReply {
    /// A header's value; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl RawConn {
    /// Connects to `ADDR:PORT`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader, writer, ahead: BytesMut::new() })
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    /// Sends `piece` again and again, `times` times, until the peer is gone or answers.
    pub async fn pour(&mut self, piece: &[u8], times: usize) {
        for _ in 0..times {
            let Self { reader, writer, ahead } = self;
            tokio::select! {
                biased;
                _ = reader.read_buf(ahead) => return,
                sent = writer.write_all(piece) => if sent.is_err() { return },
            }
        }
    }

    /// Sends `piece` again and again with pauses between, until a reply comes or the peer is gone.
    pub async fn drip(&mut self, piece: &[u8], every: Duration) -> Option<RawReply> {
        loop {
            match tokio::time::timeout(every, self.head()).await {
                Ok(head) => {
                    let (head, length) = head?;
                    let body = self.body(length).await?;
                    return Some(RawReply { body, ..head });
                }
                Err(_) => self.writer.write_all(piece).await.ok()?,
            }
        }
    }

    /// Says that nothing more is sent, and goes on reading.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.writer.shutdown().await
    }

    /// Closes with a TCP reset.
    ///
    /// # Errors
    /// When the option cannot be set.
    pub fn reset(self) -> io::Result<()> {
        self.reader.reunite(self.writer).map_err(io::Error::other)?.set_zero_linger()
    }

    /// Reads the next reply; `None` when the peer closed, or broke off, before it was whole. Interim replies (1xx) are
    /// skipped.
    pub async fn reply(&mut self) -> Option<RawReply> {
        loop {
            let (head, length) = self.head().await?;
            if head.status >= 200 {
                let body = self.body(length).await?;
                return Some(RawReply { body, ..head });
            }
        }
    }

    /// Waits until so many bytes have come, or the peer closed.
    pub async fn bytes(&mut self, count: usize) {
        while self.ahead.len() < count && self.more().await.is_some() {}
    }

    /// Waits until the peer closes; gives the bytes that it still sent.
    pub async fn closed(&mut self) -> Vec<u8> {
        while self.more().await.is_some() {}
        std::mem::take(&mut self.ahead).to_vec()
    }

    async fn head(&mut self) -> Option<(RawReply, Length)> {
        loop {
            let mut slots = [httparse::EMPTY_HEADER; 128];
            let mut parsed = httparse::Response::new(&mut slots);
            if let httparse::Status::Complete(len) = parsed.parse(&self.ahead).ok()? {
                let headers: Vec<(String, String)> = parsed
                    .headers
                    .iter()
                    .map(|h| (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).into_owned()))
                    .collect();
                let head = RawReply { status: parsed.code?, headers, body: Vec::new() };
                self.ahead.advance(len);
                let length = match (head.header("content-length").parse(), head.header("transfer-encoding")) {
                    (_, "chunked") => Length::Chunked,
                    (Ok(bytes), _) => Length::Bytes(bytes),
                    _ if head.status < 200 || head.status == 204 => Length::Bytes(0),
                    _ => Length::UntilClosed,
                };
                return Some((head, length));
            }
            self.more().await?;
        }
    }

    async fn body(&mut self, length: Length) -> Option<Vec<u8>> {
        match length {
            Length::Bytes(bytes) => self.take(bytes).await,
            Length::UntilClosed => Some(self.closed().await),
            Length::Chunked => {
                let mut body = Vec::new();
                loop {
                    let line = self.line().await?;
                    let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
                    body.extend_from_slice(&self.take(size).await?);
                    self.line().await?;
                    if size == 0 {
                        return Some(body);
                    }
                }
            }
        }
    }

    async fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < bytes {
            self.more().await?;
        }
        Some(self.ahead.split_to(bytes).to_vec())
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.ahead, b"\r\n") {
                let line = self.ahead.split_to(end);
                self.ahead.advance(2);
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Option<()> {
        match self.reader.read_buf(&mut self.ahead).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }
}

enum Length {
    Bytes(usize),
    Chunked,
    UntilClosed,
}
