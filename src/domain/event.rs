//! What has happened: the events that a channel's records hold. A channel's state is the fold of them, and nothing else.
//!
//! An event says all that a view of it needs, so that [`crate::domain::view`] asks nobody: the settings that were in
//! force, the subscribers after it, who may see it in clear.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::content::{Carried, Content};
use super::ids::{
    AgentId, ConversationId, CustomerName, Hidden, MessageId, Number, Offset, ReplyId, ServiceId, Timestamp,
};

/// One durable record of a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its position in the channel.
    pub offset: Offset,
    /// The broker's clock when it was decided.
    pub at: Timestamp,
    /// The conversation it belongs to; none for what concerns the whole channel.
    pub conversation: Option<ConversationId>,
    /// What happened.
    pub event: Event,
}

/// What can happen in a channel. What is large is boxed, so that records are moved and looked through at little cost.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Somebody joined, left or configured.
    Membership(Box<Membership>),
    /// A customer wrote.
    Message(Box<Message>),
    /// A reply was accepted: it will be sent, once.
    Reply(Box<Reply>),
    /// A reply is about to leave; synced before it does.
    Handed(Handed),
    /// What is known of a reply's way to the customer.
    Receipt(Box<Receipt>),
    /// A status for a message that is not known yet; kept for [`PARKED_MS`].
    StatusParked(Box<StatusParked>),
    /// A pick-up began, ended or went to another agent.
    Claim(Box<ClaimChange>),
    /// The holder of a claim was active (recorded at most once per tenth of the claim's time to live).
    ClaimActivity(Box<ClaimActivity>),
    /// Two conversations proved to be one customer's; the record belongs to the older, which goes on.
    Merged(Merged),
    /// A service's adapters have acknowledged what lies up to an offset.
    Acknowledged(Acknowledged),
    /// A webhook change that is neither message nor status nor echo; for the parent alone.
    Notice(Box<Notice>),
    /// The note of whose a conversation's thread is was made or taken away (B18).
    Thread(Box<ThreadChange>),
}

macro_rules! boxed_events {
    ($($variant:ident($type:ident)),* $(,)?) => {$(
        impl From<$type> for Event {
            fn from(event: $type) -> Self {
                Self::$variant(Box::new(event))
            }
        }
    )*};
}
boxed_events! {
    Membership(Membership), Message(Message), Reply(Reply), Receipt(Receipt), StatusParked(StatusParked),
    Claim(ClaimChange), ClaimActivity(ClaimActivity), Notice(Notice), Thread(ThreadChange),
}

/// How long a status waits for its message to become known (B7), in milliseconds.
pub const PARKED_MS: u64 = 60_000;

/// What a service did about its membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MembershipAction {
    /// It was created in the channel.
    Subscribed,
    /// It left the list; its record stays.
    Deactivated,
    /// It came back to the end of the list.
    Activated,
    /// It left and its record is gone.
    Deleted,
    /// It became the parent because the parent left, or because it revived a dormant channel.
    ParentChanged,
    /// The parent changed the channel's settings.
    Configured,
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The service, by one of its sessions.
    Service(ServiceId),
    /// The operator, over the admin API or by the configuration.
    Operator,
    /// The broker itself: a deadline, or what follows from another event.
    Broker,
}

/// The channel's settings, which only its parent may change (R4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Settings {
    /// Masked replies say which service sent them.
    pub reveal_service: bool,
    /// Masked replies say what kind of message was sent.
    pub reveal_kind: bool,
}

/// A change of the channel's list, or of its settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Membership {
    /// What happened.
    pub action: MembershipAction,
    /// Whom it concerns; for `parent_changed` the new parent.
    pub service: ServiceId,
    /// Who did it.
    pub by: Actor,
    /// The parent after it.
    pub parent: Option<ServiceId>,
    /// The list after it, in order.
    pub subscribers: Arc<[ServiceId]>,
    /// The settings after it.
    pub settings: Settings,
    /// Whether who joined asked for what retention still has.
    pub backfill: bool,
}

/// A customer, by the names that a message or a request gave.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Customer {
    /// Meta's business-scoped id, if known.
    pub user_id: Option<CustomerName>,
    /// The phone's id, digits only, if known.
    pub wa_id: Option<CustomerName>,
    /// The profile's display name, if given.
    pub name: Option<Arc<str>>,
}

/// A customer's name is nobody's business in a log.
impl fmt::Debug for Customer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Customer")
            .field("user_id", &self.user_id)
            .field("wa_id", &self.wa_id)
            .field("name", &self.name.as_ref().map(|_| Hidden))
            .finish()
    }
}

impl Customer {
    /// The one id that is shown: `user_id` if known, else `wa_id`.
    #[must_use]
    pub fn id(&self) -> Option<&CustomerName> {
        self.user_id.as_ref().or(self.wa_id.as_ref())
    }

