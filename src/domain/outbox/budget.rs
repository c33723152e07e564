//! How much may be handed to a gateway, and which channel is next (B14): so many replies without outcome, and for a number
//! that this process sends for, so many messages a second and so many to one customer.
//!
//! Pure: it is told the time. Whoever is refused is told when to ask again, or is named when there is room again; of
//! several channels each gets its turns, by the weights of the services that send in them (`Turns`). In which order the
//! replies of one channel ask is the queue's business.
//!
//! After a pause one message goes ahead and the rest waits for how it fares ([`Budget::passed`]).
//!
//! **Invariants:** in no second more than the number's rate; spread evenly over it, but for [`PACE_BURST`], so that who
//! comes last waits for one message and not for a second. What WhatsApp says itself stands over both ([`Budget::pause`]).
//! A channel that waits for a place is named as soon as there is one that nobody else was told of.

use std::collections::{BTreeMap, VecDeque};

use super::pairs::Pairs;
use super::turns::Turns;
use crate::domain::ids::{ChannelId, ConversationId, Timestamp};

pub use super::pairs::{PAIR_BURST, PAIR_EVERY_MS};

/// Messages that may make up for a timer that came late.
pub const PACE_BURST: u64 = 4;
/// How long a channel that was told to ask again may keep others waiting if it does not, in milliseconds.
const TURN_GRACE_MS: u64 = 1_000;
/// When a channel asks again that is only waiting for another's turn, in milliseconds, where no rate says it.
const LOOK_AGAIN_MS: u64 = 10;
/// How many channels may be remembered for what they paid before those are forgotten that owe nothing.
const REMEMBERED_MAX: usize = 64;
/// How long after a pause a message goes ahead alone, in milliseconds, before another one does.
const PROBE_MS: u64 = 1_000;
/// By how much the clock may be behind what it has shown before it is one that was put back, in milliseconds.
const CLOCK_BACK_MS: u64 = 60_000;
const SECOND_MS: u64 = 1_000;
const SECOND_US: u64 = 1_000_000;

/// What a budget says to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// It may leave now.
    Go,
    /// As many as there may be have no outcome yet; the channel is named when it may ask again.
    Full,
    /// The channel may not send before then.
    Number(Timestamp),
    /// This customer may not be sent anything before then; others may.
    Pair(Timestamp),
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// The channel.
    pub channel: ChannelId,
    /// The conversation that the message is of.
    pub conversation: ConversationId,
    /// How much the service weighs that sends it.
    pub weight: u32,
}

/// The budget of one gateway over TCP, or of one number that this process sends for; over all channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    places: usize,
    taken: usize,
    /// A gateway over TCP holds its rates itself.
    rates: Option<Rates>,
    turns: Turns<ChannelId>,
    /// Channels that were refused, and when each was told to ask again; not at all while there is no place.
    waiting: BTreeMap<ChannelId, Option<Timestamp>>,
    /// The latest time that was told.
    latest: Timestamp,
}

/// How fast a number may send.
#[derive(Debug, Clone, PartialEq)]
struct Rates {
    per_second: u64,
    /// When the messages of the last second left.
    recent: VecDeque<Timestamp>,
    /// When the next would leave if all were spread evenly, in microseconds.
    even_us: u64,
    paused_until: Timestamp,
    /// After a pause: when the last message went ahead alone.
    probing: Option<Timestamp>,
    pairs: Pairs,
}

