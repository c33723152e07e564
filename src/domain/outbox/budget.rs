//! How fast a number may send (B14): so many messages a second, and to one customer one every six seconds after a burst.
//!
//! Pure: it is told the time. Whoever is refused is told when to ask again, and of several channels of one number each
//! gets its turn. In which order the replies of one channel ask is the queue's business.
//!
//! After a pause one message goes ahead and the rest waits for how it fares ([`Budget::passed`]).
//!
//! **Invariants:** in no second more than the number's rate; spread evenly over it, but for [`PACE_BURST`], so that who
//! comes last waits for one message and not for a second. What WhatsApp says itself stands over both ([`Budget::pause`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::domain::ids::{ChannelId, ConversationId, Timestamp};

/// One message to the same customer in this time, in milliseconds (Meta's pair limit).
pub const PAIR_EVERY_MS: u64 = 6_000;
/// Messages to the same customer that may go at once, borrowed from the time after them (Meta's pair limit).
pub const PAIR_BURST: u64 = 45;
/// Messages that may make up for a timer that came late.
pub const PACE_BURST: u64 = 4;
/// How long a channel that was told to ask again may keep others waiting if it does not, in milliseconds.
const TURN_GRACE_MS: u64 = 1_000;
/// How long after a pause a message goes ahead alone, in milliseconds, before another one does.
const PROBE_MS: u64 = 1_000;
/// By how much the clock may be behind what it has shown before it is one that was put back, in milliseconds.
const CLOCK_BACK_MS: u64 = 60_000;
const SECOND_MS: u64 = 1_000;
const SECOND_US: u64 = 1_000_000;

/// What a number's budget says to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// It may leave now.
    Go,
    /// The number may not send before then.
    Number(Timestamp),
    /// This customer may not be sent anything before then; others may.
    Pair(Timestamp),
}

/// The budget of one number, over all its channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    per_second: u64,
    /// When the messages of the last second left.
    recent: VecDeque<Timestamp>,
    /// When the next would leave if all were spread evenly, in microseconds.
    even_us: u64,
    paused_until: Timestamp,
    /// After a pause: when the last message went ahead alone.
    probing: Option<Timestamp>,
    /// The latest time that was told.
    latest: Timestamp,
    /// Channels that were refused, the longest first, and when each was told to ask again.
    waiting: VecDeque<(ChannelId, Timestamp)>,
    pairs: Pairs,
}

/// When each customer's messages, spread evenly, would all have left; none for who has his whole burst.
#[derive(Debug, Clone, PartialEq, Default)]
struct Pairs {
    even: BTreeMap<ConversationId, Timestamp>,
    order: BTreeSet<(Timestamp, ConversationId)>,
}

impl Pairs {
    fn forget(&mut self, now: Timestamp) {
        while let Some((at, conversation)) = self.order.first().copied().filter(|(at, _)| *at <= now) {
            self.order.remove(&(at, conversation));
            self.even.remove(&conversation);
        }
    }

    /// When the next may leave.
    fn next(&self, conversation: ConversationId) -> Timestamp {
        let even = self.even.get(&conversation).map_or(0, |even| even.0);
        Timestamp(even.saturating_sub((PAIR_BURST - 1) * PAIR_EVERY_MS))
    }

    fn left(&mut self, conversation: ConversationId, now: Timestamp) {
        let before = self.even.get(&conversation).copied();
        if let Some(before) = before {
            self.order.remove(&(before, conversation));
        }
        let even = before.map_or(now, |before| before.max(now)).plus_ms(PAIR_EVERY_MS);
        self.even.insert(conversation, even);
        self.order.insert((even, conversation));
    }
}

