//! Reads JSON objects strictly, for translation: every member is taken by name, and what is left over is refused by its
//! path, so that nothing a client asked for is lost in silence. Builds no tree; what is not looked at stays text.

use crate::error::Error;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// An object whose members are taken one by one.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    /// Where the object stands in the request; empty at the top.
    at: String,
    members: Vec<(Cow<'a, str>, &'a str)>,
}

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct At<'a> {
    pub(crate) at: String,
    pub(crate) raw: &'a str,
}

impl<'a> Fields<'a> {
    /// Reads the object that `raw` is.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn of(at: impl Into<String>, raw: &'a str) -> Result<Self, Error> {
        let at = at.into();
        let Members(members) = serde_json::from_str(raw).map_err(|_| wrong(&at, "an object"))?;
        Ok(Self { at, members })
    }

    /// The same for protobuf's JSON, where `snake_case` names stand for the `camelCase` ones.
    ///
    /// # Errors
    /// When it is no object.
    pub(crate) fn proto(at: impl Into<String>, raw: &'a str) -> Result<Self, Error> {
        let mut fields = Self::of(at, raw)?;
        for (name, _) in &mut fields.members {
            if name.contains('_') {
                *name = Cow::Owned(camel(name));
            }
        }
        Ok(fields)
    }

    /// Where a member stands.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    /// Takes a member; of repeated ones the last. A null is none.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'a str> {
        let mut found = None;
        self.members.retain(|(other, raw)| {
            let is_it = other == name;
            if is_it {
                found = Some(*raw);
            }
            !is_it
        });
        found.filter(|raw| *raw != "null")
    }

    /// Takes a text.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Error> {
        self.take(name)
            .map(|raw| serde_json::from_str(raw).map_err(|_| wrong(&self.path(name), "a string")))
            .transpose()
    }

    /// Takes a text that must be there.
    pub(crate) fn need_text(&mut self, name: &str) -> Result<String, Error> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    /// Takes a boolean.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, Error> {
        self.take(name).map(|raw| raw.parse().map_err(|_| wrong(&self.path(name), "a boolean"))).transpose()
    }

    /// Takes a number.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f64>, Error> {
        self.take(name)
            .map(|raw| serde_json::from_str(raw).map_err(|_| wrong(&self.path(name), "a number")))
            .transpose()
    }

    /// Takes a whole number.
    pub(crate) fn whole(&mut self, name: &str) -> Result<Option<i64>, Error> {
        let read = |raw: &str| serde_json::from_str(raw).map_err(|_| wrong(&self.path(name), "an integer"));
        match self.members.iter().rfind(|(other, _)| other == name) {
            Some((_, raw)) if *raw != "null" => {
                let value = read(raw)?;
                self.take(name);
                Ok(Some(value))
            }
            _ => {
                self.take(name);
                Ok(None)
            }
        }
    }

    /// Takes an object.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Fields<'a>>, Error> {
        self.take(name).map(|raw| Fields::of(self.path(name), raw)).transpose()
    }

    /// Takes an object of protobuf's JSON.
    pub(crate) fn message(&mut self, name: &str) -> Result<Option<Fields<'a>>, Error> {
        self.take(name).map(|raw| Fields::proto(self.path(name), raw)).transpose()
    }

    /// Takes an array; none is an empty one.
    pub(crate) fn array(&mut self, name: &str) -> Result<Vec<At<'a>>, Error> {
        self.take(name).map_or_else(|| Ok(Vec::new()), |raw| elements(&self.path(name), raw))
    }

    /// Takes texts: one, or an array of them.
    pub(crate) fn texts(&mut self, name: &str) -> Result<Vec<String>, Error> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(raw) if raw.starts_with('[') => {
                serde_json::from_str(raw).map_err(|_| wrong(&self.path(name), "an array of strings"))
            }
            Some(raw) => Ok(vec![serde_json::from_str(raw).map_err(|_| wrong(&self.path(name), "a string"))?]),
        }
    }

    /// Leaves members out of account that the target has no use for.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// Says that a member is missing.
    pub(crate) fn missing(&self, name: &str) -> Error {
        let path = self.path(name);
        Error::invalid(path.clone(), format!("missing required parameter: '{path}'"))
    }

    /// Says that a member, or one of its values, cannot be carried.
    pub(crate) fn refused(&self, name: &str) -> Error {
        refused(self.path(name))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// When a member is left that nobody took.
    pub(crate) fn done(self) -> Result<(), Error> {
        match self.members.iter().find(|(_, raw)| *raw != "null") {
            Some((name, _)) => Err(refused(self.path(name))),
            None => Ok(()),
        }
    }
}

