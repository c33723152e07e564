//! Deliveries straight from the domain: what a service is shown of a record, written without a message in between.
//!
//! The hot path of the broker. It has the bytes that the owned [`Delivery`](crate::wire::message::Delivery) would have,
//! and clients read them as that. Besides: the deliveries that have no record, and the timeline of `open`.
//!
//! **Invariants:** content comes from a [`View`] alone and is copied as it is. Nothing is allocated for a delivery but
//! room in the buffer. A timeline never makes a response longer than a line or frame may be.

use bytes::{Bytes, BytesMut};

use crate::domain::content::Carried;
use crate::domain::event::{Message, Receipt, Record, Reply};
use crate::domain::ids::{ChannelId, ConversationId, Offset, Timestamp};
use crate::domain::presence::PresenceSeen;
use crate::domain::view::{ThreadView, View};

use super::binary::BinaryWriter;
use super::codec::{EncodeError, write};
use super::field::{Fields, Put, Writer};
use super::frame::{Encoding, FRAME_BYTES_MAX};
use super::json::JsonWriter;
use super::message::{GapReason, responses};
use super::shorten::shorter_opened;
use super::values::{Raw, put_parent};

/// Writes what a service sees of a record of `channel`.
///
/// # Errors
/// When it would be too long, or the record has no conversation and needs one; `out` is then as it was.
pub fn encode_delivery(
    encoding: Encoding,
    channel: ChannelId,
    record: &Record,
    view: &View<'_>,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    write(encoding, 0, &Viewed::new(channel, record, view)?, out)
}

/// Writes what a service is told of the presence in a conversation.
///
/// # Errors
/// When it would be too long, which no agent's id and name can make it; `out` is then as it was.
pub fn encode_presence(
    encoding: Encoding,
    channel: ChannelId,
    conversation: ConversationId,
    at: Timestamp,
    seen: &PresenceSeen<'_>,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    write(encoding, 0, &Presence { channel, conversation, at, seen }, out)
}

/// Offsets that a service has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapSeen {
    /// The channel.
    pub channel: ChannelId,
    /// The broker's time.
    pub at: Timestamp,
    /// The first one lost.
    pub from: Offset,
    /// The last one lost; what to acknowledge.
    pub to: Offset,
    /// Why.
    pub reason: GapReason,
}

/// Tells a service that it has lost offsets.
///
/// # Errors
/// Never in fact: it is far below the limit.
pub fn encode_gap(encoding: Encoding, gap: &GapSeen, out: &mut BytesMut) -> Result<(), EncodeError> {
    write(encoding, 0, gap, out)
}

/// A view, and whose it is.
struct Viewed<'a> {
    channel: ChannelId,
    record: &'a Record,
    /// 0 where the view needs none.
    conversation: ConversationId,
    view: &'a View<'a>,
    is_in_timeline: bool,
}

impl<'a> Viewed<'a> {
    fn new(channel: ChannelId, record: &'a Record, view: &'a View<'a>) -> Result<Self, EncodeError> {
        let conversation = match (record.conversation, view) {
            (Some(conversation), _) => conversation,
            (None, View::Membership(_) | View::Notice(_)) => ConversationId(0),
            (None, _) => return Err(EncodeError::NoConversation),
        };
        Ok(Self { channel, record, conversation, view, is_in_timeline: false })
    }

    /// What a receipt says beyond the first version of the protocol, which is all that a timeline may have.
    fn details(&self) -> Option<&'a Bytes> {
        match self.view {
            View::Receipt(receipt) if !self.is_in_timeline => receipt.carried.as_ref().map(Carried::expose),
            _ => None,
        }
    }

    /// What a message says so of its customer.
    fn contact(&self, message: &'a Message) -> Option<&'a Bytes> {
        message.contact.as_deref().filter(|_| !self.is_in_timeline).map(Carried::expose)
    }

    /// What a reply says so of its time.
    fn sent_at(&self, reply: &Reply) -> Option<Timestamp> {
        reply.sent_at.filter(|_| !self.is_in_timeline)
    }

    fn put_place<W: Writer>(&self, at: Timestamp, to: &mut W) {
        self.channel.put_as("channel", to);
        self.record.offset.put_as("offset", to);
        if !matches!(self.view, View::Membership(_) | View::Notice(_)) {
            self.conversation.put_as("conversation", to);
        }
        at.put_as("at", to);
    }
}

