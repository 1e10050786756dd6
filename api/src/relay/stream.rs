//! Relays a stream: each event goes on as soon as it is whole. Runs inside the connection's task, without one of its
//! own and without a channel; dropping it (the client is gone) drops the upstream's connection and settles.

use super::{LINGER, Terms};
use crate::chat::{Event, Keep, Seen};
use crate::dialect::gemini::reply::Framing;
use crate::dialect::openai::answer;
use crate::dialect::{self, Family, Wire, Writer};
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

/// Reads the upstream's events as they pass, and writes the client's where those are others.
struct Reader {
    seen: Seen,
    family: Family,
    id: RequestId,
    usage_injected: bool,
    /// None where OpenAI's chat completions only pass.
    reader: Option<dialect::Reader>,
    form: Form,
    events: Vec<Event>,
    /// What was written for the client since it was last taken.
    out: Vec<u8>,
    /// What is wrong with the upstream's events.
    broken: Option<&'static str>,
    /// The upstream told an error of its own.
    failed: bool,
}

/// What becomes of the upstream's events.
enum Form {
    /// They pass.
    Same,
    /// They pass as the elements of an array.
    Array(Framing),
    /// They are written anew.
    Other(Box<Writer>),
}

impl Reader {
    fn new(terms: Terms) -> Self {
        let reader = dialect::Reader::new(terms.upstream, &terms.meta.id);
        let form = match terms.client == terms.upstream {
            true if terms.meta.is_array => Form::Array(Framing::new(true)),
            true => Form::Same,
            false => Form::Other(Box::new(Writer::new(terms.client, terms.meta))),
        };
        Self {
            seen: Seen::new(terms.meter),
            family: terms.client.family(),
            id: terms.id,
            usage_injected: terms.usage_injected,
            reader: (terms.upstream != Wire::Chat || terms.client != Wire::Chat).then_some(reader),
            form,
            events: Vec::new(),
            out: Vec::new(),
            broken: None,
            failed: false,
        }
    }

    /// Writes the end of a stream that came to it.
    fn end(&mut self) {
        match &mut self.form {
            Form::Same => {}
            Form::Array(framing) => framing.end(&mut self.out),
            Form::Other(writer) => writer.end(&mut self.out),
        }
    }

    fn write(&mut self, event: Event) {
        if let Event::Failed(failure) = &event {
            self.failed = true;
            if matches!(self.form, Form::Other(_)) {
                self.out.extend_from_slice(envelope::failure_event(failure, self.family, self.id).as_bytes());
            }
            return;
        }
        if let Form::Other(writer) = &mut self.form {
            writer.event(event, &mut self.out);
        }
    }

    /// What goes on to the client: the scanned bytes, or what was written instead of them.
    fn goes_on(&mut self, passed: Bytes) -> Bytes {
        if matches!(self.form, Form::Same) { passed } else { Bytes::from(std::mem::take(&mut self.out)) }
    }
}

impl Judge for Reader {
    fn judge(&mut self, data: &[u8]) -> Keep {
        if self.failed || self.broken.is_some() {
            return Keep::All;
        }
        let Some(reader) = &mut self.reader else {
            return answer::read_event(data, self.usage_injected, &mut self.seen);
        };
        let outcome = reader.event(data, &mut self.events);
        for event in std::mem::take(&mut self.events) {
            self.seen.note(&event);
            self.write(event);
        }
        if let Form::Array(framing) = &mut self.form {
            framing.put(&mut self.out, &String::from_utf8_lossy(data));
        }
        if let (Err(cause), false) = (outcome, matches!(self.form, Form::Same)) {
            self.broken = Some(cause);
        }
        Keep::All
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
            id: terms.id,
            deadline: terms.deadline,
            call: Some(call),
            http_status: status.as_u16(),
            idle_max: client.idle_max,
            last_byte: now,
            alarm: Box::pin(tokio::time::sleep_until(terms.deadline.min(now + client.idle_max))),
            reader: Reader::new(terms),
        }
    }

    /// Takes bytes of the upstream; gives what goes on, if anything.
    fn take(&mut self, chunk: Bytes) -> Option<Bytes> {
        self.last_byte = Instant::now();
        match self.scanner.push(chunk, &mut self.reader) {
            Err(_) => Some(self.fail(&Error::UpstreamBroken("holds an event that is too large"))),
            Ok(passed) => {
                if let Some(ended) = self.break_off() {
                    return Some(ended);
                }
                if self.reader.seen.done {
                    self.settle(None);
                    self.reader.end();
                    self.linger();
                }
                let out = self.reader.goes_on(passed);
                (!out.is_empty()).then_some(out)
            }
        }
    }

    /// Ends a translated stream whose upstream told an error, or told what nobody can read.
    fn break_off(&mut self) -> Option<Bytes> {
        if matches!(self.reader.form, Form::Same) {
            return None;
        }
        if let Some(cause) = self.reader.broken {
            return Some(self.fail(&Error::UpstreamBroken(cause)));
        }
        if self.reader.failed {
            self.upstream = None;
            self.settle(Some(By::Upstream));
            if let Form::Array(framing) = &mut self.reader.form {
                framing.end(&mut self.reader.out);
            }
            return Some(self.reader.goes_on(Bytes::new()));
        }
        None
    }

    /// The upstream closed the stream.
    fn close(&mut self) -> Option<Bytes> {
        self.upstream = None;
        let rest = self.scanner.finish(&mut self.reader);
        if let Some(ended) = self.break_off() {
            return Some(ended);
        }
        if !self.reader.seen.done && !self.reader.seen.finished {
            return Some(self.fail(&Error::UpstreamCut));
        }
        if !self.reader.seen.done {
            self.reader.end();
        }
        self.settle(None);
        let rest = self.reader.goes_on(rest);
        (!rest.is_empty()).then_some(rest)
    }

    /// Ends a stream that broke: settles what came, and tells the client.
    fn fail(&mut self, error: &Error) -> Bytes {
        tracing::warn!(request_id = %self.id, %error, "stream broke");
        self.upstream = None;
        self.settle(Some(By::of(error)));
        let event = envelope::event(error, self.reader.family, self.id);
        if let Form::Array(_) = self.reader.form {
            self.reader.out.extend_from_slice(b",");
        }
        self.reader.out.extend_from_slice(event.as_bytes());
        Bytes::from(std::mem::take(&mut self.reader.out))
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
