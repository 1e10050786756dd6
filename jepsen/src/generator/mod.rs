//! Generators: what a client does next, decided by the seed alone and never by what happened before.

mod mix;
mod registers;

pub(crate) use mix::Mix;
pub(crate) use registers::Registers;

use crate::chance::Chance;
use crate::history::Call;
use std::time::Duration;

/// One step of a client.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// It thinks so long first.
    pub(crate) pause: Duration,
    /// Then it asks this.
    pub(crate) call: Call,
}

/// Decides a client's steps.
pub(crate) trait Generator: Send {
    /// The next step.
    fn next(&mut self, chance: &mut Chance) -> Step;
}
