//! Which faults a run has, and how often.

/// Faults of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Messages are lost, repeated and delayed so that they overtake each other.
    pub(super) network: bool,
    /// Processes are killed, and come back on the same or another boot of the machine.
    pub(super) crashes: bool,
    /// Processes stop for a while and go on.
    pub(super) pauses: bool,
    /// Nodes are cut off, both ways or one way.
    pub(super) partitions: bool,
    /// Another node becomes leader.
    pub(super) elections: bool,
}

impl Faults {
    pub(super) fn all() -> Self {
        Self { network: true, crashes: true, pauses: true, partitions: true, elections: true }
    }
}
