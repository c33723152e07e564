//! What adapters and gateways ask of the broker.
//!
//! Numbers count up from 0 among what clients send. `ack` alone has no id and is never answered.

use crate::domain::channel::METADATA_CHARS_MAX;
use crate::domain::event::{self, Agent, Customer, Settings, StatusError};
use crate::domain::ids::{
    AdapterId, AgentId, ChannelId, ConversationId, CustomerName, GatewayId, MessageId, Number, Offset,
    PortalId, ReplyId, ServiceId, Timestamp,
};
use crate::domain::presence::Doing;

use super::text::{Private, RawContent};
use super::{FieldInfo, VariantInfo, messages};
use crate::wire::field::{Fault, Fields, Put, Reader, Take, Writer};
use crate::wire::values::take_member;

/// The version of the protocol that this broker speaks, and the only one.
pub const PROTOCOL_VERSION: u32 = 1;
/// Deliveries that may be unacknowledged where `hello` asks for no `window`.
pub const WINDOW_DEFAULT: u32 = 1024;
/// Timeline entries that `open` gives where it asks for no `limit`.
pub const OPEN_LIMIT_DEFAULT: u32 = 50;

messages! {
    /// A request.
    pub enum Request {
        /// Says who connects; the first message of a connection.
        0 Hello = "hello" checked by check_hello {
            /// The protocol's version that the client speaks; what is decoded has [`PROTOCOL_VERSION`].
            version: u32,
            /// Service or gateway.
            who: Who,
            /// The portal.
            portal: PortalId,
            /// What proves it.
            token: Private,
            /// The connection's name, unique in its service; a gateway may leave it out.
            adapter: Option<AdapterId>,
            /// Most unacknowledged deliveries, as wished.
            window: u32 = WINDOW_DEFAULT,
            /// What is to be delivered.
            deliver: DeliverMode = DeliverMode::Share,
            /// Where watching begins, per channel; at the head where a channel is not named.
            from: Positions,
            /// The client promises a `ping` at least so often, in milliseconds.
            heartbeat_ms: Option<u64>,
        }
        /// Names the service's agents.
        1 Roster = "roster" {
            /// Added, or changed.
            agents: Vec<Agent>,
            /// Whether everybody else goes.
            replace: bool,
            /// Who goes; an unknown one is no error.
            remove: Vec<AgentId> = Vec::new(),
        }
        /// Creates the service in the number's channel, and the channel if there is none.
        2 CreateChannel = "create_channel" {
            /// The number.
            number: Number,
            /// Whether what retention still has is to be delivered too.
            backfill: bool = false,
        }
        /// Puts the service back into the channel's list.
        3 ActivateChannel = "activate_channel" {
            /// The channel.
            channel: ChannelId,
            /// Whether what it missed is to be delivered too.
            backfill: bool = false,
        }
        /// Takes the service out of the channel's list and keeps its record.
        4 DeactivateChannel = "deactivate_channel" {
            /// The channel.
            channel: ChannelId,
        }
        /// Takes the service out of the channel and forgets its record.
        5 DeleteChannel = "delete_channel" {
            /// The channel.
            channel: ChannelId,
        }
        /// Asks for one channel.
        6 GetChannel = "get_channel" {
            /// The channel.
            channel: ChannelId,
        }
        /// Asks for the channels in which the service has a record.
        7 ListChannels = "list_channels" {
            /// What `next` gave.
            after: Option<ChannelId>,
            /// Most entries.
            limit: Option<u32>,
        }
        /// Asks for the conversations of a channel.
        8 ListConversations = "list_conversations" {
            /// The channel.
            channel: ChannelId,
            /// What `next` gave.
            after: Option<ConversationId>,
            /// Most entries.
            limit: Option<u32>,
            /// Only those that are held in any service, or only those that are not.
            claimed: Option<bool>,
            /// Only those without a reply since the customer's newest message, or only those with one.
            unanswered: Option<bool>,
        }
        /// Changes the channel's settings; only the parent may.
        9 ConfigureChannel = "configure_channel" {
            /// The channel.
            channel: ChannelId,
            /// The settings wanted.
            settings: Settings,
        }
        /// Opens a conversation: its context, claims and warnings.
        10 Open = "open" {
            /// The channel.
            channel: ChannelId,
            /// The conversation.
            conversation: ConversationId,
            /// Who opens.
            agent: AgentId,
            /// Most timeline entries.
            limit: u32 = OPEN_LIMIT_DEFAULT,
            /// Only what lies before this offset.
            before: Option<Offset>,
        }
        /// Picks a conversation up.
        11 PickUp = "pick_up" {
            /// The channel.
            channel: ChannelId,
            /// The conversation.
            conversation: ConversationId,
            /// Who picks up.
            agent: AgentId,
            /// What a warning gave.
            confirm: Option<Private>,
        }
        /// Ends a claim.
        12 Release = "release" {
            /// The channel.
            channel: ChannelId,
            /// The conversation.
            conversation: ConversationId,
            /// Who asks.
            agent: AgentId,
            /// Whether a lead acts on another's claim.
            force: bool = false,
            /// Whose claim, with `force`.
            holder: Option<AgentId>,
        }
        /// Hands a claim to another agent of the same service.
        13 Transfer = "transfer" {
            /// The channel.
            channel: ChannelId,
            /// The conversation.
            conversation: ConversationId,
            /// Who asks.
            agent: AgentId,
            /// Who gets it.
            to: AgentId,
            /// Whether a lead acts on another's claim.
            force: bool = false,
            /// Whose claim, with `force`.
            holder: Option<AgentId>,
        }
        /// Replies to a customer.
        14 Reply = "reply" {
            /// The channel.
            channel: ChannelId,
            /// Whom it goes to.
            to: Addressee,
            /// Who wrote it; none for a bot.
            agent: Option<AgentId>,
            /// Its name, unique for the service in the channel.
            reply_id: ReplyId,
            /// The message object, unchecked.
            content: RawContent,
            /// The last offset of the conversation that the agent had seen.
            seen: Option<Offset>,
            /// What a warning gave.
            confirm: Option<Private>,
        }
        /// Says what an agent does in a conversation just now.
        15 Presence = "presence" {
            /// The channel.
            channel: ChannelId,
            /// The conversation.
            conversation: ConversationId,
            /// Who.
            agent: AgentId,
            /// What.
            doing: Doing,
        }
        /// Acknowledges a delivery and all that this connection got of the channel before it. Has no id, no answer.
        16 Ack = "ack" {
            /// The channel.
            channel: ChannelId,
            /// The delivery's offset.
            offset: Offset,
        }
        /// Asks for a `pong`.
        17 Ping = "ping" {}
        /// A gateway brings a customer's message.
        18 Inbound = "inbound" {
            /// The number that it was written to.
            number: Number,
            /// WhatsApp's id of it.
            message_id: MessageId,
            /// Who wrote.
            customer: Customer,
            /// WhatsApp's time of it.
            at: Timestamp,
            /// The message object, unchecked.
            content: RawContent,
            /// The message that it answers.
            refers_to: Option<MessageId>,
        }
        /// A gateway tells how far a message has come.
        19 Status = "status" checked by check_status {
            /// Which message.
            of: StatusOf,
            /// The number that it was sent from.
            number: Number,
            /// How far: `sent` or later.
            status: event::Status,
            /// WhatsApp's time of it.
            at: Timestamp,
            /// Why it failed.
            error: Option<StatusError>,
        }
        or 23 with {
            /// The other members of WhatsApp's status object, unchecked.
            details: RawContent,
        }
        /// A gateway tells what became of a `send`.
        20 Sent = "sent" {
            /// The channel of the `send`.
            channel: ChannelId,
            /// The offset of the `send`.
            offset: Offset,
            /// What became of it.
            outcome: SentOutcome,
        }
        /// Notes whose a conversation's thread is, or takes the note away.
        21 ThreadControl = "thread_control" checked by check_thread_control {
            /// The channel.
            channel: ChannelId,
            /// Which conversation; one that has not begun is not found.
            of: Addressee,
            /// What is to be noted.
            action: ThreadVerb,
            /// Whose it shall be, with `pass`.
            to_service: Option<ServiceId>,
            /// What is handed on with it; not with `release`.
            metadata: Option<Private>,
            /// Who asks; none for a bot.
            agent: Option<AgentId>,
        }
        /// Asks whose a conversation's thread is.
        22 ThreadOwner = "thread_owner" {
            /// The channel.
            channel: ChannelId,
            /// Which conversation.
            of: Addressee,
        }
    }
}

