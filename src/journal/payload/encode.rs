//! Events to bytes. The layout stands in the parent module.

use crate::domain::content::{Carried, Content};
use crate::domain::event::{
    Acknowledged, Actor, ClaimAction, ClaimActivity, ClaimChange, ClearTo, Customer, Event, Handed,
    Membership, MembershipAction, Merged, Message, Notice, PortalEvent, Receipt, Reply, RosterChange, Status,
    StatusError, StatusParked, ThreadAction, ThreadChange,
};
use crate::domain::ids::{ChannelId, Number, ServiceId};
use crate::journal::codec::{put_bytes, put_id128, put_number, put_text};

pub(super) fn event(event: &Event, out: &mut Vec<u8>) {
    match event {
        Event::Membership(event) => membership(event, out),
        Event::Message(event) => message(event, out),
        Event::Reply(event) => reply(event, out),
        Event::Handed(Handed { reply, attempt }) => {
            put_number(out, reply.0);
            put_number(out, u64::from(*attempt));
        }
        Event::Receipt(event) => receipt(event, out),
        Event::StatusParked(event) => status_parked(event, out),
        Event::Claim(event) => claim(event, out),
        Event::ClaimActivity(event) => {
            let ClaimActivity { service, agent } = &**event;
            put_text(out, service.as_str());
            put_text(out, agent.as_str());
        }
        Event::Merged(Merged { from }) => put_number(out, from.0),
        Event::Acknowledged(Acknowledged { service, through }) => {
            put_text(out, service.as_str());
            put_number(out, through.0);
        }
        Event::Notice(event) => {
            let Notice { field, content: value, parent } = &**event;
            put_text(out, parent.as_str());
            put_text(out, field);
            content(value, out);
        }
        Event::Thread(event) => thread(event, out),
    }
}

pub(super) fn portal_event(event: &PortalEvent, out: &mut Vec<u8>) {
    match event {
        PortalEvent::Roster(change) => roster(change, out),
        PortalEvent::ChannelOpened { channel, number, service } => {
            channel_opened(*channel, number, service.as_ref(), out);
        }
        PortalEvent::ChannelClosed { channel } => put_id128(out, channel.0),
    }
}

/// One byte whose bits say which optional fields follow.
fn put_flags(out: &mut Vec<u8>, bits: &[bool]) {
    out.push(bits.iter().enumerate().fold(0, |byte, (bit, set)| byte | u8::from(*set) << bit));
}

fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    if let Some(text) = text {
        put_text(out, text);
    }
}

fn membership(event: &Membership, out: &mut Vec<u8>) {
    let Membership { action, service, by, parent, subscribers, settings, backfill } = event;
    put_flags(out, &[settings.reveal_service, settings.reveal_kind, *backfill, parent.is_some()]);
    out.push(match action {
        MembershipAction::Subscribed => 0,
        MembershipAction::Deactivated => 1,
        MembershipAction::Activated => 2,
        MembershipAction::Deleted => 3,
        MembershipAction::ParentChanged => 4,
        MembershipAction::Configured => 5,
    });
    actor(by, out);
    put_text(out, service.as_str());
    put_optional(out, parent.as_ref().map(ServiceId::as_str));
    put_number(out, subscribers.len() as u64);
    for subscriber in subscribers.iter() {
        put_text(out, subscriber.as_str());
    }
}

fn message(event: &Message, out: &mut Vec<u8>) {
    let Message { message_id, customer, formerly, sent_at, content: object, refers_to, clear_to, contact } =
        event;
    let clear_to = match clear_to {
        ClearTo::Everyone => None,
        ClearTo::Only(service) => Some(service),
    };
    let [user_id, wa_id, name] = customer_flags(customer);
    put_flags(out, &[user_id, wa_id, name, refers_to.is_some(), clear_to.is_some(), !formerly.is_empty()]);
    put_customer(customer, out);
    put_bytes(out, message_id.as_bytes());
    put_number(out, sent_at.0);
    put_optional(out, refers_to.as_ref().map(|id| id.as_str()));
    put_optional(out, clear_to.map(ServiceId::as_str));
    if !formerly.is_empty() {
        put_number(out, formerly.len() as u64);
        for name in formerly {
            put_text(out, name.as_str());
        }
    }
    content(object, out);
    carried(contact.as_deref(), out);
}

fn reply(event: &Reply, out: &mut Vec<u8>) {
    let Reply {
        service,
        agent,
        reply_id,
        digest,
        content: object,
        callback_data,
        to,
        reveal,
        echo_of,
        sent_at,
    } = event;
    let [user_id, wa_id, name] = customer_flags(to);
    put_flags(
        out,
        &[
            user_id,
            wa_id,
            name,
            agent.is_some(),
            callback_data.is_some(),
            echo_of.is_some(),
            reveal.reveal_service,
            reveal.reveal_kind,
        ],
    );
    put_customer(to, out);
    put_text(out, service.as_str());
    put_optional(out, agent.as_ref().map(|id| id.as_str()));
    put_text(out, reply_id.as_str());
    put_id128(out, *digest);
    if let Some(data) = callback_data {
        put_bytes(out, data);
    }
    put_optional(out, echo_of.as_ref().map(|id| id.as_str()));
    content(object, out);
    if let Some(sent_at) = sent_at {
        put_number(out, sent_at.0);
    }
}

