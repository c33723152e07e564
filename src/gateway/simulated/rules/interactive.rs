//! Interactive messages: what each of their types asks of its action, and of what stands around it.

use serde_json::Value;

use super::shapes::{
    Check, Checked, Field, any_object, any_text, anything, distinct, either, invalid, list, missing, object,
    one_of, open_object, some_text, text, url, whole_number,
};
use super::{bare_media, media};

/// Longest body, in characters.
const BODY_MAX: usize = 1_024;
/// Longest body of a list, in characters.
const LIST_BODY_MAX: usize = 4_096;
/// Longest body of a card in a carousel, in characters.
const CARD_BODY_MAX: usize = 160;
/// Longest header and footer, in characters.
const HEADER_MAX: usize = 60;
/// Longest title of a button, in characters.
const BUTTON_MAX: usize = 20;
/// Longest title of a section or a row, in characters.
const TITLE_MAX: usize = 24;
/// Longest label of a flow's button, in characters.
const FLOW_CTA_MAX: usize = 30;
/// Most rows of a list, over all its sections.
const ROWS_MAX: usize = 10;
/// Most products of a message, over all its sections.
const PRODUCTS_MAX: usize = 30;

/// Every type, and how its action is looked at.
pub(super) const TYPES: [(&str, Check); 15] = [
    ("button", buttons),
    ("list", rows),
    ("product", product),
    ("product_list", products),
    ("catalog_message", catalog),
    ("flow", flow),
    ("cta_url", link),
    ("location_request_message", |value, at| named(value, at, "send_location")),
    ("call_permission_request", |value, at| named(value, at, "call_permission_request")),
    ("address_message", address),
    ("order_details", |value, at| named(value, at, "review_and_pay")),
    ("order_status", |value, at| named(value, at, "review_order")),
    ("voice_call", |value, at| named(value, at, "voice_call")),
    ("request_contact_info", |value, at| named(value, at, "request_contact_info")),
    ("carousel", cards),
];

pub(super) fn check(value: &Value, at: &str) -> Checked {
    let fields: [Field; 5] = [
        ("type", true, some_text),
        ("action", true, any_object),
        ("body", false, anything),
        ("header", false, header),
        ("footer", false, footer),
    ];
    object(value, at, &fields)?;
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    let Some((_, action)) = TYPES.iter().find(|(name, _)| *name == kind) else {
        return Err(invalid(&format!("{at}.type"), "is none of the types that there are"));
    };
    around(value, at, kind)?;
    value.get("action").map_or(Ok(()), |value| action(value, &format!("{at}.action")))
}

/// What stands around the action, by the type.
fn around(value: &Value, at: &str, kind: &str) -> Checked {
    let body: Check = match kind {
        "list" => |value, at| said(value, at, LIST_BODY_MAX),
        _ => |value, at| said(value, at, BODY_MAX),
    };
    match value.get("body") {
        Some(value) => body(value, &format!("{at}.body"))?,
        None if kind == "product" => {}
        None => return Err(missing(&format!("{at}.body"))),
    }
    let header = value.pointer("/header/type").and_then(Value::as_str);
    match (kind, header) {
        ("product" | "catalog_message" | "location_request_message" | "carousel", Some(_)) => {
            Err(invalid(&format!("{at}.header"), "is not for this type"))
        }
        ("product_list", None) => Err(missing(&format!("{at}.header"))),
        ("list" | "product_list" | "flow", Some(header)) if header != "text" => {
            Err(invalid(&format!("{at}.header.type"), "is not for this type"))
        }
        _ => Ok(()),
    }
}

fn said(value: &Value, at: &str, most: usize) -> Checked {
    object(value, at, &[("text", true, anything)])?;
    value.get("text").map_or(Ok(()), |value| text(value, &format!("{at}.text"), 1, most))
}

fn footer(value: &Value, at: &str) -> Checked {
    said(value, at, HEADER_MAX)
}

