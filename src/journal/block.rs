//! A block: one stream's batch, laid out by the stream's actor, appended whole or not at all.
//!
//! ```text
//!  byte  0                16             24          28        32       36            40
//!        ┌────────────────┬──────────────┬───────────┬─────────┬────────┬─────────────┬──────────────────┬ ─ ─ ─ ─ ┐
//!        │ stream         │ first offset │ bytes of  │ number  │ zero   │ CRC32C of   │ records …        │ zeros
//!        │ u128           │ u64          │ its       │ of them │ u32    │ bytes 0–35  │ (see `record`)   │ up to 8 │
//!        │                │              │ records   │ u32     │        │             │                  │
//!        └────────────────┴──────────────┴───────────┴─────────┴────────┴─────────────┴──────────────────┴ ─ ─ ─ ─ ┘
//!  the offsets of its records follow one another without a hole; a block begins on an 8-byte boundary
//! ```
//!
//! Buffers come back: a block that was written gives its own to the builder that made it.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use super::StreamId;
use super::record::{PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader, u32_at, u64_at};
use crate::domain::ids::{ConversationId, Offset, Timestamp};

/// Size of a block's header, in bytes.
pub const BLOCK_HEADER_BYTES: usize = 40;
/// What a block may hold, in bytes, unless one record, or one decision, is larger: small enough that one channel holds
/// up the others' commit for microseconds, and that reading one record reads little else.
pub const BLOCK_BYTES_MAX: usize = 64 << 10;
/// What no block reaches, in bytes: a decision of 256 records of ordinary size and one of the largest.
pub const BLOCK_BYTES_LIMIT: usize = 4 << 20;
/// Blocks, and what is in them, begin on multiples of this, in bytes.
pub(super) const ALIGNMENT: usize = 8;

/// Buffers that one builder keeps for use again; more are let go.
const SPARE_BUFFERS_MAX: usize = 32;
/// Largest buffer that is kept, in bytes; one that a single large record has grown is let go.
const SPARE_BUFFER_BYTES_MAX: usize = 2 * BLOCK_BYTES_MAX;

/// A batch of one stream, ready to be appended.
pub struct Block {
    stream: StreamId,
    first: Offset,
    at: Timestamp,
    records: u32,
    bytes: Vec<u8>,
    home: Arc<Spares>,
}

impl Block {
    /// Whose records they are.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// The offset of the first.
    #[must_use]
    pub fn first(&self) -> Offset {
        self.first
    }

    /// The offset of the last.
    #[must_use]
    pub fn last(&self) -> Offset {
        Offset(self.first.0 + u64::from(self.records) - 1)
    }

    /// When its first record was decided; the others follow within moments.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// How many records it has; never none.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.records
    }

    /// As it is written, header and all, without the padding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("stream", &self.stream)
            .field("first", &self.first)
            .field("records", &self.records)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.home.give_back(mem::take(&mut self.bytes));
    }
}

/// What a record is about, beside its payload.
#[derive(Debug, Clone, Copy)]
pub struct RecordMeta {
    /// The conversation it belongs to.
    pub conversation: Option<ConversationId>,
    /// The conversation's record before it; zero if there is none.
    pub previous: Offset,
    /// When it was decided.
    pub at: Timestamp,
    /// How to read the payload.
    pub kind: u16,
}

/// Why a record can not be laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The payload is larger than any record may be.
    #[error("payload of {0} bytes; a record holds at most {PAYLOAD_BYTES_MAX}")]
    PayloadTooLarge(usize),
    /// The block has no room for it; take the block first.
    #[error("the block has no room for another {0} bytes")]
    Full(usize),
}

/// Lays out the blocks of one stream.
///
/// The records of one decision must lie in one block: ask [`has_room`](Self::has_room) before the first of them, and
/// [`take`](Self::take) the block where there is none.
#[derive(Debug)]
pub struct BlockBuilder {
    stream: StreamId,
    first: Offset,
    at: Timestamp,
    records: u32,
    bytes: Vec<u8>,
    spares: Arc<Spares>,
}

impl BlockBuilder {
    /// A builder for `stream`.
    #[must_use]
    pub fn new(stream: StreamId) -> Self {
        Self {
            stream,
            first: Offset::ZERO,
            at: Timestamp::default(),
            records: 0,
            bytes: Vec::new(),
            spares: Arc::default(),
        }
    }

