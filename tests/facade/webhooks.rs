//! What WhatsApp tells goes through whole: every webhook of `tests/payloads`, signed over HTTP, comes out at each
//! service's callback URL and at its connection over TCP as it came in.
//!
//! What is told otherwise is written down here, by hand, and nowhere else: [`told_content`], [`told_contact`],
//! [`told_status`], and the fields that a delivery over TCP has of its own. Everything else is compared deeply, keys that
//! nobody knows included.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::media::WABA;
use crate::stand::{Broker, CUSTOMER, Callback, Gateway, ID, Lines, NUMBER, sent, webhook};

/// Media that WhatsApp keeps: what has an address there.
pub(crate) const MEDIA: [&str; 5] = ["image", "audio", "video", "document", "sticker"];

/// Every webhook, by the name of its file; but for the one that is wrong in many ways.
pub(crate) fn payloads() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/payloads");
    let read = |path: std::path::PathBuf| {
        // The account is that of the number.
        let text = std::fs::read_to_string(&path).unwrap().replace("215589313241560883", WABA);
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), serde_json::from_str(&text).unwrap())
    };
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| read(file.unwrap().path())).collect();
    all.retain(|(name, _)| name != "batch");
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

/// A message object as a service is shown it: without what was written for machines, unless it is the parent, since
/// nobody knows whose messages these answer (B7), and saying so; at a callback URL also without the address of media at
/// WhatsApp, which no service's token opens.
fn told_content(message: &Value, to_parent: bool, at_url: bool) -> Value {
    let mut told = message.clone();
    let mut cut = |pointer: &str, name: &str| {
        let fields = told.pointer_mut(pointer).and_then(Value::as_object_mut);
        fields.and_then(|fields| fields.remove(name))
    };
    let mut machines = Vec::new();
    if !to_parent {
        machines.push(cut("/button", "payload"));
        machines.push(cut("/interactive/button_reply", "id"));
        machines.push(cut("/interactive/list_reply", "id"));
        machines.push(cut("/interactive/list_reply", "description"));
    }
    if at_url {
        for parent in ["", "/edit/message"] {
            MEDIA.iter().for_each(|kind| drop(cut(&format!("{parent}/{kind}"), "url")));
        }
    }
    if let Some(Value::String(json)) = told.pointer_mut("/interactive/nfm_reply/response_json") {
        let mut answers: Map<String, Value> = serde_json::from_str(json).unwrap();
        if !to_parent {
            machines.push(answers.remove("flow_token"));
        }
        // Read, since the text may be spaced otherwise.
        told["interactive"]["nfm_reply"]["response_json"] = json!(answers);
    }
    if at_url && machines.iter().any(Option::is_some) {
        told["redacted"] = json!(true);
    }
    told
}

/// With an answer of a flow read, so that it can be compared.
fn read_answers(mut message: Value) -> Value {
    if let Some(Value::String(json)) = message.pointer_mut("/interactive/nfm_reply/response_json") {
        let answers: Value = serde_json::from_str(json).unwrap();
        message["interactive"]["nfm_reply"]["response_json"] = answers;
    }
    message
}

/// A customer as he is told at a callback URL: by his names, the phone's id in the place of a `user_id` that WhatsApp did
/// not give; a change of names is told with the new ones. What else WhatsApp says of a customer is kept, but beside what was
/// written on the phone.
fn told_contact(value: &Value, message: &Value) -> Value {
    let (contact, system) = (&value["contacts"][0], &message["system"]);
    let is_of_customer = message["to"].is_null() && message["to_user_id"].is_null();
    let names = if is_of_customer { ["from", "from_user_id"] } else { ["to", "to_user_id"] };
    let first = |all: [&Value; 3]| all.into_iter().find(|name| !name.is_null()).cloned();
    let wa_id = first([&system["wa_id"], &contact["wa_id"], &message[names[0]]]);
    let user_id = first([&system["user_id"], &contact["user_id"], &message[names[1]]]);
    let id = user_id.or_else(|| wa_id.clone()).unwrap();
    let mut told = if is_of_customer { besides(contact) } else { json!({}) };
    told["user_id"] = id;
    if let Some(wa_id) = wa_id {
        told["wa_id"] = wa_id;
    }
    match contact["profile"]["name"].as_str() {
        Some(name) => told["profile"]["name"] = json!(name),
        None if is_of_customer => told["profile"]["name"] = told["user_id"].clone(),
        None => {}
    }
    told
}

/// What a contact says beyond the names.
fn besides(contact: &Value) -> Value {
    let Value::Object(_) = contact else { return json!({}) };
    let mut told = without(contact, &["wa_id", "user_id"]);
    if let Some(profile) = told.get_mut("profile").and_then(Value::as_object_mut) {
        profile.remove("name");
    }
    if told["profile"] == json!({}) { without(&told, &["profile"]) } else { told }
}

