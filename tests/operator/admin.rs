//! What an operator changes on a service's behalf: it comes to hold at once, and the record says whose doing it was.

use std::sync::Arc;

use serde_json::{Value, json};
use sharedline::domain::event::{Actor, ClaimAction, Event, MembershipAction};
use sharedline::domain::ids::{ChannelId, Offset};
use sharedline::journal::disk::RealDisk;
use sharedline::journal::{EmbeddedJournal, Entry, Journal, Options, StreamId, payload};
use sharedline::wire::message::ErrorCode;

use crate::house::House;
use crate::stage::{MUTE_NUMBER, NUMBER, SOLO_NUMBER, pick_up};

fn channel_of(value: &Value) -> ChannelId {
    value["channel"].as_str().unwrap().parse().unwrap()
}

/// The events of a channel, from the files of a stopped broker.
fn events(house: &House, channel: ChannelId) -> Vec<Event> {
    let disk = Arc::new(RealDisk::at(house.stage.directory()).unwrap());
    let journal = EmbeddedJournal::open(disk, &Options::default()).unwrap().journal;
    let read = journal.read(StreamId::from(channel), Offset(1), 1 << 20).unwrap();
    let event = |entry: &Entry| match entry {
        Entry::Record(raw) => payload::decode_record(raw).unwrap().event,
        Entry::Corrupt(damage) => panic!("{damage:?}"),
    };
    read.entries.iter().map(event).collect()
}

#[tokio::test]
async fn channels_are_made_left_and_joined_on_behalf_of_a_service_and_recorded_as_the_operators() {
    let mut house = House::open();
    let create =
        |service: &str, number: &str| json!({"portal": "acme", "service": service, "number": number});
    let (status, made) = house.tell("/channels", &create("crm", MUTE_NUMBER));
    assert_eq!((status, &made["created"], &made["joined"]), (200, &true.into(), &false.into()), "{made}");
    let channel = channel_of(&made);
    let base = format!("/channels/{channel}");
    let (_, joined) = house.tell("/channels", &create("desk", MUTE_NUMBER));
    assert_eq!((&joined["created"], &joined["joined"]), (&false.into(), &true.into()));
    assert_eq!((channel_of(&joined), &joined["subscribers"]), (channel, &json!(["crm", "desk"])));
    // Its adapters see it as if they had done it.
    let desk = house.stage.service("desk").await;
    assert_eq!(desk.welcome.channels[0].channel, channel);
    let (_, left) = house.tell(&format!("{base}/deactivate"), &json!({"service": "crm"}));
    assert_eq!((&left["changed"], &left["parent"]), (&true.into(), &"desk".into()));
    assert_eq!(house.look(&base).1["inactive"], json!(["crm"]));
    let (_, again) = house.tell(&format!("{base}/deactivate"), &json!({"service": "crm"}));
    assert_eq!(again["changed"], false);
    let (_, back) = house.tell(&format!("{base}/activate"), &json!({"service": "crm"}));
    assert_eq!(back["subscribers"], json!(["desk", "crm"]));
    house.tell(&format!("{base}/delete"), &json!({"service": "crm"}));
    let (_, closed) = house.tell(&format!("{base}/delete"), &json!({"service": "desk"}));
    assert_eq!(closed["state"], "closed");
    let (status, refused) = house.tell(&format!("{base}/activate"), &json!({"service": "desk"}));
    assert_eq!((status, &refused["code"]), (409, &"channel_closed".into()));
    assert_eq!(house.look("/channels").1["channels"], json!([]), "a closed one is not listed");
    assert_eq!(house.look(&base).1["state"], "closed", "and yet shown");
    let (_, anew) = house.tell("/channels", &create("crm", MUTE_NUMBER));
    assert!(anew["created"] == true && channel_of(&anew) != channel, "{anew}");
    let (status, books) = house.tell("/channels", &create("books", NUMBER));
    assert_eq!((status, &books["code"]), (409, &"service_not_eligible".into()));
    house.stage.stop().await;
    let mut actions = Vec::new();
    for event in events(&house, channel) {
        let Event::Membership(membership) = event else { continue };
        if membership.action != MembershipAction::ParentChanged {
            assert_eq!(membership.by, Actor::Operator, "{membership:?}");
            actions.push(membership.action.as_str());
        }
    }
    assert_eq!(actions, ["subscribed", "subscribed", "deactivated", "activated", "deleted", "deleted"]);
}