    /// Both names, where known.
    pub fn names(&self) -> impl Iterator<Item = &CustomerName> {
        self.user_id.iter().chain(self.wa_id.iter())
    }
}

/// Who sees a customer's message in clear; the others get the redacted copy (B7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClearTo {
    /// Everybody: it holds nothing that a service wrote for machines.
    Everyone,
    /// The service that sent the message referred to, or the parent where that is not known.
    Only(ServiceId),
}

/// A customer's message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// WhatsApp's id of it.
    pub message_id: MessageId,
    /// Who wrote.
    pub customer: Customer,
    /// Names that this message proves to be the same customer's (`user_changed_*`), beside those in `customer`.
    pub formerly: Vec<CustomerName>,
    /// WhatsApp's time.
    pub sent_at: Timestamp,
    /// The message object.
    pub content: Content,
    /// The message that it answers, if it says so.
    pub refers_to: Option<MessageId>,
    /// Who sees it in clear.
    pub clear_to: ClearTo,
    /// What else WhatsApp says of the customer beside the message. It goes where his name goes.
    pub contact: Option<Box<Carried>>,
}

/// A reply to a customer, as its service gave it.
#[derive(Clone, PartialEq)]
pub struct Reply {
    /// The service that sends it.
    pub service: ServiceId,
    /// The agent who wrote it; none for a bot.
    pub agent: Option<AgentId>,
    /// Its name, chosen by the service.
    pub reply_id: ReplyId,
    /// Keyed digest of content and callback data, to tell a repeat from a conflict (B4).
    pub digest: u128,
    /// The message object.
    pub content: Content,
    /// The service's own `biz_opaque_callback_data`, given back in its statuses.
    pub callback_data: Option<Bytes>,
    /// Whom it goes to.
    pub to: Customer,
    /// The channel's settings when it was accepted: what masked copies may show.
    pub reveal: Settings,
    /// Written on the phone (B17): it has already been sent, under this message id.
    pub echo_of: Option<MessageId>,
    /// WhatsApp's time of what was written on the phone.
    pub sent_at: Option<Timestamp>,
}

/// What the service wrote for itself is not printed.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("service", &self.service)
            .field("agent", &self.agent)
            .field("reply_id", &self.reply_id)
            .field("content", &self.content)
            .field("to", &self.to)
            .field("reveal", &self.reveal)
            .field("echo_of", &self.echo_of)
            .field("sent_at", &self.sent_at)
            .field("digest", &Hidden)
            .field("callback_data", &self.callback_data.as_ref().map(|_| Hidden))
            .finish()
    }
}

/// A reply is about to be handed to its gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// The offset of the reply.
    pub reply: Offset,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// How far a reply has come, in the order that never goes backwards (B7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// It will be sent.
    Accepted,
    /// It may have been sent: the answer was lost.
    Unknown,
    /// WhatsApp has it.
    Sent,
    /// It is on the customer's phone.
    Delivered,
    /// The customer has read it.
    Read,
    /// The customer has played it.
    Played,
    /// It was not sent, finally.
    Failed,
}

/// Why a reply failed.
#[derive(Clone, PartialEq, Eq)]
pub struct StatusError {
    /// Meta's number, or `expired`, `channel_closed`, `withdrawn`.
    pub code: Arc<str>,
    /// Meta's title. May quote the content, so it goes where the content goes.
    pub title: Option<Arc<str>>,
    /// Meta's details. May quote the content, so it goes where the content goes.
    pub details: Option<Arc<str>>,
}

/// Meta's text may quote the content (B3).
impl fmt::Debug for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusError")
            .field("code", &self.code)
            .field("title", &self.title.as_ref().map(|_| Hidden))
            .field("details", &self.details.as_ref().map(|_| Hidden))
            .finish()
    }
}

/// News of a reply; for the service that sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// The offset of the reply.
    pub reply: Offset,
    /// The service that sent it.
    pub service: ServiceId,
    /// The name that it gave the reply.
    pub reply_id: ReplyId,
    /// WhatsApp's id of the message, once known.
    pub message_id: Option<MessageId>,
    /// How far it has come.
    pub status: Status,
    /// Why it failed.
    pub error: Option<StatusError>,
    /// WhatsApp's time of it, or the broker's.
    pub status_at: Timestamp,
    /// What else WhatsApp's status says. May quote the content, so it goes where the content goes.
    pub carried: Option<Carried>,
}

/// A status that came before its message was known.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusParked {
    /// WhatsApp's id of the message.
    pub message_id: MessageId,
    /// What it says.
    pub status: Status,
    /// Why it failed.
    pub error: Option<StatusError>,
    /// WhatsApp's time of it.
    pub status_at: Timestamp,
    /// What else it says.
    pub carried: Option<Carried>,
}