fn header(value: &Value, at: &str) -> Checked {
    let kind: Check = |value, at| one_of(value, at, &["text", "image", "video", "document"]);
    let words: Check = |value, at| text(value, at, 1, HEADER_MAX);
    let fields: [Field; 6] = [
        ("type", true, kind),
        ("text", false, words),
        ("sub_text", false, words),
        ("image", false, bare_media),
        ("video", false, bare_media),
        ("document", false, bare_media),
    ];
    object(value, at, &fields)?;
    match value.get("type").and_then(Value::as_str) {
        Some(kind) if value.get(kind).is_none() => Err(missing(&format!("{at}.{kind}"))),
        _ => Ok(()),
    }
}

fn buttons(value: &Value, at: &str) -> Checked {
    object(value, at, &[("buttons", true, |value, at| list(value, at, 1, 3, button))])?;
    let all = || value.get("buttons").and_then(Value::as_array).into_iter().flatten();
    distinct(all(), at, "/reply/id")?;
    distinct(all(), at, "/reply/title")
}

fn button(value: &Value, at: &str) -> Checked {
    let kind: Check = |value, at| one_of(value, at, &["reply"]);
    object(value, at, &[("type", true, kind), ("reply", true, choice)])
}

fn choice(value: &Value, at: &str) -> Checked {
    let id: Check = |value, at| text(value, at, 1, 256);
    let title: Check = |value, at| text(value, at, 1, BUTTON_MAX);
    object(value, at, &[("id", true, id), ("title", true, title)])
}

fn rows(value: &Value, at: &str) -> Checked {
    let label: Check = |value, at| text(value, at, 1, BUTTON_MAX);
    let section: Check = |value, at| {
        let rows: Check = |value, at| list(value, at, 1, ROWS_MAX, row);
        object(value, at, &[("title", false, title), ("rows", true, rows)])
    };
    sections(value, at, &[("button", true, label)], section, ("rows", ROWS_MAX))?;
    let rows = value.get("sections").and_then(Value::as_array).into_iter().flatten();
    let rows = rows.filter_map(|section| section.get("rows")?.as_array()).flatten();
    distinct(rows, at, "/id")
}

fn row(value: &Value, at: &str) -> Checked {
    let id: Check = |value, at| text(value, at, 1, 200);
    let title: Check = |value, at| text(value, at, 1, TITLE_MAX);
    let description: Check = |value, at| text(value, at, 0, 72);
    object(value, at, &[("id", true, id), ("title", true, title), ("description", false, description)])
}

fn title(value: &Value, at: &str) -> Checked {
    text(value, at, 0, TITLE_MAX)
}

/// One to ten sections beside other fields, so many items in all of them; with a title each where there are several.
fn sections(
    value: &Value,
    at: &str,
    beside: &[Field],
    section: Check,
    (items, most): (&str, usize),
) -> Checked {
    let mut fields = beside.to_vec();
    fields.push(("sections", true, anything));
    object(value, at, &fields)?;
    let Some(all) = value.get("sections") else { return Ok(()) };
    list(all, &format!("{at}.sections"), 1, 10, section)?;
    let all = all.as_array().map_or(&[][..], Vec::as_slice);
    let count: usize = all.iter().filter_map(|section| Some(section.get(items)?.as_array()?.len())).sum();
    if count > most {
        return Err(invalid(&format!("{at}.sections"), "have too many items together"));
    }
    let has_title =
        |section: &Value| section.get("title").and_then(Value::as_str).is_some_and(|t| !t.is_empty());
    if all.len() > 1 && !all.iter().all(has_title) {
        return Err(missing(&format!("{at}.sections.title")));
    }
    Ok(())
}

fn product(value: &Value, at: &str) -> Checked {
    object(value, at, &[("catalog_id", true, some_text), ("product_retailer_id", true, some_text)])
}

fn products(value: &Value, at: &str) -> Checked {
    let section: Check = |value, at| {
        let items: Check = |value, at| list(value, at, 1, PRODUCTS_MAX, item);
        object(value, at, &[("title", false, title), ("product_items", true, items)])
    };
    sections(value, at, &[("catalog_id", true, some_text)], section, ("product_items", PRODUCTS_MAX))
}

