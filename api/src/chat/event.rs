//! An answer of any dialect, as the events of its stream. One block is open at a time: opening one ends the one before
//! it. An answer in one piece is read into the same events, and put together from them again.

use super::Usage;

/// A step of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// The answer begins.
    Start { id: Option<String>, model: Option<String> },
    /// A block begins.
    Open(Block),
    /// More of the open block: of its text, or of a tool's arguments as JSON.
    Delta(String),
    /// What the open block of thinking, or call, has to be shown again with.
    Signature(String),
    /// Why the answer ended.
    Stop(Stop),
    /// What was used so far.
    Usage(Usage),
    /// Nothing comes after this.
    Done,
    /// The upstream broke off with an error of its own.
    Failed(Failure),
}

/// What a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Text,
    Thinking,
    /// Thinking that only its vendor can read.
    Redacted(String),
    Refusal,
    Tool {
        id: String,
        name: String,
    },
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    End,
    Length,
    Tool,
    /// At one of the client's stop sequences; which, where the upstream says so.
    Sequence(Option<String>),
    /// A filter took the rest.
    Filter,
    /// The model would not.
    Refusal,
    /// The model wants to be called again with what it said.
    Pause,
    /// The context is full.
    Context,
    /// The model wrote a call that nobody can read.
    Malformed,
}

/// An error of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) message: String,
    /// The field that is to blame.
    pub(crate) param: Option<String>,
    /// The vendor's own word for it.
    pub(crate) code: Option<String>,
    /// When to try again, if it says so in the body.
    pub(crate) retry_after_s: Option<u64>,
}

/// An answer in one piece.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) id: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) blocks: Vec<Said>,
    pub(crate) stop: Option<Stop>,
    pub(crate) usage: Option<Usage>,
}

/// A block and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) block: Block,
    pub(crate) text: String,
    pub(crate) signature: Option<String>,
}

impl Answer {
    /// Puts an answer together.
    pub(crate) fn of(events: impl IntoIterator<Item = Event>) -> Self {
        let mut answer = Self::default();
        events.into_iter().for_each(|event| answer.take(event));
        answer
    }

    /// Adds an event.
    pub(crate) fn take(&mut self, event: Event) {
        match event {
            Event::Start { id, model } => {
                self.id = id.or(self.id.take());
                self.model = model.or(self.model.take());
            }
            Event::Open(block) => self.blocks.push(Said { block, text: String::new(), signature: None }),
            Event::Delta(text) => {
                if let Some(said) = self.blocks.last_mut() {
                    said.text.push_str(&text);
                }
            }
            Event::Signature(signature) => {
                if let Some(said) = self.blocks.last_mut() {
                    said.signature = Some(signature);
                }
            }
            Event::Stop(stop) => self.stop = Some(stop),
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Done | Event::Failed(_) => {}
        }
    }

    /// The texts of all blocks of a kind, together.
    pub(crate) fn texts(&self, is_it: impl Fn(&Block) -> bool) -> String {
        self.blocks.iter().filter(|said| is_it(&said.block)).map(|said| said.text.as_str()).collect()
    }

    /// Whether a tool is called.
    pub(crate) fn has_tools(&self) -> bool {
        self.blocks.iter().any(|said| matches!(said.block, Block::Tool { .. }))
    }
}

impl Said {
    /// A tool's arguments: what was written, or an empty object where that is nothing.
    pub(crate) fn arguments(&self) -> &str {
        arguments(&self.text)
    }
}

/// A tool's arguments: what was written, or an empty object where that is nothing.
pub(crate) fn arguments(text: &str) -> &str {
    if text.trim().is_empty() { "{}" } else { text }
}