/// What is to be noted of a conversation's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThreadVerb {
    /// It is the asking service's.
    Take,
    /// It is another subscriber's.
    Pass,
    /// It is nobody's, if it was the asking service's.
    Release,
}

/// Who says `hello`. In JSON: `service` or `gateway`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// An adapter of a service.
    Service(ServiceId),
    /// A gateway.
    Gateway(GatewayId),
}

/// What a connection gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeliverMode {
    /// A share of the service's deliveries.
    #[default]
    Share,
    /// Nothing: it only asks.
    None,
    /// All that the service sees; it moves nothing and needs no ack.
    Watch,
}

/// An offset for each of some channels. In JSON: an object from channel id to offset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Positions(pub Vec<(ChannelId, Offset)>);

/// Whom a reply goes to. In JSON: `conversation` or `to`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Addressee {
    /// The customer of a conversation.
    Conversation(ConversationId),
    /// A customer by name; the conversation is started if there is none.
    Customer(CustomerName),
}

/// Which message a status is about. In JSON: `channel` and `offset`, or `message_id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StatusOf {
    /// The reply at this place.
    Reply {
        /// The channel.
        channel: ChannelId,
        /// The reply's offset.
        offset: Offset,
    },
    /// The message that WhatsApp calls so.
    Message(MessageId),
}

