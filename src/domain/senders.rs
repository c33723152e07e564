//! Which service sent which message, over all channels of one number, for 30 days (B7).
//!
//! Whoever routes what customers send asks it: what a service wrote for machines goes to that service alone, and a
//! status to the channel of its reply. Brought up to date when a `sent` is durable and before its effects go out.
//!
//! What is many lies in runs, each of one channel (see `aside`); then [`NumberSenders::suspects`] says where to look. A
//! message that a later receipt names again is remembered anew, for 30 days from then, where it has left memory.

use std::collections::BTreeMap;

use super::aged::{AgedMap, DAY_MS, Keep};
use super::aside::{Aside, LaidAside, Movable, Rows, RunId};
use super::buckets::BucketMap;
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
/// Few buckets, since a search without a time looks into each; small ones, since one that lies half in a run is gone
/// through on an Arbiter.
pub(super) const REMEMBERED_IN_BUCKET_MAX: usize = 1 << 17;

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

/// The messages of a channel's last 30 days, by WhatsApp's id. Empty, it holds no memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Senders {
    key: Key,
    channel: ChannelId,
    sent: AgedMap<Fingerprint, Sent>,
    /// Each service once, in the order in which they sent; the configuration bounds them.
    services: Vec<ServiceId>,
    aside: Aside,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Sent {
    reply: Offset,
    /// In seconds; a base has milliseconds.
    at: u32,
    /// Which of the services.
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
    pub const fn new(key: Key, channel: ChannelId) -> Self {
        Self { key, channel, sent: AgedMap::new(KEEP_SENT), services: Vec::new(), aside: Aside::new() }
    }

    /// What it was made with.
    #[must_use]
    pub const fn key(&self) -> Key {
        self.key
    }

    /// Takes what a durable record says about who sent what: a receipt that names the message, or a reply written on
    /// the phone. Other records say nothing.
    pub fn apply(&mut self, record: &Record) {
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
        let owner = self.owner(service);
        let id = self.key.message_id(id);
        match self.sent.get(&id) {
            // Each later receipt names the message too; what is known stays where its age is.
            Some(known) if known.owner == owner && known.reply == reply => {}
            _ => {
                let sent = Sent::new(reply, record.at, owner);
                self.sent.insert_from(record.offset, id, record.at, record.at, sent);
            }
        }
    }

    /// Who sent a message, where that is in memory.
    #[must_use]
    pub fn find(&self, message_id: &MessageId) -> Option<Sender> {
        self.find_key(self.key.message_id(message_id))
    }

    fn find_key(&self, message: Fingerprint) -> Option<Sender> {
        let sent = self.sent.get(&message)?;
        let service = self.services.get(sent.owner as usize)?.clone();
        Some(Sender { channel: self.channel, service, reply: sent.reply, at: sent.at() })
    }

    /// What it takes in memory, in bytes, about. Filters are shared with the channel's.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.sent.len() * SENDER_BYTES
    }

    /// Drops what is older than 30 days.
    pub fn forget(&mut self, now: Timestamp) {
        let before = self.sent.oldest_kept();
        self.sent.forget(now);
        if self.sent.oldest_kept() > before {
            self.aside.forget(self.sent.oldest_kept());
        }
    }

    /// The periods that have so many messages in memory at least; before that of `now` only, where that is given.
    #[must_use]
    pub fn movable_periods(&self, entries_min: usize, now: Option<Timestamp>) -> Vec<u64> {
        let before = now.map(|now| self.sent.period_of(now));
        let periods = self.sent.periods(entries_min.max(1));
        periods.filter(|period| before.is_none_or(|before| *period < before)).collect()
    }

    /// What may be laid aside of a period: rows of the reply's record u64 and the service's number u32. Looks at each.
    #[must_use]
    pub fn movable(&self, period: u64) -> Option<Movable> {
        let found = self.sent.period(period)?;
        let mut sorted = found.entries.clone();
        // The newer reply of two messages with one fingerprint.
        sorted.sort_unstable_by_key(|(id, sent)| (**id, std::cmp::Reverse(sent.reply)));
        let mut rows = Rows::new(size_of::<u64>() + size_of::<u32>(), sorted.len());
        for (id, sent) in sorted {
            let [reply, owner] = [&sent.reply.0.to_le_bytes()[..], &sent.owner.to_le_bytes()];
            rows.push(*id, &[reply, owner].concat());
        }
        Some(Movable::of(period, &found, rows))
    }

    /// The messages of a period that became known by records up to `laid.last` lie in this run from now on, or in one
    /// before.
    pub fn lay_aside(&mut self, laid: LaidAside) {
        self.sent.drop_whole_through(laid.period, laid.last);
        if laid.newest >= self.sent.oldest_kept() {
            self.aside.push(laid);
        }
    }

    /// What lies in runs, as the channel knows it.
    pub fn set_aside(&mut self, aside: Aside) {
        self.aside = aside;
    }

    /// The service that the value of a row names.
    fn service_in(&self, value: &[u8]) -> Option<&ServiceId> {
        let (_, owner) = value.split_first_chunk::<8>()?;
        self.services.get(u32::from_le_bytes(*owner.first_chunk()?) as usize)
    }

    /// Writes down what is in memory, but for its key.
    pub fn save(&self, out: &mut dyn Put) {
        let owners: Vec<_> = self.services.iter().map(|service| (self.channel, service.clone())).collect();
        owners.save(out);
        self.sent.save(out);
    }

    /// Takes over what was saved of those of the same channel with the same key; these are new.
    ///
    /// # Errors
    /// When it is none.
    pub fn restore(&mut self, from: &mut dyn Take) -> Result<(), Unreadable> {
        for owner in restore_all(from) {
            let (channel, service): (ChannelId, ServiceId) = owner?;
            if channel != self.channel {
                return Err(Unreadable("a sender of another channel"));
            }
            self.services.push(service);
        }
        self.sent = AgedMap::restore(KEEP_SENT, from)?;
        Ok(())
    }

    fn owner(&mut self, service: &ServiceId) -> u32 {
        let known = self.services.iter().position(|known| known == service);
        let owner = known.unwrap_or_else(|| {
            self.services.push(service.clone());
            self.services.len() - 1
        });
        u32::try_from(owner).unwrap_or(u32::MAX)
    }
}

