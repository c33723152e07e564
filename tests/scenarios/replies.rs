//! Replies: once to the customer, masked to the rest, never twice, with receipts that never go backwards.

use bytes::Bytes;
use sharedline::actors::broker::Submission;
use sharedline::domain::command::{self, Echo, StatusCommand, WarningCode};
use sharedline::domain::content::{CARRIED_BYTES_MAX, Carried};
use sharedline::domain::event::{Customer, Status as HowFar, StatusError};
use sharedline::domain::ids::{ChannelId, ConversationId, CustomerName, Timestamp};
use sharedline::wire::content::check_reply;
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{Reply, Sent, Status};
use sharedline::wire::message::{
    Addressee, Delivery, ErrorCode, RawContent, Response, SentOutcome, StatusOf,
};

use crate::stage::{
    HASTY_NUMBER, MARIA, MUTE_NUMBER, NUMBER, Peer, Stage, Tallied, accepted, by, inbound, now_ms, reply,
    text_content, warned, word,
};

async fn with_conversation(stage: &Stage, services: &[&str]) -> (Vec<Peer>, Peer, ChannelId, ConversationId) {
    let (mut peers, channel) = stage.sharing(services).await;
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    for peer in &mut peers {
        peer.message().await;
    }
    let conversation = peers[0].conversation(channel).await;
    (peers, gateway, channel, conversation)
}

fn status(message_id: &str, status: HowFar) -> Status {
    Status {
        of: StatusOf::Message(message_id.parse().unwrap()),
        number: NUMBER.parse().unwrap(),
        status,
        at: Timestamp(now_ms()),
        error: None,
        details: None,
    }
}

pub(crate) async fn a_reply_is_sent_once_and_masked_to_the_rest(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, mut gateway, channel, conversation) =
        with_conversation(&stage, &["crm", "desk", "chat"]).await;
    let done = accepted(peers[0].ask(by("ann", reply(channel, conversation, "r1"))).await);
    assert!(!done.duplicate && done.conversation == conversation);
    let send = gateway.send().await;
    assert_eq!(
        (send.offset, send.to.as_str(), send.reply_id.as_str()),
        (done.offset, crate::stage::MARIA, "r1")
    );
    assert_eq!(send.content.0, text_content("secret-of-the-sender"));
    gateway.sent(&send, "wamid.r1").await;
    let own = peers[0].words(2).await;
    assert_eq!(own, ["reply r1", "receipt r1 sent"]);
    assert_eq!(peers[1].words(1).await, ["masked"]);
    assert_eq!(peers[2].words(1).await, [format!("masked with {}", text_content("secret-of-the-sender"))]);
    let opened = peers[1].open_conversation(channel, conversation, "ann").await;
    assert_eq!(opened.timeline.iter().map(word).collect::<Vec<_>>(), ["message wamid.1", "masked"]);
    // Somebody who never wrote, by name: the window is closed to him only once that is known.
    let to = Addressee::Customer(CustomerName::read("+16505559999").unwrap());
    let fresh = accepted(peers[0].ask(Reply { to, ..reply(channel, conversation, "r2") }).await);
    assert_ne!(fresh.conversation, conversation);
    let send = gateway.send().await;
    assert_eq!(send.to.as_str(), "16505559999");
    let definite = SentOutcome::Error {
        error: StatusError { code: "131026".into(), title: Some("undeliverable".into()), details: None },
        definite: true,
    };
    gateway.ok(Sent { channel, offset: send.offset, outcome: definite }).await;
    peers[0].next().await;
    let Delivery::Receipt(failed) = peers[0].next().await else { panic!() };
    assert_eq!((failed.status, &*failed.error.unwrap().code), (HowFar::Failed, "131026"));
    for name in ["to", "recipient", "recipient_type", "messaging_product"] {
        let content = format!(r#"{{"type":"text","{name}":"x","text":{{"body":"b"}}}}"#);
        let addressed =
            Reply { content: RawContent(Bytes::from(content)), ..reply(channel, conversation, "r3") };
        assert_eq!(peers[0].refused(addressed).await, ErrorCode::BadMessage, "{name}");
    }
    assert_eq!(peers[0].refused(reply(channel, conversation, "echo:1")).await, ErrorCode::BadMessage);
}

