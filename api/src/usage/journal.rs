//! The journal's writing side.

use super::record::{Intent, Settled};
use std::io;

/// The node's journal of upstream calls. Clones share it.
#[derive(Clone, Debug)]
pub struct Journal {}

impl Journal {
    /// Writes down what a call is about to use. Blocks for one `write(2)` into the page cache.
    ///
    /// # Errors
    /// When the disk refuses; then the upstream must not be called.
    pub fn intent(&self, intent: Intent) -> io::Result<Open> {
        Ok(Open { intent })
    }
}

/// A call between its intent and its end. Dropping it settles it as `cut`, charged in full.
#[derive(Debug)]
#[must_use]
pub struct Open {
    intent: Intent,
}

impl Open {
    /// What was written down.
    pub fn intent(&self) -> &Intent {
        &self.intent
    }

    /// Writes down what the call really used. Blocks for one `write(2)`; to be called before the reply's last byte.
    ///
    /// # Errors
    /// When the disk refuses; a restart then charges the call in full.
    pub fn settle(self, _settled: &Settled) -> io::Result<()> {
        Ok(())
    }
}
