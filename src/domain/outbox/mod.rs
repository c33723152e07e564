//! What a channel knows of its replies: which ids are taken, what waits to be sent, what became of the rest.
//!
//! A part of the channel's state and a fold of the same records (`Reply`, `Handed`, `Receipt`, `StatusParked`,
//! `Merged`). Its decisions put drafts into the channel's decision; the channel records and applies them. A reply is
//! *open* from its acceptance to its first outcome (`sent`, `failed`, `unknown`); its content stays in the journal and
//! is read again by whoever sends it.
//!
//! ```text
//! Reply ─▶ waiting ─Handed─▶ handed ─Receipt─▶ unknown ─▶ sent ─▶ delivered ─▶ read ─▶ played
//!            │  ▲               │ put_back, or   └─────────┴─────▶ failed
//!            │  └───────────────┘ Receipt (accepted): the attempt was refused, another may pass
//!            └─Receipt─▶ failed (expired, channel_closed, withdrawn)
//! ```
//!
//! # Layout
//! - [`mod@self`]: the state, the fold, what can be asked of it
//! - `deciding`: hand, outcome, status, deadlines
//! - `queue`: one at a time per conversation, services in fair turns (B14) · [`turns`]: whose turn it is, by weight
//! - [`budget`]: how much may be handed over, how fast, from which channel (B14) · `pairs`: to one customer
//! - `done`: replies with an outcome, by id and by message (B4, B7) · [`recalling`]: those that lie in runs on disk
//! - `parked`: statuses that came before their message was known (B7)
//!
//! **Invariants:** `apply` is total. A reply is open or done, never both. A status never goes backwards. Replay of the
//! records and a `forget` of the same time give an equal state under the same weights; only
//! [`Outbox::put_back`], [`Outbox::rest`] and [`Outbox::drop_oldest_remembered`] are in no record, and what is laid
//! aside, which changes no answer.

pub mod budget;
mod deciding;
mod done;
mod name;
mod pairs;
mod parked;
mod queue;
pub mod recalling;
#[cfg(test)]
mod tests;
pub mod turns;

use std::collections::BTreeMap;

use bytes::Bytes;

use self::done::{Done, Outcome};
use self::parked::Parked;
use self::queue::{Class, Queue, Waiting};
use super::buckets::BucketMap;
use super::channel::Keys;
use super::content::Content;
use super::event::{Event, Handed, Receipt, Record, Reply, Status};
use super::fingerprint::{Fingerprint, Key};
use super::ids::{ConversationId, MessageId, Offset, ReplyId, ServiceId, Timestamp};
use super::saved::{Put, Saved, Take, Unreadable, restore_all, saved};

pub use self::done::REPLY_IDS_MS;
pub use self::parked::{PARKED_CARRIED_BYTES_MAX, PARKED_MAX};

/// How long a reply may be handed without outcome before it counts as `unknown`, in milliseconds (contract: 60 s).
pub const OUTCOME_MS: u64 = 60_000;
/// Most replies of a channel without outcome. A number sends 288,000 in the default `send_ttl` of an hour, so what
/// waits behind more than that would expire. One half is for whoever comes first, of the other each service has its
/// share: who has filled the first half and its own share is refused, and nobody else ([`Outbox::has_room`]).
pub const OPEN_REPLIES_MAX: usize = 524_288;
/// Most replies that one TCP gateway has without outcome (B14).
pub const UNRESOLVED_MAX: usize = 1_024;
/// The code of a reply that waited longer than `send_ttl`.
pub const EXPIRED: &str = "expired";
/// The code of a reply that had not been handed when its channel closed (B13).
pub const CHANNEL_CLOSED: &str = "channel_closed";
/// The code of a reply that who sent it has taken back before it was handed.
pub const WITHDRAWN: &str = "withdrawn";

