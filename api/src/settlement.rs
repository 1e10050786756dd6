//! One upstream call from its intent to its end: holds the reservation and the journal's record, and ends both
//! together, exactly once, whatever becomes of the request.

use crate::admission::Admitted;
use crate::chat::Usage;
use crate::metrics::{Ended, Metrics};
use crate::usage::{Open, Settled, Status};
use std::sync::Arc;
use std::time::Duration;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The upstream answered to the end.
    Answered { http_status: u16, usage: Usage },
    /// The answer broke off after so much.
    Cut { http_status: u16, usage: Usage },
    /// No answer came, and what the upstream did is unknown: the whole reservation is charged.
    Unknown,
    /// The upstream never heard of it.
    NotSent,
}

/// A call that is running. Dropping it ends it: with what was counted where it streams, else as unknown.
#[derive(Debug)]
pub(crate) struct Call {
    held: Option<(Admitted, Open)>,
    metrics: Arc<Metrics>,
    pub(crate) prompt_counted: u64,
    pub(crate) reserved: u64,
    streamed: bool,
    wait: Duration,
    started_us: u64,
}

impl Call {
    pub(crate) fn new(
        admitted: Admitted,
        open: Open,
        metrics: Arc<Metrics>,
        prompt_counted: u64,
        streamed: bool,
    ) -> Self {
        metrics.in_flight.inc();
        Self {
            reserved: admitted.tokens,
            wait: admitted.wait,
            held: Some((admitted, open)),
            metrics,
            prompt_counted,
            streamed,
            started_us: raft::clock::boot_us(),
        }
    }

    /// Ends the call. To be called before the last byte of the reply is given to the client.
    pub(crate) fn end(mut self, ending: Ending) {
        self.close(ending);
    }

    fn close(&mut self, ending: Ending) {
        let Some((admitted, open)) = self.held.take() else { return };
        let (status, http_status, usage, charged) = match ending {
            Ending::Answered { http_status, usage } => (Status::Ok, http_status, usage, usage.total()),
            Ending::Cut { http_status, usage } => (Status::Cut, http_status, usage, usage.total()),
            Ending::NotSent => (Status::Cut, 0, Usage::default(), 0),
            Ending::Unknown => (Status::Cut, 0, self.in_full(), self.reserved),
        };
        let settled = Settled {
            status,
            prompt_tokens: usage.prompt,
            completion_tokens: usage.completion,
            charged_tokens: charged,
            http_status,
            streamed: self.streamed,
            latency_us: raft::clock::boot_us().saturating_sub(self.started_us),
            wait_us: u64::try_from(self.wait.as_micros()).unwrap_or(u64::MAX),
        };
        let call = open.intent().call;
        if let Err(cause) = open.settle(&settled) {
            tracing::error!(request_id = %call.request, %cause, "the journal cannot be written; a restart charges the call in full");
        }
        admitted.settle(charged);
        self.metrics.in_flight.dec();
        self.metrics.settled(usage.prompt, usage.completion, self.reserved);
        self.metrics.ended(match status {
            Status::Ok if (200..300).contains(&http_status) => Ended::Ok,
            Status::Ok => Ended::Refused,
            Status::Cut | Status::Lost => Ended::Cut,
        });
    }

    fn in_full(&self) -> Usage {
        let prompt = self.prompt_counted.min(self.reserved);
        Usage { prompt, completion: self.reserved - prompt }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let usage = Usage { prompt: self.prompt_counted, completion: 0 };
        self.close(if self.streamed { Ending::Cut { http_status: 0, usage } } else { Ending::Unknown });
    }
}
