//! Events as the bytes of a record's payload, and back.
//!
//! **The kind is the version.** A kind's layout never changes; an event that needs another layout gets a new kind, and
//! the old one is read for ever. A kind that this version does not know is refused by its number. The golden bytes in
//! the tests are never edited.
//!
//! Fields stand in the order below, made of the shapes of `codec`. `flags` is one byte; a field marked `n?` is there if
//! bit n of it is set, and a bit named in brackets is a field by itself.
//!
//! ```text
//!   1 membership     flags(0 reveal_service, 1 reveal_kind, 2 backfill) action by service parent?3 count·subscriber
//!   2 message        flags customer(0,1,2) message_id sent_at refers_to?3 clear_to?4 count·formerly?5 content
//!   3 reply          flags(6 reveal_service, 7 reveal_kind) customer(0,1,2) service agent?3 reply_id digest
//!                    callback_data?4 echo_of?5 content
//!   4 handed         reply attempt
//!   5 receipt        flags reply service reply_id message_id?0 status error?1 status_at
//!   6 status parked  flags message_id status error?1 status_at
//!   7 claim          flags action service agent name?0 from?1 by by_agent?2
//!   8 claim activity service agent
//!   9 merged         from
//!  10 acknowledged   service through
//!  11 notice         parent field content
//!  12 thread         flags action by agent?0 owner?1 previous?2 until?3 metadata?4
//!  13 receipt        as 5, then carried
//!  14 status parked  as 6, then carried
//!  15 message        as 2, then contact
//!  16 reply          as 3, then sent_at
//!  64 roster         flags(0 replace) service count·(agent name lead) count·removed
//!  65 channel opened flags channel number service?0
//!  66 channel closed channel
//!
//!  customer  user_id?a wa_id?b name?c              by     0 service · 1 operator · 2 broker; the service after 0
//!  content   kind_start kind_end count·(cut_start cut_end) bytes
//!  error     flags code title?0 details?1          lead   0 or 1
//! ```

mod decode;
mod encode;

use bytes::Bytes;

pub use super::codec::PayloadError;
use super::record::RawRecord;
use crate::domain::event::{Event, PortalEvent, Record};

/// The kinds of records.
pub mod kind {
    /// Somebody joined, left or configured.
    pub const MEMBERSHIP: u16 = 1;
    /// A customer wrote.
    pub const MESSAGE: u16 = 2;
    /// A reply was accepted.
    pub const REPLY: u16 = 3;
    /// A reply is about to leave.
    pub const HANDED: u16 = 4;
    /// What is known of a reply's way.
    pub const RECEIPT: u16 = 5;
    /// A status for a message not yet known.
    pub const STATUS_PARKED: u16 = 6;
    /// A claim began, ended or changed hands.
    pub const CLAIM: u16 = 7;
    /// The holder of a claim was active.
    pub const CLAIM_ACTIVITY: u16 = 8;
    /// Two conversations became one.
    pub const MERGED: u16 = 9;
    /// A service has acknowledged.
    pub const ACKNOWLEDGED: u16 = 10;
    /// A webhook change for the parent.
    pub const NOTICE: u16 = 11;
    /// The note of whose a thread is was made or taken away.
    pub const THREAD: u16 = 12;
    /// What is known of a reply's way, and what else WhatsApp's status says.
    pub const RECEIPT_WITH_MORE: u16 = 13;
    /// A status for a message not yet known, and what else it says.
    pub const STATUS_PARKED_WITH_MORE: u16 = 14;
    /// A customer wrote, and what else WhatsApp says of him.
    pub const MESSAGE_WITH_CONTACT: u16 = 15;
    /// Somebody replied on the phone, and when.
    pub const REPLY_WITH_TIME: u16 = 16;
    /// A service named its agents.
    pub const ROSTER: u16 = 64;
    /// A channel's id was given out.
    pub const CHANNEL_OPENED: u16 = 65;
    /// A channel was closed.
    pub const CHANNEL_CLOSED: u16 = 66;
    /// The engine's own: the first records of a stream were given up.
    pub const TRIMMED: u16 = 128;
    /// The engine's own: a stream was given up.
    pub const DELETED: u16 = 129;
    /// The engine's own: the first segments were given up.
    pub const DROPPED: u16 = 130;
}

/// The kind of a channel's event.
#[must_use]
pub fn kind_of(event: &Event) -> u16 {
    match event {
        Event::Membership(_) => kind::MEMBERSHIP,
        Event::Message(message) if message.contact.is_some() => kind::MESSAGE_WITH_CONTACT,
        Event::Message(_) => kind::MESSAGE,
        Event::Reply(reply) if reply.sent_at.is_some() => kind::REPLY_WITH_TIME,
        Event::Reply(_) => kind::REPLY,
        Event::Handed(_) => kind::HANDED,
        Event::Receipt(receipt) if receipt.carried.is_some() => kind::RECEIPT_WITH_MORE,
        Event::Receipt(_) => kind::RECEIPT,
        Event::StatusParked(parked) if parked.carried.is_some() => kind::STATUS_PARKED_WITH_MORE,
        Event::StatusParked(_) => kind::STATUS_PARKED,
        Event::Claim(_) => kind::CLAIM,
        Event::ClaimActivity(_) => kind::CLAIM_ACTIVITY,
        Event::Merged(_) => kind::MERGED,
        Event::Acknowledged(_) => kind::ACKNOWLEDGED,
        Event::Notice(_) => kind::NOTICE,
        Event::Thread(_) => kind::THREAD,
    }
}

/// The kind of a portal's event.
#[must_use]
pub fn portal_kind_of(event: &PortalEvent) -> u16 {
    match event {
        PortalEvent::Roster(_) => kind::ROSTER,
        PortalEvent::ChannelOpened { .. } => kind::CHANNEL_OPENED,
        PortalEvent::ChannelClosed { .. } => kind::CHANNEL_CLOSED,
    }
}

/// Appends the payload of a channel's event to `out`.
pub fn encode(event: &Event, out: &mut Vec<u8>) {
    encode::event(event, out);
}

/// Appends the payload of a portal's event to `out`.
pub fn encode_portal(event: &PortalEvent, out: &mut Vec<u8>) {
    encode::portal_event(event, out);
}

/// Reads a channel's event. Content and callback data are slices of `payload`, not copies.
///
/// # Errors
/// When the kind is unknown, or the payload is not what the kind says.
pub fn decode(kind: u16, payload: &Bytes) -> Result<Event, PayloadError> {
    decode::event(kind, payload)
}

/// Reads a portal's event.
///
/// # Errors
/// When the kind is unknown, or the payload is not what the kind says.
pub fn decode_portal(kind: u16, payload: &Bytes) -> Result<PortalEvent, PayloadError> {
    decode::portal_event(kind, payload)
}

/// Reads a record of a channel.
///
/// # Errors
/// When the kind is unknown, or the payload is not what the kind says.
pub fn decode_record(raw: &RawRecord) -> Result<Record, PayloadError> {
    let event = decode(raw.kind, &raw.payload)?;
    Ok(Record { offset: raw.offset, at: raw.at, conversation: raw.conversation, event })
}

#[cfg(test)]
mod tests;