fn receipt(event: &Receipt, out: &mut Vec<u8>) {
    let Receipt { reply, service, reply_id, message_id, status: how_far, error, status_at, carried: more } =
        event;
    put_flags(out, &[message_id.is_some(), error.is_some()]);
    put_number(out, reply.0);
    put_text(out, service.as_str());
    put_text(out, reply_id.as_str());
    put_optional(out, message_id.as_ref().map(|id| id.as_str()));
    status(*how_far, error.as_ref(), out);
    put_number(out, status_at.0);
    carried(more.as_ref(), out);
}

fn status_parked(event: &StatusParked, out: &mut Vec<u8>) {
    let StatusParked { message_id, status: how_far, error, status_at, carried: more } = event;
    put_flags(out, &[false, error.is_some()]);
    put_bytes(out, message_id.as_bytes());
    status(*how_far, error.as_ref(), out);
    put_number(out, status_at.0);
    carried(more.as_ref(), out);
}

fn claim(event: &ClaimChange, out: &mut Vec<u8>) {
    let ClaimChange { action, service, agent, name, from, by, by_agent } = event;
    put_flags(out, &[name.is_some(), from.is_some(), by_agent.is_some()]);
    out.push(match action {
        ClaimAction::PickedUp => 0,
        ClaimAction::Released => 1,
        ClaimAction::Transferred => 2,
        ClaimAction::Expired => 3,
    });
    put_text(out, service.as_str());
    put_text(out, agent.as_str());
    put_optional(out, name.as_deref());
    put_optional(out, from.as_ref().map(|id| id.as_str()));
    actor(by, out);
    put_optional(out, by_agent.as_ref().map(|id| id.as_str()));
}

fn thread(event: &ThreadChange, out: &mut Vec<u8>) {
    let ThreadChange { action, by, agent, owner, previous, until, metadata } = event;
    put_flags(
        out,
        &[agent.is_some(), owner.is_some(), previous.is_some(), until.is_some(), metadata.is_some()],
    );
    out.push(match action {
        ThreadAction::Taken => 0,
        ThreadAction::Passed => 1,
        ThreadAction::Released => 2,
    });
    actor(by, out);
    put_optional(out, agent.as_ref().map(|agent| agent.as_str()));
    put_optional(out, owner.as_ref().map(ServiceId::as_str));
    put_optional(out, previous.as_ref().map(ServiceId::as_str));
    if let Some(until) = until {
        put_number(out, until.0);
    }
    put_optional(out, metadata.as_deref());
}

fn roster(change: &RosterChange, out: &mut Vec<u8>) {
    let RosterChange { service, agents, replace, remove } = change;
    put_flags(out, &[*replace]);
    put_text(out, service.as_str());
    put_number(out, agents.len() as u64);
    for agent in agents {
        put_text(out, agent.agent.as_str());
        put_text(out, &agent.name);
        out.push(u8::from(agent.lead));
    }
    put_number(out, remove.len() as u64);
    for agent in remove {
        put_text(out, agent.as_str());
    }
}

fn channel_opened(channel: ChannelId, number: &Number, service: Option<&ServiceId>, out: &mut Vec<u8>) {
    put_flags(out, &[service.is_some()]);
    put_id128(out, channel.0);
    put_text(out, number.as_str());
    put_optional(out, service.map(ServiceId::as_str));
}

fn customer_flags(customer: &Customer) -> [bool; 3] {
    [customer.user_id.is_some(), customer.wa_id.is_some(), customer.name.is_some()]
}

fn put_customer(customer: &Customer, out: &mut Vec<u8>) {
    for name in customer.names() {
        put_bytes(out, name.as_bytes());
    }
    put_optional(out, customer.name.as_deref());
}

fn actor(by: &Actor, out: &mut Vec<u8>) {
    match by {
        Actor::Service(service) => {
            out.push(0);
            put_text(out, service.as_str());
        }
        Actor::Operator => out.push(1),
        Actor::Broker => out.push(2),
    }
}

fn status(status: Status, error: Option<&StatusError>, out: &mut Vec<u8>) {
    out.push(match status {
        Status::Accepted => 0,
        Status::Unknown => 1,
        Status::Sent => 2,
        Status::Delivered => 3,
        Status::Read => 4,
        Status::Played => 5,
        Status::Failed => 6,
    });
    if let Some(StatusError { code, title, details }) = error {
        put_flags(out, &[title.is_some(), details.is_some()]);
        put_text(out, code);
        put_optional(out, title.as_deref());
        put_optional(out, details.as_deref());
    }
}

/// The end of those kinds that have it.
fn carried(carried: Option<&Carried>, out: &mut Vec<u8>) {
    if let Some(carried) = carried {
        put_bytes(out, carried.expose());
    }
}

fn content(content: &Content, out: &mut Vec<u8>) {
    let kind = content.kind_range();
    put_number(out, u64::from(kind.start));
    put_number(out, u64::from(kind.end));
    put_number(out, content.cuts().len() as u64);
    for cut in content.cuts() {
        put_number(out, u64::from(cut.start));
        put_number(out, u64::from(cut.end));
    }
    put_bytes(out, content.expose());
}
