//! Every variant of every message, with all that can stand in it and with the least that can.

use std::sync::Arc;

use bytes::Bytes;
use sharedline::domain::command::{ChannelSeen, ChannelState, ClaimSeen, Warning, WarningCode, Window};
use sharedline::domain::event::{
    Agent, ClaimAction, Customer, MembershipAction, Settings, Status, StatusError, ThreadAction,
};
use sharedline::domain::ids::{
    AdapterId, AgentId, ChannelId, ConversationId, CustomerName, GatewayId, MessageId, Number, Offset,
    PortalId, ReplyId, ServiceId, Timestamp,
};
use sharedline::domain::presence::Doing;
use sharedline::wire::message::{
    Addressee, ConversationEntry, DeliverMode, Delivery, ErrorCode, Flag, GapReason, Holder, Name, Parent,
    Positions, Private, RawContent, Request, Response, SentOutcome, StatusOf, ThreadOwnership, ThreadVerb,
    Who, deliveries, requests, responses,
};

pub(crate) const CHANNEL: ChannelId = ChannelId(0x00c0_ffee_0123_4567_89ab_cdef_0000_0001);
const OTHER_CHANNEL: ChannelId = ChannelId(7);
pub(crate) const CONVERSATION: ConversationId = ConversationId(0x0123_4567_89ab_cdef);
const AT: Timestamp = Timestamp(1_772_000_000_123);

pub(crate) fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

