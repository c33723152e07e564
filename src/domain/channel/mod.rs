//! A channel: one number in one portal, shared by its subscribers. Decides everything that is journaled of it.
//!
//! `decide` reads, and says in drafts what would happen; the owner numbers them from `head().next()` on and gives
//! each to `apply` at once; nothing leaves the broker before they are durable. The state is the fold of the records:
//! a channel that is replayed equals the one that lived.
//!
//! # Layout
//! - [`mod@self`]: the state, `decide`, `apply`, what can be asked of the state
//! - `standing`: joining and leaving, the parent, from where deliveries go on
//! - `inbound`: customers' messages, repeats, names that prove to be one
//! - `picking`: open, pick up, release, transfer, confirmations
//! - `holding`: how claims live and end by themselves, and their records
//! - `replying`: replies, echoes, and what the outbox decides
//! - `threads`: whose a conversation's thread is, a note that services pass on
//! - `listing`: conversations in lists
//! - `remembering`: ids in memory and in runs
//! - `saving`: the state written down, for a base of the journal
//! - `conversations`, `claiming`: the compact state of conversations and claims
//!
//! **Invariants:** `apply` is total; a decision is at most [`DRAFTS_MAX`] drafts and takes effect as a whole; what
//! follows from one for many conversations is in the fold at once, its records follow by [`Command::Tick`].

mod claiming;
mod conversations;
mod holding;
mod inbound;
mod listing;
mod picking;
mod remembering;
mod replying;
mod saving;
mod standing;
mod threads;

use std::sync::Arc;

use self::claiming::Agents;
use self::conversations::{Conversations, Mix};
use self::standing::Services;
use self::threads::Noted;
use super::command::{Answer, ChannelSeen, ChannelState, Command, Inbound, Rejection, Window};
use super::event::{Event, Record, Settings};
use super::fingerprint::{Fingerprint, Key};
use super::ids::{ChannelId, ConversationId, Number, Offset, ServiceId, Timestamp};
use super::outbox::Outbox;
use super::portal::Portal;
use super::recent_ids::RecentIds;

pub use self::inbound::{Received, WINDOW_MS};
pub use self::listing::{LIST_LOOKED_AT_MAX, LIST_MAX};
pub use self::saving::Rests;
pub use self::standing::STRETCHES_MAX;
pub use self::threads::METADATA_CHARS_MAX;

/// Most drafts of one decision: they lie in one block of the journal, so that a crash leaves all or nothing.
pub const DRAFTS_MAX: usize = 256;

/// The keys of a channel's fingerprints and confirmations, made outside and kept beside the journal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Of customers' names, message ids and reply ids.
    pub fingerprint: [u8; 16],
    /// Of confirmations.
    pub confirm: [u8; 16],
    /// Of replies' contents.
    pub digest: [u8; 16],
}

/// A key is a secret.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<keys>")
    }
}

/// What is to be recorded; the owner gives it offset and time.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The conversation it belongs to; none for what concerns the whole channel.
    pub conversation: Option<ConversationId>,
    /// What happened.
    pub event: Event,
    /// What deciding has worked out, for [`Channel::apply_known`].
    pub known: Option<Known>,
}

impl Draft {
    /// A draft of which nothing was worked out that is needed again.
    #[must_use]
    pub fn new(conversation: Option<ConversationId>, event: Event) -> Self {
        Self { conversation, event, known: None }
    }
}

/// What was worked out of a customer's message when it was decided, and would be again when it is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Of its id.
    message_id: Fingerprint,
    /// Of the customer's names.
    names: Mix,
}

/// A service's standing in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Standing {
    /// It has no record.
    #[default]
    None,
    /// It is in the list.
    Subscribed,
    /// It has left the list, its record is kept.
    Inactive,
}

/// A part of the channel that a service is delivered (B13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// What lies behind this offset.
    pub after: Offset,
    /// Up to here, this one included; without end while the service is subscribed.
    pub through: Option<Offset>,
    /// Whether receipts in it are delivered: not those of a time when the service was away.
    pub receipts: bool,
}

