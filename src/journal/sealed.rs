//! What a sealed segment holds, in a small file beside it, so that a start need not read the segment.
//!
//! ```text
//!  byte 0       8        12      16        32       40      48        56       64
//!       ┌───────┬────────┬───────┬─────────┬────────┬───────┬─────────┬────────┬───────┬───────┬─ ─┬────────┐
//!       │ magic │ format │blocks │ store   │ number │ its   │ first   │ last   │ block │ block │ … │ CRC32C │
//!       │       │ u32    │ u32   │ id u128 │ u64    │ end   │ record's│ record's       │       │   │ of all │
//!       │       │        │       │         │        │ u64   │ time u64│ time u64       │       │   │ before │
//!       └───────┴────────┴───────┴─────────┴────────┴───────┴─────────┴────────┴───────┴───────┴─ ─┴────────┘
//!  a block: stream u128 │ first offset u64 │ position u32 │ bytes u32 │ records u32
//! ```
//!
//! The two times are `u64::MAX` and 0 where the segment has no record but the journal's own.
//!
//! **Invariants.** It is a cache: whatever is wrong with it, or if it is gone, the segment is read instead and the file
//! is made anew, so nothing waits for a sync of it. It counts only if it names the end that the next segment names too;
//! no segment's number is used twice.

use std::io;

use super::StreamId;
use super::disk::Disk;
use super::index::BlockRef;
use super::record::{u32_at, u64_at, u128_at};
use super::store::UNFINISHED;
use crate::domain::ids::{Offset, Timestamp};

const MAGIC: [u8; 8] = *b"\xffSLIDX\xff\x01";
const FORMAT: u32 = 1;
const SUFFIX: &str = ".index";
const HEADER_BYTES: usize = 64;
const BLOCK_BYTES: usize = 36;
const CRC_BYTES: usize = 4;

/// What a sealed segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) number: u64,
    /// Where its last commit ends.
    pub(super) end: u64,
    /// When its first and its last record were recorded; none where it has none.
    pub(super) recorded: Option<(Timestamp, Timestamp)>,
    /// Its blocks, as they lie.
    pub(super) blocks: Vec<(StreamId, BlockRef)>,
}

/// The name of the file beside a segment.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}

/// The segment's number in such a name; none if it is another file's.
pub(super) fn number_in(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?;
    (file_name(number) == name).then_some(number)
}

impl Sealed {
    /// Writes it down beside its segment.
    pub(super) fn put(&self, disk: &dyn Disk, store: u128) -> io::Result<()> {
        let name = file_name(self.number);
        let unfinished = format!("{name}{UNFINISHED}");
        let write = || {
            let file = disk.create(&unfinished)?;
            file.write_at(&self.to_bytes(store), 0)?;
            disk.rename(&unfinished, &name)
        };
        let written = write();
        if written.is_err() {
            // It takes room that others need; a start would remove it as well.
            let _ = disk.remove(&unfinished);
        }
        written
    }

    /// Reads what lies beside a segment; none where nothing does, or where it can not be trusted.
    pub(super) fn find(disk: &dyn Disk, store: u128, number: u64) -> Option<Self> {
        let file = disk.open(&file_name(number)).ok()?;
        let mut bytes = vec![0; usize::try_from(file.length().ok()?).ok()?];
        file.read_at(&mut bytes, 0).ok()?;
        Self::read(&bytes, store, number)
    }

    fn to_bytes(&self, store: u128) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.blocks.len() * BLOCK_BYTES + CRC_BYTES);
        let (from, to) = self.recorded.unwrap_or((Timestamp(u64::MAX), Timestamp(0)));
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        // A segment is bounded by SEGMENT_BYTES_MAX, and so are its blocks.
        bytes.extend_from_slice(&u32::try_from(self.blocks.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&store.to_le_bytes());
        for number in [self.number, self.end, from.0, to.0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (stream, block) in &self.blocks {
            bytes.extend_from_slice(&stream.0.to_le_bytes());
            bytes.extend_from_slice(&block.first.0.to_le_bytes());
            for number in [block.position, block.bytes, block.records] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8], store: u128, number: u64) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<CRC_BYTES>()?;
        let (header, blocks) = content.split_at_checked(HEADER_BYTES)?;
        let segment = u32::try_from(number).ok()?;
        let is_whole = header.starts_with(&MAGIC)
            && u32_at(header, 8) == FORMAT
            && crc32c::crc32c(content) == u32::from_le_bytes(*crc)
            && blocks.len() == u32_at(header, 12) as usize * BLOCK_BYTES;
        let is_its = u128_at(header, 16) == store && u64_at(header, 32) == number;
        if !is_whole || !is_its {
            return None;
        }
        let (from, to) = (Timestamp(u64_at(header, 48)), Timestamp(u64_at(header, 56)));
        let block = |bytes: &[u8]| {
            let block = BlockRef {
                first: Offset(u64_at(bytes, 16)),
                segment,
                position: u32_at(bytes, 24),
                bytes: u32_at(bytes, 28),
                records: u32_at(bytes, 32),
            };
            (StreamId(u128_at(bytes, 0)), block)
        };
        Some(Self {
            number,
            end: u64_at(header, 40),
            recorded: (from <= to).then_some((from, to)),
            blocks: blocks.chunks_exact(BLOCK_BYTES).map(block).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;

    fn sealed() -> Sealed {
        let block =
            |first, position| BlockRef { first: Offset(first), segment: 7, position, bytes: 300, records: 4 };
        Sealed {
            number: 7,
            end: 9_000,
            recorded: Some((Timestamp(5), Timestamp(6))),
            blocks: vec![(StreamId(u128::MAX - 1), block(1, 8_192)), (StreamId(2), block(90, 8_600))],
        }
    }

    #[test]
    fn it_reads_back_with_and_without_records() {
        for sealed in [sealed(), Sealed { recorded: None, blocks: Vec::new(), ..sealed() }] {
            assert_eq!(Sealed::read(&sealed.to_bytes(STORE), STORE, 7), Some(sealed));
        }
    }

    #[test]
    fn no_flipped_bit_no_cut_and_no_other_segment_or_store_is_taken_for_it() {
        let bytes = sealed().to_bytes(STORE);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Sealed::read(&flipped, STORE, 7), None, "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert_eq!(Sealed::read(&bytes[..end], STORE, 7), None, "cut at {end}");
        }
        assert_eq!(Sealed::read(&bytes, STORE + 1, 7), None);
        assert_eq!(Sealed::read(&bytes, STORE, 8), None);
    }

    #[test]
    fn file_names_are_read_strictly() {
        assert_eq!(number_in(&file_name(0xabc)), Some(0xabc));
        for wrong in ["1.index", "0000000000000ABC.index", "0000000000000001.index.tmp"] {
            assert_eq!(number_in(wrong), None, "{wrong}");
        }
    }
}