pub(crate) fn content() -> RawContent {
    RawContent(Bytes::from_static(br#"{"type":"text","text":{"body":"Hello \"Eve\", \u00fc \n"}}"#))
}

pub(crate) fn customer() -> Customer {
    Customer {
        user_id: Some(id::<CustomerName>("US.13491208655302741918")),
        wa_id: Some(id("16505551234")),
        name: Some(Arc::from("Eve \"E\" Ünal\\\n\u{1}")),
    }
}

fn phone_only() -> Customer {
    Customer { user_id: None, wa_id: Some(id("16505551234")), name: None }
}

fn ann() -> AgentId {
    id("ann@example.com")
}

fn crm() -> ServiceId {
    id("crm")
}

fn seen(state: ChannelState, parent: Option<ServiceId>) -> ChannelSeen {
    let subscribers = if parent.is_some() { vec![crm(), id("desk")] } else { Vec::new() };
    ChannelSeen {
        channel: CHANNEL,
        number: id::<Number>("+15550783881"),
        state,
        parent,
        subscribers: Arc::from(subscribers),
        settings: Settings { reveal_service: true, reveal_kind: false },
        head: Offset(70_000),
    }
}

fn status_error() -> StatusError {
    StatusError {
        code: "131026".into(),
        title: Some("Undeliverable".into()),
        details: Some("Say \"no\"".into()),
    }
}

fn claims() -> Vec<ClaimSeen> {
    let full = ClaimSeen {
        own: true,
        service: Some(crm()),
        agent: Some(ann()),
        name: Some("Ann".into()),
        since: Some(AT),
    };
    vec![full, ClaimSeen { own: false, service: None, agent: None, name: None, since: None }]
}

fn warnings() -> Vec<Warning> {
    let generic = "Another agent has picked up this conversation in another service. You can still choose to pick \
                   it up here.";
    vec![
        Warning {
            code: WarningCode::ClaimedByOther,
            text: "Bob has it".into(),
            agent: Some(id("bob")),
            name: Some("Bob".into()),
            service: Some(crm()),
        },
        Warning {
            code: WarningCode::PickedUpElsewhere,
            text: generic.into(),
            agent: None,
            name: None,
            service: None,
        },
        Warning {
            code: WarningCode::RepliedElsewhere,
            text: "replied".into(),
            agent: None,
            name: None,
            service: None,
        },
    ]
}

fn hellos() -> Vec<Request> {
    let service = requests::Hello {
        version: 1,
        who: Who::Service(crm()),
        portal: id::<PortalId>("acme"),
        token: Private::from("s3cret"),
        adapter: Some(id::<AdapterId>("crm-1")),
        window: 1024,
        deliver: DeliverMode::Watch,
        from: Positions(vec![(CHANNEL, Offset(300)), (OTHER_CHANNEL, Offset(0))]),
        heartbeat_ms: Some(30_000),
    };
    let gateway = requests::Hello {
        who: Who::Gateway(id::<GatewayId>("whatsapp")),
        adapter: None,
        window: 65_536,
        deliver: DeliverMode::None,
        from: Positions::default(),
        heartbeat_ms: None,
        ..service.clone()
    };
    let share = requests::Hello { deliver: DeliverMode::Share, ..service.clone() };
    vec![service.into(), gateway.into(), share.into()]
}

fn claim_requests() -> Vec<Request> {
    let (channel, conversation, agent) = (CHANNEL, CONVERSATION, ann());
    let confirm = Some(Private::from("c0nf1rm"));
    vec![
        requests::Open { channel, conversation, agent: ann(), limit: 50, before: None }.into(),
        requests::Open { channel, conversation, agent: ann(), limit: 200, before: Some(Offset(251)) }.into(),
        requests::PickUp { channel, conversation, agent: ann(), confirm: None }.into(),
        requests::PickUp { channel, conversation, agent: ann(), confirm }.into(),
        requests::Release { channel, conversation, agent: ann(), force: false, holder: None }.into(),
        requests::Release { channel, conversation, agent: ann(), force: true, holder: Some(id("bob")) }
            .into(),
        requests::Transfer { channel, conversation, agent: ann(), to: id("bob"), force: false, holder: None }
            .into(),
        requests::Transfer {
            channel,
            conversation,
            agent,
            to: id("cleo"),
            force: true,
            holder: Some(id("bob")),
        }
        .into(),
    ]
}

fn reply_requests() -> Vec<Request> {
    let full = requests::Reply {
        channel: CHANNEL,
        to: Addressee::Conversation(CONVERSATION),
        agent: Some(ann()),
        reply_id: id::<ReplyId>("r-1"),
        content: content(),
        seen: Some(Offset(65_536)),
        confirm: Some(Private::from("c0nf1rm")),
    };
    let bot = requests::Reply {
        to: Addressee::Customer(id("16505551234")),
        agent: None,
        seen: None,
        confirm: None,
        ..full.clone()
    };
    vec![full.into(), bot.into()]
}

fn thread_requests() -> Vec<Request> {
    let full = requests::ThreadControl {
        channel: CHANNEL,
        of: Addressee::Conversation(CONVERSATION),
        action: ThreadVerb::Pass,
        to_service: Some(id("desk")),
        metadata: Some(Private::from("wants a \"refund\", \u{fc}")),
        agent: Some(ann()),
    };
    let to = || Addressee::Customer(id("16505551234"));
    let bare = |action| requests::ThreadControl {
        of: to(),
        action,
        to_service: None,
        metadata: None,
        agent: None,
        ..full.clone()
    };
    vec![
        full.clone().into(),
        bare(ThreadVerb::Take).into(),
        bare(ThreadVerb::Release).into(),
        requests::ThreadOwner { channel: CHANNEL, of: Addressee::Conversation(CONVERSATION) }.into(),
        requests::ThreadOwner { channel: CHANNEL, of: to() }.into(),
    ]
}

fn gateway_requests() -> Vec<Request> {
    let number: Number = id("+15550783881");
    let inbound = requests::Inbound {
        number: number.clone(),
        message_id: id::<MessageId>("wamid.HBgLMTY1MDU1NTEyMzQ="),
        customer: customer(),
        at: AT,
        content: content(),
        refers_to: Some(id("wamid.before")),
    };
    let status = requests::Status {
        of: StatusOf::Reply { channel: CHANNEL, offset: Offset(5) },
        number,
        status: Status::Failed,
        at: AT,
        error: Some(status_error()),
        details: None,
    };
    let json = r#"{"recipient_id":"16505551234","pricing":{"billable":true}}"#;
    let details = |json: &'static str| Some(RawContent(Bytes::from_static(json.as_bytes())));
    let of = StatusOf::Message(id("wamid.sent"));
    let (channel, offset) = (CHANNEL, Offset(250));
    let mut requests: Vec<Request> = vec![
        inbound.clone().into(),
        requests::Inbound { customer: phone_only(), refers_to: None, ..inbound }.into(),
        status.clone().into(),
        requests::Status { details: details(json), ..status.clone() }.into(),
        requests::Status {
            of: of.clone(),
            status: Status::Read,
            error: None,
            details: details("{}"),
            ..status.clone()
        }
        .into(),
        requests::Sent { channel, offset, outcome: SentOutcome::Sent(id("wamid.sent")) }.into(),
        requests::Sent {
            channel,
            offset,
            outcome: SentOutcome::Error { error: status_error(), definite: true },
        }
        .into(),
        requests::Sent {
            channel,
            offset,
            outcome: SentOutcome::Error {
                error: StatusError { code: "0".into(), title: None, details: None },
                definite: false,
            },
        }
        .into(),
    ];
    for word in [Status::Sent, Status::Delivered, Status::Read, Status::Played] {
        let error = None;
        requests.push(requests::Status { of: of.clone(), status: word, error, ..status.clone() }.into());
    }
    requests
}

/// Every request, in any order.
pub(crate) fn all_requests() -> Vec<Request> {
    let channel = CHANNEL;
    let agents = vec![
        Agent { agent: ann(), name: "Ann".into(), lead: true },
        Agent { agent: id("bob"), name: "".into(), lead: false },
    ];
    let mut all: Vec<Request> = vec![
        requests::Roster { agents, replace: true, remove: vec![id("cleo")] }.into(),
        requests::Roster { agents: Vec::new(), replace: false, remove: Vec::new() }.into(),
        requests::CreateChannel { number: id("+15550783881"), backfill: true }.into(),
        requests::ActivateChannel { channel, backfill: false }.into(),
        requests::DeactivateChannel { channel }.into(),
        requests::DeleteChannel { channel }.into(),
        requests::GetChannel { channel }.into(),
        requests::ListChannels { after: None, limit: None }.into(),
        requests::ListChannels { after: Some(OTHER_CHANNEL), limit: Some(500) }.into(),
        requests::ListConversations { channel, after: None, limit: None, claimed: None, unanswered: None }
            .into(),
        requests::ListConversations {
            channel,
            after: Some(CONVERSATION),
            limit: Some(200),
            claimed: Some(false),
            unanswered: Some(true),
        }
        .into(),
        requests::ConfigureChannel {
            channel,
            settings: Settings { reveal_service: false, reveal_kind: true },
        }
        .into(),
        requests::Ack { channel, offset: Offset(70_000) }.into(),
        requests::Ping {}.into(),
    ];
    for doing in [Doing::Gone, Doing::Looking, Doing::Writing] {
        all.push(requests::Presence { channel, conversation: CONVERSATION, agent: ann(), doing }.into());
    }
    all.extend(
        [hellos(), claim_requests(), reply_requests(), gateway_requests(), thread_requests()].concat(),
    );
    all
}

const CODES: [ErrorCode; 25] = [
    ErrorCode::BadMessage,
    ErrorCode::UnknownType,
    ErrorCode::TooLarge,
    ErrorCode::UnsupportedVersion,
    ErrorCode::Unauthenticated,
    ErrorCode::Forbidden,
    ErrorCode::NotFound,
    ErrorCode::NumberTaken,
    ErrorCode::ServiceNotEligible,
    ErrorCode::NotSubscribed,
    ErrorCode::NotParent,
    ErrorCode::Claimed,
    ErrorCode::NotClaimed,
    ErrorCode::UnknownAgent,
    ErrorCode::StaleConfirm,
    ErrorCode::Conflict,
    ErrorCode::WindowClosed,
    ErrorCode::ChannelClosed,
    ErrorCode::Overloaded,
    ErrorCode::Unavailable,
    ErrorCode::Internal,
    ErrorCode::Replaced,
    ErrorCode::Stalled,
    ErrorCode::Timeout,
    ErrorCode::Revoked,
];

fn errors() -> Vec<Response> {
    let error = |code| {
        let mut error = responses::Error::new(code, "a sentence");
        match code {
            ErrorCode::UnsupportedVersion => error.versions = Some(vec![1]),
            ErrorCode::Claimed => error.holder = Some(Holder { agent: ann(), name: Some(Name::from("Ann")) }),
            ErrorCode::Overloaded => error.retry_after_ms = Some(1500),
            _ => {}
        }
        error
    };
    let mut all: Vec<Response> = CODES.map(|code| error(code).into()).to_vec();
    let holder = Some(Holder { agent: ann(), name: None });
    all.push(responses::Error { holder, ..responses::Error::new(ErrorCode::Claimed, "") }.into());
    all
}

pub(crate) fn opened(window: Window, timeline: Vec<Delivery>) -> responses::Conversation {
    responses::Conversation {
        conversation: CONVERSATION,
        head: Offset(300),
        customer: customer(),
        window,
        claims: claims(),
        warnings: warnings(),
        confirm: Some(Private::from("c0nf1rm")),
        timeline,
        more: true,
    }
}

/// Every response, in any order.
pub(crate) fn all_responses() -> Vec<Response> {
    let active = seen(ChannelState::Active, Some(crm()));
    let channel = |seen: &ChannelSeen, created, joined, changed| {
        Response::from(responses::Channel { seen: seen.clone(), created, joined, changed })
    };
    let entry = |window, claims, unanswered| ConversationEntry {
        conversation: CONVERSATION,
        customer: customer(),
        head: Offset(9),
        window,
        claims,
        unanswered,
    };
    let bare = responses::Conversation {
        customer: phone_only(),
        claims: Vec::new(),
        warnings: Vec::new(),
        confirm: None,
        more: false,
        ..opened(Window::Unknown, Vec::new())
    };
    let welcome = responses::Welcome {
        session: "s-1".into(),
        server: "sharedline 0.1.0".into(),
        version: 1,
        window: 1024,
        channels: vec![active.clone()],
        more: Flag(true),
    };
    let thread = responses::Thread {
        conversation: CONVERSATION,
        owner: ThreadOwnership::Own,
        since: Some(AT),
        until: Some(Timestamp(AT.0 + 86_400_000)),
        metadata: Some(Private::from("wants a \"refund\"")),
    };
    let bare_thread = responses::Thread {
        owner: ThreadOwnership::Nobody,
        since: None,
        until: None,
        metadata: None,
        ..thread.clone()
    };
    let mut all: Vec<Response> = vec![
        welcome.clone().into(),
        responses::Welcome { channels: Vec::new(), more: Flag(false), ..welcome }.into(),
        responses::Ok {}.into(),
        channel(&active, Some(true), Some(false), None),
        channel(&seen(ChannelState::Dormant, None), None, None, Some(true)),
        channel(&seen(ChannelState::Closed, None), None, None, None),
        responses::Channels { channels: vec![active.clone(), active], next: Some(OTHER_CHANNEL) }.into(),
        responses::Channels { channels: Vec::new(), next: None }.into(),
        responses::Conversations {
            conversations: vec![
                entry(Window::Open(AT), claims(), true),
                entry(Window::Closed(AT), Vec::new(), false),
                entry(Window::Unknown, Vec::new(), false),
            ],
            next: Some(CONVERSATION),
        }
        .into(),
        responses::Conversations { conversations: Vec::new(), next: None }.into(),
        opened(Window::Open(AT), timeline()).into(),
        bare.into(),
        responses::PickedUp {}.into(),
        responses::Warning { warnings: warnings(), confirm: Private::from("c0nf1rm") }.into(),
        responses::Accepted {
            offset: Offset(251),
            conversation: CONVERSATION,
            reply_id: id("r-1"),
            duplicate: false,
        }
        .into(),
        responses::InboundAccepted { channels: 2, duplicate: true }.into(),
        responses::Pong {}.into(),
        responses::Goaway { retry_after_ms: 1200 }.into(),
        thread.clone().into(),
        responses::Thread { metadata: None, ..thread.clone() }.into(),
        responses::Thread { owner: ThreadOwnership::Another, ..bare_thread.clone() }.into(),
        bare_thread.into(),
    ];
    all.extend(errors());
    all
}

/// Every delivery, in any order.
pub(crate) fn all_deliveries() -> Vec<Delivery> {
    let mut all = timeline();
    all.extend(thread_deliveries());
    all.extend(detailed_receipts());
    all.extend(messages_with_a_contact());
    all.extend(replies_with_their_time());
    all
}

/// What a timeline was published with.
fn timeline() -> Vec<Delivery> {
    let mut all = message_deliveries();
    all.extend(channel_deliveries());
    all
}

fn detailed_receipts() -> Vec<Delivery> {
    let json = r#"{"recipient_id":"16505551234","pricing":{"billable":true}}"#;
    let failed = deliveries::DetailedReceipt {
        channel: CHANNEL,
        offset: Offset(251),
        conversation: CONVERSATION,
        at: AT,
        reply_id: id("r-1"),
        message_id: Some(id("wamid.sent")),
        status: Status::Failed,
        error: Some(status_error()),
        details: RawContent(Bytes::from_static(json.as_bytes())),
    };
    let read = deliveries::DetailedReceipt {
        message_id: None,
        status: Status::Read,
        error: None,
        details: RawContent(Bytes::from_static(b"{}")),
        ..failed.clone()
    };
    vec![failed.into(), read.into()]
}

fn messages_with_a_contact() -> Vec<Delivery> {
    let json = r#"{"profile":{"username":"eve.e"},"identity_key_hash":"Sjvjlx8G6Z0="}"#;
    let full = deliveries::Message {
        channel: CHANNEL,
        offset: Offset(251),
        conversation: CONVERSATION,
        at: AT,
        message_id: id("wamid.HBgLMTY1MDU1NTEyMzQ="),
        customer: customer(),
        content: content(),
        redacted: Flag(false),
        contact: Some(RawContent(Bytes::from_static(json.as_bytes()))),
    };
    let contact = Some(RawContent(Bytes::from_static(b"{}")));
    let least = deliveries::Message { redacted: Flag(true), customer: phone_only(), contact, ..full.clone() };
    vec![full.into(), least.into()]
}

fn replies_with_their_time() -> Vec<Delivery> {
    let agents = deliveries::Reply {
        channel: CHANNEL,
        offset: Offset(251),
        conversation: CONVERSATION,
        at: AT,
        agent: Some(ann()),
        reply_id: id("r-1"),
        content: content(),
        sent_at: Some(Timestamp(1_771_999_999_000)),
    };
    let echo = deliveries::Reply { agent: None, reply_id: id("echo:wamid.1"), ..agents.clone() };
    vec![agents.into(), echo.into()]
}

fn thread_deliveries() -> Vec<Delivery> {
    let own = deliveries::Thread {
        channel: CHANNEL,
        offset: Offset(251),
        conversation: CONVERSATION,
        at: AT,
        action: ThreadAction::Taken,
        own: true,
        was_own: true,
        agent: Some(ann()),
        until: Some(Timestamp(AT.0 + 86_400_000)),
        metadata: Some(Private::from("wants a \"refund\"")),
    };
    let others = deliveries::Thread {
        action: ThreadAction::Passed,
        own: false,
        was_own: false,
        agent: None,
        until: None,
        metadata: None,
        ..own.clone()
    };
    let released = deliveries::Thread { action: ThreadAction::Released, was_own: true, ..others.clone() };
    vec![own.into(), others.into(), released.into()]
}

fn message_deliveries() -> Vec<Delivery> {
    let (channel, offset, conversation, at) = (CHANNEL, Offset(251), CONVERSATION, AT);
    let (agent, service) = (Some(ann()), Some(crm()));
    let message = deliveries::Message {
        channel,
        offset,
        conversation,
        at,
        message_id: id("wamid.HBgLMTY1MDU1NTEyMzQ="),
        customer: customer(),
        content: content(),
        redacted: Flag(false),
        contact: None,
    };
    let reply = deliveries::Reply {
        channel,
        offset,
        conversation,
        at,
        agent,
        reply_id: id("r-1"),
        content: content(),
        sent_at: None,
    };
    let masked = deliveries::MaskedReply {
        channel,
        offset,
        conversation,
        at,
        service,
        kind: Some("image".into()),
        content: Some(content()),
    };
    let receipt = deliveries::Receipt {
        channel,
        offset,
        conversation,
        at,
        reply_id: id("r-1"),
        message_id: Some(id("wamid.sent")),
        status: Status::Failed,
        error: Some(status_error()),
    };
    let mut all: Vec<Delivery> = vec![
        message.clone().into(),
        deliveries::Message { redacted: Flag(true), customer: phone_only(), ..message }.into(),
        reply.clone().into(),
        deliveries::Reply { agent: None, ..reply }.into(),
        masked.clone().into(),
        deliveries::MaskedReply { service: None, kind: None, content: None, ..masked }.into(),
        receipt.clone().into(),
        deliveries::Send {
            channel,
            offset,
            conversation,
            to: id("16505551234"),
            reply_id: id("r-1"),
            content: content(),
        }
        .into(),
    ];
    let words =
        [Status::Accepted, Status::Unknown, Status::Sent, Status::Delivered, Status::Read, Status::Played];
    for status in words {
        all.push(deliveries::Receipt { status, message_id: None, error: None, ..receipt.clone() }.into());
    }
    all
}

fn channel_deliveries() -> Vec<Delivery> {
    let (channel, offset, conversation, at) = (CHANNEL, Offset(70_001), CONVERSATION, AT);
    let from = ConversationId(0xfedc_ba98_7654_3210);
    let mut all: Vec<Delivery> = vec![
        deliveries::ConversationMerged { channel, offset, conversation, at, from }.into(),
        deliveries::Notice {
            channel,
            offset,
            at,
            field: "account_update".into(),
            content: RawContent(Bytes::from_static(br#"{"event":"PARTNER_ADDED"}"#)),
        }
        .into(),
    ];
    for (own, action) in [
        (true, ClaimAction::PickedUp),
        (false, ClaimAction::Released),
        (true, ClaimAction::Transferred),
        (false, ClaimAction::Expired),
    ] {
        let agent = own.then(ann);
        all.push(deliveries::Claim { channel, offset, conversation, at, action, own, agent }.into());
    }
    for (own, doing) in [(true, Doing::Looking), (false, Doing::Writing), (false, Doing::Gone)] {
        let (agent, name) = (own.then(ann), own.then(|| Name::from("Ann")));
        all.push(deliveries::Presence { channel, conversation, at, doing, own, agent, name }.into());
    }
    for reason in [GapReason::Retention, GapReason::Corrupt, GapReason::Erased] {
        let to = Offset(70_001);
        all.push(deliveries::Gap { channel, offset, at, from: Offset(2), to, reason }.into());
    }
    for action in [
        MembershipAction::Subscribed,
        MembershipAction::Deactivated,
        MembershipAction::Activated,
        MembershipAction::Deleted,
        MembershipAction::ParentChanged,
        MembershipAction::Configured,
    ] {
        let is_last = action == MembershipAction::Deactivated;
        let parent = Parent((!is_last).then(crm));
        let subscribers = Arc::from(if is_last { Vec::new() } else { vec![crm(), id("desk")] });
        let service = crm();
        all.push(deliveries::Membership { channel, offset, at, action, service, parent, subscribers }.into());
    }
    all
}
