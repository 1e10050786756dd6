//! The scripted upstream's answers in the forms of Anthropic and Gemini.

use serde_json::{Value, json};

/// What a route speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Openai,
    Anthropic,
    Gemini,
}

impl Form {
    pub(crate) fn of(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        if path.ends_with("/messages") {
            Self::Anthropic
        } else if path.ends_with(":generateContent") || path.ends_with(":streamGenerateContent") {
            Self::Gemini
        } else {
            Self::Openai
        }
    }
}

/// The model that stands in a path of Gemini's.
pub(crate) fn model_in(path: &str) -> Option<&str> {
    let (before, _) = path.split('?').next()?.rsplit_once(':')?;
    before.split_once("/models/").map(|(_, model)| model)
}

/// What an answer says, whatever its form.
pub(crate) struct Said<'a> {
    pub(crate) id: u64,
    /// As JSON.
    pub(crate) model: &'a str,
    pub(crate) text: String,
    /// OpenAI's word.
    pub(crate) finish: &'static str,
    pub(crate) tools: &'a [(String, String, String)],
    /// OpenAI's form.
    pub(crate) usage: Option<&'a Value>,
}

impl Said<'_> {
    fn model(&self) -> Value {
        serde_json::from_str(self.model).expect("the model is JSON")
    }

    fn count(&self, name: &str) -> Option<Value> {
        self.usage.and_then(|usage| usage.get(name)).cloned()
    }

    fn anthropic_usage(&self) -> Value {
        match self.count("prompt_tokens") {
            Some(prompt) => json!({"input_tokens": prompt, "output_tokens": self.count("completion_tokens")}),
            None => Value::Null,
        }
    }

    fn gemini_usage(&self) -> Value {
        match self.count("prompt_tokens") {
            Some(prompt) => json!({"promptTokenCount": prompt, "candidatesTokenCount": self.count("completion_tokens"),
                "totalTokenCount": self.count("total_tokens")}),
            None => Value::Null,
        }
    }

    fn stop_reason(&self) -> &'static str {
        match self.finish {
            "length" => "max_tokens",
            "tool_calls" => "tool_use",
            _ => "end_turn",
        }
    }

    fn finish_reason(&self) -> &'static str {
        if self.finish == "length" { "MAX_TOKENS" } else { "STOP" }
    }

    fn calls(&self) -> impl Iterator<Item = (usize, &str, &str, &str)> {
        self.tools.iter().enumerate().map(|(i, (id, name, args))| (i + 1, id.as_str(), name.as_str(), args.as_str()))
    }
}

fn parsed(arguments: &str) -> Value {
    serde_json::from_str(arguments).expect("a script's arguments are JSON")
}

/// The body of a plain reply.
pub(crate) fn body(form: Form, said: &Said<'_>) -> String {
    match form {
        Form::Anthropic => {
            let mut content = vec![json!({"type": "text", "text": said.text})];
            content.extend(said.calls().map(|(_, id, name, arguments)| {
                json!({"type": "tool_use", "id": id, "name": name, "input": parsed(arguments)})
            }));
            json!({"id": format!("msg_{}", said.id), "type": "message", "role": "assistant", "model": said.model(),
                "content": content, "stop_reason": said.stop_reason(), "stop_sequence": null, "usage": said.anthropic_usage()})
            .to_string()
        }
        _ => gemini(said, &said.text, true).to_string(),
    }
}

fn gemini(said: &Said<'_>, text: &str, is_last: bool) -> Value {
    let mut parts = vec![json!({"text": text})];
    if !is_last {
        return json!({"candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}]});
    }
    parts.extend(
        said.calls().map(
            |(_, id, name, arguments)| json!({"functionCall": {"id": id, "name": name, "args": parsed(arguments)}}),
        ),
    );
    json!({"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": said.finish_reason(), "index": 0}],
        "usageMetadata": said.gemini_usage(), "modelVersion": said.model(), "responseId": format!("r{}", said.id)})
}

fn event(value: Value) -> String {
    format!("event: {}\ndata: {value}", value["type"].as_str().expect("an event has a type"))
}

/// The events that open a stream.
pub(crate) fn opening(form: Form, said: &Said<'_>) -> Vec<String> {
    if form == Form::Gemini {
        return Vec::new();
    }
    let mut usage = said.anthropic_usage();
    if usage.is_object() {
        usage["output_tokens"] = json!(1);
    }
    vec![
        event(json!({"type": "message_start", "message": {"id": format!("msg_{}", said.id), "type": "message",
            "role": "assistant", "model": said.model(), "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": usage}})),
        event(json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})),
        event(json!({"type": "ping"})),
    ]
}

/// The events of one piece of text, which is JSON already.
pub(crate) fn content(form: Form, text: &str) -> Vec<String> {
    let text: Value = serde_json::from_str(text).expect("a text is JSON");
    match form {
        Form::Anthropic => {
            let delta = json!({"type": "text_delta", "text": text});
            vec![event(json!({"type": "content_block_delta", "index": 0, "delta": delta}))]
        }
        _ => vec![
            json!({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}]}).to_string(),
        ],
    }
}

/// The events behind the text.
pub(crate) fn closing(form: Form, said: &Said<'_>) -> Vec<String> {
    if form == Form::Gemini {
        return vec![gemini(said, "", true).to_string()];
    }
    let mut events = vec![event(json!({"type": "content_block_stop", "index": 0}))];
    for (index, id, name, arguments) in said.calls() {
        let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        events.push(event(json!({"type": "content_block_start", "index": index, "content_block": block})));
        // In two pieces, neither of which is JSON.
        let (head, tail) = arguments.split_at(arguments.len().min(3));
        for piece in ["", head, tail] {
            let delta = json!({"type": "input_json_delta", "partial_json": piece});
            events.push(event(json!({"type": "content_block_delta", "index": index, "delta": delta})));
        }
        events.push(event(json!({"type": "content_block_stop", "index": index})));
    }
    let usage = json!({"output_tokens": said.count("completion_tokens").unwrap_or(json!(0))});
    let delta = json!({"stop_reason": said.stop_reason(), "stop_sequence": null});
    events.push(event(json!({"type": "message_delta", "delta": delta, "usage": usage})));
    events.push(event(json!({"type": "message_stop"})));
    events
}

/// An error in the envelope of a form.
pub(crate) fn error(form: Form, status: u16, message: &str) -> String {
    if form == Form::Anthropic {
        let kind = match status {
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            503 | 529 => "overloaded_error",
            _ => "api_error",
        };
        return json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_up"})
            .to_string();
    }
    let word = match status {
        429 => "RESOURCE_EXHAUSTED",
        400..=499 => "INVALID_ARGUMENT",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    let retry = json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"});
    let details = if status == 429 { json!([retry]) } else { json!([]) };
    json!({"error": {"code": status, "message": message, "status": word, "details": details}}).to_string()
}