/// What a service is delivered of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliverySpan {
    /// Ascending, apart; without what is acknowledged as a whole.
    pub stretches: Vec<Stretch>,
    /// What its adapters have acknowledged: what lies up to here needs no delivery.
    pub acknowledged: Offset,
}

/// A conversation, for who starts its actor or reads its timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationNow {
    /// Its id; the older one's where the id asked for has become part of it (B12).
    pub conversation: ConversationId,
    /// Its last offset.
    pub head: Offset,
    /// The customer's newest names are in the record at this offset.
    pub customer_at: Offset,
    /// The 24-hour window.
    pub window: Window,
    /// The younger ones that became part of it, each with its last offset: their records are shown by offset in it.
    pub merged: Vec<(ConversationId, Offset)>,
}

/// Which conversations a list shall have.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// The service that asks.
    pub service: ServiceId,
    /// Behind this one.
    pub after: Option<ConversationId>,
    /// At most so many.
    pub limit: usize,
    /// Only those held in any service, or in none.
    pub claimed: Option<bool>,
    /// Only those without, or with, a reply since the customer's newest message.
    pub unanswered: Option<bool>,
}

/// One number in one portal.
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    id: ChannelId,
    number: Number,
    /// Its one service on plan `isolated`.
    only: Option<ServiceId>,
    keys: Keys,
    /// Of customers' names and message ids.
    fingerprints: Key,
    head: Offset,
    services: Services,
    agents: Agents,
    parent: Option<ServiceId>,
    subscribers: Arc<[ServiceId]>,
    settings: Settings,
    /// The record with which it became active, and when; none while nobody is subscribed.
    active_since: Option<(Offset, Timestamp)>,
    conversations: Conversations,
    noted: Noted,
    message_ids: RecentIds,
    outbox: Outbox,
}

/// One decision on its way: against what it is made, and what it has recorded.
struct Turn<'a> {
    portal: &'a Portal,
    now: Timestamp,
    /// The channel's head before it.
    head: Offset,
    out: &'a mut Vec<Draft>,
    /// How many drafts were there before it.
    start: usize,
}

impl Turn<'_> {
    fn record(&mut self, conversation: Option<ConversationId>, event: Event) {
        self.out.push(Draft::new(conversation, event));
    }

    fn recorded(&self) -> usize {
        self.out.len() - self.start
    }

    /// How many drafts the decision may still have.
    fn room(&self) -> usize {
        DRAFTS_MAX.saturating_sub(self.recorded())
    }

    /// The offset that the next draft gets.
    fn next_offset(&self) -> Offset {
        Offset(self.head.0 + self.recorded() as u64 + 1)
    }
}

impl Channel {
    /// A channel before its first record. `only` is its one service on plan `isolated`.
    #[must_use]
    pub fn new(id: ChannelId, number: Number, only: Option<ServiceId>, keys: Keys, send_ttl_ms: u64) -> Self {
        Self {
            id,
            number,
            only,
            keys,
            fingerprints: Key::new(keys.fingerprint),
            head: Offset::ZERO,
            services: Services::default(),
            agents: Agents::default(),
            parent: None,
            subscribers: Arc::from([]),
            settings: Settings::default(),
            active_since: None,
            conversations: Conversations::default(),
            noted: Noted::default(),
            message_ids: RecentIds::new(),
            outbox: Outbox::new(&keys, send_ttl_ms),
        }
    }

    /// Says what a command does: the answer, and behind what `out` holds what is to be recorded. Changes nothing.
    ///
    /// # Errors
    /// Why it is refused; then `out` is as it was.
    pub fn decide(
        &self,
        portal: &Portal,
        command: &Command,
        now: Timestamp,
        out: &mut Vec<Draft>,
    ) -> Result<Answer, Rejection> {
        let start = out.len();
        let mut turn = Turn { portal, now, head: self.head, out, start };
        let decided = self.decide_in(&mut turn, command);
        debug_assert!(turn.recorded() <= DRAFTS_MAX, "a decision is at most {DRAFTS_MAX} drafts");
        if decided.is_err() {
            out.truncate(start);
        }
        decided
    }

