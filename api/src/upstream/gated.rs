//! A request body that opens the gate itself. The HTTP/1 client asks for the first piece of the body in the same breath
//! in which it writes out the head, with a connection already in hand; an error there keeps the head from the wire. So
//! the clock is read at the last moment there is. Over HTTP/2 the head may be out before; the stream is then reset, and
//! no upstream acts on a request without its body.

use crate::settlement::Gate;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The request came to the wire too late for its admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too late for its admission")]
pub(super) struct TooLate;

/// A body in one piece, behind a gate.
pub(super) struct Gated {
    bytes: Option<Bytes>,
    gate: Gate,
}

impl Gated {
    pub(super) fn new(bytes: Bytes, gate: Gate) -> Self {
        Self { bytes: Some(bytes), gate }
    }
}

impl Body for Gated {
    type Data = Bytes;
    type Error = TooLate;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        Poll::Ready(Some(if self.gate.pass() { Ok(Frame::data(bytes)) } else { Err(TooLate) }))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, Bytes::len) as u64)
    }
}