pub(crate) async fn a_reply_id_is_answered_as_before(encoding: Encoding, tally: &Tallied) {
    let mut stage = Stage::set(encoding, tally);
    let (mut peers, _gateway, channel, conversation) = with_conversation(&stage, &["crm", "desk"]).await;
    let first = accepted(peers[0].ask(by("ann", reply(channel, conversation, "r1"))).await);
    let again = accepted(peers[0].ask(by("ann", reply(channel, conversation, "r1"))).await);
    assert!(again.duplicate && again.offset == first.offset);
    let mut other = by("ann", reply(channel, conversation, "r1"));
    other.content = RawContent(Bytes::from(text_content("something else")));
    assert_eq!(peers[0].refused(other).await, ErrorCode::Conflict);
    // Another service's ids are its own.
    assert!(!accepted(peers[1].ask(reply(channel, conversation, "r1")).await).duplicate);
    drop((peers, _gateway));
    stage.restart().await;
    let mut crm = stage.service("crm").await;
    let after = accepted(crm.ask(by("ann", reply(channel, conversation, "r1"))).await);
    assert!(after.duplicate && after.offset == first.offset);
}

pub(crate) async fn a_double_reply_is_caught(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, mut gateway, channel, conversation) = with_conversation(&stage, &["crm", "desk"]).await;
    let opened = peers[1].open_conversation(channel, conversation, "bob").await;
    accepted(peers[0].ask(by("ann", reply(channel, conversation, "r1"))).await);
    let late = Reply { seen: Some(opened.head), ..by("bob", reply(channel, conversation, "r2")) };
    let warning = warned(peers[1].ask(late.clone()).await);
    assert_eq!(warning.warnings[0].code, WarningCode::RepliedElsewhere);
    assert_eq!(gateway.send().await.reply_id.as_str(), "r1");
    let confirmed = Reply { confirm: Some(warning.confirm), ..late };
    assert!(!accepted(peers[1].ask(confirmed).await).duplicate);
}

pub(crate) async fn outside_the_window_templates_pass(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, mut gateway, channel, _) = with_conversation(&stage, &["crm"]).await;
    let mut old = inbound("wamid.old", "16505550002", &text_content("two days ago"));
    old.at = Timestamp(now_ms() - 2 * 86_400_000);
    gateway.ask(old).await;
    let crm = &mut peers[0];
    let conversation = crm.message().await.conversation;
    let opened = crm.open_conversation(channel, conversation, "ann").await;
    assert!(matches!(opened.window, sharedline::domain::command::Window::Closed(_)), "{:?}", opened.window);
    assert_eq!(crm.refused(reply(channel, conversation, "r1")).await, ErrorCode::WindowClosed);
    let template = r#"{"type":"template","template":{"name":"hello","language":{"code":"en_US"}}}"#;
    let template = Reply { content: RawContent(Bytes::from(template)), ..reply(channel, conversation, "r1") };
    accepted(crm.ask(template).await);
}

pub(crate) async fn receipts_never_go_backwards(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, mut gateway, channel, conversation) = with_conversation(&stage, &["crm"]).await;
    peers[0].ask(reply(channel, conversation, "r1")).await;
    let send = gateway.send().await;
    gateway.sent(&send, "wamid.r1").await;
    for how_far in [HowFar::Read, HowFar::Delivered, HowFar::Sent, HowFar::Failed, HowFar::Played] {
        gateway.ok(status("wamid.r1", how_far)).await;
    }
    let words: Vec<String> = peers[0].settled(channel).await.iter().map(word).collect();
    assert_eq!(words, ["reply r1", "receipt r1 sent", "receipt r1 read", "receipt r1 played"]);
    // By the reply's place, and never before it was handed over.
    peers[0].ask(reply(channel, conversation, "r2")).await;
    let send = gateway.send().await;
    gateway.sent(&send, "wamid.r2").await;
    let by_place =
        Status { of: StatusOf::Reply { channel, offset: send.offset }, ..status("wamid.r2", HowFar::Read) };
    gateway.ok(by_place).await;
    assert_eq!(peers[0].words(3).await, ["reply r2", "receipt r2 sent", "receipt r2 read"]);
    // One that came by webhook says more.
    let details = r#"{"pricing":{"billable":true}}"#;
    let by_webhook = StatusCommand {
        of: command::StatusOf::Message("wamid.r2".parse().unwrap()),
        status: HowFar::Played,
        error: None,
        status_at: Timestamp(now_ms()),
        carried: Some(Carried::checked(Bytes::from(details))),
    };
    let submitted = stage.broker().submit(&NUMBER.parse().unwrap(), &Submission::Status(by_webhook));
    submitted.unwrap().answers().await;
    assert_eq!(peers[0].words(1).await, [format!("receipt r2 played {details}")]);
}

