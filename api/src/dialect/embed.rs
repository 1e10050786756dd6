//! Embeddings: OpenAI's and Gemini's two forms, each into the others. Anthropic has none.

use super::Wire;
use super::asked::{self, Asked, Names, Top};
use super::build::{Object, object, object_text, quoted};
use super::fields::{At, Fields, elements, refused, wrong};
use crate::chat::Usage;
use crate::error::Error;
use base64::Engine;
use serde::Deserialize;
use serde_json::value::RawValue;

struct Openai;

impl Names for Openai {
    const PROMPT: &'static str = "input";
    const IS_LIST: bool = false;

    fn named(name: &str) -> Option<Top> {
        match name {
            "model" => Some(Top::Model),
            "input" => Some(Top::Prompt("input")),
            _ => None,
        }
    }
}

struct Single;

impl Names for Single {
    const PROMPT: &'static str = "content";
    const IS_LIST: bool = false;
    const HAS_MODEL: bool = false;

    fn named(name: &str) -> Option<Top> {
        (name == "content").then_some(Top::Prompt("content"))
    }
}

struct Batch;

impl Names for Batch {
    const PROMPT: &'static str = "requests";
    const HAS_MODEL: bool = false;

    fn named(name: &str) -> Option<Top> {
        (name == "requests").then_some(Top::Prompt("requests"))
    }
}

/// Reads the head of a request for embeddings.
///
/// # Errors
/// [`Error::Invalid`] names the member that is missing or of a wrong type.
pub(super) fn head(wire: Wire, body: &[u8]) -> Result<Asked, Error> {
    match wire {
        Wire::GeminiEmbed => asked::read::<Single>(wire, body),
        Wire::GeminiEmbedBatch => asked::read::<Batch>(wire, body),
        _ => asked::read::<Openai>(wire, body),
    }
}

/// Texts to embed.
struct Request {
    texts: Vec<String>,
    dimensions: Option<i64>,
    user: Option<String>,
}

/// Writes a request of one form in another.
///
/// # Errors
/// Names the first member that cannot be carried.
pub(super) fn translate(from: Wire, to: Wire, body: &str, model: &str) -> Result<Vec<u8>, Error> {
    let request = match from {
        Wire::Embeddings => of_openai(body)?,
        Wire::GeminiEmbed => {
            let mut request = Request { texts: Vec::new(), dimensions: None, user: None };
            one_of_gemini(Fields::proto("", body)?, &mut request)?;
            request
        }
        _ => of_batch(body)?,
    };
    let mut out = Vec::new();
    object(&mut out, |o| match to {
        Wire::Embeddings => {
            o.text("model", model).texts("input", &request.texts).text("encoding_format", "float");
            if let Some(dimensions) = request.dimensions {
                o.raw("dimensions", &dimensions.to_string());
            }
            if let Some(user) = &request.user {
                o.text("user", user);
            }
        }
        _ => {
            o.array("requests", |requests| {
                for text in &request.texts {
                    requests.object(|o| {
                        o.text("model", &format!("models/{model}")).object("content", |o| {
                            o.array("parts", |parts| parts.object(|o| _ = o.text("text", text)));
                        });
                        if let Some(dimensions) = request.dimensions {
                            o.raw("outputDimensionality", &dimensions.to_string());
                        }
                    });
                }
            });
        }
    });
    Ok(out)
}

fn of_openai(body: &str) -> Result<Request, Error> {
    let mut top = Fields::of("", body)?;
    // The form of the numbers is the gateway's to make.
    top.ignore(&["model", "encoding_format"]);
    let raw = top.take("input").unwrap_or("null");
    let texts = serde_json::from_str::<String>(raw).map(|text| vec![text]);
    let texts = texts.or_else(|_| serde_json::from_str::<Vec<String>>(raw)).map_err(|_| refused("input"))?;
    let request = Request { texts, dimensions: top.whole("dimensions")?, user: top.text("user")? };
    top.done()?;
    Ok(request)
}

