//! Retention: what is older goes from every view and from the data directory; what the contract calls state stays.

use std::time::{Duration, Instant};

use sharedline::actors::Ask;
use sharedline::actors::port::{Answered, Refusal};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::{DeliverMode, ErrorCode, RawContent, Response};

use crate::stage::{
    MARIA, MUTE_NUMBER, Peer, Stage, Tallied, accepted, by, pick_up, reply, text_content, word,
};

pub(crate) const KEEP_MS: u64 = 1_000;
/// How long history may stay: twice the time that it is kept, and ten seconds (contract, section 2).
const GONE_WITHIN: Duration = Duration::from_millis(2 * KEEP_MS + 10_000);
const HISTORY: &str = "only-history";
const OPEN: &str = "waits-for-its-gateway";

/// Waits until a text is gone from the data directory.
pub(crate) async fn gone(stage: &Stage, text: &str) {
    let since = Instant::now();
    while stage.holds(text) {
        assert!(since.elapsed() < GONE_WITHIN, "{text} is still in the data directory");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn is_duplicate(gateway: &mut Peer, message_id: &str, text: &str) -> bool {
    match gateway.inbound(message_id, &text_content(text)).await {
        Response::InboundAccepted(accepted) => accepted.duplicate,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn history_goes_in_time_and_what_is_state_stays(encoding: Encoding, tally: &Tallied) {
    let mut stage = Stage::keeping(encoding, tally, KEEP_MS);
    let (mut peers, channel) = stage.sharing(&["crm", "desk"]).await;
    let quiet = || async {
        let hello = stage.hello("acme", "whatsapp", "quiet");
        stage.open(sharedline::wire::message::requests::Hello { deliver: DeliverMode::None, ..hello }).await
    };
    let mut gateway = quiet().await.unwrap();
    gateway.text("wamid.1", HISTORY).await;
    let conversation = peers[0].conversation(channel).await;
    let picked_up = peers[1].ask(pick_up(channel, conversation, "ann")).await;
    assert!(matches!(picked_up, Response::PickedUp(_)), "{picked_up:?}");
    let content = RawContent(text_content(OPEN).into());
    let open = sharedline::wire::message::requests::Reply {
        content,
        ..by("ann", reply(channel, conversation, "r1"))
    };
    let first = accepted(peers[0].ask(open.clone()).await);
    let desk = peers.remove(1);
    drop(desk);
    let since = Instant::now();
    gone(&stage, HISTORY).await;
    assert!(since.elapsed() >= Duration::from_millis(KEEP_MS), "it was kept for its time");
    assert!(stage.holds(OPEN), "a reply without outcome stays whole");

    for restarted in [false, true] {
        if restarted {
            drop((std::mem::take(&mut peers), gateway));
            stage.restart().await;
            peers.push(stage.service("crm").await);
            let hello = stage.hello("acme", "whatsapp", "quiet");
            let hello = sharedline::wire::message::requests::Hello { deliver: DeliverMode::None, ..hello };
            gateway = stage.open(hello).await.unwrap();
        }
        let crm = &mut peers[0];
        let opened = crm.open_conversation(channel, conversation, "bob").await;
        assert_eq!(opened.customer.wa_id.as_ref().unwrap().as_str(), MARIA);
        assert!(opened.timeline.is_empty() && !opened.more, "{:?}", opened.timeline);
        assert!(opened.warnings.len() == 1 && opened.head >= first.offset);
        assert!(is_duplicate(&mut gateway, "wamid.1", HISTORY).await, "a message's id is known for 8 days");
        let again = accepted(crm.ask(open.clone()).await);
        assert!(again.duplicate && again.offset == first.offset);
        let other = RawContent(text_content("another").into());
        let other = sharedline::wire::message::requests::Reply { content: other, ..open.clone() };
        assert_eq!(crm.refused(other).await, ErrorCode::Conflict);
    }

    // Who was away is told what it has lost, and goes on.
    gateway.text("wamid.2", "fresh").await;
    let mut desk = stage.service("desk").await;
    let mut words = Vec::new();
    while words.last().is_none_or(|last| last != "message wamid.2") {
        words.push(word(&desk.next().await));
    }
    assert!(words[0].starts_with("gap "), "{words:?}");
    assert!(!words.iter().any(|word| word == "message wamid.1"), "{words:?}");

    // The reply still leaves, whole, and then goes the way of all history.
    let mut sending = stage.gateway().await;
    let send = sending.send().await;
    assert_eq!((send.to.as_str(), &send.content.0[..]), (MARIA, text_content(OPEN).as_bytes()));
    sending.sent(&send, "wamid.r1").await;
    gone(&stage, OPEN).await;
    let again = accepted(peers[0].ask(open.clone()).await);
    assert!(again.duplicate && again.offset == first.offset, "its id stays in use");
    drop((desk, sending, gateway, peers));
    stage.stop().await;
}

pub(crate) async fn a_channel_that_can_not_be_folded_keeps_nobody_elses_history(
    encoding: Encoding,
    tally: &Tallied,
) {
    let mut stage = Stage::keeping(encoding, tally, KEEP_MS);
    let (peers, channel) = stage.sharing(&["crm"]).await;
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "read-before-the-damage").await;
    gateway.text("wamid.2", "will-be-damaged").await;
    drop((peers, gateway));
    stage.stop().await;
    stage.damage("will-be-damaged");
    stage.restart_stopped();
    let mut crm = stage.service("crm").await;
    let get = sharedline::wire::message::requests::GetChannel { channel };
    assert_eq!(crm.refused(get.clone()).await, ErrorCode::Unavailable);
    // Who embeds the broker, and the Cloud API facade with him, is told the same: it may work later.
    let caller = stage.broker().caller(&"acme".parse().unwrap(), &"crm".parse().unwrap()).unwrap();
    let told = caller.ask(channel, Ask::Get, 1).await;
    assert!(matches!(told, Answered::Refused(Refusal::Unavailable)), "{told:?}");
    drop(caller);
    // Another channel of the same portal goes on, and what it forgets is gone in time.
    let other = crm.create(MUTE_NUMBER).await.seen.channel;
    assert_ne!(other, channel);
    let since = Instant::now();
    while !stage.has_file(".quarantine") || stage.holds_in("read-before-the-damage", ".segment") {
        assert!(since.elapsed() < GONE_WITHIN, "a quarantined channel pins its segments");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(stage.holds_in("read-before-the-damage", ".quarantine"), "its records are set aside");
    drop(crm);
    stage.restart().await;
    let mut crm = stage.service("crm").await;
    assert_eq!(crm.refused(get).await, ErrorCode::Unavailable, "half a state is never served");
    drop(crm);
    stage.stop().await;
}
