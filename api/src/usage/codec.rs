//! Records of the journal as bytes. No IO lives here.
//!
//! Shape: `length u32 | crc32 u32 | synced u64 | version u8 | kind u8 | fields`, little endian; `length` counts what
//! follows the checksum, which covers the same. `synced` is how much of the segment was surely on disk when the record
//! was written: what is bad before that mark is damage, what is bad after it may be a torn tail.

use super::record::{CallId, Intent, RequestId, Settled, Status};
use ledger::model::{Incarnation, Priority};
use std::sync::Arc;

const VERSION: u8 = 1;
const HEAD: usize = 8;
const LENGTH_MIN: usize = 10;
const LENGTH_MAX: usize = 8 * 1024;
const STRING_MAX: usize = 512;

const KIND_HEADER: u8 = 0;
const KIND_INTENT: u8 = 1;
const KIND_SETTLED: u8 = 2;
const KIND_VOID: u8 = 3;

/// What the journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The first of every segment.
    Header { segment: u64, boot_id: String },
    /// A call is about to be made.
    Intent(Intent),
    /// A call has ended; with its intent, so that it makes a row by itself.
    Settled(Intent, Settled),
    /// A call was never made: it has no row.
    Void(CallId),
}

/// What stands at some place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A record.
    Whole { record: Record, bytes: usize, synced: u64 },
    /// The beginning of a record, or nothing.
    Short,
    /// No record.
    Bad(&'static str),
    /// A record of a newer version of this program.
    Newer(u8),
}

/// What is to be written.
#[derive(Clone, Copy)]
pub(super) enum Write<'a> {
    Header { segment: u64, boot_id: &'a str },
    Intent(&'a Intent),
    Settled(&'a Intent, &'a Settled),
    Void(CallId),
}

/// Replaces `buffer` by one record.
pub(super) fn encode(buffer: &mut Vec<u8>, write: Write<'_>, synced: u64) {
    buffer.clear();
    buffer.extend_from_slice(&[0; HEAD]);
    buffer.extend_from_slice(&synced.to_le_bytes());
    buffer.push(VERSION);
    match write {
        Write::Header { segment, boot_id } => {
            buffer.push(KIND_HEADER);
            put(buffer, segment);
            put_string(buffer, boot_id);
        }
        Write::Intent(intent) => {
            buffer.push(KIND_INTENT);
            put_intent(buffer, intent);
        }
        Write::Settled(intent, settled) => {
            buffer.push(KIND_SETTLED);
            put_intent(buffer, intent);
            put_settled(buffer, settled);
        }
        Write::Void(call) => {
            buffer.push(KIND_VOID);
            put_call(buffer, call);
        }
    }
    // Strings are cut, so that a record is far below 4 GiB.
    let length = u32::try_from(buffer.len() - HEAD).unwrap_or(u32::MAX);
    let crc = crc32fast::hash(&buffer[HEAD..]);
    buffer[..4].copy_from_slice(&length.to_le_bytes());
    buffer[4..HEAD].copy_from_slice(&crc.to_le_bytes());
}

/// Reads what stands at the beginning of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Frame {
    let mut head = Fields(bytes);
    let (Some(length), Some(crc)) = (head.u32(), head.u32()) else { return Frame::Short };
    let length = length as usize;
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
        return Frame::Bad("impossible length");
    }
    let Some(body) = head.take(length) else { return Frame::Short };
    if crc32fast::hash(body) != crc {
        return Frame::Bad("wrong checksum");
    }
    let mut fields = Fields(body);
    let (Some(synced), Some(version), Some(kind)) = (fields.u64(), fields.u8(), fields.u8()) else {
        return Frame::Bad("incomplete record");
    };
    if version != VERSION {
        return Frame::Newer(version);
    }
    match fields.record(kind) {
        Some(record) if fields.0.is_empty() => Frame::Whole { record, bytes: HEAD + length, synced },
        _ => Frame::Bad("record of an unknown shape"),
    }
}

fn put(buffer: &mut Vec<u8>, value: u64) {
    buffer.extend_from_slice(&value.to_le_bytes());
}