/// Whether a reply id is in use (B4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is not.
    New,
    /// This very reply has been accepted before; nothing is to be sent again.
    Same {
        /// Where the reply stands.
        offset: Offset,
        /// Its conversation, or the older one that it has become part of.
        conversation: ConversationId,
        /// How far it has come; while it is `Accepted` there is no outcome yet.
        status: Status,
        /// Where its first outcome stands, once there is one (the later `sent` or `failed` after an `unknown`).
        outcome: Option<Offset>,
    },
    /// It names another conversation or content.
    Conflict,
}

/// A reply, as far as the outbox knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyNow<'a> {
    /// The service that sends it.
    pub service: &'a ServiceId,
    /// The name that it gave the reply.
    pub reply_id: ReplyId,
    /// Its conversation, or the older one that it has become part of.
    pub conversation: ConversationId,
    /// How far it has come.
    pub status: Status,
    /// How often it has been handed to the gateway while it was open.
    pub attempts: u32,
}

/// What has become of a reply, by the name that its service gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// Where the reply stands.
    pub offset: Offset,
    /// Its conversation, or the older one that it has become part of.
    pub conversation: ConversationId,
    /// How far it has come; while it is `Accepted` there is no outcome yet.
    pub status: Status,
    /// Where its first outcome stands (the later `sent` or `failed` after an `unknown`).
    pub outcome: Option<Offset>,
    /// Whether it waits behind another reply of its conversation.
    pub is_behind: bool,
}

/// What a reply is called, and what a repeat is compared with.
#[derive(Debug, Clone, PartialEq)]
struct Facts {
    service: ServiceNumber,
    reply_id: ReplyId,
    conversation: ConversationId,
    digest: Fingerprint,
}

/// A reply without outcome.
#[derive(Debug, Clone, PartialEq)]
struct Open {
    facts: Facts,
    attempts: u32,
}

saved!(Facts { service, reply_id, conversation, digest });
saved!(Open { facts, attempts });

/// A channel's replies.
#[derive(Debug, Clone, PartialEq)]
pub struct Outbox {
    fingerprints: Key,
    digests: Key,
    send_ttl_ms: u64,
    /// The services' weights, where they are not [`WEIGHT_DEFAULT`](turns::WEIGHT_DEFAULT).
    weights: BTreeMap<ServiceId, u32>,
    services: Services,
    /// Replies without outcome, by their offset.
    open: BucketMap<Offset, Open>,
    /// Their ids.
    open_ids: BucketMap<Fingerprint, Offset>,
    /// How many of them each service has, by its number.
    open_of: BTreeMap<ServiceNumber, usize>,
    queue: Queue,
    done: Done,
    parked: Parked,
    /// For each conversation that has become part of another, that other one.
    merged: BucketMap<ConversationId, ConversationId>,
}

impl Outbox {
    /// That of a channel before its first record. A reply waits for `send_ttl_ms` at most.
    #[must_use]
    pub fn new(keys: &Keys, send_ttl_ms: u64) -> Self {
        Self {
            fingerprints: Key::new(keys.fingerprint),
            digests: Key::new(keys.digest),
            send_ttl_ms,
            weights: BTreeMap::new(),
            services: Services::default(),
            open: BucketMap::new(),
            open_ids: BucketMap::new(),
            open_of: BTreeMap::new(),
            queue: Queue::default(),
            done: Done::default(),
            parked: Parked::default(),
            merged: BucketMap::new(),
        }
    }

    /// Sets how long a reply may wait, from now on and for those that wait already.
    pub fn set_send_ttl(&mut self, send_ttl_ms: u64) {
        self.send_ttl_ms = send_ttl_ms;
    }

    /// Sets how the services' turns are weighed from now on; who is not named weighs 1.
    pub fn set_weights(&mut self, weights: BTreeMap<ServiceId, u32>) {
        self.weights = weights;
    }

    /// How much a service weighs.
    #[must_use]
    pub fn weight(&self, service: &ServiceId) -> u32 {
        self.weights.get(service).copied().unwrap_or(turns::WEIGHT_DEFAULT)
    }