    /// Whether another `records` with `payload_bytes` in all belong into this block. An empty one has room for any.
    #[must_use]
    pub fn has_room(&self, records: usize, payload_bytes: usize) -> bool {
        self.records == 0
            || self.bytes.len() + records * RECORD_HEADER_BYTES + payload_bytes <= BLOCK_BYTES_MAX
    }

    /// Whether nothing was laid out since the last block was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// How many records are laid out.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Bytes laid out, header included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Lays out the next record at `offset`, which must follow the one before. `payload` appends the payload's bytes
    /// and must not touch what is there.
    ///
    /// # Errors
    /// When the payload, or the block with it, is larger than its limit; then nothing was laid out.
    ///
    /// # Panics
    /// When `offset` leaves a hole: that would be a defect of the caller, and a hole in a block could never be read.
    pub fn push(
        &mut self,
        offset: Offset,
        meta: RecordMeta,
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), BlockError> {
        if self.records == 0 {
            self.begin(offset, meta.at);
        }
        assert_eq!(offset.0, self.first.0 + u64::from(self.records), "records of a block follow one another");
        let header_at = self.bytes.len();
        self.bytes.resize(header_at + RECORD_HEADER_BYTES, 0);
        let payload_at = self.bytes.len();
        payload(&mut self.bytes);
        let written = self.bytes.get(payload_at..).unwrap_or_default();
        let payload_bytes = match u32::try_from(written.len()) {
            Ok(bytes) if written.len() <= PAYLOAD_BYTES_MAX => bytes,
            _ => {
                let too_large = written.len();
                self.bytes.truncate(header_at);
                return Err(BlockError::PayloadTooLarge(too_large));
            }
        };
        if self.bytes.len() > BLOCK_BYTES_LIMIT {
            let wanted = self.bytes.len() - header_at;
            self.bytes.truncate(header_at);
            return Err(BlockError::Full(wanted));
        }
        let header = RecordHeader {
            offset,
            conversation: meta.conversation,
            previous: meta.previous,
            at: meta.at,
            kind: meta.kind,
            payload_bytes,
            payload_crc: crc32c::crc32c(written),
        };
        if let Some(place) = self.bytes.get_mut(header_at..payload_at) {
            place.copy_from_slice(&header.to_bytes());
        }
        self.records += 1;
        Ok(())
    }

    /// Ends the block; none if it is empty.
    pub fn take(&mut self) -> Option<Block> {
        if self.records == 0 {
            return None;
        }
        let header = BlockHeader {
            stream: self.stream,
            first: self.first,
            records: self.records,
            // Bounded by BLOCK_BYTES_LIMIT.
            record_bytes: u32::try_from(self.bytes.len() - BLOCK_HEADER_BYTES).unwrap_or(u32::MAX),
        };
        if let Some(place) = self.bytes.first_chunk_mut::<BLOCK_HEADER_BYTES>() {
            *place = header.to_bytes();
        }
        let bytes = mem::take(&mut self.bytes);
        let records = mem::take(&mut self.records);
        let (stream, first, at) = (self.stream, self.first, self.at);
        Some(Block { stream, first, at, records, bytes, home: Arc::clone(&self.spares) })
    }

    fn begin(&mut self, first: Offset, at: Timestamp) {
        self.first = first;
        self.at = at;
        if self.bytes.capacity() == 0 {
            self.bytes = self.spares.take();
        }
        self.bytes.clear();
        self.bytes.resize(BLOCK_HEADER_BYTES, 0);
    }
}

/// The fields of a block's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) stream: StreamId,
    pub(super) first: Offset,
    pub(super) records: u32,
    pub(super) record_bytes: u32,
}

impl BlockHeader {
    pub(super) fn to_bytes(self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[0..16].copy_from_slice(&self.stream.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.record_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.records.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..40].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; none if its checksum does not match, the bytes end, or no block can have such fields.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BLOCK_HEADER_BYTES] = bytes.first_chunk()?;
        if crc32c::crc32c(&bytes[..36]) != u32_at(bytes, 36) {
            return None;
        }
        let stream = bytes.first_chunk().map(|raw| StreamId(u128::from_le_bytes(*raw)))?;
        let header = Self {
            stream,
            first: Offset(u64_at(bytes, 16)),
            record_bytes: u32_at(bytes, 24),
            records: u32_at(bytes, 28),
        };
        (header.records > 0 && header.bytes() <= BLOCK_BYTES_LIMIT).then_some(header)
    }

    /// Size of the block in bytes, header included, padding not.
    pub(super) fn bytes(self) -> usize {
        BLOCK_HEADER_BYTES + self.record_bytes as usize
    }
}

