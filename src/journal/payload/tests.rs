//! Golden bytes of every kind, round trips of any event, and input that was cut, grown or flipped.

use std::fmt::Write as _;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::domain::content::{Carried, Content};
use crate::domain::event::{
    Acknowledged, Actor, Agent, ClaimAction, ClaimActivity, ClaimChange, ClearTo, Customer, Handed,
    Membership, MembershipAction, Merged, Message, Notice, Receipt, Reply, RosterChange, Settings, Status,
    StatusError, StatusParked, ThreadAction, ThreadChange,
};
use crate::domain::ids::{
    AgentId, ChannelId, ConversationId, CustomerName, MessageId, Number, Offset, ReplyId, ServiceId,
    Timestamp,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn golden_events() -> Vec<(Event, &'static str)> {
    let service = || ServiceId::trusted("crm");
    let agent = || AgentId::trusted("ann");
    let content =
        || Content::checked(Bytes::from_static(br#"{"type":"text"}"#), 9..13, std::slice::from_ref(&(1..3)));
    let customer = || Customer {
        user_id: Some(CustomerName::trusted("US.1")),
        wa_id: Some(CustomerName::trusted("1650")),
        name: Some(Arc::from("Eve")),
    };
    let error = || StatusError {
        code: Arc::from("131047"),
        title: Some(Arc::from("t")),
        details: Some(Arc::from("d")),
    };
    vec![
        (
            Event::from(Membership {
                action: MembershipAction::ParentChanged,
                service: service(),
                by: Actor::Service(ServiceId::trusted("desk")),
                parent: Some(service()),
                subscribers: Arc::from([service(), ServiceId::trusted("desk")]),
                settings: Settings { reveal_service: true, reveal_kind: true },
                backfill: true,
            }),
            "0f0400046465736b0363726d0363726d020363726d046465736b",
        ),
        (
            Event::from(Message {
                message_id: MessageId::trusted("wamid.A"),
                customer: customer(),
                formerly: vec![CustomerName::trusted("1651")],
                sent_at: Timestamp(1_700_000_000_000),
                content: content(),
                refers_to: Some(MessageId::trusted("wamid.B")),
                clear_to: ClearTo::Only(service()),
                contact: None,
            }),
            "3f0455532e310431363530034576650777616d69642e4180d095ffbc310777616d69642e42036372\
             6d010431363531090d0101030f7b2274797065223a2274657874227d",
        ),
        (
            Event::from(Reply {
                service: service(),
                agent: Some(agent()),
                reply_id: ReplyId::trusted("r1"),
                digest: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
                content: content(),
                callback_data: Some(Bytes::from_static(&[0xff, 0])),
                to: customer(),
                reveal: Settings { reveal_service: true, reveal_kind: true },
                echo_of: Some(MessageId::trusted("wamid.C")),
                sent_at: None,
            }),
            "ff0455532e310431363530034576650363726d03616e6e027231100f0e0d0c0b0a09080706050403\
             020102ff000777616d69642e43090d0101030f7b2274797065223a2274657874227d",
        ),
        (Event::Handed(Handed { reply: Offset(300), attempt: 2 }), "ac0202"),
        (
            Event::from(Receipt {
                reply: Offset(7),
                service: service(),
                reply_id: ReplyId::trusted("r1"),
                message_id: Some(MessageId::trusted("wamid.C")),
                status: Status::Failed,
                error: Some(error()),
                status_at: Timestamp(5),
                carried: None,
            }),
            "03070363726d0272310777616d69642e430603063133313034370174016405",
        ),
        (
            Event::from(StatusParked {
                message_id: MessageId::trusted("wamid.C"),
                status: Status::Read,
                error: None,
                status_at: Timestamp(5),
                carried: None,
            }),
            "000777616d69642e430405",
        ),
        (
            Event::from(ClaimChange {
                action: ClaimAction::Transferred,
                service: service(),
                agent: agent(),
                name: Some(Arc::from("Ann")),
                from: Some(AgentId::trusted("bob")),
                by: Actor::Operator,
                by_agent: Some(AgentId::trusted("cid")),
            }),
            "07020363726d03616e6e03416e6e03626f620103636964",
        ),
        (Event::from(ClaimActivity { service: service(), agent: agent() }), "0363726d03616e6e"),
        (Event::Merged(Merged { from: ConversationId(0xffff_ffff_ffff_ffff) }), "ffffffffffffffffff01"),
        (Event::Acknowledged(Acknowledged { service: service(), through: Offset(128) }), "0363726d8001"),
        (
            Event::from(Notice { field: Arc::from("account_update"), content: content(), parent: service() }),
            "0363726d0e6163636f756e745f757064617465090d0101030f7b2274797065223a2274657874227d",
        ),
        (
            Event::from(ThreadChange {
                action: ThreadAction::Passed,
                by: Actor::Service(service()),
                agent: Some(agent()),
                owner: Some(ServiceId::trusted("desk")),
                previous: Some(service()),
                until: Some(Timestamp(1_700_000_000_000)),
                metadata: Some(Arc::from("m\u{e4}")),
            }),
            "1f01000363726d03616e6e046465736b0363726d80d095ffbc31036dc3a4",
        ),
        (
            Event::from(Receipt {
                reply: Offset(7),
                service: service(),
                reply_id: ReplyId::trusted("r1"),
                message_id: Some(MessageId::trusted("wamid.C")),
                status: Status::Failed,
                error: Some(error()),
                status_at: Timestamp(5),
                carried: Some(Carried::checked(Bytes::from_static(br#"{"a":1}"#))),
            }),
            "03070363726d0272310777616d69642e430603063133313034370174016405\
             077b2261223a317d",
        ),
        (
            Event::from(StatusParked {
                message_id: MessageId::trusted("wamid.C"),
                status: Status::Read,
                error: None,
                status_at: Timestamp(5),
                carried: Some(Carried::checked(Bytes::from_static(br#"{"a":1}"#))),
            }),
            "000777616d69642e430405077b2261223a317d",
        ),
        (
            Event::from(Message {
                message_id: MessageId::trusted("wamid.A"),
                customer: customer(),
                formerly: Vec::new(),
                sent_at: Timestamp(1_700_000_000_000),
                content: content(),
                refers_to: None,
                clear_to: ClearTo::Everyone,
                contact: Some(Box::new(Carried::checked(Bytes::from_static(br#"{"a":1}"#)))),
            }),
            "070455532e310431363530034576650777616d69642e4180d095ffbc31\
             090d0101030f7b2274797065223a2274657874227d077b2261223a317d",
        ),
        (
            Event::from(Reply {
                service: service(),
                agent: None,
                reply_id: ReplyId::trusted("echo:wamid.C"),
                digest: 1,
                content: content(),
                callback_data: None,
                to: customer(),
                reveal: Settings::default(),
                echo_of: Some(MessageId::trusted("wamid.C")),
                sent_at: Some(Timestamp(1_700_000_000_000)),
            }),
            "270455532e310431363530034576650363726d0c6563686f3a77616d69642e43\
             010000000000000000000000000000000777616d69642e43\
             090d0101030f7b2274797065223a2274657874227d80d095ffbc31",
        ),
    ]
}

fn golden_portal_events() -> Vec<(PortalEvent, &'static str)> {
    let service = || ServiceId::trusted("crm");
    vec![
        (
            PortalEvent::Roster(RosterChange {
                service: service(),
                agents: vec![Agent { agent: AgentId::trusted("ann"), name: Arc::from("Ann"), lead: true }],
                replace: true,
                remove: vec![AgentId::trusted("bob")],
            }),
            "010363726d0103616e6e03416e6e010103626f62",
        ),
        (
            PortalEvent::ChannelOpened {
                channel: ChannelId(1),
                number: Number::trusted("+15550783881"),
                service: Some(service()),
            },
            "01010000000000000000000000000000000c2b31353535303738333838310363726d",
        ),
        (PortalEvent::ChannelClosed { channel: ChannelId(1) }, "01000000000000000000000000000000"),
    ]
}

#[test]
fn every_kind_has_the_bytes_that_it_always_had() {
    for (event, golden) in golden_events() {
        let mut out = Vec::new();
        encode(&event, &mut out);
        assert_eq!(hex(&out), golden, "kind {}", kind_of(&event));
        assert_eq!(decode(kind_of(&event), &Bytes::from(out)), Ok(event));
    }
    for (event, golden) in golden_portal_events() {
        let mut out = Vec::new();
        encode_portal(&event, &mut out);
        assert_eq!(hex(&out), golden, "kind {}", portal_kind_of(&event));
        assert_eq!(decode_portal(portal_kind_of(&event), &Bytes::from(out)), Ok(event));
    }
}

#[test]
fn the_golden_events_leave_no_kind_out() {
    let mut kinds: Vec<u16> = golden_events().iter().map(|(event, _)| kind_of(event)).collect();
    kinds.extend(golden_portal_events().iter().map(|(event, _)| portal_kind_of(event)));
    assert_eq!(kinds, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 64, 65, 66]);
}

#[test]
fn an_unknown_kind_is_refused_by_its_number() {
    assert_eq!(decode(63, &Bytes::new()), Err(PayloadError::UnknownKind(63)));
    assert_eq!(decode(kind::ROSTER, &Bytes::new()), Err(PayloadError::UnknownKind(64)));
    assert_eq!(decode_portal(kind::MESSAGE, &Bytes::new()), Err(PayloadError::UnknownKind(2)));
}

#[test]
fn cut_or_grown_payloads_are_refused() {
    for (event, _) in golden_events() {
        let mut out = Vec::new();
        encode(&event, &mut out);
        for cut in 0..out.len() {
            assert!(decode(kind_of(&event), &Bytes::copy_from_slice(&out[..cut])).is_err(), "cut at {cut}");
        }
        out.push(0);
        assert_eq!(decode(kind_of(&event), &Bytes::from(out)), Err(PayloadError::Trailing(1)));
    }
    for (event, _) in golden_portal_events() {
        let mut out = Vec::new();
        encode_portal(&event, &mut out);
        for cut in 0..out.len() {
            assert!(decode_portal(portal_kind_of(&event), &Bytes::copy_from_slice(&out[..cut])).is_err());
        }
        out.push(0);
        assert_eq!(decode_portal(portal_kind_of(&event), &Bytes::from(out)), Err(PayloadError::Trailing(1)));
    }
}

#[test]
fn content_is_a_slice_of_what_was_read() {
    let (event, _) = golden_events().remove(1);
    let mut out = Vec::new();
    encode(&event, &mut out);
    let payload = Bytes::from(out);
    let Ok(Event::Message(message)) = decode(kind::MESSAGE, &payload) else { panic!("no message") };
    assert!(payload.as_ptr_range().contains(&message.content.expose().as_ptr()));
}

fn any_text() -> impl Strategy<Value = String> {
    "[ -~ä€]{0,20}"
}

fn any_shared() -> impl Strategy<Value = Arc<str>> {
    any_text().prop_map(Arc::from)
}

fn any_service() -> impl Strategy<Value = ServiceId> {
    "[a-z]{1,9}".prop_map(|text| ServiceId::trusted(&text))
}

fn any_agent() -> impl Strategy<Value = AgentId> {
    any_text().prop_map(|text| AgentId::trusted(&text))
}

fn any_message_id() -> impl Strategy<Value = MessageId> {
    any_text().prop_map(|text| MessageId::trusted(&text))
}

fn any_name() -> impl Strategy<Value = CustomerName> {
    any_text().prop_map(|text| CustomerName::trusted(&text))
}

fn any_customer() -> impl Strategy<Value = Customer> {
    (option::of(any_name()), option::of(any_name()), option::of(any_shared()))
        .prop_map(|(user_id, wa_id, name)| Customer { user_id, wa_id, name })
}

fn any_content() -> impl Strategy<Value = Content> {
    (vec(any::<u8>(), 0..300), vec(any::<u32>(), 0..6), any::<(u32, u32)>()).prop_map(
        |(bytes, cuts, kind)| {
            let within = |number: u32| number % (u32::try_from(bytes.len()).unwrap() + 1);
            let mut cuts: Vec<u32> = cuts.into_iter().map(within).collect();
            cuts.sort_unstable();
            let cuts: Vec<_> = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
            let (one, other) = (within(kind.0), within(kind.1));
            Content::checked(Bytes::from(bytes.clone()), one.min(other)..one.max(other), &cuts)
        },
    )
}

fn any_actor() -> impl Strategy<Value = Actor> {
    prop_oneof![any_service().prop_map(Actor::Service), Just(Actor::Operator), Just(Actor::Broker)]
}

fn any_settings() -> impl Strategy<Value = Settings> {
    any::<(bool, bool)>().prop_map(|(reveal_service, reveal_kind)| Settings { reveal_service, reveal_kind })
}

fn any_status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![
        Status::Accepted,
        Status::Unknown,
        Status::Sent,
        Status::Delivered,
        Status::Read,
        Status::Played,
        Status::Failed,
    ])
}

fn any_error() -> impl Strategy<Value = Option<StatusError>> {
    option::of(
        (any_shared(), option::of(any_shared()), option::of(any_shared()))
            .prop_map(|(code, title, details)| StatusError { code, title, details }),
    )
}

fn any_membership() -> impl Strategy<Value = Event> {
    let action = prop::sample::select(vec![
        MembershipAction::Subscribed,
        MembershipAction::Deactivated,
        MembershipAction::Activated,
        MembershipAction::Deleted,
        MembershipAction::ParentChanged,
        MembershipAction::Configured,
    ]);
    let list = vec(any_service(), 0..5);
    (action, any_service(), any_actor(), option::of(any_service()), list, any_settings(), any::<bool>())
        .prop_map(|(action, service, by, parent, subscribers, settings, backfill)| {
            let subscribers = subscribers.into();
            Event::from(Membership { action, service, by, parent, subscribers, settings, backfill })
        })
}

fn any_message() -> impl Strategy<Value = Event> {
    (
        (any_message_id(), any_customer(), vec(any_name(), 0..3), any::<u64>()),
        (any_content(), option::of(any_message_id()), option::of(any_service()), option::of(any_text())),
    )
        .prop_map(
            |((message_id, customer, formerly, sent_at), (content, refers_to, clear_to, contact))| {
                let clear_to = clear_to.map_or(ClearTo::Everyone, ClearTo::Only);
                let sent_at = Timestamp(sent_at);
                let contact = contact.map(|contact| Box::new(Carried::checked(Bytes::from(contact))));
                Event::from(Message {
                    message_id,
                    customer,
                    formerly,
                    sent_at,
                    content,
                    refers_to,
                    clear_to,
                    contact,
                })
            },
        )
}

fn any_reply() -> impl Strategy<Value = Event> {
    (
        (any_service(), option::of(any_agent()), any_text(), any::<u128>(), any_content()),
        (option::of(vec(any::<u8>(), 0..40)), any_customer(), any_settings(), option::of(any_message_id())),
        option::of(any::<u64>()),
    )
        .prop_map(
            |((service, agent, reply_id, digest, content), (callback_data, to, reveal, echo_of), sent_at)| {
                let reply_id = ReplyId::trusted(&reply_id);
                let callback_data = callback_data.map(Bytes::from);
                Event::from(Reply {
                    service,
                    agent,
                    reply_id,
                    digest,
                    content,
                    callback_data,
                    to,
                    reveal,
                    echo_of,
                    sent_at: sent_at.map(Timestamp),
                })
            },
        )
}

fn any_claim() -> impl Strategy<Value = Event> {
    let action = prop::sample::select(vec![
        ClaimAction::PickedUp,
        ClaimAction::Released,
        ClaimAction::Transferred,
        ClaimAction::Expired,
    ]);
    let (name, from, by_agent) = (option::of(any_shared()), option::of(any_agent()), option::of(any_agent()));
    (action, any_service(), any_agent(), name, from, any_actor(), by_agent).prop_map(
        |(action, service, agent, name, from, by, by_agent)| {
            Event::from(ClaimChange { action, service, agent, name, from, by, by_agent })
        },
    )
}

fn any_thread() -> impl Strategy<Value = Event> {
    let action =
        prop::sample::select(vec![ThreadAction::Taken, ThreadAction::Passed, ThreadAction::Released]);
    let (owner, previous) = (option::of(any_service()), option::of(any_service()));
    let (until, metadata) = (option::of(any::<u64>().prop_map(Timestamp)), option::of(any_shared()));
    (action, any_actor(), option::of(any_agent()), owner, previous, until, metadata).prop_map(
        |(action, by, agent, owner, previous, until, metadata)| {
            Event::from(ThreadChange { action, by, agent, owner, previous, until, metadata })
        },
    )
}

fn any_news() -> impl Strategy<Value = Event> {
    (
        any::<u64>(),
        any_service(),
        any_text(),
        option::of(any_message_id()),
        any_status(),
        any_error(),
        any::<u64>(),
        option::of(any_text()),
    )
        .prop_map(|(reply, service, reply_id, message_id, status, error, at, carried)| {
            let carried = carried.map(|carried| Carried::checked(Bytes::from(carried)));
            match message_id {
                Some(message_id) if reply % 2 == 0 => {
                    Event::from(StatusParked { message_id, status, error, status_at: Timestamp(at), carried })
                }
                message_id => Event::from(Receipt {
                    reply: Offset(reply),
                    service,
                    reply_id: ReplyId::trusted(&reply_id),
                    message_id,
                    status,
                    error,
                    status_at: Timestamp(at),
                    carried,
                }),
            }
        })
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any_membership(),
        any_message(),
        any_reply(),
        any_claim(),
        any_thread(),
        any_news(),
        (any::<u64>(), any::<u32>())
            .prop_map(|(reply, attempt)| Event::Handed(Handed { reply: Offset(reply), attempt })),
        (any_service(), any_agent())
            .prop_map(|(service, agent)| Event::from(ClaimActivity { service, agent })),
        any::<u64>().prop_map(|from| Event::Merged(Merged { from: ConversationId(from) })),
        (any_service(), any::<u64>())
            .prop_map(|(service, at)| Event::Acknowledged(Acknowledged { service, through: Offset(at) })),
        (any_shared(), any_content(), any_service())
            .prop_map(|(field, content, parent)| Event::from(Notice { field, content, parent })),
    ]
}

fn any_portal_event() -> impl Strategy<Value = PortalEvent> {
    let agents = vec(
        (any_agent(), any_shared(), any::<bool>()).prop_map(|(agent, name, lead)| Agent {
            agent,
            name,
            lead,
        }),
        0..4,
    );
    prop_oneof![
        (any_service(), agents, any::<bool>(), vec(any_agent(), 0..4)).prop_map(
            |(service, agents, replace, remove)| {
                PortalEvent::Roster(RosterChange { service, agents, replace, remove })
            }
        ),
        (any::<u128>(), "[0-9]{7,15}", option::of(any_service())).prop_map(|(channel, digits, service)| {
            let number = Number::trusted(&format!("+{digits}"));
            PortalEvent::ChannelOpened { channel: ChannelId(channel), number, service }
        }),
        any::<u128>().prop_map(|channel| PortalEvent::ChannelClosed { channel: ChannelId(channel) }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(event in any_event(), portal in any_portal_event()) {
        let mut out = Vec::new();
        encode(&event, &mut out);
        prop_assert_eq!(decode(kind_of(&event), &Bytes::from(out)), Ok(event));
        let mut out = Vec::new();
        encode_portal(&portal, &mut out);
        prop_assert_eq!(decode_portal(portal_kind_of(&portal), &Bytes::from(out)), Ok(portal));
    }

    /// Whatever the bytes: an event that is written again the same, or an error. Never a panic.
    #[test]
    fn flipped_payloads_end_in_an_event_or_an_error(event in any_event(), flips in vec(any::<(u16, u8)>(), 1..4)) {
        let mut out = Vec::new();
        encode(&event, &mut out);
        for (place, bits) in flips {
            let place = usize::from(place) % out.len();
            out[place] ^= bits;
        }
        let bytes = Bytes::from(out);
        if let Ok(read) = decode(kind_of(&event), &bytes) {
            let mut again = Vec::new();
            encode(&read, &mut again);
            prop_assert_eq!(Bytes::from(again), bytes);
        }
    }

    #[test]
    fn random_payloads_end_in_an_event_or_an_error(kind in 0_u16..70, bytes in vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = decode(kind, &bytes);
        let _ = decode_portal(kind, &bytes);
    }
}
