//! What is written straight from the domain has the bytes that the owned message has, so that a client reads it as that.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sharedline::domain::command::{ClaimSeen, Warning, Window};
use sharedline::domain::content::{CONTACT_BYTES_MAX, CONTENT_BYTES_MAX, Carried, Content};
use sharedline::domain::event::{
    Actor, ClaimAction, ClaimChange, ClearTo, Event, Membership, MembershipAction, Merged, Message, Notice,
    Receipt, Record, Reply, Settings, Status, StatusError, ThreadAction, ThreadChange,
};
use sharedline::domain::ids::{ConversationId, Offset, ServiceId, Timestamp};
use sharedline::domain::presence::{Doing, Presence, PresenceSeen};
use sharedline::domain::view::{Masking, Viewer, view};
use sharedline::wire::codec::{EncodeError, decode_server, encode_owned_delivery, encode_response};
use sharedline::wire::delivery::{GapSeen, TimelineWriter, encode_delivery, encode_gap, encode_presence};
use sharedline::wire::frame::{Encoding, FRAME_BYTES_MAX};
use sharedline::wire::message::{
    Delivery, Flag, GapReason, Parent, Private, Response, ServerBody, responses,
};

use crate::cases::{CHANNEL, CONVERSATION, customer, id, opened};
use crate::golden::split;

const ENCODINGS: [Encoding; 2] = [Encoding::JsonLines, Encoding::Binary];
const SECRET: &str = "canary-7f3a";

