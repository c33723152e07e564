//! In which order replies leave: one conversation's one at a time and in order, services in fair turns (B14).
//!
//! A conversation's *line* holds its open replies. The oldest of a line in which none is handed and that does not
//! *rest* is *sendable* and stands in a lane of its service, by its [`Class`]. Services have their turns by weight
//! ([`Turns`]): of n in a row each that has something to send gets its share at least, and of equals the one that was
//! served longest ago is next.
//!
//! A line rests for a while where WhatsApp takes nothing for its customer just now. That is in no record: after a
//! restart none rests.
//!
//! **Invariant:** a line's first waiting reply stands in a lane if and only if none of that line is handed and it does
//! not rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::ServiceNumber;
use super::turns::Turns;
use crate::domain::buckets::BucketMap;
use crate::domain::ids::{ConversationId, Offset, Timestamp};
use crate::domain::saved::{Put, Saved, Take, Unreadable, restore_all, save_all, saved};

/// Longest that a conversation rests, in milliseconds: twice the longest wait that a gateway asks for.
const REST_MS_MAX: u64 = 2 * 3_600_000;

/// A reply that waits to be handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) offset: Offset,
    pub(super) accepted_at: Timestamp,
    pub(super) service: ServiceNumber,
    pub(super) class: Class,
}

/// Which of a service's own replies go first: people before machines, free text before templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// An agent's, and no template.
    Agent,
    /// A bot's, and no template.
    Bot,
    Template,
}

impl Class {
    pub(super) fn of(is_agent: bool, kind: &str) -> Self {
        match (kind, is_agent) {
            ("template", _) => Self::Template,
            (_, true) => Self::Agent,
            (_, false) => Self::Bot,
        }
    }
}

impl Saved for Class {
    fn save(&self, out: &mut dyn Put) {
        out.number(match self {
            Self::Template => 0,
            Self::Agent => 1,
            Self::Bot => 2,
        });
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        Ok(match from.number()? {
            0 => Self::Template,
            1 => Self::Agent,
            2 => Self::Bot,
            _ => return Err(Unreadable("a class of replies that is none")),
        })
    }
}

/// The open replies of all conversations.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Queue {
    lines: BucketMap<ConversationId, Line>,
    lanes: Lanes,
    ages: Ages,
    resting: Resting,
}

/// The conversations that rest, each until then.
#[derive(Debug, Clone, PartialEq, Default)]
struct Resting {
    until: BTreeMap<ConversationId, Timestamp>,
    order: BTreeSet<(Timestamp, ConversationId)>,
}

impl Resting {
    fn has(&self, conversation: ConversationId) -> bool {
        self.until.contains_key(&conversation)
    }

    fn take(&mut self, conversation: ConversationId) -> Option<Timestamp> {
        let until = self.until.remove(&conversation)?;
        self.order.remove(&(until, conversation));
        Some(until)
    }

    /// One that rests longer already goes on doing so.
    fn insert(&mut self, conversation: ConversationId, until: Timestamp) {
        let until = self.take(conversation).map_or(until, |before| before.max(until));
        self.until.insert(conversation, until);
        self.order.insert((until, conversation));
    }
}

/// The open replies of one conversation, by offset.
#[derive(Debug, Clone, PartialEq, Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    /// One at most, unless two conversations became one meanwhile. With the time of handing.
    handed: Vec<(Timestamp, Waiting)>,
}

saved!(Waiting { offset, accepted_at, service, class });

impl Saved for Line {
    fn save(&self, out: &mut dyn Put) {
        save_all(self.waiting.len(), self.waiting.iter(), out);
        self.handed.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let waiting = restore_all(from).collect::<Result<_, _>>()?;
        Ok(Self { waiting, handed: Saved::restore(from)? })
    }
}

