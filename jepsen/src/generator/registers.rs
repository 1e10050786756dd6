//! Reads and writes of admin registers, about as many of one as of the other.

use super::{Generator, Step};
use crate::chance::Chance;
use crate::history::Call;

/// Above every value that is told apart by chance alone.
const VALUE_MAX: u64 = 1_000_000_000;

/// Which registers.
#[derive(Clone, Debug)]
pub(crate) struct Registers {
    /// The pools.
    pub(crate) names: Vec<String>,
    /// Pause between two calls in milliseconds, from and to.
    pub(crate) pause_ms: (u64, u64),
}

impl Generator for Registers {
    fn next(&mut self, chance: &mut Chance) -> Step {
        let register = chance.pick(&self.names).cloned().unwrap_or_default();
        let call = if chance.one_in(2) {
            Call::SetLimit { register, value: chance.within(1, VALUE_MAX) }
        } else {
            Call::GetLimit { register }
        };
        Step { pause: chance.millis(self.pause_ms.0, self.pause_ms.1), call }
    }
}
