//! One upstream call from its intent to its end: holds the reservation and the journal's record, and ends both
//! together, exactly once, whatever becomes of the request. Its [`Gate`] lets the request out to the upstream, or not,
//! at the last moment (rule g of the ledger).

use crate::admission::Admitted;
use crate::app::App;
use crate::chat::Usage;
use crate::error::Error;
use crate::metrics::{Ended, Metrics};
use crate::prices::Price;
use crate::usage::{Open, Settled, Status};
use ledger::model::Spend;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The upstream answered to the end. What it says it used is charged: of a refusal of its own that is nothing, as
    /// with the vendors themselves, unless the refusal names a usage.
    Answered { http_status: u16, usage: Usage },
    /// The answer broke off after so much.
    Cut { http_status: u16, usage: Usage, by: By },
    /// No answer came, and what the upstream did is unknown: the whole reservation is charged.
    Unknown { by: By },
}

/// Who broke a call off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The upstream, which is done with it.
    Upstream,
    /// We, so that the upstream may take a moment to see it: what was reserved stays taken for that long.
    Us,
}

impl By {
    /// Who broke off a call that failed so.
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::UpstreamUnreachable | Error::UpstreamCut => Self::Upstream,
            _ => Self::Us,
        }
    }
}

/// What stands between a request and the wire.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Mutex<Hold>>);

#[derive(Debug)]
struct Hold {
    /// Gone once the call has ended.
    admitted: Option<Admitted>,
    passed: Passed,
}

/// Whether the request went through its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It has not come to it.
    NotYet,
    /// It is on the wire.
    Yes,
    /// It came too late; it has to be admitted again.
    TooLate,
}

impl Gate {
    /// Asks, right before the request head is written, whether that may be done.
    pub(crate) fn pass(&self) -> bool {
        let mut hold = self.lock();
        let may_send = hold.admitted.as_mut().is_some_and(Admitted::may_send);
        hold.passed = if may_send { Passed::Yes } else { Passed::TooLate };
        may_send
    }

    fn lock(&self) -> MutexGuard<'_, Hold> {
        // What is held stays right when a thread panics beside it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is running. Dropping it ends it: with what was counted where it streams, else as unknown. However it ends,
/// a call that never passed its gate is void: everything is given back, and there is no usage row.
#[derive(Debug)]
pub(crate) struct Call {
    /// Gone once the call has ended.
    open: Option<Open>,
    gate: Gate,
    metrics: Arc<Metrics>,
    cancel_grace: Duration,
    pub(crate) prompt_counted: u64,
    pub(crate) reserved: u64,
    price: Price,
    streamed: bool,
    wait: Duration,
    started_us: u64,
}

impl Call {
    pub(crate) fn new(
        admitted: Admitted,
        open: Open,
        app: &App,
        prompt_counted: u64,
        price: Price,
        streamed: bool,
    ) -> Self {
        app.metrics.in_flight.inc();
        Self {
            reserved: admitted.spend.tokens,
            wait: admitted.wait,
            gate: Gate(Arc::new(Mutex::new(Hold { admitted: Some(admitted), passed: Passed::NotYet }))),
            open: Some(open),
            metrics: app.metrics.clone(),
            cancel_grace: app.client.cancel_grace,
            prompt_counted,
            price,
            streamed,
            started_us: raft::clock::boot_us(),
        }
    }

    /// What the request has to pass on its way out.
    pub(crate) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Whether it passed.
    pub(crate) fn passed(&self) -> Passed {
        self.gate.lock().passed
    }

    /// Ends the call. To be called before the last byte of the reply is given to the client.
    pub(crate) fn end(mut self, ending: Ending) {
        self.close(ending);
    }

    fn close(&mut self, ending: Ending) {
        let Some(open) = self.open.take() else { return };
        let (admitted, passed) = {
            let mut hold = self.gate.lock();
            (hold.admitted.take(), hold.passed)
        };
        self.metrics.in_flight.dec();
        if passed == Passed::Yes {
            self.settle(open, admitted, ending);
            return;
        }
        // Dropping what was admitted and never sent gives all of it back.
        drop(admitted);
        let call = open.intent().call;
        if let Err(cause) = open.void() {
            tracing::error!(request_id = %call.request, %cause, "the journal cannot be written; a restart charges a call that was never made");
        }
    }

    fn settle(&self, open: Open, admitted: Option<Admitted>, ending: Ending) {
        let (status, http_status, usage, charged) = match ending {
            Ending::Answered { http_status, usage } => (Status::Ok, http_status, usage, usage.total()),
            Ending::Cut { http_status, usage, .. } => (Status::Cut, http_status, usage, usage.total()),
            Ending::Unknown { .. } => (Status::Cut, 0, self.in_full(), self.reserved),
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
        if let Some(admitted) = admitted {
            let is_seen = !matches!(ending, Ending::Cut { by: By::Us, .. } | Ending::Unknown { by: By::Us });
            let used = Spend { tokens: charged, ..self.price.spend(usage.prompt, usage.completion) };
            give_back(admitted, used, if is_seen { Duration::ZERO } else { self.cancel_grace });
        }
        self.metrics.settled(usage.prompt, usage.completion, self.reserved);
        self.metrics.ended(match status {
            Status::Ok if (200..300).contains(&http_status) => Ended::Ok,
            Status::Ok => Ended::Refused,
            Status::Cut | Status::Lost => Ended::Cut,
        });
    }

    fn in_full(&self) -> Usage {
        let prompt = self.prompt_counted.min(self.reserved);
        Usage { prompt, completion: self.reserved - prompt, ..Usage::default() }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let usage = Usage { prompt: self.prompt_counted, ..Usage::default() };
        self.close(if self.streamed {
            Ending::Cut { http_status: 0, usage, by: By::Us }
        } else {
            Ending::Unknown { by: By::Us }
        });
    }
}

/// Ends the reservation, after the time that the upstream may take to see that it was left.
fn give_back(admitted: Admitted, used: Spend, grace: Duration) {
    match Handle::try_current() {
        Ok(runtime) if !grace.is_zero() => {
            runtime.spawn(async move {
                tokio::time::sleep(grace).await;
                admitted.settle(used);
            });
        }
        _ => admitted.settle(used),
    }
}
