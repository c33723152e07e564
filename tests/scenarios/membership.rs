//! Who takes part: the table of standings, the parent, dormant and closed channels, numbers and portals.

use sharedline::domain::command::ChannelState;
use sharedline::domain::event::Settings;
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{
    ActivateChannel, ConfigureChannel, CreateChannel, DeactivateChannel, DeleteChannel, GetChannel,
    ListChannels,
};
use sharedline::wire::message::{Delivery, ErrorCode, Response};

use crate::stage::{MUTE_NUMBER, NUMBER, SOLO_NUMBER, Stage, Tallied, by, channel, reply, word};

fn list(answer: &sharedline::wire::message::responses::Channel) -> String {
    let parent = answer.seen.parent.as_ref();
    let name = |service: &sharedline::domain::ids::ServiceId| {
        if Some(service) == parent { format!("{service}!") } else { service.to_string() }
    };
    answer.seen.subscribers.iter().map(name).collect::<Vec<_>>().join(" ")
}

pub(crate) async fn the_table_of_standings_cell_by_cell(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (_crm, id) = stage.sharing(&["crm"]).await;
    let mut desk = stage.service("desk").await;
    let activate = ActivateChannel { channel: id, backfill: false };
    let (deactivate, delete) = (DeactivateChannel { channel: id }, DeleteChannel { channel: id });
    // none
    assert_eq!(desk.refused(activate.clone()).await, ErrorCode::NotSubscribed);
    assert_eq!(desk.refused(deactivate.clone()).await, ErrorCode::NotSubscribed);
    assert_eq!(desk.refused(delete.clone()).await, ErrorCode::NotSubscribed);
    let created = desk.create(NUMBER).await;
    assert_eq!((created.created, created.joined), (Some(false), Some(true)));
    assert_eq!(list(&created), "crm! desk");
    // subscribed
    let again = desk.create(NUMBER).await;
    assert_eq!((again.created, again.joined), (Some(false), Some(false)));
    assert_eq!(channel(desk.ask(activate.clone()).await).changed, Some(false));
    let left = channel(desk.ask(deactivate.clone()).await);
    assert_eq!((left.changed, list(&left).as_str()), (Some(true), "crm!"));
    // inactive
    assert_eq!(channel(desk.ask(deactivate.clone()).await).changed, Some(false));
    let back = desk.create(NUMBER).await;
    assert_eq!((back.joined, list(&back).as_str()), (Some(true), "crm! desk"));
    desk.ask(deactivate.clone()).await;
    let back = channel(desk.ask(activate.clone()).await);
    assert_eq!((back.changed, list(&back).as_str()), (Some(true), "crm! desk"));
    let gone = channel(desk.ask(delete.clone()).await);
    assert_eq!((gone.changed, list(&gone).as_str()), (Some(true), "crm!"));
    assert_eq!(desk.refused(delete).await, ErrorCode::NotSubscribed);
    let got = channel(desk.ask(GetChannel { channel: id }).await);
    assert_eq!((got.changed, got.seen.state), (Some(false), ChannelState::Active));
    let words: Vec<String> = desk.settled(id).await.iter().map(word).collect();
    assert_eq!(
        words,
        [
            "desk subscribed",
            "desk deactivated",
            "desk activated",
            "desk deactivated",
            "desk activated",
            "desk deleted",
        ]
    );
}

pub(crate) async fn the_articles_table_to_the_letter(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, id) = stage.sharing(&["crm", "desk"]).await;
    let mut salesiq = stage.service("salesiq").await;
    assert_eq!(list(&salesiq.create(NUMBER).await), "crm! desk salesiq");
    let deactivated = channel(peers[1].ask(DeactivateChannel { channel: id }).await);
    assert_eq!(list(&deactivated), "crm! salesiq");
    assert_eq!(list(&channel(peers[0].ask(DeleteChannel { channel: id }).await)), "salesiq!");
    let activated = channel(peers[1].ask(ActivateChannel { channel: id, backfill: false }).await);
    assert_eq!(list(&activated), "salesiq! desk");
    assert_eq!(list(&peers[0].create(NUMBER).await), "salesiq! desk crm");
    let seen = salesiq.settled(id).await;
    let words: Vec<String> = seen.iter().map(word).collect();
    assert_eq!(
        words,
        [
            "salesiq subscribed",
            "desk deactivated",
            "crm deleted",
            "salesiq parent_changed",
            "desk activated",
            "crm subscribed",
        ]
    );
    let Delivery::Membership(changed) = &seen[3] else { panic!() };
    assert_eq!(changed.parent.0, Some("salesiq".parse().unwrap()));
    assert_eq!(changed.subscribers.len(), 1);
    // The leaver's own event is its last delivery; what it does not see is who became the parent after it.
    let words: Vec<String> = peers[0].settled(id).await.iter().map(word).collect();
    assert_eq!(words, ["salesiq subscribed", "desk deactivated", "crm deleted", "crm subscribed"]);
}

