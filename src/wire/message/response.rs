//! How the broker answers.
//!
//! Numbers count up from 0 among what the broker sends; deliveries go on with them, and then both with what came later.

use std::sync::Arc;

use crate::domain::command::{self, ChannelSeen, ClaimSeen, Window};
use crate::domain::event::Customer;
use crate::domain::ids::{ChannelId, ConversationId, Offset, ReplyId, Timestamp};

use super::delivery::Delivery;
use super::error::{ErrorCode, Holder};
use super::text::{Flag, Private};
use super::{FieldInfo, VariantInfo, messages};
use crate::wire::field::{Fault, Fields, Put, Reader, Take, Writer};
use crate::wire::values::take_member;

messages! {
    /// A response; or, without an id, the error that ends a connection, or `goaway`.
    pub enum Response {
        /// Answers `hello`.
        0 Welcome = "welcome" {
            /// The session's name, for people and logs.
            session: Arc<str>,
            /// The broker's name and version.
            server: Arc<str>,
            /// The protocol's version.
            version: u32,
            /// Most unacknowledged deliveries, as granted.
            window: u32,
            /// The channels in which the service has a record; at most 500.
            channels: Vec<ChannelSeen>,
            /// There are more channels than these.
            more: Flag,
        }
        /// It is done.
        1 Ok = "ok" {}
        /// A channel, and what the request did to it.
        2 Channel = "channel" {
            /// The channel; in JSON its fields stand beside the others.
            seen: ChannelSeen,
            /// Whether the create made the channel.
            created: Option<bool>,
            /// Whether the create joined a channel that was there.
            joined: Option<bool>,
            /// Whether anything changed.
            changed: Option<bool>,
        }
        /// Answers `list_channels`.
        3 Channels = "channels" {
            /// In the order of their ids.
            channels: Vec<ChannelSeen>,
            /// The next request's `after`, if there may be more.
            next: Option<ChannelId>,
        }
        /// Answers `list_conversations`.
        4 Conversations = "conversations" {
            /// In the order in which they began.
            conversations: Vec<ConversationEntry>,
            /// The next request's `after`, if there may be more.
            next: Option<ConversationId>,
        }
        /// Answers `open`.
        5 Conversation = "conversation" {
            /// The conversation; the older one, where the one asked for has become part of it.
            conversation: ConversationId,
            /// Its last offset: what to give as `seen`.
            head: Offset,
            /// The customer.
            customer: Customer,
            /// The 24-hour window.
            window: Window,
            /// The claims that the agent may see, own first.
            claims: Vec<ClaimSeen>,
            /// The warnings that hold now, own first.
            warnings: Vec<command::Warning>,
            /// What confirms the warnings.
            confirm: Option<Private>,
            /// What happened, oldest first.
            timeline: Vec<Delivery>,
            /// Whether there is more before the timeline's first entry.
            more: bool,
        }
        /// The agent holds the conversation.
        6 PickedUp = "picked_up" {}
        /// Nothing was done; repeating the request with `confirm` does it.
        7 Warning = "warning" {
            /// Never none.
            warnings: Vec<command::Warning>,
            /// What confirms just these.
            confirm: Private,
        }
        /// The reply will be sent.
        8 Accepted = "accepted" {
            /// Where it stands.
            offset: Offset,
            /// Its conversation.
            conversation: ConversationId,
            /// Its name, as given.
            reply_id: ReplyId,
            /// Whether it was accepted before.
            duplicate: bool,
        }
        /// The customer's message is taken.
        9 InboundAccepted = "accepted" {
            /// How many channels have it, now or from before.
            channels: u32,
            /// Whether all of them had it before.
            duplicate: bool,
        }
        /// Answers `ping`.
        10 Pong = "pong" {}
        /// A refusal; without an id, the reason why the connection ends.
        11 Error = "error" {
            /// What programs decide by.
            code: ErrorCode,
            /// For people.
            message: Arc<str>,
            /// The versions that the broker speaks, with `unsupported_version`.
            versions: Option<Vec<u32>>,
            /// Who holds the conversation, with `claimed`.
            holder: Option<Holder>,
            /// When to try again, in milliseconds, with `overloaded`.
            retry_after_ms: Option<u64>,
        }
        /// The broker stops; connect again later.
        12 Goaway = "goaway" {
            /// When, in milliseconds; drawn for each connection.
            retry_after_ms: u64,
        }
        /// Whose a conversation's thread is now.
        24 Thread = "thread" {
            /// The conversation; the older one, where the one asked for has become part of it.
            conversation: ConversationId,
            /// Whose.
            owner: ThreadOwnership,
            /// Since when, where it is the asking service's.
            since: Option<Timestamp>,
            /// Until when unless the customer writes again, where it is the asking service's.
            until: Option<Timestamp>,
            /// What was handed on with it, where it is the asking service's.
            metadata: Option<Private>,
        }
    }
}

/// Whose a conversation's thread is, as a service may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThreadOwnership {
    /// Nobody's.
    Nobody,
    /// Another service's.
    Another,
    /// The service's own.
    Own,
}

/// A conversation in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversationEntry {
    /// Its id.
    pub conversation: ConversationId,
    /// The customer.
    pub customer: Customer,
    /// Its last offset.
    pub head: Offset,
    /// The 24-hour window.
    pub window: Window,
    /// Own claims in full, all others as one bare entry.
    pub claims: Vec<ClaimSeen>,
    /// No reply of any service since the customer's newest message.
    pub unanswered: bool,
}

impl Error {
    /// An error with no more than a code and a sentence.
    #[must_use]
    pub fn new(code: ErrorCode, message: &str) -> Self {
        Self { code, message: Arc::from(message), versions: None, holder: None, retry_after_ms: None }
    }
}