/// A status as the service that sent the message is told it: with its own callback data, and the customer's `user_id`
/// where WhatsApp did not give it.
fn told_status(status: &Value, user_id: &Value) -> Value {
    let mut told = status.clone();
    told["biz_opaque_callback_data"] = json!("its own");
    if told["recipient_user_id"].is_null() {
        told["recipient_user_id"] = user_id.clone();
    }
    told
}

/// A change as it stands in the body for a callback URL, around what it says.
fn told_change(field: &str, members: Value) -> Value {
    let mut value = members;
    value["messaging_product"] = json!("whatsapp");
    value["metadata"] =
        json!({ "display_phone_number": NUMBER.trim_start_matches('+'), "phone_number_id": ID });
    json!({ "field": field, "value": value })
}

fn without(value: &Value, names: &[&str]) -> Value {
    let mut value = value.clone();
    names.iter().for_each(|name| drop(value.as_object_mut().unwrap().remove(*name)));
    value
}

/// Two services on one number, each with a URL and a connection over TCP; the first is the parent.
struct Play {
    broker: Broker,
    urls: [Callback; 2],
    lines: [Lines; 2],
    /// How much of what the URLs were told was looked at.
    looked_at: [usize; 2],
    _gateway: Gateway,
}

impl Play {
    fn start() -> Self {
        let urls = [Callback::start(|_| 200), Callback::start(|_| 200)];
        let broker = Broker::start(&[("crm", webhook(&urls[0])), ("bot", webhook(&urls[1]))]);
        let mut crm = Lines::service(&broker, "crm");
        let channel = crm.create();
        crm.until_joined(&channel, 2);
        let lines = [crm, Lines::service(&broker, "bot")];
        let gateway = Gateway::start(&broker, sent);
        Self { broker, urls, lines, looked_at: [0, 0], _gateway: gateway }
    }

    /// The next change that a service is told at its URL, and the account that it is of.
    fn url(&mut self, service: usize) -> Value {
        let seen = self.looked_at[service];
        let told = self.urls[service].until("the next one", |told| told.len() > seen);
        self.looked_at[service] += 1;
        assert_eq!(told[seen].json()["entry"][0]["id"], WABA);
        told[seen].change()
    }

    /// The next delivery to a service over TCP, but for what is no news of webhooks.
    fn tcp(&mut self, service: usize) -> Value {
        loop {
            let said = self.lines[service].next().expect("a delivery");
            if said["type"] != "membership" {
                return said;
            }
        }
    }

    /// Nothing came but what was looked at: a message that is sent now is the next that everybody is told.
    fn nothing_more(&mut self, name: &str) {
        let text = json!({ "from": CUSTOMER, "id": format!("wamid.behind.{name}"), "timestamp": "1790000000",
            "type": "text", "text": { "body": "behind" } });
        let value = told_change("messages", json!({ "messages": [text] }));
        self.broker.webhook(&json!({ "object": "whatsapp_business_account",
            "entry": [{ "id": WABA, "changes": [value] }] }));
        self.message(name, &Value::Null, &text);
    }

    fn message(&mut self, name: &str, value: &Value, message: &Value) {
        for service in 0..2 {
            let expected = told_content(message, service == 0, true);
            let mut change = self.url(service);
            let told = &mut change["value"]["messages"][0];
            *told = read_answers(told.take());
            // Meta leaves it out beside `previous_user_id`.
            if expected["system"]["previous_user_id"].is_string() {
                assert_eq!(told["from_user_id"], expected["system"]["previous_user_id"]);
                told.as_object_mut().unwrap().remove("from_user_id");
            }
            let contacts = json!([told_contact(value, message)]);
            let members = json!({ "contacts": contacts, "messages": [expected] });
            assert_eq!(change, told_change("messages", members), "{name}");

            let delivery = self.tcp(service);
            let content = told_content(message, service == 0, false);
            let is_redacted = content != told_content(message, true, false);
            let content = without(&content, &["from", "from_user_id", "id", "timestamp"]);
            assert_eq!(delivery["type"], "message", "{name}");
            assert_eq!(read_answers(delivery["content"].clone()), content, "{name}");
            assert_eq!(delivery["message_id"], message["id"], "{name}");
            let seconds = delivery["at"].as_u64().unwrap() / 1_000;
            assert_eq!(message["timestamp"], json!(seconds.to_string()), "{name}");
            assert_eq!(delivery.get("redacted"), is_redacted.then_some(&json!(true)), "{name}");
            let more = besides(&value["contacts"][0]);
            assert_eq!(delivery.get("contact"), (more != json!({})).then_some(&more), "{name}");
            let contact = told_contact(value, message);
            assert_eq!(delivery["customer"]["id"], contact["user_id"], "{name}");
            assert_eq!(delivery["customer"]["phone"], contact["wa_id"], "{name}");
            assert_eq!(delivery["customer"]["name"], value["contacts"][0]["profile"]["name"], "{name}");
        }
    }