/// The messages of all channels of a number.
#[derive(Debug)]
pub struct NumberSenders {
    key: Key,
    channels: BTreeMap<ChannelId, Senders>,
}

/// Where it may stand who sent a message, if it does anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspects {
    /// The message.
    pub key: Fingerprint,
    /// The channels, with the runs of each that may have it, the newest first.
    pub runs: Vec<(ChannelId, Vec<RunId>)>,
}

impl NumberSenders {
    /// Of no channel yet.
    #[must_use]
    pub const fn new(key: Key) -> Self {
        Self { key, channels: BTreeMap::new() }
    }

    /// Takes what a durable record of a channel says.
    pub fn apply(&mut self, channel: ChannelId, record: &Record) {
        self.of(channel).apply(record);
    }

    /// Takes over what a channel's records have said so far.
    pub fn absorb(&mut self, senders: Senders) {
        self.channels.insert(senders.channel, senders);
    }

    /// Messages of a channel lie in a run from now on.
    pub fn lay_aside(&mut self, channel: ChannelId, laid: LaidAside) {
        self.of(channel).lay_aside(laid);
    }

    /// Who sent a message, where that is in memory.
    #[must_use]
    pub fn find(&self, message_id: &MessageId) -> Option<Sender> {
        let message = self.key.message_id(message_id);
        self.channels.values().find_map(|senders| senders.find_key(message))
    }

    /// Where to look for the sender of a message that is not in memory; nowhere, where no channel can have sent it.
    #[must_use]
    pub fn suspects(&self, message_id: &MessageId) -> Option<Suspects> {
        let key = self.key.message_id(message_id);
        let runs = self.channels.iter().map(|(channel, senders)| (*channel, senders.aside.holders(key)));
        let runs: Vec<_> = runs.filter(|(_, runs)| !runs.is_empty()).collect();
        (!runs.is_empty()).then_some(Suspects { key, runs })
    }