/// The lines and the turns; lanes and ages follow from them.
impl Saved for Queue {
    fn save(&self, out: &mut dyn Put) {
        self.lines.save(out);
        self.lanes.turns.at().save(out);
        let paid: Vec<u64> =
            self.lanes.numbered().map(|(service, _)| self.lanes.turns.paid(service)).collect();
        paid.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let lines: BucketMap<ConversationId, Line> = Saved::restore(from)?;
        let at = u64::restore(from)?;
        let paid: Vec<u64> = Saved::restore(from)?;
        let services = paid.iter().map(|_| Lane::default()).collect();
        let mut lanes = Lanes { services, turns: Turns::restore(at, (0..).zip(paid)) };
        let mut ages = Ages::default();
        for (_, line) in lines.iter() {
            lanes.offer(line.sendable());
            ages.waiting.extend(line.waiting.iter().map(|waiting| (waiting.accepted_at, waiting.offset)));
            ages.handed.extend(line.handed.iter().map(|(at, handed)| (*at, handed.offset)));
        }
        Ok(Self { lines, lanes, ages, resting: Resting::default() })
    }
}

impl Line {
    fn sendable(&self) -> Option<Waiting> {
        if self.handed.is_empty() { self.waiting.front().copied() } else { None }
    }

    fn wait(&mut self, waiting: Waiting) {
        let at = self.waiting.partition_point(|other| other.offset < waiting.offset);
        self.waiting.insert(at, waiting);
    }

    fn take_waiting(&mut self, offset: Offset) -> Option<Waiting> {
        let at = self.waiting.binary_search_by_key(&offset, |waiting| waiting.offset).ok()?;
        self.waiting.remove(at)
    }

    fn take_handed(&mut self, offset: Offset) -> Option<(Timestamp, Waiting)> {
        let at = self.handed.iter().position(|(_, handed)| handed.offset == offset)?;
        Some(self.handed.remove(at))
    }
}

/// All open replies by age, for their deadlines.
#[derive(Debug, Clone, PartialEq, Default)]
struct Ages {
    /// Those that wait, by acceptance.
    waiting: BTreeSet<(Timestamp, Offset)>,
    /// Those that are handed, by handing.
    handed: BTreeSet<(Timestamp, Offset)>,
}

/// What is sendable, by service.
#[derive(Debug, Clone, PartialEq, Default)]
struct Lanes {
    services: Vec<Lane>,
    turns: Turns<ServiceNumber>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Lane {
    agents: BTreeSet<Offset>,
    bots: BTreeSet<Offset>,
    templates: BTreeSet<Offset>,
}

impl Lane {
    fn of(&mut self, class: Class) -> &mut BTreeSet<Offset> {
        match class {
            Class::Agent => &mut self.agents,
            Class::Bot => &mut self.bots,
            Class::Template => &mut self.templates,
        }
    }

    /// What goes first stands first.
    fn in_order(&self) -> impl Iterator<Item = &Offset> {
        self.agents.iter().chain(&self.bots).chain(&self.templates)
    }
}

impl Lanes {
    fn numbered(&self) -> impl Iterator<Item = (ServiceNumber, &Lane)> {
        (0..).zip(&self.services)
    }

    fn lane(&mut self, service: ServiceNumber) -> Option<&mut Lane> {
        let at = service as usize;
        if self.services.len() <= at {
            self.services.resize_with(at + 1, Lane::default);
        }
        self.services.get_mut(at)
    }

    fn offer(&mut self, sendable: Option<Waiting>) {
        if let Some(waiting) = sendable
            && let Some(lane) = self.lane(waiting.service)
        {
            lane.of(waiting.class).insert(waiting.offset);
        }
    }

    fn withdraw(&mut self, sendable: Option<Waiting>) {
        if let Some(waiting) = sendable
            && let Some(lane) = self.lane(waiting.service)
        {
            lane.of(waiting.class).remove(&waiting.offset);
        }
    }
}

impl Queue {
    /// A reply was accepted.
    pub(super) fn accept(&mut self, conversation: ConversationId, waiting: Waiting) {
        self.change(conversation, |line, ages| {
            line.wait(waiting);
            ages.waiting.insert((waiting.accepted_at, waiting.offset));
        });
    }

