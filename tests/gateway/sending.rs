//! What leaves, and what comes of it: once, as Meta wants it, with its statuses; errors in Meta's words; unknown where
//! nobody can know; nobody held up by another.

use serde_json::json;
use sharedline::domain::event::Status;
use sharedline::gateway::simulated::{Behaviour, Fate};
use sharedline::wire::message::Delivery;

use super::stage::{Adapter, Setup, Stage, free_address, graph_settings};

#[tokio::test]
async fn a_reply_leaves_once_over_the_graph_api_and_its_statuses_come_back() {
    let stage = Stage::with(Setup { log: "trace", ..Setup::default() }).await;
    let (crm, desk) = (Adapter::enter(&stage, "crm").await, Adapter::enter(&stage, "desk").await);
    let content = json!({"type": "text", "text": {"body": "Your account is CANARY-4711"},
        "biz_opaque_callback_data": "crm's own"});
    let accepted = crm.reply("16505551234", "r-1", &content).await;
    stage.until_seen("the reply", |seen| seen.len() == 1).await;
    let seen = stage.graph.seen().remove(0);
    let data = format!("sharedline:1:{:032x}:{}", crm.channel.0, accepted.offset.0);
    assert_eq!(
        seen.body,
        json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": "16505551234",
            "type": "text", "text": {"body": "Your account is CANARY-4711"}, "biz_opaque_callback_data": data})
    );
    crm.until_told(&stage, "r-1", &[Status::Sent]).await;
    stage.status(&seen, "delivered", true).await;
    stage.status(&seen, "sent", true).await;
    stage.status(&seen, "read", false).await;
    crm.until_told(&stage, "r-1", &[Status::Sent, Status::Delivered, Status::Read]).await;
    // The same reply_id again sends nothing.
    assert!(crm.reply("16505551234", "r-1", &content).await.duplicate);
    desk.until(&stage, "the masked reply", |desk| {
        desk.seen().iter().any(|delivery| matches!(delivery, Delivery::MaskedReply(_)))
    })
    .await;
    assert!(
        !desk
            .seen()
            .iter()
            .any(|delivery| delivery.receipt().is_some() || matches!(delivery, Delivery::Reply(_)))
    );
    assert_eq!(stage.graph.seen().len(), 1);
    let log = stage.log_text();
    assert!(log.contains("TRACE"), "it says all that it can");
    for secret in ["CANARY-4711", "16505551234", super::stage::ACCESS_TOKEN] {
        assert!(!log.contains(secret), "the log shows {secret}, however much it says");
    }
    stage.end();
}

#[tokio::test]
async fn every_type_of_message_leaves_as_metas_description_wants_it() {
    let stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    let contents = [
        json!({"type": "text", "text": {"body": "Hi", "preview_url": true}, "context": {"message_id": "wamid.1"}}),
        json!({"type": "image", "image": {"id": "1", "caption": "a"}}),
        json!({"type": "audio", "audio": {"link": "https://example.com/a.ogg"}}),
        json!({"type": "video", "video": {"id": "2"}}),
        json!({"type": "document", "document": {"id": "3", "filename": "a.pdf", "caption": "b"}}),
        json!({"type": "sticker", "sticker": {"id": "4"}}),
        json!({"type": "location", "location": {"latitude": 37.4, "longitude": -122.1}}),
        json!({"type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": ""}}),
        json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "A"}}]}),
        json!({"type": "template", "template": {"name": "t", "language": {"code": "en_US"}}}),
        json!({"type": "interactive", "interactive": {"type": "button", "body": {"text": "b"},
            "action": {"buttons": [{"type": "reply", "reply": {"id": "1", "title": "Yes"}}]}}}),
    ];
    for (at, content) in contents.iter().enumerate() {
        crm.reply(&format!("1650555{at:04}"), &format!("r-{at}"), content).await;
    }
    crm.reply("US.13491208655302741918", "by-user-id", &contents[0]).await;
    for at in 0..contents.len() {
        crm.until_told(&stage, &format!("r-{at}"), &[Status::Sent]).await;
    }
    crm.until_told(&stage, "by-user-id", &[Status::Sent]).await;
    let by_id = stage.seen_by("US.13491208655302741918");
    assert_eq!(by_id[0].body["recipient"], "US.13491208655302741918");
    // What Meta does not take it says so of, and nothing else is touched.
    crm.reply("16505559999", "wrong", &json!({"type": "text", "text": {"body": ""}})).await;
    crm.until_told(&stage, "wrong", &[Status::Failed]).await;
    assert_eq!(crm.receipts("wrong")[0].1.as_deref(), Some("131009"));
    assert_eq!(stage.graph.wrongs().len(), 1);
}