    /// As [`decide`](Self::decide), for a customer's message that is given away: nothing of it is copied.
    ///
    /// # Errors
    /// Why it is refused; then `out` is as it was.
    pub fn receive(
        &self,
        portal: &Portal,
        inbound: Inbound,
        now: Timestamp,
        out: &mut Vec<Draft>,
    ) -> Result<Received, Rejection> {
        let start = out.len();
        self.decide_inbound(&mut Turn { portal, now, head: self.head, out, start }, inbound)
    }

    fn decide_in(&self, turn: &mut Turn<'_>, command: &Command) -> Result<Answer, Rejection> {
        match command {
            Command::Inbound(inbound) => Ok(match self.decide_inbound(turn, inbound.clone())? {
                Received::Answered(answer) => answer,
                Received::Suspected { at, .. } => Answer::LookUp(at),
            }),
            Command::Standing(standing) => self.decide_standing(turn, standing),
            Command::Configure { service, settings } => self.decide_configure(turn, service, *settings),
            Command::Open { service, conversation, agent } => {
                self.decide_open(turn, service, *conversation, agent)
            }
            Command::PickUp { service, conversation, agent, confirm } => {
                self.decide_pick_up(turn, service, *conversation, agent, confirm.as_deref())
            }
            Command::Release(claim) => self.decide_release(turn, claim),
            Command::Transfer { claim, to } => self.decide_transfer(turn, claim, to),
            Command::Reply(reply) => self.decide_reply(turn, reply),
            Command::Echo(echo) => self.decide_echo(turn, echo),
            Command::Presence { service, conversation, agent } => {
                self.decide_presence(turn, service, *conversation, agent)
            }
            Command::Status(status) => Ok(self.outbox.status(status, turn.now, turn.out)),
            Command::Hand { reply } => self.decide_hand(turn, *reply),
            Command::Outcome { reply, outcome } => {
                Ok(self.outbox.outcome(*reply, outcome, turn.now, turn.out))
            }
            Command::Withdraw { service, reply_id, why } => {
                let withdrawn = self.outbox.withdraw(service, reply_id, why, turn.now, turn.out);
                withdrawn.ok_or(Rejection::NotFound)
            }
            Command::Acknowledge { service, through } => Ok(self.decide_acknowledge(turn, service, *through)),
            Command::RosterChanged { service } => {
                if let Some(slot) = self.services.of(service) {
                    self.record_leavers(turn, slot);
                }
                Ok(Answer::Done)
            }
            Command::Thread(thread) => self.decide_thread(turn, thread),
            Command::Notice { field, content } => Ok(self.decide_notice(turn, field, content)),
            Command::Tick => {
                self.decide_tick(turn);
                Ok(Answer::Done)
            }
        }
    }

    /// Takes a record into the state. Total: a record that does not fit changes nothing but the head.
    pub fn apply(&mut self, record: &Record) {
        self.apply_known(record, None);
    }

    /// As [`apply`](Self::apply), for whoever has just decided: with what its [`Draft`] says of the record.
    pub fn apply_known(&mut self, record: &Record, known: Option<Known>) {
        self.head = record.offset;
        let index = record.conversation.and_then(|id| match record.event {
            Event::Message(_) | Event::Reply(_) => self.conversations.enter(id),
            _ => self.conversations.find(id),
        });
        if let Some(entry) = index.and_then(|index| self.conversations.get_mut(index)) {
            entry.head = record.offset;
        }
        match (&record.event, index) {
            (Event::Message(message), Some(index)) => {
                self.apply_message(record, index, message, known);
                return;
            }
            (Event::Membership(membership), _) => self.apply_membership(record, membership),
            (Event::Reply(reply), Some(index)) => self.apply_reply(record, index, reply),
            (Event::Claim(change), Some(index)) => self.apply_claim(record, index, change),
            (Event::ClaimActivity(active), Some(index)) => {
                self.apply_activity(index, &active.service, &active.agent, record.at);
            }
            (Event::Thread(change), Some(index)) => self.apply_thread(record, index, change),
            (Event::Merged(merged), Some(index)) => self.apply_merged(record, index, merged),
            (Event::Acknowledged(acknowledged), _) => self.apply_acknowledged(acknowledged),
            _ => {}
        }
        self.outbox.apply(record);
    }

