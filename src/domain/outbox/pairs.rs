//! How much one customer may be sent (Meta's pair limit), and how the channels of a number share that (B14).
//!
//! The limit is the number's, whatever channel a message comes from. Where several channels share the number (plan
//! `isolated`), one part of the burst is for whoever comes first; of the rest each channel has its share, which comes
//! back at its part of the rate. So who writes to a customer without end waits, and no other channel does; and what
//! nobody else uses of the rate is still his.
//!
//! A channel knows a conversation; which customer that is shows when its first message is read to be sent
//! ([`Pairs::is_of`]). Until then it counts by itself, which lets one message pass that its share would let pass too.
//!
//! **Invariants:** no customer gets more than Meta lets the number send him. Shares are never used up by others: what is
//! for all, all shares, and one unknown message of each channel are together no more than the burst, where no more than 22
//! channels share the number: with more, the first messages of all may pass it, and Meta's 131056 rests the customer.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::ids::{ConversationId, Timestamp};

/// One message to the same customer in this time, in milliseconds (Meta's pair limit).
pub const PAIR_EVERY_MS: u64 = 6_000;
/// Messages to the same customer that may go at once, borrowed from the time after them (Meta's pair limit).
pub const PAIR_BURST: u64 = 45;

/// When what each has had, spread evenly, would all have left; nothing for who has had nothing of late.
#[derive(Debug, Clone, PartialEq)]
struct Evens<K> {
    at: BTreeMap<K, Timestamp>,
    order: BTreeSet<(Timestamp, K)>,
}

impl<K> Default for Evens<K> {
    fn default() -> Self {
        Self { at: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Evens<K> {
    fn get(&self, who: K) -> Timestamp {
        self.at.get(&who).copied().unwrap_or_default()
    }

    fn set(&mut self, who: K, at: Timestamp) {
        self.take(who);
        self.at.insert(who, at);
        self.order.insert((at, who));
    }

    fn take(&mut self, who: K) -> Timestamp {
        let at = self.at.remove(&who).unwrap_or_default();
        self.order.remove(&(at, who));
        at
    }

    /// Who has no debt any more is forgotten, one at a time.
    fn forget(&mut self, now: Timestamp) -> Option<K> {
        let (_, who) = self.order.first().copied().filter(|(at, _)| *at <= now)?;
        self.take(who);
        Some(who)
    }

    /// When one more may leave, with so many at once and one in so many milliseconds.
    fn next(&self, who: K, burst: u64, every_ms: u64) -> Timestamp {
        Timestamp(self.get(who).0.saturating_sub((burst - 1) * every_ms))
    }
}

/// A customer, or a conversation of which it is not known yet whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whom {
    Conversation(ConversationId),
    /// By a fingerprint of his name.
    Customer(u128),
}

/// What each customer has been sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pairs {
    /// How many channels share the number.
    channels: u64,
    customers: Evens<Whom>,
    /// What each conversation has had, which is what its channel has had of its customer.
    own: Evens<ConversationId>,
    /// Customers that WhatsApp itself takes nothing for before then.
    resting: Evens<Whom>,
    known: BTreeMap<ConversationId, u128>,
}

impl Pairs {
    /// Nobody has been sent anything by so many channels.
    pub(super) fn new(channels: u64) -> Self {
        Self {
            channels: channels.max(1),
            customers: Evens::default(),
            own: Evens::default(),
            resting: Evens::default(),
            known: BTreeMap::new(),
        }
    }

    pub(super) fn channels(&self) -> u64 {
        self.channels
    }

    pub(super) fn set_channels(&mut self, channels: u64) {
        self.channels = channels.max(1);
    }

