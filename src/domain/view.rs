//! The one way out for content: what a viewer sees of a record.
//!
//! **Invariant:** nothing else turns an event into what somebody is shown. Sessions, timelines, the console, the
//! admin API and dead letters all call [`view`]; masking (R13, R14, B3), redaction (B7) and R19 are decided here alone.
//! A view borrows; two viewers with the same [`Form`] of a record see the same bytes, so that it is encoded once.

use std::sync::Arc;

use bytes::Bytes;

use super::content::Content;
use super::event::{
    Actor, ClaimAction, ClaimChange, ClearTo, Customer, Event, Membership, Message, Notice, Receipt, Record,
    Reply, Status, ThreadAction, ThreadChange,
};
use super::ids::{AgentId, ConversationId, ServiceId, Timestamp};

/// How a service receives other services' replies (R14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Masking {
    /// The content never leaves the broker towards it.
    #[default]
    Broker,
    /// It is trusted to mask for itself and gets the content, flagged as masked.
    Service,
}

/// Who looks: always a service, never nobody.
#[derive(Debug, Clone)]
pub struct Viewer<'a> {
    /// The service.
    pub service: &'a ServiceId,
    /// How it receives others' replies.
    pub masking: Masking,
}

/// Which of a record's appearances a view is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// The same for every viewer.
    Common,
    /// As the service concerned sees it.
    Own,
    /// As the others see it.
    Masked,
    /// As a service that masks for itself sees it.
    MaskedByService,
    /// A customer's message without what another service wrote for machines.
    Redacted,
    /// As the service sees it that lost what it is about.
    Former,
}

/// What a viewer sees of a record.
pub enum View<'a> {
    /// A customer's message.
    Message {
        /// The message; its content only through `content`.
        message: &'a Message,
        /// The content as this viewer may see it.
        content: Bytes,
        /// Whether something was left out.
        redacted: bool,
    },
    /// The viewer's own service's reply.
    Reply(&'a Reply),
    /// Another service's reply.
    MaskedReply {
        /// Who sent it, if the settings reveal it.
        service: Option<&'a ServiceId>,
        /// What kind of message it is, if the settings reveal it.
        kind: Option<&'a str>,
        /// The content, for a service that masks for itself.
        content: Option<&'a Content>,
    },
    /// A change of a claim.
    Claim {
        /// What happened.
        action: ClaimAction,
        /// The holder, when the claim is the viewer's own service's.
        own: Option<&'a AgentId>,
    },
    /// News of the viewer's own service's reply.
    Receipt(&'a Receipt),
    /// Two conversations became one.
    Merged {
        /// The younger.
        from: ConversationId,
    },
    /// A change of the channel's list or settings.
    Membership(&'a Membership),
    /// A webhook change, for the parent.
    Notice(&'a Notice),
    /// A change of whose a conversation's thread is.
    Thread(ThreadView<'a>),
}

/// What a viewer sees of a change of whose a conversation's thread is: whom it is about only where that is itself.
#[derive(Clone, Copy)]
pub struct ThreadView<'a> {
    /// What happened.
    pub action: ThreadAction,
    /// Whether the thread is the viewer's own service's after it.
    pub own: bool,
    /// Whether it was the viewer's own service's before.
    pub was_own: bool,
    /// Whether the viewer's own service did it; told only where it has or had the thread.
    pub by_own: bool,
    /// The agent who did it, if `by_own`.
    pub agent: Option<&'a AgentId>,
    /// Until when it is the viewer's, if `own`.
    pub until: Option<Timestamp>,
    /// What was handed on, if `own`.
    pub metadata: Option<&'a Arc<str>>,
}

/// What `viewer` sees of `record`, and in which form; nothing where it is not for it.
#[must_use]
pub fn view<'a>(record: &'a Record, viewer: &Viewer<'_>) -> Option<(Form, View<'a>)> {
    match &record.event {
        Event::Message(message) => Some(view_message(message, viewer)),
        Event::Reply(reply) => Some(view_reply(reply, viewer)),
        Event::Claim(change) => Some(view_claim(change, viewer)),
        // An attempt that was refused and is repeated is no news of the reply.
        Event::Receipt(receipt) if receipt.status == Status::Accepted => None,
        Event::Receipt(receipt) => {
            (receipt.service == *viewer.service).then(|| (Form::Own, View::Receipt(receipt)))
        }
        Event::Merged(merged) => Some((Form::Common, View::Merged { from: merged.from })),
        Event::Membership(membership) => Some((Form::Common, View::Membership(membership))),
        Event::Notice(notice) => {
            (notice.parent == *viewer.service).then(|| (Form::Own, View::Notice(notice)))
        }
        Event::Thread(change) => Some(view_thread(change, viewer)),
        Event::Handed(_) | Event::StatusParked(_) | Event::ClaimActivity(_) | Event::Acknowledged(_) => None,
    }
}

fn view_message<'a>(message: &'a Message, viewer: &Viewer<'_>) -> (Form, View<'a>) {
    match &message.clear_to {
        ClearTo::Only(service) if service != viewer.service => {
            (Form::Redacted, View::Message { message, content: message.content.redacted(), redacted: true })
        }
        ClearTo::Only(_) => {
            (Form::Own, View::Message { message, content: message.content.expose().clone(), redacted: false })
        }
        ClearTo::Everyone => (
            Form::Common,
            View::Message { message, content: message.content.expose().clone(), redacted: false },
        ),
    }
}

fn view_reply<'a>(reply: &'a Reply, viewer: &Viewer<'_>) -> (Form, View<'a>) {
    if reply.service == *viewer.service {
        return (Form::Own, View::Reply(reply));
    }
    let service = reply.reveal.reveal_service.then_some(&reply.service);
    let kind = reply.reveal.reveal_kind.then(|| reply.content.kind());
    match viewer.masking {
        Masking::Broker => (Form::Masked, View::MaskedReply { service, kind, content: None }),
        Masking::Service => {
            (Form::MaskedByService, View::MaskedReply { service, kind, content: Some(&reply.content) })
        }
    }
}

