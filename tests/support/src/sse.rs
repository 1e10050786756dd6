//! Server-sent events, read incrementally: bytes in, events out, whatever the chunks' edges.

use crate::clock;

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// The `event:` field, empty if there was none.
    pub event: String,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
    /// When its last byte was read, boot-clock microseconds.
    pub at_us: u64,
}

impl SseEvent {
    /// The data as JSON, if it is some.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.data).ok()
    }
}

/// Collects bytes until they make events.
#[derive(Debug, Default)]
pub struct SseParser {
    rest: Vec<u8>,
    event: String,
    data: Option<String>,
}

impl SseParser {
    /// Takes bytes and gives the events that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<SseEvent> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut used = 0;
        while let Some(end) = memchr::memchr(b'\n', &self.rest[used..]) {
            let line = &self.rest[used..used + end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = String::from_utf8_lossy(line).into_owned();
            used += end + 1;
            if let Some(event) = self.line(&line) {
                events.push(event);
            }
        }
        self.rest.drain(..used);
        events
    }

    /// Whether bytes of an unfinished event are left.
    pub fn is_mid_event(&self) -> bool {
        !self.rest.is_empty() || self.data.is_some()
    }

    fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return self.data.take().map(|data| SseEvent { event, data, at_us: clock::boot_us() });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_cut() {
        let text = ": hi\r\nevent: ping\r\ndata: ż🙂\r\n\r\ndata: a\ndata:b\n\ndata: [DONE]\n\n".as_bytes();
        for size in 1..text.len() {
            let mut parser = SseParser::default();
            let events: Vec<SseEvent> = text.chunks(size).flat_map(|piece| parser.feed(piece)).collect();
            let seen: Vec<(&str, &str)> = events.iter().map(|e| (e.event.as_str(), e.data.as_str())).collect();
            assert_eq!(seen, [("ping", "ż🙂"), ("", "a\nb"), ("", "[DONE]")]);
            assert!(!parser.is_mid_event());
        }
    }
}