/// What became of a `send`. In JSON: `message_id`, or `error` and `definite`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SentOutcome {
    /// WhatsApp has it, under this id.
    Sent(MessageId),
    /// It was refused, or its fate is not known.
    Error {
        /// Why.
        error: StatusError,
        /// Whether WhatsApp certainly did not send it.
        definite: bool,
    },
}

impl Hello {
    /// The greeting of a service's adapter: it shares the service's deliveries, with the window that is the default. Over a
    /// socket a `token` belongs to it.
    #[must_use]
    pub fn service(portal: PortalId, service: ServiceId, adapter: AdapterId) -> Self {
        Self::of(portal, Who::Service(service), Some(adapter))
    }

    /// The greeting of a gateway: it is handed replies. Over a socket a `token` belongs to it.
    #[must_use]
    pub fn gateway(portal: PortalId, gateway: GatewayId) -> Self {
        Self::of(portal, Who::Gateway(gateway), None)
    }

    /// The greeting of either, with the name of its adapter if it has one. Over a socket a `token` belongs to it.
    #[must_use]
    pub fn of(portal: PortalId, who: Who, adapter: Option<AdapterId>) -> Self {
        Self {
            version: PROTOCOL_VERSION,
            who,
            portal,
            token: "".into(),
            adapter,
            window: WINDOW_DEFAULT,
            deliver: DeliverMode::Share,
            from: Positions::default(),
            heartbeat_ms: None,
        }
    }
}

impl Request {
    /// The number of the request that says the protocol's version.
    pub(in crate::wire) const HELLO: u32 = 0;
    /// The number of the one request that has no id.
    pub(in crate::wire) const ACK: u32 = 16;
    /// The number of a customer's message.
    pub(in crate::wire) const INBOUND: u32 = 18;
}

fn check_hello(hello: &Hello) -> Result<(), Fault> {
    match (&hello.who, &hello.adapter) {
        (Who::Service(_), None) => Err(Fault::value("adapter", "a service's connection has a name")),
        _ => Ok(()),
    }
}

/// Only who passes a thread says to whom, and only what is noted has metadata. That who passes one says it at all is
/// for the session to see, since no schema could.
fn check_thread_control(control: &ThreadControl) -> Result<(), Fault> {
    if control.to_service.is_some() && control.action != ThreadVerb::Pass {
        return Err(Fault::value("to_service", "only `pass` names a service"));
    }
    let Some(metadata) = &control.metadata else { return Ok(()) };
    if control.action == ThreadVerb::Release {
        return Err(Fault::value("metadata", "nothing is handed on with `release`"));
    }
    if metadata.expose().chars().count() > METADATA_CHARS_MAX {
        return Err(Fault::value("metadata", format_args!("has at most {METADATA_CHARS_MAX} characters")));
    }
    Ok(())
}

/// A gateway knows of a message only once it is sent.
fn check_status(status: &Status) -> Result<(), Fault> {
    match status.status {
        event::Status::Accepted | event::Status::Unknown => {
            Err(Fault::value("status", "sent, delivered, read, played or failed"))
        }
        _ => Ok(()),
    }
}
