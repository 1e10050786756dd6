//! Scans a stream of server-sent events as it passes: cuts it at the ends of events, shows each event's data to the
//! dialect, and leaves out what the dialect says. Bytes that stay are not copied unless an event was split over chunks.
//!
//! Lines end with LF or CRLF. Source: WHATWG HTML, 9.2.6 (2026-11); a lone CR as a line end is not produced by any
//! known upstream and is taken as data.

use crate::chat::Keep;
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;
use std::ops::Range;

/// An event is longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventTooLarge;

/// What `Scanner::push` asks about each event's data.
pub(crate) trait Judge {
    /// Says what of an event the client is to see.
    fn judge(&mut self, data: &[u8]) -> Keep;
    /// Whether the stream's end mark was seen, after which nothing more counts.
    fn is_done(&self) -> bool;
}

/// The scanner of one stream.
#[derive(Debug)]
pub(crate) struct Scanner {
    /// The event that is not complete yet.
    carry: BytesMut,
    /// Where in it the first line stands that is not complete.
    line: usize,
    event_bytes_max: usize,
}

impl Scanner {
    pub(crate) fn new(event_bytes_max: usize) -> Self {
        Self { carry: BytesMut::new(), line: 0, event_bytes_max }
    }

    /// Takes the next bytes and gives those that may go on: whole events only.
    ///
    /// # Errors
    /// When an event is longer than allowed.
    pub(crate) fn push(&mut self, chunk: Bytes, judge: &mut impl Judge) -> Result<Bytes, EventTooLarge> {
        if !self.carry.is_empty() {
            self.carry.extend_from_slice(&chunk);
            let scan = scan(&self.carry, self.line, judge);
            let whole = self.carry.split_to(scan.end).freeze();
            self.line = scan.line - scan.end;
            self.check()?;
            return Ok(cut(whole, &scan.cuts));
        }
        let scan = scan(&chunk, 0, judge);
        if scan.end < chunk.len() && !judge.is_done() {
            self.carry.extend_from_slice(&chunk[scan.end..]);
            self.line = scan.line - scan.end;
            self.check()?;
        }
        Ok(cut(chunk.slice(..scan.end), &scan.cuts))
    }

    /// Takes the end of the stream and gives what is left: an event that lacks its blank line.
    pub(crate) fn finish(&mut self, judge: &mut impl Judge) -> Bytes {
        let rest = self.carry.split().freeze();
        self.line = 0;
        if rest.is_empty() || judge.is_done() {
            return Bytes::new();
        }
        let mut cuts = Vec::new();
        end_event(&rest, 0..rest.len(), judge, &mut cuts);
        cut(rest, &cuts)
    }

    fn check(&self) -> Result<(), EventTooLarge> {
        if self.carry.len() > self.event_bytes_max { Err(EventTooLarge) } else { Ok(()) }
    }
}

struct Scan {
    /// After the last whole event.
    end: usize,
    /// The start of the line that is not complete.
    line: usize,
    /// What is left out, in order.
    cuts: Vec<Range<usize>>,
}

fn scan(bytes: &[u8], from: usize, judge: &mut impl Judge) -> Scan {
    let mut scan = Scan { end: 0, line: from, cuts: Vec::new() };
    while let Some(length) = memchr::memchr(b'\n', &bytes[scan.line..]) {
        let line = &bytes[scan.line..scan.line + length];
        let is_blank = line.is_empty() || line == b"\r";
        scan.line += length + 1;
        if is_blank {
            end_event(bytes, scan.end..scan.line, judge, &mut scan.cuts);
            scan.end = scan.line;
            if judge.is_done() {
                break;
            }
        }
    }
    scan
}

fn end_event(bytes: &[u8], event: Range<usize>, judge: &mut impl Judge, cuts: &mut Vec<Range<usize>>) {
    let Some((data, at)) = data_of(&bytes[event.clone()]) else { return };
    match judge.judge(&data) {
        Keep::All => {}
        Keep::Nothing => cuts.push(event),
        Keep::Without(part) => {
            if let Some(at) = at {
                cuts.push(event.start + at + part.start..event.start + at + part.end);
            }
        }
    }
}

