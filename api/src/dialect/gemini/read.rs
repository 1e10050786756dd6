//! Gemini's generateContent: reads a whole request into the hub, to be translated.

use super::schema::json_schema;
use crate::chat::{
    Choice, Effort, Format, Kind, Media, Part, Reasoning, Request, Role, Sampling, Source, Thinking, Tool, ToolUse,
};
use crate::dialect::fields::{At, Fields, wrong};
use crate::error::Error;

/// Reads a request.
///
/// # Errors
/// Names the first member that cannot be carried.
pub(crate) fn request(body: &str) -> Result<Request, Error> {
    let mut top = Fields::proto("", body)?;
    // Google's own filters and accounts.
    top.ignore(&["model", "safetySettings", "labels", "serviceTier", "store"]);
    let mut request = Request::default();
    if let Some(system) = top.take("systemInstruction") {
        let at = At { at: "systemInstruction".to_owned(), raw: system };
        content(&mut request, &at, Some(Role::System))?;
    }
    for one in top.array("contents")? {
        content(&mut request, &one, None)?;
    }
    for tool in top.array("tools")? {
        let mut tool = tool.message()?;
        for function in tool.array("functionDeclarations")? {
            request.tools.push(self::function(&function)?);
        }
        tool.done()?;
    }
    if let Some(mut config) = top.message("toolConfig")? {
        if let Some(calling) = config.message("functionCallingConfig")? {
            request.choice = choice(calling)?;
        }
        config.done()?;
    }
    if let Some(config) = top.message("generationConfig")? {
        generation(&mut request, config)?;
    }
    top.done()?;
    Ok(request)
}

fn content(request: &mut Request, one: &At<'_>, role: Option<Role>) -> Result<(), Error> {
    if let (Some(role), Some(text)) = (role, one.text()) {
        request.say(role, Part::Text(text));
        return Ok(());
    }
    let mut fields = one.message()?;
    let said = fields.text("role")?;
    let role = match (role, said.as_deref()) {
        (Some(role), _) => role,
        (None, None | Some("user" | "function" | "tool")) => Role::User,
        (None, Some("model")) => Role::Assistant,
        (None, Some("system")) => Role::System,
        (None, Some(_)) => return Err(fields.refused("role")),
    };
    for part in fields.array("parts")? {
        let part = self::part(request, &part)?;
        request.say(role, part);
    }
    fields.done()
}

fn part(request: &Request, part: &At<'_>) -> Result<Part, Error> {
    let mut fields = part.message()?;
    let signature = fields.text("thoughtSignature")?;
    let is_thought = fields.flag("thought")? == Some(true);
    // How finely media are looked at is Google's own measure.
    fields.ignore(&["mediaResolution", "partMetadata"]);
    let part = if let Some(text) = fields.text("text")? {
        if is_thought { Part::Thinking { text, signature } } else { Part::Text(text) }
    } else if let Some(mut data) = fields.message("inlineData")? {
        let (mime, name) = (data.need_text("mimeType")?, data.text("displayName")?);
        let kind = kind(&mime).ok_or_else(|| data.refused("mimeType"))?;
        let source = Source::Inline { mime, data: standard_base64(data.need_text("data")?) };
        data.done()?;
        Part::Media(Media { kind, source, name })
    } else if let Some(mut data) = fields.message("fileData")? {
        let (mime, name) = (data.text("mimeType")?, data.text("displayName")?);
        let kind = mime.as_deref().map_or(Some(Kind::Image), kind).ok_or_else(|| data.refused("mimeType"))?;
        let source = Source::Url { url: data.need_text("fileUri")?, mime };
        data.done()?;
        Part::Media(Media { kind, source, name })
    } else if let Some(call) = fields.message("functionCall")? {
        Part::ToolUse(self::call(request, call, signature)?)
    } else if let Some(response) = fields.message("functionResponse")? {
        result(request, response)?
    } else {
        fields.done()?;
        return Err(wrong(&part.at, "a part with text, data or a function call"));
    };
    fields.done()?;
    Ok(part)
}

fn call(request: &Request, mut call: Fields<'_>, signature: Option<String>) -> Result<ToolUse, Error> {
    let name = call.need_text("name")?;
    let input = call.take("args").unwrap_or("{}").to_owned();
    let id = call.text("id")?.filter(|id| !id.is_empty()).unwrap_or_else(|| nth_id(&name, calls_of(request, &name)));
    call.done()?;
    Ok(ToolUse { id, name, input, signature })
}

/// A call without an id is known by its name and its place among the calls of that name; so is its answer.
fn nth_id(name: &str, nth: usize) -> String {
    format!("call_{name}_{nth}")
}

fn calls_of(request: &Request, name: &str) -> usize {
    let parts = request.turns.iter().flat_map(|turn| &turn.parts);
    parts.filter(|part| matches!(part, Part::ToolUse(call) if call.name == name)).count()
}

