//! Programs that send: what they are answered, what leaves, and what never does.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stand::{Broker, CUSTOMER, Callback, Gateway, ID, Lines, now_ms, pause, sent, text_to, webhook};

fn plain() -> Broker {
    Broker::start(&[("crm", String::new()), ("bot", String::new()), ("books", "family = \"finance\"".into())])
}

fn code(answer: &(u16, Value)) -> (u16, i64) {
    (answer.0, answer.1["error"]["code"].as_i64().unwrap_or_else(|| panic!("{answer:?}")))
}

#[test]
fn a_message_leaves_as_a_reply_of_the_service_and_is_answered_as_meta_answers() {
    let broker = plain();
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    let gateway = Gateway::start(&broker, sent);
    let mut body = text_to("+1 650-555-1234", "Hi");
    body["context"] = Value::Null;
    body["biz_opaque_callback_data"] = json!("mine");
    let (status, answer) = broker.post_as("bot", "key-1", &body);
    assert_eq!(status, 200, "{answer}");
    let expected = json!({
        "messaging_product": "whatsapp",
        "contacts": [{ "input": "+1 650-555-1234", "wa_id": CUSTOMER }],
        "messages": [{ "id": "wamid.key-1" }],
    });
    assert_eq!(answer, expected);
    let sends = gateway.sends();
    assert_eq!(sends.len(), 1);
    assert_eq!(sends[0]["to"], CUSTOMER);
    let content = json!({ "type": "text", "text": { "body": "Hi", "preview_url": false } });
    assert_eq!(sends[0]["content"], content);
    assert_eq!(crm.subscribers(&channel), ["crm", "bot"], "it has joined by sending");
    let masked = crm.delivered("masked_reply");
    assert!(!masked.to_string().contains("Hi") && !masked.to_string().contains("key-1"), "{masked}");
    // Any version, the token as a parameter, the customer by his user id.
    let mut by_id = text_to(CUSTOMER, "again");
    by_id.as_object_mut().unwrap().remove("to");
    by_id["recipient"] = json!("US.13491208655302741918");
    let path = format!("/v14.0/{ID}/messages?access_token=bot");
    let (status, answer) = broker.request("POST", &path, &[], by_id.to_string().as_bytes());
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["contacts"][0]["user_id"], "US.13491208655302741918");
    assert!(gateway.sends()[1]["reply_id"].as_str().unwrap().starts_with("api:"));
    // Neither the token nor what was said stands in the log, though it says all that it can.
    let log = broker.log();
    assert!(!log.contains("access_token=bot") && !log.contains("again") && log.contains("TRACE"));
}

#[test]
fn a_token_that_a_reload_takes_away_is_nobodys_at_once() {
    let broker = plain();
    Lines::service(&broker, "crm").create();
    let _gateway = Gateway::start(&broker, sent);
    assert_eq!(broker.post("bot", "messages", &text_to(CUSTOMER, "Hi")).0, 200);
    broker.change_token("bot", "another");
    assert_eq!(code(&broker.post("bot", "messages", &text_to(CUSTOMER, "Hi"))), (401, 190));
}

#[test]
fn every_type_of_message_leaves_whole_and_signs_are_only_answered() {
    let broker = plain();
    Lines::service(&broker, "crm").create();
    let gateway = Gateway::start(&broker, sent);
    let types = [
        ("text", json!({ "body": "x" })),
        ("image", json!({ "id": "1", "caption": "c" })),
        ("audio", json!({ "id": "1" })),
        ("video", json!({ "link": "https://x/y" })),
        ("document", json!({ "id": "1", "filename": "f" })),
        ("sticker", json!({ "id": "1" })),
        ("location", json!({ "latitude": "1.5", "longitude": "2.5" })),
        ("contacts", json!([{ "name": { "formatted_name": "A" } }])),
        ("reaction", json!({ "message_id": "wamid.1", "emoji": "👍" })),
        ("interactive", json!({ "type": "button", "body": { "text": "b" }, "action": { "buttons": [] } })),
        ("template", json!({ "name": "t", "language": { "code": "en_US" } })),
    ];
    for (kind, object) in &types {
        let body = json!({ "messaging_product": "whatsapp", "to": CUSTOMER, "type": kind, *kind: object });
        let (status, answer) = broker.post("bot", "messages", &body);
        assert_eq!(status, 200, "{kind}: {answer}");
        let content = gateway.sends().pop().unwrap()["content"].clone();
        assert_eq!(content, json!({ "type": kind, *kind: object }));
    }
    let sign = json!({ "messaging_product": "whatsapp", "status": "read", "message_id": "wamid.1",
        "typing_indicator": { "type": "text" } });
    assert_eq!(broker.post("bot", "messages", &sign), (200, json!({ "success": true })));
    assert_eq!(gateway.sends().len(), types.len());
}