pub(crate) async fn what_a_gateway_says_besides_of_a_status_reaches_who_sent(
    encoding: Encoding,
    tally: &Tallied,
) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, mut gateway, channel, conversation) = with_conversation(&stage, &["crm", "desk"]).await;
    let with = |message_id: &str, how_far, details: &str| Status {
        details: Some(RawContent(Bytes::from(details.to_owned()))),
        ..status(message_id, how_far)
    };
    peers[0].ask(reply(channel, conversation, "r1")).await;
    let send = gateway.send().await;
    // One that comes before its message is known waits with all that it says.
    let besides = r#"{"pricing":{"of":1.50},"errors":[{"code":1},{"code":2}],"new":"\u00e9 \/"}"#;
    gateway.ok(with("wamid.r1", HowFar::Delivered, besides)).await;
    gateway.sent(&send, "wamid.r1").await;
    // What a receipt has fields for goes no second time, and what the request said of itself to nobody.
    let whole = r#"{"id":"wamid.r1","conversation":{"id":"c"},"status":"read","timestamp":"1","biz_opaque_callback_data":"mine"}"#;
    gateway.ok(with("wamid.r1", HowFar::Read, whole)).await;
    let told = peers[0].words(4).await;
    assert_eq!(told[..2], ["reply r1", "receipt r1 sent"]);
    assert_eq!(told[2], format!("receipt r1 delivered {besides}"));
    assert_eq!(told[3], r#"receipt r1 read {"conversation":{"id":"c"}}"#);
    peers[0].ask(reply(channel, conversation, "r2")).await;
    let send = gateway.send().await;
    gateway.sent(&send, "wamid.r2").await;
    gateway.ok(with("wamid.r2", HowFar::Delivered, r#"{ "id": "wamid.r2" }"#)).await;
    let of = |bytes: usize| format!(r#"{{"n":"{}"}}"#, "x".repeat(bytes - r#"{"n":""}"#.len()));
    for (details, code) in [
        (of(CARRIED_BYTES_MAX + 1), ErrorCode::TooLarge),
        ("[1]".to_owned(), ErrorCode::BadMessage),
        (format!(r#"{{"n":{}{}}}"#, "[".repeat(64), "]".repeat(64)), ErrorCode::BadMessage),
    ] {
        assert_eq!(
            gateway.refused(with("wamid.r2", HowFar::Read, &details)).await,
            code,
            "{}",
            details.len()
        );
    }
    let largest = of(CARRIED_BYTES_MAX);
    gateway.ok(with("wamid.r2", HowFar::Read, &largest)).await;
    let told = peers[0].words(4).await;
    assert_eq!(told[..3], ["reply r2", "receipt r2 sent", "receipt r2 delivered"]);
    assert_eq!(told[3], format!("receipt r2 read {largest}"));
    let others: Vec<String> = peers[1].settled(channel).await.iter().map(word).collect();
    assert_eq!(others, ["masked", "masked"], "nothing of it to another service");
}

pub(crate) async fn what_was_written_on_the_phone_says_when(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, _gateway, channel, conversation) = with_conversation(&stage, &["crm", "desk"]).await;
    let written = Timestamp(now_ms() - 60_000);
    let content = check_reply(&Bytes::from(text_content("from the phone"))).unwrap().content;
    let echo = Echo {
        message_id: "wamid.phone".parse().unwrap(),
        to: Customer { wa_id: Some(MARIA.parse().unwrap()), ..Customer::default() },
        content,
        sent_at: Some(written),
    };
    let submitted = stage.broker().submit(&NUMBER.parse().unwrap(), &Submission::Echo(echo));
    submitted.unwrap().answers().await;
    let Delivery::Reply(told) = peers[0].next().await else { panic!("no reply") };
    assert_eq!((told.conversation, told.sent_at), (conversation, Some(written)));
    assert!(told.at > written, "the broker had it later");
    // To the others that it is there, and when the broker had it.
    let Delivery::MaskedReply(masked) = peers[1].next().await else { panic!("no masked reply") };
    assert_eq!((masked.at, masked.content), (told.at, None));
    let opened = peers[0].open_conversation(channel, conversation, "ann").await;
    let Some(Delivery::Reply(last)) = opened.timeline.last() else { panic!("{:?}", opened.timeline) };
    assert_eq!((last.offset, last.sent_at), (told.offset, None), "a timeline is what it was");
}

pub(crate) async fn what_a_lost_gateway_had_is_unknown(encoding: Encoding, tally: &Tallied) {
    let mut stage = Stage::set(encoding, tally);
    let (mut peers, mut gateway, channel, conversation) = with_conversation(&stage, &["crm"]).await;
    peers[0].ask(reply(channel, conversation, "r1")).await;
    let send = gateway.send().await;
    drop(gateway);
    assert_eq!(peers[0].words(2).await, ["reply r1", "receipt r1 unknown"]);
    // While no gateway is there, replies wait; one that comes later gets them, and the lost one never again.
    peers[0].ask(reply(channel, conversation, "r2")).await;
    let mut gateway = stage.gateway().await;
    let second = gateway.send().await;
    assert_eq!(second.reply_id.as_str(), "r2");
    // What a late word says still counts.
    gateway.sent(&send, "wamid.r1").await;
    assert_eq!(peers[0].words(2).await, ["reply r2", "receipt r1 sent"]);
    let indefinite = SentOutcome::Error {
        error: StatusError { code: "timeout".into(), title: None, details: None },
        definite: false,
    };
    gateway.ok(Sent { channel, offset: second.offset, outcome: indefinite }).await;
    assert_eq!(peers[0].words(1).await, ["receipt r2 unknown"]);
    // Handed over, and then the broker is gone: nobody can know.
    peers[0].ask(reply(channel, conversation, "r3")).await;
    gateway.send().await;
    let last = peers[0].next().await;
    peers[0].ack(&last).await;
    peers[0].settled(channel).await;
    drop((peers, gateway));
    stage.restart().await;
    let mut crm = stage.service("crm").await;
    assert_eq!(crm.words(1).await, ["receipt r3 unknown"]);
    let mut second = stage.open(stage.hello("acme", "second", "g")).await.unwrap();
    let outcome = SentOutcome::Sent("wamid.r3".parse().unwrap());
    assert_eq!(second.refused(Sent { channel, offset: send.offset, outcome }).await, ErrorCode::Forbidden);
    // A number without a gateway: replies wait.
    let mute = crm.create(MUTE_NUMBER).await.seen.channel;
    let mut gateway = stage.gateway().await;
    let mut message = inbound("wamid.m", crate::stage::MARIA, &text_content("x"));
    message.number = MUTE_NUMBER.parse().unwrap();
    gateway.ask(message).await;
    let conversation = crm.conversation(mute).await;
    accepted(crm.ask(reply(mute, conversation, "r4")).await);
}

pub(crate) async fn a_status_before_its_message_is_kept(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, mut gateway, channel, conversation) = with_conversation(&stage, &["crm"]).await;
    peers[0].ask(reply(channel, conversation, "r1")).await;
    let send = gateway.send().await;
    gateway.ok(status("wamid.r1", HowFar::Delivered)).await;
    gateway.sent(&send, "wamid.r1").await;
    let words: Vec<String> = peers[0].settled(channel).await.iter().map(word).collect();
    assert_eq!(words.last().unwrap(), "receipt r1 delivered", "{words:?}");
    let accepted = Status { status: HowFar::Accepted, ..status("wamid.r1", HowFar::Sent) };
    let answer = gateway.ask(accepted).await;
    assert!(matches!(answer, Response::Error(error) if error.code == ErrorCode::BadMessage));
}

pub(crate) async fn a_reply_that_waits_too_long_fails(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let mut crm = stage.service("crm").await;
    let channel = crm.create(HASTY_NUMBER).await.seen.channel;
    crm.next().await;
    let to = Addressee::Customer(CustomerName::read(crate::stage::MARIA).unwrap());
    let first = Reply { to, ..reply(channel, ConversationId(0), "r1") };
    accepted(crm.ask(first).await);
    assert_eq!(crm.words(1).await, ["reply r1"]);
    let Delivery::Receipt(failed) = crm.next().await else { panic!() };
    assert_eq!((failed.status, &*failed.error.unwrap().code), (HowFar::Failed, "expired"));
}

pub(crate) async fn a_reply_that_can_not_be_read_fails_and_holds_up_nobody(
    encoding: Encoding,
    tally: &Tallied,
) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, gateway, channel, conversation) = with_conversation(&stage, &["crm"]).await;
    drop(gateway);
    let damaged = Reply {
        content: RawContent(Bytes::from(text_content("to-be-damaged"))),
        ..reply(channel, conversation, "r1")
    };
    accepted(peers[0].ask(damaged).await);
    accepted(peers[0].ask(reply(channel, conversation, "r2")).await);
    stage.damage("to-be-damaged");
    // More than the channel keeps in memory comes behind it, so that it must be read.
    let mut second = stage.open(stage.hello("acme", "second", "second")).await.unwrap();
    let long = text_content(&"x".repeat(400 << 10));
    for id in ["wamid.long1", "wamid.long2", "wamid.long3"] {
        second.ask(inbound(id, crate::stage::MARIA, &long)).await;
    }
    let before = peers[0].words(5).await;
    assert_eq!(before[..2], ["reply r1", "reply r2"]);
    let mut gateway = stage.gateway().await;
    assert_eq!(gateway.send().await.reply_id.as_str(), "r2");
    assert_eq!(peers[0].words(1).await, ["receipt r1 failed"]);
}
