//! Anthropic messages: reads answers, plain and streamed, into the events of the hub.

use crate::chat::{Block, Event, Failure, Stop, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What was read of an answer so far.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    usage: Counts,
    /// The index of the block that is open, unless it is of a kind that is passed over.
    open: Option<u64>,
    /// The input that the open call began with, for a call whose input does not come in pieces.
    input: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Counts {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    output_tokens_details: Option<Details>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Details {
    thinking_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default)]
    r#type: String,
    id: Option<String>,
    model: Option<String>,
    #[serde(borrow, default)]
    content: Vec<Content<'a>>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Content<'a> {
    r#type: String,
    text: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    data: Option<String>,
    id: Option<String>,
    name: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Step<'a> {
    r#type: String,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    index: Option<u64>,
    #[serde(borrow)]
    content_block: Option<Content<'a>>,
    delta: Option<Delta>,
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Delta {
    r#type: Option<String>,
    text: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    partial_json: Option<String>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
}

impl Reader {
    /// Reads a whole answer.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn answer(&mut self, body: &str, out: &mut Vec<Event>) -> Result<(), &'static str> {
        let message: Message<'_> = serde_json::from_str(body).map_err(|_| "cannot be read")?;
        if message.r#type == "error" {
            out.push(Event::Failed(failure(0, body)));
            return Ok(());
        }
        out.push(Event::Start { id: message.id, model: message.model });
        for content in message.content {
            self.begin(content, out)?;
            self.end_block(out);
        }
        out.extend(message.stop_reason.map(|reason| Event::Stop(stop(&reason, message.stop_sequence))));
        self.count(message.usage, out);
        Ok(())
    }

    /// Reads one event's data.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn event(&mut self, data: &str, out: &mut Vec<Event>) -> Result<(), &'static str> {
        let step: Step<'_> = serde_json::from_str(data).map_err(|_| "cannot be read")?;
        match step.r#type.as_str() {
            "message_start" => {
                let message = step.message.ok_or("begins without a message")?;
                out.push(Event::Start { id: message.id, model: message.model });
                self.count(message.usage, out);
            }
            "content_block_start" => {
                self.end_block(out);
                self.begin(step.content_block.ok_or("has a block of nothing")?, out)?;
                if self.open.is_some() {
                    self.open = step.index.or(Some(0));
                }
            }
            "content_block_delta" => self.delta(step.index, step.delta.ok_or("has a step of nothing")?, out)?,
            "content_block_stop" => self.end_block(out),
            "message_delta" => {
                if let Some(delta) = step.delta {
                    out.extend(delta.stop_reason.map(|reason| Event::Stop(stop(&reason, delta.stop_sequence))));
                }
                self.count(step.usage, out);
            }
            "message_stop" => out.push(Event::Done),
            "error" => out.push(Event::Failed(failure(0, data))),
            // Pings, and what Anthropic may add; its pages ask clients to pass over what they do not know.
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, content: Content<'_>, out: &mut Vec<Event>) -> Result<(), &'static str> {
        self.open = Some(0);
        let (block, text) = match content.r#type.as_str() {
            "text" => (Block::Text, content.text),
            "thinking" => (Block::Thinking, content.thinking),
            "redacted_thinking" => (Block::Redacted(content.data.unwrap_or_default()), None),
            "tool_use" => {
                let (Some(id), Some(name)) = (content.id, content.name) else {
                    return Err("calls a tool without a name");
                };
                self.input = content.input.map(|raw| raw.get().to_owned()).filter(|raw| raw != "{}");
                (Block::Tool { id, name }, None)
            }
            _ => {
                self.open = None;
                return Ok(());
            }
        };
        out.push(Event::Open(block));
        out.extend(text.filter(|text| !text.is_empty()).map(Event::Delta));
        out.extend(content.signature.filter(|text| !text.is_empty()).map(Event::Signature));
        Ok(())
    }

    fn delta(&mut self, index: Option<u64>, delta: Delta, out: &mut Vec<Event>) -> Result<(), &'static str> {
        let Some(open) = self.open else { return Ok(()) };
        if index.is_some_and(|index| index != open) {
            return Err("mixes up its blocks");
        }
        match delta.r#type.as_deref() {
            Some("signature_delta") => out.extend(delta.signature.map(Event::Signature)),
            Some("input_json_delta") => {
                self.input = None;
                out.extend(delta.partial_json.filter(|text| !text.is_empty()).map(Event::Delta));
            }
            _ => out.extend(delta.text.or(delta.thinking).filter(|text| !text.is_empty()).map(Event::Delta)),
        }
        Ok(())
    }

    fn end_block(&mut self, out: &mut Vec<Event>) {
        out.extend(self.input.take().map(Event::Delta));
        self.open = None;
    }

    /// Counts are cumulative, and one that is left out keeps its value.
    fn count(&mut self, counts: Option<Counts>, out: &mut Vec<Event>) {
        let Some(new) = counts else { return };
        let c = &mut self.usage;
        c.input_tokens = new.input_tokens.or(c.input_tokens);
        c.output_tokens = new.output_tokens.or(c.output_tokens);
        c.cache_read_input_tokens = new.cache_read_input_tokens.or(c.cache_read_input_tokens);
        c.cache_creation_input_tokens = new.cache_creation_input_tokens.or(c.cache_creation_input_tokens);
        c.output_tokens_details = new.output_tokens_details.or(c.output_tokens_details);
        let (cached, cache_written) =
            (c.cache_read_input_tokens.unwrap_or(0), c.cache_creation_input_tokens.unwrap_or(0));
        let Some(input) = c.input_tokens else { return };
        out.push(Event::Usage(Usage {
            prompt: input.saturating_add(cached).saturating_add(cache_written),
            completion: c.output_tokens.unwrap_or(0),
            cached,
            cache_written,
            reasoning: c.output_tokens_details.and_then(|details| details.thinking_tokens).unwrap_or(0),
        }));
    }
}

fn stop(reason: &str, sequence: Option<String>) -> Stop {
    match reason {
        "max_tokens" => Stop::Length,
        "tool_use" => Stop::Tool,
        "stop_sequence" => Stop::Sequence(sequence),
        "refusal" => Stop::Refusal,
        "pause_turn" => Stop::Pause,
        "model_context_window_exceeded" => Stop::Context,
        _ => Stop::End,
    }
}

/// Reads an error's envelope.
pub(crate) fn failure(status: u16, body: &str) -> Failure {
    #[derive(Default, Deserialize)]
    struct Envelope {
        #[serde(default)]
        error: Inner,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Inner {
        message: Option<String>,
        r#type: Option<String>,
    }
    let Envelope { error } = serde_json::from_str(body).unwrap_or_default();
    let status = match (status, error.r#type.as_deref()) {
        (0, Some("rate_limit_error")) => 429,
        (0 | 529, Some("overloaded_error")) | (529, _) => 503,
        (0, Some("invalid_request_error")) => 400,
        (0, _) => 500,
        (status, _) => status,
    };
    Failure { status, message: error.message.unwrap_or_default(), code: error.r#type, ..Failure::default() }
}
