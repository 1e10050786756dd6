//! What the log drives: the door between consensus and the state it replicates.
//!
//! This crate only carries; it never looks into a payload. Whatever implements [`Machine`] must be deterministic: the
//! same entries give the same state on every node and every build.

/// The result of one applied entry, handed back to whoever proposed it.
pub type Applied = ledger::entry::Applied;

/// A state machine that is driven by the log.
pub trait Machine: Send + Sync + 'static {
    /// Applies one committed entry; `term` and `index` are its place in the log.
    ///
    /// A refusal is a value inside [`Applied`], never an error.
    ///
    /// # Errors
    /// [`Stop`] when this node cannot go on (an unknown event type, a broken invariant of the build); its part in the
    /// group then ends.
    fn apply(&mut self, term: u64, index: u64, payload: &[u8]) -> Result<Applied, Stop>;

    /// Encodes the whole state in its canonical form.
    fn snapshot(&self) -> Vec<u8>;

    /// The index of the last entry applied, and the digest of the state as it is then.
    fn digest(&self) -> (u64, u128);

    /// Replaces the whole state by an encoded one.
    ///
    /// # Errors
    /// [`Stop`] when the bytes cannot be read by this build.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), Stop>;
}

/// A local fault: this node's part in the group ends, loudly, and the others go on without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Stop(pub String);

impl Stop {
    /// Names the fault.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}