    fn weight_of(&self, service: ServiceNumber) -> u32 {
        self.services.get(service).map_or(turns::WEIGHT_DEFAULT, |service| self.weight(service))
    }

    /// Takes a record into the state. Total: one that does not fit changes nothing.
    pub fn apply(&mut self, record: &Record) {
        match &record.event {
            Event::Reply(reply) => self.apply_reply(reply, record),
            Event::Handed(handed) => self.apply_handed(handed, record.at),
            Event::Receipt(receipt) => self.apply_receipt(receipt, record),
            Event::StatusParked(status) => {
                self.parked.insert(self.fingerprints.message_id(&status.message_id), status, record.at);
            }
            Event::Merged(merged) => {
                if let Some(older) = record.conversation {
                    self.apply_merged(merged.from, older);
                }
            }
            _ => {}
        }
    }

    /// Drops what has been kept long enough: ids after 8 days, statuses of messages after 30, parked ones after 60 s;
    /// and lets conversations that have rested long enough go on.
    pub fn forget(&mut self, now: Timestamp) {
        self.done.forget(now);
        self.parked.forget(now);
        self.queue.wake(now);
    }

    /// The digest of a reply (B4): of its content and the service's callback data. Its addressee is compared by the
    /// conversation, in [`Outbox::known`].
    #[must_use]
    pub fn digest(&self, content: &Content, callback_data: Option<&Bytes>) -> u128 {
        self.digests.digest(content, callback_data).as_u128()
    }

    /// Whether a reply id is in use. Asked before anything else is looked at (B4).
    ///
    /// `conversation` is the one that the reply names or that its addressee has; none where there is none yet, and
    /// then an id in use is a conflict.
    #[must_use]
    pub fn known(
        &self,
        service: &ServiceId,
        reply_id: &ReplyId,
        digest: u128,
        conversation: Option<ConversationId>,
    ) -> Known {
        let Some(offset) = self.offset_of(service, reply_id) else { return Known::New };
        let (facts, status, outcome) = match (self.open.get(&offset), self.done.get(offset)) {
            (Some(open), _) => (open.facts.clone(), Status::Accepted, None),
            (None, Some(done)) => (done.facts(), done.status, Some(done.outcome)),
            (None, None) => return Known::New,
        };
        if facts.reply_id != *reply_id || self.services.get(facts.service) != Some(service) {
            // Another one's fingerprint happens to be the same.
            return Known::New;
        }
        let at_home = self.resolve(facts.conversation);
        if facts.digest.as_u128() != digest || conversation.map(|named| self.resolve(named)) != Some(at_home)
        {
            return Known::Conflict;
        }
        Known::Same { offset, conversation: at_home, status, outcome }
    }

    /// What has become of a reply, by its name; nothing where that is not in use.
    #[must_use]
    pub fn fate(&self, service: &ServiceId, reply_id: &ReplyId) -> Option<Fate> {
        let offset = self.offset_of(service, reply_id)?;
        let (facts, status, outcome) = match (self.open.get(&offset), self.done.get(offset)) {
            (Some(open), _) => (open.facts.clone(), Status::Accepted, None),
            (None, done) => done.map(|done| (done.facts(), done.status, Some(done.outcome)))?,
        };
        if facts.reply_id != *reply_id || self.services.get(facts.service) != Some(service) {
            // Another one's fingerprint happens to be the same.
            return None;
        }
        let waits = status == Status::Accepted && !self.queue.is_handed(facts.conversation, offset);
        let is_behind = waits && !self.queue.is_sendable(facts.conversation, offset);
        Some(Fate { offset, conversation: self.resolve(facts.conversation), status, outcome, is_behind })
    }

    /// The names of a service's replies without outcome that begin so.
    #[must_use]
    pub fn open_names(&self, service: &ServiceId, prefix: &str) -> Vec<ReplyId> {
        let Some(number) = self.services.numbers.get(service) else { return Vec::new() };
        let facts = self.open.iter().map(|(_, open)| &open.facts);
        let own = facts.filter(|facts| facts.service == *number);
        own.filter(|facts| facts.reply_id.as_str().starts_with(prefix))
            .map(|facts| facts.reply_id.clone())
            .collect()
    }

