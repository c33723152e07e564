//! What the simulated Graph API asks of a message: the rules of Meta's published description (v23.0), as far as they
//! say something about a request: fields, types, lengths, how many. Pure.
//!
//! Where that description and Meta's live service differ it accepts what either does (a location's coordinates as text
//! or number, a language without `policy`, types of interactive messages that came later); at the top of a message it is
//! strict, so that nothing slips out that does not belong there.
//!
//! # Layout
//! - `mod.rs`: the envelope and the plain types · `interactive`, `template`, `contacts`: the others
//! - `shapes`: the words that the rules are written in

mod contacts;
mod interactive;
mod shapes;
mod template;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use self::shapes::Wrong;
use self::shapes::{
    Check, Checked, Field, any_text, either, invalid, missing, object, one_of, some_text, text, truth, url,
};

/// Longest text body, in characters.
const TEXT_MAX: usize = 4_096;
/// Longest caption, in characters.
const CAPTION_MAX: usize = 1_024;
/// Longest `biz_opaque_callback_data`, in characters.
const CALLBACK_MAX: usize = 512;

/// Every type of message, and how its object is looked at.
pub(super) const KINDS: [(&str, Check); 11] = [
    ("text", words),
    ("image", |value, at| media(value, at, &["caption"])),
    ("audio", |value, at| media(value, at, &["voice"])),
    ("video", |value, at| media(value, at, &["caption"])),
    ("document", |value, at| media(value, at, &["caption", "filename"])),
    ("sticker", |value, at| media(value, at, &[])),
    ("location", location),
    ("reaction", reaction),
    ("contacts", contacts::check),
    ("interactive", interactive::check),
    ("template", template::check),
];

/// Checks the body of a request to `/messages` that sends a message.
///
/// # Errors
/// With what Meta would say to it.
pub fn check(body: &Value) -> Checked {
    let product: Check = |value, at| one_of(value, at, &["whatsapp"]);
    let recipient_type: Check = |value, at| one_of(value, at, &["individual"]);
    let context: Check = |value, at| object(value, at, &[("message_id", true, some_text)]);
    let callback: Check = |value, at| text(value, at, 1, CALLBACK_MAX);
    let kind = body.get("type").and_then(Value::as_str).ok_or_else(|| missing("message.type"))?;
    let Some((name, look)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        return Err(invalid("message.type", "is none of the types that there are"));
    };
    let fields: [Field; 8] = [
        ("messaging_product", true, product),
        ("recipient_type", true, recipient_type),
        ("to", false, phone),
        ("recipient", false, user_id),
        ("type", true, some_text),
        ("context", false, context),
        ("biz_opaque_callback_data", false, callback),
        (name, true, *look),
    ];
    object(body, "message", &fields)?;
    either(body, "message", "to", "recipient")
}

fn phone(value: &Value, at: &str) -> Checked {
    let digits = value.as_str().ok_or_else(|| invalid(at, "is no text"))?;
    let is_phone = (5..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_phone { Ok(()) } else { Err(invalid(at, "is no phone number in digits")) }
}

fn user_id(value: &Value, at: &str) -> Checked {
    let id = value.as_str().ok_or_else(|| invalid(at, "is no text"))?;
    let is_id = id.split_once('.').is_some_and(|(country, rest)| country.len() == 2 && !rest.is_empty());
    if is_id { Ok(()) } else { Err(invalid(at, "is no business-scoped user id")) }
}

fn words(value: &Value, at: &str) -> Checked {
    let body: Check = |value, at| text(value, at, 1, TEXT_MAX);
    object(value, at, &[("body", true, body), ("preview_url", false, truth)])
}

/// Media by their id or a link, and what may stand beside that.
fn media(value: &Value, at: &str, beside: &[&str]) -> Checked {
    let caption: Check = |value, at| text(value, at, 0, CAPTION_MAX);
    let may_have: [Field; 3] =
        [("caption", false, caption), ("filename", false, any_text), ("voice", false, truth)];
    let mut fields: Vec<Field> = vec![("id", false, some_text), ("link", false, url)];
    fields.extend(may_have.into_iter().filter(|(name, ..)| beside.contains(name)));
    object(value, at, &fields)?;
    either(value, at, "id", "link")
}

/// Media in a header or a parameter, which have no caption.
fn bare_media(value: &Value, at: &str) -> Checked {
    media(value, at, &["filename"])
}

fn location(value: &Value, at: &str) -> Checked {
    let fields: [Field; 4] = [
        ("latitude", true, |value, at| coordinate(value, at, 90.0)),
        ("longitude", true, |value, at| coordinate(value, at, 180.0)),
        ("name", false, any_text),
        ("address", false, any_text),
    ];
    object(value, at, &fields)
}

fn coordinate(value: &Value, at: &str, most: f64) -> Checked {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let is_one = number.is_some_and(|number: f64| number.abs() <= most);
    if is_one { Ok(()) } else { Err(invalid(at, "is no coordinate")) }
}

fn reaction(value: &Value, at: &str) -> Checked {
    object(value, at, &[("message_id", true, some_text), ("emoji", true, any_text)])
}