impl Budget {
    /// That of a number that may send so many messages a second, at least one.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second: u64::from(per_second.max(1)),
            recent: VecDeque::new(),
            even_us: 0,
            paused_until: Timestamp(0),
            probing: None,
            latest: Timestamp(0),
            waiting: VecDeque::new(),
            pairs: Pairs::default(),
        }
    }

    /// A channel asks whether a message to the customer of that conversation may leave now.
    pub fn ask(&mut self, channel: ChannelId, conversation: ConversationId, now: Timestamp) -> Say {
        if now.plus_ms(CLOCK_BACK_MS) < self.latest {
            // What is known is about a time that is still to come.
            *self = Self { per_second: self.per_second, ..Self::new(1) };
        }
        self.latest = self.latest.max(now);
        self.pairs.forget(now);
        let pair = self.pairs.next(conversation);
        if pair > now {
            return Say::Pair(pair);
        }
        while self.waiting.front().is_some_and(|(_, told)| now >= told.plus_ms(TURN_GRACE_MS)) {
            self.waiting.pop_front();
        }
        let free = self.free_at(now);
        let turn = self.waiting.iter().position(|(waiting, _)| *waiting == channel);
        let before = turn.unwrap_or(self.waiting.len());
        if free > now || before > 0 {
            let ahead_ms = (self.interval_us() * u64::try_from(before).unwrap_or(u64::MAX)).div_ceil(1_000);
            let told = free.max(now).plus_ms(ahead_ms.max(1));
            match turn.and_then(|turn| self.waiting.get_mut(turn)) {
                Some(waiting) => waiting.1 = told,
                None => self.waiting.push_back((channel, told)),
            }
            return Say::Number(told);
        }
        if turn.is_some() {
            self.waiting.pop_front();
        }
        if let Some(probe) = &mut self.probing {
            *probe = now;
        }
        self.even_us = self.even_us.max(us(now)) + self.interval_us();
        self.recent.push_back(now);
        self.pairs.left(conversation, now);
        Say::Go
    }

    /// A channel has nothing more to send: it keeps nobody waiting.
    pub fn leave(&mut self, channel: ChannelId) {
        self.waiting.retain(|(waiting, _)| *waiting != channel);
    }

    /// WhatsApp takes nothing from this number before then.
    pub fn pause(&mut self, until: Timestamp) {
        self.paused_until = self.paused_until.max(until);
        self.probing = Some(Timestamp(0));
    }

    /// WhatsApp has taken, or finally refused, a message: the pause is over, if its time is.
    pub fn passed(&mut self, now: Timestamp) {
        if now >= self.paused_until {
            self.probing = None;
        }
    }

    fn interval_us(&self) -> u64 {
        SECOND_US / self.per_second
    }

    /// When the number may send its next message.
    fn free_at(&mut self, now: Timestamp) -> Timestamp {
        while self.recent.front().is_some_and(|at| now >= at.plus_ms(SECOND_MS)) {
            self.recent.pop_front();
        }
        let is_full = u64::try_from(self.recent.len()).is_ok_and(|recent| recent >= self.per_second);
        let window = self.recent.front().filter(|_| is_full).map_or(now, |at| at.plus_ms(SECOND_MS));
        let even = self.even_us.saturating_sub(PACE_BURST * self.interval_us()).div_ceil(1_000);
        let probe = self.probing.filter(|probe| probe.0 > 0).map_or(now, |probe| probe.plus_ms(PROBE_MS));
        window.max(Timestamp(even)).max(self.paused_until).max(probe)
    }
}

