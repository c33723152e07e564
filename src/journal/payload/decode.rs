//! Bytes to events. The layout stands in the parent module. No input panics: it ends in an event or in an error.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::kind;
use crate::domain::content::{Carried, Content};
use crate::domain::event::{
    Acknowledged, Actor, Agent, ClaimAction, ClaimActivity, ClaimChange, ClearTo, Customer, Event, Handed,
    Membership, MembershipAction, Merged, Message, Notice, PortalEvent, Receipt, Reply, RosterChange,
    Settings, Status, StatusError, StatusParked, ThreadAction, ThreadChange,
};
use crate::domain::ids::{
    AgentId, ChannelId, ConversationId, CustomerName, MessageId, Number, Offset, ReplyId, ServiceId,
    Timestamp,
};
use crate::journal::codec::{PayloadError, Reader};

type Read<T> = Result<T, PayloadError>;

pub(super) fn event(kind: u16, payload: &Bytes) -> Read<Event> {
    let mut reader = Reader::new(payload);
    let r = &mut reader;
    let event = match kind {
        kind::MEMBERSHIP => Event::from(membership(r)?),
        kind::MESSAGE => Event::from(message(r)?),
        kind::MESSAGE_WITH_CONTACT => {
            let message = message(r)?;
            Event::from(Message { contact: Some(Box::new(carried(r)?)), ..message })
        }
        kind::REPLY => Event::from(reply(r)?),
        kind::REPLY_WITH_TIME => {
            let reply = reply(r)?;
            Event::from(Reply { sent_at: Some(time(r)?), ..reply })
        }
        kind::HANDED => Event::Handed(Handed { reply: offset(r)?, attempt: r.number32("attempt")? }),
        kind::RECEIPT => Event::from(receipt(r)?),
        kind::RECEIPT_WITH_MORE => {
            let receipt = receipt(r)?;
            Event::from(Receipt { carried: Some(carried(r)?), ..receipt })
        }
        kind::STATUS_PARKED => Event::from(status_parked(r)?),
        kind::STATUS_PARKED_WITH_MORE => {
            let parked = status_parked(r)?;
            Event::from(StatusParked { carried: Some(carried(r)?), ..parked })
        }
        kind::CLAIM => Event::from(claim(r)?),
        kind::CLAIM_ACTIVITY => Event::from(ClaimActivity { service: service(r)?, agent: agent(r)? }),
        kind::MERGED => Event::Merged(Merged { from: ConversationId(r.number("conversation")?) }),
        kind::ACKNOWLEDGED => Event::Acknowledged(Acknowledged { service: service(r)?, through: offset(r)? }),
        kind::NOTICE => {
            Event::from(Notice { parent: service(r)?, field: r.shared_text("field")?, content: content(r)? })
        }
        kind::THREAD => Event::from(thread(r)?),
        unknown => return Err(PayloadError::UnknownKind(unknown)),
    };
    reader.end()?;
    Ok(event)
}

pub(super) fn portal_event(kind: u16, payload: &Bytes) -> Read<PortalEvent> {
    let mut reader = Reader::new(payload);
    let r = &mut reader;
    let event = match kind {
        kind::ROSTER => PortalEvent::Roster(roster(r)?),
        kind::CHANNEL_OPENED => {
            let flags = Flags::read(r, 1)?;
            PortalEvent::ChannelOpened {
                channel: ChannelId(r.id128("channel")?),
                number: Number::trusted(r.text("number")?),
                service: flags.optional(0, || service(r))?,
            }
        }
        kind::CHANNEL_CLOSED => PortalEvent::ChannelClosed { channel: ChannelId(r.id128("channel")?) },
        unknown => return Err(PayloadError::UnknownKind(unknown)),
    };
    reader.end()?;
    Ok(event)
}

/// The bits that say which optional fields follow.
#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    /// Reads the flags of a kind that has `known` of them.
    fn read(r: &mut Reader<'_>, known: u32) -> Read<Self> {
        let byte = r.byte("flags")?;
        if known < u8::BITS && byte >> known != 0 {
            return Err(PayloadError::Value("flags"));
        }
        Ok(Self(byte))
    }

    fn has(self, bit: u8) -> bool {
        self.0 & (1 << bit) != 0
    }

    fn optional<T>(self, bit: u8, field: impl FnOnce() -> Read<T>) -> Read<Option<T>> {
        if self.has(bit) { field().map(Some) } else { Ok(None) }
    }
}

