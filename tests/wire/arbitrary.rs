//! Any message that the protocol can carry, for property tests.

use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use sharedline::domain::command::{ChannelSeen, ChannelState, ClaimSeen, Warning, WarningCode, Window};
use sharedline::domain::event::{
    Agent, ClaimAction, Customer, MembershipAction, Settings, Status, StatusError, ThreadAction,
};
use sharedline::domain::ids::{
    AgentId, ChannelId, ConversationId, CustomerName, MessageId, Number, Offset, ReplyId, ServiceId,
    Timestamp,
};
use sharedline::domain::presence::Doing;
use sharedline::wire::message::{
    Addressee, ConversationEntry, DeliverMode, Delivery, ErrorCode, Flag, GapReason, Holder, Name,
    PROTOCOL_VERSION, Parent, Positions, Private, RawContent, Request, Response, SentOutcome, StatusOf,
    ThreadOwnership, ThreadVerb, Who, deliveries, requests, responses,
};

use crate::cases::{all_responses, id};

fn offset() -> impl Strategy<Value = Offset> + Clone {
    prop_oneof![0..1000_u64, any::<u64>()].prop_map(Offset)
}

fn time() -> impl Strategy<Value = Timestamp> + Clone {
    any::<u64>().prop_map(Timestamp)
}

fn channel() -> impl Strategy<Value = ChannelId> + Clone {
    prop_oneof![(0..1000_u128).boxed(), any::<u128>().boxed()].prop_map(ChannelId)
}

fn conversation() -> impl Strategy<Value = ConversationId> + Clone {
    any::<u64>().prop_map(ConversationId)
}

fn place() -> impl Strategy<Value = (ChannelId, Offset, ConversationId, Timestamp)> + Clone {
    (channel(), offset(), conversation(), time())
}

fn plain<T: std::str::FromStr + std::fmt::Debug>() -> impl Strategy<Value = T>
where
    T::Err: std::fmt::Debug,
{
    "[A-Za-z0-9._:-]{1,64}".prop_map(|text| id(&text))
}

fn agent() -> impl Strategy<Value = AgentId> {
    "[ -~äß☎]{1,30}".prop_map(|text| id(&text))
}

fn reply_id() -> impl Strategy<Value = ReplyId> {
    "[ -~äß☎]{1,30}".prop_map(|text| id(&text))
}

fn message_id() -> impl Strategy<Value = MessageId> {
    "wamid\\.[A-Za-z0-9=]{1,80}".prop_map(|text| id(&text))
}

fn wa_id() -> impl Strategy<Value = CustomerName> {
    "[0-9]{5,15}".prop_map(|text| id(&text))
}

fn user_id() -> impl Strategy<Value = CustomerName> {
    "[A-Z]{2}\\.[A-Za-z0-9]{1,60}".prop_map(|text| id(&text))
}

fn number() -> impl Strategy<Value = Number> {
    "\\+[0-9]{7,15}".prop_map(|text| id(&text))
}

/// Any text at all, with what JSON must escape.
fn text() -> impl Strategy<Value = Arc<str>> {
    "(?s).{0,40}".prop_map(Arc::from)
}

fn private() -> impl Strategy<Value = Private> {
    text().prop_map(Private)
}

fn name() -> impl Strategy<Value = Name> {
    text().prop_map(Name)
}

