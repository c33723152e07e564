//! Every type of message that Meta's description lists goes through the facade and the built-in gateway as it came, and
//! what Meta refuses of it comes back with Meta's code. `tests/messages` has them; the simulated Graph API is Meta.

use serde_json::{Value, json};

use crate::stand::{Broker, Lines, WhatsApp};

const FILES: [&str; 3] = [
    include_str!("../messages/plain.json"),
    include_str!("../messages/interactive.json"),
    include_str!("../messages/template.json"),
];

fn cases() -> Vec<Value> {
    FILES.iter().flat_map(|file| serde_json::from_str::<Vec<Value>>(file).unwrap()).collect()
}

/// The message as a program sends it, to a customer of its own.
fn body_of(content: &Value, customer: usize) -> Value {
    let mut body = content.clone();
    body["messaging_product"] = json!("whatsapp");
    body["to"] = json!(customer_of(customer));
    body
}

fn customer_of(number: usize) -> String {
    format!("1650556{number:04}")
}

#[test]
fn every_type_of_message_comes_to_meta_as_it_was_sent() {
    let whatsapp = WhatsApp::start();
    let broker =
        Broker::start_builtin(&[("crm", String::new()), ("bot", String::new())], &whatsapp.graph.url());
    Lines::service(&broker, "crm").create();
    for (at, case) in cases().iter().enumerate() {
        let mut body = body_of(&case["content"], at);
        // What a program may add, and what it may say of nothing.
        body["recipient_type"] = json!("individual");
        body["recipient"] = Value::Null;
        body["biz_opaque_callback_data"] = json!("its own");
        let (status, answer) = broker.post("bot", "messages", &body);
        assert_eq!(status, 200, "{}: {answer}", case["name"]);
        let seen = whatsapp.seen(at + 1).pop().unwrap();
        assert_eq!(answer["messages"][0]["id"].as_str(), seen.message_id(), "{}", case["name"]);
        assert_eq!(answer["contacts"], json!([{ "input": customer_of(at), "wa_id": customer_of(at) }]));
        let mut expected = body_of(&case["content"], at);
        expected["recipient_type"] = json!("individual");
        let mut sent = seen.body;
        let data = sent.as_object_mut().unwrap().remove("biz_opaque_callback_data").unwrap();
        assert!(data.as_str().unwrap().starts_with("sharedline:1:"), "{data}");
        assert_eq!(sent, expected, "{}", case["name"]);
    }
    assert_eq!(whatsapp.graph.wrongs(), []);
}

#[test]
fn what_meta_refuses_of_a_message_comes_back_with_metas_code_and_details() {
    let whatsapp = WhatsApp::start();
    let broker =
        Broker::start_builtin(&[("crm", String::new()), ("bot", String::new())], &whatsapp.graph.url());
    Lines::service(&broker, "crm").create();
    // The first of each that stands within the type's own object: all of them are tried where the rules are.
    for (at, case) in cases().iter().enumerate() {
        let wrongs = case["wrong"].as_array().unwrap().iter();
        let within = |wrong: &&Value| wrong[0].as_str().unwrap().matches('/').count() > 1;
        let Some(wrong) = wrongs.filter(|wrong| wrong.as_array().unwrap().len() == 2).find(within) else {
            continue;
        };
        let mut body = body_of(&case["content"], at);
        let (parent, name) = wrong[0].as_str().unwrap().rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
        let (status, answer) = broker.post("bot", "messages", &body);
        let error = &answer["error"];
        assert_eq!((status, &error["code"]), (400, &wrong[1]), "{}: {answer}", case["name"]);
        let known = whatsapp.graph.wrongs().pop().unwrap();
        assert_eq!(error["error_data"]["details"], known.details, "{}", case["name"]);
    }
    assert!(whatsapp.graph.wrongs().len() > 20);
}