#[tokio::test]
async fn services_with_channels_of_their_own_send_from_one_number_and_each_has_its_own_statuses() {
    let stage = Stage::with(Setup { plan: "isolated", messages_per_second: 20, ..Setup::default() }).await;
    let (crm, desk) = (Adapter::enter(&stage, "crm").await, Adapter::enter(&stage, "desk").await);
    assert_ne!(crm.channel, desk.channel);
    // The same names in both channels are different replies.
    for n in 0..30 {
        crm.text(&format!("1650555{n:04}"), &format!("r-{n}")).await;
        desk.text(&format!("1650555{n:04}"), &format!("r-{n}")).await;
    }
    for n in 0..30 {
        crm.until_told(&stage, &format!("r-{n}"), &[Status::Sent]).await;
        desk.until_told(&stage, &format!("r-{n}"), &[Status::Sent]).await;
    }
    // The number's rate is shared in turns: neither channel runs ahead of the other.
    let of_crm = format!("sharedline:1:{:032x}:", crm.channel.0);
    let seen = stage.graph.seen();
    assert_eq!(seen.len(), 60);
    let first: Vec<_> = seen.iter().take(40).collect();
    let crms = first.iter().filter(|seen| seen.callback_data().unwrap().starts_with(&of_crm)).count();
    assert!((12..=28).contains(&crms), "of the first 40 CRM had {crms}");
    let one = seen.iter().find(|seen| seen.callback_data().unwrap().starts_with(&of_crm)).unwrap();
    let id = one.body["text"]["body"].as_str().unwrap();
    stage.status(one, "read", true).await;
    crm.until_told(&stage, id, &[Status::Sent, Status::Read]).await;
    assert_eq!(desk.receipts(id), [(Status::Sent, None)]);
    stage.end();
}

#[tokio::test]
async fn what_meta_refuses_has_failed_in_metas_words() {
    let stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    for (at, code) in [131_047, 190, 368, 100, 131_026, 10].into_iter().enumerate() {
        let (to, id) = (format!("1650555{at:04}"), format!("r-{code}"));
        stage.graph.towards(&to, Behaviour::Refuse(code, None));
        crm.text(&to, &id).await;
        crm.until_told(&stage, &id, &[Status::Failed]).await;
        assert_eq!(crm.receipts(&id)[0].1, Some(code.to_string()));
    }
    let told = crm.seen().into_iter().find_map(|delivery| {
        let receipt = delivery.receipt()?;
        if receipt.reply_id.as_str() == "r-131047" { receipt.error } else { None }
    });
    let error = told.unwrap();
    assert_eq!(error.title.as_deref(), Some("Re-engagement message"));
    assert_eq!(error.details.as_deref(), Some("More than 24 hours have passed since the customer wrote"));
    assert_eq!(stage.graph.seen().len(), 6, "none of them is tried again");
    stage.end();
}

#[tokio::test]
async fn where_the_answer_is_lost_a_reply_is_unknown_until_a_status_tells_and_never_sent_again() {
    let stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    let ways = [
        ("lost", Behaviour::LoseAnswer),
        ("forgotten", Behaviour::CloseRead),
        ("500", Behaviour::Status(500)),
        ("502", Behaviour::Status(502)),
        ("meta-500", Behaviour::Refuse(131_000, None)),
        ("lost-too", Behaviour::LoseAnswer),
        ("lost-and-failed", Behaviour::LoseAnswer),
    ];
    for (at, (id, behaviour)) in ways.iter().enumerate() {
        stage.graph.towards(&format!("1650555{at:04}"), behaviour.clone());
        crm.text(&format!("1650555{at:04}"), id).await;
    }
    for (id, _) in &ways {
        crm.until_told(&stage, id, &[Status::Unknown]).await;
    }
    // One that was closed before it was read: the bytes had left, so nobody can know.
    stage.graph.next([Behaviour::CloseUnread]);
    crm.text("16505550100", "unread").await;
    crm.until_told(&stage, "unread", &[Status::Unknown]).await;
    // What comes behind one that is unknown goes on, in its turn.
    stage.graph.towards("16505550000", Behaviour::Accept);
    crm.text("16505550000", "behind").await;
    crm.until_told(&stage, "behind", &[Status::Sent]).await;
    // A status that brings our callback data says that it was sent, and under which id.
    let lost = stage.seen_by("16505550000").remove(0);
    stage.status(&lost, "delivered", true).await;
    crm.until_told(&stage, "lost", &[Status::Unknown, Status::Sent, Status::Delivered]).await;
    // From then on the id alone is enough.
    stage.status(&lost, "read", false).await;
    crm.until_told(&stage, "lost", &[Status::Unknown, Status::Sent, Status::Delivered, Status::Read]).await;
    let failed = stage.seen_by("16505550006").remove(0);
    stage.status(&failed, "failed", true).await;
    crm.until_told(&stage, "lost-and-failed", &[Status::Unknown, Status::Sent, Status::Failed]).await;
    // Others' data, or none, tells of nothing of ours.
    let other = stage.seen_by("16505550005").remove(0);
    stage.status(&other, "delivered", false).await;
    for (at, (id, _)) in ways.iter().enumerate() {
        let expected = if *id == "lost" { 2 } else { 1 };
        assert_eq!(stage.seen_by(&format!("1650555{at:04}")).len(), expected, "{id}");
    }
    assert_eq!(crm.receipts("lost-too"), [(Status::Unknown, None)]);
    stage.end();
}

