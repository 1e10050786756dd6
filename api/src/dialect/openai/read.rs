//! OpenAI chat completions: reads a whole request into the hub, to be translated.

use crate::chat::{
    Choice, Effort, Format, Kind, Media, Part, Reasoning, Request, Role, Sampling, Source, Thinking, Tool, ToolUse,
};
use crate::dialect::fields::{At, Fields};
use crate::error::Error;

/// Members that concern OpenAI's own service only and change nothing in the answer.
const OF_THE_SERVICE: [&str; 9] = [
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
];

/// Reads a request.
///
/// # Errors
/// Names the first member that cannot be carried.
pub(crate) fn request(body: &str) -> Result<Request, Error> {
    let mut top = Fields::of("", body)?;
    top.ignore(&["model", "max_tokens", "max_completion_tokens"]);
    top.ignore(&OF_THE_SERVICE);
    let mut request = Request { sampling: sampling(&mut top)?, ..Request::default() };
    for message in top.array("messages")? {
        self::message(&mut request, &message)?;
    }
    request.tools = top.array("tools")?.iter().map(tool).collect::<Result<_, _>>()?;
    request.choice = choice(&mut top)?;
    request.parallel = top.flag("parallel_tool_calls")?;
    request.stop = top.texts("stop")?;
    request.format = top.object("response_format")?.map_or(Ok(Format::Text), format)?;
    request.reasoning = top.text("reasoning_effort")?.map(|word| reasoning(&top, &word)).transpose()?;
    request.user = top.text("user")?;
    for (name, usual) in [("n", "1"), ("logprobs", "false"), ("top_logprobs", "0"), ("modalities", "[\"text\"]")] {
        if top.take(name).is_some_and(|raw| raw != usual) {
            return Err(top.refused(name));
        }
    }
    top.done()?;
    Ok(request)
}

fn sampling(top: &mut Fields<'_>) -> Result<Sampling, Error> {
    Ok(Sampling {
        temperature: top.number("temperature")?,
        top_p: top.number("top_p")?,
        top_k: None,
        seed: top.whole("seed")?,
        presence_penalty: top.number("presence_penalty")?,
        frequency_penalty: top.number("frequency_penalty")?,
    })
}

fn reasoning(top: &Fields<'_>, word: &str) -> Result<Reasoning, Error> {
    let how = match word {
        "none" => Thinking::Off,
        word => Thinking::Effort(Effort::of(word).ok_or_else(|| top.refused("reasoning_effort"))?),
    };
    Ok(Reasoning { how, is_shown: None })
}

fn message(request: &mut Request, message: &At<'_>) -> Result<(), Error> {
    let mut fields = message.fields()?;
    // A name only tells speakers of one role apart.
    fields.ignore(&["name", "annotations"]);
    let role = fields.need_text("role")?;
    match role.as_str() {
        "system" | "developer" => {
            content(&mut fields)?.into_iter().for_each(|part| request.say(Role::System, part));
        }
        "user" => content(&mut fields)?.into_iter().for_each(|part| request.say(Role::User, part)),
        "tool" => {
            let id = fields.need_text("tool_call_id")?;
            let parts = content(&mut fields)?;
            request.say(Role::User, Part::ToolResult { id, parts, is_error: false });
        }
        "assistant" => assistant(request, &mut fields)?,
        _ => return Err(fields.refused("role")),
    }
    fields.done()
}

fn assistant(request: &mut Request, fields: &mut Fields<'_>) -> Result<(), Error> {
    // What this gateway writes beside a message, and a client may send back.
    let signature = fields.text("reasoning_signature")?;
    let text = fields.text("reasoning_content")?;
    if text.is_some() || signature.is_some() {
        request.say(Role::Assistant, Part::Thinking { text: text.unwrap_or_default(), signature });
    }
    content(fields)?.into_iter().for_each(|part| request.say(Role::Assistant, part));
    if let Some(refusal) = fields.text("refusal")? {
        request.say(Role::Assistant, Part::Refusal(refusal));
    }
    for call in fields.array("tool_calls")? {
        let mut call = call.fields()?;
        call.ignore(&["index"]);
        if call.text("type")?.is_some_and(|kind| kind != "function") {
            return Err(call.refused("type"));
        }
        let extra = call.object("extra_content")?;
        let signature = extra.map_or(Ok(None), signature_of)?;
        let mut function = call.object("function")?.ok_or_else(|| call.missing("function"))?;
        let input = function.text("arguments")?.unwrap_or_default();
        let name = function.need_text("name")?;
        function.done()?;
        let id = call.need_text("id")?;
        call.done()?;
        request.say(Role::Assistant, Part::ToolUse(ToolUse { id, name, input, signature }));
    }
    Ok(())
}

/// Where Google's own OpenAI-compatible route keeps the signature of a call.
fn signature_of(mut extra: Fields<'_>) -> Result<Option<String>, Error> {
    let signature = match extra.object("google")? {
        Some(mut google) => google.text("thought_signature")?,
        None => None,
    };
    extra.done()?;
    Ok(signature)
}

