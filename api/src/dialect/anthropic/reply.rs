//! Anthropic messages: writes answers, plain and streamed, out of the hub's events.

use crate::chat::{Answer, Block, Event, Said, Stop, Usage};
use crate::dialect::build::{Object, object, object_text};
use crate::dialect::{Meta, sse};

/// What was written of a stream so far.
#[derive(Debug)]
pub(crate) struct Writer {
    meta: Meta,
    began: bool,
    /// Blocks so far, the open one among them.
    blocks: u64,
    open: Option<Block>,
    has_tools: bool,
    has_refused: bool,
    stop: Option<Stop>,
    usage: Option<Usage>,
}

impl Writer {
    pub(crate) fn new(meta: Meta) -> Self {
        Self {
            meta,
            began: false,
            blocks: 0,
            open: None,
            has_tools: false,
            has_refused: false,
            stop: None,
            usage: None,
        }
    }

    /// Writes what an event means.
    pub(crate) fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            // An upstream that says at once what it read says so right behind.
            Event::Start { .. } | Event::Done | Event::Failed(_) => {}
            Event::Open(block) => self.begin_block(block, out),
            Event::Delta(text) => self.delta(&text, out),
            Event::Signature(text) if self.open == Some(Block::Thinking) => {
                self.step(out, |o| _ = o.text("type", "signature_delta").text("signature", &text));
            }
            Event::Signature(_) => {}
            Event::Stop(stop) => self.stop = Some(stop),
            Event::Usage(usage) => {
                self.usage = Some(usage);
                self.begin(out);
            }
        }
    }

    /// Writes the end.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.end_block(out);
        let reason = stop_reason(self.stop.as_ref(), self.has_tools, self.has_refused);
        let usage = self.usage.unwrap_or_default();
        let text = object_text(|o| {
            o.text("type", "message_delta");
            o.object("delta", |o| {
                o.text("stop_reason", reason);
                stop_sequence(o, self.stop.as_ref());
            });
            o.object("usage", |o| write_usage(o, usage));
        });
        sse(out, Some("message_delta"), &text);
        sse(out, Some("message_stop"), r#"{"type":"message_stop"}"#);
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.began, true) {
            return;
        }
        let usage = self.usage.unwrap_or_default();
        let text = object_text(|o| {
            o.text("type", "message_start").object("message", |o| {
                opening(o, &self.meta);
                o.array("content", |_| {}).null("stop_reason").null("stop_sequence");
                o.object("usage", |o| write_usage(o, usage));
            });
        });
        sse(out, Some("message_start"), &text);
    }

    fn begin_block(&mut self, block: Block, out: &mut Vec<u8>) {
        self.begin(out);
        self.end_block(out);
        self.has_tools |= matches!(block, Block::Tool { .. });
        self.has_refused |= block == Block::Refusal;
        let index = self.blocks;
        self.blocks += 1;
        let text = object_text(|o| {
            o.text("type", "content_block_start").whole("index", index);
            let said = Said { block: block.clone(), text: String::new(), signature: None };
            o.object("content_block", |o| write_block(o, &said));
        });
        sse(out, Some("content_block_start"), &text);
        self.open = Some(block);
    }

    fn delta(&mut self, text: &str, out: &mut Vec<u8>) {
        let (kind, name) = match &self.open {
            Some(Block::Thinking) => ("thinking_delta", "thinking"),
            Some(Block::Tool { .. }) => ("input_json_delta", "partial_json"),
            Some(Block::Text | Block::Refusal) => ("text_delta", "text"),
            Some(Block::Redacted(_)) | None => return,
        };
        self.step(out, |o| _ = o.text("type", kind).text(name, text));
    }

    fn step(&self, out: &mut Vec<u8>, delta: impl FnOnce(&mut Object<'_>)) {
        let text = object_text(|o| {
            o.text("type", "content_block_delta").whole("index", self.blocks.saturating_sub(1)).object("delta", delta);
        });
        sse(out, Some("content_block_delta"), &text);
    }

    fn end_block(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            let index = self.blocks.saturating_sub(1);
            let text = object_text(|o| _ = o.text("type", "content_block_stop").whole("index", index));
            sse(out, Some("content_block_stop"), &text);
        }
    }
}

/// Writes an answer in one piece.
pub(crate) fn answer(answer: &Answer, meta: &Meta) -> Vec<u8> {
    let has_refused = answer.blocks.iter().any(|said| said.block == Block::Refusal);
    let mut out = Vec::new();
    object(&mut out, |o| {
        opening(o, meta);
        o.array("content", |content| {
            for said in &answer.blocks {
                content.object(|o| write_block(o, said));
            }
        });
        o.text("stop_reason", stop_reason(answer.stop.as_ref(), answer.has_tools(), has_refused));
        stop_sequence(o, answer.stop.as_ref());
        o.object("usage", |o| write_usage(o, answer.usage.unwrap_or_default()));
    });
    out
}

fn opening(o: &mut Object<'_>, meta: &Meta) {
    o.text("id", &format!("msg_{}", meta.id)).text("type", "message").text("role", "assistant");
    o.text("model", &meta.model);
}

fn write_block(o: &mut Object<'_>, said: &Said) {
    match &said.block {
        Block::Text | Block::Refusal => _ = o.text("type", "text").text("text", &said.text),
        Block::Thinking => {
            o.text("type", "thinking").text("thinking", &said.text);
            o.text("signature", said.signature.as_deref().unwrap_or_default());
        }
        Block::Redacted(data) => _ = o.text("type", "redacted_thinking").text("data", data),
        Block::Tool { id, name } => {
            let arguments = said.arguments();
            let is_object = arguments.trim_start().starts_with('{')
                && serde_json::from_str::<serde::de::IgnoredAny>(arguments).is_ok();
            o.text("type", "tool_use").text("id", id).text("name", name);
            // Arguments that broke off are shown as far as they came, since an object there has to be.
            if is_object {
                o.raw("input", arguments)
            } else {
                o.object("input", |o| _ = o.text("_raw", arguments))
            };
        }
    }
}

fn stop_reason(stop: Option<&Stop>, has_tools: bool, has_refused: bool) -> &'static str {
    match stop {
        Some(Stop::Length) => "max_tokens",
        Some(Stop::Tool) => "tool_use",
        Some(Stop::Sequence(_)) => "stop_sequence",
        Some(Stop::Filter | Stop::Refusal) => "refusal",
        Some(Stop::Pause) => "pause_turn",
        Some(Stop::Context) => "model_context_window_exceeded",
        _ if has_tools => "tool_use",
        _ if has_refused => "refusal",
        _ => "end_turn",
    }
}

fn stop_sequence(o: &mut Object<'_>, stop: Option<&Stop>) {
    match stop {
        Some(Stop::Sequence(Some(text))) => o.text("stop_sequence", text),
        _ => o.null("stop_sequence"),
    };
}

fn write_usage(o: &mut Object<'_>, usage: Usage) {
    o.whole("input_tokens", usage.prompt.saturating_sub(usage.cached).saturating_sub(usage.cache_written));
    o.whole("cache_creation_input_tokens", usage.cache_written).whole("cache_read_input_tokens", usage.cached);
    o.whole("output_tokens", usage.completion);
    if usage.reasoning > 0 {
        o.object("output_tokens_details", |o| _ = o.whole("thinking_tokens", usage.reasoning));
    }
}
