//! What a session and the actors say to each other: answers, deliveries, reasons, in the domain's words.
//!
//! They travel through an [`outlet`](super::outlet). **Invariant:** nothing in here shows content by itself; whoever
//! writes a delivery asks [`view`](crate::domain::view::view).

use std::sync::Arc;

use bytes::Bytes;

use super::batch::{BatchEntry, Slice};
use crate::domain::command::{ChannelSeen, ConversationSeen, Opened, Rejection, ThreadSeen, Warned};
use crate::domain::event::{Customer, Receipt, Status};
use crate::domain::ids::{AgentId, ChannelId, ConversationId, CustomerName, Offset, ReplyId, Timestamp};
use crate::domain::presence::Doing;

/// Why a connection is ended by the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// A newer session of the same adapter.
    Replaced,
    /// Unacknowledged deliveries, and no acknowledgement in time.
    Stalled,
    /// No `ping` in time.
    Timeout,
    /// Its token is no longer valid.
    Revoked,
    /// The broker stops.
    Shutdown,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// By the rules.
    Rejected(Rejection),
    /// No such channel or number for who asks.
    NotFound,
    /// The number is another portal's (B1).
    NumberTaken,
    /// This kind of session may not ask that, or the configuration decides it.
    Forbidden,
    /// The channel is closed.
    ChannelClosed,
    /// The journal takes nothing now, or the channel is quarantined.
    Unavailable,
    /// Not understood, or over a limit, before any rule was asked.
    BadMessage(Arc<str>),
    /// Content over its size.
    TooLarge(Arc<str>),
    /// No such type of message.
    UnknownType,
    /// Too much at once.
    Overloaded {
        /// When to try again, in milliseconds.
        retry_after_ms: u64,
    },
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::NotFound => Self::NotFound,
            Rejection::ChannelClosed => Self::ChannelClosed,
            Rejection::Forbidden => Self::Forbidden,
            other => Self::Rejected(other),
        }
    }
}

/// An opened conversation: what the channel decided, and the timeline that belongs to it.
#[derive(Debug)]
pub struct Timeline {
    /// The channel.
    pub channel: ChannelId,
    /// What `open` tells beside the timeline.
    pub opened: Opened,
    /// The customer, by his newest names.
    pub customer: Customer,
    /// What the service may see, oldest first.
    pub entries: Vec<BatchEntry>,
    /// Whether there is more before the first.
    pub more: bool,
}

/// What has become of a reply.
#[derive(Debug)]
pub struct ReplyFate {
    /// Where it stands.
    pub offset: Offset,
    /// Its conversation.
    pub conversation: ConversationId,
    /// How far it has come; `Accepted` where there is no outcome.
    pub status: Status,
    /// Its first outcome, as it is recorded; none where there is none, or history has dropped it.
    pub outcome: Option<Box<Receipt>>,
    /// Whether it waited behind another reply of its conversation.
    pub is_behind: bool,
}

/// Who a conversation's customer is, for a service that has a reply in it or is shown it.
#[derive(Debug)]
pub struct Whom {
    /// By his newest names.
    pub customer: Customer,
    /// What the service wrote for itself into the reply that was asked for.
    pub callback_data: Option<Bytes>,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answered {
    /// Done.
    Ok,
    /// A sign of life.
    Pong,
    /// A channel, and what became of it. What does not apply is none.
    Channel {
        /// The channel.
        seen: Box<ChannelSeen>,
        /// Whether the create made it.
        created: Option<bool>,
        /// Whether the create joined one that was there.
        joined: Option<bool>,
        /// Whether anything changed.
        changed: Option<bool>,
    },
    /// Channels in which the service has a record.
    Channels {
        /// They.
        channels: Vec<ChannelSeen>,
        /// The `after` of the next call, if there are more.
        next: Option<ChannelId>,
    },
    /// Conversations, each with its customer.
    Conversations {
        /// They.
        conversations: Vec<(ConversationSeen, Customer)>,
        /// The `after` of the next call, if there may be more.
        next: Option<ConversationId>,
    },
    /// An opened conversation.
    Conversation(Box<Timeline>),
    /// The agent holds the conversation.
    PickedUp,
    /// Warned; nothing was done.
    Warned(Warned),
    /// The reply is accepted.
    Accepted {
        /// Where it stands.
        offset: Offset,
        /// Its conversation.
        conversation: ConversationId,
        /// Its name.
        reply_id: ReplyId,
        /// Whether it was accepted before.
        duplicate: bool,
    },
    /// Whose a conversation's thread is.
    Thread {
        /// The conversation.
        conversation: ConversationId,
        /// As the asking service may see it.
        thread: ThreadSeen,
    },
    /// What has become of a reply.
    Fate(Box<ReplyFate>),
    /// Replies without outcome.
    Names(Vec<ReplyId>),
    /// Who a conversation's customer is.
    Whom(Box<Whom>),
    /// A customer's message was taken.
    Taken {
        /// How many channels have it, now or from before.
        channels: u32,
        /// Whether all of them had it.
        duplicate: bool,
    },
    /// Refused; nothing has changed.
    Refused(Refusal),
}

/// A reply for its gateway.
#[derive(Debug, Clone)]
pub struct SendNow {
    /// The channel.
    pub channel: ChannelId,
    /// Where the reply stands.
    pub offset: Offset,
    /// Its conversation.
    pub conversation: ConversationId,
    /// To whom: the `wa_id` where known, else the `user_id`.
    pub to: CustomerName,
    /// Its name.
    pub reply_id: ReplyId,
    /// The message object. The gateway is the one that sends it on.
    pub content: Bytes,
}

/// What an agent does, as one service may be told.
#[derive(Debug, Clone)]
pub struct PresenceTold {
    /// The channel.
    pub channel: ChannelId,
    /// The conversation.
    pub conversation: ConversationId,
    /// What he does.
    pub doing: Doing,
    /// Who, when it is one of the service's own.
    pub agent: Option<(AgentId, Option<Arc<str>>)>,
    /// When it was told, by the broker's clock.
    pub at: Timestamp,
}

/// What leaves over a connection.
#[derive(Debug)]
pub enum Outgoing {
    /// Answers, by the id of their requests.
    Answers(Vec<(u64, Answered)>),
    /// Deliveries.
    Deliveries(Slice),
    /// What an agent does.
    Presence(PresenceTold),
    /// A reply for a gateway.
    Send(SendNow),
    /// The broker is about to stop.
    Goaway {
        /// When to come again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The last thing: the connection ends for this reason.
    End(EndReason),
    /// The last thing: what the peer sends can not be read any further.
    Fail(Refusal),
}
