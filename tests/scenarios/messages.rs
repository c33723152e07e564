//! What customers write: once to every service, whatever their names, and to each what it may see.

use bytes::Bytes;
use sharedline::actors::broker::Submission;
use sharedline::domain::command::Inbound;
use sharedline::domain::content::Carried;
use sharedline::domain::event::{ClearTo, Customer, Message};
use sharedline::domain::ids::Timestamp;
use sharedline::wire::content::check_inbound;
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{ListConversations, Sent};
use sharedline::wire::message::{Delivery, ErrorCode, Response, SentOutcome};

use crate::stage::{MARIA, NUMBER, Stage, Tallied, by, inbound, now_ms, pick_up, reply, text_content, word};

pub(crate) async fn a_message_reaches_every_service_once(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, _) = stage.sharing(&["crm", "desk", "salesiq"]).await;
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    let again = gateway.inbound("wamid.1", &text_content("hello")).await;
    assert!(
        matches!(again, Response::InboundAccepted(accepted) if accepted.duplicate && accepted.channels == 1)
    );
    let spread =
        "{\n  \"type\": \"text\",\n  \"text\": { \"body\": \"two  words\" },\n  \"of_tomorrow\": [1.50]\n}";
    gateway.inbound("wamid.2", spread).await;
    let mut offsets = Vec::new();
    for peer in &mut peers {
        let (first, second) = (peer.message().await, peer.message().await);
        assert_eq!(first.content.0, text_content("hello"));
        assert_eq!(first.customer.wa_id.as_ref().unwrap().as_str(), MARIA);
        // White space between tokens may go; nothing else may.
        let (came, sent): (serde_json::Value, serde_json::Value) =
            (serde_json::from_slice(&second.content.0).unwrap(), serde_json::from_str(spread).unwrap());
        assert_eq!(came, sent);
        assert!(second.content.0.windows(4).any(|window| window == b"1.50"), "{came}");
        assert_eq!(first.conversation, second.conversation);
        offsets.push((first.offset, second.offset));
    }
    offsets.dedup();
    assert_eq!(offsets.len(), 1, "the same offsets to everybody");
    // One that came by webhook may say more of the customer.
    let contact = r#"{"profile":{"username":"maria.m"}}"#;
    let by_webhook = Inbound::from(Message {
        message_id: "wamid.by_webhook".parse().unwrap(),
        customer: Customer { wa_id: Some(MARIA.parse().unwrap()), ..Customer::default() },
        formerly: Vec::new(),
        sent_at: Timestamp(now_ms()),
        content: check_inbound(&Bytes::from(text_content("more"))).unwrap().content,
        refers_to: None,
        clear_to: ClearTo::Everyone,
        contact: Some(Box::new(Carried::checked(Bytes::from(contact)))),
    });
    let submitted = stage.broker().submit(&NUMBER.parse().unwrap(), &Submission::Message(by_webhook));
    submitted.unwrap().answers().await;
    for peer in &mut peers {
        let told = peer.message().await;
        assert_eq!(told.contact.as_ref().map(|contact| &contact.0[..]), Some(contact.as_bytes()));
        assert_eq!(told.content.0, text_content("more"));
    }
    // In JSON lines what is no JSON spoils the whole line, so that its id can not be read.
    let wrong = ["[1]", "{}", r#"{"type":5}"#, "{\"type\":\"text\"", ""];
    let wrong = if encoding == Encoding::Binary { &wrong[..] } else { &wrong[..3] };
    for wrong in wrong {
        assert!(matches!(gateway.inbound("wamid.3", wrong).await, Response::Error(_)), "{wrong}");
    }
    let large = text_content(&"x".repeat(1 << 20));
    let large = large.get(..(1 << 20) - 1_024).unwrap();
    let error = crate::stage::error(
        gateway.inbound("wamid.4", &format!("{}\"}}}}", &large[..large.len() - 3])).await,
    );
    assert_eq!(error.code, ErrorCode::TooLarge);
    gateway.text("wamid.5", "goes on").await;
    let mut nobody = inbound("wamid.6", MARIA, &text_content("x"));
    nobody.customer = Customer::default();
    assert_eq!(gateway.refused(nobody).await, ErrorCode::BadMessage);
}

pub(crate) async fn what_a_service_wrote_for_machines_goes_to_it_alone(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel) = stage.sharing(&["crm", "desk"]).await;
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    for peer in &mut peers {
        peer.message().await;
    }
    let conversation = peers[1].conversation(channel).await;
    peers[1].ask(by("bob", reply(channel, conversation, "r1"))).await;
    let send = gateway.send().await;
    gateway.sent(&send, "wamid.r1").await;
    let tapped =
        r#"{"type":"button","button":{"payload":"machine-secret","text":"Yes"},"context":{"id":"wamid.r1"}}"#;
    gateway.inbound("wamid.2", tapped).await;
    let mut copies = Vec::new();
    for peer in &mut peers {
        loop {
            if let Delivery::Message(message) = peer.next().await {
                copies.push((String::from_utf8(message.content.0.to_vec()).unwrap(), message.redacted.0));
                break;
            }
        }
    }
    assert!(
        !copies[0].0.contains("machine-secret") && copies[0].0.contains("Yes") && copies[0].1,
        "{copies:?}"
    );
    assert!(copies[1].0.contains("machine-secret") && !copies[1].1, "{copies:?}");
    // Who sent it is not known: only the parent gets the clear copy.
    gateway.inbound("wamid.3", &tapped.replace("wamid.r1", "wamid.unknown")).await;
    assert!(!peers[0].message().await.redacted.0);
    assert!(peers[1].message().await.redacted.0);
}

