//! SIGHUP, for programs written for the Cloud API: tokens, callback URLs and what is told there change under way, and
//! nothing that was not told yet is lost.

use serde_json::Value;
use sharedline::config::TokenHash;
use sharedline::gateway::signature::sign;

use crate::stand::{
    Broker, CUSTOMER, Callback, Gateway, Lines, SECRET, Told, by_body, pause, sent, text_to, webhook,
};

fn bodies(told: &[Told]) -> Vec<String> {
    let text =
        |told: &Told| told.change()["value"]["messages"][0]["text"]["body"].as_str().map(str::to_owned);
    told.iter().filter_map(text).collect()
}

/// CRM as the parent, and a bot that is told at this server.
fn joined(server: &Callback) -> (Broker, Lines, Lines) {
    let broker = Broker::start(&[("crm", String::new()), ("bot", webhook(server))]);
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    crm.until_joined(&channel, 2);
    let bringer = Lines::bringer(&broker);
    (broker, crm, bringer)
}

#[test]
fn a_new_service_with_its_token_and_its_url_takes_part_from_the_reload_on() {
    let (server, fresh) = (Callback::start(|_| 200), Callback::start(|_| 200));
    let (broker, mut crm, mut bringer) = joined(&server);
    let _gateway = Gateway::start(&broker, sent);
    assert_eq!(broker.post("fresh", "messages", &text_to(CUSTOMER, "no")).0, 401);
    let service = format!(
        "[[portals.services]]\nid = \"fresh\"\ntoken_sha256 = \"{}\"\n{}\n[[portals.gateways]]\n",
        TokenHash::of("fresh"),
        webhook(&fresh)
    );
    broker.reload("[[portals.gateways]]\n", &service);
    assert_eq!(broker.post("fresh", "messages", &text_to(CUSTOMER, "yes")).0, 200);
    let channel = crm.ask(serde_json::json!({ "type": "list_channels" }))["channels"][0]["channel"].clone();
    crm.until_joined(channel.as_str().unwrap(), 3);
    bringer.text("wamid.1", CUSTOMER, "hello");
    fresh.until("the message", |told| bodies(told) == ["hello"]);
    server.until("the message", |told| bodies(told) == ["hello"]);
    // And gone again: its token, its URL.
    broker.reload(&service, "[[portals.gateways]]\n");
    assert_eq!(broker.post("fresh", "messages", &text_to(CUSTOMER, "no")).0, 401);
    bringer.text("wamid.2", CUSTOMER, "behind it");
    server.until("the message", |told| bodies(told) == ["hello", "behind it"]);
    pause(300);
    assert_eq!(bodies(&fresh.told()), ["hello"]);
}

#[test]
fn a_token_that_is_new_opens_the_facade_at_once_and_one_that_is_gone_does_not() {
    let server = Callback::start(|_| 200);
    let (broker, _crm, _bringer) = joined(&server);
    let _gateway = Gateway::start(&broker, sent);
    assert_eq!(broker.post("bot", "messages", &text_to(CUSTOMER, "one")).0, 200);
    broker.change_token("bot", "bot-2");
    assert_eq!(broker.post("bot", "messages", &text_to(CUSTOMER, "two")).0, 401);
    assert_eq!(broker.post("bot-2", "messages", &text_to(CUSTOMER, "three")).0, 200);
}

