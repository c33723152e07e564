//! Delivery: acknowledgement, sharing, windows, watching, stalled connections, timelines, many requests at once.

use std::collections::BTreeSet;
use std::time::Duration;

use sharedline::domain::ids::Offset;
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{Ack, Open, Ping};
use sharedline::wire::message::{DeliverMode, Delivery, ErrorCode, Positions, Response};

use crate::stage::{Peer, Stage, Tallied, by, inbound, offset, pick_up, reply, text_content, word};

pub(crate) async fn an_acknowledgement_covers_what_came_before_it(encoding: Encoding, tally: &Tallied) {
    let mut stage = Stage::set(encoding, tally);
    let (mut peers, channel) = stage.sharing(&["crm"]).await;
    let mut gateway = stage.gateway().await;
    for at in 1..=4 {
        gateway.text(&format!("wamid.{at}"), "hello").await;
    }
    let mut crm = peers.remove(0);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(crm.next().await);
    }
    crm.ack(&seen[1]).await;
    // One that is not outstanding here is ignored, and so is one of a channel that is not there.
    crm.put(Ack { channel, offset: Offset(1_000_000) }).await;
    crm.put(Ack { channel: sharedline::domain::ids::ChannelId(1), offset: Offset(1) }).await;
    assert!(crm.settled(channel).await.is_empty());
    drop(crm);
    let mut again = stage.service("crm").await;
    assert_eq!(again.words(2).await, ["message wamid.3", "message wamid.4"]);
    drop((again, gateway));
    stage.restart().await;
    let mut after = stage.service("crm").await;
    let (third, fourth) = (after.next().await, after.next().await);
    assert_eq!((offset(&third), offset(&fourth)), (offset(&seen[2]), offset(&seen[3])));
}

pub(crate) async fn connections_of_a_service_share_its_conversations(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel) = stage.sharing(&["crm"]).await;
    let mut one = peers.remove(0);
    let mut two = stage.open(stage.hello("acme", "crm", "two")).await.unwrap();
    let mut gateway = stage.gateway().await;
    let from = |at: u32| format!("16505560{at:03}");
    let write = async |gateway: &mut Peer, round: u32| {
        for at in 0..8 {
            let id = format!("wamid.{round}.{at}");
            gateway.ask(inbound(&id, &from(at), &text_content("hello"))).await;
        }
    };
    write(&mut gateway, 1).await;
    write(&mut gateway, 2).await;
    let (of_one, of_two) = (one.settled(channel).await, two.settled(channel).await);
    let customers = |seen: &[Delivery]| -> BTreeSet<String> {
        let messages = seen.iter().filter_map(|delivery| match delivery {
            Delivery::Message(message) => message.customer.wa_id.as_ref().map(|id| id.as_str().to_owned()),
            _ => None,
        });
        messages.collect()
    };
    let (mine, his) = (customers(&of_one), customers(&of_two));
    assert!(mine.is_disjoint(&his) && mine.len() + his.len() == 8 && !his.is_empty(), "{mine:?} {his:?}");
    let messages =
        |seen: &[Delivery]| seen.iter().filter(|delivery| matches!(delivery, Delivery::Message(_))).count();
    assert_eq!(messages(&of_one) + messages(&of_two), 16);
    // When one ends, all that it had not acknowledged passes on, in order.
    drop(one);
    let mut passed_on = 0;
    while passed_on < messages(&of_one) {
        let Delivery::Message(message) = two.next().await else { continue };
        assert!(mine.contains(message.customer.wa_id.unwrap().as_str()));
        passed_on += 1;
    }
}

pub(crate) async fn a_full_window_holds_up_only_its_own_conversations(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, _channel) = stage.sharing(&["crm", "desk"]).await;
    let mut narrow = stage.hello("acme", "crm", "one");
    narrow.window = 2;
    let mut narrow = stage.open(narrow).await.unwrap();
    let mut gateway = stage.gateway().await;
    for at in 1..=5 {
        gateway.text(&format!("wamid.{at}"), "hello").await;
    }
    // The other service is not held up.
    assert_eq!(peers[1].words(5).await.len(), 5);
    let (first, second) = (narrow.next().await, narrow.next().await);
    let mut wide = stage.open(stage.hello("acme", "crm", "wide")).await.unwrap();
    gateway.ask(inbound("wamid.other", "16505559999", &text_content("another"))).await;
    assert_eq!(wide.message().await.message_id.as_str(), "wamid.other");
    narrow.ack(&first).await;
    assert_eq!(narrow.message().await.message_id.as_str(), "wamid.3");
    narrow.ack(&second).await;
    assert_eq!(narrow.message().await.message_id.as_str(), "wamid.4");
}

pub(crate) async fn a_watcher_sees_all_and_moves_nothing(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel) = stage.sharing(&["crm"]).await;
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    let mut from_start = stage.hello("acme", "crm", "watch-all");
    from_start.deliver = DeliverMode::Watch;
    from_start.from = Positions(vec![(channel, Offset(1))]);
    from_start.window = 1;
    let mut from_start = stage.open(from_start).await.unwrap();
    let mut from_head = stage.hello("acme", "crm", "watch-new");
    from_head.deliver = DeliverMode::Watch;
    let mut from_head = stage.open(from_head).await.unwrap();
    assert!(matches!(from_head.ask(Ping {}).await, Response::Pong(_)));
    gateway.text("wamid.2", "hello").await;
    assert_eq!(from_start.words(3).await, ["crm subscribed", "message wamid.1", "message wamid.2"]);
    assert_eq!(from_head.words(1).await, ["message wamid.2"]);
    assert_eq!(peers[0].words(2).await, ["message wamid.1", "message wamid.2"]);
    let mut silent = stage.hello("acme", "crm", "silent");
    silent.deliver = DeliverMode::None;
    let mut silent = stage.open(silent).await.unwrap();
    gateway.text("wamid.3", "hello").await;
    assert!(silent.settled(channel).await.is_empty());
}

