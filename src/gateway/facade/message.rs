//! What a body of `POST …/messages` asks for: a message to somebody, or a sign that something was read.
//!
//! Takes the message object out of the envelope that Meta's Graph API has around it. Fields that are not known stay in
//! the message, since Meta may know them by the time it comes there; what is null is as if it were not there.

use bytes::Bytes;

use super::errors::GraphError;
use crate::domain::ids::CustomerName;
use crate::gateway::json::Object;
use crate::wire::content::{CheckedReply, check_reply};

/// What belongs to the envelope and not to the message.
const ENVELOPE: [&str; 4] = ["messaging_product", "recipient_type", "to", "recipient"];
/// The types whose content stands under their own name, as Meta's description of the Cloud API (v23.0) lists them; all
/// but `contacts` as an object. Of a type that is not known nothing is asked.
const TYPES: [&str; 11] = [
    "text",
    "audio",
    "document",
    "image",
    "location",
    "video",
    "sticker",
    "reaction",
    "interactive",
    "template",
    "contacts",
];

/// What a body asks for.
#[derive(Debug)]
pub(super) enum Wanted {
    /// A message is to be sent.
    Send(Box<Send>),
    /// A message was read, or somebody is typing: nothing that the broker has to keep.
    Sign,
}

/// A message that is to be sent.
#[derive(Debug)]
pub(super) struct Send {
    /// To whom.
    pub(super) to: CustomerName,
    /// How the body named him.
    pub(super) input: String,
    /// The message object.
    pub(super) content: CheckedReply,
    /// What it takes up, in bytes.
    pub(super) bytes: usize,
}

/// Reads a body.
///
/// # Errors
/// What is wrong with it, as Meta would say it.
pub(super) fn read(body: &[u8]) -> Result<Wanted, GraphError> {
    let text = std::str::from_utf8(body).map_err(|_| GraphError::bad_parameter("the body is not utf-8"))?;
    let object = Object::read(text).ok_or_else(|| GraphError::bad_parameter("the body is no JSON object"))?;
    if object.text("messaging_product").as_deref() != Some("whatsapp") {
        return Err(GraphError::bad_parameter("messaging_product must be whatsapp"));
    }
    if let Some(status) = object.text("status") {
        return sign(&object, &status);
    }
    check_recipient_type(&object)?;
    let (input, to) = addressee(&object)?;
    let mut message = object.given_without(&ENVELOPE);
    match object.text("type") {
        Some(kind) => check_type(&object, &kind)?,
        // Meta's own default.
        None if object.get("type").is_none() => {
            check_type(&object, "text")?;
            message.insert_str(1, "\"type\":\"text\",");
        }
        None => return Err(GraphError::bad_parameter("type must be a string")),
    }
    let content =
        check_reply(&Bytes::from(message)).map_err(|error| GraphError::bad_parameter(error.to_string()))?;
    Ok(Wanted::Send(Box::new(Send { to, input, content, bytes: body.len() })))
}

/// Meta knows groups as well. The broker does not: a conversation is one customer's.
fn check_recipient_type(object: &Object<'_>) -> Result<(), GraphError> {
    match object.text("recipient_type").as_deref() {
        Some("individual") => Ok(()),
        None if object.get("recipient_type").is_none() => Ok(()),
        Some("group") => {
            Err(GraphError::bad_parameter("groups are not supported: recipient_type must be individual"))
        }
        _ => Err(GraphError::bad_parameter("recipient_type must be individual")),
    }
}

fn sign(object: &Object<'_>, status: &str) -> Result<Wanted, GraphError> {
    if status != "read" {
        return Err(GraphError::bad_parameter("status must be read"));
    }
    if object.text("message_id").is_none_or(|id| id.is_empty()) {
        return Err(GraphError::bad_parameter("message_id is needed"));
    }
    Ok(Wanted::Sign)
}

/// To whom, as the body names him and as the broker does: a phone without what people write between its digits.
pub(super) fn addressee(object: &Object<'_>) -> Result<(String, CustomerName), GraphError> {
    let given = ["to", "recipient"].into_iter().filter_map(|key| object.text_or_number(key));
    let input = given.map(|text| text.trim().to_owned()).find(|text| !text.is_empty());
    let input = input.ok_or_else(|| GraphError::bad_parameter("to or recipient is needed"))?;
    let name = named(&input)?;
    Ok((input, name))
}

/// A customer, as programs name him.
pub(super) fn named(input: &str) -> Result<CustomerName, GraphError> {
    let is_between = |c: char| matches!(c, '+' | ' ' | '-' | '(' | ')');
    let digits: String = input.chars().filter(|c| !is_between(*c)).collect();
    let is_phone = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match CustomerName::read(if is_phone { &digits } else { input }) {
        Ok(name) if is_phone || name.is_user_id() => Ok(name),
        _ => Err(GraphError::bad_parameter("to is neither a phone number nor a user's id")),
    }
}

