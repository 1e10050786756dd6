//! Gemini's generateContent: reads answers, plain and streamed, into the events of the hub. A plain answer and an event of a
//! stream are of one form.

use crate::chat::{Block, Event, Failure, Stop, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What was read of an answer so far.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    began: bool,
    open: Option<Kind>,
    calls: u64,
    /// What ids of calls are made of where Gemini gives none.
    seed: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    response_id: Option<String>,
    model_version: Option<String>,
    #[serde(borrow, default)]
    candidates: Vec<Candidate<'a>>,
    prompt_feedback: Option<Feedback>,
    usage_metadata: Option<Counts>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow)]
    content: Option<Content<'a>>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    parts: Vec<Part<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    thought_signature: Option<String>,
    #[serde(borrow)]
    function_call: Option<Call<'a>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    id: Option<String>,
    name: Option<String>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    prompt_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
}

impl Reader {
    pub(crate) fn new(seed: &str) -> Self {
        Self { seed: seed.to_owned(), ..Self::default() }
    }

    /// Reads one event's data, or a whole answer.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn read(&mut self, data: &str, out: &mut Vec<Event>) -> Result<(), &'static str> {
        let chunk: Chunk<'_> = serde_json::from_str(data).map_err(|_| "cannot be read")?;
        if let Some(error) = chunk.error {
            out.push(Event::Failed(failure(0, &format!(r#"{{"error":{error}}}"#))));
            return Ok(());
        }
        if !std::mem::replace(&mut self.began, true) {
            out.push(Event::Start { id: chunk.response_id, model: chunk.model_version });
        }
        for candidate in chunk.candidates.into_iter().filter(|candidate| candidate.index == 0) {
            for part in candidate.content.map(|content| content.parts).unwrap_or_default() {
                self.part(part, out)?;
            }
            let reason = candidate.finish_reason.filter(|reason| reason != "FINISH_REASON_UNSPECIFIED");
            out.extend(reason.map(|reason| Event::Stop(stop(&reason, self.calls > 0))));
        }
        if chunk.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some()) {
            out.push(Event::Stop(Stop::Filter));
        }
        out.extend(chunk.usage_metadata.and_then(usage).map(Event::Usage));
        Ok(())
    }

    fn part(&mut self, part: Part<'_>, out: &mut Vec<Event>) -> Result<(), &'static str> {
        if let Some(call) = part.function_call {
            let name = call.name.ok_or("calls a function without a name")?;
            let id = call.id.filter(|id| !id.is_empty());
            let id = id.unwrap_or_else(|| format!("call_{}_{}", self.seed, self.calls));
            self.calls += 1;
            self.open = None;
            out.push(Event::Open(Block::Tool { id, name }));
            out.push(Event::Delta(call.args.map_or("{}", RawValue::get).to_owned()));
            out.extend(part.thought_signature.map(Event::Signature));
            return Ok(());
        }
        if let Some(text) = part.text.filter(|text| !text.is_empty()) {
            let (kind, block) =
                if part.thought { (Kind::Thinking, Block::Thinking) } else { (Kind::Text, Block::Text) };
            if self.open != Some(kind) {
                self.open = Some(kind);
                out.push(Event::Open(block));
            }
            out.push(Event::Delta(text));
        }
        if self.open.is_some() {
            out.extend(part.thought_signature.map(Event::Signature));
        }
        Ok(())
    }
}

fn usage(counts: Counts) -> Option<Usage> {
    let reasoning = counts.thoughts_token_count.unwrap_or(0);
    Some(Usage {
        prompt: counts.prompt_token_count?.saturating_add(counts.tool_use_prompt_token_count.unwrap_or(0)),
        completion: counts.candidates_token_count.unwrap_or(0).saturating_add(reasoning),
        cached: counts.cached_content_token_count.unwrap_or(0),
        cache_written: 0,
        reasoning,
    })
}

fn stop(reason: &str, has_tools: bool) -> Stop {
    match reason {
        "STOP" if has_tools => Stop::Tool,
        "STOP" => Stop::End,
        "MAX_TOKENS" => Stop::Length,
        "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "MALFORMED_RESPONSE" => Stop::Malformed,
        _ => Stop::Filter,
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
        code: Option<u16>,
        message: Option<String>,
        status: Option<String>,
        details: Vec<serde_json::Value>,
    }
    // Without `alt=sse` an error of a stream comes in an array too.
    let body = body.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(body);
    let Envelope { error } = serde_json::from_str(body).unwrap_or_default();
    let delay = error.details.iter().find_map(|detail| detail["retryDelay"].as_str());
    let seconds = delay.and_then(|text| text.trim_end_matches('s').parse::<f64>().ok());
    Failure {
        status: if status == 0 { error.code.unwrap_or(500) } else { status },
        message: error.message.unwrap_or_default(),
        param: None,
        code: error.status,
        retry_after_s: seconds.filter(|s| (0.0..1e9).contains(s)).map(|s| s.ceil() as u64),
    }
}