impl Fields for Viewed<'_> {
    #[inline]
    fn variant(&self) -> (u32, &'static str) {
        match self.view {
            View::Message { message, .. } if self.contact(message).is_some() => (27, "message"),
            View::Message { .. } => (13, "message"),
            View::Reply(reply) if self.sent_at(reply).is_some() => (28, "reply"),
            View::Reply(_) => (14, "reply"),
            View::MaskedReply { .. } => (15, "masked_reply"),
            View::Claim { .. } => (16, "claim"),
            View::Receipt(_) if self.details().is_some() => (26, "receipt"),
            View::Receipt(_) => (17, "receipt"),
            View::Merged { .. } => (19, "conversation_merged"),
            View::Notice(_) => (20, "notice"),
            View::Membership(_) => (22, "membership"),
            View::Thread(_) => (25, "thread"),
        }
    }

    fn put_fields<W: Writer>(&self, to: &mut W) {
        let at = match self.view {
            View::Message { message, .. } => message.sent_at,
            _ => self.record.at,
        };
        self.put_place(at, to);
        match self.view {
            View::Message { message, content, redacted } => {
                message.message_id.put_as("message_id", to);
                message.customer.put_as("customer", to);
                Raw(content).put_as("content", to);
                to.flag("redacted", *redacted);
                if let Some(contact) = self.contact(message) {
                    Raw(contact).put_as("contact", to);
                }
            }
            View::Reply(reply) => {
                put_reply(reply, to);
                if let Some(sent_at) = self.sent_at(reply) {
                    sent_at.put_as("sent_at", to);
                }
            }
            View::MaskedReply { service, kind, content } => {
                service.put_as("service", to);
                kind.put_as("kind", to);
                content.map(|content| Raw(content.expose())).put_as("content", to);
            }
            View::Claim { action, own } => {
                action.put_as("action", to);
                own.is_some().put_as("own", to);
                own.put_as("agent", to);
            }
            View::Receipt(receipt) => {
                put_receipt(receipt, to);
                if let Some(details) = self.details() {
                    Raw(details).put_as("details", to);
                }
            }
            View::Merged { from } => from.put_as("from", to),
            View::Notice(notice) => {
                notice.field.put_as("field", to);
                Raw(notice.content.expose()).put_as("content", to);
            }
            View::Membership(membership) => {
                membership.action.put_as("action", to);
                membership.service.put_as("service", to);
                put_parent(membership.parent.as_ref(), "parent", to);
                membership.subscribers.put_as("subscribers", to);
            }
            View::Thread(thread) => put_thread(thread, to),
        }
    }
}

fn put_reply<W: Writer>(reply: &Reply, to: &mut W) {
    reply.agent.put_as("agent", to);
    reply.reply_id.put_as("reply_id", to);
    Raw(reply.content.expose()).put_as("content", to);
}

fn put_receipt<W: Writer>(receipt: &Receipt, to: &mut W) {
    receipt.reply_id.put_as("reply_id", to);
    receipt.message_id.put_as("message_id", to);
    receipt.status.put_as("status", to);
    receipt.error.put_as("error", to);
}

fn put_thread<W: Writer>(thread: &ThreadView<'_>, to: &mut W) {
    thread.action.put_as("action", to);
    thread.own.put_as("own", to);
    thread.was_own.put_as("was_own", to);
    thread.agent.put_as("agent", to);
    thread.until.put_as("until", to);
    thread.metadata.map(AsRef::<str>::as_ref).put_as("metadata", to);
}

struct Presence<'a> {
    channel: ChannelId,
    conversation: ConversationId,
    at: Timestamp,
    seen: &'a PresenceSeen<'a>,
}

impl Fields for Presence<'_> {
    fn variant(&self) -> (u32, &'static str) {
        (18, "presence")
    }

    fn put_fields<W: Writer>(&self, to: &mut W) {
        self.channel.put_as("channel", to);
        self.conversation.put_as("conversation", to);
        self.at.put_as("at", to);
        self.seen.doing.put_as("doing", to);
        self.seen.own.is_some().put_as("own", to);
        self.seen.own.as_ref().map(|own| own.agent).put_as("agent", to);
        self.seen.own.as_ref().and_then(|own| own.name).put_as("name", to);
    }
}

impl Fields for GapSeen {
    fn variant(&self) -> (u32, &'static str) {
        (21, "gap")
    }

    fn put_fields<W: Writer>(&self, to: &mut W) {
        self.channel.put_as("channel", to);
        self.to.put_as("offset", to);
        self.at.put_as("at", to);
        self.from.put_as("from", to);
        self.to.put_as("to", to);
        self.reason.put_as("reason", to);
    }
}

/// Gathers the timeline of an `open`, the newest entry first, as it is read; the response has the oldest first.
#[derive(Debug)]
pub struct TimelineWriter {
    encoding: Encoding,
    /// The entries, one behind the other, as they came.
    entries: BytesMut,
    /// Where each entry ends.
    ends: Vec<usize>,
    /// What the entries may have together, in bytes.
    room: usize,
}

