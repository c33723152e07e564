//! Cards of contacts: one to five, each with a name.

use serde_json::Value;

use super::shapes::{Check, Checked, Field, any_text, invalid, list, object, some_text, url};

pub(super) fn check(value: &Value, at: &str) -> Checked {
    list(value, at, 1, 5, card)
}

fn card(value: &Value, at: &str) -> Checked {
    let fields: [Field; 7] = [
        ("name", true, name),
        ("phones", false, |value, at| list(value, at, 0, usize::MAX, phone)),
        ("emails", false, |value, at| list(value, at, 0, usize::MAX, email)),
        ("urls", false, |value, at| list(value, at, 0, usize::MAX, site)),
        ("addresses", false, |value, at| list(value, at, 0, usize::MAX, address)),
        ("org", false, |value, at| texts(value, at, &["company", "department", "title"])),
        ("birthday", false, day),
    ];
    object(value, at, &fields)
}

/// A name as it is shown, and its parts.
fn name(value: &Value, at: &str) -> Checked {
    let fields: [Field; 6] = [
        ("formatted_name", true, some_text),
        ("first_name", false, any_text),
        ("last_name", false, any_text),
        ("middle_name", false, any_text),
        ("prefix", false, any_text),
        ("suffix", false, any_text),
    ];
    object(value, at, &fields)
}

fn phone(value: &Value, at: &str) -> Checked {
    let fields: [Field; 3] =
        [("phone", true, some_text), ("type", false, any_text), ("wa_id", false, any_text)];
    object(value, at, &fields)
}

fn email(value: &Value, at: &str) -> Checked {
    let address: Check = |value, at| {
        let is_one = value.as_str().is_some_and(|text| text.contains('@'));
        if is_one { Ok(()) } else { Err(invalid(at, "is no address")) }
    };
    object(value, at, &[("email", true, address), ("type", false, any_text)])
}

fn site(value: &Value, at: &str) -> Checked {
    object(value, at, &[("url", true, url), ("type", false, any_text)])
}

fn address(value: &Value, at: &str) -> Checked {
    texts(value, at, &["street", "city", "state", "zip", "country", "country_code", "type"])
}

/// An object of texts, none of which must be there.
fn texts(value: &Value, at: &str, names: &[&'static str]) -> Checked {
    let fields: Vec<Field> = names.iter().map(|name| (*name, false, any_text as Check)).collect();
    object(value, at, &fields)
}

/// `YYYY-MM-DD`.
fn day(value: &Value, at: &str) -> Checked {
    let is_day = value.as_str().is_some_and(|text| {
        text.len() == 10
            && text.bytes().enumerate().all(|(i, byte)| (byte == b'-') == (i == 4 || i == 7))
            && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit())
    });
    if is_day { Ok(()) } else { Err(invalid(at, "is no day")) }
}
