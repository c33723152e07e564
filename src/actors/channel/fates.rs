//! What has become of a reply, for callers in this process that wait for it; and whom a conversation is with.
//!
//! A caller that waits is answered by the record of the outcome itself, once that is durable; one that comes later by
//! the record as the journal has it, read off the Arbiter. **Invariant:** who waits is answered at the reply's first
//! outcome, which every reply gets, so those who wait are bounded by the open replies and by their callers.

use std::collections::HashMap;
use std::sync::Arc;

use super::asks::{Held, HeldWhat, answer};
use super::{ChannelActor, Command, Event, Record};
use crate::actors::asking::ReplyTo;
use crate::actors::conversation::{customer_in, read_record};
use crate::actors::outlet::Outlet;
use crate::actors::port::{Answered, Refusal, ReplyFate, Whom};
use crate::domain::event::Status;
use crate::domain::ids::{ConversationId, Offset, ReplyId, ServiceId, Timestamp};
use crate::domain::outbox::Fate;
use crate::journal::StreamId;

/// Who waits for an answer.
type Waiting = (Option<Arc<Outlet>>, ReplyTo);

/// Who waits for a reply's first outcome.
#[derive(Debug, Default)]
pub(super) struct Fates(HashMap<Offset, Vec<Waiting>>);

impl Fates {
    /// The answers that a record gives: they wait until it is durable.
    pub(super) fn told_by(&mut self, record: &Record) -> Vec<Held> {
        let Event::Receipt(receipt) = &record.event else { return Vec::new() };
        if self.0.is_empty() || receipt.status == Status::Accepted {
            return Vec::new();
        }
        let (Some(waiting), Some(conversation)) = (self.0.remove(&receipt.reply), record.conversation) else {
            return Vec::new();
        };
        let fate = || ReplyFate {
            offset: receipt.reply,
            conversation,
            status: receipt.status,
            outcome: Some(receipt.clone()),
            is_behind: false,
        };
        let held = |(origin, reply_to)| Held::Answer {
            origin,
            reply_to,
            answered: Answered::Fate(Box::new(fate())),
        };
        waiting.into_iter().map(held).collect()
    }

    /// Nothing more will be durable: nobody learns anything.
    pub(super) fn abandon(&mut self) {
        for (origin, reply_to) in std::mem::take(&mut self.0).into_values().flatten() {
            answer(origin.as_ref(), reply_to, Answered::Refused(Refusal::Unavailable));
        }
    }
}

/// What is read for an answer about whom a conversation is with.
#[derive(Debug)]
pub(super) struct HeldWhom {
    service: ServiceId,
    customer_at: Offset,
    reply: Option<Offset>,
}

impl ChannelActor {
    pub(super) fn fate(
        &mut self,
        origin: Option<&Arc<Outlet>>,
        (service, reply_id): (&ServiceId, &ReplyId),
        wait: bool,
        reply_to: ReplyTo,
    ) {
        match self.channel.outbox().fate(service, reply_id) {
            None => self.hold(origin, reply_to, Answered::Refused(Refusal::NotFound)),
            Some(fate) if wait && fate.outcome.is_none() => {
                self.fates.0.entry(fate.offset).or_default().push((origin.cloned(), reply_to));
            }
            Some(fate) => self.hold_fate(origin, fate, reply_to),
        }
    }

    /// Answers with what has become of the reply, and whether it waited behind another one before.
    pub(super) fn withdraw(
        &mut self,
        origin: Option<&Arc<Outlet>>,
        (service, reply_id): (ServiceId, ReplyId),
        why: Arc<str>,
        reply_to: ReplyTo,
        now: Timestamp,
    ) {
        let before = self.channel.outbox().fate(&service, &reply_id);
        let command = Command::Withdraw { service: service.clone(), reply_id: reply_id.clone(), why };
        let withdrawn = self.decide(&command, now);
        let after = self.channel.outbox().fate(&service, &reply_id);
        match (before, after) {
            (Some(before), Some(after)) if withdrawn.is_ok() => {
                self.hold_fate(origin, Fate { is_behind: before.is_behind, ..after }, reply_to);
            }
            _ => self.hold(origin, reply_to, Answered::Refused(Refusal::NotFound)),
        }
    }

    fn hold_fate(&mut self, origin: Option<&Arc<Outlet>>, fate: Fate, reply_to: ReplyTo) {
        self.hold_reading(origin, reply_to, HeldWhat::Fate(fate));
    }

    /// Reads the outcome's record, off the Arbiter, and answers.
    pub(super) fn read_fate(&self, origin: Option<Arc<Outlet>>, reply_to: ReplyTo, fate: Fate) {
        let stream = StreamId::from(self.channel.id());
        self.shared.readers.read(move |journal| {
            let record = fate.outcome.and_then(|at| read_record(journal, stream, at));
            let outcome = record.and_then(|record| match record.event {
                Event::Receipt(receipt) if receipt.reply == fate.offset => Some(receipt),
                _ => None,
            });
            let Fate { offset, conversation, status, is_behind, .. } = fate;
            let fate = ReplyFate { offset, conversation, status, outcome, is_behind };
            answer(origin.as_ref(), reply_to, Answered::Fate(Box::new(fate)));
        });
    }

    pub(super) fn whom(
        &mut self,
        origin: Option<&Arc<Outlet>>,
        service: ServiceId,
        (conversation, reply): (ConversationId, Option<Offset>),
        reply_to: ReplyTo,
        now: Timestamp,
    ) {
        let Some(found) = self.channel.conversation(conversation, now) else {
            return self.hold(origin, reply_to, Answered::Refused(Refusal::NotFound));
        };
        let whom = HeldWhom { service, customer_at: found.customer_at, reply };
        self.hold_reading(origin, reply_to, HeldWhat::Whom(whom));
    }

    /// Reads who the customer is, off the Arbiter, and answers.
    pub(super) fn read_whom(&self, origin: Option<Arc<Outlet>>, reply_to: ReplyTo, whom: HeldWhom) {
        let stream = StreamId::from(self.channel.id());
        self.shared.readers.read(move |journal| {
            let mut customer = customer_in(journal, stream, whom.customer_at);
            let record = whom.reply.and_then(|at| read_record(journal, stream, at));
            let own = record.and_then(|record| match record.event {
                Event::Reply(reply) if reply.service == whom.service => Some(reply),
                _ => None,
            });
            let mut callback_data = None;
            if let Some(reply) = own {
                callback_data = reply.callback_data;
                customer.wa_id = customer.wa_id.or(reply.to.wa_id);
                customer.user_id = customer.user_id.or(reply.to.user_id);
            }
            answer(origin.as_ref(), reply_to, Answered::Whom(Box::new(Whom { customer, callback_data })));
        });
    }
}
