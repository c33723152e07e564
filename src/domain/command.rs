//! What can be asked of a channel, how it answers, and how it refuses.
//!
//! A command comes from a session that has proved who it is; it holds what it needs of the outside (a random id, the
//! sender of a message referred to), since deciding asks nobody.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::content::{Carried, Content};
use super::event::{
    Actor, ClaimAction, Customer, MembershipAction, Message, Settings, Status, StatusError, ThreadAction,
};
use super::ids::{
    AgentId, ChannelId, ConversationId, CustomerName, Hidden, MessageId, Number, Offset, ReplyId, ServiceId,
    Timestamp,
};
use super::recent_ids::Suspect;

/// What can be asked of a channel.
#[derive(Debug, Clone)]
pub enum Command {
    /// Create, activate, deactivate or delete a service in the channel.
    Standing(StandingCommand),
    /// Change the channel's settings.
    Configure {
        /// Who asks; only the parent may.
        service: ServiceId,
        /// The settings wanted.
        settings: Settings,
    },
    /// A customer's message.
    Inbound(Inbound),
    /// Open a conversation: warnings, claims, head. Counts as activity of a claim.
    Open {
        /// The service within which the agent works.
        service: ServiceId,
        /// Which conversation.
        conversation: ConversationId,
        /// Who opens.
        agent: AgentId,
    },
    /// Pick a conversation up.
    PickUp {
        /// The service within which the agent works.
        service: ServiceId,
        /// Which conversation.
        conversation: ConversationId,
        /// Who picks up.
        agent: AgentId,
        /// What a warning gave.
        confirm: Option<Arc<str>>,
    },
    /// End a claim.
    Release(ClaimCommand),
    /// Hand a claim to another agent of the same service.
    Transfer {
        /// Whose claim, and who asks.
        claim: ClaimCommand,
        /// Who gets it.
        to: AgentId,
    },
    /// Reply to a customer.
    Reply(ReplyCommand),
    /// A reply written on the phone: already sent, and the parent's (B17).
    Echo(Echo),
    /// Say that an agent looks at or writes in a conversation. Checked here, never journaled.
    Presence {
        /// The service within which the agent works.
        service: ServiceId,
        /// Which conversation.
        conversation: ConversationId,
        /// Who.
        agent: AgentId,
    },
    /// A gateway or a webhook tells how far a message has come.
    Status(StatusCommand),
    /// A reply is about to leave.
    Hand {
        /// The offset of the reply.
        reply: Offset,
    },
    /// A gateway tells what became of what it was handed.
    Outcome {
        /// The offset of the reply.
        reply: Offset,
        /// What became of it.
        outcome: SendOutcome,
    },
    /// Who sent a reply waits no longer: what was not handed fails for good, what was is `unknown`.
    Withdraw {
        /// The service that sent it.
        service: ServiceId,
        /// The name that it gave the reply.
        reply_id: ReplyId,
        /// Why it was not handed in time; stands in the receipt.
        why: Arc<str>,
    },
    /// A service's adapters have acknowledged.
    Acknowledge {
        /// The service.
        service: ServiceId,
        /// Up to here.
        through: Offset,
    },
    /// The portal's rosters have changed: who is in none of a service's roster any more loses his claims there.
    RosterChanged {
        /// The service whose roster changed.
        service: ServiceId,
    },
    /// Note whose a conversation's thread is, or take the note away (B18).
    Thread(ThreadCommand),
    /// A webhook change for the parent.
    Notice {
        /// The webhook's field.
        field: Arc<str>,
        /// The change's value.
        content: Content,
    },
    /// A deadline has passed ([`crate::domain::channel::Channel::next_deadline`]), or follow-up records are due.
    Tick,
}

/// A change of one service's standing.
#[derive(Debug, Clone)]
pub struct StandingCommand {
    /// The service whose standing changes.
    pub service: ServiceId,
    /// Who asks: the service itself, or the operator.
    pub by: Actor,
    /// What is asked.
    pub change: StandingChange,
    /// Whether it asks for what retention still has.
    pub backfill: bool,
}

/// The four columns of the table of standings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandingChange {
    /// Create the number in the service.
    Create,
    /// Come back.
    Activate,
    /// Leave the list, keep the record.
    Deactivate,
    /// Leave for good.
    Delete,
}

/// A customer's message, checked at the edge.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// The message, of a customer with one name at least. Who sees it in clear is for the channel to say.
    pub message: Box<Message>,
    /// Which service sent the message that it answers, where that is known and the content is redactable.
    pub sender: Option<ServiceId>,
    /// What a look at the full id has shown, after an [`Answer::LookUp`].
    pub looked_up: LookedUp,
}

