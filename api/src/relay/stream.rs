//! Relays a stream: each event goes on as soon as it is whole. Runs inside the connection's task, without one of its
//! own and without a channel; dropping it (the client is gone) drops the upstream's connection and settles.

use super::{LINGER, Terms};
use crate::chat::{Keep, Seen};
use crate::dialect::openai::answer;
use crate::envelope;
use crate::error::Error;
use crate::settlement::{By, Call, Ending};
use crate::sse::{Judge, Scanner};
use crate::upstream::Client;
use crate::usage::RequestId;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// The body of a streamed reply.
pub(super) struct Relay {
    /// Gone once the stream has ended.
    upstream: Option<reqwest::Body>,
    scanner: Scanner,
    reader: Reader,
    call: Option<Call>,
    id: RequestId,
    http_status: u16,
    idle_max: Duration,
    last_byte: Instant,
    deadline: Instant,
    alarm: Pin<Box<Sleep>>,
}

struct Reader {
    seen: Seen,
    usage_injected: bool,
}

impl Judge for Reader {
    fn judge(&mut self, data: &[u8]) -> Keep {
        answer::read_event(data, self.usage_injected, &mut self.seen)
    }

    fn is_done(&self) -> bool {
        self.seen.done
    }
}

impl Relay {
    pub(super) fn new(client: &Client, call: Call, status: StatusCode, upstream: reqwest::Body, terms: Terms) -> Self {
        let now = Instant::now();
        Self {
            upstream: Some(upstream),
            scanner: Scanner::new(client.event_bytes_max),
            reader: Reader { seen: Seen::new(terms.meter), usage_injected: terms.usage_injected },
            call: Some(call),
            id: terms.id,
            http_status: status.as_u16(),
            idle_max: client.idle_max,
            last_byte: now,
            deadline: terms.deadline,
            alarm: Box::pin(tokio::time::sleep_until(terms.deadline.min(now + client.idle_max))),
        }
    }

    /// Takes bytes of the upstream; gives what goes on, if anything.
    fn take(&mut self, chunk: Bytes) -> Option<Bytes> {
        self.last_byte = Instant::now();
        match self.scanner.push(chunk, &mut self.reader) {
            Err(_) => Some(self.fail(&Error::UpstreamBroken("holds an event that is too large"))),
            Ok(out) => {
                if self.reader.seen.done {
                    self.settle(None);
                    self.linger();
                }
                (!out.is_empty()).then_some(out)
            }
        }
    }

    /// The upstream closed the stream.
    fn close(&mut self) -> Option<Bytes> {
        self.upstream = None;
        let rest = self.scanner.finish(&mut self.reader);
        if !self.reader.seen.done && !self.reader.seen.finished {
            return Some(self.fail(&Error::UpstreamCut));
        }
        self.settle(None);
        (!rest.is_empty()).then_some(rest)
    }

    /// Ends a stream that broke: settles what came, and tells the client.
    fn fail(&mut self, error: &Error) -> Bytes {
        tracing::warn!(request_id = %self.id, %error, "stream broke");
        self.upstream = None;
        self.settle(Some(By::of(error)));
        Bytes::from(envelope::event(error, self.id))
    }

    fn settle(&mut self, cut: Option<By>) {
        let Some(call) = self.call.take() else { return };
        let usage = self.reader.seen.usage(call.prompt_counted, call.reserved);
        let http_status = self.http_status;
        call.end(match cut {
            None => Ending::Answered { http_status, usage },
            Some(by) => Ending::Cut { http_status, usage, by },
        });
    }

    /// Reads the rest behind the end mark, which is almost always there already, so that the connection is used again.
    fn linger(&mut self) {
        let Some(mut upstream) = self.upstream.take() else { return };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        loop {
            match Pin::new(&mut upstream).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return,
                Poll::Pending => break,
            }
        }
        tokio::spawn(async move {
            let rest = async { while let Some(Ok(_)) = upstream.frame().await {} };
            // A connection that lingers longer is closed instead of used again.
            let _ = tokio::time::timeout(LINGER, rest).await;
        });
    }

    /// Whether the stream was silent for too long, or lasts too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> bool {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let until = self.deadline.min(self.last_byte + self.idle_max);
            if Instant::now() >= until {
                return true;
            }
            self.alarm.as_mut().reset(until);
        }
        false
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        while let Some(upstream) = &mut this.upstream {
            let out = match Pin::new(upstream).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame.into_data().ok().and_then(|chunk| this.take(chunk)),
                Poll::Ready(Some(Err(_))) => Some(this.fail(&Error::UpstreamCut)),
                Poll::Ready(None) => this.close(),
                Poll::Pending if this.poll_late(cx) => Some(this.fail(&Error::UpstreamTimeout)),
                Poll::Pending => return Poll::Pending,
            };
            if let Some(out) = out {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.upstream.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.settle(Some(By::Us));
    }
}