fn membership(r: &mut Reader<'_>) -> Read<Membership> {
    let flags = Flags::read(r, 4)?;
    let action = match r.byte("action")? {
        0 => MembershipAction::Subscribed,
        1 => MembershipAction::Deactivated,
        2 => MembershipAction::Activated,
        3 => MembershipAction::Deleted,
        4 => MembershipAction::ParentChanged,
        5 => MembershipAction::Configured,
        _ => return Err(PayloadError::Value("action")),
    };
    Ok(Membership {
        action,
        by: actor(r)?,
        service: service(r)?,
        parent: flags.optional(3, || service(r))?,
        subscribers: several(r, "subscribers", service)?.into(),
        settings: Settings { reveal_service: flags.has(0), reveal_kind: flags.has(1) },
        backfill: flags.has(2),
    })
}

fn message(r: &mut Reader<'_>) -> Read<Message> {
    let flags = Flags::read(r, 6)?;
    Ok(Message {
        customer: customer(r, flags)?,
        message_id: message_id(r)?,
        sent_at: time(r)?,
        refers_to: flags.optional(3, || message_id(r))?,
        clear_to: flags.optional(4, || service(r))?.map_or(ClearTo::Everyone, ClearTo::Only),
        formerly: flags.optional(5, || several(r, "formerly", customer_name))?.unwrap_or_default(),
        content: content(r)?,
        contact: None,
    })
}

fn reply(r: &mut Reader<'_>) -> Read<Reply> {
    let flags = Flags::read(r, 8)?;
    Ok(Reply {
        to: customer(r, flags)?,
        service: service(r)?,
        agent: flags.optional(3, || agent(r))?,
        reply_id: reply_id(r)?,
        digest: r.id128("digest")?,
        callback_data: flags.optional(4, || r.bytes("callback data"))?,
        echo_of: flags.optional(5, || message_id(r))?,
        reveal: Settings { reveal_service: flags.has(6), reveal_kind: flags.has(7) },
        content: content(r)?,
        sent_at: None,
    })
}

fn receipt(r: &mut Reader<'_>) -> Read<Receipt> {
    let flags = Flags::read(r, 2)?;
    Ok(Receipt {
        reply: offset(r)?,
        service: service(r)?,
        reply_id: reply_id(r)?,
        message_id: flags.optional(0, || message_id(r))?,
        status: status(r)?,
        error: flags.optional(1, || status_error(r))?,
        status_at: time(r)?,
        carried: None,
    })
}

fn status_parked(r: &mut Reader<'_>) -> Read<StatusParked> {
    let flags = Flags::read(r, 2)?;
    if flags.has(0) {
        return Err(PayloadError::Value("flags"));
    }
    Ok(StatusParked {
        message_id: message_id(r)?,
        status: status(r)?,
        error: flags.optional(1, || status_error(r))?,
        status_at: time(r)?,
        carried: None,
    })
}

fn carried(r: &mut Reader<'_>) -> Read<Carried> {
    r.bytes("carried").map(Carried::checked)
}

fn claim(r: &mut Reader<'_>) -> Read<ClaimChange> {
    let flags = Flags::read(r, 3)?;
    let action = match r.byte("action")? {
        0 => ClaimAction::PickedUp,
        1 => ClaimAction::Released,
        2 => ClaimAction::Transferred,
        3 => ClaimAction::Expired,
        _ => return Err(PayloadError::Value("action")),
    };
    Ok(ClaimChange {
        action,
        service: service(r)?,
        agent: agent(r)?,
        name: flags.optional(0, || r.shared_text("name"))?,
        from: flags.optional(1, || agent(r))?,
        by: actor(r)?,
        by_agent: flags.optional(2, || agent(r))?,
    })
}

fn thread(r: &mut Reader<'_>) -> Read<ThreadChange> {
    let flags = Flags::read(r, 5)?;
    let action = match r.byte("action")? {
        0 => ThreadAction::Taken,
        1 => ThreadAction::Passed,
        2 => ThreadAction::Released,
        _ => return Err(PayloadError::Value("action")),
    };
    Ok(ThreadChange {
        action,
        by: actor(r)?,
        agent: flags.optional(0, || agent(r))?,
        owner: flags.optional(1, || service(r))?,
        previous: flags.optional(2, || service(r))?,
        until: flags.optional(3, || time(r))?,
        metadata: flags.optional(4, || r.shared_text("metadata"))?,
    })
}

