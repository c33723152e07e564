//! The actor of one channel: the only appender of its stream, and the only one who decides about it.
//!
//! A thin shell around [`Channel`]: it numbers drafts, lays them out in blocks, holds every answer until what it was
//! decided on is durable, and then fans out.
//!
//! ```text
//!  Work ─▶ asks ─▶ Channel::decide ─▶ record ─▶ open flight ──seal──▶ flights ─ Journal::append
//!                                                                       │ Appended(Durable)
//!  Outlet ◀── feeds (ServiceCursor) ◀── recent batches ◀── landing ◀────┘──▶ held answers, sends, portal
//! ```
//!
//! # Layout
//! - `mod.rs`: the actor, its messages, deciding and recording
//! - `asks`: each request, and what is held of its answer
//! - `fates`: what has become of a reply, for who waits for it
//! - `flights`: blocks on their way to the journal, and what happens when they have landed
//! - `cursors`: how far each service and each watcher has got · `feeds`: connections, acknowledgements, backlogs
//! - `sending`: the outbox and its gateway
//! - `messages`: what it is told beside requests · `observing`: what it lets others see of itself
//! - `lookups`: what must be looked for in the journal before it is decided (B4, B6, B7)
//! - `replay`: the state from the records, at start
//!
//! **Invariants:** every answer, refusals included, leaves behind the records that it was decided on. Offsets are given
//! out by this actor alone, without a hole. A panic in here halts the broker: its state can not be trusted any more.

pub(super) mod asks;
mod cursors;
mod fates;
mod feeds;
mod flights;
mod lookups;
mod messages;
mod observing;
pub(super) mod replay;
mod sending;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, SpawnHandle};

use self::cursors::{Feed, Scratch, Watcher};
use self::fates::Fates;
use self::feeds::FoundBacklog;
use self::flights::Flight;
use self::lookups::Lookups;
pub(in crate::actors) use self::messages::{
    Attach, Detach, DropIds, GatewayNews, HandOverOutcome, HandedOver, Idle, LaidAside, PortalChanged,
    PresenceChanged, Pump, Settle, Trimmed,
};
use self::messages::{Flush, LookedAt, Wake};
use self::sending::Sending;
use super::asking::Work;
use super::batch::{BatchEntry, Recent};
use super::clock::now;
use super::completion::{Appended, Completions};
use super::conversation::ConversationActor;
use super::port::{Answered, Refusal};
use super::portal::PortalActor;
use super::registry::{ChannelEntry, NumberEntry};
use super::shared::{MAILBOX_MESSAGES_MAX, Shared};
use crate::domain::channel::{Channel, Draft, Received};
use crate::domain::command::{Answer, Command, Inbound, Rejection};
use crate::domain::content::Carried;
use crate::domain::event::{Event, Record};
use crate::domain::ids::{ConversationId, Offset, ServiceId, Timestamp};
use crate::domain::portal::Portal;
use crate::journal::{BlockBuilder, Outcome, RecordMeta, StreamId, payload};

/// How long a change of what is acknowledged waits before it is recorded (at most one record a second per service).
const ACK_RECORD_EVERY: Duration = Duration::from_secs(1);
/// What a record's fields other than content take in the journal, in bytes, at most about: names and ids.
const RECORD_FIELDS_BYTES: usize = 1_024;
/// How far ahead a deadline is waited for in one go, in milliseconds.
const WAIT_MS_MAX: u64 = 3_600_000;

/// What a channel's actor is made of.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) completions: Arc<Completions>,
    pub(super) channel: Channel,
    pub(super) entry: ChannelEntry,
    pub(super) portal: Arc<Portal>,
    pub(super) portal_actor: Addr<PortalActor>,
    pub(super) number: Arc<NumberEntry>,
}

