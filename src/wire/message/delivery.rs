//! News of a channel, as a client reads it.
//!
//! Numbers go on where those of the responses end: both travel from the broker.

use std::sync::Arc;

use crate::domain::event::{self, ClaimAction, Customer, MembershipAction, StatusError, ThreadAction};
use crate::domain::ids::{
    AgentId, ChannelId, ConversationId, CustomerName, MessageId, Offset, ReplyId, ServiceId, Timestamp,
};
use crate::domain::presence::Doing;

use super::text::{Flag, Name, Parent, Private, RawContent};
use super::{FieldInfo, VariantInfo, messages};
use crate::wire::field::{Fault, Fields, Put, Reader, Take, Writer};
use crate::wire::values::take_member;

messages! {
    /// A delivery.
    pub enum Delivery {
        /// A customer's message.
        13 Message = "message" {
            /// The channel.
            channel: ChannelId,
            /// Its position in the channel.
            offset: Offset,
            /// The conversation.
            conversation: ConversationId,
            /// WhatsApp's time of it.
            at: Timestamp,
            /// WhatsApp's id of it.
            message_id: MessageId,
            /// Who wrote.
            customer: Customer,
            /// The message object.
            content: RawContent,
            /// Whether what another service wrote for machines was left out.
            redacted: Flag,
        }
        or 27 with {
            /// The other members of WhatsApp's object about the customer.
            contact: RawContent,
        }
        /// A reply of the service that is told.
        14 Reply = "reply" {
            /// The channel.
            channel: ChannelId,
            /// Its position in the channel.
            offset: Offset,
            /// The conversation.
            conversation: ConversationId,
            /// The broker's time.
            at: Timestamp,
            /// Who wrote it; none for a bot.
            agent: Option<AgentId>,
            /// Its name.
            reply_id: ReplyId,
            /// The message object.
            content: RawContent,
        }
        or 28 with {
            /// WhatsApp's time of it, where it was written on the phone.
            sent_at: Timestamp,
        }
        /// A reply of another service.
        15 MaskedReply = "masked_reply" {
            /// The channel.
            channel: ChannelId,
            /// Its position in the channel.
            offset: Offset,
            /// The conversation.
            conversation: ConversationId,
            /// The broker's time.
            at: Timestamp,
            /// Who sent it, if the settings reveal it.
            service: Option<ServiceId>,
            /// What kind of message it is, if the settings reveal it.
            kind: Option<Arc<str>>,
            /// The message object, for a service that masks for itself.
            content: Option<RawContent>,
        }
        /// A change of a claim.
        16 Claim = "claim" {
            /// The channel.
            channel: ChannelId,
            /// Its position in the channel.
            offset: Offset,
            /// The conversation.
            conversation: ConversationId,
            /// The broker's time.
            at: Timestamp,
            /// What happened.
            action: ClaimAction,
            /// Whether the claim is one of the service that is told.
            own: bool,
            /// The holder, after a transfer the new one; only when own.
            agent: Option<AgentId>,
        }
        /// How far a reply of the service that is told has come.
        17 Receipt = "receipt" {
            /// The channel.
            channel: ChannelId,
            /// Its own position in the channel, not the reply's.
            offset: Offset,
            /// The conversation.
            conversation: ConversationId,
            /// The broker's time.
            at: Timestamp,
            /// The reply's name.
            reply_id: ReplyId,
            /// WhatsApp's id of the message, once known.
            message_id: Option<MessageId>,
            /// How far it has come.
            status: event::Status,
            /// Why it failed.
            error: Option<StatusError>,
        }
        /// What somebody does in a conversation just now. Has no offset and needs no ack.
        18 Presence = "presence" {
            /// The channel.
            channel: ChannelId,
            /// The conversation.
            conversation: ConversationId,
            /// The broker's time.
            at: Timestamp,
            /// What; of all agents elsewhere together, the most that any of them does.
            doing: Doing,
            /// Whether it is an agent of the service that is told.
            own: bool,
            /// Who; only when own.
            agent: Option<AgentId>,
            /// What he is called; only when own.
            name: Option<Name>,
        }
        /// Two conversations proved to be one customer's.
        19 ConversationMerged = "conversation_merged" {
            /// The channel.
            channel: ChannelId,
            /// Its position in the channel.
            offset: Offset,
            /// The older conversation, which goes on.
            conversation: ConversationId,
            /// The broker's time.
            at: Timestamp,
            /// The younger one's id, which from now on means the older.
            from: ConversationId,
        }
        /// A webhook change that is neither message nor status nor echo; for the parent.
        20 Notice = "notice" {
            /// The channel.
            channel: ChannelId,
            /// Its position in the channel.
            offset: Offset,
            /// The broker's time.
            at: Timestamp,
            /// The webhook's field.
            field: Arc<str>,
            /// The change's value.
            content: RawContent,
        }
        /// Offsets that the service has lost.
        21 Gap = "gap" {
            /// The channel.
            channel: ChannelId,
            /// What to acknowledge: the same as `to`.
            offset: Offset,
            /// The broker's time.
            at: Timestamp,
            /// The first one lost.
            from: Offset,
            /// The last one lost.
            to: Offset,
            /// Why.
            reason: GapReason,
        }
        /// A change of the channel's list or settings.
        22 Membership = "membership" {
            /// The channel.
            channel: ChannelId,
            /// Its position in the channel.
            offset: Offset,
            /// The broker's time.
            at: Timestamp,
            /// What happened.
            action: MembershipAction,
            /// Whom it concerns; for `parent_changed` the new parent.
            service: ServiceId,
            /// The parent after it.
            parent: Parent,
            /// The list after it, in order.
            subscribers: Arc<[ServiceId]>,
        }
        /// A reply that the gateway is to send, once.
        23 Send = "send" {
            /// The channel.
            channel: ChannelId,
            /// The reply's offset, to be named in `sent`.
            offset: Offset,
            /// The conversation.
            conversation: ConversationId,
            /// The customer's `wa_id` where known, else his `user_id`.
            to: CustomerName,
            /// The reply's name.
            reply_id: ReplyId,
            /// The message object.
            content: RawContent,
        }
        /// A change of whose a conversation's thread is.
        25 Thread = "thread" {
            /// The channel.
            channel: ChannelId,
            /// Its position in the channel.
            offset: Offset,
            /// The conversation.
            conversation: ConversationId,
            /// The broker's time.
            at: Timestamp,
            /// What happened.
            action: ThreadAction,
            /// Whether the thread is now the told service's.
            own: bool,
            /// Whether it was the told service's before.
            was_own: bool,
            /// Who did it, where it was one of the told service's agents and the thread is or was its own.
            agent: Option<AgentId>,
            /// Until when it is the told service's unless the customer writes again; only when own.
            until: Option<Timestamp>,
            /// What was handed on with it; only when own.
            metadata: Option<Private>,
        }
        /// How far a reply of the service that is told has come, and what else WhatsApp's status says.
        26 DetailedReceipt = "receipt" {
            /// The channel.
            channel: ChannelId,
            /// Its own position in the channel, not the reply's.
            offset: Offset,
            /// The conversation.
            conversation: ConversationId,
            /// The broker's time.
            at: Timestamp,
            /// The reply's name.
            reply_id: ReplyId,
            /// WhatsApp's id of the message, once known.
            message_id: Option<MessageId>,
            /// How far it has come.
            status: event::Status,
            /// Why it failed.
            error: Option<StatusError>,
            /// The other members of WhatsApp's status object.
            details: RawContent,
        }
    }
}