    /// A waiting reply was handed at that time, or a handed one once more: a turn of its service, which has this weight.
    pub(super) fn hand(&mut self, conversation: ConversationId, offset: Offset, at: Timestamp, weight: u32) {
        let service = self.change(conversation, |line, ages| {
            let reply = match (line.take_waiting(offset), line.take_handed(offset)) {
                (Some(waiting), _) => waiting,
                (None, Some((before, handed))) => {
                    ages.handed.remove(&(before, offset));
                    handed
                }
                (None, None) => return None,
            };
            ages.waiting.remove(&(reply.accepted_at, offset));
            ages.handed.insert((at, offset));
            line.handed.push((at, reply));
            Some(reply.service)
        });
        if let Some(service) = service {
            self.lanes.turns.take(service, weight);
        }
    }

    /// A handed reply waits again, in its old place. Says whether it was handed.
    pub(super) fn put_back(&mut self, conversation: ConversationId, offset: Offset) -> bool {
        self.change(conversation, |line, ages| {
            let Some((at, reply)) = line.take_handed(offset) else { return false };
            ages.handed.remove(&(at, offset));
            ages.waiting.insert((reply.accepted_at, offset));
            line.wait(reply);
            true
        })
    }

    /// A reply has an outcome.
    pub(super) fn close(&mut self, conversation: ConversationId, offset: Offset) {
        self.change(conversation, |line, ages| {
            if let Some((at, _)) = line.take_handed(offset) {
                ages.handed.remove(&(at, offset));
            }
            if let Some(waiting) = line.take_waiting(offset) {
                ages.waiting.remove(&(waiting.accepted_at, offset));
            }
        });
    }

    /// The younger conversation's replies join the older's line by their offsets; gives them.
    pub(super) fn merge(&mut self, younger: ConversationId, older: ConversationId) -> Vec<Offset> {
        let rest = self.resting.take(younger);
        let Some(line) = self.lines.remove(&younger) else { return Vec::new() };
        if rest.is_none() {
            self.lanes.withdraw(line.sendable());
        }
        let moved = line.waiting.iter().chain(line.handed.iter().map(|(_, reply)| reply));
        let moved = moved.map(|reply| reply.offset).collect();
        self.change(older, |into, _| {
            for waiting in line.waiting {
                into.wait(waiting);
            }
            into.handed.extend(line.handed);
        });
        if let Some(until) = rest {
            self.rest(older, until);
        }
        moved
    }

    /// Nothing of a conversation is sendable before then.
    pub(super) fn rest(&mut self, conversation: ConversationId, until: Timestamp) {
        if let Some(line) = self.lines.get(&conversation)
            && !self.resting.has(conversation)
        {
            self.lanes.withdraw(line.sendable());
        }
        self.resting.insert(conversation, until);
    }

    /// Whoever has rested long enough goes on; so does one whose rest would not end for longer than any lasts, since
    /// then the clock was put back.
    pub(super) fn wake(&mut self, now: Timestamp) {
        let is_over = |(at, _): &(Timestamp, ConversationId)| *at <= now || *at > now.plus_ms(REST_MS_MAX);
        loop {
            let order = &self.resting.order;
            let Some((_, conversation)) =
                [order.first(), order.last()].into_iter().flatten().copied().find(is_over)
            else {
                return;
            };
            self.resting.take(conversation);
            self.lanes.offer(self.lines.get(&conversation).and_then(Line::sendable));
        }
    }

    /// When the next one has rested long enough.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.resting.order.first().map(|(at, _)| *at)
    }

    /// Whether a reply may be handed now.
    pub(super) fn is_sendable(&self, conversation: ConversationId, offset: Offset) -> bool {
        let sendable = self.lines.get(&conversation).and_then(Line::sendable);
        !self.resting.has(conversation) && sendable.is_some_and(|waiting| waiting.offset == offset)
    }

    /// Whether a reply is handed now.
    pub(super) fn is_handed(&self, conversation: ConversationId, offset: Offset) -> bool {
        let line = self.lines.get(&conversation);
        line.is_some_and(|line| line.handed.iter().any(|(_, handed)| handed.offset == offset))
    }