fn check_type(object: &Object<'_>, kind: &str) -> Result<(), GraphError> {
    if !TYPES.contains(&kind) {
        return Ok(());
    }
    let opens_with = if kind == "contacts" { '[' } else { '{' };
    if object.get(kind).is_some_and(|value| value.get().starts_with(opens_with)) {
        Ok(())
    } else {
        Err(GraphError::bad_parameter(format!("a message of type {kind} needs {kind}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(body: &str) -> Send {
        match read(body.as_bytes()) {
            Ok(Wanted::Send(send)) => *send,
            other => panic!("{other:?}"),
        }
    }

    fn content(send: &Send) -> String {
        String::from_utf8(send.content.content.expose().to_vec()).unwrap()
    }

    #[test]
    fn the_message_is_taken_out_of_its_envelope_as_it_came() {
        let send = sent(
            r#"{"messaging_product":"whatsapp","recipient_type":"individual","to":"+1 (650) 555-1234","context":null,
               "type":"text","text":{"body":"caf\u00e9","preview_url":false},"new":{"a":1},
               "biz_opaque_callback_data":"mine"}"#,
        );
        assert_eq!((send.input.as_str(), send.to.as_str()), ("+1 (650) 555-1234", "16505551234"));
        assert_eq!(
            content(&send),
            r#"{"type":"text","text":{"body":"caf\u00e9","preview_url":false},"new":{"a":1}}"#
        );
        assert_eq!(send.content.callback_data.as_deref(), Some(&b"mine"[..]));
    }

    #[test]
    fn a_user_is_named_by_either_field_and_either_name() {
        let body = |who: &str| {
            format!(r#"{{"messaging_product":"whatsapp",{who},"type":"text","text":{{"body":"x"}}}}"#)
        };
        assert_eq!(sent(&body(r#""recipient":"US.1349""#)).to.as_str(), "US.1349");
        assert_eq!(sent(&body(r#""to":null,"recipient":"US.1349""#)).to.as_str(), "US.1349");
        assert_eq!(sent(&body(r#""to":16505551234"#)).to.as_str(), "16505551234");
        for wrong in [r#""to":"""#, r#""to":"bob""#, r#""to":["1"]"#, r#""x":1"#] {
            assert!(read(body(wrong).as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn text_is_what_a_message_without_a_type_is() {
        let send = sent(r#"{"messaging_product":"whatsapp","to":"1","text":{"body":"x"}}"#);
        assert_eq!(content(&send), r#"{"type":"text","text":{"body":"x"}}"#);
    }

    #[test]
    fn every_type_needs_what_it_is_named_for_and_one_that_is_not_known_needs_nothing() {
        for kind in TYPES {
            let value = if kind == "contacts" { "[{}]" } else { "{}" };
            let body = |key: &str| {
                format!(r#"{{"messaging_product":"whatsapp","to":"1","type":"{kind}","{key}":{value}}}"#)
            };
            assert_eq!(sent(&body(kind)).content.content.kind(), kind);
            assert!(read(body("other").as_bytes()).is_err(), "{kind}");
        }
        let body = r#"{"messaging_product":"whatsapp","to":"1","type":"hologram"}"#;
        assert_eq!(sent(body).content.content.kind(), "hologram");
    }

    #[test]
    fn signs_are_no_messages_and_what_is_neither_is_refused() {
        let read_sign = r#"{"messaging_product":"whatsapp","status":"read","message_id":"wamid.1"}"#;
        assert!(matches!(read(read_sign.as_bytes()), Ok(Wanted::Sign)));
        for wrong in [
            "",
            "[]",
            "{",
            r#"{"to":"1","type":"text","text":{"body":"x"}}"#,
            r#"{"messaging_product":"whatsapp","status":"read"}"#,
            r#"{"messaging_product":"whatsapp","status":"gone","message_id":"wamid.1"}"#,
            r#"{"messaging_product":"whatsapp","to":"1","type":7,"text":{"body":"x"}}"#,
        ] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_group_is_no_recipient_and_the_error_says_so() {
        let body = |kind: &str| {
            format!(
                r#"{{"messaging_product":"whatsapp","recipient_type":{kind},"to":"1","type":"text","text":{{}}}}"#
            )
        };
        for wrong in [r#""group""#, r#""everybody""#, "7"] {
            let error = read(body(wrong).as_bytes()).unwrap_err().body();
            assert_eq!(error["error"]["code"], 100, "{wrong}");
            let details = error["error"]["error_data"]["details"].as_str().unwrap();
            assert_eq!(details.contains("groups are not supported"), wrong.contains("group"), "{details}");
            assert!(details.contains("recipient_type must be individual"), "{details}");
        }
        for right in [r#""individual""#, "null"] {
            assert!(read(body(right).as_bytes()).is_ok(), "{right}");
        }
    }
}
