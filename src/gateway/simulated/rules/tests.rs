//! Every type of message passes as Meta describes it, and each rule refuses what breaks it, by Meta's code.
//! `tests/messages` has the messages, and for each what breaks it: where, what stands there instead (nothing: it is
//! missing), and the code. The facade's tests send the same.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

const FILES: [&str; 3] = [
    include_str!("../../../../tests/messages/plain.json"),
    include_str!("../../../../tests/messages/interactive.json"),
    include_str!("../../../../tests/messages/template.json"),
];

fn cases() -> Vec<Value> {
    FILES.iter().flat_map(|file| serde_json::from_str::<Vec<Value>>(file).unwrap()).collect()
}

fn addressed(content: &Value) -> Value {
    let mut body = content.clone();
    body["messaging_product"] = json!("whatsapp");
    body["recipient_type"] = json!("individual");
    body["to"] = json!("16505551234");
    body
}

/// The message with something else, or nothing, at that place.
fn broken(content: &Value, pointer: &str, instead: Option<&Value>) -> Value {
    let mut content = content.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = content.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    let instead = instead.map(|value| match value["repeat"].as_u64() {
        Some(times) => json!("x".repeat(usize::try_from(times).unwrap())),
        None => value.clone(),
    });
    match (parent, instead) {
        (Value::Array(items), instead) => items[name.parse::<usize>().unwrap()] = instead.unwrap(),
        (parent, Some(instead)) => parent[name] = instead,
        (parent, None) => assert!(parent.as_object_mut().unwrap().remove(name).is_some(), "{pointer}"),
    }
    content
}

#[test]
fn every_type_of_message_passes_as_meta_describes_it() {
    let (mut kinds, mut interactive) = (BTreeSet::new(), BTreeSet::new());
    for case in cases() {
        assert_eq!(check(&addressed(&case["content"])), Ok(()), "{}", case["name"]);
        kinds.insert(case["content"]["type"].as_str().unwrap().to_owned());
        interactive.extend(case["content"]["interactive"]["type"].as_str().map(str::to_owned));
    }
    let all: BTreeSet<String> = KINDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(kinds, all, "a type has no message here");
    // Types of later versions are only looked at from outside.
    let later = ["voice_call", "request_contact_info"];
    let all = interactive::TYPES.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(interactive, all.filter(|name| !later.contains(&name.as_str())).collect());
}

#[test]
fn what_breaks_a_rule_is_refused_by_metas_code_and_the_field_is_named() {
    for case in cases() {
        for wrong in case["wrong"].as_array().unwrap() {
            let wrong = wrong.as_array().unwrap();
            let (pointer, code) = (wrong[0].as_str().unwrap(), wrong.last().unwrap().as_u64().unwrap());
            let body = addressed(&broken(&case["content"], pointer, (wrong.len() == 3).then(|| &wrong[1])));
            let refused = check(&body).expect_err(&format!("{}: {pointer}", case["name"]));
            assert_eq!(u64::from(refused.code), code, "{}: {pointer}: {}", case["name"], refused.details);
            assert!(refused.details.starts_with("message."), "{}", refused.details);
        }
    }
}

#[test]
fn around_the_message_nothing_is_missing_and_nothing_too_much() {
    let good = || addressed(&json!({"type": "text", "text": {"body": "Hi"}}));
    let with = |name: &str, value: Option<Value>| {
        let mut body = good();
        match value {
            Some(value) => body[name] = value,
            None => drop(body.as_object_mut().unwrap().remove(name)),
        }
        body
    };
    let mut by_user_id = with("to", None);
    by_user_id["recipient"] = json!("US.13491208655302741918");
    assert_eq!(check(&by_user_id), Ok(()));
    for (body, code) in [
        (with("messaging_product", None), 131_008),
        (with("messaging_product", Some(json!("messenger"))), 131_009),
        (with("recipient_type", None), 131_008),
        (with("type", None), 131_008),
        (with("type", Some(json!("story"))), 131_009),
        (with("to", None), 131_008),
        (with("to", Some(json!("+16505551234"))), 131_009),
        (with("to", Some(json!(16_505_551_234_u64))), 131_009),
        (with("recipient", Some(json!("US.123"))), 131_009),
        (with("context", Some(json!({}))), 131_008),
        (with("biz_opaque_callback_data", Some(json!("x".repeat(513)))), 131_009),
        (with("text", Some(json!({"body": "x".repeat(4_097)}))), 131_009),
        (with("image", Some(json!({"id": "1"}))), 100),
        (with("channel", Some(json!("x"))), 100),
    ] {
        assert_eq!(check(&body).unwrap_err().code, code, "{body}");
    }
}
