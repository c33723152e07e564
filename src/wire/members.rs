//! The members of an object as they stand in a line of JSON, and the elements of a list.
//!
//! What nearly everybody sends is found in one pass ([`outermost`]); the rest is for `serde_json`, which says what is
//! wrong with it. **Invariant:** which of the two it is changes no answer.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::outermost;

/// Members that an object has room for at first; no message has as many fields.
const MEMBERS_EXPECTED: usize = 12;

/// A member of an object: its name, and its value as it stands in the line.
pub(super) struct Member<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) value: &'a str,
    /// Somebody has asked for it.
    pub(super) is_taken: bool,
}

/// Why a text is no object. Never shows the text.
pub(super) enum NoObject {
    /// It begins with something else.
    OtherShape,
    /// It is no JSON from this place on.
    Syntax { column: usize },
}

impl NoObject {
    /// As it is said of a message.
    pub(super) fn in_a_message(&self) -> String {
        match self {
            Self::OtherShape => "a message is a JSON object".to_owned(),
            Self::Syntax { column } => format!("not JSON, at byte {column}"),
        }
    }
}

/// A name, borrowed where it holds no escape.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of an object, as they stand in the line.
pub(super) fn members_of(text: &str) -> Result<Vec<Member<'_>>, NoObject> {
    let mut members = Vec::with_capacity(MEMBERS_EXPECTED);
    let found = |name, value| {
        let value = text.get(value).unwrap_or_default();
        members.push(Member { name: Cow::Borrowed(name), value, is_taken: false });
    };
    // Without an early end, the look at all bytes is one of vectors.
    let has_control = text.bytes().fold(false, |found, byte| found | (byte < 0x20));
    match outermost::members(text, found) {
        Some(()) if !has_control => Ok(members),
        _ => members_by_serde_json(text),
    }
}

/// What is rare, or no object: that is refused with a reason.
fn members_by_serde_json(text: &str) -> Result<Vec<Member<'_>>, NoObject> {
    struct Members;
    impl<'de> serde::de::Visitor<'de> for Members {
        type Value = Vec<Member<'de>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::with_capacity(MEMBERS_EXPECTED);
            while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
                let value = map.next_value::<&'de RawValue>()?.get();
                members.push(Member { name, value, is_taken: false });
            }
            Ok(members)
        }
    }

    if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        return Err(NoObject::OtherShape);
    }
    let syntax = |error: serde_json::Error| NoObject::Syntax { column: error.column() };
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = serde::Deserializer::deserialize_map(&mut reader, Members).map_err(syntax)?;
    reader.end().map_err(syntax)?;
    Ok(members)
}

/// The elements of a list, as they stand in the line.
pub(super) fn elements_of(text: &str) -> Result<Vec<&str>, ()> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| ())?;
    Ok(elements.into_iter().map(RawValue::get).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Found = Option<Vec<(String, String)>>;

    fn found(members: Result<Vec<Member<'_>>, NoObject>) -> Found {
        let pair = |member: Member<'_>| (member.name.into_owned(), member.value.to_owned());
        Some(members.ok()?.into_iter().map(pair).collect())
    }

    proptest! {
        /// Members that follow one another, mostly, and what may stand in them or between them.
        #[test]
        fn members_are_those_that_serde_json_finds(
            parts in prop::collection::vec(
                prop_oneof![
                    8 => prop::sample::select(vec![
                        r#""a":1"#, r#""type":"text""#, r#""b" : [1,{"c":"}"}]"#, r#""\u0061":2"#, r#""d":{"e":"\\\""}"#,
                    ]),
                    1 => prop::sample::select(vec!["\t", "\u{1}", " ", "{", "}", "é", "\"\t\":1", "\"f\":\"\u{1f}\"", ""]),
                ],
                0..6,
            ),
            around in prop::sample::select(vec![("{", "}"), (" {", "} "), ("{\r", "\t}"), ("", "}"), ("[", "]")]),
        ) {
            let text = format!("{}{}{}", around.0, parts.join(","), around.1);
            prop_assert_eq!(found(members_of(&text)), found(members_by_serde_json(&text)), "{:?}", text);
        }
    }
}
