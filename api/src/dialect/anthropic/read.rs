//! Anthropic messages: reads a whole request into the hub, to be translated.

use crate::chat::{
    Choice, Effort, Format, Kind, Media, Part, Reasoning, Request, Role, Sampling, Source, Thinking, Tool, ToolUse,
};
use crate::dialect::fields::{At, Fields, elements, wrong};
use crate::error::Error;

/// Reads a request.
///
/// # Errors
/// Names the first member that cannot be carried.
pub(crate) fn request(body: &str) -> Result<Request, Error> {
    let mut top = Fields::of("", body)?;
    // Where and how fast Anthropic itself computes, and what it caches.
    top.ignore(&["model", "max_tokens", "stream", "cache_control", "service_tier", "inference_geo", "speed"]);
    top.ignore(&["diagnostics", "workspace_id", "user_profile_id"]);
    let mut request = Request::default();
    for part in content(&mut top, "system")? {
        request.say(Role::System, part);
    }
    for message in top.array("messages")? {
        let mut fields = message.fields()?;
        let role = match fields.need_text("role")?.as_str() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            _ => return Err(fields.refused("role")),
        };
        content(&mut fields, "content")?.into_iter().for_each(|part| request.say(role, part));
        fields.done()?;
    }
    request.tools = top.array("tools")?.iter().map(tool).collect::<Result<_, _>>()?;
    if let Some(choice) = top.object("tool_choice")? {
        self::choice(&mut request, choice)?;
    }
    request.sampling = Sampling {
        temperature: top.number("temperature")?,
        top_p: top.number("top_p")?,
        top_k: top.whole("top_k")?,
        ..Sampling::default()
    };
    request.stop = top.texts("stop_sequences")?;
    request.reasoning = top.object("thinking")?.map(thinking).transpose()?.flatten();
    if let Some(config) = top.object("output_config")? {
        output_config(&mut request, config)?;
    }
    if let Some(mut metadata) = top.object("metadata")? {
        request.user = metadata.text("user_id")?;
        metadata.done()?;
    }
    top.done()?;
    Ok(request)
}

fn content(fields: &mut Fields<'_>, name: &str) -> Result<Vec<Part>, Error> {
    let at = fields.path(name);
    match fields.take(name) {
        None => Ok(Vec::new()),
        Some(raw) if raw.starts_with('[') => elements(&at, raw)?.iter().map(block).collect(),
        Some(raw) => {
            let text = At { at: at.clone(), raw }.text().ok_or_else(|| wrong(&at, "a string or an array"))?;
            Ok(vec![Part::Text(text)])
        }
    }
}

fn block(block: &At<'_>) -> Result<Part, Error> {
    let mut fields = block.fields()?;
    fields.ignore(&["cache_control"]);
    let kind = fields.need_text("type")?;
    let part = match kind.as_str() {
        "text" => {
            // Sources that the model named itself, repeated in its own turn.
            fields.ignore(&["citations"]);
            Part::Text(fields.need_text("text")?)
        }
        "image" => Part::Media(Media { kind: Kind::Image, source: source(&mut fields)?, name: None }),
        "document" => document(&mut fields)?,
        "tool_use" => {
            if fields
                .object("caller")?
                .is_some_and(|mut caller| caller.text("type").ok().flatten().as_deref() != Some("direct"))
            {
                return Err(fields.refused("caller"));
            }
            let input = fields.take("input").unwrap_or("{}").to_owned();
            let (id, name) = (fields.need_text("id")?, fields.need_text("name")?);
            Part::ToolUse(ToolUse { id, name, input, signature: None })
        }
        "tool_result" => {
            let id = fields.need_text("tool_use_id")?;
            let is_error = fields.flag("is_error")?.unwrap_or(false);
            Part::ToolResult { id, parts: content(&mut fields, "content")?, is_error }
        }
        "thinking" => Part::Thinking { text: fields.need_text("thinking")?, signature: fields.text("signature")? },
        "redacted_thinking" => Part::Redacted(fields.need_text("data")?),
        _ => return Err(fields.refused("type")),
    };
    fields.done()?;
    Ok(part)
}