    /// The service that a channel's run names, by the value that it has for a message.
    #[must_use]
    pub fn service_in(&self, channel: ChannelId, value: &[u8]) -> Option<ServiceId> {
        self.channels.get(&channel)?.service_in(value).cloned()
    }

    /// What it takes in memory, in bytes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.channels.values().map(Senders::bytes).sum()
    }

    /// Forgets the oldest before their time, until `bytes` of memory are free; says how many it forgot.
    pub fn drop_oldest(&mut self, bytes: usize) -> usize {
        let until = self.bytes().saturating_sub(bytes);
        let mut dropped = 0;
        while self.bytes() > until {
            let oldest = |senders: &&mut Senders| senders.sent.oldest().unwrap_or(Timestamp(u64::MAX));
            match self.channels.values_mut().min_by_key(oldest).map(|senders| senders.sent.drop_oldest()) {
                None | Some(0) => break,
                Some(gone) => dropped += gone,
            }
        }
        dropped
    }

    /// Drops what is older than 30 days.
    pub fn forget(&mut self, now: Timestamp) {
        self.channels.values_mut().for_each(|senders| senders.forget(now));
    }

    /// What was dropped and still takes memory: for who can let go of it elsewhere, at once.
    #[must_use]
    pub fn take_discarded(&mut self) -> impl Send + use<> {
        let discarded = self.channels.values_mut().flat_map(|senders| senders.sent.take_discarded());
        discarded.collect::<Vec<BucketMap<Fingerprint, Sent>>>()
    }

    fn of(&mut self, channel: ChannelId) -> &mut Senders {
        let key = self.key;
        self.channels.entry(channel).or_insert_with(|| Senders::new(key, channel))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::content::Content;
    use super::super::event::{Customer, Receipt, Reply, Settings, Status};
    use super::super::filter::Filter;
    use super::super::ids::{ConversationId, ReplyId};
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn senders() -> NumberSenders {
        NumberSenders::new(Key::new([4; 16]))
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
    fn who_sent_what_lies_in_a_run_is_found_in_the_channel_that_sent_it() {
        let mut senders = senders();
        for (channel, service, n) in [(1, "crm", 1), (2, "desk", 2), (2, "crm", 3)] {
            let record = receipt(service, Some(message(n)), Status::Sent, NOW);
            senders.apply(ChannelId(channel), &record);
        }
        let mut folded = senders.channels[&ChannelId(2)].clone();
        let movable = folded.movable(folded.movable_periods(2, None)[0]).unwrap();
        let filter = Some(Filter::of(movable.rows.keys().iter().copied(), movable.rows.len()));
        let laid = LaidAside { run: RunId(5), last: Offset(9), filter, ..movable.about };
        folded.lay_aside(laid.clone());
        senders.lay_aside(ChannelId(2), laid);
        assert_eq!(senders.bytes(), SENDER_BYTES, "one is left in memory");
        assert!(senders.suspects(&message(1)).is_none() && senders.find(&message(1)).is_some());
        for (n, service) in [(2, "desk"), (3, "crm")] {
            assert_eq!(senders.find(&message(n)), None);
            let Suspects { key, runs } = senders.suspects(&message(n)).unwrap();
            assert_eq!(runs, [(ChannelId(2), vec![RunId(5)])]);
            let (_, value) = movable.rows.iter().find(|(known, _)| *known == key).unwrap();
            assert_eq!(senders.service_in(ChannelId(2), value).unwrap().as_str(), service);
        }
        assert!(senders.suspects(&message(4)).is_none());
        // What is named again since is in memory again, from then.
        let read_at = NOW.plus_ms(20 * DAY_MS);
        senders.apply(ChannelId(2), &receipt("desk", Some(message(2)), Status::Read, read_at));
        assert_eq!(senders.find(&message(2)).map(|sender| sender.at), Some(read_at));
        senders.forget(NOW.plus_ms(36 * DAY_MS));
        assert!(senders.suspects(&message(3)).is_none(), "the run is forgotten");
        assert!(senders.find(&message(2)).is_some());
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
            sent_at: None,
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
