//! Whose a thread is, as programs written for Meta's conversation routing note it and are told of it (B18).

use serde_json::{Value, json};

use crate::stand::{Broker, CUSTOMER, Callback, Gateway, ID, Lines, NUMBER, Told, sent, text_to, webhook};

fn control(action: &str, more: &Value) -> Value {
    let mut body = json!({ "messaging_product": "whatsapp", "to": CUSTOMER, "action": action });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn owner(broker: &Broker, token: &str, to: &str) -> (u16, Value) {
    let path = format!("/v24.0/{ID}/thread_owner?to={to}&access_token={token}");
    broker.request("GET", &path, &[], b"")
}

/// crm takes part as an AI agent and is told nothing by HTTP; bot serves customers; quiet has no role.
fn routed(bot: &Callback, quiet: &Callback) -> (Broker, Lines, Lines) {
    let broker = Broker::start(&[
        ("crm", "thread_role = \"ai_agent\"".to_owned()),
        ("bot", format!("thread_role = \"customer_service\"\n{}\nmasked_echo = \"standby\"", webhook(bot))),
        ("quiet", webhook(quiet)),
        ("absent", "thread_role = \"escalation\"".to_owned()),
    ]);
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    crm.until_joined(&channel, 3);
    let mut bringer = Lines::bringer(&broker);
    bringer.text("wamid.1", CUSTOMER, "hello");
    (broker, crm, bringer)
}

fn handovers(told: &[Told]) -> Vec<Value> {
    let changes = told.iter().map(Told::change);
    changes.filter(|change| change["field"] == "messaging_handovers").collect()
}

#[test]
fn b18_a_thread_is_taken_passed_and_asked_for_in_metas_shape_and_both_sides_are_told() {
    let (bot, quiet) = (Callback::start(|_| 200), Callback::start(|_| 200));
    let (broker, mut crm, mut bringer) = routed(&bot, &quiet);
    assert_eq!(
        owner(&broker, "crm", CUSTOMER),
        (200, json!({"messaging_product": "whatsapp", "owner": "none"}))
    );
    let (status, done) = broker.post("crm", "thread_control", &control("take", &json!({})));
    assert_eq!((status, &done["messaging_product"]), (200, &json!("whatsapp")), "{done}");
    assert!(done["request_id"].as_str().is_some_and(|id| !id.is_empty()));
    let (_, own) = owner(&broker, "crm", "%2B1%20650%20555%201234");
    assert_eq!(own["owner"], "self");
    let seconds = |field: &str| own[field].as_str().unwrap().parse::<u64>().unwrap();
    assert!(seconds("until") <= seconds("since") + 86_400 && seconds("until") > seconds("since") + 86_000);
    assert_eq!(
        owner(&broker, "bot", CUSTOMER).1,
        json!({"messaging_product": "whatsapp", "owner": "another"})
    );

    let metadata = "WhatsApp user requested a human \u{1f44b}";
    let pass = json!({ "metadata": metadata, "control_pass": { "target_role": "customer_service" } });
    assert_eq!(broker.post("crm", "thread_control", &control("pass", &pass)).0, 200);
    let told = bot.until("the thread", |told| handovers(told).len() == 1);
    assert!(told.iter().all(|told| told.json()["entry"][0]["id"] == "102290129340398"));
    let change = handovers(&told).remove(0);
    let value = &change["value"];
    let timestamp = value["timestamp"].as_str().unwrap();
    assert_eq!(timestamp.len(), 10);
    // As Meta's own example has it, but that the other side is told as another.
    let expected = json!({
        "messaging_product": "whatsapp",
        "sender": { "phone_number": CUSTOMER },
        "recipient": { "phone_number_id": ID, "display_phone_number": NUMBER.trim_start_matches('+') },
        "type": "control_passed",
        "timestamp": timestamp,
        "control_passed": {
            "previous_owner_role": "another", "new_owner_role": "customer_service", "metadata": metadata,
        },
    });
    assert_eq!(value, &expected);
    assert_eq!(owner(&broker, "bot", CUSTOMER).1["metadata"], metadata);
    assert!(!owner(&broker, "crm", CUSTOMER).1.to_string().contains("human"));

    // It stops nobody: crm replies, and then takes the thread back.
    let _gateway = Gateway::start(&broker, sent);
    assert_eq!(broker.post("crm", "messages", &text_to(CUSTOMER, "still here")).0, 200);
    let secret = json!({ "metadata": "nobody else's business" });
    assert_eq!(broker.post("crm", "thread_control", &control("take", &secret)).0, 200);
    let told = bot.until("the loss", |told| handovers(told).len() == 2);
    let taken = handovers(&told).remove(1)["value"].clone();
    assert_eq!(taken["type"], "control_taken");
    let roles = json!({ "previous_owner_role": "customer_service", "new_owner_role": "another" });
    assert_eq!(taken["control_taken"], roles, "and nothing of what was noted with it");

    // A release is no news, nor what the service does itself, nor is anything to who has no role.
    assert_eq!(broker.post("crm", "thread_control", &control("release", &json!({}))).0, 200);
    assert_eq!(broker.post("crm", "thread_control", &control("pass", &pass)).0, 200);
    let to_quiet =
        json!({ "control_pass": { "target_service": "quiet" }, "recipient": CUSTOMER, "to": null });
    assert_eq!(broker.post("bot", "thread_control", &control("pass", &to_quiet)).0, 200);
    assert_eq!(owner(&broker, "quiet", CUSTOMER).1["owner"], "self");
    bringer.text("wamid.2", CUSTOMER, "behind all that");
    let is_last = |told: &Told| told.json().to_string().contains("behind all that");
    for server in [&bot, &quiet] {
        server.until("the last message", |told| told.iter().any(is_last));
    }
    assert_eq!((handovers(&bot.told()).len(), handovers(&quiet.told()).len()), (3, 0));
    // Other services' replies keep the shape that the service has chosen.
    assert!(bot.told().iter().any(|told| told.change()["field"] == "standby"));
    // Over TCP it is the same note.
    let seen = loop {
        let thread = crm.delivered("thread");
        if thread["action"] == "passed" && thread["was_own"] == false {
            break thread;
        }
    };
    assert!(seen.get("metadata").is_none() && seen.get("until").is_none(), "{seen}");
}

#[test]
fn b18_what_can_not_be_noted_is_refused_in_metas_shape() {
    let server = Callback::start(|_| 200);
    let (broker, _crm, _bringer) = routed(&server, &server);
    let code = |(status, body): (u16, Value)| (status, body["error"]["code"].as_i64().unwrap_or_default());
    let tell = |body: &Value| code(broker.post("crm", "thread_control", body));
    for wrong in [
        control("request", &json!({})),
        control("pass", &json!({ "control_pass": { "target_role": "nobody's" } })),
        control("pass", &json!({ "control_pass": { "target_service": "absent" } })),
        control("pass", &json!({})),
        control("take", &json!({ "metadata": "x".repeat(2_001) })),
        control("take", &json!({ "to": "bob" })),
        json!({ "to": CUSTOMER, "action": "take" }),
    ] {
        assert_eq!(tell(&wrong), (400, 100), "{wrong}");
    }
    let (status, unknown) = broker.post("crm", "thread_control", &control("take", &json!({ "to": "499" })));
    assert_eq!((status, &unknown["error"]["error_subcode"]), (400, &json!(33)), "it starts no conversation");
    assert_eq!(code(owner(&broker, "crm", "499")), (400, 100));
    assert_eq!(code(owner(&broker, "crm", "")), (400, 100));
    assert_eq!(code(owner(&broker, "nobody", CUSTOMER)), (401, 190));
    assert_eq!(code(owner(&broker, "spy", CUSTOMER)), (400, 100), "another portal's learns nothing");
    assert_eq!(code(owner(&broker, "absent", CUSTOMER)), (403, 10), "and asking joins nobody");
    assert_eq!(owner(&broker, "crm", CUSTOMER).1["owner"], "none", "nothing of that was noted");
}

#[test]
fn b18_a_role_changes_with_a_reload() {
    let (bot, quiet) = (Callback::start(|_| 200), Callback::start(|_| 200));
    let (broker, _crm, _bringer) = routed(&bot, &quiet);
    let tell = |body: &Value| broker.post("crm", "thread_control", body).0;
    let pass_to = |role: &str| control("pass", &json!({ "control_pass": { "target_role": role } }));
    assert_eq!((tell(&pass_to("marketing")), tell(&pass_to("customer_service"))), (400, 200));
    bot.until("the thread", |told| handovers(told).len() == 1);
    broker.reload("thread_role = \"customer_service\"", "thread_role = \"marketing\"");
    assert_eq!(tell(&control("take", &json!({}))), 200);
    assert_eq!((tell(&pass_to("customer_service")), tell(&pass_to("marketing"))), (400, 200));
    let told = bot.until("the loss, and the thread again", |told| handovers(told).len() == 3);
    let [_, taken, passed] = handovers(&told).try_into().unwrap();
    assert_eq!(taken["value"]["control_taken"]["previous_owner_role"], "marketing");
    assert_eq!(passed["value"]["control_passed"]["new_owner_role"], "marketing");
}