pub(crate) async fn two_names_that_prove_to_be_one_customer_become_one_conversation(
    encoding: Encoding,
    tally: &Tallied,
) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel) = stage.sharing(&["crm"]).await;
    let crm = &mut peers[0];
    let mut gateway = stage.gateway().await;
    gateway.ask(inbound("wamid.1", MARIA, &text_content("by phone"))).await;
    gateway.ask(inbound("wamid.2", "US.13491208655302741918", &text_content("by name"))).await;
    let (older, younger) = (crm.message().await, crm.message().await);
    assert_ne!(older.conversation, younger.conversation);
    let mut both = inbound("wamid.3", MARIA, &text_content("by both"));
    both.customer.user_id = younger.customer.user_id.clone();
    gateway.ask(both).await;
    let Delivery::ConversationMerged(merged) = crm.next().await else { panic!() };
    assert_eq!((merged.conversation, merged.from), (older.conversation, younger.conversation));
    assert_eq!(crm.message().await.conversation, older.conversation);
    let opened = crm.open_conversation(channel, younger.conversation, "ann").await;
    assert_eq!(opened.conversation, older.conversation);
    let words: Vec<String> = opened.timeline.iter().map(word).collect();
    assert_eq!(words, ["message wamid.1", "message wamid.2", "merged", "message wamid.3"]);
}

pub(crate) async fn conversations_are_listed_by_what_is_asked(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel) = stage.sharing(&["crm", "desk"]).await;
    let mut gateway = stage.gateway().await;
    for at in 1..=3 {
        let from = format!("1650555000{at}");
        gateway.ask(inbound(&format!("wamid.{at}"), &from, &text_content("hello"))).await;
    }
    let list =
        |claimed, unanswered, after, limit| ListConversations { channel, after, limit, claimed, unanswered };
    let page = async |peer: &mut crate::stage::Peer, list: ListConversations| match peer.ask(list).await {
        Response::Conversations(page) => page,
        other => panic!("{other:?}"),
    };
    let all = page(&mut peers[0], list(None, None, None, None)).await;
    assert_eq!((all.conversations.len(), all.next), (3, None));
    let first = all.conversations[0].conversation;
    assert!(matches!(peers[0].ask(pick_up(channel, first, "ann")).await, Response::PickedUp(_)));
    peers[0].ask(by("ann", reply(channel, first, "r1"))).await;
    let claimed = page(&mut peers[1], list(Some(true), None, None, None)).await;
    assert_eq!(claimed.conversations.len(), 1);
    let claim = &claimed.conversations[0].claims[0];
    assert!(!claim.own && claim.agent.is_none() && claim.service.is_none(), "{claim:?}");
    let own = page(&mut peers[0], list(Some(true), None, None, None)).await;
    assert!(own.conversations[0].claims[0].own && own.conversations[0].claims[0].agent.is_some());
    let waiting = page(&mut peers[1], list(None, Some(true), None, None)).await;
    assert_eq!(waiting.conversations.len(), 2);
    let one = page(&mut peers[1], list(None, None, None, Some(1))).await;
    assert_eq!(one.conversations.len(), 1);
    let rest = page(&mut peers[1], list(None, None, one.next, None)).await;
    assert_eq!(rest.conversations.len(), 2);
    let mut stranger = stage.service("salesiq").await;
    assert_eq!(stranger.refused(list(None, None, None, None)).await, ErrorCode::NotSubscribed);
    // The list goes on being true after a definite refusal.
    let send = gateway.send().await;
    let error = sharedline::domain::event::StatusError { code: "131026".into(), title: None, details: None };
    let outcome = SentOutcome::Error { error, definite: true };
    gateway.ok(Sent { channel, offset: send.offset, outcome }).await;
}

pub(crate) async fn notices_go_to_the_parent_alone(encoding: Encoding, tally: &Tallied) {
    use sharedline::actors::broker::Submission;
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel) = stage.sharing(&["crm", "desk"]).await;
    let content =
        sharedline::wire::content::check_notice(&bytes::Bytes::from_static(b"{\"quality\":\"GREEN\"}"))
            .unwrap();
    let notice = Submission::Notice { field: "phone_number_quality_update".into(), content };
    let submitted = stage.broker().submit(&crate::stage::NUMBER.parse().unwrap(), &notice).unwrap();
    submitted.answers().await;
    assert_eq!(peers[0].words(1).await, ["notice phone_number_quality_update"]);
    assert!(peers[1].settled(channel).await.is_empty());
}