    /// The reply that a message of the last 30 days was: how a repeated echo is told (B17), and whose a status is.
    #[must_use]
    pub fn reply_of(&self, message_id: &MessageId) -> Option<Offset> {
        self.done.reply_of(&self.fingerprints.message_id(message_id))
    }

    /// A reply by its offset: open, or with an outcome of the last 30 days.
    #[must_use]
    pub fn reply(&self, offset: Offset) -> Option<ReplyNow<'_>> {
        let (facts, status, attempts) = match (self.open.get(&offset), self.done.get(offset)) {
            (Some(open), _) => (open.facts.clone(), Status::Accepted, open.attempts),
            (None, Some(done)) => (done.facts(), done.status, 0),
            (None, None) => return None,
        };
        Some(ReplyNow {
            service: self.services.get(facts.service)?,
            conversation: self.resolve(facts.conversation),
            reply_id: facts.reply_id,
            status,
            attempts,
        })
    }

    /// Whether another reply of this service can be accepted (B14).
    #[must_use]
    pub fn has_room(&self, service: &ServiceId) -> bool {
        let number = self.services.numbers.get(service);
        let own = number.and_then(|number| self.open_of.get(number)).copied().unwrap_or(0);
        let services = self.services.names.len() + usize::from(number.is_none());
        has_room(self.open.len(), own, services)
    }

    /// What it remembers of replies with an outcome, in bytes of memory, about.
    #[must_use]
    pub fn remembered_bytes(&self) -> usize {
        self.done.bytes()
    }

    /// Forgets the oldest of that before its time; says how many entries it forgot.
    pub fn drop_oldest_remembered(&mut self) -> usize {
        self.done.drop_oldest()
    }

    /// How many replies wait to be handed, sendable now or behind others of their conversation.
    #[must_use]
    pub fn waiting_len(&self) -> usize {
        self.queue.waiting_len()
    }

    /// Of how many messages statuses wait, because the messages are not known yet.
    #[must_use]
    pub fn parked_len(&self) -> usize {
        self.parked.len()
    }

    /// How many replies are handed and have no outcome.
    #[must_use]
    pub fn handed_len(&self) -> usize {
        self.queue.handed_len()
    }

    /// The next replies to hand, in the fair order: services in turn by their weights, in each the agents' replies before those of
    /// bots and templates, the oldest first; of a conversation the oldest alone, and none while one is handed.
    ///
    /// Handing them in this order changes nothing in the order of the rest. Costs the number given times the services.
    #[must_use]
    pub fn next_to_hand(&self, limit: usize) -> Vec<Offset> {
        self.queue.next(limit, |service| self.weight_of(service))
    }

    /// Replies that are handed and have no outcome, the longest first. At start and when a gateway's connection is
    /// lost each of its own becomes `unknown` (decision: [`Outbox::outcome`]), for nobody can know.
    pub fn unresolved_handed(&self) -> impl Iterator<Item = Offset> {
        self.queue.handed().map(|(_, offset)| offset)
    }

    /// A handed reply waits again, because it never left (there was no connection). Says whether it was handed.
    ///
    /// In no record: after a crash the attempt counts as one without outcome, so nothing is sent twice. What WhatsApp
    /// itself has refused and may take later goes back by a record ([`SendOutcome::Again`]).
    ///
    /// [`SendOutcome::Again`]: super::command::SendOutcome::Again
    pub fn put_back(&mut self, reply: Offset) -> bool {
        let Some(open) = self.open.get(&reply) else { return false };
        self.queue.put_back(open.facts.conversation, reply)
    }

    /// Nothing of a reply's conversation leaves before then: WhatsApp takes nothing for its customer now. In no record.
    pub fn rest(&mut self, reply: Offset, until: Timestamp) {
        if let Some(open) = self.open.get(&reply) {
            self.queue.rest(open.facts.conversation, until);
        }
    }

    /// The conversation that an id means: its own, or the older one's that it has become part of (B12).
    fn resolve(&self, conversation: ConversationId) -> ConversationId {
        let mut at = conversation;
        while let Some(older) = self.merged.get(&at) {
            at = *older;
        }
        at
    }

    fn offset_of(&self, service: &ServiceId, reply_id: &ReplyId) -> Option<Offset> {
        self.offset_by(&self.fingerprints.reply_id(service, reply_id))
    }

    fn offset_by(&self, id: &Fingerprint) -> Option<Offset> {
        self.open_ids.get(id).copied().or_else(|| self.done.offset_of(id))
    }

    fn apply_reply(&mut self, reply: &Reply, record: &Record) {
        let Some(conversation) = record.conversation else { return };
        if self.open.contains_key(&record.offset) || self.done.get(record.offset).is_some() {
            return;
        }
        let service = self.services.number(&reply.service);
        let id = self.fingerprints.reply_id(&reply.service, &reply.reply_id);
        let facts = Facts {
            service,
            reply_id: reply.reply_id.clone(),
            conversation: self.resolve(conversation),
            digest: Fingerprint::from_u128(reply.digest),
        };
        if let Some(message_id) = &reply.echo_of {
            let message = self.fingerprints.message_id(message_id);
            let outcome = Outcome::new(&facts, Status::Sent, record.offset, true);
            self.done.insert(id, record.offset, outcome, record.at);
            self.done.name(message, record.offset, record.offset, record.at);
            self.parked.take(&message);
            return;
        }
        let waiting = Waiting {
            offset: record.offset,
            accepted_at: record.at,
            service,
            class: Class::of(reply.agent.is_some(), reply.content.kind()),
        };
        self.queue.accept(facts.conversation, waiting);
        *self.open_of.entry(service).or_default() += 1;
        self.open.insert(record.offset, Open { facts, attempts: 0 });
        self.open_ids.insert(id, record.offset);
    }

    fn apply_handed(&mut self, handed: &Handed, at: Timestamp) {
        if let Some(open) = self.open.get_mut(&handed.reply) {
            open.attempts = handed.attempt.max(1);
            let (conversation, service) = (open.facts.conversation, open.facts.service);
            self.queue.hand(conversation, handed.reply, at, self.weight_of(service));
        }
    }

    fn apply_receipt(&mut self, receipt: &Receipt, record: &Record) {
        if receipt.status == Status::Accepted {
            self.put_back(receipt.reply);
            return;
        }
        if let Some(open) = self.open.remove(&receipt.reply) {
            self.queue.close(open.facts.conversation, receipt.reply);
            self.closed_one_of(open.facts.service);
            let service = self.services.get(open.facts.service).unwrap_or(&receipt.service);
            let id = self.fingerprints.reply_id(service, &open.facts.reply_id);
            self.open_ids.remove(&id);
            let outcome = Outcome::new(&open.facts, receipt.status, record.offset, false);
            self.done.insert(id, receipt.reply, outcome, record.at);
        } else if self.done.get(receipt.reply).is_some_and(|done| done.status.may_become(receipt.status))
            && let Some(done) = self.done.change(receipt.reply, record.offset, record.at)
        {
            if done.status == Status::Unknown {
                done.outcome = record.offset;
            }
            done.status = receipt.status;
        }
        let Some(message_id) = &receipt.message_id else { return };
        let message = self.fingerprints.message_id(message_id);
        if self.done.get(receipt.reply).is_some_and(|done| !done.named)
            && let Some(done) = self.done.change(receipt.reply, record.offset, record.at)
        {
            done.named = true;
            self.done.name(message, receipt.reply, record.offset, record.at);
        }
        self.parked.take(&message);
    }

    fn closed_one_of(&mut self, service: ServiceNumber) {
        if let Some(open) = self.open_of.get_mut(&service) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.open_of.remove(&service);
            }
        }
    }

    fn apply_merged(&mut self, younger: ConversationId, older: ConversationId) {
        let (younger, older) = (self.resolve(younger), self.resolve(older));
        if younger == older {
            return;
        }
        self.merged.insert(younger, older);
        for offset in self.queue.merge(younger, older) {
            if let Some(open) = self.open.get_mut(&offset) {
                open.facts.conversation = older;
            }
        }
    }
}

