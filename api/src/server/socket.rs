//! A client's socket that tells which version of HTTP it speaks, and gives up on a client who does not read, or who says
//! nothing at first. Without that, an answer nobody takes would hold its permit for ever, and a silent connection its
//! place: the HTTP library's own timer begins only once the version is known.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// What a connection of HTTP/2 begins with. Source: RFC 9113, 3.4.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until it has said which version of HTTP it speaks.
    pub(super) first_bytes: Duration,
    /// Until a write moves on.
    pub(super) write: Duration,
}

/// The versions of HTTP that are spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Any of 1.
    One,
    /// 2, without TLS, by prior knowledge.
    Two,
}

/// A socket whose first bytes have to come, and whose writes have to move on, within a time.
pub(super) struct Socket {
    stream: TcpStream,
    patience: Patience,
    /// The first bytes, read to tell the version, to be read again from `given` to `heard`.
    first: [u8; PREFACE.len()],
    heard: usize,
    given: usize,
    /// Set while a write waits; made at the first such wait.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, patience: Patience) -> Self {
        Self { stream, patience, first: [0; PREFACE.len()], heard: 0, given: 0, stalled: None }
    }

    /// Waits until the first bytes tell the version.
    ///
    /// # Errors
    /// When they do not come in time, or the connection breaks.
    pub(super) async fn version(&mut self) -> io::Result<Version> {
        tokio::time::timeout(self.patience.first_bytes, self.listen()).await?
    }

    async fn listen(&mut self) -> io::Result<Version> {
        while self.heard < PREFACE.len() {
            let read = self.stream.read(&mut self.first[self.heard..]).await?;
            self.heard += read;
            if read == 0 || !PREFACE.starts_with(&self.first[..self.heard]) {
                return Ok(Version::One);
            }
        }
        Ok(Version::Two)
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience.write)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.given == self.heard {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let room = buf.remaining().min(self.heard - self.given);
        buf.put_slice(&self.first[self.given..self.given + room]);
        self.given += room;
        // What follows comes along: hyper doubles its buffer for a head that comes in pieces, and keeps it that large.
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Err(broken)) => Poll::Ready(Err(broken)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
