//! Which service sent which message, over all channels of one number, for 30 days (B7).
//!
//! Whoever routes what customers send asks it: what a service wrote for machines goes to that service alone, and a
//! status to the channel of its reply. Brought up to date when a `sent` is durable and before its effects go out.

use std::collections::BTreeMap;

use super::aged::{AgedMap, DAY_MS, Keep};
use super::event::{Event, Record};
use super::fingerprint::{Fingerprint, Key};
use super::ids::{ChannelId, MessageId, Offset, ServiceId, Timestamp};
use super::saved::{Put, Saved, Take, Unreadable, restore_all};

/// How long it is known who sent a message, in milliseconds: 30 days (B7).
pub const SENDERS_MS: u64 = 30 * DAY_MS;

/// Most entries of what a channel or a number remembers of replies: more than the 207 million that a number has sent in 30
/// days at WhatsApp's 80 a second, so that what binds is the bytes that the operator allows for all of them. Beyond it the
/// oldest are forgotten.
pub const REMEMBERED_MAX: usize = 1 << 28;
/// Few buckets, since a search without a time looks into each: 50 of them at 80 replies a second.
pub(super) const REMEMBERED_IN_BUCKET_MAX: usize = 1 << 22;

/// Six periods at most are looked into, and what is too old stays for 5 days more.
pub(super) const KEEP_SENT: Keep = Keep {
    keep_ms: SENDERS_MS,
    period_ms: 5 * DAY_MS,
    bucket_entries_max: REMEMBERED_IN_BUCKET_MAX,
    entries_max: REMEMBERED_MAX,
};

/// What it takes in memory to know who sent a message, in bytes (measured).
const SENDER_BYTES: usize = 40;

/// Who sent a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// In which channel.
    pub channel: ChannelId,
    /// Which service.
    pub service: ServiceId,
    /// The reply that it was.
    pub reply: Offset,
    /// When that became known, by the broker's clock, to the second.
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
    /// In seconds; a base has milliseconds.
    at: u32,
    owner: u32,
}

impl Sent {
    fn new(reply: Offset, at: Timestamp, owner: u32) -> Self {
        Self { reply, at: u32::try_from(at.0 / 1_000).unwrap_or(u32::MAX), owner }
    }

    fn at(self) -> Timestamp {
        Timestamp(u64::from(self.at) * 1_000)
    }
}

impl Saved for Sent {
    fn save(&self, out: &mut dyn Put) {
        self.reply.save(out);
        self.at().save(out);
        self.owner.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        Ok(Self::new(Saved::restore(from)?, Saved::restore(from)?, Saved::restore(from)?))
    }
}

impl Senders {
    /// None yet.
    #[must_use]
    pub const fn new(key: Key) -> Self {
        Self { key, sent: AgedMap::new(KEEP_SENT), owners: Vec::new(), numbers: BTreeMap::new() }
    }

    /// What it was made with.
    #[must_use]
    pub const fn key(&self) -> Key {
        self.key
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
        let sent = Sent::new(sender.reply, sender.at, owner);
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
        Some(Sender { channel: *channel, service: service.clone(), reply: sent.reply, at: sent.at() })
    }