    /// Before when nothing of a conversation may leave, if it may not now.
    pub(super) fn refuse(&mut self, conversation: ConversationId, now: Timestamp) -> Option<Timestamp> {
        self.forget(now);
        let whom = self.whom(conversation);
        let all = self.customers.next(whom, PAIR_BURST, PAIR_EVERY_MS).max(self.resting.get(whom));
        let next = if self.channels == 1 {
            all
        } else {
            let common = self.customers.next(whom, self.common(), PAIR_EVERY_MS);
            let own = self.own.next(conversation, self.share(), self.own_every_ms());
            all.max(common.min(own))
        };
        (next > now).then_some(next)
    }

    /// A message of a conversation leaves.
    pub(super) fn left(&mut self, conversation: ConversationId, now: Timestamp) {
        let whom = self.whom(conversation);
        self.customers.set(whom, self.customers.get(whom).max(now).plus_ms(PAIR_EVERY_MS));
        let own = self.own.get(conversation).max(now).plus_ms(self.own_every_ms());
        // What was had beyond the share is nothing that others would be owed.
        self.own.set(conversation, own.min(now.plus_ms(self.share() * self.own_every_ms())));
    }

    /// A conversation is with the customer of this fingerprint: what it has had he has had.
    pub(super) fn is_of(&mut self, conversation: ConversationId, customer: u128, now: Timestamp) {
        let (before, whom) = (self.whom(conversation), Whom::Customer(customer));
        if before == whom || self.own.get(conversation) <= now {
            return;
        }
        self.known.insert(conversation, customer);
        if before == Whom::Conversation(conversation) {
            let had_ms = self.customers.take(before).since_ms(now);
            self.customers.set(whom, self.customers.get(whom).max(now).plus_ms(had_ms));
            let rests = self.resting.take(before);
            self.rest_until(whom, rests);
        }
    }

    /// WhatsApp takes nothing for a conversation's customer before then.
    pub(super) fn rest(&mut self, conversation: ConversationId, until: Timestamp) {
        self.rest_until(self.whom(conversation), until);
    }

    fn rest_until(&mut self, whom: Whom, until: Timestamp) {
        let until = until.max(self.resting.get(whom));
        if until > Timestamp::default() {
            self.resting.set(whom, until);
        }
    }

    fn forget(&mut self, now: Timestamp) {
        while self.customers.forget(now).is_some() || self.resting.forget(now).is_some() {}
        while let Some(conversation) = self.own.forget(now) {
            self.known.remove(&conversation);
        }
    }

    fn whom(&self, conversation: ConversationId) -> Whom {
        self.known.get(&conversation).map_or(Whom::Conversation(conversation), |known| Whom::Customer(*known))
    }

    /// How many at once are each channel's own.
    fn share(&self) -> u64 {
        if self.channels == 1 { PAIR_BURST } else { (PAIR_BURST / 2 / self.channels).max(1) }
    }

    /// How many at once are for whoever comes first.
    fn common(&self) -> u64 {
        PAIR_BURST.saturating_sub((self.share() + 1) * self.channels).max(1)
    }

