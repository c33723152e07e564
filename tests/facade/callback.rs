//! What services are told at their callback URLs: in Meta's envelope, signed, in order, until it is taken.

use serde_json::{Value, json};
use sharedline::gateway::signature::sign;

use crate::stand::{
    Broker, CUSTOMER, Callback, Gateway, ID, Lines, NUMBER, SECRET, Told, by_body, pause, sent, text_to,
    webhook,
};

fn bodies(changes: &[Value]) -> Vec<String> {
    let text = |change: &Value| change["value"]["messages"][0]["text"]["body"].as_str().map(str::to_owned);
    changes.iter().filter_map(text).collect()
}

fn is_text(told: &Told, text: &str) -> bool {
    told.change()["value"]["messages"][0]["text"]["body"] == text
}

/// A broker with crm as the parent and bot, which has a callback URL and has joined.
fn joined(server: &Callback, keys: &str) -> (Broker, Lines, Lines) {
    let broker = Broker::start(&[("crm", String::new()), ("bot", format!("{}\n{keys}", webhook(server)))]);
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    crm.until_joined(&channel, 2);
    assert_eq!(crm.subscribers(&channel), ["crm", "bot"], "having a URL makes nobody the parent");
    let bringer = Lines::bringer(&broker);
    (broker, crm, bringer)
}

#[test]
fn a_message_comes_in_metas_envelope_signed_with_the_services_own_secret() {
    let server = Callback::start(|_| 200);
    let (_broker, _crm, mut bringer) = joined(&server, "");
    let context = json!({ "from": "15550783881", "id": "wamid.0" });
    bringer.inbound(
        "wamid.1",
        CUSTOMER,
        json!({ "type": "text", "text": { "body": "café" }, "context": context, "new": { "x": 1 } }),
    );
    let told = server.until("the message", |told| told.len() == 1);
    let change = told[0].change();
    assert_eq!(change["field"], "messages");
    let value = &change["value"];
    assert_eq!(value["messaging_product"], "whatsapp");
    assert_eq!(
        value["metadata"],
        json!({ "display_phone_number": NUMBER.trim_start_matches('+'), "phone_number_id": ID })
    );
    let contact = json!({ "user_id": CUSTOMER, "wa_id": CUSTOMER, "profile": { "name": "Pablo" } });
    assert_eq!(value["contacts"], json!([contact]));
    let message = &value["messages"][0];
    assert_eq!((&message["id"], &message["from"]), (&json!("wamid.1"), &json!(CUSTOMER)));
    assert_eq!((&message["text"]["body"], &message["context"]), (&json!("café"), &context));
    assert_eq!(message["new"]["x"], 1, "what is not known stays");
    assert_eq!(message["timestamp"].as_str().unwrap().len(), 10);
    assert_eq!(told[0].json()["entry"][0]["id"], "102290129340398");
    assert_eq!(
        told[0].header("x-hub-signature-256").unwrap(),
        sign(SECRET.as_bytes(), &told[0].body),
        "over the bytes as they are"
    );
    assert_eq!(told[0].header("content-type").unwrap(), "application/json");
}

#[test]
fn what_is_refused_comes_again_with_the_same_bytes_and_holds_up_no_other_conversation() {
    let server = Callback::start(|body| if body.to_string().contains("poison") { 500 } else { 200 });
    let (_broker, _crm, mut bringer) = joined(&server, "");
    bringer.text("wamid.1", CUSTOMER, "poison");
    bringer.text("wamid.2", CUSTOMER, "behind");
    for at in 0..20 {
        bringer.text(&format!("wamid.other{at}"), "16505550000", &format!("o{at}"));
    }
    let told = server.until("a repeat", |told| {
        told.iter().filter(|told| is_text(told, "poison")).count() >= 3
            && told.iter().filter(|told| told.answered == 200).count() >= 20
    });
    let in_order: Vec<String> = (0..20).map(|at| format!("o{at}")).collect();
    let others: Vec<Value> = told.iter().filter(|told| told.answered == 200).map(Told::change).collect();
    assert_eq!(bodies(&others), in_order, "a conversation's messages keep their order");
    assert!(!told.iter().any(|told| is_text(told, "behind")), "it waits behind the one that is refused");
    let poison: Vec<&Told> = told.iter().filter(|told| is_text(told, "poison")).collect();
    assert!(poison.iter().all(|told| told.body == poison[0].body), "the same bytes");
    let signature = |told: &Told| told.header("x-hub-signature-256");
    assert!(poison.iter().all(|told| signature(told) == signature(poison[0])));
    // Only 200 takes it: not another sign of success either.
    server.answer_with(|_| 204);
    let before = server.told().len();
    server.until("one more", |told| told.len() > before + 1);
    server.answer_with(|_| 200);
    server.until("what waited", |told| told.iter().any(|told| is_text(told, "behind")));
}