/// The actor of one channel.
pub(super) struct ChannelActor {
    shared: Arc<Shared>,
    completions: Arc<Completions>,
    me: Addr<Self>,
    channel: Channel,
    entry: ChannelEntry,
    portal: Arc<Portal>,
    portal_actor: Addr<PortalActor>,
    number: Arc<NumberEntry>,
    /// Reused by every decision.
    drafts: Vec<Draft>,
    builder: BlockBuilder,
    /// What was decided since the last block was appended.
    open: Flight,
    flights: VecDeque<Flight>,
    /// How many answers the last connection of the flight before had: about as many come.
    answers_before: usize,
    /// The last offset that was appended.
    appended: Offset,
    /// The last offset that is durable.
    durable: Offset,
    flush_asked: bool,
    /// Answers that nothing holds.
    released: Vec<asks::Held>,
    recent: Recent,
    feeds: Vec<Feed>,
    watchers: Vec<Watcher>,
    sending: Sending,
    lookups: Lookups,
    fates: Fates,
    /// The conversations that somebody looks at, and how much each actor was told.
    conversations: HashMap<ConversationId, (Addr<ConversationActor>, u64)>,
    /// The deadline that a timer is set for.
    waiting_for: Option<(Timestamp, SpawnHandle)>,
    acks_asked: bool,
    scratch: Scratch,
}

impl ChannelActor {
    pub(super) fn new(parts: Parts, me: Addr<Self>) -> Self {
        let Parts { shared, completions, mut channel, entry, portal, portal_actor, number } = parts;
        channel.outbox_mut().set_weights(portal.weights());
        let head = channel.head();
        let recent = Recent::new(head.next(), shared.settings().limits.recent_bytes_max);
        Self {
            builder: BlockBuilder::new(StreamId::from(channel.id())),
            shared,
            completions,
            me,
            channel,
            entry,
            portal,
            portal_actor,
            drafts: Vec::new(),
            open: Flight::default(),
            flights: VecDeque::new(),
            answers_before: 1,
            appended: head,
            durable: head,
            flush_asked: false,
            released: Vec::new(),
            recent,
            feeds: Vec::new(),
            watchers: Vec::new(),
            sending: Sending::new(number.link()),
            number,
            lookups: Lookups::default(),
            fates: Fates::default(),
            conversations: HashMap::new(),
            waiting_for: None,
            acks_asked: false,
            scratch: Scratch::default(),
        }
    }

    /// Decides, and records what was decided. Nothing of it leaves before it is durable.
    fn decide(&mut self, command: &Command, now: Timestamp) -> Result<Answer, Rejection> {
        self.drafts.clear();
        let answer = self.channel.decide(&self.portal, command, now, &mut self.drafts)?;
        if !self.drafts.is_empty() {
            self.record(now);
        }
        Ok(answer)
    }

    /// As [`decide`](Self::decide), for a customer's message.
    fn receive(&mut self, inbound: Inbound, now: Timestamp) -> Result<Received, Rejection> {
        self.drafts.clear();
        let received = self.channel.receive(&self.portal, inbound, now, &mut self.drafts)?;
        if !self.drafts.is_empty() {
            self.record(now);
        }
        Ok(received)
    }

    /// Numbers the drafts of one decision, applies them and lays them out in one block.
    fn record(&mut self, now: Timestamp) {
        let mut drafts = std::mem::take(&mut self.drafts);
        let bytes = drafts.iter().map(|draft| RECORD_FIELDS_BYTES + content_bytes(&draft.event)).sum();
        if !self.builder.has_room(drafts.len(), bytes) {
            self.seal();
        }
        let mut is_membership = false;
        for Draft { conversation, event, known } in drafts.drain(..) {
            let offset = self.channel.head().next();
            let previous = conversation.map_or(Offset::ZERO, |id| self.channel.conversation_head(id));
            let meta = RecordMeta { conversation, previous, at: now, kind: payload::kind_of(&event) };
            let record = Record { offset, at: now, conversation, event };
            let laid_out = self.builder.push(offset, meta, |out| payload::encode(&record.event, out));
            if let Err(error) = laid_out {
                // What comes in is bounded so that it fits. What was decided can not be taken back.
                self.shared.halt.halt(format!("a record of channel {} does not fit: {error}", self.entry.id));
                break;
            }
            self.channel.apply_known(&record, known);
            is_membership |= matches!(record.event, Event::Membership(_));
            self.open.synced |= matches!(record.event, Event::Handed(_));
            self.sending.decided(&record);
            let told = self.fates.told_by(&record);
            self.open.push(BatchEntry::Record(record), self.flights.back());
            self.open.held.extend(told);
        }
        self.drafts = drafts;
        if is_membership {
            self.open.sight = Some((self.channel.seen(), self.standings()));
            self.refresh_spans();
            self.follow_progress();
        }
    }

    fn standings(&self) -> BTreeMap<ServiceId, crate::domain::channel::Standing> {
        let services = self.portal.services().map(|rules| &rules.service);
        services.map(|service| (service.clone(), self.channel.standing(service))).collect()
    }

