//! OpenAI chat completions: writes a request out of the hub.

use crate::chat::{Changes, Choice, Format, Head, Kind, Media, Part, Request, Role, Source, Thinking, Turn, arguments};
use crate::dialect::build::{Array, Object, array_text, object};
use crate::dialect::fields::refused;
use crate::error::Error;

/// Writes a request.
///
/// # Errors
/// Names what OpenAI has no word for.
pub(crate) fn request(request: &Request, head: &Head, changes: Changes<'_>) -> Result<Vec<u8>, Error> {
    if request.sampling.top_k.is_some() {
        return Err(refused("top_k"));
    }
    let messages = messages(request)?;
    let mut out = Vec::new();
    object(&mut out, |o| {
        o.text("model", changes.model);
        o.raw("messages", &messages);
        o.whole(changes.output_field, changes.output_max);
        if head.stream {
            o.flag("stream", true).object("stream_options", |o| {
                o.flag("include_usage", true);
            });
        }
        sampling(o, request);
        tools(o, request);
        if !request.stop.is_empty() {
            o.texts("stop", &request.stop);
        }
        format(o, &request.format);
        if let Some(word) = request.reasoning.and_then(|reasoning| effort(reasoning.how)) {
            o.text("reasoning_effort", word);
        }
        if let Some(user) = &request.user {
            o.text("user", user);
        }
    });
    Ok(out)
}

/// OpenAI's word for an amount of thinking; none where the model may choose.
pub(crate) fn effort(how: Thinking) -> Option<&'static str> {
    match how {
        Thinking::Free => None,
        Thinking::Off => Some("none"),
        Thinking::Budget(tokens) => Some(crate::chat::Effort::of_budget(tokens).as_str()),
        Thinking::Effort(effort) => Some(effort.as_str()),
    }
}

fn sampling(o: &mut Object<'_>, request: &Request) {
    let s = &request.sampling;
    for (name, value) in [
        ("temperature", s.temperature),
        ("top_p", s.top_p),
        ("presence_penalty", s.presence_penalty),
        ("frequency_penalty", s.frequency_penalty),
    ] {
        if let Some(value) = value {
            o.number(name, value);
        }
    }
    if let Some(seed) = s.seed {
        o.raw("seed", &seed.to_string());
    }
}

fn tools(o: &mut Object<'_>, request: &Request) {
    if request.tools.is_empty() {
        return;
    }
    o.array("tools", |tools| {
        for tool in request.allowed_tools() {
            tools.object(|o| {
                o.text("type", "function").object("function", |o| function(o, tool));
            });
        }
    });
    match &request.choice {
        None => {}
        Some(Choice::Auto) => _ = o.text("tool_choice", "auto"),
        Some(Choice::None) => _ = o.text("tool_choice", "none"),
        Some(Choice::Any(names)) if names.len() == 1 => {
            o.object("tool_choice", |o| {
                o.text("type", "function").object("function", |o| _ = o.text("name", &names[0]));
            });
        }
        Some(Choice::Any(_)) => _ = o.text("tool_choice", "required"),
    }
    if let Some(parallel) = request.parallel {
        o.flag("parallel_tool_calls", parallel);
    }
}

fn function(o: &mut Object<'_>, tool: &crate::chat::Tool) {
    o.text("name", &tool.name);
    if let Some(description) = &tool.description {
        o.text("description", description);
    }
    if let Some(schema) = &tool.schema {
        o.raw("parameters", schema);
    }
    if let Some(strict) = tool.strict {
        o.flag("strict", strict);
    }
}

fn format(o: &mut Object<'_>, format: &Format) {
    match format {
        Format::Text => {}
        Format::Json => _ = o.object("response_format", |o| _ = o.text("type", "json_object")),
        Format::Schema { name, schema, strict } => {
            o.object("response_format", |o| {
                o.text("type", "json_schema").object("json_schema", |o| {
                    o.text("name", name.as_deref().unwrap_or("answer")).raw("schema", schema);
                    if let Some(strict) = strict {
                        o.flag("strict", *strict);
                    }
                });
            });
        }
    }
}

fn messages(request: &Request) -> Result<String, Error> {
    let mut failed = None;
    let text = array_text(|messages| {
        for turn in &request.turns {
            if let Err(error) = turn_messages(messages, turn) {
                failed = Some(error);
            }
        }
    });
    failed.map_or(Ok(text), Err)
}

