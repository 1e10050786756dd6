//! What the scripted upstream saw: every call, and the counts that tests wait for.

use crate::clock;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// One inference request, as the upstream saw it.
///
/// Units: stamps are boot-clock microseconds ([`crate::clock::boot_us`]).
#[derive(Clone, Debug, Default, Serialize)]
pub struct Call {
    /// Order of arrival, from 0.
    pub seq: u64,
    /// Path with query.
    pub path: String,
    /// The model asked for; empty if the body had none.
    pub model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// `max_completion_tokens` or `max_tokens`.
    pub max_tokens: Option<u64>,
    /// When its head had arrived.
    pub arrived_us: u64,
    /// When it was over: right before the last bytes were written, or when the client was seen gone.
    pub ended_us: Option<u64>,
    /// When the client closed before the reply was complete.
    pub closed_early_at: Option<u64>,
    /// Status that was sent; 0 if none was.
    pub status: u16,
    /// Inference requests in flight at its arrival, itself included.
    pub in_flight_at_arrival: u64,
    /// Prompt tokens that were reported.
    pub prompt_tokens: Option<i64>,
    /// Output tokens that were reported.
    pub completion_tokens: Option<i64>,
    /// Output tokens that were really written.
    pub emitted_tokens: u64,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body; as text in JSON.
    #[serde(serialize_with = "as_text")]
    pub body: Vec<u8>,
}

impl Call {
    /// The value of a request header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the recorded body is JSON")
    }
}

fn as_text<S: Serializer>(body: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(body))
}

/// Counts over all inference requests since the start or the last clearing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Arrived.
    pub requests: u64,
    /// Over, in whatever way.
    pub ended: u64,
    /// Of those, closed early by the client.
    pub closed_early: u64,
    /// In flight now.
    pub in_flight: u64,
    /// The most that ever were in flight.
    pub peak_in_flight: u64,
    /// Prompt tokens reported.
    pub prompt_tokens: i64,
    /// Output tokens reported.
    pub completion_tokens: i64,
    /// Connections accepted.
    pub connections: u64,
    /// By model.
    pub models: BTreeMap<String, ModelStats>,
}

/// Counts of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStats {
    /// Arrived.
    pub requests: u64,
    /// In flight now.
    pub in_flight: u64,
    /// The most that ever were in flight.
    pub peak_in_flight: u64,
}

#[derive(Debug, Default)]
struct Book {
    stats: Stats,
    next_seq: u64,
    models: HashMap<String, ModelStats>,
    calls: BTreeMap<u64, Call>,
}

/// The upstream's record; lean means counts only.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) lean: bool,
    book: Mutex<Book>,
    pub(crate) changed: Notify,
}

impl Recorder {
    pub(crate) fn new(lean: bool) -> Self {
        Self { lean, ..Self::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an arrival; the guard notes the end.
    pub(crate) fn arrive(self: &Arc<Self>, mut call: Call) -> Open {
        let mut guard = self.book();
        let book = &mut *guard;
        let seq = book.next_seq;
        book.next_seq += 1;
        book.stats.requests += 1;
        book.stats.in_flight += 1;
        book.stats.peak_in_flight = book.stats.peak_in_flight.max(book.stats.in_flight);
        if !book.models.contains_key(&call.model) {
            book.models.insert(call.model.clone(), ModelStats::default());
        }
        if let Some(model) = book.models.get_mut(&call.model) {
            model.requests += 1;
            model.in_flight += 1;
            model.peak_in_flight = model.peak_in_flight.max(model.in_flight);
        }
        let model = call.model.clone();
        call.seq = seq;
        call.in_flight_at_arrival = book.stats.in_flight;
        if !self.lean {
            book.calls.insert(seq, call);
        }
        drop(guard);
        self.changed.notify_waiters();
        Open { recorder: Arc::clone(self), seq, model, over: false, said: Said::default() }
    }

    pub(crate) fn connected(&self) {
        self.book().stats.connections += 1;
    }

    pub(crate) fn stats(&self) -> Stats {
        let book = self.book();
        let models = book.models.iter().map(|(name, stats)| (name.clone(), stats.clone())).collect();
        Stats { models, ..book.stats.clone() }
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.book().calls.values().cloned().collect()
    }

    /// Gives every call that is over and forgets it; the counts stay.
    pub(crate) fn take_ended(&self) -> Vec<Call> {
        let mut book = self.book();
        let (ended, open) = std::mem::take(&mut book.calls).into_iter().partition(|(_, call)| call.ended_us.is_some());
        book.calls = open;
        let ended: BTreeMap<u64, Call> = ended;
        ended.into_values().collect()
    }

    /// Forgets everything but what is in flight.
    pub(crate) fn clear(&self) {
        let mut book = self.book();
        book.calls.retain(|_, call| call.ended_us.is_none());
        let in_flight = book.stats.in_flight;
        book.stats = Stats { requests: in_flight, in_flight, peak_in_flight: in_flight, ..Stats::default() };
        book.models.retain(|_, model| model.in_flight > 0);
        for model in book.models.values_mut() {
            model.requests = model.in_flight;
            model.peak_in_flight = model.in_flight;
        }
    }
}

/// What was told to the client so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) prompt_tokens: Option<i64>,
    pub(crate) completion_tokens: Option<i64>,
    pub(crate) emitted_tokens: u64,
}

/// A call in flight. Dropped before [`Open::finish`], it counts as closed early by the client.
#[derive(Debug)]
pub(crate) struct Open {
    recorder: Arc<Recorder>,
    pub(crate) seq: u64,
    model: String,
    over: bool,
    pub(crate) said: Said,
}

impl Open {
    /// Ends the call. Called right before the last bytes are written, so that a client which answers to them with its
    /// next request is never counted twice at once.
    pub(crate) fn finish(&mut self) {
        self.end(false);
    }

    fn end(&mut self, early: bool) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let mut guard = self.recorder.book();
        let book = &mut *guard;
        let stats = &mut book.stats;
        stats.ended += 1;
        stats.in_flight = stats.in_flight.saturating_sub(1);
        stats.closed_early += u64::from(early);
        stats.prompt_tokens = stats.prompt_tokens.saturating_add(self.said.prompt_tokens.unwrap_or(0));
        stats.completion_tokens = stats.completion_tokens.saturating_add(self.said.completion_tokens.unwrap_or(0));
        if let Some(model) = book.models.get_mut(&self.model) {
            model.in_flight = model.in_flight.saturating_sub(1);
        }
        if let Some(call) = book.calls.get_mut(&self.seq) {
            let now = clock::boot_us();
            call.ended_us = Some(now);
            call.closed_early_at = early.then_some(now);
            call.status = self.said.status;
            call.prompt_tokens = self.said.prompt_tokens;
            call.completion_tokens = self.said.completion_tokens;
            call.emitted_tokens = self.said.emitted_tokens;
        }
        drop(guard);
        self.recorder.changed.notify_waiters();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(true);
    }
}
