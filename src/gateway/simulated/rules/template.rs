//! Templates: their name and language, and the parameters of each component.

use serde_json::Value;

use super::shapes::{
    Check, Checked, Field, any_object, any_text, anything, invalid, list, missing, object, one_of,
    open_object, some_text, text, whole_number,
};
use super::{bare_media, location};

/// Longest text of a parameter, in characters.
const TEXT_MAX: usize = 32_768;
/// Most buttons of a template.
const BUTTONS_MAX: u64 = 10;

/// Every type of parameter: the field that holds it, and how it is looked at.
const PARAMETERS: [(&str, Check); 11] = [
    ("text", |value, at| text(value, at, 1, TEXT_MAX)),
    ("currency", currency),
    ("date_time", |value, at| open_object(value, at, &[("fallback_value", true, some_text)])),
    ("image", bare_media),
    ("video", bare_media),
    ("document", bare_media),
    ("location", location),
    ("payload", some_text),
    ("coupon_code", some_text),
    ("action", any_object),
    ("limited_time_offer", |value, at| open_object(value, at, &[("expiration_time_ms", true, whole_number)])),
];

/// Which types of parameters each component may have.
const COMPONENTS: [(&str, &[&str]); 3] = [
    ("header", &["text", "image", "video", "document", "location"]),
    ("body", &["text", "currency", "date_time"]),
    ("limited_time_offer", &["limited_time_offer"]),
];

/// Which type of parameter each type of button has. Meta's own examples have a text in the place of a payload.
const BUTTONS: [(&str, &[&str]); 7] = [
    ("quick_reply", &["payload", "text"]),
    ("url", &["text"]),
    ("catalog", &["action"]),
    ("flow", &["action"]),
    ("mpm", &["action"]),
    ("copy_code", &["coupon_code"]),
    ("voice_call", &["payload", "text"]),
];

pub(super) fn check(value: &Value, at: &str) -> Checked {
    let language: Check = |value, at| {
        let policy: Check = |value, at| one_of(value, at, &["deterministic"]);
        object(value, at, &[("code", true, some_text), ("policy", false, policy)])
    };
    let fields: [Field; 4] = [
        ("name", true, some_text),
        ("namespace", false, some_text),
        ("language", true, language),
        ("components", false, components),
    ];
    object(value, at, &fields)
}

fn components(value: &Value, at: &str) -> Checked {
    list(value, at, 0, usize::MAX, component)
}

fn component(value: &Value, at: &str) -> Checked {
    let fields: [Field; 5] = [
        ("type", true, some_text),
        ("parameters", false, anything),
        ("sub_type", false, some_text),
        ("index", false, index),
        ("cards", false, |value, at| list(value, at, 2, 10, card)),
    ];
    object(value, at, &fields)?;
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default().to_lowercase();
    match kind.as_str() {
        "button" => button(value, at),
        "carousel" if value.get("cards").is_none() => Err(missing(&format!("{at}.cards"))),
        "carousel" => Ok(()),
        kind => match COMPONENTS.iter().find(|(name, _)| *name == kind) {
            Some((_, types)) => parameters(value, at, 0, types),
            None => Err(invalid(&format!("{at}.type"), "is none of the components that there are")),
        },
    }
}

fn card(value: &Value, at: &str) -> Checked {
    object(value, at, &[("card_index", true, whole_number), ("components", true, components)])
}

fn button(value: &Value, at: &str) -> Checked {
    let sub_type = value.get("sub_type").and_then(Value::as_str);
    let sub_type = sub_type.ok_or_else(|| missing(&format!("{at}.sub_type")))?.to_lowercase();
    if value.get("index").is_none() {
        return Err(missing(&format!("{at}.index")));
    }
    match BUTTONS.iter().find(|(name, _)| *name == sub_type) {
        Some((_, types)) => parameters(value, at, 1, types),
        None => Err(invalid(&format!("{at}.sub_type"), "is none of the buttons that there are")),
    }
}

/// The place of a button, as a number or as text.
fn index(value: &Value, at: &str) -> Checked {
    let place = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let is_one = place.is_some_and(|place| place < BUTTONS_MAX);
    if is_one { Ok(()) } else { Err(invalid(at, "is no button's place")) }
}

fn parameters(value: &Value, at: &str, least: usize, types: &[&str]) -> Checked {
    let at = format!("{at}.parameters");
    let Some(all) = value.get("parameters") else {
        return if least == 0 { Ok(()) } else { Err(missing(&at)) };
    };
    list(all, &at, least, usize::MAX, parameter)?;
    let given = all.as_array().into_iter().flatten().filter_map(|one| one.get("type")?.as_str());
    match given.map(str::to_lowercase).find(|given| !types.contains(&given.as_str())) {
        Some(_) => Err(invalid(&at, "are of a type that this component has not")),
        None => Ok(()),
    }
}

fn parameter(value: &Value, at: &str) -> Checked {
    let kind = value.get("type").and_then(Value::as_str).ok_or_else(|| missing(&format!("{at}.type")))?;
    let kind = kind.to_lowercase();
    let Some((name, look)) = PARAMETERS.iter().find(|(name, _)| *name == kind) else {
        return Err(invalid(&format!("{at}.type"), "is none of the parameters that there are"));
    };
    let fields: [Field; 3] =
        [("type", true, some_text), ("parameter_name", false, any_text), (name, true, *look)];
    object(value, at, &fields)
}

fn currency(value: &Value, at: &str) -> Checked {
    let code: Check = |value, at| text(value, at, 3, 3);
    let fields: [Field; 3] =
        [("fallback_value", true, some_text), ("code", true, code), ("amount_1000", true, whole_number)];
    object(value, at, &fields)
}