    /// The message that a status is about, sent by the second service.
    fn send(&mut self, message_id: &str, to: &str) {
        // A template, since what these customers wrote is long ago.
        let template = json!({ "name": "hello", "language": { "code": "en_US" } });
        let body = json!({ "messaging_product": "whatsapp", "to": to, "type": "template",
            "template": template, "biz_opaque_callback_data": "its own" });
        let key = message_id.strip_prefix("wamid.").unwrap();
        let (status, answer) = self.broker.post_as("bot", key, &body);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(self.tcp(0)["type"], "masked_reply");
        assert_eq!(self.url(0)["field"], "smb_message_echoes");
        assert_eq!(self.tcp(1)["type"], "reply");
        assert_eq!(self.tcp(1)["status"], "sent");
        assert_eq!(self.url(1)["value"]["statuses"][0]["status"], "sent");
    }

    fn status(&mut self, name: &str, value: &Value, status: &Value) {
        if status["status"] == "sent" {
            // Nothing new: it is known from the answer to the request.
            return self.nothing_more(name);
        }
        let change = self.url(1);
        let user_id = change["value"]["contacts"][0]["user_id"].clone();
        let expected = told_change(
            "messages",
            json!({ "contacts": change["value"]["contacts"], "statuses": [told_status(status, &user_id)] }),
        );
        assert_eq!(change, expected, "{name}");
        let more = besides(&value["contacts"][0]);
        assert_eq!(besides(&change["value"]["contacts"][0]), more, "{name}");
        let receipt = self.tcp(1);
        assert_eq!((&receipt["type"], &receipt["status"]), (&json!("receipt"), &status["status"]), "{name}");
        assert_eq!(receipt["message_id"], status["id"], "{name}");
        if let Some(error) = status["errors"].get(0) {
            let (title, details) = (&error["title"], &error["error_data"]["details"]);
            let code = error["code"].to_string();
            assert_eq!(receipt["error"], json!({ "code": code, "title": title, "details": details }));
        }
        let own = ["id", "status", "timestamp", "biz_opaque_callback_data"];
        let mut details = without(status, &own);
        if more != json!({}) {
            details["contacts"] = json!([more]);
        }
        assert_eq!(receipt["details"], details, "{name}");
        self.nothing_more(name);
    }

    fn echo(&mut self, name: &str, value: &Value, echo: &Value) {
        let change = self.url(0);
        let told = told_content(echo, true, true);
        let members = json!({ "contacts": [told_contact(value, echo)], "message_echoes": [told] });
        assert_eq!(change, told_change("smb_message_echoes", members), "{name}");
        let reply = self.tcp(0);
        assert_eq!(reply["type"], "reply", "{name}");
        let seconds = reply["sent_at"].as_u64().unwrap() / 1_000;
        assert_eq!(echo["timestamp"], json!(seconds.to_string()), "{name}");
        let envelope = ["from", "to", "to_user_id", "id", "timestamp"];
        assert_eq!(reply["content"], without(echo, &envelope), "{name}");
        assert_eq!(reply["reply_id"], json!(format!("echo:{}", echo["id"].as_str().unwrap())), "{name}");
        let masked = self.url(1);
        let text = &masked["value"]["message_echoes"][0]["text"]["body"];
        assert_eq!(*text, "A reply was sent from another service.", "{name}");
        assert!(self.tcp(1).get("content").is_none(), "{name}");
    }

    /// To the parent alone, all of it.
    fn notice(&mut self, name: &str, field: &Value, value: &Value) {
        assert_eq!(self.url(0), json!({ "field": field, "value": value }), "{name}");
        let notice = self.tcp(0);
        assert_eq!((&notice["type"], &notice["field"]), (&json!("notice"), field), "{name}");
        assert_eq!(notice["content"], *value, "{name}");
    }
}

#[test]
fn every_webhook_comes_out_at_every_service_as_it_came_in() {
    let mut play = Play::start();
    let mut counts = [0; 4];
    for (name, mut webhook) in payloads() {
        let change = webhook["entry"][0]["changes"][0].clone();
        let (field, value) = (&change["field"], &change["value"]);
        let all = |key: &str| value[key].as_array().cloned().unwrap_or_default();
        if let Some(status) = all("statuses").first() {
            // Each about a message of its own, so that none is past the other.
            let mut status = status.clone();
            status["id"] = json!(format!("wamid.{name}"));
            webhook["entry"][0]["changes"][0]["value"]["statuses"][0] = status.clone();
            play.send(&format!("wamid.{name}"), status["recipient_id"].as_str().unwrap());
            play.broker.webhook(&webhook);
            play.status(&name, value, &status);
            counts[0] += 1;
            continue;
        }
        play.broker.webhook(&webhook);
        let (messages, echoes) = (all("messages"), all("message_echoes"));
        for message in &messages {
            play.message(&name, value, message);
            counts[1] += 1;
        }
        for echo in &echoes {
            play.echo(&name, value, echo);
            counts[2] += 1;
        }
        if messages.is_empty() && echoes.is_empty() {
            play.notice(&name, field, value);
            counts[3] += 1;
        }
    }
    play.nothing_more("end");
    assert!(counts[0] >= 5 && counts[1] >= 25 && counts[2] >= 2 && counts[3] >= 15, "{counts:?}");
}