#[test]
fn what_is_wrong_is_said_in_metas_shape() {
    let broker = plain();
    Lines::service(&broker, "crm").create();
    let failing = |_: &Value| {
        Some(json!({ "error": { "code": "131026", "title": "Message undeliverable", "details": "no" },
            "definite": true }))
    };
    let gateway = Gateway::start(&broker, failing);
    let body = text_to(CUSTOMER, "Hi");
    assert_eq!(code(&broker.post("nobody", "messages", &body)), (401, 190));
    assert_eq!(code(&broker.request("POST", &format!("/v23.0/{ID}/messages"), &[], b"{}")), (401, 190));
    // Another portal's token: the number is not there for it.
    let spied = broker.post("spy", "messages", &body);
    assert_eq!((code(&spied), &spied.1["error"]["error_subcode"]), ((400, 100), &json!(33)));
    assert_eq!(code(&broker.post("bot", "messages", &json!({ "to": CUSTOMER }))), (400, 100));
    assert_eq!(code(&broker.post("bot", "register", &json!({}))), (403, 10), "that is the parent's");
    assert_eq!(code(&broker.post("books", "messages", &body)), (403, 10), "finance takes no part");
    let echo = broker.post_as("bot", "echo:wamid.1", &body);
    assert_eq!(code(&echo), (400, 100), "that prefix is the phone's");
    let failed = broker.post("bot", "messages", &body);
    assert_eq!(code(&failed), (400, 131_026));
    assert_eq!(failed.1["error"]["error_data"]["details"], "no");
    assert_eq!(gateway.sends().len(), 1);
    // Outside the window only templates leave.
    let mut bringer = Lines::bringer(&broker);
    let content = json!({ "type": "text", "text": { "body": "old" } });
    bringer.inbound_at("wamid.old", "16505550000", content, now_ms() - 25 * 3_600_000);
    assert_eq!(code(&broker.post("bot", "messages", &text_to("16505550000", "Hi"))), (400, 131_047));
}

#[test]
fn a_group_is_refused_in_metas_shape_and_nothing_leaves() {
    let broker = plain();
    Lines::service(&broker, "crm").create();
    let gateway = Gateway::start(&broker, sent);
    let mut body = text_to("120363012345678901", "Hi all");
    body["recipient_type"] = json!("group");
    let refused = broker.post("bot", "messages", &body);
    assert_eq!(code(&refused), (400, 100));
    let error = &refused.1["error"];
    assert_eq!(
        (&error["type"], &error["message"]),
        (&json!("OAuthException"), &json!("(#100) Invalid parameter"))
    );
    assert_eq!(error["error_data"]["details"], "groups are not supported: recipient_type must be individual");
    // Behind it, so that it would have come.
    assert_eq!(broker.post("bot", "messages", &text_to(CUSTOMER, "Hi")).0, 200);
    assert_eq!(gateway.sends().len(), 1);
}

#[test]
fn a_mark_is_answered_whatever_message_it_names_and_one_that_names_none_is_refused() {
    let broker = plain();
    Lines::service(&broker, "crm").create();
    let gateway = Gateway::start(&broker, sent);
    let mut bringer = Lines::bringer(&broker);
    bringer.text("wamid.known", CUSTOMER, "Hi");
    let mark = |id: &Value, typing: bool| {
        let mut mark = json!({ "messaging_product": "whatsapp", "status": "read", "message_id": id });
        if typing {
            mark["typing_indicator"] = json!({ "type": "text" });
        }
        mark
    };
    for (id, typing) in [("wamid.known", false), ("wamid.nobody", false), ("wamid.nobody", true)] {
        let answer = broker.post("bot", "messages", &mark(&json!(id), typing));
        assert_eq!(answer, (200, json!({ "success": true })), "{id}");
    }
    for id in [json!(""), Value::Null, json!(7)] {
        for typing in [false, true] {
            let refused = broker.post("bot", "messages", &mark(&id, typing));
            assert_eq!(code(&refused), (400, 100), "{id}");
            assert_eq!(refused.1["error"]["error_data"]["details"], "message_id is needed", "{id}");
        }
    }
    let mut sent_mark = mark(&json!("wamid.known"), false);
    sent_mark["status"] = json!("delivered");
    assert_eq!(code(&broker.post("bot", "messages", &sent_mark)), (400, 100), "only reading is marked");
    assert_eq!(code(&broker.post("spy", "messages", &mark(&json!("wamid.known"), false))), (400, 100));
    assert_eq!(gateway.sends(), [] as [Value; 0]);
}

