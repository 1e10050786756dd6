//! How an entry of the ledger stands in the log, and what nodes say to each other: protobuf in a versioned, checksummed envelope. What an entry means is
//! in `ledger`; where it is stored and sent, in `raft`. The messages and how they evolve: `proto/ledger.proto`.
//!
//! Every node must read an entry alike or stop. So nothing unknown is ever skipped: [`decode`] refuses a kind of event,
//! a field or an enum value that this build does not know.

mod error;
mod limits;
mod op;
mod outcome;
mod pb;
pub mod peer;
mod report;
mod talk;

pub use error::DecodeError;

use prost::Message;

/// The envelope's version.
const VERSION: u8 = 1;

/// Length of the envelope's head: version and CRC.
const HEAD: usize = 5;

/// Writes an entry as the log holds it. Equal entries give equal bytes.
///
/// Shape: version (1 byte, now 1), CRC-32 (ISO-HDLC) of all that follows (4 bytes, little endian), protobuf message
/// `tokligence.ledger.v1.Entry`.
pub fn encode(entry: &ledger::entry::Entry) -> Vec<u8> {
    let message = pb::Entry::from(entry);
    let mut bytes = Vec::with_capacity(HEAD + message.encoded_len());
    bytes.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
    message.encode(&mut bytes).expect("a Vec has room for any message");
    let sum = crc32fast::hash(&bytes[HEAD..]);
    bytes[1..HEAD].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// Anything but an intact entry of which this build knows every part; the caller stops its part in the group.
pub fn decode(bytes: &[u8]) -> Result<ledger::entry::Entry, DecodeError> {
    let (&version, rest) = bytes.split_first().ok_or_else(|| malformed("no bytes"))?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let (sum, body) = rest.split_first_chunk().ok_or_else(|| malformed("cut off within its envelope"))?;
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return Err(DecodeError::Checksum);
    }
    let message = pb::Entry::decode(body).map_err(|e| DecodeError::Malformed(e.to_string()))?;
    // Protobuf drops fields it does not know. Ours are written in one way only, so what was dropped shows in the length.
    if message.encoded_len() != body.len() {
        return Err(DecodeError::UnknownEvent);
    }
    message.try_into()
}

fn malformed(what: &str) -> DecodeError {
    DecodeError::Malformed(what.to_owned())
}

/// The message that proto3 makes optional and the ledger does not.
fn required<T>(message: Option<T>, name: &str) -> Result<T, DecodeError> {
    message.ok_or_else(|| DecodeError::Malformed(format!("{name} is missing")))
}
