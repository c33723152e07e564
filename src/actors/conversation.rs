//! The actor of one conversation: started by its channel when somebody looks at it or writes to it, and owned by it.
//!
//! It assembles timelines, off the Arbiter, holds presence, and hands the conversation's replies to the gateway, one
//! at a time. It decides nothing that is journaled, so putting it to sleep loses nothing.

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler};

use super::asking::ReplyTo;
use super::batch::{Batch, BatchEntry, GapReason};
use super::channel::asks::answer;
use super::channel::{ChannelActor, HandOverOutcome, HandedOver, Idle, PresenceChanged};
use super::clock::now;
use super::outlet::Outlet;
use super::port::{Answered, SendNow, Timeline};
use super::registry::{GatewayLink, Generation};
use super::shared::{MAILBOX_MESSAGES_MAX, Shared};
use crate::domain::channel::ConversationNow;
use crate::domain::command::Opened;
use crate::domain::event::{Customer, Event, Record};
use crate::domain::fingerprint::Key;
use crate::domain::ids::{AgentId, ChannelId, ConversationId, Offset, ServiceId};
use crate::domain::presence::{Doing, Presence, PresenceChange};
use crate::domain::view::{Masking, Viewer, customer_of, is_in_timelines, view};
use crate::journal::{Entry, Journal, ReadError, StreamId, payload};

/// Most bytes of a timeline (contract: 1 MiB for the whole answer), less what stands beside it.
pub(super) const TIMELINE_BYTES_MAX: usize = (1 << 20) - (64 << 10);
/// What an entry takes beside its content, in bytes, at most: ids, names, punctuation.
const ENTRY_FIELDS_BYTES: usize = 1_536;
/// Most records that one timeline looks at, so that one that shows little stops nobody else for long.
const LOOKED_AT_MAX: usize = 20_000;

/// Reads a timeline and answers.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct ReadTimeline {
    pub(super) opened: Opened,
    pub(super) now: ConversationNow,
    pub(super) service: ServiceId,
    pub(super) masking: Masking,
    pub(super) limit: usize,
    pub(super) before: Option<Offset>,
    pub(super) origin: Option<Arc<Outlet>>,
    pub(super) reply_to: ReplyTo,
}

/// An agent says what he does.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct Renew {
    pub(super) service: ServiceId,
    pub(super) agent: AgentId,
    pub(super) name: Option<Arc<str>>,
    pub(super) doing: Doing,
}

/// A reply's `handed` is durable: it may leave.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct HandOver {
    pub(super) reply: Offset,
    /// Where the customer's newest names are.
    pub(super) customer_at: Offset,
    /// The batches that hold the records at these two, where the channel still has them in memory.
    pub(super) here: [Option<Arc<Batch>>; 2],
    pub(super) gateway: Option<Arc<GatewayLink>>,
}

impl HandOver {
    fn reply_here(&self) -> Option<&Record> {
        self.here[0].as_ref()?.record(self.reply)
    }

    fn customer_here(&self) -> Option<&Customer> {
        customer_of(self.here[1].as_ref()?.record(self.customer_at)?)
    }

    /// What leaves, where memory has all of it.
    fn send_from_memory(&self, channel: ChannelId) -> Option<SendNow> {
        let record = self.reply_here()?;
        send_of(channel, record, || self.customer_here().cloned())
    }

    /// The same, with what must be read for it. Blocks.
    fn send_from_journal(&self, journal: &dyn Journal, channel: ChannelId) -> Option<SendNow> {
        let stream = StreamId::from(channel);
        let customer = || Some(customer_in(journal, stream, self.customer_at));
        match self.reply_here() {
            Some(record) => send_of(channel, record, customer),
            None => send_of(channel, &read_record(journal, stream, self.reply)?, customer),
        }
    }
}

/// Presence may have lapsed.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
struct Lapse;

/// The actor of one conversation.
pub(super) struct ConversationActor {
    shared: Arc<Shared>,
    channel: ChannelId,
    conversation: ConversationId,
    owner: Addr<ChannelActor>,
    presence: Presence,
    lapse_asked: bool,
    handled: u64,
}

impl ConversationActor {
    pub(super) fn new(
        shared: Arc<Shared>,
        channel: ChannelId,
        conversation: ConversationId,
        owner: Addr<ChannelActor>,
    ) -> Self {
        let presence = Presence::default();
        Self { shared, channel, conversation, owner, presence, lapse_asked: false, handled: 0 }
    }

    fn tell(&self, changes: Vec<PresenceChange>) {
        if !changes.is_empty() {
            let _ = self.owner.try_send(PresenceChanged { conversation: self.conversation, changes });
        }
    }

