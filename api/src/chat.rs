//! The hub of all dialects. A dialect reads its wire form into these and writes it from these; none knows another.
//!
//! With the same dialect on both sides only a request's [`Head`] is read and its answer watched ([`Seen`]); all else stays
//! in the bytes. Across dialects the whole [`Request`] and every [`Event`] pass through here.

mod event;
mod request;

pub(crate) use event::{Answer, Block, Event, Failure, Said, Stop, arguments};
pub(crate) use request::{
    Choice, Effort, Format, Kind, Media, Part, Reasoning, Request, Role, Sampling, Source, Thinking, Tool, ToolUse,
    Turn,
};

use crate::tokens::{Meter, Piece};

/// What the gateway needs to know of a request, whether it is translated or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The model that is asked for.
    pub(crate) model: String,
    /// Whether the answer is to be streamed.
    pub(crate) stream: bool,
    /// Whether the client wants the usage at the end of a stream.
    pub(crate) wants_usage: bool,
    /// The largest output of one choice that the client allows.
    pub(crate) output_max: Option<u64>,
    /// How many choices it wants, at least 1.
    pub(crate) choices: u64,
    /// Tokens of thinking that the client allows beside the output, where it names no cap on both.
    pub(crate) thinking: u64,
    /// OpenAI's word for urgency.
    pub(crate) service: Service,
}

/// OpenAI's `service_tier`, as far as it means something here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Service {
    /// Nothing said, or `auto`, `default` and anything else.
    #[default]
    Usual,
    /// As urgent as the key may be.
    Priority,
    /// Two priorities lower.
    Flex,
}

/// What is changed in the client's bytes on their way to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changes<'a> {
    /// The model's name at the upstream.
    pub(crate) model: &'a str,
    /// The output cap of one choice, written where the client gave none.
    pub(crate) output_max: u64,
    /// The field of OpenAI's chat completions that carries it.
    pub(crate) output_field: &'a str,
}

/// Tokens of one answer, as the upstream reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Tokens read, all of them.
    pub(crate) prompt: u64,
    /// Tokens written, thinking included.
    pub(crate) completion: u64,
    /// Of those read, tokens that came out of a cache.
    pub(crate) cached: u64,
    /// Of those read, tokens that were put into a cache.
    pub(crate) cache_written: u64,
    /// Of those written, tokens of thinking.
    pub(crate) reasoning: u64,
}

impl Usage {
    /// Both together.
    pub(crate) fn total(self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }

    /// Bounds what an upstream claims: each number to ten times the reservation, so that a nonsense value cannot put
    /// a pool in debt for ever.
    pub(crate) fn bounded(self, reserved: u64) -> Self {
        let most = reserved.saturating_mul(10);
        let (prompt, completion) = (self.prompt.min(most), self.completion.min(most));
        Self {
            prompt,
            completion,
            cached: self.cached.min(prompt),
            cache_written: self.cache_written.min(prompt),
            reasoning: self.reasoning.min(completion),
        }
    }
}

/// What was seen of an answer so far.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The last usage that the upstream reported.
    pub(crate) usage: Option<Usage>,
    /// A choice said why it ended.
    pub(crate) finished: bool,
    /// The stream's end mark came.
    pub(crate) done: bool,
    /// Our own count of what was written.
    pub(crate) written: Meter,
}

impl Seen {
    pub(crate) fn new(written: Meter) -> Self {
        Self { usage: None, finished: false, done: false, written }
    }

    /// Takes note of an event.
    pub(crate) fn note(&mut self, event: &Event) {
        match event {
            Event::Open(Block::Tool { name, .. }) => self.written.gather(Piece::Text(name)),
            Event::Delta(text) => self.written.gather(Piece::Text(text)),
            Event::Stop(_) => self.finished = true,
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Done => self.done = true,
            _ => {}
        }
    }

    /// The upstream's usage, or our own count where it gave none.
    pub(crate) fn usage(&mut self, prompt_counted: u64, reserved: u64) -> Usage {
        let own = || Usage { prompt: prompt_counted, completion: self.written.tokens(), ..Usage::default() };
        self.usage.map_or_else(own, |usage| usage.bounded(reserved))
    }
}

/// What becomes of one event of a stream on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It goes on as it is.
    All,
    /// The client did not ask for it.
    Nothing,
    /// These bytes of it the client did not ask for.
    Without(std::ops::Range<usize>),
}
