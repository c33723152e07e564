//! What comes in beside customers' messages: replies written on the phone, and customers who change their names.

use serde_json::json;
use sharedline::domain::event::Status;
use sharedline::gateway::simulated::{Behaviour, Customer, Echo, StatusNews};
use sharedline::wire::message::{Delivery, Response};

use super::stage::{Adapter, Stage};

#[tokio::test]
async fn a_reply_written_on_the_phone_is_the_parents_and_masked_to_the_rest() {
    let stage = Stage::new().await;
    let (crm, desk) = (Adapter::enter(&stage, "crm").await, Adapter::enter(&stage, "desk").await);
    let customer = Customer { wa_id: Some("16505551234"), user_id: None, name: "Maria" };
    stage.post(&stage.webhooks.text(customer, "wamid.in1", "Hello?")).await;
    let echo =
        stage.webhooks.echo(Echo { message_id: "wamid.phone1", to: "16505551234", text: "From my phone" });
    stage.post(&echo).await;
    stage.post(&echo).await;
    let status = StatusNews {
        message_id: "wamid.phone1",
        status: "read",
        recipient: "16505551234",
        callback_data: None,
        error: None,
    };
    stage.post(&stage.webhooks.status(status)).await;
    crm.until_told(&stage, "echo:wamid.phone1", &[Status::Read]).await;
    let replies = |adapter: &Adapter| {
        let seen = adapter.seen();
        let own = seen.iter().filter(|delivery| matches!(delivery, Delivery::Reply(_))).count();
        let masked = seen.iter().filter(|delivery| matches!(delivery, Delivery::MaskedReply(_))).count();
        (own, masked)
    };
    assert_eq!(replies(&crm), (1, 0), "in full, once");
    desk.until(&stage, "the masked echo", |desk| replies(desk) == (0, 1)).await;
    let shown = crm.seen().into_iter().find_map(|delivery| match delivery {
        Delivery::Reply(reply) => {
            Some(serde_json::from_slice::<serde_json::Value>(&reply.content.0).unwrap())
        }
        _ => None,
    });
    assert_eq!(shown, Some(json!({"type": "text", "text": {"body": "From my phone"}})));
    // It counts for a double reply: Desk's agent had seen the customer's message alone.
    let message = desk.seen().into_iter().find_map(|delivery| match delivery {
        Delivery::Message(message) => Some(message.offset),
        _ => None,
    });
    let content = json!({"type": "text", "text": {"body": "Hi"}});
    let mut reply = desk.reply_of("16505551234", Some("ann"), "late", &content);
    reply.seen = message;
    assert!(matches!(desk.ask(reply).await, Ok(Response::Warning(_))));
    assert_eq!(stage.graph.seen().len(), 0, "nothing of it is sent again");
    stage.end();
}

#[tokio::test]
async fn a_customer_known_by_his_user_id_alone_is_replied_to_by_it_and_moves_with_it() {
    let stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    let (old, new) = ("US.24070915863320114477", "US.55500011122233344455");
    let hidden = Customer { wa_id: None, user_id: Some(old), name: "Noor" };
    stage.post(&stage.webhooks.text(hidden, "wamid.in1", "Hello")).await;
    let first = crm.text(old, "r-1").await;
    crm.until_told(&stage, "r-1", &[Status::Sent]).await;
    let mut change = stage.webhooks.text(hidden, "wamid.in2", "");
    let value = change.pointer_mut("/entry/0/changes/0/value").unwrap();
    value["contacts"] = json!([]);
    value["messages"][0]["type"] = json!("system");
    value["messages"][0]["system"] = json!({"type": "user_changed_user_id", "user_id": new,
        "previous_user_id": old, "body": "changed"});
    value["messages"][0].as_object_mut().unwrap().remove("text");
    stage.post(&change).await;
    stage.graph.towards(new, Behaviour::Accept);
    let second = crm.text(new, "r-2").await;
    assert_eq!(second.conversation, first.conversation, "the conversation has moved with him");
    crm.until_told(&stage, "r-2", &[Status::Sent]).await;
    assert_eq!(stage.seen_by(old).len(), 1);
    assert_eq!(stage.seen_by(new)[0].body["recipient"], new);
    stage.end();
}