/// A message of which nothing is known beside what it says.
impl From<Message> for Inbound {
    fn from(message: Message) -> Self {
        Self { message: Box::new(message), sender: None, looked_up: LookedUp::NotYet }
    }
}

/// Whether a suspected repeat was confirmed by its full id (B6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookedUp {
    /// Nobody has looked.
    NotYet,
    /// The record there has the same message id.
    Same(Offset),
    /// No record that the index suspects has the same message id.
    Different,
}

/// Whose claim it is about, and who asks.
#[derive(Debug, Clone)]
pub struct ClaimCommand {
    /// The service within which the claim holds.
    pub service: ServiceId,
    /// Who asks: the service, for `agent`, or the operator.
    pub by: Actor,
    /// Which conversation.
    pub conversation: ConversationId,
    /// The agent who asks; the operator names none.
    pub agent: Option<AgentId>,
    /// The holder, where a lead or the operator acts on another's claim; else the asking agent is.
    pub holder: Option<AgentId>,
}

/// Whom a reply goes to.
#[derive(Debug, Clone)]
pub enum Addressee {
    /// The customer of a conversation.
    Conversation(ConversationId),
    /// A customer by name; the conversation is started if there is none.
    Customer(CustomerName),
}

/// A reply, checked at the edge.
#[derive(Clone)]
pub struct ReplyCommand {
    /// The service that replies.
    pub service: ServiceId,
    /// Who wrote it; none for a bot.
    pub agent: Option<AgentId>,
    /// Whom it goes to.
    pub to: Addressee,
    /// Its name.
    pub reply_id: ReplyId,
    /// The message object.
    pub content: Content,
    /// The service's own `biz_opaque_callback_data`.
    pub callback_data: Option<Bytes>,
    /// The last offset of the conversation that the agent had seen.
    pub seen: Option<Offset>,
    /// What a warning gave.
    pub confirm: Option<Arc<str>>,
}

/// What the service wrote for itself is not printed.
impl fmt::Debug for ReplyCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyCommand")
            .field("service", &self.service)
            .field("agent", &self.agent)
            .field("to", &self.to)
            .field("reply_id", &self.reply_id)
            .field("content", &self.content)
            .field("seen", &self.seen)
            .field("callback_data", &self.callback_data.as_ref().map(|_| Hidden))
            .field("confirm", &self.confirm.as_ref().map(|_| Hidden))
            .finish()
    }
}

/// What is to be noted of whose a conversation's thread is.
#[derive(Clone, PartialEq, Eq)]
pub enum ThreadAsked {
    /// It is the asking service's.
    Take {
        /// What the service notes with it.
        metadata: Option<Arc<str>>,
    },
    /// It is another subscriber's.
    Pass {
        /// Whose.
        to: ServiceId,
        /// What is handed on, for that service alone.
        metadata: Option<Arc<str>>,
    },
    /// It is nobody's, if it was the asking service's.
    Release,
}

/// What is handed on is not printed.
impl fmt::Debug for ThreadAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Take { .. } => f.write_str("Take"),
            Self::Pass { to, .. } => f.debug_tuple("Pass").field(to).finish(),
            Self::Release => f.write_str("Release"),
        }
    }
}

/// Whose thread it is about, who asks, and what is to be noted.
#[derive(Debug, Clone)]
pub struct ThreadCommand {
    /// The service that asks.
    pub service: ServiceId,
    /// Which conversation; one that has not begun is not found.
    pub of: Addressee,
    /// The agent who asks; none for a bot.
    pub agent: Option<AgentId>,
    /// What is to be noted.
    pub asked: ThreadAsked,
}

/// A reply written on the phone, checked at the edge (B17).
#[derive(Debug, Clone)]
pub struct Echo {
    /// WhatsApp's id of it; a repeat is told by it, whoever is parent by then.
    pub message_id: MessageId,
    /// Whom it went to; one name at least.
    pub to: Customer,
    /// The message object.
    pub content: Content,
    /// WhatsApp's time of it, if it says so.
    pub sent_at: Option<Timestamp>,
}

/// What a status is about.
#[derive(Debug, Clone)]
pub enum StatusOf {
    /// A reply, by its offset in this channel.
    Reply(Offset),
    /// A message, by WhatsApp's id.
    Message(MessageId),
}

/// A gateway or a webhook tells how far a message has come.
#[derive(Debug, Clone)]
pub struct StatusCommand {
    /// What it is about.
    pub of: StatusOf,
    /// How far: `sent` or later.
    pub status: Status,
    /// Why it failed.
    pub error: Option<StatusError>,
    /// WhatsApp's time of it.
    pub status_at: Timestamp,
    /// What else it says.
    pub carried: Option<Carried>,
}