    /// When a waiting reply was accepted.
    pub(super) fn accepted_at(&self, conversation: ConversationId, offset: Offset) -> Option<Timestamp> {
        let line = self.lines.get(&conversation)?;
        let at = line.waiting.binary_search_by_key(&offset, |waiting| waiting.offset).ok()?;
        line.waiting.get(at).map(|waiting| waiting.accepted_at)
    }

    /// The next replies to hand, in the fair order by the services' weights.
    pub(super) fn next(&self, limit: usize, weight_of: impl Fn(ServiceNumber) -> u32) -> Vec<Offset> {
        let mut next = Vec::new();
        let mut turns = self.lanes.turns.clone();
        let mut lanes: Vec<_> = (self.lanes.numbered())
            .map(|(service, lane)| (service, lane.in_order().peekable()))
            .filter_map(|(service, mut replies)| replies.peek().is_some().then_some((service, replies)))
            .collect();
        while next.len() < limit {
            // The first of those that were never served: the lanes stand in the order of the services' first replies.
            let rank = |at: &usize| lanes.get(*at).map(|(service, _)| turns.rank(*service));
            let Some(at) = (0..lanes.len()).min_by_key(rank) else { break };
            let Some((service, replies)) = lanes.get_mut(at) else { break };
            next.extend(replies.next());
            turns.take(*service, weight_of(*service));
            if replies.peek().is_none() {
                drop(lanes.remove(at));
            }
        }
        next
    }

    pub(super) fn waiting_len(&self) -> usize {
        self.ages.waiting.len()
    }

    pub(super) fn handed_len(&self) -> usize {
        self.ages.handed.len()
    }

    /// Those that wait, the longest first, each with the time of its acceptance.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (Timestamp, Offset)> {
        self.ages.waiting.iter().copied()
    }

    /// Those that are handed, the longest first, each with the time of its handing.
    pub(super) fn handed(&self) -> impl Iterator<Item = (Timestamp, Offset)> {
        self.ages.handed.iter().copied()
    }

    /// Changes a line, and keeps the lanes as the invariant says.
    fn change<T>(
        &mut self,
        conversation: ConversationId,
        change: impl FnOnce(&mut Line, &mut Ages) -> T,
    ) -> T {
        let line = self.lines.get_or_insert_with(conversation, Line::default);
        let rests = self.resting.has(conversation);
        if !rests {
            self.lanes.withdraw(line.sendable());
        }
        let result = change(line, &mut self.ages);
        if !rests {
            self.lanes.offer(line.sendable());
        }
        if line.waiting.is_empty() && line.handed.is_empty() {
            self.lines.remove(&conversation);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    #[test]
    fn a_clock_that_goes_back_keeps_nobody_at_rest_for_longer_than_a_rest_lasts() {
        let (short, long) = (ConversationId(1), ConversationId(2));
        let mut queue = Queue::default();
        for (conversation, offset) in [(short, Offset(1)), (long, Offset(2))] {
            let waiting = Waiting { offset, accepted_at: NOW, service: 0, class: Class::Bot };
            queue.accept(conversation, waiting);
        }
        queue.rest(short, NOW.plus_ms(60_000));
        queue.rest(long, NOW.plus_ms(REST_MS_MAX));
        let awake = |queue: &mut Queue, now: Timestamp| {
            queue.wake(now);
            (queue.is_sendable(short, Offset(1)), queue.is_sendable(long, Offset(2)))
        };
        assert_eq!(awake(&mut queue, NOW), (false, false), "the longest rest is one");
        let back = |ms: u64| Timestamp(NOW.0 - ms);
        assert_eq!(awake(&mut queue, back(1)), (false, true), "nobody ever asks for a longer one");
        assert_eq!(queue.next_wake(), Some(NOW.plus_ms(60_000)));
        let edge = REST_MS_MAX - 60_000;
        assert_eq!(awake(&mut queue, back(edge)), (false, true), "as long as it may still be");
        assert_eq!(awake(&mut queue, back(edge + 1)), (true, true));
        assert_eq!((queue.next_wake(), queue.next(9, |_| 1)), (None, vec![Offset(1), Offset(2)]));
    }
}