fn item(value: &Value, at: &str) -> Checked {
    object(value, at, &[("product_retailer_id", true, some_text)])
}

fn catalog(value: &Value, at: &str) -> Checked {
    named(value, at, "catalog_message")?;
    let fields: [Field; 1] = [("thumbnail_product_retailer_id", false, some_text)];
    value.get("parameters").map_or(Ok(()), |value| object(value, &format!("{at}.parameters"), &fields))
}

fn flow(value: &Value, at: &str) -> Checked {
    with_parameters(value, at, "flow")?;
    let version: Check = |value, at| one_of(value, at, &["3"]);
    let label: Check = |value, at| text(value, at, 1, FLOW_CTA_MAX);
    let mode: Check = |value, at| one_of(value, at, &["draft", "published"]);
    let action: Check = |value, at| one_of(value, at, &["navigate", "data_exchange"]);
    let payload: Check = |value, at| {
        let data: Check = |value, at| {
            any_object(value, at)?;
            let is_empty = value.as_object().is_some_and(|map| map.is_empty());
            if is_empty { Err(invalid(at, "is empty")) } else { Ok(()) }
        };
        open_object(value, at, &[("screen", false, some_text), ("data", false, data)])
    };
    let fields: [Field; 8] = [
        ("flow_message_version", true, version),
        ("flow_cta", true, label),
        ("flow_id", false, some_text),
        ("flow_name", false, some_text),
        ("flow_token", false, any_text),
        ("mode", false, mode),
        ("flow_action", false, action),
        ("flow_action_payload", false, payload),
    ];
    parameters(value, at, |value, at| {
        object(value, at, &fields)?;
        either(value, at, "flow_id", "flow_name")
    })
}

fn link(value: &Value, at: &str) -> Checked {
    with_parameters(value, at, "cta_url")?;
    let label: Check = |value, at| text(value, at, 1, BUTTON_MAX);
    parameters(value, at, |value, at| object(value, at, &[("display_text", true, label), ("url", true, url)]))
}

fn address(value: &Value, at: &str) -> Checked {
    with_parameters(value, at, "address_message")?;
    let country: Check = |value, at| text(value, at, 2, 2);
    parameters(value, at, |value, at| open_object(value, at, &[("country", true, country)]))
}

fn cards(value: &Value, at: &str) -> Checked {
    object(value, at, &[("cards", true, |value, at| list(value, at, 2, 10, card))])
}

fn card(value: &Value, at: &str) -> Checked {
    let kind: Check = |value, at| one_of(value, at, &["cta_url", "button", "product"]);
    let header: Check = |value, at| {
        let kind: Check = |value, at| one_of(value, at, &["image", "video"]);
        let picture: Check = |value, at| media(value, at, &[]);
        object(value, at, &[("type", true, kind), ("image", false, picture), ("video", false, picture)])
    };
    let fields: [Field; 5] = [
        ("card_index", true, whole_number),
        ("type", false, kind),
        ("header", false, header),
        ("body", false, |value, at| said(value, at, CARD_BODY_MAX)),
        ("action", true, any_object),
    ];
    object(value, at, &fields)
}

/// An action by its name; its parameters, if it has some, are an object.
fn named(value: &Value, at: &str, name: &str) -> Checked {
    let fields: [Field; 2] = [("name", true, some_text), ("parameters", false, any_object)];
    object(value, at, &fields)?;
    value.get("name").map_or(Ok(()), |value| one_of(value, &format!("{at}.name"), &[name]))
}

fn with_parameters(value: &Value, at: &str, name: &str) -> Checked {
    named(value, at, name)?;
    value.get("parameters").map(|_| ()).ok_or_else(|| missing(&format!("{at}.parameters")))
}

fn parameters(value: &Value, at: &str, check: impl Fn(&Value, &str) -> Checked) -> Checked {
    value.get("parameters").map_or(Ok(()), |value| check(value, &format!("{at}.parameters")))
}