    /// After every message: a timer for the next lapse, or sleep.
    fn after(&mut self, ctx: &mut Context<Self>) {
        match self.presence.next_deadline() {
            Some(deadline) if !self.lapse_asked => {
                self.lapse_asked = true;
                ctx.notify_later(Lapse, Duration::from_millis(deadline.since_ms(now()) + 1));
            }
            Some(_) => {}
            None => {
                let _ = self.owner.try_send(Idle { conversation: self.conversation, handled: self.handled });
            }
        }
    }
}

impl Actor for ConversationActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // What bounds the mailbox is what its channel lets in.
        ctx.set_mailbox_capacity(MAILBOX_MESSAGES_MAX);
    }
}

impl Handler<Renew> for ConversationActor {
    type Result = ();

    fn handle(&mut self, renew: Renew, ctx: &mut Self::Context) {
        self.handled += 1;
        let Renew { service, agent, name, doing } = renew;
        let change = self.presence.renew(&service, &agent, name.as_ref(), doing, now());
        self.tell(change.into_iter().collect());
        self.after(ctx);
    }
}

impl Handler<Lapse> for ConversationActor {
    type Result = ();

    fn handle(&mut self, _: Lapse, ctx: &mut Self::Context) {
        self.lapse_asked = false;
        let changes = self.presence.lapse(now());
        self.tell(changes);
        self.after(ctx);
    }
}

impl Handler<ReadTimeline> for ConversationActor {
    type Result = ();

    fn handle(&mut self, read: ReadTimeline, ctx: &mut Self::Context) {
        self.handled += 1;
        let channel = self.channel;
        self.shared.readers.read(move |journal| {
            let stream = StreamId::from(channel);
            let customer = customer_in(journal, stream, read.now.customer_at);
            let (entries, more) = timeline(journal, stream, &read);
            let timeline = Timeline { channel, opened: read.opened, customer, entries, more };
            answer(read.origin.as_ref(), read.reply_to, Answered::Conversation(Box::new(timeline)));
        });
        self.after(ctx);
    }
}

impl Handler<HandOver> for ConversationActor {
    type Result = ();

    fn handle(&mut self, job: HandOver, ctx: &mut Self::Context) {
        self.handled += 1;
        let (channel, owner) = (self.channel, self.owner.clone());
        let names = Key::new(self.shared.keys.fingerprint);
        if let Some(send) = job.send_from_memory(channel) {
            hand_over(&job, channel, Some(send), &names, &owner);
        } else {
            self.shared.readers.read(move |journal| {
                hand_over(&job, channel, job.send_from_journal(journal, channel), &names, &owner);
            });
        }
        self.after(ctx);
    }
}

/// Hands a reply over, or what is left of it, and says so.
fn hand_over(
    job: &HandOver,
    channel: ChannelId,
    send: Option<SendNow>,
    names: &Key,
    owner: &Addr<ChannelActor>,
) {
    let outcome = match send {
        None => {
            tracing::error!(%channel, offset = job.reply.0, "a reply can not be read and is not sent");
            HandOverOutcome::Unreadable
        }
        Some(send) => match job.gateway.as_ref().and_then(|gateway| hand_to(gateway, send, names)) {
            Some(generation) => HandOverOutcome::Left(generation),
            None => HandOverOutcome::NoConnection,
        },
    };
    let _ = owner.try_send(HandedOver { reply: job.reply, outcome });
}

/// Hands a reply to its gateway, which learns whose the conversation is before it may have another of it.
fn hand_to(gateway: &GatewayLink, send: SendNow, names: &Key) -> Option<Generation> {
    if gateway.is_built_in() {
        let customer = names.customer_name(&send.to).as_u128();
        gateway.budget().is_of(send.conversation, customer, now());
    }
    gateway.send(send)
}

/// A record that the state rests on: from the journal, or from what the base keeps of it.
pub(super) fn read_record(journal: &dyn Journal, stream: StreamId, offset: Offset) -> Option<Record> {
    let read = match journal.read_one(stream, offset) {
        Err(ReadError::NotFound { .. }) => journal.kept(stream, offset),
        read => read,
    };
    match read {
        Ok(Entry::Record(raw)) => payload::decode_record(&raw).ok(),
        Ok(Entry::Corrupt(_)) | Err(_) => None,
    }
}

/// The customer, as the record at `at` names him; nobody where it can not be read any more.
pub(super) fn customer_in(journal: &dyn Journal, stream: StreamId, at: Offset) -> Customer {
    read_record(journal, stream, at).and_then(|record| customer_of(&record).cloned()).unwrap_or_default()
}