/// The data of an event and, when it is one line, where that stands.
fn data_of(event: &[u8]) -> Option<(Cow<'_, [u8]>, Option<usize>)> {
    let mut found: Option<(Cow<'_, [u8]>, Option<usize>)> = None;
    let mut start = 0;
    for line in event.split_inclusive(|byte| *byte == b'\n') {
        if let Some(data) = line.strip_prefix(b"data:") {
            let data = data.strip_suffix(b"\n").unwrap_or(data);
            let data = data.strip_suffix(b"\r").unwrap_or(data);
            let space = usize::from(data.first() == Some(&b' '));
            match &mut found {
                None => found = Some((Cow::Borrowed(&data[space..]), Some(start + 5 + space))),
                Some((all, at)) => {
                    let all = all.to_mut();
                    all.push(b'\n');
                    all.extend_from_slice(&data[space..]);
                    *at = None;
                }
            }
        }
        start += line.len();
    }
    found
}

fn cut(bytes: Bytes, cuts: &[Range<usize>]) -> Bytes {
    if cuts.is_empty() {
        return bytes;
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut from = 0;
    for cut in cuts {
        out.extend_from_slice(&bytes[from..cut.start]);
        from = cut.end;
    }
    out.extend_from_slice(&bytes[from..]);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Notes {
        data: Vec<String>,
        done: bool,
    }

    impl Judge for Notes {
        fn judge(&mut self, data: &[u8]) -> Keep {
            let text = String::from_utf8_lossy(data).into_owned();
            self.done |= text == "[DONE]";
            let keep = match text.as_str() {
                "drop" => Keep::Nothing,
                _ => text.find("cut").map_or(Keep::All, |at| Keep::Without(at..at + 3)),
            };
            self.data.push(text);
            keep
        }

        fn is_done(&self) -> bool {
            self.done
        }
    }

    fn run(chunks: &[&[u8]]) -> (Vec<u8>, Vec<String>) {
        let (mut scanner, mut notes, mut out) = (Scanner::new(1 << 20), Notes::default(), Vec::new());
        for chunk in chunks {
            out.extend_from_slice(&scanner.push(Bytes::copy_from_slice(chunk), &mut notes).unwrap());
        }
        out.extend_from_slice(&scanner.finish(&mut notes));
        (out, notes.data)
    }

    #[test]
    fn events_are_shown_and_left_out_as_told() {
        let (out, data) =
            run(&[b": hi\n\ndata: a\n\ndata:drop\r\n\r\nevent: x\ndata: xcuty\nid: 1\n\ndata: [DONE]\n\nlate"]);
        assert_eq!(data, ["a", "drop", "xcuty", "[DONE]"]);
        assert_eq!(out, b": hi\n\ndata: a\n\nevent: x\ndata: xy\nid: 1\n\ndata: [DONE]\n\n");
    }

    #[test]
    fn several_data_lines_are_one_text() {
        let (out, data) = run(&[b"data: a\ndata: b\n\ndata: tail"]);
        assert_eq!(data, ["a\nb", "tail"]);
        assert_eq!(out, b"data: a\ndata: b\n\ndata: tail");
    }

    #[test]
    fn an_event_without_end_is_bounded() {
        let (mut scanner, mut notes) = (Scanner::new(10), Notes::default());
        assert_eq!(scanner.push(Bytes::from_static(b"data: 123"), &mut notes), Ok(Bytes::new()));
        assert_eq!(scanner.push(Bytes::from_static(b"456"), &mut notes), Err(EventTooLarge));
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let line =
            prop_oneof!["data: ?[a-z{}\"]{0,8}", Just("data: drop".into()), Just("data:xcut".into()), ": [a-z]*"];
        let end = prop_oneof![Just("\n"), Just("\r\n")];
        let piece =
            prop_oneof![4 => (line, end.clone()).prop_map(|(a, b)| format!("{a}{b}")), 2 => end.prop_map(String::from)];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(stream in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            at.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in at {
                chunks.push(&stream[from..cut]);
                from = cut;
            }
            chunks.push(&stream[from..]);
            prop_assert_eq!(run(&chunks), run(&[&stream]));
        }
    }
}
