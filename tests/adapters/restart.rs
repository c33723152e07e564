//! Each adapter, through a broker that is killed and started again.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::process::{Language, NUMBER, Peer, Process, configuration, free_address};

/// Messages before the kill, in the midst of it, and after it.
const MESSAGES: usize = 20;

fn text(send: &Value) -> String {
    send["content"]["text"]["body"].as_str().unwrap().to_owned()
}

fn answers_each_message_once(language: Language) {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let config = configuration(directory.path(), address);
    let broker = Process::serve(&config);
    let adapter = language.start(address);
    let mut desk = Peer::connect(address, "service", "desk");
    let created = desk.ask(json!({"type": "create_channel", "number": NUMBER}));
    let channel = created["channel"].clone();
    // The adapter joins by itself.
    let get = json!({"type": "get_channel", "channel": channel});
    while desk.ask(get.clone())["subscribers"].as_array().unwrap().len() < 2 {}
    let mut gateway = Peer::connect(address, "gateway", "whatsapp");
    gateway.inbound("16505551000", "wamid.first");
    let mut texts = vec![text(&gateway.send_on())];
    adapter.line_with("answered wamid.first");

    // Somebody of another service has it: the adapter is warned, and goes on by what it is told.
    desk.ask(json!({"type": "roster", "agents": [{"agent": "dan", "name": "Dan"}], "replace": true}));
    gateway.inbound("16505551001", "wamid.warned");
    let warned = loop {
        let message = desk.next("message");
        if message["message_id"] == "wamid.warned" {
            break message;
        }
    };
    texts.push(text(&gateway.send_on()));
    let pick_up = json!({"type": "pick_up", "channel": channel, "conversation": warned["conversation"], "agent": "dan"});
    let mut picked_up = desk.ask(pick_up.clone());
    if picked_up["type"] == "warning" {
        let mut confirmed = pick_up;
        confirmed["confirm"] = picked_up["confirm"].clone();
        picked_up = desk.ask(confirmed);
    }
    assert_eq!(picked_up["type"], "picked_up");
    let reply = json!({
        "type": "reply", "channel": channel, "conversation": warned["conversation"], "agent": "dan",
        "reply_id": "desk-1", "content": {"type": "text", "text": {"body": "from desk"}},
    });
    assert_eq!(desk.ask(reply)["type"], "accepted");
    assert_eq!(text(&gateway.send_on()), "from desk");

    // Killed with some answered, some not, some accepted and not sent.
    for id in 0..MESSAGES {
        gateway.inbound(&format!("1650555{:04}", 2_000 + id), &format!("wamid.{id}"));
    }
    for _ in 0..MESSAGES / 4 {
        texts.push(text(&gateway.send_on()));
    }
    broker.kill();
    let _broker = Process::serve(&config);
    let mut gateway = Peer::connect(address, "gateway", "whatsapp");
    for id in MESSAGES..2 * MESSAGES {
        gateway.inbound(&format!("1650555{:04}", 2_000 + id), &format!("wamid.{id}"));
    }
    // What was handed over when the broker was killed is `unknown`, and goes to no gateway again.
    let mut desk = Peer::connect(address, "service", "desk");
    let expected = 2 * MESSAGES;
    let masked = |desk: &mut Peer| {
        let list = json!({"type": "list_conversations", "channel": channel, "limit": 1_000});
        let list = desk.ask(list);
        let found = list["conversations"].as_array().unwrap().clone();
        found.iter().filter(|conversation| conversation["unanswered"] == false).count()
    };
    let until = std::time::Instant::now() + crate::process::WITHIN;
    while masked(&mut desk) < expected + 2 {
        assert!(
            std::time::Instant::now() < until,
            "{language:?}: {} of {} answered",
            masked(&mut desk),
            expected + 2
        );
    }
    adapter.line_with(&format!("answered wamid.{}", expected - 1));
    gateway.inbound("16505559999", "wamid.last");
    loop {
        let send = gateway.send_on();
        let said = text(&send);
        texts.push(said.clone());
        if said.contains("wamid.last") {
            break;
        }
    }
    let different: BTreeSet<&String> = texts.iter().collect();
    assert_eq!(different.len(), texts.len(), "{language:?}: a customer got a reply twice: {texts:?}");
    // One reply a conversation, but where both services have answered.
    let list = desk.ask(json!({"type": "list_conversations", "channel": channel, "limit": 1_000}));
    for conversation in list["conversations"].as_array().unwrap() {
        let opened = desk.ask(json!({
            "type": "open", "channel": channel, "conversation": conversation["conversation"], "agent": "dan",
        }));
        let entries = opened["timeline"].as_array().unwrap();
        let replies = entries.iter().filter(|entry| entry["type"] == "masked_reply").count();
        assert_eq!(replies, 1, "{language:?}: {entries:?}");
    }
}

#[test]
fn the_python_adapter_answers_each_message_once_through_a_kill() {
    answers_each_message_once(Language::Python);
}

#[test]
fn the_node_adapter_answers_each_message_once_through_a_kill() {
    answers_each_message_once(Language::Node);
}

#[test]
fn the_rust_adapter_answers_each_message_once_through_a_kill() {
    answers_each_message_once(Language::Rust);
}
