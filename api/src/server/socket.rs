//! A client's socket that gives up on a client who does not read, or who says nothing at first. Without that, an answer
//! nobody takes would hold its permit for ever, and a silent connection its place: the HTTP library's own timer begins
//! only once it knows which version of HTTP is spoken.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// Bytes that tell the version for certain: HTTP/2's preface. Source: RFC 9113, 3.4.
const PREFACE_BYTES: usize = 24;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until it has said which version of HTTP it speaks.
    pub(super) first_bytes: Duration,
    /// Until a write moves on.
    pub(super) write: Duration,
}

/// A socket whose first bytes have to come, and whose writes have to move on, within a time.
pub(super) struct Socket {
    stream: TcpStream,
    patience: Patience,
    /// How many bytes were read; counted to the preface's end only.
    heard: usize,
    /// Set from the first wait for bytes until the preface's end.
    silent: Option<Pin<Box<Sleep>>>,
    /// Set while a write waits; made at the first such wait.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, patience: Patience) -> Self {
        Self { stream, patience, heard: 0, silent: None, stalled: None }
    }

    fn listen(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if outcome.is_ready() {
            self.heard += buf.filled().len() - before;
            if self.heard >= PREFACE_BYTES {
                self.silent = None;
            }
            return outcome;
        }
        let silent = self.silent.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience.first_bytes)));
        ready!(silent.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
        if self.heard >= PREFACE_BYTES {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        self.listen(cx, buf)
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
