//! Durable records on their way to subscribers: a batch is shared by all who get some of it, and encoded once.
//!
//! Made by a channel's actor, of one durable block or of what a reader found in the journal; sliced for each
//! connection; turned into bytes by the session's writer, which keeps in the batch what is equal for everybody.
//!
//! **Invariant:** a batch covers every offset from [`Batch::from`] to [`Batch::through`]: an offset without an entry
//! was never given out.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::domain::content::Carried;
use crate::domain::event::{Event, Record};
use crate::domain::ids::{ChannelId, ConversationId, Offset, Timestamp};

/// How many encodings a batch can keep frames for.
pub const ENCODINGS: usize = 2;
/// What a delivery counts in a window beside its content, in bytes: its other fields, about.
const DELIVERY_BYTES: usize = 160;

/// Why a service gets no record of some offsets (P2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// Retention has dropped them.
    Retention,
    /// Their bytes are damaged.
    Corrupt,
}

impl GapReason {
    /// As the contract spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Corrupt => "corrupt",
        }
    }
}

/// One place of a batch.
#[derive(Debug)]
pub enum BatchEntry {
    /// A record.
    Record(Record),
    /// Offsets that are lost.
    Gap {
        /// The first.
        from: Offset,
        /// The last.
        to: Offset,
        /// When that was found, by the broker's clock.
        at: Timestamp,
        /// Why.
        reason: GapReason,
    },
}

impl BatchEntry {
    /// Where it stands; a gap at its end.
    #[must_use]
    pub fn offset(&self) -> Offset {
        match self {
            Self::Record(record) => record.offset,
            Self::Gap { to, .. } => *to,
        }
    }

    /// The conversation whose order it belongs to; none makes it a broadcast.
    #[must_use]
    pub fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::Record(record) => record.conversation,
            Self::Gap { .. } => None,
        }
    }

    /// What it counts in a window, in bytes.
    #[must_use]
    pub fn weight(&self) -> u32 {
        let content = match self {
            Self::Record(record) => match &record.event {
                Event::Message(message) => {
                    message.content.len() + Carried::size_of(message.contact.as_deref())
                }
                Event::Reply(reply) => reply.content.len(),
                Event::Notice(notice) => notice.content.len(),
                Event::Receipt(receipt) => Carried::size_of(receipt.carried.as_ref()),
                _ => 0,
            },
            Self::Gap { .. } => 0,
        };
        u32::try_from(content + DELIVERY_BYTES).unwrap_or(u32::MAX)
    }
}

/// Frames of those entries of a batch that look the same to everybody, one behind the other.
#[derive(Debug)]
pub struct Frames {
    /// The frames.
    pub bytes: Bytes,
    /// Where the frame of each entry ends; where the one before ends if it has none.
    pub ends: Vec<u32>,
}

/// Consecutive durable records of one channel.
#[derive(Debug)]
pub struct Batch {
    channel: ChannelId,
    from: Offset,
    through: Offset,
    entries: Vec<BatchEntry>,
    weight: usize,
    frames: [OnceLock<Frames>; ENCODINGS],
}

impl Batch {
    /// A batch of `channel` that covers `from` to `through`; entries by rising offset.
    #[must_use]
    pub fn new(channel: ChannelId, from: Offset, through: Offset, entries: Vec<BatchEntry>) -> Self {
        let weight = entries.iter().map(|entry| entry.weight() as usize).sum();
        Self { channel, from, through, entries, weight, frames: [const { OnceLock::new() }; ENCODINGS] }
    }

    /// What its entries count in a window, in bytes: about as much as their frames take.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Whose records they are.
    #[must_use]
    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    /// The first offset that it covers.
    #[must_use]
    pub fn from(&self) -> Offset {
        self.from
    }

    /// The last offset that it covers.
    #[must_use]
    pub fn through(&self) -> Offset {
        self.through
    }

    /// Its entries, by rising offset.
    #[must_use]
    pub fn entries(&self) -> &[BatchEntry] {
        &self.entries
    }

    /// The frames that are equal for everybody, in one of the [`ENCODINGS`]; made by `encode` when first asked for.
    pub fn frames(&self, encoding: usize, encode: impl FnOnce(&Self) -> Frames) -> Option<&Frames> {
        self.frames.get(encoding).map(|frames| frames.get_or_init(|| encode(self)))
    }

    /// The index of the first entry at or behind `offset`.
    pub(super) fn index_of(&self, offset: Offset) -> usize {
        self.entries.partition_point(|entry| entry.offset() < offset)
    }

    /// The record at `offset`.
    pub(super) fn record(&self, offset: Offset) -> Option<&Record> {
        match self.entries.get(self.index_of(offset))? {
            BatchEntry::Record(record) if record.offset == offset => Some(record),
            _ => None,
        }
    }
}

/// Consecutive entries of a batch for one connection.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The batch.
    pub batch: Arc<Batch>,
    /// The first entry.
    pub first: usize,
    /// Behind the last entry.
    pub end: usize,
}

impl Slice {
    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &[BatchEntry] {
        self.batch.entries().get(self.first..self.end).unwrap_or_default()
    }

    /// What it counts in a window: deliveries and bytes.
    #[must_use]
    pub fn weight(&self) -> (u32, u64) {
        let deliveries = u32::try_from(self.end.saturating_sub(self.first)).unwrap_or(u32::MAX);
        (deliveries, self.entries().iter().map(|entry| u64::from(entry.weight())).sum())
    }
}

/// A channel's newest batches, from which those who keep up are served without a read.
#[derive(Debug)]
pub(super) struct Recent {
    batches: VecDeque<Arc<Batch>>,
    /// The first offset that it can serve.
    from: Offset,
    weight: usize,
    weight_max: usize,
}

impl Recent {
    /// Empty; the next batch covers `from` on.
    pub(super) fn new(from: Offset, weight_max: usize) -> Self {
        Self { batches: VecDeque::new(), from, weight: 0, weight_max }
    }

    pub(super) fn push(&mut self, batch: Arc<Batch>) {
        self.weight += batch.weight;
        self.batches.push_back(batch);
        while self.weight > self.weight_max && self.batches.len() > 1 {
            if let Some(old) = self.batches.pop_front() {
                self.weight -= old.weight;
                self.from = old.through.next();
            }
        }
    }

    /// What lies before `first` is history that is gone.
    pub(super) fn trim(&mut self, first: Offset) {
        while self.batches.front().is_some_and(|batch| batch.through < first) {
            if let Some(old) = self.batches.pop_front() {
                self.weight -= old.weight;
                self.from = old.through.next();
            }
        }
    }

    /// The first offset that can be served.
    pub(super) fn from(&self) -> Offset {
        self.from
    }

    /// The batch that covers `offset`.
    pub(super) fn covering(&self, offset: Offset) -> Option<&Arc<Batch>> {
        let at = self.batches.partition_point(|batch| batch.through < offset);
        self.batches.get(at).filter(|batch| batch.from <= offset)
    }

    /// The record at `offset`.
    pub(super) fn record(&self, offset: Offset) -> Option<&Record> {
        self.covering(offset)?.record(offset)
    }
}
