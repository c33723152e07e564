//! What may be posted when: one conversation's deliveries one after another, those of several at once.
//!
//! Pure: time and chance are arguments. A *lane* is what keeps an order: one conversation of one channel, or what
//! concerns the channel as a whole. A lane whose first delivery was refused waits, and no other with it; while nothing at
//! all gets through, the endpoint counts as down and is asked by one delivery at a time, so that it is not stormed.
//!
//! **Invariants:** of a lane one delivery at most is under way, always the first. What may be acknowledged is all up to
//! the first delivery of its channel that is not done.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Patience;
use crate::domain::ids::{ChannelId, ConversationId, Offset};

/// Most deliveries under way at once, for one service.
pub(super) const UNDER_WAY_MAX: usize = 16;
/// After so many refusals in a row the endpoint counts as down.
const REFUSED_IN_A_ROW_MAX: u32 = 8;
/// Doublings after which a wait would be longer than any, so that nothing overflows.
const DOUBLINGS_MAX: u32 = 20;

/// What keeps an order.
pub(super) type Lane = (ChannelId, Option<ConversationId>);

/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It is told, or there was nothing to tell.
    Done,
    /// It was refused, or there was no answer: once more, later.
    Refused,
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing yet.
    Wait,
    /// All of the channel up to here is done.
    Ack(ChannelId, Offset),
}

#[derive(Debug)]
struct Item<T> {
    offset: Offset,
    /// None while it is under way.
    what: Option<T>,
    attempts: u32,
    first_tried: Option<Instant>,
}

/// One service's deliveries that are not told yet.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: HashMap<Lane, VecDeque<Item<T>>>,
    /// Lanes with nothing under way, and when their first may be tried.
    due: BTreeSet<(Instant, Lane)>,
    under_way: usize,
    /// Each channel's deliveries in the order in which they came, and whether they are done.
    order: HashMap<ChannelId, VecDeque<(Offset, bool)>>,
    refused_in_a_row: u32,
    /// While the endpoint is down: not before.
    not_before: Option<Instant>,
    patience: Patience,
}