/// What became of a reply that was handed to its gateway, or that never was.
#[derive(Debug, Clone)]
pub enum SendOutcome {
    /// WhatsApp has it, under this id.
    Sent(MessageId),
    /// It was definitely not sent.
    Failed(StatusError),
    /// It was definitely not sent by this attempt; another may pass, so it waits again.
    Again(StatusError),
    /// It may have been sent: the answer was lost.
    Unknown,
}

/// How a channel answers a command that it does not refuse.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Nothing to say but that it is done.
    Done,
    /// The command's effect on a standing or on the settings.
    Standing {
        /// Whether the create made the channel.
        created: bool,
        /// Whether the create joined a channel that was there.
        joined: bool,
        /// Whether anything changed.
        changed: bool,
    },
    /// The customer's message is in the channel at `offset`, now or from before.
    Message {
        /// Where.
        offset: Offset,
        /// Whether it was there before.
        duplicate: bool,
    },
    /// The index suspects a repeat of this record; compare the full id and decide again (B6).
    LookUp(Suspect),
    /// What the customer sent is not taken: the channel is not active.
    NotTaken,
    /// The conversation may be opened.
    Opened(Opened),
    /// The agent holds the conversation within his service.
    PickedUp,
    /// Warned: nothing was done; repeating the command with `confirm` does it.
    Warned(Warned),
    /// The reply is accepted, now or from before.
    Accepted {
        /// Where the reply stands.
        offset: Offset,
        /// Its conversation.
        conversation: ConversationId,
        /// Whether it was accepted before.
        duplicate: bool,
    },
    /// Whose the conversation's thread is now.
    Thread {
        /// Which conversation.
        conversation: ConversationId,
        /// As the asking service may see it.
        thread: ThreadSeen,
    },
    /// The status is about a message not yet known; it is kept for a while.
    Parked,
    /// The status says nothing new, or what it is about is not this channel's.
    Ignored,
}

/// What `open` tells beside the timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// The conversation asked for, or the older one that it has become part of.
    pub conversation: ConversationId,
    /// Its last offset: what to give as `seen`.
    pub head: Offset,
    /// The claims that the agent may see, own first.
    pub claims: Vec<ClaimSeen>,
    /// The warnings that hold now, and what confirms them.
    pub warned: Option<Warned>,
    /// The 24-hour window.
    pub window: Window,
    /// Whose its thread is (B18).
    pub thread: ThreadSeen,
}

/// Whose a conversation's thread is, as a service may see it (B18): of another's note nothing but that there is one.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum ThreadSeen {
    /// Nobody's.
    #[default]
    Nobody,
    /// Another service's.
    Another,
    /// The service's own.
    Own {
        /// Since when.
        since: Timestamp,
        /// Until when, unless the customer writes again.
        until: Timestamp,
        /// What was handed on with it.
        metadata: Option<Arc<str>>,
    },
}

/// What is handed on is not printed.
impl fmt::Debug for ThreadSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("Nobody"),
            Self::Another => f.write_str("Another"),
            Self::Own { since, until, .. } => {
                f.debug_struct("Own").field("since", since).field("until", until).finish_non_exhaustive()
            }
        }
    }
}

/// The customer-service window (B8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Free-form replies pass until then.
    Open(Timestamp),
    /// It ended then; templates only.
    Closed(Timestamp),
    /// Not known; refuses nothing.
    Unknown,
}

/// A claim as an agent of some service may see it (R19).
#[derive(Clone, PartialEq)]
pub struct ClaimSeen {
    /// Whether it is a claim of the asking service.
    pub own: bool,
    /// The service, where the agent has access to it.
    pub service: Option<ServiceId>,
    /// The holder, likewise.
    pub agent: Option<AgentId>,
    /// The holder's name, likewise.
    pub name: Option<Arc<str>>,
    /// Since when, likewise.
    pub since: Option<Timestamp>,
}

/// An agent's name is nobody's business in a log.
impl fmt::Debug for ClaimSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimSeen")
            .field("own", &self.own)
            .field("service", &self.service)
            .field("agent", &self.agent)
            .field("since", &self.since)
            .field("name", &self.name.as_ref().map(|_| Hidden))
            .finish()
    }
}

/// Warnings, and the token that confirms just them.
#[derive(Debug, Clone, PartialEq)]
pub struct Warned {
    /// At most [`crate::domain::claims::WARNINGS_MAX`], own first; never none.
    pub warnings: Vec<Warning>,
    /// Opaque; bound to conversation and agent, survives a restart.
    pub confirm: Arc<str>,
}

/// What a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WarningCode {
    /// Somebody has picked the conversation up in another service.
    PickedUpElsewhere,
    /// Somebody else has replied since what the agent had seen.
    RepliedElsewhere,
    /// Another agent of the same service holds the conversation.
    ClaimedByOther,
}

