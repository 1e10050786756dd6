//! What is written is read back; what is damaged, cut off or newer than this build is refused.

use crate::{arbitrary, golden};
use proptest::prelude::*;
use proto::{DecodeError, decode, encode};

/// Puts a message into an intact envelope.
fn sealed(body: &[u8]) -> Vec<u8> {
    let sum = crc32fast::hash(body).to_le_bytes();
    [&[1][..], &sum, body].concat()
}

/// An entry that holds one op, given as bytes.
fn with_op(op: &[u8]) -> Vec<u8> {
    assert!(op.len() < 128, "its length takes one byte");
    sealed(&[&[0x1a, op.len() as u8][..], op].concat())
}

proptest! {
    #[test]
    fn an_entry_reads_back_as_it_was_written(entry in arbitrary::entry()) {
        let bytes = encode(&entry);
        prop_assert_eq!(decode(&bytes), Ok(entry.clone()));
        let read = decode(&bytes).unwrap();
        prop_assert_eq!(encode(&read), bytes);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_but_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&body).is_err());
        if let Ok(entry) = decode(&sealed(&body)) {
            prop_assert_eq!(encode(&entry).len(), body.len() + 5);
        }
    }

    #[test]
    fn any_entry_with_a_byte_changed_or_cut_off_is_refused(entry in arbitrary::entry(), at: prop::sample::Index, mask in 1..=255_u8) {
        let mut bytes = encode(&entry);
        let at = at.index(bytes.len());
        prop_assert!(decode(&bytes[..at]).is_err());
        bytes[at] ^= mask;
        prop_assert!(decode(&bytes).is_err());
    }
}

#[test]
fn every_change_of_one_byte_is_refused() {
    let mut bytes = encode(&golden::every_op());
    for at in 0..bytes.len() {
        for mask in 1..=255 {
            bytes[at] ^= mask;
            let expected = if at == 0 { DecodeError::Version(bytes[0]) } else { DecodeError::Checksum };
            assert_eq!(decode(&bytes), Err(expected), "byte {at} xor {mask:#x}");
            bytes[at] ^= mask;
        }
    }
    assert!(decode(&bytes).is_ok(), "the bytes are as they were");
}

#[test]
fn every_truncation_is_refused() {
    let bytes = encode(&golden::every_op());
    for len in 0..bytes.len() {
        let refusal = decode(&bytes[..len]).unwrap_err();
        assert_eq!(refusal == DecodeError::Checksum, len >= 5, "{len} bytes: {refusal}");
    }
}

#[test]
fn bytes_after_an_entry_are_refused() {
    let mut bytes = encode(&golden::every_op());
    bytes.push(0);
    assert_eq!(decode(&bytes), Err(DecodeError::Checksum));
}

#[test]
fn an_op_of_a_newer_version_is_refused() {
    let known = with_op(&[0x5a, 0]);
    assert!(decode(&known).is_ok(), "op 11 is Checkpoint");
    // Ops 1001 and 1002.
    for op in [&[][..], &[0xca, 0x3e, 0], &[0xd2, 0x3e, 0x02, 0x08, 0x07]] {
        let refusal = decode(&with_op(op)).unwrap_err();
        assert_eq!(refusal, DecodeError::UnknownEvent, "{op:x?}");
        assert_eq!(refusal.to_string(), "the log holds an event of a newer version; upgrade this node");
    }
}

#[test]
fn a_newer_op_beside_a_known_one_is_refused() {
    assert_eq!(decode(&with_op(&[0x5a, 0, 0xca, 0x3e, 0])), Err(DecodeError::UnknownEvent));
}

#[test]
fn a_field_of_a_newer_version_is_refused() {
    let of_entry = sealed(&[0x20, 0x01]);
    let of_op = with_op(&[0x52, 0x02, 0x10, 0x01]);
    assert_eq!(decode(&of_entry), Err(DecodeError::UnknownEvent), "field 4 of Entry");
    assert_eq!(decode(&of_op), Err(DecodeError::UnknownEvent), "field 2 of RollDay");
}

#[test]
fn an_intact_envelope_around_no_message_is_malformed() {
    for body in [&[0x1a][..], &[0x1a, 0x05, 0x00], &[0x0b], &[0x0a, 0x01, 0x00], &[0xff; 12]] {
        let refusal = decode(&sealed(body)).unwrap_err();
        assert!(matches!(refusal, DecodeError::Malformed(_)), "{body:x?}: {refusal}");
    }
}

#[test]
fn another_envelope_version_is_named() {
    let mut bytes = encode(&golden::every_op());
    bytes[0] = 2;
    assert_eq!(decode(&bytes), Err(DecodeError::Version(2)));
}

/// Contended admission writes one of these for each request.
#[test]
fn a_reservation_and_its_end_are_small() {
    let [reserve, contact] = golden::per_request().map(|entry| encode(&entry).len());
    assert!(reserve <= 90, "a reservation under a key's limits takes {reserve} bytes");
    assert!(contact <= 60, "the contact that settles it takes {contact} bytes");
}
