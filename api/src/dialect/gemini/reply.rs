//! Gemini's generateContent: writes answers, plain and streamed, out of the hub's events. A stream is one of server-sent
//! events or, unless `alt=sse` asked for those, a JSON array.

use crate::chat::{Answer, Block, Event, Said, Stop, Usage, arguments};
use crate::dialect::build::{Array, Object, object, object_text};
use crate::dialect::{Meta, sse};

/// What was written of a stream so far.
#[derive(Debug)]
pub(crate) struct Writer {
    meta: Meta,
    /// A call is one part, so that it is gathered first.
    call: Option<Said>,
    is_thinking: bool,
    stop: Option<Stop>,
    usage: Option<Usage>,
    framing: Framing,
}

/// How the elements of a stream are told apart.
#[derive(Debug)]
pub(crate) struct Framing {
    is_array: bool,
    began: bool,
}

impl Framing {
    pub(crate) fn new(is_array: bool) -> Self {
        Self { is_array, began: false }
    }

    /// Writes one element.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, text: &str) {
        if !self.is_array {
            return sse(out, None, text);
        }
        out.extend_from_slice(if std::mem::replace(&mut self.began, true) { b",\r\n" } else { b"[" });
        out.extend_from_slice(text.as_bytes());
    }

    /// Writes the end.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        if self.is_array {
            out.extend_from_slice(if self.began { b"]" } else { b"[]" });
        }
    }
}

impl Writer {
    pub(crate) fn new(meta: Meta) -> Self {
        let framing = Framing::new(meta.is_array);
        Self { meta, call: None, is_thinking: false, stop: None, usage: None, framing }
    }

    /// Writes what an event means.
    pub(crate) fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Open(block) => {
                self.end_call(out);
                self.is_thinking = block == Block::Thinking;
                if matches!(block, Block::Tool { .. }) {
                    self.call = Some(Said { block, text: String::new(), signature: None });
                }
            }
            Event::Delta(text) => match &mut self.call {
                Some(call) => call.text.push_str(&text),
                None => {
                    let is_thinking = self.is_thinking;
                    self.parts(out, |parts| parts.object(|o| text_part(o, &text, is_thinking)));
                }
            },
            Event::Signature(text) => match &mut self.call {
                Some(call) => call.signature = Some(text),
                None => {
                    let is_thinking = self.is_thinking;
                    self.parts(out, |parts| {
                        parts.object(|o| {
                            text_part(o, "", is_thinking);
                            o.text("thoughtSignature", &text);
                        });
                    });
                }
            },
            Event::Stop(stop) => self.stop = Some(stop),
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Start { .. } | Event::Done | Event::Failed(_) => {}
        }
    }

    /// Writes the end.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        self.end_call(out);
        let text = object_text(|o| {
            o.array("candidates", |candidates| {
                candidates.object(|o| {
                    o.object("content", |o| {
                        o.array("parts", |parts| parts.object(|o| _ = o.text("text", ""))).text("role", "model");
                    });
                    o.text("finishReason", finish_reason(self.stop.as_ref())).whole("index", 0);
                });
            });
            closing(o, &self.meta, self.usage);
        });
        self.framing.put(out, &text);
        self.framing.end(out);
    }

    fn end_call(&mut self, out: &mut Vec<u8>) {
        if let Some(said) = self.call.take() {
            self.parts(out, |parts| parts.object(|o| part(o, &said)));
        }
    }

    fn parts(&mut self, out: &mut Vec<u8>, parts: impl FnOnce(&mut Array<'_>)) {
        let text = object_text(|o| {
            o.array("candidates", |candidates| {
                candidates.object(|o| {
                    o.object("content", |o| _ = o.array("parts", parts).text("role", "model")).whole("index", 0);
                });
            });
            closing(o, &self.meta, None);
        });
        self.framing.put(out, &text);
    }
}

/// Writes an answer in one piece.
pub(crate) fn answer(answer: &Answer, meta: &Meta) -> Vec<u8> {
    let mut out = Vec::new();
    object(&mut out, |o| {
        o.array("candidates", |candidates| {
            candidates.object(|o| {
                o.object("content", |o| {
                    o.array("parts", |parts| {
                        let said = answer.blocks.iter().filter(|said| !matches!(said.block, Block::Redacted(_)));
                        said.for_each(|said| parts.object(|o| part(o, said)));
                    });
                    o.text("role", "model");
                });
                o.text("finishReason", finish_reason(answer.stop.as_ref())).whole("index", 0);
            });
        });
        closing(o, meta, answer.usage);
    });
    out
}

fn part(o: &mut Object<'_>, said: &Said) {
    match &said.block {
        Block::Tool { id, name } => {
            let args = arguments(&said.text);
            let is_object =
                args.trim_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(args).is_ok();
            o.object("functionCall", |o| {
                o.text("id", id).text("name", name);
                // Arguments that broke off are shown as far as they came, since an object there has to be.
                if is_object {
                    o.raw("args", args)
                } else {
                    o.object("args", |o| _ = o.text("_raw", args))
                };
            });
        }
        block => text_part(o, &said.text, *block == Block::Thinking),
    }
    if let Some(signature) = &said.signature {
        o.text("thoughtSignature", signature);
    }
}

fn text_part(o: &mut Object<'_>, text: &str, is_thinking: bool) {
    o.text("text", text);
    if is_thinking {
        o.flag("thought", true);
    }
}

fn finish_reason(stop: Option<&Stop>) -> &'static str {
    match stop {
        Some(Stop::Length | Stop::Context) => "MAX_TOKENS",
        Some(Stop::Filter | Stop::Refusal) => "SAFETY",
        Some(Stop::Malformed) => "MALFORMED_FUNCTION_CALL",
        Some(Stop::Pause) => "OTHER",
        _ => "STOP",
    }
}

fn closing(o: &mut Object<'_>, meta: &Meta, usage: Option<Usage>) {
    if let Some(usage) = usage {
        o.object("usageMetadata", |o| {
            o.whole("promptTokenCount", usage.prompt);
            o.whole("candidatesTokenCount", usage.completion.saturating_sub(usage.reasoning));
            o.whole("totalTokenCount", usage.total());
            if usage.cached > 0 {
                o.whole("cachedContentTokenCount", usage.cached);
            }
            if usage.reasoning > 0 {
                o.whole("thoughtsTokenCount", usage.reasoning);
            }
        });
    }
    o.text("modelVersion", &meta.model).text("responseId", &meta.id);
}
