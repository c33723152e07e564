//! One level of a JSON object at a time, over bytes that stay where they are.
//!
//! Meta's envelope nests five levels before a message begins, and one wrong thing in it must not cost the others: so
//! each level is read by itself, leaves its values raw, and says "not there" of what has another shape than expected.
//!
//! # Invariants
//! - A key or value that is handed on is handed on byte for byte.
//! - Of a key that stands there twice the last one counts, as in every common JSON reader; taking a key out takes
//!   out all of them.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The keys and values of one object.
pub(super) struct Object<'a> {
    fields: Vec<Field<'a>>,
}

struct Field<'a> {
    key: Cow<'a, str>,
    raw_key: &'a RawValue,
    value: &'a RawValue,
}

impl<'a> Object<'a> {
    /// Reads an object; nothing where `json` is none.
    pub(super) fn read(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The value of a key; nothing where it is not there or null.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        let value = self.fields.iter().rev().find(|field| field.key == key)?.value;
        (value.get() != "null").then_some(value)
    }

    /// The object under a key.
    pub(super) fn object(&self, key: &str) -> Option<Self> {
        Self::read(self.get(key)?.get())
    }

    /// The elements of the array under a key: none where the key is not there, nothing where it is no array.
    pub(super) fn array(&self, key: &str) -> Option<Vec<&'a RawValue>> {
        match self.get(key) {
            None => Some(Vec::new()),
            Some(raw) => serde_json::from_str(raw.get()).ok(),
        }
    }

    /// The string under a key.
    pub(super) fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        text_of(self.get(key)?)
    }

    /// The string or the number under a key, as text: Meta writes some ids and times both ways.
    pub(super) fn text_or_number(&self, key: &str) -> Option<Cow<'a, str>> {
        let raw = self.get(key)?;
        let number = raw.get().starts_with(|c: char| c.is_ascii_digit() || c == '-');
        if number { Some(Cow::Borrowed(raw.get())) } else { text_of(raw) }
    }

    /// The object without `left_out`: what is left is byte for byte as it came, but for white space between tokens.
    pub(super) fn without(&self, left_out: &[&str]) -> String {
        self.with_those(|field| !left_out.contains(&&*field.key))
    }

    /// The object with another value, in JSON, under a key that it has.
    pub(super) fn with(&self, key: &str, value: &str) -> String {
        self.written(|_| true, |field| if field.key == key { value } else { field.value.get() })
    }

    /// As [`without`](Self::without), and without what is null.
    pub(super) fn given_without(&self, left_out: &[&str]) -> String {
        self.with_those(|field| field.value.get() != "null" && !left_out.contains(&&*field.key))
    }

    fn with_those(&self, wanted: impl Fn(&Field<'a>) -> bool) -> String {
        self.written(wanted, |field| field.value.get())
    }

    fn written<'v>(
        &'v self,
        wanted: impl Fn(&Field<'a>) -> bool,
        value: impl Fn(&'v Field<'a>) -> &'v str,
    ) -> String {
        let mut kept = String::from("{");
        for field in self.fields.iter().filter(|field| wanted(field)) {
            if kept.len() > 1 {
                kept.push(',');
            }
            kept.push_str(field.raw_key.get());
            kept.push(':');
            kept.push_str(value(field));
        }
        kept.push('}');
        kept
    }
}

/// One object of the members of two; nothing where one of them is none.
pub(super) fn joined(first: &str, second: &str) -> Option<String> {
    let (head, tail) = (first.strip_suffix('}')?, second.strip_prefix('{')?);
    let comma = if head.len() > 1 && tail.len() > 1 { "," } else { "" };
    Some(format!("{head}{comma}{tail}"))
}

/// The text of a JSON string; nothing where it is none, or holds half a surrogate pair.
fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw.get()).ok().map(Cow::Owned)
    } else {
        Some(inner.into())
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((raw_key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    // A key that is no text (half a surrogate pair) is none that anybody looks for.
                    let key = text_of(raw_key).unwrap_or(Cow::Borrowed(raw_key.get()));
                    fields.push(Field { key, raw_key, value });
                }
                Ok(Object { fields })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_byte_for_byte_as_it_came() {
        let json = "{ \"from\" : \"1\" ,\"te\\u0078t\":{ \"body\" : \"\\u00e9 \\/ 1e400\"} ,\n\"big\": 12345678901234567890.000 }";
        let object = Object::read(json).unwrap();
        assert_eq!(
            object.without(&["from"]),
            "{\"te\\u0078t\":{ \"body\" : \"\\u00e9 \\/ 1e400\"},\"big\":12345678901234567890.000}"
        );
        assert_eq!(object.without(&["from", "text", "big"]), "{}");
        assert_eq!(object.object("text").unwrap().text("body").unwrap(), "é / 1e400");
    }

    #[test]
    fn another_value_stands_where_the_old_one_stood() {
        let object = Object::read("{ \"a\" : 1.0 ,\"im\\u0061ge\":{ \"id\":\"7\"},\"b\":null}").unwrap();
        assert_eq!(object.with("image", "{}"), "{\"a\":1.0,\"im\\u0061ge\":{},\"b\":null}");
    }

    #[test]
    fn of_a_key_twice_the_last_counts_and_both_go() {
        let object = Object::read(r#"{"id":"a","x":1,"i\u0064":"b"}"#).unwrap();
        assert_eq!(object.text("id").unwrap(), "b");
        assert_eq!(object.without(&["id"]), r#"{"x":1}"#);
    }

    #[test]
    fn other_shapes_are_not_there() {
        let object = Object::read(r#"{"a":null,"b":[1],"c":7,"d":"x","e":"\ud800","f":-3}"#).unwrap();
        assert!(object.get("a").is_none());
        assert!(object.object("b").is_none());
        assert!(object.text("c").is_none());
        assert_eq!(object.text_or_number("c").unwrap(), "7");
        assert_eq!(object.text_or_number("f").unwrap(), "-3");
        assert_eq!(object.text_or_number("d").unwrap(), "x");
        assert!(object.text("e").is_none());
        assert_eq!(object.array("b").unwrap().len(), 1);
        assert_eq!(object.array("a").unwrap().len(), 0);
        assert_eq!(object.array("missing").unwrap().len(), 0);
        assert!(object.array("d").is_none());
        for none in ["[]", "7", "", "{", "{\"a\":1}x", "{\"a\":1,}"] {
            assert!(Object::read(none).is_none(), "{none}");
        }
    }
}
