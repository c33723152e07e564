//! What the simulated Graph API asks of a message: the rules of Meta's published description (v23.0), as far as they
//! say something about a request: fields, types, lengths. Pure.
//!
//! Where that description and Meta's live service differ it accepts what either does (a location's coordinates as text
//! or number, a language without `policy`); at the top of a message it is strict, so that nothing slips out that does
//! not belong there.

use serde_json::Value;

/// Longest text body, in characters.
const TEXT_MAX: usize = 4_096;
/// Longest caption, and body of an interactive message, in characters.
const CAPTION_MAX: usize = 1_024;
/// Longest header and footer of an interactive message, in characters.
const HEADER_MAX: usize = 60;
/// Longest title of a button, in characters.
const BUTTON_MAX: usize = 20;
/// Longest title of a section or a row, in characters.
const TITLE_MAX: usize = 24;
/// Longest `biz_opaque_callback_data`, in characters.
const CALLBACK_MAX: usize = 512;

/// What is wrong with a message: Meta's code and the details that it would give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// 131008 where something is missing, 131009 where it is not valid, 100 where it does not belong there.
    pub code: u32,
    /// Which field, and why.
    pub details: String,
}

type Checked = Result<(), Wrong>;
type Check = fn(&Value, &str) -> Checked;

/// A field of an object: its name, whether it must be there, how its value is looked at.
type Field = (&'static str, bool, Check);

fn missing(at: &str) -> Wrong {
    Wrong { code: 131_008, details: format!("{at} is required") }
}

fn invalid(at: &str, why: &str) -> Wrong {
    Wrong { code: 131_009, details: format!("{at}: {why}") }
}

/// An object with these fields. `open`: others may stand in it.
fn object(value: &Value, at: &str, fields: &[Field], open: bool) -> Checked {
    let Some(map) = value.as_object() else { return Err(invalid(at, "is no object")) };
    for (name, required, check) in fields {
        match map.get(*name) {
            Some(value) => check(value, &format!("{at}.{name}"))?,
            None if *required => return Err(missing(&format!("{at}.{name}"))),
            None => {}
        }
    }
    match map.keys().find(|key| !open && !fields.iter().any(|(name, ..)| name == key)) {
        Some(other) => Err(Wrong { code: 100, details: format!("{at}.{other} does not belong there") }),
        None => Ok(()),
    }
}

fn text(value: &Value, at: &str, least: usize, most: usize) -> Checked {
    let length = value.as_str().ok_or_else(|| invalid(at, "is no text"))?.chars().count();
    if (least..=most).contains(&length) { Ok(()) } else { Err(invalid(at, "is too short or too long")) }
}

fn some_text(value: &Value, at: &str) -> Checked {
    text(value, at, 1, usize::MAX)
}

fn any_text(value: &Value, at: &str) -> Checked {
    text(value, at, 0, usize::MAX)
}

fn caption(value: &Value, at: &str) -> Checked {
    text(value, at, 0, CAPTION_MAX)
}

fn truth(value: &Value, at: &str) -> Checked {
    if value.is_boolean() { Ok(()) } else { Err(invalid(at, "is neither true nor false")) }
}

fn coordinate(value: &Value, at: &str) -> Checked {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    number.map(|_: f64| ()).ok_or_else(|| invalid(at, "is no coordinate"))
}

fn anything(_: &Value, _: &str) -> Checked {
    Ok(())
}

fn list(value: &Value, at: &str, least: usize, most: usize, check: Check) -> Checked {
    let items = value.as_array().ok_or_else(|| invalid(at, "is no array"))?;
    if !(least..=most).contains(&items.len()) {
        return Err(invalid(at, "has too few or too many items"));
    }
    items.iter().enumerate().try_for_each(|(i, item)| check(item, &format!("{at}[{i}]")))
}

fn one_of(value: &Value, at: &str, words: &[&str]) -> Checked {
    let word = value.as_str().ok_or_else(|| invalid(at, "is no text"))?;
    if words.contains(&word) { Ok(()) } else { Err(invalid(at, "is none of the values that there are")) }
}

/// Checks the body of a request to `/messages` that sends a message.
///
/// # Errors
/// With what Meta would say to it.
pub fn check(body: &Value) -> Checked {
    let product = |value: &Value, at: &str| one_of(value, at, &["whatsapp"]);
    let recipient_type = |value: &Value, at: &str| one_of(value, at, &["individual"]);
    let context = |value: &Value, at: &str| object(value, at, &[("message_id", true, some_text)], false);
    let callback = |value: &Value, at: &str| text(value, at, 1, CALLBACK_MAX);
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
    object(body, "message", &fields, false)?;
    match (body.get("to"), body.get("recipient")) {
        (None, None) => Err(missing("message.to")),
        (Some(_), Some(_)) => Err(invalid("message.to", "stands beside recipient")),
        _ => Ok(()),
    }
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

/// Every type of message, and how its object is looked at.
const KINDS: [(&str, Check); 11] = [
    ("text", |value, at| {
        let body: Check = |value, at| text(value, at, 1, TEXT_MAX);
        object(value, at, &[("body", true, body), ("preview_url", false, truth)], false)
    }),
    ("image", media),
    ("audio", media),
    ("video", media),
    ("document", media),
    ("sticker", media),
    ("location", |value, at| {
        let fields: [Field; 4] = [
            ("latitude", true, coordinate),
            ("longitude", true, coordinate),
            ("name", false, any_text),
            ("address", false, any_text),
        ];
        object(value, at, &fields, false)
    }),
    ("reaction", |value, at| {
        object(value, at, &[("message_id", true, some_text), ("emoji", true, any_text)], false)
    }),
    ("contacts", |value, at| list(value, at, 1, 5, |value, at| object(value, at, &[], true))),
    ("interactive", interactive),
    ("template", template),
];

fn media(value: &Value, at: &str) -> Checked {
    let link: Check = |value, at| {
        some_text(value, at)?;
        let url = value.as_str().unwrap_or_default();
        let is_url = url.starts_with("https://") || url.starts_with("http://");
        if is_url { Ok(()) } else { Err(invalid(at, "is no URL")) }
    };
    let fields: [Field; 5] = [
        ("id", false, some_text),
        ("link", false, link),
        ("caption", false, caption),
        ("filename", false, any_text),
        ("voice", false, truth),
    ];
    object(value, at, &fields, false)?;
    match (value.get("id"), value.get("link")) {
        (None, None) => Err(missing(&format!("{at}.id or {at}.link"))),
        (Some(_), Some(_)) => Err(invalid(at, "has both id and link")),
        _ => Ok(()),
    }
}

fn template(value: &Value, at: &str) -> Checked {
    let language: Check = |value, at| {
        let policy: Check = |value, at| one_of(value, at, &["deterministic"]);
        object(value, at, &[("code", true, some_text), ("policy", false, policy)], false)
    };
    let component: Check = |value, at| {
        let kind: Check = |value, at| one_of(value, at, &["header", "body", "button"]);
        let parameters: Check = |value, at| list(value, at, 0, usize::MAX, |v, at| object(v, at, &[], true));
        object(value, at, &[("type", true, kind), ("parameters", false, parameters)], true)
    };
    let fields: [Field; 3] = [
        ("name", true, some_text),
        ("language", true, language),
        ("components", false, |value, at| list(value, at, 0, usize::MAX, anything)),
    ];
    object(value, at, &fields, true)?;
    let components = value.get("components").and_then(Value::as_array);
    components.into_iter().flatten().try_for_each(|value| component(value, &format!("{at}.components")))
}

fn interactive(value: &Value, at: &str) -> Checked {
    let kinds: Check = |value, at| {
        let words = ["button", "list", "product", "product_list", "catalog_message", "flow", "cta_url"];
        let others = ["call_permission_request", "location_request_message", "address_message"];
        one_of(value, at, &words).or_else(|_| one_of(value, at, &others))
    };
    let body: Check = |value, at| object(value, at, &[("text", true, caption)], false);
    let header: Check = |value, at| {
        let kind: Check = |value, at| one_of(value, at, &["text", "image", "video", "document"]);
        let words: Check = |value, at| text(value, at, 1, HEADER_MAX);
        object(value, at, &[("type", true, kind), ("text", false, words)], true)
    };
    let footer: Check = |value, at| {
        let words: Check = |value, at| text(value, at, 1, HEADER_MAX);
        object(value, at, &[("text", true, words)], false)
    };
    let fields: [Field; 5] = [
        ("type", true, kinds),
        ("action", true, |value, at| object(value, at, &[], true)),
        ("body", false, body),
        ("header", false, header),
        ("footer", false, footer),
    ];
    object(value, at, &fields, false)?;
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    let Some(action) = value.get("action") else { return Ok(()) };
    if kind != "product" && value.get("body").is_none() {
        return Err(missing(&format!("{at}.body")));
    }
    match kind {
        "button" => {
            let buttons: Check = |value, at| list(value, at, 1, 3, button);
            object(action, "interactive.action", &[("buttons", true, buttons)], false)
        }
        "list" => {
            let label: Check = |value, at| text(value, at, 1, BUTTON_MAX);
            let sections: Check = |value, at| list(value, at, 1, 10, section);
            let fields: [Field; 2] = [("button", true, label), ("sections", true, sections)];
            object(action, "interactive.action", &fields, false)
        }
        _ => Ok(()),
    }
}

fn button(value: &Value, at: &str) -> Checked {
    let kind: Check = |value, at| one_of(value, at, &["reply"]);
    let reply: Check = |value, at| {
        let id: Check = |value, at| text(value, at, 1, 256);
        let title: Check = |value, at| text(value, at, 1, BUTTON_MAX);
        object(value, at, &[("id", true, id), ("title", true, title)], false)
    };
    object(value, at, &[("type", true, kind), ("reply", true, reply)], false)
}

fn section(value: &Value, at: &str) -> Checked {
    let title: Check = |value, at| text(value, at, 0, TITLE_MAX);
    let rows: Check = |value, at| list(value, at, 1, 10, row);
    object(value, at, &[("title", false, title), ("rows", true, rows)], false)
}

fn row(value: &Value, at: &str) -> Checked {
    let id: Check = |value, at| text(value, at, 1, 200);
    let title: Check = |value, at| text(value, at, 1, TITLE_MAX);
    let description: Check = |value, at| text(value, at, 0, 72);
    object(value, at, &[("id", true, id), ("title", true, title), ("description", false, description)], false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(kind: &str, object: Value) -> Value {
        json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": "16505551234",
            "type": kind, kind: object})
    }

    #[test]
    fn what_meta_documents_passes() {
        for (kind, object) in [
            ("text", json!({"body": "Hi", "preview_url": false})),
            ("image", json!({"id": "1", "caption": "c"})),
            ("document", json!({"link": "https://example.com/a.pdf", "filename": "a.pdf"})),
            ("location", json!({"latitude": 37.4, "longitude": "-122.1", "name": "n"})),
            ("reaction", json!({"message_id": "wamid.1", "emoji": ""})),
            ("contacts", json!([{"name": {"formatted_name": "A"}}])),
            (
                "template",
                json!({"name": "t", "language": {"code": "en_US"},
                "components": [{"type": "body", "parameters": [{"type": "text", "text": "x"}]}]}),
            ),
            (
                "interactive",
                json!({"type": "button", "body": {"text": "b"}, "action": {"buttons":
                [{"type": "reply", "reply": {"id": "1", "title": "Yes"}}]}}),
            ),
            (
                "interactive",
                json!({"type": "list", "body": {"text": "b"}, "action": {"button": "See",
                "sections": [{"title": "s", "rows": [{"id": "1", "title": "One"}]}]}}),
            ),
        ] {
            assert_eq!(check(&message(kind, object.clone())), Ok(()), "{kind}: {object}");
        }
    }

    #[test]
    fn what_meta_would_refuse_is_refused_by_its_code() {
        let mut no_product = message("text", json!({"body": "Hi"}));
        no_product.as_object_mut().unwrap().remove("messaging_product");
        let mut both = message("text", json!({"body": "Hi"}));
        both["recipient"] = json!("US.123");
        let mut nobody = message("text", json!({"body": "Hi"}));
        nobody.as_object_mut().unwrap().remove("to");
        let mut foreign = message("text", json!({"body": "Hi"}));
        foreign["channel"] = json!("x");
        let mut plus = message("text", json!({"body": "Hi"}));
        plus["to"] = json!("+16505551234");
        let rows = json!([{"id": "1", "title": "a title that is longer than allowed"}]);
        for (body, code) in [
            (no_product, 131_008),
            (both, 131_009),
            (nobody, 131_008),
            (foreign, 100),
            (plus, 131_009),
            (message("text", json!({})), 131_008),
            (message("text", json!({"body": ""})), 131_009),
            (message("text", json!({"body": "x".repeat(4_097)})), 131_009),
            (message("image", json!({"id": "1", "link": "https://example.com"})), 131_009),
            (message("image", json!({"caption": "c"})), 131_008),
            (message("sticker", json!({"link": "file:///etc"})), 131_009),
            (message("template", json!({"name": "t"})), 131_008),
            (message("story", json!({})), 131_009),
            (
                message(
                    "interactive",
                    json!({"type": "list", "body": {"text": "b"}, "action":
                {"button": "See", "sections": [{"rows": rows}]}}),
                ),
                131_009,
            ),
        ] {
            assert_eq!(check(&body).unwrap_err().code, code, "{body}");
        }
    }
}