pub(crate) async fn a_dormant_channel_is_revived_and_a_closed_one_made_anew(
    encoding: Encoding,
    tally: &Tallied,
) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, id) = stage.sharing(&["crm", "desk"]).await;
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    let conversation = peers[0].conversation(id).await;
    peers[1].ask(DeactivateChannel { channel: id }).await;
    let dormant = channel(peers[0].ask(DeactivateChannel { channel: id }).await);
    assert_eq!((dormant.seen.state, dormant.seen.parent), (ChannelState::Dormant, None));
    let missed = gateway.inbound("wamid.2", &crate::stage::text_content("nobody hears")).await;
    assert!(matches!(missed, Response::InboundAccepted(accepted) if accepted.channels == 0));
    assert_eq!(peers[0].refused(reply(id, conversation, "r")).await, ErrorCode::NotSubscribed);
    let revived = channel(peers[1].ask(ActivateChannel { channel: id, backfill: false }).await);
    assert_eq!(list(&revived), "desk!");
    let opened = peers[1].open_conversation(id, conversation, "ann").await;
    assert_eq!(opened.timeline.iter().map(word).collect::<Vec<_>>(), ["message wamid.1"]);
    peers[0].ask(DeleteChannel { channel: id }).await;
    let closed = channel(peers[1].ask(DeleteChannel { channel: id }).await);
    assert_eq!(closed.seen.state, ChannelState::Closed);
    assert_eq!(
        peers[1].refused(ActivateChannel { channel: id, backfill: false }).await,
        ErrorCode::ChannelClosed
    );
    assert_eq!(peers[1].refused(reply(id, conversation, "r")).await, ErrorCode::ChannelClosed);
    assert_eq!(channel(peers[0].ask(GetChannel { channel: id }).await).seen.state, ChannelState::Closed);
    let anew = peers[1].create(NUMBER).await;
    assert_eq!(anew.created, Some(true));
    assert_ne!(anew.seen.channel, id);
    gateway.text("wamid.3", "hello again").await;
}

pub(crate) async fn who_missed_something_gets_it_where_he_asks(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, id) = stage.sharing(&["crm", "desk"]).await;
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "before").await;
    let first = peers[1].next().await;
    peers[1].ack(&first).await;
    peers[1].ask(DeactivateChannel { channel: id }).await;
    gateway.text("wamid.2", "missed").await;
    peers[1].ask(ActivateChannel { channel: id, backfill: true }).await;
    gateway.text("wamid.3", "after").await;
    let words = peers[1].words(4).await;
    assert_eq!(words, ["desk deactivated", "message wamid.2", "desk activated", "message wamid.3"]);
    let mut late = stage.service("salesiq").await;
    late.ask(CreateChannel { number: NUMBER.parse().unwrap(), backfill: true }).await;
    let words: Vec<String> = late.settled_until("salesiq subscribed").await;
    let messages: Vec<&String> = words.iter().filter(|word| word.starts_with("message")).collect();
    assert_eq!(messages, ["message wamid.1", "message wamid.2", "message wamid.3"]);
    let mut latest = stage.service("chat").await;
    latest.create(NUMBER).await;
    assert_eq!(latest.words(1).await, ["chat subscribed"]);
}