impl Budget {
    /// That of a gateway over TCP that may have so many replies without outcome.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self {
            places,
            taken: 0,
            rates: None,
            turns: Turns::default(),
            waiting: BTreeMap::new(),
            latest: Timestamp(0),
        }
    }

    /// That of a number that may send so many messages a second, at least one.
    #[must_use]
    pub fn of_number(places: usize, per_second: u32) -> Self {
        Self { rates: Some(Rates::new(per_second, 1)), ..Self::new(places) }
    }

    /// Whether it is a number's, for which this process sends.
    #[must_use]
    pub fn is_of_number(&self) -> bool {
        self.rates.is_some()
    }

    /// Another rate holds from now on.
    pub fn set_rate(&mut self, per_second: u32) {
        if let Some(rates) = &mut self.rates {
            rates.per_second = u64::from(per_second.max(1));
        }
    }

    /// So many channels share what one customer may be sent.
    pub fn set_channels(&mut self, channels: usize) {
        if let Some(rates) = &mut self.rates {
            rates.pairs.set_channels(u64::try_from(channels).unwrap_or(u64::MAX));
        }
    }

    /// A channel asks whether a message may leave now; it has a place then.
    pub fn ask(&mut self, asking: &Asking, now: Timestamp) -> Say {
        self.look_at_clock(now);
        let Asking { channel, conversation, weight } = *asking;
        if let Some(until) = self.rates.as_mut().and_then(|rates| rates.pairs.refuse(conversation, now)) {
            return Say::Pair(until);
        }
        let is_over = |told: Timestamp| now >= told.plus_ms(TURN_GRACE_MS);
        self.waiting.retain(|_, told| !told.is_some_and(is_over));
        if self.taken >= self.places {
            self.waiting.insert(channel, None);
            return Say::Full;
        }
        let free = self.rates.as_mut().map_or(now, |rates| rates.free_at(now));
        let ahead = self.ahead_of(channel);
        if free > now || ahead > 0 {
            let interval_us = self.rates.as_ref().map_or(LOOK_AGAIN_MS * 1_000, Rates::interval_us);
            let told = free.max(now).plus_ms((interval_us * ahead).div_ceil(1_000).max(1));
            self.waiting.insert(channel, Some(told));
            return Say::Number(told);
        }
        self.waiting.remove(&channel);
        self.turns.take(channel, weight);
        if self.turns.len() > REMEMBERED_MAX {
            self.turns.forget_even();
        }
        self.taken += 1;
        if let Some(rates) = &mut self.rates {
            rates.left(conversation, now);
        }
        Say::Go
    }

    /// How many channels that were told to ask again have their turn before this one.
    fn ahead_of(&self, channel: ChannelId) -> u64 {
        let rank = |channel| (self.turns.rank(channel), channel);
        let told = self.waiting.iter().filter(|(other, told)| **other != channel && told.is_some());
        told.map(|(other, _)| u64::from(rank(*other) < rank(channel))).sum()
    }

    /// So many replies have their outcome, or were not handed over after all. Gives the channels that may ask again.
    pub fn give_back(&mut self, places: usize, now: Timestamp) -> Vec<ChannelId> {
        self.taken = self.taken.saturating_sub(places);
        self.name_next(now)
    }

    /// A channel has nothing to send now: it keeps nobody waiting. Gives the channels that may ask again.
    pub fn leave(&mut self, channel: ChannelId, now: Timestamp) -> Vec<ChannelId> {
        self.waiting.remove(&channel);
        self.name_next(now)
    }

    /// As many of the channels that wait for a place as there are places that nobody else was told of.
    fn name_next(&mut self, now: Timestamp) -> Vec<ChannelId> {
        let mut next: Vec<ChannelId> =
            self.waiting.iter().filter(|(_, told)| told.is_none()).map(|(channel, _)| *channel).collect();
        let told = self.waiting.len() - next.len();
        next.sort_unstable_by_key(|channel| (self.turns.rank(*channel), *channel));
        next.truncate(self.places.saturating_sub(self.taken).saturating_sub(told));
        for channel in &next {
            self.waiting.insert(*channel, Some(now));
        }
        next
    }

    /// Replies without outcome.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// A conversation is with the customer of this fingerprint.
    pub fn is_of(&mut self, conversation: ConversationId, customer: u128, now: Timestamp) {
        if let Some(rates) = &mut self.rates {
            rates.pairs.is_of(conversation, customer, now);
        }
    }

    /// WhatsApp takes nothing for a conversation's customer before then, from no channel.
    pub fn rest(&mut self, conversation: ConversationId, until: Timestamp) {
        if let Some(rates) = &mut self.rates {
            rates.pairs.rest(conversation, until);
        }
    }

    /// WhatsApp takes nothing from this number before then.
    pub fn pause(&mut self, until: Timestamp) {
        if let Some(rates) = &mut self.rates {
            rates.paused_until = rates.paused_until.max(until);
            rates.probing = Some(Timestamp(0));
        }
    }

    /// WhatsApp has taken, or finally refused, a message: the pause is over, if its time is.
    pub fn passed(&mut self, now: Timestamp) {
        if let Some(rates) = &mut self.rates
            && now >= rates.paused_until
        {
            rates.probing = None;
        }
    }

    /// Where the clock was put back, what is known is about a time that is still to come, and holds nobody up.
    fn look_at_clock(&mut self, now: Timestamp) {
        if now.plus_ms(CLOCK_BACK_MS) < self.latest {
            self.latest = now;
            self.rates = self
                .rates
                .as_ref()
                .map(|rates| Rates { per_second: rates.per_second, ..Rates::new(1, rates.pairs.channels()) });
            self.waiting.values_mut().flatten().for_each(|told| *told = now);
        }
        self.latest = self.latest.max(now);
    }
}