#[test]
fn one_name_is_one_message_also_after_the_process_was_killed() {
    let broker = plain();
    Lines::service(&broker, "crm").create();
    let gateway = Gateway::start(&broker, sent);
    let first = broker.post_as("bot", "key", &text_to(CUSTOMER, "once"));
    assert_eq!(first.0, 200, "{first:?}");
    assert_eq!(broker.post_as("bot", "key", &text_to(CUSTOMER, "once")), first);
    assert_eq!(code(&broker.post_as("bot", "key", &text_to(CUSTOMER, "another"))), (400, 100));
    assert_eq!(code(&broker.post_as("bot", "key", &text_to("1999", "once"))), (400, 100));
    let at_once: Vec<_> = thread::scope(|scope| {
        let post = || broker.post_as("bot", "at once", &text_to(CUSTOMER, "at once"));
        let posts: Vec<_> = (0..8).map(|_| scope.spawn(post)).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    assert_eq!(at_once[0].1["messages"][0]["id"], "wamid.at once");
    assert!(at_once.iter().all(|answer| *answer == at_once[0]), "{at_once:?}");
    assert_eq!(gateway.sends().len(), 2);
    drop(gateway);
    let broker = broker.kill_and_restart();
    assert_eq!(broker.post_as("bot", "key", &text_to(CUSTOMER, "once")), first, "without any gateway");
}

#[test]
fn what_could_not_leave_in_time_is_taken_back_for_good() {
    let broker = plain();
    Lines::service(&broker, "crm").create();
    let began = Instant::now();
    let answer = broker.post_as("bot", "late", &text_to(CUSTOMER, "late"));
    assert_eq!(code(&answer), (500, 131_016), "no gateway");
    assert!(began.elapsed() >= Duration::from_secs(9));
    let gateway = Gateway::start(&broker, sent);
    let again = Instant::now();
    assert_eq!(code(&broker.post_as("bot", "late", &text_to(CUSTOMER, "late"))), (500, 131_016));
    assert!(again.elapsed() < Duration::from_secs(5), "its outcome is known");
    assert_eq!(broker.post_as("bot", "now", &text_to(CUSTOMER, "now")).0, 200);
    let names: Vec<Value> = gateway.sends().iter().map(|send| send["reply_id"].clone()).collect();
    assert_eq!(names, ["now"], "what was taken back never leaves");
}

#[test]
fn a_program_that_hangs_up_leaves_nothing_that_is_sent_later() {
    use std::io::Write;
    let broker = plain();
    Lines::service(&broker, "crm").create();
    let body = text_to(CUSTOMER, "never").to_string();
    let mut stream = std::net::TcpStream::connect(broker.http).unwrap();
    let head = format!(
        "POST /v23.0/{ID}/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer bot\r\nidempotency-key: gone\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    pause(1_000);
    drop(stream);
    pause(11_000);
    let gateway = Gateway::start(&broker, sent);
    assert_eq!(broker.post_as("bot", "next", &text_to(CUSTOMER, "next")).0, 200);
    let names: Vec<Value> = gateway.sends().iter().map(|send| send["reply_id"].clone()).collect();
    assert_eq!(names, ["next"]);
}

#[test]
fn what_waits_behind_anothers_reply_to_the_same_customer_is_told_so() {
    let broker = plain();
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    let gateway = Gateway::start(&broker, |_| None);
    let content = json!({ "type": "text", "text": { "body": "first" } });
    let accepted = crm.ask(json!({ "type": "reply", "channel": channel, "to": CUSTOMER, "reply_id": "first",
        "content": content }));
    assert_eq!(accepted["type"], "accepted", "{accepted}");
    while gateway.sends().is_empty() {
        pause(10);
    }
    assert_eq!(code(&broker.post_as("bot", "second", &text_to(CUSTOMER, "2"))), (400, 131_056));
    assert_eq!(code(&broker.post_as("bot", "second", &text_to(CUSTOMER, "2"))), (400, 131_056));
    assert_eq!(gateway.sends().len(), 1);
}

#[test]
fn what_may_have_left_is_unknown_and_a_late_word_still_counts() {
    let server = Callback::start(|_| 200);
    let broker = Broker::start(&[("crm", String::new()), ("bot", webhook(&server))]);
    let mut crm = Lines::service(&broker, "crm");
    crm.create();
    let mut bringer = Lines::bringer(&broker);
    let gateway = Gateway::start(&broker, |_| None);
    let answer = broker.post_as("bot", "first", &text_to(CUSTOMER, "1"));
    assert_eq!(code(&answer), (500, 131_000), "it may have left");
    let sends = gateway.sends();
    assert_eq!(code(&broker.post_as("bot", "first", &text_to(CUSTOMER, "1"))), (500, 131_000));
    assert_eq!(gateway.sends().len(), 1, "it is never sent again blindly");
    // The gateway's late word still counts, and is told as a status.
    let late = sends[0].clone();
    let told = bringer.ask(json!({ "type": "sent", "channel": late["channel"], "offset": late["offset"],
        "message_id": "wamid.late" }));
    assert_eq!(told["type"], "ok", "{told}");
    let told = server.until("the status", |told| {
        told.iter().any(|told| told.change()["value"]["statuses"][0]["id"] == "wamid.late")
    });
    assert_eq!(told.last().unwrap().change()["value"]["statuses"][0]["status"], "sent");
    assert_eq!(broker.post_as("bot", "first", &text_to(CUSTOMER, "1")).1["messages"][0]["id"], "wamid.late");
}
