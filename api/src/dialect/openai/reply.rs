//! OpenAI chat completions: writes answers, plain and streamed, out of the hub's events.

use crate::chat::{Answer, Block, Event, Said, Stop, Usage};
use crate::dialect::build::{Object, object, object_text};
use crate::dialect::{Meta, sse};

/// What was written of a stream so far.
#[derive(Debug)]
pub(crate) struct Writer {
    meta: Meta,
    began: bool,
    calls: u64,
    in_tool: bool,
    has_arguments: bool,
    is_thinking: bool,
    has_refused: bool,
    stop: Option<Stop>,
    usage: Option<Usage>,
}

impl Writer {
    pub(crate) fn new(meta: Meta) -> Self {
        Self {
            meta,
            began: false,
            calls: 0,
            in_tool: false,
            has_arguments: false,
            is_thinking: false,
            has_refused: false,
            stop: None,
            usage: None,
        }
    }

    /// Writes what an event means.
    pub(crate) fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { .. } => self.begin(out),
            Event::Open(block) => self.open(block, out),
            Event::Delta(text) if self.in_tool => self.arguments(&text, out),
            Event::Delta(text) => {
                let name = match (self.is_thinking, self.has_refused) {
                    (true, _) => "reasoning_content",
                    (_, true) => "refusal",
                    _ => "content",
                };
                self.chunk(out, |o| _ = o.text(name, &text));
            }
            Event::Signature(text) if self.in_tool => {
                let index = self.calls.saturating_sub(1);
                self.chunk(out, |o| {
                    o.array("tool_calls", |array| {
                        array.object(|o| {
                            o.whole("index", index);
                            extra(o, &text);
                        });
                    });
                });
            }
            Event::Signature(text) if self.is_thinking => self.chunk(out, |o| _ = o.text("reasoning_signature", &text)),
            Event::Stop(stop) => self.stop = Some(stop),
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Signature(_) | Event::Done | Event::Failed(_) => {}
        }
    }

    /// Writes the end.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.end_block(out);
        let reason = finish_reason(self.stop.as_ref(), self.calls > 0);
        self.choice(out, Some(reason), |_| {});
        if let Some(usage) = self.usage.filter(|_| self.meta.wants_usage) {
            let text = object_text(|o| {
                self.opening(o);
                o.array("choices", |_| {}).object("usage", |o| write_usage(o, usage));
            });
            sse(out, None, &text);
        }
        sse(out, None, "[DONE]");
    }

    fn arguments(&mut self, text: &str, out: &mut Vec<u8>) {
        let index = self.calls.saturating_sub(1);
        self.has_arguments = true;
        self.chunk(out, |o| {
            o.array("tool_calls", |array| {
                array.object(|o| {
                    o.whole("index", index).object("function", |o| _ = o.text("arguments", text));
                });
            });
        });
    }

    /// Arguments are JSON, even where there are none.
    fn end_block(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.in_tool, false) && !self.has_arguments {
            self.arguments("{}", out);
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.began, true) {
            self.chunk(out, |o| _ = o.text("role", "assistant").text("content", ""));
        }
    }

    fn open(&mut self, block: Block, out: &mut Vec<u8>) {
        self.begin(out);
        self.end_block(out);
        self.has_arguments = false;
        self.is_thinking = matches!(block, Block::Thinking);
        self.has_refused = matches!(block, Block::Refusal);
        self.in_tool = matches!(block, Block::Tool { .. });
        if let Block::Tool { id, name } = block {
            let index = self.calls;
            self.calls += 1;
            self.chunk(out, |o| {
                o.array("tool_calls", |array| {
                    array.object(|o| {
                        o.whole("index", index).text("id", &id).text("type", "function").object("function", |o| {
                            o.text("name", &name).text("arguments", "");
                        });
                    });
                });
            });
        }
    }

    fn chunk(&self, out: &mut Vec<u8>, delta: impl FnOnce(&mut Object<'_>)) {
        self.choice(out, None, delta);
    }

    fn choice(&self, out: &mut Vec<u8>, reason: Option<&str>, delta: impl FnOnce(&mut Object<'_>)) {
        let text = object_text(|o| {
            self.opening(o);
            o.array("choices", |choices| {
                choices.object(|o| {
                    o.whole("index", 0).object("delta", delta).null("logprobs");
                    match reason {
                        Some(reason) => o.text("finish_reason", reason),
                        None => o.null("finish_reason"),
                    };
                });
            });
        });
        sse(out, None, &text);
    }

    fn opening(&self, o: &mut Object<'_>) {
        o.text("id", &format!("chatcmpl-{}", self.meta.id)).text("object", "chat.completion.chunk");
        o.whole("created", self.meta.created_s).text("model", &self.meta.model);
    }
}

fn extra(o: &mut Object<'_>, signature: &str) {
    o.object("extra_content", |o| {
        o.object("google", |o| _ = o.text("thought_signature", signature));
    });
}

/// Writes an answer in one piece.
pub(crate) fn answer(answer: &Answer, meta: &Meta) -> Vec<u8> {
    let mut out = Vec::new();
    object(&mut out, |o| {
        o.text("id", &format!("chatcmpl-{}", meta.id)).text("object", "chat.completion");
        o.whole("created", meta.created_s).text("model", &meta.model);
        o.array("choices", |choices| {
            choices.object(|o| {
                o.whole("index", 0).object("message", |o| message(o, answer)).null("logprobs");
                o.text("finish_reason", finish_reason(answer.stop.as_ref(), answer.has_tools()));
            });
        });
        if let Some(usage) = answer.usage {
            o.object("usage", |o| write_usage(o, usage));
        }
    });
    out
}

fn message(o: &mut Object<'_>, answer: &Answer) {
    let text = answer.texts(|block| *block == Block::Text);
    let refusal = answer.texts(|block| *block == Block::Refusal);
    let thoughts = answer.texts(|block| *block == Block::Thinking);
    o.text("role", "assistant");
    if text.is_empty() && (answer.has_tools() || !refusal.is_empty()) {
        o.null("content");
    } else {
        o.text("content", &text);
    }
    if refusal.is_empty() {
        o.null("refusal")
    } else {
        o.text("refusal", &refusal)
    };
    if !thoughts.is_empty() {
        o.text("reasoning_content", &thoughts);
    }
    let mut thinking = answer.blocks.iter().filter(|said| said.block == Block::Thinking);
    if let Some(signature) = thinking.find_map(|said| said.signature.as_ref()) {
        o.text("reasoning_signature", signature);
    }
    if answer.has_tools() {
        o.array("tool_calls", |calls| {
            for said in &answer.blocks {
                if let Block::Tool { id, name } = &said.block {
                    calls.object(|o| call(o, id, name, said));
                }
            }
        });
    }
}

fn call(o: &mut Object<'_>, id: &str, name: &str, said: &Said) {
    o.text("id", id).text("type", "function").object("function", |o| {
        o.text("name", name).text("arguments", said.arguments());
    });
    if let Some(signature) = &said.signature {
        extra(o, signature);
    }
}

fn finish_reason(stop: Option<&Stop>, has_tools: bool) -> &'static str {
    match stop {
        Some(Stop::Length | Stop::Context) => "length",
        Some(Stop::Tool) => "tool_calls",
        Some(Stop::Filter | Stop::Refusal) => "content_filter",
        None if has_tools => "tool_calls",
        _ => "stop",
    }
}

fn write_usage(o: &mut Object<'_>, usage: Usage) {
    o.whole("prompt_tokens", usage.prompt).whole("completion_tokens", usage.completion);
    o.whole("total_tokens", usage.total());
    o.object("prompt_tokens_details", |o| {
        o.whole("cached_tokens", usage.cached);
        if usage.cache_written > 0 {
            o.whole("cache_write_tokens", usage.cache_written);
        }
    });
    o.object("completion_tokens_details", |o| _ = o.whole("reasoning_tokens", usage.reasoning));
}