#[tokio::test]
async fn what_could_not_be_written_is_tried_again_and_leaves_once() {
    let port = free_address().port();
    let stage = Stage::with(Setup { graph_port: port, ..Setup::default() }).await;
    let crm = Adapter::enter(&stage, "crm").await;
    for n in 0..5 {
        crm.text(&format!("1650555{n:04}"), &format!("r-{n}")).await;
    }
    // Nobody listens there until now.
    let late = sharedline::gateway::simulated::Graph::start(port, graph_settings()).await.unwrap();
    for n in 0..5 {
        crm.until_told(&stage, &format!("r-{n}"), &[Status::Sent]).await;
    }
    assert_eq!(late.seen().len(), 5);
    stage.end();
}

#[tokio::test]
async fn one_customers_silence_holds_up_nobody_else_and_order_is_kept() {
    let stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    stage.graph.towards("16505550000", Behaviour::Hang);
    crm.text("16505550000", "silent").await;
    crm.text("16505550000", "behind").await;
    for round in 0..3 {
        for customer in 1..20 {
            crm.text(&format!("1650555{customer:04}"), &format!("r-{customer}-{round}")).await;
        }
    }
    for customer in 1..20 {
        crm.until_told(&stage, &format!("r-{customer}-2"), &[Status::Sent]).await;
        let order: Vec<String> = (stage.seen_by(&format!("1650555{customer:04}")).iter())
            .map(|seen| seen.body["text"]["body"].as_str().unwrap().to_owned())
            .collect();
        let expected: Vec<String> = (0..3).map(|round| format!("r-{customer}-{round}")).collect();
        assert_eq!(order, expected);
    }
    // What stands behind the silent one has not overtaken it.
    assert_eq!(stage.seen_by("16505550000").len(), 1);
    assert_eq!((crm.receipts("silent"), crm.receipts("behind")), (vec![], vec![]));
    // The answer never comes: after its time it is unknown, and the one behind goes on.
    stage.graph.towards("16505550000", Behaviour::Accept);
    crm.until_told(&stage, "behind", &[Status::Sent]).await;
    assert_eq!(crm.receipts("silent"), [(Status::Unknown, None)]);
    stage.end();
}

#[tokio::test]
async fn a_stop_waits_for_the_answers_to_what_was_posted_and_hands_nothing_more_over() {
    let mut stage = Stage::with(Setup { messages_per_second: 5, ..Setup::default() }).await;
    let crm = Adapter::enter(&stage, "crm").await;
    stage.graph.otherwise(Behaviour::Slow(std::time::Duration::from_millis(1_500)));
    for n in 0..30 {
        crm.text(&format!("1650555{n:04}"), &format!("r-{n}")).await;
    }
    stage.until_seen("the first", |seen| !seen.is_empty()).await;
    stage.terminate().await;
    let posted = stage.graph.seen().len();
    assert!(posted < 30, "all had left before the stop");
    stage.graph.otherwise(Behaviour::Accept);
    stage.start();
    for n in 0..30 {
        crm.until_told(&stage, &format!("r-{n}"), &[Status::Sent]).await;
    }
    assert_eq!(stage.graph.seen().len(), 30, "each once, and none unknown");
    assert!(stage.graph.seen().iter().all(|seen| matches!(seen.fate, Fate::Taken(_))));
    stage.end();
}