    fn own_every_ms(&self) -> u64 {
        PAIR_EVERY_MS * self.channels
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp(1_700_000_000_000);

    /// One message, if it may leave; it is read to be sent at once.
    fn send(pairs: &mut Pairs, conversation: u64, customer: u128, now: Timestamp) -> bool {
        let conversation = ConversationId(conversation);
        let may = pairs.refuse(conversation, now).is_none();
        if may {
            pairs.left(conversation, now);
            pairs.is_of(conversation, customer, now);
        }
        may
    }

    proptest! {
        #[test]
        fn whatever_channels_a_number_has_a_customer_gets_no_more_than_meta_lets_him_and_each_its_share(
            channels in 2_u64..=11,
            asks in prop::collection::vec((0_u64..4_000, any::<u64>()), 1..800),
        ) {
            let mut pairs = Pairs::new(channels);
            let (share, mut now) = (pairs.share(), START);
            let mut left: Vec<(Timestamp, u64)> = Vec::new();
            for (wait, channel) in asks {
                now = now.plus_ms(wait);
                // The first one writes without end, the others when they like.
                let channel = channel % (2 * channels);
                let channel = if channel < channels { channel } else { 0 };
                if send(&mut pairs, channel, 7, now) {
                    left.push((now, channel));
                } else {
                    let since = Timestamp(now.0 - share * PAIR_EVERY_MS * channels);
                    let own = left.iter().filter(|(at, of)| *of == channel && *at >= since).count();
                    prop_assert!(own as u64 >= share, "channel {channel} waits with {own} of its {share}");
                }
            }
            for (n, (at, _)) in left.iter().enumerate() {
                for (m, (later, _)) in left.iter().enumerate().skip(n) {
                    let most = PAIR_BURST + later.since_ms(*at) / PAIR_EVERY_MS;
                    prop_assert!(((m - n) as u64) < most, "{} in {} ms", m - n + 1, later.since_ms(*at));
                }
            }
        }
    }

    #[test]
    fn who_writes_without_end_waits_alone_and_has_the_whole_rate_in_the_long_run() {
        let mut pairs = Pairs::new(2);
        let at_once = (0..100).filter(|_| send(&mut pairs, 1, 7, START)).count() as u64;
        assert!((15..PAIR_BURST).contains(&at_once), "{at_once}");
        for n in 0..10 {
            assert!(send(&mut pairs, 2, 7, START.plus_ms(n)), "the other's message {n}");
        }
        assert!(send(&mut pairs, 3, 8, START), "and to others it may write");
        let later = |n: u64| START.plus_ms(600_000 + n * PAIR_EVERY_MS);
        while send(&mut pairs, 1, 7, later(0)) {}
        assert!((1..100).all(|n| send(&mut pairs, 1, 7, later(n).plus_ms(1))), "nobody else wants it");
    }

    #[test]
    fn both_who_write_without_end_have_half() {
        let mut pairs = Pairs::new(2);
        let mut had = [0, 0];
        for second in 0..6_000 {
            let now = START.plus_ms(second * 1_000);
            had[0] += u32::from(send(&mut pairs, 1, 7, now));
            had[1] += u32::from(send(&mut pairs, 2, 7, now));
        }
        assert!(had.iter().all(|had| (480..550).contains(had)), "{had:?}");
    }

    #[test]
    fn one_channel_has_it_all() {
        let mut pairs = Pairs::new(1);
        assert_eq!((0..100).filter(|_| send(&mut pairs, 1, 7, START)).count() as u64, PAIR_BURST);
        // Not a moment before its last message counts no longer it is forgotten.
        let almost = START.plus_ms((PAIR_BURST - 1) * PAIR_EVERY_MS);
        let after = (0..100).filter(|_| send(&mut pairs, 1, 7, almost)).count() as u64;
        assert_eq!(after, PAIR_BURST - 1);
    }

    #[test]
    fn whom_whatsapp_takes_nothing_for_gets_nothing_from_any_channel() {
        let mut pairs = Pairs::new(2);
        assert!(
            send(&mut pairs, 1, 7, START) && send(&mut pairs, 2, 7, START) && send(&mut pairs, 3, 8, START)
        );
        let until = START.plus_ms(4_000);
        pairs.rest(ConversationId(1), until);
        assert_eq!(pairs.refuse(ConversationId(2), START.plus_ms(1)), Some(until));
        assert_eq!(pairs.refuse(ConversationId(3), START.plus_ms(1)), None);
        assert_eq!(pairs.refuse(ConversationId(2), until), None);
    }

    #[test]
    fn nobody_is_remembered_for_ever() {
        let mut pairs = Pairs::new(3);
        for n in 0..500 {
            assert!(send(&mut pairs, n, u128::from(n % 250), START));
        }
        pairs.rest(ConversationId(1), START.plus_ms(1_000));
        pairs.forget(START.plus_ms(PAIR_BURST * PAIR_EVERY_MS));
        assert_eq!(pairs, Pairs::new(3));
    }
}