fn roster(r: &mut Reader<'_>) -> Read<RosterChange> {
    let flags = Flags::read(r, 1)?;
    Ok(RosterChange {
        replace: flags.has(0),
        service: service(r)?,
        agents: several(r, "agents", |r| {
            Ok(Agent {
                agent: agent(r)?,
                name: r.shared_text("name")?,
                lead: match r.byte("lead")? {
                    0 => false,
                    1 => true,
                    _ => return Err(PayloadError::Value("lead")),
                },
            })
        })?,
        remove: several(r, "removed", agent)?,
    })
}

fn several<T>(
    r: &mut Reader<'_>,
    what: &'static str,
    one: impl Fn(&mut Reader<'_>) -> Read<T>,
) -> Read<Vec<T>> {
    let count = r.count(what)?;
    // Not set aside at once: a count may claim as many as there are bytes left.
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(one(r)?);
    }
    Ok(all)
}

fn service(r: &mut Reader<'_>) -> Read<ServiceId> {
    r.text("service").map(ServiceId::trusted)
}

fn agent(r: &mut Reader<'_>) -> Read<AgentId> {
    r.text("agent").map(AgentId::trusted)
}

fn reply_id(r: &mut Reader<'_>) -> Read<ReplyId> {
    r.text("reply id").map(ReplyId::trusted)
}

fn message_id(r: &mut Reader<'_>) -> Read<MessageId> {
    r.text("message id").map(MessageId::trusted)
}

fn customer_name(r: &mut Reader<'_>) -> Read<CustomerName> {
    r.text("customer").map(CustomerName::trusted)
}

fn offset(r: &mut Reader<'_>) -> Read<Offset> {
    r.number("offset").map(Offset)
}

fn time(r: &mut Reader<'_>) -> Read<Timestamp> {
    r.number("time").map(Timestamp)
}

fn customer(r: &mut Reader<'_>, flags: Flags) -> Read<Customer> {
    Ok(Customer {
        user_id: flags.optional(0, || customer_name(r))?,
        wa_id: flags.optional(1, || customer_name(r))?,
        name: flags.optional(2, || r.shared_text("name"))?,
    })
}

fn actor(r: &mut Reader<'_>) -> Read<Actor> {
    match r.byte("by")? {
        0 => service(r).map(Actor::Service),
        1 => Ok(Actor::Operator),
        2 => Ok(Actor::Broker),
        _ => Err(PayloadError::Value("by")),
    }
}

fn status(r: &mut Reader<'_>) -> Read<Status> {
    Ok(match r.byte("status")? {
        0 => Status::Accepted,
        1 => Status::Unknown,
        2 => Status::Sent,
        3 => Status::Delivered,
        4 => Status::Read,
        5 => Status::Played,
        6 => Status::Failed,
        _ => return Err(PayloadError::Value("status")),
    })
}

fn status_error(r: &mut Reader<'_>) -> Read<StatusError> {
    let flags = Flags::read(r, 2)?;
    let text = |r: &mut Reader<'_>, what| r.shared_text(what);
    Ok(StatusError {
        code: r.shared_text("code")?,
        title: flags.optional(0, || text(r, "title"))?,
        details: flags.optional(1, || text(r, "details"))?,
    })
}

fn content(r: &mut Reader<'_>) -> Read<Content> {
    let kind = range(r, "kind")?;
    let cuts: Arc<[Range<u32>]> = several(r, "cuts", |r| range(r, "cut"))?.into();
    let bytes = r.bytes("content")?;
    let inside = |range: &Range<u32>| range.end as usize <= bytes.len();
    let apart = cuts.windows(2).all(|pair| matches!(pair, [one, next] if one.end <= next.start));
    if !inside(&kind) || !cuts.iter().all(inside) || !apart {
        return Err(PayloadError::Value("content"));
    }
    Ok(Content::checked(bytes, kind, &cuts))
}

fn range(r: &mut Reader<'_>, what: &'static str) -> Read<Range<u32>> {
    let range = r.number32(what)?..r.number32(what)?;
    if range.start > range.end { Err(PayloadError::Value(what)) } else { Ok(range) }
}
