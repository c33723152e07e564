//! A record on disk: a header with its own checksum, then the payload with its. Laid out by [`super::block`], read
//! back by every read; a record whose checksums do not match is never served.
//!
//! ```text
//!  byte  0         4      6      8          16              24           32      40            44           48
//!        ┌─────────┬──────┬──────┬──────────┬───────────────┬────────────┬───────┬─────────────┬────────────┬─────────┐
//!        │ payload │ kind │flags │ offset   │ conversation  │ previous   │ time  │ CRC32C of   │ CRC32C of  │ payload │
//!        │ length  │ u16  │ u16  │ u64      │ u64           │ offset u64 │ ms u64│ the payload │ bytes 0–43 │ …       │
//!        └─────────┴──────┴──────┴──────────┴───────────────┴────────────┴───────┴─────────────┴────────────┴─────────┘
//!  flags bit 0: it belongs to a conversation · integers are little-endian · `previous` is 0 where there is none
//! ```

use bytes::Bytes;

use crate::domain::ids::{ConversationId, Offset, Timestamp};

/// Size of a record's header, in bytes.
pub const RECORD_HEADER_BYTES: usize = 48;
/// Largest payload, in bytes: the largest content and 16 KiB for what stands beside it (design: a record fits 1 MiB).
pub const PAYLOAD_BYTES_MAX: usize = (1 << 20) - RECORD_HEADER_BYTES;

const HAS_CONVERSATION: u16 = 1;

/// A record as it was appended, its payload not looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Where it stands.
    pub offset: Offset,
    /// The conversation it belongs to.
    pub conversation: Option<ConversationId>,
    /// The conversation's record before it; zero if there is none.
    pub previous: Offset,
    /// When it was decided.
    pub at: Timestamp,
    /// How to read the payload.
    pub kind: u16,
    /// The payload, a slice of the buffer that was read.
    pub payload: Bytes,
}

impl RawRecord {
    pub(super) fn new(header: RecordHeader, payload: Bytes) -> Self {
        Self {
            offset: header.offset,
            conversation: header.conversation,
            previous: header.previous,
            at: header.at,
            kind: header.kind,
            payload,
        }
    }
}

/// What stands at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A record whose checksums match.
    Record(RawRecord),
    /// Records that were appended and can not be read any more.
    Corrupt(Damage),
}

impl Entry {
    /// The first offset that it covers.
    #[must_use]
    pub fn offset(&self) -> Offset {
        match self {
            Self::Record(record) => record.offset,
            Self::Corrupt(damage) => damage.from,
        }
    }

    /// The last offset that it covers.
    #[must_use]
    pub fn last(&self) -> Offset {
        match self {
            Self::Record(record) => record.offset,
            Self::Corrupt(damage) => damage.to,
        }
    }
}

/// Records of one stream that can not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The first of them.
    pub from: Offset,
    /// The last of them.
    pub to: Offset,
    /// The file.
    pub place: String,
    /// Where in it the bad record begins.
    pub position: u64,
    /// The conversation and its record before this one, where the header still tells.
    pub chain: Option<(ConversationId, Offset)>,
}

/// The fields of a record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) offset: Offset,
    pub(super) conversation: Option<ConversationId>,
    pub(super) previous: Offset,
    pub(super) at: Timestamp,
    pub(super) kind: u16,
    pub(super) payload_bytes: u32,
    pub(super) payload_crc: u32,
}

impl RecordHeader {
    pub(super) fn to_bytes(self) -> [u8; RECORD_HEADER_BYTES] {
        let flags = if self.conversation.is_some() { HAS_CONVERSATION } else { 0 };
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.kind.to_le_bytes());
        bytes[6..8].copy_from_slice(&flags.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.conversation.map_or(0, |id| id.0).to_le_bytes());
        bytes[24..32].copy_from_slice(&self.previous.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.at.0.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..44]);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; none if its checksum does not match or the bytes end.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk()?;
        if crc32c::crc32c(&bytes[..44]) != u32_at(bytes, 44) {
            return None;
        }
        let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
        Some(Self {
            offset: Offset(u64_at(bytes, 8)),
            conversation: (flags & HAS_CONVERSATION != 0).then(|| ConversationId(u64_at(bytes, 16))),
            previous: Offset(u64_at(bytes, 24)),
            at: Timestamp(u64_at(bytes, 32)),
            kind: u16::from_le_bytes([bytes[4], bytes[5]]),
            payload_bytes: u32_at(bytes, 0),
            payload_crc: u32_at(bytes, 40),
        })
    }
}

/// The two bytes at `at`, as [`u32_at`] reads them.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |raw| u16::from_le_bytes(*raw))
}

/// The four bytes at `at`; zero past the end. Callers have checked the length, or a checksum.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |raw| u32::from_le_bytes(*raw))
}

/// The sixteen bytes at `at`, as [`u64_at`] reads them.
pub(super) fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from(u64_at(bytes, at + 8)) << 64 | u128::from(u64_at(bytes, at))
}

/// The eight bytes at `at`; zero past the end. Callers have checked the length, or a checksum.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |raw| u64::from_le_bytes(*raw))
}
