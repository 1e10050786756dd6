//! Gemini's generateContent: writes a request out of the hub.

use crate::chat::{Changes, Choice, Format, Media, Part, Request, Role, Source, Thinking, Tool, ToolUse, arguments};
use crate::dialect::build::{Array, Object, array_text, object, quoted};
use crate::dialect::fields::refused;
use crate::error::Error;

/// Stands for a signature that another model's call cannot have.
///
/// Source: ai.google.dev, "Thought signatures", calls that come from other models; from memory, the page was not opened.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Writes a request.
///
/// # Errors
/// Names what Gemini has no word for.
pub(crate) fn request(request: &Request, changes: Changes<'_>) -> Result<Vec<u8>, Error> {
    if request.parallel == Some(false) && !request.tools.is_empty() {
        return Err(refused("parallel_tool_calls"));
    }
    let contents = contents(request)?;
    let system = request.turns.iter().filter(|turn| turn.role == Role::System).flat_map(|turn| &turn.parts);
    let system: Vec<&Part> = system.collect();
    let system = if system.is_empty() { None } else { Some(parts(request, &system)?) };
    let mut out = Vec::new();
    object(&mut out, |o| {
        if let Some(system) = &system {
            o.object("systemInstruction", |o| _ = o.raw("parts", system));
        }
        o.raw("contents", &contents);
        tools(o, request);
        o.object("generationConfig", |o| generation(o, request, changes.output_max));
    });
    Ok(out)
}

fn generation(o: &mut Object<'_>, request: &Request, output_max: u64) {
    let s = &request.sampling;
    o.whole("maxOutputTokens", output_max);
    for (name, value) in [
        ("temperature", s.temperature),
        ("topP", s.top_p),
        ("presencePenalty", s.presence_penalty),
        ("frequencyPenalty", s.frequency_penalty),
    ] {
        if let Some(value) = value {
            o.number(name, value);
        }
    }
    for (name, value) in [("topK", s.top_k), ("seed", s.seed)] {
        if let Some(value) = value {
            o.raw(name, &value.to_string());
        }
    }
    if !request.stop.is_empty() {
        o.texts("stopSequences", &request.stop);
    }
    match &request.format {
        Format::Text => {}
        Format::Json => _ = o.text("responseMimeType", "application/json"),
        Format::Schema { schema, .. } => {
            o.text("responseMimeType", "application/json").raw("responseJsonSchema", schema);
        }
    }
    if let Some(reasoning) = request.reasoning {
        o.object("thinkingConfig", |o| {
            match reasoning.how {
                Thinking::Free => {}
                Thinking::Off => _ = o.whole("thinkingBudget", 0),
                Thinking::Budget(tokens) => _ = o.whole("thinkingBudget", tokens),
                Thinking::Effort(effort) => _ = o.whole("thinkingBudget", effort.budget()),
            }
            if reasoning.how != Thinking::Off {
                o.flag("includeThoughts", reasoning.is_shown.unwrap_or(true));
            }
        });
    }
}

fn tools(o: &mut Object<'_>, request: &Request) {
    if request.tools.is_empty() {
        return;
    }
    o.array("tools", |tools| {
        tools.object(|o| {
            o.array("functionDeclarations", |array| {
                request.tools.iter().for_each(|tool| array.object(|o| function(o, tool)));
            });
        });
    });
    let Some(choice) = &request.choice else { return };
    o.object("toolConfig", |o| {
        o.object("functionCallingConfig", |o| match choice {
            Choice::Auto => _ = o.text("mode", "AUTO"),
            Choice::None => _ = o.text("mode", "NONE"),
            Choice::Any(names) => {
                o.text("mode", "ANY");
                if !names.is_empty() {
                    o.texts("allowedFunctionNames", names);
                }
            }
        });
    });
}

fn function(o: &mut Object<'_>, tool: &Tool) {
    o.text("name", &tool.name);
    if let Some(description) = &tool.description {
        o.text("description", description);
    }
    if let Some(schema) = &tool.schema {
        o.raw("parametersJsonSchema", schema);
    }
}

