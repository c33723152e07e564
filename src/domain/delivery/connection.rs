//! What is outstanding on one connection in one channel, in the order of delivery.
//!
//! Deliveries that count against the window and broadcasts, which do not, stand in two queues; a broadcast remembers
//! how many deliveries were made before it, so that a cumulative acknowledgement of either covers both.
//!
//! **Invariant:** deliveries have a *position*, counted from the connection's first one and never used again. Their
//! offsets ascend but for the positions in `descents`, where a lag cursor (or a restart) began behind what had been
//! delivered before. So an acknowledgement is found by a binary search, whether it is outstanding or not.

use std::collections::VecDeque;

use super::{ConnectionId, Item};
use crate::domain::ids::{ConversationId, Offset};

/// A record on its way to a connection, counted against its window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    /// Where it stands in the channel.
    pub(super) offset: Offset,
    /// Kept even while nobody asks for owners: they are counted from here when a second connection comes.
    pub(super) conversation: ConversationId,
    /// What it gives back to the window.
    pub(super) bytes: u32,
}

/// A broadcast on its way to a connection.
#[derive(Debug, Clone, Copy)]
struct Broadcast {
    offset: Offset,
    /// The position of the first delivery made after it.
    before: u64,
}

/// How many of the oldest outstanding entries an acknowledgement covers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Covered {
    deliveries: usize,
    broadcasts: usize,
}

/// One connection, as one channel knows it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    /// How many conversations it has; counted only while there are owners.
    pub(super) conversations: u32,
    /// What its lag cursor reads next, if it has one.
    pub(super) lag: Option<Offset>,
    /// The conversations that are held for it and that its lag cursor delivers; each once.
    pub(super) held: Vec<ConversationId>,
    deliveries: VecDeque<Delivery>,
    /// The position of the oldest outstanding delivery.
    first: u64,
    /// Positions, behind `first`, of deliveries whose offset is not above the one before.
    descents: VecDeque<u64>,
    broadcasts: VecDeque<Broadcast>,
}

impl Connection {
    pub(super) fn new(id: ConnectionId) -> Self {
        Self {
            id,
            conversations: 0,
            lag: None,
            held: Vec::new(),
            deliveries: VecDeque::new(),
            first: 0,
            descents: VecDeque::new(),
            broadcasts: VecDeque::new(),
        }
    }

    /// Where the next delivery will stand.
    fn end(&self) -> u64 {
        self.first + self.deliveries.len() as u64
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
        if self.deliveries.back().is_some_and(|last| last.offset >= delivery.offset) {
            self.descents.push_back(self.end());
        }
        self.deliveries.push_back(delivery);
    }

    /// As [`push`](Self::push), for items by rising offset, each of a conversation.
    pub(super) fn push_run(&mut self, items: &[Item]) {
        let mut deliveries = items.iter().filter_map(|item| {
            let conversation = item.conversation?;
            Some(Delivery { offset: item.offset, conversation, bytes: item.bytes })
        });
        if let Some(first) = deliveries.next() {
            self.push(first);
        }
        self.deliveries.extend(deliveries);
    }

    pub(super) fn push_broadcast(&mut self, offset: Offset) {
        let before = self.end();
        self.broadcasts.push_back(Broadcast { offset, before });
    }

    /// What an acknowledgement of `offset` covers; nothing where it is not outstanding.
    pub(super) fn covered_by(&self, offset: Offset) -> Option<Covered> {
        if let Some(at) = self.find(offset) {
            let position = self.first + at as u64;
            let broadcasts = self.broadcasts.partition_point(|broadcast| broadcast.before <= position);
            return Some(Covered { deliveries: at + 1, broadcasts });
        }
        let at = self.broadcasts.iter().position(|broadcast| broadcast.offset == offset)?;
        let before = self.broadcasts.get(at)?.before;
        let deliveries = self.index_of(before);
        Some(Covered { deliveries, broadcasts: at + 1 })
    }

    /// Takes the covered deliveries away, shows each, and returns their number and bytes.
    pub(super) fn release(&mut self, covered: Covered, mut each: impl FnMut(&Delivery)) -> (u32, u64) {
        let mut count = 0;
        let mut bytes = 0;
        for delivery in self.deliveries.drain(..covered.deliveries) {
            each(&delivery);
            count += 1;
            bytes += u64::from(delivery.bytes);
        }
        self.first += u64::from(count);
        while self.descents.front().is_some_and(|position| *position <= self.first) {
            self.descents.pop_front();
        }
        (count, bytes)
    }

    /// Takes the covered broadcasts away.
    pub(super) fn release_broadcasts(&mut self, covered: Covered) -> impl Iterator<Item = Offset> + '_ {
        self.broadcasts.drain(..covered.broadcasts).map(|broadcast| broadcast.offset)
    }

    /// Keeps the broadcasts that stand in `unacknowledged` (ascending) and no others.
    pub(super) fn forget_broadcasts_but(&mut self, unacknowledged: &VecDeque<Offset>) {
        self.broadcasts.retain(|broadcast| unacknowledged.binary_search(&broadcast.offset).is_ok());
    }

    /// The lowest offset among the outstanding deliveries: each ascending run begins with its lowest.
    pub(super) fn first_unacknowledged(&self) -> Option<Offset> {
        let starts = std::iter::once(0).chain(self.descents.iter().map(|position| self.index_of(*position)));
        starts.filter_map(|at| self.deliveries.get(at)).map(|delivery| delivery.offset).min()
    }

    /// The outstanding deliveries, oldest first.
    pub(super) fn deliveries(&self) -> impl Iterator<Item = &Delivery> {
        self.deliveries.iter()
    }

    /// The number and the bytes of the outstanding deliveries.
    pub(super) fn outstanding(&self) -> (u32, u64) {
        let bytes = self.deliveries.iter().map(|delivery| u64::from(delivery.bytes)).sum();
        (self.outstanding_deliveries(), bytes)
    }

    pub(super) fn outstanding_deliveries(&self) -> u32 {
        u32::try_from(self.deliveries.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn outstanding_broadcasts(&self) -> usize {
        self.broadcasts.len()
    }

    /// Where in `deliveries` a position stands; a released one stands at the front.
    fn index_of(&self, position: u64) -> usize {
        usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.deliveries.len())
    }

    /// The oldest outstanding delivery of `offset`: a binary search in each ascending run, oldest run first.
    fn find(&self, offset: Offset) -> Option<usize> {
        let mut start = 0;
        let ends = self.descents.iter().map(|position| self.index_of(*position));
        for end in ends.chain(std::iter::once(self.deliveries.len())) {
            let at = self.first_not_below(offset, start, end);
            if at < end && self.deliveries.get(at).is_some_and(|delivery| delivery.offset == offset) {
                return Some(at);
            }
            start = end;
        }
        None
    }

    /// The first index in the ascending `start..end` whose offset is not below `offset`; `end` if there is none.
    fn first_not_below(&self, offset: Offset, mut start: usize, mut end: usize) -> usize {
        while start < end {
            let middle = start + (end - start) / 2;
            if self.deliveries.get(middle).is_some_and(|delivery| delivery.offset < offset) {
                start = middle + 1;
            } else {
                end = middle;
            }
        }
        start
    }
}