fn view_claim<'a>(change: &'a ClaimChange, viewer: &Viewer<'_>) -> (Form, View<'a>) {
    if change.service == *viewer.service {
        (Form::Own, View::Claim { action: change.action, own: Some(&change.agent) })
    } else {
        // R19: to the others a transfer within a service is a change like any other, with its time and nothing else.
        (Form::Masked, View::Claim { action: change.action, own: None })
    }
}

/// Of a bystander it is hidden whether his own service acted: then his copy is that of all bystanders.
fn view_thread<'a>(change: &'a ThreadChange, viewer: &Viewer<'_>) -> (Form, View<'a>) {
    let own = change.owner.as_ref() == Some(viewer.service);
    let was_own = change.previous.as_ref() == Some(viewer.service);
    let by_own = (own || was_own) && change.by == Actor::Service(viewer.service.clone());
    let form = match (own, was_own) {
        (true, _) => Form::Own,
        (false, true) => Form::Former,
        (false, false) => Form::Masked,
    };
    let seen = ThreadView {
        action: change.action,
        own,
        was_own,
        by_own,
        agent: change.agent.as_ref().filter(|_| by_own),
        until: change.until.filter(|_| own),
        metadata: change.metadata.as_ref().filter(|_| own),
    };
    (form, View::Thread(seen))
}

/// Whether a record stands in timelines. A timeline's entries have no length of their own in the binary encoding, so
/// what a client of before does not know must not be among them; whose a thread is, is asked for by itself.
#[must_use]
pub fn is_in_timelines(record: &Record) -> bool {
    !matches!(record.event, Event::Thread(_))
}

/// The customer as a record of a conversation last showed him, for lists and `open`.
#[must_use]
pub fn customer_of(record: &Record) -> Option<&Customer> {
    match &record.event {
        Event::Message(message) => Some(&message.customer),
        Event::Reply(reply) => Some(&reply.to),
        _ => None,
    }
}

/// The display name in a record, if it has one.
#[must_use]
pub fn customer_name_of(record: &Record) -> Option<&Arc<str>> {
    customer_of(record).and_then(|customer| customer.name.as_ref())
}