fn contents(request: &Request) -> Result<String, Error> {
    // Turns of one role that a system's turn stood between are one turn.
    let mut turns: Vec<(Role, Vec<&Part>)> = Vec::new();
    for turn in request.turns.iter().filter(|turn| turn.role != Role::System) {
        match turns.last_mut() {
            Some((role, parts)) if *role == turn.role => parts.extend(&turn.parts),
            _ => turns.push((turn.role, turn.parts.iter().collect())),
        }
    }
    let texts = turns.iter().map(|(role, parts)| Ok((*role, self::parts(request, parts)?)));
    let texts = texts.collect::<Result<Vec<_>, Error>>()?;
    Ok(array_text(|contents| {
        for (role, parts) in texts.iter().filter(|(_, parts)| parts != "[]") {
            contents.object(|o| {
                o.text("role", if *role == Role::User { "user" } else { "model" }).raw("parts", parts);
            });
        }
    }))
}

fn parts(request: &Request, parts: &[&Part]) -> Result<String, Error> {
    let mut failed = None;
    let text = array_text(|array| {
        let mut calls = 0;
        for part in parts {
            calls += usize::from(matches!(part, Part::ToolUse(_)));
            if let Err(error) = self::part(array, request, part, calls == 1) {
                failed = Some(error);
            }
        }
    });
    failed.map_or(Ok(text), Err)
}

fn part(array: &mut Array<'_>, request: &Request, part: &Part, is_first_call: bool) -> Result<(), Error> {
    match part {
        Part::Text(text) | Part::Refusal(text) => array.object(|o| _ = o.text("text", text)),
        Part::Media(media) => self::media(array, media),
        Part::ToolUse(call) => array.object(|o| self::call(o, call, is_first_call)),
        Part::ToolResult { id, parts, is_error } => {
            let name = request.tool_of(id).ok_or_else(|| {
                let message = format!("no tool call before has the id '{id}'");
                Error::invalid("messages.tool_call_id", message)
            })?;
            let output = output(parts)?;
            array.object(|o| {
                o.object("functionResponse", |o| {
                    o.text("id", id).text("name", name);
                    o.object("response", |o| _ = o.raw(if *is_error { "error" } else { "output" }, &output));
                });
            });
        }
        Part::Thinking { text, signature } => array.object(|o| {
            o.text("text", text).flag("thought", true);
            if let Some(signature) = signature {
                o.text("thoughtSignature", signature);
            }
        }),
        // Only its vendor can read it, and it may be left out.
        Part::Redacted(_) => {}
    }
    Ok(())
}

fn call(o: &mut Object<'_>, call: &ToolUse, is_first: bool) {
    o.object("functionCall", |o| {
        o.text("id", &call.id).text("name", &call.name).raw("args", arguments(&call.input));
    });
    match &call.signature {
        Some(signature) => _ = o.text("thoughtSignature", signature),
        None if is_first => _ = o.text("thoughtSignature", NO_SIGNATURE),
        None => {}
    }
}

/// What a tool answered: a text, as a text.
fn output(parts: &[Part]) -> Result<String, Error> {
    let texts = parts.iter().map(|part| match part {
        Part::Text(text) => Ok(text.as_str()),
        _ => Err(refused("messages.content.tool_result.content")),
    });
    Ok(quoted(&texts.collect::<Result<Vec<_>, _>>()?.concat()))
}

fn media(array: &mut Array<'_>, media: &Media) {
    array.object(|o| match &media.source {
        Source::Inline { mime, data } => {
            o.object("inlineData", |o| _ = o.text("mimeType", mime).text("data", data));
        }
        Source::Url { url, mime } => {
            o.object("fileData", |o| {
                if let Some(mime) = mime {
                    o.text("mimeType", mime);
                }
                o.text("fileUri", url);
            });
        }
    });
}
