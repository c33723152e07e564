//! Holds `docs/asyncapi.json` to the code: it is what these tables give, and it fits what the code writes and reads.
//!
//! `SHAREDLINE_WRITE=1 cargo test --test wire asyncapi` writes it anew.

mod build;
mod check;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use sharedline::wire::codec::{
    decode_request, decode_server, encode_owned_delivery, encode_request, encode_response,
};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::{Delivery, Request, Response};

use self::build::{document, key};
use self::check::fits;
use crate::cases::{all_deliveries, all_requests, all_responses};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/asyncapi.json");

fn json(line: &BytesMut) -> Value {
    serde_json::from_slice(line).unwrap()
}

/// Every case as JSON, with the key of its message.
fn requests() -> Vec<(String, Value)> {
    let one = |request: &Request| {
        let mut out = BytesMut::new();
        encode_request(Encoding::JsonLines, 7, request, &mut out).unwrap();
        (key("request", request.name(), request.number()), json(&out))
    };
    all_requests().iter().map(one).collect()
}

fn of_the_broker() -> Vec<(String, Value)> {
    let response = |response: &Response| {
        let mut out = BytesMut::new();
        encode_response(Encoding::JsonLines, 7, response, &mut out).unwrap();
        (key("response", response.name(), response.number()), json(&out))
    };
    let delivery = |delivery: &Delivery| {
        let mut out = BytesMut::new();
        encode_owned_delivery(Encoding::JsonLines, delivery, &mut out).unwrap();
        (key("delivery", delivery.name(), delivery.number()), json(&out))
    };
    all_responses().iter().map(response).chain(all_deliveries().iter().map(delivery)).collect()
}

fn payload<'a>(document: &'a Value, key: &str) -> &'a Value {
    let payload = &document["components"]["messages"][key]["payload"];
    assert!(payload.is_object(), "no message {key}");
    payload
}

#[test]
fn the_asyncapi_document_is_what_the_codes_tables_give() {
    let text = format!("{:#}\n", document());
    if std::env::var_os("SHAREDLINE_WRITE").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let written = std::fs::read_to_string(FILE).unwrap();
    assert!(written == text, "docs/asyncapi.json is not what the code says: write it anew");
}

#[test]
fn every_reference_in_the_asyncapi_document_leads_somewhere() {
    fn look(value: &Value, whole: &Value, found: &mut usize) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(to)) = members.get("$ref") {
                    let to = to.strip_prefix('#').unwrap();
                    assert!(whole.pointer(to).is_some(), "{to}");
                    *found += 1;
                }
                members.values().for_each(|member| look(member, whole, found));
            }
            Value::Array(values) => values.iter().for_each(|value| look(value, whole, found)),
            _ => {}
        }
    }
    let (document, mut found) = (document(), 0);
    look(&document, &document, &mut found);
    assert!(found > 200, "the references are not found any more: {found}");
}

#[test]
fn every_message_that_the_code_writes_fits_its_schema() {
    let document = document();
    for (key, message) in requests().into_iter().chain(of_the_broker()) {
        let outcome = fits(payload(&document, &key), &message, &document);
        assert_eq!(outcome, Ok(()), "{key}: {message}");
    }
}

#[test]
fn what_a_schema_requires_is_what_the_code_can_not_do_without() {
    let document = document();
    for (key, message) in requests() {
        let members: Vec<String> = message.as_object().unwrap().keys().cloned().collect();
        // Without them it is the status of before.
        for member in members.into_iter().filter(|member| member != "details") {
            let mut without = message.clone();
            without.as_object_mut().unwrap().remove(&member);
            let line = Bytes::from(without.to_string());
            let is_read = decode_request(Encoding::JsonLines, &line).is_ok();
            let is_fit = fits(payload(&document, &key), &without, &document).is_ok();
            assert_eq!(is_fit, is_read, "{key} without {member}");
        }
    }
    for (key, message) in of_the_broker() {
        for member in payload(&document, &key)["required"].as_array().unwrap() {
            let member = member.as_str().unwrap();
            // The broker always writes it, if only as null; a client takes null and nothing for the same.
            if member == "parent" {
                continue;
            }
            // Without it it is the message of before.
            if ["details", "contact", "sent_at"].contains(&member) {
                continue;
            }
            let mut without = message.clone();
            without.as_object_mut().unwrap().remove(member);
            let line = Bytes::from(without.to_string());
            assert!(decode_server(Encoding::JsonLines, &line).is_err(), "{key} without {member}");
        }
    }
}

#[test]
fn a_value_of_another_kind_fits_no_schema() {
    let document = document();
    for (key, message) in requests() {
        for (member, value) in message.as_object().unwrap() {
            let mut wrong = message.clone();
            wrong[member] = if value.is_array() { Value::from(7) } else { Value::from(vec![7]) };
            assert!(fits(payload(&document, &key), &wrong, &document).is_err(), "{key}: {member}");
        }
    }
}