/// A reply as its gateway gets it. `customer` says who he is where the reply itself does not.
fn send_of(
    channel: ChannelId,
    record: &Record,
    customer: impl FnOnce() -> Option<Customer>,
) -> Option<SendNow> {
    let Event::Reply(reply) = &record.event else { return None };
    let customer = if reply.to.id().is_some() { reply.to.clone() } else { customer()? };
    let to = customer.wa_id.or(customer.user_id)?;
    Some(SendNow {
        channel,
        offset: record.offset,
        conversation: record.conversation?,
        to,
        reply_id: reply.reply_id.clone(),
        content: reply.content.expose().clone(),
    })
}

/// Reads backwards along the conversation's chain, and those of the conversations that became part of it.
fn timeline(journal: &dyn Journal, stream: StreamId, read: &ReadTimeline) -> (Vec<BatchEntry>, bool) {
    let viewer = Viewer { service: &read.service, masking: read.masking };
    let before = read.before.unwrap_or(Offset(u64::MAX));
    let mut chains: BinaryHeap<Offset> = read.now.merged.iter().map(|(_, head)| *head).collect();
    chains.push(read.opened.head);
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut looked_at = 0;
    let mut last = Offset(u64::MAX);
    while let Some(at) = chains.pop() {
        if at == Offset::ZERO || at >= last {
            continue;
        }
        last = at;
        looked_at += 1;
        let (entry, previous) = match journal.read_one(stream, at) {
            Ok(Entry::Record(raw)) => match payload::decode_record(&raw) {
                Ok(record) => (BatchEntry::Record(record), raw.previous),
                Err(_) => (
                    BatchEntry::Gap { from: at, to: at, at: now(), reason: GapReason::Corrupt },
                    raw.previous,
                ),
            },
            Ok(Entry::Corrupt(damage)) => {
                let previous = damage.chain.map_or(Offset::ZERO, |(_, previous)| previous);
                (BatchEntry::Gap { from: at, to: at, at: now(), reason: GapReason::Corrupt }, previous)
            }
            // Retention has dropped what lies further back.
            Err(_) => continue,
        };
        chains.push(previous);
        let visible = match &entry {
            BatchEntry::Record(record) => is_in_timelines(record) && view(record, &viewer).is_some(),
            BatchEntry::Gap { .. } => true,
        };
        if at >= before || !visible {
            if looked_at >= LOOKED_AT_MAX {
                entries.reverse();
                return (entries, true);
            }
            continue;
        }
        let weight = entry.weight() as usize + ENTRY_FIELDS_BYTES;
        if entries.len() == read.limit || (!entries.is_empty() && bytes + weight > TIMELINE_BYTES_MAX) {
            entries.reverse();
            return (entries, true);
        }
        bytes += weight;
        entries.push(entry);
    }
    entries.reverse();
    (entries, false)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::content::Content;
    use crate::domain::event::{Handed, Reply, Settings};
    use crate::domain::ids::{CustomerName, ReplyId, Timestamp};

    fn customer(wa_id: Option<&str>, user_id: Option<&str>) -> Customer {
        let name = |name: Option<&str>| name.map(CustomerName::trusted);
        Customer { wa_id: name(wa_id), user_id: name(user_id), name: None }
    }

    fn reply_to(to: Customer) -> Record {
        let reply = Reply {
            service: ServiceId::trusted("crm"),
            agent: None,
            reply_id: ReplyId::trusted("r-1"),
            digest: 1,
            content: Content::checked(Bytes::from_static(b"{}"), 0..0, &[]),
            callback_data: None,
            to,
            reveal: Settings::default(),
            echo_of: None,
            sent_at: None,
        };
        let (conversation, at) = (Some(ConversationId(1)), Timestamp(1));
        Record { offset: Offset(7), at, conversation, event: Event::from(reply) }
    }

    #[test]
    fn a_send_goes_to_the_phone_else_to_the_user_id_of_whom_the_reply_or_the_conversation_names() {
        let to = |of: &Record, known: Option<Customer>| {
            send_of(ChannelId(1), of, || known).map(|send| send.to.as_str().to_owned())
        };
        let both = customer(Some("4917"), Some("US.1"));
        assert_eq!(to(&reply_to(both.clone()), None).as_deref(), Some("4917"));
        assert_eq!(to(&reply_to(customer(None, Some("US.2"))), Some(both.clone())).as_deref(), Some("US.2"));
        assert_eq!(to(&reply_to(Customer::default()), Some(both.clone())).as_deref(), Some("4917"));
        assert_eq!(to(&reply_to(Customer::default()), Some(Customer::default())), None, "nobody is known");
        let other =
            Record { event: Event::Handed(Handed { reply: Offset(1), attempt: 1 }), ..reply_to(both) };
        assert_eq!(to(&other, None), None, "only a reply is sent");
    }
}
