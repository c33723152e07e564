//! Which blocks a stream has, and where they lie: in memory, built by recovery, extended by the writer once a commit.
//!
//! **Invariant:** only what is done stands in here, so a reader that asks the index never sees what might still be lost.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::base::StreamEnd;
use super::block::BlockHeader;
use super::segment::LEAP;
use super::{Head, StreamId};
use crate::domain::ids::Offset;

/// Where a block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockRef {
    pub(super) first: Offset,
    pub(super) segment: u32,
    pub(super) position: u32,
    /// Its size, header included, padding not.
    pub(super) bytes: u32,
    pub(super) records: u32,
}

impl BlockRef {
    /// A block that was found at `position` of a segment; none where its place is past what can be.
    pub(super) fn found(header: &BlockHeader, segment: u64, position: u64) -> Option<Self> {
        Some(Self {
            first: header.first,
            segment: u32::try_from(segment).ok()?,
            position: u32::try_from(position).ok()?,
            bytes: u32::try_from(header.bytes()).ok()?,
            records: header.records,
        })
    }

    pub(super) fn last(&self) -> Offset {
        Offset(self.first.0 + u64::from(self.records) - 1)
    }
}

/// One stream's blocks.
#[derive(Debug, Default)]
pub(super) struct StreamIndex {
    blocks: Vec<BlockRef>,
    /// The end of what is done.
    head: Offset,
    /// The end of what is appended, done or not: what the writer fences by.
    pub(super) appended: Offset,
    /// The first offset that was not trimmed.
    first: Offset,
    /// How many leaps the store had made when the last block was written.
    leaps: u32,
    deleted: bool,
    /// Deleted, or about to be: takes no more blocks.
    ended: bool,
}

/// What a reader needs to go to the disk.
#[derive(Debug, Default)]
pub(super) struct Located {
    pub(super) blocks: Vec<BlockRef>,
    pub(super) first: Offset,
}

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Index(RwLock<HashMap<StreamId, StreamIndex>>);

impl Index {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<StreamId, StreamIndex>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, HashMap<StreamId, StreamIndex>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blocks of `stream` from the one with `from` on, of about `max_bytes` in all, one at least if there is one.
    pub(super) fn locate(&self, stream: StreamId, from: Offset, max_bytes: usize) -> Located {
        let streams = self.read();
        let Some(stream) = streams.get(&stream) else {
            return Located { blocks: Vec::new(), first: Offset(1) };
        };
        let first = stream.first.max(Offset(1));
        let begin = stream.blocks.partition_point(|block| block.last() < from.max(first));
        let mut bytes = 0_usize;
        let wanted = stream.blocks.iter().skip(begin).take_while(|block| {
            let more = bytes == 0 || bytes < max_bytes;
            bytes += block.bytes as usize;
            more
        });
        Located { blocks: wanted.copied().collect(), first }
    }

    /// The end of a stream.
    pub(super) fn head(&self, stream: StreamId) -> Head {
        self.read().get(&stream).map_or(Head::default(), StreamIndex::as_head)
    }

    /// All streams but the engine's own and those that were deleted.
    pub(super) fn streams(&self) -> Vec<(StreamId, Head)> {
        let streams = self.read();
        let alive = streams.iter().filter(|(id, stream)| **id != StreamId::CONTROL && !stream.deleted);
        let mut alive: Vec<_> = alive.map(|(id, stream)| (*id, stream.as_head())).collect();
        alive.sort_unstable_by_key(|(id, _)| *id);
        alive
    }

    /// The first offset of a stream that is still there.
    pub(super) fn first(&self, stream: StreamId) -> Offset {
        self.read().get(&stream).map_or(Offset(1), |stream| stream.first.max(Offset(1)))
    }

    /// What a base must know of each stream.
    pub(super) fn ends(&self) -> Vec<(StreamId, StreamEnd)> {
        self.read().iter().map(|(id, stream)| (*id, stream.end())).collect()
    }

    /// Lets every stream leap past what may have been handed out before the last unclean stops.
    pub(super) fn leap(&self, leaps: u32) {
        for stream in self.write().values_mut() {
            let missed = leaps.saturating_sub(stream.leaps);
            stream.head.0 += u64::from(missed) * LEAP;
            stream.appended = stream.head;
            stream.leaps = leaps;
        }
    }
}

impl StreamIndex {
    fn as_head(&self) -> Head {
        Head { offset: self.head, token: 0 }
    }

    /// Whether a block that begins at `first` may follow.
    pub(super) fn may_follow(&self, expected: Head, first: Offset) -> bool {
        !self.ended && expected == Head { offset: self.appended, token: 0 } && first > self.appended
    }

    /// Takes a block that is done.
    pub(super) fn done(&mut self, block: BlockRef, leaps: u32) {
        self.head = block.last();
        self.appended = self.appended.max(self.head);
        self.leaps = leaps;
        self.blocks.push(block);
    }

    /// Whether a block read back by recovery can stand behind those before it.
    pub(super) fn can_stand(&self, first: Offset) -> bool {
        first > self.head && !self.ended
    }

    /// Takes no more blocks.
    pub(super) fn refuse_appends(&mut self) {
        self.ended = true;
    }

    pub(super) fn trim(&mut self, before: Offset) {
        self.first = self.first.max(before);
        let gone = self.blocks.partition_point(|block| block.last() < self.first);
        self.blocks.drain(..gone);
    }

    /// Forgets the blocks that lie in segments up to `through`.
    pub(super) fn drop_segments(&mut self, through: u64) {
        let gone = self.blocks.iter().take_while(|block| u64::from(block.segment) <= through).count();
        if let Some(last) = gone.checked_sub(1).and_then(|last| self.blocks.get(last)) {
            self.first = self.first.max(last.last().next());
            self.blocks.drain(..gone);
            if self.blocks.len() < self.blocks.capacity() / 4 {
                self.blocks.shrink_to(2 * self.blocks.len());
            }
        }
    }

    /// Takes over what a base knows of the stream: its end, where no block tells more, and what was given up.
    pub(super) fn known_before(&mut self, end: &StreamEnd) {
        if end.head > self.head {
            self.head = end.head;
            self.leaps = end.leaps;
        }
        self.appended = self.appended.max(self.head);
        self.first = self.first.max(end.first);
        if let Some(first) = self.blocks.first() {
            self.first = self.first.max(first.first);
        } else {
            self.first = self.first.max(self.head.next());
        }
        if end.deleted {
            self.delete();
        }
    }

    /// What a base must know of the stream.
    pub(super) fn end(&self) -> StreamEnd {
        StreamEnd { head: self.head, first: self.first, leaps: self.leaps, deleted: self.deleted }
    }

    pub(super) fn delete(&mut self) {
        self.blocks = Vec::new();
        self.first = self.appended.next();
        self.deleted = true;
        self.ended = true;
    }
}