fn turn_messages(messages: &mut Array<'_>, turn: &Turn) -> Result<(), Error> {
    match turn.role {
        Role::System => said(messages, "system", &turn.parts.iter().collect::<Vec<_>>()),
        Role::User => {
            // What tools answered comes first: it belongs to the calls right before.
            for part in &turn.parts {
                if let Part::ToolResult { id, parts, .. } = part {
                    result(messages, id, parts)?;
                }
            }
            let rest: Vec<&Part> = turn.parts.iter().filter(|part| !matches!(part, Part::ToolResult { .. })).collect();
            if rest.is_empty() { Ok(()) } else { said(messages, "user", &rest) }
        }
        Role::Assistant => assistant(messages, &turn.parts),
    }
}

/// A tool's answer; pictures in it, which a tool message cannot hold, follow as the user's.
fn result(messages: &mut Array<'_>, id: &str, parts: &[Part]) -> Result<(), Error> {
    let texts: Vec<&Part> = parts.iter().filter(|part| matches!(part, Part::Text(_))).collect();
    let others: Vec<&Part> = parts.iter().filter(|part| !matches!(part, Part::Text(_))).collect();
    if !others.is_empty() {
        return Err(refused("messages.content.tool_result.content"));
    }
    let content = content(&texts)?;
    messages.object(|o| {
        o.text("role", "tool").text("tool_call_id", id).raw("content", &content);
    });
    Ok(())
}

fn said(messages: &mut Array<'_>, role: &str, parts: &[&Part]) -> Result<(), Error> {
    let content = content(parts)?;
    messages.object(|o| {
        o.text("role", role).raw("content", &content);
    });
    Ok(())
}

fn assistant(messages: &mut Array<'_>, parts: &[Part]) -> Result<(), Error> {
    let texts: Vec<&Part> = parts.iter().filter(|part| matches!(part, Part::Text(_))).collect();
    if parts.iter().any(|part| matches!(part, Part::Media(_) | Part::ToolResult { .. })) {
        return Err(refused("messages.content"));
    }
    let refusal: String =
        parts.iter().filter_map(|p| if let Part::Refusal(text) = p { Some(text.as_str()) } else { None }).collect();
    let calls: Vec<_> =
        parts.iter().filter_map(|p| if let Part::ToolUse(call) = p { Some(call) } else { None }).collect();
    if texts.is_empty() && refusal.is_empty() && calls.is_empty() {
        // A turn of thoughts only, which OpenAI does not take back.
        return Ok(());
    }
    let content = if texts.is_empty() { "null".to_owned() } else { content(&texts)? };
    messages.object(|o| {
        o.text("role", "assistant").raw("content", &content);
        if !refusal.is_empty() {
            o.text("refusal", &refusal);
        }
        if !calls.is_empty() {
            o.array("tool_calls", |array| {
                for call in calls {
                    array.object(|o| {
                        o.text("id", &call.id).text("type", "function").object("function", |o| {
                            o.text("name", &call.name).text("arguments", arguments(&call.input));
                        });
                    });
                }
            });
        }
    });
    Ok(())
}

/// One text as it is, anything else as an array of parts.
fn content(parts: &[&Part]) -> Result<String, Error> {
    if let [Part::Text(text)] = parts {
        return Ok(crate::dialect::build::quoted(text));
    }
    let mut failed = None;
    let text = array_text(|array| {
        for part in parts {
            if let Err(error) = self::part(array, part) {
                failed = Some(error);
            }
        }
    });
    failed.map_or(Ok(text), Err)
}

fn part(array: &mut Array<'_>, part: &Part) -> Result<(), Error> {
    match part {
        Part::Text(text) => array.object(|o| _ = o.text("type", "text").text("text", text)),
        Part::Media(media) => self::media(array, media)?,
        _ => return Err(refused("messages.content")),
    }
    Ok(())
}

fn media(array: &mut Array<'_>, media: &Media) -> Result<(), Error> {
    match (media.kind, &media.source) {
        (Kind::Image, source) => array.object(|o| {
            o.text("type", "image_url").object("image_url", |o| _ = o.text("url", &source.to_url()));
        }),
        (Kind::Audio, Source::Inline { mime, data }) => array.object(|o| {
            let format = mime.rsplit('/').next().unwrap_or("wav").trim_start_matches("x-");
            o.text("type", "input_audio").object("input_audio", |o| {
                o.text("data", data).text("format", if format == "mpeg" { "mp3" } else { format });
            });
        }),
        (Kind::Document, source @ Source::Inline { .. }) => array.object(|o| {
            o.text("type", "file").object("file", |o| {
                o.text("filename", media.name.as_deref().unwrap_or("document.pdf")).text("file_data", &source.to_url());
            });
        }),
        (_, Source::Url { .. }) => return Err(refused("messages.content.source.url")),
    }
    Ok(())
}