fn put_string(buffer: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(STRING_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    buffer.extend_from_slice(&(end as u16).to_le_bytes());
    buffer.extend_from_slice(&text.as_bytes()[..end]);
}

fn put_id(buffer: &mut Vec<u8>, id: Option<[u8; 16]>) {
    buffer.push(id.is_some().into());
    buffer.extend_from_slice(id.as_ref().map_or(&[], |id| &id[..]));
}

fn put_call(buffer: &mut Vec<u8>, call: CallId) {
    buffer.extend_from_slice(&call.request.0);
    buffer.push(call.call);
}

fn put_intent(buffer: &mut Vec<u8>, intent: &Intent) {
    put_call(buffer, intent.call);
    put(buffer, intent.incarnation.0);
    put(buffer, intent.reservation);
    put_string(buffer, &intent.pool);
    put_string(buffer, &intent.model);
    put_string(buffer, &intent.target);
    buffer.extend_from_slice(&intent.key_id);
    put_id(buffer, intent.user);
    put_id(buffer, intent.team);
    buffer.push(intent.priority.0);
    put(buffer, intent.tokens_reserved);
    put(buffer, intent.started_wall_us);
}

fn put_settled(buffer: &mut Vec<u8>, settled: &Settled) {
    buffer.push(match settled.status {
        Status::Ok => 0,
        Status::Cut => 1,
        Status::Lost => 2,
    });
    put(buffer, settled.prompt_tokens);
    put(buffer, settled.completion_tokens);
    put(buffer, settled.charged_tokens);
    buffer.extend_from_slice(&settled.http_status.to_le_bytes());
    buffer.push(settled.streamed.into());
    put(buffer, settled.latency_us);
    put(buffer, settled.wait_us);
}

/// What is still to be read of a record.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Option<&'a str> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(length.into())?).ok()
    }

    fn id(&mut self) -> Option<Option<[u8; 16]>> {
        match self.u8()? {
            0 => Some(None),
            1 => self.array().map(Some),
            _ => None,
        }
    }

    fn record(&mut self, kind: u8) -> Option<Record> {
        Some(match kind {
            KIND_HEADER => Record::Header { segment: self.u64()?, boot_id: self.string()?.to_owned() },
            KIND_INTENT => Record::Intent(self.intent()?),
            KIND_SETTLED => Record::Settled(self.intent()?, self.settled()?),
            KIND_VOID => Record::Void(self.call()?),
            _ => return None,
        })
    }

    fn call(&mut self) -> Option<CallId> {
        Some(CallId { request: RequestId(self.array()?), call: self.u8()? })
    }

    fn intent(&mut self) -> Option<Intent> {
        Some(Intent {
            call: self.call()?,
            incarnation: Incarnation(self.u64()?),
            reservation: self.u64()?,
            pool: Arc::from(self.string()?),
            model: Arc::from(self.string()?),
            target: Arc::from(self.string()?),
            key_id: self.array()?,
            user: self.id()?,
            team: self.id()?,
            priority: Priority(self.u8()?),
            tokens_reserved: self.u64()?,
            started_wall_us: self.u64()?,
        })
    }

    fn settled(&mut self) -> Option<Settled> {
        let status = match self.u8()? {
            0 => Status::Ok,
            1 => Status::Cut,
            2 => Status::Lost,
            _ => return None,
        };
        Some(Settled {
            status,
            prompt_tokens: self.u64()?,
            completion_tokens: self.u64()?,
            charged_tokens: self.u64()?,
            http_status: self.u16()?,
            streamed: self.u8()? != 0,
            latency_us: self.u64()?,
            wait_us: self.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{intent, settled};
    use super::*;

    fn samples() -> Vec<Record> {
        let mut full = intent(7);
        full.user = Some([2; 16]);
        full.team = Some([3; 16]);
        full.reservation = 9;
        vec![
            Record::Header { segment: 3, boot_id: "boot".into() },
            Record::Intent(intent(1)),
            Record::Void(intent(3).call),
            Record::Intent(full.clone()),
            Record::Settled(full, settled(5)),
            Record::Settled(intent(2), Settled { status: Status::Lost, streamed: true, ..settled(u64::MAX) }),
        ]
    }

    fn bytes_of(record: &Record) -> Vec<u8> {
        let mut buffer = vec![1, 2, 3];
        let write = match record {
            Record::Header { segment, boot_id } => Write::Header { segment: *segment, boot_id },
            Record::Intent(intent) => Write::Intent(intent),
            Record::Settled(intent, settled) => Write::Settled(intent, settled),
            Record::Void(call) => Write::Void(*call),
        };
        encode(&mut buffer, write, 77);
        buffer
    }

    #[test]
    fn what_is_written_is_read() {
        for record in samples() {
            let bytes = bytes_of(&record);
            let whole = Frame::Whole { record, bytes: bytes.len(), synced: 77 };
            assert_eq!(decode(&bytes), whole);
            let more = [&bytes[..], &[9; 40]].concat();
            assert_eq!(decode(&more), whole);
        }
    }

    #[test]
    fn what_is_cut_is_short_and_a_flipped_bit_is_bad() {
        for record in samples() {
            let bytes = bytes_of(&record);
            for end in 0..bytes.len() {
                assert_eq!(decode(&bytes[..end]), Frame::Short, "{end}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(matches!(decode(&flipped), Frame::Bad(_) | Frame::Short), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut bytes = bytes_of(&samples()[1]);
        bytes[HEAD + 8] = 2;
        let crc = crc32fast::hash(&bytes[HEAD..]);
        bytes[4..HEAD].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&bytes), Frame::Newer(2));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let mut long = intent(1);
        long.model = "\u{20ac}".repeat(100_000).into();
        let Frame::Whole { record: Record::Intent(read), .. } = decode(&bytes_of(&Record::Intent(long))) else {
            panic!("not an intent")
        };
        assert_eq!(&*read.model, "\u{20ac}".repeat(STRING_MAX / 3));
    }
}
