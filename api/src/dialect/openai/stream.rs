//! OpenAI chat completions: reads answers, plain and streamed, into the events of the hub.

use super::answer::usage_of;
use crate::chat::{Block, Event, Failure, Stop};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What was read of an answer so far.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    began: bool,
    open: Option<Kind>,
    /// Index and id of the tool call that is open.
    call: (u64, String),
    /// The largest index of a call that was opened.
    calls: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Refusal,
    Tool,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    id: Option<String>,
    model: Option<String>,
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    #[serde(alias = "message")]
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
    reasoning_signature: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    index: Option<u64>,
    id: Option<String>,
    function: Option<Function>,
    extra_content: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

impl Reader {
    /// Reads one event's data, or a whole answer, which is the same but for a name.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn read(&mut self, data: &str, out: &mut Vec<Event>) -> Result<(), &'static str> {
        if data == "[DONE]" {
            out.push(Event::Done);
            return Ok(());
        }
        let chunk: Chunk<'_> = serde_json::from_str(data).map_err(|_| "cannot be read")?;
        if let Some(error) = chunk.error.filter(|raw| raw.get() != "null") {
            out.push(Event::Failed(failure(0, &format!(r#"{{"error":{error}}}"#))));
            return Ok(());
        }
        if !std::mem::replace(&mut self.began, true) {
            out.push(Event::Start { id: chunk.id, model: chunk.model });
        }
        for choice in chunk.choices.unwrap_or_default().into_iter().filter(|choice| choice.index == 0) {
            self.delta(choice.delta.unwrap_or_default(), out)?;
            out.extend(choice.finish_reason.map(|reason| Event::Stop(stop(&reason))));
        }
        out.extend(chunk.usage.and_then(|raw| usage_of(raw.get())).map(Event::Usage));
        Ok(())
    }

    fn delta(&mut self, delta: Delta, out: &mut Vec<Event>) -> Result<(), &'static str> {
        self.text(Kind::Thinking, Block::Thinking, delta.reasoning_content, out);
        if let Some(signature) = delta.reasoning_signature {
            self.open(Kind::Thinking, Block::Thinking, out);
            out.push(Event::Signature(signature));
        }
        self.text(Kind::Text, Block::Text, delta.content, out);
        self.text(Kind::Refusal, Block::Refusal, delta.refusal, out);
        for (place, call) in delta.tool_calls.into_iter().flatten().enumerate() {
            self.call(place as u64, call, out)?;
        }
        Ok(())
    }

    fn text(&mut self, kind: Kind, block: Block, text: Option<String>, out: &mut Vec<Event>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        self.open(kind, block, out);
        out.push(Event::Delta(text));
    }

    fn open(&mut self, kind: Kind, block: Block, out: &mut Vec<Event>) {
        if self.open != Some(kind) {
            self.open = Some(kind);
            out.push(Event::Open(block));
        }
    }

    fn call(&mut self, place: u64, call: Call, out: &mut Vec<Event>) -> Result<(), &'static str> {
        let index = call.index.unwrap_or(place);
        let function = call.function.unwrap_or(Function { name: None, arguments: None });
        let id = call.id.filter(|id| !id.is_empty());
        let name = function.name.filter(|name| !name.is_empty());
        let goes_on = self.open == Some(Kind::Tool)
            && index == self.call.0
            && (name.is_none() || id.as_ref().is_none_or(|id| *id == self.call.1));
        if !goes_on {
            let Some(name) = name else { return Err("mixes up its tool calls") };
            self.calls += 1;
            let id = id.unwrap_or_else(|| format!("call_{}", self.calls));
            self.call = (index, id.clone());
            self.open = Some(Kind::Tool);
            out.push(Event::Open(Block::Tool { id, name }));
        }
        let signature = call.extra_content.as_ref().and_then(|extra| extra["google"]["thought_signature"].as_str());
        out.extend(signature.map(|text| Event::Signature(text.to_owned())));
        out.extend(function.arguments.filter(|text| !text.is_empty()).map(Event::Delta));
        Ok(())
    }
}

fn stop(reason: &str) -> Stop {
    match reason {
        "length" => Stop::Length,
        "tool_calls" | "function_call" => Stop::Tool,
        "content_filter" => Stop::Filter,
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
        param: Option<String>,
        code: Option<serde_json::Value>,
        r#type: Option<String>,
    }
    let Envelope { error } = serde_json::from_str(body).unwrap_or_default();
    let code = match error.code {
        Some(serde_json::Value::String(code)) => Some(code),
        _ => error.r#type,
    };
    let status = match (status, code.as_deref()) {
        (0, Some("rate_limit_exceeded" | "insufficient_quota")) => 429,
        (0, Some("overloaded")) => 503,
        (0, _) => 500,
        (status, _) => status,
    };
    Failure { status, message: error.message.unwrap_or_default(), param: error.param, code, retry_after_s: None }
}