/// What a timeline's list may take beside its entries: its length, and `false` for `true`, in bytes.
const LIST_BYTES_MAX: usize = 16;

impl TimelineWriter {
    /// Begins the timeline of `response`, whose own timeline is empty; with the rest of it, it makes the response to the
    /// request `id`.
    #[must_use]
    pub fn new(encoding: Encoding, id: u64, response: &responses::Conversation) -> Self {
        let mut rest = BytesMut::new();
        let rest = match write(encoding, id, &Opened { response, timeline: None }, &mut rest) {
            Ok(()) => rest.len(),
            Err(EncodeError::TooLong { bytes }) => bytes,
            Err(_) => FRAME_BYTES_MAX,
        };
        let room = FRAME_BYTES_MAX.saturating_sub(rest + LIST_BYTES_MAX);
        Self { encoding, entries: BytesMut::new(), ends: Vec::new(), room }
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it has no entry yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Takes the next older entry, unless it finds no room any more: then it tells so, and `more` is true.
    ///
    /// # Errors
    /// When the record has no conversation and its view needs one.
    pub fn push(
        &mut self,
        channel: ChannelId,
        record: &Record,
        view: &View<'_>,
    ) -> Result<bool, EncodeError> {
        let viewed = Viewed { is_in_timeline: true, ..Viewed::new(channel, record, view)? };
        Ok(self.push_message(&viewed))
    }

    /// Takes a gap as the next older entry, like [`Self::push`].
    pub fn push_gap(&mut self, gap: &GapSeen) -> bool {
        self.push_message(gap)
    }

    fn push_message<M: Fields>(&mut self, message: &M) -> bool {
        let begin = self.entries.len();
        let (number, name) = message.variant();
        match self.encoding {
            Encoding::JsonLines => {
                let mut to = JsonWriter::new(&mut self.entries);
                to.begin_variant(number, name);
                message.put_fields(&mut to);
                to.end_object();
            }
            Encoding::Binary => {
                let mut to = BinaryWriter::new(&mut self.entries);
                to.begin_variant(number, name);
                message.put_fields(&mut to);
            }
        }
        // In a line a comma stands before each but the first.
        let commas = if self.encoding == Encoding::JsonLines { self.ends.len() } else { 0 };
        if self.entries.len() + commas > self.room && !self.ends.is_empty() {
            self.entries.truncate(begin);
            return false;
        }
        self.ends.push(self.entries.len());
        true
    }

    /// Writes the response: `response`, with these entries as its timeline.
    ///
    /// Where the one entry that a timeline has at least does not fit beside it, the last claims and warnings go.
    ///
    /// # Errors
    /// When it would be too long all the same, which content within its limit cannot make it; `out` is then as it was.
    pub fn finish(
        &self,
        id: u64,
        response: &responses::Conversation,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let write_opened = |response: &responses::Conversation, out: &mut BytesMut| {
            write(self.encoding, id, &Opened { response, timeline: Some(self) }, out)
        };
        let Err(mut refused) = write_opened(response, out) else { return Ok(()) };
        let mut cut = shorter_opened(response);
        while let Some(response) = cut {
            match write_opened(&response, out) {
                Ok(()) => return Ok(()),
                Err(error) => refused = error,
            }
            cut = shorter_opened(&response);
        }
        Err(refused)
    }
}

/// The response to `open`, with a timeline in bytes.
struct Opened<'a> {
    response: &'a responses::Conversation,
    timeline: Option<&'a TimelineWriter>,
}

impl Fields for Opened<'_> {
    fn variant(&self) -> (u32, &'static str) {
        (5, "conversation")
    }

    fn put_fields<W: Writer>(&self, to: &mut W) {
        let responses::Conversation {
            conversation,
            head,
            customer,
            window,
            claims,
            warnings,
            confirm,
            timeline: _,
            more,
        } = self.response;
        conversation.put_as("conversation", to);
        head.put_as("head", to);
        customer.put_as("customer", to);
        window.put_as("window", to);
        claims.put_as("claims", to);
        warnings.put_as("warnings", to);
        confirm.put_as("confirm", to);
        to.name("timeline");
        to.begin_list(self.timeline.map_or(0, TimelineWriter::len));
        if let Some(timeline) = self.timeline {
            for (at, end) in timeline.ends.iter().enumerate().rev() {
                let begin =
                    at.checked_sub(1).and_then(|before| timeline.ends.get(before)).copied().unwrap_or(0);
                to.element();
                to.encoded(timeline.entries.get(begin..*end).unwrap_or_default());
            }
        }
        to.end_list();
        more.put_as("more", to);
    }
}