    /// What is due by now, and what follows from earlier decisions.
    fn tick(&mut self, now: Timestamp) {
        loop {
            // Without a rejection: a tick asks for nothing.
            let _ = self.decide(&Command::Tick, now);
            self.channel.forget(now);
            if self.shared.halt.is_halted() || !self.channel.has_follow_up(&self.portal) {
                break;
            }
        }
    }

    /// After every message: what nothing holds leaves, what was decided is appended soon, the next deadline is set.
    fn after(&mut self, ctx: &mut Context<Self>) {
        self.pump_outbox();
        self.release_free();
        self.note_levels();
        if !self.open.is_empty() && !self.flush_asked {
            self.flush_asked = true;
            ctx.notify(Flush);
        }
        self.set_timer(ctx);
        if !self.acks_asked && self.feeds.iter().any(Feed::has_news) {
            self.acks_asked = true;
            ctx.run_later(ACK_RECORD_EVERY, |actor, ctx| {
                actor.acks_asked = false;
                actor.record_acks();
                actor.after(ctx);
            });
        }
    }

    fn set_timer(&mut self, ctx: &mut Context<Self>) {
        let due = self.channel.next_deadline(&self.portal);
        let Some(deadline) = [due, self.sending.take_later()].into_iter().flatten().min() else { return };
        if self.waiting_for.is_some_and(|(at, _)| at <= deadline) {
            return;
        }
        if let Some((_, timer)) = self.waiting_for.take() {
            ctx.cancel_future(timer);
        }
        let wait_ms = deadline.since_ms(now()).min(WAIT_MS_MAX);
        let timer = ctx.notify_later(Wake, Duration::from_millis(wait_ms + 1));
        self.waiting_for = Some((deadline, timer));
    }

    /// Records how far each service has acknowledged.
    fn record_acks(&mut self) {
        let now = now();
        for at in 0..self.feeds.len() {
            let Some(feed) = self.feeds.get_mut(at) else { break };
            if let Some(through) = feed.take_news() {
                let service = feed.service().clone();
                let _ = self.decide(&Command::Acknowledge { service, through }, now);
            }
        }
    }
}

/// Size of an event's content, in bytes.
fn content_bytes(event: &Event) -> usize {
    match event {
        Event::Message(message) => {
            message.content.len()
                + message.customer.name.as_ref().map_or(0, |name| name.len())
                + Carried::size_of(message.contact.as_deref())
        }
        Event::Reply(reply) => {
            reply.content.len() + reply.callback_data.as_ref().map_or(0, bytes::Bytes::len)
        }
        Event::Notice(notice) => notice.content.len(),
        Event::Receipt(receipt) => Carried::size_of(receipt.carried.as_ref()),
        Event::StatusParked(parked) => Carried::size_of(parked.carried.as_ref()),
        _ => 0,
    }
}

impl Actor for ChannelActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // What bounds the mailbox are the permits that its messages hold.
        ctx.set_mailbox_capacity(MAILBOX_MESSAGES_MAX);
        self.completions.own(StreamId::from(self.channel.id()), ctx.address().recipient());
        if !self.channel.is_new() {
            self.recover();
        }
        self.follow_progress();
        self.after(ctx);
    }
}

impl Drop for ChannelActor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.halt.halt(format!("the actor of channel {} panicked", self.entry.id));
        }
    }
}

impl Handler<Work> for ChannelActor {
    type Result = ();

    fn handle(&mut self, work: Work, ctx: &mut Self::Context) {
        if work.origin.as_ref().is_some_and(|outlet| outlet.is_void()) {
            return;
        }
        let now = now();
        for asked in work.asked {
            if self.shared.halt.is_halted() {
                self.hold(work.origin.as_ref(), asked.reply_to, Answered::Refused(Refusal::Unavailable));
            } else {
                self.ask(work.origin.as_ref(), asked, now);
            }
        }
        if let Some(permits) = work.permits {
            self.keep_for_lookups(&permits);
            self.keep_permits(permits);
        }
        self.after(ctx);
    }
}

impl Handler<Appended> for ChannelActor {
    type Result = ();

