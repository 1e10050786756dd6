//! Entries as bytes: what is written is read back, what was not written is refused, what was once written stays legible.

mod arbitrary;
mod envelope;
mod golden;