/// `bytes` and the padding up to the next boundary.
pub(super) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

/// Buffers waiting for use again.
#[derive(Debug, Default)]
struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, buffer: Vec<u8>) {
        if buffer.capacity() == 0 || buffer.capacity() > SPARE_BUFFER_BYTES_MAX {
            return;
        }
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < SPARE_BUFFERS_MAX {
            spares.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: RecordMeta =
        RecordMeta { conversation: None, previous: Offset::ZERO, at: Timestamp(5), kind: 1 };

    #[test]
    fn a_block_has_its_header_and_its_records() {
        let mut builder = BlockBuilder::new(StreamId(7));
        assert!(builder.take().is_none());
        for offset in 4..7 {
            builder.push(Offset(offset), META, |out| out.extend_from_slice(b"hello")).unwrap();
        }
        let block = builder.take().unwrap();
        assert_eq!((block.first(), block.last(), block.records()), (Offset(4), Offset(6), 3));
        let header = BlockHeader::read(block.as_bytes()).unwrap();
        assert_eq!(header.bytes(), block.as_bytes().len());
        assert_eq!((header.stream, header.first, header.records), (StreamId(7), Offset(4), 3));
        let record = RecordHeader::read(&block.as_bytes()[BLOCK_HEADER_BYTES..]).unwrap();
        assert_eq!((record.offset, record.payload_bytes), (Offset(4), 5));
        assert!(builder.is_empty());
    }

    #[test]
    fn a_record_that_is_too_large_leaves_no_trace() {
        let mut builder = BlockBuilder::new(StreamId(7));
        builder.push(Offset(1), META, |out| out.push(1)).unwrap();
        let before = builder.bytes();
        let refused = builder.push(Offset(2), META, |out| out.resize(out.len() + PAYLOAD_BYTES_MAX + 1, 0));
        assert_eq!(refused, Err(BlockError::PayloadTooLarge(PAYLOAD_BYTES_MAX + 1)));
        assert_eq!(builder.bytes(), before);
        builder.push(Offset(2), META, |out| out.push(2)).unwrap();
        assert_eq!(builder.take().unwrap().records(), 2);
    }

    #[test]
    fn a_full_block_says_so_and_an_empty_one_takes_any_record() {
        let mut builder = BlockBuilder::new(StreamId(7));
        assert!(builder.has_room(1, PAYLOAD_BYTES_MAX));
        builder.push(Offset(1), META, |out| out.resize(out.len() + 60_000, 0)).unwrap();
        assert!(builder.has_room(1, 5_000));
        assert!(!builder.has_room(1, 6_000));
    }

    #[test]
    fn a_written_block_gives_its_buffer_back() {
        let mut builder = BlockBuilder::new(StreamId(7));
        builder.push(Offset(1), META, |out| out.push(1)).unwrap();
        let block = builder.take().unwrap();
        let place = block.as_bytes().as_ptr();
        drop(block);
        builder.push(Offset(2), META, |out| out.push(1)).unwrap();
        assert_eq!(builder.take().unwrap().as_bytes().as_ptr(), place);
    }

    #[test]
    fn no_flipped_bit_of_a_header_is_overlooked() {
        let mut builder = BlockBuilder::new(StreamId(7));
        builder.push(Offset(1), META, |out| out.push(1)).unwrap();
        let block = builder.take().unwrap();
        for bit in 0..(BLOCK_HEADER_BYTES + RECORD_HEADER_BYTES) * 8 {
            let mut bytes = block.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if bit < BLOCK_HEADER_BYTES * 8 {
                assert_eq!(BlockHeader::read(&bytes), None, "bit {bit}");
            } else {
                assert_eq!(RecordHeader::read(&bytes[BLOCK_HEADER_BYTES..]), None, "bit {bit}");
            }
        }
    }
}