impl Outbox {
    /// Writes it down, but for the keys and what the configuration says.
    pub fn save(&self, out: &mut dyn Put) {
        self.services.names.save(out);
        self.open.save(out);
        self.queue.save(out);
        self.done.save(out);
        self.parked.save(out);
        self.merged.save(out);
    }

    /// Takes over what was saved of an outbox with the same keys; this one is new.
    ///
    /// # Errors
    /// When it is none.
    pub fn restore(&mut self, from: &mut dyn Take) -> Result<(), Unreadable> {
        for service in restore_all(from) {
            self.services.number(&service?);
        }
        self.open = Saved::restore(from)?;
        for (offset, open) in self.open.iter() {
            let service = self.services.get(open.facts.service);
            let service = service.ok_or(Unreadable("a reply of a service that is none"))?;
            self.open_ids.insert(self.fingerprints.reply_id(service, &open.facts.reply_id), *offset);
            *self.open_of.entry(open.facts.service).or_default() += 1;
        }
        self.queue = Saved::restore(from)?;
        self.done = Saved::restore(from)?;
        self.parked = Saved::restore(from)?;
        self.merged = Saved::restore(from)?;
        Ok(())
    }

    /// The replies without outcome: their records must stay whole.
    pub fn open_replies(&self) -> impl Iterator<Item = Offset> {
        self.open.iter().map(|(offset, _)| *offset)
    }
}

