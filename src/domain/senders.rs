//! Which service sent which message, over all channels of one number, for 30 days (B7).
//!
//! Whoever routes what customers send asks it: what a service wrote for machines goes to that service alone, and a
//! status to the channel of its reply. Brought up to date when a `sent` is durable and before its effects go out.

use std::collections::BTreeMap;

use super::aged::{AgedMap, DAY_MS, Keep};
use super::event::{Event, Record};
use super::fingerprint::{Fingerprint, Key};
use super::ids::{ChannelId, MessageId, Offset, ServiceId, Timestamp};

/// How long it is known who sent a message, in milliseconds: 30 days (B7).
pub const SENDERS_MS: u64 = 30 * DAY_MS;

/// Six periods at most are looked into, and what is too old stays for 5 days more.
pub(super) const KEEP_SENT: Keep =
    Keep { keep_ms: SENDERS_MS, period_ms: 5 * DAY_MS, bucket_entries_max: usize::MAX };

/// Who sent a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// In which channel.
    pub channel: ChannelId,
    /// Which service.
    pub service: ServiceId,
    /// The reply that it was.
    pub reply: Offset,
    /// When that became known, by the broker's clock.
    pub at: Timestamp,
}

/// The messages of a number's last 30 days, by WhatsApp's id. Empty, it holds no memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Senders {
    key: Key,
    sent: AgedMap<Fingerprint, Sent>,
    /// Each service in each channel once; as many as there ever were for the number, so they need no limit.
    owners: Vec<(ChannelId, ServiceId)>,
    numbers: BTreeMap<(ChannelId, ServiceId), u32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Sent {
    reply: Offset,
    at: Timestamp,
    owner: u32,
}

impl Senders {
    /// None yet.
    #[must_use]
    pub const fn new(key: Key) -> Self {
        Self { key, sent: AgedMap::new(KEEP_SENT), owners: Vec::new(), numbers: BTreeMap::new() }
    }

    /// Takes what a durable record of a channel says about who sent what: a receipt that names the message, or a
    /// reply written on the phone. Other records say nothing.
    pub fn apply(&mut self, channel: ChannelId, record: &Record) {
        let (id, service, reply) = match &record.event {
            Event::Receipt(receipt) => match &receipt.message_id {
                Some(id) => (id, &receipt.service, receipt.reply),
                None => return,
            },
            Event::Reply(reply) => match &reply.echo_of {
                Some(id) => (id, &reply.service, record.offset),
                None => return,
            },
            _ => return,
        };
        self.sent(id, &Sender { channel, service: service.clone(), reply, at: record.at });
    }

    /// Remembers who sent a message.
    pub fn sent(&mut self, message_id: &MessageId, sender: &Sender) {
        let owner = self.owner(sender.channel, &sender.service);
        let sent = Sent { reply: sender.reply, at: sender.at, owner };
        let id = self.key.message_id(message_id);
        match self.sent.get_mut(&id) {
            // Each later receipt names the message too; what is known stays where its age is.
            Some(known) if known.owner == owner && known.reply == sender.reply => {}
            _ => self.sent.insert(id, sender.at, sender.at, sent),
        }
    }

    /// Who sent a message, where that is known.
    #[must_use]
    pub fn find(&self, message_id: &MessageId) -> Option<Sender> {
        let sent = self.sent.get(&self.key.message_id(message_id))?;
        let (channel, service) = self.owners.get(sent.owner as usize)?;
        Some(Sender { channel: *channel, service: service.clone(), reply: sent.reply, at: sent.at })
    }

    /// Drops what is older than 30 days.
    pub fn forget(&mut self, now: Timestamp) {
        self.sent.forget(now);
    }

    fn owner(&mut self, channel: ChannelId, service: &ServiceId) -> u32 {
        let next = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        let owner = *self.numbers.entry((channel, service.clone())).or_insert(next);
        if owner == next {
            self.owners.push((channel, service.clone()));
        }
        owner
    }
}