pub(crate) async fn only_the_parent_configures(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, id) = stage.sharing(&["crm", "desk"]).await;
    let settings = Settings { reveal_service: true, reveal_kind: true };
    let configure = ConfigureChannel { channel: id, settings };
    assert_eq!(peers[1].refused(configure.clone()).await, ErrorCode::NotParent);
    assert_eq!(channel(peers[0].ask(configure.clone()).await).changed, Some(true));
    assert_eq!(channel(peers[0].ask(configure).await).changed, Some(false));
    assert_eq!(peers[1].words(1).await, ["crm configured"]);
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    let conversation = peers[0].conversation(id).await;
    peers[0].ask(by("ann", reply(id, conversation, "r1"))).await;
    peers[1].message().await;
    let Delivery::MaskedReply(masked) = peers[1].next().await else { panic!() };
    assert_eq!(masked.service.as_ref().unwrap().as_str(), "crm");
    assert_eq!(masked.kind.as_deref(), Some("text"));
    assert!(masked.content.is_none());
}

pub(crate) async fn numbers_and_families_are_held_to_their_portal(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (_crm, id) = stage.sharing(&["crm"]).await;
    let create = |number: &str| CreateChannel { number: number.parse().unwrap(), backfill: false };
    let mut books = stage.service("books").await;
    assert_eq!(books.refused(create(NUMBER)).await, ErrorCode::ServiceNotEligible);
    let mut other = stage.open(stage.hello("solo", "crm", "one")).await.unwrap();
    assert_eq!(other.refused(create(NUMBER)).await, ErrorCode::NumberTaken);
    assert_eq!(other.refused(create("+15550000000")).await, ErrorCode::NotFound);
    assert_eq!(other.refused(GetChannel { channel: id }).await, ErrorCode::NotFound);
    let mut gateway = stage.open(stage.hello("solo", "whatsapp", "g")).await.unwrap();
    let message = crate::stage::inbound("wamid.1", crate::stage::MARIA, &crate::stage::text_content("x"));
    assert_eq!(gateway.refused(message).await, ErrorCode::NotFound);
}

pub(crate) async fn isolated_services_have_channels_of_their_own(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let mut crm = stage.open(stage.hello("solo", "crm", "one")).await.unwrap();
    let mut desk = stage.open(stage.hello("solo", "desk", "one")).await.unwrap();
    let (ours, theirs) = (crm.create(SOLO_NUMBER).await, desk.create(SOLO_NUMBER).await);
    assert_eq!((ours.created, theirs.created), (Some(true), Some(true)));
    assert_eq!(crm.refused(GetChannel { channel: theirs.seen.channel }).await, ErrorCode::NotFound);
    let mut gateway = stage.open(stage.hello("solo", "whatsapp", "g")).await.unwrap();
    let mut message = crate::stage::inbound("wamid.1", crate::stage::MARIA, &crate::stage::text_content("x"));
    message.number = SOLO_NUMBER.parse().unwrap();
    let answer = gateway.ask(message).await;
    assert!(matches!(answer, Response::InboundAccepted(accepted) if accepted.channels == 2));
    assert_eq!(crm.words(2).await, ["crm subscribed", "message wamid.1"]);
    let conversation = crm.conversation(ours.seen.channel).await;
    crm.ask(reply(ours.seen.channel, conversation, "r1")).await;
    let words: Vec<String> = desk.settled(theirs.seen.channel).await.iter().map(word).collect();
    assert_eq!(words, ["desk subscribed", "message wamid.1"]);
}

pub(crate) async fn channels_are_listed_page_by_page(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let mut crm = stage.service("crm").await;
    crm.create(NUMBER).await;
    crm.create(MUTE_NUMBER).await;
    let page =
        async |crm: &mut crate::stage::Peer, after, limit| match crm.ask(ListChannels { after, limit }).await
        {
            Response::Channels(page) => page,
            other => panic!("{other:?}"),
        };
    let all = page(&mut crm, None, None).await;
    assert_eq!((all.channels.len(), all.next), (2, None));
    let first = page(&mut crm, None, Some(1)).await;
    assert_eq!(first.channels.len(), 1);
    let second = page(&mut crm, first.next, Some(1)).await;
    assert_eq!((second.channels.len(), second.next), (1, None));
    assert_ne!(first.channels[0].channel, second.channels[0].channel);
    let mut desk = stage.service("desk").await;
    assert!(page(&mut desk, None, None).await.channels.is_empty());
}