fn result(request: &Request, mut response: Fields<'_>) -> Result<Part, Error> {
    let name = response.need_text("name")?;
    let id = response.text("id")?.filter(|id| !id.is_empty()).unwrap_or_else(|| {
        let answered = |id: &str| {
            let parts = request.turns.iter().flat_map(|turn| &turn.parts);
            parts.into_iter().any(|part| matches!(part, Part::ToolResult { id: other, .. } if other == id))
        };
        let ids = (0..calls_of(request, &name)).map(|nth| nth_id(&name, nth));
        ids.into_iter().find(|id| !answered(id)).unwrap_or_else(|| nth_id(&name, 0))
    });
    let raw = response.take("response").unwrap_or("{}");
    let mut is_error = false;
    let mut text = raw.to_owned();
    // The two members that Google gives a meaning to.
    if let Ok(mut fields) = Fields::of("", raw) {
        let (output, error) = (fields.take("output").or(fields.take("result")), fields.take("error"));
        if fields.done().is_ok()
            && let Some(only) = output.xor(error)
        {
            is_error = error.is_some();
            text = serde_json::from_str(only).unwrap_or_else(|_| only.to_owned());
        }
    }
    response.done()?;
    Ok(Part::ToolResult { id, parts: vec![Part::Text(text)], is_error })
}

fn kind(mime: &str) -> Option<Kind> {
    match mime.split('/').next() {
        Some("image") => Some(Kind::Image),
        Some("audio") => Some(Kind::Audio),
        Some("application" | "text") => Some(Kind::Document),
        _ => None,
    }
}

/// Google takes the alphabet of URLs too, and its own SDK sends it; others do not.
fn standard_base64(data: String) -> String {
    if data.contains(['-', '_']) { data.replace('-', "+").replace('_', "/") } else { data }
}

fn function(function: &At<'_>) -> Result<Tool, Error> {
    let mut fields = function.message()?;
    let name = fields.need_text("name")?;
    let description = fields.text("description")?;
    let schema = match (fields.take("parametersJsonSchema"), fields.take("parameters")) {
        (Some(raw), _) => Some(raw.to_owned()),
        (None, Some(raw)) => Some(json_schema(&fields.path("parameters"), raw)?),
        (None, None) => None,
    };
    // What the function gives back is told to the model with its answer.
    fields.ignore(&["response", "responseJsonSchema"]);
    fields.done()?;
    Ok(Tool { name, description, schema, strict: None })
}

fn choice(mut calling: Fields<'_>) -> Result<Option<Choice>, Error> {
    let names = calling.texts("allowedFunctionNames")?;
    let choice = match calling.text("mode")?.as_deref() {
        None | Some("MODE_UNSPECIFIED") => None,
        Some("AUTO" | "VALIDATED") if names.is_empty() => Some(Choice::Auto),
        Some("ANY") => Some(Choice::Any(names)),
        Some("NONE") => Some(Choice::None),
        Some(_) => return Err(calling.refused("mode")),
    };
    calling.done()?;
    Ok(choice)
}

fn generation(request: &mut Request, mut config: Fields<'_>) -> Result<(), Error> {
    config.ignore(&["maxOutputTokens", "mediaResolution"]);
    request.sampling = Sampling {
        temperature: config.number("temperature")?,
        top_p: config.number("topP")?,
        top_k: config.number("topK")?.map(|value| value as i64),
        seed: config.whole("seed")?,
        presence_penalty: config.number("presencePenalty")?,
        frequency_penalty: config.number("frequencyPenalty")?,
    };
    request.stop = config.texts("stopSequences")?;
    let schema = match (config.take("responseJsonSchema"), config.take("responseSchema")) {
        (Some(raw), _) => Some(raw.to_owned()),
        (None, Some(raw)) => Some(json_schema("generationConfig.responseSchema", raw)?),
        (None, None) => None,
    };
    request.format = match (config.text("responseMimeType")?.as_deref(), schema) {
        (None | Some("text/plain"), None) => Format::Text,
        (_, Some(schema)) => Format::Schema { name: None, schema, strict: None },
        (Some("application/json"), None) => Format::Json,
        (Some(_), None) => return Err(config.refused("responseMimeType")),
    };
    if let Some(thinking) = config.message("thinkingConfig")? {
        request.reasoning = Some(self::thinking(thinking)?);
    }
    for (name, usual) in [("candidateCount", "1"), ("responseModalities", r#"["TEXT"]"#), ("responseLogprobs", "false")]
    {
        if config.take(name).is_some_and(|raw| raw != usual) {
            return Err(config.refused(name));
        }
    }
    config.done()
}

fn thinking(mut config: Fields<'_>) -> Result<Reasoning, Error> {
    let is_shown = config.flag("includeThoughts")?;
    let level = config.text("thinkingLevel")?.filter(|word| word != "THINKING_LEVEL_UNSPECIFIED");
    let how = match (config.whole("thinkingBudget")?, level) {
        (Some(0), _) => Thinking::Off,
        (Some(tokens), _) => u64::try_from(tokens).map_or(Thinking::Free, Thinking::Budget),
        (None, Some(word)) => {
            let effort = Effort::of(&word.to_ascii_lowercase());
            Thinking::Effort(effort.ok_or_else(|| config.refused("thinkingLevel"))?)
        }
        (None, None) => Thinking::Free,
    };
    config.done()?;
    Ok(Reasoning { how, is_shown })
}