#[test]
fn an_endpoint_that_is_down_or_slow_is_waited_for_and_nobody_with_it() {
    let server = Callback::start(|_| 0);
    let (broker, mut crm, mut bringer) = joined(&server, "");
    for at in 0..200 {
        bringer.text(&format!("wamid.{at}"), &format!("1650555{at:04}"), &format!("m{at}"));
    }
    for _ in 0..200 {
        crm.delivered("message");
    }
    // Twice as long as `ack_timeout`, which would end any other connection that acknowledges nothing.
    pause(5_000);
    assert!(!broker.log().contains("stalled"));
    let tried = server.told().len();
    assert!((1..=20).contains(&tried), "it is not stormed: {tried} in 5 s");
    server.answer_with(|_| 200);
    let mut told = bodies(&server.taken(200));
    told.sort();
    let mut expected: Vec<String> = (0..200).map(|at| format!("m{at}")).collect();
    expected.sort();
    told.dedup();
    assert_eq!(told, expected, "all of it, whatever was tried before");
}

#[test]
fn who_answers_410_is_told_nothing_more_until_a_restart() {
    let server = Callback::start(|_| 410);
    let (broker, mut crm, mut bringer) = joined(&server, "");
    bringer.text("wamid.1", CUSTOMER, "one");
    server.until("the message", |told| told.len() == 1);
    bringer.text("wamid.2", CUSTOMER, "two");
    crm.delivered("message");
    crm.delivered("message");
    pause(3_000);
    assert_eq!(server.told().len(), 1);
    server.answer_with(|_| 200);
    let _broker = broker.kill_and_restart();
    assert_eq!(bodies(&server.taken(2)), ["one", "two"], "nothing of it is lost");
}

#[test]
fn statuses_go_to_who_sent_with_his_own_data_and_others_replies_are_told_without_a_word_of_them() {
    let (bot, desk) = (Callback::start(|_| 200), Callback::start(|_| 200));
    let (hush, clerk) = (Callback::start(|_| 200), Callback::start(|_| 200));
    let with = |server: &Callback, keys: &str| format!("{}\n{keys}", webhook(server));
    let broker = Broker::start(&[
        ("crm", String::new()),
        ("bot", with(&bot, "")),
        ("desk", with(&desk, "masked_echo_text = \"(somebody has answered)\"")),
        ("hush", with(&hush, "masked_echo = \"off\"")),
        ("clerk", with(&clerk, "masked_echo = \"standby\"\nmasking = \"service\"")),
    ]);
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    crm.until_joined(&channel, 5);
    let _gateway = Gateway::start(&broker, sent);
    let mut bringer = Lines::bringer(&broker);
    bringer.text("wamid.in", CUSTOMER, "hello");
    let mut body = text_to(CUSTOMER, "cAnArY");
    body["biz_opaque_callback_data"] = json!("cAnArY-data");
    assert_eq!(broker.post_as("bot", "cAnArY-key", &body).0, 200);
    for status in ["delivered", "read"] {
        bringer.status("wamid.cAnArY-key", status);
    }
    let changes = bot.taken(4);
    let statuses: Vec<&Value> =
        changes.iter().skip(1).map(|change| &change["value"]["statuses"][0]).collect();
    let named: Vec<&str> = statuses.iter().map(|status| status["status"].as_str().unwrap()).collect();
    assert_eq!(named, ["sent", "delivered", "read"]);
    for status in statuses {
        assert_eq!(status["id"], "wamid.cAnArY-key");
        assert_eq!(status["biz_opaque_callback_data"], "cAnArY-data");
        assert_eq!(status["recipient_id"], CUSTOMER);
    }
    assert_eq!(changes[1]["value"]["contacts"][0]["user_id"], CUSTOMER);
    // A message behind it, so that what comes before it has come.
    bringer.text("wamid.last", CUSTOMER, "last");
    let echo = &desk.taken(3)[1];
    assert_eq!(echo["field"], "smb_message_echoes");
    let echo = &echo["value"]["message_echoes"][0];
    assert_eq!((&echo["to"], &echo["from"]), (&json!(CUSTOMER), &json!("15550783881")));
    assert_eq!(echo["text"]["body"], "(somebody has answered)");
    assert_eq!(echo["type"], "text");
    let standby = &clerk.taken(3)[1];
    assert_eq!(standby["field"], "standby");
    let standby = &standby["value"]["standby"]["message_echoes"][0];
    assert_eq!(standby["message"]["text"]["body"], "A reply was sent from another service.");
    assert_eq!(bodies(&hush.taken(2)), ["hello", "last"]);
    for server in [&desk, &hush, &clerk] {
        for told in server.told() {
            assert!(!String::from_utf8(told.body).unwrap().contains("cAnArY"));
        }
    }
    assert_eq!(bodies(&bot.taken(5)), ["hello", "last"]);
    assert_eq!(bot.told().len(), 5, "its own reply is no news to it");
}