    /// What it takes in memory, in bytes, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.sent.len() * SENDER_BYTES
    }

    /// Forgets the oldest before their time, until `bytes` of memory are free; says how many it forgot.
    pub fn drop_oldest(&mut self, bytes: usize) -> usize {
        let until = self.bytes().saturating_sub(bytes);
        let mut dropped = 0;
        while self.bytes() > until {
            match self.sent.drop_oldest() {
                0 => break,
                gone => dropped += gone,
            }
        }
        dropped
    }

    /// Drops what is older than 30 days.
    pub fn forget(&mut self, now: Timestamp) {
        self.sent.forget(now);
    }

    /// Takes over what a channel's own index knew.
    pub fn absorb(&mut self, other: Self) {
        let numbers: Vec<u32> =
            other.owners.iter().map(|(channel, service)| self.owner(*channel, service)).collect();
        self.sent.absorb(other.sent, |sent| Sent {
            owner: numbers.get(sent.owner as usize).copied().unwrap_or(u32::MAX),
            ..sent
        });
    }

    /// Writes it down, but for its key.
    pub fn save(&self, out: &mut dyn Put) {
        self.owners.save(out);
        self.sent.save(out);
    }

    /// Reads back what was saved with the same key.
    ///
    /// # Errors
    /// When it is none.
    pub fn restore(key: Key, from: &mut dyn Take) -> Result<Self, Unreadable> {
        let mut senders = Self::new(key);
        for owner in restore_all(from) {
            let (channel, service): (ChannelId, ServiceId) = owner?;
            senders.owner(channel, &service);
        }
        senders.sent = AgedMap::restore(KEEP_SENT, from)?;
        Ok(senders)
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::content::Content;
    use super::super::event::{Customer, Receipt, Reply, Settings, Status};
    use super::super::ids::{ConversationId, ReplyId};
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn senders() -> Senders {
        Senders::new(Key::new([4; 16]))
    }

    fn message(n: u64) -> MessageId {
        MessageId::trusted(&format!("wamid.{n}"))
    }

    fn receipt(service: &str, message_id: Option<MessageId>, status: Status, at: Timestamp) -> Record {
        let receipt = Receipt {
            reply: Offset(7),
            service: ServiceId::trusted(service),
            reply_id: ReplyId::trusted("r"),
            message_id,
            status,
            error: None,
            status_at: at,
            carried: None,
        };
        let conversation = Some(ConversationId(1));
        Record { offset: Offset(9), at, conversation, event: Event::from(receipt) }
    }

    #[test]
    fn who_sent_a_message_is_known_over_all_channels_of_the_number() {
        let mut senders = senders();
        senders.apply(ChannelId(1), &receipt("crm", Some(message(1)), Status::Sent, NOW));
        senders.apply(ChannelId(2), &receipt("crm", Some(message(2)), Status::Sent, NOW));
        senders.apply(ChannelId(2), &receipt("desk", Some(message(3)), Status::Sent, NOW));
        senders.apply(ChannelId(2), &receipt("desk", None, Status::Unknown, NOW));
        let sender = |channel, service| {
            let service = ServiceId::trusted(service);
            Some(Sender { channel: ChannelId(channel), service, reply: Offset(7), at: NOW })
        };
        assert_eq!(senders.find(&message(1)), sender(1, "crm"));
        assert_eq!(senders.find(&message(2)), sender(2, "crm"));
        assert_eq!(senders.find(&message(3)), sender(2, "desk"));
        assert_eq!(senders.find(&message(4)), None);
    }

    #[test]
    fn who_sent_a_message_takes_32_bytes_and_its_time_is_known_to_the_second() {
        assert_eq!(size_of::<(Fingerprint, Sent)>(), 32);
        assert_eq!(Sent::new(Offset(7), NOW.plus_ms(1_999), 3).at(), NOW.plus_ms(1_000));
    }

    #[test]
    fn a_reply_written_on_the_phone_was_sent_by_the_parent_of_then() {
        let mut senders = senders();
        let reply = Reply {
            service: ServiceId::trusted("crm"),
            agent: None,
            reply_id: ReplyId::trusted("echo:wamid.1"),
            digest: 0,
            content: Content::checked(Bytes::new(), 0..0, &[]),
            callback_data: None,
            to: Customer::default(),
            reveal: Settings::default(),
            echo_of: Some(message(1)),
        };
        let record = Record {
            offset: Offset(3),
            at: NOW,
            conversation: Some(ConversationId(1)),
            event: Event::from(reply),
        };
        senders.apply(ChannelId(1), &record);
        let sender = senders.find(&message(1)).unwrap();
        assert_eq!((sender.service.as_str(), sender.reply), ("crm", Offset(3)));
    }

    #[test]
    fn a_sender_is_known_for_30_days_and_later_receipts_do_not_prolong_it() {
        let mut senders = senders();
        senders.apply(ChannelId(1), &receipt("crm", Some(message(1)), Status::Sent, NOW));
        let read_at = NOW.plus_ms(20 * DAY_MS);
        senders.apply(ChannelId(1), &receipt("crm", Some(message(1)), Status::Read, read_at));
        senders.forget(NOW.plus_ms(SENDERS_MS));
        assert_eq!(senders.find(&message(1)).map(|sender| sender.at), Some(NOW));
        senders.forget(NOW.plus_ms(36 * DAY_MS));
        assert_eq!(senders.find(&message(1)), None);
    }

    #[test]
    fn one_channel_after_the_other_is_folded_to_the_same_as_both_at_once() {
        let records: Vec<(ChannelId, Record)> = (0..400)
            .map(|n| {
                let at = NOW.plus_ms(n * DAY_MS / 10);
                (ChannelId(u128::from(n % 2)), receipt("crm", Some(message(n)), Status::Sent, at))
            })
            .collect();
        let (mut live, mut after) = (senders(), senders());
        for (channel, record) in &records {
            live.apply(*channel, record);
        }
        for wanted in [0, 1] {
            for (channel, record) in records.iter().filter(|(channel, _)| channel.0 == wanted) {
                after.apply(*channel, record);
            }
        }
        live.forget(NOW.plus_ms(40 * DAY_MS));
        after.forget(NOW.plus_ms(40 * DAY_MS));
        for n in 100..400 {
            assert!(live.find(&message(n)).is_some());
            assert_eq!(live.find(&message(n)), after.find(&message(n)));
        }
    }
}