/// Whether a service with so many of all the open replies may have one more: as many as it likes of the first half, and
/// its share of the second.
fn has_room(all: usize, own: usize, services: usize) -> bool {
    let half = OPEN_REPLIES_MAX / 2;
    all < half || own < half / services.max(1)
}

/// A service, by its number in [`Services`].
type ServiceNumber = u32;

/// The services that ever replied in the channel, each once, so that a reply holds 4 bytes for it. The configuration
/// bounds them.
#[derive(Debug, Clone, PartialEq, Default)]
struct Services {
    names: Vec<ServiceId>,
    numbers: BTreeMap<ServiceId, ServiceNumber>,
}

impl Services {
    fn number(&mut self, service: &ServiceId) -> ServiceNumber {
        if let Some(number) = self.numbers.get(service) {
            return *number;
        }
        let number = ServiceNumber::try_from(self.names.len()).unwrap_or(ServiceNumber::MAX);
        self.numbers.insert(service.clone(), number);
        self.names.push(service.clone());
        number
    }

    fn get(&self, number: ServiceNumber) -> Option<&ServiceId> {
        self.names.get(number as usize)
    }
}

impl Saved for Status {
    fn save(&self, out: &mut dyn Put) {
        out.number(u64::from(self.number()));
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        Self::from_number(from.number()?).ok_or(Unreadable("a status that is none"))
    }
}

impl Status {
    /// As it is saved.
    const fn number(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Unknown => 1,
            Self::Sent => 2,
            Self::Delivered => 3,
            Self::Read => 4,
            Self::Played => 5,
            Self::Failed => 6,
        }
    }

    const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Accepted,
            1 => Self::Unknown,
            2 => Self::Sent,
            3 => Self::Delivered,
            4 => Self::Read,
            5 => Self::Played,
            6 => Self::Failed,
            _ => return None,
        })
    }

    /// Whether a reply that has come this far may come to `next` (B7): forwards only; `failed` from the first three
    /// alone, and then nothing.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Failed, _) => false,
            (_, Self::Failed) => self <= Self::Sent,
            _ => next > self,
        }
    }
}