/// What happened to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClaimAction {
    /// An agent picked the conversation up.
    PickedUp,
    /// The claim ended.
    Released,
    /// The claim went to another agent of the same service.
    Transferred,
    /// The claim ended for want of activity.
    Expired,
}

/// A claim began, ended or changed hands.
#[derive(Clone, PartialEq)]
pub struct ClaimChange {
    /// What happened.
    pub action: ClaimAction,
    /// The service within which the claim holds.
    pub service: ServiceId,
    /// The holder; after a transfer the new one.
    pub agent: AgentId,
    /// The holder's display name then, if the roster gave one.
    pub name: Option<Arc<str>>,
    /// After a transfer, the holder before.
    pub from: Option<AgentId>,
    /// Who did it.
    pub by: Actor,
    /// The agent who did it, where it was not the holder (a lead).
    pub by_agent: Option<AgentId>,
}

/// An agent's name is nobody's business in a log.
impl fmt::Debug for ClaimChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimChange")
            .field("action", &self.action)
            .field("service", &self.service)
            .field("agent", &self.agent)
            .field("from", &self.from)
            .field("by", &self.by)
            .field("by_agent", &self.by_agent)
            .field("name", &self.name.as_ref().map(|_| Hidden))
            .finish()
    }
}

/// The holder of a claim opened, picked up or replied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimActivity {
    /// The service within which the claim holds.
    pub service: ServiceId,
    /// The holder.
    pub agent: AgentId,
}

/// Two conversations became one.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The younger, whose id from now on means the older.
    pub from: ConversationId,
}

/// What a service's adapters have acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// The service.
    pub service: ServiceId,
    /// All that lies up to here needs no delivery any more.
    pub through: Offset,
}

/// A change of Meta's that is neither message nor status nor echo.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// The webhook's field.
    pub field: Arc<str>,
    /// The change's value.
    pub content: Content,
    /// The parent when it came: it alone gets it.
    pub parent: ServiceId,
}

/// What happened to the note of whose a conversation's thread is (B18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThreadAction {
    /// A service noted it as its own.
    Taken,
    /// A service noted it as another's.
    Passed,
    /// The note went; nobody's follows it.
    Released,
}

/// The note of whose a conversation's thread is was made or taken away (B18). Advice: it changes nothing else.
#[derive(Clone, PartialEq)]
pub struct ThreadChange {
    /// What happened.
    pub action: ThreadAction,
    /// Who did it.
    pub by: Actor,
    /// The agent of that service who did it, if it was one.
    pub agent: Option<AgentId>,
    /// Whose it is after it; nobody's after a release.
    pub owner: Option<ServiceId>,
    /// Whose it was before, where a note held.
    pub previous: Option<ServiceId>,
    /// Until when it is the new owner's unless the customer writes again.
    pub until: Option<Timestamp>,
    /// What is handed on with it, for the new owner alone.
    pub metadata: Option<Arc<str>>,
}

/// What is handed on may say of the customer what nobody else is to read.
impl fmt::Debug for ThreadChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadChange")
            .field("action", &self.action)
            .field("by", &self.by)
            .field("agent", &self.agent)
            .field("owner", &self.owner)
            .field("previous", &self.previous)
            .field("until", &self.until)
            .field("metadata", &self.metadata.as_ref().map(|_| Hidden))
            .finish()
    }
}

/// What a portal's own stream holds: its rosters, and the directory of its channels.
#[derive(Debug, Clone, PartialEq)]
pub enum PortalEvent {
    /// A service named its agents.
    Roster(RosterChange),
    /// A channel's id was given out. Without records of its own the channel is not there yet.
    ChannelOpened {
        /// Its id.
        channel: super::ids::ChannelId,
        /// The number.
        number: Number,
        /// The one service that it is for, on plan `isolated`.
        service: Option<ServiceId>,
    },
    /// A channel was closed; its id answers `channel_closed` from now on.
    ChannelClosed {
        /// Its id.
        channel: super::ids::ChannelId,
    },
}

/// An agent, as a service names him.
#[derive(Clone, PartialEq, Eq)]
pub struct Agent {
    /// Who it is, for all services of the portal.
    pub agent: AgentId,
    /// What he is called.
    pub name: Arc<str>,
    /// Whether he may release and transfer others' claims.
    pub lead: bool,
}

/// An agent's name is nobody's business in a log.
impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("agent", &self.agent)
            .field("lead", &self.lead)
            .field("name", &Hidden)
            .finish()
    }
}

/// A change of one service's roster.
#[derive(Debug, Clone, PartialEq)]
pub struct RosterChange {
    /// The service that speaks.
    pub service: ServiceId,
    /// Added, or changed.
    pub agents: Vec<Agent>,
    /// Whether everybody else goes.
    pub replace: bool,
    /// Who goes.
    pub remove: Vec<AgentId>,
}