    /// The next offset lies behind `end` at least: after a crash in the mode that acknowledges before the sync, offsets
    /// that may have been handed out are not given out again. A channel without records stays new.
    pub fn leap_to(&mut self, end: Offset) {
        if !self.is_new() {
            self.head = self.head.max(end);
        }
    }

    /// Drops what has been kept long enough: message ids, reply ids, parked statuses, notes that have lapsed. In no record: the owner calls
    /// it after each [`Command::Tick`], and it changes no answer, since what is too old is not looked at anyway.
    pub fn forget(&mut self, now: Timestamp) {
        self.message_ids.forget(now);
        self.outbox.forget(now);
        self.forget_threads(now);
    }

    /// When [`Command::Tick`] is due next: a claim's or a reply's end, or at once where records follow.
    #[must_use]
    pub fn next_deadline(&self, portal: &Portal) -> Option<Timestamp> {
        if self.has_ended_claims() || self.has_replies_to_fail() {
            return Some(Timestamp::default());
        }
        [self.claim_deadline(portal), self.outbox.next_deadline()].into_iter().flatten().min()
    }

    /// Whether records follow from what was decided before: then `Tick` until there are none. A roster change is
    /// answered only after that. Looks at every holder of a claim, so it is for after a leaving, a roster change and
    /// a `Tick`; else [`Channel::next_deadline`] says enough.
    #[must_use]
    pub fn has_follow_up(&self, portal: &Portal) -> bool {
        let has_leavers = self.services.iter().any(|slot| {
            let in_roster =
                |agent| self.agents.get(agent).is_some_and(|agent| portal.agent(&slot.id, agent).is_some());
            slot.claims.holders().any(|(agent, _)| !in_roster(agent))
        });
        self.has_ended_claims() || self.has_replies_to_fail() || has_leavers
    }

    fn has_ended_claims(&self) -> bool {
        self.services.iter().any(|slot| slot.claims.ended().next().is_some())
    }

    fn has_replies_to_fail(&self) -> bool {
        self.state() == ChannelState::Closed && self.outbox.waiting_len() > 0
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> &Number {
        &self.number
    }

    /// The last offset given out.
    #[must_use]
    pub fn head(&self) -> Offset {
        self.head
    }

    /// Whether it has no record yet: it is not there before its first one.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.head == Offset::ZERO
    }

    /// What it is, for whoever may ask.
    #[must_use]
    pub fn seen(&self) -> ChannelSeen {
        ChannelSeen {
            channel: self.id,
            number: self.number.clone(),
            state: self.state(),
            parent: self.parent().cloned(),
            subscribers: Arc::clone(self.subscribers()),
            settings: self.settings(),
            head: self.head,
        }
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Whether the service is in the list.
    #[must_use]
    pub fn is_subscribed(&self, service: &ServiceId) -> bool {
        self.subscribers.contains(service)
    }

    /// The list, in order.
    #[must_use]
    pub fn subscribers(&self) -> &Arc<[ServiceId]> {
        &self.subscribers
    }

    /// The subscriber that manages it.
    #[must_use]
    pub fn parent(&self) -> Option<&ServiceId> {
        self.parent.as_ref()
    }

    /// How many conversations it has had, those that became part of others included.
    #[must_use]
    pub fn conversations_len(&self) -> usize {
        self.conversations.len()
    }

    /// How many claims hold; one that has ended by its time counts until that is recorded.
    #[must_use]
    pub fn claims_len(&self) -> usize {
        self.services.iter().map(|slot| slot.claims.len()).sum()
    }

    /// How many notes there are of whose a thread is; one that has lapsed counts until it is forgotten.
    #[must_use]
    pub fn threads_len(&self) -> usize {
        self.noted.len()
    }

    /// Its replies.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Its replies, for what is in no record: [`Outbox::put_back`], [`Outbox::set_send_ttl`],
    /// [`Outbox::set_weights`].
    pub fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }
}
