//! The operator sees a conversation only as a named service would: what one service wrote never shows in another's view.

use serde_json::{Value, json};
use sharedline::wire::message::RawContent;

use crate::house::House;
use crate::stage::{MARIA, accepted, by, inbound, pick_up, reply};

const CANARY: &str = "CANARY-4711";

fn contents() -> Vec<String> {
    vec![
        json!({"type": "text", "text": {"body": CANARY}}).to_string(),
        json!({"type": "document", "document": {"id": CANARY, "filename": CANARY, "caption": CANARY}})
            .to_string(),
        json!({"type": "template", "template": {"name": CANARY, "components": [{"text": CANARY}]}})
            .to_string(),
        json!({"type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": CANARY}}).to_string(),
        json!({"type": "text", "text": {"body": "x"}, "biz_opaque_callback_data": CANARY}).to_string(),
    ]
}

/// All that the admin API shows beside conversations, and the metrics.
fn elsewhere(house: &House, channel: &str) -> String {
    let paths = ["/health", "/portals", "/sessions", "/channels", channel];
    let mut all: String = paths.iter().map(|path| house.look(path).1.to_string()).collect();
    all.push_str(&house.get("/metrics").body);
    all
}

#[tokio::test]
async fn b03_no_view_that_the_admin_api_gives_holds_a_byte_of_another_services_reply() {
    let house = House::open();
    let (mut peers, channel) = house.stage.sharing(&["crm", "desk", "chat"]).await;
    let mut gateway = house.stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    let conversation = peers[0].conversation(channel).await;
    peers[0].roster(&["ophelia"]).await;
    peers[0].ask(pick_up(channel, conversation, "ophelia")).await;
    for (at, content) in contents().into_iter().enumerate() {
        let own = by("ophelia", reply(channel, conversation, &format!("{CANARY}-{at}")));
        let content = RawContent(content.into());
        let own = sharedline::wire::message::requests::Reply { content, ..own };
        accepted(peers[0].ask(own).await);
        let send = gateway.send().await;
        gateway.sent(&send, &format!("wamid.{CANARY}.{at}")).await;
    }
    // What the customer does is everybody's, but for what its sender wrote for machines (B7).
    let tap = json!({"type": "button", "button": {"payload": CANARY, "text": "Yes, please"}}).to_string();
    let mut tap = inbound("wamid.tap", MARIA, &tap);
    tap.refers_to = Some(format!("wamid.{CANARY}.2").parse().unwrap());
    gateway.ask(tap).await;
    let base = format!("/channels/{channel}");
    let list = |service: &str| house.look(&format!("{base}/conversations?as={service}")).1;
    let show = |service: &str| house.look(&format!("{base}/conversations/{conversation}?as={service}")).1;
    let kinds = |value: &Value| -> Vec<String> {
        let timeline = value["timeline"].as_array().unwrap();
        timeline.iter().map(|entry| entry["type"].as_str().unwrap().to_owned()).collect()
    };
    let (own, others) = (show("crm"), show("desk"));
    assert!(own.to_string().matches(CANARY).count() >= 10, "its own service sees all of it: {own}");
    assert_eq!(kinds(&own).iter().filter(|kind| *kind == "reply").count(), 5);
    assert_eq!(kinds(&others).iter().filter(|kind| *kind == "masked_reply").count(), 5, "{others}");
    assert_eq!(kinds(&others).iter().filter(|kind| *kind == "receipt").count(), 0);
    for shown in [&others, &list("desk")] {
        let text = shown.to_string();
        assert!(!text.contains(CANARY), "{text}");
        assert!(
            !text.to_lowercase().contains("ophelia"),
            "who holds it elsewhere is nobody's business: {text}"
        );
    }
    assert!(others.to_string().contains("Yes, please"), "{others}");
    assert_eq!(others["timeline"].as_array().unwrap().last().unwrap()["redacted"], true);
    // A service that is trusted to mask for itself gets the content, flagged as masked.
    let trusted = show("chat");
    assert_eq!(kinds(&trusted).iter().filter(|kind| *kind == "masked_reply").count(), 5);
    assert!(trusted.to_string().contains(CANARY));
    assert!(!elsewhere(&house, &base).contains(CANARY));
}

#[tokio::test]
async fn looking_as_a_service_is_nobodys_activity_and_changes_nothing() {
    let house = House::open();
    let (mut peers, channel) = house.stage.sharing(&["timed"]).await;
    let mut gateway = house.stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    let timed = &mut peers[0];
    let conversation = timed.conversation(channel).await;
    timed.ask(pick_up(channel, conversation, "ann")).await;
    let path = format!("/channels/{channel}/conversations/{conversation}?as=timed");
    let first = house.look(&path).1;
    let (status, stranger) = house.look(&path.replace("as=timed", "as=crm"));
    assert_eq!(
        (status, &stranger["code"]),
        (409, &"not_subscribed".into()),
        "who is not in the list sees nothing"
    );
    // Its claim expires a second after its holder was last active, however often somebody looks.
    loop {
        let shown = house.look(&path).1;
        if shown["claims"] == json!([]) {
            break;
        }
        assert_eq!(shown["head"], first["head"]);
    }
    assert_eq!(timed.settled_until("expired own").await, ["message wamid.1", "picked_up own", "expired own"]);
}

#[tokio::test]
async fn b18_the_operator_sees_whose_a_thread_is_as_the_named_service_would() {
    let house = House::open();
    let (mut peers, channel) = house.stage.sharing(&["crm", "desk"]).await;
    let mut gateway = house.stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    let conversation = peers[0].conversation(channel).await;
    let base = format!("/channels/{channel}/conversations");
    let seen = |service: &str| {
        let listed = house.look(&format!("{base}?as={service}")).1["conversations"][0]["thread"].clone();
        let shown = house.look(&format!("{base}/{conversation}?as={service}")).1["thread"].clone();
        assert_eq!(listed, shown);
        shown
    };
    assert_eq!(seen("crm"), json!({"owner": "none"}));
    let take = sharedline::wire::message::requests::ThreadControl {
        channel,
        of: sharedline::wire::message::Addressee::Conversation(conversation),
        action: sharedline::wire::message::ThreadVerb::Take,
        to_service: None,
        metadata: Some(CANARY.into()),
        agent: None,
    };
    peers[0].ask(take).await;
    let own = seen("crm");
    assert_eq!((&own["owner"], &own["metadata"]), (&"self".into(), &CANARY.into()));
    assert!(own["since"].is_u64() && own["until"].as_u64() > own["since"].as_u64());
    assert_eq!(seen("desk"), json!({"owner": "another"}));
}