/// Why offsets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// They were older than retention reaches.
    Retention,
    /// They could not be read.
    Corrupt,
    /// They were erased.
    Erased,
}

/// In a timeline a delivery is a message within another: an object with its `type`, or number and fields.
impl Put for Delivery {
    fn put<W: Writer>(&self, to: &mut W) {
        to.begin_variant(self.number(), self.name());
        self.put_fields(to);
        to.end_object();
    }
}

impl Take for Delivery {
    fn kind() -> String {
        "delivery".to_owned()
    }

    fn take<'a, R: Reader<'a>>(from: &mut R) -> Result<Self, Fault> {
        from.variant(Self::NAMES, |number, from| {
            Self::take_fields(number, from).unwrap_or_else(|| Err(Fault::value("type", "no delivery")))
        })
    }
}

impl Message {
    /// A name for the one reply that it is answered with: the same however often it comes, so that the reply is one.
    #[must_use]
    pub fn reply_id(&self) -> ReplyId {
        // An id and a number are a text of 1 to 128 bytes.
        ReplyId::trusted(&format!("{}:{}", self.channel, self.offset.0))
    }
}

impl From<DetailedReceipt> for Receipt {
    fn from(of: DetailedReceipt) -> Self {
        let DetailedReceipt {
            channel, offset, conversation, at, reply_id, message_id, status, error, ..
        } = of;
        Self { channel, offset, conversation, at, reply_id, message_id, status, error }
    }
}

impl Delivery {
    /// News of a reply, with or without details.
    #[must_use]
    pub fn receipt(&self) -> Option<Receipt> {
        match self {
            Self::Receipt(receipt) => Some(receipt.clone()),
            Self::DetailedReceipt(receipt) => Some(receipt.clone().into()),
            _ => None,
        }
    }

    /// Where it stands: what to acknowledge, and how a repeat is told. None for what is not acknowledged.
    #[must_use]
    pub fn position(&self) -> Option<(ChannelId, Offset)> {
        Some(match self {
            Self::Message(of) => (of.channel, of.offset),
            Self::Reply(of) => (of.channel, of.offset),
            Self::MaskedReply(of) => (of.channel, of.offset),
            Self::Claim(of) => (of.channel, of.offset),
            Self::Receipt(of) => (of.channel, of.offset),
            Self::ConversationMerged(of) => (of.channel, of.offset),
            Self::Notice(of) => (of.channel, of.offset),
            Self::Gap(of) => (of.channel, of.offset),
            Self::Membership(of) => (of.channel, of.offset),
            Self::Thread(of) => (of.channel, of.offset),
            Self::DetailedReceipt(of) => (of.channel, of.offset),
            Self::Presence(_) | Self::Send(_) => return None,
        })
    }
}
