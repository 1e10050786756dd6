//! Gemini's own form of schemas, a part of OpenAPI's, as JSON schema: types in lower case, `nullable` as a type. The order
//! of members stays.

use crate::dialect::build::{array_text, object_text, quoted};
use crate::dialect::fields::{Members, elements, wrong};
use crate::error::Error;

/// Nobody nests deeper, and reading recurses.
const DEPTH_MAX: usize = 64;

/// Turns a schema of Gemini's form into JSON schema.
///
/// # Errors
/// When it is none.
pub(super) fn json_schema(at: &str, raw: &str) -> Result<String, Error> {
    object_of(at, raw, DEPTH_MAX)
}

fn object_of(at: &str, raw: &str, depth: usize) -> Result<String, Error> {
    let Some(depth) = depth.checked_sub(1) else { return Err(wrong(at, "a schema that is nested less deep")) };
    let Members(members) = serde_json::from_str(raw).map_err(|_| wrong(at, "a schema"))?;
    let is_nullable = members.iter().any(|(name, raw)| name == "nullable" && *raw == "true");
    let mut failed = None;
    let text = object_text(|o| {
        for (name, raw) in &members {
            match member(at, name, raw, is_nullable, depth) {
                Ok(Some((name, text))) => _ = o.raw(&name, &text),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
    });
    failed.map_or(Ok(text), Err)
}

fn member(at: &str, name: &str, raw: &str, is_nullable: bool, depth: usize) -> Result<Option<(String, String)>, Error> {
    let name = super::super::fields::camel(name);
    let at = format!("{at}.{name}");
    let text = match name.as_str() {
        "nullable" | "propertyOrdering" | "example" => return Ok(None),
        "type" => {
            let kind: String = serde_json::from_str(raw).map_err(|_| wrong(&at, "a string"))?;
            let kind = quoted(&kind.to_ascii_lowercase());
            if is_nullable { format!(r#"[{kind},"null"]"#) } else { kind }
        }
        "items" | "additionalProperties" if raw.starts_with('{') => object_of(&at, raw, depth)?,
        "properties" | "defs" => {
            let Members(members) = serde_json::from_str(raw).map_err(|_| wrong(&at, "an object"))?;
            let mut failed = None;
            let text = object_text(|o| {
                for (name, raw) in members {
                    match object_of(&format!("{at}.{name}"), raw, depth) {
                        Ok(text) => _ = o.raw(&name, &text),
                        Err(error) => failed = Some(error),
                    }
                }
            });
            failed.map_or(Ok(text), Err)?
        }
        "anyOf" => {
            let each = elements(&at, raw)?;
            let texts = each.iter().map(|one| object_of(&one.at, one.raw, depth)).collect::<Result<Vec<_>, _>>()?;
            array_text(|array| texts.iter().for_each(|text| array.raw(text)))
        }
        // Protobuf writes 64-bit numbers as strings.
        "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties" => {
            raw.trim_matches('"').to_owned()
        }
        _ => raw.to_owned(),
    };
    let name = match name.as_str() {
        "defs" => "$defs".to_owned(),
        "ref" => "$ref".to_owned(),
        _ => name,
    };
    Ok(Some((name, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geminis_schemas_become_json_schemas_in_the_same_order() {
        let gemini = r#"{"type":"OBJECT","properties":{"b":{"type":"STRING","nullable":true},
            "a":{"type":"ARRAY","items":{"type":"INTEGER"},"max_items":"3"}},"required":["b"],"property_ordering":["b"]}"#;
        let expected = r#"{"type":"object","properties":{"b":{"type":["string","null"]},"a":{"type":"array","items":{"type":"integer"},"maxItems":3}},"required":["b"]}"#;
        assert_eq!(json_schema("s", gemini).unwrap(), expected);
        assert!(json_schema("s", &format!("{}{{}}{}", r#"{"items":"#.repeat(80), "}".repeat(80))).is_err());
    }
}