pub(crate) async fn who_acknowledges_nothing_is_ended(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::with_ack_timeout(encoding, tally, Duration::from_millis(400));
    let (mut peers, _) = stage.sharing(&["crm", "desk"]).await;
    let mut gateway = stage.gateway().await;
    let mut desk = peers.remove(1);
    gateway.text("wamid.1", "hello").await;
    let message = desk.next().await;
    desk.ack(&message).await;
    assert_eq!(peers.remove(0).end().await, Some(ErrorCode::Stalled));
    assert!(matches!(desk.ask(Ping {}).await, Response::Pong(_)));
}

pub(crate) async fn the_timeline_shows_all_as_its_viewer_may_see_it(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel) = stage.sharing(&["crm", "desk"]).await;
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "one").await;
    let conversation = peers[0].conversation(channel).await;
    peers[0].ask(pick_up(channel, conversation, "ann")).await;
    peers[0].ask(by("ann", reply(channel, conversation, "r1"))).await;
    let send = gateway.send().await;
    gateway.sent(&send, "wamid.r1").await;
    gateway.text("wamid.2", "two").await;
    let own = peers[0].open_conversation(channel, conversation, "ann").await;
    let words: Vec<String> = own.timeline.iter().map(word).collect();
    assert_eq!(words, ["message wamid.1", "picked_up own", "reply r1", "receipt r1 sent", "message wamid.2"]);
    assert!(!own.more && own.head == offset(own.timeline.last().unwrap()));
    let others = peers[1].open_conversation(channel, conversation, "bob").await;
    let words: Vec<String> = others.timeline.iter().map(word).collect();
    assert_eq!(words, ["message wamid.1", "picked_up", "masked", "message wamid.2"]);
    let page = async |peer: &mut Peer, limit, before| {
        let open = Open { channel, conversation, agent: "ann".parse().unwrap(), limit, before };
        match peer.ask(open).await {
            Response::Conversation(opened) => opened,
            other => panic!("{other:?}"),
        }
    };
    let last = page(&mut peers[0], 2, None).await;
    assert_eq!(last.timeline.iter().map(word).collect::<Vec<_>>(), ["receipt r1 sent", "message wamid.2"]);
    assert!(last.more);
    let before = page(&mut peers[0], 10, Some(offset(&last.timeline[0]))).await;
    assert_eq!(
        before.timeline.iter().map(word).collect::<Vec<_>>(),
        ["message wamid.1", "picked_up own", "reply r1"]
    );
    assert!(!before.more && before.head == own.head);
    let large = text_content(&"x".repeat(400_000));
    for at in 3..=6 {
        gateway.inbound(&format!("wamid.{at}"), &large).await;
    }
    let cut = page(&mut peers[0], 200, None).await;
    assert!(cut.more && cut.timeline.len() == 2, "{}", cut.timeline.len());
    let nowhere = Open {
        channel,
        conversation: sharedline::domain::ids::ConversationId(7),
        agent: "ann".parse().unwrap(),
        limit: 1,
        before: None,
    };
    assert_eq!(peers[0].refused(nowhere).await, ErrorCode::NotFound);
}

pub(crate) async fn a_damaged_record_is_named_and_the_rest_is_delivered(encoding: Encoding, tally: &Tallied) {
    let mut stage = Stage::set(encoding, tally);
    let (mut peers, channel) = stage.sharing(&["crm"]).await;
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "whole").await;
    gateway.text("wamid.2", "to-be-damaged").await;
    // So much that the first of it is no longer in memory.
    let large = text_content(&"x".repeat(500_000));
    for at in 3..=7 {
        gateway.inbound(&format!("wamid.{at}"), &large).await;
    }
    drop(peers.remove(0));
    stage.damage("to-be-damaged");
    let mut crm = stage.service("crm").await;
    let first = crm.next().await;
    assert_eq!(word(&first), "message wamid.1");
    let lost = offset(&first).next();
    let Delivery::Gap(gap) = crm.next().await else { panic!() };
    assert_eq!((gap.from, gap.to, gap.offset), (lost, lost, lost));
    assert_eq!(crm.words(5).await.last().unwrap(), "message wamid.7");
    crm.settled(channel).await;
    // After a restart its state would have to be folded from the bad record: the channel says so instead of guessing.
    drop((crm, gateway));
    stage.restart().await;
    let mut crm = stage.service("crm").await;
    let get = sharedline::wire::message::requests::GetChannel { channel };
    assert_eq!(crm.refused(get).await, ErrorCode::Unavailable);
    let mut gateway = stage.gateway().await;
    assert_eq!(
        gateway.refused(inbound("wamid.8", crate::stage::MARIA, &large)).await,
        ErrorCode::Unavailable
    );
}

pub(crate) async fn a_thousand_requests_in_flight_are_all_answered(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (_peers, _) = stage.sharing(&["crm"]).await;
    let mut gateway = stage.gateway().await;
    let mut asked = Vec::new();
    for at in 0..3_000 {
        asked.push(gateway.put(inbound(&format!("wamid.{at}"), "16505551234", &text_content("hello"))).await);
    }
    for id in asked {
        assert!(matches!(gateway.answer(id).await, Response::InboundAccepted(_)));
    }
}