impl<T> Lanes<T> {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            lanes: HashMap::new(),
            due: BTreeSet::new(),
            under_way: 0,
            order: HashMap::new(),
            refused_in_a_row: 0,
            not_before: None,
            patience,
        }
    }

    /// A delivery came.
    pub(super) fn push(&mut self, lane: Lane, offset: Offset, what: T, now: Instant) {
        self.order.entry(lane.0).or_default().push_back((offset, false));
        let items = self.lanes.entry(lane).or_default();
        if items.is_empty() {
            self.due.insert((now, lane));
        }
        items.push_back(Item { offset, what: Some(what), attempts: 0, first_tried: None });
    }

    /// A delivery came of which nothing is told: it is done, and waits for nobody.
    pub(super) fn pass(&mut self, channel: ChannelId, offset: Offset) -> Next {
        match self.order.get_mut(&channel).filter(|order| !order.is_empty()) {
            Some(order) => {
                order.push_back((offset, true));
                Next::Wait
            }
            None => Next::Ack(channel, offset),
        }
    }

    /// The next delivery to try, if one may be tried now.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Lane, T)> {
        if self.under_way >= self.under_way_max() || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        let (at, lane) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        let first = self.lanes.get_mut(&lane)?.front_mut()?;
        first.first_tried.get_or_insert(now);
        first.attempts = first.attempts.saturating_add(1);
        let what = first.what.take()?;
        self.under_way += 1;
        Some((lane, what))
    }

    /// When [`next`](Self::next) may give something that it does not give now, unless something happens before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.under_way >= self.under_way_max() {
            return None;
        }
        let (at, _) = self.due.first()?;
        Some(self.not_before.map_or(*at, |not_before| not_before.max(*at)))
    }

    /// There is another endpoint: what was refused by the one before is tried at once, for as long as anything is.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.refused_in_a_row = 0;
        self.not_before = None;
        self.due = std::mem::take(&mut self.due).into_iter().map(|(at, lane)| (at.min(now), lane)).collect();
        for first in self.lanes.values_mut().filter_map(VecDeque::front_mut) {
            first.attempts = 0;
            first.first_tried = None;
        }
    }

    fn under_way_max(&self) -> usize {
        if self.refused_in_a_row >= REFUSED_IN_A_ROW_MAX { 1 } else { UNDER_WAY_MAX }
    }

    /// Whether a delivery that was refused just now has been tried for long enough.
    pub(super) fn is_over(&self, lane: Lane, now: Instant) -> bool {
        let first = self.lanes.get(&lane).and_then(VecDeque::front);
        let tried = first.and_then(|first| first.first_tried);
        tried.is_some_and(|tried| now.duration_since(tried) >= self.patience.retry_for)
    }

    /// What was under way is over. `chance`, of 0 to 255, spreads the next attempt.
    pub(super) fn back(&mut self, lane: Lane, what: T, attempt: Attempt, now: Instant, chance: u8) -> Next {
        self.under_way = self.under_way.saturating_sub(1);
        if attempt == Attempt::Refused {
            self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
            let is_down = self.refused_in_a_row >= REFUSED_IN_A_ROW_MAX;
            let since_down = self.refused_in_a_row.saturating_sub(REFUSED_IN_A_ROW_MAX) + 1;
            self.not_before = is_down.then(|| now + self.wait(since_down, chance));
            let first = self.lanes.get_mut(&lane).and_then(VecDeque::front_mut);
            let Some(first) = first else { return Next::Wait };
            first.what = Some(what);
            let attempts = first.attempts;
            self.due.insert((now + self.wait(attempts, chance), lane));
            return Next::Wait;
        }
        self.refused_in_a_row = 0;
        self.not_before = None;
        self.done(lane, now)
    }

    /// What was under way is given up, or needed no attempt that says anything about the endpoint.
    pub(super) fn skip(&mut self, lane: Lane, now: Instant) -> Next {
        self.under_way = self.under_way.saturating_sub(1);
        self.done(lane, now)
    }

    fn done(&mut self, lane: Lane, now: Instant) -> Next {
        let Some(items) = self.lanes.get_mut(&lane) else { return Next::Wait };
        let Some(item) = items.pop_front() else { return Next::Wait };
        if items.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.due.insert((now, lane));
        }
        self.acknowledge(lane.0, item.offset)
    }

    fn acknowledge(&mut self, channel: ChannelId, done: Offset) -> Next {
        let Some(order) = self.order.get_mut(&channel) else { return Next::Wait };
        if let Some(entry) = order.iter_mut().find(|(offset, is_done)| *offset == done && !is_done) {
            entry.1 = true;
        }
        let mut last = None;
        while order.front().is_some_and(|(_, is_done)| *is_done) {
            last = order.pop_front().map(|(offset, _)| offset);
        }
        last.map_or(Next::Wait, |offset| Next::Ack(channel, offset))
    }

    /// How long to wait after so many attempts: twice as long each time, spread by a quarter to either side.
    fn wait(&self, attempts: u32, chance: u8) -> Duration {
        let doublings = attempts.saturating_sub(1).min(DOUBLINGS_MAX);
        let wait = self.patience.retry_first.saturating_mul(1 << doublings).min(self.patience.retry_longest);
        wait.mul_f64(0.75 + f64::from(chance) / 510.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: ChannelId = ChannelId(1);

    fn lane(of: u64) -> Lane {
        (C, Some(ConversationId(of)))
    }

    fn lanes() -> (Lanes<&'static str>, Instant) {
        (Lanes::new(Patience::default()), Instant::now())
    }

    fn take(lanes: &mut Lanes<&'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| lanes.next(now)).map(|(_, what)| what).collect()
    }

    #[test]
    fn a_conversations_deliveries_go_one_after_another_and_others_do_not_wait_for_them() {
        let (mut lanes, now) = lanes();
        lanes.push(lane(1), Offset(1), "a1", now);
        lanes.push(lane(1), Offset(2), "a2", now);
        lanes.push(lane(2), Offset(3), "b1", now);
        assert_eq!(take(&mut lanes, now), ["a1", "b1"]);
        assert_eq!(lanes.back(lane(2), "b1", Attempt::Done, now, 0), Next::Wait, "a1 came before it");
        assert_eq!(lanes.back(lane(1), "a1", Attempt::Refused, now, 0), Next::Wait);
        assert_eq!(take(&mut lanes, now), [""; 0], "a2 waits behind a1");
        let later = now + Duration::from_secs(1);
        assert!(lanes.next_due().unwrap() > now && lanes.next_due().unwrap() <= later);
        assert_eq!(take(&mut lanes, later), ["a1"]);
        assert_eq!(lanes.back(lane(1), "a1", Attempt::Done, later, 0), Next::Ack(C, Offset(1)));
        assert_eq!(take(&mut lanes, later), ["a2"]);
        // What came last and was done first is acknowledged with what came before it.
        assert_eq!(lanes.skip(lane(1), later), Next::Ack(C, Offset(3)));
        assert_eq!((lanes.under_way, lanes.next_due()), (0, None));
    }

    #[test]
    fn what_is_not_told_takes_no_lane_and_is_acknowledged_no_sooner_than_what_came_before_it() {
        let (mut lanes, now) = lanes();
        assert_eq!(lanes.pass(C, Offset(1)), Next::Ack(C, Offset(1)), "nothing came before it");
        lanes.push(lane(1), Offset(2), "a", now);
        assert_eq!(lanes.pass(C, Offset(3)), Next::Wait);
        lanes.push(lane(1), Offset(4), "b", now);
        assert_eq!(lanes.pass(C, Offset(5)), Next::Wait);
        assert_eq!(lanes.pass(ChannelId(2), Offset(1)), Next::Ack(ChannelId(2), Offset(1)));
        assert_eq!(take(&mut lanes, now), ["a"]);
        assert_eq!(lanes.back(lane(1), "a", Attempt::Done, now, 0), Next::Ack(C, Offset(3)));
        assert_eq!(take(&mut lanes, now), ["b"], "and nothing else");
        assert_eq!(lanes.back(lane(1), "b", Attempt::Done, now, 0), Next::Ack(C, Offset(5)));
        assert_eq!(lanes.pass(C, Offset(6)), Next::Ack(C, Offset(6)));
        assert!(lanes.lanes.is_empty() && lanes.due.is_empty());
    }

    #[test]
    fn each_wait_is_twice_as_long_up_to_the_longest_and_spread() {
        let (lanes, _) = lanes();
        let wait = |attempts, chance| lanes.wait(attempts, chance).as_secs_f64();
        assert!(wait(1, 0) >= 0.75 && wait(1, 255) <= 1.25 && wait(1, 0) < wait(1, 255));
        assert!((wait(4, 128) - 8.0).abs() < 0.1);
        assert!(wait(u32::MAX, 255) <= 375.0);
    }

    #[test]
    fn while_nothing_gets_through_one_delivery_at_a_time_asks() {
        let (mut lanes, now) = lanes();
        for of in 0..40 {
            lanes.push(lane(of), Offset(of + 1), "x", now);
        }
        let tried: Vec<_> = std::iter::from_fn(|| lanes.next(now)).collect();
        assert_eq!(tried.len(), UNDER_WAY_MAX);
        for (lane, what) in tried {
            lanes.back(lane, what, Attempt::Refused, now, 128);
        }
        assert_eq!(lanes.next(now), None, "it is not stormed");
        let soon = lanes.next_due().unwrap();
        assert!(soon > now);
        let (first, what) = lanes.next(soon).unwrap();
        assert_eq!(lanes.next(soon), None, "one at a time");
        lanes.back(first, what, Attempt::Done, soon, 128);
        assert_eq!(std::iter::from_fn(|| lanes.next(soon)).count(), UNDER_WAY_MAX, "it is up again");
    }

    #[test]
    fn what_was_tried_for_long_enough_is_over() {
        let (mut lanes, now) = lanes();
        lanes.push(lane(1), Offset(1), "x", now);
        let (first, what) = lanes.next(now).unwrap();
        assert!(!lanes.is_over(first, now));
        assert!(lanes.is_over(first, now + Duration::from_secs(7 * 86_400)));
        lanes.back(first, what, Attempt::Refused, now, 0);
        let (first, _) = lanes.next(now + Duration::from_secs(2)).unwrap();
        assert_eq!(lanes.skip(first, now), Next::Ack(C, Offset(1)));
    }

    #[test]
    fn another_endpoint_is_asked_at_once_for_what_the_one_before_refused() {
        let (mut lanes, now) = lanes();
        for n in 1..=20 {
            lanes.push(lane(n), Offset(n), "d", now);
        }
        for _ in 0..REFUSED_IN_A_ROW_MAX {
            let (first, what) = lanes.next(now).unwrap();
            lanes.back(first, what, Attempt::Refused, now, 255);
        }
        assert!(lanes.next(now).is_none(), "the endpoint is down");
        lanes.begin_anew(now);
        assert_eq!(take(&mut lanes, now).len(), UNDER_WAY_MAX);
    }
}