/// One warning, as the agent may see it (R18, R19).
#[derive(Clone, PartialEq)]
pub struct Warning {
    /// What it is about.
    pub code: WarningCode,
    /// For people; R18's sentences to the letter.
    pub text: Arc<str>,
    /// Who, where R19 allows.
    pub agent: Option<AgentId>,
    /// His name, where R19 allows.
    pub name: Option<Arc<str>>,
    /// In which service, where R19 allows.
    pub service: Option<ServiceId>,
}

/// An agent's name is nobody's business in a log; the text has it too.
impl fmt::Debug for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warning")
            .field("code", &self.code)
            .field("agent", &self.agent)
            .field("service", &self.service)
            .field("text", &Hidden)
            .field("name", &self.name.as_ref().map(|_| Hidden))
            .finish()
    }
}

/// Why a command is refused. Nothing has changed.
#[derive(Clone, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// A field has a value that cannot be.
    #[error("{0}")]
    BadMessage(&'static str),
    /// No such conversation, reply or channel for who asks.
    #[error("not found")]
    NotFound,
    /// The channel is closed.
    #[error("the channel is closed")]
    ChannelClosed,
    /// The service is not in the channel's list.
    #[error("the service is not subscribed to the channel")]
    NotSubscribed,
    /// Only the parent may.
    #[error("only the parent service manages the channel")]
    NotParent,
    /// The service's family can not share a number (R11).
    #[error("services of this family can not share a number")]
    ServiceNotEligible,
    /// The agent is not in the service's roster.
    #[error("the agent is not in the service's roster")]
    UnknownAgent,
    /// Free-form replies are refused outside the customer-service window.
    #[error("the customer-service window is closed; only templates pass")]
    WindowClosed,
    /// Another agent holds the conversation, and the service's rule is exclusive.
    #[error("another agent of the service has picked up the conversation")]
    Claimed {
        /// Who; none where a bot asks and sees no agent.
        holder: AgentId,
        /// His name.
        name: Option<Arc<str>>,
    },
    /// There is no such claim.
    #[error("nobody holds such a claim")]
    NotClaimed,
    /// The agent may not do this.
    #[error("this agent may not do that")]
    Forbidden,
    /// The confirmation is unreadable, or for another agent or conversation.
    #[error("the confirmation is for something else, or unreadable")]
    StaleConfirm,
    /// The reply id is in use for another conversation or content.
    #[error("the reply id is in use for another conversation or content")]
    Conflict,
    /// The limit of holders per service and conversation is reached.
    #[error("the conversation has as many holders as it can have")]
    TooManyHolders,
    /// The limit of replies without outcome is reached.
    #[error("the channel has as many replies under way as it can have")]
    TooManyReplies,
}

/// Only the sentence: a holder's name is nobody's business in a log.
impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rejection({self})")
    }
}

/// What a channel is, for whoever may ask.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelSeen {
    /// Its id.
    pub channel: ChannelId,
    /// Its number.
    pub number: Number,
    /// Whether somebody is subscribed, inactive, or nobody has a record.
    pub state: ChannelState,
    /// The parent.
    pub parent: Option<ServiceId>,
    /// The list, in order.
    pub subscribers: Arc<[ServiceId]>,
    /// The settings.
    pub settings: Settings,
    /// The last offset given out.
    pub head: Offset,
}

/// The life of a channel (R8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChannelState {
    /// Somebody is subscribed.
    Active,
    /// Nobody is subscribed, but somebody has a record.
    Dormant,
    /// Nobody has a record any more.
    Closed,
}

/// A conversation in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversationSeen {
    /// Its id.
    pub conversation: ConversationId,
    /// The customer's newest names are in the record at this offset.
    pub customer_at: Offset,
    /// Its last offset.
    pub head: Offset,
    /// The 24-hour window.
    pub window: Window,
    /// Own claims in full, all others as one bare entry.
    pub claims: Vec<ClaimSeen>,
    /// No reply of any service since the customer's newest message.
    pub unanswered: bool,
    /// Whose its thread is (B18).
    pub thread: ThreadSeen,
}

impl MembershipAction {
    /// As the contract spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subscribed => "subscribed",
            Self::Deactivated => "deactivated",
            Self::Activated => "activated",
            Self::Deleted => "deleted",
            Self::ParentChanged => "parent_changed",
            Self::Configured => "configured",
        }
    }
}

impl ClaimAction {
    /// As the contract spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PickedUp => "picked_up",
            Self::Released => "released",
            Self::Transferred => "transferred",
            Self::Expired => "expired",
        }
    }
}

impl ThreadAction {
    /// As the protocol spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Passed => "passed",
            Self::Released => "released",
        }
    }
}

impl Status {
    /// As the contract spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Unknown => "unknown",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Played => "played",
            Self::Failed => "failed",
        }
    }
}
