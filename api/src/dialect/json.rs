//! Reads JSON without building a tree: the members of one object as they stand, and the texts inside a value.

use crate::tokens::Piece;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

/// One member of an object that is of interest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a, F> {
    /// Which.
    pub(crate) field: F,
    /// Its value as it stands in the text.
    pub(crate) raw: &'a str,
}

/// A name of interest. What is not one is skipped.
pub(crate) trait Field: Sized {
    /// Knows a member by its name, after JSON's escapes were undone.
    fn named(name: &str) -> Option<Self>;
}

/// Reads the members of interest of the object that `text` is, in order, repeated ones too.
///
/// # Errors
/// When the text is not one JSON object.
pub(crate) fn members<F: Field>(text: &str) -> Result<Vec<Member<'_, F>>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = deserializer.deserialize_map(Members(PhantomData))?;
    deserializer.end()?;
    Ok(found)
}

/// Where `part`, a slice of `whole`, stands in it.
pub(crate) fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

struct Members<F>(PhantomData<F>);

impl<'de, F: Field> Visitor<'de> for Members<F> {
    type Value = Vec<Member<'de, F>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::with_capacity(8);
        while let Some(Name(field)) = map.next_key::<Name<F>>()? {
            match field {
                Some(field) => found.push(Member { field, raw: map.next_value::<&RawValue>()?.get() }),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

struct Name<F>(Option<F>);

impl<'de, F: Field> Deserialize<'de> for Name<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key<F>(PhantomData<F>);
        impl<F: Field> Visitor<'_> for Key<F> {
            type Value = Name<F>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Name<F>, E> {
                Ok(Name(F::named(name)))
            }
        }
        deserializer.deserialize_str(Key(PhantomData))
    }
}

/// Hands every text inside a JSON value to `sink`; ids, roles and types are not texts. Values nested too deep for the
/// parser are handed over as they stand, which counts too much rather than too little.
pub(crate) fn texts(raw: &str, sink: &mut dyn FnMut(Piece<'_>)) {
    if serde_json::Deserializer::from_str(raw).deserialize_any(Texts { sink: &mut *sink }).is_err() {
        sink(Piece::Text(raw));
    }
}

struct Texts<'s> {
    sink: &'s mut dyn FnMut(Piece<'_>),
}

enum Meaning {
    Role,
    Mark,
    Image,
    Blob,
    /// A picture, or a file of text or of something else.
    Source,
    /// Read as it stands, names of members too.
    Raw,
    Content,
}

/// What a source holds, by its media type, which stands near its begin or its end.
fn source(raw: &str) -> Piece<'_> {
    let near = |word: &str| {
        let head = &raw[..raw.floor_char_boundary(200)];
        let tail = &raw[raw.ceil_char_boundary(raw.len().saturating_sub(200))..];
        head.contains(word) || tail.contains(word)
    };
    if near("text/") {
        Piece::Text(raw)
    } else if near("application/") || near("audio/") || near("video/") {
        Piece::Opaque(raw.len())
    } else {
        Piece::Image
    }
}

impl Field for Meaning {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "role" => Self::Role,
            "type" | "id" | "tool_call_id" | "tool_use_id" | "call_id" | "index" | "detail" | "cache_control"
            | "status" | "signature" | "thoughtSignature" | "thought_signature" => Self::Mark,
            "image_url" => Self::Image,
            "input_audio" | "file" | "audio" | "file_data" | "encrypted_content" => Self::Blob,
            "source" | "inlineData" | "inline_data" | "fileData" | "image" => Self::Source,
            "input" | "args" | "response" => Self::Raw,
            _ => Self::Content,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Texts<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        (self.sink)(Piece::Text(text));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        (self.sink)(Piece::Opaque(8));
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        (self.sink)(Piece::Opaque(8));
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        (self.sink)(Piece::Opaque(8));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Texts { sink: &mut *self.sink })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(meaning)) = map.next_key::<Name<Meaning>>()? {
            match meaning.ok_or_else(|| A::Error::custom("every name has a meaning"))? {
                Meaning::Content => map.next_value_seed(Texts { sink: &mut *self.sink })?,
                Meaning::Blob => {
                    let raw = map.next_value::<&RawValue>()?.get();
                    (self.sink)(Piece::Opaque(if raw == "null" { 0 } else { raw.len() }));
                }
                Meaning::Source => (self.sink)(source(map.next_value::<&RawValue>()?.get())),
                Meaning::Raw => (self.sink)(Piece::Text(map.next_value::<&RawValue>()?.get())),
                mark => {
                    map.next_value::<IgnoredAny>()?;
                    match mark {
                        Meaning::Role => (self.sink)(Piece::Message),
                        Meaning::Image => (self.sink)(Piece::Image),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}