impl Rates {
    fn new(per_second: u32, channels: u64) -> Self {
        Self {
            per_second: u64::from(per_second.max(1)),
            recent: VecDeque::new(),
            even_us: 0,
            paused_until: Timestamp(0),
            probing: None,
            pairs: Pairs::new(channels),
        }
    }

    fn interval_us(&self) -> u64 {
        SECOND_US / self.per_second
    }

    fn left(&mut self, conversation: ConversationId, now: Timestamp) {
        if let Some(probe) = &mut self.probing {
            *probe = now;
        }
        self.even_us = self.even_us.max(us(now)) + self.interval_us();
        self.recent.push_back(now);
        self.pairs.left(conversation, now);
    }

    /// When the number may send its next message.
    fn free_at(&mut self, now: Timestamp) -> Timestamp {
        while self.recent.front().is_some_and(|at| now >= at.plus_ms(SECOND_MS)) {
            self.recent.pop_front();
        }
        // After a reload there may be more than the rate that holds now: then the oldest that counts is a later one.
        let recent = u64::try_from(self.recent.len()).unwrap_or(u64::MAX);
        let oldest =
            recent.checked_sub(self.per_second).and_then(|at| self.recent.get(usize::try_from(at).ok()?));
        let window = oldest.map_or(now, |at| at.plus_ms(SECOND_MS));
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

    fn ask(budget: &mut Budget, channel: ChannelId, conversation: ConversationId, now: Timestamp) -> Say {
        budget.ask(&Asking { channel, conversation, weight: 1 }, now)
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_the_rate_and_no_customer_more_than_his_share(
            per_second in 1_u32..120,
            asks in prop::collection::vec((0_u64..60, 0_u64..3, 0_u64..8), 1..600),
        ) {
            let mut budget = Budget::of_number(usize::MAX, per_second);
            let mut now = START;
            let mut left: Vec<(Timestamp, u64)> = Vec::new();
            for (wait, channel, customer) in asks {
                now = now.plus_ms(wait);
                match ask(&mut budget, ChannelId(u128::from(channel)), ConversationId(customer), now) {
                    Say::Go => left.push((now, customer)),
                    Say::Number(until) | Say::Pair(until) => prop_assert!(until > now),
                    Say::Full => prop_assert!(false, "there are places for all"),
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
            let mut budget = Budget::of_number(usize::MAX, per_second);
            let (mut now, mut left) = (START, 0_u64);
            let end = START.plus_ms(10 * SECOND_MS);
            while now < end {
                match ask(&mut budget, HERE, ConversationId(left), now) {
                    Say::Go => left += 1,
                    Say::Number(until) => now = until,
                    Say::Pair(_) | Say::Full => unreachable!("each is another customer"),
                }
            }
            prop_assert!(left * 10 >= u64::from(per_second) * 99, "{left} at {per_second} a second");
        }
    }

    #[test]
    fn a_burst_of_45_passes_and_then_one_every_6_seconds() {
        let mut budget = Budget::of_number(usize::MAX, 1_000);
        let mut now = START;
        for n in 0..PAIR_BURST {
            now = now.plus_ms(2);
            assert_eq!(ask(&mut budget, HERE, ConversationId(1), now), Say::Go, "{n}");
        }
        let Say::Pair(until) = ask(&mut budget, HERE, ConversationId(1), now) else { panic!() };
        assert!(until > now && until <= now.plus_ms(PAIR_EVERY_MS));
        assert_eq!(ask(&mut budget, HERE, ConversationId(2), now.plus_ms(1)), Say::Go, "others go on");
        assert_eq!(ask(&mut budget, HERE, ConversationId(1), until), Say::Go);
        assert_eq!(
            ask(&mut budget, HERE, ConversationId(1), until.plus_ms(1)),
            Say::Pair(until.plus_ms(PAIR_EVERY_MS))
        );
    }

    #[test]
    fn channels_of_one_number_take_turns_and_who_does_not_come_loses_his() {
        let mut budget = Budget::of_number(usize::MAX, 10);
        let channels = [ChannelId(1), ChannelId(2), ChannelId(3)];
        let mut asks = channels.map(|_| START);
        let (mut customers, mut turns) = (0, Vec::new());
        for step in 0..3_000 {
            let now = START.plus_ms(step);
            for (at, channel) in channels.into_iter().enumerate() {
                while asks[at] <= now {
                    customers += 1;
                    match ask(&mut budget, channel, ConversationId(customers), now) {
                        Say::Go => turns.push(at),
                        Say::Number(until) => asks[at] = until,
                        Say::Pair(_) | Say::Full => unreachable!(),
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
        assert_eq!(ask(&mut budget, ChannelId(3), ConversationId(1), now), Say::Go);
    }

    #[test]
    fn what_whatsapp_says_stands_over_the_rate() {
        let mut budget = Budget::of_number(usize::MAX, 80);
        assert_eq!(ask(&mut budget, HERE, ConversationId(1), START), Say::Go);
        budget.pause(START.plus_ms(5_000));
        budget.pause(START.plus_ms(2_000));
        let told = ask(&mut budget, HERE, ConversationId(2), START.plus_ms(100));
        assert!(matches!(told, Say::Number(until) if until >= START.plus_ms(5_000)), "{told:?}");
        // Then one goes ahead, and the rest waits for how it fares.
        assert_eq!(ask(&mut budget, HERE, ConversationId(2), START.plus_ms(5_001)), Say::Go);
        let waits = ask(&mut budget, HERE, ConversationId(3), START.plus_ms(5_100));
        assert!(matches!(waits, Say::Number(until) if until >= START.plus_ms(6_001)), "{waits:?}");
        budget.passed(START.plus_ms(5_200));
        assert_eq!(ask(&mut budget, HERE, ConversationId(3), START.plus_ms(5_201)), Say::Go);
        assert_eq!(ask(&mut budget, HERE, ConversationId(4), START.plus_ms(5_201)), Say::Go);
    }

    #[test]
    fn where_nothing_is_said_of_it_one_message_a_second_goes_ahead() {
        let mut budget = Budget::of_number(usize::MAX, 80);
        budget.pause(START.plus_ms(100));
        // What was under way before the pause says nothing about after it.
        budget.passed(START.plus_ms(50));
        let mut left = 0;
        for ms in 100..10_100 {
            left += usize::from(ask(&mut budget, HERE, ConversationId(ms), START.plus_ms(ms)) == Say::Go);
        }
        assert_eq!(left, 10);
    }

    #[test]
    fn a_clock_that_is_put_back_holds_nothing_up() {
        let mut budget = Budget::of_number(usize::MAX, 1);
        for n in 0..PAIR_BURST {
            assert_eq!(ask(&mut budget, HERE, ConversationId(1), START.plus_ms(n * 1_001)), Say::Go, "{n}");
        }
        budget.pause(START.plus_ms(3_600_000));
        let back = Timestamp(START.0 - 365 * 86_400_000);
        assert_eq!(ask(&mut budget, HERE, ConversationId(1), back), Say::Go);
    }

    /// Channels that always have something to send ask when they were told to; says how many left of each.
    fn campaigns(budget: &mut Budget, weights: &[u32], ms: u64) -> Vec<u64> {
        let (mut asks, mut left, mut customers) = (vec![START; weights.len()], vec![0; weights.len()], 0);
        for now in (0..ms).map(|step| START.plus_ms(step)) {
            for (at, weight) in weights.iter().enumerate() {
                while asks[at] <= now {
                    customers += 1;
                    let channel = ChannelId(at as u128);
                    let conversation = ConversationId(customers);
                    match budget.ask(&Asking { channel, conversation, weight: *weight }, now) {
                        Say::Go => left[at] += 1,
                        Say::Number(until) => asks[at] = until,
                        other => unreachable!("{other:?}"),
                    }
                }
            }
        }
        left
    }

    #[test]
    fn channels_of_one_number_have_its_rate_by_the_weights_of_their_services() {
        let left = campaigns(&mut Budget::of_number(usize::MAX, 80), &[6, 3, 1], 60_000);
        let all: u64 = left.iter().sum();
        assert!((4_750..=4_805).contains(&all), "nothing of the rate is wasted: {all}");
        for (left, tenths) in left.iter().zip([6, 3, 1]) {
            assert!(left.abs_diff(all * tenths / 10) <= 8, "{left} of {all}, {tenths} tenths are due");
        }
    }

    #[test]
    fn who_waits_for_a_place_is_named_in_turn_and_who_does_not_want_it_makes_way() {
        let mut budget = Budget::new(2);
        let channels = [ChannelId(1), ChannelId(2), ChannelId(3)];
        let mut go = |channel| ask(&mut budget, channel, ConversationId(0), START) == Say::Go;
        assert!(
            go(channels[0]) && go(channels[0]) && !go(channels[0]) && !go(channels[1]) && !go(channels[2])
        );
        // Who has had none yet goes first, though the first asks at once.
        assert_eq!(budget.give_back(1, START), [channels[1]]);
        assert!(matches!(ask(&mut budget, channels[0], ConversationId(0), START), Say::Number(_)));
        assert_eq!(ask(&mut budget, channels[1], ConversationId(0), START), Say::Go);
        assert_eq!(budget.give_back(1, START), [], "the first is told to come already");
        assert_eq!(budget.leave(channels[0], START), [channels[2]], "it does not want it any more");
        assert_eq!(budget.leave(channels[2], START), []);
        assert_eq!(budget.taken(), 1);
    }

    #[test]
    fn one_that_does_not_come_though_it_was_named_is_not_waited_for() {
        let mut budget = Budget::new(1);
        let (gone, here) = (ChannelId(1), ChannelId(2));
        for channel in [here, gone, here] {
            ask(&mut budget, channel, ConversationId(0), START);
        }
        assert_eq!(budget.give_back(1, START), [gone]);
        let told = ask(&mut budget, here, ConversationId(0), START);
        assert!(matches!(told, Say::Number(until) if until <= START.plus_ms(LOOK_AGAIN_MS)), "{told:?}");
        assert_eq!(ask(&mut budget, here, ConversationId(0), START.plus_ms(TURN_GRACE_MS)), Say::Go);
    }

    #[test]
    fn of_many_channels_those_that_owe_nothing_are_forgotten_and_it_changes_no_turn() {
        let mut budget = Budget::new(usize::MAX);
        let channel = |at: usize| ChannelId(at as u128);
        let mut go = |at: usize| {
            assert_eq!(ask(&mut budget, channel(at), ConversationId(0), START), Say::Go);
            (budget.turns.len(), budget.turns.rank(channel(at)) > budget.turns.rank(channel(1)))
        };
        for at in 0..REMEMBERED_MAX {
            assert_eq!(go(at).0, at + 1, "each has a turn that the others have yet to have");
        }
        // A second turn: what the others paid is what everybody has by now.
        assert_eq!(go(0), (REMEMBERED_MAX, true), "so many are remembered all the same");
        assert_eq!(go(REMEMBERED_MAX).0, 2, "one more is too many");
        assert_eq!(go(0), (2, true), "who has had more than the rest is behind it");
    }

    #[test]
    fn another_rate_holds_at_once() {
        let mut budget = Budget::of_number(usize::MAX, 100);
        assert_eq!(campaigns(&mut budget, &[1], 1_000), [100]);
        budget.set_rate(10);
        let mut left = 0;
        for ms in 1_000..3_000 {
            left += u64::from(ask(&mut budget, HERE, ConversationId(ms), START.plus_ms(ms)) == Say::Go);
        }
        assert!((10..=20).contains(&left), "{left}");
    }
}