fn source(fields: &mut Fields<'_>) -> Result<Source, Error> {
    let mut source = fields.object("source")?.ok_or_else(|| fields.missing("source"))?;
    let read = match source.need_text("type")?.as_str() {
        "base64" => Source::Inline { mime: source.need_text("media_type")?, data: source.need_text("data")? },
        "url" => Source::Url { url: source.need_text("url")?, mime: None },
        _ => return Err(source.refused("type")),
    };
    source.done()?;
    Ok(read)
}

fn document(fields: &mut Fields<'_>) -> Result<Part, Error> {
    let name = fields.text("title")?;
    if let Some(mut citations) = fields.object("citations")?
        && citations.flag("enabled")? == Some(true)
    {
        return Err(citations.refused("enabled"));
    }
    let mut source = fields.object("source")?.ok_or_else(|| fields.missing("source"))?;
    let read = match source.need_text("type")?.as_str() {
        "base64" => Source::Inline { mime: source.need_text("media_type")?, data: source.need_text("data")? },
        "url" => Source::Url { url: source.need_text("url")?, mime: Some("application/pdf".to_owned()) },
        "text" => {
            source.ignore(&["media_type"]);
            let text = source.need_text("data")?;
            source.done()?;
            return Ok(Part::Text(text));
        }
        _ => return Err(source.refused("type")),
    };
    source.done()?;
    Ok(Part::Media(Media { kind: Kind::Document, source: read, name }))
}

fn tool(tool: &At<'_>) -> Result<Tool, Error> {
    let mut fields = tool.fields()?;
    if fields.text("type")?.is_some_and(|kind| kind != "custom") {
        return Err(fields.refused("type"));
    }
    // How Anthropic caches and streams a tool, and examples, which only help.
    fields.ignore(&["cache_control", "eager_input_streaming", "input_examples"]);
    let tool = Tool {
        name: fields.need_text("name")?,
        description: fields.text("description")?,
        schema: fields.take("input_schema").map(str::to_owned),
        strict: fields.flag("strict")?,
    };
    for (name, usual) in [("defer_loading", "false"), ("allowed_callers", "[\"direct\"]")] {
        if fields.take(name).is_some_and(|raw| raw != usual) {
            return Err(fields.refused(name));
        }
    }
    fields.done()?;
    Ok(tool)
}

fn choice(request: &mut Request, mut choice: Fields<'_>) -> Result<(), Error> {
    request.choice = Some(match choice.need_text("type")?.as_str() {
        "auto" => Choice::Auto,
        "any" => Choice::Any(Vec::new()),
        "tool" => Choice::Any(vec![choice.need_text("name")?]),
        "none" => Choice::None,
        _ => return Err(choice.refused("type")),
    });
    request.parallel = choice.flag("disable_parallel_tool_use")?.map(|off| !off);
    choice.done()
}

fn thinking(mut fields: Fields<'_>) -> Result<Option<Reasoning>, Error> {
    let is_shown = fields.text("display")?.map(|word| word != "omitted");
    let how = match fields.need_text("type")?.as_str() {
        "enabled" => {
            let budget = fields.whole("budget_tokens")?.ok_or_else(|| fields.missing("budget_tokens"))?;
            Thinking::Budget(u64::try_from(budget).map_err(|_| wrong("thinking.budget_tokens", "a positive integer"))?)
        }
        "disabled" => Thinking::Off,
        "adaptive" | "between_tools" => Thinking::Free,
        _ => return Err(fields.refused("type")),
    };
    fields.done()?;
    Ok(Some(Reasoning { how, is_shown }))
}

fn output_config(request: &mut Request, mut config: Fields<'_>) -> Result<(), Error> {
    if let Some(word) = config.text("effort")? {
        let effort = Effort::of(&word).ok_or_else(|| config.refused("effort"))?;
        let reasoning = request.reasoning.get_or_insert_with(Reasoning::default);
        if reasoning.how == Thinking::Free {
            reasoning.how = Thinking::Effort(effort);
        }
    }
    if let Some(mut format) = config.object("format")? {
        if format.need_text("type")? != "json_schema" {
            return Err(format.refused("type"));
        }
        let schema = format.take("schema").ok_or_else(|| format.missing("schema"))?.to_owned();
        request.format = Format::Schema { name: None, schema, strict: Some(true) };
        format.done()?;
    }
    config.done()
}
