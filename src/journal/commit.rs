//! A commit: a list of blocks behind a header, written at once and synced at once.
//!
//! ```text
//!  byte  0       8         16        20        24        28      32          40          48        56       60      64
//!        ┌───────┬─────────┬─────────┬─────────┬─────────┬───────┬───────────┬───────────┬─────────┬────────┬───────┬────────┐
//!        │ magic │ commit  │ bytes   │ number  │ of      │ flags │ synced    │ the byte  │ its own │ CRC of │ CRC of│ blocks │
//!        │       │ number  │ of its  │ of its  │ records │ u32   │ through:  │ there u64 │ byte    │ the    │ bytes │ …      │
//!        │       │ u64     │ blocks  │ blocks  │ u32     │       │ segment   │           │ u64     │ blocks │ 0–59  │        │
//!        └───────┴─────────┴─────────┴─────────┴─────────┴───────┴───────────┴───────────┴─────────┴────────┴───────┴────────┘
//!  flags bit 0: written at a clean stop · both CRCs are CRC32C seeded with the store's id and the segment's number
//! ```
//!
//! The magic has bytes 0xFF, which no UTF-8 holds, and begins on an 8-byte boundary; the seed is random. A commit without
//! blocks says only what `synced through` says: all before that place was synced when this header was written.

use super::block::{Block, padded};
use super::record::{u32_at, u64_at};
use super::segment::Position;

/// Size of a commit's header, in bytes.
pub(super) const COMMIT_HEADER_BYTES: usize = 64;
/// What every commit's header begins with.
pub(super) const COMMIT_MAGIC: [u8; 8] = *b"\xffSLCMT\xff\x01";

const CLOSING: u32 = 1;

/// The fields of a commit's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommitHeader {
    pub(super) number: u64,
    pub(super) body_bytes: u32,
    pub(super) blocks: u32,
    pub(super) records: u32,
    pub(super) closing: bool,
    pub(super) synced_through: Position,
    pub(super) position: u64,
    pub(super) body_crc: u32,
}

impl CommitHeader {
    fn to_bytes(self, seed: u32) -> [u8; COMMIT_HEADER_BYTES] {
        let flags = if self.closing { CLOSING } else { 0 };
        let mut bytes = [0; COMMIT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&COMMIT_MAGIC);
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.records.to_le_bytes());
        bytes[28..32].copy_from_slice(&flags.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.synced_through.segment.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.synced_through.byte.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.position.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header at `position`; none if there is none whose checksum matches.
    pub(super) fn read(bytes: &[u8], position: u64, seed: u32) -> Option<Self> {
        let bytes: &[u8; COMMIT_HEADER_BYTES] = bytes.first_chunk()?;
        if bytes[..8] != COMMIT_MAGIC
            || crc32c::crc32c_append(seed, &bytes[..60]) != u32_at(bytes, 60)
            || u64_at(bytes, 48) != position
        {
            return None;
        }
        Some(Self {
            number: u64_at(bytes, 8),
            body_bytes: u32_at(bytes, 16),
            blocks: u32_at(bytes, 20),
            records: u32_at(bytes, 24),
            closing: u32_at(bytes, 28) & CLOSING != 0,
            synced_through: Position { segment: u64_at(bytes, 32), byte: u64_at(bytes, 40) },
            position,
            body_crc: u32_at(bytes, 56),
        })
    }

    /// Where the next commit begins.
    pub(super) fn end(&self) -> u64 {
        self.position + COMMIT_HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }

    /// Whether `body` is what this header was written with.
    pub(super) fn covers(&self, body: &[u8], seed: u32) -> bool {
        crc32c::crc32c_append(seed, body) == self.body_crc
    }
}

/// Lays a commit out in one buffer, which is written as it is.
#[derive(Debug, Default)]
pub(super) struct CommitBuilder {
    bytes: Vec<u8>,
    blocks: u32,
    records: u32,
}

impl CommitBuilder {
    /// Begins a new commit.
    pub(super) fn begin(&mut self) {
        self.bytes.clear();
        self.bytes.resize(COMMIT_HEADER_BYTES, 0);
        self.blocks = 0;
        self.records = 0;
    }

    /// Adds a block; returns where in the commit it begins.
    pub(super) fn add(&mut self, block: &Block) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(block.as_bytes());
        self.bytes.resize(padded(self.bytes.len()), 0);
        self.blocks += 1;
        self.records += block.records();
        at
    }

    /// Adds the blocks of a commit that was read back, just as they are.
    pub(super) fn add_body(&mut self, body: &[u8], of: &CommitHeader) {
        self.bytes.extend_from_slice(body);
        self.blocks += of.blocks;
        self.records += of.records;
    }

    /// Whether it has any block.
    pub(super) fn has_blocks(&self) -> bool {
        self.blocks > 0
    }

    /// Size in bytes, header included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the header; returns the commit as it goes to disk.
    pub(super) fn finish(
        &mut self,
        number: u64,
        position: u64,
        synced_through: Position,
        closing: bool,
        seed: u32,
    ) -> &[u8] {
        let body = self.bytes.get(COMMIT_HEADER_BYTES..).unwrap_or_default();
        let header = CommitHeader {
            number,
            // A commit is bounded far below this by the writer.
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            blocks: self.blocks,
            records: self.records,
            closing,
            synced_through,
            position,
            body_crc: crc32c::crc32c_append(seed, body),
        };
        if let Some(place) = self.bytes.first_chunk_mut::<COMMIT_HEADER_BYTES>() {
            *place = header.to_bytes(seed);
        }
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_reads_back_only_with_its_seed_and_in_its_place() {
        let mut builder = CommitBuilder::default();
        builder.begin();
        let through = Position { segment: 3, byte: 8192 };
        let bytes = builder.finish(9, 8256, through, true, 77).to_vec();
        let header = CommitHeader::read(&bytes, 8256, 77).unwrap();
        assert_eq!((header.number, header.synced_through, header.closing), (9, through, true));
        assert_eq!(header.end(), 8256 + 64);
        assert_eq!(CommitHeader::read(&bytes, 8256, 78), None);
        assert_eq!(CommitHeader::read(&bytes, 8264, 77), None);
        for bit in 0..COMMIT_HEADER_BYTES * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CommitHeader::read(&flipped, 8256, 77), None, "bit {bit}");
        }
    }
}
