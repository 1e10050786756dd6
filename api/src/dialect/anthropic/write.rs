//! Anthropic messages: writes a request out of the hub.

use crate::chat::{Changes, Choice, Format, Head, Kind, Media, Part, Request, Role, Source, Thinking, Tool, arguments};
use crate::dialect::build::{Array, Object, array_text, object};
use crate::dialect::fields::refused;
use crate::error::Error;

/// The least that Anthropic takes as a budget of thinking.
const BUDGET_MIN: u64 = 1_024;

/// Writes a request.
///
/// # Errors
/// Names what Anthropic has no word for.
pub(crate) fn request(request: &Request, head: &Head, changes: Changes<'_>) -> Result<Vec<u8>, Error> {
    let sampling = &request.sampling;
    for (name, is_set) in [
        ("seed", sampling.seed.is_some()),
        ("presence_penalty", sampling.presence_penalty.is_some_and(|value| value != 0.0)),
        ("frequency_penalty", sampling.frequency_penalty.is_some_and(|value| value != 0.0)),
        ("response_format", request.format == Format::Json),
        ("temperature", sampling.temperature.is_some_and(|value| value > 1.0)),
    ] {
        if is_set {
            return Err(refused(name));
        }
    }
    let budget = budget(request, changes.output_max);
    let messages = messages(request)?;
    let system = system(request)?;
    let mut out = Vec::new();
    object(&mut out, |o| {
        o.text("model", changes.model).whole("max_tokens", changes.output_max);
        if let Some(system) = &system {
            o.raw("system", system);
        }
        o.raw("messages", &messages);
        if head.stream {
            o.flag("stream", true);
        }
        tools(o, request);
        // With thinking, Anthropic takes no temperature but its own.
        for (name, value) in [("temperature", sampling.temperature), ("top_p", sampling.top_p)] {
            if let Some(value) = value.filter(|_| budget.is_none()) {
                o.number(name, value);
            }
        }
        if let Some(top_k) = sampling.top_k.filter(|_| budget.is_none()) {
            o.raw("top_k", &top_k.to_string());
        }
        if !request.stop.is_empty() {
            o.texts("stop_sequences", &request.stop);
        }
        if let Some(budget) = budget {
            o.object("thinking", |o| _ = o.text("type", "enabled").whole("budget_tokens", budget));
        }
        if let Format::Schema { schema, .. } = &request.format {
            o.object("output_config", |o| {
                o.object("format", |o| _ = o.text("type", "json_schema").raw("schema", schema));
            });
        }
        if let Some(user) = &request.user {
            o.object("metadata", |o| _ = o.text("user_id", user));
        }
    });
    Ok(out)
}

/// The budget of thinking, within the cap of the output; none where the model is not to think, where there is no room, and
/// where Anthropic would not let it: in the middle of a turn that began without thinking, and where a tool is forced.
fn budget(request: &Request, output_max: u64) -> Option<u64> {
    let wanted = match request.reasoning?.how {
        Thinking::Off | Thinking::Free => return None,
        Thinking::Budget(tokens) => tokens,
        Thinking::Effort(effort) => effort.budget(),
    };
    let is_forced = matches!(request.choice, Some(Choice::Any(_)));
    let budget = wanted.max(BUDGET_MIN).min(output_max.saturating_sub(1));
    (budget >= BUDGET_MIN && !is_forced && !is_mid_turn(request)).then_some(budget)
}

fn is_mid_turn(request: &Request) -> bool {
    let Some(turn) = request.turns.iter().rfind(|turn| turn.role == Role::Assistant) else { return false };
    let answers =
        request.turns.last().is_some_and(|turn| turn.parts.iter().any(|part| matches!(part, Part::ToolResult { .. })));
    let has_thought =
        turn.parts.iter().any(|part| matches!(part, Part::Thinking { signature: Some(_), .. } | Part::Redacted(_)));
    answers && !has_thought
}

fn tools(o: &mut Object<'_>, request: &Request) {
    if request.tools.is_empty() {
        return;
    }
    o.array("tools", |tools| {
        for tool in request.allowed_tools() {
            tools.object(|o| self::tool(o, tool));
        }
    });
    let only_one = request.parallel == Some(false);
    if request.choice.is_none() && !only_one {
        return;
    }
    o.object("tool_choice", |o| {
        match &request.choice {
            None | Some(Choice::Auto) => o.text("type", "auto"),
            Some(Choice::None) => o.text("type", "none"),
            Some(Choice::Any(names)) if names.len() == 1 => o.text("type", "tool").text("name", &names[0]),
            Some(Choice::Any(_)) => o.text("type", "any"),
        };
        if only_one && request.choice != Some(Choice::None) {
            o.flag("disable_parallel_tool_use", true);
        }
    });
}

