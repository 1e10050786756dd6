//! Why bytes are not an entry.

/// Why bytes are not an entry. A node that meets one in its log stops its part in the group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The envelope is of a version that this build does not know.
    #[error("the log holds an entry in envelope version {0}; this node knows version 1")]
    Version(u8),
    /// The bytes are not those that were written.
    #[error("an entry of the log fails its checksum")]
    Checksum,
    /// The bytes are intact, but they are no entry.
    #[error("an entry of the log is malformed: {0}")]
    Malformed(String),
    /// The entry is intact and holds a kind of event, a field or a value that this build does not know.
    #[error("the log holds an event of a newer version; upgrade this node")]
    UnknownEvent,
}