    fn handle(&mut self, Appended(outcome): Appended, ctx: &mut Self::Context) {
        match outcome {
            Outcome::Durable(head) => self.land(head.offset),
            Outcome::Halted => self.abandon(),
            Outcome::Fenced(_) | Outcome::Unknown => {
                // Only an engine with several owners gives these; this actor can not go on with its state.
                self.shared.halt.halt(format!("channel {} was appended to by another owner", self.entry.id));
                self.abandon();
            }
        }
        self.after(ctx);
    }
}

impl Handler<Flush> for ChannelActor {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        self.flush_asked = false;
        self.seal();
    }
}

impl Handler<Wake> for ChannelActor {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        self.waiting_for = None;
        self.tick(now());
        self.after(ctx);
    }
}

impl Handler<Attach> for ChannelActor {
    type Result = ();

    fn handle(&mut self, attach: Attach, ctx: &mut Self::Context) {
        self.attach(attach);
        self.after(ctx);
    }
}

impl Handler<Detach> for ChannelActor {
    type Result = ();

    fn handle(&mut self, Detach(connection): Detach, ctx: &mut Self::Context) {
        self.detach(connection);
        self.after(ctx);
    }
}

impl Handler<Pump> for ChannelActor {
    type Result = ();

    fn handle(&mut self, Pump(connection): Pump, _: &mut Self::Context) {
        self.pump_connection(connection);
    }
}

impl Handler<Trimmed> for ChannelActor {
    type Result = ();

    fn handle(&mut self, Trimmed(first): Trimmed, _: &mut Self::Context) {
        self.recent.trim(first);
    }
}

impl Handler<FoundBacklog> for ChannelActor {
    type Result = ();

    fn handle(&mut self, found: FoundBacklog, _: &mut Self::Context) {
        self.take_backlog(found);
    }
}

impl Handler<PortalChanged> for ChannelActor {
    type Result = ();

    fn handle(&mut self, changed: PortalChanged, ctx: &mut Self::Context) {
        self.portal = changed.portal;
        if changed.is_reload {
            self.reloaded();
        }
        if let Some((service, asked)) = changed.roster {
            let now = now();
            let _ = self.decide(&Command::RosterChanged { service }, now);
            if self.channel.has_follow_up(&self.portal) {
                self.tick(now);
            }
            self.hold(None, asked.reply_to, Answered::Ok);
        }
        self.after(ctx);
    }
}

impl Handler<GatewayNews> for ChannelActor {
    type Result = ();

    fn handle(&mut self, news: GatewayNews, ctx: &mut Self::Context) {
        if let Some(lost) = news.lost {
            self.lose_sends(lost);
        }
        self.after(ctx);
    }
}

impl Handler<HandedOver> for ChannelActor {
    type Result = ();

    fn handle(&mut self, handed: HandedOver, ctx: &mut Self::Context) {
        self.handed_over(handed);
        self.after(ctx);
    }
}

impl Handler<LookedAt> for ChannelActor {
    type Result = ();

    fn handle(&mut self, looked: LookedAt, ctx: &mut Self::Context) {
        self.looked_at(looked.0);
        self.after(ctx);
    }
}

impl Handler<LaidAside> for ChannelActor {
    type Result = ();

    fn handle(&mut self, LaidAside { laid, waits }: LaidAside, _: &mut Self::Context) {
        self.lay_aside(laid);
        self.free_ids(waits);
    }
}

impl Handler<DropIds> for ChannelActor {
    type Result = ();

    fn handle(&mut self, DropIds { bytes, waits }: DropIds, _: &mut Self::Context) {
        let dropped = self.channel.drop_oldest_ids(bytes);
        self.shared.counters.dropped_ids(dropped);
        self.free_ids(waits);
    }
}

impl Handler<PresenceChanged> for ChannelActor {
    type Result = ();

    fn handle(&mut self, changed: PresenceChanged, _: &mut Self::Context) {
        self.tell_presence(&changed);
    }
}

impl Handler<Idle> for ChannelActor {
    type Result = ();

    fn handle(&mut self, idle: Idle, _: &mut Self::Context) {
        // What it was told since is still to be handled.
        if self.conversations.get(&idle.conversation).is_some_and(|(_, told)| *told == idle.handled) {
            self.conversations.remove(&idle.conversation);
        }
    }
}

impl Handler<Settle> for ChannelActor {
    type Result = ();

    fn handle(&mut self, _: Settle, ctx: &mut Self::Context) {
        self.record_acks();
        self.seal();
        self.after(ctx);
    }
}