fn tool(o: &mut Object<'_>, tool: &Tool) {
    o.text("name", &tool.name);
    if let Some(description) = &tool.description {
        o.text("description", description);
    }
    o.raw("input_schema", tool.schema.as_deref().unwrap_or(r#"{"type":"object","properties":{}}"#));
    if let Some(strict) = tool.strict {
        o.flag("strict", strict);
    }
}

/// What the system says, wherever the client had it said: Anthropic takes it in one place.
fn system(request: &Request) -> Result<Option<String>, Error> {
    let parts = request.turns.iter().filter(|turn| turn.role == Role::System).flat_map(|turn| &turn.parts);
    let parts: Vec<&Part> = parts.collect();
    if parts.iter().any(|part| !matches!(part, Part::Text(_))) {
        return Err(refused("messages.content"));
    }
    if parts.is_empty() { Ok(None) } else { blocks(&parts).map(Some) }
}

fn messages(request: &Request) -> Result<String, Error> {
    // Turns of one role that a system's turn stood between are one turn.
    let mut turns: Vec<(Role, Vec<&Part>)> = Vec::new();
    for turn in request.turns.iter().filter(|turn| turn.role != Role::System) {
        match turns.last_mut() {
            Some((role, parts)) if *role == turn.role => parts.extend(&turn.parts),
            _ => turns.push((turn.role, turn.parts.iter().collect())),
        }
    }
    let mut failed = None;
    let text = array_text(|messages| {
        for (role, mut parts) in turns {
            if role == Role::User {
                // What tools answered has to come first.
                parts.sort_by_key(|part| !matches!(part, Part::ToolResult { .. }));
            }
            match blocks(&parts) {
                Ok(content) if content == "[]" => {}
                Ok(content) => messages.object(|o| {
                    o.text("role", if role == Role::User { "user" } else { "assistant" }).raw("content", &content);
                }),
                Err(error) => failed = Some(error),
            }
        }
    });
    failed.map_or(Ok(text), Err)
}

fn blocks(parts: &[&Part]) -> Result<String, Error> {
    let mut failed = None;
    let text = array_text(|array| {
        for part in parts {
            if let Err(error) = block(array, part) {
                failed = Some(error);
            }
        }
    });
    failed.map_or(Ok(text), Err)
}

fn block(array: &mut Array<'_>, part: &Part) -> Result<(), Error> {
    match part {
        // Anthropic refuses empty texts, which say nothing.
        Part::Text(text) | Part::Refusal(text) if text.is_empty() => {}
        Part::Text(text) | Part::Refusal(text) => array.object(|o| _ = o.text("type", "text").text("text", text)),
        Part::Media(media) => self::media(array, media)?,
        Part::ToolUse(call) => {
            let input = arguments(&call.input);
            if !input.trim_start().starts_with('{') || serde_json::from_str::<serde::de::IgnoredAny>(input).is_err() {
                return Err(Error::invalid(
                    "messages.tool_calls.function.arguments",
                    "arguments are not a JSON object",
                ));
            }
            array.object(|o| {
                o.text("type", "tool_use").text("id", &call.id).text("name", &call.name).raw("input", input);
            });
        }
        Part::ToolResult { id, parts, is_error } => {
            let content = blocks(&parts.iter().collect::<Vec<_>>())?;
            array.object(|o| {
                o.text("type", "tool_result").text("tool_use_id", id).raw("content", &content);
                if *is_error {
                    o.flag("is_error", true);
                }
            });
        }
        Part::Thinking { text, signature: Some(signature) } => array.object(|o| {
            o.text("type", "thinking").text("thinking", text).text("signature", signature);
        }),
        // Thoughts of earlier turns may be left out, and without their signature they have to be.
        Part::Thinking { signature: None, .. } => {}
        Part::Redacted(data) => array.object(|o| _ = o.text("type", "redacted_thinking").text("data", data)),
    }
    Ok(())
}

fn media(array: &mut Array<'_>, media: &Media) -> Result<(), Error> {
    let kind = match media.kind {
        Kind::Image => "image",
        Kind::Document => "document",
        Kind::Audio => return Err(refused("messages.content.input_audio")),
    };
    array.object(|o| {
        o.text("type", kind).object("source", |o| match &media.source {
            Source::Url { url, .. } => _ = o.text("type", "url").text("url", url),
            Source::Inline { mime, data } => _ = o.text("type", "base64").text("media_type", mime).text("data", data),
        });
        if let (Kind::Document, Some(name)) = (media.kind, &media.name) {
            o.text("title", name);
        }
    });
    Ok(())
}