#[tokio::test]
async fn isolated_services_have_channels_of_their_own_for_the_operator_too() {
    let house = House::open();
    let create = |service: &str| json!({"portal": "solo", "service": service, "number": SOLO_NUMBER});
    let (_, crm) = house.tell("/channels", &create("crm"));
    let (_, desk) = house.tell("/channels", &create("desk"));
    assert!(crm["created"] == true && desk["created"] == true && crm["channel"] != desk["channel"]);
    let foreign = format!("/channels/{}", channel_of(&crm));
    assert_eq!(house.tell(&format!("{foreign}/activate"), &json!({"service": "desk"})).0, 404);
    assert_eq!(house.look(&format!("{foreign}/conversations?as=desk")).0, 404);
    assert_eq!(house.look(&format!("{foreign}/conversations?as=crm")).0, 200);
}

#[tokio::test]
async fn channels_and_conversations_are_listed_page_by_page() {
    let house = House::open();
    let (mut peers, channel) = house.stage.sharing(&["crm"]).await;
    peers[0].create(MUTE_NUMBER).await;
    let (_, all) = house.look("/channels?portal=acme");
    let (_, first) = house.look("/channels?limit=1");
    assert_eq!(first["channels"], json!([all["channels"][0]]));
    let next = first["next"].as_str().unwrap();
    let (_, second) = house.look(&format!("/channels?limit=1&after={next}"));
    assert_eq!((&second["channels"], &second["next"]), (&json!([all["channels"][1]]), &Value::Null));
    assert_eq!(house.look("/channels?portal=solo").1["channels"], json!([]));
    let mut gateway = house.stage.gateway().await;
    for at in 0..3 {
        let from = format!("1650555000{at}");
        let text = crate::stage::text_content("hello");
        gateway.ask(crate::stage::inbound(&format!("wamid.{at}"), &from, &text)).await;
    }
    let list = |query: &str| house.look(&format!("/channels/{channel}/conversations?as=crm&{query}")).1;
    let first = list("limit=2");
    assert_eq!(first["conversations"].as_array().unwrap().len(), 2);
    let rest = list(&format!("after={}", first["next"].as_str().unwrap()));
    assert_eq!(rest["conversations"].as_array().unwrap().len(), 1);
    assert_eq!(list("claimed=true")["conversations"], json!([]));
    assert_eq!(list("unanswered=true")["conversations"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn b10_the_operator_ends_and_hands_on_any_claim_of_a_service_and_it_is_recorded_as_his() {
    let mut house = House::open();
    let (mut peers, channel) = house.stage.sharing(&["crm", "desk"]).await;
    let mut gateway = house.stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    let conversation = peers[0].conversation(channel).await;
    peers[0].ask(pick_up(channel, conversation, "ann")).await;
    let base = format!("/channels/{channel}/conversations/{conversation}");
    let (status, given) =
        house.tell(&format!("{base}/transfer"), &json!({"service": "crm", "holder": "ann", "to": "bob"}));
    assert_eq!((status, &given["type"]), (200, &"picked_up".into()), "{given}");
    assert_eq!(peers[0].refused(pick_up(channel, conversation, "ann")).await, ErrorCode::Claimed);
    let refused = |path: &str, body: Value, code: &str| {
        let (status, value) = house.tell(&format!("{base}/{path}"), &body);
        assert_eq!((status, value["code"].as_str().unwrap()), (409, code), "{body}");
    };
    refused("release", json!({"service": "crm", "holder": "ann"}), "not_claimed");
    refused("release", json!({"service": "desk", "holder": "bob"}), "not_claimed");
    refused("release", json!({"service": "salesiq", "holder": "bob"}), "not_subscribed");
    refused("transfer", json!({"service": "crm", "holder": "bob", "to": "zoe"}), "unknown_agent");
    let (status, ended) = house.tell(&format!("{base}/release"), &json!({"service": "crm", "holder": "bob"}));
    assert_eq!((status, &ended["type"]), (200, &"ok".into()));
    assert_eq!(
        peers[0].settled_until("released own").await,
        ["message wamid.1", "picked_up own", "transferred own", "released own"]
    );
    assert_eq!(
        peers[1].settled_until("released").await,
        ["message wamid.1", "picked_up", "transferred", "released"],
        "the others are told as of any other change"
    );
    house.stage.stop().await;
    let claims = events(&house, channel).into_iter().filter_map(|event| match event {
        Event::Claim(change) => Some((change.action, change.by)),
        _ => None,
    });
    let by_operator: Vec<ClaimAction> =
        claims.filter(|(_, by)| *by == Actor::Operator).map(|(action, _)| action).collect();
    assert_eq!(by_operator, [ClaimAction::Transferred, ClaimAction::Released]);
}