fn us(at: Timestamp) -> u64 {
    at.0.saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp(1_700_000_000_000);
    const HERE: ChannelId = ChannelId(1);

    proptest! {
        #[test]
        fn no_second_has_more_than_the_rate_and_no_customer_more_than_his_share(
            per_second in 1_u32..120,
            asks in prop::collection::vec((0_u64..60, 0_u64..3, 0_u64..8), 1..600),
        ) {
            let mut budget = Budget::new(per_second);
            let mut now = START;
            let mut left: Vec<(Timestamp, u64)> = Vec::new();
            for (wait, channel, customer) in asks {
                now = now.plus_ms(wait);
                match budget.ask(ChannelId(u128::from(channel)), ConversationId(customer), now) {
                    Say::Go => left.push((now, customer)),
                    Say::Number(until) | Say::Pair(until) => prop_assert!(until > now),
                }
            }
            for (at, customer) in &left {
                let second = left.iter().filter(|(other, _)| other >= at && *other < at.plus_ms(SECOND_MS));
                prop_assert!(second.count() <= per_second as usize);
                let later: Vec<_> = left.iter().filter(|(other, to)| other >= at && to == customer).collect();
                for (n, (other, _)) in later.iter().enumerate() {
                    let most = PAIR_BURST + other.since_ms(*at) / PAIR_EVERY_MS;
                    prop_assert!((n as u64) < most, "{n} messages in {} ms", other.since_ms(*at));
                }
            }
        }

        #[test]
        fn who_asks_when_it_was_told_to_uses_the_whole_rate(per_second in 1_u32..1_000) {
            let mut budget = Budget::new(per_second);
            let (mut now, mut left) = (START, 0_u64);
            let end = START.plus_ms(10 * SECOND_MS);
            while now < end {
                match budget.ask(HERE, ConversationId(left), now) {
                    Say::Go => left += 1,
                    Say::Number(until) => now = until,
                    Say::Pair(_) => unreachable!("each is another customer"),
                }
            }
            prop_assert!(left * 10 >= u64::from(per_second) * 99, "{left} at {per_second} a second");
        }
    }

    #[test]
    fn a_burst_of_45_passes_and_then_one_every_6_seconds() {
        let mut budget = Budget::new(1_000);
        let mut now = START;
        for n in 0..PAIR_BURST {
            now = now.plus_ms(2);
            assert_eq!(budget.ask(HERE, ConversationId(1), now), Say::Go, "{n}");
        }
        let Say::Pair(until) = budget.ask(HERE, ConversationId(1), now) else { panic!() };
        assert!(until > now && until <= now.plus_ms(PAIR_EVERY_MS));
        assert_eq!(budget.ask(HERE, ConversationId(2), now.plus_ms(1)), Say::Go, "others go on");
        assert_eq!(budget.ask(HERE, ConversationId(1), until), Say::Go);
        assert_eq!(
            budget.ask(HERE, ConversationId(1), until.plus_ms(1)),
            Say::Pair(until.plus_ms(PAIR_EVERY_MS))
        );
    }

    #[test]
    fn channels_of_one_number_take_turns_and_who_does_not_come_loses_his() {
        let mut budget = Budget::new(10);
        let channels = [ChannelId(1), ChannelId(2), ChannelId(3)];
        let mut asks = channels.map(|_| START);
        let (mut customers, mut turns) = (0, Vec::new());
        for step in 0..3_000 {
            let now = START.plus_ms(step);
            for (at, channel) in channels.into_iter().enumerate() {
                while asks[at] <= now {
                    customers += 1;
                    match budget.ask(channel, ConversationId(customers), now) {
                        Say::Go => turns.push(at),
                        Say::Number(until) => asks[at] = until,
                        Say::Pair(_) => unreachable!(),
                    }
                }
            }
        }
        for at in 0..3 {
            let got = turns.iter().skip(6).filter(|turn| **turn == at).count();
            assert!(got.abs_diff((turns.len() - 6) / 3) <= 1, "{at} got {got} of {}", turns.len());
        }
        // Two of them have gone away; the third is not kept waiting for longer than the grace.
        let now = START.plus_ms(3_000 + TURN_GRACE_MS + 400);
        assert_eq!(budget.ask(ChannelId(3), ConversationId(1), now), Say::Go);
    }

    #[test]
    fn what_whatsapp_says_stands_over_the_rate() {
        let mut budget = Budget::new(80);
        assert_eq!(budget.ask(HERE, ConversationId(1), START), Say::Go);
        budget.pause(START.plus_ms(5_000));
        budget.pause(START.plus_ms(2_000));
        let told = budget.ask(HERE, ConversationId(2), START.plus_ms(100));
        assert!(matches!(told, Say::Number(until) if until >= START.plus_ms(5_000)), "{told:?}");
        // Then one goes ahead, and the rest waits for how it fares.
        assert_eq!(budget.ask(HERE, ConversationId(2), START.plus_ms(5_001)), Say::Go);
        let waits = budget.ask(HERE, ConversationId(3), START.plus_ms(5_100));
        assert!(matches!(waits, Say::Number(until) if until >= START.plus_ms(6_001)), "{waits:?}");
        budget.passed(START.plus_ms(5_200));
        assert_eq!(budget.ask(HERE, ConversationId(3), START.plus_ms(5_201)), Say::Go);
        assert_eq!(budget.ask(HERE, ConversationId(4), START.plus_ms(5_201)), Say::Go);
    }

    #[test]
    fn where_nothing_is_said_of_it_one_message_a_second_goes_ahead() {
        let mut budget = Budget::new(80);
        budget.pause(START.plus_ms(100));
        // What was under way before the pause says nothing about after it.
        budget.passed(START.plus_ms(50));
        let mut left = 0;
        for ms in 100..10_100 {
            left += usize::from(budget.ask(HERE, ConversationId(ms), START.plus_ms(ms)) == Say::Go);
        }
        assert_eq!(left, 10);
    }

    #[test]
    fn a_clock_that_is_put_back_holds_nothing_up() {
        let mut budget = Budget::new(1);
        for n in 0..PAIR_BURST {
            assert_eq!(budget.ask(HERE, ConversationId(1), START.plus_ms(n * 1_001)), Say::Go, "{n}");
        }
        budget.pause(START.plus_ms(3_600_000));
        let back = Timestamp(START.0 - 365 * 86_400_000);
        assert_eq!(budget.ask(HERE, ConversationId(1), back), Say::Go);
    }
}
