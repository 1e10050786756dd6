//! Chat completions of mixed models, priorities and sizes.

use super::{Generator, Step};
use crate::chance::Chance;
use crate::history::{Call, Chat};

/// What the mix is of.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    /// Models, each as likely as the others.
    pub(crate) models: Vec<String>,
    /// The key.
    pub(crate) key: String,
    /// Priorities, each as likely as the others.
    pub(crate) priorities: Vec<u8>,
    /// Cap on output tokens, from and to.
    pub(crate) max_tokens: (u64, u64),
    /// Pause between two calls in milliseconds, from and to.
    pub(crate) pause_ms: (u64, u64),
}

impl Generator for Mix {
    fn next(&mut self, chance: &mut Chance) -> Step {
        let max_tokens = chance.within(self.max_tokens.0, self.max_tokens.1);
        // Half of them use what they reserve; the others much less, so that refunds are worth something.
        let output_tokens = if chance.one_in(2) { max_tokens } else { chance.within(1, max_tokens) };
        let chat = Chat {
            model: chance.pick(&self.models).cloned().unwrap_or_default(),
            key: self.key.clone(),
            priority: chance.pick(&self.priorities).copied().unwrap_or(5),
            max_tokens,
            output_tokens,
            stream: chance.one_in(2),
        };
        Step { pause: chance.millis(self.pause_ms.0, self.pause_ms.1), call: Call::Chat(chat) }
    }
}
