//! What a value may look like, in words that the rules are written in: text of some length, objects with fields, lists,
//! one of some words. Each says what is wrong with Meta's code for it.

use serde_json::Value;

/// What is wrong with a message: Meta's code and the details that it would give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// 131008 where something is missing, 131009 where it is not valid, 100 where it does not belong there.
    pub code: u32,
    /// Which field, and why.
    pub details: String,
}

pub(super) type Checked = Result<(), Wrong>;
pub(super) type Check = fn(&Value, &str) -> Checked;

/// A field of an object: its name, whether it must be there, how its value is looked at.
pub(super) type Field = (&'static str, bool, Check);

pub(super) fn missing(at: &str) -> Wrong {
    Wrong { code: 131_008, details: format!("{at} is required") }
}

pub(super) fn invalid(at: &str, why: &str) -> Wrong {
    Wrong { code: 131_009, details: format!("{at}: {why}") }
}

fn foreign(at: &str, name: &str) -> Wrong {
    Wrong { code: 100, details: format!("{at}.{name} does not belong there") }
}

/// An object with these fields and no others.
pub(super) fn object(value: &Value, at: &str, fields: &[Field]) -> Checked {
    open_object(value, at, fields)?;
    let is_known = |key: &str| fields.iter().any(|(name, ..)| *name == key);
    match value.as_object().and_then(|map| map.keys().find(|key| !is_known(key))) {
        Some(other) => Err(foreign(at, other)),
        None => Ok(()),
    }
}

/// An object with these fields; others may stand in it. A field that is null is as if it were not there.
pub(super) fn open_object(value: &Value, at: &str, fields: &[Field]) -> Checked {
    let Some(map) = value.as_object() else { return Err(invalid(at, "is no object")) };
    for (name, required, check) in fields {
        match map.get(*name).filter(|value| !value.is_null()) {
            Some(value) => check(value, &format!("{at}.{name}"))?,
            None if *required => return Err(missing(&format!("{at}.{name}"))),
            None => {}
        }
    }
    Ok(())
}

/// One of two fields, and not both.
pub(super) fn either(value: &Value, at: &str, one: &str, other: &str) -> Checked {
    match (value.get(one), value.get(other)) {
        (None, None) => Err(missing(&format!("{at}.{one} or {at}.{other}"))),
        (Some(_), Some(_)) => Err(invalid(at, &format!("has both {one} and {other}"))),
        _ => Ok(()),
    }
}

/// Text of so many characters.
pub(super) fn text(value: &Value, at: &str, least: usize, most: usize) -> Checked {
    let length = value.as_str().ok_or_else(|| invalid(at, "is no text"))?.chars().count();
    if (least..=most).contains(&length) { Ok(()) } else { Err(invalid(at, "is too short or too long")) }
}

pub(super) fn some_text(value: &Value, at: &str) -> Checked {
    text(value, at, 1, usize::MAX)
}

pub(super) fn any_text(value: &Value, at: &str) -> Checked {
    text(value, at, 0, usize::MAX)
}

pub(super) fn truth(value: &Value, at: &str) -> Checked {
    if value.is_boolean() { Ok(()) } else { Err(invalid(at, "is neither true nor false")) }
}

pub(super) fn whole_number(value: &Value, at: &str) -> Checked {
    if value.is_i64() || value.is_u64() { Ok(()) } else { Err(invalid(at, "is no whole number")) }
}

pub(super) fn url(value: &Value, at: &str) -> Checked {
    some_text(value, at)?;
    let text = value.as_str().unwrap_or_default();
    let is_url = text.starts_with("https://") || text.starts_with("http://");
    if is_url { Ok(()) } else { Err(invalid(at, "is no URL")) }
}

pub(super) fn any_object(value: &Value, at: &str) -> Checked {
    open_object(value, at, &[])
}

pub(super) fn anything(_: &Value, _: &str) -> Checked {
    Ok(())
}

/// So many items, each looked at.
pub(super) fn list(value: &Value, at: &str, least: usize, most: usize, check: Check) -> Checked {
    let items = value.as_array().ok_or_else(|| invalid(at, "is no array"))?;
    if !(least..=most).contains(&items.len()) {
        return Err(invalid(at, "has too few or too many items"));
    }
    items.iter().enumerate().try_for_each(|(i, item)| check(item, &format!("{at}[{i}]")))
}

pub(super) fn one_of(value: &Value, at: &str, words: &[&str]) -> Checked {
    let word = value.as_str().ok_or_else(|| invalid(at, "is no text"))?;
    if words.contains(&word) { Ok(()) } else { Err(invalid(at, "is none of the values that there are")) }
}

/// The texts that stand at `pointer` in each item are all different.
pub(super) fn distinct<'v>(items: impl Iterator<Item = &'v Value>, at: &str, pointer: &str) -> Checked {
    let mut seen = std::collections::BTreeSet::new();
    let mut texts = items.filter_map(|item| item.pointer(pointer)?.as_str());
    if texts.all(|text| seen.insert(text)) { Ok(()) } else { Err(invalid(at, "says the same twice")) }
}
