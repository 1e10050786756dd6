//! Writes JSON as text, in the order in which it is said, with parts of it as they stand elsewhere.

/// An object in the making; whoever opens it closes it.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

/// An array in the making.
#[derive(Debug)]
pub(crate) struct Array<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

/// Writes one object.
pub(crate) fn object(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    write(&mut Object { out, is_first: true });
    out.push(b'}');
}

/// One object as text.
pub(crate) fn object_text(write: impl FnOnce(&mut Object<'_>)) -> String {
    let mut out = Vec::new();
    object(&mut out, write);
    String::from_utf8(out).expect("it is written from texts")
}

/// One array as text.
pub(crate) fn array_text(write: impl FnOnce(&mut Array<'_>)) -> String {
    let mut out = vec![b'['];
    write(&mut Array { out: &mut out, is_first: true });
    out.push(b']');
    String::from_utf8(out).expect("it is written from texts")
}

fn quote(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text is JSON, and memory takes it");
}

/// A text as JSON.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    quote(&mut out, text);
    String::from_utf8(out).expect("it is written from texts")
}

impl Object<'_> {
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.push(b',');
        }
        quote(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// A member that is JSON already.
    pub(crate) fn raw(&mut self, name: &str, raw: &str) -> &mut Self {
        self.name(name).extend_from_slice(raw.as_bytes());
        self
    }

    pub(crate) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        quote(self.name(name), text);
        self
    }

    pub(crate) fn whole(&mut self, name: &str, value: u64) -> &mut Self {
        self.name(name).extend_from_slice(value.to_string().as_bytes());
        self
    }

    pub(crate) fn number(&mut self, name: &str, value: f64) -> &mut Self {
        let text = if value.fract() == 0.0 && value.abs() < 1e15 {
            format!("{value:.0}")
        } else {
            serde_json::to_string(&value).expect("a number is JSON")
        };
        self.raw(name, &text)
    }

    pub(crate) fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        self.raw(name, if value { "true" } else { "false" })
    }

    pub(crate) fn null(&mut self, name: &str) -> &mut Self {
        self.raw(name, "null")
    }

    pub(crate) fn object(&mut self, name: &str, write: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        object(self.name(name), write);
        self
    }

    pub(crate) fn array(&mut self, name: &str, write: impl FnOnce(&mut Array<'_>)) -> &mut Self {
        let out = self.name(name);
        out.push(b'[');
        write(&mut Array { out: &mut *out, is_first: true });
        out.push(b']');
        self
    }

    pub(crate) fn texts(&mut self, name: &str, texts: &[String]) -> &mut Self {
        self.array(name, |array| texts.iter().for_each(|text| array.text(text)))
    }
}

impl Array<'_> {
    fn next(&mut self) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.push(b',');
        }
        self.out
    }

    pub(crate) fn object(&mut self, write: impl FnOnce(&mut Object<'_>)) {
        object(self.next(), write);
    }

    pub(crate) fn raw(&mut self, raw: &str) {
        self.next().extend_from_slice(raw.as_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        quote(self.next(), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_raw_parts_stay() {
        let text = object_text(|o| {
            o.text("z", "a\"\n").number("t", 0.5).number("n", 2.0).raw("raw", r#"{"b":1,"a":2}"#);
            o.array("list", |a| {
                a.text("x");
                a.object(|o| {
                    o.flag("y", true).null("n").whole("w", 3);
                });
            });
        });
        assert_eq!(text, r#"{"z":"a\"\n","t":0.5,"n":2,"raw":{"b":1,"a":2},"list":["x",{"y":true,"n":null,"w":3}]}"#);
    }
}