fn content() -> impl Strategy<Value = RawContent> {
    ("[a-z]{1,10}", "(?s).{0,60}", any::<bool>()).prop_map(|(kind, body, is_spaced)| {
        let body = serde_json::to_string(&body).unwrap();
        let blank = if is_spaced { " " } else { "" };
        RawContent(Bytes::from(format!(r#"{{"type":{blank}"{kind}","{kind}":{{"body":{body}}}{blank}}}"#)))
    })
}

fn customer() -> impl Strategy<Value = Customer> {
    let known = (user_id(), of(wa_id())).prop_map(|(user_id, wa_id)| (Some(user_id), wa_id));
    let phone = wa_id().prop_map(|wa_id| (None, Some(wa_id)));
    (prop_oneof![known, phone], of(text())).prop_map(|((user_id, wa_id), name)| Customer {
        user_id,
        wa_id,
        name,
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    any::<(bool, bool)>().prop_map(|(reveal_service, reveal_kind)| Settings { reveal_service, reveal_kind })
}

fn status_error() -> impl Strategy<Value = StatusError> {
    (text(), of(text()), of(text())).prop_map(|(code, title, details)| StatusError { code, title, details })
}

fn word<T: Clone + std::fmt::Debug + 'static>(words: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(words)
}

const DOINGS: &[Doing] = &[Doing::Gone, Doing::Looking, Doing::Writing];
const TOLD: &[Status] = &[Status::Sent, Status::Delivered, Status::Read, Status::Played, Status::Failed];
const STATUSES: &[Status] = &[
    Status::Accepted,
    Status::Unknown,
    Status::Sent,
    Status::Delivered,
    Status::Read,
    Status::Played,
    Status::Failed,
];
const ACTIONS: &[ClaimAction] =
    &[ClaimAction::PickedUp, ClaimAction::Released, ClaimAction::Transferred, ClaimAction::Expired];
const MEMBERSHIP_ACTIONS: &[MembershipAction] = &[
    MembershipAction::Subscribed,
    MembershipAction::Deactivated,
    MembershipAction::Activated,
    MembershipAction::Deleted,
    MembershipAction::ParentChanged,
    MembershipAction::Configured,
];
const STATES: &[ChannelState] = &[ChannelState::Active, ChannelState::Dormant, ChannelState::Closed];
const WARNING_CODES: &[WarningCode] =
    &[WarningCode::PickedUpElsewhere, WarningCode::RepliedElsewhere, WarningCode::ClaimedByOther];
const MODES: &[DeliverMode] = &[DeliverMode::Share, DeliverMode::None, DeliverMode::Watch];
const THREAD_ACTIONS: &[ThreadAction] = &[ThreadAction::Taken, ThreadAction::Passed, ThreadAction::Released];
const THREAD_OWNERS: &[ThreadOwnership] =
    &[ThreadOwnership::Nobody, ThreadOwnership::Another, ThreadOwnership::Own];
const REASONS: &[GapReason] = &[GapReason::Retention, GapReason::Corrupt, GapReason::Erased];

fn code() -> impl Strategy<Value = ErrorCode> {
    let codes: Vec<ErrorCode> = all_responses()
        .iter()
        .filter_map(|response| if let Response::Error(error) = response { Some(error.code) } else { None })
        .collect();
    prop::sample::select(codes)
}

fn subscribers() -> impl Strategy<Value = Arc<[ServiceId]>> {
    vec(plain::<ServiceId>(), 0..4).prop_map(Arc::from)
}

fn seen() -> impl Strategy<Value = ChannelSeen> {
    (channel(), number(), word(STATES), of(plain()), subscribers(), settings(), offset()).prop_map(
        |(channel, number, state, parent, subscribers, settings, head)| ChannelSeen {
            channel,
            number,
            state,
            parent,
            subscribers,
            settings,
            head,
        },
    )
}

fn window() -> impl Strategy<Value = Window> {
    prop_oneof![Just(Window::Unknown), time().prop_map(Window::Open), time().prop_map(Window::Closed)]
}

fn claim() -> impl Strategy<Value = ClaimSeen> {
    (any::<bool>(), of(plain()), of(agent()), of(text()), of(time()))
        .prop_map(|(own, service, agent, name, since)| ClaimSeen { own, service, agent, name, since })
}

fn warning() -> impl Strategy<Value = Warning> {
    (word(WARNING_CODES), text(), of(agent()), of(text()), of(plain()))
        .prop_map(|(code, text, agent, name, service)| Warning { code, text, agent, name, service })
}

fn hello() -> impl Strategy<Value = Request> {
    let who = prop_oneof![
        (plain(), plain()).prop_map(|(service, adapter)| (Who::Service(service), Some(adapter))),
        (plain(), of(plain())).prop_map(|(gateway, adapter)| (Who::Gateway(gateway), adapter)),
    ];
    let from = vec((channel(), offset()), 0..4).prop_map(|mut from| {
        // A JSON object has each name once.
        from.sort_unstable();
        from.dedup_by_key(|(channel, _)| *channel);
        Positions(from)
    });
    let numbers = (Just(PROTOCOL_VERSION), any::<u32>(), of(any::<u64>()));
    (who, plain(), private(), word(MODES), from, numbers).prop_map(
        |((who, adapter), portal, token, deliver, from, (version, window, heartbeat_ms))| {
            requests::Hello { version, who, portal, token, adapter, window, deliver, from, heartbeat_ms }
                .into()
        },
    )
}

fn channel_request() -> BoxedStrategy<Request> {
    let agents = vec(
        (agent(), text(), any::<bool>()).prop_map(|(agent, name, lead)| Agent { agent, name, lead }),
        0..5,
    );
    let limits = (of(any::<u32>()), of(any::<bool>()), of(any::<bool>()));
    prop_oneof![
        (agents, any::<bool>(), vec(agent(), 0..4)).prop_map(|(agents, replace, remove)| requests::Roster {
            agents,
            replace,
            remove
        }
        .into()),
        (number(), any::<bool>())
            .prop_map(|(number, backfill)| requests::CreateChannel { number, backfill }.into()),
        (channel(), any::<bool>()).prop_map(|(channel, backfill)| requests::ActivateChannel {
            channel,
            backfill
        }
        .into()),
        channel().prop_map(|channel| requests::DeactivateChannel { channel }.into()),
        channel().prop_map(|channel| requests::DeleteChannel { channel }.into()),
        channel().prop_map(|channel| requests::GetChannel { channel }.into()),
        (of(channel()), of(any::<u32>()))
            .prop_map(|(after, limit)| requests::ListChannels { after, limit }.into()),
        (channel(), of(conversation()), limits).prop_map(|(channel, after, (limit, claimed, unanswered))| {
            requests::ListConversations { channel, after, limit, claimed, unanswered }.into()
        }),
        (channel(), settings()).prop_map(|(channel, settings)| requests::ConfigureChannel {
            channel,
            settings
        }
        .into()),
        (channel(), offset()).prop_map(|(channel, offset)| requests::Ack { channel, offset }.into()),
        Just(requests::Ping {}.into()),
    ]
    .boxed()
}

fn conversation_request() -> BoxedStrategy<Request> {
    let place = || (channel(), conversation(), agent());
    let addressee =
        prop_oneof![conversation().prop_map(Addressee::Conversation), wa_id().prop_map(Addressee::Customer)];
    let control = (addressee.clone(), of(private()), of(agent()), 0..3_u8, plain());
    let asked = addressee.clone();
    let reply = (addressee, of(agent()), reply_id(), content(), of(offset()), of(private()));
    prop_oneof![
        (place(), any::<u32>(), of(offset())).prop_map(|((channel, conversation, agent), limit, before)| {
            requests::Open { channel, conversation, agent, limit, before }.into()
        }),
        (place(), of(private())).prop_map(|((channel, conversation, agent), confirm)| {
            requests::PickUp { channel, conversation, agent, confirm }.into()
        }),
        (place(), any::<bool>(), of(agent())).prop_map(|((channel, conversation, agent), force, holder)| {
            requests::Release { channel, conversation, agent, force, holder }.into()
        }),
        (place(), agent(), any::<bool>(), of(agent())).prop_map(
            |((channel, conversation, agent), to, force, holder)| {
                requests::Transfer { channel, conversation, agent, to, force, holder }.into()
            }
        ),
        (place(), word(DOINGS)).prop_map(|((channel, conversation, agent), doing)| {
            requests::Presence { channel, conversation, agent, doing }.into()
        }),
        (channel(), control).prop_map(|(channel, (of, metadata, agent, verb, to))| {
            let (action, to_service, metadata) = match verb {
                0 => (ThreadVerb::Take, None, metadata),
                1 => (ThreadVerb::Pass, Some(to), metadata),
                _ => (ThreadVerb::Release, None, None),
            };
            requests::ThreadControl { channel, of, action, to_service, metadata, agent }.into()
        }),
        (channel(), asked).prop_map(|(channel, of)| requests::ThreadOwner { channel, of }.into()),
        (channel(), reply).prop_map(|(channel, (to, agent, reply_id, content, seen, confirm))| {
            requests::Reply { channel, to, agent, reply_id, content, seen, confirm }.into()
        }),
    ]
    .boxed()
}

fn gateway_request() -> BoxedStrategy<Request> {
    let about = prop_oneof![
        (channel(), offset()).prop_map(|(channel, offset)| StatusOf::Reply { channel, offset }),
        message_id().prop_map(StatusOf::Message),
    ];
    let outcome = prop_oneof![
        message_id().prop_map(SentOutcome::Sent),
        (status_error(), any::<bool>()).prop_map(|(error, definite)| SentOutcome::Error { error, definite }),
    ];
    prop_oneof![
        (number(), message_id(), customer(), time(), content(), of(message_id())).prop_map(
            |(number, message_id, customer, at, content, refers_to)| {
                requests::Inbound { number, message_id, customer, at, content, refers_to }.into()
            }
        ),
        (about, number(), word(TOLD), time(), of(status_error()), of(content())).prop_map(
            |(of, number, status, at, error, details)| {
                requests::Status { of, number, status, at, error, details }.into()
            }
        ),
        (channel(), offset(), outcome).prop_map(|(channel, offset, outcome)| requests::Sent {
            channel,
            offset,
            outcome
        }
        .into()),
    ]
    .boxed()
}

/// Any request.
pub(crate) fn request() -> BoxedStrategy<Request> {
    prop_oneof![hello(), channel_request(), conversation_request(), gateway_request()].boxed()
}

fn listed() -> impl Strategy<Value = ConversationEntry> {
    (conversation(), customer(), offset(), window(), vec(claim(), 0..3), any::<bool>()).prop_map(
        |(conversation, customer, head, window, claims, unanswered)| ConversationEntry {
            conversation,
            customer,
            head,
            window,
            claims,
            unanswered,
        },
    )
}

/// What a timeline may have.
fn entry() -> impl Strategy<Value = Delivery> {
    let is_of_before = |delivery: &Delivery| delivery.number() < 26;
    delivery().prop_filter("the first version of the protocol has no details", is_of_before)
}

fn opened() -> impl Strategy<Value = Response> {
    let told = (vec(claim(), 0..3), vec(warning(), 0..3), of(private()), vec(entry(), 0..4), any::<bool>());
    (conversation(), offset(), customer(), window(), told).prop_map(
        |(conversation, head, customer, window, (claims, warnings, confirm, timeline, more))| {
            responses::Conversation {
                conversation,
                head,
                customer,
                window,
                claims,
                warnings,
                confirm,
                timeline,
                more,
            }
            .into()
        },
    )
}

/// Any response.
pub(crate) fn response() -> BoxedStrategy<Response> {
    let welcome = (text(), text(), any::<u32>(), any::<u32>(), vec(seen(), 0..3), any::<bool>());
    let holder = (agent(), of(name())).prop_map(|(agent, name)| Holder { agent, name });
    let error = (code(), text(), of(vec(any::<u32>(), 0..3)), of(holder), of(any::<u64>()));
    let done = || of(any::<bool>());
    prop_oneof![
        welcome.prop_map(|(session, server, version, window, channels, more)| {
            responses::Welcome { session, server, version, window, channels, more: Flag(more) }.into()
        }),
        Just(responses::Ok {}.into()),
        (seen(), done(), done(), done()).prop_map(|(seen, created, joined, changed)| {
            responses::Channel { seen, created, joined, changed }.into()
        }),
        (vec(seen(), 0..3), of(channel())).prop_map(|(channels, next)| responses::Channels {
            channels,
            next
        }
        .into()),
        (vec(listed(), 0..3), of(conversation()))
            .prop_map(|(conversations, next)| responses::Conversations { conversations, next }.into()),
        opened(),
        Just(responses::PickedUp {}.into()),
        (vec(warning(), 1..3), private()).prop_map(|(warnings, confirm)| responses::Warning {
            warnings,
            confirm
        }
        .into()),
        (offset(), conversation(), reply_id(), any::<bool>()).prop_map(
            |(offset, conversation, reply_id, duplicate)| {
                responses::Accepted { offset, conversation, reply_id, duplicate }.into()
            }
        ),
        (any::<u32>(), any::<bool>()).prop_map(|(channels, duplicate)| responses::InboundAccepted {
            channels,
            duplicate
        }
        .into()),
        Just(responses::Pong {}.into()),
        error.prop_map(|(code, message, versions, holder, retry_after_ms)| {
            responses::Error { code, message, versions, holder, retry_after_ms }.into()
        }),
        any::<u64>().prop_map(|retry_after_ms| responses::Goaway { retry_after_ms }.into()),
        (conversation(), word(THREAD_OWNERS), of(time()), of(time()), of(private())).prop_map(
            |(conversation, owner, since, until, metadata)| {
                responses::Thread { conversation, owner, since, until, metadata }.into()
            }
        ),
    ]
    .boxed()
}

fn message_delivery() -> BoxedStrategy<Delivery> {
    prop_oneof![
        (place(), message_id(), customer(), content(), any::<bool>(), of(content())).prop_map(
            |((channel, offset, conversation, at), message_id, customer, content, redacted, contact)| {
                let redacted = Flag(redacted);
                deliveries::Message {
                    channel,
                    offset,
                    conversation,
                    at,
                    message_id,
                    customer,
                    content,
                    redacted,
                    contact,
                }
                .into()
            }
        ),
        (place(), of(agent()), reply_id(), content(), of(time())).prop_map(
            |((channel, offset, conversation, at), agent, reply_id, content, sent_at)| {
                deliveries::Reply { channel, offset, conversation, at, agent, reply_id, content, sent_at }
                    .into()
            }
        ),
        (place(), of(plain()), of(text()), of(content())).prop_map(
            |((channel, offset, conversation, at), service, kind, content)| {
                deliveries::MaskedReply { channel, offset, conversation, at, service, kind, content }.into()
            }
        ),
        (place(), reply_id(), of(message_id()), word(STATUSES), of(status_error())).prop_map(
            |((channel, offset, conversation, at), reply_id, message_id, status, error)| {
                deliveries::Receipt { channel, offset, conversation, at, reply_id, message_id, status, error }
                    .into()
            }
        ),
        (place(), reply_id(), of(message_id()), word(STATUSES), of(status_error()), content()).prop_map(
            |((channel, offset, conversation, at), reply_id, message_id, status, error, details)| {
                deliveries::DetailedReceipt {
                    channel,
                    offset,
                    conversation,
                    at,
                    reply_id,
                    message_id,
                    status,
                    error,
                    details,
                }
                .into()
            }
        ),
        (place(), wa_id(), reply_id(), content()).prop_map(
            |((channel, offset, conversation, _), to, reply_id, content)| {
                deliveries::Send { channel, offset, conversation, to, reply_id, content }.into()
            }
        ),
    ]
    .boxed()
}

fn other_delivery() -> BoxedStrategy<Delivery> {
    let after = (plain(), of(plain()).prop_map(Parent), subscribers());
    prop_oneof![
        (place(), word(ACTIONS), any::<bool>(), of(agent())).prop_map(
            |((channel, offset, conversation, at), action, own, agent)| {
                deliveries::Claim { channel, offset, conversation, at, action, own, agent }.into()
            }
        ),
        (place(), word(DOINGS), any::<bool>(), of(agent()), of(name())).prop_map(
            |((channel, _, conversation, at), doing, own, agent, name)| {
                deliveries::Presence { channel, conversation, at, doing, own, agent, name }.into()
            }
        ),
        (place(), word(THREAD_ACTIONS), any::<(bool, bool)>(), of(agent()), of(time()), of(private()))
            .prop_map(
                |((channel, offset, conversation, at), action, (own, was_own), agent, until, metadata)| {
                    deliveries::Thread {
                        channel,
                        offset,
                        conversation,
                        at,
                        action,
                        own,
                        was_own,
                        agent,
                        until,
                        metadata,
                    }
                    .into()
                }
            ),
        (place(), conversation()).prop_map(|((channel, offset, conversation, at), from)| {
            deliveries::ConversationMerged { channel, offset, conversation, at, from }.into()
        }),
        (place(), text(), content()).prop_map(|((channel, offset, _, at), field, content)| {
            deliveries::Notice { channel, offset, at, field, content }.into()
        }),
        (place(), offset(), word(REASONS)).prop_map(|((channel, offset, _, at), from, reason)| {
            deliveries::Gap { channel, offset, at, from, to: offset, reason }.into()
        }),
        (place(), word(MEMBERSHIP_ACTIONS), after).prop_map(
            |((channel, offset, _, at), action, (service, parent, subscribers))| {
                deliveries::Membership { channel, offset, at, action, service, parent, subscribers }.into()
            }
        ),
    ]
    .boxed()
}

/// Any delivery.
pub(crate) fn delivery() -> BoxedStrategy<Delivery> {
    prop_oneof![message_delivery(), other_delivery()].boxed()
}