impl<'a> At<'a> {
    /// The value as an object.
    pub(crate) fn fields(&self) -> Result<Fields<'a>, Error> {
        Fields::of(self.at.clone(), self.raw)
    }

    /// The value as an object of protobuf's JSON.
    pub(crate) fn message(&self) -> Result<Fields<'a>, Error> {
        Fields::proto(self.at.clone(), self.raw)
    }

    /// The value as a text, if it is one.
    pub(crate) fn text(&self) -> Option<String> {
        serde_json::from_str(self.raw).ok()
    }
}

/// The elements of an array.
pub(crate) fn elements<'a>(at: &str, raw: &'a str) -> Result<Vec<At<'a>>, Error> {
    let values: Vec<&RawValue> = serde_json::from_str(raw).map_err(|_| wrong(at, "an array"))?;
    Ok(values.into_iter().enumerate().map(|(i, raw)| At { at: format!("{at}[{i}]"), raw: raw.get() }).collect())
}

/// Says that a member is of a wrong type.
pub(crate) fn wrong(at: &str, expected: &str) -> Error {
    let at = if at.is_empty() { "the request body" } else { at };
    Error::invalid(at.to_owned(), format!("invalid type for '{at}': expected {expected}"))
}

/// Says that a member cannot be carried to the model's provider.
pub(crate) fn refused(at: impl Into<String>) -> Error {
    let at = at.into();
    let message = format!("'{at}' cannot be translated for this model's provider");
    Error::invalid(at, message)
}

/// `a_b_c` as `aBC`.
pub(crate) fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut up = false;
    for c in name.chars() {
        if c == '_' {
            up = !out.is_empty();
        } else {
            out.push(if up { c.to_ascii_uppercase() } else { c });
            up = false;
        }
    }
    out
}

/// Every member of an object, values as they stand.
pub(crate) struct Members<'a>(pub(crate) Vec<(Cow<'a, str>, &'a str)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
                    members.push((name, map.next_value::<&RawValue>()?.get()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// A text, borrowed where it holds no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_refused_by_its_path() {
        let mut top = Fields::of("", r#"{"a":{"b":1,"c":null},"d":"x"}"#).unwrap();
        let inner = top.object("a").unwrap().unwrap();
        assert_eq!(top.text("d").unwrap().as_deref(), Some("x"));
        top.done().unwrap();
        let Err(Error::Invalid { message, param }) = inner.done() else { panic!("taken") };
        assert_eq!(param.as_deref(), Some("a.b"));
        assert_eq!(message, "'a.b' cannot be translated for this model's provider");
    }

    #[test]
    fn protobufs_two_spellings_are_one() {
        let mut fields = Fields::proto("", r#"{"max_output_tokens":3,"topP":0.5}"#).unwrap();
        assert_eq!(fields.whole("maxOutputTokens").unwrap(), Some(3));
        assert_eq!(fields.number("topP").unwrap(), Some(0.5));
        assert_eq!(camel("_a_b"), "aB");
    }

    #[test]
    fn deep_values_are_passed_over_without_recursion() {
        let deep = format!(r#"{{"a":{}{},"b":1}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let mut fields = Fields::of("", &deep).unwrap();
        assert!(fields.take("a").is_some());
        assert_eq!(fields.whole("b").unwrap(), Some(1));
    }
}