#[test]
fn what_waits_for_another_attempt_goes_to_the_new_url_at_once_signed_anew_and_byte_for_byte() {
    let (old, new) = (Callback::start(|_| 500), Callback::start(|_| 200));
    let (broker, _crm, mut bringer) = joined(&old);
    for at in 0..12 {
        bringer.text(&format!("wamid.{at}"), &format!("1650555{at:04}"), &format!("m{at}"));
    }
    // So often that the endpoint counts as down, and the next attempt lies in the distance.
    old.until("refusals", |told| told.len() >= 12);
    let url = |server: &Callback| server.address.to_string();
    let text = |server: &Callback, secret: &str| {
        format!("url = \"http://{}/hook\", app_secret = \"{secret}\"", url(server))
    };
    broker.reload(&text(&old, SECRET), &text(&new, "another secret"));
    let told = new.until("all of it", |told| told.len() >= 12);
    let mut texts = bodies(&told);
    texts.sort();
    let mut due: Vec<String> = (0..12).map(|at| format!("m{at}")).collect();
    due.sort();
    assert_eq!(texts, due);
    for told in &told {
        assert_eq!(told.header("x-hub-signature-256").unwrap(), sign(b"another secret", &told.body));
    }
    let tried = by_body(&old.told());
    assert!(told.iter().filter(|told| tried.contains_key(&told.body)).count() > 0, "the same bytes");
    bringer.text("wamid.last", CUSTOMER, "last");
    new.until("what comes after it", |told| bodies(told).contains(&"last".to_owned()));
    assert!(by_body(&new.told()).values().all(|times| *times == 1), "nothing is told twice");
}

#[test]
fn after_a_410_a_reload_begins_to_tell_again_from_where_it_was() {
    let (gone, new) = (Callback::start(|_| 410), Callback::start(|_| 200));
    let (broker, mut crm, mut bringer) = joined(&gone);
    bringer.text("wamid.1", CUSTOMER, "one");
    gone.until("the message", |told| told.len() == 1);
    bringer.text("wamid.2", CUSTOMER, "two");
    crm.delivered("message");
    crm.delivered("message");
    broker.reload(&gone.address.to_string(), &new.address.to_string());
    new.until("both", |told| bodies(told) == ["one", "two"]);
    assert_eq!(gone.told().len(), 1);
    // The same where the URL stays, and the program behind it is back.
    new.answer_with(|_| 410);
    bringer.text("wamid.3", CUSTOMER, "three");
    new.until("the refusal", |told| told.len() == 3);
    new.answer_with(|_| 200);
    broker.reload("", "");
    new.until("it again", |told| bodies(told) == ["one", "two", "three", "three"]);
}

#[test]
fn who_begins_anew_after_a_410_joins_the_numbers_that_came_with_the_reload() {
    let server = Callback::start(|_| 410);
    let (broker, mut crm, mut bringer) = joined(&server);
    bringer.text("wamid.1", CUSTOMER, "one");
    server.until("the refusal", |told| told.len() == 1);
    server.answer_with(|_| 200);
    pause(300);
    let second =
        "[[portals.numbers]]\nnumber = \"+15550783899\"\ngateway = \"whatsapp\"\n[[portals.numbers]]\n";
    broker.reload("[[portals.numbers]]\n", second);
    let made = crm.ask(serde_json::json!({ "type": "create_channel", "number": "+15550783899" }));
    crm.until_joined(made["channel"].as_str().unwrap(), 2);
}

#[test]
fn what_others_replies_are_told_as_changes_with_a_reload() {
    let server = Callback::start(|_| 200);
    let keys = format!("{}\nmasked_echo = \"echo\"", webhook(&server));
    let broker = Broker::start(&[("crm", String::new()), ("bot", keys)]);
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    crm.until_joined(&channel, 2);
    let _gateway = Gateway::start(&broker, sent);
    let mut bringer = Lines::bringer(&broker);
    let fields =
        |told: &[Told]| -> Vec<Value> { told.iter().map(|told| told.change()["field"].clone()).collect() };
    let words = [("standby", Some("standby")), ("off", None), ("echo", Some("smb_message_echoes"))];
    let mut before = "echo";
    for (n, (word, field)) in words.into_iter().enumerate() {
        let line = |word: &str| format!("masked_echo = \"{word}\"");
        broker.reload(&line(before), &line(word));
        before = word;
        let known = server.told().len();
        assert_eq!(broker.post("crm", "messages", &text_to(CUSTOMER, "from CRM")).0, 200);
        bringer.text(&format!("wamid.{n}"), CUSTOMER, "behind it");
        let due: Vec<Value> = field.into_iter().chain(["messages"]).map(Value::from).collect();
        server.until(word, |told| fields(&told[known..]) == due);
    }
}