fn of_batch(body: &str) -> Result<Request, Error> {
    let mut top = Fields::proto("", body)?;
    let mut request = Request { texts: Vec::new(), dimensions: None, user: None };
    for one in top.array("requests")? {
        one_of_gemini(one.message()?, &mut request)?;
    }
    top.done()?;
    Ok(request)
}

fn one_of_gemini(mut fields: Fields<'_>, request: &mut Request) -> Result<(), Error> {
    fields.ignore(&["model"]);
    let mut dimensions = fields.whole("outputDimensionality")?;
    if let Some(mut config) = fields.message("embedContentConfig")? {
        dimensions = config.whole("outputDimensionality")?.or(dimensions);
        config.done()?;
    }
    if !request.texts.is_empty() && dimensions != request.dimensions {
        return Err(fields.refused("outputDimensionality"));
    }
    request.dimensions = dimensions;
    let mut content = fields.message("content")?.ok_or_else(|| fields.missing("content"))?;
    content.ignore(&["role"]);
    let mut text = String::new();
    for part in content.array("parts")? {
        let mut part = part.message()?;
        text.push_str(&part.need_text("text")?);
        part.done()?;
    }
    content.done()?;
    request.texts.push(text);
    fields.done()
}

/// Whether an OpenAI client asked for base64.
pub(crate) fn wants_base64(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Asked {
        encoding_format: Option<String>,
    }
    serde_json::from_slice::<Asked>(body).is_ok_and(|asked| asked.encoding_format.as_deref() == Some("base64"))
}

/// Writes an answer of one form in another.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn answer(
    to: Wire,
    from: Wire,
    body: &[u8],
    model: &str,
    usage: Usage,
    is_base64: bool,
) -> Result<Vec<u8>, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "is not valid UTF-8")?;
    let vectors = vectors(from, text).map_err(|_| "holds no embeddings")?;
    let mut out = Vec::new();
    object(&mut out, |o| match to {
        Wire::Embeddings => {
            o.text("object", "list").array("data", |data| {
                for (index, raw) in vectors.iter().enumerate() {
                    data.object(|o| {
                        o.text("object", "embedding").whole("index", index as u64);
                        o.raw("embedding", &if is_base64 { packed(raw) } else { (*raw).to_owned() });
                    });
                }
            });
            o.text("model", model).object("usage", |o| {
                _ = o.whole("prompt_tokens", usage.prompt).whole("total_tokens", usage.prompt);
            });
        }
        Wire::GeminiEmbed => _ = o.object("embedding", |o| values(o, vectors.first().copied())),
        _ => {
            o.array("embeddings", |all| vectors.iter().for_each(|raw| all.object(|o| values(o, Some(raw)))));
        }
    });
    Ok(out)
}

fn values(o: &mut Object<'_>, raw: Option<&str>) {
    o.raw("values", raw.unwrap_or("[]"));
}

fn vectors(from: Wire, text: &str) -> Result<Vec<&str>, Error> {
    let mut top = Fields::of("", text)?;
    let mut found = Vec::new();
    let (list, name) = if from == Wire::Embeddings { ("data", "embedding") } else { ("embeddings", "values") };
    let all = match top.take("embedding") {
        Some(raw) => vec![At { at: String::new(), raw }],
        None => elements(list, top.take(list).ok_or_else(|| wrong(list, "an array"))?)?,
    };
    for one in all {
        found.push(one.fields()?.take(name).ok_or_else(|| wrong(name, "an array"))?);
    }
    Ok(found)
}

/// Numbers as OpenAI packs them: 32-bit floats, little-endian, in base64.
fn packed(raw: &str) -> String {
    let numbers: Vec<f32> = serde_json::from_str(raw).unwrap_or_default();
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    quoted(&base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// The usage that an answer names.
pub(crate) fn usage(body: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        usage: Option<&'a RawValue>,
    }
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    super::openai::answer::usage_of(answer.usage?.get())
}

/// Writes what `countTokens` answers.
pub(crate) fn counted(tokens: u64) -> String {
    object_text(|o| _ = o.whole("totalTokens", tokens))
}