fn content(fields: &mut Fields<'_>) -> Result<Vec<Part>, Error> {
    let at = fields.path("content");
    match fields.take("content") {
        None => Ok(Vec::new()),
        Some(raw) if raw.starts_with('[') => {
            crate::dialect::fields::elements(&at, raw)?.iter().map(part).collect::<Result<_, _>>()
        }
        Some(raw) => {
            let text = At { at: at.clone(), raw }.text();
            Ok(vec![Part::Text(text.ok_or_else(|| crate::dialect::fields::wrong(&at, "a string or an array"))?)])
        }
    }
}

fn part(part: &At<'_>) -> Result<Part, Error> {
    let mut fields = part.fields()?;
    fields.ignore(&["prompt_cache_breakpoint"]);
    let kind = fields.need_text("type")?;
    let part = match kind.as_str() {
        "text" => Part::Text(fields.need_text("text")?),
        "refusal" => Part::Refusal(fields.need_text("refusal")?),
        "image_url" => {
            let mut image = fields.object("image_url")?.ok_or_else(|| fields.missing("image_url"))?;
            // How finely an image is looked at is OpenAI's own measure.
            image.ignore(&["detail"]);
            let source = Source::of_url(image.need_text("url")?);
            image.done()?;
            Part::Media(Media { kind: Kind::Image, source, name: None })
        }
        "input_audio" => {
            let mut audio = fields.object("input_audio")?.ok_or_else(|| fields.missing("input_audio"))?;
            let mime = format!("audio/{}", audio.need_text("format")?);
            let source = Source::Inline { mime, data: audio.need_text("data")? };
            audio.done()?;
            Part::Media(Media { kind: Kind::Audio, source, name: None })
        }
        "file" => {
            let mut file = fields.object("file")?.ok_or_else(|| fields.missing("file"))?;
            let name = file.text("filename")?;
            let source = match file.text("file_data")? {
                Some(data) if data.starts_with("data:") => Source::of_url(data),
                Some(data) => Source::Inline { mime: "application/pdf".to_owned(), data },
                None => return Err(file.refused("file_id")),
            };
            file.done()?;
            Part::Media(Media { kind: Kind::Document, source, name })
        }
        _ => return Err(fields.refused("type")),
    };
    fields.done()?;
    Ok(part)
}

fn tool(tool: &At<'_>) -> Result<Tool, Error> {
    let mut fields = tool.fields()?;
    if fields.need_text("type")? != "function" {
        return Err(fields.refused("type"));
    }
    let mut function = fields.object("function")?.ok_or_else(|| fields.missing("function"))?;
    let tool = function_tool(&mut function)?;
    function.done()?;
    fields.done()?;
    Ok(tool)
}

/// Reads what both of OpenAI's dialects say of a function.
pub(crate) fn function_tool(function: &mut Fields<'_>) -> Result<Tool, Error> {
    Ok(Tool {
        name: function.need_text("name")?,
        description: function.text("description")?,
        schema: function.take("parameters").map(str::to_owned),
        strict: function.flag("strict")?,
    })
}

fn choice(top: &mut Fields<'_>) -> Result<Option<Choice>, Error> {
    let at = top.path("tool_choice");
    let Some(raw) = top.take("tool_choice") else { return Ok(None) };
    if let Some(word) = (At { at: at.clone(), raw }).text() {
        return Ok(Some(word_choice(&word).ok_or_else(|| crate::dialect::fields::refused(at))?));
    }
    let mut fields = Fields::of(at, raw)?;
    let chosen = match fields.need_text("type")?.as_str() {
        "function" => {
            let mut function = fields.object("function")?.ok_or_else(|| fields.missing("function"))?;
            let name = function.need_text("name")?;
            function.done()?;
            Choice::Any(vec![name])
        }
        _ => return Err(fields.refused("type")),
    };
    fields.done()?;
    Ok(Some(chosen))
}

/// Reads the words that both of OpenAI's dialects have for a choice.
pub(crate) fn word_choice(word: &str) -> Option<Choice> {
    Some(match word {
        "auto" => Choice::Auto,
        "none" => Choice::None,
        "required" => Choice::Any(Vec::new()),
        _ => return None,
    })
}

fn format(mut fields: Fields<'_>) -> Result<Format, Error> {
    let format = match fields.need_text("type")?.as_str() {
        "text" => Format::Text,
        "json_object" => Format::Json,
        "json_schema" => {
            let mut schema = fields.object("json_schema")?.ok_or_else(|| fields.missing("json_schema"))?;
            let format = schema_format(&mut schema)?;
            schema.done()?;
            format
        }
        _ => return Err(fields.refused("type")),
    };
    fields.done()?;
    Ok(format)
}

/// Reads what both of OpenAI's dialects say of a schema.
pub(crate) fn schema_format(fields: &mut Fields<'_>) -> Result<Format, Error> {
    fields.ignore(&["description"]);
    let schema = fields.take("schema").ok_or_else(|| fields.missing("schema"))?.to_owned();
    Ok(Format::Schema { name: fields.text("name")?, schema, strict: fields.flag("strict")? })
}