#[test]
fn what_a_service_wrote_for_machines_comes_back_to_it_alone() {
    let (bot, desk) = (Callback::start(|_| 200), Callback::start(|_| 200));
    let broker = Broker::start(&[("crm", String::new()), ("bot", webhook(&bot)), ("desk", webhook(&desk))]);
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    crm.until_joined(&channel, 3);
    let _gateway = Gateway::start(&broker, sent);
    let mut bringer = Lines::bringer(&broker);
    assert_eq!(broker.post_as("bot", "ask", &text_to(CUSTOMER, "Yes or no?")).0, 200);
    bringer.inbound(
        "wamid.tap",
        CUSTOMER,
        json!({ "type": "button", "button": { "payload": "secret-payload", "text": "Yes" },
            "context": { "from": "15550783881", "id": "wamid.ask" } }),
    );
    let message_of = |changes: &[Value]| {
        let messages = changes.iter().filter_map(|change| change["value"]["messages"].get(0)).next();
        messages.cloned()
    };
    let has_message = |told: &[Told]| told.iter().any(|told| told.change()["value"]["messages"].is_array());
    let own = bot.until("the tap", has_message);
    let own = message_of(&own.iter().map(Told::change).collect::<Vec<_>>()).unwrap();
    assert_eq!(own["button"], json!({ "payload": "secret-payload", "text": "Yes" }));
    assert!(own.get("redacted").is_none());
    let theirs = desk.until("the tap", has_message);
    let theirs = message_of(&theirs.iter().map(Told::change).collect::<Vec<_>>()).unwrap();
    assert_eq!((&theirs["button"], &theirs["redacted"]), (&json!({ "text": "Yes" }), &json!(true)));
}

#[test]
fn notices_go_to_the_parent_alone() {
    let (parent, other) = (Callback::start(|_| 200), Callback::start(|_| 200));
    let broker = Broker::start(&[("crm", webhook(&parent)), ("bot", webhook(&other))]);
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    crm.until_joined(&channel, 2);
    let value =
        json!({ "display_phone_number": "15550783881", "event": "FLAGGED", "current_limit": "TIER_1K" });
    let body = json!({ "object": "whatsapp_business_account", "entry": [{ "id": "1", "changes": [
        { "field": "phone_number_quality_update", "value": value } ] }] });
    broker.webhook(&body);
    let mut bringer = Lines::bringer(&broker);
    bringer.text("wamid.1", CUSTOMER, "behind it");
    let told = parent.taken(2);
    let notice = told.iter().find(|change| change["field"] == "phone_number_quality_update").unwrap();
    assert_eq!(notice["value"], value);
    assert_eq!(bodies(&other.taken(1)), ["behind it"]);
    assert_eq!(other.told().len(), 1);
}

#[test]
fn nothing_is_told_twice_that_was_taken() {
    let server = Callback::start(|_| 200);
    let (_broker, _crm, mut bringer) = joined(&server, "");
    for at in 0..50 {
        bringer.text(&format!("wamid.{at}"), &format!("165055500{:02}", at % 7), &format!("m{at}"));
    }
    server.taken(50);
    pause(500);
    assert!(by_body(&server.told()).values().all(|times| *times == 1));
}

#[test]
fn on_the_isolated_plan_a_service_with_a_url_has_a_channel_of_its_own_from_the_start() {
    let server = Callback::start(|_| 200);
    let services = [("crm", String::new()), ("bot", webhook(&server))];
    let broker = Broker::start_planned(&services, "", "isolated");
    let gateway = Gateway::start(&broker, sent);
    let mut bringer = Lines::bringer(&broker);
    let mut bot = Lines::service(&broker, "bot");
    let has_joined = |bot: &mut Lines| bot.ask(json!({ "type": "list_channels" }))["channels"][0].is_object();
    while !has_joined(&mut bot) {
        pause(20);
    }
    bringer.text("wamid.1", CUSTOMER, "to it alone");
    assert_eq!(bodies(&server.taken(1)), ["to it alone"]);
    assert_eq!(broker.post_as("bot", "r", &text_to(CUSTOMER, "answer")).0, 200);
    assert_eq!(gateway.sends().len(), 1);
}