fn text(body: &str) -> Content {
    Content::checked(Bytes::from(format!(r#"{{"type":"text","text":{{"body":"{body}"}}}}"#)), 9..13, &[])
}

/// A customer's answer to a button whose payload another service wrote.
fn button() -> Content {
    let json = format!(r#"{{"type":"button","button":{{"payload":"{SECRET}","text":"Yes"}}}}"#);
    let (start, end) = (json.find(r#""payload""#).unwrap(), json.find(r#""text""#).unwrap());
    let cut = u32::try_from(start).unwrap()..u32::try_from(end).unwrap();
    Content::checked(Bytes::from(json), 9..15, std::slice::from_ref(&cut))
}

fn record(event: Event) -> Record {
    let of_channel = matches!(event, Event::Membership(_) | Event::Notice(_));
    Record {
        offset: Offset(300),
        at: Timestamp(1_772_000_000_000),
        conversation: (!of_channel).then_some(CONVERSATION),
        event,
    }
}

fn message(clear_to: ClearTo, content: Content) -> Record {
    record(Event::from(Message {
        message_id: id("wamid.1"),
        customer: customer(),
        formerly: Vec::new(),
        sent_at: Timestamp(1_771_999_999_000),
        content,
        refers_to: None,
        clear_to,
        contact: None,
    }))
}

fn reply(reveal: Settings) -> Record {
    record(Event::from(Reply {
        service: id("crm"),
        agent: Some(id("ann")),
        reply_id: id("r-1"),
        digest: 5,
        content: text(SECRET),
        callback_data: None,
        to: customer(),
        reveal,
        echo_of: None,
        sent_at: None,
    }))
}

/// A receipt with what else WhatsApp's status says.
fn detailed() -> Record {
    record(Event::from(Receipt {
        reply: Offset(290),
        service: id("crm"),
        reply_id: id("r-1"),
        message_id: Some(id("wamid.2")),
        status: Status::Read,
        error: None,
        status_at: Timestamp(1),
        carried: Some(Carried::checked(Bytes::from(format!(r#"{{"pricing":"{SECRET}"}}"#)))),
    }))
}

const CONTACT: &str = r#"{"profile":{"username":"eve.e"}}"#;

/// A message with what else WhatsApp says of its customer.
fn with_contact(clear_to: ClearTo, content: Content) -> Record {
    let mut record = message(clear_to, content);
    let Event::Message(message) = &mut record.event else { panic!() };
    message.contact = Some(Box::new(Carried::checked(Bytes::from_static(CONTACT.as_bytes()))));
    record
}

/// A reply that was written on the phone, and when.
fn echo() -> Record {
    let mut record = reply(Settings::default());
    let Event::Reply(reply) = &mut record.event else { panic!() };
    reply.echo_of = Some(id("wamid.phone"));
    reply.sent_at = Some(Timestamp(1_771_999_999_000));
    record
}

fn records() -> Vec<Record> {
    let claim = |action, from| {
        record(Event::from(ClaimChange {
            action,
            service: id("crm"),
            agent: id("ann"),
            name: Some("Ann".into()),
            from,
            by: Actor::Broker,
            by_agent: None,
        }))
    };
    let receipt = |message_id, status, error| {
        record(Event::from(Receipt {
            reply: Offset(290),
            service: id("crm"),
            reply_id: id("r-1"),
            message_id,
            status,
            error,
            status_at: Timestamp(1),
            carried: None,
        }))
    };
    let membership = |parent: Option<ServiceId>| {
        record(Event::from(Membership {
            action: MembershipAction::Deleted,
            service: id("crm"),
            by: Actor::Operator,
            subscribers: parent.iter().cloned().collect(),
            parent,
            settings: Settings::default(),
            backfill: false,
        }))
    };
    let error = StatusError { code: "131026".into(), title: Some("No".into()), details: None };
    vec![
        message(ClearTo::Everyone, text("Hi")),
        message(ClearTo::Only(id("crm")), button()),
        reply(Settings::default()),
        reply(Settings { reveal_service: true, reveal_kind: true }),
        claim(ClaimAction::PickedUp, None),
        claim(ClaimAction::Transferred, Some(id("bob"))),
        receipt(Some(id("wamid.2")), Status::Sent, None),
        receipt(None, Status::Failed, Some(error)),
        record(Event::Merged(Merged { from: ConversationId(9) })),
        record(Event::from(Notice {
            field: "account_update".into(),
            content: text("news"),
            parent: id("crm"),
        })),
        membership(Some(id("desk"))),
        membership(None),
        record(Event::from(ThreadChange {
            action: ThreadAction::Passed,
            by: Actor::Service(id("crm")),
            agent: Some(id("ann")),
            owner: Some(id("desk")),
            previous: Some(id("crm")),
            until: Some(Timestamp(1_772_086_400_000)),
            metadata: Some("handed on".into()),
        })),
        record(Event::from(ThreadChange {
            action: ThreadAction::Taken,
            by: Actor::Service(id("crm")),
            agent: Some(id("ann")),
            owner: Some(id("crm")),
            previous: None,
            until: Some(Timestamp(1_772_086_400_000)),
            metadata: Some(SECRET.into()),
        })),
        detailed(),
        with_contact(ClearTo::Only(id("crm")), button()),
        echo(),
    ]
}

/// Every delivery that the records are, to the service concerned, to another one, and to one that masks for itself.
fn deliveries(encoding: Encoding) -> Vec<(Delivery, Bytes)> {
    let mut all = Vec::new();
    for (service, masking) in
        [("crm", Masking::Broker), ("desk", Masking::Broker), ("desk", Masking::Service)]
    {
        let service: ServiceId = id(service);
        for record in records() {
            let Some((_, seen)) = view(&record, &Viewer { service: &service, masking }) else { continue };
            let mut out = BytesMut::new();
            encode_delivery(encoding, CHANNEL, &record, &seen, &mut out).unwrap();
            all.push((read(encoding, &out), out.freeze()));
        }
    }
    all
}

fn read(encoding: Encoding, bytes: &[u8]) -> Delivery {
    match decode_server(encoding, &split(encoding, bytes)[0]).unwrap().body {
        ServerBody::Delivery(delivery) => delivery,
        ServerBody::Response(response) => panic!("{response:?}"),
    }
}

fn written(encoding: Encoding, delivery: &Delivery) -> Bytes {
    let mut out = BytesMut::new();
    encode_owned_delivery(encoding, delivery, &mut out).unwrap();
    out.freeze()
}

#[test]
fn what_is_written_from_a_view_is_what_the_owned_delivery_writes() {
    for encoding in ENCODINGS {
        let deliveries = deliveries(encoding);
        assert_eq!(deliveries.len(), 17 + 13 + 13, "{encoding:?}");
        for (delivery, bytes) in deliveries {
            assert_eq!(written(encoding, &delivery), bytes, "{delivery:?}");
        }
    }
}

#[test]
fn both_encodings_say_the_same_of_a_view() {
    let of = |encoding| deliveries(encoding).into_iter().map(|(delivery, _)| delivery).collect::<Vec<_>>();
    assert_eq!(of(Encoding::JsonLines), of(Encoding::Binary));
}

#[test]
fn a_view_says_of_the_record_what_its_viewer_may_know() {
    let seen: Vec<Delivery> =
        deliveries(Encoding::Binary).into_iter().map(|(delivery, _)| delivery).collect();
    let (crm, desk, trusted) = (&seen[..17], &seen[17..30], &seen[30..]);

    let Delivery::Message(message) = &crm[0] else { panic!("{:?}", crm[0]) };
    assert_eq!(
        (message.at, message.offset, message.channel),
        (Timestamp(1_771_999_999_000), Offset(300), CHANNEL)
    );
    assert_eq!(message.customer, customer());
    let Delivery::Message(message) = &crm[1] else { panic!("{:?}", crm[1]) };
    assert_eq!((message.redacted, &message.content.0), (Flag(false), button().expose()));
    let Delivery::Message(message) = &desk[1] else { panic!("{:?}", desk[1]) };
    assert_eq!((message.redacted, &message.content.0[..]), (Flag(true), &button().redacted()[..]));

    let Delivery::Reply(reply) = &crm[2] else { panic!("{:?}", crm[2]) };
    assert_eq!((reply.reply_id.as_str(), &reply.content.0), ("r-1", text(SECRET).expose()));
    let Delivery::MaskedReply(masked) = &desk[2] else { panic!("{:?}", desk[2]) };
    assert_eq!((&masked.service, &masked.kind, &masked.content), (&None, &None, &None));
    let Delivery::MaskedReply(masked) = &desk[3] else { panic!("{:?}", desk[3]) };
    assert_eq!(
        (&masked.service, &masked.kind, &masked.content),
        (&Some(id("crm")), &Some("text".into()), &None)
    );
    let Delivery::MaskedReply(masked) = &trusted[2] else { panic!("{:?}", trusted[2]) };
    assert_eq!(masked.content.as_ref().map(|content| &content.0), Some(text(SECRET).expose()));

    let Delivery::Claim(claim) = &crm[5] else { panic!("{:?}", crm[5]) };
    assert_eq!((claim.action, claim.own, &claim.agent), (ClaimAction::Transferred, true, &Some(id("ann"))));
    let Delivery::Claim(claim) = &desk[5] else { panic!("{:?}", desk[5]) };
    assert_eq!((claim.own, &claim.agent), (false, &None));

    let Delivery::Receipt(receipt) = &crm[7] else { panic!("{:?}", crm[7]) };
    assert_eq!((receipt.offset, receipt.status, &receipt.message_id), (Offset(300), Status::Failed, &None));
    let Delivery::Membership(membership) = &desk[8] else { panic!("{:?}", desk[8]) };
    assert_eq!((&membership.parent, membership.subscribers.len()), (&Parent(None), 0));

    let Delivery::Thread(thread) = &crm[12] else { panic!("{:?}", crm[12]) };
    assert_eq!((thread.own, thread.was_own, &thread.agent), (false, true, &Some(id("ann"))));
    assert_eq!((thread.until, &thread.metadata), (None, &None));
    let Delivery::Thread(thread) = &desk[9] else { panic!("{:?}", desk[9]) };
    assert_eq!((thread.own, thread.was_own, &thread.agent), (true, false, &None));
    assert_eq!(thread.until, Some(Timestamp(1_772_086_400_000)));
    assert_eq!(thread.metadata.as_ref().map(Private::expose), Some("handed on"));
    let Delivery::DetailedReceipt(receipt) = &crm[14] else { panic!("{:?}", crm[14]) };
    assert_eq!(receipt.status, Status::Read);
    assert_eq!(receipt.details.0, format!(r#"{{"pricing":"{SECRET}"}}"#));
    for (seen, redacted) in [(&crm[15], false), (&desk[11], true)] {
        let Delivery::Message(message) = seen else { panic!("{seen:?}") };
        assert_eq!(
            (message.redacted, message.contact.as_ref().map(|contact| &contact.0[..])),
            (Flag(redacted), Some(CONTACT.as_bytes()))
        );
    }
    let Delivery::Reply(reply) = &crm[16] else { panic!("{:?}", crm[16]) };
    assert_eq!((reply.at, reply.sent_at), (Timestamp(1_772_000_000_000), Some(Timestamp(1_771_999_999_000))));
    let Delivery::MaskedReply(masked) = &desk[12] else { panic!("{:?}", desk[12]) };
    assert_eq!(masked.at, Timestamp(1_772_000_000_000), "to others it is when the broker had it");
    let Delivery::Thread(thread) = &desk[10] else { panic!("{:?}", desk[10]) };
    assert_eq!((thread.own, thread.was_own, &thread.agent, &thread.metadata), (false, false, &None, &None));
}

#[test]
fn no_byte_of_a_masked_reply_is_written_for_another_service() {
    for encoding in ENCODINGS {
        let canary = SECRET.as_bytes();
        for (at, (delivery, bytes)) in deliveries(encoding).iter().enumerate().skip(17).take(13) {
            let shows = bytes.windows(canary.len()).any(|window| window == canary);
            assert!(!shows, "delivery {at}: {delivery:?}");
        }
    }
}

#[test]
fn a_record_without_the_conversation_that_its_view_needs_is_refused() {
    for encoding in ENCODINGS {
        let mut record = message(ClearTo::Everyone, text("Hi"));
        record.conversation = None;
        let viewer = Viewer { service: &id("crm"), masking: Masking::Broker };
        let (_, seen) = view(&record, &viewer).unwrap();
        let mut out = BytesMut::new();
        let refused = encode_delivery(encoding, CHANNEL, &record, &seen, &mut out);
        assert_eq!((refused, out.len()), (Err(EncodeError::NoConversation), 0));
    }
}

#[test]
fn presence_gap_and_send_read_back_as_what_they_are() {
    let (crm, ann): (ServiceId, _) = (id("crm"), id("ann"));
    let name: Arc<str> = "Ann".into();
    let change = Presence::default().renew(&crm, &ann, Some(&name), Doing::Writing, Timestamp(5)).unwrap();
    let own = change.seen_by(&crm).unwrap();
    let others = PresenceSeen { doing: Doing::Gone, own: None };
    let gap = GapSeen {
        channel: CHANNEL,
        at: Timestamp(5),
        from: Offset(2),
        to: Offset(9),
        reason: GapReason::Retention,
    };
    for encoding in ENCODINGS {
        for seen in [&own, &others] {
            let mut out = BytesMut::new();
            encode_presence(encoding, CHANNEL, CONVERSATION, Timestamp(5), seen, &mut out).unwrap();
            let Delivery::Presence(told) = read(encoding, &out) else { panic!() };
            assert_eq!((told.doing, told.own, told.at), (seen.doing, seen.own.is_some(), Timestamp(5)));
            assert_eq!(told.agent.as_ref(), seen.own.as_ref().map(|own| own.agent));
            assert_eq!(told.name.as_ref().map(|name| &name.0), seen.own.as_ref().and_then(|own| own.name));
            assert_eq!(written(encoding, &Delivery::Presence(told)), out);
        }

        let mut out = BytesMut::new();
        encode_gap(encoding, &gap, &mut out).unwrap();
        let Delivery::Gap(told) = read(encoding, &out) else { panic!() };
        assert_eq!((told.offset, told.from, told.to), (Offset(9), Offset(2), Offset(9)));
        assert_eq!(written(encoding, &Delivery::Gap(told)), out);
    }
}

fn conversation_in(encoding: Encoding, bytes: &[u8]) -> responses::Conversation {
    match decode_server(encoding, &split(encoding, bytes)[0]).unwrap().body {
        ServerBody::Response(Response::Conversation(conversation)) => conversation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_timeline_gathered_newest_first_is_read_oldest_first() {
    let response = opened(Window::Open(Timestamp(5)), Vec::new());
    for encoding in ENCODINGS {
        let mut timeline = TimelineWriter::new(encoding, 7, &response);
        assert!(timeline.is_empty());
        for offset in (1..=5).rev() {
            let mut record = message(ClearTo::Everyone, text("Hi"));
            record.offset = Offset(offset);
            let viewer = Viewer { service: &id("crm"), masking: Masking::Broker };
            let (_, seen) = view(&record, &viewer).unwrap();
            assert_eq!(timeline.push(CHANNEL, &record, &seen), Ok(true));
        }
        let gap = GapSeen {
            channel: CHANNEL,
            at: Timestamp(5),
            from: Offset(0),
            to: Offset(0),
            reason: GapReason::Corrupt,
        };
        assert!(timeline.push_gap(&gap));
        let mut out = BytesMut::new();
        timeline.finish(7, &response, &mut out).unwrap();

        let told = conversation_in(encoding, &out);
        let offsets: Vec<u64> = told
            .timeline
            .iter()
            .map(|entry| match entry {
                Delivery::Message(message) => message.offset.0,
                Delivery::Gap(gap) => gap.offset.0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(offsets, [0, 1, 2, 3, 4, 5]);
        // The same response, as a value, has the same bytes.
        let mut owned = BytesMut::new();
        encode_response(encoding, 7, &told.clone().into(), &mut owned).unwrap();
        assert_eq!(owned, out);
        assert_eq!(responses::Conversation { timeline: Vec::new(), ..told }, response);
    }
}

/// What a timeline has of a record of its service's, and the bytes that say so.
fn in_timeline(encoding: Encoding, record: &Record) -> (Delivery, BytesMut) {
    let (response, crm) = (opened(Window::Open(Timestamp(5)), Vec::new()), id("crm"));
    let (_, seen) = view(record, &Viewer { service: &crm, masking: Masking::Broker }).unwrap();
    let mut timeline = TimelineWriter::new(encoding, 7, &response);
    assert_eq!(timeline.push(CHANNEL, record, &seen), Ok(true));
    let mut out = BytesMut::new();
    timeline.finish(7, &response, &mut out).unwrap();
    let mut told = conversation_in(encoding, &out).timeline;
    assert_eq!(told.len(), 1, "{told:?}");
    (told.remove(0), out)
}

#[test]
fn a_timeline_has_only_what_the_first_version_of_the_protocol_has() {
    for encoding in ENCODINGS {
        let (told, _) = in_timeline(encoding, &detailed());
        let Delivery::Receipt(receipt) = &told else { panic!("{told:?}") };
        assert_eq!(receipt.status, Status::Read);

        let (told, _) = in_timeline(encoding, &echo());
        assert_eq!(told.number(), 14);

        let (told, out) = in_timeline(encoding, &with_contact(ClearTo::Everyone, text("Hi")));
        let Delivery::Message(message) = &told else { panic!("{told:?}") };
        assert_eq!((told.number(), &message.contact), (13, &None));
        assert!(!String::from_utf8_lossy(&out).contains("username"));
    }
}

/// Content, names and contact at their limits, each written as long as it can be.
#[test]
fn the_largest_message_with_the_largest_contact_fits_a_frame() {
    let largest = CONTENT_BYTES_MAX - text("").len();
    let mut record = with_contact(ClearTo::Everyone, text(&"x".repeat(largest)));
    let Event::Message(message) = &mut record.event else { panic!() };
    let contact = format!(r#"{{"n":"{}"}}"#, "x".repeat(CONTACT_BYTES_MAX - 8));
    assert_eq!((message.content.len(), contact.len()), (CONTENT_BYTES_MAX, CONTACT_BYTES_MAX));
    message.contact = Some(Box::new(Carried::checked(Bytes::from(contact))));
    message.message_id = id(&"\"".repeat(256));
    message.customer.user_id = Some(id(&format!("US.{}", "1".repeat(189))));
    message.customer.wa_id = Some(id(&"1".repeat(192)));
    message.customer.name = Some("\u{1}".repeat(256).into());
    let crm = id("crm");
    let (_, seen) = view(&record, &Viewer { service: &crm, masking: Masking::Broker }).unwrap();
    for encoding in ENCODINGS {
        let mut out = BytesMut::new();
        assert_eq!(encode_delivery(encoding, CHANNEL, &record, &seen, &mut out), Ok(()));
    }
}

#[test]
fn a_timeline_ends_where_the_response_would_be_too_long_but_has_one_entry() {
    for encoding in ENCODINGS {
        for (body, at_least) in [(100_000, 10), (1000, 700), (10, 2500), (1_030_000, 1)] {
            let response = responses::Conversation { more: false, ..opened(Window::Unknown, Vec::new()) };
            let mut timeline = TimelineWriter::new(encoding, 7, &response);
            let record = message(ClearTo::Everyone, text(&"x".repeat(body)));
            let viewer = Viewer { service: &id("crm"), masking: Masking::Broker };
            let (_, seen) = view(&record, &viewer).unwrap();
            while timeline.push(CHANNEL, &record, &seen).unwrap() {}
            assert!(timeline.len() >= at_least, "{} of {body}", timeline.len());
            let mut out = BytesMut::new();
            timeline.finish(7, &response, &mut out).unwrap();
            let told = conversation_in(encoding, &out);
            assert_eq!(told.timeline.len(), timeline.len());
            // It ends for want of room, not before: another entry, with its comma, would not have fitted.
            let entry = written(encoding, &told.timeline[0]).len();
            assert!(out.len() + entry + 64 > FRAME_BYTES_MAX, "{encoding:?} {body}");
        }
    }
}

#[test]
fn the_one_entry_fits_though_names_take_all_the_room_that_they_can() {
    // Each of these bytes takes six in a line.
    let name: Arc<str> = "\u{1}".repeat(256).into();
    let base = opened(Window::Unknown, Vec::new());
    let mut response = responses::Conversation { claims: Vec::new(), warnings: Vec::new(), ..base.clone() };
    response.customer.name = Some(name.clone());
    for _ in 0..8 {
        response.claims.push(ClaimSeen { name: Some(name.clone()), ..base.claims[0].clone() });
        let text = format!("{name} has picked up this conversation in another service.").into();
        response.warnings.push(Warning { text, name: Some(name.clone()), ..base.warnings[0].clone() });
    }
    let largest = CONTENT_BYTES_MAX - text("").len();
    let mut record = message(ClearTo::Everyone, text(&"x".repeat(largest)));
    let Event::Message(message) = &mut record.event else { panic!() };
    assert_eq!(message.content.len(), CONTENT_BYTES_MAX);
    message.customer.name = Some(name);
    let viewer = Viewer { service: &id("crm"), masking: Masking::Broker };
    let (_, seen) = view(&record, &viewer).unwrap();
    for encoding in ENCODINGS {
        let mut timeline = TimelineWriter::new(encoding, 7, &response);
        assert_eq!(timeline.push(CHANNEL, &record, &seen), Ok(true));
        assert_eq!(timeline.push(CHANNEL, &record, &seen), Ok(false));
        let mut out = BytesMut::new();
        timeline.finish(7, &response, &mut out).unwrap();
        let told = conversation_in(encoding, &out);
        assert_eq!(told.timeline.len(), 1);
        let (claims, warnings) = (told.claims.len(), told.warnings.len());
        assert!((1..=8).contains(&claims) && (1..=8).contains(&warnings), "{claims} {warnings}");
        assert_eq!(told.claims[..], response.claims[..claims], "the first ones, own first");
        let is_cut = claims + warnings < 16;
        assert_eq!(is_cut, encoding == Encoding::JsonLines, "only where it must be");
    }
}
